//! Links that follow what they share.

use std::time::Duration;

use hushfs::format::ObjectName;
use hushfs::share::get::{GetError, Gone};
use hushfs::share::{FollowOptions, Follower, LinkState, Request, Shared};
use hushfs::store::{Fault, Op, Rule};
use hushfs::vfs::api::{SetAttr, TimeOrNow};

use crate::owner::{Owner, request};
use crate::rig::{eventually, noise};

fn options() -> FollowOptions {
    let quiet = Duration::from_millis(100);
    FollowOptions { quiet, longest: Duration::from_secs(2), retry: Duration::from_millis(200) }
}

fn live(owner: &Owner, path: &str) -> Shared {
    owner.sharing.create(Request { live: true, ..request(path) }, &mut |_| true).expect("shared")
}

fn version(owner: &Owner) -> u64 {
    owner.sharing.list().expect("a list")[0].version
}

#[test]
fn a_live_link_follows_its_folder_and_sends_what_changed_only() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/large", &noise(1, 30 << 20)).unwrap();
    owner.files.write("f/small", b"one").unwrap();
    let shared = live(&owner, "f");
    let sent = owner.bytes_of(shared.id);
    let follower = Follower::start(owner.sharing.clone(), options()).unwrap();
    owner.files.write("f/small", b"two, and longer").unwrap();
    owner.files.rename("f/large", "f/renamed").unwrap();
    eventually("the change is published", || {
        let fetcher = owner.fetcher();
        fetcher.get(&shared.url).is_ok()
            && std::fs::read(fetcher.path("f/small")).is_ok_and(|found| found == b"two, and longer")
            && std::fs::read(fetcher.path("f/renamed")).is_ok_and(|found| found == noise(1, 30 << 20))
    });
    let more = owner.bytes_of(shared.id).saturating_sub(sent);
    assert!(more < 2 << 20, "{more} bytes more for a few");
    // What no record names any more is deleted; the grace is none here.
    eventually("the old version goes", || {
        let (records, packs) = owner.objects(shared.id);
        records.len() == 1 && packs.len() <= 3
    });
    // Then it is still, and nothing more is published.
    let settled = version(&owner);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(version(&owner), settled);
    drop(follower);
}

/// Changes something, and waits until that is published.
fn change(owner: &Owner, path: &str, bytes: &[u8]) {
    let before = version(owner);
    owner.files.write(path, bytes).unwrap();
    eventually("published", || version(owner) > before);
}

#[test]
fn a_live_link_that_changes_for_ever_does_not_grow_for_ever() {
    let mut owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    let shared = live(&owner, "f");
    let fast = FollowOptions { quiet: Duration::from_millis(10), ..options() };
    let mut follower = Follower::start(owner.sharing.clone(), fast).unwrap();
    // Of each round's pack one chunk stays.
    for round in 0..14 {
        owner.files.write(&format!("f/kept {round}"), &noise(100 + round, 1 << 20)).unwrap();
        change(&owner, "f/scratch", &noise(round, 8 << 20));
        if round == 9 {
            drop(follower);
            owner.restart();
            follower = Follower::start(owner.sharing.clone(), fast).unwrap();
        }
    }
    let used = (14 + 8) << 20;
    eventually("it shrinks", || owner.bytes_of(shared.id) < (2 * used + (16 << 20)) * 9 / 8);
    // And many small changes are not many small packs.
    for round in 0..40u8 {
        change(&owner, &format!("f/small {round}"), &[round; 100]);
    }
    eventually("they are merged", || owner.objects(shared.id).1.len() < 40);
    drop(follower);
    let fetcher = owner.fetcher();
    fetcher.get(&shared.url).unwrap();
    assert_eq!(fetcher.read("f/scratch"), noise(13, 8 << 20));
    for round in 0..14 {
        assert_eq!(fetcher.read(&format!("f/kept {round}")), noise(100 + round, 1 << 20));
    }
    assert!((0..40u8).all(|round| fetcher.read(&format!("f/small {round}")) == [round; 100]));
}

#[test]
fn what_changed_while_nobody_followed_is_published_at_the_start() {
    let mut owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", &noise(1, 3 << 20)).unwrap();
    let shared = live(&owner, "f");
    owner.files.write("f/b", b"new").unwrap();
    owner.restart();
    let before = owner.faults.requests().len();
    let follower = Follower::start(owner.sharing.clone(), options()).unwrap();
    eventually("published", || version(&owner) == 2);
    drop(follower);
    let fetcher = owner.fetcher();
    fetcher.get(&shared.url).unwrap();
    assert_eq!((fetcher.read("f/a"), fetcher.read("f/b")), (noise(1, 3 << 20), b"new".to_vec()));
    assert!(owner.faults.requests().len() - before < 40);
}

#[test]
fn a_live_link_with_a_password_is_published_again_without_it() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"one").unwrap();
    let password = Some(zeroize::Zeroizing::new(b"secret".to_vec()));
    let request = Request { live: true, password, ..request("f") };
    let shared = owner.sharing.create(request, &mut |_| true).unwrap();
    let _follower = Follower::start(owner.sharing.clone(), options()).unwrap();
    owner.files.write("f/a", b"three").unwrap();
    eventually("published", || {
        let mut fetcher = owner.fetcher();
        fetcher.password = Some(b"secret".to_vec());
        fetcher.get(&shared.url).is_ok() && fetcher.read("f/a") == b"three"
    });
}

#[test]
fn a_file_that_is_replaced_by_renaming_is_followed_by_its_path() {
    let owner = Owner::new();
    owner.files.write("report", b"first").unwrap();
    let shared = live(&owner, "report");
    let _follower = Follower::start(owner.sharing.clone(), options()).unwrap();
    owner.files.write("report.new", b"second").unwrap();
    owner.files.rename("report.new", "report").unwrap();
    eventually("published", || {
        let fetcher = owner.fetcher();
        fetcher.get(&shared.url).is_ok() && fetcher.read("report") == b"second"
    });
}

/// Nobody looked in between: for what is no file of the same kind any more it makes no difference.
#[test]
fn what_takes_the_place_of_what_is_followed_is_not_handed_out() {
    type Deed = fn(&Owner);
    let replaced: [(&str, Deed); 4] = [
        ("folder", |owner| {
            owner.files.remove("folder/a").unwrap();
            owner.files.remove_dir("folder").unwrap();
            owner.files.mkdir("folder").unwrap();
            owner.files.write("folder/a", b"for nobody").unwrap();
        }),
        ("folder", |owner| {
            owner.files.remove("folder/a").unwrap();
            owner.files.remove_dir("folder").unwrap();
            owner.files.write("folder", b"for nobody").unwrap();
        }),
        ("file", |owner| {
            owner.files.remove("file").unwrap();
            owner.files.symlink("secret", "file").unwrap();
        }),
        ("file", |owner| {
            owner.files.remove("file").unwrap();
            owner.files.mkdir("file").unwrap();
            owner.files.write("file/a", b"for nobody").unwrap();
        }),
    ];
    for (path, replace) in replaced {
        let owner = Owner::new();
        owner.files.write("secret", b"for nobody").unwrap();
        owner.files.mkdir("folder").unwrap();
        owner.files.write("folder/a", b"for everybody").unwrap();
        owner.files.write("file", b"for everybody").unwrap();
        let shared = live(&owner, path);
        replace(&owner);
        let _follower = Follower::start(owner.sharing.clone(), options()).unwrap();
        eventually("its end is noted", || !owner.sharing.show(shared.id).unwrap().0.live);
        let fetcher = owner.fetcher();
        fetcher.get(&shared.url).unwrap();
        let found = if path == "file" { "file" } else { "folder/a" };
        assert_eq!(fetcher.read(found), b"for everybody");
        assert_eq!(version(&owner), 1);
    }
}

/// Its inode has changed since the link was published, and nothing that is in the link.
#[test]
fn a_file_whose_permissions_changed_is_read_once_and_not_again_with_every_change() {
    let owner = Owner::with(|options| options.cache_bytes_max = 1 << 20);
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/large", &noise(1, 12 << 20)).unwrap();
    owner.files.write("elsewhere", b"").unwrap();
    let shared = live(&owner, "f");
    owner.files.set("f/large", &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    owner.rig.flush();
    let is_read = |request: &(Op, Option<ObjectName>)| matches!(request, (Op::Get, Some(ObjectName::Pack(_))));
    let reads = || owner.rig.faults.requests().iter().filter(|request| is_read(request)).count();
    let looks = || owner.faults.requests().iter().filter(|(op, _)| *op == Op::List).count();
    let _follower = Follower::start(owner.sharing.clone(), options()).unwrap();
    let settled = || {
        let mut seen = (0, 0);
        while std::mem::replace(&mut seen, (reads(), looks())) != seen {
            std::thread::sleep(Duration::from_millis(800));
        }
    };
    eventually("it was read", || reads() > 0);
    settled();
    let before = reads();
    for _ in 0..3 {
        let before = looks();
        owner.files.append("elsewhere", b".").unwrap();
        eventually("somebody looked", || looks() > before);
        settled();
    }
    assert_eq!(reads(), before);
    assert_eq!(owner.newest(shared.id).unwrap().number(), 1);
}

#[test]
fn what_appears_where_a_followed_folder_was_deleted_is_not_handed_out() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"for everybody").unwrap();
    let shared = live(&owner, "f");
    let _follower = Follower::start(owner.sharing.clone(), options()).unwrap();
    owner.files.remove("f/a").unwrap();
    owner.files.remove_dir("f").unwrap();
    eventually("its end is noted", || !owner.sharing.show(shared.id).unwrap().0.live);
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"for nobody").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let fetcher = owner.fetcher();
    fetcher.get(&shared.url).unwrap();
    assert_eq!(fetcher.read("f/a"), b"for everybody");
}

/// As `rsync --times` and archivers do.
#[test]
fn a_file_whose_modification_time_was_set_back_is_published_again() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"one").unwrap();
    owner.files.write("f/b", b"same").unwrap();
    let shared = live(&owner, "f");
    let before = owner.files.attributes("f/a").unwrap().mtime;
    owner.files.write("f/a", b"two").unwrap();
    owner.files.set("f/a", &SetAttr { mtime: Some(TimeOrNow::Time(before)), ..SetAttr::default() }).unwrap();
    let _follower = Follower::start(owner.sharing.clone(), options()).unwrap();
    eventually("published", || {
        let fetcher = owner.fetcher();
        fetcher.get(&shared.url).is_ok() && fetcher.read("f/a") == b"two"
    });
}

#[test]
fn a_store_that_hangs_does_not_keep_the_volume_from_closing() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"one").unwrap();
    live(&owner, "f");
    let follower = Follower::start(owner.sharing.clone(), options()).unwrap();
    owner.faults.add(Rule::on(Op::Create, Fault::Hang));
    let before = owner.faults.fired();
    owner.files.write("f/a", b"two").unwrap();
    eventually("it hangs", || owner.faults.fired() > before);
    let start = std::time::Instant::now();
    drop(follower);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn nothing_is_published_after_a_live_link_was_taken_back() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"one").unwrap();
    let shared = live(&owner, "f");
    let _follower = Follower::start(owner.sharing.clone(), options()).unwrap();
    owner.files.write("f/a", b"two").unwrap();
    owner.sharing.revoke(shared.id).unwrap();
    owner.files.write("f/a", b"three").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let (records, packs) = owner.objects(shared.id);
    assert!(records.len() == 1 && packs.is_empty(), "{records:?} {packs:?}");
    assert!(matches!(owner.fetcher().get(&shared.url), Err(GetError::Gone(Gone::Revoked))));
    assert_eq!(owner.sharing.list().unwrap()[0].state, LinkState::Revoked);
}

/// Both note in the link's row what they published, and one of them takes it back in the end.
#[test]
fn two_devices_follow_a_link_and_neither_stops_the_other() {
    // What one noted is not in the log yet when the other's comes.
    let owner = Owner::with(|options| options.cycle.age_max = Duration::from_secs(3600));
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"a").unwrap();
    owner.files.write("f/b", b"b").unwrap();
    owner.files.write("here", b"").unwrap();
    owner.files.write("there", b"").unwrap();
    let shared = live(&owner, "f");
    owner.rig.flush();
    let (two, theirs) = owner.rig.beside("two");
    let sharing = owner.sharing_of(&two);
    let _followers =
        [&owner.sharing, &sharing].map(|sharing| Follower::start(sharing.clone(), options()).expect("a follower"));
    let settle = || {
        owner.files.append("here", b".").unwrap();
        owner.rig.flush();
        theirs.append("there", b".").unwrap();
        two.flush(&mut |_| true).expect("flushed");
    };
    for round in 0..4u8 {
        let (ours, other) = ([b'a', round], [round, b'b']);
        let versions = || [&owner.sharing, &sharing].map(|sharing| sharing.list().expect("a list")[0].version);
        let before = versions();
        owner.files.write("f/a", &ours).unwrap();
        theirs.write("f/b", &other).unwrap();
        eventually("each has noted its own", || versions().iter().zip(before).all(|(now, before)| *now > before));
        eventually("both changes are published", || {
            settle();
            let fetcher = owner.fetcher();
            fetcher.get(&shared.url).is_ok() && fetcher.read("f/a") == ours && fetcher.read("f/b") == other
        });
    }
    sharing.revoke(shared.id).unwrap();
    owner.files.write("f/a", b"after").unwrap();
    eventually("both know that it was taken back", || {
        settle();
        [&owner.sharing, &sharing].iter().all(|sharing| sharing.list().unwrap()[0].state == LinkState::Revoked)
    });
    assert!(matches!(owner.fetcher().get(&shared.url), Err(GetError::Gone(Gone::Revoked))));
}
