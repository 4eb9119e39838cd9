//! FORMAT.md says enough: `scripts/decode.py`, which goes by it, reads what the program wrote, now and in volumes
//! that were frozen (`tests/golden/volume-*`), and the program still reads those too.

#[path = "support/compare.rs"]
mod compare;
#[path = "support/drive.rs"]
mod drive;
#[path = "decode/frozen.rs"]
mod frozen;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use compare::{same_by_rsync, same_holes, same_times};
use drive::{PASSWORD, TestDrive, text};
use frozen::{PLAIN, ROTATED};

const BEFORE: &str = r#"
    printf 'one\n' > a
    ln a b
    ln a "hard link"
    ln a gone
    ln -s a symlink
    ln -s /nowhere/at/all dangling
    printf x > "$(printf 'not \377 utf8')"
    printf x > "$(printf 'new\nline')"
    printf x > ./--help
    printf x > é
    printf x > "$(head -c 255 /dev/zero | tr '\0' n)"
    mkfifo pipe
    mknod null c 1 3
    mknod disk b 7 99
    mknod large c 259 1048575
    python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
    truncate -s 3G sparse
    printf middle | dd of=sparse bs=1 seek=1500000000 conv=notrunc status=none
    cp "$NOISE" noise
    cp "$NOISE" again
    cp "$NOISE" cut
    : > empty
    seq 1 200000 > numbers
    setfattr -n user.comment -v 'a comment' a
    setfattr -n trusted.secret -v t noise
    setfattr -n user.large -v "$(head -c 3000 /dev/zero | tr '\0' v)" noise
    setfattr -n user.empty noise
    mkdir -m 2775 setgid
    chown 1000:1000 setgid
    mkdir -m 1777 sticky
    printf s > suid
    chmod 4755 suid
    chown 12:34 empty
    chown -h 3000000000:1 dangling
    mkdir -p deep/er/and/deeper removed/with/all
    printf d > deep/er/and/deeper/file
    printf r > removed/file
    mkdir many
    seq -w 1 8000 | split -a 4 -d -l 1 - many/f
"#;

const BETWEEN: &str = r#"
    for at in 1 3 5 7 9 11 13 15 17 19 2000 3000; do
        printf over | dd of=noise bs=1024 seek=$at conv=notrunc status=none
    done
    printf far | dd of=sparse bs=1 seek=200000000 conv=notrunc status=none
    truncate -s 1500000 cut
    truncate -s 2000000 cut
    printf more >> numbers
    mv deep/er/and moved
    mv again noise.2
    rm -r removed gone
    printf new > new
    mv new many/f0001
    setfattr -x user.comment a
    chmod 600 b
"#;

const AFTER: &str = r#"
    printf two >> a
    rm many/f0002
    mkdir late
    mv many/f0003 late/
    printf last > late/file
    find . -exec touch -h -d '2001-02-03 04:05:06.123456789 UTC' {} +
    touch -d '1969-07-20 20:17:40.123456789 UTC' empty
    touch -h -d '2099-01-01 00:00:00.000000001 UTC' symlink
    touch -d '1901-12-13 20:45:52 UTC' late
"#;

#[test]
fn a_fresh_volume_comes_back_by_the_format() {
    let mut drive = TestDrive::local();
    let source = drive.root.path().join("source");
    fs::create_dir(&source).expect("a folder");
    let noise = drive.root.path().join("noise");
    fs::write(&noise, noise_of(3_500_000)).expect("noise");
    succeed(&drive.run(&["key", "add", &drive.url, "--recipient", RECIPIENT]));
    drive.mount();
    for script in [BEFORE, BETWEEN, AFTER] {
        for folder in [&source, &drive.mount_point()] {
            let script = format!("set -e\nNOISE={}\n{script}", noise.display());
            let status = Command::new("sh").args(["-c", &script]).current_dir(folder).status().expect("sh");
            assert!(status.success(), "in {}", folder.display());
        }
        drive.flush();
        await_checkpoint(&drive);
        rotate(&drive, if script == BETWEEN { &["--data"] } else { &[] });
    }
    drive.umount();

    let store = drive.store_dir();
    let password = drive.password_file();
    succeed(&decode(&store, &password, &["verify"]));
    let copy = drive.root.path().join("copy");
    succeed(&decode(&store, &password, &["extract", copy.to_str().expect("UTF-8")]));
    same_by_rsync(&source, &copy);
    same_times(&source, &copy);
    same_holes(&source.join("sparse"), &copy.join("sparse"));

    let part = drive.root.path().join("part");
    succeed(&decode(&store, &password, &["extract", part.to_str().expect("UTF-8"), "moved/deeper", "late/file"]));
    same_by_rsync(&source.join("moved/deeper"), &part.join("moved/deeper"));
    assert_eq!(fs::read(part.join("late/file")).expect("a file"), b"last");
    assert!(!part.join("a").exists());

    // By the key of somebody who was let in before all the rotations.
    let identities = drive.root.path().join("identities");
    fs::write(&identities, format!("# two keys\n{OTHER_IDENTITY}\n\n{IDENTITY}\n")).expect("a file");
    let theirs = decode_by("--identity-file", &store, &identities, &["list"]);
    succeed(&theirs);
    assert_eq!(theirs.stdout, decode(&store, &password, &["list"]).stdout);
    fs::write(&identities, OTHER_IDENTITY).expect("a file");
    assert_eq!(decode_by("--identity-file", &store, &identities, &["list"]).status.code(), Some(3));
    fs::write(&identities, IDENTITY.replace("GFPY", "GFPX")).expect("a file");
    let mistyped = decode_by("--identity-file", &store, &identities, &["list"]);
    assert!(!mistyped.status.success() && text(&mistyped).contains("identity"), "{}", text(&mistyped));
}

const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const OTHER_IDENTITY: &str = "AGE-SECRET-KEY-1GDP5XS6RGDP5XS6RGDP5XS6RGDP5XS6RGDP5XS6RGDP5XS6RGDPSST380Y";

/// By the daemon, as the volume is mounted.
fn rotate(drive: &TestDrive, more: &[&str]) {
    let (state, cache) = (drive.state_dir(), drive.cache_dir());
    let [state, cache] = [&state, &cache].map(|dir| dir.to_str().expect("UTF-8"));
    let command = ["key", "rotate", &drive.url, "--state-dir", state, "--cache-dir", cache];
    succeed(&drive.run(&[&command, more].concat()));
}

#[test]
fn the_golden_vectors_open_by_the_format() {
    let output = Command::new(python()).arg(repository().join("tests/golden/check.py")).output().expect("python");
    succeed(&output);
}

#[test]
fn the_frozen_volumes_are_what_they_were_by_the_format() {
    for volume in [PLAIN, ROTATED] {
        let frozen = volume.copy();
        succeed(&decode(&frozen.store(), &frozen.password(), &["verify"]));
        let list = decode(&frozen.store(), &frozen.password(), &["list"]);
        succeed(&list);
        assert_eq!(String::from_utf8_lossy(&list.stdout), volume.expected("listing"));
        let copy = frozen.root.path().join("copy");
        succeed(&decode(&frozen.store(), &frozen.password(), &["extract", copy.to_str().expect("UTF-8")]));
        volume.check_tree(&copy);

        let words = frozen.root.path().join("words");
        fs::write(&words, volume.expected("recovery-words").to_uppercase()).expect("a file");
        let by_words = decode_by("--recovery-words-file", &frozen.store(), &words, &["list"]);
        succeed(&by_words);
        assert_eq!(by_words.stdout, list.stdout);
    }
}

#[test]
fn the_program_opens_the_frozen_volumes() {
    for volume in [PLAIN, ROTATED] {
        let frozen = volume.copy();
        let url = format!("file://{}", frozen.store().display());
        let mut drive = TestDrive::existing(frozen.root, url, Vec::new());
        drive.mount_with(&["-o", "ro"]);
        assert_eq!(frozen::listing(&drive.mount_point()), volume.expected("listing"));
        volume.check_tree(&drive.mount_point());
        drive.umount();
    }
}

#[test]
fn the_frozen_recipient_and_the_frozen_links_open_too() {
    let frozen = ROTATED.copy();
    let identity = frozen.root.path().join("identity");
    fs::write(&identity, IDENTITY).expect("a file");
    let theirs = decode_by("--identity-file", &frozen.store(), &identity, &["list"]);
    succeed(&theirs);
    assert_eq!(String::from_utf8_lossy(&theirs.stdout), ROTATED.expected("listing"));

    let links = ROTATED.expected("links");
    let (open, revoked) = links.trim_end().split_once('\n').expect("two links");
    let out = frozen.root.path().join("decoded");
    let extract = ["link", open, "extract", out.to_str().expect("UTF-8")];
    succeed(&Command::new(python()).arg(script()).arg(frozen.store()).args(extract).output().expect("python"));
    let gone = Command::new(python()).arg(script()).arg(frozen.store()).args(["link", revoked, "list"]).output();
    assert_eq!(gone.expect("python").status.code(), Some(10));
    let sums = ROTATED.expected("sha256sums");
    let sums: Vec<_> = sums.lines().filter(|line| line.contains("  ./shared/")).collect();
    assert_eq!(sums.len(), 4);
    fs::write(out.join("sums"), sums.join("\n") + "\n").expect("a file");
    let check =
        |folder: &Path| Command::new("sha256sum").args(["-c", "sums"]).current_dir(folder).output().expect("sha256sum");
    succeed(&check(&out));

    let url = format!("file://{}", frozen.store().display());
    let drive = TestDrive::existing(frozen.root, url, Vec::new());
    let got = drive.root.path().join("got");
    fs::create_dir(&got).expect("a folder");
    let get = |link: &str| drive.run(&["get", link, "-o", got.to_str().expect("UTF-8"), "--store", &drive.url]);
    succeed(&get(open));
    fs::copy(out.join("sums"), got.join("sums")).expect("a file");
    succeed(&check(&got));
    let refused = get(revoked);
    assert!(!refused.status.success() && text(&refused).contains("taken back"), "{}", text(&refused));
}

#[test]
fn what_is_damaged_is_named_and_the_rest_is_read() {
    // What happens to which object, what is said of it, and whether files still come out.
    let only = |folder: &str| PLAIN.only_object(folder);
    let (checkpoint, segment) = (only("ck"), only("seg"));
    let log = PLAIN.objects("log");
    let (first, last) = (log.first().expect("a record").clone(), log.last().expect("a record").clone());
    let packs = PLAIN.objects("pk");
    let pack = packs.first().expect("a pack").clone();
    type Harm = Box<dyn Fn(&Path)>;
    let flip = |name: &str, at: i64| -> Harm {
        let name = name.to_owned();
        Box::new(move |store| frozen::flip(&store.join(&name), at))
    };
    let remove = |name: &str| -> Harm {
        let name = name.to_owned();
        Box::new(move |store| fs::remove_file(store.join(&name)).expect("an object"))
    };
    let swap = |a: &str, b: &str| -> Harm {
        let (a, b) = (a.to_owned(), b.to_owned());
        Box::new(move |store| {
            let (x, y) = (fs::read(store.join(&a)).expect("an object"), fs::read(store.join(&b)).expect("an object"));
            fs::write(store.join(&a), y).expect("an object");
            fs::write(store.join(&b), x).expect("an object");
        })
    };
    let cases: Vec<(Harm, &str, &str)> = vec![
        (flip(&first, -1), &first, "authentication"),
        (flip(&last, 40), &last, "authentication"),
        (remove(&first), &first, "missing"),
        (swap(&first, &last), &first, "authentication"),
        (flip(&checkpoint, 100), &checkpoint, "authentication"),
        (flip(&segment, 100), &segment, "authentication"),
        (remove(&segment), &segment, "missing"),
        (flip("floor/00000000000000000001", 50), "floor/00000000000000000001", "authentication"),
        (flip(&pack, 70), &pack, "authentication"),
        (remove(&pack), &pack, "missing"),
    ];
    for (harm, name, word) in cases {
        let frozen = PLAIN.copy();
        harm(&frozen.store());
        let verify = decode(&frozen.store(), &frozen.password(), &["verify"]);
        assert_eq!(verify.status.code(), Some(1), "{name}: {}", text(&verify));
        let named = text(&verify).lines().any(|line| line.contains(name) && line.contains(word));
        assert!(named, "{name} and {word} are not in:\n{}", text(&verify));
        assert!(!text(&verify).contains("Traceback"), "{name}: {}", text(&verify));
    }

    // One pack is gone: whatever has no bytes in it is there, whole, and nothing else.
    let frozen = PLAIN.copy();
    remove(&pack)(&frozen.store());
    let copy = frozen.root.path().join("copy");
    let extract = decode(&frozen.store(), &frozen.password(), &["extract", copy.to_str().expect("UTF-8")]);
    assert_eq!(extract.status.code(), Some(1), "{}", text(&extract));
    let lost = PLAIN.wrong_files(&copy);
    assert!(!lost.is_empty() && lost.iter().all(|path| !copy.join(path).exists()), "{lost:?}");
    assert!(PLAIN.files() > lost.len(), "nothing came out");
}

#[test]
fn each_failure_has_its_exit_code_and_says_why() {
    let frozen = PLAIN.copy();
    let code = |output: &Output, code, said: &str| {
        assert_eq!(output.status.code(), Some(code), "{}", text(output));
        assert!(text(output).contains(said), "{said:?} is not in:\n{}", text(output));
    };
    let wrong = frozen.root.path().join("wrong");
    fs::write(&wrong, "another\n").expect("a file");
    code(&decode(&frozen.store(), &wrong, &["list"]), 3, "opens none of the 1 slots");
    code(&decode(frozen.root.path(), &frozen.password(), &["list"]), 4, "no volume");
    code(&decode(&frozen.store(), &frozen.password(), &["unknown"]), 2, "usage");
    let (store, dest) = (frozen.store(), frozen.root.path().to_str().expect("UTF-8"));
    code(&decode(&store, &frozen.password(), &["extract", dest]), 1, "is not empty");
    code(&decode(&store, &frozen.password(), &["extract", "x", "../etc"]), 1, "is not in the volume");
    // -S: without the modules that are installed.
    let bare = Command::new(python()).arg("-S").arg(script()).output().expect("python");
    code(&bare, 2, "pip install -r");
}

#[test]
fn a_link_comes_back_by_the_format_without_the_volume() {
    let mut drive = TestDrive::local();
    drive.mount();
    let folder = drive.mount_point().join("shared");
    let script = r#"
        mkdir -p shared/sub/empty && cd shared
        seq 1 100000 > numbers
        cp "$NOISE" noise
        cp "$NOISE" sub/again
        printf '#!/bin/sh\n' > run && chmod 755 run
        : > nothing
        truncate -s 200M sparse && printf middle | dd of=sparse bs=1 seek=150000000 conv=notrunc status=none
        ln -s sub/again inside
        find . -exec touch -h -d '2001-02-03 04:05:06.123456789 UTC' {} +
    "#;
    let noise = drive.root.path().join("noise");
    fs::write(&noise, noise_of(3_500_000)).expect("noise");
    let script = format!("set -e\nNOISE={}\n{script}", noise.display());
    let made = Command::new("sh").args(["-c", &script]).current_dir(drive.mount_point()).status().expect("sh");
    assert!(made.success());
    let password = drive.root.path().join("link-password");
    fs::write(&password, "of the link\n").expect("a file");
    let share = |more: &[&str]| {
        let output = drive.run(&[&["share", "create", folder.to_str().expect("UTF-8")], more].concat());
        succeed(&output);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let open = share(&[]);
    let locked = share(&["--link-password-file", password.to_str().expect("UTF-8")]);
    let for_one = share(&["--recipient", RECIPIENT]);
    let revoked = share(&[]);
    succeed(&drive.run(&["share", "revoke", &revoked, drive.mount_point().to_str().expect("UTF-8")]));
    // All that a holder of the link needs of the bucket.
    let copy = drive.root.path().join("copy");
    fs::create_dir(&copy).expect("a folder");
    let copied = Command::new("cp").arg("-a").arg(drive.store_dir().join("share")).arg(&copy).status().expect("cp");
    assert!(copied.success());
    let link_by = |option: &str, link: &str, more: &[&str], secret: Option<&Path>| {
        let mut command = Command::new(python());
        command.arg(self::script()).arg(&copy);
        secret.map(|secret| command.arg(option).arg(secret));
        command.args(["link", link]).args(more).output().expect("python")
    };
    let link = |link: &str, more: &[&str], password: Option<&Path>| link_by("--password-file", link, more, password);
    // What somebody planted hides nothing of the owner's.
    let (own, _) = open.split_once('#').expect("an id");
    fs::write(copy.join("share").join(own).join(format!("{:020}", 7)), b"planted").expect("a file");
    let listed = link(&open, &["list"], None);
    succeed(&listed);
    assert!(text(&listed).contains("x 10 2001-02-03 04:05:06.123456789 +0000 shared/run"), "{}", text(&listed));
    assert!(text(&listed).contains("shared/inside -> sub/again"));
    for (at, (url, password)) in [(&open, None), (&locked, Some(password.as_path()))].into_iter().enumerate() {
        let out = drive.root.path().join(format!("out{at}"));
        succeed(&link(url, &["extract", out.to_str().expect("UTF-8")], password));
        same_by_rsync(&folder, &out.join("shared"));
        same_times(&folder, &out.join("shared"));
        same_holes(&folder.join("sparse"), &out.join("shared/sparse"));
    }
    let (identity, out) = (drive.root.path().join("identity"), drive.root.path().join("out-for-one"));
    let by_identity = |keys: &str| {
        fs::write(&identity, keys).expect("a file");
        link_by("--identity-file", &for_one, &["extract", out.to_str().expect("UTF-8")], Some(&identity))
    };
    succeed(&by_identity(&format!("# two keys\n{OTHER_IDENTITY}\n{IDENTITY}\n")));
    same_by_rsync(&folder, &out.join("shared"));
    let code = |output: Output| output.status.code();
    assert_eq!(code(by_identity(OTHER_IDENTITY)), Some(3));
    assert_eq!(code(link(&for_one, &["list"], None)), Some(3));
    let without_secret = format!("{}#1", open.split('#').next().expect("an id"));
    assert_eq!(code(link(&without_secret, &["list"], None)), Some(2));
    let volumes = drive.password_file();
    assert_eq!(code(link(&locked, &["list"], None)), Some(3));
    assert_eq!(code(link(&locked, &["list"], Some(&volumes))), Some(3));
    assert_eq!(code(link(&revoked, &["list"], None)), Some(10));
    assert_eq!(code(link("nothing", &["list"], None)), Some(2));
    // A byte that is not the owner's is refused.
    let id = open.split('#').next().expect("an id");
    let pack = copy.join("share").join(id).join("pk/00000000000000000001");
    let mut bytes = fs::read(&pack).expect("a pack");
    bytes[1000] ^= 1;
    fs::write(&pack, bytes).expect("a pack");
    let out = drive.root.path().join("damaged");
    assert_eq!(code(link(&open, &["extract", out.to_str().expect("UTF-8")], None)), Some(1));
    drive.umount();
}

fn await_checkpoint(drive: &TestDrive) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::read_dir(drive.store_dir().join("ck")).is_ok_and(|mut found| found.next().is_some()) {
        assert!(Instant::now() < deadline, "no checkpoint after 60 s:\n{}", drive.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn decode(store: &Path, password_file: &Path, arguments: &[&str]) -> Output {
    decode_by("--password-file", store, password_file, arguments)
}

fn decode_by(secret: &str, store: &Path, file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(python());
    command.arg(script()).arg(store).arg(secret).arg(file).args(arguments);
    command.output().expect("python")
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn script() -> PathBuf {
    repository().join("scripts/decode.py")
}

/// With the modules of `scripts/decode-requirements.txt`.
fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let python = target.join("decode-venv/bin/python");
    assert!(python.exists(), "{} is missing: scripts/install.sh test makes it", python.display());
    python
}

/// Nothing that compresses, and always the same.
fn noise_of(len: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}
