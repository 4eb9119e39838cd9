//! What `mount` can be told, by its own flags or by `-o` as mount(8) and fstab write it.

use std::path::PathBuf;

use super::exit::{Failure, Outcome};
use crate::base::ByteSize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FsyncMode {
    /// fsync returns when this machine will not lose it
    #[default]
    Local,
    /// fsync returns when the store has it
    Remote,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Atime {
    /// When older than the last change, or a day.
    #[default]
    Relative,
    Never,
    Always,
}

/// Everything that `-o` can say, with the flags' values to start from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    pub read_only: bool,
    pub allow_other: bool,
    pub allow_suid: bool,
    pub allow_devices: bool,
    pub no_exec: bool,
    pub synchronous: bool,
    pub dir_synchronous: bool,
    pub atime: Atime,
    pub no_directory_atime: bool,
    pub fsync: FsyncMode,
    pub cache_size: Option<ByteSize>,
    /// Zero lifts it; None leaves what the volume has.
    pub quota: Option<ByteSize>,
    pub cache_dir: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    pub log_file: Option<PathBuf>,
    pub password_file: Option<PathBuf>,
    pub password_command: Option<String>,
    pub identity: Option<PathBuf>,
    pub fingerprint: Option<String>,
    pub trust_first: bool,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    pub profile: Option<String>,
    pub instance_credentials: bool,
    /// Change the kernel's flags of a drive that is mounted.
    pub remount: bool,
}

impl Chosen {
    /// `ro,allow_other,cache-size=20GiB`. Later words win. `_` and `-` are the same in names.
    pub fn apply(&mut self, options: &str) -> Outcome {
        options.split(',').filter(|option| !option.is_empty()).try_for_each(|option| self.apply_one(option))
    }

    fn apply_one(&mut self, option: &str) -> Outcome {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if is_for_others(name) || is_the_kernels(name) {
            return Ok(());
        }
        let name = name.replace('_', "-");
        match value {
            None => self.set_flag(&name),
            Some("") => Err(Failure::usage(format!("-o {name}= needs a value"))),
            Some(value) => self.set_value(&name, value),
        }
    }

    fn set_flag(&mut self, name: &str) -> Outcome {
        match name {
            "defaults" => {}
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow-other" => self.allow_other = true,
            "suid" => self.allow_suid = true,
            "nosuid" => self.allow_suid = false,
            "dev" => self.allow_devices = true,
            "nodev" => self.allow_devices = false,
            "exec" => self.no_exec = false,
            "noexec" => self.no_exec = true,
            "sync" => self.synchronous = true,
            "async" => self.synchronous = false,
            "dirsync" => self.dir_synchronous = true,
            "noatime" => self.atime = Atime::Never,
            "nodiratime" => self.no_directory_atime = true,
            "diratime" => self.no_directory_atime = false,
            "relatime" | "atime" => self.atime = Atime::Relative,
            "strictatime" => self.atime = Atime::Always,
            "instance-credentials" => self.instance_credentials = true,
            "trust-first" => self.trust_first = true,
            "remount" => self.remount = true,
            _ => return Err(Failure::usage(format!("unknown mount option {name:?}; `hushfs help mount` lists them"))),
        }
        Ok(())
    }

    fn set_value(&mut self, name: &str, value: &str) -> Outcome {
        match name {
            "fsync" => {
                self.fsync = match value {
                    "local" => FsyncMode::Local,
                    "remote" => FsyncMode::Remote,
                    _ => return Err(Failure::usage("-o fsync= is local or remote")),
                }
            }
            "quota" => self.quota = Some(value.parse().map_err(Failure::usage)?),
            "cache-size" => self.cache_size = Some(value.parse().map_err(Failure::usage)?),
            "cache-dir" => self.cache_dir = Some(value.into()),
            "state-dir" => self.state_dir = Some(value.into()),
            "log-file" => self.log_file = Some(value.into()),
            "password-file" => self.password_file = Some(value.into()),
            "password-command" => self.password_command = Some(value.into()),
            "identity" => self.identity = Some(value.into()),
            "fingerprint" => self.fingerprint = Some(value.into()),
            "endpoint-url" => self.endpoint_url = Some(value.into()),
            "region" => self.region = Some(value.into()),
            "profile" => self.profile = Some(value.into()),
            _ => return Err(Failure::usage(format!("unknown mount option {name:?}; `hushfs help mount` lists them"))),
        }
        Ok(())
    }
}

/// What fstab says to mount(8), systemd and whoever reads `x-` options, and not to us.
fn is_for_others(name: &str) -> bool {
    const IGNORED: [&str; 12] = [
        "_netdev", "auto", "noauto", "fail", "nofail", "user", "users", "nouser", "owner", "group", "comment",
        "nousers",
    ];
    IGNORED.contains(&name) || name.starts_with("x-") || name.starts_with("X-")
}

/// What the kernel shows of every drive, and mount(8) hands back at a remount.
fn is_the_kernels(name: &str) -> bool {
    ["user_id", "group_id", "default_permissions", "max_read", "blksize"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Code;

    fn parse(options: &str) -> Outcome<Chosen> {
        let mut chosen = Chosen::default();
        chosen.apply(options).map(|()| chosen)
    }

    #[test]
    fn an_fstab_line_is_understood() {
        let chosen = parse(
            "defaults,_netdev,noauto,user,nofail,x-systemd.automount,x-gvfs-name=A b,ro,allow_other,noatime,\
             fsync=remote,cache-size=5GiB,password-file=/etc/hushfs.key,endpoint_url=http://[::1]:8000/?a=b",
        )
        .unwrap();
        assert!(chosen.read_only && chosen.allow_other);
        assert_eq!((chosen.atime, chosen.fsync), (Atime::Never, FsyncMode::Remote));
        assert_eq!(chosen.cache_size, Some(ByteSize(5 << 30)));
        assert_eq!(chosen.password_file, Some("/etc/hushfs.key".into()));
        assert_eq!(chosen.endpoint_url.as_deref(), Some("http://[::1]:8000/?a=b"));
    }

    #[test]
    fn later_words_win() {
        assert!(!parse("ro,rw").unwrap().read_only);
        assert!(parse("suid,nosuid,suid").unwrap().allow_suid);
    }

    #[test]
    fn what_mount_repeats_at_a_remount_is_understood() {
        let chosen = parse("ro,relatime,user_id=0,group_id=0,default_permissions,allow_other,remount").unwrap();
        assert!(chosen.remount && chosen.read_only);
    }

    #[test]
    fn unknown_and_malformed_options_are_refused() {
        for options in
            ["rw,frobnicate", "uid=5", "ro=1", "fsync", "fsync=maybe", "cache-size=", "cache-size=big", "netdev"]
        {
            assert_eq!(parse(options).unwrap_err().code, Code::Usage, "{options}");
        }
    }
}
