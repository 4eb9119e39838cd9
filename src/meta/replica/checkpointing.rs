//! What the checkpoint writer wants to know: which segments of the last checkpoint still hold, and how much
//! log there is since.

use rusqlite::{Connection, Row, params};

use super::Replica;
use crate::base::{Hash, SegmentId, Seq};
use crate::format::rows::KeyBytes;
use crate::meta::error::MetaError;

/// A segment of the last checkpoint. It answers for all keys from its `first` to the next one's, the first
/// segment also for what sorts before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub id: SegmentId,
    pub first: KeyBytes,
    pub last: KeyBytes,
    pub rows: u64,
    pub len: u64,
    pub hash: Hash,
}

/// For each segment the last record that changed its range, as the table has it.
pub(super) struct Touched {
    segments: Vec<(KeyBytes, Seq)>,
    /// Whether `segments` is ahead of the table, because a transaction was rolled back.
    stale: bool,
}

impl Touched {
    pub(super) fn read(db: &Connection) -> rusqlite::Result<Self> {
        let segments = db
            .prepare_cached("SELECT first, touched FROM segments ORDER BY idx")?
            .query_map([], |row| Ok((row.get(0)?, Seq(row.get::<_, i64>(1)? as u64))))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self { segments, stale: false })
    }

    pub(super) fn forget_marks(&mut self) {
        self.stale = true;
    }

    pub(super) fn mark<'a>(
        &mut self,
        db: &Connection,
        seq: Seq,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> rusqlite::Result<()> {
        if self.stale {
            *self = Self::read(db)?;
        }
        if self.segments.is_empty() {
            return Ok(());
        }
        let mut update = db.prepare_cached("UPDATE segments SET touched = ?1 WHERE idx = ?2")?;
        for key in keys {
            let index = owner(&self.segments, key);
            let touched = &mut self.segments[index].1;
            if *touched != seq {
                *touched = seq;
                update.execute([seq.0 as i64, index as i64])?;
            }
        }
        Ok(())
    }
}

/// Of a list that is not empty.
fn owner(segments: &[(KeyBytes, Seq)], key: &[u8]) -> usize {
    segments.partition_point(|(first, _)| first.as_slice() <= key).saturating_sub(1)
}

impl Replica {
    /// Notes a checkpoint at `seq`, this device's or another's: its segments, and the hashes of past heads
    /// that its manifest names. Records since then count as changes to it.
    pub fn checkpointed(&self, seq: Seq, segments: &[Segment], past: &[(Seq, Hash)]) -> Result<(), MetaError> {
        let mut writer = self.writer.lock();
        let (head, _) = self.head();
        let done = (|| {
            let tx = writer.db.unchecked_transaction()?;
            let old = Touched::read(&tx)?.segments;
            let touched = touched_since(&old, segments, head);
            put_segments(&tx, segments, &touched)?;
            put_past(&tx, seq, past)?;
            tx.execute("UPDATE meta SET checkpoint = ?1", [seq.0 as i64])?;
            tx.commit()?;
            Touched::read(&writer.db)
        })();
        writer.touched = done.map_err(|error| self.explain(error))?;
        Ok(())
    }

    /// The newest checkpoint known; 0 if none.
    pub fn checkpoint(&self) -> Result<Seq, MetaError> {
        self.on(checkpoint)
    }

    /// Bytes of records since that checkpoint.
    pub fn log_len(&self) -> Result<u64, MetaError> {
        self.on(log_len)
    }

    /// The hash of a record, while it is remembered.
    pub fn past_head(&self, seq: Seq) -> Result<Option<Hash>, MetaError> {
        self.read_one("SELECT hash FROM heads WHERE seq = ?1", [seq.0 as i64], |row| Ok(Hash(row.get(0)?)))
    }
}

pub(super) fn checkpoint(db: &Connection) -> rusqlite::Result<Seq> {
    db.query_row("SELECT checkpoint FROM meta", [], |row| Ok(Seq(row.get::<_, i64>(0)? as u64)))
}

pub(super) fn log_len(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT coalesce(sum(len), 0) FROM heads, meta WHERE heads.seq > meta.checkpoint", [], |row| {
        Ok(row.get::<_, i64>(0)? as u64)
    })
}

/// Each segment, and whether a record since the checkpoint changed its range.
pub(super) fn segments(db: &Connection) -> rusqlite::Result<Vec<(Segment, bool)>> {
    db.prepare(
        "SELECT id, first, last, rows, len, hash, touched > (SELECT checkpoint FROM meta) FROM segments ORDER BY idx",
    )?
    .query_map([], |row: &Row<'_>| {
        let segment = Segment {
            id: SegmentId(row.get(0)?),
            first: row.get(1)?,
            last: row.get(2)?,
            rows: row.get::<_, i64>(3)? as u64,
            len: row.get::<_, i64>(4)? as u64,
            hash: Hash(row.get(5)?),
        };
        Ok((segment, row.get(6)?))
    })?
    .collect()
}

/// For each new segment the last record that may have changed its range, going by the old ones.
fn touched_since(old: &[(KeyBytes, Seq)], new: &[Segment], head: Seq) -> Vec<Seq> {
    let newest = |index: usize| {
        if old.is_empty() {
            // Nothing was noted: anything may have changed up to now.
            return head;
        }
        let from = if index == 0 { 0 } else { owner(old, &new[index].first) };
        let to = match new.get(index + 1) {
            // The owner of the next one's first key may also own keys before it.
            Some(next) => owner(old, &next.first),
            None => old.len() - 1,
        };
        old[from..=to].iter().map(|(_, touched)| *touched).max().unwrap_or(head)
    };
    (0..new.len()).map(newest).collect()
}

pub(super) fn put_segments(db: &Connection, segments: &[Segment], touched: &[Seq]) -> rusqlite::Result<()> {
    db.execute("DELETE FROM segments", [])?;
    let mut put = db.prepare("INSERT INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for (index, (segment, touched)) in segments.iter().zip(touched).enumerate() {
        let Segment { id, first, last, rows, len, hash } = segment;
        put.execute(params![index as i64, id.0, first, last, *rows as i64, *len as i64, hash.0, touched.0 as i64])?;
    }
    Ok(())
}

/// Those up to `seq` are from now on exactly `past`.
pub(super) fn put_past(db: &Connection, seq: Seq, past: &[(Seq, Hash)]) -> rusqlite::Result<()> {
    db.execute("DELETE FROM heads WHERE seq <= ?1", [seq.0 as i64])?;
    let mut put = db.prepare("INSERT OR IGNORE INTO heads VALUES (?1, ?2, 0)")?;
    for (seq, hash) in past {
        put.execute(params![seq.0 as i64, hash.0])?;
    }
    Ok(())
}
