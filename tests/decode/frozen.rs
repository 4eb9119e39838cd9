//! The volumes in `tests/golden/volume-*`: copies of them to work on, what they hold, and how they were made.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use hushfs::base::{Seq, SystemClock, SystemEntropy};
use hushfs::disk::RealDisk;
use hushfs::format::{Floor, ObjectName, object_hash};
use hushfs::meta::checkpoint;
use hushfs::meta::keyring::{Secret, Trust};
use hushfs::meta::mounting::{MountOptions, mount_meta};
use hushfs::store::{StoreOptions, StoreUrl, connect};
use zeroize::Zeroizing;

use super::compare::{output, run};
use super::drive::{self, TestDrive, text};

/// A folder of `tests/golden`.
#[derive(Clone, Copy)]
pub struct Volume(&'static str);

/// Of one epoch, with a floor.
pub const PLAIN: Volume = Volume("volume-v1");
/// Of several epochs, with a recipient and a link.
pub const ROTATED: Volume = Volume("volume-v1-rotated");

/// A copy of its store, so that a test may do with it what it likes.
pub struct Frozen {
    pub root: tempfile::TempDir,
}

impl Frozen {
    pub fn store(&self) -> PathBuf {
        self.root.path().join("store")
    }

    pub fn password(&self) -> PathBuf {
        self.root.path().join("password")
    }
}

impl Volume {
    pub fn folder(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(self.0)
    }

    pub fn copy(self) -> Frozen {
        let root = drive::scratch();
        let store = self.folder().join("store");
        run("cp", &["-r", store.to_str().expect("UTF-8"), root.path().to_str().expect("UTF-8")]);
        fs::write(root.path().join("password"), super::PASSWORD).expect("a password file");
        Frozen { root }
    }

    pub fn expected(self, file: &str) -> String {
        let path = self.folder().join(file);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Names of its objects in one folder of the store, in order.
    pub fn objects(self, kind: &str) -> Vec<String> {
        let folder = self.folder().join("store").join(kind);
        let found = output("find", &[folder.to_str().expect("UTF-8"), "-type", "f", "-printf", "%P\\n"]);
        let mut names: Vec<_> = found.lines().map(|name| format!("{kind}/{name}")).collect();
        names.sort();
        names
    }

    pub fn only_object(self, kind: &str) -> String {
        let names = self.objects(kind);
        assert_eq!(names.len(), 1, "{kind}: {names:?}");
        names[0].clone()
    }

    /// Contents and attributes of a tree are those of the volume.
    pub fn check_tree(self, root: &Path) {
        assert_eq!(self.wrong_files(root), Vec::<String>::new());
        assert_eq!(String::from_utf8_lossy(&attributes(root)), self.expected("attributes"));
    }

    /// Files whose content is another than the volume's, or that are missing.
    pub fn wrong_files(self, root: &Path) -> Vec<String> {
        let sums = self.folder().join("sha256sums");
        let checked = Command::new("sha256sum").arg("-c").arg(sums).current_dir(root).output().expect("sha256sum");
        let lines = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(lines.lines().count(), self.files(), "{}", text(&checked));
        lines.lines().filter_map(|line| Some(line.split_once(": FAILED")?.0.to_owned())).collect()
    }

    pub fn files(self) -> usize {
        self.expected("sha256sums").lines().count()
    }
}

/// A negative place counts from the end.
pub fn flip(object: &Path, at: i64) {
    let mut bytes = fs::read(object).expect("an object");
    let at = at.rem_euclid(bytes.len() as i64) as usize;
    bytes[at] ^= 1;
    fs::write(object, bytes).expect("an object");
}

/// The same lines as `decode.py list`.
pub fn listing(root: &Path) -> String {
    let mut lines = String::new();
    list(root, Path::new(""), &mut lines);
    lines
}

fn list(root: &Path, folder: &Path, lines: &mut String) {
    let mut names: Vec<_> = fs::read_dir(root.join(folder)).expect("a folder").map(|entry| entry.unwrap()).collect();
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let (path, found) = (folder.join(entry.file_name()), entry.metadata().expect("stat"));
        let stat = Command::new("stat").args(["-c", "%A %h %u:%g %s %y"]).arg(entry.path()).env("TZ", "UTC").output();
        lines.push_str(String::from_utf8_lossy(&stat.expect("stat").stdout).trim_end());
        lines.push_str(&format!(" {}", printable(path.as_os_str().as_bytes())));
        if found.is_symlink() {
            let target = fs::read_link(entry.path()).expect("a symlink");
            lines.push_str(&format!(" -> {}", printable(target.as_os_str().as_bytes())));
        } else if found.file_type().is_char_device() || found.file_type().is_block_device() {
            let device = found.rdev();
            lines.push_str(&format!(" ({}, {})", rustix::fs::major(device), rustix::fs::minor(device)));
        }
        lines.push('\n');
        if found.is_dir() {
            list(root, &path, lines);
        }
    }
}

fn printable(name: &[u8]) -> String {
    let mut shown = String::new();
    for part in name.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                '\\' | '\0'..'\x20' => shown.push_str(&format!("\\x{:02x}", character as u32)),
                _ => shown.push(character),
            }
        }
        part.invalid().iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
    }
    shown
}

fn attributes(root: &Path) -> Vec<u8> {
    in_order(root, "", "getfattr -h -d -m -")
}

/// What a program says of all files, by name.
fn in_order(root: &Path, which: &str, program: &str) -> Vec<u8> {
    let script = format!("find . {which} -print0 | sort -z | xargs -0 {program}");
    let said = Command::new("sh").args(["-c", &script]).current_dir(root).env("LC_ALL", "C").output().expect("sh");
    assert!(said.status.success(), "{}", text(&said));
    said.stdout
}

const BEFORE_CHECKPOINT: &str = r#"
    printf 'one\n' > a
    ln a 'hard link'
    ln a gone
    ln -s a symlink
    ln -s /nowhere/at/all dangling
    printf x > "$(printf 'not \377 utf8')"
    printf y > "$(printf 'new\nline')"
    printf z > é
    mkfifo pipe
    mknod null c 1 3
    mknod large b 259 1048575
    truncate -s 300M sparse
    printf middle | dd of=sparse bs=1 seek=150000000 conv=notrunc status=none
    awk 'BEGIN { for (i = 0; i < 6000; i++) printf "line %06d %0400d\n", i, 0 }' > lines
    : > empty
    cp lines cut
    printf s > suid
    chmod 4755 suid
    chown 12:34 empty
    setfattr -n user.comment -v 'a comment' a
    setfattr -n trusted.secret -v t lines
    mkdir -m 700 private
    mkdir -m 2775 setgid
    chown 1000:1000 setgid
    mkdir -p deep/er/and/deeper removed/with
    printf d > deep/er/and/deeper/file
    printf r > removed/file
    mkdir many
    seq -w 1 100 | split -a 3 -d -l 1 - many/f
"#;

const AFTER_CHECKPOINT: &str = r#"
    for at in 1 3 5 7 9 11 13 15 17 19 1500 2000; do
        printf over | dd of=lines bs=1024 seek=$at conv=notrunc status=none
    done
    truncate -s 1500000 cut
    truncate -s 1600000 cut
    printf two >> a
    mv deep/er/and moved
    rm -r removed gone
    printf new > new
    mv new many/f001
"#;

const LAST: &str = r#"
    rm many/f002
    mkdir late
    mv many/f003 late/
    find . -exec touch -h -d '2001-02-03 04:05:06.123456789 UTC' {} +
    touch -d '1969-07-20 20:17:40.123456789 UTC' empty
    touch -h -d '2099-01-01 00:00:00.000000001 UTC' symlink
"#;

const README_PLAIN: &str = "\
# A volume of format 1

A copied bucket, frozen: whatever is changed later, this must open to what it opened to on the day it was made.
`tests/decode.rs` reads it with the program and with `scripts/decode.py`.

| | |
|---|---|
| `store/` | the objects: a checkpoint in the middle, a floor that trims the log below it, records after it |
| password | `correct horse battery staple`; so does `recovery-words` open it |
| `listing` | what `decode.py list` says of it |
| `sha256sums` | `sha256sum` of every file |
| `attributes` | `getfattr` of everything |

Made by `cargo test --test decode -- --ignored`, which never changes one that is there. A new format gets a new folder.
";

const BEFORE_ROTATION: &str = r#"
    printf 'one\n' > a
    ln a b
    awk 'BEGIN { for (i = 0; i < 2500; i++) printf "line %06d %0100d\n", i, 0 }' > lines
    cp lines same
    cp lines overwritten
    truncate -s 30M sparse
    printf middle | dd of=sparse bs=1 seek=15000000 conv=notrunc status=none
    setfattr -n user.comment -v 'a comment' a
    mkdir -p shared/sub
    printf of-the-first-epoch > shared/first
    : > shared/empty
"#;

const AFTER_RESEALING: &str = r#"
    printf over | dd of=overwritten bs=1024 seek=100 conv=notrunc status=none
    printf of-the-second-epoch > shared/sub/second
    cp lines later
    rm same
"#;

const OF_THE_LAST_EPOCH: &str = r#"
    printf two >> a
    printf of-the-third-epoch > shared/third
    cp lines last
    printf again | dd of=overwritten bs=1024 seek=200 conv=notrunc status=none
    find . -exec touch -h -d '2001-02-03 04:05:06.123456789 UTC' {} +
"#;

const README_ROTATED: &str = "\
# A volume of format 1 whose keys were rotated

Frozen as the one beside it, and read by the same tests. Three epochs: what was written in the first was sealed anew in
the second (`key rotate --data`), at whose end there is a checkpoint; what was written in the second stayed under its
keys. A recipient was let in during the first, and each rotation made a slot for it. The folder `shared` was published in
the last.

| | |
|---|---|
| `store/` | the objects |
| password, `recovery-words` | as in `volume-v1`; the identity `IDENTITY` in `tests/decode.rs` opens it too |
| `links` | a link to `shared` that is open, and one that was taken back |
| `listing`, `sha256sums`, `attributes` | as in `volume-v1` |

Made by `cargo test --test decode -- --ignored`, which never changes one that is there. A new format gets a new folder.
";

#[test]
#[ignore = "writes files"]
fn make_the_frozen_volumes() {
    if !PLAIN.folder().exists() {
        make_plain();
    }
    if !ROTATED.folder().exists() {
        make_rotated();
    }
}

fn init() -> (TestDrive, String) {
    let root = drive::scratch();
    let url = format!("file://{}", root.path().join("store").display());
    let drive = TestDrive::existing(root, url, Vec::new());
    let init = drive.run(&["init", &drive.url, "--kdf-memory", "64MiB"]);
    assert!(init.status.success(), "{}", text(&init));
    let words = recovery_words(&text(&init));
    (drive, words)
}

fn make_plain() {
    let (mut drive, words) = init();
    drive.mount();
    write_in(&drive, BEFORE_CHECKPOINT);
    drive.umount();
    checkpoint_and_trim(&drive);
    drive.mount();
    write_in(&drive, AFTER_CHECKPOINT);
    drive.flush();
    write_in(&drive, LAST);
    drive.flush();
    freeze(PLAIN, drive, README_PLAIN, &words, None);
}

fn make_rotated() {
    let (mut drive, words) = init();
    super::succeed(&drive.run(&["key", "add", &drive.url, "--recipient", super::RECIPIENT]));
    drive.mount();
    write_in(&drive, BEFORE_ROTATION);
    drive.flush();
    super::rotate(&drive, &["--data"]);
    write_in(&drive, AFTER_RESEALING);
    drive.umount();
    checkpoint_and_trim(&drive);
    drive.mount();
    super::rotate(&drive, &[]);
    write_in(&drive, OF_THE_LAST_EPOCH);
    drive.flush();
    let (shared, mount) = (drive.mount_point().join("shared"), drive.mount_point());
    let links = [(); 2].map(|()| {
        let made = drive.run(&["share", "create", shared.to_str().expect("UTF-8")]);
        super::succeed(&made);
        String::from_utf8(made.stdout).expect("UTF-8")
    });
    super::succeed(&drive.run(&["share", "revoke", links[1].trim(), mount.to_str().expect("UTF-8")]));
    freeze(ROTATED, drive, README_ROTATED, &words, Some(links.concat()));
}

fn freeze(volume: Volume, mut drive: TestDrive, readme: &str, words: &str, links: Option<String>) {
    let mount = drive.mount_point();
    let facts: [(&str, Option<Vec<u8>>); 6] = [
        ("README.md", Some(readme.into())),
        ("recovery-words", Some(words.into())),
        ("links", links.map(String::into_bytes)),
        ("listing", Some(listing(&mount).into())),
        ("attributes", Some(attributes(&mount))),
        ("sha256sums", Some(in_order(&mount, "-type f", "sha256sum"))),
    ];
    drive.umount();
    fs::create_dir(volume.folder()).expect("a folder");
    for (file, content) in facts {
        if let Some(content) = content {
            fs::write(volume.folder().join(file), content).expect(file);
        }
    }
    let (store, folder) = (drive.store_dir(), volume.folder());
    run("cp", &["-r", store.to_str().expect("UTF-8"), folder.to_str().expect("UTF-8")]);
}

fn write_in(drive: &TestDrive, script: &str) {
    let script = format!("set -e\n{script}");
    let shell = Command::new("sh").args(["-c", &script]).current_dir(drive.mount_point()).stdin(Stdio::null()).status();
    assert!(shell.expect("sh").success());
}

/// From the lines of `init`: a number, then six words.
fn recovery_words(said: &str) -> String {
    let rows = said.lines().filter(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()));
    let words: Vec<_> = rows.flat_map(|line| line.split_whitespace().skip(1)).collect();
    assert_eq!(words.len(), 24, "{said}");
    words.join(" ") + "\n"
}

/// As gc will do it: a checkpoint at the head, a floor above all older records but one, and those deleted.
fn checkpoint_and_trim(drive: &TestDrive) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let url = StoreUrl::parse(&drive.url).expect("a URL");
    let store = connect(&url, &StoreOptions::default()).expect("the store").store;
    let state_dir = drive.root.path().join("checkpointing");
    runtime.block_on(async {
        let options = MountOptions {
            disk: Arc::new(RealDisk),
            state_dir: &state_dir,
            secret: Secret::Password(Zeroizing::new(super::PASSWORD.into())),
            trust: Trust::Secret,
            kdf_memory_max: 1 << 30,
            read_only: true,
            accept_loss: false,
            device_name: "maker".into(),
            owner: (0, 0),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        };
        let mounted = mount_meta(store.clone(), options).await.expect("the rows");
        let (roots, replica) = (&mounted.keyring.roots, mounted.pending.view().replica());
        let entropy: Arc<dyn hushfs::base::Entropy> = Arc::new(SystemEntropy);
        let written = checkpoint::write(&*store, replica, roots, &entropy).await.expect("a checkpoint");
        let seq = written.expect("rows that changed");
        let manifest = store.get(&ObjectName::Checkpoint(seq)).await.expect("the store").expect("a manifest");
        let floor =
            Floor { epoch: roots.epoch(), number: 1, seq, checkpoint: seq, checkpoint_hash: object_hash(&manifest) };
        let sealed = floor.seal(roots, &SystemEntropy).expect("a floor");
        store.create(&ObjectName::Floor(1), sealed.into()).await.expect("the store");
        for trimmed in 1..seq.0 {
            store.delete(&ObjectName::Log(Seq(trimmed))).await.expect("the store");
        }
    });
}
