//! What every store must do, run against each of them through the same decorators as in the daemon.
//!
//! S3 and Azure need servers: `scripts/test.sh` starts them and sets HUSHFS_TEST_S3 and HUSHFS_TEST_AZURE to their
//! endpoints.

#[path = "support/gcs.rs"]
mod gcs;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use hushfs::base::{ByteRange, Entropy, Epoch, Incarnation, MIB, PackName, SegmentId, Seq, SystemEntropy};
use hushfs::format::ObjectName;
use hushfs::store::{
    Created, Creates, Environment, MemoryStore, Patience, Prefix, Store, StoreErrorKind, StoreOptions, StoreUrl,
    connect, connect_with, decorate, race_creates,
};

const RACES: u64 = 20;
const RACERS: u8 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_conforms() {
    conform(decorate(Arc::new(MemoryStore::new()), Patience::default()).store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn local_folder_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::parse(dir.path().to_str().unwrap()).unwrap();
    conform(connect(&url, &StoreOptions::default()).unwrap().store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_conforms() {
    let run = Incarnation((&SystemEntropy as &dyn Entropy).array());
    // With and without characters that a URL escapes; the folder is new for each run.
    for folder in ["plain", "with space/and+plus"] {
        conform(s3(&format!("s3://hushfs/{run}/{folder}"), "testtest")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn azure_conforms() {
    let run = Incarnation((&SystemEntropy as &dyn Entropy).array());
    for folder in ["plain", "with space/and+plus"] {
        conform(azure(&format!("az://hushfs/{run}/{folder}"))).await;
    }
}

/// By the protocol that `object_store` speaks; Google's own server was not asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn google_conforms() {
    let endpoint = gcs::serve().await;
    for folder in ["plain", "with space/and+plus"] {
        conform(google(&endpoint, &format!("gs://{}/{folder}", gcs::BUCKET))).await;
    }
    let store = google(&endpoint, "gs://no-such-bucket");
    assert_eq!(store.get(&ObjectName::Volume).await.unwrap_err().kind, StoreErrorKind::NoBucket);
    assert_eq!(store.list(Prefix::Everything).await.unwrap_err().kind, StoreErrorKind::NoBucket);
    let created = store.create(&ObjectName::Volume, Bytes::from_static(b"x")).await;
    assert_eq!(created.unwrap_err().kind, StoreErrorKind::NoBucket);
}

#[tokio::test]
async fn a_container_that_is_not_there_is_told_apart() {
    let store = azure("az://no-such-container");
    assert_eq!(store.get(&ObjectName::Volume).await.unwrap_err().kind, StoreErrorKind::NoBucket);
    assert_eq!(store.list(Prefix::Everything).await.unwrap_err().kind, StoreErrorKind::NoBucket);
    let created = store.create(&ObjectName::Volume, Bytes::from_static(b"x")).await;
    assert_eq!(created.unwrap_err().kind, StoreErrorKind::NoBucket);
}

#[tokio::test]
async fn s3_errors_are_told_apart() {
    for (store, kind) in [
        (s3("s3://no-such-bucket-here", "testtest"), StoreErrorKind::NoBucket),
        (s3("s3://hushfs", "wrong-key"), StoreErrorKind::Denied),
    ] {
        let name = ObjectName::Volume;
        assert_eq!(store.get(&name).await.unwrap_err().kind, kind);
        assert_eq!(store.list(Prefix::Everything).await.unwrap_err().kind, kind);
        assert_eq!(store.create(&name, Bytes::from_static(b"x")).await.unwrap_err().kind, kind);
    }
}

/// With the account that every emulator has.
fn azure(url: &str) -> Arc<dyn Store> {
    let Ok(endpoint) = std::env::var("HUSHFS_TEST_AZURE") else {
        panic!("HUSHFS_TEST_AZURE is not set: this test needs Azurite. Run scripts/test.sh, which starts it.");
    };
    let mut options = StoreOptions::default();
    options.set("endpoint-url", &format!("{endpoint}/devstoreaccount1")).unwrap();
    let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let keys =
        Environment::from([("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"), ("AZURE_STORAGE_ACCOUNT_KEY", key)]);
    connect_with(&StoreUrl::parse(url).unwrap(), &options, &keys).unwrap().store
}

fn google(endpoint: &str, url: &str) -> Arc<dyn Store> {
    let mut options = StoreOptions::default();
    options.set("endpoint-url", endpoint).unwrap();
    // A service account's key, by which no token is asked for.
    let key = r#"{"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true}"#;
    let keys = Environment::from([("GOOGLE_SERVICE_ACCOUNT_KEY", key)]);
    connect_with(&StoreUrl::parse(url).unwrap(), &options, &keys).unwrap().store
}

/// The server that the environment names, or a failure that says how to run this.
fn s3(url: &str, secret: &str) -> Arc<dyn Store> {
    let Ok(endpoint) = std::env::var("HUSHFS_TEST_S3") else {
        panic!("HUSHFS_TEST_S3 is not set: this test needs an S3 server. Run scripts/test.sh, which starts one.");
    };
    let mut options = StoreOptions::default();
    options.set("endpoint-url", &endpoint).unwrap();
    options.set("region", "us-east-1").unwrap();
    let keys = Environment::from([("AWS_ACCESS_KEY_ID", "testtest"), ("AWS_SECRET_ACCESS_KEY", secret)]);
    connect_with(&StoreUrl::parse(url).unwrap(), &options, &keys).unwrap().store
}

async fn conform(store: Arc<dyn Store>) {
    objects_are_created_once_and_read_back(&*store).await;
    ranges_end_where_the_object_ends(&*store).await;
    listings_hold_the_names_of_their_prefix(&*store).await;
    deleting_is_idempotent_and_frees_the_name(&*store).await;
    big_objects_are_read_whole(&*store).await;
    one_of_many_racing_creates_wins(&store).await;
    assert_eq!(race_creates(&*store, &SystemEntropy).await.unwrap(), Creates::Exclusive);
    assert_eq!(store.list(Prefix::Everything).await.unwrap(), [], "everything was cleaned up");
}

fn log(seq: u64) -> ObjectName {
    ObjectName::Log(Seq(seq))
}

fn pattern(len: u64) -> Bytes {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

async fn objects_are_created_once_and_read_back(store: &dyn Store) {
    assert_eq!(store.get(&log(1)).await.unwrap(), None);
    assert_eq!(store.size(&log(1)).await.unwrap(), None);
    assert_eq!(store.get_range(&log(1), ByteRange::new(0, 10)).await.unwrap(), None);
    assert_eq!(store.create(&log(1), Bytes::from_static(b"first")).await.unwrap(), Created::New);
    assert_eq!(store.create(&log(1), Bytes::from_static(b"second, longer")).await.unwrap(), Created::Exists);
    assert_eq!(store.create(&log(1), Bytes::from_static(b"first")).await.unwrap(), Created::Exists);
    assert_eq!(store.get(&log(1)).await.unwrap().unwrap(), "first");
    assert_eq!(store.size(&log(1)).await.unwrap(), Some(5));
    store.delete(&log(1)).await.unwrap();
}

async fn ranges_end_where_the_object_ends(store: &dyn Store) {
    let bytes = pattern(10_000);
    store.create(&log(1), bytes.clone()).await.unwrap();
    for (start, end) in [(0, 1), (0, 10_000), (0, 20_000), (9_999, 10_000), (9_999, 1 << 30), (4096, 8192)] {
        let range = store.get_range(&log(1), ByteRange::new(start, end)).await.unwrap().unwrap();
        assert_eq!(range, bytes[start as usize..end.min(10_000) as usize], "{start}..{end}");
    }
    for (start, end) in [(10_000, 10_001), (20_000, 30_000), (5, 5), (10_000, 10_000), (20_000, 20_000)] {
        let range = store.get_range(&log(1), ByteRange::new(start, end)).await.unwrap();
        assert_eq!(range, Some(Bytes::new()), "{start}..{end}");
    }
    assert_eq!(store.get_range(&log(2), ByteRange::new(5, 5)).await.unwrap(), None);
    store.delete(&log(1)).await.unwrap();
}

async fn listings_hold_the_names_of_their_prefix(store: &dyn Store) {
    let pack = |incarnation, number| ObjectName::Pack(PackName { incarnation: Incarnation([incarnation; 16]), number });
    let mut names = vec![
        ObjectName::Volume,
        log(2),
        log(10),
        log(9),
        ObjectName::Floor(1),
        ObjectName::Checkpoint(Seq(3)),
        ObjectName::Segment(SegmentId([5; 16])),
        pack(1, 1),
        pack(1, 2),
        pack(2, 1),
    ];
    assert_eq!(store.list(Prefix::Everything).await.unwrap(), []);
    for name in &names {
        assert_eq!(store.create(name, Bytes::from_static(b"x")).await.unwrap(), Created::New, "{name}");
    }
    names.sort();
    assert_eq!(store.list(Prefix::Everything).await.unwrap(), names);
    assert_eq!(store.list(Prefix::Log).await.unwrap(), [log(2), log(9), log(10)]);
    assert_eq!(store.list(Prefix::Packs).await.unwrap(), [pack(1, 1), pack(1, 2), pack(2, 1)]);
    assert_eq!(store.list(Prefix::PacksOf(Incarnation([1; 16]))).await.unwrap(), [pack(1, 1), pack(1, 2)]);
    assert_eq!(store.list(Prefix::SlotsOf(Epoch(0))).await.unwrap(), []);
    join_all(names.iter().map(|name| store.delete(name))).await.into_iter().for_each(|deleted| deleted.unwrap());
    assert_eq!(store.list(Prefix::Everything).await.unwrap(), []);
}

async fn deleting_is_idempotent_and_frees_the_name(store: &dyn Store) {
    store.delete(&log(1)).await.unwrap();
    store.create(&log(1), Bytes::from_static(b"one")).await.unwrap();
    store.delete(&log(1)).await.unwrap();
    store.delete(&log(1)).await.unwrap();
    assert_eq!(store.get(&log(1)).await.unwrap(), None);
    assert_eq!(store.create(&log(1), Bytes::from_static(b"two")).await.unwrap(), Created::New);
    assert_eq!(store.get(&log(1)).await.unwrap().unwrap(), "two");
    store.delete(&log(1)).await.unwrap();
}

async fn big_objects_are_read_whole(store: &dyn Store) {
    // The middle one ends exactly where a piece of a read does.
    for len in [MIB, 5 * MIB, 17 * MIB + 3] {
        let bytes = pattern(len);
        assert_eq!(store.create(&log(1), bytes.clone()).await.unwrap(), Created::New);
        assert!(store.get(&log(1)).await.unwrap().unwrap() == bytes, "{len}");
        let middle = store.get_range(&log(1), ByteRange::new(len / 2, len / 2 + 1000)).await.unwrap().unwrap();
        assert_eq!(middle, bytes[len as usize / 2..len as usize / 2 + 1000]);
        store.delete(&log(1)).await.unwrap();
    }
}

async fn one_of_many_racing_creates_wins(store: &Arc<dyn Store>) {
    for round in 0..RACES {
        let racers = (0..RACERS).map(|racer| {
            let store = store.clone();
            tokio::spawn(async move { store.create(&log(round), Bytes::from(vec![racer; 100_000])).await })
        });
        let mut winners = Vec::new();
        for (racer, outcome) in join_all(racers).await.into_iter().enumerate() {
            match outcome.unwrap() {
                Ok(Created::New) => winners.push(racer as u8),
                Ok(Created::Exists) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let found = store.get(&log(round)).await.unwrap().unwrap();
        assert!(found == vec![winners[0]; 100_000], "round {round}: the winner's bytes are there, whole");
        store.delete(&log(round)).await.unwrap();
    }
}
