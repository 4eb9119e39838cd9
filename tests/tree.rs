//! The main job on real input: a kernel's source tree (more than 70,000 files) and what trees also have (hard
//! links, extended attributes, sparse files, odd names, nanoseconds) copied in with tar and with cp, everything
//! local deleted, mounted again with nothing but the password, and compared by rsync.

#[path = "support/compare.rs"]
mod compare;
#[path = "support/drive.rs"]
mod drive;
#[path = "support/s3.rs"]
mod s3;

use std::fs;
use std::path::Path;
use std::process::Command;

use compare::{run, same_by_rsync, same_holes, same_times};
use drive::TestDrive;

/// Into both at once: each mostly waits for the other's disk.
#[test]
fn a_kernel_tree_comes_back_from_a_local_store_and_from_s3() {
    let scratch = drive::scratch();
    let source = scratch.path().join("source");
    make_source(&source);
    let files = count_files(&source);
    assert!(files >= 70_000, "only {files} files");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let root = drive::scratch();
            let url = format!("file://{}", root.path().join("store").display());
            let drive = TestDrive::init(root, url, Vec::new());
            let store = drive.store_dir();
            copy_in_and_compare(&source, drive, || folder_bytes(&store));
        });
        scope.spawn(|| {
            let server = s3::Server::from_environment();
            let bucket = server.make_bucket("tree");
            let extra = vec!["--endpoint-url".into(), server.endpoint.clone()];
            let drive = TestDrive::init(drive::scratch(), format!("s3://{bucket}/volume"), extra);
            copy_in_and_compare(&source, drive, || server.bucket_bytes(&bucket));
        });
    });
}

fn copy_in_and_compare(source: &Path, mut drive: TestDrive, store_bytes: impl Fn() -> u64) {
    drive.mount();
    let mount = drive.mount_point();
    run(
        "sh",
        &[
            "-c",
            &format!(
                "mkdir {m}/tar && tar --sparse --xattrs --acls -C {s} -cf - . | tar --xattrs --xattrs-include='*' --acls -C {m}/tar -xpf -",
                m = mount.display(),
                s = source.display()
            ),
        ],
    );
    drive.umount();
    let once = store_bytes();
    let plain = folder_bytes(source);
    assert!(once < plain, "{once} bytes stored for {plain}: larger than the files themselves");

    drive.mount();
    run("cp", &["-a", source.to_str().expect("UTF-8"), mount.join("cp").to_str().expect("UTF-8")]);
    drive.umount();
    let twice = store_bytes();
    eprintln!("{plain} bytes: {once} bytes stored after one copy, {twice} after two");
    assert!(twice - once < once / 4, "the second copy took {} bytes: dedup does not work", twice - once);

    // Nothing local survives.
    for folder in [drive.state_dir(), drive.cache_dir()] {
        fs::remove_dir_all(folder).expect("local state");
    }
    drive.mount();
    for copy in ["tar", "cp"] {
        same_by_rsync(source, &mount.join(copy));
        same_times(source, &mount.join(copy));
        same_holes(&source.join("extra/sparse"), &mount.join(copy).join("extra/sparse"));
    }
    drive.umount();
}

fn make_source(source: &Path) {
    fs::create_dir_all(source).expect("a folder");
    let archive = "/usr/src/linux-source-6.1.tar.xz";
    assert!(
        Path::new(archive).exists(),
        "{archive} is missing: install Debian's linux-source-6.1 (scripts/test.sh does)"
    );
    run("tar", &["-C", source.to_str().expect("UTF-8"), "-xf", archive]);
    let script = r#"
        set -e
        mkdir extra && cd extra
        printf 'one\n' > a && ln a b && ln a "hard link"
        ln -s a symlink && ln -s /nowhere/at/all dangling
        printf x > "$(printf 'not \377 utf8')"
        printf x > "$(head -c 255 /dev/zero | tr '\0' n)"
        mkfifo pipe && mknod null c 1 3 && mknod disk b 7 99
        truncate -s 3G sparse && printf middle | dd of=sparse bs=1 seek=1500000000 conv=notrunc status=none
        head -c 20000000 /dev/urandom > random
        : > empty
        setfattr -n user.comment -v 'a comment' a
        setfattr -n user.large -v "$(head -c 3000 /dev/zero | tr '\0' v)" random
        setfattr -n trusted.secret -v t random
        mkdir -m 2775 setgid && chown 1000:1000 setgid && mkdir -m 1777 sticky
        printf s > suid && chmod 4755 suid && chown 12:34 empty
        touch -d '1969-07-20 20:17:40.123456789 UTC' empty
        touch -h -d '2099-01-01 00:00:00.000000001 UTC' symlink
    "#;
    let status = Command::new("sh").arg("-c").arg(script).current_dir(source).status().expect("sh");
    assert!(status.success());
}

fn count_files(root: &Path) -> usize {
    let listed = Command::new("find").arg(root).args(["-type", "f", "-printf", "x"]).output().expect("find");
    listed.stdout.len()
}

/// What the files take, holes not counted.
fn folder_bytes(root: &Path) -> u64 {
    let listed = Command::new("du").args(["-s", "-B1"]).arg(root).output().expect("du");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("du said {text:?}"))
}
