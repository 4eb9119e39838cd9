//! What the tests of this layer share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::staging::{NewPack, Staging, StagingOptions};
use crate::base::{Epoch, Incarnation, PackName, PackNo, SystemEntropy, VolumeId};
use crate::crypto::{Key, Roots};
use crate::disk::Disk;
use crate::format::pack::{self, PackEntry};

pub const VOLUME: VolumeId = VolumeId([9; 16]);

pub fn name(number: u64) -> PackName {
    PackName { incarnation: Incarnation([5; 16]), number }
}

pub fn roots() -> Roots {
    Roots::new(VOLUME, Epoch(0), Key::from_bytes([3; 32]))
}

/// Packs are numbered from `first`.
pub fn staging_on(disk: Arc<dyn Disk>, dir: &Path, first: u64, bytes_max: u64) -> Staging {
    let next = AtomicU64::new(first);
    let new_pack: NewPack = Box::new(move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        (PackNo(number), name(number))
    });
    let options = StagingOptions { dir: dir.into(), bytes_max };
    Staging::open(disk, options, roots(), Arc::new(SystemEntropy), new_pack).unwrap()
}

/// What a whole pack's footer lists.
pub fn listed(object: &[u8], name: PackName) -> Vec<PackEntry> {
    let roots = roots();
    let place = pack::decode_trailer(object, object.len() as u64, name, &roots).unwrap();
    let footer = &object[place.range.start as usize..place.range.end as usize];
    pack::decode_footer(&place, footer, name, &roots).unwrap()
}
