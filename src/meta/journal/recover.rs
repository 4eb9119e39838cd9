//! What the journal's files hold when it is opened.
//!
//! A torn tail is where the journal ends: it was never acknowledged. Frames that are readable behind that can
//! only be there because something destroyed what was durable. What they build on is gone, so they can be set aside, but
//! only if somebody says so: perhaps the disk reads it the next time, or a backup has it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    Active, Closed, Files, FrameNo, JournalError, OpenFile, SPARES_MAX, Sealed, Sealer, last_intent, note_last, wipe,
};
use crate::base::{Incarnation, IntentNo, KIB, VolumeId};
use crate::crypto::Key;
use crate::disk::{Disk, DiskFile};
use crate::format::journal::{self as format, JournalPayload};

const SUFFIX: &str = "journal";
const READ_LEN: usize = 256 * KIB as usize;

/// What becomes of a journal of which a part cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// It is an error, and nothing is changed.
    Refuse,
    /// What is before it is replayed; what is behind it is set aside, and nothing of that will ever be.
    SetAside,
    /// Nothing is changed, and nothing may be appended.
    Leave,
}

/// Part of the journal cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the journal is damaged from frame {} on{}, and {later} later frames cannot be replayed without it{}",
    first_lost,
    if *unreadable { " (the disk reports read errors)" } else { "" },
    match set_aside.is_empty() {
        true => String::new(),
        false => format!(
            "; the damaged files are kept as {}",
            set_aside.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        ),
    },
)]
pub struct JournalDamage {
    pub first_lost: FrameNo,
    /// Frames that can be read, but not what they build on.
    pub later: usize,
    /// The disk failed to read a part.
    pub unreadable: bool,
    pub set_aside: Vec<PathBuf>,
}

/// The payloads in order, read again from the files one by one.
pub struct Replay {
    spans: std::vec::IntoIter<Span>,
    key: Key,
    volume: VolumeId,
}

#[derive(Clone)]
struct Span {
    no: FrameNo,
    file: Arc<dyn DiskFile>,
    offset: u64,
    len: usize,
}

impl Replay {
    /// The same once more, from the first that this one has not given.
    pub fn again(&self) -> Self {
        Self { spans: self.spans.clone(), key: self.key.duplicate(), volume: self.volume }
    }

    pub fn is_empty(&self) -> bool {
        self.spans.as_slice().is_empty()
    }
}

impl Iterator for Replay {
    type Item = Result<JournalPayload, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let span = self.spans.next()?;
        let mut bytes = vec![0; span.len];
        let read = span.file.read_exact_at(&mut bytes, span.offset).is_ok();
        let opened = if read { format::decode_frame(&bytes, &self.key, self.volume).ok() } else { None };
        let expected = opened.filter(|(number, _)| *number == span.no.0);
        Some(expected.map(|(_, payload)| payload).ok_or(JournalError::Unreadable(span.no)))
    }
}

pub(super) struct Recovered {
    pub files: Files,
    pub replay: Replay,
    pub last: Option<FrameNo>,
    pub damage: Option<JournalDamage>,
}

/// One file and the frames that follow one another from its start.
struct Run {
    file: OpenFile,
    frames: Vec<Found>,
    /// Readable frames elsewhere in the file. Those of lower numbers are what a recycled file held before.
    strays: Vec<Found>,
    /// What the header at its start claims, whether that frame opens or not.
    begun: Option<u64>,
    /// The disk failed to read a part behind the run.
    unreadable: bool,
}

struct Found {
    no: u64,
    offset: usize,
    len: usize,
    last: (Incarnation, IntentNo),
}

impl Run {
    fn first(&self) -> Option<u64> {
        self.frames.first().map(|frame| frame.no)
    }

    fn last(&self) -> Option<u64> {
        self.frames.last().map(|frame| frame.no)
    }

    /// The number of a first frame that does not open although the next one was written behind it, which only
    /// happens once the first is durable. In a wiped file no frame begins, and a torn one has nothing behind it.
    fn lost_first(&self) -> Option<u64> {
        self.begun
            .filter(|no| self.frames.is_empty() && self.strays.iter().any(|stray| stray.no == no.saturating_add(1)))
    }

    /// The readable frames from this number on.
    fn from(&self, next: u64) -> impl Iterator<Item = &Found> {
        self.frames.iter().chain(&self.strays).filter(move |frame| frame.no >= next)
    }

    fn end(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.offset + frame.len)
    }
}

pub(super) fn recover(
    disk: Arc<dyn Disk>,
    dir: &Path,
    sealer: &Sealer,
    file_len: u64,
    on_damage: OnDamage,
    is_covered: &dyn Fn(&(Incarnation, IntentNo)) -> bool,
) -> Result<Recovered, JournalError> {
    let (mut runs, next_name) = read_runs(&*disk, dir, sealer)?;
    // With no frame at all there is nothing to continue, and whatever wiped files hold further in is old.
    let first = runs.iter().filter_map(|run| run.first().or(run.lost_first())).min().unwrap_or(u64::MAX);
    let mut next = first;
    let mut spans = Vec::new();
    while let Some(run) = furthest(&runs, next) {
        for frame in run.frames.iter().filter(|frame| frame.no >= next) {
            let (no, file) = (FrameNo(frame.no), run.file.file.clone());
            spans.push(Span { no, file, offset: frame.offset as u64, len: frame.len });
        }
        next = run.last().map_or(next, |last| last + 1);
    }
    let last = (next > first).then(|| FrameNo(next - 1));

    let replay = Replay { spans: spans.into_iter(), key: sealer.key.duplicate(), volume: sealer.volume };
    let mut damage = damage_in(&runs, next);
    if damage.as_ref().is_some_and(|damage| !damage.unreadable)
        && runs.iter().flat_map(|run| run.from(next)).all(|frame| is_covered(&frame.last))
    {
        // The log has what is behind it, and so what was in it.
        tracing::warn!("a part of the journal that is not needed any more is damaged: it is wiped");
        cut(&mut runs, next, |_| Ok(()))?;
        damage = None;
    }
    match (&mut damage, on_damage) {
        (Some(damage), OnDamage::Refuse) => {
            return Err(JournalError::Damaged { dir: dir.into(), damage: damage.clone() });
        }
        (Some(_), OnDamage::Leave) => {
            let files = Files::new(disk, dir, file_len, next_name);
            return Ok(Recovered { files, replay, last, damage });
        }
        (Some(damage), OnDamage::SetAside) => cut(&mut runs, next, |file| {
            damage.set_aside.push(copy_aside(&*disk, dir, file)?);
            Ok(())
        })?,
        (None, _) => {}
    }
    let files = Files::new(disk, dir, file_len, next_name);
    let files = adopt(files, runs, last)?;
    Ok(Recovered { files, replay, last, damage })
}

/// The run that has frame `next` and goes furthest. Two have it when a failed write was done again elsewhere.
fn furthest(runs: &[Run], next: u64) -> Option<&Run> {
    runs.iter().filter(|run| run.frames.iter().any(|frame| frame.no == next)).max_by_key(|run| run.last())
}

fn read_runs(disk: &dyn Disk, dir: &Path, sealer: &Sealer) -> Result<(Vec<Run>, u64), JournalError> {
    let mut runs = Vec::new();
    let mut next_name = 1;
    for entry in disk.list(dir).map_err(JournalError::io("list", dir))? {
        let number = entry.name.to_str().and_then(|name| name.split('.').next()?.parse::<u64>().ok());
        let Some(number) = number else { continue };
        next_name = next_name.max(number.saturating_add(1));
        let path = dir.join(&entry.name);
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            let file = disk.open(&path, false).map_err(JournalError::io("open", &path))?;
            let len = entry.len / format::FRAME_ALIGN as u64 * format::FRAME_ALIGN as u64;
            runs.push(read_run(OpenFile { path, file, len }, sealer));
        }
    }
    Ok((runs, next_name))
}

fn read_run(file: OpenFile, sealer: &Sealer) -> Run {
    let (bytes, failed) = read_tolerant(&*file.file, file.len);
    let begun = format::peek_header(&bytes).map(|header| header.number);
    let mut run = Run { file, frames: Vec::new(), strays: Vec::new(), begun, unreadable: false };
    while let Some(found) = frame_at(&bytes, run.end(), sealer) {
        if run.last().is_some_and(|last| found.no != last.saturating_add(1)) {
            break;
        }
        run.frames.push(found);
    }
    let end = run.end();
    let behind = (end..bytes.len()).step_by(format::FRAME_ALIGN);
    run.strays = behind.filter_map(|offset| frame_at(&bytes, offset, sealer)).collect();
    run.unreadable = failed.is_some_and(|failed| failed > end);
    run
}

/// The file's bytes, zeros where the disk fails, and the end of where it last failed.
fn read_tolerant(file: &dyn DiskFile, len: u64) -> (Vec<u8>, Option<usize>) {
    let mut bytes = vec![0; len as usize];
    let mut failed = None;
    for (index, piece) in bytes.chunks_mut(READ_LEN).enumerate() {
        let offset = index * READ_LEN;
        if file.read_at(piece, offset as u64).is_err() {
            piece.fill(0);
            failed = Some(offset + piece.len());
        }
    }
    (bytes, failed)
}

fn frame_at(bytes: &[u8], offset: usize, sealer: &Sealer) -> Option<Found> {
    let rest = bytes.get(offset..)?;
    let len = usize::try_from(format::peek_header(rest)?.len).ok()?;
    let (no, payload) = format::decode_frame(rest.get(..len)?, &sealer.key, sealer.volume).ok()?;
    Some(Found { no, offset, len, last: last_intent(&payload) })
}

/// What should not be there: frames from `next` on, or parts that the disk cannot read.
fn damage_in(runs: &[Run], next: u64) -> Option<JournalDamage> {
    let first_lost = FrameNo(if next == u64::MAX { 1 } else { next });
    let later = runs.iter().flat_map(|run| run.from(next)).count();
    let unreadable = runs.iter().any(|run| run.unreadable);
    let is_damaged = unreadable || later > 0;
    is_damaged.then(|| JournalDamage { first_lost, later, unreadable, set_aside: Vec::new() })
}

/// Wipes what is from `next` on, so that the next opening finds a clean end. `before` is told of each file.
fn cut(
    runs: &mut [Run],
    next: u64,
    mut before: impl FnMut(&OpenFile) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    // The newest first: after a crash in between, the older ones still show the same damage.
    runs.sort_by_key(|run| std::cmp::Reverse(run.first()));
    for run in runs.iter_mut().filter(|run| run.unreadable || run.from(next).next().is_some()) {
        before(&run.file)?;
        run.frames.retain(|frame| frame.no < next);
        zero_from(&run.file, run.end() as u64)?;
    }
    Ok(())
}

fn copy_aside(disk: &dyn Disk, dir: &Path, file: &OpenFile) -> Result<PathBuf, JournalError> {
    let path = file.path.with_extension("damaged");
    let (bytes, _) = read_tolerant(&*file.file, file.len);
    let copy = disk.open(&path, true).map_err(JournalError::io("create", &path))?;
    copy.write_all_at(&bytes, 0).map_err(JournalError::io("write", &path))?;
    copy.sync_data().map_err(JournalError::io("sync", &path))?;
    disk.sync_dir(dir).map_err(JournalError::io("sync the directory of", &path))?;
    Ok(path)
}

fn zero_from(file: &OpenFile, from: u64) -> Result<(), JournalError> {
    let zeros = vec![0; READ_LEN];
    let mut at = from;
    while at < file.len {
        let piece = (file.len - at).min(READ_LEN as u64);
        let written = file.file.write_all_at(&zeros[..piece as usize], at);
        written.map_err(JournalError::io("wipe", &file.path))?;
        at += piece;
    }
    file.file.sync_data().map_err(JournalError::io("sync", &file.path))
}

/// The tail goes on being written; older files wait for their release; the rest is wiped for use.
fn adopt(mut files: Files, mut runs: Vec<Run>, last: Option<FrameNo>) -> Result<Files, JournalError> {
    runs.sort_by_key(|run| run.first().unwrap_or(u64::MAX));
    let mut removed = false;
    for run in runs {
        let is_tail = last.is_some() && run.last() == last.map(|no| no.0) && files.active.is_none();
        let spare = run.frames.is_empty() && last.is_some() && run.file.len == files.file_len;
        let mut lasts = HashMap::new();
        run.frames.iter().for_each(|frame| note_last(&mut lasts, frame.last));
        if is_tail {
            files.continue_at(run, lasts)?;
        } else if !run.frames.is_empty() {
            files.closed.push_back(Closed { end: run.end() as u64, file: run.file, lasts });
        } else if spare && files.spares.len() < SPARES_MAX {
            wipe(&run.file)?;
            files.spares.push(run.file);
        } else if run.begun.is_some() && last.is_none() {
            // A first frame that was torn, or another key: not ours to throw away.
            let aside = run.file.path.with_extension("unread");
            tracing::warn!(path = %aside.display(), "a journal file that cannot be opened is set aside");
            files.disk.rename(&run.file.path, &aside).map_err(JournalError::io("rename", &run.file.path))?;
            removed = true;
        } else {
            files.disk.remove(&run.file.path).map_err(JournalError::io("remove", &run.file.path))?;
            removed = true;
        }
    }
    // Without a frame, numbers begin again from 1: nothing that holds old frames may come back.
    if removed {
        files.disk.sync_dir(&files.dir).map_err(JournalError::io("sync the directory", &files.dir))?;
    }
    Ok(files)
}

impl Files {
    /// The last frame may have been read from a page cache that the disk never saw, or that a failed fdatasync
    /// called clean: it stays in doubt, and is written again before anything follows it.
    fn continue_at(&mut self, run: Run, lasts: HashMap<Incarnation, IntentNo>) -> Result<(), JournalError> {
        let Some(last) = run.frames.last() else { return Ok(()) };
        let mut bytes = vec![0; last.len];
        let read = run.file.file.read_exact_at(&mut bytes, last.offset as u64);
        read.map_err(JournalError::io("read", &run.file.path))?;
        self.in_doubt = Some(Sealed { no: FrameNo(last.no), bytes, last: last.last });
        self.active = Some(Active { file: run.file, end: last.offset as u64, lasts, failed: false });
        Ok(())
    }
}
