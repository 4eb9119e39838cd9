//! What earlier runs journaled and the log does not hold.
//!
//! A run that does this again leaves it in the journal where it is, and says in its own frames how far it came
//! (`Intent::Replayed`): when the log covers that, it covers what was done again. So a crash or a refusal at any time
//! changes nothing, however often it is tried, and a record of an earlier run that turns up late is not done twice.
//!
//! Where another copy of the state folder goes on under this device's number, what is here is numbered anew instead, in
//! frames of the run that does it; these stand for all others from when `Identity::void` says so, and not before.
//!
//! Invariant: one frame at a time is in memory. It knows no tree: what to do with intents is for the caller.

use std::collections::{BTreeMap, HashMap};

use super::error::MetaError;
use super::journal::{JournalDamage, JournalError, Replay};
use super::rows::Rows;
use super::twin::{ForeignChanges, Parting, is_done};
use super::view::View;
use crate::base::{Hash, Incarnation, InodeId, IntentNo, PackName, PackNo, Timestamp};
use crate::content::Referenced;
use crate::format::intent::Intent;
use crate::format::journal::{JournalPayload, chain};
use crate::format::pack::PackEntry;
use crate::format::rows::{ChunkRow, PackRow, RowKey};

/// The last of a run's intents that the log has, and the chain up to it.
pub type Coverage = (IntentNo, Hash);

pub struct Leftover {
    replay: Replay,
    /// Runs whose frames mean nothing.
    void: Vec<Incarnation>,
    covered: HashMap<Incarnation, Covered>,
    /// Of all intents that count: so many, from the first on, came into the log, in part perhaps by a copy.
    common: usize,
    /// All runs in the journal, with their last intents.
    pub runs: Vec<(Incarnation, IntentNo)>,
    /// Another copy of the state folder may have given out the numbers in the intents, too; what it and others did
    /// meanwhile.
    pub twin: Option<ForeignChanges>,
    /// Packs that the intents refer to.
    pub referenced: Vec<Referenced>,
    /// Size and mtime that records of the journal's runs gave to inodes. A later run may have done the same again
    /// without knowing of the record, and written on: its versions are others, and its bytes fit all the same.
    pub logged: HashMap<InodeId, (u64, Timestamp)>,
    /// Part of the journal could not be read.
    pub damage: Option<JournalDamage>,
}

/// One frame's intents that are to be done again; perhaps none.
pub struct Part {
    pub incarnation: Incarnation,
    /// The frame's last.
    pub last: IntentNo,
    pub intents: Vec<Intent>,
}

/// How much of one run's intents need not be done again.
#[derive(Clone, Copy, Default)]
struct Covered {
    /// The log's newest record of that run.
    logged: Option<Coverage>,
    /// Done again by a later run, and in the log through that.
    replayed: IntentNo,
}

impl Leftover {
    /// `twin`: what is known of a copy of the state folder.
    pub(super) fn new(
        view: &View,
        replay: Replay,
        damage: Option<JournalDamage>,
        void: Vec<Incarnation>,
        twin: Option<(&Parting, ForeignChanges)>,
    ) -> Result<Self, MetaError> {
        let (covered, runs, referenced, logged) = Default::default();
        let mut leftover = Self { replay, void, covered, common: 0, runs, twin: None, referenced, logged, damage };
        leftover.note_runs()?;
        match twin {
            Some((parting, changes)) => {
                leftover.common = leftover.common_part(view, parting)?;
                leftover.twin = Some(changes);
            }
            None => leftover.covered = leftover.coverage(view)?,
        }
        let (mut packs, mut logged) = (Packs::new(), HashMap::new());
        for frame in leftover.frames() {
            let (payload, covered) = frame?;
            let (covered, rest) = payload.intents.split_at(covered);
            note_contents(&mut logged, covered);
            refer(&mut packs, rest)?;
        }
        leftover.logged = logged;
        for (pack, (name, chunks)) in packs {
            let name = match name {
                Some(name) => name,
                None => view.pack(pack)?.ok_or(MetaError::MissingRow("a pack"))?.name,
            };
            leftover.referenced.push(Referenced { pack, name, chunks });
        }
        Ok(leftover)
    }

    /// What is to be done again, in order, read from the journal frame by frame.
    pub fn parts(&self) -> impl Iterator<Item = Result<Part, JournalError>> + '_ {
        self.frames().map(|frame| {
            let (payload, dropped) = frame?;
            let (incarnation, last) = (payload.incarnation, last(&payload));
            tracing::debug!(run = %incarnation, first = payload.first.0, last = last.0, dropped, "found in the journal");
            Ok(Part { incarnation, last, intents: payload.intents.into_iter().skip(dropped).collect() })
        })
    }

    /// The frames that count, and how many of each one's intents need not be done again.
    fn frames(&self) -> impl Iterator<Item = Result<(JournalPayload, usize), JournalError>> + '_ {
        let mut common = self.common;
        self.payloads().map(move |payload| {
            let payload = payload?;
            let covered = match self.twin {
                Some(_) => common.min(payload.intents.len()),
                None => self.covered_of(&payload),
            };
            common = common.saturating_sub(payload.intents.len());
            Ok((payload, covered))
        })
    }

    fn payloads(&self) -> impl Iterator<Item = Result<JournalPayload, JournalError>> + '_ {
        let is_void = |payload: &JournalPayload| self.void.contains(&payload.incarnation);
        self.replay.again().filter(move |payload| !payload.as_ref().is_ok_and(is_void))
    }

    fn note_runs(&mut self) -> Result<(), MetaError> {
        for payload in self.replay.again() {
            let payload = payload?;
            match self.runs.iter_mut().find(|(run, _)| *run == payload.incarnation) {
                Some((_, newest)) => *newest = last(&payload),
                None => self.runs.push((payload.incarnation, last(&payload))),
            }
        }
        Ok(())
    }

    /// Runs do again what is left of the runs before them, and commit that first. So what is in the log stands for all
    /// before it: by what this device had seen there itself, or by what it left in the rows. The latter also tells what a
    /// copy committed that was pending when it was made.
    fn common_part(&self, view: &View, parting: &Parting) -> Result<usize, MetaError> {
        let (mut common, mut count) = (0, 0);
        // Facts go with the write that cites them.
        let mut is_cited = false;
        for payload in self.payloads() {
            let payload = payload?;
            let own = Covered { logged: parting.covered(&payload.incarnation), ..Covered::default() };
            match own.logged_of(&payload) {
                0 => {}
                logged => common = common.max(count + logged),
            }
            for intent in &payload.intents {
                count += 1;
                let is_rest =
                    is_cited && (is_fact(intent) || matches!(intent, Intent::Write { .. } | Intent::FileKey { .. }));
                let is_common = is_rest || (count > common && is_done(intent, view)?);
                if is_common {
                    common = common.max(count);
                }
                is_cited = is_common && is_fact(intent);
            }
        }
        Ok(common)
    }

    fn coverage(&self, view: &View) -> Result<HashMap<Incarnation, Covered>, MetaError> {
        let mut all: HashMap<Incarnation, Covered> = HashMap::new();
        for payload in self.payloads() {
            let payload = payload?;
            let logged = view.replica().high_water(&payload.incarnation)?;
            let covered = all.entry(payload.incarnation).or_default();
            covered.logged = logged;
            let in_the_log = covered.logged_of(&payload);
            for intent in &payload.intents[..in_the_log] {
                if let Intent::Replayed { incarnation, through, .. } = intent {
                    let covered = all.entry(*incarnation).or_default();
                    covered.replayed = covered.replayed.max(*through);
                }
            }
        }
        Ok(all)
    }

    /// How many of the payload's intents need not be done again.
    fn covered_of(&self, payload: &JournalPayload) -> usize {
        let covered = self.covered.get(&payload.incarnation).copied().unwrap_or_default();
        covered.logged_of(payload).max(covered.replayed_of(payload))
    }
}

/// What a write says before it cites it.
fn is_fact(intent: &Intent) -> bool {
    matches!(intent, Intent::Fact { key: RowKey::Chunk(_) | RowKey::FileKey(_) | RowKey::Pack(_), .. })
}

/// What contents the log has through these intents.
fn note_contents(logged: &mut HashMap<InodeId, (u64, Timestamp)>, intents: &[Intent]) {
    for intent in intents {
        match intent {
            Intent::Write { ino, size, mtime, .. } => {
                logged.insert(*ino, (*size, *mtime));
            }
            // Their own frames may be gone.
            Intent::Replayed { contents, .. } => {
                logged.extend(contents.iter().map(|content| (content.ino, (content.size, content.mtime))));
            }
            Intent::SetAttr { ino, set, .. } => {
                if let (Some((_, mtime)), Some(new)) = (logged.get_mut(ino), set.mtime) {
                    *mtime = new;
                }
            }
            _ => {}
        }
    }
}

impl Covered {
    /// How many of the payload's intents are in the log, if the chain agrees; if not (a state folder that was copied),
    /// all are done again.
    fn logged_of(&self, payload: &JournalPayload) -> usize {
        let Some((high_water, hash)) = self.logged else { return 0 };
        let JournalPayload { first, chain_before, intents, .. } = payload;
        let count = through(payload, high_water);
        let reached = intents[..count].iter().fold(*chain_before, |before, intent| chain(&before, intent));
        // Further than this payload goes: its own end proves nothing, the one that holds the number does.
        let ends_here = high_water.0 + 1 >= first.0 && high_water <= last(payload);
        if ends_here && reached != hash {
            tracing::warn!("the log's record of an earlier run does not match this journal: all of it is done again");
            return 0;
        }
        count
    }

    fn replayed_of(&self, payload: &JournalPayload) -> usize {
        through(payload, self.replayed)
    }
}

/// How many of its intents have numbers up to that.
fn through(payload: &JournalPayload, number: IntentNo) -> usize {
    (number.0 + 1).saturating_sub(payload.first.0).min(payload.intents.len() as u64) as usize
}

fn last(payload: &JournalPayload) -> IntentNo {
    IntentNo(payload.first.0 + payload.intents.len() as u64 - 1)
}

type Packs = BTreeMap<PackNo, (Option<PackName>, Vec<PackEntry>)>;

/// Notes the packs that intents name, and their chunks.
fn refer(packs: &mut Packs, intents: &[Intent]) -> Result<(), MetaError> {
    for intent in intents {
        let Intent::Fact { key, value } = intent else { continue };
        match key {
            RowKey::Pack(pack) => packs.entry(*pack).or_default().0 = Some(PackRow::decode(value)?.name),
            RowKey::Chunk(chunk) => {
                let row = ChunkRow::decode(value)?;
                let len = crate::format::chunk::chunk_span(&row).len() as u32;
                packs.entry(row.pack).or_default().1.push(PackEntry { chunk: *chunk, offset: row.offset, len });
            }
            _ => {}
        }
    }
    Ok(())
}
