//! Pure judgements on records and manifests: what a foreign record touches, which past heads agree, and which of
//! them are kept.

use std::collections::HashSet;

use crate::base::{Hash, Seq};
use crate::format::rows::{DirentRow, KeyBytes, RowKey};
use crate::format::{Manifest, RowChange};

/// This many of the newest heads are all kept.
const PAST_ALL: u64 = 1000;

/// What a set of row changes names, to tell whether one set rests on what another changed.
///
/// Resolving a change reads the inodes it names and their directories, whose rows it writes too; where it moves a
/// directory it also reads all ancestors, so two moves always meet. Chunks, keys and packs are only cited: a foreign
/// record meets that by removing one. When in doubt, they meet.
#[derive(Clone, Debug, Default)]
pub struct Footprint {
    inodes: HashSet<u64>,
    /// Keys of what is no inode's.
    others: HashSet<KeyBytes>,
    moves: bool,
    removes_stored: bool,
}

impl Footprint {
    pub fn of(rows: &[RowChange]) -> Self {
        let mut footprint = Self::default();
        let (mut left, mut came) = (HashSet::new(), HashSet::new());
        for (key, value) in rows {
            match RowKey::decode(key) {
                Ok(RowKey::Inode(ino) | RowKey::Extents(ino, _) | RowKey::Xattr(ino, _)) => {
                    footprint.inodes.insert(ino.0);
                }
                Ok(RowKey::Dirent(parent, _)) => {
                    footprint.inodes.insert(parent.0);
                    if let Some(Ok(dirent)) = value.as_deref().map(DirentRow::decode) {
                        footprint.inodes.insert(dirent.ino.0);
                    }
                }
                Ok(RowKey::Backref(ino, parent, _)) => {
                    footprint.inodes.extend([ino.0, parent.0]);
                    if value.is_some() {
                        came.insert(ino)
                    } else {
                        left.insert(ino)
                    };
                }
                Ok(RowKey::Chunk(_) | RowKey::FileKey(_) | RowKey::Pack(_)) => {
                    footprint.removes_stored |= value.is_none();
                    footprint.others.insert(key.clone());
                }
                Ok(RowKey::Device(_)) | Err(_) => {
                    footprint.others.insert(key.clone());
                }
                // Two rows of one link are merged.
                Ok(RowKey::Link(_)) => {}
            }
        }
        footprint.moves = left.iter().any(|ino| came.contains(ino));
        footprint
    }

    /// Whether what `self` changed is something that `ours` rests on.
    pub fn touches(&self, ours: &Self) -> bool {
        self.removes_stored
            || (self.moves && ours.moves)
            || self.inodes.iter().any(|ino| ours.inodes.contains(ino))
            || self.others.iter().any(|key| ours.others.contains(key))
    }
}

/// The first past head of the manifest, its own included, that is known with another hash: there they part.
pub fn first_disagreement(manifest: &Manifest, known: impl Fn(Seq) -> Option<Hash>) -> Option<Seq> {
    let own = std::iter::once((manifest.seq, manifest.head));
    let disagrees = |(seq, hash): &(Seq, Hash)| known(*seq).is_some_and(|known| known != *hash);
    manifest.past.iter().copied().chain(own).filter(disagrees).map(|(seq, _)| seq).min()
}

/// The heads that a manifest at `head` names: the last 1,000, and the older the fewer. What one manifest keeps, every
/// earlier one kept too, so that two devices always have some in common.
pub fn thin_past(head: Seq, past: &mut Vec<(Seq, Hash)>) {
    past.retain(|(seq, _)| {
        let age = head.0.saturating_sub(seq.0);
        let step = (age / PAST_ALL).checked_next_power_of_two().unwrap_or(1 << 63).max(1);
        age < PAST_ALL || seq.0.is_multiple_of(step * 2)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ChunkNo, InodeId, Name};

    fn touches(foreign: &[RowChange], ours: &[RowChange]) -> bool {
        Footprint::of(foreign).touches(&Footprint::of(ours))
    }

    fn put(key: RowKey) -> RowChange {
        let value = match &key {
            RowKey::Dirent(..) => DirentRow { ino: InodeId(99), file_type: 0o100000 }.encode(),
            _ => Vec::new(),
        };
        (key.encode(), Some(value))
    }

    fn removed(key: RowKey) -> RowChange {
        (key.encode(), None)
    }

    fn dirent(parent: u64, name: &str) -> RowKey {
        RowKey::Dirent(InodeId(parent), Name::parse(name).unwrap())
    }

    fn backref(ino: u64, parent: u64, name: &str) -> RowKey {
        RowKey::Backref(InodeId(ino), InodeId(parent), Name::parse(name).unwrap())
    }

    #[test]
    fn changes_in_two_directories_are_disjoint() {
        let foreign = [put(RowKey::Inode(InodeId(5))), put(backref(5, 6, "a")), put(RowKey::Inode(InodeId(6)))];
        let ours = [put(RowKey::Inode(InodeId(7))), put(backref(7, 8, "a")), put(RowKey::Chunk(ChunkNo(1)))];
        assert!(!touches(&foreign, &ours));
    }

    #[test]
    fn what_names_one_inode_touches_through_whatever_row() {
        let ours = [put(RowKey::Inode(InodeId(99)))];
        for key in [RowKey::Extents(InodeId(99), 3), backref(4, 99, "x"), dirent(99, "x"), dirent(3, "x")] {
            assert!(touches(&[put(key.clone())], &ours), "{key:?}");
            assert!(touches(&ours, &[put(key.clone())]), "{key:?}");
        }
    }

    #[test]
    fn two_moves_touch_and_a_move_beside_a_create_does_not() {
        let moved = |ino| [removed(backref(ino, ino + 1, "a")), put(backref(ino, ino + 2, "a"))];
        assert!(touches(&moved(10), &moved(20)));
        assert!(!touches(&moved(10), &[put(backref(20, 21, "a"))]));
    }

    #[test]
    fn a_removed_chunk_touches_whatever_may_cite_it() {
        assert!(touches(&[removed(RowKey::Chunk(ChunkNo(1)))], &[put(RowKey::Inode(InodeId(7)))]));
        assert!(!touches(&[put(RowKey::Chunk(ChunkNo(1)))], &[put(RowKey::Inode(InodeId(7)))]));
    }

    #[test]
    fn the_last_thousand_heads_are_all_kept() {
        let mut past = (1..=2_001).map(|seq| (Seq(seq), Hash::ZERO)).collect::<Vec<_>>();
        thin_past(Seq(2_001), &mut past);
        let kept = past.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>();
        let older = (1..=1_001).filter(|seq| seq % 2 == 0);
        assert_eq!(kept, older.chain(1_002..=2_001).collect::<Vec<_>>());
    }

    #[test]
    fn thinning_in_steps_keeps_what_thinning_at_once_keeps() {
        let all = |to: u64| (1..=to).map(|seq| (Seq(seq), Hash::ZERO)).collect::<Vec<_>>();
        let mut at_once = all(50_000);
        thin_past(Seq(50_000), &mut at_once);
        let mut stepwise = Vec::new();
        for head in (500..=50_000).step_by(500) {
            stepwise.extend((head - 499..=head).map(|seq| (Seq(seq), Hash::ZERO)));
            thin_past(Seq(head), &mut stepwise);
        }
        assert_eq!(stepwise, at_once);
        assert!(at_once.len() < 6000, "{}", at_once.len());
        // A device that stopped anywhere has a head in common with it.
        for stopped in [1_500, 10_000, 30_000, 49_000] {
            let mut older = all(stopped);
            thin_past(Seq(stopped), &mut older);
            assert!(older.iter().any(|head| at_once.contains(head)), "{stopped}");
        }
    }
}
