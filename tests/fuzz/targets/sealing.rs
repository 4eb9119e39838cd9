//! Seals whatever bytes there are, as somebody with the keys could.

use hushfs::base::{Entropy, Epoch, VolumeId};
use hushfs::crypto::{Context, Key, Kind, Roots, SEAL_OVERHEAD, seal_bulk};
use hushfs::format::padding;

pub const VOLUME: VolumeId = VolumeId([9; 16]);
pub const EPOCH: Epoch = Epoch(1);

/// No randomness: one input takes one way.
pub struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x5a);
    }
}

pub fn root() -> Key {
    Key::from_bytes([1; 32])
}

/// As in the golden vectors: epochs 0 and 1 with one root.
pub fn roots() -> Roots {
    let roots = Roots::new(VOLUME, EPOCH, root());
    assert!(roots.insert(Epoch(0), root()));
    roots
}

/// SEAL under the root, or under another key that is as plain.
pub fn sealed(kind: Kind, id: &[&[u8]], plain: &[u8]) -> Vec<u8> {
    seal_bulk(&root(), &Context { volume: VOLUME, kind, id }, plain, &Fixed)
}

pub fn sealed_padded(kind: Kind, id: &[&[u8]], body: &[u8], around: usize) -> Vec<u8> {
    let mut body = body.to_vec();
    padding::pad(&mut body, around);
    sealed(kind, id, &body)
}

/// Magic, epoch, and one SEAL of the padded body.
pub fn enveloped(magic: &[u8; 8], kind: Kind, number: u64, body: &[u8]) -> Vec<u8> {
    let epoch = EPOCH.0.to_le_bytes();
    let id: [&[u8]; 2] = [&epoch, &number.to_le_bytes()];
    [&magic[..], &epoch, &sealed_padded(kind, &id, body, 12 + SEAL_OVERHEAD)].concat()
}

/// A compressed body: as it is, or as what is stored raw.
pub fn lz(is_raw: bool, body: &[u8]) -> Vec<u8> {
    if !is_raw {
        return body.to_vec();
    }
    let mut out = hushfs::format::Writer::new();
    out.u8(0).varint(body.len() as u64).raw(body);
    out.finish()
}
