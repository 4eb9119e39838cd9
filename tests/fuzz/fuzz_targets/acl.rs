#![no_main]

hushfs_fuzz::fuzzer!("acl");
