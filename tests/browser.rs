//! Links as their receivers see them: the real page in a real Chromium against the real gateway over a real store.
//! `tests/browser/` drives the browser; here the links are made, and what the gateway wrote is looked at.
//!
//! Screenshots of every state are left in `target/browser-shots`.

#[path = "support/links.rs"]
mod links;
#[path = "support/picture.rs"]
mod picture;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hushfs::base::{LinkId, SystemEntropy};
use hushfs::crypto::{Key, PrivateHalf};
use hushfs::format::Writer;
use hushfs::format::link::{LinkKeys, RootKind, seal_link_chunk};
use hushfs::gateway::{Ciphertext, Exported, export_page, page_file};
use hushfs::store::{StoreOptions, StoreUrl, connect};
use links::{Node, TestLink};
use serde_json::{Value, json};

const HUSHFS: &str = env!("CARGO_BIN_EXE_hushfs");
/// Of links' contents and names; none of it may reach the gateway.
const CANARY: &str = "canary of a sparrow";
const TEXT: &str = "Grüße aus dem Süden.\n\n<b>Not bold.</b> canary of a sparrow\n";
const LARGE: usize = 300 << 20;
const DOOMED: usize = 120 << 20;
/// More than the page keeps in memory for a download.
const MEDIUM: usize = 64 << 20;

#[test]
fn links_in_a_real_browser() {
    let target = Path::new(HUSHFS).ancestors().nth(2).expect("a target folder");
    let (modules, shots) = (target.join("browser"), target.join("browser-shots"));
    assert!(modules.join("node_modules").exists(), "run scripts/install.sh test first");
    std::fs::create_dir_all(&shots).unwrap();
    let work = tempfile::tempdir().unwrap();
    let store = work.path().join("store");
    let (links, secrets) = publish_all(&store, work.path());

    let mut gateway = Gateway::start(&store, work.path());
    let plan = json!({
        "port": gateway.port, "work": work.path(), "shots": shots, "links": links.0, "secrets": secrets,
        "stolenRecord": links.1, "exports": exports(),
    });
    let plan_file = work.path().join("plan.json");
    std::fs::write(&plan_file, plan.to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/run.mjs");
    let status = Command::new("node").arg(script).arg(&plan_file).env("HUSHFS_BROWSER_MODULES", &modules).status();
    gateway.stop();
    assert!(status.expect("node").success(), "see above; the log of the gateway:\n{}", gateway.log());

    let log = gateway.log();
    assert!(log.contains("/record") && log.contains("status=206"), "nothing was logged:\n{log}");
    for (what, texts) in &secrets {
        for text in texts {
            assert!(!log.contains(text.as_str()), "{what} is in the gateway's log");
        }
    }
    for link in links.0.values() {
        let id = link["id"].as_str().unwrap();
        assert!(!log.contains(id), "a whole id is in the gateway's log");
    }
    assert!(!log.contains("127.0.0.1"), "an address is in the gateway's log");
}

struct Gateway {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Gateway {
    fn start(store: &Path, work: &Path) -> Self {
        let log = work.join("gateway.log");
        let mut child = Command::new(HUSHFS)
            .args(["gateway", "--listen", "127.0.0.1:0", "--address-requests", "100000"])
            .arg(store)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Self { port: port.unwrap_or_else(|| panic!("no port in {line:?}")), child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        assert!(self.child.wait().unwrap().success(), "the gateway did not end well");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Links = BTreeMap<&'static str, Value>;
type Secrets = BTreeMap<&'static str, Vec<String>>;

struct Publisher<'a> {
    store: &'a Path,
    links: Links,
    secrets: Vec<String>,
}

impl Publisher<'_> {
    fn add(&mut self, name: &'static str, link: &TestLink, more: Value) {
        self.change_and_add(name, link, more, |_| {});
    }

    fn change_and_add(&mut self, name: &'static str, link: &TestLink, more: Value, change: impl Fn(&Path)) {
        let connected = connect(
            &StoreUrl::parse(self.store.to_str().unwrap()).unwrap(),
            &StoreOptions { create_folder: true, ..StoreOptions::default() },
        );
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(link.upload(&*connected.unwrap().store));
        let id = link.keys.id().to_string();
        change(&self.store.join("share").join(&id));
        let mut entry = json!({ "id": id, "fragment": link.fragment() });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.links.insert(name, entry);
        let fragment = link.fragment();
        self.secrets.extend(fragment.split_once('.').map(|(_, secret)| secret.to_owned()));
        self.secrets.push(link.keys.secret.expose().iter().map(|byte| format!("{byte:02x}")).collect());
    }
}

fn publish_all(store: &Path, work: &Path) -> ((Links, String), Secrets) {
    let mut publisher = Publisher { store, links: Links::new(), secrets: Vec::new() };
    let file = |bytes: &[u8]| Node::File(bytes.to_vec());

    let mut text = TestLink::open();
    text.publish("Grüße.txt".as_bytes(), &file(TEXT.as_bytes()), None);
    publisher.add("text", &text, json!({ "content": TEXT }));

    let mut folder = TestLink::open();
    let node = holiday();
    folder.publish(b"Holiday", &node, None);
    let mut files = BTreeMap::new();
    hash_all(&node, "Holiday", &mut files);
    publisher.add("folder", &folder, json!({ "files": files }));

    let keys = LinkKeys::generate(None, &SystemEntropy).with_password("sword fish ü".as_bytes(), &SystemEntropy);
    let mut password = TestLink::new(keys.unwrap());
    password.publish(b"secret plan.txt", &file(CANARY.as_bytes()), None);
    publisher.add("password", &password, json!({}));

    let mut revoked = TestLink::open();
    revoked.publish(b"gone", &file(b"gone"), None);
    let (name, tombstone) = revoked.tombstone();
    revoked.objects = vec![(name, tombstone.into())];
    publisher.add("revoked", &revoked, json!({}));

    let mut expired = TestLink::open();
    expired.publish(b"over", &file(b"over"), Some(1_700_000_000));
    publisher.add("expired", &expired, json!({}));

    let (own, other) = (PrivateHalf::generate(&SystemEntropy), PrivateHalf::generate(&SystemEntropy));
    let mut recipient = TestLink::new(LinkKeys::generate(Some(own.public()), &SystemEntropy));
    recipient.publish(b"for you.txt", &file(CANARY.as_bytes()), None);
    publisher.add("recipient", &recipient, json!({ "identity": identity(&own), "otherIdentity": identity(&other) }));
    publisher.secrets.push(identity(&own));

    let mut large = TestLink::open();
    let bytes = picture::noise(LARGE);
    let sha256 = hex(&hushfs::crypto::sha256(&bytes));
    large.publish(b"large.bin", &Node::File(bytes), None);
    publisher.add("large", &large, json!({ "sha256": sha256 }));

    let mut medium = TestLink::open();
    let bytes = picture::noise(MEDIUM);
    let sha256 = hex(&hushfs::crypto::sha256(&bytes));
    medium.publish(b"medium.bin", &Node::File(bytes), None);
    publisher.add("medium", &medium, json!({ "sha256": sha256 }));

    let mut doomed = TestLink::open();
    doomed.publish(b"doomed.bin", &Node::File(picture::noise(DOOMED)), None);
    let (name, tombstone) = doomed.tombstone();
    let object = name.to_string();
    let file_name = object.rsplit('/').next().unwrap();
    publisher.add(
        "doomed",
        &doomed,
        json!({ "folder": store.join("share").join(doomed.keys.id().to_string()), "name": file_name, "tombstone": base64(&tombstone) }),
    );

    let mut audio = TestLink::open();
    audio.publish(b"tone.wav", &Node::File(picture::tone(600)), None);
    publisher.add("audio", &audio, json!({}));

    let mut pdf = TestLink::open();
    pdf.publish(b"paper.pdf", &file(&picture::pdf()), None);
    publisher.add("pdf", &pdf, json!({}));

    let mut damaged = TestLink::open();
    damaged.publish(b"damaged.bin", &Node::File(picture::noise(3 << 20)), None);
    publisher.change_and_add("damaged", &damaged, json!({}), |folder| {
        let pack = folder.join("pk/00000000000000000001");
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes[2_000_000] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
    });

    let mut climbing = TestLink::open();
    climbing.publish_raw(b"climbing", RootKind::Directory, (1, 0), &climbing_index());
    publisher.add("climbing", &climbing, json!({}));

    let mut hostile = TestLink::open();
    let entries = hostile_entries();
    let hashes: BTreeMap<_, _> = entries
        .iter()
        .filter_map(|(name, bytes)| Some((String::from_utf8(name.clone()).ok()?, hex(&hushfs::crypto::sha256(bytes)))))
        .collect();
    let node = Node::Folder(entries.into_iter().map(|(name, bytes)| (name, Node::File(bytes))).collect());
    hostile.publish(b"<script>window.ran=1<\\script>", &node, None);
    publisher.add("hostile", &hostile, json!({ "hashes": hashes }));

    let mut bomb = TestLink::open();
    bomb.publish(b"bomb", &Node::folder([(b"a", Node::Sparse(1 << 49)), (b"b", Node::Sparse(1 << 49))]), None);
    publisher.add("bomb", &bomb, json!({}));

    export_all(work, &text, &large);
    let stolen = stolen_record(&text);
    let canaries = [CANARY, "Holiday", "Grüße", "large.bin", "sword fish", "picture.png"].map(str::to_owned).to_vec();
    let secrets = [("a link's secret", publisher.secrets), ("a name or content", canaries)].into();
    ((publisher.links, stolen), secrets)
}

fn holiday() -> Node {
    let many = (0..250).map(|n| (format!("file {n:03}").into_bytes(), Node::File(format!("{n}").into_bytes())));
    Node::folder([
        (b"deep", Node::folder([(b"deeper", Node::folder([(b"note", Node::File(CANARY.into()))]))])),
        (b"empty", Node::folder([])),
        (b"link", Node::Symlink(b"../../etc/passwd".to_vec())),
        (b"many", Node::Folder(many.collect())),
        (b"picture.png", Node::File(picture::png(64))),
        (b"run.sh", Node::Program(b"#!/bin/sh\necho hello\n".to_vec())),
        (b"sparse.bin", Node::File([vec![0; 3 << 20], b"end".to_vec(), vec![0; 100]].concat())),
        (b"zero", Node::File(vec![])),
    ])
}

fn hash_all(node: &Node, path: &str, hashes: &mut BTreeMap<String, String>) {
    match node {
        Node::File(bytes) | Node::Program(bytes) => {
            hashes.insert(path.to_owned(), hex(&hushfs::crypto::sha256(bytes)));
        }
        Node::Folder(entries) => {
            for (name, node) in entries {
                hash_all(node, &format!("{path}/{}", String::from_utf8_lossy(name)), hashes);
            }
        }
        Node::Sparse(_) | Node::Symlink(_) => {}
    }
}

/// Names that want out, and contents that want to run.
fn hostile_entries() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let html = b"<!doctype html><script>top.ran = 1; window.ran = 1; alert(1)</script>";
    let svg = br#"<svg xmlns="http://www.w3.org/2000/svg" onload="window.ran=1"><script>alert(1)</script></svg>"#;
    let gif = b"GIF89a/*<svg onload=alert(1)>*/=1;window.ran=1;alert(1)//";
    let named: [(&[u8], &[u8]); 17] = [
        (b"page.html", html),
        (b"drawing.svg", svg),
        (b"named.png", html),
        (b"no-ending", svg),
        (
            b"feed.xml",
            b"<?xml version=\"1.0\"?><html xmlns=\"http://www.w3.org/1999/xhtml\"><script>alert(1)</script></html>",
        ),
        (b"polyglot.gif", gif),
        (b"<img src=x onerror=alert(1)>", b"x"),
        (b"..\\..\\evil.bat", b"x"),
        (b"C:evil", b"x"),
        (b"con.txt", b"x"),
        (b"esc\x1b[31mred\x07\r\n", b"x"),
        ("gpj.\u{202e}exe".as_bytes(), b"x"),
        (b"\xff\xfe not utf-8", b"x"),
        (b"trailing. ", b"x"),
        (b"Same", b"x"),
        (b"same", b"y"),
        (&[b'n'; 255], b"x"),
    ];
    named.into_iter().map(|(name, bytes)| (name.to_vec(), bytes.to_vec())).collect()
}

/// A folder whose entry is called `../up`.
fn climbing_index() -> Vec<u8> {
    let mut out = Writer::new();
    out.varint(0).bytes(b"climbing").u8(2).u8(0).varint(0).varint(0);
    out.varint(0).bytes(b"../up").u8(1).u8(0).varint(0).varint(0).varint(0).varint(0);
    out.finish()
}

/// Another holder of the link has its secret, but not its signing key.
fn stolen_record(link: &TestLink) -> String {
    let keys = LinkKeys { secret: link.keys.secret.duplicate(), ..LinkKeys::generate(None, &SystemEntropy) };
    let mut forged = TestLink::new(keys);
    forged.publish(b"forged", &Node::File(b"forged".to_vec()), None);
    base64(&forged.objects.last().unwrap().1)
}

fn exports() -> Value {
    // Name, whether the file beside it is to be chosen, whether the key is to be pasted.
    json!([["inside.html", false, false], ["asks.html", false, true], ["beside.html", true, false]])
}

fn export_all(work: &Path, text: &TestLink, large: &TestLink) {
    let boxed = text.boxed();
    let page = |ciphertext, secret: Option<&Key>| export_page(&Exported { link: text.keys.id(), ciphertext, secret });
    let secret = Some(&text.keys.secret);
    std::fs::write(work.join("inside.html"), page(Ciphertext::Inside(&boxed), secret)).unwrap();
    std::fs::write(work.join("asks.html"), page(Ciphertext::Inside(&boxed), None)).unwrap();
    std::fs::write(work.join("beside.html"), page(Ciphertext::Beside("text.hushbox"), secret)).unwrap();
    std::fs::write(work.join("text.hushbox"), &boxed).unwrap();
    // Whole, but of another link.
    let mut other = large.boxed();
    other.truncate(20 << 20);
    std::fs::write(work.join("large.hushbox"), other).unwrap();
}

/// As age writes it.
fn identity(private: &PrivateHalf) -> String {
    let prefix = bech32::Hrp::parse("age-secret-key-").unwrap();
    bech32::encode_upper::<bech32::Bech32>(prefix, private.expose()).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The decoders of the page alone, on what the codecs here make and on frozen vectors.
#[test]
fn the_pages_decoders() {
    let work = tempfile::tempdir().unwrap();
    let worker = work.path().join("worker.js");
    std::fs::write(&worker, page_file("worker.js").unwrap()).unwrap();
    let plains = [
        vec![7; 65_536],
        picture::noise(10_000),
        b"the end".to_vec(),
        vec![],
        [b"abcabcabc".repeat(500), picture::noise(3000), vec![0; 40_000]].concat(),
        TEXT.repeat(900).into_bytes(),
    ];
    let lz4 =
        plains.iter().map(|plain| json!({ "plain": hex(plain), "packed": hex(&lz4_flex::block::compress(plain)) }));
    let bodies = plains.iter().flat_map(|plain| {
        let mut raw = Writer::new();
        raw.u8(0).varint(plain.len() as u64).raw(plain);
        let mut packed = Writer::new();
        packed.u8(1).varint(plain.len() as u64).raw(&lz4_flex::block::compress(plain));
        // What is nothing is never packed, and an empty claim of a packed one is within the bound.
        let packed = (!plain.is_empty()).then(|| packed.finish());
        [Some(raw.finish()), packed]
            .into_iter()
            .flatten()
            .map(|body| json!({ "plain": hex(plain), "packed": hex(&body) }))
    });
    let (private, size) = (PrivateHalf::generate(&SystemEntropy), 100_000);
    let chunk =
        seal_link_chunk(LinkId([1; 16]), &Key::from_bytes([1; 32]), &picture::noise(size), (3, 70_000), &SystemEntropy)
            .1;
    let (mut reference, mut reference_size) = (Writer::new(), Writer::new());
    chunk.encode(&mut reference);
    reference_size.varint(size as u64);
    let prefix = bech32::Hrp::parse("age").unwrap();
    let vectors = json!({
        "lz4": lz4.collect::<Vec<_>>(),
        "bodies": bodies.collect::<Vec<_>>(),
        "identity": {
            "text": identity(&private),
            "key": hex(private.expose()),
            "recipient": bech32::encode::<bech32::Bech32>(prefix, &private.public().0).unwrap(),
        },
        "reference": hex(&reference.finish()), "referenceSize": hex(&reference_size.finish()), "referenceLength": size,
    });
    let vectors_file = work.path().join("vectors.json");
    std::fs::write(&vectors_file, vectors.to_string()).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let (script, golden) = (tests.join("browser/units.mjs"), tests.join("golden"));
    let status = Command::new("node").args([&script, &worker, &vectors_file, &golden]).status().expect("node");
    assert!(status.success(), "see above");
}
