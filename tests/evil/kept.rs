//! Cases that failed once, as they were shrunk, and what was wrong.

use hushfs::store::Evil;

use crate::op::Op;

const fn evil(evil: Evil) -> Op {
    Op::Evil { others: false, evil }
}

const fn write(name: u8, len: u32) -> Op {
    Op::Write { name, seed: 1, len }
}

pub const CASES: [(&str, &[Op]); 10] = [
    (
        "what the store made up was kept as a local copy, and outlived its repentance",
        &[evil(Evil::FlipBit { object: 4823, bit: 0 }), Op::LoseReplica { copies: true }],
    ),
    ("an object without end was read until there was no memory", &[evil(Evil::Endless { object: 3 }), Op::NewMachine]),
    (
        "a record without end was read until there was no memory",
        &[evil(Evil::Endless { object: 4 }), Op::LoseReplica { copies: true }],
    ),
    (
        "packs went up to a store that was seen to be an older one",
        &[
            evil(Evil::RollBack { keep: 4 }),
            write(0, 1_000),
            Op::Flush,
            write(1, 200_000),
            Op::Flush,
            write(2, 3_000),
            Op::Flush,
        ],
    ),
    (
        "a replica that was rebuilt from a fork was kept, and contradicted the true history ever after",
        &[
            Op::NewMachine,
            evil(Evil::Fork),
            write(0, 1_000),
            Op::Flush,
            write(1, 1_000),
            Op::Flush,
            Op::Switch { machine: 0 },
            write(0, 500),
            Op::Flush,
            write(1, 500),
            Op::Flush,
            write(2, 500),
            Op::Flush,
            evil(Evil::Show { branch: 1 }),
            Op::LoseReplica { copies: true },
            Op::Repent,
            Op::Remount,
            Op::Check,
        ],
    ),
    (
        "a drive that was led astray while it was mounted, and shown the truth again",
        &[
            Op::NewMachine,
            evil(Evil::Fork),
            write(0, 1_000),
            Op::Flush,
            Op::Switch { machine: 0 },
            write(0, 500),
            Op::Flush,
            evil(Evil::Show { branch: 1 }),
            write(1, 200_000),
            Op::Flush,
            write(2, 200_000),
            Op::Flush,
            Op::Repent,
            Op::Flush,
            Op::Remount,
            Op::Check,
        ],
    ),
    (
        "a record that reached a fork as its device was closed: the truth is refused later, and rightly",
        &[write(1, 269), evil(Evil::Fork), Op::Cut, Op::Cut, Op::NewMachine, write(2, 1_130_925), write(3, 2_433)],
    ),
    (
        "a checkpoint that was under way as a forking store repented names a record that it no longer has",
        &[Op::Grow { seed: 166 }, write(1, 1_140_281), write(1, 26_892), Op::Kill, evil(Evil::Fork), Op::Flush],
    ),
    (
        "a record that was under way as a forking store repented stands behind a gap: who is new must not go on before it",
        &[
            write(4, 1_400),
            evil(Evil::Fork),
            Op::Switch { machine: 0 },
            Op::Check,
            write(1, 3_216),
            Op::Flush,
            Op::Grow { seed: 224 },
            Op::Cut,
            Op::Rename { from: 3, to: 4 },
            Op::Remove { name: 0 },
        ],
    ),
    (
        "a pack without end is asked for its end, where it is said to be",
        &[
            evil(Evil::Inject { object: 19_192, at: 24_425 }),
            write(1, 177),
            Op::Flush,
            evil(Evil::Endless { object: 35_601 }),
            Op::Remount,
        ],
    ),
];
