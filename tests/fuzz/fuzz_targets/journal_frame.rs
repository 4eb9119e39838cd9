#![no_main]

hushfs_fuzz::fuzzer!("journal_frame");
