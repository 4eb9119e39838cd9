//! A directory entry's name, validated once at the edge and again when it comes out of the store.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// In bytes, as on every Linux filesystem.
pub const NAME_LEN_MAX: usize = 255;

/// Any 1 to 255 bytes but `/` and NUL, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name is empty")]
    Empty,
    #[error("a name is longer than {NAME_LEN_MAX} bytes")]
    TooLong,
    #[error("a name holds '/' or NUL")]
    Character,
    #[error("a name is '.' or '..'")]
    Dots,
}

impl Name {
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, NameError> {
        let bytes = bytes.as_ref();
        match bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            _ if bytes.len() > NAME_LEN_MAX => Err(NameError::TooLong),
            _ if bytes.iter().any(|&byte| byte == b'/' || byte == 0) => Err(NameError::Character),
            _ => Ok(Self(bytes.into())),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

/// Names are private: a log line shows the length only.
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_posix_forbids_is_refused() {
        assert_eq!(Name::parse(""), Err(NameError::Empty));
        assert_eq!(Name::parse("."), Err(NameError::Dots));
        assert_eq!(Name::parse(".."), Err(NameError::Dots));
        assert_eq!(Name::parse("a/b"), Err(NameError::Character));
        assert_eq!(Name::parse("a\0b"), Err(NameError::Character));
        assert_eq!(Name::parse([b'x'; 256]), Err(NameError::TooLong));
        assert!(Name::parse([b'x'; 255]).is_ok());
        assert!(Name::parse([0xff, 0x80, b'\n']).is_ok());
        assert!(Name::parse("...").is_ok());
    }

    #[test]
    fn debug_does_not_show_the_name() {
        assert!(!format!("{:?}", Name::parse("canary").unwrap()).contains("canary"));
    }
}
