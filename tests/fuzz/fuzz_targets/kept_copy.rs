#![no_main]

hushfs_fuzz::fuzzer!("kept_copy");
