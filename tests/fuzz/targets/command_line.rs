//! What people and mount(8) write.

use hushfs::base::{ByteSize, Name};
use hushfs::cli::args;
use hushfs::cli::mount_options::Chosen;
use hushfs::crypto::{RecoveryWords, parse_identities, parse_recipient};
use hushfs::store::StoreUrl;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// A line for each argument, of the program or of mount(8)'s helper.
pub fn arguments(data: &[u8]) -> Option<()> {
    let arguments = data.split(|byte| *byte == b'\n').map(|argument| OsString::from_vec(argument.to_vec()));
    args::parse(arguments.collect()).ok().map(drop)
}

pub fn mount_options(data: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(data).ok()?;
    let mut chosen = Chosen::default();
    chosen.apply(text).ok()?;
    // Said twice, it is the same.
    let mut again = chosen.clone();
    again.apply(text).expect("what was taken once");
    assert_eq!(again, chosen);
    Some(())
}

pub fn store_url(data: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(data).ok()?;
    if let Ok(url) = StoreUrl::parse(text) {
        assert_eq!(StoreUrl::parse(&url.to_string()).as_ref(), Ok(&url), "as it is shown it can be given again");
    }
    if let Ok(size) = text.parse::<ByteSize>() {
        assert!(size.to_string().parse::<ByteSize>().is_ok(), "as it is shown it can be given again");
    }
    if let Ok(name) = Name::parse(data) {
        assert_eq!(name.as_bytes(), data);
    }
    StoreUrl::parse(text).ok().map(drop)
}

/// Recovery words, age recipients and identity files.
pub fn secrets(data: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(data).ok()?;
    let words = RecoveryWords::parse(text).ok().map(|words| {
        let again = RecoveryWords::parse(&words.text()).expect("what was written now");
        assert_eq!(again.key(), words.key());
    });
    let recipient = parse_recipient(text).ok().map(|public| assert!(public.is_usable()));
    let identities = parse_identities(text).ok().map(|identities| assert!(!identities.is_empty()));
    words.or(recipient).or(identities)
}
