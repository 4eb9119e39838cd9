//! What can happen in a case. Everything is named by numbers that are taken modulo what is there, so that any part of
//! a sequence can be run.

use hushfs::store::{Evil, Pick};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
pub enum Op {
    Write {
        name: u8,
        seed: u8,
        len: u32,
    },
    Remove {
        name: u8,
    },
    Rename {
        from: u8,
        to: u8,
    },
    /// So much metadata that a checkpoint is due.
    Grow {
        seed: u8,
    },
    /// Queues a commit.
    Cut,
    /// Waits a little for all to be in the store.
    Flush,
    Check,
    Remount,
    Kill,
    /// To another machine that has the volume.
    Switch {
        machine: u8,
    },
    NewMachine,
    /// The machine's database is gone, and with it what was only a copy.
    LoseReplica {
        copies: bool,
    },
    DropCache,
    Evil {
        /// To the others instead of to the one that is mounted.
        others: bool,
        evil: Evil,
    },
    Repent,
}

fn evil() -> impl Strategy<Value = Evil> {
    let pick = any::<Pick>;
    prop_oneof![
        3 => pick().prop_map(|keep| Evil::RollBack { keep }),
        2 => Just(Evil::Fork),
        2 => pick().prop_map(|branch| Evil::Show { branch }),
        2 => (pick(), pick()).prop_map(|(one, other)| Evil::Swap { one, other }),
        2 => (pick(), pick()).prop_map(|(one, other)| Evil::Reorder { one, other }),
        3 => (pick(), any::<u32>()).prop_map(|(object, bit)| Evil::FlipBit { object, bit }),
        2 => (pick(), any::<u32>()).prop_map(|(object, len)| Evil::Truncate { object, len }),
        1 => (pick(), pick()).prop_map(|(object, by)| Evil::Extend { object, by }),
        1 => pick().prop_map(|object| Evil::Double { object }),
        1 => pick().prop_map(|object| Evil::Endless { object }),
        3 => pick().prop_map(|object| Evil::Delete { object }),
        3 => (pick(), pick()).prop_map(|(object, at)| Evil::Inject { object, at }),
        1 => (pick(), pick()).prop_map(|(object, at)| Evil::InjectForeign { object, at }),
        1 => (pick(), pick()).prop_map(|(object, foreign)| Evil::ReplaceByForeign { object, foreign }),
        3 => (any::<u32>(), 1..700u16).prop_map(|(seed, per_mille)| Evil::Lie { seed, per_mille }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![6 => 0..5_000u32, 2 => 5_000..300_000u32, 1 => (1u32 << 20)..(1 << 20) + 100_000];
    prop_oneof![
        8 => (0..5u8, 0..6u8, len).prop_map(|(name, seed, len)| Op::Write { name, seed, len }),
        1 => (0..5u8).prop_map(|name| Op::Remove { name }),
        1 => (0..5u8, 0..5u8).prop_map(|(from, to)| Op::Rename { from, to }),
        1 => any::<u8>().prop_map(|seed| Op::Grow { seed }),
        2 => Just(Op::Cut),
        5 => Just(Op::Flush),
        2 => Just(Op::Check),
        2 => Just(Op::Remount),
        1 => Just(Op::Kill),
        3 => any::<u8>().prop_map(|machine| Op::Switch { machine }),
        1 => Just(Op::NewMachine),
        1 => any::<bool>().prop_map(|copies| Op::LoseReplica { copies }),
        1 => Just(Op::DropCache),
        9 => (proptest::bool::weighted(0.2), evil()).prop_map(|(others, evil)| Op::Evil { others, evil }),
        2 => Just(Op::Repent),
    ]
}

pub fn case() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 1..25)
}
