//! What a sealed thing is and where it belongs. It goes into the derivation and into the authenticated
//! data, so that nothing opens in another's place.

use crate::base::{LinkId, VolumeId};

/// The kind separates domains: under one key, nothing of one kind opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Record,
    Floor,
    Manifest,
    SegmentBlock,
    SegmentIndex,
    SegmentTrailer,
    PackFooter,
    PackTrailer,
    Chunk,
    FileKey,
    VolumeParameters,
    SlotPrivate,
    SlotRoot,
    SlotDetails,
    EpochChain,
    StateKey,
    StateFile,
    JournalFrame,
    LinkSecret,
    LinkOuter,
    LinkInner,
    LinkChunk,
    LinkPackFooter,
    LinkPackTrailer,
}

impl Kind {
    pub const ALL: [Self; 24] = [
        Self::Record,
        Self::Floor,
        Self::Manifest,
        Self::SegmentBlock,
        Self::SegmentIndex,
        Self::SegmentTrailer,
        Self::PackFooter,
        Self::PackTrailer,
        Self::Chunk,
        Self::FileKey,
        Self::VolumeParameters,
        Self::SlotPrivate,
        Self::SlotRoot,
        Self::SlotDetails,
        Self::EpochChain,
        Self::StateKey,
        Self::StateFile,
        Self::JournalFrame,
        Self::LinkSecret,
        Self::LinkOuter,
        Self::LinkInner,
        Self::LinkChunk,
        Self::LinkPackFooter,
        Self::LinkPackTrailer,
    ];

    /// Part of the format: never to change. ASCII above 0x20, so that the suite byte behind it ends it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Floor => "floor",
            Self::Manifest => "manifest",
            Self::SegmentBlock => "segment-block",
            Self::SegmentIndex => "segment-index",
            Self::SegmentTrailer => "segment-trailer",
            Self::PackFooter => "pack-footer",
            Self::PackTrailer => "pack-trailer",
            Self::Chunk => "chunk",
            Self::FileKey => "file-key",
            Self::VolumeParameters => "volume-parameters",
            Self::SlotPrivate => "slot-private",
            Self::SlotRoot => "slot-root",
            Self::SlotDetails => "slot-details",
            Self::EpochChain => "epoch-chain",
            Self::StateKey => "state-key",
            Self::StateFile => "state-file",
            Self::JournalFrame => "journal-frame",
            Self::LinkSecret => "link-secret",
            Self::LinkOuter => "link-outer",
            Self::LinkInner => "link-inner",
            Self::LinkChunk => "link-chunk",
            Self::LinkPackFooter => "link-pack-footer",
            Self::LinkPackTrailer => "link-pack-trailer",
        }
    }
}

/// `id` tells one of its kind from all others of the volume: a number, a name, a place. What belongs to a link
/// has the link's id in place of the volume's, and kinds of its own.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub volume: VolumeId,
    pub kind: Kind,
    pub id: &'a [&'a [u8]],
}

impl<'a> Context<'a> {
    pub const fn of_link(link: LinkId, kind: Kind, id: &'a [&'a [u8]]) -> Self {
        Self { volume: VolumeId(link.0), kind, id }
    }

    /// Every field behind its length as u32 LE, the volume id first: no two lists of fields give the same
    /// bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Room for all but a slot's.
        let mut out = Vec::with_capacity(128);
        for field in std::iter::once(&self.volume.0[..]).chain(self.id.iter().copied()) {
            out.extend_from_slice(&(field.len() as u32).to_le_bytes());
            out.extend_from_slice(field);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_kinds_share_a_name_and_none_holds_a_control_byte() {
        let names: HashSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_graphic())));
    }

    #[test]
    fn bytes_cannot_move_from_one_field_to_the_next() {
        let encode = |id: &[&[u8]]| Context { volume: VolumeId([1; 16]), kind: Kind::Record, id }.encode();
        assert_ne!(encode(&[b"ab", b"c"]), encode(&[b"a", b"bc"]));
        assert_ne!(encode(&[b"ab"]), encode(&[b"ab", b""]));
        assert_ne!(encode(&[]), encode(&[b""]));
    }
}
