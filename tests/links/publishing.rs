//! Publishing, fetching, and taking back, over a volume in this process.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use hushfs::base::{InodeId, Name, SystemClock, SystemEntropy, Timestamp};
use hushfs::crypto::PrivateHalf;
use hushfs::format::link::{LinkError, LinkState as RowState, tombstone};
use hushfs::format::{ObjectName, Prefix};
use hushfs::share::get::{GetError, Gone};
use hushfs::share::{LinkState, Request, ShareError};
use hushfs::store::{Fault, Op, Rule, StoreErrorKind};
use hushfs::vfs::api::{Caller, Vfs};
use zeroize::Zeroizing;

use crate::owner::{Owner, is_interrupted, names, request};
use crate::rig::noise;

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };

fn symlink(owner: &Owner, parent: InodeId, name: &str, target: &[u8]) {
    let drive = owner.rig.volume().drive();
    let made = drive.symlink(CALLER, parent, &Name::parse(name).unwrap(), target).expect("a symlink");
    drive.forget(made.ino, 1);
}

#[test]
fn a_folder_comes_back_with_all_that_a_link_has() {
    let owner = Owner::new();
    let (big, odd) = (noise(1, (5 << 20) + 17), noise(2, 70_001));
    for folder in ["a", "a/b", "a/b/empty", "other"] {
        owner.files.mkdir(folder).unwrap();
    }
    owner.files.write("a/big", &big).unwrap();
    owner.files.write("a/again", &big).unwrap();
    owner.files.write("a/b/odd", &odd).unwrap();
    owner.files.write("a/b/nothing", b"").unwrap();
    owner.files.write("a/b/zeros", &[0; 3 << 20]).unwrap();
    owner.files.write("a/run", b"#!/bin/sh\n").unwrap();
    owner.files.chmod("a/run", 0o755).unwrap();
    owner.files.write("other/secret", b"not shared").unwrap();
    let a = owner.files.find("a").unwrap();
    symlink(&owner, a, "good", b"b/odd");
    symlink(&owner, a, "out", b"../other/secret");
    symlink(&owner, a, "absolute", b"/etc/passwd");
    let drive = owner.rig.volume().drive();
    let pipe = drive.mknod(CALLER, a, &Name::parse("pipe").unwrap(), 0o010644, 0).unwrap();
    drive.forget(pipe.ino, 1);

    let shared = owner.share("a");
    assert_eq!((shared.files, shared.left_out), (6, 1));
    // Equal contents are stored once, zeros not at all.
    assert!(owner.bytes_of(shared.id) < big.len() as u64 * 5 / 4, "{} bytes", owner.bytes_of(shared.id));

    let fetcher = owner.fetcher();
    let fetched = fetcher.get(&shared.url).unwrap();
    assert_eq!((fetched.path, fetched.refused_symlinks), (fetcher.path("a"), 2));
    assert_eq!(fetcher.read("a/big"), big);
    assert_eq!(fetcher.read("a/again"), big);
    assert_eq!(fetcher.read("a/b/odd"), odd);
    assert_eq!(fetcher.read("a/b/nothing"), b"");
    assert_eq!(fetcher.read("a/b/zeros"), vec![0; 3 << 20]);
    assert_eq!(fetcher.read("a/good"), odd);
    assert_eq!(names(&fetcher.path("a")), ["again", "b", "big", "good", "run"]);
    assert_eq!(names(&fetcher.path("a/b")), ["empty", "nothing", "odd", "zeros"]);
    let mode = |path| std::fs::metadata(fetcher.path(path)).unwrap().permissions().mode() & 0o111;
    assert!(mode("a/run") != 0 && mode("a/big") == 0);
    for path in ["a", "a/b", "a/big", "a/b/odd"] {
        let attr = drive.getattr(owner.files.find(path).unwrap()).unwrap();
        let there = std::fs::metadata(fetcher.path(path)).unwrap();
        assert_eq!((there.mtime(), there.mtime_nsec() as u32), (attr.mtime.secs, attr.mtime.nanos), "{path}");
    }
    assert_eq!(names(fetcher.folder.path()), ["a"]);
    // Reading for a link is no access of its owner's.
    assert!(matches!(fetcher.get(&shared.url), Err(GetError::Exists(_))));
}

#[test]
fn a_single_file_is_shared_under_another_name() {
    let owner = Owner::new();
    owner.files.write("report", &noise(3, 100_000)).unwrap();
    let title = Some(Name::parse("Report.pdf").unwrap());
    let shared = owner.sharing.create(Request { title, ..request("/report") }, &mut |_| true).unwrap();
    let fetcher = owner.fetcher();
    fetcher.get(&shared.url).unwrap();
    assert_eq!(names(fetcher.folder.path()), ["Report.pdf"]);
    assert_eq!(fetcher.read("Report.pdf"), noise(3, 100_000));
    // The link's own listing.
    let list = owner.sharing.list().unwrap();
    assert_eq!((list.len(), list[0].state, list[0].bytes, list[0].version), (1, LinkState::Published, 100_000, 1));
    assert_eq!(owner.sharing.show(shared.id).unwrap().1.unwrap(), shared.url);
}

#[test]
fn what_cannot_be_shared_says_why() {
    let owner = Owner::new();
    owner.files.write("file", b"x").unwrap();
    symlink(&owner, InodeId::ROOT, "link", b"file");
    let error = |path| owner.sharing.create(request(path), &mut |_| true).unwrap_err();
    assert!(matches!(error("missing"), ShareError::NoSuchPath));
    assert!(matches!(error("file/below"), ShareError::NoSuchPath));
    assert!(matches!(error("link"), ShareError::NotShareable));
    assert!(owner.rig.objects(Prefix::Shares).is_empty() && owner.sharing.list().unwrap().is_empty());
}

#[test]
fn a_link_with_a_hidden_name_is_not_put_where_programs_obey_it() {
    let owner = Owner::new();
    owner.files.write(".bashrc", b"echo owned\n").unwrap();
    let shared = owner.share(".bashrc");
    let fetcher = owner.fetcher();
    assert!(matches!(fetcher.get(&shared.url), Err(GetError::HiddenName)));
    assert!(names(fetcher.folder.path()).is_empty());
}

#[test]
fn an_interrupted_publication_goes_on_and_sends_nothing_twice() {
    let mut owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    for number in 0..6 {
        owner.files.write(&format!("f/{number}"), &noise(number, 8 << 20)).unwrap();
    }
    let half = owner.sharing.create(request("f"), &mut |progress| progress.sent_bytes < 20 << 20);
    assert!(is_interrupted(half));
    let listed = owner.sharing.list().unwrap();
    assert_eq!((listed.len(), listed[0].state), (1, LinkState::Unfinished));
    let (records, packs) = owner.objects(listed[0].id);
    assert!(records.is_empty() && !packs.is_empty(), "{records:?} {packs:?}");
    let sent_before = owner.bytes_of(listed[0].id);

    owner.restart();
    let shared = owner.share("f");
    assert_eq!(shared.id, listed[0].id, "it is the same link");
    assert!(shared.sent_bytes < (48 << 20) * 9 / 8 - sent_before, "{} after {sent_before}", shared.sent_bytes);
    assert_eq!(owner.sharing.list().unwrap().len(), 1);
    let fetcher = owner.fetcher();
    fetcher.get(&shared.url).unwrap();
    for number in 0..6 {
        assert_eq!(fetcher.read(&format!("f/{number}")), noise(number, 8 << 20));
    }
}

#[test]
fn an_interrupted_fetch_goes_on_and_fetches_nothing_twice() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    for number in 0..6 {
        owner.files.write(&format!("f/{number}"), &noise(number, 8 << 20)).unwrap();
    }
    let shared = owner.share("f");
    let fetcher = owner.fetcher();
    let half = fetcher.get_until(&shared.url, &mut |progress| progress.fetched_bytes < 20 << 20);
    assert!(matches!(half, Err(GetError::Interrupted)));
    assert!(fetcher.has_nothing(), "what is not whole has no name");
    // What is left of another version, nobody can go on with.
    std::fs::create_dir(fetcher.path(&format!(".hushfs-{}-7.part", shared.id))).unwrap();
    // A byte that a crash lost is not taken for whole.
    let part = names(fetcher.folder.path()).into_iter().find(|name| name.ends_with("-1.part")).unwrap();
    let torn = fetcher.path(&part).join("0");
    let mut bytes = std::fs::read(&torn).unwrap();
    bytes[5] ^= 1;
    std::fs::write(&torn, bytes).unwrap();
    let fetched = fetcher.get(&shared.url).unwrap();
    assert!(fetched.fetched_bytes <= (48 << 20) - (15 << 20), "{} bytes again", fetched.fetched_bytes);
    for number in 0..6 {
        assert_eq!(fetcher.read(&format!("f/{number}")), noise(number, 8 << 20));
    }
    assert_eq!(names(fetcher.folder.path()), ["f"]);
}

#[test]
fn revoking_leaves_a_tombstone_and_nothing_else() {
    let owner = Owner::new();
    owner.files.write("file", &noise(1, 3 << 20)).unwrap();
    let shared = owner.share("file");
    let kept = owner.share("file");
    assert_ne!(shared.id, kept.id);
    owner.sharing.revoke(shared.id).unwrap();
    let (records, packs) = owner.objects(shared.id);
    assert_eq!((records, packs), (vec![2], vec![]));
    assert!(matches!(owner.fetcher().get(&shared.url), Err(GetError::Gone(Gone::Revoked))));
    let (info, url) = owner.sharing.show(shared.id).unwrap();
    assert_eq!((info.state, url), (LinkState::Revoked, None));
    let row = owner.rig.volume().drive().link_row(shared.id).unwrap().unwrap();
    assert!(row.state == RowState::Revoked, "the keys are forgotten");
    // Again is no error, and another link is none of its business.
    owner.sharing.revoke(shared.id).unwrap();
    owner.fetcher().get(&kept.url).unwrap();
}

#[test]
fn an_interrupted_revocation_goes_on() {
    let owner = Owner::new();
    owner.files.write("file", &noise(1, 3 << 20)).unwrap();
    let shared = owner.share("file");
    owner.faults.add(Rule::on(Op::Delete, Fault::Fail(StoreErrorKind::Denied)));
    assert!(matches!(owner.sharing.revoke(shared.id), Err(ShareError::Store(_))));
    // Nobody can fetch it any more, though all of it is there.
    assert!(matches!(owner.fetcher().get(&shared.url), Err(GetError::Gone(Gone::Revoked))));
    owner.faults.clear();
    owner.sharing.revoke(shared.id).unwrap();
    assert_eq!(owner.objects(shared.id), (vec![2], vec![]));
}

#[test]
fn a_tombstone_wins_over_records_that_come_after_it() {
    let owner = Owner::new();
    owner.files.write("file", &noise(1, 100_000)).unwrap();
    let shared = owner.share("file");
    let row = owner.rig.volume().drive().link_row(shared.id).unwrap().unwrap();
    let record = owner.memory.peek(&ObjectName::Share(shared.id, 1)).unwrap();
    let signer = row.state.keys().unwrap().signer();
    owner.memory.plant(ObjectName::Share(shared.id, 2), tombstone(&signer, 2).into());
    let opened = hushfs::format::link::SignedRecord::verify(shared.id, 1, record.to_vec()).unwrap();
    let header = opened.open(&row.state.keys().unwrap().secret).unwrap().contents(None).unwrap().header;
    let late = row.state.keys().unwrap().seal(3, None, &header, &SystemEntropy).unwrap();
    owner.memory.plant(ObjectName::Share(shared.id, 3), late.into());
    assert!(matches!(owner.fetcher().get(&shared.url), Err(GetError::Gone(Gone::Revoked))));
    owner.sharing.revoke(shared.id).unwrap();
    assert_eq!(owner.objects(shared.id), (vec![2], vec![]));
}

#[test]
fn a_link_that_is_taken_back_while_it_is_published_ends_as_taken_back() {
    let owner = Owner::new();
    owner.files.write("file", &noise(1, 40 << 20)).unwrap();
    let memory = owner.memory.clone();
    let drive = owner.rig.volume().drive().clone();
    let mut planted = None;
    // Another device's tombstone, after this one has looked.
    let outcome = owner.sharing.create(request("file"), &mut |progress| {
        if planted.is_none() && progress.sent_bytes > 0 {
            let (id, row) = drive.links().unwrap().remove(0);
            let tomb = tombstone(&row.state.keys().unwrap().signer(), 1);
            memory.plant(ObjectName::Share(id, 1), tomb.into());
            planted = Some(id);
        }
        true
    });
    let id = planted.expect("planted");
    assert!(matches!(outcome, Err(ShareError::Revoked)), "{outcome:?}");
    assert_eq!(owner.objects(id), (vec![1], vec![]));
    assert_eq!(owner.sharing.list().unwrap()[0].state, LinkState::Revoked);
}

#[test]
fn revoking_stops_a_publication_of_this_device() {
    let owner = Owner::new();
    owner.files.write("file", &noise(1, 64 << 20)).unwrap();
    let (sharing, drive) = (owner.sharing.clone(), owner.rig.volume().drive().clone());
    let (started, told) = std::sync::mpsc::channel();
    let publishing = std::thread::spawn(move || {
        sharing.create(request("file"), &mut |progress| {
            if progress.sent_bytes > 0 {
                let _ = started.send(());
            }
            true
        })
    });
    told.recv().unwrap();
    let (id, _) = drive.links().unwrap().remove(0);
    owner.sharing.revoke(id).unwrap();
    assert!(is_interrupted(publishing.join().unwrap()));
    assert_eq!(owner.objects(id), (vec![1], vec![]));
}

#[test]
fn another_device_that_takes_a_pack_number_is_no_harm() {
    let owner = Owner::new();
    owner.files.write("file", &noise(1, 40 << 20)).unwrap();
    let (memory, drive) = (owner.memory.clone(), owner.rig.volume().drive().clone());
    let mut planted = false;
    let shared = owner.sharing.create(request("file"), &mut |_| {
        if !planted && let Some((id, _)) = drive.links().unwrap().first() {
            memory.plant(ObjectName::SharePack(*id, 1), noise(9, 5000).into());
            planted = true;
        }
        true
    });
    let shared = shared.unwrap();
    let fetcher = owner.fetcher();
    fetcher.get(&shared.url).unwrap();
    assert!(planted && fetcher.read("file") == noise(1, 40 << 20));
}

#[test]
fn a_link_ends_when_it_was_said_to() {
    let owner = Owner::new();
    owner.files.write("file", b"for a week").unwrap();
    let expiry = hushfs::base::Clock::now(&SystemClock).secs + 3600;
    let expiry = Timestamp::new(expiry, 0);
    let shared = owner.sharing.create(Request { expiry: Some(expiry), ..request("file") }, &mut |_| true).unwrap();
    let mut fetcher = owner.fetcher();
    fetcher.now = expiry;
    assert!(matches!(fetcher.get(&shared.url), Err(GetError::Gone(Gone::Expired))));
    fetcher.now = Timestamp::new(expiry.secs - 1, 0);
    fetcher.get(&shared.url).unwrap();
    assert_eq!(owner.sharing.list().unwrap()[0].expiry, Some(expiry));
}

#[test]
fn a_password_opens_with_the_link_and_neither_alone() {
    let owner = Owner::new();
    owner.files.write("file", b"twice locked").unwrap();
    let password = Some(Zeroizing::new(b"correct horse".to_vec()));
    let shared = owner.sharing.create(Request { password, ..request("file") }, &mut |_| true).unwrap();
    let mut fetcher = owner.fetcher();
    assert!(matches!(fetcher.get(&shared.url), Err(GetError::Link(LinkError::PasswordNeeded))));
    fetcher.password = Some(b"correct hors".to_vec());
    assert!(matches!(fetcher.get(&shared.url), Err(GetError::Link(LinkError::WrongPassword))));
    fetcher.password = Some(b"correct horse".to_vec());
    let mut other = shared.url;
    other.secret = Some(hushfs::crypto::Key::from_bytes([1; 32]));
    assert!(matches!(fetcher.get(&other), Err(GetError::Link(LinkError::WrongSecret))));
    let (_, link) = owner.sharing.show(shared.id).unwrap();
    fetcher.get(&link.unwrap()).unwrap();
    assert_eq!(fetcher.read("file"), b"twice locked");
}

#[test]
fn a_recipients_link_opens_for_them_without_a_secret_in_it() {
    let owner = Owner::new();
    owner.files.write("file", b"for one").unwrap();
    let (own, other) = (PrivateHalf::generate(&SystemEntropy), PrivateHalf::generate(&SystemEntropy));
    let recipient = Some(own.public());
    let shared = owner.sharing.create(Request { recipient, ..request("file") }, &mut |_| true).unwrap();
    assert!(shared.url.secret.is_none() && shared.url.text().ends_with("#1"));
    let mut fetcher = owner.fetcher();
    assert!(matches!(fetcher.get(&shared.url), Err(GetError::Link(LinkError::NotRecipient))));
    fetcher.identities = vec![other];
    assert!(matches!(fetcher.get(&shared.url), Err(GetError::Link(LinkError::NotRecipient))));
    fetcher.identities.push(own);
    fetcher.get(&shared.url).unwrap();
    assert_eq!(fetcher.read("file"), b"for one");
}

#[test]
fn thousands_of_files_take_few_requests() {
    let owner = Owner::new();
    owner.files.mkdir("many").unwrap();
    for number in 0..3_000u32 {
        owner.files.write(&format!("many/{number:05}"), &number.to_le_bytes()).unwrap();
    }
    let shared = owner.share("many");
    assert_eq!(shared.files, 3_000);
    let before = owner.faults.requests().len();
    let fetcher = owner.fetcher();
    fetcher.get(&shared.url).unwrap();
    let requests = owner.faults.requests().len() - before;
    assert!(requests < 40, "{requests} requests");
    for number in [0u32, 1234, 2_999] {
        assert_eq!(fetcher.read(&format!("many/{number:05}")), number.to_le_bytes());
    }
}
