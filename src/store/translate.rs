//! object_store's errors, folded into ours. The only place that reads their texts.
//!
//! It looks at three things along the chain of causes: the HTTP status and the error code in the answer's body,
//! the kind of a transport error, and the operating system's error of a local folder. Of an answer's body only
//! the code and the message are kept: the rest may name accounts and signatures.

use std::error::Error as StdError;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use super::object::Missing;
use super::{Op, StoreError, StoreErrorKind};
use crate::format::ObjectName;

const DETAIL_CHARS_MAX: usize = 200;

/// `Ok(Missing)` when the object is not there, which is an answer and no error.
pub(super) fn translate(op: Op, object: Option<ObjectName>, error: object_store::Error) -> Result<Missing, StoreError> {
    let is_not_found = matches!(error, object_store::Error::NotFound { .. });
    let (kind, detail) = match classify(op, &error) {
        Found::Kind(kind, detail) => (kind, detail),
        Found::Nothing if is_not_found => return Ok(Missing),
        Found::Nothing => (StoreErrorKind::Refused, innermost(&error)),
    };
    Err(StoreError::new(kind, op, object, shorten(&detail)).with_source(error))
}

/// A put that another one in flight got in the way of: neither stored nor "already exists".
pub(super) fn is_conflict(error: &object_store::Error) -> bool {
    HttpAnswer::find(error)
        .is_some_and(|answer| matches!(&*answer.code, "ConditionalRequestConflict" | "OperationAborted"))
}

/// An error that one of our credential providers makes and that passes through object_store.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct CredentialError {
    pub kind: StoreErrorKind,
    pub detail: String,
}

enum Found {
    Kind(StoreErrorKind, String),
    Nothing,
}

fn classify(op: Op, error: &object_store::Error) -> Found {
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<CredentialError>() {
            return Found::Kind(error.kind, error.detail.clone());
        }
        if let Some(error) = cause.downcast_ref::<HttpError>() {
            return Found::Kind(transport(op, error.kind(), cause), innermost(cause));
        }
    }
    if let Some(answer) = HttpAnswer::find(error) {
        return match answer.kind(op) {
            Some(kind) => Found::Kind(kind, answer.text()),
            None => Found::Nothing,
        };
    }
    if matches!(error, object_store::Error::NotFound { .. }) {
        return Found::Nothing;
    }
    match causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()) {
        Some(found) => Found::Kind(local(op, found, error), found.to_string()),
        None => Found::Nothing,
    }
}

fn transport(op: Op, kind: HttpErrorKind, error: &(dyn StdError + 'static)) -> StoreErrorKind {
    // The only timeout that the HTTP client itself has is the one for connecting; hyper says so in its text.
    let never_sent = kind == HttpErrorKind::Connect || causes(error).any(|c| c.to_string().contains("(Connect)"));
    match kind {
        _ if never_sent => StoreErrorKind::Unreachable,
        _ if op == Op::Create => StoreErrorKind::Unknown,
        HttpErrorKind::Decode => StoreErrorKind::Server,
        _ => StoreErrorKind::Unreachable,
    }
}

fn local(op: Op, error: &io::Error, whole: &object_store::Error) -> StoreErrorKind {
    use io::ErrorKind as Io;
    // The link that publishes an object comes before the sync of its folder.
    if op == Op::Create && whole.to_string().contains("sync data to disk") {
        return StoreErrorKind::Unknown;
    }
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => StoreErrorKind::Full,
        Io::PermissionDenied => StoreErrorKind::Denied,
        Io::StaleNetworkFileHandle | Io::HostUnreachable | Io::NetworkUnreachable | Io::TimedOut => {
            StoreErrorKind::Unreachable
        }
        _ => StoreErrorKind::Io,
    }
}

/// An answer that was no success, as far as its text tells.
struct HttpAnswer {
    status: u16,
    /// `SlowDown` and the like; empty when the body has none.
    code: String,
    message: String,
}

impl HttpAnswer {
    fn find(error: &object_store::Error) -> Option<Self> {
        causes(error).find_map(|cause| Self::parse(&cause.to_string()))
    }

    /// `Server returned non-2xx status code: 503 Service Unavailable: <body>` or `Server returned error response: <body>`.
    fn parse(text: &str) -> Option<Self> {
        let (status, body) = if let Some((_, rest)) = text.split_once("non-2xx status code: ") {
            (rest.get(..3)?.parse().ok()?, rest)
        } else if let Some((_, rest)) = text.split_once("Server returned error response: ") {
            (200, rest)
        } else if text.contains("Received redirect without LOCATION") {
            (301, "")
        } else {
            return None;
        };
        let code = element(body, "Code").or_else(|| json_text(body, "reason")).unwrap_or_default();
        let message = element(body, "Message").or_else(|| json_text(body, "message")).unwrap_or_default();
        Some(Self { status, code: code.to_owned(), message: message.to_owned() })
    }

    /// `None` for "no such object".
    fn kind(&self, op: Op) -> Option<StoreErrorKind> {
        use StoreErrorKind as Kind;
        // What may have been applied although the answer says that something broke.
        let broken = if op == Op::Create { Kind::Unknown } else { Kind::Server };
        Some(match &*self.code {
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired" => {
                Kind::CredentialsExpired
            }
            "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" => Kind::NoBucket,
            "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "TooManyRequests"
            | "rateLimitExceeded" => Kind::Throttled,
            "QuotaExceeded" | "InsufficientCapacity" | "XMinioStorageFull" => Kind::Full,
            "RequestTimeout" | "ConditionalRequestConflict" | "OperationAborted" => broken,
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed" | "AuthenticationFailed" => {
                Kind::Denied
            }
            _ => match self.status {
                401 | 403 => Kind::Denied,
                404 | 410 => return None,
                408 => broken,
                429 => Kind::Throttled,
                507 => Kind::Full,
                // The server does not know a header that we need.
                501 => Kind::Refused,
                // A success that holds an error.
                200..=299 | 500..=599 => broken,
                _ => Kind::Refused,
            },
        })
    }

    fn text(&self) -> String {
        let mut text = match self.status {
            301 | 307 | 308 => format!("HTTP {}; is the region right?", self.status),
            status => format!("HTTP {status}"),
        };
        for part in [&self.code, &self.message] {
            if !part.is_empty() {
                text.push_str(": ");
                text.push_str(part);
            }
        }
        text
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

fn json_text<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("\"{name}\""))?;
    let (_, value) = rest.trim_start().strip_prefix(':')?.split_once('"')?;
    Some(value.split_once('"')?.0)
}

/// One line of a bearable length, whatever a server wrote.
fn shorten(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Text(String);

    fn answer(status: &str, body: &str) -> object_store::Error {
        let text = format!("Server returned non-2xx status code: {status}: {body}");
        object_store::Error::Generic { store: "S3", source: Box::new(Text(text)) }
    }

    fn xml(code: &str) -> String {
        format!("<Error><Code>{code}</Code><Message>so it is</Message><AWSAccessKeyId>canary</AWSAccessKeyId></Error>")
    }

    fn kind_of(op: Op, error: object_store::Error) -> StoreErrorKind {
        translate(op, None, error).err().map(|error| error.kind).expect("an error")
    }

    #[test]
    fn answers_become_what_a_caller_can_act_on() {
        use StoreErrorKind as Kind;
        for (status, code, read, create) in [
            ("403 Forbidden", "AccessDenied", Kind::Denied, Kind::Denied),
            ("403 Forbidden", "", Kind::Denied, Kind::Denied),
            ("400 Bad Request", "ExpiredToken", Kind::CredentialsExpired, Kind::CredentialsExpired),
            ("404 Not Found", "NoSuchBucket", Kind::NoBucket, Kind::NoBucket),
            ("503 Service Unavailable", "SlowDown", Kind::Throttled, Kind::Throttled),
            ("429 Too Many Requests", "", Kind::Throttled, Kind::Throttled),
            ("503 Service Unavailable", "", Kind::Server, Kind::Unknown),
            ("500 Internal Server Error", "InternalError", Kind::Server, Kind::Unknown),
            ("409 Conflict", "ConditionalRequestConflict", Kind::Server, Kind::Unknown),
            ("501 Not Implemented", "NotImplemented", Kind::Refused, Kind::Refused),
            ("400 Bad Request", "InvalidArgument", Kind::Refused, Kind::Refused),
        ] {
            assert_eq!(kind_of(Op::Get, answer(status, &xml(code))), read, "{status} {code}");
            assert_eq!(kind_of(Op::Create, answer(status, &xml(code))), create, "{status} {code}");
        }
    }

    #[test]
    fn a_missing_object_is_no_error_but_a_missing_bucket_is() {
        let not_found = |body: &str| object_store::Error::NotFound {
            path: "x".into(),
            source: Box::new(Text(format!("Server returned non-2xx status code: 404 Not Found: {body}"))),
        };
        assert!(translate(Op::Get, None, not_found("")).is_ok());
        assert!(translate(Op::Get, None, not_found(&xml("NoSuchKey"))).is_ok());
        assert_eq!(kind_of(Op::Get, not_found(&xml("NoSuchBucket"))), StoreErrorKind::NoBucket);
    }

    #[test]
    fn only_code_and_message_of_an_answer_are_shown() {
        let error = translate(Op::Get, None, answer("403 Forbidden", &xml("AccessDenied"))).err().unwrap();
        assert_eq!(error.detail, "HTTP 403: AccessDenied: so it is");
        assert!(!error.to_string().contains("canary"));
    }

    #[test]
    fn a_connection_that_never_was_cannot_have_stored_anything() {
        let refused = |kind| object_store::Error::Generic {
            store: "S3",
            source: Box::new(HttpError::new(kind, io::Error::from(io::ErrorKind::ConnectionRefused))),
        };
        assert_eq!(kind_of(Op::Create, refused(HttpErrorKind::Connect)), StoreErrorKind::Unreachable);
        assert_eq!(kind_of(Op::Create, refused(HttpErrorKind::Request)), StoreErrorKind::Unknown);
        assert_eq!(kind_of(Op::Create, refused(HttpErrorKind::Timeout)), StoreErrorKind::Unknown);
        assert_eq!(kind_of(Op::Get, refused(HttpErrorKind::Request)), StoreErrorKind::Unreachable);
    }
}
