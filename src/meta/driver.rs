//! Does what the log's state machine asks of the store.
//!
//! Invariants: what stands at or behind the newest head that was ever trusted is asked of the store itself, since
//! only that can show an older or another history; older records never change, so a local copy is as good. Copies
//! are kept only of records that the machine took.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;

use super::log::{Absorb, Action, CreateOutcome, Event, Finished, Halt, LogMachine, Waiting};
use crate::base::{Epoch, Hash, Seq};
use crate::format::{Manifest, ObjectName};
use crate::store::{Created, Keep, Store, StoreError};

pub struct LogDriver {
    pub machine: LogMachine,
    /// The store itself.
    remote: Arc<dyn Store>,
    /// The same through local copies, of all that was trusted.
    kept: Arc<Keep>,
}

/// What the machine needs that is not the store's.
#[derive(Debug)]
pub enum Need {
    /// Answer `Event::Sealed`.
    Seal {
        epoch: Epoch,
        seq: Seq,
        prev: Hash,
    },
    /// Answer `Event::Absorbed`.
    Absorb(Box<Absorb>),
    /// Answer `Event::Loaded`.
    Load(Box<Manifest>),
    /// Answer `Event::Waited`, after a while.
    Wait(Waiting),
    Finished(Finished),
    Halt(Halt),
}

impl LogDriver {
    pub fn new(machine: LogMachine, remote: Arc<dyn Store>, kept: Arc<Keep>) -> Self {
        Self { machine, remote, kept }
    }

    pub async fn answer(&mut self, event: Event) -> Result<Need, StoreError> {
        let action = self.machine.step(event);
        self.run(action).await
    }

    /// After an error the machine is begun again, by `follow` or the same `commit`.
    pub async fn run(&mut self, mut action: Action) -> Result<Need, StoreError> {
        loop {
            let event = match action {
                Action::ReadLog { from, count } => {
                    let reads = (0..u64::from(count)).map(|at| self.read_log(Seq(from.0.saturating_add(at))));
                    Event::Log(try_join_all(reads).await?)
                }
                Action::ReadFloor(n) => Event::Floor(self.remote.get(&ObjectName::Floor(n)).await?),
                Action::ReadManifest(seq) => Event::Manifest(self.remote.get(&ObjectName::Checkpoint(seq)).await?),
                Action::Create { seq, bytes } => {
                    let outcome = match self.remote.create(&ObjectName::Log(seq), bytes).await {
                        Ok(Created::New) => CreateOutcome::New,
                        Ok(Created::Exists) => CreateOutcome::Exists,
                        // Whatever was heard of it, what stands in the log decides.
                        Err(error) => {
                            tracing::warn!(%error, "it is not known yet whether record {seq} was stored");
                            CreateOutcome::Unknown
                        }
                    };
                    Event::Created(outcome)
                }
                Action::Seal { epoch, seq, prev } => return Ok(Need::Seal { epoch, seq, prev }),
                Action::Absorb(absorb) => {
                    self.kept.put_copy(&ObjectName::Log(absorb.head.seq), absorb.bytes.clone()).await;
                    return Ok(Need::Absorb(absorb));
                }
                Action::Load(manifest) => return Ok(Need::Load(manifest)),
                Action::Wait(waiting) => return Ok(Need::Wait(waiting)),
                Action::Finished(finished) => return Ok(Need::Finished(finished)),
                Action::Halt(halt) => return Ok(Need::Halt(halt)),
            };
            action = self.machine.step(event);
        }
    }

    async fn read_log(&self, seq: Seq) -> Result<Option<bytes::Bytes>, StoreError> {
        let name = ObjectName::Log(seq);
        if seq < self.machine.remembered().seq
            && let Some(copy) = self.kept.copy(&name).await
        {
            return Ok(Some(copy));
        }
        self.remote.get(&name).await
    }
}

/// Waits longer after each failure, up to half a minute.
pub struct Patience {
    next: Duration,
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(30);

    pub fn new() -> Self {
        Self { next: Self::FIRST }
    }

    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Self::LONGEST);
    }

    pub fn renew(&mut self) {
        self.next = Self::FIRST;
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}
