//! Why a link could not be fetched.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::base::Printable;
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
    #[error("{} is there already", shown(.0))]
    Exists(PathBuf),
    #[error(
        "{} is in the way: it looks like what an earlier try left, but is somebody else's or nothing that the link has; \
         look at it, remove it, and fetch again", shown(.0)
    )]
    Foreign(PathBuf),
    #[error(
        "{} has the name of something else in the link, for this filesystem, which may not tell capitals from small \
         letters; fetch the link to another", shown(.0)
    )]
    SameName(PathBuf),
    #[error("the link's name begins with a dot, which would hide it: say with -o under which name to put it")]
    HiddenName,
    #[error("{}: {source}", shown(path))]
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

/// What the sender chose is in it.
fn shown(path: &std::path::Path) -> String {
    Printable(path.as_os_str().as_bytes()).to_string()
}

impl GetError {
    pub(super) fn local(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Local { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_an_error_does_nothing_to_a_terminal() {
        let path = || PathBuf::from("a/\x1b[2J\x07");
        let local = GetError::local(path())(io::ErrorKind::FileTooLarge.into());
        for error in [GetError::Exists(path()), GetError::Foreign(path()), GetError::SameName(path()), local] {
            let text = error.to_string();
            assert!(text.contains("a/\\x1b[2J\\x07") && !text.contains(char::is_control), "{text}");
        }
    }
}
