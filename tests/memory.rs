//! What a core of the daemon holds, taken by the debugger as it works and as it ends: no key that opens the volume,
//! wherever it was used before.

#[path = "support/drive.rs"]
mod drive;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use drive::{PASSWORD, TestDrive, text};
use hushfs::base::Seq;
use hushfs::format::Record;
use hushfs::format::rows::{FileKeyRow, RowKey};
use hushfs::format::state::open_state_key;
use hushfs::meta::keyring::{KeyObjects, Opened, Secret};
use hushfs::store::{StoreOptions, StoreUrl, connect};

/// Mounted, used in every way that needs a key, and rotated.
fn used_drive() -> TestDrive {
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    for number in 0..50 {
        fs::write(mount.join(format!("file{number}")), vec![number; 300_000]).expect("write");
    }
    drive.flush();
    let (state, cache) = (drive.state_dir(), drive.cache_dir());
    let [state, cache] = [&state, &cache].map(|dir| dir.to_str().expect("UTF-8"));
    let output = drive.run(&["key", "rotate", &drive.url, "--state-dir", state, "--cache-dir", cache]);
    assert!(output.status.success(), "{}", text(&output));
    fs::write(mount.join("file0"), vec![200; 300_000]).expect("write");
    drive.flush();
    for number in 1..50 {
        assert_eq!(fs::read(mount.join(format!("file{number}"))).expect("read"), vec![number; 300_000]);
    }
    drive
}

#[test]
fn a_core_of_the_daemon_holds_no_key_of_the_volume() {
    let mut drive = used_drive();
    let core = core_of(&drive);
    let keys = keys(&drive);
    drive.umount();
    assert_clean(&core, &drive, &keys);
}

/// Now with the pages that no core has otherwise: keys that are not needed any more are wiped, not only hidden.
#[test]
fn all_memory_of_the_daemon_as_it_ends_holds_no_key_of_the_volume() {
    let mut drive = used_drive();
    let keys = keys(&drive);
    let debugger = Debugger::wait_for_the_end_of(&drive);
    drive.umount();
    assert_clean(&debugger.core(), &drive, &keys);
}

fn assert_clean(core: &[u8], drive: &TestDrive, keys: &[(String, Vec<u8>)]) {
    // The search finds what is there, and all of the heap was dumped.
    let mount = drive.mount_point().to_str().expect("UTF-8").to_owned();
    let decoy = [(mount.clone(), mount.into_bytes())];
    assert!(!found(core, &decoy).is_empty(), "the core does not even hold the mount point");
    assert!(core.len() > 4 << 20, "a core of {} bytes", core.len());
    let found = found(core, keys);
    assert!(found.is_empty(), "in the core: {found:?}");
}

/// Which of them are there, by name. In one pass, as a core is long and the keys are many.
fn found<'a>(core: &[u8], keys: &'a [(String, Vec<u8>)]) -> BTreeSet<&'a str> {
    let prefix = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
    let mut is_prefix = vec![false; 1 << 16];
    keys.iter().for_each(|(_, key)| is_prefix[prefix(key)] = true);
    let mut found = BTreeSet::new();
    for at in 0..core.len() - 1 {
        if is_prefix[prefix(&core[at..])] {
            found.extend(keys.iter().filter(|(_, key)| core[at..].starts_with(key)).map(|(what, _)| what.as_str()));
        }
    }
    found
}

fn core_of(drive: &TestDrive) -> Vec<u8> {
    let prefix = drive.root.path().join("core");
    let pid = drive.daemon_pid().to_string();
    let output = Command::new("gcore").arg("-o").arg(&prefix).arg(&pid).output().expect("gcore (gdb) is installed");
    assert!(output.status.success(), "{}", text(&output));
    fs::read(prefix.with_extension(pid)).expect("the core")
}

/// Writes a core when the process is about to be gone.
struct Debugger {
    process: Child,
    output: BufReader<ChildStdout>,
    core: PathBuf,
}

impl Debugger {
    fn wait_for_the_end_of(drive: &TestDrive) -> Self {
        let core = drive.root.path().join("core.end");
        let generate = format!("generate-core-file {}", core.display());
        let commands = [
            "set pagination off",
            "set use-coredump-filter off",
            "set dump-excluded-mappings on",
            "handle all nostop noprint pass",
            "catch syscall exit_group",
            "continue",
            &generate,
        ];
        let mut gdb = Command::new("gdb");
        gdb.args(["-batch", "-p", &drive.daemon_pid().to_string()]);
        for command in commands {
            gdb.args(["-ex", command]);
        }
        let gdb = gdb.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = gdb.spawn().expect("gdb is installed");
        let mut output = BufReader::new(process.stdout.take().expect("its output"));
        let mut line = String::new();
        while !line.starts_with("Catchpoint") {
            line.clear();
            assert!(output.read_line(&mut line).expect("its output") > 0, "gdb ended before it began");
        }
        Self { process, output, core }
    }

    fn core(mut self) -> Vec<u8> {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut said).expect("its output");
        assert!(self.process.wait().expect("gdb").success(), "{said}");
        fs::read(&self.core).unwrap_or_else(|error| panic!("{error}: {said}"))
    }
}

/// What opens the volume and this machine's state, found as the daemon finds it, each as bytes and as text.
fn keys(drive: &TestDrive) -> Vec<(String, Vec<u8>)> {
    let store = connect(&StoreUrl::parse(&drive.url).expect("a URL"), &StoreOptions::default()).expect("the store");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let objects = Arc::new(runtime.block_on(KeyObjects::fetch(store.store.as_ref())).expect("the slots"));
    let secret = Secret::Password(PASSWORD.as_bytes().to_vec().into());
    let opened = objects.unlock(&secret, 1 << 30).expect("the password");
    let folders: Vec<_> = fs::read_dir(drive.state_dir()).expect("the state folder").collect();
    let [Ok(folder)] = &folders[..] else { panic!("one volume has one folder: {folders:?}") };
    let state_key = fs::read(folder.path().join("state.key")).expect("state.key");
    let state_key = open_state_key(&state_key, &opened.roots).expect("the state key");

    let mut keys = vec![
        ("the state key".to_owned(), *state_key.expose()),
        ("the slot's private half".to_owned(), *opened.private.expose()),
    ];
    let epochs = opened.roots.epochs();
    assert!(epochs.len() > 1, "it was not rotated");
    for epoch in epochs {
        keys.push((format!("the root key of epoch {epoch}"), *opened.roots.root(epoch).expect("a root").expose()));
    }
    let file_keys = file_keys(drive, &opened);
    assert!(file_keys.len() > 1, "no file has a key");
    keys.extend(file_keys.into_iter().map(|key| ("a file's key".to_owned(), key)));
    let hex = |key: &[u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
    let texts: Vec<_> = keys.iter().map(|(what, key)| (format!("{what}, in hexadecimal"), hex(key))).collect();
    keys.into_iter().map(|(what, key)| (what, key.to_vec())).chain(texts).collect()
}

/// Of all files that the log tells of.
fn file_keys(drive: &TestDrive, opened: &Opened) -> Vec<[u8; 32]> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(drive.store_dir().join("log")).expect("the log") {
        let path = entry.expect("an entry").path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number");
        let record = Record::open(Seq(number), &fs::read(&path).expect("a record"), &opened.roots).expect("a record");
        for (key, value) in record.rows {
            if let (Ok(RowKey::FileKey(number)), Some(value)) = (RowKey::decode(&key), value) {
                let row = FileKeyRow::decode(&value).expect("a row");
                let key = opened.roots.unwrap_file_key(row.epoch, number, &row.wrapped).expect("a file's key");
                keys.push(*key.expose());
            }
        }
    }
    keys
}
