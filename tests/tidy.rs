//! What no compiler checks: a layer names only layers before it, and SECURITY.md names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LAYERS: [&str; 13] =
    ["base", "crypto", "format", "disk", "store", "cache", "content", "meta", "vfs", "fuse", "share", "gateway", "cli"];

/// Crates that one layer alone may use (`meta` keeps its caches with `lru` as `cache` does).
const SOLE_USERS: [(&str, &[&str]); 19] = [
    ("aes_gcm", &["crypto"]),
    ("aws_lc_rs", &["crypto"]),
    ("argon2", &["crypto"]),
    ("blake3", &["crypto"]),
    ("x25519_dalek", &["crypto"]),
    ("bip39", &["crypto"]),
    ("hkdf", &["crypto"]),
    ("sha2", &["crypto"]),
    ("lz4_flex", &["format"]),
    ("object_store", &["store"]),
    ("rusqlite", &["meta"]),
    ("fuser", &["fuse"]),
    ("reqwest", &["share"]),
    ("axum", &["gateway"]),
    ("hyper", &["gateway"]),
    ("ipnet", &["gateway"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
    ("indicatif", &["cli"]),
];

#[test]
fn layers_import_only_downward() {
    let mut wrong = Vec::new();
    for (layer, file, text) in sources() {
        for (number, line) in code_lines(&text) {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                // `use crate::{a, b}` would hide what it names.
                assert!(!rest.starts_with('{'), "{}:{number}: name each layer in its own `use`", file.display());
                let named: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(position) = LAYERS.iter().position(|layer| *layer == named) else { continue };
                if position > layer {
                    wrong.push(format!("{}:{number}: {} imports {named}", file.display(), LAYERS[layer]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point up:\n{}", wrong.join("\n"));
}

#[test]
fn each_outside_crate_has_its_layer() {
    let mut wrong = Vec::new();
    for (layer, file, text) in sources() {
        for (number, line) in code_lines(&text) {
            for (name, users) in SOLE_USERS {
                let named = line.match_indices(&format!("{name}::")).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    // `crypto::blake3::…` is our own module of that name.
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                        && !line[..at].ends_with("crate::crypto::")
                        && !line[..at].ends_with("crypto::")
                });
                if named && !users.contains(&LAYERS[layer]) {
                    wrong.push(format!("{}:{number}: {} uses {name}", file.display(), LAYERS[layer]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "crates outside their layer:\n{}", wrong.join("\n"));
}

#[test]
fn every_promise_names_tests_and_they_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let security = fs::read_to_string(root.join("src/SECURITY.md")).expect("SECURITY.md");
    let tests = tests_in(root);
    let (mut missing, mut bare) = (Vec::new(), Vec::new());
    let mut promises = 0;
    for line in security.lines() {
        let named: Vec<&str> = line.split('`').skip(1).step_by(2).filter(|text| is_test_name(text)).collect();
        missing.extend(named.iter().filter(|name| !tests.contains(**name)).map(|name| (*name).to_owned()));
        let is_promise = line.split_once(". **").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        promises += usize::from(is_promise);
        if is_promise && named.is_empty() {
            bare.push(line);
        }
    }
    assert!(missing.is_empty(), "SECURITY.md names tests that do not exist: {missing:#?}");
    assert!(bare.is_empty(), "promises without a test: {bare:#?}");
    assert!(promises > 8, "SECURITY.md is not read as it is written");
}

/// Of several words; program names, options and paths are not.
fn is_test_name(text: &str) -> bool {
    text.contains('_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && text != "allow_other"
}

/// Names of functions that are a test by the attribute before them.
fn tests_in(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["src", "tests"] {
        for file in sources_below(&root.join(folder)) {
            let text = fs::read_to_string(&file).expect("a source file");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if let Some(attribute) = line.strip_prefix("#[") {
                    is_test |= attribute.starts_with("test]") || attribute.starts_with("tokio::test");
                } else if let Some((_, rest)) = line.split_once("fn ") {
                    let name = rest.split(['(', '<']).next().unwrap_or_default();
                    if std::mem::take(&mut is_test) {
                        found.insert(name.to_owned());
                    }
                }
            }
        }
    }
    found
}

fn sources_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// (layer, file, text) of each source file inside a layer.
fn sources() -> Vec<(usize, PathBuf, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for (index, layer) in LAYERS.iter().enumerate() {
        let mut folders = vec![source.join(layer)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a layer's folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).expect("a source file");
                    found.push((index, path, text));
                }
            }
        }
    }
    assert!(found.len() > LAYERS.len(), "no sources found");
    found
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}
