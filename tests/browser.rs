//! Links as their receivers see them: made by the program from a mounted drive, in a real S3 server's bucket, served by
//! the real gateway, and opened in a real Chromium. `tests/browser/` drives the browser; here the links are made, and
//! what the gateway wrote, and asked the bucket for, is looked at.
//!
//! Screenshots of every state are left in `target/browser-shots`.

#[path = "support/drive.rs"]
mod drive;
#[path = "support/links.rs"]
mod links;
#[path = "support/picture.rs"]
mod picture;
#[path = "support/s3.rs"]
mod s3;
#[path = "browser/tap.rs"]
mod tap;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use drive::{PASSWORD, TestDrive, scratch, text};
use hushfs::base::{LinkId, SystemEntropy};
use hushfs::crypto::{Key, PrivateHalf};
use hushfs::format::Writer;
use hushfs::format::link::{LinkKeys, LinkUrl, RootKind, seal_link_chunk};
use hushfs::gateway::page_file;
use hushfs::store::{Store, StoreOptions, StoreUrl, connect};
use links::{Node, TestLink};
use object_store::{ObjectStoreExt, PutPayload};
use s3::Server;
use serde_json::{Value, json};
use tap::Tap;

const HUSHFS: &str = env!("CARGO_BIN_EXE_hushfs");
/// Of links' contents and names; none of it may reach the gateway.
const CANARY: &str = "canary of a sparrow";
const TEXT: &str = "Grüße aus dem Süden.\n\n<b>Not bold.</b> canary of a sparrow\n";
const LARGE: usize = 300 << 20;
const DOOMED: usize = 40 << 20;
/// More than the page keeps in memory for a download.
const MEDIUM: usize = 48 << 20;
/// More than an exported page has in itself.
const BESIDE: usize = 17 << 20;
/// Each half a second, and this much to fetch.
const FILM: (u32, usize) = (1200, 40_000);
const LINK_PASSWORD: &str = "sword fish ü";

#[test]
fn links_in_a_real_browser() {
    let server = Server::from_environment();
    let target = Path::new(HUSHFS).ancestors().nth(2).expect("a target folder");
    let (modules, shots) = (target.join("browser"), target.join("browser-shots"));
    assert!(modules.join("node_modules").exists(), "run scripts/install.sh test first");
    fs::create_dir_all(&shots).unwrap();
    let bucket = server.make_bucket("browser");
    let extra = vec!["--endpoint-url".into(), server.endpoint.clone()];
    let mut drive = TestDrive::init(scratch(), format!("s3://{bucket}/volume"), extra);
    drive.mount();
    let work = scratch();
    let mut publisher = Publisher::new(&server, &bucket, &drive, work.path());
    publisher.publish_all();
    let Publisher { links, secrets, exports, stolen, .. } = publisher;

    // Between gateway and bucket, too, everything is seen.
    let tap = Tap::start(server.endpoint.trim_start_matches("http://"));
    let mut gateway = Gateway::start(&drive.url, &tap.endpoint, work.path());
    let canaries = [CANARY, "Holiday", "Grüße", "large.bin", LINK_PASSWORD, "picture.png", PASSWORD];
    let canaries = canaries.map(str::to_owned).to_vec();
    let secrets = BTreeMap::from([("a link's secret", secrets), ("a name or content", canaries)]);
    let mount = drive.mount_point();
    let revoke = [HUSHFS, "share", "revoke", links["doomed"]["id"].as_str().unwrap(), mount.to_str().unwrap()];
    let plan = json!({
        "port": gateway.port, "work": work.path(), "shots": shots, "links": links, "secrets": secrets,
        "stolenRecord": stolen, "exports": exports, "revokeDoomed": revoke,
    });
    let plan_file = work.path().join("plan.json");
    fs::write(&plan_file, plan.to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/run.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(&plan_file).env("HUSHFS_BROWSER_MODULES", &modules);
    // Where the daemon's socket is.
    command.env("XDG_RUNTIME_DIR", drive.root.path());
    let status = command.status();
    gateway.stop();
    assert!(status.expect("node").success(), "see above; the log of the gateway:\n{}", gateway.log());

    let log = gateway.log();
    assert!(log.contains("/record") && log.contains("status=206"), "nothing was logged:\n{log}");
    let asked = tap.everything_sent();
    assert!(asked.contains("GET /") && asked.contains("/volume/share/"), "nothing was captured");
    for (what, texts) in &secrets {
        for text in texts {
            assert!(!log.contains(text.as_str()), "{what} is in the gateway's log");
            assert!(!asked.contains(text.as_str()), "{what} is in what the gateway asked the bucket for");
        }
    }
    for link in links.values() {
        let id = link["id"].as_str().unwrap();
        assert!(!log.contains(id), "a whole id is in the gateway's log");
    }
    assert!(!log.contains("127.0.0.1"), "an address is in the gateway's log");
    // Reads, and of links alone.
    let requests = asked.lines().filter(|line| line.ends_with(" HTTP/1.1"));
    for request in requests {
        let is_read = request.starts_with("GET ") || request.starts_with("HEAD ");
        let of_links = request.contains("/volume/share/") || request.contains("prefix=volume%2Fshare%2F");
        assert!(is_read && of_links, "the gateway asked for something else: {request}");
    }
    drive.umount();
}

struct Gateway {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Gateway {
    fn start(url: &str, endpoint: &str, work: &Path) -> Self {
        let log = work.join("gateway.log");
        let mut child = Command::new(HUSHFS)
            .args(["gateway", "--listen", "127.0.0.1:0", "--address-requests", "100000", "--endpoint-url", endpoint])
            .arg(url)
            .env("HUSHFS_LOG", "warn,hushfs=trace")
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
        fs::read_to_string(&self.log).unwrap()
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

struct Publisher<'a> {
    server: &'a Server,
    bucket: &'a str,
    drive: &'a TestDrive,
    work: &'a Path,
    links: BTreeMap<&'static str, Value>,
    secrets: Vec<String>,
    exports: Vec<Value>,
    /// In base64.
    stolen: String,
}

impl<'a> Publisher<'a> {
    fn new(server: &'a Server, bucket: &'a str, drive: &'a TestDrive, work: &'a Path) -> Self {
        let (links, secrets, exports, stolen) = Default::default();
        Self { server, bucket, drive, work, links, secrets, exports, stolen }
    }

    /// As a person does it: into the mounted drive, and shared from there.
    fn share(&mut self, key: &'static str, name: &str, node: &Node, more: Value, options: &[&str]) -> LinkUrl {
        // A folder of its own, so that names may be equal.
        let place = self.drive.mount_point().join(key).join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        write(&place, node);
        let link = self.run(&[&["share", "create", place.to_str().unwrap()], options].concat());
        self.note(key, &link, more)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.drive.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn note(&mut self, key: &'static str, link: &str, more: Value) -> LinkUrl {
        let (id, fragment) = link.split_once('#').expect("a fragment");
        let mut entry = json!({ "id": id, "fragment": fragment });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.links.insert(key, entry);
        let parsed = LinkUrl::parse(link).unwrap();
        self.note_secret(&parsed);
        parsed
    }

    fn note_secret(&mut self, link: &LinkUrl) {
        let Some(secret) = &link.secret else { return };
        let text = link.text();
        self.secrets.push(text.rsplit_once('.').expect("a secret").1.to_owned());
        self.secrets.push(hex(secret.expose()));
    }

    /// What no publisher would make.
    fn plant(&mut self, key: &'static str, link: &TestLink) {
        let options = StoreOptions { endpoint_url: Some(self.server.endpoint.clone()), ..StoreOptions::default() };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let store = connect(&StoreUrl::parse(&self.drive.url).unwrap(), &options).unwrap().store;
            link.upload(&*store as &dyn Store).await;
        });
        self.note(key, &format!("{}#{}", link.keys.id(), link.fragment()), json!({}));
    }

    fn publish_all(&mut self) {
        let file = |bytes: &[u8]| Node::File(bytes.to_vec());
        let over = seconds_now() + 61;
        self.share("expired", "over", &file(b"over"), json!({ "over": over }), &["--expires", "1m"]);
        let text = self.share("text", "Grüße.txt", &file(TEXT.as_bytes()), json!({ "content": TEXT }), &[]);
        self.stolen = stolen_record(text.secret.as_ref().unwrap());

        let (node, mut files) = (holiday(), BTreeMap::new());
        hash_all(&node, "Holiday", &mut files);
        self.share("folder", "Holiday", &node, json!({ "files": files }), &[]);

        let password = self.work.join("link-password");
        fs::write(&password, LINK_PASSWORD).unwrap();
        let with_password = ["--link-password-file", password.to_str().unwrap()];
        self.share("password", "secret plan.txt", &file(CANARY.as_bytes()), json!({}), &with_password);

        let revoked = self.share("revoked", "gone", &file(b"gone"), json!({}), &[]);
        self.run(&["share", "revoke", &revoked.text(), self.drive.mount_point().to_str().unwrap()]);

        let (own, other) = (PrivateHalf::generate(&SystemEntropy), PrivateHalf::generate(&SystemEntropy));
        let identities = json!({ "identity": identity(&own), "otherIdentity": identity(&other) });
        let recipient = recipient(&own);
        let for_one = ["--recipient", &recipient];
        self.share("recipient", "for you.txt", &file(CANARY.as_bytes()), identities, &for_one);
        self.secrets.push(identity(&own));

        for (key, name, len) in
            [("large", "large.bin", LARGE), ("medium", "medium.bin", MEDIUM), ("doomed", "doomed.bin", DOOMED)]
        {
            let bytes = picture::noise(len);
            let more = json!({ "sha256": hex(&hushfs::crypto::sha256(&bytes)) });
            self.share(key, name, &Node::File(bytes), more, &[]);
        }
        self.share("audio", "tone.wav", &Node::File(picture::tone(600)), json!({}), &[]);
        let (frames, padding) = FILM;
        let film = picture::film(frames, padding);
        self.share("video", "film.webm", &file(&film), json!({ "bytes": film.len(), "seconds": frames / 2 }), &[]);
        self.share("pdf", "paper.pdf", &Node::File(picture::pdf()), json!({}), &[]);

        let hostile = hostile_entries();
        let hashes: BTreeMap<_, _> = hostile
            .iter()
            .filter_map(|(name, bytes)| {
                Some((String::from_utf8(name.clone()).ok()?, hex(&hushfs::crypto::sha256(bytes))))
            })
            .collect();
        let node = Node::Folder(hostile.into_iter().map(|(name, bytes)| (name, Node::File(bytes))).collect());
        let title = ["--name", "<script>window.ran=1<\\script>"];
        self.share("hostile", "hostile", &node, json!({ "hashes": hashes }), &title);
        let bomb = Node::folder([(b"a", Node::Sparse(1 << 49)), (b"b", Node::Sparse(1 << 49))]);
        self.share("bomb", "bomb", &bomb, json!({}), &[]);

        self.share("damaged", "damaged.bin", &Node::File(picture::noise(3 << 20)), json!({}), &[]);
        self.damage("damaged", 2_000_000);
        let mut climbing = TestLink::open();
        climbing.publish_raw(b"climbing", RootKind::Directory, (1, 0), &climbing_index());
        self.plant("climbing", &climbing);
        self.export_all(&with_password, &recipient);
    }

    /// One bit of the link's first pack.
    fn damage(&self, key: &str, at: usize) {
        let id = self.links[key]["id"].as_str().unwrap();
        let pack = object_store::path::Path::from(format!("volume/share/{id}/pk/{:020}", 1));
        let client = self.server.client(self.bucket);
        self.server.block_on(async {
            let mut bytes = client.get(&pack).await.unwrap().bytes().await.unwrap().to_vec();
            bytes[at] ^= 1;
            client.put(&pack, PutPayload::from(bytes)).await.unwrap();
        });
    }

    /// Pages out of the mounted drive, and of a link that is published.
    fn export_all(&mut self, with_password: &[&str], recipient: &str) {
        let text = self.drive.mount_point().join("text/Grüße.txt");
        let large = self.drive.mount_point().join("beside.bin");
        let bytes = picture::noise(BESIDE);
        fs::write(&large, &bytes).unwrap();
        let (of_text, of_large) = (hex(&hushfs::crypto::sha256(TEXT.as_bytes())), hex(&hushfs::crypto::sha256(&bytes)));
        let published = format!(
            "{}#{}",
            self.links["text"]["id"].as_str().unwrap(),
            self.links["text"]["fragment"].as_str().unwrap()
        );
        let (url, endpoint) = (self.drive.url.clone(), self.server.endpoint.clone());
        let of_link = ["--with-key", "--store", &url, "--endpoint-url", &endpoint];
        let locked = [&["--with-key"], with_password].concat();
        for (page, what, title, sha256, options) in [
            ("inside.html", text.to_str().unwrap(), "Grüße.txt", &of_text, &["--with-key"][..]),
            ("asks.html", text.to_str().unwrap(), "Grüße.txt", &of_text, &[]),
            ("locked.html", text.to_str().unwrap(), "Grüße.txt", &of_text, &locked),
            ("recipient.html", text.to_str().unwrap(), "Grüße.txt", &of_text, &["--recipient", recipient]),
            ("link.html", published.as_str(), "Grüße.txt", &of_text, &of_link),
            ("beside.html", large.to_str().unwrap(), "beside.bin", &of_large, &["--with-key"]),
        ] {
            let to = self.work.join(page);
            let said = self.run(&[&["share", "export", what, to.to_str().unwrap()], options].concat());
            let is_for_one = options.contains(&"--recipient");
            let key = (!options.contains(&"--with-key") && !is_for_one).then(|| said.clone());
            let identity = is_for_one.then(|| self.links["recipient"]["identity"].clone());
            let beside = to.with_extension("hushbox");
            let password = options.contains(&"--link-password-file").then_some(LINK_PASSWORD);
            let beside = beside.exists().then_some(beside);
            assert_eq!(beside.is_some(), page == "beside.html");
            self.exports.push(json!({
                "page": page, "title": title, "sha256": sha256, "key": key, "beside": beside, "password": password,
                "identity": identity,
            }));
        }
        // Whole, but of another link.
        let mut other = TestLink::open();
        other.publish(b"other", &Node::File(b"other".to_vec()), None);
        fs::write(self.work.join("other.hushbox"), other.boxed()).unwrap();
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn write(place: &Path, node: &Node) {
    match node {
        Node::File(bytes) => fs::write(place, bytes).unwrap(),
        Node::Program(bytes) => {
            fs::write(place, bytes).unwrap();
            fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Node::Sparse(size) => File::create(place).unwrap().set_len(*size).unwrap(),
        Node::Symlink(target) => std::os::unix::fs::symlink(OsStr::from_bytes(target), place).unwrap(),
        Node::Folder(entries) => {
            fs::create_dir(place).unwrap();
            entries.iter().for_each(|(name, node)| write(&place.join(OsStr::from_bytes(name)), node));
        }
    }
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
fn stolen_record(secret: &Key) -> String {
    let keys = LinkKeys { secret: secret.duplicate(), ..LinkKeys::generate(None, &SystemEntropy) };
    let mut forged = TestLink::new(keys);
    forged.publish(b"forged", &Node::File(b"forged".to_vec()), None);
    base64(&forged.objects.last().unwrap().1)
}

/// As age writes it.
fn recipient(private: &PrivateHalf) -> String {
    let prefix = bech32::Hrp::parse("age").unwrap();
    bech32::encode::<bech32::Bech32>(prefix, &private.public().0).unwrap()
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
    let vectors = json!({
        "lz4": lz4.collect::<Vec<_>>(),
        "bodies": bodies.collect::<Vec<_>>(),
        "identity": {
            "text": identity(&private),
            "key": hex(private.expose()),
            "recipient": recipient(&private),
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
