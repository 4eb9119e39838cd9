//! What a device's journal holds that the log does not, to be done again.
//!
//! A run's intents are dropped up to the high-water that a record names for it, if the chain agrees. Where another copy of
//! the state folder goes on under the same number, that high-water may be of the copy's intents: then only those are
//! dropped that the log has by the chain, or whose doings are in the rows.

use std::collections::{BTreeMap, HashSet};

use super::MountError;
use crate::base::{Hash, Incarnation, InodeId, IntentNo, PackName, PackNo, Timestamp};
use crate::content::Referenced;
use crate::format::RowChange;
use crate::format::intent::Intent;
use crate::format::journal::{JournalPayload, chain};
use crate::format::pack::PackEntry;
use crate::format::rows::{ChunkRow, PackRow, RowKey};
use crate::meta::error::MetaError;
use crate::meta::journal::{JournalDamage, JournalError};
use crate::meta::rows::Rows;
use crate::meta::view::View;

/// What an earlier run journaled and the log does not hold.
#[derive(Default)]
pub struct Leftover {
    pub intents: Vec<Intent>,
    /// Packs that those intents refer to.
    pub referenced: Vec<Referenced>,
    /// Journal frames to release once the intents are journaled again.
    pub runs: Vec<(Incarnation, IntentNo)>,
    /// Another copy of the state folder may have given out the numbers in the intents, too. What it and others did
    /// meanwhile.
    pub twin: Option<ForeignChanges>,
    /// Part of the journal could not be read.
    pub damage: Option<JournalDamage>,
}

/// Inodes that other devices changed since this one saw the log last.
#[derive(Clone, Debug)]
pub struct ForeignChanges {
    inodes: HashSet<InodeId>,
    /// It may be any of them.
    unknown: bool,
}

impl ForeignChanges {
    const REMEMBERED: usize = 100_000;

    /// None so far, or any.
    pub(super) fn new(unknown: bool) -> Self {
        Self { inodes: HashSet::new(), unknown }
    }

    pub fn has(&self, ino: InodeId) -> bool {
        self.unknown || self.inodes.contains(&ino)
    }

    pub(super) fn note(&mut self, rows: &[RowChange]) {
        let inodes = rows.iter().filter_map(|(key, _)| match RowKey::decode(key) {
            Ok(RowKey::Inode(ino) | RowKey::Extents(ino, _) | RowKey::Xattr(ino, _)) => Some(ino),
            _ => None,
        });
        self.inodes.extend(inodes);
        if self.inodes.len() > Self::REMEMBERED {
            *self = Self::new(true);
        }
    }
}

/// What the journal holds beyond the log. A run's intents are dropped up to the high-water that a record names for
/// it, if the chain agrees; if not (a state folder that was copied), all are kept and done again.
pub(super) fn leftover(
    view: &View,
    replay: impl Iterator<Item = Result<JournalPayload, JournalError>>,
    damage: Option<JournalDamage>,
    twin: Option<ForeignChanges>,
) -> Result<Leftover, MountError> {
    let mut leftover = Leftover { damage, twin, ..Leftover::default() };
    // Of the newest run there.
    let mut run = Run::default();
    for payload in replay {
        let payload = payload?;
        let covered = view.replica().high_water(&payload.incarnation)?;
        let last = IntentNo(payload.first.0 + payload.intents.len() as u64 - 1);
        if leftover.runs.last().is_some_and(|(earlier, _)| *earlier != payload.incarnation) {
            // A run's first frame holds, done again, all that the log lacked of the runs before it.
            leftover.intents.clear();
            run = Run::default();
        }
        leftover.runs.push((payload.incarnation, last));
        tracing::debug!(
            run = %payload.incarnation,
            first = payload.first.0,
            last = last.0,
            covered = covered.map(|(high_water, _)| high_water.0),
            "found in the journal"
        );
        match &leftover.twin {
            Some(_) => run.push(payload, covered),
            None => leftover.intents.extend(beyond(payload, covered)),
        }
    }
    if leftover.twin.is_some() {
        leftover.intents = run.beyond_common(view)?;
    }
    leftover.referenced = referenced(view, &leftover.intents)?;
    Ok(leftover)
}

/// What one run journaled, where a copy of this folder may have gone on with the same run: a high-water in the log may
/// be that of the copy's intents.
#[derive(Default)]
struct Run {
    intents: Vec<Intent>,
    /// So many of them are in the log, by the chain.
    proven: usize,
}

impl Run {
    fn push(&mut self, payload: JournalPayload, covered: Option<(IntentNo, Hash)>) {
        let JournalPayload { first, mut chain_before, intents, .. } = payload;
        for (number, intent) in (first.0..).zip(intents) {
            if covered == Some((IntentNo(number.saturating_sub(1)), chain_before)) {
                self.proven = self.intents.len();
            }
            chain_before = chain(&chain_before, &intent);
            self.intents.push(intent);
            if covered == Some((IntentNo(number), chain_before)) {
                self.proven = self.intents.len();
            }
        }
    }

    /// A copy that was made later has what was pending, and may have committed it: so far as what is in the log came of
    /// these very intents, and with them of all before them.
    fn beyond_common(self, view: &View) -> Result<Vec<Intent>, MetaError> {
        let Self { mut intents, proven } = self;
        let mut common = proven;
        for (at, intent) in intents.iter().enumerate().skip(proven) {
            if is_done(intent, view)? {
                common = at + 1;
            }
        }
        // Facts go with the write that cites them.
        if common > proven && matches!(intents.get(common - 1), Some(Intent::Fact { .. })) {
            common += intents[common..].iter().take_while(|intent| matches!(intent, Intent::Fact { .. })).count();
            common += usize::from(matches!(intents.get(common), Some(Intent::Write { .. } | Intent::FileKey { .. })));
        }
        Ok(intents.split_off(common))
    }
}

/// Whether what this intent does is in the rows, and can hardly be another's: times are counted in nanoseconds, and a
/// change leaves its own in the inode or the directory, until the next one.
fn is_done(intent: &Intent, view: &View) -> Result<bool, MetaError> {
    let changed_at = |ino: InodeId, time: Timestamp| -> Result<bool, MetaError> {
        Ok(view.inode(ino)?.is_some_and(|row| row.ctime == time))
    };
    match intent {
        Intent::Create { parent, name, ino, node } => {
            let is_named = view.dirent(*parent, name)?.is_some_and(|entry| entry.ino == *ino);
            Ok(is_named && view.inode(*ino)?.is_some_and(|row| row.btime == node.time))
        }
        Intent::Link { ino, time, .. }
        | Intent::SetAttr { ino, time, .. }
        | Intent::SetXattr { ino, time, .. }
        | Intent::Rename { ino, time, .. }
        | Intent::Write { ino, time, .. } => changed_at(*ino, *time),
        Intent::Unlink { parent, time, .. } => changed_at(*parent, *time),
        Intent::Exchange { a_ino, time, .. } => changed_at(*a_ino, *time),
        Intent::Fact { key: key @ RowKey::Chunk(_), value } => {
            Ok(view.get(&key.encode())?.is_some_and(|found| found.as_slice() == value.as_ref()))
        }
        Intent::Fact { .. } | Intent::FileKey { .. } => Ok(false),
    }
}

fn beyond(payload: JournalPayload, covered: Option<(IntentNo, Hash)>) -> Vec<Intent> {
    let Some((high_water, hash)) = covered else { return payload.intents };
    let JournalPayload { first, chain_before, intents, .. } = payload;
    if high_water.0 + 1 < first.0 {
        return intents;
    }
    let dropped = (high_water.0 + 1 - first.0).min(intents.len() as u64) as usize;
    let reached = intents[..dropped].iter().fold(chain_before, |before, intent| chain(&before, intent));
    // Further than this payload goes: its own end proves nothing, the one that holds the number does.
    let ends_here = high_water.0 < first.0 + intents.len() as u64;
    if ends_here && reached != hash {
        tracing::warn!("the log's record of an earlier run does not match this journal: all of it is done again");
        return intents;
    }
    intents.into_iter().skip(dropped).collect()
}

/// The staged packs that intents name chunks in.
fn referenced(view: &View, intents: &[Intent]) -> Result<Vec<Referenced>, MountError> {
    let mut names: BTreeMap<PackNo, (Option<PackName>, Vec<PackEntry>)> = Default::default();
    for intent in intents {
        let Intent::Fact { key, value } = intent else { continue };
        match key {
            RowKey::Pack(pack) => {
                let row = PackRow::decode(value).map_err(MetaError::from)?;
                names.entry(*pack).or_default().0 = Some(row.name);
            }
            RowKey::Chunk(chunk) => {
                let row = ChunkRow::decode(value).map_err(MetaError::from)?;
                let len = crate::format::chunk::chunk_span(&row).len() as u32;
                names.entry(row.pack).or_default().1.push(PackEntry { chunk: *chunk, offset: row.offset, len });
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    for (pack, (name, chunks)) in names {
        let name = match name {
            Some(name) => name,
            None => view.pack(pack)?.ok_or(MetaError::MissingRow("a pack"))?.name,
        };
        out.push(Referenced { pack, name, chunks });
    }
    Ok(out)
}
