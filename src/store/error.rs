//! What can go wrong between us and a store, folded into kinds that a caller can act on.

use std::fmt;
use std::sync::Arc;

use crate::format::ObjectName;

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Setting up, before any request.
    Connect,
    Create,
    Get,
    Size,
    List,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreErrorKind {
    /// No connection: offline, a wrong address, a server that is down.
    Unreachable,
    /// No answer within the deadline; nothing was changed (reads, lists) or it is idempotent (deletes).
    Timeout,
    /// The credentials are known and may not do this, or are not known at all.
    Denied,
    CredentialsExpired,
    /// No credentials could be found or made.
    NoCredentials,
    /// The bucket or container does not exist.
    NoBucket,
    /// The store asks to slow down. A create that was throttled was not applied.
    Throttled,
    /// A create may or may not have been applied: read the object before deciding.
    Unknown,
    /// A 5xx answer, or one that makes no sense. Passing, as far as we know.
    Server,
    /// The local disk or quota behind the store is full.
    Full,
    /// A local path could not be used.
    Io,
    /// The store cannot do what we need, or the request was wrong. Trying again does not help.
    Refused,
}

impl StoreErrorKind {
    /// Whether the same request may succeed a moment later without anybody doing anything.
    pub fn is_passing(self) -> bool {
        match self {
            Self::Unreachable | Self::Timeout | Self::Throttled | Self::Unknown | Self::Server => true,
            Self::Denied
            | Self::CredentialsExpired
            | Self::NoCredentials
            | Self::NoBucket
            | Self::Full
            | Self::Io
            | Self::Refused => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Unreachable => "check the network and the endpoint address",
            Self::Timeout => "the store did not answer in time; check the network",
            Self::Denied => {
                "check the access key and that it may get, put, list and delete objects below this prefix, \
                 and that this machine's clock is right"
            }
            Self::CredentialsExpired => "the credentials have expired; fetch new ones and mount again",
            Self::NoCredentials => "they come from where the store's own tools take them",
            Self::NoBucket => "create the bucket first; hushfs never creates one",
            Self::Throttled => "the store asks to slow down; hushfs tries again by itself",
            Self::Unknown => "the answer was lost; hushfs finds out by itself whether the object was stored",
            Self::Server => "the store has an error of its own; hushfs tries again by itself",
            Self::Full => "free some space where the store keeps its objects",
            Self::Io => "check that the folder exists and may be written",
            Self::Refused => "the store cannot do what is needed; check its address and its settings",
        }
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "store unreachable",
            Self::Timeout => "no answer in time",
            Self::Denied => "access denied",
            Self::CredentialsExpired => "credentials expired",
            Self::NoCredentials => "no credentials",
            Self::NoBucket => "no such bucket",
            Self::Throttled => "throttled",
            Self::Unknown => "outcome unknown",
            Self::Server => "store error",
            Self::Full => "no space in the store",
            Self::Io => "local error",
            Self::Refused => "refused",
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect to",
            Self::Create => "create",
            Self::Get => "get",
            Self::Size => "size",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

/// Cheap to clone, because one failed fetch is told to all who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{op} {}: {kind}{} ({})", ObjectText(object), Detail(detail), kind.hint())]
pub struct StoreError {
    pub kind: StoreErrorKind,
    pub op: Op,
    pub object: Option<ObjectName>,
    /// What the store or the system said, in short.
    pub detail: String,
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    pub fn new(kind: StoreErrorKind, op: Op, object: Option<ObjectName>, detail: impl Into<String>) -> Self {
        Self { kind, op, object, detail: detail.into(), source: None }
    }

    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

struct ObjectText<'a>(&'a Option<ObjectName>);

impl fmt::Display for ObjectText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => name.fmt(f),
            None => f.write_str("the store"),
        }
    }
}

struct Detail<'a>(&'a str);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}
