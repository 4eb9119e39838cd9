//! Every object's name in the store. One name has one spelling: fixed widths, lower case.

use crate::base::{Epoch, Incarnation, LinkId, MIB, PackName, SegmentId, Seq};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    Volume,
    Slot(Epoch, SlotNo),
    /// An epoch's link to the one before it.
    Chain(Epoch),
    Log(Seq),
    Floor(u64),
    Checkpoint(Seq),
    Segment(SegmentId),
    Pack(PackName),
    /// A link's record.
    Share(LinkId, u64),
    /// A link's own pack.
    SharePack(LinkId, u64),
}

/// A way to unlock the volume; not a device's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotNo(u16);

impl SlotNo {
    pub const MAX: u16 = 9999;

    pub const fn new(number: u16) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for SlotNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Of what can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    Everything,
    Slots,
    SlotsOf(Epoch),
    Log,
    Floors,
    Checkpoints,
    Segments,
    Packs,
    PacksOf(Incarnation),
    Shares,
    /// A link's records and packs.
    ShareOf(LinkId),
    SharePacksOf(LinkId),
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume => f.write_str("hushfs.volume"),
            Self::Slot(epoch, slot) => write!(f, "keys/{:010}/{:04}", epoch.0, slot.0),
            Self::Chain(epoch) => write!(f, "keys/{:010}/chain", epoch.0),
            Self::Log(seq) => write!(f, "log/{:020}", seq.0),
            Self::Floor(number) => write!(f, "floor/{number:020}"),
            Self::Checkpoint(seq) => write!(f, "ck/{:020}", seq.0),
            Self::Segment(id) => write!(f, "seg/{id}"),
            Self::Pack(name) => write!(f, "pk/{}/{:020}", name.incarnation, name.number),
            Self::Share(link, number) => write!(f, "share/{link}/{number:020}"),
            Self::SharePack(link, number) => write!(f, "share/{link}/pk/{number:020}"),
        }
    }
}

/// Ends in `/`, or is empty.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => Ok(()),
            Self::Slots => f.write_str("keys/"),
            Self::SlotsOf(epoch) => write!(f, "keys/{:010}/", epoch.0),
            Self::Log => f.write_str("log/"),
            Self::Floors => f.write_str("floor/"),
            Self::Checkpoints => f.write_str("ck/"),
            Self::Segments => f.write_str("seg/"),
            Self::Packs => f.write_str("pk/"),
            Self::PacksOf(incarnation) => write!(f, "pk/{incarnation}/"),
            Self::Shares => f.write_str("share/"),
            Self::ShareOf(link) => write!(f, "share/{link}/"),
            Self::SharePacksOf(link) => write!(f, "share/{link}/pk/"),
        }
    }
}

/// Of objects that are read whole: records, manifests, segments. Writers stay far below.
pub const WHOLE_LEN_MAX: u64 = 128 * MIB;
/// Of the volume object, slots, chain links and floors, which have a few KiB, and of a link's records.
const SMALL_LEN_MAX: u64 = MIB;

impl ObjectName {
    /// No writer makes a longer object of this kind, so that no reader has to hold more in memory.
    pub const fn len_max(&self) -> u64 {
        match self {
            Self::Volume | Self::Slot(..) | Self::Chain(_) | Self::Floor(_) | Self::Share(..) => SMALL_LEN_MAX,
            Self::Log(_) | Self::Checkpoint(_) | Self::Segment(_) | Self::Pack(_) | Self::SharePack(..) => {
                WHOLE_LEN_MAX
            }
        }
    }

    /// Exactly what `Display` writes; anything else is none of ours.
    pub fn parse(path: &str) -> Option<Self> {
        if path == "hushfs.volume" {
            return Some(Self::Volume);
        }
        let (folder, rest) = path.split_once('/')?;
        match folder {
            "keys" => {
                let (epoch, slot) = rest.split_once('/')?;
                let epoch = u32::try_from(digits(epoch, 10)?).ok()?;
                if slot == "chain" {
                    return Some(Self::Chain(Epoch(epoch)));
                }
                let slot = u16::try_from(digits(slot, 4)?).ok()?;
                Some(Self::Slot(Epoch(epoch), SlotNo::new(slot)?))
            }
            "log" => digits(rest, 20).map(|seq| Self::Log(Seq(seq))),
            "floor" => digits(rest, 20).map(Self::Floor),
            "ck" => digits(rest, 20).map(|seq| Self::Checkpoint(Seq(seq))),
            "seg" => SegmentId::parse_hex(rest).map(Self::Segment),
            "pk" => {
                let (incarnation, number) = rest.split_once('/')?;
                let incarnation = Incarnation::parse_hex(incarnation)?;
                Some(Self::Pack(PackName { incarnation, number: digits(number, 20)? }))
            }
            "share" => {
                let (link, rest) = rest.split_once('/')?;
                let link = LinkId::parse_hex(link)?;
                match rest.strip_prefix("pk/") {
                    Some(number) => Some(Self::SharePack(link, digits(number, 20)?)),
                    None => Some(Self::Share(link, digits(rest, 20)?)),
                }
            }
            _ => None,
        }
    }
}

/// Exactly `width` decimal digits, as a number of 64 bits.
fn digits(text: &str, width: usize) -> Option<u64> {
    (text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = ObjectName> {
        prop_oneof![
            Just(ObjectName::Volume),
            (any::<u32>(), 0..=SlotNo::MAX).prop_map(|(epoch, slot)| ObjectName::Slot(Epoch(epoch), SlotNo(slot))),
            any::<u32>().prop_map(|epoch| ObjectName::Chain(Epoch(epoch))),
            any::<u64>().prop_map(|seq| ObjectName::Log(Seq(seq))),
            any::<u64>().prop_map(ObjectName::Floor),
            any::<u64>().prop_map(|seq| ObjectName::Checkpoint(Seq(seq))),
            any::<[u8; 16]>().prop_map(|id| ObjectName::Segment(SegmentId(id))),
            (any::<[u8; 16]>(), any::<u64>())
                .prop_map(|(id, number)| ObjectName::Pack(PackName { incarnation: Incarnation(id), number })),
            (any::<[u8; 16]>(), any::<u64>()).prop_map(|(id, number)| ObjectName::Share(LinkId(id), number)),
            (any::<[u8; 16]>(), any::<u64>()).prop_map(|(id, number)| ObjectName::SharePack(LinkId(id), number)),
        ]
    }

    proptest! {
        #[test]
        fn names_round_trip(name in name()) {
            prop_assert_eq!(ObjectName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn a_name_has_one_spelling(name in name(), at: prop::sample::Index, byte in 0x20u8..0x7f) {
            let mut path = name.to_string().into_bytes();
            let at = at.index(path.len());
            path[at] = byte;
            let path = String::from_utf8(path).unwrap();
            if let Some(other) = ObjectName::parse(&path) {
                prop_assert_eq!(other.to_string(), path);
            }
        }

        #[test]
        fn numbers_sort_as_their_names_do(a: u64, b: u64) {
            let (x, y) = (ObjectName::Log(Seq(a)).to_string(), ObjectName::Log(Seq(b)).to_string());
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        }
    }

    #[test]
    fn what_is_not_exactly_a_name_is_none() {
        for path in [
            "",
            "hushfs.volume/",
            "/hushfs.volume",
            "hushfs.Volume",
            "log/1",
            "log/000000000000000000001",
            "log/0000000000000000001",
            "log/+0000000000000000001",
            "log/18446744073709551616",
            "log/00000000000000000001/",
            "keys/0000000001",
            "keys/0000000001/chains",
            "keys/chain",
            "keys/4294967296/0001",
            "keys/0000000001/00010",
            "seg/ABCDEF00000000000000000000000000",
            "seg/abcdef",
            "pk/abcdef00000000000000000000000000/1",
            "pk/00000000000000000001",
            "other/00000000000000000001",
            "share/00000000000000000001",
            "share/abcdef00000000000000000000000000/1",
            "share/ABCDEF00000000000000000000000000/00000000000000000001",
            "share/abcdef00000000000000000000000000/pk/1",
            "share/abcdef00000000000000000000000000/pk/pk/00000000000000000001",
            "share/abcdef00000000000000000000000000/../00000000000000000001",
        ] {
            assert_eq!(ObjectName::parse(path), None, "{path}");
        }
        assert_eq!(SlotNo::new(10_000), None);
    }

    #[test]
    fn every_name_lies_under_its_prefix() {
        let (id, seq) = (Incarnation([0xab; 16]), Seq(5));
        let pack = ObjectName::Pack(PackName { incarnation: id, number: 1 });
        let slot = ObjectName::Slot(Epoch(2), SlotNo(3));
        let link = LinkId([0xcd; 16]);
        for (name, prefix) in [
            (ObjectName::Volume, Prefix::Everything),
            (slot, Prefix::Slots),
            (slot, Prefix::SlotsOf(Epoch(2))),
            (ObjectName::Chain(Epoch(2)), Prefix::SlotsOf(Epoch(2))),
            (ObjectName::Log(seq), Prefix::Log),
            (ObjectName::Floor(5), Prefix::Floors),
            (ObjectName::Checkpoint(seq), Prefix::Checkpoints),
            (ObjectName::Segment(SegmentId([1; 16])), Prefix::Segments),
            (pack, Prefix::Packs),
            (pack, Prefix::PacksOf(id)),
            (ObjectName::Share(link, 1), Prefix::Shares),
            (ObjectName::Share(link, 1), Prefix::ShareOf(link)),
            (ObjectName::SharePack(link, 1), Prefix::ShareOf(link)),
            (ObjectName::SharePack(link, 1), Prefix::SharePacksOf(link)),
        ] {
            assert!(name.to_string().starts_with(&prefix.to_string()), "{name} {prefix}");
        }
    }
}
