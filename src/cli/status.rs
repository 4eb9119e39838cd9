//! `status` in words.

use std::fmt::Write;

use super::control::{CacheUse, OldKeys, Status, StoreState, Waiting};
use crate::base::ByteSize;

pub fn for_people(status: &Status) -> String {
    if status.dead {
        return format!(
            "{} on {}\n  DEAD       its daemon is gone; what it had not uploaded is safe on this machine. Mount it again\n",
            status.url, status.mountpoint
        );
    }
    let mut out = String::new();
    // Writing to a string cannot fail.
    let mut line = |label: &str, text: &str| {
        let _ = writeln!(out, "  {label:<11}{text}");
    };
    if let Some(why) = &status.stopped {
        line("STOPPED", why);
        line("", "nothing more is written or uploaded; what waits is safe on this machine. Unmount with");
        line("", "`hushfs umount --no-wait` and mount again: it is then done again on top of what others did");
    }
    if status.damaged_chunks > 0 {
        let chunks = counted(status.damaged_chunks, "chunk");
        line("DAMAGE", &format!("{chunks} of files could not be read since the mount; the log names the objects"));
    }
    line("waiting", &waiting(&status.waiting));
    if let Some(old_keys) = old_keys(&status.old_keys) {
        line("old keys", &old_keys);
    }
    line("store", &store(&status.store));
    line("cache", &cache(&status.cache));
    line("head", &status.head.map_or_else(|| "none yet".into(), |head| format!("log entry {head}")));
    line("daemon", &format!("process {}, version {}", status.pid, status.version));
    if let Some(error) = &status.last_error {
        match status.last_error_seconds_ago {
            Some(seconds) => line("last error", &format!("{} ago: {error}", duration(seconds))),
            None => line("last error", error),
        }
    }
    let mode = match (status.mounted, status.read_only) {
        (false, _) => " (unmounted, closing)",
        (true, true) => " (read-only)",
        (true, false) => "",
    };
    format!("{} on {}{mode}\n{out}", status.url, status.mountpoint)
}

fn waiting(waiting: &Waiting) -> String {
    if waiting.files == 0 && waiting.bytes == 0 {
        return "nothing; all is in the store".into();
    }
    let oldest = waiting.oldest_seconds.map(|seconds| format!(", the oldest for {}", duration(seconds)));
    format!("{}, {}{}", counted(waiting.files, "file"), ByteSize(waiting.bytes), oldest.unwrap_or_default())
}

/// None: there is nothing to tell.
fn old_keys(old: &OldKeys) -> Option<String> {
    let unreadable = match old.unreadable {
        0 => String::new(),
        chunks => format!("; {} cannot be read", counted(chunks, "chunk")),
    };
    let (Some(files), Some(bytes)) = (old.files, old.bytes) else {
        return old.resealing.then(|| "being counted, then sealed anew".into());
    };
    let what = format!("{}, {}", counted(files, "file"), ByteSize(bytes));
    match (files, old.resealing) {
        (_, true) => Some(format!("{what} left, being sealed anew{unreadable}")),
        (0, false) => None,
        (_, false) => Some(format!(
            "{what} still sealed with keys of before a rotation; `hushfs key rotate --data` seals anew{unreadable}"
        )),
    }
}

pub fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn store(store: &StoreState) -> String {
    if store.ok {
        return "answers".into();
    }
    let since = store.failing_for_seconds.map(|seconds| format!("failing for {}: ", duration(seconds)));
    let error = store.error.as_deref().unwrap_or("not asked yet");
    format!("{}{error}", since.unwrap_or_default())
}

fn cache(cache: &CacheUse) -> String {
    match &cache.disabled {
        Some(why) => format!("not used: {why}"),
        None => format!("{} of {}", ByteSize(cache.used_bytes), ByteSize(cache.max_bytes)),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_with_what_to_do() {
        let status = Status {
            url: "s3://b/p".into(),
            mountpoint: "/mnt".into(),
            mounted: true,
            waiting: Waiting { files: 3, bytes: 5 << 20, oldest_seconds: Some(300) },
            store: StoreState {
                ok: false,
                error: Some("credentials expired (renew them)".into()),
                failing_for_seconds: Some(61),
            },
            ..Status::default()
        };
        let text = for_people(&status);
        assert!(text.starts_with("s3://b/p on /mnt\n"));
        assert!(text.contains("3 files, 5.0 MiB, the oldest for 5 min"));
        assert!(text.contains("failing for 61 s: credentials expired (renew them)"));
    }

    #[test]
    fn a_drive_that_has_stopped_does_not_look_at_rest() {
        let status = Status {
            stopped: Some("another device changed the same files".into()),
            waiting: Waiting { files: 1, ..Waiting::default() },
            store: StoreState { ok: true, ..StoreState::default() },
            ..Status::default()
        };
        let text = for_people(&status);
        assert!(text.contains("STOPPED    another device") && text.contains("--no-wait") && text.contains("1 file,"));
        assert!(!text.contains("all is in the store"));
    }

    #[test]
    fn what_is_under_old_keys_is_told_while_there_is_any() {
        let of = |files, resealing| {
            let old_keys = OldKeys { files, chunks: files, bytes: files, resealing, unreadable: 1 };
            for_people(&Status { old_keys, ..Status::default() })
        };
        assert!(
            of(Some(3), false).contains("old keys   3 files, 3 B still sealed")
                && of(Some(3), false).contains("--data")
        );
        assert!(of(Some(3), true).contains("3 files, 3 B left, being sealed anew; 1 chunk cannot be read"));
        assert!(of(None, true).contains("being counted"));
        assert!(!of(Some(0), false).contains("old keys") && !of(None, false).contains("old keys"));
    }

    #[test]
    fn a_drive_at_rest_says_so() {
        let status = Status { store: StoreState { ok: true, ..StoreState::default() }, ..Status::default() };
        assert!(for_people(&status).contains("all is in the store"));
    }
}
