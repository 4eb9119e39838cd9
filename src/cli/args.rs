//! The command line, with an example in each help.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use super::exit::{Code, Failure, OrExit, Outcome};
use super::links::args::{GetArgs, ImportArgs, ShareCommand};
use super::mount_options::{Chosen, FsyncMode};
use super::password::{NewPasswordArgs, PasswordArgs, UnlockArgs};
use crate::base::ByteSize;
use crate::gateway::AddressRange;
use crate::store::StoreUrl;

pub const DEFAULT_CACHE_BYTES: u64 = 20 << 30;

const ABOUT: &str = "A private drive on any object store";

const LONG_ABOUT: &str = "\
Mounts a private drive from any object store. What is written there is cut into chunks, sealed on this machine, \
and pushed to the store, which learns no contents, names, tree or exact sizes.

A URL is a path or file://, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix. Credentials come from \
where the store's own tools take them (AWS_*, AWS_PROFILE, ~/.aws, GOOGLE_*, AZURE_*).";

const AFTER_HELP: &str = "\
EXAMPLES
  hushfs init s3://my-bucket/drive
  hushfs mount s3://my-bucket/drive ~/drive
  hushfs umount ~/drive

EXIT CODES
  0  done
  1  another failure; the message says which
  2  wrong usage
  3  the password, recovery key or identity opens nothing here (a link's as well)
  4  there is no volume at this URL
  5  there is a volume at this URL already
  6  the store cannot be reached, or refuses
  7  the store shows another history than this device knows, or another volume
  8  busy: mounted already, files are open, or somebody else is changing the keys or the link
  9  interrupted; the message says what is left, or that the same command goes on
  10  the link was taken back, has expired, or is not there
  11  what is stored of the link is damaged, or not what its owner published";

#[derive(Debug, Parser)]
#[command(name = "hushfs", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
#[command(disable_help_subcommand = false, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a volume, and print its recovery key once
    Init(InitArgs),
    /// Mount a volume on a directory; returns when the drive answers
    Mount(MountArgs),
    /// Wait until all is in the store, then unmount
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// Show what waits for upload, and whether the store is well
    Status(StatusArgs),
    /// Wait until all that was written so far is in the store
    Flush(FlushArgs),
    /// List and change who can open a volume, and give it new keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Set a new password with the recovery key
    Recover(RecoverArgs),
    /// Hand out a file or folder by a link, list links, take them back
    #[command(subcommand)]
    Share(ShareCommand),
    /// Fetch what a link shares; no volume is needed
    Get(GetArgs),
    /// Fetch what a link shares into a mounted drive
    Import(ImportArgs),
    /// Serve links to browsers, without any key
    Gateway(GatewayArgs),
}

/// Which store, and how to reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct StoreArgs {
    /// A path or file://, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix
    #[arg(value_name = "URL")]
    pub url: String,
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// How to reach a store, for commands that learn in another way which one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ReachArgs {
    /// An S3 server that is not Amazon's, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// The bucket's region
    #[arg(long)]
    pub region: Option<String>,
    /// The profile in ~/.aws to take credentials and region from
    #[arg(long)]
    pub profile: Option<String>,
    /// Use the credentials that a cloud gives its own machines
    #[arg(long)]
    pub instance_credentials: bool,
}

impl ReachArgs {
    pub fn store(&self, url: &str) -> Outcome<StoreArgs> {
        StoreArgs { url: url.into(), reach: self.clone() }.absolute()
    }
}

impl StoreArgs {
    /// A local path is made absolute, as the daemon changes its directory.
    pub fn absolute(mut self) -> Outcome<Self> {
        if StoreUrl::parse(&self.url).or_exit(Code::Usage)?.is_local() && !self.url.contains("://") {
            let path = normal(&std::path::absolute(&self.url)?);
            self.url = path.into_os_string().into_string().map_err(|_| Failure::usage("the path is not UTF-8"))?;
        }
        Ok(self)
    }
}

/// Without `.` and, where that changes nothing, `..`.
fn normal(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.components().collect())
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs init s3://my-bucket/drive --profile me
  hushfs init /media/disk/drive --password-command 'pass show hushfs'

The recovery key is 24 words. It is printed once and opens the volume when the password is lost: keep it apart from \
this machine.")]
pub struct InitArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub password: PasswordArgs,
    /// Memory that each try of a password takes, 64MiB to 4GiB. Without it, memory and passes are chosen so that a
    /// try takes this machine about a second
    #[arg(long, value_name = "SIZE", value_parser = parse_kdf_memory)]
    pub kdf_memory: Option<ByteSize>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs mount s3://my-bucket/drive ~/drive
  hushfs mount s3://my-bucket/drive ~/drive --quota 200GiB
  hushfs mount /media/disk/drive /mnt -o ro,allow_other --password-file /etc/hushfs.key
  hushfs mount s3://drive ~/drive --endpoint-url http://127.0.0.1:8000 -f

OPTIONS OF -o
  defaults ro rw allow_other suid nosuid dev nodev exec noexec sync async dirsync
  atime noatime diratime nodiratime relatime strictatime
  fsync=local|remote cache-size=SIZE quota=SIZE cache-dir=DIR state-dir=DIR log-file=FILE
  password-file=FILE password-command=COMMAND identity=FILE fingerprint=FINGERPRINT trust-first
  endpoint-url=URL region=NAME profile=NAME instance-credentials
  remount, of a drive that is mounted: changes ro rw suid dev exec sync and their opposites
  What fstab says to others is ignored: _netdev auto noauto nofail user users owner group x-*

FSTAB, with this program linked as /sbin/mount.hushfs, and for remounts as /sbin/mount.fuse.hushfs
  s3://my-bucket/drive  /mnt/drive  hushfs  _netdev,allow_other,password-file=/etc/hushfs.key  0 0

--accept-loss and --allow-large-kdf are decisions for one mount, and no options of -o.

SIGINT, SIGTERM and SIGHUP unmount and wait until all is in the store; a second one leaves at once. What is then not in the \
store stays in the state folder and is uploaded after the next mount.")]
pub struct MountArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Where to mount
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// The volume's fingerprint, as its owner told it: for the first mount by --identity
    #[arg(long, value_name = "FINGERPRINT")]
    pub fingerprint: Option<String>,
    /// Take whatever volume is there on a first mount by --identity
    #[arg(long, conflicts_with = "fingerprint")]
    pub trust_first: bool,
    /// Stay in the foreground, and log to standard error unless --log-file says where
    #[arg(short, long)]
    pub foreground: bool,
    /// Refuse all changes
    #[arg(long)]
    pub read_only: bool,
    /// Let other users in, as permissions say
    #[arg(long)]
    pub allow_other: bool,
    /// When fsync returns
    #[arg(long, value_enum, default_value_t)]
    pub fsync: FsyncMode,
    /// Folder for the cache of ciphertext; may be deleted when nothing is mounted
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// How much the cache may take
    #[arg(long, value_name = "SIZE", default_value = "20GiB")]
    pub cache_size: ByteSize,
    /// How much the volume may hold, for all who mount it and until it is set again; 0 lifts it
    #[arg(long, value_name = "SIZE")]
    pub quota: Option<ByteSize>,
    /// Folder for what the store may not have yet. Not a cache: never delete it
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the daemon logs to
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Accept a volume whose password takes more than a quarter of this machine's memory to try
    #[arg(long)]
    pub allow_large_kdf: bool,
    /// Mount although synced changes are lost: what is behind a damage of the journal is left out, and kept aside; where
    /// bytes are gone from the staging folder there are zeros. Without this flag the mount fails and names the files
    #[arg(long)]
    pub accept_loss: bool,
    /// Mount options, as mount(8) has them
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// `mount -f`: everything but the mount itself.
    #[arg(skip)]
    pub fake: bool,
}

impl MountArgs {
    /// Flags first, then each `-o`.
    pub fn chosen(&self) -> Outcome<Chosen> {
        let mut chosen = Chosen {
            read_only: self.read_only,
            allow_other: self.allow_other,
            fsync: self.fsync,
            cache_dir: self.cache_dir.clone(),
            cache_size: Some(self.cache_size),
            quota: self.quota,
            state_dir: self.state_dir.clone(),
            log_file: self.log_file.clone(),
            password_file: self.unlock.password.password_file.clone(),
            password_command: self.unlock.password.password_command.clone(),
            identity: self.unlock.identity.clone(),
            fingerprint: self.fingerprint.clone(),
            trust_first: self.trust_first,
            endpoint_url: self.store.reach.endpoint_url.clone(),
            region: self.store.reach.region.clone(),
            profile: self.store.reach.profile.clone(),
            instance_credentials: self.store.reach.instance_credentials,
            ..Chosen::default()
        };
        self.options.iter().try_for_each(|options| chosen.apply(options))?;
        Ok(chosen)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs umount ~/drive

Interrupted, it says what is left; the drive then stays mounted and goes on uploading.")]
pub struct UmountArgs {
    /// Where the drive is mounted
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Do not wait for the store: what it lacks stays on this machine until the next mount
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs status ~/drive
  hushfs status --json | jq '.[].waiting.bytes'")]
pub struct StatusArgs {
    /// One drive; without it all of yours
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// For programs: an object, or an array without DIR
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  cp -a ~/photos ~/drive/ && hushfs flush ~/drive")]
pub struct FlushArgs {
    /// Where the drive is mounted
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLE
  hushfs key ls s3://my-bucket/drive
  hushfs key passwd s3://my-bucket/drive
  hushfs key add s3://my-bucket/drive --recipient age1...
  hushfs key rm s3://my-bucket/drive 3
  hushfs key rotate s3://my-bucket/drive")]
pub enum KeyCommand {
    /// List the keys that open a volume
    Ls(KeyArgs),
    /// Change the password
    Passwd(PasswdArgs),
    /// Let somebody in by their age key
    Add(AddArgs),
    /// Shut somebody out of all that is written from now on
    Rm(RmArgs),
    /// Give the volume new keys for all that is written from now on
    Rotate(RotateArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs key ls s3://my-bucket/drive")]
pub struct KeyArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub unlock: UnlockArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs key add s3://my-bucket/drive --recipient age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj \
--label 'the server'

They mount with --identity FILE, and for the first time with the fingerprint that this prints. They also need access \
to the bucket.")]
pub struct AddArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Their public key, as `age-keygen -y` prints it
    #[arg(long, value_name = "age1...")]
    pub recipient: String,
    /// What `key ls` is to show
    #[arg(long, default_value = "recipient")]
    pub label: String,
}

/// A rotation goes into the log, which a device writes: this machine's, whether it is mounted or not.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Folder for what the store may not have yet, as for `mount`
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Folder for the cache of ciphertext, as for `mount`
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs key rm s3://my-bucket/drive 3

The volume gets new keys, as by `hushfs key rotate`. What was written before stays readable for whoever has the old \
key and a copy of the bucket.")]
pub struct RmArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// The slot's number, as `hushfs key ls` shows it
    #[arg(value_name = "SLOT")]
    pub slot: u16,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs key rotate s3://my-bucket/drive
  hushfs key rotate s3://my-bucket/drive --data --rate 10MiB/s

Nobody else's password is needed, and all who can open the volume still can. Other machines follow by themselves.")]
pub struct RotateArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Seal what is there anew, too. Interrupted, it goes on with the next mount, or with the same command, which then
    /// gives no new keys once more
    #[arg(long)]
    pub data: bool,
    /// How much of it a second, such as 10MiB/s
    #[arg(long, value_name = "SIZE/s", value_parser = parse_rate, requires = "data")]
    pub rate: Option<ByteSize>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs key passwd s3://my-bucket/drive
  hushfs key passwd /media/disk/drive --password-file old --new-password-file new")]
pub struct PasswdArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub new_password: NewPasswordArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs recover s3://my-bucket/drive

Asks for the 24 words that `init` printed, then for a new password.")]
pub struct RecoverArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Read the recovery key from this file
    #[arg(long, value_name = "FILE")]
    pub recovery_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub new_password: NewPasswordArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  hushfs gateway s3://my-bucket/drive
  hushfs gateway s3://my-bucket/drive --listen 0.0.0.0:8080 --behind-tls --trust-proxy 10.0.0.0/8
  hushfs gateway --page-hashes

It needs read access to share/ in the bucket (and to list it), and no password: what it serves is sealed. Browsers \
decrypt only on pages that come over https, so put a proxy with TLS in front; README.md has nginx and Caddy. \
GET /health answers when the store does, GET /metrics on this machine alone, without a proxy.

An address means one IPv4 address, or the 64 bits of an IPv6 address that one household has.")]
pub struct GatewayArgs {
    /// The volume's URL, whose links are to be served
    #[arg(value_name = "URL", required_unless_present = "page_hashes")]
    pub url: Option<String>,
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Where to listen: an address of this machine alone, unless --behind-tls
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = parse_listen)]
    pub listen: SocketAddr,
    /// Other machines may connect, as a proxy in front of them speaks TLS
    #[arg(long)]
    pub behind_tls: bool,
    /// A proxy whose X-Forwarded-For says who asks; an address or a network, and may be given again
    #[arg(long, value_name = "ADDRESS")]
    pub trust_proxy: Vec<AddressRange>,
    /// Memory for blocks that were read
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub cache_size: ByteSize,
    /// Requests that may be open at a time; each takes 256 KiB at most
    #[arg(long, value_name = "COUNT", default_value_t = 1024)]
    pub open_max: usize,
    /// Requests that one address may have open at a time
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    pub address_open_max: usize,
    /// Cut off who takes less than 64 KiB in so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub slow_after: u64,
    /// Requests that one address may make in a minute
    #[arg(long, value_name = "COUNT", default_value_t = 1_200, value_parser = clap::value_parser!(u64).range(1..))]
    pub address_requests: u64,
    /// Bytes that one address may fetch in an hour
    #[arg(long, value_name = "SIZE", default_value = "200GiB", value_parser = parse_budget)]
    pub address_bytes: ByteSize,
    /// Requests for one link in a minute
    #[arg(long, value_name = "COUNT", default_value_t = 12_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub link_requests: u64,
    /// Bytes that all may fetch of one link in an hour
    #[arg(long, value_name = "SIZE", default_value = "1TiB", value_parser = parse_budget)]
    pub link_bytes: ByteSize,
    /// Write whole ids of links, and addresses, into the log
    #[arg(long)]
    pub log_details: bool,
    /// Print the SHA-256 of each file that the page is made of, and end
    #[arg(long, exclusive = true)]
    pub page_hashes: bool,
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an address and a port, such as 127.0.0.1:8080 or [::1]:8080".into())
}

fn parse_budget(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error: crate::base::SizeError| error.to_string())?;
    if size.0 > 0 { Ok(size) } else { Err("must be more than nothing".into()) }
}

fn parse_kdf_memory(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error: crate::base::SizeError| error.to_string())?;
    if (64 << 20..=4 << 30).contains(&size.0) { Ok(size) } else { Err("must be 64MiB to 4GiB".into()) }
}

fn parse_rate(text: &str) -> Result<ByteSize, String> {
    let size = text.strip_suffix("/s").unwrap_or(text);
    let rate: ByteSize = size.parse().map_err(|error: crate::base::SizeError| error.to_string())?;
    if rate.0 > 0 { Ok(rate) } else { Err("must be more than nothing".into()) }
}

/// What the program was called as decides what its arguments mean: mount(8) calls `/sbin/mount.hushfs`, and
/// `/sbin/mount.fuse.hushfs` by the type of a drive that is mounted.
pub fn parse(args: Vec<OsString>) -> Result<Cli, ParseError> {
    let name = args.first().and_then(|path| Path::new(path).file_name());
    if name.is_some_and(|name| name == "mount.hushfs" || name == "mount.fuse.hushfs") {
        return Ok(Cli { command: Command::Mount(parse_helper(args)?) });
    }
    Ok(Cli::try_parse_from(args)?)
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(#[from] pub clap::Error);

/// `mount.hushfs URL DIR [-sfnv] [-o options] [-t type]`, as mount(8) documents helpers.
#[derive(Parser)]
#[command(
    name = "mount.hushfs",
    about = "Called by mount(8) for the type hushfs",
    after_help = "\
EXAMPLE
  mount -t hushfs s3://my-bucket/drive /mnt -o ro,password-file=/etc/hushfs.key"
)]
struct Helper {
    url: String,
    dir: PathBuf,
    #[arg(short = 'o')]
    options: Vec<String>,
    /// Accepted as mount(8) asks for it, and ignored
    #[arg(short = 's')]
    sloppy: bool,
    #[arg(short = 'v')]
    verbose: bool,
    #[arg(short = 'f')]
    fake: bool,
    #[arg(short = 'n')]
    no_mtab: bool,
    #[arg(short = 't')]
    fs_type: Option<String>,
}

fn parse_helper(args: Vec<OsString>) -> Result<MountArgs, clap::Error> {
    let Helper { url, dir, options, fake, .. } = Helper::try_parse_from(args)?;
    let plain = ["hushfs".into(), "mount".into(), "--".into(), OsString::from(url), dir.into_os_string()];
    match Cli::try_parse_from(plain)?.command {
        Command::Mount(mount) => Ok(MountArgs { options, fake, ..mount }),
        _ => Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::mount_options::Atime;

    fn cli(line: &str) -> Result<Command, ParseError> {
        parse(line.split(' ').map(Into::into).collect()).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_consistent_and_every_command_shows_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut open = vec![command];
        while let Some(command) = open.pop() {
            if command.get_name() == "help" {
                continue;
            }
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("EXAMPLE"), "{}", command.get_name());
            open.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn the_help_lists_every_exit_code() {
        for code in crate::cli::exit::Code::ALL {
            assert!(AFTER_HELP.contains(&format!("\n  {}  ", code as u8)));
        }
    }

    #[test]
    fn mount_takes_flags_and_options_together() {
        let command =
            cli("hushfs mount s3://b/p /mnt --allow-other --cache-size 5GiB -o noatime,cache-size=6GiB -o ro -f")
                .unwrap();
        let Command::Mount(args) = command else { panic!() };
        let chosen = args.chosen().unwrap();
        assert!(chosen.allow_other && chosen.read_only && args.foreground);
        assert_eq!(chosen.cache_size, Some(ByteSize(6 << 30)));
        assert_eq!(chosen.atime, Atime::Never);
    }

    #[test]
    fn a_rate_is_a_size_a_second() {
        for rate in ["10MiB/s", "10MiB"] {
            let Command::Key(KeyCommand::Rotate(args)) =
                cli(&format!("hushfs key rotate s3://b/p --data --rate {rate}")).unwrap()
            else {
                panic!()
            };
            assert_eq!((args.data, args.rate), (true, Some(ByteSize(10 << 20))));
        }
    }

    #[test]
    fn mount_helpers_arguments_are_understood() {
        let Command::Mount(args) = cli("/sbin/mount.hushfs s3://b/p /mnt -sfvn -o rw,_netdev").unwrap() else {
            panic!()
        };
        assert_eq!((args.store.url.as_str(), args.dir.as_path()), ("s3://b/p", Path::new("/mnt")));
        assert!(args.fake && !args.foreground && !args.chosen().unwrap().read_only);
        assert!(matches!(cli("/sbin/mount.fuse.hushfs s3://b/p /mnt -o remount,ro").unwrap(), Command::Mount(_)));
        assert!(cli("mount.hushfs s3://b/p").is_err());
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "hushfs mount s3://b/p",
            "hushfs mount s3://b/p /mnt --password x",
            "hushfs mount s3://b/p /mnt --frobnicate",
            "hushfs mount s3://b/p /mnt --cache-size huge",
            "hushfs mount s3://b/p /mnt --fsync maybe",
            "hushfs init s3://b/p --kdf-memory 1MiB",
            "hushfs init s3://b/p --password-file a --password-command b",
            "hushfs key",
            "hushfs key rotate s3://b/p --rate 1MiB/s",
            "hushfs key rotate s3://b/p --data --rate 0",
            "hushfs key rotate s3://b/p --data --rate fast",
            "hushfs gateway",
            "hushfs gateway s3://b/p --page-hashes",
            "hushfs gateway s3://b/p --listen localhost:8080",
            "hushfs gateway s3://b/p --trust-proxy nowhere",
            "hushfs gateway s3://b/p --address-bytes 0",
            "hushfs frob",
        ] {
            assert!(cli(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_gateway_needs_a_store_but_not_to_tell_its_hashes() {
        let Command::Gateway(args) = cli("hushfs gateway --page-hashes").unwrap() else { panic!() };
        assert!(args.page_hashes && args.url.is_none());
        let line = "hushfs gateway s3://b/p --region x --trust-proxy 10.0.0.0/8 --trust-proxy ::1";
        let Command::Gateway(args) = cli(line).unwrap() else { panic!() };
        assert_eq!((args.url.as_deref(), args.reach.region.as_deref()), (Some("s3://b/p"), Some("x")));
        assert_eq!((args.trust_proxy.len(), args.listen.port()), (2, 8080));
    }

    #[test]
    fn local_paths_become_absolute_and_urls_stay() {
        let absolute = |url: &str| StoreArgs { url: url.into(), ..StoreArgs::default() }.absolute().unwrap().url;
        assert!(absolute("some/store").starts_with('/'));
        assert_eq!(absolute("/some/store"), "/some/store");
        assert_eq!(absolute("s3://bucket/prefix"), "s3://bucket/prefix");
    }
}
