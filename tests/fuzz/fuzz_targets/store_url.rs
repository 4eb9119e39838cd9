#![no_main]

hushfs_fuzz::fuzzer!("store_url");
