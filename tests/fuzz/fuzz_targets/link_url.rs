#![no_main]

hushfs_fuzz::fuzzer!("link_url");
