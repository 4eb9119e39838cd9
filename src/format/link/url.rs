//! A link as people pass it on: `https://HOST/s/<id>#1.<secret>`. What is behind `#` is not sent to any server.

use crate::base::LinkId;
use crate::crypto::{KEY_LEN, Key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// 32 bytes without padding.
const SECRET_LEN: usize = 43;

/// Never printed but by `text`.
#[derive(PartialEq, Eq)]
pub struct LinkUrl {
    /// `https://host`, perhaps with a port and a path, without a slash at its end. None: only the rest was given, which
    /// opens where the bucket is known.
    pub host: Option<String>,
    pub id: LinkId,
    /// None: sealed to a recipient.
    pub secret: Option<Key>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkUrlError {
    #[error("not a link: it looks like https://HOST/s/ID#1.SECRET")]
    NotALink,
    #[error("the part of the link behind '#' is missing; copy the whole link")]
    NoFragment,
    #[error("a link of a newer version than this program knows")]
    Newer,
    #[error("the secret in the link was not copied whole")]
    Secret,
    #[error("not the address of a gateway: it looks like https://HOST")]
    Host,
}

impl LinkUrl {
    pub fn parse(text: &str) -> Result<Self, LinkUrlError> {
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (host, id) = match place.rsplit_once("/s/") {
            Some((host, id)) => (Some(parse_link_host(host).map_err(|_| LinkUrlError::NotALink)?), id),
            None => (None, place),
        };
        let id = LinkId::parse_hex(id).ok_or(LinkUrlError::NotALink)?;
        let (version, secret) = match fragment.split_once('.') {
            Some((version, secret)) => (version, Some(secret)),
            None => (fragment, None),
        };
        match version {
            "1" => Ok(Self { host, id, secret: secret.map(parse_secret).transpose()? }),
            "" => Err(LinkUrlError::NoFragment),
            _ => Err(LinkUrlError::Newer),
        }
    }

    /// All of it, with the secret.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(128));
        if let Some(host) = &self.host {
            text.push_str(host);
            text.push_str("/s/");
        }
        text.push_str(&self.id.to_string());
        text.push_str("#1");
        if let Some(secret) = &self.secret {
            text.push('.');
            URL_SAFE_NO_PAD.encode_string(secret.expose(), &mut text);
        }
        text
    }
}

/// The address of a gateway, without a slash at its end.
pub fn parse_link_host(text: &str) -> Result<String, LinkUrlError> {
    let text = text.trim_end_matches('/');
    let parsed = url::Url::parse(text).map_err(|_| LinkUrlError::Host)?;
    let is_bare = parsed.query().is_none() && parsed.fragment().is_none() && parsed.username().is_empty();
    let is_web = matches!(parsed.scheme(), "https" | "http") && parsed.has_host() && parsed.password().is_none();
    if is_bare && is_web { Ok(text.to_owned()) } else { Err(LinkUrlError::Host) }
}

fn parse_secret(text: &str) -> Result<Key, LinkUrlError> {
    if text.len() != SECRET_LEN {
        return Err(LinkUrlError::Secret);
    }
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| LinkUrlError::Secret)?);
    debug_assert!(bytes.len() == KEY_LEN);
    Key::try_from_slice(&bytes).ok_or(LinkUrlError::Secret)
}

impl std::fmt::Debug for LinkUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkUrl({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "00112233445566778899aabbccddeeff";

    proptest! {
        #[test]
        fn links_round_trip(id: [u8; 16], secret: Option<[u8; 32]>, host in 0usize..4) {
            let hosts = [None, Some("https://a.example"), Some("http://127.0.0.1:8080"), Some("https://a.example/x/s")];
            let host = hosts[host].map(Into::into);
            let link = LinkUrl { host, id: LinkId(id), secret: secret.map(Key::from_bytes) };
            let text = link.text();
            prop_assert_eq!(&LinkUrl::parse(&text).unwrap(), &link);
        }

        #[test]
        fn any_text_is_a_link_with_one_spelling_or_none(text in "[a-z0-9#./:-]{0,80}") {
            if let Ok(link) = LinkUrl::parse(&text) {
                let written = link.text();
                prop_assert_eq!(written.as_str(), text);
            }
        }
    }

    #[test]
    fn each_mistake_has_its_message() {
        let secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let error = |text: String| LinkUrl::parse(&text).unwrap_err();
        assert!(LinkUrl::parse(&format!("https://h/s/{ID}#1.{secret}")).is_ok());
        assert!(LinkUrl::parse(&format!("{ID}#1")).is_ok_and(|link| link.secret.is_none() && link.host.is_none()));
        assert_eq!(error(format!("https://h/s/{ID}")), LinkUrlError::NoFragment);
        assert_eq!(error(format!("https://h/s/{ID}#2.{secret}")), LinkUrlError::Newer);
        assert_eq!(error(format!("https://h/s/{ID}#1.{}", &secret[1..])), LinkUrlError::Secret);
        assert_eq!(error(format!("https://h/s/{ID}#1.{secret}A")), LinkUrlError::Secret);
        // Bits past the 32 bytes: another spelling of the same secret.
        assert_eq!(error(format!("https://h/s/{ID}#1.{}B", &secret[1..])), LinkUrlError::Secret);
        assert_eq!(error(format!("ftp://h/s/{ID}#1.{secret}")), LinkUrlError::NotALink);
        assert_eq!(error(format!("https://user@h/s/{ID}#1.{secret}")), LinkUrlError::NotALink);
        assert_eq!(error(format!("https://h/{ID}#1.{secret}")), LinkUrlError::NotALink);
        assert_eq!(error(format!("https://h/s/{}#1.{secret}", ID.to_uppercase())), LinkUrlError::NotALink);
    }

    #[test]
    fn debug_shows_no_secret() {
        let link = LinkUrl { host: None, id: LinkId([1; 16]), secret: Some(Key::from_bytes([0x41; 32])) };
        assert!(!format!("{link:?}").contains("QUFB") && link.text().contains("QUFB"));
    }
}
