//! The operations, as they are drawn. They name what they work on by numbers that are taken modulo what is there, so
//! that any sequence, and any part of one, can be run.

use hushfs::vfs::api::{FallocateMode, RenameMode};
use proptest::prelude::*;

use super::machine::{Crash, ReplicaAfter};

pub type Pick = u16;

#[derive(Clone, Copy, Debug)]
pub struct Spot {
    pub dir: Pick,
    pub name: u8,
}

/// Relative to the file's size, to chunks, and to the windows of extents.
#[derive(Clone, Copy, Debug)]
pub enum Offset {
    Near(u32),
    /// Around a multiple of 1 MiB.
    Chunk(u8, i32),
    /// Around the end of the file.
    End(i32),
    /// Around a multiple of 64 MiB.
    Window(u8, i32),
    Far(u64),
}

#[derive(Clone, Copy, Debug)]
pub struct Data {
    pub len: u32,
    pub seed: u8,
}

#[derive(Clone, Copy, Debug)]
pub struct Set {
    pub mode: Option<u32>,
    pub owner: Option<(u32, u32)>,
    pub size: Option<Offset>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
pub enum Time {
    Now,
    At(i64, u32),
}

#[derive(Clone, Debug)]
pub enum Op {
    Create {
        at: Spot,
        mode: u32,
        keep_open: bool,
    },
    Mkdir {
        at: Spot,
        mode: u32,
    },
    Symlink {
        at: Spot,
        len: u16,
    },
    Mknod {
        at: Spot,
        kind: u8,
    },
    Link {
        node: Pick,
        at: Spot,
    },
    Unlink {
        path: Pick,
    },
    Rmdir {
        path: Pick,
    },
    Rename {
        path: Pick,
        to: Spot,
        mode: RenameMode,
    },
    /// Onto a name that exists.
    RenameOver {
        path: Pick,
        over: Pick,
        mode: RenameMode,
    },
    /// As editors save: a temporary file, written and renamed over, without any sync.
    Save {
        at: Spot,
        data: Data,
    },
    Open {
        file: Pick,
        truncate: bool,
    },
    OpenDir {
        dir: Pick,
    },
    Close {
        handle: Pick,
    },
    Write {
        file: Pick,
        at: Offset,
        data: Data,
        kill: bool,
    },
    Read {
        file: Pick,
        at: Offset,
        len: u32,
    },
    Allocate {
        file: Pick,
        at: Offset,
        len: u32,
        mode: FallocateMode,
    },
    Copy {
        from: Pick,
        to: Pick,
        at: Offset,
        onto: Offset,
        len: u32,
    },
    Seek {
        file: Pick,
        at: Offset,
    },
    SetAttr {
        node: Pick,
        set: Set,
    },
    SetXattr {
        node: Pick,
        name: u8,
        data: Data,
    },
    RemoveXattr {
        node: Pick,
        name: u8,
    },
    /// A listing in pages, between which names come and go.
    List {
        dir: Pick,
        page: u8,
        churn: Vec<u8>,
    },
    Fsync {
        file: Pick,
        data_only: bool,
    },
    FsyncDir {
        dir: Pick,
    },
    Cut,
    Flush,
    Offline,
    Online,
    Compare,
    Reopen,
    NewDevice,
    Crash {
        how: Crash,
        replica: ReplicaAfter,
        during: During,
    },
}

/// What else happens at a crash.
#[derive(Clone, Copy, Debug)]
pub enum During {
    Nothing,
    /// The disk stops after so many changes of this.
    Fsync {
        file: Pick,
        changes: u8,
    },
    Flush {
        changes: u8,
    },
    Cut {
        changes: u8,
    },
    /// Another one while recovering.
    Opening {
        changes: u8,
    },
}

fn spot() -> impl Strategy<Value = Spot> {
    (any::<Pick>(), any::<u8>()).prop_map(|(dir, name)| Spot { dir, name })
}

fn offset() -> impl Strategy<Value = Offset> {
    prop_oneof![
        6 => (0..300_000u32).prop_map(Offset::Near),
        4 => (0..4u8, -3000..3000i32).prop_map(|(chunk, by)| Offset::Chunk(chunk, by)),
        3 => (0..3u8).prop_map(|chunk| Offset::Chunk(chunk, 0)),
        6 => Just(Offset::End(0)),
        3 => (-70_000..70_000i32).prop_map(Offset::End),
        1 => (0..3u8, -100_000..100_000i32).prop_map(|(window, by)| Offset::Window(window, by)),
        1 => (0..1u64 << 42).prop_map(Offset::Far),
    ]
}

fn data() -> impl Strategy<Value = Data> {
    let len = prop_oneof![
        8 => 1..6_000u32,
        3 => 1..200_000u32,
        1 => 250_000..600_000u32,
        1 => Just(1 << 20),
        1 => (1u32 << 20) - 3000..(2 << 20) + 3000,
    ];
    (len, 0..6u8).prop_map(|(len, seed)| Data { len, seed })
}

fn set() -> impl Strategy<Value = Set> {
    let time = prop_oneof![
        Just(Time::Now),
        (-10_000_000_000i64..20_000_000_000, 0..1_000_000_000u32).prop_map(|(secs, nanos)| Time::At(secs, nanos))
    ];
    let owner = (0..4u32, 0..4u32);
    (
        proptest::option::weighted(0.4, 0..0o10000u32),
        proptest::option::weighted(0.2, owner),
        proptest::option::weighted(0.4, offset()),
        proptest::option::weighted(0.2, time.clone()),
        proptest::option::weighted(0.3, time),
    )
        .prop_map(|(mode, owner, size, atime, mtime)| Set { mode, owner, size, atime, mtime })
}

fn rename_mode() -> impl Strategy<Value = RenameMode> {
    prop_oneof![3 => Just(RenameMode::Replace), 1 => Just(RenameMode::NoReplace), 1 => Just(RenameMode::Exchange)]
}

fn allocate_mode() -> impl Strategy<Value = FallocateMode> {
    use FallocateMode::*;
    prop_oneof![Just(Allocate), Just(AllocateKeepSize), Just(PunchHole), Just(Zero), Just(ZeroKeepSize)]
}

fn crash() -> impl Strategy<Value = Op> {
    let how = prop_oneof![1 => Just(Crash::Kill), 3 => any::<u64>().prop_map(|seed| Crash::Power { seed })];
    let replica = prop_oneof![
        3 => Just(ReplicaAfter::AsItWas),
        1 => Just(ReplicaAfter::Older),
        1 => Just(ReplicaAfter::Deleted),
    ];
    let changes = || 0..12u8;
    let during = prop_oneof![
        4 => Just(During::Nothing),
        2 => (any::<Pick>(), changes()).prop_map(|(file, changes)| During::Fsync { file, changes }),
        1 => changes().prop_map(|changes| During::Flush { changes }),
        1 => changes().prop_map(|changes| During::Cut { changes }),
        1 => (0..40u8).prop_map(|changes| During::Opening { changes }),
    ];
    (how, replica, during).prop_map(|(how, replica, during)| Op::Crash { how, replica, during })
}

pub fn op() -> BoxedStrategy<Op> {
    let pick = any::<Pick>;
    prop_oneof![
        8 => (spot(), 0..0o10000u32, any::<bool>()).prop_map(|(at, mode, keep_open)| Op::Create { at, mode, keep_open }),
        4 => (spot(), 0..0o10000u32).prop_map(|(at, mode)| Op::Mkdir { at, mode }),
        1 => (spot(), 1..300u16).prop_map(|(at, len)| Op::Symlink { at, len }),
        1 => (spot(), any::<u8>()).prop_map(|(at, kind)| Op::Mknod { at, kind }),
        2 => (pick(), spot()).prop_map(|(node, at)| Op::Link { node, at }),
        4 => pick().prop_map(|path| Op::Unlink { path }),
        2 => pick().prop_map(|path| Op::Rmdir { path }),
        3 => (pick(), spot(), rename_mode()).prop_map(|(path, to, mode)| Op::Rename { path, to, mode }),
        3 => (pick(), pick(), rename_mode()).prop_map(|(path, over, mode)| Op::RenameOver { path, over, mode }),
        3 => (spot(), data()).prop_map(|(at, data)| Op::Save { at, data }),
        4 => (pick(), proptest::bool::weighted(0.2)).prop_map(|(file, truncate)| Op::Open { file, truncate }),
        1 => pick().prop_map(|dir| Op::OpenDir { dir }),
        3 => pick().prop_map(|handle| Op::Close { handle }),
        22 => (pick(), offset(), data(), any::<bool>())
            .prop_map(|(file, at, data, kill)| Op::Write { file, at, data, kill }),
        4 => (pick(), offset(), 1..300_000u32).prop_map(|(file, at, len)| Op::Read { file, at, len }),
        5 => (pick(), offset(), 1..1_500_000u32, allocate_mode())
            .prop_map(|(file, at, len, mode)| Op::Allocate { file, at, len, mode }),
        4 => (pick(), pick(), offset(), offset(), 1..1_500_000u32)
            .prop_map(|(from, to, at, onto, len)| Op::Copy { from, to, at, onto, len }),
        2 => (pick(), offset()).prop_map(|(file, at)| Op::Seek { file, at }),
        7 => (pick(), set()).prop_map(|(node, set)| Op::SetAttr { node, set }),
        2 => (pick(), any::<u8>(), data()).prop_map(|(node, name, data)| Op::SetXattr { node, name, data }),
        1 => (pick(), any::<u8>()).prop_map(|(node, name)| Op::RemoveXattr { node, name }),
        1 => (pick(), 1..4u8, prop::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(dir, page, churn)| Op::List { dir, page, churn }),
        6 => (pick(), any::<bool>()).prop_map(|(file, data_only)| Op::Fsync { file, data_only }),
        2 => pick().prop_map(|dir| Op::FsyncDir { dir }),
        4 => Just(Op::Cut),
        2 => Just(Op::Flush),
        1 => Just(Op::Offline),
        2 => Just(Op::Online),
        2 => Just(Op::Compare),
        2 => Just(Op::Reopen),
        1 => Just(Op::NewDevice),
        6 => crash(),
    ]
    .boxed()
}
