//! The drive against a reference: random operations are done both to a real volume (all layers, in this process,
//! without FUSE) and to a filesystem in memory, and every result and from time to time the whole trees are compared.
//!
//! The volume's journal and staging are on a simulated disk and its store is in memory, so that power losses, kills,
//! lost state folders and stores that take nothing are operations like any other.
//!
//! What must hold after a crash, for the tree that the next opening shows:
//!
//! 1. It is the tree of *one moment* at or after the last point at which everything was durable: every name, link
//!    count, attribute and directory is as it was then. Such points are each fsync and fsyncdir that returned (they
//!    make all metadata durable), a flush, a clean close, and an opening. An fsync or flush that the crash
//!    interrupts is none, but leaves a moment all the same.
//! 2. A file's content, size and mtime are *together* those of that moment, or of an earlier one, but not from
//!    before the last change that names the file: create, link, rename, exchange, truncate, punch, chmod, chown,
//!    utimens; nor from before its own last fsync or the last point of rule 1 that covered all files. So there is no
//!    empty or half file after write-and-rename, and no size or mtime without its bytes.
//! 3. Every file can be read to its end, and the tree is sound: link counts are those of the names that are there.
//!
//! After a clean close, and on a new device after a flush, the tree is exactly the reference's.
//!
//! Not compared: `blocks`, `blksize`, sizes of directories, and ctime where rule 2 shows an earlier version. Holes may
//! be found in finer or coarser steps.
//!
//! `HUSHFS_MODEL_CASES` is how many sequences are run; a failing one goes to `model.proptest-regressions`, and is
//! printed with all its operations. With `HUSHFS_MODEL_TRACE` each step and the drive's own log are printed as they go.

#[path = "model/machine.rs"]
mod machine;
#[path = "support/memfs/mod.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod memfs;
#[path = "model/op.rs"]
mod op;
#[path = "model/tree.rs"]
mod tree;
#[path = "model/world.rs"]
mod world;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use op::Op;
use world::World;

const CASES: u32 = 150;

/// Operations name things by numbers, so that drawing them needs to know nothing; the reference itself, which cannot
/// be copied, lives beside the volume.
#[derive(Clone, Debug)]
struct Anything;

impl ReferenceStateMachine for Anything {
    type State = Self;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Op> {
        op::op()
    }

    fn apply(state: Self, _: &Op) -> Self {
        state
    }
}

struct Model;

impl StateMachineTest for Model {
    type SystemUnderTest = World;
    type Reference = Anything;

    fn init_test(_: &Anything) -> World {
        World::new()
    }

    fn apply(mut world: World, _: &Anything, op: Op) -> World {
        world.step(&op);
        world
    }

    fn teardown(mut world: World, _: Anything) {
        world.end();
    }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("HUSHFS_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    ProptestConfig {
        cases,
        max_shrink_time: 60_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model.proptest-regressions"))),
        ..ProptestConfig::default()
    }
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn the_drive_does_what_the_reference_does(sequential 1..90 => Model);
}
