//! Fetching from a gateway: one in this process that speaks what gateways speak, over real sockets, and misbehaves as
//! told.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hushfs::base::LinkId;
use hushfs::format::{ObjectName, Prefix};
use hushfs::share::get::{GatewaySource, GetError, Gone};
use hushfs::store::{MemoryStore, Store};

use crate::owner::Owner;
use crate::rig::noise;

const BLOCK: u64 = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// Every second request is one too many.
    Throttles,
    Changes,
    Cuts,
    SaysExpired,
}

struct Gateway {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    manner: Arc<Mutex<Manner>>,
}

impl Gateway {
    fn start(memory: MemoryStore) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let (requests, manner) = (Arc::new(Mutex::new(vec![])), Arc::new(Mutex::new(Manner::Honest)));
        let (log, how, count) = (requests.clone(), manner.clone(), Arc::new(AtomicU64::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (memory, log, how, count) = (memory.clone(), log.clone(), how.clone(), count.clone());
                std::thread::spawn(move || attend(stream, &memory, &log, &how, &count));
            }
        });
        Self { address, requests, manner }
    }

    fn is(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

fn attend(
    stream: TcpStream,
    memory: &MemoryStore,
    log: &Mutex<Vec<String>>,
    manner: &Mutex<Manner>,
    count: &AtomicU64,
) {
    let mut write = stream.try_clone().expect("a stream");
    let mut read = BufReader::new(stream);
    loop {
        let mut head = String::new();
        loop {
            let before = head.len();
            match read.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) if head[before..].trim().is_empty() => break,
                Ok(_) => {}
            }
        }
        log.lock().unwrap().push(head.clone());
        let (status, more, body) = answer(&head, memory, *manner.lock().unwrap(), count);
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{more}\r\n", body.len());
        if write.write_all(answer.as_bytes()).and_then(|()| write.write_all(&body)).is_err() {
            return;
        }
    }
}

fn answer(
    head: &str,
    memory: &MemoryStore,
    manner: Manner,
    count: &AtomicU64,
) -> (&'static str, &'static str, Vec<u8>) {
    if manner == Manner::Throttles && count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
        return ("429 Too Many Requests", "retry-after: 0\r\n", b"{\"why\": \"slow down\"}".to_vec());
    }
    if manner == Manner::SaysExpired {
        return ("410 Gone", "", b"{\"why\": \"expired\"}".to_vec());
    }
    let path = head.split(' ').nth(1).expect("a path");
    let parts: Vec<&str> = path.split('/').collect();
    let (["", "s", id, "record"] | ["", "s", id, "pk", _]) = parts[..] else { return ("404 Not Found", "", vec![]) };
    let id = LinkId::parse_hex(id).expect("an id");
    if let ["", "s", _, "pk", pack] = parts[..] {
        let Some(object) = memory.peek(&ObjectName::SharePack(id, pack.parse().expect("a number"))) else {
            return ("404 Not Found", "", vec![]);
        };
        let range = head.lines().find_map(|line| line.strip_prefix("range: bytes=")).expect("a range");
        let (start, last) = range.trim().split_once('-').expect("a range");
        let (start, end): (u64, u64) = (start.parse().unwrap(), last.parse::<u64>().unwrap() + 1);
        if !start.is_multiple_of(BLOCK) || !(end.is_multiple_of(BLOCK) || end == object.len() as u64) {
            return ("416 Range Not Satisfiable", "", b"{\"why\": \"not aligned\"}".to_vec());
        }
        let mut part = object[start as usize..(end as usize).min(object.len())].to_vec();
        match manner {
            Manner::Changes => part[40] ^= 1,
            Manner::Cuts => part.truncate(100),
            _ => {}
        }
        return ("206 Partial Content", "", part);
    }
    let newest = memory.names().into_iter().filter_map(|name| match name {
        ObjectName::Share(of, number) if of == id => Some(number),
        _ => None,
    });
    match newest.max() {
        Some(number) => ("200 OK", "", memory.peek(&ObjectName::Share(id, number)).expect("a record").to_vec()),
        None => ("404 Not Found", "", b"{\"why\": \"missing\"}".to_vec()),
    }
}

#[test]
fn a_link_is_fetched_from_a_gateway_that_learns_no_secret_and_is_not_trusted() {
    let owner = Owner::new();
    owner.files.mkdir("f").unwrap();
    owner.files.write("f/large", &noise(1, 20 << 20)).unwrap();
    owner.files.write("f/small", b"small").unwrap();
    let shared = owner.share("f");
    let gateway = Gateway::start(owner.memory.clone());
    let fetch = || {
        let mut fetcher = owner.fetcher();
        fetcher.source = Arc::new(GatewaySource::new(&gateway.address).unwrap());
        fetcher.get(&shared.url).map(|_| (fetcher.read("f/large"), fetcher.read("f/small")))
    };
    for manner in [Manner::Honest, Manner::Throttles] {
        gateway.is(manner);
        assert_eq!(fetch().unwrap(), (noise(1, 20 << 20), b"small".to_vec()));
    }
    let secret = shared.url.text().split_once("#1.").expect("a secret").1.to_owned();
    let requests = gateway.requests.lock().unwrap().clone();
    assert!(!requests.is_empty() && requests.iter().all(|request| !request.contains(&secret)));
    for manner in [Manner::Changes, Manner::Cuts] {
        gateway.is(manner);
        assert!(matches!(fetch(), Err(GetError::Damaged)), "{manner:?}");
    }
    gateway.is(Manner::SaysExpired);
    assert!(matches!(fetch(), Err(GetError::Gone(Gone::Expired))));
    gateway.is(Manner::Honest);
    owner.sharing.revoke(shared.id).unwrap();
    assert!(matches!(fetch(), Err(GetError::Gone(Gone::Revoked))));
    let left = owner.runtime.block_on(owner.memory.list(Prefix::ShareOf(shared.id))).unwrap();
    owner.rig.delete(&left[0]);
    assert!(matches!(fetch(), Err(GetError::Gone(Gone::Missing))));
}

#[test]
fn no_block_of_small_files_is_asked_for_twice() {
    let owner = Owner::new();
    owner.files.mkdir("many").unwrap();
    for number in 0..2_000 {
        owner.files.write(&format!("many/{number:05}"), &noise(number, 1_000)).unwrap();
    }
    let shared = owner.share("many");
    let gateway = Gateway::start(owner.memory.clone());
    let mut fetcher = owner.fetcher();
    fetcher.source = Arc::new(GatewaySource::new(&gateway.address).unwrap());
    fetcher.get(&shared.url).unwrap();
    assert!((0..2_000).all(|number| fetcher.read(&format!("many/{number:05}")) == noise(number, 1_000)));
    let requests = gateway.requests.lock().unwrap().clone();
    let mut blocks: Vec<u64> = Vec::new();
    for range in requests.iter().filter_map(|request| request.split_once("range: bytes=")) {
        let (start, last) = range.1.lines().next().and_then(|range| range.split_once('-')).unwrap();
        blocks.extend(start.parse::<u64>().unwrap() / BLOCK..=last.parse::<u64>().unwrap() / BLOCK);
    }
    let all = blocks.len();
    blocks.sort_unstable();
    blocks.dedup();
    assert!(blocks.len() > 8, "{blocks:?}");
    // The index lies behind the files and is read beside them, which may cost one or two.
    assert!(all <= blocks.len() + 2, "{all} for {blocks:?}");
}

#[test]
fn a_link_that_is_taken_back_during_the_fetch_says_so() {
    let owner = Owner::new();
    owner.files.write("file", &noise(1, 40 << 20)).unwrap();
    let shared = owner.share("file");
    let gateway = Gateway::start(owner.memory.clone());
    let mut fetcher = owner.fetcher();
    fetcher.source = Arc::new(GatewaySource::new(&gateway.address).unwrap());
    let (sharing, mut revoked) = (owner.sharing.clone(), false);
    let outcome = fetcher.get_until(&shared.url, &mut |progress| {
        if !revoked && progress.fetched_bytes > 0 {
            // On a thread of its own: this one belongs to the fetch's runtime.
            let (sharing, id) = (sharing.clone(), shared.id);
            std::thread::spawn(move || sharing.revoke(id)).join().expect("a thread").expect("revoked");
            revoked = true;
        }
        true
    });
    assert!(matches!(outcome, Err(GetError::Gone(Gone::Revoked))), "{outcome:?}");
    assert!(revoked && fetcher.has_nothing());
}

#[test]
fn a_gateway_that_is_not_there_is_said_to_be_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    // One try: the rest would only wait.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let source = GatewaySource::new(&format!("http://{free}")).unwrap();
    let error = runtime.block_on(hushfs::share::get::LinkSource::newest(&source, LinkId([1; 16]))).unwrap_err();
    assert!(matches!(error, GetError::Unreachable(_)), "{error:?}");
}
