//! The program itself: a mounted drive, the commands, and a bucket.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::compare::{same_by_rsync, same_times};
use crate::drive::{TestDrive, scratch, text};
use crate::owner::names;
use crate::rig::noise;
use crate::s3::Server;

const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Until its daemon answers, too: the mount is there a moment before.
fn mount(drive: &mut TestDrive) {
    drive.mount();
    let at = drive.mount_point();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !drive.run(&["status", path(&at)]).status.success() {
        assert!(Instant::now() < deadline, "the daemon does not answer:\n{}", drive.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn share(drive: &TestDrive, what: &Path, more: &[&str]) -> String {
    succeed(&drive.run(&[&["share", "create", path(what)], more].concat()))
}

/// With the bucket alone.
fn get(drive: &TestDrive, link: &str, to: &Path, more: &[&str]) -> Output {
    let reach: Vec<&str> = drive.extra.iter().map(String::as_str).collect();
    drive.run(&[&["get", link, "--store", &drive.url, "-o", path(to)], &reach[..], more].concat())
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn fill(folder: &Path) {
    for below in ["sub/deeper", "empty", "sub/é and space"] {
        fs::create_dir_all(folder.join(below)).expect("a folder");
    }
    fs::write(folder.join("big"), noise(1, 40 << 20)).expect("a file");
    fs::write(folder.join("sub/a"), noise(2, 70_000)).expect("a file");
    fs::write(folder.join("sub/deeper/b"), b"b").expect("a file");
    fs::write(folder.join("sub/nothing"), b"").expect("a file");
    fs::write(folder.join("new\nline"), b"name").expect("a file");
    std::os::unix::fs::symlink("sub/a", folder.join("link")).expect("a symlink");
    let sparse = fs::File::create(folder.join("sparse")).expect("a file");
    sparse.set_len(200 << 20).expect("sparse");
}

fn whole_life(drive: &mut TestDrive) {
    mount(drive);
    let folder = drive.mount_point().join("photos");
    fs::create_dir(&folder).expect("a folder");
    fill(&folder);
    let link = share(drive, &folder, &["--expires", "7d"]);
    let id = link.split_once('#').expect("a fragment").0.to_owned();

    let outside = scratch();
    succeed(&get(drive, &link, outside.path(), &[]));
    same_by_rsync(&folder, &outside.path().join("photos"));
    same_times(&folder, &outside.path().join("photos"));
    // Again is refused, and another name is not.
    assert_eq!(code(&get(drive, &link, outside.path(), &[])), Some(1));
    succeed(&get(drive, &link, &outside.path().join("other"), &[]));

    let imported = drive.mount_point().join("imported");
    let reach: Vec<&str> = drive.extra.iter().map(String::as_str).collect();
    let url = drive.url.clone();
    succeed(&drive.run(&[&["import", &link, path(&imported), "--store", &url], &reach[..]].concat()));
    same_by_rsync(&folder, &imported);
    assert_eq!(code(&drive.run(&["import", &link, path(&outside.path().join("x")), "--store", &url])), Some(2));

    // Named, as other drives of this user may be mounted meanwhile.
    let mount_point = drive.mount_point();
    let at = path(&mount_point);
    let listed: serde_json::Value =
        serde_json::from_str(&succeed(&drive.run(&["share", "ls", at, "--json"]))).expect("JSON");
    assert_eq!(listed[0]["id"], id.as_str());
    assert_eq!((listed[0]["state"].as_str(), listed[0]["path"].as_str()), (Some("published"), Some("/photos")));
    assert!(listed[0]["expires"].is_string() && listed[0]["link"].is_null());
    assert!(succeed(&drive.run(&["share", "ls", at])).contains("/photos"));
    let shown = succeed(&drive.run(&["share", "show", &id, at, "--host", "https://share.example.org/"]));
    assert!(shown.contains(&format!("https://share.example.org/s/{link}")), "{shown}");

    succeed(&drive.run(&["share", "revoke", &link, at]));
    let gone = get(drive, &link, &outside.path().join("third"), &[]);
    assert_eq!(code(&gone), Some(10), "{}", text(&gone));
    assert!(text(&gone).contains("taken back"));
    assert!(!outside.path().join("third").exists());
    assert!(succeed(&drive.run(&["share", "ls", at])).contains("taken back"));
    drive.umount();
}

#[test]
fn a_links_whole_life_over_a_mounted_drive() {
    whole_life(&mut TestDrive::local());
}

#[test]
fn a_links_whole_life_over_an_s3_server() {
    let server = Server::from_environment();
    let bucket = server.make_bucket("links");
    let root = scratch();
    let extra = vec!["--endpoint-url".into(), server.endpoint.clone()];
    whole_life(&mut TestDrive::init(root, format!("s3://{bucket}/volume"), extra));
}

#[test]
fn a_daemon_that_is_killed_while_it_publishes_goes_on_after() {
    let mut drive = TestDrive::local();
    mount(&mut drive);
    let file = drive.mount_point().join("big");
    fs::write(&file, noise(1, 200 << 20)).expect("a file");
    drive.flush();
    let mut publishing = drive
        .command(&["share", "create", path(&file)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("hushfs");
    let share_dir = drive.store_dir().join("share");
    let deadline = Instant::now() + Duration::from_secs(60);
    while packs(&share_dir).len() < 3 {
        assert!(Instant::now() < deadline, "nothing was uploaded");
        std::thread::sleep(Duration::from_millis(5));
    }
    drive.kill();
    assert!(!publishing.wait().expect("ended").success());
    drive.clear();
    let before = packs(&share_dir);
    mount(&mut drive);
    let link = share(&drive, &file, &[]);
    // One link, whose first packs are those of the first try.
    assert_eq!(names(&share_dir).len(), 1);
    assert!(before.iter().all(|pack| pack.exists()), "packs of the first try are gone");
    let outside = scratch();
    succeed(&get(&drive, &link, outside.path(), &[]));
    assert!(fs::read(outside.path().join("big")).expect("fetched") == noise(1, 200 << 20));
    drive.umount();
}

#[test]
fn a_get_and_an_import_that_are_killed_go_on_after() {
    let mut drive = TestDrive::local();
    mount(&mut drive);
    let file = drive.mount_point().join("big");
    fs::write(&file, noise(1, 200 << 20)).expect("a file");
    let (link, outside) = (share(&drive, &file, &[]), scratch());
    let into = drive.mount_point().join("imported");
    fs::create_dir(&into).expect("a folder");
    let (store, to, into_text) = (drive.url.clone(), path(outside.path()).to_owned(), path(&into).to_owned());
    for (folder, command) in [
        (outside.path(), ["get", &link, "--store", &store, "-o", &to]),
        (&into, ["import", &link, "--store", &store, "--", &into_text]),
    ] {
        let mut fetching = drive.command(&command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("hushfs");
        let deadline = Instant::now() + Duration::from_secs(60);
        while blocks_below(folder) < (16 << 20) / 512 {
            assert!(Instant::now() < deadline, "nothing was fetched");
            std::thread::sleep(Duration::from_millis(2));
        }
        fetching.kill().expect("kill");
        fetching.wait().expect("ended");
        assert!(!folder.join("big").exists(), "it ended before it could be killed");
        succeed(&drive.run(&command));
        assert!(fs::read(folder.join("big")).expect("fetched") == noise(1, 200 << 20));
        assert_eq!(names(folder), ["big"]);
    }
    drive.umount();
}

/// Of 512 bytes, that are written.
fn blocks_below(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(folder).expect("a folder");
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.blocks())).sum()
}

fn packs(share_dir: &Path) -> Vec<PathBuf> {
    let Ok(links) = fs::read_dir(share_dir) else { return vec![] };
    let packs = links.filter_map(|link| fs::read_dir(link.ok()?.path().join("pk")).ok()).flatten();
    let packs = packs.filter_map(|pack| Some(pack.ok()?.path()));
    packs.filter(|pack| !pack.to_string_lossy().contains('#')).collect()
}

#[test]
fn passwords_and_recipients_by_the_commands() {
    let mut drive = TestDrive::local();
    mount(&mut drive);
    let (file, outside) = (drive.mount_point().join("file"), scratch());
    fs::write(&file, b"content").expect("a file");
    let (right, wrong) = (outside.path().join("right"), outside.path().join("wrong"));
    fs::write(&right, "correct horse\n").expect("a file");
    fs::write(&wrong, "correct hors\n").expect("a file");
    let link = share(&drive, &file, &["--link-password-file", path(&right)]);
    let out = outside.path().join("out");
    // Nobody to ask, then a wrong one, then the right one.
    assert_eq!(code(&get(&drive, &link, &out, &[])), Some(2));
    assert_eq!(code(&get(&drive, &link, &out, &["--password-file", path(&wrong)])), Some(3));
    succeed(&get(&drive, &link, &out, &["--password-file", path(&right)]));
    assert_eq!(fs::read(&out).expect("fetched"), b"content");

    let link = share(&drive, &file, &["--recipient", RECIPIENT]);
    assert!(link.ends_with("#1"), "{link}");
    let identity = outside.path().join("identity");
    fs::write(&identity, IDENTITY).expect("a file");
    let out = outside.path().join("for-one");
    assert_eq!(code(&get(&drive, &link, &out, &[])), Some(3));
    succeed(&get(&drive, &link, &out, &["--identity", path(&identity)]));
    assert_eq!(fs::read(&out).expect("fetched"), b"content");
    drive.umount();
}

/// A command line with a terminal of its own.
struct OnTerminal {
    script: Child,
    shown: Receiver<String>,
    text: String,
}

impl OnTerminal {
    fn start(drive: &TestDrive, line: &str) -> Self {
        let own = drive.command(&[]);
        let hushfs = format!("hushfs() {{ '{}' \"$@\"; }}; {line}", own.get_program().to_str().expect("a path"));
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &hushfs, "/dev/null"]);
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script runs");
        let (mut out, (send, shown)) = (script.stdout.take().expect("piped"), channel());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = out.read(&mut bytes) {
                let _ = send.send(String::from_utf8_lossy(&bytes[..len]).into_owned());
            }
        });
        Self { script, shown, text: String::new() }
    }

    fn answer(&mut self, question: &str, answer: &str) {
        while !self.text.contains(question) {
            self.text += &self.shown.recv_timeout(Duration::from_secs(30)).expect(question);
        }
        // The question is there a moment before the terminal stops showing what is typed.
        std::thread::sleep(Duration::from_millis(500));
        self.script.stdin.as_mut().expect("piped").write_all(answer.as_bytes()).expect("typed");
    }

    /// The code, and what was on the screen.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.script.wait().expect("it ends").code();
        self.text.extend(self.shown.iter());
        (code, self.text)
    }
}

#[test]
fn who_has_a_terminal_is_asked_there() {
    let mut drive = TestDrive::local();
    mount(&mut drive);
    let (file, outside) = (drive.mount_point().join("file"), scratch());
    fs::write(&file, b"content").expect("a file");
    let password = outside.path().join("password");
    fs::write(&password, "correct horse\n").expect("a file");
    let link = share(&drive, &file, &["--link-password-file", path(&password)]);
    let to = |name: &str| outside.path().join(name);
    let get = |from: &str, name: &str| format!("{from} --store '{}' -o '{}'", drive.url, path(&to(name)));

    // The link comes by a pipe: the terminal is there all the same.
    let mut terminal = OnTerminal::start(&drive, &get(&format!("printf %s '{link}' | hushfs get -"), "piped"));
    terminal.answer("Password of the link: ", "correct horse\n");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(fs::read(to("piped")).expect("fetched"), b"content");

    // Both are asked for, and neither is shown.
    let mut terminal = OnTerminal::start(&drive, &get("hushfs get -", "asked"));
    terminal.answer("Link: ", &format!("{link}\n"));
    terminal.answer("Password of the link: ", "correct horse\n");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("correct horse") && !shown.contains(link.split_once('#').expect("a secret").1), "{shown}");
    assert_eq!(fs::read(to("asked")).expect("fetched"), b"content");

    // Who does not want to answer need not.
    let mut terminal = OnTerminal::start(&drive, &get(&format!("hushfs get '{link}'"), "never"));
    terminal.answer("Password of the link: ", "\x03");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(128 + 2), "{shown}");
    assert!(!to("never").exists());
    drive.umount();
}

#[test]
fn a_volume_that_is_not_mounted_shares_and_takes_back() {
    let mut drive = TestDrive::local();
    mount(&mut drive);
    fs::create_dir(drive.mount_point().join("folder")).expect("a folder");
    fs::write(drive.mount_point().join("folder/file"), b"content").expect("a file");
    drive.umount();
    let (state, cache) = (drive.state_dir(), drive.cache_dir());
    let device = ["--state-dir", path(&state), "--cache-dir", path(&cache)];
    let url = drive.url.clone();
    let link = succeed(&drive.run(&[&["share", "create", &url, "--path", "folder"], &device[..]].concat()));
    let outside = scratch();
    succeed(&get(&drive, &link, outside.path(), &[]));
    assert_eq!(fs::read(outside.path().join("folder/file")).expect("fetched"), b"content");
    // Another machine of the owner's knows it, and while it is mounted there the daemon is asked.
    drive.become_new_machine("two");
    mount(&mut drive);
    assert!(succeed(&drive.run(&["share", "ls", path(&drive.mount_point())])).contains("/folder"));
    let (state, cache) = (drive.state_dir(), drive.cache_dir());
    let device = ["--state-dir", path(&state), "--cache-dir", path(&cache)];
    succeed(&drive.run(&[&["share", "revoke", &link, &url], &device[..]].concat()));
    assert_eq!(code(&get(&drive, &link, &outside.path().join("again"), &[])), Some(10));
    drive.umount();
}

#[test]
fn a_live_link_follows_a_mounted_folder() {
    let mut drive = TestDrive::local();
    mount(&mut drive);
    let folder = drive.mount_point().join("folder");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("file"), b"one").expect("a file");
    let link = share(&drive, &folder, &["--live"]);
    fs::write(folder.join("file"), b"two").expect("a file");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let outside = scratch();
        succeed(&get(&drive, &link, outside.path(), &[]));
        if fs::read(outside.path().join("folder/file")).expect("fetched") == b"two" {
            break;
        }
        assert!(Instant::now() < deadline, "the change was not published");
        std::thread::sleep(Duration::from_millis(500));
    }
    drive.umount();
}

#[test]
fn a_page_is_exported_and_nothing_is_published() {
    let mut drive = TestDrive::local();
    mount(&mut drive);
    let (outside, folder) = (scratch(), drive.mount_point().join("folder"));
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("small"), b"content of the small one").expect("a file");
    fs::write(folder.join("big"), noise(1, 20 << 20)).expect("a file");
    let page = |name: &str| outside.path().join(name);
    let export =
        |what: &str, to: &Path, more: &[&str]| drive.run(&[&["share", "export", what, path(to)], more].concat());

    // Small: all of it in the page, and the key on standard output alone.
    let small = folder.join("small");
    let key = succeed(&export(path(&small), &page("small.html"), &[]));
    let (id, secret) = key.split_once("#1.").expect("a key");
    let html = fs::read_to_string(page("small.html")).expect("a page");
    assert!(html.contains(id) && html.contains("\"box\":\"") && !html.contains(secret));
    succeed(&export(path(&small), &page("open.html"), &["--with-key"]));
    assert!(fs::read_to_string(page("open.html")).expect("a page").contains("\"fragment\":\"1."));
    // Large: in a file beside it, which opens with the key and holds what was shared.
    let key = succeed(&export(path(&folder), &page("folder.html"), &["--expires", "1h", "--name", "Other"]));
    let boxed = fs::read(page("folder.hushbox")).expect("a box");
    let unpacked = outside.path().join("unpacked");
    unpack(&boxed, &key, &unpacked);
    succeed(&drive.run(&["get", &key, "--store", path(&unpacked), "-o", path(outside.path())]));
    same_by_rsync(&folder, &outside.path().join("Other"));
    // Of a link that is published, its objects as they are.
    let link = share(&drive, &small, &[]);
    succeed(&export(&link, &page("link.html"), &["--store", &drive.url]));
    let published = link.split_once('#').expect("a fragment").0;
    assert!(fs::read_to_string(page("link.html")).expect("a page").contains(published));
    assert_eq!(names(&drive.store_dir().join("share")), [published]);
    let at = path(&drive.mount_point()).to_owned();
    let listed = succeed(&drive.run(&["share", "ls", &at, "--json"]));
    assert_eq!(listed.matches("\"id\"").count(), 1, "an exported page is a link of the volume: {listed}");

    // What an export that was killed left goes; what somebody may have given its name to stays.
    let part = outside.path().join(".again.html.part");
    let left = |mode: u32, mode_around: u32| {
        fs::create_dir_all(part.join("share/something")).expect("folders");
        fs::set_permissions(&part, Permissions::from_mode(mode)).expect("permissions");
        fs::set_permissions(outside.path(), Permissions::from_mode(mode_around)).expect("permissions");
        let output = export(path(&small), &page("again.html"), &[]);
        fs::set_permissions(outside.path(), Permissions::from_mode(0o700)).expect("permissions");
        (code(&output), part.join("share/something").exists())
    };
    assert_eq!(left(0o755, 0o700), (Some(1), true));
    assert_eq!(left(0o700, 0o777), (Some(1), true));
    assert_eq!(left(0o700, 0o1777), (Some(0), false));
    assert!(!part.exists());

    // What is there stays, and what is wrong leaves nothing.
    let before = names(outside.path());
    assert_eq!(code(&export(path(&small), &page("small.html"), &[])), Some(1));
    assert_eq!(code(&export(path(&small), &page("folder.html"), &[])), Some(1));
    let cut = &link[..link.len() - 3];
    for (what, more) in [
        (cut, &["--store", &drive.url][..]),
        (published, &["--store", &drive.url]),
        (&link, &[]),
        (&link, &["--store", &drive.url, "--expires", "1h"]),
        (path(&small), &["--store", &drive.url]),
        (path(&small), &["--with-key", "--recipient", RECIPIENT]),
        (path(outside.path()), &[]),
        ("nothing/there", &[]),
        ("https://example.org/s/nothing", &[]),
    ] {
        let output = export(what, &page("wrong.html"), more);
        assert_eq!(code(&output), Some(2), "{what} {more:?}: {}", text(&output));
    }
    assert_eq!(code(&export(path(&small), &page("no/folder.html"), &[])), Some(1));
    assert_eq!(names(outside.path()), before);
    drive.umount();
}

/// As a store has them.
fn unpack(boxed: &[u8], key: &str, store: &Path) {
    let found = hushfs::format::decode_box(boxed).expect("a box");
    let link = store.join("share").join(key.split_once('#').expect("a fragment").0);
    fs::create_dir_all(link.join("pk")).expect("a folder");
    fs::write(link.join(format!("{:020}", 1)), found.record).expect("a record");
    for (number, pack) in found.packs {
        fs::write(link.join(format!("pk/{number:020}")), pack).expect("a pack");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_code() {
    let drive = TestDrive::local();
    let none = format!("{}#1.{}", "00".repeat(16), "A".repeat(43));
    let outside = scratch();
    let to = outside.path().join("x");
    assert_eq!(code(&get(&drive, &none, &to, &[])), Some(10));
    assert_eq!(code(&get(&drive, "https://example.org/nothing", &to, &[])), Some(2));
    assert_eq!(code(&drive.run(&["get", &none])), Some(2));
    let asked = outside.path().join("link");
    std::fs::write(&asked, format!("{none}\n")).expect("a file");
    let mut piped = drive.command(&["get", "-", "--store", &drive.url, "-o", path(&to)]);
    let piped = piped.stdin(std::fs::File::open(&asked).expect("the file")).output().expect("hushfs runs");
    assert_eq!(code(&piped), Some(10));
    assert_eq!(code(&drive.run(&["share", "create", path(outside.path())])), Some(2));
    assert_eq!(code(&drive.run(&["share", "revoke", "not a link", "/nowhere"])), Some(2));
    assert_eq!(code(&drive.run(&["share", "create", "x", "--expires", "soon"])), Some(2));
}
