//! Real volumes over a store that is the adversary: random sequences of what users do, of remounts, of new machines,
//! and of what such a store can do (`hushfs::store::EvilWorld`).
//!
//! What must hold, whatever it does:
//!
//! 1. A read gives the exact bytes, and a listing the exact names, of a state that was cut for a record (a device's
//!    own directory: of what it did last, committed or not), or an error. A known device never goes back: for every
//!    directory of others it sees what it saw before, or something newer.
//! 2. What a device accepted as history stays its history: the log that it trusts only ever grows.
//! 3. After a device said that the store went back or forked, it uploads nothing more until it sees the truth again.
//! 4. No call takes longer than its deadline, nothing panics, and no object is asked for without end.
//! 5. Shown the truth again, a device whose history that is goes on by itself and loses nothing that it acknowledged;
//!    one that was led away from it refuses, and says so.
//!
//! Time is virtual: a wait of half a minute costs nothing, and none is skipped. `HUSHFS_EVIL_CASES` is how many cases
//! are run, on `HUSHFS_EVIL_THREADS` threads, drawn from `PROPTEST_RNG_SEED` if that is set; a failing one is shrunk,
//! printed with its seed, and kept in `tests/evil.proptest-regressions`. `HUSHFS_EVIL_TRACE` prints each step.

#[path = "evil/kept.rs"]
mod kept;
#[path = "evil/machine.rs"]
mod machine;
#[path = "evil/op.rs"]
mod op;
#[path = "support/rig.rs"]
mod rig;
#[path = "evil/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestRunner};

use world::World;

const CASES: u32 = 200;

fn number(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn cases_that_failed_once_fail_no_more() {
    for (what, ops) in kept::CASES {
        eprintln!("{what}");
        World::play(ops);
    }
}

#[test]
fn whatever_the_store_does_reads_are_right_or_errors_and_the_drive_recovers() {
    let (cases, threads) = (number("HUSHFS_EVIL_CASES", CASES), number("HUSHFS_EVIL_THREADS", 2).max(1));
    let config = Config {
        cases: cases.div_ceil(threads),
        max_shrink_time: 120_000,
        max_shrink_iters: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/evil.proptest-regressions"))),
        ..Config::default()
    };
    let played = AtomicU64::new(0);
    let run = |thread: u32| {
        let rng_seed = match config.rng_seed {
            RngSeed::Random => RngSeed::Random,
            // Not the same cases on each thread.
            RngSeed::Fixed(seed) => RngSeed::Fixed(seed.wrapping_add(thread.into())),
        };
        TestRunner::new(Config { rng_seed, ..config.clone() }).run(&op::case(), |ops| {
            World::play(&ops);
            let played = played.fetch_add(1, Ordering::Relaxed) + 1;
            if played.is_multiple_of(100) {
                eprintln!("{played} cases");
            }
            Ok(())
        })
    };
    let failed = std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().find_map(|thread| thread.join().expect("a runner").err())
    });
    if let Some(error) = failed {
        panic!("{error}");
    }
}
