//! Nothing that is private is anywhere in clear: a real mount full of known names, contents and secrets, killed,
//! mounted again and ended in order; then every object in the store, every local file and every log line is
//! searched for each of them, as they are and in the encodings in which something might print them.

#[path = "support/drive.rs"]
mod drive;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use drive::{PASSWORD, TestDrive, text};
use rustix::fs::{XattrFlags, setxattr};

/// What is looked for, and what to call it when it is found.
struct Canary {
    what: String,
    bytes: Vec<u8>,
}

/// Distinct enough that no chance makes them, and not in this test's own paths.
fn canaries() -> Vec<Canary> {
    let of = |what: &str, bytes: &str| Canary { what: what.into(), bytes: bytes.into() };
    vec![
        of("a file's name", "kanarienvogel-akte"),
        of("a directory's name", "geheimfach-ordner"),
        of("a name that was renamed away", "alter-deckname-zwei"),
        of("a name that was removed", "verbrannter-zettel"),
        of("a hard link's name", "zweitname-des-vogels"),
        of("a symlink's name", "wegweiser-im-wald"),
        of("a symlink's target", "/nirgendwo/am-langen-ende"),
        of("a small file's content", "Der Schatz liegt unter der dritten Eiche."),
        of("a large file's content", "Seite um Seite dieselbe Beichte; "),
        of("a content that was overwritten", "Unter der zweiten Eiche lag nie etwas."),
        of("a content that was never synced", "Fluechtig hingeschriebener Gedanke"),
        of("an xattr's name", "user.stimmlage-des-vogels"),
        of("an xattr's value", "Tirili in fis-Moll, leicht verstimmt"),
        of("the password", PASSWORD),
    ]
}

/// A name may be printed in other ways than as it is.
fn spellings(canary: &Canary) -> Vec<(String, Vec<u8>)> {
    let bytes = &canary.bytes;
    let wide = |order: fn(u16) -> [u8; 2]| String::from_utf8_lossy(bytes).encode_utf16().flat_map(order).collect();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut spellings: Vec<(&str, Vec<u8>)> = vec![
        ("as it is", bytes.clone()),
        ("as UTF-16 (little)", wide(u16::to_le_bytes)),
        ("as UTF-16 (big)", wide(u16::to_be_bytes)),
        ("in hexadecimal", hex.to_uppercase().into_bytes()),
        ("in hexadecimal", hex.into_bytes()),
        ("reversed", bytes.iter().rev().copied().collect()),
    ];
    // As a byte list, which is how a debug format prints it.
    let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    spellings.push(("as a list", list.into_bytes()));
    for engine in [BASE64_STANDARD, BASE64_URL_SAFE] {
        // Wherever it stands in what was encoded: three cases, without the digits that depend on the neighbours.
        for skip in 0..3 {
            let whole = &bytes[skip..];
            let whole = &whole[..whole.len() / 3 * 3];
            spellings.push(("in base64", engine.encode(whole).into_bytes()));
        }
    }
    spellings.into_iter().map(|(how, bytes)| (format!("{} {how}", canary.what), bytes)).collect()
}

fn name(canaries: &[Canary], what: &str) -> String {
    let found = canaries.iter().find(|canary| canary.what == what).expect("a canary");
    String::from_utf8(found.bytes.clone()).expect("UTF-8")
}

#[test]
fn nothing_private_is_in_the_store_on_the_disk_or_in_the_log() {
    let canaries = canaries();
    let mut drive = TestDrive::local();
    // Everything that the program says.
    let all = [("HUSHFS_LOG", "trace"), ("RUST_LOG", "trace")];
    drive.environment.extend(all.map(|(name, value)| (name.into(), value.into())));
    drive.mount();
    let mount = drive.mount_point();
    work(&mount, &canaries);
    let found = |when: &str, drive: &TestDrive| search(when, drive, &canaries, &[]);
    drive.flush();
    found("while mounted", &drive);
    // With bytes in the journal and in staging, and some in memory only.
    let late = mount.join(name(&canaries, "a directory's name")).join("late");
    fs::write(&late, name(&canaries, "a small file's content").repeat(3)).expect("write");
    fs::File::open(&late).and_then(|file| file.sync_all()).expect("fsync");
    fs::write(mount.join("unsynced"), name(&canaries, "a content that was never synced")).expect("write");
    drive.kill();
    drive.clear();
    found("after kill -9", &drive);
    drive.mount();
    assert_eq!(fs::read(&late).expect("read"), name(&canaries, "a small file's content").repeat(3).into_bytes());
    let errors = provoke(&mount, &canaries);
    assert!(errors > 0);
    for arguments in [&["status"][..], &["status", "--json"]] {
        let output = drive.run(&[arguments, &[mount.to_str().expect("UTF-8")]].concat());
        assert!(output.status.success(), "{}", text(&output));
        check("status", "its output", text(&output).as_bytes(), &canaries);
    }
    drive.umount();
    found("after umount", &drive);
    drive.become_new_machine("two");
    drive.mount();
    read_all(&mount);
    drive.umount();
    found("after a second machine", &drive);
}

/// The words that `init` prints are nowhere else, nor are a new password and what `recover` is given.
#[test]
fn the_recovery_words_are_printed_once_and_kept_nowhere() {
    let root = drive::scratch();
    let store = root.path().join("store");
    let url = format!("file://{}", store.display());
    let mut drive = TestDrive::init(root, url, Vec::new());
    let second = format!("file://{}", drive.root.path().join("second").display());
    let output = drive.run(&["init", &second, "--kdf-memory", "64MiB"]);
    assert!(output.status.success(), "{}", text(&output));
    let words = words_in(&text(&output));
    assert_eq!(words.len(), 24, "{}", text(&output));
    drive.url = second;
    drive.mount();
    fs::write(drive.mount_point().join("file"), "x").expect("write");
    drive.umount();
    // All of them in a row, or any four.
    let of = |words: &[String]| Canary { what: format!("the words {words:?}"), bytes: words.join(" ").into_bytes() };
    let canaries: Vec<_> = words.windows(4).map(of).collect();
    search("after init and a mount", &drive, &canaries, &[]);

    let new_password = "ein ganz neues Losungswort";
    // Outside of what is searched.
    let given = drive::scratch();
    let (words_file, password_file) = (given.path().join("words"), given.path().join("new"));
    fs::write(&words_file, words.join(" ")).expect("write");
    fs::write(&password_file, new_password).expect("write");
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let output = drive.run(&[
        "recover",
        &drive.url.clone(),
        "--recovery-key-file",
        &path(&words_file),
        "--new-password-file",
        &path(&password_file),
    ]);
    assert!(output.status.success(), "{}", text(&output));
    let canaries: Vec<_> =
        canaries.into_iter().chain([Canary { what: "the new password".into(), bytes: new_password.into() }]).collect();
    check("recover", "its output", text(&output).as_bytes(), &canaries);
    search("after recover", &drive, &canaries, &[]);
}

/// The search itself finds what is there: a test that cannot fail shows nothing.
#[test]
fn the_search_finds_what_is_there() {
    let dir = drive::scratch();
    for canary in &canaries() {
        for (what, bytes) in spellings(canary) {
            let around = [b"\x00xyz".as_slice(), &bytes, b"tail"].concat();
            assert!(!hits(&around, &canaries()).is_empty(), "{what} is overlooked");
        }
        // In base64 at each offset, with neighbours.
        for shift in 0..3 {
            let whole = [&b"\x07\x08\x09"[..shift], &canary.bytes, b"\xff\xfe"].concat();
            let encoded = BASE64_STANDARD.encode(whole);
            assert!(!hits(encoded.as_bytes(), &canaries()).is_empty(), "{} at {shift} is overlooked", canary.what);
        }
    }
    fs::create_dir(dir.path().join("in")).expect("mkdir");
    fs::write(dir.path().join("in").join(name(&canaries(), "a file's name")), "").expect("write");
    assert_eq!(files_below(dir.path()).len(), 1);
}

fn work(mount: &Path, canaries: &[Canary]) {
    let name = |what: &str| name(canaries, what);
    let dir = mount.join(name("a directory's name"));
    fs::create_dir(&dir).expect("mkdir");
    let file = dir.join(name("a file's name"));
    fs::write(&file, name("a content that was overwritten")).expect("write");
    fs::File::open(&file).and_then(|file| file.sync_all()).expect("fsync");
    fs::write(&file, name("a small file's content")).expect("write");
    fs::write(dir.join("large"), name("a large file's content").repeat(200_000)).expect("write");
    let old = dir.join(name("a name that was renamed away"));
    fs::write(&old, "x").expect("write");
    fs::File::open(&old).and_then(|file| file.sync_all()).expect("fsync");
    fs::rename(&old, dir.join("renamed")).expect("rename");
    let removed = dir.join(name("a name that was removed"));
    fs::write(&removed, name("a content that was overwritten")).expect("write");
    fs::File::open(&removed).and_then(|file| file.sync_all()).expect("fsync");
    fs::remove_file(&removed).expect("unlink");
    fs::hard_link(&file, dir.join(name("a hard link's name"))).expect("link");
    std::os::unix::fs::symlink(name("a symlink's target"), dir.join(name("a symlink's name"))).expect("symlink");
    let attribute = name("an xattr's name");
    setxattr(&file, &attribute, name("an xattr's value").as_bytes(), XattrFlags::empty()).expect("setxattr");
    // Many, so that rows spread over pages and one prefix meets the next.
    for number in 0..500 {
        fs::write(dir.join(format!("{}-{number}", name("a file's name"))), name("a small file's content"))
            .expect("write");
    }
}

/// Errors are where names slip into logs. Returns how many there were.
fn provoke(mount: &Path, canaries: &[Canary]) -> usize {
    let name = |what: &str| name(canaries, what);
    let dir = mount.join(name("a directory's name"));
    let outcomes = [
        fs::read(dir.join(name("a name that was removed"))).err(),
        fs::create_dir(dir.join(name("a file's name"))).err(),
        fs::remove_dir(&dir).err(),
        fs::remove_file(&dir).err(),
        fs::rename(&dir, dir.join("inside itself")).err(),
        fs::hard_link(&dir, mount.join(name("a hard link's name"))).err(),
        fs::read_link(dir.join(name("a file's name"))).err(),
        fs::read(dir.join(name("a symlink's name"))).err(),
        fs::write(dir.join(name("a file's name").repeat(20)), "").err(),
    ];
    outcomes.iter().flatten().count()
}

fn read_all(mount: &Path) {
    for path in files_below(mount) {
        if path.symlink_metadata().expect("stat").is_file() {
            fs::read(&path).expect("read");
        }
    }
}

/// The store, both folders of local files, the log, and the names of all that.
fn search(when: &str, drive: &TestDrive, canaries: &[Canary], but: &[PathBuf]) {
    let mount = drive.mount_point();
    let given = [drive.password_file()];
    let mut searched = 0;
    for path in files_below(drive.root.path()) {
        if path.starts_with(&mount) || given.contains(&path) || but.contains(&path) {
            continue;
        }
        let relative = path.strip_prefix(drive.root.path()).expect("inside");
        check(when, "a path", relative.as_os_str().as_bytes(), canaries);
        // A socket, a pipe: nothing to read.
        if path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            check(when, &relative.display().to_string(), &fs::read(&path).expect("read"), canaries);
            searched += 1;
        }
    }
    assert!(searched > 8, "{when}: only {searched} files were there to search");
    if let Ok(arguments) = Command::new("ps").args(["-eo", "args"]).output() {
        let ours: Vec<_> = text(&arguments).lines().filter(|line| line.contains("hushfs")).map(str::to_owned).collect();
        check(when, "the process list", ours.join("\n").as_bytes(), canaries);
    }
}

fn check(when: &str, place: &str, bytes: &[u8], canaries: &[Canary]) {
    let hits = hits(bytes, canaries);
    assert!(hits.is_empty(), "{when}: {place} holds {hits:?}");
}

fn hits(bytes: &[u8], canaries: &[Canary]) -> Vec<String> {
    let patterns: Vec<_> = canaries.iter().flat_map(spellings).collect();
    let found = |pattern: &[u8]| memchr(bytes, pattern);
    patterns.into_iter().filter(|(_, pattern)| found(pattern)).map(|(what, _)| what).collect()
}

/// Whether `needle` is in `hay`.
fn memchr(hay: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return false };
    let mut at = 0;
    while let Some(found) = hay[at..].iter().position(|byte| byte == first) {
        at += found + 1;
        if hay[at..].starts_with(rest) {
            return true;
        }
    }
    false
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("readdir") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// In the lines of six that begin with a number.
fn words_in(output: &str) -> Vec<String> {
    let lines = output.lines().filter(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()));
    lines.flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned)).collect()
}
