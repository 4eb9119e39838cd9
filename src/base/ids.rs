//! Identifiers. Those made by a device are its slot in the upper 16 bits and a counter in the lower
//! 48: unique without asking anyone, and clustered, so that a new tree touches few pages.

use std::fmt;

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl $name {
            /// Exactly as `Display` writes it: lower-case hexadecimal.
            pub fn parse_hex(text: &str) -> Option<Self> {
                if text.len() != 2 * $len || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return None;
                }
                let mut bytes = [0; $len];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
                }
                Some(Self(bytes))
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bytes_id!(/// What `init` makes under one URL.
    VolumeId, 16);
bytes_id!(/// One run of a device.
    Incarnation, 16);
bytes_id!(/// A checkpoint's segment; random.
    SegmentId, 16);
bytes_id!(/// A link: the hash of the key that its records are signed with.
    LinkId, 16);
bytes_id!(/// BLAKE3 of a sealed object, or of an intent chain.
    Hash, 32);

/// BLAKE3 of a chunk's plaintext. It exists only inside sealed metadata, so it is never printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkId(..)")
    }
}

number_id!(/// A device's place in the volume; 0 is the volume itself (only the root directory has it).
    DeviceSlot, u16);
number_id!(/// slot ‖ counter.
    InodeId, u64);
number_id!(/// slot ‖ counter; a chunk's row.
    ChunkNo, u64);
number_id!(/// slot ‖ counter; a wrapped file key's row.
    KeyNo, u64);
number_id!(/// slot ‖ counter; a pack's row.
    PackNo, u64);
number_id!(/// A record's place in the log, from 1; 0 is the empty volume before the first record.
    Seq, u64);
number_id!(/// Which root key; from 0, one more with each rotation.
    Epoch, u32);
number_id!(/// An intent's place in its incarnation, from 1; 0 is none.
    IntentNo, u64);

impl Hash {
    pub const ZERO: Self = Self([0; 32]);
}

impl InodeId {
    pub const ROOT: Self = Self(1);
}

/// A pack's name in the store: `pk/<incarnation>/<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackName {
    pub incarnation: Incarnation,
    /// From 1, counted by the incarnation.
    pub number: u64,
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pk/{}/{:020}", self.incarnation, self.number)
    }
}

/// The next counters of a device slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub inode: u64,
    pub chunk: u64,
    pub key: u64,
    pub pack: u64,
}

impl Numbers {
    /// Inode counters start at 2: slot 0's 1 is the root directory, and 1 in every slot stays unused.
    pub const FIRST: Self = Self { inode: 2, chunk: 1, key: 1, pack: 1 };

    /// The smaller of each.
    pub fn min(self, other: Self) -> Self {
        Self {
            inode: self.inode.min(other.inode),
            chunk: self.chunk.min(other.chunk),
            key: self.key.min(other.key),
            pack: self.pack.min(other.pack),
        }
    }

    /// The larger of each, so that no number is given out twice.
    pub fn max(self, other: Self) -> Self {
        Self {
            inode: self.inode.max(other.inode),
            chunk: self.chunk.max(other.chunk),
            key: self.key.max(other.key),
            pack: self.pack.max(other.pack),
        }
    }
}

impl DeviceSlot {
    pub const COUNTER_BITS: u32 = 48;

    pub const fn number(self, counter: u64) -> u64 {
        assert!(counter < 1 << Self::COUNTER_BITS);
        ((self.0 as u64) << Self::COUNTER_BITS) | counter
    }

    /// The slot and the counter in a number made by `number`.
    pub const fn split(number: u64) -> (Self, u64) {
        (Self((number >> Self::COUNTER_BITS) as u16), number & ((1 << Self::COUNTER_BITS) - 1))
    }
}
