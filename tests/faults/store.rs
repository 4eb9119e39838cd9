//! The store is refused, slow, hanging, lying about what it did, or gone. What is here goes on, what is to go there
//! waits, and arrives by itself when the store is well again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hushfs::format::Prefix;
use hushfs::store::{Fault, Op, Rule, StoreErrorKind, When};
use hushfs::vfs::api::VfsError;

use crate::rig::{Rig, eventually, noise};

/// Longer than any deadline of the rig's.
const TOO_SLOW: Duration = Duration::from_secs(3600);

/// What a store can do, and what a person must be told of it.
fn outages() -> Vec<(Fault, &'static str)> {
    let fail = Fault::Fail;
    vec![
        (fail(StoreErrorKind::Unreachable), "store unreachable"),
        (fail(StoreErrorKind::Server), "store error"),
        (fail(StoreErrorKind::Throttled), "throttled"),
        (fail(StoreErrorKind::Denied), "access denied"),
        (fail(StoreErrorKind::CredentialsExpired), "credentials expired"),
        (fail(StoreErrorKind::NoBucket), "no such bucket"),
        (fail(StoreErrorKind::Full), "no space in the store"),
        (Fault::Hang, "no answer"),
        (Fault::Delay(TOO_SLOW), "no answer"),
    ]
}

/// One file that is cached here, and one that is only in the store.
fn rig_with_files() -> Rig {
    let mut rig = Rig::new();
    let files = rig.mount();
    files.mkdir("dir").unwrap();
    files.save("dir/near", &noise(1, 300_000)).unwrap();
    rig.flush();
    files.save("dir/far", &noise(2, 300_000)).unwrap();
    rig.flush();
    rig.close();
    std::fs::remove_dir_all(rig.cache_dir()).unwrap();
    assert_eq!(rig.mount().read("dir/near").unwrap(), noise(1, 300_000));
    rig
}

/// Changes of all sorts, each of them with its fsync.
fn work(rig: &Rig, round: u64) {
    let files = rig.files();
    assert_eq!(files.names("dir").unwrap()[..2], ["far", "near"]);
    files.save(&format!("dir/new{round}"), &noise(100 + round, 1000)).unwrap();
    files.save(&format!("dir/new-big{round}"), &noise(200 + round, 3_000_000)).unwrap();
    files.write("dir/draft", &noise(300 + round, 5000)).unwrap();
    files.rename("dir/draft", "dir/saved").unwrap();
    files.sync("dir/saved").unwrap();
    assert_eq!(files.read(&format!("dir/new-big{round}")).unwrap(), noise(200 + round, 3_000_000));
}

fn check_work(rig: &Rig, rounds: impl Iterator<Item = u64>) {
    let files = rig.files();
    for round in rounds {
        assert_eq!(files.read(&format!("dir/new{round}")).unwrap(), noise(100 + round, 1000));
        assert_eq!(files.read(&format!("dir/new-big{round}")).unwrap(), noise(200 + round, 3_000_000));
        if files.read("dir/saved").unwrap() == noise(300 + round, 5000) {
            return;
        }
    }
    panic!("what was renamed over is none of what was written");
}

#[test]
fn everything_local_goes_on_while_the_store_fails_and_uploads_resume_by_themselves() {
    for (fault, told) in outages() {
        eprintln!("{fault:?}");
        let mut rig = rig_with_files();
        rig.break_store(fault.clone());
        let files = rig.files();
        assert_eq!(files.read("dir/near").unwrap(), noise(1, 300_000), "a cached read");
        work(&rig, 0);
        let far = files.read("dir/far").unwrap_err();
        assert!(matches!(far, VfsError::Io | VfsError::TimedOut), "{far:?}");
        eventually("status says what is wrong", || rig.troubles().contains(told));
        assert!(rig.try_flush(Duration::from_millis(300)).is_err(), "flushed into a store that fails");
        let many = 12;
        (0..many).for_each(|n| files.write(&format!("dir/waits-{n}"), b"little").unwrap());
        assert!(rig.try_flush(Duration::from_millis(100)).is_err());
        assert!(rig.status().waiting_files >= many, "{} files wait", rig.status().waiting_files);
        work(&rig, 1);

        rig.faults.clear();
        // Nobody asks for it: no flush, no new mount.
        eventually("uploads resume", || {
            let status = rig.status();
            status.commits.waiting == 0 && status.upload_packs == 0 && status.drive.uncut_for.is_none()
        });
        assert_eq!(files.read("dir/far").unwrap(), noise(2, 300_000));
        let status = rig.status();
        assert_eq!(status.waiting_files, 0);
        assert!(status.uploads.failing.is_none() && status.commits.failing.is_none(), "{}", rig.troubles());
        rig.close();
        rig.become_new_machine("two");
        rig.mount();
        check_work(&rig, [1].into_iter());
    }
}

/// One of each sort: no connection, a refusal, an answer of the store's own, silence.
fn some_outages() -> Vec<(Fault, &'static str)> {
    let kinds = ["store unreachable", "credentials expired", "no such bucket", "store error"];
    let hang = |fault: &Fault| *fault == Fault::Hang;
    outages().into_iter().filter(|(fault, told)| kinds.contains(told) || hang(fault)).collect()
}

#[test]
fn a_drive_mounts_offline_with_its_tree_and_takes_changes() {
    for (fault, _) in some_outages() {
        eprintln!("{fault:?}");
        let mut rig = rig_with_files();
        rig.break_store(fault.clone());
        work(&rig, 0);
        // Once in order, once not.
        for end in [Rig::close, Rig::kill] {
            end(&mut rig);
            let start = Instant::now();
            let files = rig.mount();
            assert!(start.elapsed() < Duration::from_secs(8), "offline mount took {:?}", start.elapsed());
            assert!(rig.volume().opened().offline.is_some(), "nobody is told");
            assert_eq!(files.names("dir").unwrap(), ["far", "near", "new-big0", "new0", "saved"]);
            check_work(&rig, [0].into_iter());
            assert_eq!(files.read("dir/near").unwrap(), noise(1, 300_000));
            files.read("dir/far").unwrap_err();
        }
        work(&rig, 1);
        rig.kill();
        rig.faults.clear();
        rig.mount();
        rig.flush();
        rig.close();
        rig.become_new_machine("two");
        let files = rig.mount();
        check_work(&rig, [1].into_iter());
        assert_eq!(files.read("dir/far").unwrap(), noise(2, 300_000));
    }
}

#[test]
fn an_answer_that_is_lost_after_the_put_was_applied_loses_and_doubles_nothing() {
    let lost = [
        Fault::ApplyThenFail(StoreErrorKind::Unknown),
        Fault::ApplyThenFail(StoreErrorKind::Unreachable),
        Fault::ApplyThenHang,
        Fault::LieExists,
    ];
    for fault in lost {
        eprintln!("{fault:?}");
        let mut rig = rig_with_files();
        rig.faults.add(Rule::on(Op::Create, fault).when(When::First(7)));
        let head = rig.status().commits.head;
        for round in 0..3 {
            work(&rig, round);
            rig.flush();
        }
        assert!(rig.status().commits.halted.is_none(), "{}", rig.troubles());
        assert!(rig.faults.fired() > 0);
        // A commit that took its own record for somebody else's would make another.
        let records = rig.objects(hushfs::store::Prefix::Log).len() as u64;
        assert_eq!(records, rig.status().commits.head.0);
        assert!(records > head.0);
        rig.close();
        rig.become_new_machine("two");
        rig.mount();
        check_work(&rig, [2].into_iter());
    }
}

#[test]
fn a_store_that_fails_now_and_then_in_every_way_gets_everything_in_the_end() {
    let kinds =
        [StoreErrorKind::Unknown, StoreErrorKind::Unreachable, StoreErrorKind::Server, StoreErrorKind::Throttled];
    let mut faults = vec![Fault::Hang, Fault::ApplyThenHang, Fault::Delay(Duration::from_millis(30))];
    faults.extend(kinds.into_iter().flat_map(|kind| [Fault::Fail(kind), Fault::ApplyThenFail(kind)]));
    for seed in 0..5 {
        let mut rig = rig_with_files();
        rig.faults.random(seed, 250, faults.clone());
        for round in 0..4 {
            work(&rig, round);
            if round == 2 {
                rig.kill();
                rig.mount();
            }
        }
        rig.try_flush(Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}\n{}", rig.troubles()));
        rig.close();
        rig.faults.clear();
        rig.become_new_machine("two");
        rig.mount();
        check_work(&rig, [3].into_iter());
    }
}

#[test]
fn a_new_machine_without_the_store_is_told_so() {
    for (fault, told) in some_outages() {
        let mut rig = rig_with_files();
        rig.close();
        rig.become_new_machine("two");
        rig.break_store(fault.clone());
        let Err(error) = rig.try_mount() else { panic!("{fault:?}: mounted from nothing") };
        assert!(crate::rig::chain(&error).contains(told), "{fault:?}: {}", crate::rig::chain(&error));
        rig.faults.clear();
        rig.mount();
    }
}

/// On a drive that is written to all the time there is always something that waits.
#[test]
fn who_waits_for_what_was_written_does_not_wait_for_what_comes_after() {
    let mut rig = Rig::new();
    let files = rig.mount();
    rig.flush();
    rig.faults.add(Rule::on(Op::Create, Fault::Delay(Duration::from_millis(40))).under(Prefix::Log));
    let (volume, stop) = (rig.volume(), AtomicBool::new(false));
    let is_behind = || rig.status().commits.waiting > 3;
    let (flushed, busy, rotated) = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2000 {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                files.save("file", b"again").unwrap();
                volume.cut().unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        eventually("it is behind", is_behind);
        let flushed = rig.try_flush(Duration::from_secs(10));
        let busy = is_behind();
        let rotated = volume.rotate(None);
        stop.store(true, Ordering::SeqCst);
        (flushed, busy, rotated)
    });
    flushed.unwrap();
    assert!(busy, "all was written: the test shows nothing");
    rotated.unwrap();
    rig.faults.clear();
    rig.flush();
}
