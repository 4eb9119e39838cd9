//! Where a password comes from: a file, a command, the environment, or a prompt. Never an argument, which
//! everyone on the machine could read.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::exit::{Failure, OrExit, Outcome};
use crate::cli::exit::Code;
use crate::crypto::{PrivateHalf, parse_identities};
use crate::meta::keyring::Secret;

pub const VARIABLE: &str = "HUSHFS_PASSWORD";

/// Wiped when dropped; has no `Debug`, so that it is printed nowhere.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Outcome<Self> {
        let mut bytes = Zeroizing::new(bytes.into());
        if bytes.ends_with(b"\n") {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        if bytes.is_empty() { Err(Failure::usage("the password is empty")) } else { Ok(Self(bytes)) }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct PasswordArgs {
    /// Read the password from this file (without its last line break). Without this and --password-command it is
    /// HUSHFS_PASSWORD's, or asked for
    #[arg(long, value_name = "FILE", conflicts_with = "password_command")]
    pub password_file: Option<PathBuf>,
    /// Take what this shell command prints as the password
    #[arg(long, value_name = "COMMAND")]
    pub password_command: Option<String>,
}

/// By what a volume is unlocked.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct UnlockArgs {
    #[command(flatten)]
    pub password: PasswordArgs,
    /// Unlock with this age identity file, as one whom `hushfs key add` let in
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_file", "password_command"])]
    pub identity: Option<PathBuf>,
}

impl UnlockArgs {
    pub fn secret(&self) -> Outcome<Secret> {
        let Some(file) = &self.identity else {
            let password = self.password.existing()?;
            return Ok(Secret::Password(Zeroizing::new(password.as_bytes().to_vec())));
        };
        Ok(Secret::Identity(identities(file)?))
    }
}

/// The keys in an age identity file.
pub fn identities(file: &Path) -> Outcome<Vec<PrivateHalf>> {
    let named = |failure: Failure| failure.context(format!("identity file {}", file.display()));
    let text = Zeroizing::new(std::fs::read_to_string(file).or_exit(Code::Other).map_err(named)?);
    parse_identities(&text).or_exit(Code::Usage).map_err(named)
}

impl PasswordArgs {
    /// The password that exists. Asks only if nothing else says it.
    pub fn existing(&self) -> Outcome<Password> {
        self.of_variable(VARIABLE, "Password: ", AskOn::Input)
    }

    /// The same of something that has another variable.
    pub fn of_variable(&self, variable: &str, prompt: &str, place: AskOn) -> Outcome<Password> {
        match self.without_asking(variable)? {
            Some(password) => Ok(password),
            None => ask_on(place, prompt, &format!("--password-file, --password-command or {variable}")),
        }
    }

    /// A password that is to be set, asked for twice.
    pub fn fresh(&self) -> Outcome<Password> {
        match self.without_asking(VARIABLE)? {
            Some(password) => Ok(password),
            None => ask_twice("New password: ", EXISTING),
        }
    }

    fn without_asking(&self, variable: &str) -> Outcome<Option<Password>> {
        let from_environment = std::env::var_os(variable).map(std::os::unix::ffi::OsStringExt::into_vec);
        let bytes: Option<Vec<u8>> = match (&self.password_file, &self.password_command) {
            (Some(file), _) => Some(
                std::fs::read(file)
                    .or_exit(Code::Other)
                    .map_err(|failure| failure.context(format!("cannot read {}", file.display())))?,
            ),
            (None, Some(command)) => Some(output_of(command)?),
            (None, None) => from_environment,
        };
        bytes.map(Password::new).transpose()
    }
}

/// For changing a password: the new one never comes from where the old one did.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct NewPasswordArgs {
    /// Read the new password from this file
    #[arg(long, value_name = "FILE", conflicts_with = "new_password_command")]
    pub new_password_file: Option<PathBuf>,
    /// Take what this shell command prints as the new password
    #[arg(long, value_name = "COMMAND")]
    pub new_password_command: Option<String>,
}

impl NewPasswordArgs {
    pub fn fresh(&self) -> Outcome<Password> {
        match (&self.new_password_file, &self.new_password_command) {
            (None, None) => ask_twice("New password: ", "--new-password-file or --new-password-command"),
            (file, command) => {
                PasswordArgs { password_file: file.clone(), password_command: command.clone() }.existing()
            }
        }
    }
}

const EXISTING: &str = "--password-file, --password-command or HUSHFS_PASSWORD";

pub fn ask_twice(prompt: &str, instead: &str) -> Outcome<Password> {
    let first = ask(prompt, instead)?;
    let second = ask("Again: ", instead)?;
    if first.as_bytes() == second.as_bytes() { Ok(first) } else { Err(Failure::usage("the two passwords differ")) }
}

/// `instead` is what a program that has no terminal can use.
pub fn ask(prompt: &str, instead: &str) -> Outcome<Password> {
    ask_on(AskOn::Input, prompt, instead)
}

/// Whether there is somebody to ask.
#[derive(Clone, Copy, Debug)]
pub enum AskOn {
    /// If standard input is a terminal.
    Input,
    /// If the process has one, whatever standard input is.
    Terminal,
}

fn ask_on(place: AskOn, prompt: &str, instead: &str) -> Outcome<Password> {
    let has_terminal = match place {
        AskOn::Input => std::io::stdin().is_terminal(),
        AskOn::Terminal => std::fs::File::open("/dev/tty").is_ok(),
    };
    if !has_terminal {
        let what = prompt.trim_end_matches([':', ' ']).to_lowercase();
        return Err(Failure::usage(format!("no terminal to ask on for the {what}; use {instead}")));
    }
    Password::new(rpassword::prompt_password(prompt)?)
}

fn output_of(command: &str) -> Outcome<Vec<u8>> {
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::inherit()).stderr(Stdio::inherit()).output()?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Failure::new(Code::Other, format!("the password command failed with {}", output.status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(args: &PasswordArgs) -> Outcome<String> {
        args.existing().map(|password| String::from_utf8(password.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn a_file_gives_its_contents_without_the_last_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = PasswordArgs { password_file: Some(file.path().into()), password_command: None };
        for (contents, password) in [("secret\n", "secret"), ("se cret\r\n", "se cret"), ("two\n\n", "two\n")] {
            std::fs::write(file.path(), contents).unwrap();
            assert_eq!(text(&args).unwrap(), password);
        }
        std::fs::write(file.path(), "\n").unwrap();
        assert_eq!(text(&args).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn a_command_gives_its_output_and_must_succeed() {
        let args = |command: &str| PasswordArgs { password_file: None, password_command: Some(command.into()) };
        assert_eq!(text(&args("printf 'a b'; echo c")).unwrap(), "a bc");
        assert!(text(&args("echo secret; exit 3")).is_err());
    }

    #[test]
    fn a_missing_file_is_named() {
        let args = PasswordArgs { password_file: Some("/nowhere/at all".into()), password_command: None };
        assert!(text(&args).unwrap_err().message().contains("/nowhere/at all"));
    }
}
