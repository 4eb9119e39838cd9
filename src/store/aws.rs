//! Keys from the profiles that people have: `~/.aws/credentials` and `~/.aws/config`.
//!
//! object_store knows none of them. Read here are static keys, session tokens, `credential_process`, and the
//! profile's region and endpoint. What would need a login service (SSO, roles) is refused with the command that
//! gives keys. The files are looked at again when they change, so that keys which another tool renews are taken
//! up without a new mount.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use ini::{Ini, ParseOption};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use parking_lot::Mutex;

use super::StoreErrorKind;
use super::translate::CredentialError;

/// The variables of a process, as a value, so that tests need not change their own.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    pub fn of_process() -> Self {
        // What is no text cannot be a setting of ours.
        Self(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// Empty counts as not set, as in the AWS tools.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    }

    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter(move |(k, v)| k.starts_with(prefix) && !v.is_empty()).map(|(k, v)| (&**k, &**v))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }
}

/// What a profile says, from both files.
#[derive(Clone, Default)]
pub(super) struct Profile {
    name: String,
    settings: BTreeMap<String, String>,
}

/// Where the files are, and which profile is meant.
#[derive(Clone, Debug)]
pub(super) struct ProfileSource {
    pub name: String,
    /// Asked for by name, so that its absence is an error.
    pub is_explicit: bool,
    config: PathBuf,
    credentials: PathBuf,
}

impl ProfileSource {
    /// `None` when there is no home to look in.
    pub fn find(environment: &Environment, option: Option<&str>) -> Option<Self> {
        let named =
            option.or_else(|| environment.get("AWS_PROFILE")).or_else(|| environment.get("AWS_DEFAULT_PROFILE"));
        let file = |variable: &str, name: &str| match environment.get(variable) {
            Some(path) => Some(PathBuf::from(path)),
            None => environment.get("HOME").map(|home| Path::new(home).join(".aws").join(name)),
        };
        Some(Self {
            name: named.unwrap_or("default").to_owned(),
            is_explicit: named.is_some(),
            config: file("AWS_CONFIG_FILE", "config")?,
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?,
        })
    }

    /// `Ok(None)` when there is no such profile.
    pub fn read(&self) -> Result<Option<Profile>, CredentialError> {
        let config_section =
            if self.name == "default" { "default".to_owned() } else { format!("profile {}", self.name) };
        let mut settings = read_section(&self.config, &config_section)?;
        if settings.is_none() && self.name == "default" {
            settings = read_section(&self.config, "profile default")?;
        }
        let keys = read_section(&self.credentials, &self.name)?;
        if settings.is_none() && keys.is_none() {
            return Ok(None);
        }
        let mut settings = settings.unwrap_or_default();
        // Keys in the credentials file go before those in the config file; a token of the one must not meet a
        // key of the other.
        if let Some(keys) = keys {
            if keys.contains_key("aws_access_key_id") {
                settings.retain(|name, _| !name.starts_with("aws_"));
            }
            settings.extend(keys);
        }
        Ok(Some(Profile { name: self.name.clone(), settings }))
    }

    fn modified(&self) -> [Option<SystemTime>; 2] {
        [&self.config, &self.credentials].map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
    }
}

fn read_section(path: &Path, section: &str) -> Result<Option<BTreeMap<String, String>>, CredentialError> {
    let failed = |detail: String| CredentialError {
        kind: StoreErrorKind::NoCredentials,
        detail: format!("{}: {detail}", path.display()),
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    section_of(&text, section).map_err(|line| failed(format!("line {line} is wrong")))
}

/// A section's settings, or the number of the line that is wrong.
pub fn section_of(text: &str, section: &str) -> Result<Option<BTreeMap<String, String>>, usize> {
    // Secrets may hold any character, and nested settings must not pass for the profile's own.
    let options = ParseOption {
        enabled_quote: false,
        enabled_escape: false,
        enabled_preserve_key_leading_whitespace: true,
        ..ParseOption::default()
    };
    // The parser's message would quote the line, which may be a secret.
    let ini = Ini::load_from_str_opt(text, options).map_err(|error| error.line)?;
    let wanted = |name: &str| name.split_whitespace().eq(section.split_whitespace());
    let found = ini.iter().find(|(name, _)| name.is_some_and(wanted));
    Ok(found.map(|(_, settings)| settings.iter().map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned())).collect()))
}

impl Profile {
    pub fn get(&self, setting: &str) -> Option<&str> {
        self.settings.get(setting).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether it says anything about keys at all.
    pub fn has_credentials(&self) -> bool {
        ["aws_access_key_id", "credential_process"].iter().any(|setting| self.get(setting).is_some())
            || self.needs_login().is_some()
    }

    fn needs_login(&self) -> Option<&'static str> {
        let has = |settings: &[&str]| settings.iter().any(|setting| self.get(setting).is_some());
        if has(&["sso_session", "sso_start_url", "sso_account_id"]) {
            return Some("single sign-on");
        }
        if has(&["login_session"]) {
            return Some("a console login");
        }
        has(&["role_arn"]).then_some("a role")
    }

    async fn credential(&self) -> Result<(AwsCredential, Option<SystemTime>), CredentialError> {
        let failed = |detail: String| CredentialError { kind: StoreErrorKind::NoCredentials, detail };
        if let Some(key_id) = self.get("aws_access_key_id") {
            let Some(secret_key) = self.get("aws_secret_access_key") else {
                return Err(failed(format!("profile {} has a key id and no secret key", self.name)));
            };
            let token = self.get("aws_session_token").map(ToOwned::to_owned);
            return Ok((AwsCredential { key_id: key_id.into(), secret_key: secret_key.into(), token }, None));
        }
        if let Some(command) = self.get("credential_process") {
            return run_credential_process(command).await;
        }
        Err(failed(match self.needs_login() {
            Some(what) => format!(
                "profile {0} uses {what}, which hushfs does not do by itself; run \
                 `eval \"$(aws configure export-credentials --profile {0} --format env)\"` and try again, or set \
                 `credential_process = aws configure export-credentials --profile {0}` in another profile",
                self.name
            ),
            None => format!("profile {} has no keys", self.name),
        }))
    }
}

/// Gives the keys of a profile, and new ones when they change or run out.
pub(super) struct ProfileProvider {
    source: ProfileSource,
    /// Held while a process is asked, so that it is asked once.
    cache: tokio::sync::Mutex<Option<Cached>>,
    checked: Mutex<Option<Instant>>,
}

struct Cached {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
    modified: [Option<SystemTime>; 2],
}

/// The files are not looked at more often than this.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Keys are renewed so long before they run out.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);

impl ProfileProvider {
    pub fn new(source: ProfileSource) -> Self {
        Self { source, cache: tokio::sync::Mutex::new(None), checked: Mutex::new(None) }
    }

    fn is_fresh(&self, cached: &Cached) -> bool {
        if cached.expires.is_some_and(|expires| expires < SystemTime::now() + RENEW_BEFORE) {
            return false;
        }
        let mut checked = self.checked.lock();
        if checked.is_some_and(|at| at.elapsed() < CHECK_INTERVAL) {
            return true;
        }
        *checked = Some(Instant::now());
        cached.modified == self.source.modified()
    }

    async fn renew(&self) -> Result<Cached, CredentialError> {
        let modified = self.source.modified();
        let (credential, expires) = match self.source.read()? {
            Some(profile) => profile.credential().await?,
            None => {
                let detail = format!("there is no profile {}", self.source.name);
                return Err(CredentialError { kind: StoreErrorKind::NoCredentials, detail });
            }
        };
        Ok(Cached { credential: Arc::new(credential), expires, modified })
    }
}

#[async_trait]
impl CredentialProvider for ProfileProvider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut cache = self.cache.lock().await;
        if let Some(cached) = cache.as_ref().filter(|cached| self.is_fresh(cached)) {
            return Ok(cached.credential.clone());
        }
        match self.renew().await {
            Ok(renewed) => {
                let credential = renewed.credential.clone();
                *cache = Some(renewed);
                Ok(credential)
            }
            // Keys that are due for renewal still work for a while.
            Err(error) => match cache.as_ref() {
                Some(cached) if cached.expires.is_some_and(|expires| expires > SystemTime::now()) => {
                    tracing::warn!("could not renew the keys: {error}");
                    Ok(cached.credential.clone())
                }
                _ => Err(object_store::Error::Generic { store: "S3", source: Box::new(error) }),
            },
        }
    }
}

impl fmt::Debug for ProfileProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProfileProvider({})", self.source.name)
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessAnswer {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

/// The command is the user's own configuration, and is run as the AWS tools run it. Its error output goes to ours.
async fn run_credential_process(command: &str) -> Result<(AwsCredential, Option<SystemTime>), CredentialError> {
    let failed = |detail: &str| CredentialError {
        kind: StoreErrorKind::NoCredentials,
        detail: format!("credential_process {detail}"),
    };
    let command = command.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        std::process::Command::new("/bin/sh").arg("-c").arg(command).stdin(std::process::Stdio::null()).output()
    });
    let output = match tokio::time::timeout(PROCESS_TIMEOUT, run).await {
        Ok(Ok(Ok(output))) => output,
        Ok(Ok(Err(error))) => return Err(failed(&format!("could not be run: {error}"))),
        Ok(Err(_)) => return Err(failed("could not be run")),
        Err(_) => return Err(failed("did not end within a minute")),
    };
    if !output.status.success() {
        return Err(failed(&format!("failed ({})", output.status)));
    }
    // Never the answer itself in an error: it holds the keys.
    let answer: ProcessAnswer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("answered with something that is not its format"))?;
    if answer.version != 1 {
        return Err(failed("answered in a version that is not 1"));
    }
    let expires = match answer.expiration.as_deref() {
        Some(text) => Some(parse_time(text).ok_or_else(|| failed("gave an expiration that is no time"))?),
        None => None,
    };
    if expires.is_some_and(|expires| expires < SystemTime::now()) {
        return Err(CredentialError {
            kind: StoreErrorKind::CredentialsExpired,
            detail: "credential_process gave keys that have run out".to_owned(),
        });
    }
    let credential = AwsCredential {
        key_id: answer.access_key_id,
        secret_key: answer.secret_access_key,
        token: answer.session_token.filter(|token| !token.is_empty()),
    };
    Ok((credential, expires))
}

/// `2026-11-22T13:06:00Z`, with fractions and offsets as RFC 3339 allows them.
fn parse_time(text: &str) -> Option<SystemTime> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let separators: Vec<u8> = [4, 7, 10, 13, 16].iter().filter_map(|&at| text.as_bytes().get(at).copied()).collect();
    if !matches!(separators[..], [b'-', b'-', b'T' | b't' | b' ', b':', b':']) {
        return None;
    }
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset_secs = match zone {
        "Z" | "z" => 0,
        _ => {
            let (sign, rest) =
                zone.strip_prefix('+').map(|rest| (1, rest)).or(zone.strip_prefix('-').map(|r| (-1, r)))?;
            let (hours, minutes) = rest.split_once(':').or_else(|| rest.split_at_checked(2))?;
            sign * (hours.parse::<u32>().ok()? * 3600 + minutes.parse::<u32>().ok()? * 60) as i64
        }
    };
    // Days since 1970 in the proleptic Gregorian calendar, counting years from March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let secs = days * 86_400 + hour * 3600 + minute * 60 + second - offset_secs;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(secs).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new(config: &str, credentials: &str) -> Self {
            let home = tempfile::tempdir().unwrap();
            std::fs::create_dir(home.path().join(".aws")).unwrap();
            std::fs::write(home.path().join(".aws/config"), config).unwrap();
            std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
            Self(home)
        }

        fn source(&self, profile: Option<&str>) -> ProfileSource {
            ProfileSource::find(&Environment::from([("HOME", self.0.path().to_str().unwrap())]), profile).unwrap()
        }
    }

    async fn keys(source: ProfileSource) -> Result<(String, String, Option<String>), String> {
        let credential = ProfileProvider::new(source).get_credential().await.map_err(|error| error.to_string())?;
        Ok((credential.key_id.clone(), credential.secret_key.clone(), credential.token.clone()))
    }

    #[tokio::test]
    async fn keys_token_region_and_endpoint_come_from_both_files() {
        let home = Home::new(
            "[default]\nregion = eu-west-1\ns3 =\n    region = nested\n\n[profile work]\nregion=us-west-2\n\
             endpoint_url = http://127.0.0.1:9\naws_access_key_id = stale\naws_session_token = stale\n",
            "# a comment\n[default]\naws_access_key_id = AK\naws_secret_access_key = a+b/c=\\n\"#\n\n[work]\n\
             AWS_ACCESS_KEY_ID=WK\naws_secret_access_key=ws\n",
        );
        let source = home.source(None);
        assert_eq!(keys(source.clone()).await.unwrap(), ("AK".into(), "a+b/c=\\n\"#".into(), None));
        assert_eq!(source.read().unwrap().unwrap().get("region"), Some("eu-west-1"));
        let source = home.source(Some("work"));
        assert_eq!(keys(source.clone()).await.unwrap(), ("WK".into(), "ws".into(), None));
        let profile = source.read().unwrap().unwrap();
        assert_eq!(profile.get("region"), Some("us-west-2"));
        assert_eq!(profile.get("endpoint_url"), Some("http://127.0.0.1:9"));
    }

    #[tokio::test]
    async fn keys_that_another_tool_renews_are_taken_up() {
        let home = Home::new("", "[default]\naws_access_key_id=one\naws_secret_access_key=s\naws_session_token=t\n");
        let provider = ProfileProvider::new(home.source(None));
        assert_eq!(provider.get_credential().await.unwrap().key_id, "one");
        let path = home.0.path().join(".aws/credentials");
        std::fs::write(&path, "[default]\naws_access_key_id=two\naws_secret_access_key=s\n").unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        *provider.checked.lock() = None;
        let renewed = provider.get_credential().await.unwrap();
        assert_eq!((renewed.key_id.as_str(), &renewed.token), ("two", &None));
    }

    #[tokio::test]
    async fn a_process_gives_keys_and_its_failures_show_no_answer() {
        let answer = |json: &str| format!("[default]\ncredential_process = echo '{json}'\n");
        let good = r#"{"Version":1,"AccessKeyId":"PK","SecretAccessKey":"s","SessionToken":"t","Expiration":"2999-01-01T00:00:00Z"}"#;
        let home = Home::new(&answer(good), "");
        assert_eq!(keys(home.source(None)).await.unwrap(), ("PK".into(), "s".into(), Some("t".into())));
        for bad in [
            r#"{"Version":2,"AccessKeyId":"PK","SecretAccessKey":"canary"}"#,
            r#"{"Version":1,"SecretAccessKey":"canary"}"#,
            r#"{"Version":1,"AccessKeyId":"PK","SecretAccessKey":"canary","Expiration":"2001-01-01T00:00:00Z"}"#,
        ] {
            let error = keys(Home::new(&answer(bad), "").source(None)).await.unwrap_err();
            assert!(error.contains("credential_process"), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
        let home = Home::new("[default]\ncredential_process = exit 3\n", "");
        assert!(keys(home.source(None)).await.unwrap_err().contains("exit status: 3"));
    }

    #[tokio::test]
    async fn single_sign_on_and_roles_are_refused_with_what_to_do() {
        for setting in ["sso_session = my-sso", "role_arn = arn:aws:iam::1:role/x\nsource_profile = default"] {
            let home = Home::new(&format!("[profile x]\n{setting}\n"), "");
            let error = keys(home.source(Some("x"))).await.unwrap_err();
            assert!(error.contains("aws configure export-credentials --profile x"), "{error}");
        }
        let home = Home::new("", "[other]\naws_access_key_id=a\n");
        assert!(keys(home.source(Some("x"))).await.unwrap_err().contains("no profile x"));
        assert!(keys(home.source(Some("other"))).await.unwrap_err().contains("no secret key"));
    }

    #[test]
    fn a_wrong_line_is_told_without_its_text() {
        let home = Home::new("", "[default]\naws_access_key_id = x\ncanary\n");
        let error = home.source(None).read().err().unwrap().to_string();
        assert!(error.contains("line") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn times_are_read_as_rfc_3339_writes_them() {
        let at = |secs| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
        for (text, time) in [
            ("1970-01-01T00:00:00Z", at(0)),
            ("2000-02-29T12:34:56Z", at(951_827_696)),
            ("2026-11-22T13:06:00.123456Z", at(1_795_352_760)),
            ("2026-11-22T14:06:00+01:00", at(1_795_352_760)),
            ("2026-11-22T08:36:00-0430", at(1_795_352_760)),
            ("2026-13-22T13:06:00Z", None),
            ("2026-11-22T13:06:00", None),
            ("2026-11-22", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text), time, "{text}");
        }
    }
}
