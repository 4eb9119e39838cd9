//! Why a link could not be fetched.

use std::io;
use std::path::PathBuf;

use crate::format::FormatError;
use crate::format::link::LinkError;
use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum GetError {
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the link's index is damaged: {0}")]
    Index(#[from] FormatError),
    /// Which is not named: pack numbers mean nothing to who has the link.
    #[error("what is stored of the link is damaged, or not what its owner published")]
    Damaged,
    #[error("the link was published anew while it was being fetched; fetch it again")]
    PublishedAnew,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the gateway cannot be reached: {0}")]
    Unreachable(String),
    #[error("the gateway answered {status}: {why}")]
    Gateway { status: u16, why: String },
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("the link's name begins with a dot, which would hide it: say with -o under which name to put it")]
    HiddenName,
    #[error("{}: {source}", path.display())]
    Local { path: PathBuf, source: io::Error },
    #[error("interrupted; the same command goes on where this one stopped")]
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    #[error("there is no such link here")]
    Missing,
    #[error("the link was taken back by who shared it")]
    Revoked,
    #[error("the link has expired")]
    Expired,
}

impl GetError {
    pub(super) fn local(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Local { path, source }
    }
}
