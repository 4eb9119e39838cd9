//! Where a volume lives, as a person writes it.
//!
//! Invariant: a `StoreUrl` holds no secret, so that it can be shown, stored and logged; `parse` refuses text that
//! carries one, and its errors do not repeat the text.

use std::fmt;
use std::path::{Path, PathBuf};

/// `Display` writes a form that `parse` reads back to the same value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoreUrl {
    /// An absolute path on this machine.
    Local(PathBuf),
    S3 {
        bucket: String,
        prefix: String,
    },
    Gcs {
        bucket: String,
        prefix: String,
    },
    Azure {
        container: String,
        prefix: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("the address of the store is empty")]
    Empty,
    #[error("unknown kind of store {0:?}; known are a path, file://, s3://, gs:// and az://")]
    Scheme(String),
    #[error("write {0}://, with two slashes, or ./{0}: for a folder of that name")]
    Slashes(String),
    #[error("the address of the store has options after '?' or '#'; give them as options of their own")]
    Query,
    #[error("keys and passwords do not belong in the address; use the environment or a profile")]
    Secret,
    #[error("the bucket or container has a name that no store allows")]
    Bucket,
    #[error("the folder in the bucket is not usable: no '.', '..', empty parts or control characters")]
    Prefix,
    #[error("file:// needs an absolute path on this machine: file:///path")]
    File,
    #[error("the current folder is not known, so a relative path means nothing")]
    Relative,
}

impl StoreUrl {
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let Some((scheme, rest)) = text.split_once("://") else { return parse_path(text) };
        match scheme {
            "file" => parse_file(text),
            "s3" => parse_bucket(rest).map(|(bucket, prefix)| Self::S3 { bucket, prefix }),
            "gs" => parse_bucket(rest).map(|(bucket, prefix)| Self::Gcs { bucket, prefix }),
            "az" => parse_bucket(rest).map(|(container, prefix)| Self::Azure { container, prefix }),
            _ if scheme.contains('/') => parse_path(text),
            _ => Err(UrlError::Scheme(scheme.chars().take(20).collect())),
        }
    }

    /// Whether the store is a folder of this machine.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix) = match self {
            Self::Local(path) => return path.display().fmt(f),
            Self::S3 { bucket, prefix } => ("s3", bucket, prefix),
            Self::Gcs { bucket, prefix } => ("gs", bucket, prefix),
            Self::Azure { container, prefix } => ("az", container, prefix),
        };
        write!(f, "{scheme}://{bucket}")?;
        if prefix.is_empty() { Ok(()) } else { write!(f, "/{prefix}") }
    }
}

fn parse_path(text: &str) -> Result<StoreUrl, UrlError> {
    if text.is_empty() {
        return Err(UrlError::Empty);
    }
    // `s3:bucket` is a slip, not a folder.
    for scheme in ["s3", "gs", "az", "file", "http", "https"] {
        if text.strip_prefix(scheme).is_some_and(|rest| rest.starts_with(':')) {
            return Err(UrlError::Slashes(scheme.to_owned()));
        }
    }
    let path = std::path::absolute(Path::new(text)).map_err(|_| UrlError::Relative)?;
    Ok(StoreUrl::Local(path))
}

fn parse_file(text: &str) -> Result<StoreUrl, UrlError> {
    let url = url::Url::parse(text).map_err(|_| UrlError::File)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(UrlError::Query);
    }
    let path = url.to_file_path().map_err(|()| UrlError::File)?;
    // Every other place that takes a path takes text.
    if path.to_str().is_none() {
        return Err(UrlError::File);
    }
    Ok(StoreUrl::Local(path))
}

/// `bucket/prefix`, taken literally as every S3 tool does: a `%20` is three characters.
fn parse_bucket(rest: &str) -> Result<(String, String), UrlError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') || bucket.contains(':') {
        return Err(UrlError::Secret);
    }
    if rest.contains(['?', '#']) {
        return Err(UrlError::Query);
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'$');
    if bucket.is_empty() || bucket.len() > 255 || !bucket.bytes().all(is_allowed) {
        return Err(UrlError::Bucket);
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    // The parser passes over these: one place would have two addresses, and so two state folders.
    if prefix.starts_with('/') || prefix.ends_with('/') {
        return Err(UrlError::Prefix);
    }
    object_store::path::Path::parse(prefix).map_err(|_| UrlError::Prefix)?;
    Ok((bucket.to_owned(), prefix.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> StoreUrl {
        StoreUrl::S3 { bucket: bucket.into(), prefix: prefix.into() }
    }

    #[test]
    fn every_kind_is_parsed_and_shown_so_that_it_parses_again() {
        for (text, url) in [
            ("/srv/store", StoreUrl::Local("/srv/store".into())),
            ("file:///srv/my%20store", StoreUrl::Local("/srv/my store".into())),
            ("/srv/what?://odd", StoreUrl::Local("/srv/what?:/odd".into())),
            ("s3://bucket", s3("bucket", "")),
            ("s3://bucket/", s3("bucket", "")),
            ("s3://my-bucket.x/a/b c/", s3("my-bucket.x", "a/b c")),
            ("gs://bucket/p", StoreUrl::Gcs { bucket: "bucket".into(), prefix: "p".into() }),
            ("az://container/p", StoreUrl::Azure { container: "container".into(), prefix: "p".into() }),
        ] {
            assert_eq!(StoreUrl::parse(text), Ok(url.clone()), "{text}");
            assert_eq!(StoreUrl::parse(&url.to_string()), Ok(url), "{text}");
        }
        let relative = StoreUrl::parse("store").unwrap();
        assert_eq!(relative, StoreUrl::Local(std::env::current_dir().unwrap().join("store")));
    }

    #[test]
    fn slips_and_options_are_refused() {
        for (text, error) in [
            ("", UrlError::Empty),
            ("http://host/bucket", UrlError::Scheme("http".into())),
            ("S3://bucket", UrlError::Scheme("S3".into())),
            ("s3:bucket", UrlError::Slashes("s3".into())),
            ("s3://bucket?region=x", UrlError::Query),
            ("s3://bucket/p#f", UrlError::Query),
            ("file:///p?fsync=1", UrlError::Query),
            ("file://host/p", UrlError::File),
            ("s3://", UrlError::Bucket),
            ("s3:///p", UrlError::Bucket),
            ("s3://b c", UrlError::Bucket),
            ("s3://bucket/a//b", UrlError::Prefix),
            ("s3://bucket/a//", UrlError::Prefix),
            ("s3://bucket//a", UrlError::Prefix),
            ("s3://bucket/../b", UrlError::Prefix),
        ] {
            assert_eq!(StoreUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_key_in_the_address() {
        let error = StoreUrl::parse("s3://AKIA:canary@bucket/p").unwrap_err();
        assert_eq!(error, UrlError::Secret);
        assert!(!error.to_string().contains("canary"));
    }
}
