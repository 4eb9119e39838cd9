//! What a crash left in the staging folder.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::super::ContentError;
use super::file::{Pack, Phase};
use super::folder::Found;
use super::{Staged, Staging};
use crate::base::{ChunkNo, PackName, PackNo};
use crate::format::pack::PackEntry;

/// A pack that pending intents refer to, with the chunks they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referenced {
    pub pack: PackNo,
    pub name: PackName,
    pub chunks: Vec<PackEntry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Queued for upload.
    pub packs: Vec<PackName>,
    /// Referred to, and not here: committed already, or gone.
    pub missing: Vec<PackName>,
    /// Referred to, in a file that ends before them. Never after a crash alone, for they were synced before
    /// anything referred to them.
    pub lost: Vec<ChunkNo>,
}

/// What becomes of packs that no pending intent refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreferenced {
    Remove,
    /// They stay under a name that is not taken for a pack's.
    SetAside,
}

impl Staging {
    /// Takes up the packs that pending intents refer to. An open one is cut behind the last chunk referred to and closed;
    /// one that was sealed may be in the store and keeps its bytes. To be called once, before the first `append`.
    pub fn recover(&self, referenced: &[Referenced], rest: Unreferenced) -> Result<Recovered, ContentError> {
        let mut files = self.folder.list()?;
        // Of two with one name, which only a copied folder can have, the sealed one is whole: it comes last.
        files.sort_by_key(|file| file.sealed);
        let mut found: HashMap<PackName, Found> = files.into_iter().map(|file| (file.name, file)).collect();
        let mut recovered = Recovered::default();
        for wanted in referenced.iter().filter(|wanted| !wanted.chunks.is_empty()) {
            match found.remove(&wanted.name) {
                Some(file) => self.take_up(wanted, file, &mut recovered)?,
                None => recovered.missing.push(wanted.name),
            }
        }
        for file in found.into_values() {
            match rest {
                Unreferenced::Remove => self.folder.remove_found(file)?,
                Unreferenced::SetAside => self.folder.set_aside(file)?,
            }
        }
        self.changed.notify_waiters();
        Ok(recovered)
    }

    fn take_up(&self, wanted: &Referenced, file: Found, recovered: &mut Recovered) -> Result<(), ContentError> {
        let pack = Arc::new(Pack::found(wanted.pack, wanted.name));
        let end_of = |chunk: &PackEntry| u64::from(chunk.offset) + u64::from(chunk.len);
        let (kept, lost): (Vec<_>, Vec<_>) = wanted.chunks.iter().partition(|chunk| end_of(chunk) <= file.len);
        recovered.lost.extend(lost.iter().map(|chunk: &PackEntry| chunk.chunk));
        if kept.is_empty() {
            recovered.missing.push(wanted.name);
            return self.folder.remove_found(file);
        }
        let mut staged = Staged::new(pack, if file.sealed { Phase::Sealed } else { Phase::Closed });
        staged.len = if file.sealed { file.len } else { kept.iter().map(end_of).max().unwrap_or(0) };
        if !file.sealed {
            staged.pack.truncate(staged.len, &self.folder)?;
        }
        staged.chunks = kept;
        staged.closed_at = Some(Instant::now());
        recovered.packs.push(wanted.name);
        let mut state = self.state.lock();
        state.bytes += staged.len;
        state.packs.insert(wanted.name, staged);
        state.queue.push_back(wanted.name);
        state.not_in_a_cut.push(wanted.name);
        Ok(())
    }
}
