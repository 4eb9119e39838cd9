//! The one place that speaks to object_store: buckets and local folders as a `Store`.
//!
//! Every call is one request; retries, deadlines and counting are decorators above. Two things are settled here
//! because only here they can be seen: a range beyond an object's end is empty and no error, and a local folder
//! is watched so that an unmounted disk is "unreachable" and never an empty store that takes new objects.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use super::translate::translate;
use super::{Created, Op, Prefix, Store, StoreError, StoreErrorKind, is_under};
use crate::base::{ByteRange, MIB};
use crate::format::ObjectName;

pub(super) struct ObjectStoreAdapter {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    root: Option<LocalRoot>,
}

/// Which folder it was when the store was opened. Another one at the same path, such as the empty mount point of a
/// disk that went away, would take commits that nobody ever sees again.
pub(super) struct LocalRoot {
    path: PathBuf,
    identity: (u64, u64),
}

impl ObjectStoreAdapter {
    pub fn new(inner: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { inner, prefix, root: None }
    }

    pub fn local(inner: Arc<dyn ObjectStore>, root: LocalRoot) -> Self {
        Self { inner, prefix: Path::default(), root: Some(root) }
    }

    fn path(&self, name: &ObjectName) -> Path {
        join(&self.prefix, &name.to_string())
    }

    async fn check_root(&self, op: Op, name: Option<&ObjectName>) -> Result<(), StoreError> {
        let Some(root) = &self.root else { return Ok(()) };
        let (path, identity) = (root.path.clone(), root.identity);
        let found = tokio::task::spawn_blocking(move || LocalRoot::identify(&path)).await;
        let detail = match found {
            Ok(Ok(now)) if now == identity => return Ok(()),
            Ok(Ok(_)) => "another folder is there now; is the disk mounted?".to_owned(),
            Ok(Err(error)) => format!("{error}; is the disk mounted?"),
            Err(error) => error.to_string(),
        };
        Err(StoreError::new(StoreErrorKind::Unreachable, op, name.copied(), detail))
    }

    /// `None` only if the folder that lacks the object is still the right one.
    async fn absent<T>(&self, op: Op, name: &ObjectName) -> Result<Option<T>, StoreError> {
        self.check_root(op, Some(name)).await?;
        Ok(None)
    }

    async fn read(&self, name: &ObjectName, range: Option<GetRange>) -> Result<Option<Bytes>, StoreError> {
        let len_max = match &range {
            Some(GetRange::Bounded(range)) => range.end - range.start,
            _ => name.len_max(),
        };
        let options = GetOptions { range, ..GetOptions::default() };
        let outcome = match self.inner.get_opts(&self.path(name), options).await {
            Ok(result) => take(result, len_max).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => match translate(Op::Get, Some(*name), error)? {
                Missing => self.absent(Op::Get, name).await,
            },
        }
    }
}

/// The body as far as it may go, whatever length the server said it has. A local file's is known.
async fn take(result: GetResult, len_max: u64) -> object_store::Result<Bytes> {
    let GetResultPayload::Stream(mut body) = result.payload else { return result.bytes().await };
    let announced = result.range.end.saturating_sub(result.range.start);
    let mut whole = BytesMut::with_capacity(announced.min(len_max) as usize);
    while let Some(part) = body.next().await {
        whole.extend_from_slice(&part?);
        if whole.len() as u64 >= len_max {
            whole.truncate(len_max as usize);
            break;
        }
    }
    Ok(whole.freeze())
}

/// A listing is a hint, and no reason to run out of memory: what a store names beyond this is left out.
const NAMES_MAX: usize = 4 << 20;

/// What `translate` gives for an object that is not there.
pub(super) struct Missing;

#[async_trait]
impl Store for ObjectStoreAdapter {
    async fn create(&self, name: &ObjectName, bytes: Bytes) -> Result<Created, StoreError> {
        self.check_root(Op::Create, Some(name)).await?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.inner.put_opts(&self.path(name), in_parts(bytes), options).await {
            Ok(_) => {
                // It may have gone to another folder that took the place meanwhile.
                self.check_root(Op::Create, Some(name))
                    .await
                    .map_err(|error| StoreError { kind: StoreErrorKind::Unknown, ..error })?;
                Ok(Created::New)
            }
            // A 409 that is no "already exists" is told apart by its code.
            Err(error @ object_store::Error::AlreadyExists { .. }) if !super::translate::is_conflict(&error) => {
                Ok(Created::Exists)
            }
            Err(error) => match translate(Op::Create, Some(*name), error)? {
                Missing => Err(StoreError::new(
                    StoreErrorKind::NoBucket,
                    Op::Create,
                    Some(*name),
                    "the store answered 'not found' to a put",
                )),
            },
        }
    }

    async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.read(name, None).await
    }

    async fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        if range.is_empty() {
            return Ok(self.size(name).await?.map(|_| Bytes::new()));
        }
        let error = match self.read(name, Some(GetRange::Bounded(range.start..range.end))).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        // A range beyond the end is an error of many texts; the size tells whether it was that.
        if error.kind != StoreErrorKind::Refused {
            return Err(error);
        }
        match self.size(name).await? {
            Some(size) if size <= range.start => Ok(Some(Bytes::new())),
            Some(_) => Err(error),
            None => Ok(None),
        }
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        match self.inner.head(&self.path(name)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) => match translate(Op::Size, Some(*name), error)? {
                Missing => self.absent(Op::Size, name).await,
            },
        }
    }

    async fn list(&self, prefix: Prefix) -> Result<Vec<ObjectName>, StoreError> {
        self.check_root(Op::List, None).await?;
        let folder = join(&self.prefix, &prefix.to_string());
        let mut listing = self.inner.list((!folder.as_ref().is_empty()).then_some(&folder));
        let mut names = Vec::new();
        while let Some(entry) = listing.next().await {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => match translate(Op::List, None, error)? {
                    Missing => {
                        return Err(StoreError::new(
                            StoreErrorKind::NoBucket,
                            Op::List,
                            None,
                            "the store answered 'not found' to a listing",
                        ));
                    }
                },
            };
            let text = strip(&self.prefix, &entry.location);
            names.extend(text.and_then(ObjectName::parse).filter(|name| is_under(prefix, name)));
            if names.len() >= NAMES_MAX {
                tracing::error!("the store lists more than {NAMES_MAX} objects under {prefix}; the rest is left out");
                break;
            }
        }
        // The folder may have gone away while it was walked.
        self.check_root(Op::List, None).await?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.check_root(Op::Delete, Some(name)).await?;
        match self.inner.delete(&self.path(name)).await {
            Ok(()) => Ok(()),
            Err(error) => translate(Op::Delete, Some(*name), error).map(|Missing| ()),
        }
    }
}

impl LocalRoot {
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let identity = Self::identify(&path)?;
        Ok(Self { path, identity })
    }

    fn identify(path: &std::path::Path) -> io::Result<(u64, u64)> {
        let meta = std::fs::metadata(path)?;
        if !meta.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok((meta.dev(), meta.ino()))
    }
}

/// Names are ASCII letters, digits, '.' and '/', which no path of object_store escapes.
fn join(prefix: &Path, text: &str) -> Path {
    prefix.parts().chain(Path::from(text).parts().map(|part| part.as_ref().to_owned().into())).collect()
}

fn strip<'a>(prefix: &Path, location: &'a Path) -> Option<&'a str> {
    let text: &str = location.as_ref();
    if prefix.as_ref().is_empty() {
        return Some(text);
    }
    text.strip_prefix(prefix.as_ref())?.strip_prefix('/')
}
/// A local store writes each part for itself, and the kernel takes many short writes at a third of what one of 16 MiB
/// costs it, for which it looks for as much memory in one piece.
fn in_parts(bytes: Bytes) -> PutPayload {
    const PART_LEN: usize = MIB as usize;
    let part = |start| bytes.slice(start..bytes.len().min(start + PART_LEN));
    (0..bytes.len()).step_by(PART_LEN).map(part).collect()
}
