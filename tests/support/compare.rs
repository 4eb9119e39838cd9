//! Whether two trees are the same in all that rsync and find can tell. A program that fails, fails the test.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// Contents, names, links, modes, owners, attributes, ACLs.
pub fn same_by_rsync(source: &Path, copy: &Path) {
    let (here, there) = (format!("{}/", source.display()), format!("{}/", copy.display()));
    let difference = output("rsync", &["-aHAXnci", "--delete", &here, &there]);
    let shown = difference.chars().take(4000).collect::<String>();
    assert!(difference.is_empty(), "{there} differs:\n{shown}");
}

/// rsync compares whole seconds unless both sides say otherwise: here every nanosecond counts.
pub fn same_times(source: &Path, copy: &Path) {
    let list = |root: &Path| {
        let path = root.to_str().expect("UTF-8");
        // A symlink's own time too; directories of the copy were touched by nobody after.
        let mut lines: Vec<_> = output("find", &[path, "-mindepth", "1", "-printf", "%P %T@ %m %U %G %y %n\\n"])
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let (here, there) = (list(source), list(copy));
    let different: Vec<_> = here.iter().zip(&there).filter(|(a, b)| a != b).take(5).collect();
    assert!(here.len() == there.len() && different.is_empty(), "{} and {}: {different:#?}", here.len(), there.len());
}

/// What is a hole in one file takes no room in the other.
pub fn same_holes(source: &Path, copy: &Path) {
    let blocks = |path: &Path| fs::metadata(path).expect("stat").blocks();
    let (here, there) = (blocks(source), blocks(copy));
    assert!(there <= here + 2048, "{} has {there} blocks, its source {here}", copy.display());
}

pub fn run(program: &str, arguments: &[&str]) {
    output(program, arguments);
}

pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
