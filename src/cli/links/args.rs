//! The arguments of links, with an example in each help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::base::Timestamp;
use crate::cli::args::{DeviceArgs, ReachArgs};
use crate::cli::password::UnlockArgs;

pub const HOST_VARIABLE: &str = "HUSHFS_LINK_HOST";

#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLE
  hushfs share create ~/drive/photos/2024 --expires 7d
  hushfs share ls
  hushfs share revoke 3f0c…")]
pub enum ShareCommand {
    /// Publish a copy of a file or folder, and print the link
    Create(CreateArgs),
    /// List the links of a drive
    Ls(LsArgs),
    /// Show a link again, with its secret
    Show(IdArgs),
    /// Take a link back: its content is deleted from the store
    Revoke(IdArgs),
    /// Write a file or folder as a page that opens without any server, from a stick for instance
    Export(ExportArgs),
}

/// For a volume that is not mounted; a mounted one needs none of it.
#[derive(Debug, Args)]
pub struct UnmountedArgs {
    #[command(flatten)]
    pub reach: ReachArgs,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Debug, Args)]
pub struct HostArgs {
    /// The gateway's address, which the link begins with: https://HOST. Without it the link has no host, and opens with
    /// `hushfs get --store URL`
    #[arg(long, value_name = "URL", env = HOST_VARIABLE)]
    pub host: Option<String>,
}

/// What is to be in a link, and who opens it.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The file or folder inside the volume, which does not have to be mounted
    #[arg(long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// When the link ends: a time from now such as 30m, 12h, 7d or 4w
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub expires: Option<u64>,
    /// Ask for a password that opens the link together with it
    #[arg(long)]
    pub password: bool,
    /// Read the link's password from this file
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub link_password_file: Option<PathBuf>,
    /// Take what this shell command prints as the link's password
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["password", "link_password_file"])]
    pub link_password_command: Option<String>,
    /// What the copy is called; without it what it is called now
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// Only this age key opens the link; the link itself holds no secret then
    #[arg(long, value_name = "age1...")]
    pub recipient: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs share create ~/drive/photos/2024 --expires 7d --host https://share.example.org
  hushfs share create ~/drive/report.pdf --password --name 'Report.pdf'
  hushfs share create ~/drive/project --live --recipient age1...
  hushfs share create s3://my-bucket/drive --path photos/2024

The link is a copy: later changes are not in it, unless it is --live. Whoever has the link can read it, and nothing \
else. Interrupted, the same command goes on where it stopped.")]
pub struct CreateArgs {
    /// A file or folder of a mounted drive; or a volume's URL, with --path
    #[arg(value_name = "PATH|URL")]
    pub place: String,
    #[command(flatten)]
    pub copy: CopyArgs,
    /// Follow the folder: publish it again after changes, while the drive is mounted
    #[arg(long)]
    pub live: bool,
    #[command(flatten)]
    pub host: HostArgs,
    /// For programs: an object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub unmounted: UnmountedArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs share ls
  hushfs share ls ~/drive --json | jq '.[] | select(.state == \"published\") | .title'
  hushfs share ls s3://my-bucket/drive")]
pub struct LsArgs {
    /// A mounted drive, or a volume's URL; without it all mounted drives
    #[arg(value_name = "DIR|URL")]
    pub place: Option<String>,
    /// For programs: an array
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub unmounted: UnmountedArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs share show 3f0c8a…
  hushfs share revoke 3f0c8a…
  hushfs share revoke 'https://share.example.org/s/3f0c8a…#1.…' s3://my-bucket/drive

After `revoke` nothing of the link is left in the store but a note that it was taken back. Who has fetched it keeps what \
they have.")]
pub struct IdArgs {
    /// The link, or its id as `share ls` shows it
    #[arg(value_name = "LINK|ID")]
    pub link: String,
    /// A mounted drive, or a volume's URL; without it that one of the mounted drives which has the link
    #[arg(value_name = "DIR|URL")]
    pub place: Option<String>,
    #[command(flatten)]
    pub host: HostArgs,
    /// For programs: an object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub unmounted: UnmountedArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs share export ~/drive/report.pdf report.html
  hushfs share export ~/drive/photos photos.html --password --with-key
  hushfs share export '3f0c8a…#1.kq…' report.html --store s3://my-bucket/drive

Nothing is published: the page is the only copy, and can be taken back no more. What it shares is in the page while it \
is small, else in a file .hushbox beside it, which the page asks for. The page asks for its key too, which this command \
prints and nothing keeps, unless the key is in it; a password is asked for in any case. With --expires it opens no more \
after that, by a clock that its holder sets.")]
pub struct ExportArgs {
    /// A file or folder of a mounted drive; or a volume's URL, with --path; or a link that is published, with --store
    #[arg(value_name = "PATH|URL|LINK")]
    pub what: String,
    /// The page; it must not be there yet
    #[arg(value_name = "FILE.html")]
    pub file: PathBuf,
    #[command(flatten)]
    pub copy: CopyArgs,
    /// Put the key into the page, so that it opens by itself
    #[arg(long, conflicts_with = "recipient")]
    pub with_key: bool,
    /// The URL of the volume whose link it is
    #[arg(long, value_name = "URL", conflicts_with_all = ["path", "expires", "password", "link_password_file", "link_password_command", "name", "recipient"])]
    pub store: Option<String>,
    #[command(flatten)]
    pub unmounted: UnmountedArgs,
}

/// From where, and by what a link is opened.
#[derive(Debug, Args)]
pub struct FromArgs {
    /// The link, all of it, quoted, as shells have other uses for '#'; '-' reads it from standard input, or
    /// asks for it on a terminal, which keeps it from other users of this machine
    #[arg(value_name = "LINK")]
    pub link: String,
    /// Fetch from the bucket itself instead of the link's gateway
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Read the link's password from this file. Without this and --password-command it is HUSHFS_LINK_PASSWORD's, or
    /// asked for
    #[arg(long, value_name = "FILE", conflicts_with = "password_command")]
    pub password_file: Option<PathBuf>,
    /// Take what this shell command prints as the link's password
    #[arg(long, value_name = "COMMAND")]
    pub password_command: Option<String>,
    /// The age identity file of the link's recipient
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs get 'https://share.example.org/s/3f0c8a…#1.kq…'
  hushfs get 'https://share.example.org/s/3f0c8a…#1.kq…' -o ~/downloads
  hushfs get '3f0c8a…#1.kq…' --store s3://my-bucket/drive

No volume is needed, and no gateway is trusted: everything is held to what the owner signed. Interrupted, the same \
command goes on where it stopped.")]
pub struct GetArgs {
    #[command(flatten)]
    pub from: FromArgs,
    /// A folder to put it into, or a path that does not exist yet; without it the current folder
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs import 'https://share.example.org/s/3f0c8a…#1.kq…' ~/drive/received")]
pub struct ImportArgs {
    #[command(flatten)]
    pub from: FromArgs,
    /// A folder of a mounted drive to put it into, or a path there that does not exist yet
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// In seconds.
fn parse_duration(text: &str) -> Result<u64, String> {
    const WHAT: &str = "a number and m, h, d or w, such as 30m, 12h, 7d or 4w";
    let unit = text.chars().next_back().ok_or(WHAT)?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(WHAT.into()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| WHAT.to_owned())?;
    // A thousand years are for ever.
    let total = count.checked_mul(seconds).filter(|total| *total > 0 && *total < 1000 * 365 * 86_400);
    total.ok_or_else(|| "must be more than nothing and less than a thousand years".into())
}

pub fn after(now: Timestamp, seconds: u64) -> Timestamp {
    Timestamp::new(now.secs.saturating_add_unsigned(seconds), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(parse_duration("30m"), Ok(1800));
        assert_eq!(parse_duration("7d"), Ok(604_800));
        for bad in ["", "7", "d", "-1d", "0h", "1y", "1.5h", "99999999999999w", "7 d", "é"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
