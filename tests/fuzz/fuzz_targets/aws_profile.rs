#![no_main]

hushfs_fuzz::fuzzer!("aws_profile");
