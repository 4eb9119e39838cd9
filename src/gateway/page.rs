//! The page's files, as they are served and as their hashes are told.

use std::sync::LazyLock;

use crate::crypto::sha256;

/// One file, the same for every link.
pub struct PageFile {
    pub name: &'static str,
    pub content_type: &'static str,
    pub policy: &'static str,
    pub body: &'static [u8],
}

pub const HTML: &str = include_str!("page/index.html");
pub const STYLE: &str = include_str!("page/page.css");

/// What runs in the page. Several files make one script, so that each can be read alone.
pub const SCRIPT: &str = concat!(
    include_str!("page/bytes.js"),
    include_str!("page/failures.js"),
    include_str!("page/secrets.js"),
    include_str!("page/client.js"),
    include_str!("page/text.js"),
    include_str!("page/magic.js"),
    include_str!("page/serve.js"),
    include_str!("page/save.js"),
    include_str!("page/download.js"),
    include_str!("page/folder.js"),
    include_str!("page/preview.js"),
    include_str!("page/page.js"),
);

/// What runs in the worker, where the keys are.
pub const WORKER: &str = concat!(
    include_str!("page/bytes.js"),
    include_str!("page/names.js"),
    include_str!("page/lz4.js"),
    include_str!("page/seal.js"),
    include_str!("page/tree.js"),
    include_str!("page/record.js"),
    include_str!("page/identity.js"),
    include_str!("page/source.js"),
    include_str!("page/content.js"),
    include_str!("page/zip.js"),
    include_str!("page/vendor/argon2.umd.min.js"),
    include_str!("page/worker.js"),
);

const SERVICE_WORKER: &str = include_str!("page/sw.js");

/// The page runs its own script alone, shows blobs, and asks this origin alone.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; \
    img-src blob: data:; media-src 'self' blob:; frame-src 'self' blob:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types hushfs";
/// The worker fetches, and compiles the one WASM module that is inside it.
const WORKER_POLICY: &str = "default-src 'none'; script-src 'wasm-unsafe-eval'; connect-src 'self'; require-trusted-types-for 'script'; trusted-types";
pub const NOTHING_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";
/// A service worker has no document that a sandbox could be for.
const SERVICE_POLICY: &str = "default-src 'none'; require-trusted-types-for 'script'; trusted-types";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

pub static FILES: [PageFile; 5] = [
    PageFile {
        name: "page.html",
        content_type: "text/html; charset=utf-8",
        policy: PAGE_POLICY,
        body: HTML.as_bytes(),
    },
    PageFile { name: "page.js", content_type: JAVASCRIPT, policy: NOTHING_POLICY, body: SCRIPT.as_bytes() },
    PageFile {
        name: "page.css",
        content_type: "text/css; charset=utf-8",
        policy: NOTHING_POLICY,
        body: STYLE.as_bytes(),
    },
    PageFile { name: "worker.js", content_type: JAVASCRIPT, policy: WORKER_POLICY, body: WORKER.as_bytes() },
    PageFile { name: "sw.js", content_type: JAVASCRIPT, policy: SERVICE_POLICY, body: SERVICE_WORKER.as_bytes() },
];

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name and SHA-256 of each file, as `sha256sum` prints them.
pub fn page_hashes() -> Vec<(&'static str, String)> {
    FILES.iter().map(|file| (file.name, hex(&sha256(file.body)))).collect()
}

/// The bytes of one of them.
pub fn page_file(name: &str) -> Option<&'static [u8]> {
    file(name).map(|(file, _)| file.body)
}

static TAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| page_hashes().into_iter().map(|(_, hash)| format!("\"{}\"", &hash[..32])).collect());

/// A file and its strong ETag.
pub fn file(name: &str) -> Option<(&'static PageFile, &'static str)> {
    let index = FILES.iter().position(|file| file.name == name)?;
    Some((&FILES[index], TAGS.get(index)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The package `hash-wasm` 4.13.0 from npm, `dist/argon2.umd.min.js`, and its licence.
    #[test]
    fn the_foreign_script_is_the_one_that_was_looked_at() {
        for (bytes, hash) in [
            (
                &include_bytes!("page/vendor/argon2.umd.min.js")[..],
                "acfe11b015852f593aaddc51116f71dc7850e4551e6b34d42c1f88cf39635f03",
            ),
            (
                &include_bytes!("page/vendor/LICENSE")[..],
                "c14dea172f72f2714284a0ac2ab1b00b5352a01409d58255a46227ffc541debd",
            ),
        ] {
            assert_eq!(hex(&sha256(bytes)), hash);
        }
    }

    #[test]
    fn the_page_names_no_other_origin_and_has_nothing_inline() {
        for file in &FILES {
            let text = std::str::from_utf8(file.body).unwrap().replace(VENDOR_HOME, "");
            for forbidden in
                ["http://", "https://www", "//cdn", "eval(", "innerHTML", "document.write", "insertAdjacentHTML"]
            {
                assert!(!text.contains(forbidden), "{} has {forbidden}", file.name);
            }
        }
        assert_eq!(HTML.matches("<script").count(), 1);
        assert!(!HTML.contains("<style") && !HTML.contains(" style=") && !HTML.contains(" on"));
    }

    /// In the foreign script's first comment.
    const VENDOR_HOME: &str = "https://www.npmjs.com/package/hash-wasm";

    #[test]
    fn scripts_are_strict_and_could_stand_inside_of_a_page() {
        for script in [SCRIPT, WORKER, SERVICE_WORKER] {
            assert!(script.starts_with("'use strict';"));
            assert!(!script.to_ascii_lowercase().contains("</script") && !script.contains("<!--"));
        }
    }

    #[test]
    fn each_file_has_its_tag() {
        assert!(file("page.js").is_some_and(|(file, tag)| file.name == "page.js" && tag.len() == 34));
        assert!(file("other.js").is_none());
    }
}
