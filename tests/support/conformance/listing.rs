//! Places in a directory's listing, as telldir(3) and seekdir(3) have them, while entries come and go.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use super::checks;

checks![
    a_place_in_a_listing_is_found_again_while_entries_come_and_go,
    a_place_whose_entry_is_gone_leads_to_the_next,
    a_listing_begun_anew_shows_what_came_meanwhile,
    the_dots_come_first_and_once,
];

/// An open directory, by the C library's own functions, which the standard library has not.
pub struct Listing(NonNull<libc::DIR>);

/// Where a listing goes on.
#[derive(Clone, Copy, Debug)]
pub struct Mark(libc::c_long);

impl Listing {
    pub fn open(dir: &Path) -> Self {
        let path = CString::new(dir.as_os_str().as_bytes()).unwrap();
        // SAFETY: a valid string.
        let opened = unsafe { libc::opendir(path.as_ptr()) };
        Self(NonNull::new(opened).unwrap_or_else(|| panic!("{}: {}", dir.display(), io::Error::last_os_error())))
    }

    /// The next name, the dots too. None: the end.
    pub fn read(&mut self) -> Option<String> {
        // SAFETY: an open directory; the entry is copied before anything else is done with it.
        unsafe {
            *libc::__errno_location() = 0;
            let entry = libc::readdir64(self.0.as_ptr());
            if entry.is_null() {
                assert_eq!(*libc::__errno_location(), 0, "readdir: {}", io::Error::last_os_error());
                return None;
            }
            Some(CStr::from_ptr((*entry).d_name.as_ptr()).to_str().unwrap().to_owned())
        }
    }

    pub fn mark(&mut self) -> Mark {
        // SAFETY: an open directory.
        Mark(unsafe { libc::telldir(self.0.as_ptr()) })
    }

    pub fn go_to(&mut self, mark: Mark) {
        // SAFETY: an open directory, and what `telldir` said of it.
        unsafe { libc::seekdir(self.0.as_ptr(), mark.0) }
    }

    pub fn begin_anew(&mut self) {
        // SAFETY: an open directory.
        unsafe { libc::rewinddir(self.0.as_ptr()) }
    }

    /// The next name that begins so, if there is one.
    pub fn next_with(&mut self, prefix: &str) -> Option<String> {
        std::iter::from_fn(|| self.read()).find(|name| name.starts_with(prefix))
    }

    /// All names that begin so, from here on, each with the place before it.
    pub fn marked(&mut self, prefix: &str) -> Vec<(Mark, String)> {
        let next = || {
            let mark = self.mark();
            self.read().map(|name| (mark, name))
        };
        std::iter::from_fn(next).filter(|(_, name)| name.starts_with(prefix)).collect()
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}

/// Makes and removes entries beside those that stay, for as long as `work` lasts.
pub fn while_others_come_and_go(dir: &Path, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            for n in 0.. {
                let path = dir.join(format!("comes and goes {n}"));
                File::create(&path).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
                fs::remove_file(&path).unwrap();
            }
        });
        // Also when the work fails: the others would go on for ever.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        others.join().unwrap();
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
    });
}

fn make(dir: &Path, prefix: &str, count: usize) {
    for n in 0..count {
        File::create(dir.join(format!("{prefix} {n}"))).unwrap();
    }
}

fn a_place_in_a_listing_is_found_again_while_entries_come_and_go(dir: &Path) {
    make(dir, "stays", 2000);
    while_others_come_and_go(dir, || {
        let mut listing = Listing::open(dir);
        let marked = listing.marked("stays");
        assert_eq!(marked.len(), 2000);
        // Back and forth, in an order that is not the listing's.
        for n in 0..500 {
            let (mark, name) = &marked[n * 1237 % marked.len()];
            listing.go_to(*mark);
            assert_eq!(listing.next_with("stays").as_ref(), Some(name));
        }
    });
}

fn a_place_whose_entry_is_gone_leads_to_the_next(dir: &Path) {
    make(dir, "entry", 600);
    let mut listing = Listing::open(dir);
    let marked = listing.marked("entry");
    for (_, name) in marked.iter().step_by(2) {
        fs::remove_file(dir.join(name)).unwrap();
    }
    for pair in marked.chunks(2).rev() {
        listing.go_to(pair[0].0);
        assert_eq!(listing.read().as_ref(), Some(&pair[1].1));
    }
}

fn a_listing_begun_anew_shows_what_came_meanwhile(dir: &Path) {
    make(dir, "old", 300);
    let mut listing = Listing::open(dir);
    assert_eq!(listing.marked("old").len(), 300);
    assert!(listing.read().is_none());
    make(dir, "new", 300);
    fs::remove_file(dir.join("old 7")).unwrap();
    listing.begin_anew();
    let names: Vec<_> = listing.marked("").into_iter().map(|(_, name)| name).collect();
    let once: HashSet<_> = names.iter().collect();
    assert_eq!((names.len(), once.len()), (601, 601));
    assert!(!once.contains(&"old 7".to_owned()) && once.contains(&"new 299".to_owned()));
}

fn the_dots_come_first_and_once(dir: &Path) {
    make(dir, "entry", 50);
    let mut listing = Listing::open(dir);
    let (start, first) = (listing.mark(), [listing.read(), listing.read()]);
    assert_eq!(first, [Some(".".into()), Some("..".into())]);
    let after_dots = listing.mark();
    let rest = listing.marked("");
    assert!(rest.len() == 50 && rest.iter().all(|(_, name)| name.starts_with("entry")));
    listing.go_to(after_dots);
    assert_eq!(listing.marked("").len(), 50);
    listing.go_to(start);
    assert_eq!(listing.marked("").len(), 52);
}
