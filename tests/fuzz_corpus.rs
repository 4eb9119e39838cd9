//! The fuzzers' targets over what fuzzing starts from, what it has found, and damaged copies of both: quick, in every
//! run of the tests. `scripts/fuzz.sh` goes on from there with libFuzzer.

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use targets::{ALL, Target};

/// Damaged copies of each input.
const COPIES: usize = 60;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

#[test]
fn every_target_takes_its_seeds_and_opens_some() {
    for target in ALL {
        let decoded = target.inputs().iter().filter(|input| target.run(input).is_some()).count();
        assert!(decoded > 0, "{}: no seed decodes, so that nothing behind the first check is reached", target.name);
    }
}

#[test]
fn every_target_takes_damaged_seeds() {
    let mut random = StdRng::seed_from_u64(4);
    for target in ALL {
        let seeds = target.inputs();
        for seed in &seeds {
            for _ in 0..COPIES {
                let other = &seeds[random.random_range(0..seeds.len())];
                let _ = target.run(&damaged(seed, other, &mut random));
            }
        }
    }
}

/// Up to four of: a bit flipped, a byte replaced, cut, lengthened, a part of another put in.
fn damaged(input: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut input = input.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..5) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            2 => input.truncate(at),
            3 => input.extend((0..random.random_range(1..20)).map(|_| random.random::<u8>())),
            _ => {
                let from = random.random_range(0..=other.len());
                let part = &other[from..(from + random.random_range(0..40)).min(other.len())];
                input.splice(at..at, part.iter().copied());
            }
        }
    }
    input
}

#[test]
fn what_takes_too_much_memory_is_noticed() {
    let lying = Target::of("lying", |data| {
        drop(Vec::<u8>::with_capacity(data.len() << 20));
        Some(())
    });
    assert!(std::panic::catch_unwind(|| lying.run(b"7")).is_err());
    assert_eq!(lying.run(b""), Some(()));
}

#[test]
fn every_target_has_its_fuzzer() {
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("the fuzzers' manifest");
    let mut files: Vec<_> = fs::read_dir(folder().join("fuzz_targets"))
        .expect("the fuzzers")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    files.sort();
    let mut expected: Vec<_> = ALL.iter().map(|target| format!("{}.rs", target.name)).collect();
    expected.sort();
    assert_eq!(files, expected);
    for file in files {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{file}\"")), "{file} is not in Cargo.toml");
    }
}
