#![no_main]

hushfs_fuzz::fuzzer!("epoch_link");
