//! Where the daemon writes what happened, and what never gets there: names, contents, keys.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::exit::{Failure, Outcome};

const VARIABLE: &str = "HUSHFS_LOG";
const DEFAULT_FILTER: &str = "warn,hushfs=info";
/// A longer log is put aside, once, when a daemon starts.
const LEN_MAX: u64 = 16 << 20;

pub enum Log {
    Stderr,
    File(PathBuf),
}

/// Installed without the bridge from the `log` crate: fuser logs requests there, with names.
pub fn start(log: &Log) -> Outcome {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let writer = match log {
        Log::Stderr => BoxMakeWriter::new(std::io::stderr),
        Log::File(path) => BoxMakeWriter::new(Arc::new(open(path)?)),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer).finish();
    tracing::subscriber::set_global_default(subscriber)?;
    std::panic::set_hook(Box::new(|panic| {
        // The place only: a message may hold what the code was working on.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic");
    }));
    Ok(())
}

fn open(path: &Path) -> Outcome<File> {
    let at = |error: std::io::Error| Failure::from(error).context(format!("log file {}", path.display()));
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > LEN_MAX) {
        std::fs::rename(path, path.with_extension("log.old")).map_err(at)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        File::create(&path).unwrap().set_len(LEN_MAX + 1).unwrap();
        assert_eq!(open(&path).unwrap().metadata().unwrap().len(), 0);
        assert!(dir.path().join("x.log.old").exists());
        assert!(open(Path::new("/nowhere/x.log")).unwrap_err().to_string().contains("/nowhere/x.log"));
    }
}
