//! `hushfs share export`: a file or folder, or a link, as a page that needs no server.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use super::args::ExportArgs;
use super::perform::get_failure;
use super::protocol::{ShareEvent, ShareRequest};
use super::share::{wanted, warn_of, went_away};
use super::show::Bar;
use crate::base::{Clock, SystemClock};
use crate::cli::commands::{block_on, interruptions, say};
use crate::cli::drive;
use crate::cli::exit::{Code, Failure, OrExit, Outcome};
use crate::format::link::{LinkUrl, LinkUrlError, Status};
use crate::gateway::{BoxError, BoxSource, Ciphertext, Exported, INSIDE_MAX, export_page};
use crate::share::get::{BucketSource, Gone, LinkSource, keeps_names};
use crate::store::Store;

const WITH_KEY: &str = "The key is in it: whoever has the file, and its password if it has one, can read it.";
const FOR_ONE: &str = "It asks for the recipient's age identity.";

pub fn export(args: &ExportArgs) -> Outcome {
    let pages = Pages::at(&args.file)?;
    match LinkUrl::parse(&args.what) {
        Ok(link) => export_link(args, &link, &pages),
        // What looks like one and is not there under this name was meant as one.
        Err(error) if is_like_a_link(&args.what, error) => Err(error).or_exit(Code::Usage),
        Err(_) => export_path(args, &pages),
    }
}

fn is_like_a_link(text: &str, error: LinkUrlError) -> bool {
    (error != LinkUrlError::NotALink || text.contains("/s/") || text.contains('#')) && !Path::new(text).exists()
}

fn export_link(args: &ExportArgs, link: &LinkUrl, pages: &Pages) -> Outcome {
    let Some(url) = &args.store else {
        return Err(Failure::usage("of a link, say with --store URL which volume it is of"));
    };
    if args.with_key && link.secret.is_none() {
        return Err(Failure::usage("--with-key: this link holds no key, as it is for a recipient"));
    }
    let is_inside = block_on(async {
        let store = drive::store(&args.unmounted.reach.store(url)?)?;
        pages.write(store, link, args.with_key).await
    })?;
    let mut lines = pages.described(is_inside);
    lines.push(match (args.with_key, &link.secret) {
        (true, _) => WITH_KEY.into(),
        (false, None) => FOR_ONE.into(),
        (false, Some(_)) => "It asks for the link, which is its key.".into(),
    });
    say(&lines.join("\n"))
}

fn export_path(args: &ExportArgs, pages: &Pages) -> Outcome {
    if args.store.is_some() {
        return Err(Failure::usage("--store goes with a link; of a volume, give the URL and --path PATH"));
    }
    let (place, copy) = wanted(&args.what, &args.copy, &args.unmounted)?;
    let folder = Folder::beside(&args.file)?;
    let request = ShareRequest::Export { copy, folder: folder.path.as_os_str().as_bytes().to_vec() };
    let interrupted = interruptions()?;
    let bar = Bar::new("exporting".into());
    let mut exported = None;
    let outcome = place.ask(
        request,
        &mut |event| match event {
            ShareEvent::Progress(progress) => bar.sharing(&progress),
            ShareEvent::Exported { link, left_out } => exported = Some((link, left_out)),
            ShareEvent::Created { .. } | ShareEvent::Links { .. } | ShareEvent::Shown { .. } => {}
        },
        &*interrupted,
    );
    bar.end();
    match outcome {
        Err(failure) if failure.code == Code::Interrupted => {
            return Err(Failure::new(Code::Interrupted, "interrupted; nothing was written"));
        }
        outcome => outcome?,
    }
    let (link, left_out) = exported.ok_or_else(went_away)?;
    warn_of(left_out);
    let is_inside = block_on(async {
        let store = drive::folder_store(&folder.path)?;
        pages.write(store, &LinkUrl::parse(&link).or_exit(Code::Other)?, args.with_key).await
    })?;
    let mut lines = pages.described(is_inside);
    if args.with_key || args.copy.recipient.is_some() {
        lines.push(if args.with_key { WITH_KEY } else { FOR_ONE }.into());
        return say(&lines.join("\n"));
    }
    lines.push("It asks for its key, which is kept nowhere else:".into());
    eprintln!("{}", lines.join("\n"));
    // Alone on standard output, so that a script can take it.
    say(&link)
}

/// The page, and what may have to lie beside it.
struct Pages {
    page: PathBuf,
    beside: PathBuf,
    beside_name: String,
}

impl Pages {
    /// Before any work: neither may be there.
    fn at(page: &Path) -> Outcome<Self> {
        let beside = page.with_extension("hushbox");
        let name = beside.file_name().and_then(|name| name.to_str());
        let beside_name = name.ok_or_else(|| Failure::usage("the page needs a name, in UTF-8"))?.to_owned();
        let folder = page.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(Failure::new(Code::Other, format!("there is no folder for {}", page.display())));
        }
        for path in [page, &beside] {
            if fs::symlink_metadata(path).is_ok() {
                return Err(Failure::new(Code::Other, format!("{} is there already", path.display())));
            }
        }
        Ok(Self { page: page.to_owned(), beside, beside_name })
    }

    /// True when all is in the page.
    async fn write(&self, store: Arc<dyn Store>, link: &LinkUrl, with_key: bool) -> Outcome<bool> {
        let record = BucketSource::new(store.clone()).newest(link.id).await.map_err(get_failure)?;
        if record.status(SystemClock.now()) != Status::Current {
            return Err(get_failure(Gone::Expired.into()));
        }
        let source = BoxSource::open(store, record).await.map_err(box_failure)?;
        let is_inside = source.len() <= INSIDE_MAX;
        let mut boxed = Vec::new();
        if is_inside {
            source.write(&mut boxed).await.map_err(box_failure)?;
        }
        let ciphertext = if is_inside { Ciphertext::Inside(&boxed) } else { Ciphertext::Beside(&self.beside_name) };
        let (text, is_open) = (link.text(), with_key || link.secret.is_none());
        let fragment = text.split_once('#').map(|(_, fragment)| fragment).filter(|_| is_open);
        // The page first: it is the one whose name was chosen, and may be taken.
        let mut page = NewFile::create(&self.page, if with_key { 0o600 } else { 0o666 })?;
        page.file.write_all(export_page(&Exported { link: link.id, ciphertext, fragment }).as_bytes())?;
        if !is_inside {
            let beside = NewFile::create(&self.beside, 0o666)?;
            let mut out = BufWriter::new(&beside.file);
            source.write(&mut out).await.map_err(box_failure)?;
            out.flush()?;
            drop(out);
            beside.keep();
        }
        page.keep();
        Ok(is_inside)
    }

    fn described(&self, is_inside: bool) -> Vec<String> {
        let mut lines = vec![format!("{} opens in any browser, without a server.", self.page.display())];
        if !is_inside {
            lines.push(format!("It asks for {}: keep the two together.", self.beside.display()));
        }
        lines
    }
}

/// Gone again unless it is kept.
struct NewFile {
    file: File,
    path: Option<PathBuf>,
}

impl NewFile {
    fn create(path: &Path, mode: u32) -> Outcome<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let file = file.map_err(|error| Failure::from(error).context(path.display().to_string()))?;
        Ok(Self { file, path: Some(path.to_owned()) })
    }

    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        self.path.take().map(fs::remove_file);
    }
}

/// Where the ciphertext is made, on the disk that it is for. Nobody else's: locked while it is used, and gone after.
struct Folder {
    path: PathBuf,
    lock: File,
}

impl Folder {
    fn beside(page: &Path) -> Outcome<Self> {
        let page = std::path::absolute(page)?;
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = page.with_file_name(format!(".{name}.part"));
        let failed = |error| Failure::from(error).context(path.display().to_string());
        let in_the_way = || {
            let path = path.display();
            Failure::new(Code::Other, format!("{path} is in the way, and may be somebody else's: look, and remove it"))
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = |path: &Path| open(path, flags, Mode::empty()).map_err(|error| failed(error.into()));
        let is_new = match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed(error)),
        };
        let lock = File::from(opened(&path)?);
        let meta = lock.metadata().map_err(failed)?;
        let is_own = meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
        let parent = path.parent().unwrap_or(Path::new("/"));
        if !is_own || !is_new && !keeps_names(&opened(parent)?) {
            return Err(in_the_way());
        }
        if flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
            return Err(Failure::new(Code::Busy, format!("another process is writing {}", page.display())));
        }
        for entry in fs::read_dir(&path).map_err(failed)? {
            if entry.map_err(failed)?.file_name() != "share" {
                return Err(in_the_way());
            }
        }
        // Of one that was killed: without its key nobody can go on with it.
        let folder = Self { path, lock };
        folder.empty().map_err(|error| Failure::from(error).context(folder.path.display().to_string()))?;
        Ok(folder)
    }

    /// Of what lies in the folder that is held, whatever has its name by now.
    fn empty(&self) -> std::io::Result<()> {
        match fs::remove_dir_all(format!("/proc/self/fd/{}/share", self.lock.as_raw_fd())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = self.empty().and_then(|()| fs::remove_dir(&self.path)) {
            eprintln!("hushfs: {} could not be removed: {error}", self.path.display());
        }
    }
}

fn box_failure(error: BoxError) -> Failure {
    match error {
        BoxError::Store(_) => Failure::from(error).with_code(Code::StoreUnreachable),
        BoxError::Changed | BoxError::Write(_) => Failure::from(error),
    }
}
