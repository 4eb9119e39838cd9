#![no_main]

hushfs_fuzz::fuzzer!("gateway_request");
