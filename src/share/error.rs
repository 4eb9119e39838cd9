//! Why a link could not be made, shown or taken back.

use crate::base::{LinkId, NameError};
use crate::format::FormatError;
use crate::format::link::LinkError;
use crate::store::StoreError;
use crate::vfs::api::VfsError;

use super::get::GetError;

#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("there is nothing at this path in the volume")]
    NoSuchPath,
    #[error("only files and folders can be shared, and this is neither")]
    NotShareable,
    #[error("what was shared is not in the volume any more")]
    SourceGone,
    #[error("the folder has more than {} folders in each other", crate::format::link::DEPTH_MAX)]
    TooDeep,
    #[error("the name of a link must do as a file's name: {0}")]
    Title(#[from] NameError),
    #[error("there is no link {0} in this volume")]
    Unknown(LinkId),
    #[error("the link was taken back")]
    Revoked,
    #[error("the link is being published at this moment")]
    Busy,
    #[error("other devices publish the same link again and again; try again later")]
    Conflict,
    #[error("interrupted; the same command goes on where this one stopped")]
    Interrupted,
    #[error("a file of the volume could not be read: {0}")]
    Vfs(#[from] VfsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("what was published before cannot be read: {0}")]
    Previous(#[source] GetError),
}
