//! Which packs of a live link to write anew, so that one that changes for ever does not grow for ever.
//!
//! Packs that nothing names are deleted anyway. Of the others, those that are mostly dead are rewritten once so much is
//! dead that it matters; and small ones, of which every little change makes one, are merged once there are many. Bytes
//! are those of sealed chunks: footers and padding are as long as they must be.

use std::collections::BTreeSet;

use super::packer::PACK_LEN;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackUse {
    pub pack: u64,
    /// Bytes of all chunks in it,
    pub filled: u64,
    /// and of those that the newest version names; some.
    pub used: u64,
}

/// Less than this is not worth an upload.
const DEAD_MIN: u64 = PACK_LEN as u64;
const SMALL: u64 = PACK_LEN as u64 / 4;
const SMALL_MAX: usize = 32;

/// What is left, if this is empty: at most twice what is used and `DEAD_MIN`, in at most `SMALL_MAX` packs more than
/// there are pieces of `SMALL` in it.
pub(super) fn to_rewrite(packs: &[PackUse]) -> BTreeSet<u64> {
    let used: u64 = packs.iter().map(|pack| pack.used).sum();
    let dead = packs.iter().map(|pack| pack.filled - pack.used.min(pack.filled)).sum::<u64>();
    let is_wasteful = dead > DEAD_MIN.max(used / 2);
    let has_many_small = packs.iter().filter(|pack| pack.filled < SMALL).count() > SMALL_MAX;
    let is_due = |pack: &&PackUse| is_wasteful && pack.used <= pack.filled / 2 || has_many_small && pack.filled < SMALL;
    packs.iter().filter(is_due).map(|pack| pack.pack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::MIB;
    use proptest::prelude::*;

    fn packs(uses: &[(u64, u64)]) -> Vec<PackUse> {
        (1..).zip(uses).map(|(pack, (filled, used))| PackUse { pack, filled: *filled, used: *used }).collect()
    }

    fn due(uses: &[(u64, u64)]) -> Vec<u64> {
        to_rewrite(&packs(uses)).into_iter().collect()
    }

    #[test]
    fn mostly_dead_packs_are_rewritten_once_it_matters() {
        assert!(due(&[(16 * MIB, 1), (16 * MIB, 16 * MIB)]).is_empty());
        assert_eq!(due(&[(16 * MIB, MIB), (16 * MIB, 2 * MIB), (16 * MIB, 15 * MIB)]), [1, 2]);
        // Little of what there is.
        assert!(due(&[&[(16 * MIB, MIB); 2][..], &[(16 * MIB, 16 * MIB); 9]].concat()).is_empty());
        // Much, but nowhere the most.
        assert!(due(&[(16 * MIB, 9 * MIB); 20]).is_empty());
    }

    #[test]
    fn many_small_packs_are_merged() {
        assert!(due(&[(1000, 1000); 32]).is_empty());
        assert_eq!(due(&[&[(16 * MIB, 16 * MIB)][..], &[(1000, 1000); 33]].concat()), (2..=34).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn what_is_left_is_bounded(uses in proptest::collection::vec((1..=16 * MIB, 0.0..=1.0f64), 0..100)) {
            let uses: Vec<_> = uses.iter().map(|(filled, part)| (*filled, 1.max((*filled as f64 * part) as u64))).collect();
            let all = packs(&uses);
            let rewritten = to_rewrite(&all);
            let (mut filled, mut used, mut count) = (0, 0, 0);
            for pack in &all {
                let is_rewritten = rewritten.contains(&pack.pack);
                // Rewritten, its chunks lie beside one another.
                filled += if is_rewritten { pack.used } else { pack.filled };
                used += pack.used;
                count += u64::from(!is_rewritten);
            }
            prop_assert!(filled <= 2 * used + DEAD_MIN, "{filled} bytes for {used}");
            prop_assert!(count <= SMALL_MAX as u64 + filled / SMALL);
        }
    }
}
