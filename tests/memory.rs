//! What a core of the running daemon holds: no key that opens the volume, wherever it was used before.

#[path = "support/drive.rs"]
mod drive;

use std::fs;
use std::process::Command;
use std::sync::Arc;

use drive::{PASSWORD, TestDrive, text};
use hushfs::base::Epoch;
use hushfs::format::state::open_state_key;
use hushfs::meta::keyring::{KeyObjects, Secret};
use hushfs::store::{StoreOptions, StoreUrl, connect};

#[test]
fn a_core_of_the_daemon_holds_no_key_of_the_volume() {
    let mut drive = TestDrive::local();
    drive.mount();
    let mount = drive.mount_point();
    for number in 0..50 {
        fs::write(mount.join(format!("file{number}")), vec![number; 300_000]).expect("write");
    }
    drive.flush();
    for number in 0..50 {
        assert_eq!(fs::read(mount.join(format!("file{number}"))).expect("read"), vec![number; 300_000]);
    }
    let core = core_of(&drive);
    let keys = keys(&drive);
    drive.umount();

    // The search finds what is there, and all of the heap was dumped.
    assert!(holds(&core, mount.to_str().expect("UTF-8").as_bytes()), "the core does not even hold the mount point");
    assert!(core.len() > 4 << 20, "a core of {} bytes", core.len());
    let found: Vec<_> = keys.iter().filter(|(_, key)| holds(&core, key)).map(|(what, _)| *what).collect();
    assert!(found.is_empty(), "in the core: {found:?}");
}

fn core_of(drive: &TestDrive) -> Vec<u8> {
    let prefix = drive.root.path().join("core");
    let pid = drive.daemon_pid().to_string();
    let output = Command::new("gcore").arg("-o").arg(&prefix).arg(&pid).output().expect("gcore (gdb) is installed");
    assert!(output.status.success(), "{}", text(&output));
    fs::read(prefix.with_extension(pid)).expect("the core")
}

/// What opens the volume and this machine's state, found as the daemon finds it.
fn keys(drive: &TestDrive) -> Vec<(&'static str, [u8; 32])> {
    let store = connect(&StoreUrl::parse(&drive.url).expect("a URL"), &StoreOptions::default()).expect("the store");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let objects = Arc::new(runtime.block_on(KeyObjects::fetch(store.store.as_ref())).expect("the slots"));
    let secret = Secret::Password(PASSWORD.as_bytes().to_vec().into());
    let opened = objects.unlock(&secret, 1 << 30).expect("the password");
    let root = opened.roots.root(Epoch(0)).expect("a root");
    let folders: Vec<_> = fs::read_dir(drive.state_dir()).expect("the state folder").collect();
    let [Ok(folder)] = &folders[..] else { panic!("one volume has one folder: {folders:?}") };
    let state_key = fs::read(folder.path().join("state.key")).expect("state.key");
    let state_key = open_state_key(&state_key, &opened.roots).expect("the state key");
    vec![("the root key", *root.expose()), ("the state key", *state_key.expose())]
}

fn holds(core: &[u8], what: &[u8]) -> bool {
    core.windows(what.len()).any(|window| window == what)
}
