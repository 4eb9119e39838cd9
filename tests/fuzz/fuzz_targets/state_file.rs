#![no_main]

hushfs_fuzz::fuzzer!("state_file");
