//! How the program ends, for scripts: documented numbers, and errors that carry one.

use std::fmt;

/// The process's exit status. README.md has the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Code {
    /// Another failure; the message says which.
    Other = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The password or recovery key opens nothing here.
    WrongPassword = 3,
    /// There is no volume at this URL.
    NoVolume = 4,
    /// There is a volume at this URL already.
    VolumeExists = 5,
    /// The store cannot be reached, or refuses.
    StoreUnreachable = 6,
    /// The store shows another history than this device knows: rollback or fork.
    Rollback = 7,
    /// Mounted already, or files are open.
    Busy = 8,
    /// The message says what is left to upload.
    Interrupted = 9,
    /// A link was taken back, has expired, or is not there.
    LinkGone = 10,
    /// What is stored of a link is damaged, or not what its owner published.
    Damaged = 11,
}

impl Code {
    pub const ALL: [Self; 11] = [
        Self::Other,
        Self::Usage,
        Self::WrongPassword,
        Self::NoVolume,
        Self::VolumeExists,
        Self::StoreUnreachable,
        Self::Rollback,
        Self::Busy,
        Self::Interrupted,
        Self::LinkGone,
        Self::Damaged,
    ];

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u8 == number)
    }
}

pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a command failed, in words and as a number. The words show the whole chain of causes.
pub struct Failure {
    pub code: Code,
    error: anyhow::Error,
    /// For a log, which names no files.
    logged: Option<&'static str>,
}

impl Failure {
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, error: anyhow::anyhow!("{message}"), logged: None }
    }

    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }

    pub fn message(&self) -> String {
        format!("{:#}", self.error)
    }

    pub fn logged_as(self, logged: &'static str) -> Self {
        Self { logged: Some(logged), ..self }
    }

    /// The message, as far as it may be in a file.
    pub fn log_message(&self) -> String {
        self.logged.map_or_else(|| self.message(), str::to_owned)
    }

    pub fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    pub fn context(self, context: impl fmt::Display + Send + Sync + 'static) -> Self {
        Self { error: self.error.context(context), ..self }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: Code::Other, error: error.into(), logged: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:#}", self.code, self.error)
    }
}

/// Gives an error its number: `open().or_exit(Code::Busy)?`.
pub trait OrExit<T> {
    fn or_exit(self, code: Code) -> Outcome<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, code: Code) -> Outcome<T> {
        self.map_err(|error| Failure { code, error: error.into(), logged: None })
    }
}

/// Ends the process at once. Threads may still be at work that nobody waits for, and what libraries do at a usual exit
/// takes away what those use: a thread inside SQLCipher then crashed in OpenSSL, when all was done and well.
pub fn leave(code: i32) -> ! {
    use std::io::Write;
    // Whoever read the output may be gone.
    let _ = std::io::stdout().flush();
    // SAFETY: ends the process, without running anything of ours.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_from_one_and_come_back() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index + 1);
            assert_eq!(Code::from_number(code as u8), Some(code));
        }
        assert_eq!(Code::from_number(0), None);
    }

    #[test]
    fn a_message_shows_its_causes() {
        let failure = Failure::new(Code::Busy, "files are open").context("cannot unmount");
        assert_eq!(failure.to_string(), "cannot unmount: files are open");
        assert_eq!(failure.code, Code::Busy);
    }
}
