//! The lines on the socket. `status --json` prints `Status` as it is here.

use serde::{Deserialize, Serialize};

use crate::cli::exit::Code;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    Status,
    /// Answered by `Progress` until `Done`.
    Flush,
    /// Gives the volume new keys, which all slots but this one open.
    Rotate {
        without: Option<u16>,
    },
    /// Seals anew what is under keys of before a rotation, at most so many bytes a second. Answered by `Progress`, of
    /// what is left of that, until `Done`; it goes on if the connection ends.
    Reseal {
        rate: Option<u64>,
    },
    /// As `Flush`, and `Done` when the drive is unmounted and closed. If the connection ends before it is
    /// unmounted, it stays mounted.
    Umount {
        wait: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Reply {
    Status(Box<Status>),
    Progress(Left),
    Done,
    Failed { code: Code, message: String },
}

/// What is not in the store yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    pub files: u64,
    pub bytes: u64,
    /// Why it does not get less, if something is wrong.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub url: String,
    pub mountpoint: String,
    /// False while what is left is still going to the store.
    pub mounted: bool,
    /// The daemon was killed: the directory answers nothing until it is mounted again.
    pub dead: bool,
    pub pid: u32,
    pub version: String,
    pub read_only: bool,
    /// Why it takes no more changes and uploads nothing, since the log went a way that it cannot follow. What waits
    /// stays on this machine.
    pub stopped: Option<String>,
    /// Hexadecimal.
    pub volume: Option<String>,
    /// The newest log record that this device has.
    pub head: Option<u64>,
    pub waiting: Waiting,
    pub old_keys: OldKeys,
    pub cache: CacheUse,
    pub store: StoreState,
    /// The last failure of the store or of this machine's disk, also if all is well again.
    pub last_error: Option<String>,
    /// None while it lasts.
    pub last_error_seconds_ago: Option<u64>,
    /// Chunks of files that could not be read since the mount because they are damaged or missing in the store.
    pub damaged_chunks: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    pub files: u64,
    pub bytes: u64,
    pub oldest_seconds: Option<u64>,
}

/// What is still sealed with keys of before a rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OldKeys {
    /// None, as the next two, while it is being counted.
    pub files: Option<u64>,
    /// Pieces of files; what several files share counts once, here and in bytes.
    pub chunks: Option<u64>,
    pub bytes: Option<u64>,
    /// Whether it is being sealed anew.
    pub resealing: bool,
    /// Chunks of it that could not be read.
    pub unreadable: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheUse {
    pub used_bytes: u64,
    pub max_bytes: u64,
    /// Why it is not used, after a fault of the disk.
    pub disabled: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreState {
    /// The last request was answered.
    pub ok: bool,
    /// With what to do about it. None when it is ok.
    pub error: Option<String>,
    pub failing_for_seconds: Option<u64>,
}
