#![no_main]

hushfs_fuzz::fuzzer!("wrapped_key");
