//! What holders of a link and stores may try: T15, and changed, swapped, cut, replayed and planted objects.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bytes::Bytes;
use hushfs::base::{Name, SystemEntropy, Timestamp, VolumeId};
use hushfs::crypto::{CHUNK_HEADER_LEN, ChunkOpener, Context, Key, Kind, chunk_id, open};
use hushfs::format::link::{
    ChunkRef, Contents, Entry, EntryKind, Header, IndexEncoder, LinkError, LinkKeys, LinkUrl, RootKind, SignedRecord,
    seal_link_chunk,
};
use hushfs::format::{ObjectName, Prefix};
use hushfs::share::get::{GetError, Gone};

use crate::owner::{Owner, names};
use crate::rig::noise;

fn contents(owner: &Owner, url: &LinkUrl) -> Contents {
    let record = owner.newest(url.id).expect("a record");
    record.open(url.secret.as_ref().expect("a secret")).expect("opened").contents(None).expect("no password")
}

#[test]
fn t15_nothing_of_the_volume_is_in_a_link() {
    let owner = Owner::new();
    owner.files.mkdir("private-name").unwrap();
    owner.files.write("private-name/shared", &noise(1, 2 << 20)).unwrap();
    owner.files.write("private-name/unshared", &noise(2, 2 << 20)).unwrap();
    owner.rig.flush();
    let shared = owner.share("private-name/shared");
    owner.rig.flush();
    let contents = contents(&owner, &shared.url);
    // All that a holder can open: the header, the index, the chunks.
    let header = &contents.header;
    let mut opened = Vec::new();
    for chunk in &header.index {
        opened.extend(plain(&owner, shared.id, &contents.root, chunk));
    }
    opened.extend_from_slice(header.title.as_bytes());
    let roots = owner.rig.roots();
    let (_, root) = roots.current();
    let of_volume: Vec<(&str, Vec<u8>)> = vec![
        ("the root", root.expose().to_vec()),
        ("the volume's id", roots.volume().0.to_vec()),
        ("the folder's name", b"private-name".to_vec()),
        ("another file's name", b"unshared".to_vec()),
        ("another file's chunk", chunk_id(&noise(2, 2 << 20)[..1 << 20]).0.to_vec()),
    ];
    let objects = owner.rig.objects(Prefix::ShareOf(shared.id));
    let stored: Vec<Bytes> = objects.iter().map(|name| owner.memory.peek(name).unwrap()).collect();
    for (what, bytes) in of_volume {
        let holds = |place: &[u8]| place.windows(bytes.len()).any(|window| window == bytes);
        assert!(!holds(&opened), "{what} is in what the link opens");
        assert!(stored.iter().all(|object| !holds(object)), "{what} is in the link's objects");
    }
}

#[test]
fn t15_nothing_in_a_link_opens_anything_outside_of_it() {
    let owner = Owner::new();
    let plain = noise(1, 300_000);
    owner.files.write("shared", &plain).unwrap();
    owner.files.write("unshared", &noise(2, 300_000)).unwrap();
    let shared = owner.share("shared");
    owner.rig.flush();
    let contents = contents(&owner, &shared.url);
    let volume = owner.rig.volume().id();
    // All keys that a holder has, with the right volume and the right ids: more than any of them would know.
    let keys = [shared.url.secret.as_ref().unwrap(), &contents.root];
    let ids = [chunk_id(&plain), chunk_id(&noise(2, 300_000))];
    let mut tried = 0;
    for name in owner.rig.objects(Prefix::Everything) {
        if matches!(name, ObjectName::Share(..) | ObjectName::SharePack(..)) {
            continue;
        }
        let object = owner.memory.peek(&name).unwrap();
        for key in keys {
            for at in [0, 8, 12, 28, 65] {
                let Some(sealed) = object.get(at..) else { continue };
                for kind in Kind::ALL {
                    for home in [volume, VolumeId(shared.id.0)] {
                        tried += 1;
                        let fields: [&[u8]; 2] = [&0u32.to_le_bytes(), &1u64.to_le_bytes()];
                        assert!(open(key, &Context { volume: home, kind, id: &fields }, sealed).is_err());
                    }
                }
            }
            let ObjectName::Pack(_) = name else { continue };
            for at in 0..object.len().saturating_sub(CHUNK_HEADER_LEN).min(4096) {
                let chunk_header = object[at..].first_chunk().unwrap();
                // A suite byte first: else no chunk begins here.
                if chunk_header[0] == 1 {
                    tried += 1;
                    assert!(ids.iter().all(|id| ChunkOpener::new(key, volume, id, chunk_header).is_err()));
                    assert!(ids.iter().all(|id| ChunkOpener::new(key, shared.id, id, chunk_header).is_err()));
                }
            }
        }
    }
    assert!(tried > 1000);
}

#[test]
fn t15_another_holder_cannot_publish_under_the_link() {
    let owner = Owner::new();
    owner.files.write("file", b"the owner's").unwrap();
    let shared = owner.share("file");
    // With the link's secret, and a key of their own to sign with.
    let holder = LinkKeys {
        secret: shared.url.secret.as_ref().unwrap().duplicate(),
        ..LinkKeys::generate(None, &SystemEntropy)
    };
    let header = contents(&owner, &shared.url).header;
    let forged = holder.seal(2, None, &header, &SystemEntropy).unwrap();
    let mut dressed = forged.clone();
    let own = owner.memory.peek(&ObjectName::Share(shared.id, 1)).unwrap();
    dressed[10..42].copy_from_slice(&own[10..42]);
    let tomb = hushfs::format::link::tombstone(&holder.signer(), 2);
    // The owner's own record under a later number, too.
    for planted in [forged, dressed, tomb, own.to_vec()] {
        owner.memory.plant(ObjectName::Share(shared.id, 2), planted.into());
        let fetcher = owner.fetcher();
        fetcher.get(&shared.url).unwrap();
        assert_eq!(fetcher.read("file"), b"the owner's");
    }
    // Where there is nothing else it is refused, and not taken for absent.
    owner.rig.delete(&ObjectName::Share(shared.id, 1));
    assert!(matches!(owner.fetcher().get(&shared.url), Err(GetError::Link(LinkError::NotTheOwners))));
}

/// A holder who works together with the store plants a pack: it is not taken for the owner's when they publish next.
#[test]
fn t15_a_planted_pack_does_not_come_into_a_record() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"one").unwrap();
    let request = hushfs::share::Request { live: true, ..crate::owner::request("f") };
    let shared = owner.sharing.create(request, &mut |_| true).unwrap();
    let root = contents(&owner, &shared.url).root;
    // The chunk that will be shared next, as the holder would have it: sealed with the right keys.
    let (sealed, chunk) = seal_link_chunk(shared.id, &root, b"two", (77, 0), &SystemEntropy);
    let mut pack = sealed.clone();
    let footer = hushfs::format::link::link_footer(&[chunk], pack.len() as u64, shared.id, 77, &root, &SystemEntropy);
    pack.extend(footer);
    owner.memory.plant(ObjectName::SharePack(shared.id, 77), pack.into());
    owner.files.write("f/a", b"two").unwrap();
    let quiet = std::time::Duration::from_millis(50);
    let options = hushfs::share::FollowOptions { quiet, longest: quiet, retry: quiet };
    let follower = hushfs::share::Follower::start(owner.sharing.clone(), options).unwrap();
    crate::rig::eventually("published", || owner.newest(shared.id).is_ok_and(|record| record.number() > 1));
    drop(follower);
    let named: Vec<u64> = contents(&owner, &shared.url).header.index.iter().map(|chunk| chunk.pack).collect();
    assert!(!named.contains(&77), "{named:?}");
    // Without the planted pack all is there.
    owner.rig.delete(&ObjectName::SharePack(shared.id, 77));
    let fetcher = owner.fetcher();
    fetcher.get(&shared.url).unwrap();
    assert_eq!(fetcher.read("f/a"), b"two");
}

/// Under whatever numbers: they cost the owner none of theirs, and go with the next version.
#[test]
fn t15_planted_objects_neither_end_a_link_nor_keep_it_from_being_taken_back() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"one").unwrap();
    let request = || hushfs::share::Request { live: true, ..crate::owner::request("f") };
    let shared = owner.sharing.create(request(), &mut |_| true).unwrap();
    let quiet = std::time::Duration::from_millis(50);
    let options = hushfs::share::FollowOptions { quiet, longest: quiet, retry: quiet };
    let follower = hushfs::share::Follower::start(owner.sharing.clone(), options).unwrap();
    let planted = [2, 3, 5, 1 << 62, (1 << 62) + 1, u64::MAX - 1, u64::MAX];
    let plant = || {
        for number in planted {
            owner.memory.plant(ObjectName::Share(shared.id, number), Bytes::from_static(b"junk"));
            owner.memory.plant(ObjectName::SharePack(shared.id, number), Bytes::from_static(b"junk"));
        }
    };
    plant();
    owner.files.write("f/a", b"two").unwrap();
    crate::rig::eventually("published", || {
        let fetcher = owner.fetcher();
        fetcher.get(&shared.url).is_ok() && fetcher.read("f/a") == b"two"
    });
    assert_eq!(owner.newest(shared.id).unwrap().number(), 4);
    crate::rig::eventually("what was planted goes", || {
        let (records, packs) = owner.objects(shared.id);
        records == [4] && !packs.iter().any(|pack| planted.contains(pack))
    });
    drop(follower);
    plant();
    owner.sharing.revoke(shared.id).unwrap();
    let (records, packs) = owner.objects(shared.id);
    assert!(records.len() == 1 && packs.is_empty(), "{records:?} {packs:?}");
    assert!(matches!(owner.fetcher().get(&shared.url), Err(GetError::Gone(Gone::Revoked))));
}

#[test]
fn changed_swapped_cut_and_missing_objects_are_refused_and_nothing_is_released() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", &noise(1, 20 << 20)).unwrap();
    owner.files.write("f/b", &noise(2, 20 << 20)).unwrap();
    let shared = owner.share("f");
    let (_, packs) = owner.objects(shared.id);
    assert!(packs.len() >= 3);
    let name = |number| ObjectName::SharePack(shared.id, number);
    let original: Vec<Bytes> = packs.iter().map(|pack| owner.memory.peek(&name(*pack)).unwrap()).collect();
    let refused = |what: &str| {
        let fetcher = owner.fetcher();
        let error = fetcher.get(&shared.url).expect_err(what);
        assert!(matches!(error, GetError::Damaged | GetError::Index(_)), "{what}: {error:?}");
        assert!(fetcher.has_nothing(), "{what}: something has its final name");
        for (pack, bytes) in packs.iter().zip(&original) {
            owner.memory.plant(name(*pack), bytes.clone());
        }
    };
    for (pack, bytes) in packs.iter().zip(&original) {
        for at in [0, 40, 70, bytes.len() / 3] {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            owner.memory.plant(name(*pack), changed.into());
            refused(&format!("byte {at} of pack {pack}"));
        }
        owner.memory.plant(name(*pack), bytes.slice(..bytes.len() / 2));
        refused(&format!("pack {pack}, cut"));
        owner.rig.delete(&name(*pack));
        refused(&format!("pack {pack}, gone"));
    }
    owner.memory.plant(name(packs[0]), original[1].clone());
    owner.memory.plant(name(packs[1]), original[0].clone());
    refused("two packs, swapped");
    // The same chunk sealed again with the same keys, as another holder could.
    let contents = contents(&owner, &shared.url);
    let chunk = &contents.header.index[0];
    let pack = owner.memory.peek(&name(chunk.pack)).unwrap();
    let again = plain(&owner, shared.id, &contents.root, chunk);
    let (sealed, forged) =
        seal_link_chunk(shared.id, &contents.root, &again, (chunk.pack, chunk.offset), &SystemEntropy);
    assert_eq!((forged.id, &forged.frames), (chunk.id, &chunk.frames));
    let mut changed = pack.to_vec();
    let span = chunk.span();
    changed[span.start as usize..span.end as usize].copy_from_slice(&sealed);
    owner.memory.plant(name(chunk.pack), changed.into());
    refused("a chunk that a holder sealed again");
    let fetcher = owner.fetcher();
    fetcher.get(&shared.url).unwrap();
    assert_eq!(fetcher.read("f/b"), noise(2, 20 << 20));
}

#[test]
fn a_flip_in_any_part_of_a_record_is_refused() {
    let owner = Owner::new();
    owner.files.write("file", b"content").unwrap();
    let shared = owner.share("file");
    let name = ObjectName::Share(shared.id, 1);
    let record = owner.memory.peek(&name).unwrap();
    for at in (0..record.len()).step_by(61).chain([8, 9, 42, 50, record.len() - 1]) {
        let mut changed = record.to_vec();
        changed[at] ^= 4;
        owner.memory.plant(name, changed.into());
        let error = owner.fetcher().get(&shared.url).unwrap_err();
        assert!(
            matches!(error, GetError::Link(LinkError::NotTheOwners | LinkError::Format(_))),
            "byte {at}: {error:?}"
        );
    }
    owner.rig.delete(&name);
    assert!(matches!(owner.fetcher().get(&shared.url), Err(GetError::Gone(Gone::Missing))));
}

/// Another link's objects under this link's names: the same owner, other keys.
#[test]
fn another_links_objects_are_none_of_this_one() {
    let owner = Owner::new();
    owner.files.write("one", &noise(1, 100_000)).unwrap();
    owner.files.write("two", &noise(2, 100_000)).unwrap();
    let (one, two) = (owner.share("one"), owner.share("two"));
    let pack = owner.memory.peek(&ObjectName::SharePack(two.id, 1)).unwrap();
    let record = owner.memory.peek(&ObjectName::Share(two.id, 1)).unwrap();
    owner.memory.plant(ObjectName::SharePack(one.id, 1), pack);
    assert!(matches!(owner.fetcher().get(&one.url), Err(GetError::Damaged)));
    owner.memory.plant(ObjectName::Share(one.id, 1), record);
    assert!(matches!(owner.fetcher().get(&one.url), Err(GetError::Link(LinkError::NotTheOwners))));
}

/// A sender who is hostile signs what they like: it escapes nowhere.
#[test]
fn what_a_hostile_sender_signs_stays_inside() {
    let owner = Owner::new();
    let entry = |parent, name: &str, kind| Entry {
        parent,
        name: Name::parse(name).unwrap(),
        mtime: Timestamp::new(0, 0),
        kind,
    };
    let symlink = |target: &[u8]| EntryKind::Symlink(target.into());
    // A symlink to the outside, and a folder of that name beside it; a chain that sums up to the outside.
    let link = forge(
        &owner,
        &[
            entry(0, "f", EntryKind::Directory),
            entry(0, "a", symlink(b"..")),
            entry(0, "d", symlink(b".")),
            entry(0, "e", symlink(b"d/d/d/../../../x")),
            entry(0, "ok", EntryKind::Directory),
            entry(4, "up", symlink(b"../d")),
        ],
    );
    let fetcher = owner.fetcher();
    let fetched = fetcher.get(&link).unwrap();
    assert_eq!((fetched.refused_symlinks, names(&fetcher.path("f"))), (2, vec!["d".into(), "ok".into()]));
    // Bytes that no encoder of ours makes are refused as a whole; see the decoder's own tests for each.
    let twice = forge(
        &owner,
        &[entry(0, "f", EntryKind::Directory), entry(0, "a", symlink(b"b")), entry(0, "a", EntryKind::Directory)],
    );
    let fetcher = owner.fetcher();
    assert!(matches!(fetcher.get(&twice), Err(GetError::Index(_))));
    assert!(fetcher.has_nothing());
}

/// What is in the way under the name that an unfinished fetch has is not written through.
#[test]
fn a_symlink_in_the_way_is_not_followed() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"content").unwrap();
    let shared = owner.share("f");
    let fetcher = owner.fetcher();
    let elsewhere = tempfile::tempdir().unwrap();
    let part = fetcher.path(&format!(".hushfs-{}-1.part", shared.id));
    std::os::unix::fs::symlink(elsewhere.path(), &part).unwrap();
    assert!(matches!(fetcher.get(&shared.url), Err(GetError::Local { .. })));
    std::fs::remove_file(&part).unwrap();
    std::fs::create_dir(&part).unwrap();
    std::fs::write(elsewhere.path().join("victim"), b"untouched").unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("victim"), part.join("a")).unwrap();
    assert!(matches!(fetcher.get(&shared.url), Err(GetError::Local { .. })));
    assert_eq!(std::fs::read(elsewhere.path().join("victim")).unwrap(), b"untouched");
    assert_eq!(names(elsewhere.path()), ["victim"]);
}

/// What looks like an earlier try's is gone on with only where it is what the link says.
#[test]
fn what_somebody_else_put_into_an_unfinished_fetch_does_not_come_out_of_it() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/a", b"content").unwrap();
    owner.files.write("f/sparse", &vec![0; 3 << 20]).unwrap();
    let shared = owner.share("f");
    let fetcher = owner.fetcher();
    let part = fetcher.path(&format!(".hushfs-{}-1.part", shared.id));
    std::fs::create_dir(&part).unwrap();
    std::fs::write(part.join("a"), b"CONTENT and more").unwrap();
    std::fs::write(part.join("sparse"), vec![b'!'; 3 << 20]).unwrap();
    std::fs::write(part.join("Makefile"), b"all:; echo owned").unwrap();
    let foreign = |path: PathBuf| match fetcher.get(&shared.url) {
        Err(GetError::Foreign(found)) => assert_eq!(found, path),
        outcome => panic!("{outcome:?}"),
    };
    foreign(part.join("Makefile"));
    std::fs::remove_file(part.join("Makefile")).unwrap();
    // Who has another name for a file can change it later.
    let held = fetcher.path("held");
    std::fs::hard_link(part.join("a"), &held).unwrap();
    foreign(part.join("a"));
    std::fs::remove_file(&held).unwrap();
    // So can its owner.
    std::os::unix::fs::chown(part.join("a"), Some(65534), None).expect("tests run as root");
    foreign(part.join("a"));
    std::fs::remove_file(part.join("a")).unwrap();
    fetcher.get(&shared.url).unwrap();
    assert_eq!(names(&fetcher.path("f")), ["a", "sparse"]);
    assert_eq!(std::fs::read(fetcher.path("f/a")).unwrap(), b"content");
    assert!(std::fs::read(fetcher.path("f/sparse")).unwrap() == vec![0; 3 << 20]);
}

fn mode_of(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A colleague may have moved something of this user's own into the place.
#[test]
fn what_is_gone_on_with_is_as_if_it_were_made_anew() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.mkdir("f/sub").unwrap();
    owner.files.write("f/sub/a", b"content").unwrap();
    owner.files.write("f/sub/b", b"content").unwrap();
    owner.files.symlink("sub/a", "f/link").unwrap();
    let shared = owner.share("f");
    let fetcher = owner.fetcher();
    let part = fetcher.path(&format!(".hushfs-{}-1.part", shared.id));
    let sub = part.join("sub");
    std::fs::create_dir_all(&sub).unwrap();
    for (name, mode) in [("a", 0o4777), ("b", 0o666)] {
        std::fs::write(sub.join(name), b"content").unwrap();
        std::fs::set_permissions(sub.join(name), Permissions::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(&sub, Permissions::from_mode(0o777)).unwrap();
    let open_elsewhere = std::fs::OpenOptions::new().write(true).open(sub.join("b")).unwrap();
    std::os::unix::fs::symlink("/etc", part.join("link")).unwrap();
    match fetcher.get(&shared.url) {
        Err(GetError::Foreign(found)) => assert_eq!(found, part.join("link")),
        outcome => panic!("{outcome:?}"),
    }
    std::fs::remove_file(part.join("link")).unwrap();
    std::os::unix::fs::symlink("sub/a", part.join("link")).unwrap();
    fetcher.get(&shared.url).unwrap();
    assert_eq!(std::fs::read_link(fetcher.path("f/link")).unwrap(), PathBuf::from("sub/a"));
    let fresh = owner.fetcher();
    fresh.get(&shared.url).unwrap();
    for below in ["f", "f/sub", "f/sub/a", "f/sub/b"] {
        assert_eq!(mode_of(&fetcher.path(below)), mode_of(&fresh.path(below)), "{below}");
    }
    std::os::unix::fs::FileExt::write_all_at(&open_elsewhere, b"CONTENT", 0).unwrap();
    assert_eq!(fetcher.read("f/sub/b"), b"content");
}

/// What looks like an older version's is taken away only where nobody can have put something else there.
#[test]
fn a_folder_that_somebody_gave_the_name_of_an_older_version_stays() {
    let owner = Owner::new();
    owner.files.write("a", b"content").unwrap();
    let shared = owner.share("a");
    let left_in = |mode: u32, uid: u32| {
        let fetcher = owner.fetcher();
        std::fs::set_permissions(fetcher.path(""), Permissions::from_mode(mode)).unwrap();
        let older = fetcher.path(&format!(".hushfs-{}-7.part", shared.id));
        std::fs::create_dir(&older).unwrap();
        std::fs::write(older.join("thesis"), b"of ten years").unwrap();
        std::os::unix::fs::chown(&older, Some(uid), None).expect("tests run as root");
        fetcher.get(&shared.url).unwrap();
        assert_eq!(fetcher.read("a"), b"content");
        older.join("thesis").exists()
    };
    let own = rustix::process::geteuid().as_raw();
    assert!(!left_in(0o755, own));
    assert!(!left_in(0o1777, own));
    assert!(left_in(0o777, own));
    assert!(left_in(0o775, own));
    assert!(left_in(0o1777, 65534));
}

fn plain(owner: &Owner, id: hushfs::base::LinkId, root: &Key, chunk: &ChunkRef) -> Vec<u8> {
    let pack = owner.memory.peek(&ObjectName::SharePack(id, chunk.pack)).expect("a pack");
    let span = chunk.span();
    let sealed = &pack[span.start as usize..span.end as usize];
    hushfs::format::link::open_link_chunk(id, root, chunk, sealed).expect("the owner's")
}

/// A link of folders and symlinks, signed by its owner, who is not ours.
fn forge(owner: &Owner, entries: &[Entry]) -> LinkUrl {
    let keys = LinkKeys::generate(None, &SystemEntropy);
    let mut encoder = IndexEncoder::new();
    for entry in entries {
        encoder.entry(entry);
    }
    let (pack, chunk) = seal_link_chunk(keys.id(), &keys.content_root(), &encoder.take(), (1, 0), &SystemEntropy);
    owner.memory.plant(ObjectName::SharePack(keys.id(), 1), pack.into());
    let (title, published) = (Name::parse("f").unwrap(), Timestamp::new(0, 0));
    let header = Header { title, published, kind: RootKind::Directory, files: 0, bytes: 0, index: vec![chunk] };
    let record = keys.seal(1, None, &header, &SystemEntropy).unwrap();
    assert!(SignedRecord::verify(keys.id(), 1, record.clone()).is_ok());
    owner.memory.plant(ObjectName::Share(keys.id(), 1), record.into());
    LinkUrl { host: None, id: keys.id(), secret: Some(keys.secret.duplicate()) }
}
