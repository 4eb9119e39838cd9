//! `hushfs get` and `hushfs import`.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::args::{FromArgs, GetArgs, ImportArgs};
use super::perform::get_failure;
use super::reach::mounted_path;
use super::show::Bar;
use crate::base::{ByteSize, Clock, Printable, SystemClock};
use crate::cli::commands::{Interrupted, block_on, interruptions, say};
use crate::cli::drive;
use crate::cli::exit::{Code, Failure, OrExit, Outcome};
use crate::cli::password::{AskOn, Password, PasswordArgs, identities};
use crate::cli::status::counted;
use crate::format::link::{LinkError, LinkUrl, Outer};
use crate::share::get::{
    BucketSource, Fetched, GatewaySource, GetError, GetOptions, LinkSource, Place, get as fetch, open,
};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Where a link's password may come from, beside the flags.
const PASSWORD_VARIABLE: &str = "HUSHFS_LINK_PASSWORD";

pub fn get(args: &GetArgs) -> Outcome {
    run(&args.from, args.output.as_deref())
}

pub fn import(args: &ImportArgs) -> Outcome {
    // What does not exist yet lies in a folder that does.
    let existing = if args.path.exists() { args.path.as_path() } else { args.path.parent().unwrap_or(&args.path) };
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    if mounted_path(existing)?.is_none() {
        if !existing.exists() {
            return Err(Failure::usage(format!("{} is not there", existing.display())));
        }
        return Err(Failure::usage(format!(
            "{} is in no mounted drive; to fetch a link to anywhere else: hushfs get",
            args.path.display()
        )));
    }
    run(&args.from, Some(&args.path))
}

fn run(from: &FromArgs, output: Option<&Path>) -> Outcome {
    let link = LinkUrl::parse(&given(&from.link)?).or_exit(Code::Usage)?;
    let identities = from.identity.as_deref().map(identities).transpose()?.unwrap_or_default();
    block_on(async {
        let source = source(from, &link)?;
        let outer = open(source.as_ref(), &link, &identities, SystemClock.now()).await;
        let outer = outer.map_err(|error| match error {
            GetError::Link(LinkError::NotRecipient) if identities.is_empty() => {
                let what = "the link is for the holder of an age key: say with --identity FILE where that is";
                Failure::new(Code::WrongPassword, what)
            }
            error => get_failure(error),
        })?;
        let password = password(from, &outer)?;
        let contents = outer.contents(password.as_ref().map(Password::as_bytes));
        let contents = contents.map_err(|error| get_failure(error.into()))?;
        let place = Place::choose(output, &contents.header.title).map_err(get_failure)?;
        // Until here a signal simply ends it, also in the middle of a question: nothing is there yet to go on with.
        let interrupted = interruptions()?;
        let number = outer.record().number();
        let options = GetOptions { source, link: link.id, number, contents: &contents, place: &place };
        tokio::select! {
            fetched = fetch_with_bar(options, &interrupted) => report(&fetched.map_err(get_failure)?),
            // A store or gateway that does not answer keeps nobody. What is there by then is gone on with.
            () = until(&interrupted) => Err(get_failure(GetError::Interrupted)),
        }
    })
}

async fn fetch_with_bar(options: GetOptions<'_>, interrupted: &Interrupted) -> Result<Fetched, GetError> {
    let bar = Bar::new(format!("fetching {}", Printable(options.contents.header.title.as_bytes())));
    let mut told = Instant::now();
    let fetched = fetch(options, &mut |progress| {
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            bar.show((progress.files, progress.files_total), (progress.bytes, progress.bytes_total), "verified");
        }
        !interrupted()
    })
    .await;
    bar.end();
    fetched
}

async fn until(interrupted: &Interrupted) {
    while !interrupted() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Other users of the machine see a command's arguments.
const FROM_INPUT: &str = "-";

/// Of `-` it is the first line of standard input, or asked for, unseen like a password, which it is.
fn given(link: &str) -> Outcome<String> {
    if link != FROM_INPUT {
        return Ok(link.to_owned());
    }
    if std::io::stdin().is_terminal() {
        return Ok(rpassword::prompt_password("Link: ")?.trim().to_owned());
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn source(from: &FromArgs, link: &LinkUrl) -> Outcome<Arc<dyn LinkSource>> {
    match (&from.store, &link.host) {
        (Some(url), _) => {
            let store = drive::store(&from.reach.store(url)?)?;
            Ok(Arc::new(BucketSource::new(store)))
        }
        (None, Some(host)) => Ok(Arc::new(GatewaySource::new(host).map_err(get_failure)?)),
        (None, None) => Err(Failure::usage("the link has no host; say with --store URL which bucket it is in")),
    }
}

/// Asked for only if the link needs one.
fn password(from: &FromArgs, outer: &Outer) -> Outcome<Option<Password>> {
    if !outer.needs_password() {
        return Ok(None);
    }
    let args =
        PasswordArgs { password_file: from.password_file.clone(), password_command: from.password_command.clone() };
    // Where the link came through standard input, that is no terminal, and there may be one all the same.
    let place = if from.link == FROM_INPUT { AskOn::Terminal } else { AskOn::Input };
    args.of_variable(PASSWORD_VARIABLE, "Password of the link: ", place).map(Some)
}

fn report(fetched: &Fetched) -> Outcome {
    let Fetched { path, files, bytes, refused_symlinks, .. } = fetched;
    if *refused_symlinks > 0 {
        eprintln!("hushfs: {} left out: they lead out of what was shared", counted(*refused_symlinks, "symlink"));
    }
    say(&format!("{}: {}, {}", shown(path), counted(*files, "file"), ByteSize(*bytes)))
}

fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    Printable(path.as_os_str().as_bytes()).to_string()
}
