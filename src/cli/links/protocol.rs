//! What is asked of a drive about its links, on the control socket or in this process. `--json` prints `Link` as it is
//! here.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::base::{LinkId, Printable};
use crate::cli::exit::{Failure, Outcome};
use crate::format::link::LinkUrl;
use crate::share::{LinkInfo, LinkState, Progress};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "share", rename_all = "kebab-case")]
pub enum ShareRequest {
    /// Answered by `Progress` until `Created`.
    Create {
        #[serde(flatten)]
        copy: CopyRequest,
        live: bool,
    },
    /// Answered by `Progress` until `Exported`.
    Export {
        #[serde(flatten)]
        copy: CopyRequest,
        /// Of this machine, absolute and empty: where the link's objects go, as into a store.
        folder: Vec<u8>,
    },
    List,
    Show {
        id: String,
    },
    Revoke {
        id: String,
    },
}

/// What is to be in a link, and who opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyRequest {
    /// In the volume, from its root.
    pub path: Vec<u8>,
    pub name: Option<String>,
    /// From now on.
    pub expires_seconds: Option<u64>,
    pub password: Option<Passphrase>,
    pub recipient: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "share", rename_all = "kebab-case")]
pub enum ShareEvent {
    Progress(Progress),
    /// The link, and how many devices, pipes and sockets are not in it.
    Created {
        link: Box<Link>,
        left_out: u64,
        sent_bytes: u64,
    },
    /// All of the link, which nothing else has.
    Exported {
        link: String,
        left_out: u64,
    },
    Links {
        links: Vec<Link>,
    },
    Shown {
        link: Box<Link>,
    },
}

/// A link's password on its way to the daemon. Wiped when dropped, and not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Passphrase(Vec<u8>);

impl Passphrase {
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub fn take(mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(std::mem::take(&mut self.0))
    }
}

impl Drop for Passphrase {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// A link as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub id: String,
    pub state: LinkState,
    pub title: String,
    /// In the volume.
    pub path: String,
    /// RFC 3339, as is `expires`.
    pub created: String,
    pub expires: Option<String>,
    pub live: bool,
    pub password: bool,
    pub recipient: bool,
    /// How often it was published; 0 before the first time.
    pub version: u64,
    pub files: u64,
    pub bytes: u64,
    /// With its secret. Only where one link was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub link: Option<String>,
}

impl Link {
    pub fn new(info: &LinkInfo, url: Option<&LinkUrl>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let date = |time: crate::base::Timestamp| crate::cli::drive::date(time.into());
        Self {
            id: info.id.to_string(),
            state: info.state,
            title: text(info.title.as_bytes()),
            path: format!("/{}", text(&info.path)),
            created: date(info.created),
            expires: info.expiry.map(date),
            live: info.live,
            password: info.has_password,
            recipient: info.has_recipient,
            version: info.version,
            files: info.files,
            bytes: info.bytes,
            link: url.map(|url| url.text().to_string()),
        }
    }

    /// The link behind a gateway's address.
    pub fn with_host(mut self, host: Option<&str>) -> Self {
        if let (Some(host), Some(link)) = (host, &mut self.link) {
            *link = format!("{host}/s/{link}");
        }
        self
    }

    pub fn printable_title(&self) -> String {
        Printable(self.title.as_bytes()).to_string()
    }

    pub fn printable_path(&self) -> String {
        Printable(self.path.as_bytes()).to_string()
    }
}

/// A whole link, or the id alone.
pub fn parse_id(text: &str) -> Outcome<LinkId> {
    match LinkId::parse_hex(text) {
        Some(id) => Ok(id),
        None => match LinkUrl::parse(text) {
            Ok(link) => Ok(link.id),
            Err(error) => Err(Failure::usage(format!("{error}; or its id, as `hushfs share ls` shows it"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::control::Request;

    #[test]
    fn requests_come_back_from_the_socket_and_show_no_password() {
        let copy = CopyRequest {
            path: b"a/\xff".to_vec(),
            name: Some("b".into()),
            expires_seconds: Some(5),
            password: Some(Passphrase::new(b"correct horse")),
            recipient: None,
        };
        let export = ShareRequest::Export { copy: copy.clone(), folder: b"/\xff".to_vec() };
        for request in [
            ShareRequest::Create { copy, live: true },
            export,
            ShareRequest::List,
            ShareRequest::Show { id: "0".into() },
        ] {
            let request = Request::Share { request };
            let line = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
            let debug = format!("{request:?}");
            assert!(!debug.contains("horse") && !debug.contains("99, 111, 114, 114"), "{debug}");
        }
    }

    #[test]
    fn a_link_is_meant_by_its_id_or_by_all_of_it() {
        let id = "0123456789abcdef0123456789abcdef";
        let link = format!("https://h.example/s/{id}#1.{}", "A".repeat(43));
        assert_eq!(parse_id(id).unwrap().to_string(), id);
        assert_eq!(parse_id(&link).unwrap().to_string(), id);
        assert!(parse_id("photos").is_err());
    }
}
