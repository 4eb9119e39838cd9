#![no_main]

hushfs_fuzz::fuzzer!("slot");
