//! The commands that talk to a running daemon, or to a volume without mounting it.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{
    DEFAULT_CACHE_BYTES, DeviceArgs, FlushArgs, InitArgs, KeyArgs, KeyCommand, RecoverArgs, StatusArgs, StoreArgs,
    UmountArgs,
};
use super::control::{Client, Left, Request, Status, Waited};
use super::drive::{self, InitOptions, Initialised, Slot};
use super::exit::{Code, Failure, Outcome};
use super::folders::{Folders, socket_of};
use super::holders;
use super::mount_options::{Atime, FsyncMode};
use super::password::{self, Password, PasswordArgs};
use super::serve::what_is_left;
use super::status::{counted, for_people};
use crate::base::ByteSize;
use crate::fuse::{Lazy, MountEntry, UnmountError, is_dead, mount_at, mounts, unmount};
use crate::meta::keyring::Trust;

const WORTH_A_LINE: Duration = Duration::from_secs(2);
/// A daemon that has closed its volume frees memory and goes.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

pub fn status(args: &StatusArgs) -> Outcome {
    if let Some(dir) = &args.dir {
        let status = match Client::for_mount(dir) {
            Ok((client, _)) => client.status()?,
            Err(failure) => dead_at(dir).ok_or(failure)?,
        };
        return say(&if args.json { serde_json::to_string_pretty(&status)? } else { for_people(&status) });
    }
    // One that is just ending has no answer, and is no failure.
    let mut all: Vec<_> = Client::all()?.into_iter().filter_map(|client| client.status().ok()).collect();
    let answering: HashSet<_> = all.iter().map(|status| PathBuf::from(&status.mountpoint)).collect();
    all.extend(mounts()?.iter().filter(|entry| !answering.contains(&entry.mountpoint)).filter_map(dead));
    if args.json {
        say(&serde_json::to_string_pretty(&all)?)
    } else if all.is_empty() {
        say("nothing is mounted")
    } else {
        say(&all.iter().map(for_people).collect::<Vec<_>>().join("\n"))
    }
}

fn dead_at(dir: &Path) -> Option<Status> {
    dead(&mount_at(dir).ok()??)
}

/// A mount whose daemon was killed.
fn dead(entry: &MountEntry) -> Option<Status> {
    (entry.is_drive() && is_dead(&entry.mountpoint)).then(|| Status {
        url: entry.source.to_string_lossy().into_owned(),
        mountpoint: entry.mountpoint.to_string_lossy().into_owned(),
        mounted: true,
        dead: true,
        ..Status::default()
    })
}

/// To standard output, whose reader may have seen enough.
pub(super) fn say(text: &str) -> Outcome {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

pub fn flush(args: &FlushArgs) -> Outcome {
    let (client, entry) = Client::for_mount(&args.dir)?;
    sync_mount(entry.as_ref())?;
    wait(client, Request::Flush, &args.dir, "flushing", &interruptions()?)
}

pub fn umount(args: &UmountArgs) -> Outcome {
    umount_live(args).or_else(|failure| clear_dead(&args.dir, failure))
}

fn umount_live(args: &UmountArgs) -> Outcome {
    let (client, entry) = Client::for_mount(&args.dir)?;
    sync_mount(entry.as_ref())?;
    let process = client.process();
    wait(client, Request::Umount { wait: !args.no_wait }, &args.dir, "unmounting", &interruptions()?)
        .map_err(|failure| name_holders(failure, entry.as_ref()))?;
    // The volume is closed; that its process cannot be watched, or is slow to end, is no failure.
    if let Ok(process) = process
        && !process.wait(ENDS_WITHIN)?
    {
        eprintln!("hushfs: the daemon for {} is still ending", args.dir.display());
    }
    Ok(())
}

/// Who it is that keeps it busy.
fn name_holders(failure: Failure, entry: Option<&MountEntry>) -> Failure {
    let Some(entry) = entry.filter(|_| failure.code == Code::Busy) else { return failure };
    let is_mounted = mount_at(&entry.mountpoint).is_ok_and(|now| now.as_ref() == Some(entry));
    let holders = match is_mounted {
        true => holders::with_files_below(&entry.mountpoint),
        false => holders::with_mounts_of(&entry.device),
    };
    match (holders, is_mounted) {
        (None, _) => failure,
        (Some(who), true) => Failure::new(failure.code, format!("{} by {who}", failure.message())),
        (Some(who), false) => Failure::new(
            failure.code,
            format!("{}, of {who}; all is in the store, and the daemon ends when they do", failure.message()),
        ),
    }
}

/// What a daemon left behind that was killed, perhaps just now, is taken away; anything else keeps its failure.
fn clear_dead(dir: &Path, failure: Failure) -> Outcome {
    match mount_at(dir) {
        Ok(Some(entry)) if entry.is_drive() && is_dead(&entry.mountpoint) => {
            let _ = std::fs::remove_file(socket_of(&entry.mountpoint)?);
            unmount(&entry.mountpoint, Lazy::Yes).map_err(|error: UnmountError| error.into())
        }
        _ => Err(failure),
    }
}

/// The kernel's own dirty pages, of mappings, reach the daemon first. Done here because the daemon must not wait
/// for its own mount.
fn sync_mount(entry: Option<&MountEntry>) -> Outcome {
    let Some(entry) = entry else { return Ok(()) };
    let dir = std::fs::File::open(&entry.mountpoint)?;
    Ok(rustix::fs::syncfs(&dir)?)
}

fn wait(client: Client, request: Request, dir: &Path, what: &str, interrupted: &Interrupted) -> Outcome {
    let mut progress = Progress::new(format!("{what} {}", dir.display()));
    let resealing = matches!(request, Request::Reseal { .. });
    let waited = client.wait(request, |left| progress.show(left), interrupted);
    progress.end(matches!(waited, Ok(Waited::Done)));
    match waited? {
        Waited::Done => Ok(()),
        Waited::Interrupted(left) => {
            let what = match resealing {
                true => format!(
                    "interrupted: {} of {} are still sealed with old keys; the drive goes on with it",
                    ByteSize(left.bytes),
                    counted(left.files, "file")
                ),
                false => format!("{}; the drive goes on uploading", what_is_left(&left)),
            };
            Err(Failure::new(Code::Interrupted, what))
        }
    }
}

/// Whether SIGINT or SIGTERM came.
pub(super) type Interrupted = Box<dyn Fn() -> bool + Send + Sync>;

/// Counts from now on.
pub(super) fn interruptions() -> Outcome<Interrupted> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(Box::new(move || interrupted.load(Ordering::SeqCst)))
}

/// A bar over the most that was ever left.
struct Progress {
    bar: ProgressBar,
    most: u64,
}

impl Progress {
    fn new(what: String) -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_prefix(what);
        let template = "{prefix} {bar:20} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {wide_msg}";
        // The template is a constant; if it were wrong the bar would only look different.
        Self {
            bar: ProgressStyle::with_template(template).map(|style| bar.clone().with_style(style)).unwrap_or(bar),
            most: 0,
        }
    }

    fn show(&mut self, left: &Left) {
        self.most = self.most.max(left.bytes);
        self.bar.set_length(self.most);
        self.bar.set_position(self.most - left.bytes);
        self.bar.set_message(match &left.trouble {
            Some(trouble) => format!("{} left; {trouble}", counted(left.files, "file")),
            None => format!("{} left", counted(left.files, "file")),
        });
    }

    /// The bar goes; after a long wait a line stays.
    fn end(&self, done: bool) {
        self.bar.finish_and_clear();
        if done && !self.bar.is_hidden() && self.bar.elapsed() > WORTH_A_LINE {
            let (what, most) = (self.bar.prefix(), ByteSize(self.most));
            eprintln!("{what}: all is in the store, {most} in {} s", self.bar.elapsed().as_secs());
        }
    }
}

pub fn init(args: InitArgs) -> Outcome {
    let options = InitOptions {
        password: args.password.fresh()?,
        store: args.store.absolute()?,
        kdf_memory_kib: args
            .kdf_memory
            .map(|memory| u32::try_from(memory.0 >> 10))
            .transpose()
            .map_err(Failure::usage)?,
    };
    let url = options.store.url.clone();
    let made = block_on(drive::init_volume(options))?;
    say(&announcement(&url, &made))
}

fn announcement(url: &str, made: &Initialised) -> String {
    let words = words(&made.recovery_key);
    let rows = words.chunks(6).enumerate().map(|(row, words)| format!("  {:>2}  {}", row * 6 + 1, words.join(" ")));
    let exclusive = if made.creates_are_exclusive {
        "The store lets one of two creates win, so several devices can use the volume."
    } else {
        "The store lets two creates of one object both succeed (it ignores If-None-Match), so only one device at a \
         time can use the volume."
    };
    format!(
        "Made volume {} at {url}.\n\n\
         Recovery key, shown this once. It opens the volume when the password is lost; keep it elsewhere:\n\n\
         {}\n\n{exclusive}\n\nNext: hushfs mount {url} DIR",
        made.volume,
        rows.collect::<Vec<_>>().join("\n"),
    )
}

fn words(key: &Password) -> Vec<&str> {
    std::str::from_utf8(key.as_bytes()).unwrap_or_default().split_whitespace().collect()
}

pub fn key(command: KeyCommand) -> Outcome {
    match command {
        KeyCommand::Ls(args) => {
            let secret = args.unlock.secret()?;
            let (fingerprint, slots) = block_on(drive::list_slots(&args.store.absolute()?, secret))?;
            let header = format!("{:>4}  {:<14} {:<16}  {:<20}  {}", "SLOT", "KIND", "FINGERPRINT", "MADE", "LABEL");
            let volume = format!("Volume {fingerprint}");
            say(&[volume, header].into_iter().chain(slots.iter().map(line)).collect::<Vec<_>>().join("\n"))
        }
        KeyCommand::Passwd(args) => {
            let old = args.key.unlock.secret()?;
            let new = args.new_password.fresh()?;
            block_on(drive::change_password(&args.key.store.absolute()?, old, &new))?;
            say(
                "The password is changed. Who knew the old one and kept a copy of its slot is shut out only by `hushfs key rotate`.",
            )
        }
        KeyCommand::Add(args) => {
            let secret = args.key.unlock.secret()?;
            let store = args.key.store.absolute()?;
            let url = store.url.clone();
            let (slot, fingerprint) = block_on(drive::add_recipient(&store, secret, &args.recipient, &args.label))?;
            say(&format!(
                "Key slot {slot} lets them in. For their first mount they need the volume's fingerprint, from you and not \
                 from the store:\n\n  hushfs mount {url} DIR --identity FILE --fingerprint {fingerprint}"
            ))
        }
        KeyCommand::Rm(args) => {
            rotate(args.key, args.device, Some(args.slot))?;
            say(&format!("Key slot {} opens nothing that is written from now on.", args.slot))
        }
        KeyCommand::Rotate(args) if args.data => {
            rotate_data(args.key, args.device, args.rate.map(|rate| rate.0))?;
            say("All that is there is sealed with new keys. What the store held of it before stays there until it is \
                 collected.")
        }
        KeyCommand::Rotate(args) => {
            rotate(args.key, args.device, None)?;
            say("What is written from now on is sealed with new keys.")
        }
    }
}

/// By the daemon, if this machine has the volume mounted, or else by the same device without a mount.
fn rotate(key: KeyArgs, device: DeviceArgs, without: Option<u16>) -> Outcome {
    let options = device_options(key, device)?;
    let url = options.store.url.clone();
    let busy = match block_on(drive::rotate(options, without)) {
        Err(failure) if failure.code == Code::Busy => failure,
        rotated => return rotated.map(drop),
    };
    let (mountpoint, _) = mounted_by_us(&url)?.ok_or(busy)?;
    ask(&mountpoint, Request::Rotate { without }, "giving new keys to", &interruptions()?)
}

/// The same, and then all that is there.
fn rotate_data(key: KeyArgs, device: DeviceArgs, rate: Option<u64>) -> Outcome {
    let options = device_options(key, device)?;
    let url = options.store.url.clone();
    let interrupted = Arc::new(interruptions()?);
    let mut shown = Progress::new(format!("sealing {url} anew"));
    let by_user = interrupted.clone();
    let progress = move |left: &Left| {
        shown.show(left);
        !by_user()
    };
    let busy = match block_on(drive::rotate_data(options, rate, progress)) {
        Err(failure) if failure.code == Code::Busy => failure,
        done => return done,
    };
    let (mountpoint, status) = mounted_by_us(&url)?.ok_or(busy)?;
    // What was begun and not ended is gone on with, under the keys that it has.
    if !status.old_keys.resealing {
        ask(&mountpoint, Request::Rotate { without: None }, "giving new keys to", &interrupted)?;
    }
    ask(&mountpoint, Request::Reseal { rate }, "sealing anew", &interrupted)
}

fn ask(mountpoint: &Path, request: Request, what: &str, interrupted: &Interrupted) -> Outcome {
    let (client, _) = Client::for_mount(mountpoint)?;
    wait(client, request, mountpoint, what, interrupted)
}

/// Where this user has the volume mounted.
pub(super) fn mounted_by_us(url: &str) -> Outcome<Option<(PathBuf, Status)>> {
    for client in Client::all()? {
        let status = client.status()?;
        if status.url == url && !status.dead {
            return Ok(Some((PathBuf::from(&status.mountpoint), status)));
        }
    }
    Ok(None)
}

fn device_options(key: KeyArgs, device: DeviceArgs) -> Outcome<drive::OpenOptions> {
    let folders = Folders::of_this_user()?;
    Ok(drive::OpenOptions {
        store: key.store.absolute()?,
        secret: key.unlock.secret()?,
        trust: Trust::Secret,
        state: std::path::absolute(device.state_dir.unwrap_or(folders.state))?,
        cache: std::path::absolute(device.cache_dir.unwrap_or(folders.cache))?,
        cache_bytes_max: DEFAULT_CACHE_BYTES,
        read_only: false,
        fsync: FsyncMode::Local,
        atime: Atime::Relative,
        directory_atime: true,
        quota: None,
        allow_large_kdf: false,
        accept_loss: false,
    })
}

fn line(slot: &Slot) -> String {
    format!("{:>4}  {:<14} {}  {}  {}", slot.number, slot.kind, slot.fingerprint, slot.created, slot.label)
}

pub fn recover(args: RecoverArgs) -> Outcome {
    let store: StoreArgs = args.store.absolute()?;
    let key = match args.recovery_key_file {
        Some(file) => PasswordArgs { password_file: Some(file), password_command: None }.existing()?,
        None => password::ask("Recovery key (24 words): ", "--recovery-key-file")?,
    };
    let new = args.new_password.fresh()?;
    block_on(drive::recover(&store, &key, &new))?;
    say("The new password opens the volume. The recovery key stays valid.")
}

pub(super) fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_shows_all_words_and_what_the_store_can_do() {
        let words: Vec<String> = (1..=24).map(|n| format!("word{n}")).collect();
        let made = |creates_are_exclusive| Initialised {
            volume: "00ff".into(),
            recovery_key: Password::new(words.join(" ")).unwrap_or_else(|_| unreachable!()),
            creates_are_exclusive,
        };
        let text = announcement("s3://b/p", &made(true));
        assert!(words.iter().all(|word| text.contains(word)));
        assert!(text.contains("\n  19  word19 word20") && text.contains("several devices"));
        assert!(announcement("s3://b/p", &made(false)).contains("only one device"));
    }
}
