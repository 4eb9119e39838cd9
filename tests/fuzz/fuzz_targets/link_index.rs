#![no_main]

hushfs_fuzz::fuzzer!("link_index");
