use super::super::staging::Room;
use super::super::testing::{roots, staging_on};
use super::*;
use crate::base::{ChunkNo, SystemEntropy};
use crate::disk::RealDisk;
use crate::format::pack::PackEntry;
use crate::store::{Fault, FaultStore, Faults, MemoryStore, Op, Rule, When};

struct Bench {
    _dir: tempfile::TempDir,
    staging: Arc<Staging>,
    store: MemoryStore,
    faults: Faults,
    uploader: Uploader,
}

/// The first create meets the fault.
fn bench(fault: Option<Fault>) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let staging = Arc::new(staging_on(Arc::new(RealDisk), dir.path(), 1, u64::MAX));
    let store = MemoryStore::new();
    let (faulty, faults) = FaultStore::new(Arc::new(store.clone()));
    if let Some(fault) = fault {
        faults.add(Rule::on(Op::Create, fault).when(When::First(1)));
    }
    let runtime = Handle::current();
    let uploader = Uploader::start(&runtime, staging.clone(), Arc::new(faulty), roots(), Arc::new(SystemEntropy));
    Bench { _dir: dir, staging, store, faults, uploader }
}

fn offline() -> Option<Fault> {
    Some(Fault::Fail(StoreErrorKind::Unreachable))
}

impl Bench {
    fn add_pack(&self, fill: u8) -> PackName {
        let place = self.staging.append(&[fill; 10_000], ChunkNo(fill.into()), Room::Commit).unwrap();
        self.staging.rotate();
        place.name
    }

    async fn wait(&self, packs: &[PackName]) -> Result<(), tokio::time::error::Elapsed> {
        tokio::time::timeout(Duration::from_secs(20), self.uploader.wait_uploaded(packs))
            .await
            .map(|done| done.expect("uploaded"))
    }

    /// The error of the upload that fails now.
    async fn failure(&self) -> ContentError {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if let Some(failing) = self.uploader.health().failing {
                return failing.error;
            }
        }
    }

    async fn failed_as_taken(&self, name: PackName) {
        while !matches!(self.failure().await, ContentError::PackTaken { pack } if pack == name) {}
    }

    fn creates(&self) -> usize {
        self.faults.requests().iter().filter(|(op, _)| *op == Op::Create).count()
    }

    fn is_stored_as_staged(&self, name: PackName) -> bool {
        self.store.peek(&ObjectName::Pack(name)) == self.staging.object(name).unwrap()
    }
}

#[tokio::test]
async fn closed_packs_reach_the_store_byte_for_byte() {
    let bench = bench(None);
    let packs: Vec<_> = (1..=9).map(|fill| bench.add_pack(fill)).collect();
    bench.wait(&packs).await.unwrap();
    assert!(packs.iter().all(|name| bench.is_stored_as_staged(*name)));
    assert_eq!(bench.store.names().len(), 9);
    assert_eq!(bench.uploader.pending().packs, 0);
}

#[tokio::test]
async fn a_failed_upload_is_shown_and_tried_again() {
    let bench = bench(offline());
    let pack = bench.add_pack(1);
    bench.failure().await;
    assert_eq!(bench.uploader.pending().packs, 1);
    bench.wait(&[pack]).await.unwrap();
    assert!(bench.uploader.health().failing.is_none());
    assert!(bench.is_stored_as_staged(pack));
}

#[tokio::test]
async fn a_lost_reply_is_not_answered_by_sending_it_again() {
    for kind in [StoreErrorKind::Unknown, StoreErrorKind::Timeout] {
        let bench = bench(Some(Fault::ApplyThenFail(kind)));
        let pack = bench.add_pack(1);
        bench.wait(&[pack]).await.unwrap();
        assert!(bench.is_stored_as_staged(pack));
        assert_eq!(bench.creates(), 1);
    }
}

#[tokio::test]
async fn a_request_that_was_lost_on_its_way_is_sent_again() {
    let bench = bench(Some(Fault::Fail(StoreErrorKind::Unknown)));
    let pack = bench.add_pack(1);
    bench.wait(&[pack]).await.unwrap();
    assert!(bench.is_stored_as_staged(pack));
    assert_eq!(bench.creates(), 2);
}

#[tokio::test]
async fn an_object_of_ours_that_is_there_already_counts() {
    let bench = bench(offline());
    let pack = bench.add_pack(1);
    bench.failure().await;
    bench.store.plant(ObjectName::Pack(pack), bench.staging.object(pack).unwrap().unwrap());
    bench.wait(&[pack]).await.unwrap();
}

#[tokio::test]
async fn the_same_chunks_with_another_footer_count_and_others_are_a_twins() {
    let bench = bench(offline());
    let pack = bench.add_pack(1);
    bench.failure().await;
    let chunks = bench.staging.chunks(pack);
    let with_footer = |chunks: &[PackEntry]| {
        let mut object = bench.staging.object(pack).unwrap().unwrap()[..10_000].to_vec();
        let footer = pack::footer(chunks, 10_000, pack, &roots(), &SystemEntropy);
        object.extend_from_slice(&footer);
        Bytes::from(object)
    };
    bench.store.plant(ObjectName::Pack(pack), with_footer(&chunks));
    bench.wait(&[pack]).await.unwrap();

    // Fewer of them, and other content under the same numbers, lengths and footer.
    let fewer = |object: &mut Vec<u8>, footer: &dyn Fn(&[PackEntry]) -> Vec<u8>| {
        object.truncate(10_000);
        object.extend(footer(&[]));
    };
    let other = |object: &mut Vec<u8>, _: &dyn Fn(&[PackEntry]) -> Vec<u8>| object[..65].fill(77);
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>, &dyn Fn(&[PackEntry]) -> Vec<u8>);
    for change in [&fewer as Change, &other] {
        let bench = self::bench(offline());
        let pack = bench.add_pack(1);
        bench.failure().await;
        let mut object = bench.staging.object(pack).unwrap().unwrap().to_vec();
        change(&mut object, &|chunks| pack::footer(chunks, 10_000, pack, &roots(), &SystemEntropy));
        bench.store.plant(ObjectName::Pack(pack), object.into());
        assert_eq!(bench.uploader.wait_uploaded(&[pack]).await, Err(pack));
        assert!(!bench.staging.is_uploaded(pack));
    }
}

#[tokio::test]
async fn another_object_under_the_name_is_never_taken_for_ours() {
    let changes: [fn(&mut Vec<u8>); 4] = [
        Vec::clear,
        |object| object.truncate(object.len() - 1),
        |object| object.push(0),
        |object| object.extend(b"x".repeat(100)),
    ];
    for change in changes {
        let bench = bench(offline());
        let pack = bench.add_pack(1);
        bench.failure().await;
        let mut object = bench.staging.object(pack).unwrap().unwrap().to_vec();
        change(&mut object);
        bench.store.plant(ObjectName::Pack(pack), object.into());
        bench.failed_as_taken(pack).await;
        assert!(!bench.staging.is_uploaded(pack));
    }
}
