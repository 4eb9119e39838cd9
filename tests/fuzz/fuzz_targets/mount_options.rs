#![no_main]

hushfs_fuzz::fuzzer!("mount_options");
