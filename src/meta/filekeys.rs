//! File keys: wrapped in rows, unwrapped and remembered for the files in use.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::error::MetaError;
use super::rows::Rows;
use super::view::View;
use crate::base::{Entropy, Epoch, KeyNo};
use crate::crypto::{Key, Roots};
use crate::format::rows::FileKeyRow;

const REMEMBERED: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

#[derive(Clone)]
pub struct FileKey {
    pub number: KeyNo,
    /// Whose root wraps it.
    pub epoch: Epoch,
    pub key: Arc<Key>,
}

pub struct FileKeys {
    roots: Roots,
    entropy: Arc<dyn Entropy>,
    recent: Mutex<LruCache<KeyNo, FileKey>>,
}

impl FileKeys {
    pub fn new(roots: Roots, entropy: Arc<dyn Entropy>) -> Self {
        Self { roots, entropy, recent: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// A new file key, and the row that keeps it.
    pub fn create(&self, number: KeyNo) -> (FileKey, FileKeyRow) {
        let key = Arc::new(Key::generate(self.entropy.as_ref()));
        let (epoch, wrapped) = self.roots.wrap_file_key(number, &key, self.entropy.as_ref());
        let file_key = FileKey { number, epoch, key };
        self.recent.lock().put(number, file_key.clone());
        (file_key, FileKeyRow { epoch, wrapped: wrapped.into() })
    }

    pub fn get(&self, number: KeyNo, view: &View) -> Result<FileKey, MetaError> {
        if let Some(file_key) = self.recent.lock().get(&number) {
            return Ok(file_key.clone());
        }
        let row = view.file_key(number)?.ok_or(MetaError::MissingRow("a file key"))?;
        let key = self.roots.unwrap_file_key(row.epoch, number, &row.wrapped);
        let key = Arc::new(key.map_err(|error| MetaError::Sealed("a file key", error))?);
        let file_key = FileKey { number, epoch: row.epoch, key };
        self.recent.lock().put(number, file_key.clone());
        Ok(file_key)
    }

    /// The row of the same key under another number.
    pub fn renumber(&self, old: KeyNo, row: &FileKeyRow, new: KeyNo) -> Result<FileKeyRow, MetaError> {
        let wrapped = self.roots.renumber_file_key(row.epoch, old, new, &row.wrapped, self.entropy.as_ref());
        let wrapped = wrapped.map_err(|error| MetaError::Sealed("a file key", error))?;
        Ok(FileKeyRow { epoch: row.epoch, wrapped: wrapped.into() })
    }

    /// Of the keys that are made now.
    pub fn epoch(&self) -> Epoch {
        self.roots.epoch()
    }

    /// Whether new content may go under this key. Not after a rotation: who was locked out knows it.
    pub fn is_current(&self, file_key: &FileKey) -> bool {
        file_key.epoch == self.roots.epoch()
    }
}
