//! What `fuzz_targets/` share.

#[path = "targets/mod.rs"]
pub mod targets;

use std::{env, fs, path::PathBuf};

/// The fuzzer of the target of that name.
#[macro_export]
macro_rules! fuzzer {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(init: $crate::write_inputs($name), |data: &[u8]| {
            let _ = $crate::targets::Target::named($name).run(data);
        });
    };
}

/// Into the target's folder in the one that scripts/fuzz.sh names, before libFuzzer reads it.
pub fn write_inputs(name: &str) {
    let Some(corpus) = env::var_os("HUSHFS_FUZZ_CORPUS") else { return };
    for (number, input) in targets::Target::named(name).inputs().iter().enumerate() {
        let path = PathBuf::from(&corpus).join(name).join(format!("start-{number}"));
        fs::write(&path, input).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
