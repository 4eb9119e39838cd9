//! `key rotate --data`: what is there is sealed anew, and nobody who uses the files notices.

#[path = "support/rig.rs"]
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hushfs::base::{ByteRange, ChunkNo, Epoch, InodeId, KeyNo, Name};
use hushfs::crypto::{CHUNK_HEADER_LEN, ChunkOpener, Key, Roots};
use hushfs::format::chunk::seal_chunk;
use hushfs::format::rows::{ChunkRow, InodeBody, InodeRow, RowKey, decode_window};
use hushfs::format::{ObjectName, Prefix};
use hushfs::meta::Rows;
use hushfs::store::{Fault, Op, Rule, StoreErrorKind};
use hushfs::vfs::api::{Attr, HandleId, Kill, OpenFlags, Place, ReadReply, SetAttr, Vfs, WriteReply};
use hushfs::vfs::{OldData, ResealError};

use rig::{Files, Rig, eventually, finish, noise};

const MIB: usize = 1 << 20;

/// What a file holds by its path.
type Contents = BTreeMap<String, Vec<u8>>;

fn open(rig: &Rig, path: &str) -> (InodeId, HandleId) {
    let ino = rig.files().find(path).expect(path);
    (ino, rig.volume().drive().open(ino, OpenFlags { write: true, read: true, ..OpenFlags::default() }).expect(path))
}

fn write_at(rig: &Rig, path: &str, offset: u64, bytes: &[u8]) {
    let (ino, handle) = open(rig, path);
    let written = rig.volume().drive().write(ino, handle, offset, bytes, Kill::No).expect("written");
    assert!(matches!(written, WriteReply::Done(_)));
    rig.volume().drive().release(ino, handle);
}

fn read_by(rig: &Rig, (ino, handle): (InodeId, HandleId), len: u64) -> Vec<u8> {
    match rig.volume().drive().read(ino, handle, ByteRange::new(0, len)).expect("a read") {
        ReadReply::Ready(bytes) => bytes.to_vec(),
        ReadReply::Later(later) => finish(rig.runtime(), later).expect("a read").to_vec(),
    }
}

/// All that shares, is sparse, fragmented, garbage or empty.
fn fill(rig: &mut Rig) -> Contents {
    let files = rig.try_mount_by_words().expect("mounted");
    let mut contents = Contents::new();
    let mut save = |name: &str, bytes: Vec<u8>| {
        files.save(name, &bytes).expect(name);
        contents.insert(name.into(), bytes);
    };
    save("small", noise(1, 3000));
    save("text", b"all the same ".repeat(20_000));
    save("large", noise(2, 3 * MIB + 77));
    save("equal", noise(2, 3 * MIB + 77));
    save("empty", Vec::new());
    save("overwritten", noise(3, MIB));
    save("cleared", noise(8, 3000));
    rig.flush();
    // Its key is all that it keeps.
    save("cleared", Vec::new());
    save("overwritten", noise(4, 2000));
    // More extents than an inode's row holds.
    let mut fragmented = noise(5, MIB);
    save("fragmented", fragmented.clone());
    for at in 0..12u64 {
        let part = noise(100 + at, 500);
        write_at(rig, "fragmented", at * 70_000, &part);
        fragmented[at as usize * 70_000..][..500].copy_from_slice(&part);
    }
    contents.insert("fragmented".into(), fragmented);
    // A hole, and bytes in a window far behind it.
    let far = 65 * MIB;
    let mut sparse = noise(6, 1000);
    files.save("sparse", &sparse).expect("saved");
    write_at(rig, "sparse", far as u64, &noise(7, 1000));
    sparse.resize(far, 0);
    sparse.extend(noise(7, 1000));
    contents.insert("sparse".into(), sparse);

    let drive = rig.volume().drive();
    files.save("copy", b"").expect("saved");
    let (from, to) = (open(rig, "large"), open(rig, "copy"));
    let place = |(ino, handle)| Place { ino, handle, offset: 0 };
    drive.copy_range(place(from), place(to), 2 * MIB as u64, Kill::No).expect("copied");
    for (ino, handle) in [from, to] {
        drive.release(ino, handle);
    }
    contents.insert("copy".into(), contents["large"][..2 * MIB].to_vec());
    let linked = files.find("small").expect("a file");
    drive.link(linked, InodeId::ROOT, &Name::parse("link").expect("a name")).expect("linked");
    drive.forget(linked, 1);
    contents.insert("link".into(), contents["small"].clone());
    files.set_xattr("large", "user.x", b"value").expect("set");
    drive.setattr(linked, &SetAttr { mode: Some(0o4711), ..SetAttr::default() }).expect("set");
    rig.flush();
    contents
}

fn all_is_right(files: &Files, contents: &Contents) {
    for (name, content) in contents {
        assert!(files.read(name).expect(name) == *content, "{name} is not what was written");
    }
    let names: Vec<_> = contents.keys().cloned().collect();
    assert_eq!(files.names("").expect("the names"), names);
}

fn attributes(rig: &Rig, contents: &Contents) -> Vec<Attr> {
    let attr = |name: &String| {
        let attr = rig.volume().drive().getattr(rig.files().find(name).expect(name)).expect(name);
        Attr { atime: attr.mtime, ..attr }
    };
    contents.keys().map(attr).collect()
}

/// Rows of the mounted volume, by the kind of their key.
fn rows(rig: &Rig, kind: u8) -> Vec<(RowKey, Vec<u8>)> {
    let rows = rig.volume().drive().pending().view().scan(&[kind], None, usize::MAX).expect("rows");
    rows.into_iter().map(|(key, value)| (RowKey::decode(&key).expect("a key"), value)).collect()
}

fn inodes(rig: &Rig) -> Vec<InodeRow> {
    rows(rig, b'I').iter().map(|(_, value)| InodeRow::decode(value).expect("an inode")).collect()
}

/// The chunks that files cite, with their rows.
fn live_chunks(rig: &Rig) -> BTreeMap<ChunkNo, ChunkRow> {
    let mut extents = Vec::new();
    for row in inodes(rig) {
        if let InodeBody::File(inline) = row.body {
            extents.extend(inline);
        }
    }
    for (key, value) in rows(rig, b'X') {
        let RowKey::Extents(_, window) = key else { panic!("{key:?}") };
        extents.extend(decode_window(window, &value).expect("extents"));
    }
    let view = rig.volume().drive().pending().view();
    extents
        .into_iter()
        .map(|extent| (extent.chunk, view.chunk(extent.chunk).expect("rows").expect("a chunk")))
        .collect()
}

fn epoch_of(rig: &Rig, key: KeyNo) -> Epoch {
    rig.volume().drive().pending().view().file_key(key).expect("rows").expect("a key").epoch
}

/// No file cites a key of an epoch that ended, itself or by its chunks.
fn nothing_is_old(rig: &Rig, epoch: Epoch) {
    for row in inodes(rig) {
        assert!(row.key.is_none_or(|key| epoch_of(rig, key) == epoch), "an inode names an old key: {row:?}");
    }
    for (chunk, row) in live_chunks(rig) {
        assert_eq!(epoch_of(rig, row.key), epoch, "chunk {chunk}");
    }
}

fn counted(rig: &Rig) -> OldData {
    eventually("it is counted", || rig.status().old_keys.left.is_some());
    rig.status().old_keys.left.expect("counted")
}

fn reseal(rig: &Rig) {
    rig.volume().reseal(None).expect("begun");
    wait(rig).unwrap_or_else(|error| panic!("{error}\n{}", rig.troubles()));
}

fn wait(rig: &Rig) -> Result<(), ResealError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    rig.volume().wait_resealed(&mut |_| Instant::now() < deadline)
}

fn packs(rig: &Rig) -> BTreeSet<ObjectName> {
    rig.objects(Prefix::Packs).into_iter().collect()
}

fn stored(rig: &Rig, packs: &BTreeSet<ObjectName>) -> usize {
    packs.iter().map(|pack| rig.memory.peek(pack).expect("a pack").len()).sum()
}

#[test]
fn all_is_sealed_anew_once_and_nothing_else_changes() {
    let mut rig = Rig::in_virtual_time();
    let contents = fill(&mut rig);
    assert_eq!(counted(&rig), OldData::default(), "nothing is old before a rotation");
    let (attributes_before, inodes_before) = (attributes(&rig, &contents), inodes(&rig));
    let (live, old_packs) = (live_chunks(&rig), packs(&rig));
    let bytes = live.values().map(|row| u64::from(row.len)).sum::<u64>();

    let epoch = rig.volume().rotate(None).expect("rotated");
    eventually("it is counted", || rig.status().old_keys.left.is_some_and(|left| left.chunks > 0));
    assert_eq!(counted(&rig), OldData { files: counted(&rig).files, chunks: live.len() as u64, bytes });
    reseal(&rig);
    assert_eq!(counted(&rig), OldData::default());

    nothing_is_old(&rig, epoch);
    all_is_right(&rig.files(), &contents);
    assert_eq!(attributes(&rig, &contents), attributes_before);
    // Extents, versions and all else in the rows; what is shared stays shared.
    let without_key =
        |rows: Vec<InodeRow>| rows.into_iter().map(|row| InodeRow { key: None, ..row }).collect::<Vec<_>>();
    assert_eq!(without_key(inodes(&rig)), without_key(inodes_before));
    let now = live_chunks(&rig);
    assert!(live.keys().eq(now.keys()));
    assert!(live.iter().all(|(chunk, row)| (row.id, row.len) == (now[chunk].id, now[chunk].len)));
    // Each chunk once, and no garbage: what was overwritten is a megabyte.
    let new_packs: BTreeSet<_> = packs(&rig).difference(&old_packs).copied().collect();
    let sealed: usize = stored(&rig, &new_packs);
    assert!(sealed < bytes as usize + 600_000, "{sealed} bytes for {bytes}");

    // A second time there is nothing to do.
    let before = packs(&rig);
    reseal(&rig);
    assert_eq!(packs(&rig), before);
    rig.close();
    // Nothing that counts is left in what was there before.
    for pack in old_packs {
        rig.delete(&pack);
    }
    rig.become_new_machine("new");
    let files = rig.try_mount_by_words().expect("mounted");
    all_is_right(&files, &contents);
    nothing_is_old(&rig, epoch);
}

/// With the root of before, all file keys of before, and all that the store has.
#[test]
fn who_had_the_old_keys_can_open_nothing_of_what_was_sealed_anew() {
    let mut rig = Rig::in_virtual_time();
    let contents = fill(&mut rig);
    let theirs = rig.roots();
    let old_keys = |rig: &Rig, roots: &Roots| -> Vec<Key> {
        let rows = rows(rig, b'K').into_iter().filter_map(|(key, value)| {
            let RowKey::FileKey(number) = key else { panic!("{key:?}") };
            let row = hushfs::format::rows::FileKeyRow::decode(&value).expect("a key's row");
            roots.unwrap_file_key(row.epoch, number, &row.wrapped).ok()
        });
        rows.collect()
    };
    rig.volume().rotate(None).expect("rotated");
    reseal(&rig);
    let (keys, ours) = (old_keys(&rig, &theirs), old_keys(&rig, &rig.roots()));
    assert!(!keys.is_empty() && ours.len() > keys.len());
    for (chunk, row) in live_chunks(&rig) {
        let name = rig.volume().drive().pending().view().pack(row.pack).expect("rows").expect("a pack").name;
        let pack = rig.memory.peek(&ObjectName::Pack(name)).expect("the pack");
        let header: &[u8; CHUNK_HEADER_LEN] = pack[row.offset as usize..].first_chunk().expect("a header");
        let opens = |key: &&Key| ChunkOpener::new(key, theirs.volume(), &row.id, header).is_ok();
        assert!(!keys.iter().any(|key| opens(&key)), "chunk {chunk} opens under an old key");
        // The test itself can fail.
        assert_eq!(ours.iter().filter(opens).count(), 1, "chunk {chunk}");
    }
    all_is_right(&rig.files(), &contents);
}

/// Whoever can write to the store and had the key of a file can make other content of it, which is their past. It
/// must not become part of what they cannot write any more.
#[test]
fn content_that_a_holder_of_the_old_key_made_up_is_not_sealed_anew() {
    let mut rig = Rig::in_virtual_time();
    let files = rig.try_mount_by_words().expect("mounted");
    files.save("file", &noise(1, 50_000)).expect("saved");
    files.save("other", &noise(2, 50_000)).expect("saved");
    rig.flush();
    let theirs = rig.roots();
    let (chunk, row) = live_chunks(&rig)
        .into_iter()
        .find(|(_, row)| row.id == hushfs::crypto::chunk_id(&noise(1, 50_000)))
        .expect("its chunk");
    let view = rig.volume().drive().pending().view();
    let wrapped = view.file_key(row.key).expect("rows").expect("a key");
    let key = theirs.unwrap_file_key(wrapped.epoch, row.key, &wrapped.wrapped).expect("their key");
    let name = ObjectName::Pack(view.pack(row.pack).expect("rows").expect("a pack").name);
    let forged = seal_chunk(&key, theirs.volume(), &row.id, &noise(66, 50_000), &hushfs::base::SystemEntropy);
    assert_eq!(forged.frames, row.frames);
    let mut pack = rig.memory.peek(&name).expect("the pack").to_vec();
    pack[row.offset as usize..][..forged.bytes.len()].copy_from_slice(&forged.bytes);
    rig.memory.plant(name, pack.into());
    rig.close();

    rig.become_new_machine("new");
    let files = rig.try_mount_by_words().expect("mounted");
    // What the check is for.
    assert_eq!(files.read("file").expect("read"), noise(66, 50_000));
    let epoch = rig.volume().rotate(None).expect("rotated");
    rig.volume().reseal(None).expect("begun");
    assert!(matches!(wait(&rig), Err(ResealError::Unreadable(1))));
    assert_eq!(live_chunks(&rig)[&chunk], row);
    let old = rig.status().old_keys;
    assert_eq!((old.left.expect("counted").chunks, old.unreadable, old.resealing), (1, 1, false));
    assert!(live_chunks(&rig).values().filter(|row| epoch_of(&rig, row.key) == epoch).count() == 1, "the other file");
}

#[test]
fn files_that_are_written_removed_and_made_meanwhile_are_right() {
    let mut rig = Rig::new();
    let mut contents = Contents::new();
    let files = rig.try_mount_by_words().expect("mounted");
    for number in 0..40u64 {
        let content = noise(number, 60_000);
        files.write(&format!("file{number:02}"), &content).expect("written");
        contents.insert(format!("file{number:02}"), content);
    }
    rig.flush();
    let epoch = rig.volume().rotate(None).expect("rotated");
    rig.volume().reseal(Some(2 << 20)).expect("begun");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (rig, done) = (&rig, &done);
        let writer = scope.spawn(move || {
            let mut round = 0u64;
            while !done.load(Ordering::SeqCst) || round < 40 {
                round += 1;
                let at = round;
                let name = |offset: u64| format!("file{:02}", (at + offset) % 40);
                // A part, all of it, a shorter one; gone and made anew; another's content by reference.
                let part = noise(1000 + round, 700);
                if contents.contains_key(&name(0)) && contents[&name(0)].len() > 10_000 {
                    write_at(rig, &name(0), 9_000, &part);
                    contents.get_mut(&name(0)).expect("a file")[9_000..9_700].copy_from_slice(&part);
                }
                match round % 4 {
                    0 => {
                        files.write(&name(7), &noise(round, 30_000)).expect("written");
                        contents.insert(name(7), noise(round, 30_000));
                    }
                    1 => {
                        let ino = files.find(&name(11)).expect("a file");
                        rig.volume()
                            .drive()
                            .setattr(ino, &SetAttr { size: Some(20_000), ..SetAttr::default() })
                            .expect("cut");
                        contents.get_mut(&name(11)).expect("a file").resize(20_000, 0);
                    }
                    2 => {
                        files.remove(&name(13)).expect("removed");
                        files.write(&name(13), &noise(round, 25_000)).expect("written");
                        contents.insert(name(13), noise(round, 25_000));
                    }
                    _ => {
                        let (from, to) = (open(rig, &name(17)), open(rig, &name(19)));
                        let place = |(ino, handle)| Place { ino, handle, offset: 0 };
                        let len = contents[&name(17)].len();
                        rig.volume().drive().copy_range(place(from), place(to), len as u64, Kill::No).expect("copied");
                        for (ino, handle) in [from, to] {
                            rig.volume().drive().release(ino, handle);
                        }
                        let source = contents[&name(17)].clone();
                        let target = contents.get_mut(&name(19)).expect("a file");
                        target.resize(target.len().max(len), 0);
                        target[..len].copy_from_slice(&source);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            contents
        });
        let waited = wait(rig);
        done.store(true, Ordering::SeqCst);
        let contents = writer.join().expect("the writer");
        waited.unwrap_or_else(|error| panic!("{error}"));
        all_is_right(&rig.files(), &contents);
        nothing_is_old(rig, epoch);
        rig.flush();
    });
}

#[test]
fn an_open_file_whose_name_is_gone_is_left_alone_and_one_that_is_written_goes_on() {
    let mut rig = Rig::in_virtual_time();
    let files = rig.try_mount_by_words().expect("mounted");
    files.save("gone", &noise(1, 200_000)).expect("saved");
    files.save("open", &noise(2, 200_000)).expect("saved");
    files.save("emptied", &noise(3, 200_000)).expect("saved");
    rig.flush();
    let (gone, opened, emptied) = (open(&rig, "gone"), open(&rig, "open"), open(&rig, "emptied"));
    let drive = rig.volume().drive().clone();
    drive.lookup(InodeId::ROOT, &Name::parse("gone").expect("a name")).expect("looked up");
    files.remove("gone").expect("removed");
    let epoch = rig.volume().rotate(None).expect("rotated");
    reseal(&rig);
    assert_eq!(read_by(&rig, gone, 200_000), noise(1, 200_000));
    assert_eq!(read_by(&rig, opened, 200_000), noise(2, 200_000));
    // Their nodes knew the old keys.
    assert!(matches!(drive.write(opened.0, opened.1, 100, b"after", Kill::No), Ok(WriteReply::Done(5))));
    drive.setattr(emptied.0, &SetAttr { size: Some(0), ..SetAttr::default() }).expect("cut");
    drive.fsync(opened.0, opened.1, false).expect("synced");
    rig.flush();
    nothing_is_old(&rig, epoch);
    assert_eq!(read_by(&rig, opened, 200_000)[100..105], *b"after");
    assert_eq!(read_by(&rig, gone, 200_000), noise(1, 200_000));
    for (ino, handle) in [gone, opened, emptied] {
        drive.release(ino, handle);
    }
    drive.forget(gone.0, 1);
    drop(drive);
    rig.close();
    rig.become_new_machine("new");
    let files = rig.try_mount_by_words().expect("mounted");
    assert_eq!(files.names("").expect("the names"), ["emptied", "open"]);
    assert_eq!(files.read("open").expect("read")[..105], [&noise(2, 200_000)[..100], b"after"].concat());
}

#[test]
fn killed_in_the_middle_it_goes_on_by_itself_and_does_nothing_twice() {
    let mut rig = Rig::new();
    let mut contents = Contents::new();
    let files = rig.try_mount_by_words().expect("mounted");
    for number in 0..12u64 {
        contents.insert(format!("file{number:02}"), noise(number, MIB));
        files.write(&format!("file{number:02}"), &noise(number, MIB)).expect("written");
    }
    rig.flush();
    let epoch = rig.volume().rotate(None).expect("rotated");
    let before = packs(&rig);
    let left = |rig: &Rig| rig.status().old_keys.left.map_or(u64::MAX, |left| left.chunks);
    eventually("it is counted", || (1..u64::MAX).contains(&left(&rig)));
    // At least twelve: where a cut came in between, a file has two.
    let whole = left(&rig);
    // The first chunk at once, and the second in two weeks.
    rig.volume().reseal(Some(1)).expect("begun");
    eventually("some of it is done", || left(&rig) < whole);
    eventually("some of it is in the store", || packs(&rig).len() > before.len());
    rig.kill();

    rig.try_mount_by_words().expect("mounted");
    let status = rig.status().old_keys;
    assert!(status.resealing, "{status:?}");
    eventually("it is counted", || left(&rig) < whole);
    assert!(left(&rig) > 0, "nothing was left to go on with");
    // Faster from here: the new rate counts at once.
    reseal(&rig);
    nothing_is_old(&rig, epoch);
    all_is_right(&rig.files(), &contents);
    let new: BTreeSet<_> = packs(&rig).difference(&before).copied().collect();
    // One that was staged and not journaled may have been lost and done again.
    assert!(stored(&rig, &new) < 18 * MIB, "{} bytes were sealed", stored(&rig, &new));
    rig.kill();
    rig.try_mount_by_words().expect("mounted");
    assert!(!rig.status().old_keys.resealing, "it came to its end");
    assert_eq!(counted(&rig), OldData::default());
    rig.close();
    rig.become_new_machine("new");
    all_is_right(&rig.try_mount_by_words().expect("mounted"), &contents);
}

#[test]
fn a_store_that_fails_delays_it_and_says_why() {
    let mut rig = Rig::in_virtual_time();
    let files = rig.try_mount_by_words().expect("mounted");
    files.save("file", &noise(1, 2 * MIB)).expect("saved");
    rig.flush();
    rig.close();
    rig.become_new_machine("new");
    rig.try_mount_by_words().expect("mounted");
    let epoch = rig.volume().rotate(None).expect("rotated");
    rig.faults.add(Rule::on(Op::Get, Fault::Fail(StoreErrorKind::Denied)));
    rig.volume().reseal(None).expect("begun");
    eventually("it says why", || rig.status().old_keys.trouble.is_some());
    assert!(rig.status().old_keys.resealing);
    rig.faults.clear();
    wait(&rig).expect("done");
    assert_eq!(rig.status().old_keys.trouble, None);
    nothing_is_old(&rig, epoch);
    assert_eq!(rig.files().read("file").expect("read"), noise(1, 2 * MIB));
}

#[test]
fn a_rate_is_kept_to() {
    let mut rig = Rig::new();
    let files = rig.try_mount_by_words().expect("mounted");
    files.save("file", &noise(1, 4 * MIB)).expect("saved");
    rig.flush();
    rig.volume().rotate(None).expect("rotated");
    let start = Instant::now();
    rig.volume().reseal(Some(2 << 20)).expect("begun");
    wait(&rig).expect("done");
    // The last of them needs no wait behind it.
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
}

#[test]
fn a_rotation_in_between_is_followed() {
    let mut rig = Rig::new();
    let files = rig.try_mount_by_words().expect("mounted");
    for number in 0..6u64 {
        files.write(&format!("file{number}"), &noise(number, MIB)).expect("written");
    }
    rig.flush();
    rig.volume().rotate(None).expect("rotated");
    rig.volume().reseal(Some(3 << 20)).expect("begun");
    eventually("some of it is done", || rig.status().old_keys.left.is_some_and(|left| left.chunks < 5));
    let epoch = rig.volume().rotate(None).expect("rotated");
    reseal(&rig);
    nothing_is_old(&rig, epoch);
    for number in 0..6u64 {
        assert!(rig.files().read(&format!("file{number}")).expect("read") == noise(number, MIB));
    }
}
