#![no_main]

hushfs_fuzz::fuzzer!("object_name");
