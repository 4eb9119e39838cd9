//! The gateway over a real local store, spoken to through sockets.

#[path = "support/links.rs"]
mod links;
#[path = "support/picture.rs"]
mod picture;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hushfs::base::{BLOCK_LEN, SystemClock};
use hushfs::format::{ObjectName, Prefix};
use hushfs::gateway::{Gateway, GatewayOptions, Limits, bind, page_hashes, serve};
use hushfs::store::{FaultStore, Faults, Op, Store, StoreOptions, StoreUrl, connect};
use links::{Node, TestLink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

const HUSHFS: &str = env!("CARGO_BIN_EXE_hushfs");

struct Rig {
    address: SocketAddr,
    store: Arc<dyn Store>,
    faults: Faults,
    link: TestLink,
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    running: Option<tokio::task::JoinHandle<()>>,
}

/// Fast enough for tests, everything else as people have it.
fn limits() -> Limits {
    let store_within = Duration::from_secs(2);
    Limits { fresh_for: Duration::from_millis(100), store_within, ..Limits::default() }
}

fn local(folder: &Path) -> Arc<dyn Store> {
    let options = StoreOptions { create_folder: true, ..StoreOptions::default() };
    connect(&StoreUrl::parse(folder.to_str().unwrap()).unwrap(), &options).unwrap().store
}

async fn rig(limits: Limits, proxies: &[&str]) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let (store, faults) = FaultStore::new(local(&folder.path().join("store")));
    let store: Arc<dyn Store> = Arc::new(store);
    let mut link = TestLink::open();
    link.publish(b"file.bin", &Node::File(picture::noise(20 << 20)), None);
    link.upload(&*store).await;
    let trusted_proxies = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
    let options = GatewayOptions { limits, trusted_proxies, log_details: false };
    let gateway = Gateway::new(store.clone(), Arc::new(SystemClock), options);
    let listener = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(serve(listener, gateway, async { drop(stopped.await) }));
    Rig { address, store, faults, link, folder, stop: Some(stop), running: Some(running) }
}

struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn why(&self) -> (u16, &str) {
        let body = std::str::from_utf8(&self.body).unwrap();
        (self.status, body.strip_prefix("{\"why\":\"").and_then(|body| body.strip_suffix("\"}")).unwrap_or(body))
    }
}

/// One request on a connection of its own, which the server ends.
async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: bytes[end..].to_vec() }
}

impl Rig {
    async fn get(&self, path: &str) -> Answer {
        ask(self.address, "GET", path, &[]).await
    }

    async fn get_range(&self, path: &str, range: &str) -> Answer {
        ask(self.address, "GET", path, &[("Range", range)]).await
    }

    fn path(&self, rest: &str) -> String {
        format!("/s/{}{rest}", self.link.keys.id())
    }

    fn object(&self, name: &ObjectName) -> Vec<u8> {
        self.link.objects.iter().find(|(other, _)| other == name).unwrap().1.to_vec()
    }

    fn pack(&self, number: u64) -> Vec<u8> {
        self.object(&ObjectName::SharePack(self.link.keys.id(), number))
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.running.take().unwrap().await.unwrap();
        assert!(self.folder.path().exists());
    }
}

#[tokio::test]
async fn the_page_is_the_same_for_every_link_and_hardened() {
    let rig = rig(limits(), &[]).await;
    let page = rig.get(&rig.path("")).await;
    let other = rig.get(&format!("/s/{}", "0".repeat(32))).await;
    assert_eq!((page.status, &page.body), (200, &other.body));
    for path in [
        rig.path(""),
        "/page.js".into(),
        "/page.css".into(),
        "/worker.js".into(),
        "/sw.js".into(),
        "/nothing".into(),
        rig.path("/record"),
    ] {
        let answer = rig.get(&path).await;
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer", "{path}");
        assert!(answer.headers["content-security-policy"].starts_with("default-src 'none'"), "{path}");
        assert!(
            !answer.headers.contains_key("set-cookie") && !answer.headers.contains_key("access-control-allow-origin")
        );
    }
    let policy = &page.headers["content-security-policy"];
    assert!(policy.contains("require-trusted-types-for 'script'") && !policy.contains("unsafe"));
    assert!(!policy.contains("http") && !policy.contains('*'));
    rig.stop().await;
}

#[tokio::test]
async fn page_files_have_the_hashes_that_are_told_and_are_sent_once() {
    let rig = rig(limits(), &[]).await;
    for (name, hash) in page_hashes() {
        let path = if name == "page.html" { rig.path("") } else { format!("/{name}") };
        let answer = rig.get(&path).await;
        let found: String = hushfs::crypto::sha256(&answer.body).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, hash, "{name}");
        let again = ask(rig.address, "GET", &path, &[("If-None-Match", &answer.headers["etag"])]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn only_typed_ids_are_answered_and_the_store_is_asked_for_nothing_else() {
    let rig = rig(limits(), &[]).await;
    rig.store.create(&ObjectName::Volume, "the volume".into()).await.unwrap();
    let before = rig.faults.requests().len();
    let id = rig.link.keys.id().to_string();
    for path in [
        "/".to_owned(),
        "/hushfs.volume".to_owned(),
        "/s".to_owned(),
        "/s/".to_owned(),
        format!("/s/{}", id.to_uppercase()),
        format!("/s/{}", &id[1..]),
        format!("/s/{id}/"),
        format!("/s/{id}/record/"),
        format!("/s/{id}/00000000000000000001"),
        format!("/s/{id}/pk/"),
        format!("/s/{id}/pk/0"),
        format!("/s/{id}/pk/01"),
        format!("/s/{id}/pk/1/"),
        format!("/s/{id}/pk/..%2f..%2f..%2fhushfs.volume"),
        format!("/s/{id}/../../hushfs.volume"),
        "/s/..%2f..%2fhushfs.volume/record".to_owned(),
        format!("/s/{id}%00/record"),
        "/s/hushfs.volume/record".to_owned(),
        "//s".to_owned(),
    ] {
        let answer = rig.get_range(&path, "bytes=0-262143").await;
        assert_eq!(answer.why(), (404, "not-found"), "{path}");
    }
    assert_eq!(rig.faults.requests().len(), before, "a made-up path reached the store");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(ask(rig.address, method, &rig.path("/record"), &[]).await.status, 405, "{method}");
    }
    assert_eq!(rig.get(&rig.path("/record")).await.status, 200);
    assert_eq!(rig.get_range(&rig.path("/pk/1"), "bytes=0-").await.status, 206);
    let asked = rig.faults.requests();
    let of_link =
        |name: &Option<ObjectName>| matches!(name, None | Some(ObjectName::Share(..) | ObjectName::SharePack(..)));
    assert!(asked[before..].iter().all(|(op, name)| of_link(name) && matches!(op, Op::Get | Op::Size | Op::List)));
    rig.stop().await;
}

#[tokio::test]
async fn records_come_verified_and_with_their_state() {
    let rig = rig(limits(), &[]).await;
    let (id, now) = (rig.link.keys.id(), rig.get(&rig.path("/record")).await);
    assert_eq!((now.status, now.body), (200, rig.object(&ObjectName::Share(id, 1))));
    let again = ask(rig.address, "GET", &rig.path("/record"), &[("If-None-Match", &now.headers["etag"])]).await;
    assert_eq!(again.status, 304);
    assert_eq!(rig.get(&format!("/s/{}/record", "a".repeat(32))).await.why(), (404, "not-found"));

    // Somebody who can write to the bucket cannot publish.
    let mut other = TestLink::open();
    other.publish(b"other", &Node::File(b"other".to_vec()), None);
    let forged = other.objects.last().unwrap().1.clone();
    rig.store.create(&ObjectName::Share(id, 2), forged).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(rig.get(&rig.path("/record")).await.body, rig.object(&ObjectName::Share(id, 1)));

    let mut expired = TestLink::open();
    expired.publish(b"over", &Node::File(b"over".to_vec()), Some(1_700_000_000));
    expired.upload(&*rig.store).await;
    let path = |rest: &str| format!("/s/{}{rest}", expired.keys.id());
    assert_eq!(rig.get(&path("/record")).await.why(), (410, "expired"));
    assert_eq!(rig.get(&path("/record?raw")).await.why(), (410, "expired"));
    assert_eq!(rig.get_range(&path("/pk/1"), "bytes=0-").await.why(), (410, "expired"));
    rig.stop().await;
}

#[tokio::test]
async fn packs_come_in_whole_blocks() {
    let rig = rig(limits(), &[]).await;
    let (pack, path) = (rig.pack(1), rig.path("/pk/1"));
    let size = pack.len() as u64;
    for (range, start, end) in [
        ("bytes=0-262143".to_owned(), 0, BLOCK_LEN),
        ("bytes=262144-1310719".to_owned(), BLOCK_LEN, 5 * BLOCK_LEN),
        (format!("bytes={}-", size / BLOCK_LEN * BLOCK_LEN), size / BLOCK_LEN * BLOCK_LEN, size),
        ("bytes=0-99999999999".to_owned(), 0, size),
    ] {
        if start == end {
            continue;
        }
        let answer = rig.get_range(&path, &range).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.headers["content-range"], format!("bytes {start}-{}/{size}", end - 1));
        assert!(answer.body == pack[start as usize..end as usize], "{range}");
        assert_eq!(answer.headers["content-length"], (end - start).to_string());
    }
    assert_eq!(rig.get(&path).await.why(), (400, "range-needed"));
    for range in ["bytes=1-262143", "bytes=0-100", "bytes=-5", "bytes=99999744-", "lines=0-262143"] {
        let answer = rig.get_range(&path, range).await;
        assert_eq!(answer.why(), (416, "range"), "{range}");
        assert_eq!(answer.headers["content-range"], format!("bytes */{size}"));
    }
    assert_eq!(rig.get_range(&rig.path("/pk/99"), "bytes=0-262143").await.why(), (404, "not-found"));
    assert_eq!(rig.get_range(&rig.path("/pk/00000000000000000001"), "bytes=0-262143").await.status, 206);
    let head = ask(rig.address, "HEAD", &path, &[("Range", "bytes=0-262143")]).await;
    assert_eq!((head.status, head.body.len(), head.headers["content-length"].as_str()), (206, 0, "262144"));
    rig.stop().await;
}

#[tokio::test]
async fn a_revoked_link_is_refused_at_once_though_its_blocks_are_still_in_memory() {
    let rig = rig(limits(), &[]).await;
    let path = rig.path("/pk/1");
    assert_eq!(rig.get_range(&path, "bytes=0-262143").await.status, 206);
    // One that is open when it happens ends before its end.
    let mut open = TcpStream::connect(rig.address).await.unwrap();
    open.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\n\r\n").as_bytes()).await.unwrap();
    open.read_exact(&mut [0; 1000]).await.unwrap();
    let (name, tombstone) = rig.link.tombstone();
    rig.store.create(&name, tombstone.clone().into()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(rig.get_range(&path, "bytes=0-262143").await.why(), (410, "revoked"));
    assert_eq!(rig.get(&rig.path("/record")).await.why(), (410, "revoked"));
    let raw = rig.get(&rig.path("/record?raw")).await;
    assert_eq!((raw.status, raw.body), (200, tombstone));
    let mut rest = Vec::new();
    let _ = open.read_to_end(&mut rest).await;
    assert!(rest.len() < rig.pack(1).len() - 1000, "the whole pack was sent");
    rig.stop().await;
}

/// Taking back deletes the packs right after the link, and that may be seen before the link is looked at again.
#[tokio::test]
async fn a_pack_that_went_with_its_link_is_called_taken_back_and_not_mistyped() {
    let rig = rig(Limits { fresh_for: Duration::from_secs(3600), ..limits() }, &[]).await;
    assert_eq!(rig.get_range(&rig.path("/pk/1"), "bytes=0-262143").await.status, 206);
    let (name, tombstone) = rig.link.tombstone();
    rig.store.create(&name, tombstone.into()).await.unwrap();
    let packs: Vec<_> = rig.link.objects.iter().map(|(name, _)| *name).collect();
    for pack in packs.iter().filter(|name| matches!(name, ObjectName::SharePack(..))) {
        rig.store.delete(pack).await.unwrap();
    }
    // Known still to be there: it ends before its first block, and is asked for again.
    let address = rig.address.to_string();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (last, path) = (60 * BLOCK_LEN, rig.path("/pk/1"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={last}-\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    drop(stream.read_to_end(&mut Vec::new()).await);
    assert_eq!(rig.get_range(&path, &format!("bytes={last}-")).await.why(), (410, "revoked"));
    rig.stop().await;

    let rig = self::rig(Limits { fresh_for: Duration::from_secs(3600), ..limits() }, &[]).await;
    assert_eq!(rig.get(&rig.path("/record")).await.status, 200);
    assert_eq!(rig.get_range(&rig.path("/pk/99"), "bytes=0-262143").await.why(), (404, "not-found"));
    let (name, tombstone) = rig.link.tombstone();
    rig.store.create(&name, tombstone.into()).await.unwrap();
    assert_eq!(rig.get_range(&rig.path("/pk/99"), "bytes=0-262143").await.why(), (410, "revoked"));
    rig.stop().await;
}

#[tokio::test]
async fn a_thousand_small_ranges_are_few_reads_of_the_bucket() {
    // However busy the machine is: it is counted here, not timed.
    let patient = Duration::from_secs(600);
    let limits = Limits { slow_after: patient, head_within: patient, store_within: patient, ..limits() };
    let rig = rig(Limits { open_max_of_visitor: 2000, ..limits }, &[]).await;
    let before = rig.faults.requests().len();
    let path = rig.path("/pk/1");
    let asks = (0..1000u64).map(|n| {
        let start = n % 60 * BLOCK_LEN;
        let (range, path) = (format!("bytes={start}-{}", start + BLOCK_LEN - 1), path.clone());
        async move { ask(rig.address, "GET", &path, &[("Range", &range)]).await.status }
    });
    let mut counts = HashMap::new();
    futures::future::join_all(asks).await.into_iter().for_each(|status| *counts.entry(status).or_insert(0) += 1);
    assert_eq!(counts, HashMap::from([(206, 1000)]));
    let asked = rig.faults.requests();
    let reads =
        asked[before..].iter().filter(|(op, name)| *op == Op::Get && matches!(name, Some(ObjectName::SharePack(..))));
    assert!(reads.count() <= 60);
    rig.stop().await;
}

#[tokio::test]
async fn budgets_are_of_the_visitor_and_of_the_link() {
    let mut limits = limits();
    limits.visitor.requests_per_minute = 3;
    let rig = rig(limits, &["127.0.0.1"]).await;
    let from = async |address: &str| ask(rig.address, "GET", "/page.js", &[("X-Forwarded-For", address)]).await;
    for _ in 0..3 {
        assert_eq!(from("198.51.100.1").await.status, 200);
    }
    let refused = from("198.51.100.1").await;
    assert_eq!(refused.why(), (429, "budget"));
    assert!((1..=20).contains(&refused.headers["retry-after"].parse::<u32>().unwrap()));
    assert_eq!(from("1.2.3.4, 198.51.100.1").await.status, 429, "what a client writes itself does not count");
    assert_eq!(from("2001:db8:0:1::1").await.status, 200);
    assert_eq!(from("2001:db8:0:1::2").await.status, 200);
    assert_eq!(from("2001:db8:0:1::3").await.status, 200);
    assert_eq!(from("2001:db8:0:1::4").await.status, 429, "a household is one visitor");
    assert_eq!(from("2001:db8:0:2::1").await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn bytes_run_out_too() {
    let mut limits = limits();
    limits.link.bytes_per_hour = BLOCK_LEN;
    let rig = rig(limits, &[]).await;
    assert_eq!(rig.get_range(&rig.path("/pk/1"), "bytes=0-524287").await.status, 206);
    assert_eq!(rig.get_range(&rig.path("/pk/1"), "bytes=0-262143").await.why(), (429, "budget"));
    assert_eq!(rig.get("/page.js").await.status, 200, "other things go on");
    rig.stop().await;
}

/// What is not sent costs nothing.
#[tokio::test]
async fn a_record_is_charged_to_who_asked_when_it_is_sent() {
    let mut limits = limits();
    limits.visitor.bytes_per_hour = 1;
    let rig = rig(limits, &[]).await;
    let path = rig.path("/record");
    let head = ask(rig.address, "HEAD", &path, &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(ask(rig.address, "GET", &path, &[("If-None-Match", &head.headers["etag"])]).await.status, 304);
    assert_eq!(rig.get(&path).await.status, 200);
    assert_eq!(rig.get(&path).await.why(), (429, "budget"));
    rig.stop().await;
}

#[tokio::test]
async fn a_header_of_an_unnamed_proxy_changes_nothing() {
    let mut limits = limits();
    limits.visitor.requests_per_minute = 2;
    let rig = rig(limits, &["10.0.0.0/8"]).await;
    for (n, status) in [200, 200, 429, 429].into_iter().enumerate() {
        let address = format!("198.51.100.{n}");
        assert_eq!(ask(rig.address, "GET", "/page.js", &[("X-Forwarded-For", &address)]).await.status, status);
    }
    rig.stop().await;
}

#[tokio::test]
async fn places_are_limited_for_one_and_for_all_and_come_back() {
    let rig = rig(Limits { open_max_of_visitor: 2, ..limits() }, &[]).await;
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\n\r\n", rig.path("/pk/1"));
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 100]).await.unwrap();
        open.push(stream);
    }
    assert_eq!(rig.get("/page.js").await.why(), (429, "busy"));
    open.clear();
    let begun = Instant::now();
    while rig.get("/page.js").await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn who_does_not_read_and_who_does_not_ask_is_cut_off() {
    let limits = Limits { slow_after: Duration::from_millis(500), head_within: Duration::from_millis(500), ..limits() };
    let rig = rig(limits, &[]).await;
    let mut lazy = TcpStream::connect(rig.address).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\n\r\n", rig.path("/pk/1"));
    lazy.write_all(request.as_bytes()).await.unwrap();
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    let mut half = TcpStream::connect(rig.address).await.unwrap();
    half.write_all(b"GET /page.js HTTP/1.1\r\nHos").await.unwrap();
    let mut idle = TcpStream::connect(rig.address).await.unwrap();
    idle.write_all(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let metrics = rig.get("/metrics").await;
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("hushfs_gateway_slow_total 1\n"), "{text}");
    assert!(text.contains("hushfs_gateway_open_requests 1\n"), "{text}");
    for stream in [&mut lazy, &mut silent, &mut half, &mut idle] {
        let mut rest = Vec::new();
        // An end, or a reset; not a wait.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut rest)).await.expect("cut off");
        assert!(rest.len() < rig.pack(1).len());
    }
    rig.stop().await;
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let rig = rig(Limits { head_within: Duration::from_millis(300), ..limits() }, &[]).await;
    let noise = picture::noise(200_000);
    let valid = format!("GET {} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-262143\r\n\r\n", rig.path("/pk/1")).into_bytes();
    let mut inputs: Vec<Vec<u8>> = vec![
        noise.clone(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        [b"GET /", &[b'a'; 100_000][..], b" HTTP/1.1\r\n\r\n"].concat(),
        [b"GET / HTTP/1.1\r\n", "X: y\r\n".repeat(10_000).as_bytes(), b"\r\n"].concat(),
        b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"GET /page.js HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec(),
    ];
    inputs.extend((0..300).map(|n| {
        let mut changed = valid.clone();
        let at = usize::from(noise[n]) * 7 % changed.len();
        changed[at] = noise[n + 1000];
        changed
    }));
    for input in inputs {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        let _ = stream.write_all(&input).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await.expect("an end");
    }
    assert_eq!(rig.get("/page.js").await.status, 200);
    assert!(rig.store.list(Prefix::Everything).await.unwrap().len() == rig.link.objects.len());
    rig.stop().await;
}

#[tokio::test]
async fn health_and_metrics_tell_what_they_should_and_to_whom() {
    let rig = rig(limits(), &[]).await;
    assert_eq!(rig.get("/health").await.status, 200);
    rig.get_range(&rig.path("/pk/1"), "bytes=0-262143").await;
    let metrics = rig.get("/metrics").await;
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(text.contains("hushfs_gateway_sent_bytes_total 262144\n"), "{text}");
    assert!(!text.contains(&rig.link.keys.id().to_string()[..6]));
    let through_a_proxy = ask(rig.address, "GET", "/metrics", &[("X-Forwarded-For", "127.0.0.1")]).await;
    assert_eq!(through_a_proxy.status, 404);
    std::fs::rename(rig.folder.path().join("store"), rig.folder.path().join("away")).unwrap();
    assert_eq!(rig.get("/health").await.why(), (502, "store"));
    rig.stop().await;
}

/// The program itself, as a process.
struct Program {
    child: Child,
    address: SocketAddr,
    /// A file: a pipe that nobody reads would hold the program up.
    log: tempfile::NamedTempFile,
}

impl Program {
    fn start(store: &Path, more: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new(HUSHFS)
            .args(["gateway", "--listen", "127.0.0.1:0"])
            .args(more)
            .arg(store)
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("serving links on http://").and_then(|address| address.parse().ok());
        Self { address: address.unwrap_or_else(|| panic!("{line:?}")), child, log }
    }

    fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
    }

    fn end(&mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_thousand_downloads_at_a_time_take_bounded_memory() {
    const DOWNLOADS: usize = 1000;
    raise_open_files();
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut link = TestLink::open();
    link.publish(b"file.bin", &Node::File(picture::noise(100 << 20)), None);
    runtime.block_on(link.upload(&*local(&store)));
    let packs: Vec<_> = link.objects.iter().filter(|(name, _)| matches!(name, ObjectName::SharePack(..))).collect();
    let options = [
        ["--cache-size", "16MiB"],
        ["--open-max", "1100"],
        ["--address-open-max", "1100"],
        ["--address-requests", "100000"],
        // They all wait for the last to come, however slow this machine is.
        ["--slow-after", "600"],
    ];
    let options: Vec<&str> = options.into_iter().flatten().collect();
    let mut program = Program::start(&store, &options);

    runtime.block_on(async {
        let all_open = Arc::new(tokio::sync::Barrier::new(DOWNLOADS));
        let downloads = (0..DOWNLOADS).map(|n| {
            let (number, pack) = (n % packs.len() + 1, packs[n % packs.len()].1.clone());
            // Each begins elsewhere, so that they share as little as can be.
            let blocks = pack.len() as u64 / BLOCK_LEN;
            let start = n as u64 / packs.len() as u64 % (blocks - 4) * BLOCK_LEN;
            let (address, path, open) =
                (program.address, format!("/s/{}/pk/{number}", link.keys.id()), all_open.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let end = start + 4 * BLOCK_LEN;
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes={start}-{}\r\n\r\n",
                    end - 1
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut head = vec![0; 12];
                stream.read_exact(&mut head).await.unwrap();
                assert_eq!(head, b"HTTP/1.1 206");
                open.wait().await;
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
                let body = &rest[rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4..];
                assert!(body == &pack[start as usize..end as usize], "other bytes than the pack's");
            })
        });
        for download in downloads.collect::<Vec<_>>() {
            download.await.unwrap();
        }
    });
    let peak = program.peak_bytes();
    println!("peak of the gateway with {DOWNLOADS} downloads: {} MiB", peak >> 20);
    // The cache, a block for each, and what a connection and the program itself take.
    let bound = (16 << 20) + DOWNLOADS as u64 * (BLOCK_LEN + (64 << 10)) + (64 << 20);
    assert!(peak < bound, "{} MiB of at most {}", peak >> 20, bound >> 20);
    program.end();
}

fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

#[test]
fn the_program_listens_for_others_only_behind_tls_and_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Command::new(HUSHFS).arg("gateway").args(args).output().unwrap();
    let store = folder.path().to_str().unwrap();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let output = run(&[store, "--listen", listen]);
        assert_eq!(output.status.code(), Some(2), "{listen}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--behind-tls"));
    }
    let output = run(&["/nowhere/at/all", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(6));
    let hashes = String::from_utf8(run(&["--page-hashes"]).stdout).unwrap();
    assert!(page_hashes().iter().all(|(name, hash)| hashes.contains(&format!("{hash}  {name}\n"))), "{hashes}");
}

#[test]
fn the_log_tells_whole_ids_and_addresses_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let id = "00112233445566778899aabbccddeeff";
    for (options, whole) in [(&[][..], false), (&["--log-details"], true)] {
        let mut program = Program::start(folder.path(), options);
        let mut stream = std::net::TcpStream::connect(program.address).unwrap();
        write!(stream, "GET /s/{id}/record?x=a-query HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_string(&mut String::new()).unwrap();
        let log = program.end();
        assert!(log.contains("/s/001122") && log.contains("status=404"), "{log}");
        assert_eq!((log.contains(id), log.contains("127.0.0.1")), (whole, whole), "{log}");
        assert!(!log.contains("a-query"), "{log}");
    }
}

#[test]
fn the_program_exports_a_link_as_a_page_and_writes_over_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let publish = |len| {
        let mut link = TestLink::open();
        link.publish(b"file.bin", &Node::File(picture::noise(len)), None);
        runtime.block_on(link.upload(&*local(&store)));
        link
    };
    let export = |link: &TestLink, name: &str, more: &[&str]| {
        let text = format!("{}#{}", link.keys.id(), link.fragment());
        let mut command = Command::new(HUSHFS);
        command.args(["share", "export", &text]).arg(folder.path().join(name)).arg("--store").arg(&store).args(more);
        command.output().unwrap()
    };
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let small = publish(100_000);
    let secret = small.fragment().split_once('.').unwrap().1.to_owned();

    assert!(export(&small, "asks.html", &[]).status.success());
    let page = String::from_utf8(read("asks.html")).unwrap();
    assert!(page.contains(&small.keys.id().to_string()) && !page.contains(&secret));
    assert!(!folder.path().join("asks.hushbox").exists());
    assert!(export(&small, "opens.html", &["--with-key"]).status.success());
    assert!(String::from_utf8(read("opens.html")).unwrap().contains(&secret));

    let again = export(&small, "asks.html", &[]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("asks.html"));
    assert_eq!(read("asks.html"), page.as_bytes());

    let large = publish(20 << 20);
    assert!(export(&large, "large.html", &[]).status.success());
    assert!(String::from_utf8(read("large.html")).unwrap().contains("large.hushbox"));
    assert!(read("large.hushbox") == large.boxed());

    let (name, tombstone) = small.tombstone();
    runtime.block_on(local(&store).create(&name, tombstone.into())).unwrap();
    let revoked = export(&small, "revoked.html", &[]);
    assert!(!revoked.status.success() && String::from_utf8_lossy(&revoked.stderr).contains("taken back"));
    assert!(!folder.path().join("revoked.html").exists());
}
