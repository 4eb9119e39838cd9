//! The page as one file that opens from a stick, without any server: script and style inside, allowed by their hashes,
//! the worker as text that becomes a blob, the ciphertext inside too or in a file beside it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::page::{HTML, SCRIPT, STYLE, WORKER};
use crate::base::{LinkId, MIB};
use crate::crypto::sha256;

/// Where the ciphertext is.
pub enum Ciphertext<'a> {
    /// In the page: what `boxed` makes.
    Inside(&'a [u8]),
    /// In a file of this name, which the person chooses.
    Beside(&'a str),
}

pub struct Exported<'a> {
    pub link: LinkId,
    pub ciphertext: Ciphertext<'a>,
    /// What stands behind the link's `#`, if the page is not to ask for it: with the secret it opens by itself, and a
    /// recipient's has none.
    pub fragment: Option<&'a str>,
}

/// A longer box makes the page slow to open: it goes beside it.
pub const INSIDE_MAX: u64 = 16 * MIB;

const STYLE_LINK: &str = "<link rel=\"stylesheet\" href=\"../page.css\">";
const SCRIPT_LINK: &str = "<script src=\"../page.js\" defer></script>";
const CHARSET: &str = "<meta charset=\"utf-8\">";
const SERVED: &str = "The server that sent this page sees neither names nor contents.";
const ALONE: &str = "No server takes part.";
const END: &str = "</body>";

/// The page.
pub fn export_page(exported: &Exported<'_>) -> String {
    let policy = format!("{CHARSET}\n<meta http-equiv=\"Content-Security-Policy\" content=\"{}\">", policy());
    let data = json(exported).to_string().replace('<', "\\u003c");
    // The data stands before the script that reads it. None but the last of the three is run by the browser itself.
    let scripts = format!(
        "<script type=\"application/json\" id=\"export\">{data}</script>\n\
         <script type=\"text/plain\" id=\"worker\">{WORKER}</script>\n\
         <script>{SCRIPT}</script>\n{END}"
    );
    HTML.replacen(CHARSET, &policy, 1)
        .replacen(STYLE_LINK, &format!("<style>{STYLE}</style>"), 1)
        .replacen(SCRIPT_LINK, "", 1)
        .replacen(SERVED, ALONE, 1)
        .replacen(END, &scripts, 1)
}

/// As the gateway's, but with hashes for what is inside. The worker comes from a blob, and so has this policy too.
fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(sha256(text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}' 'wasm-unsafe-eval'; style-src 'sha256-{}'; worker-src blob:; \
         img-src blob: data:; media-src blob:; frame-src blob:; base-uri 'none'; form-action 'none'; \
         require-trusted-types-for 'script'; trusted-types hushfs",
        hash(SCRIPT),
        hash(STYLE)
    )
}

fn json(exported: &Exported<'_>) -> serde_json::Value {
    let (inside, beside) = match exported.ciphertext {
        Ciphertext::Inside(bytes) => (Some(STANDARD.encode(bytes)), None),
        Ciphertext::Beside(name) => (None, Some(name)),
    };
    let (id, fragment) = (exported.link.to_string(), exported.fragment);
    serde_json::json!({ "id": id, "box": inside, "file": beside, "fragment": fragment })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ciphertext: Ciphertext<'_>, fragment: Option<&str>) -> String {
        export_page(&Exported { link: LinkId([0xab; 16]), ciphertext, fragment })
    }

    #[test]
    fn everything_is_inside_and_nothing_else_may_run() {
        let page = page(Ciphertext::Inside(b"sealed"), None);
        assert!(!page.contains("=\"../") && page.contains(ALONE) && !page.contains(SERVED));
        assert!(
            !page.contains(" src=") && page.matches("<script").count() == 3 && page.matches("<style>").count() == 1
        );
        for text in [SCRIPT, STYLE] {
            assert!(page.contains(&format!(">{text}<")));
            assert!(page.contains(&format!("'sha256-{}'", STANDARD.encode(sha256(text.as_bytes())))));
        }
        assert!(
            page.contains(&format!("\"box\":\"{}\"", STANDARD.encode("sealed"))) && page.contains("\"fragment\":null")
        );
        // The policy has to be known before anything that it is about.
        assert!(page.find("Content-Security-Policy") < page.find("<style>"));
    }

    #[test]
    fn a_file_name_ends_no_script() {
        let page = page(Ciphertext::Beside("</script><script>alert(1)</script>"), Some("1.AAAA"));
        assert_eq!(page.matches("</script>").count(), 3);
        assert!(page.contains("\\u003c/script>") && page.contains("\"1.AAAA\""));
    }
}
