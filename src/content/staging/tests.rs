mod crash;
mod faults;

use std::collections::BTreeMap;
use std::path::Path;

use super::super::testing::{listed, name, staging_on};
use super::*;
use crate::base::KIB;
use crate::disk::RealDisk;

fn staging(dir: &Path) -> Staging {
    staging_on(Arc::new(RealDisk), dir, 1, u64::MAX)
}

fn soon() -> Room {
    Room::WaitUntil(Instant::now() + Duration::from_millis(10))
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed * 31 + at / 7) as u8).collect()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn remove(_: PackName, path: &Path, _: u64) {
    std::fs::remove_file(path).unwrap();
}

#[test]
fn chunks_are_readable_at_once_and_the_object_is_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging(dir.path());
    let mut places = Vec::new();
    for nth in 0..10 {
        let sealed = content(nth, 1000 + nth as usize);
        places.push((staging.append(&sealed, ChunkNo(nth), soon()).unwrap(), sealed));
    }
    let read = |place: &Place, len| {
        staging.read(place.name, ByteRange::at(place.offset.into(), len).unwrap()).unwrap().unwrap()
    };
    for (place, sealed) in &places {
        assert_eq!(&read(place, sealed.len() as u64), sealed);
    }
    assert_eq!(staging.take_closed(), None);
    assert_eq!(staging.rotate(), [name(1)]);
    assert_eq!(staging.take_closed(), Some(name(1)));
    let object = staging.object(name(1)).unwrap().unwrap();
    let body: Vec<u8> = places.iter().flat_map(|(_, sealed)| sealed.clone()).collect();
    assert_eq!(object[..body.len()], body);
    let entry = |(nth, (place, sealed)): (usize, &(Place, Vec<u8>))| PackEntry {
        offset: place.offset,
        len: sealed.len() as u32,
        chunk: ChunkNo(nth as u64),
    };
    let entries: Vec<_> = places.iter().enumerate().map(entry).collect();
    assert_eq!(listed(&object, name(1)), entries);
    assert_eq!(staging.chunks(name(1)), entries);
    assert_eq!(staging.object(name(1)).unwrap().unwrap(), object);
    assert_eq!(std::fs::read(dir.path().join(&files(dir.path())[0])).unwrap(), object);
}

#[test]
fn a_pack_stays_until_it_is_uploaded_and_committed() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging(dir.path());
    staging.append(&content(1, 100), ChunkNo(1), soon()).unwrap();
    staging.rotate();
    let object = staging.object(name(1)).unwrap().unwrap();
    assert_eq!(staging.pending().packs, 1);
    staging.committed(&[name(1)], remove);
    assert_eq!(staging.rotate(), [name(1)], "it is not in the store");
    assert!(!staging.is_uploaded(name(1)));
    staging.uploaded(name(1));
    assert!(staging.is_uploaded(name(1)));
    assert_eq!(staging.pending(), Pending::default());
    assert!(staging.read(name(1), ByteRange::new(0, 100)).unwrap().is_some());
    let adopted = Mutex::new(Vec::new());
    staging.committed(&[name(1)], |name, path, len| {
        assert_eq!(std::fs::read(path).unwrap(), object);
        // Readers find it here until the cache has it.
        assert!(staging.read(name, ByteRange::new(0, 100)).unwrap().is_some());
        adopted.lock().push((name, len));
        remove(name, path, len);
    });
    assert_eq!(*adopted.lock(), [(name(1), object.len() as u64)]);
    assert!(staging.read(name(1), ByteRange::new(0, 100)).unwrap().is_none());
    assert_eq!(staging.bytes(), 0);
}

#[test]
fn packs_rotate_at_their_target_and_are_queued_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging(dir.path());
    let sealed = content(1, 1 << 20);
    for nth in 0..40 {
        let place = staging.append(&sealed, ChunkNo(nth), soon()).unwrap();
        assert_eq!((place.name.number, place.offset), (1 + nth / 16, (nth % 16) as u32 * (1 << 20)));
    }
    assert_eq!((staging.take_closed(), staging.take_closed()), (Some(name(1)), Some(name(2))));
    assert_eq!(staging.take_closed(), None);
}

#[test]
fn many_threads_append_and_sync_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging(dir.path());
    let places = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (staging, places) = (&staging, &places);
            scope.spawn(move || {
                for nth in 0..50 {
                    let chunk = thread * 1000 + nth;
                    let sealed = content(chunk, 100 * KIB as usize + chunk as usize);
                    let place = staging.append(&sealed, ChunkNo(chunk), Room::Commit).unwrap();
                    if nth % 10 == 0 {
                        staging.sync().unwrap();
                    }
                    places.lock().insert((place.name, place.offset), chunk);
                }
            });
        }
    });
    let places = places.into_inner();
    assert_eq!(places.len(), 400);
    for ((name, offset), chunk) in &places {
        let expected = content(*chunk, 100 * KIB as usize + *chunk as usize);
        let range = ByteRange::at((*offset).into(), expected.len() as u64).unwrap();
        assert_eq!(staging.read(*name, range).unwrap().unwrap(), expected);
    }
    let packs = staging.rotate();
    let queued: Vec<_> = std::iter::from_fn(|| staging.take_closed()).collect();
    assert_eq!(queued, packs);
    let count = |name: &PackName| listed(&staging.object(*name).unwrap().unwrap(), *name).len();
    assert_eq!(packs.iter().map(count).sum::<usize>(), 400);
    staging.sync().unwrap();
    assert!(staging.state.lock().unsynced.is_empty());
}

#[test]
fn past_the_limit_writers_wait_for_a_commit_and_commits_do_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging_on(Arc::new(RealDisk), dir.path(), 1, 1000);
    staging.append(&content(1, 900), ChunkNo(1), soon()).unwrap();
    let error = staging.append(&content(2, 200), ChunkNo(2), soon()).unwrap_err();
    assert!(matches!(error, ContentError::StagingFull { staged: 900, limit: 1000 }));
    assert_eq!(staging.take_closed(), Some(name(1)), "a full staging area must be uploadable");
    staging.append(&content(3, 200), ChunkNo(3), Room::Commit).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let minute = Room::WaitUntil(Instant::now() + Duration::from_secs(60));
            staging.append(&content(4, 900), ChunkNo(4), minute).map(drop)
        });
        // As a commit does: whatever is closed by now is uploaded, until the writer has got its room.
        while !waiting.is_finished() {
            for name in staging.rotate() {
                staging.object(name).unwrap();
                staging.uploaded(name);
                staging.committed(&[name], remove);
            }
        }
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_chunk_larger_than_the_limit_passes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging_on(Arc::new(RealDisk), dir.path(), 1, 1000);
    staging.append(&content(1, 2000), ChunkNo(1), soon()).unwrap();
}

#[test]
fn after_a_crash_what_is_referred_to_is_closed_and_the_rest_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let chunk = |number: u64, offset, len| PackEntry { offset, len, chunk: ChunkNo(number) };
    {
        let staging = staging(dir.path());
        for nth in 0..4 {
            staging.append(&content(nth, 1000), ChunkNo(nth), soon()).unwrap();
        }
        staging.rotate();
        staging.append(&content(9, 500), ChunkNo(9), soon()).unwrap();
        staging.sync().unwrap();
    }
    std::fs::write(dir.path().join("notes.txt"), "of somebody else").unwrap();
    let staging = staging_on(Arc::new(RealDisk), dir.path(), 10, u64::MAX);
    let wanted = [
        Referenced { pack: PackNo(1), name: name(1), chunks: vec![chunk(2, 2000, 1000), chunk(0, 0, 1000)] },
        Referenced { pack: PackNo(3), name: name(3), chunks: vec![chunk(30, 0, 10)] },
        Referenced { pack: PackNo(4), name: name(4), chunks: vec![] },
    ];
    let recovered = staging.recover(&wanted, Unreferenced::Remove).unwrap();
    assert_eq!(recovered, Recovered { packs: vec![name(1)], missing: vec![name(3)], lost: vec![] });
    assert_eq!(files(dir.path()), [format!("{}-1.open", name(1).incarnation), "notes.txt".into()]);
    assert_eq!(staging.bytes(), 3000);
    assert_eq!(staging.read(name(1), ByteRange::new(2000, 3000)).unwrap().unwrap(), content(2, 1000));
    assert_eq!(staging.append(&content(1, 10), ChunkNo(11), soon()).unwrap().name, name(10));
    assert_eq!(staging.take_closed(), Some(name(1)));
    let object = staging.object(name(1)).unwrap().unwrap();
    assert_eq!(listed(&object, name(1)), [chunk(0, 0, 1000), chunk(2, 2000, 1000)]);
}

#[test]
fn a_pack_that_may_have_been_uploaded_keeps_its_bytes_over_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let object = {
        let staging = staging(dir.path());
        staging.append(&content(1, 1000), ChunkNo(1), soon()).unwrap();
        staging.append(&content(2, 1000), ChunkNo(2), soon()).unwrap();
        staging.rotate();
        staging.object(name(1)).unwrap().unwrap()
    };
    let staging = staging_on(Arc::new(RealDisk), dir.path(), 10, u64::MAX);
    let chunks = vec![PackEntry { offset: 0, len: 1000, chunk: ChunkNo(1) }];
    staging.recover(&[Referenced { pack: PackNo(1), name: name(1), chunks }], Unreferenced::Remove).unwrap();
    assert_eq!(staging.object(name(1)).unwrap().unwrap(), object);
}

#[test]
fn a_chunk_behind_the_files_end_is_reported_lost() {
    let dir = tempfile::tempdir().unwrap();
    {
        let staging = staging(dir.path());
        staging.append(&content(1, 1000), ChunkNo(1), soon()).unwrap();
    }
    let staging = staging_on(Arc::new(RealDisk), dir.path(), 10, u64::MAX);
    let chunks = vec![
        PackEntry { offset: 0, len: 1000, chunk: ChunkNo(1) },
        PackEntry { offset: 1000, len: 1, chunk: ChunkNo(2) },
    ];
    let recovered =
        staging.recover(&[Referenced { pack: PackNo(1), name: name(1), chunks }], Unreferenced::Remove).unwrap();
    assert_eq!(recovered, Recovered { packs: vec![name(1)], missing: vec![], lost: vec![ChunkNo(2)] });
}

#[test]
fn a_cut_names_what_was_closed_since_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging(dir.path());
    staging.append(&content(1, 100), ChunkNo(1), soon()).unwrap();
    assert_eq!(staging.rotate(), [name(1)]);
    staging.append(&content(2, 100), ChunkNo(2), soon()).unwrap();
    assert_eq!(staging.rotate(), [name(1), name(2)], "no cut came of the first");
    staging.in_a_cut(&[name(1), name(2)]);
    assert_eq!(staging.rotate(), []);
    staging.append(&content(3, 100), ChunkNo(3), soon()).unwrap();
    assert_eq!(staging.rotate(), [name(3)]);
}

/// An outage may be long, and each cut has its pack.
#[test]
fn packs_that_wait_take_no_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        files
            .filter_map(|file| std::fs::read_link(file.unwrap().path()).ok())
            .filter(|to| to.starts_with(dir.path()))
            .count()
    };
    let mut places = Vec::new();
    let referenced = {
        let staging = staging(dir.path());
        for nth in 0..100 {
            places.push(staging.append(&content(nth, 500), ChunkNo(nth), soon()).unwrap());
            // Synced before it is closed, or after.
            if nth % 2 == 0 {
                staging.sync().unwrap();
            }
            staging.rotate();
            staging.sync().unwrap();
            assert_eq!(open(), 0);
        }
        let entry = |chunk: u64| PackEntry { offset: 0, len: 500, chunk: ChunkNo(chunk) };
        let all = (0..).zip(&places);
        all.map(|(nth, place)| Referenced { pack: place.pack, name: place.name, chunks: vec![entry(nth)] })
            .collect::<Vec<_>>()
    };
    let staging = staging_on(Arc::new(RealDisk), dir.path(), 1000, u64::MAX);
    staging.recover(&referenced, Unreferenced::Remove).unwrap();
    assert_eq!(open(), 0);
    for (nth, place) in (0..).zip(&places) {
        let read = || staging.read(place.name, ByteRange::new(0, 500)).unwrap();
        assert_eq!(read().unwrap(), content(nth, 500));
        let object = staging.object(place.name).unwrap().unwrap();
        assert_eq!((&object[..500], open()), (&content(nth, 500)[..], 0));
        assert_eq!(read().unwrap(), content(nth, 500));
        staging.uploaded(place.name);
        staging.committed(&[place.name], remove);
        assert_eq!(read(), None);
    }
}

#[test]
fn a_staged_file_that_somebody_removed_is_an_error_and_one_that_is_leaving_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging(dir.path());
    for nth in 1..=2 {
        staging.append(&content(nth, 500), ChunkNo(nth), soon()).unwrap();
        staging.rotate();
        staging.object(name(nth)).unwrap();
    }
    let read = |nth| staging.read(name(nth), ByteRange::new(0, 500));
    staging.uploaded(name(1));
    staging.committed(&[name(1)], |pack, path, _| {
        remove(pack, path, 0);
        assert_eq!(read(1).unwrap(), None, "the cache has it");
    });
    std::fs::remove_file(staging.folder.sealed_path(name(2))).unwrap();
    assert!(matches!(read(2), Err(ContentError::Staging { pack, .. }) if pack == name(2)));
    assert!(matches!(staging.object(name(2)), Err(ContentError::Staging { pack, .. }) if pack == name(2)));
}
