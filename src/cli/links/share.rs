//! `hushfs share`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::args::{CopyArgs, CreateArgs, HostArgs, IdArgs, LsArgs, ShareCommand, UnmountedArgs};
use super::protocol::{CopyRequest, Link, Passphrase, ShareEvent, ShareRequest, parse_id};
use super::reach::{Reach, mounted_path, that_has};
use super::show::{Bar, details, table};
use crate::cli::commands::{interruptions, say};
use crate::cli::exit::Code;
use crate::cli::exit::{Failure, OrExit, Outcome};
use crate::cli::password::{PasswordArgs, ask_twice};
use crate::cli::status::counted;
use crate::crypto::parse_recipient;
use crate::format::link::parse_link_host;

pub fn share(command: ShareCommand) -> Outcome {
    match command {
        ShareCommand::Create(args) => create(&args),
        ShareCommand::Ls(args) => ls(&args),
        ShareCommand::Show(args) => show(&args),
        ShareCommand::Revoke(args) => revoke(&args),
        ShareCommand::Export(args) => super::export::export(&args),
    }
}

fn create(args: &CreateArgs) -> Outcome {
    let host = host(&args.host)?;
    let (place, copy) = wanted(&args.place, &args.copy, &args.unmounted)?;
    let interrupted = interruptions()?;
    let bar = Bar::new("sharing".into());
    let mut created = None;
    let outcome = place.ask(
        ShareRequest::Create { copy, live: args.live },
        &mut |event| match event {
            ShareEvent::Progress(progress) => bar.sharing(&progress),
            ShareEvent::Created { link, left_out, .. } => created = Some((link, left_out)),
            ShareEvent::Exported { .. } | ShareEvent::Links { .. } | ShareEvent::Shown { .. } => {}
        },
        &*interrupted,
    );
    bar.end();
    outcome?;
    let (link, left_out) = created.ok_or_else(went_away)?;
    warn_of(left_out);
    print_link(link.with_host(host.as_deref()), args.json)
}

/// Where it is asked for, and what.
pub(super) fn wanted<'a>(
    given: &str,
    args: &CopyArgs,
    unmounted: &'a UnmountedArgs,
) -> Outcome<(Reach<'a>, CopyRequest)> {
    let (place, path) = match &args.path {
        Some(path) => (Reach::place(given, unmounted)?, path.as_os_str().as_bytes().to_vec()),
        None => {
            let path = Path::new(given);
            let Some((mountpoint, inside)) = mounted_path(path)? else {
                let what = if path.exists() { "is in no mounted drive" } else { "is not there" };
                return Err(Failure::usage(format!(
                    "{given} {what}; of a volume that is not mounted, give the URL and --path PATH"
                )));
            };
            (Reach::Mounted(mountpoint), inside.as_os_str().as_bytes().to_vec())
        }
    };
    // The whole drive is called as its directory is.
    let name = match (&args.name, &place) {
        (None, Reach::Mounted(mountpoint)) if path.is_empty() => {
            mountpoint.file_name().map(|name| name.to_string_lossy().into_owned())
        }
        (name, _) => name.clone(),
    };
    if let Some(recipient) = &args.recipient {
        parse_recipient(recipient).or_exit(Code::Usage)?;
    }
    let recipient = args.recipient.clone();
    Ok((place, CopyRequest { path, name, expires_seconds: args.expires, password: link_password(args)?, recipient }))
}

pub(super) fn went_away() -> Failure {
    Failure::new(Code::Other, "the daemon went away before it was done; see its log")
}

pub(super) fn warn_of(left_out: u64) {
    if left_out > 0 {
        eprintln!(
            "hushfs: {} not in the link: only files, folders and symlinks are",
            counted(left_out, "special file")
        );
    }
}

fn link_password(args: &CopyArgs) -> Outcome<Option<Passphrase>> {
    let from = PasswordArgs {
        password_file: args.link_password_file.clone(),
        password_command: args.link_password_command.clone(),
    };
    let password = if args.password {
        Some(ask_twice("Password for the link: ", "--link-password-file or --link-password-command")?)
    } else if from.password_file.is_some() || from.password_command.is_some() {
        Some(from.existing()?)
    } else {
        None
    };
    Ok(password.map(|password| Passphrase::new(password.as_bytes())))
}

fn host(args: &HostArgs) -> Outcome<Option<String>> {
    let host = args.host.as_deref().filter(|host| !host.is_empty());
    host.map(|host| parse_link_host(host).or_exit(Code::Usage)).transpose()
}

/// The link alone on standard output, so that a script can take it.
fn print_link(link: Link, json: bool) -> Outcome {
    if json {
        return say(&serde_json::to_string_pretty(&link)?);
    }
    say(link.link.as_deref().unwrap_or_default())
}

fn ls(args: &LsArgs) -> Outcome {
    let places = match &args.place {
        Some(place) => vec![Reach::place(place, &args.unmounted)?],
        None => Reach::all_mounted()?,
    };
    let mut links = Vec::new();
    for place in &places {
        let mut take = |event| {
            if let ShareEvent::Links { links: found } = event {
                links.extend(found);
            }
        };
        match place.ask(ShareRequest::List, &mut take, &|| false) {
            // Of all drives, one that cannot be asked does not hide the others.
            Err(failure) if args.place.is_none() => eprintln!("hushfs: {place}: {failure}"),
            asked => asked?,
        }
    }
    match (args.json, places.is_empty()) {
        (true, _) => say(&serde_json::to_string_pretty(&links)?),
        (false, true) => say("nothing is mounted"),
        (false, false) => say(&table(&links)),
    }
}

fn place<'a>(args: &'a IdArgs) -> Outcome<(String, Reach<'a>)> {
    let id = parse_id(&args.link)?.to_string();
    let place = match &args.place {
        Some(place) => Reach::place(place, &args.unmounted)?,
        None => that_has(&id, Reach::all_mounted()?)?,
    };
    Ok((id, place))
}

fn show(args: &IdArgs) -> Outcome {
    let host = host(&args.host)?;
    let (id, place) = place(args)?;
    let mut shown = None;
    let mut take = |event| {
        if let ShareEvent::Shown { link } = event {
            shown = Some(link);
        }
    };
    place.ask(ShareRequest::Show { id }, &mut take, &|| false)?;
    let link = shown.ok_or_else(|| Failure::new(Code::Other, "the daemon went away without an answer"))?;
    let link = link.with_host(host.as_deref());
    if args.json { say(&serde_json::to_string_pretty(&link)?) } else { say(&details(&link)) }
}

fn revoke(args: &IdArgs) -> Outcome {
    let (id, place) = place(args)?;
    let interrupted = interruptions()?;
    place.ask(ShareRequest::Revoke { id }, &mut |_| {}, &*interrupted)?;
    say("The link is taken back, and its content is deleted from the store.")
}
