//! Does what is asked about links, in the process that has the volume open.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::args::after;
use super::protocol::{CopyRequest, Link, ShareEvent, ShareRequest, parse_id};
use crate::base::{Clock, Name, SystemClock};
use crate::cli::drive;
use crate::cli::exit::{Code, Failure, OrExit, Outcome};
use crate::crypto::parse_recipient;
use crate::format::link::LinkError;
use crate::share::get::GetError;
use crate::share::{Progress, Request, ShareError, Sharing};
use crate::store::StoreErrorKind;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Blocks. `emit` answers false when nobody listens any more, which interrupts the work.
pub fn perform(sharing: &Sharing, request: ShareRequest, emit: &mut dyn FnMut(ShareEvent) -> bool) -> Outcome {
    match request {
        ShareRequest::Create { copy, live } => {
            let request = Request { live, ..request_of(copy)? };
            let shared = sharing.create(request, &mut progress_to(emit)).map_err(share_failure)?;
            let (info, _) = sharing.show(shared.id).map_err(share_failure)?;
            let link = Box::new(Link::new(&info, Some(&shared.url)));
            emit(ShareEvent::Created { link, left_out: shared.left_out, sent_bytes: shared.sent_bytes });
        }
        ShareRequest::Export { copy, folder } => {
            let store = drive::folder_store(Path::new(OsStr::from_bytes(&folder)))?;
            let shared =
                sharing.export(request_of(copy)?, store, &mut progress_to(emit)).map_err(|error| match error {
                    // Not of the volume's store: of the folder, which is the user's own disk.
                    ShareError::Store(error) if error.kind == StoreErrorKind::Full => {
                        Failure::new(Code::Other, "there is no room on this disk for what the page is to hold")
                    }
                    ShareError::Store(error) => Failure::new(Code::Other, error),
                    error => share_failure(error),
                })?;
            emit(ShareEvent::Exported { link: shared.url.text().to_string(), left_out: shared.left_out });
        }
        ShareRequest::List => {
            let links = sharing.list().map_err(share_failure)?;
            emit(ShareEvent::Links { links: links.iter().map(|link| Link::new(link, None)).collect() });
        }
        ShareRequest::Show { id } => {
            let (info, url) = sharing.show(parse_id(&id)?).map_err(share_failure)?;
            emit(ShareEvent::Shown { link: Box::new(Link::new(&info, url.as_ref())) });
        }
        ShareRequest::Revoke { id } => sharing.revoke(parse_id(&id)?).map_err(share_failure)?,
    }
    Ok(())
}

fn request_of(copy: CopyRequest) -> Outcome<Request> {
    let CopyRequest { path, name, expires_seconds, password, recipient } = copy;
    let title = name.map(|name| Name::parse(name.as_bytes())).transpose();
    Ok(Request {
        path,
        title: title.map_err(ShareError::Title).map_err(share_failure)?,
        expiry: expires_seconds.map(|seconds| after(SystemClock.now(), seconds)),
        password: password.map(super::Passphrase::take),
        recipient: recipient.map(|text| parse_recipient(&text)).transpose().or_exit(Code::Usage)?,
        live: false,
    })
}

/// Now and then.
fn progress_to(emit: &mut dyn FnMut(ShareEvent) -> bool) -> impl FnMut(&Progress) -> bool {
    let mut told = Instant::now();
    move |progress| {
        let due = told.elapsed() >= PROGRESS_INTERVAL;
        if due {
            told = Instant::now();
        }
        !due || emit(ShareEvent::Progress(*progress))
    }
}

pub(super) fn share_failure(error: ShareError) -> Failure {
    let code = match &error {
        ShareError::NoSuchPath | ShareError::NotShareable | ShareError::Title(_) | ShareError::TooDeep => Code::Usage,
        ShareError::Unknown(_) | ShareError::Revoked => Code::LinkGone,
        ShareError::Busy | ShareError::Conflict => Code::Busy,
        ShareError::Interrupted => Code::Interrupted,
        ShareError::Store(_) => Code::StoreUnreachable,
        ShareError::SourceGone | ShareError::Vfs(_) | ShareError::Format(_) | ShareError::Link(_) => Code::Other,
        ShareError::Previous(_) => Code::Damaged,
    };
    // Each says all of its causes itself.
    Failure::new(code, error)
}

pub(super) fn get_failure(error: GetError) -> Failure {
    let code = match &error {
        GetError::Gone(_) => Code::LinkGone,
        GetError::Link(error) => match error {
            LinkError::Revoked => Code::LinkGone,
            LinkError::WrongSecret | LinkError::NotRecipient | LinkError::PasswordNeeded | LinkError::WrongPassword => {
                Code::WrongPassword
            }
            LinkError::Format(_) | LinkError::NotTheOwners | LinkError::Damaged { .. } => Code::Damaged,
            LinkError::Kdf(_) | LinkError::KdfTooCostly => Code::Other,
        },
        GetError::Index(_) | GetError::Damaged => Code::Damaged,
        GetError::Store(_) | GetError::Unreachable(_) | GetError::Gateway { .. } => Code::StoreUnreachable,
        GetError::HiddenName => Code::Usage,
        GetError::PublishedAnew
        | GetError::Exists(_)
        | GetError::Foreign(_)
        | GetError::SameName(_)
        | GetError::Local { .. } => Code::Other,
        GetError::Interrupted => Code::Interrupted,
    };
    Failure::new(code, error)
}
