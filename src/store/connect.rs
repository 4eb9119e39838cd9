//! From an address and options to a store that is ready to use.
//!
//! Where keys for S3 come from, first found first taken:
//! 1. the profile given as an option;
//! 2. `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (with `AWS_SESSION_TOKEN`);
//! 3. a web identity, ECS or EKS, when their variables are set;
//! 4. the profile of `AWS_PROFILE`, or `default`, in `~/.aws`;
//! 5. the instance's metadata address, **only** when told that there is one: by the option `instance-credentials`,
//!    by `AWS_EC2_METADATA_DISABLED=false`, or by `AWS_METADATA_ENDPOINT`. Asking an address that is not there
//!    would hang on a laptop, and on a foreign network it could be answered by anyone.
//!
//! Region and endpoint: option, then environment, then the profile.

use std::io;
use std::path::Path;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::aws::{Environment, ProfileProvider, ProfileSource};
use super::deadline::{CONNECT_TIMEOUT, Deadline, Patience};
use super::health::{Health, Watched};
use super::limit::{CREATES_MAX, Limited, READS_MAX};
use super::object::{LocalRoot, ObjectStoreAdapter};
use super::retry::Retry;
use super::{Op, Store, StoreError, StoreErrorKind, StoreUrl};
use crate::disk::{Disk, RealDisk};

#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// For S3 servers that are not Amazon's. `http://` is taken as it is meant: what is sent is sealed anyway.
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    /// In `~/.aws`.
    pub profile: Option<String>,
    /// The machine is a cloud's and has keys of its own.
    pub instance_credentials: bool,
    /// Make the folder of a local store when it is missing. Not at a mount: a missing folder is an unmounted disk.
    pub create_folder: bool,
    pub patience: Patience,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("unknown option {0:?} for the store; known are endpoint-url, region, profile and instance-credentials")]
    Unknown(String),
    #[error("option {0} for the store takes true or false")]
    NotBool(&'static str),
    #[error("option {0} for the store is empty")]
    Empty(String),
}

impl StoreOptions {
    /// By the name that a configuration or command line gives it.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        if value.is_empty() {
            return Err(OptionError::Empty(name.to_owned()));
        }
        match name {
            "endpoint-url" => self.endpoint_url = Some(value.to_owned()),
            "region" => self.region = Some(value.to_owned()),
            "profile" => self.profile = Some(value.to_owned()),
            "instance-credentials" => {
                self.instance_credentials = value.parse().map_err(|_| OptionError::NotBool("instance-credentials"))?;
            }
            _ => return Err(OptionError::Unknown(name.to_owned())),
        }
        Ok(())
    }
}

/// A store with all its decorators, and how it does.
#[derive(Clone)]
pub struct Connected {
    pub store: Arc<dyn Store>,
    pub health: Arc<Health>,
}

/// Sends nothing yet: an address that leads nowhere shows at the first request.
pub fn connect(url: &StoreUrl, options: &StoreOptions) -> Result<Connected, StoreError> {
    connect_with(url, options, &Environment::of_process())
}

/// As `connect`, with variables that need not be this process's.
pub fn connect_with(
    url: &StoreUrl,
    options: &StoreOptions,
    environment: &Environment,
) -> Result<Connected, StoreError> {
    let adapter = match url {
        StoreUrl::Local(path) => local(path, options.create_folder)?,
        StoreUrl::S3 { bucket, prefix } => remote(s3(bucket, options, environment)?, prefix)?,
        StoreUrl::Gcs { bucket, prefix } => remote(gcs(bucket, options, environment)?, prefix)?,
        StoreUrl::Azure { container, prefix } => remote(azure(container, options, environment)?, prefix)?,
    };
    Ok(decorate(Arc::new(adapter), options.patience.clone()))
}

/// Retries over a limit over the counting over deadlines: a wait for a free place takes from no request's deadline,
/// and every single request is counted.
pub fn decorate(store: Arc<dyn Store>, patience: Patience) -> Connected {
    let health = Arc::new(Health::default());
    let store = Arc::new(Deadline::new(store, patience.clone()));
    let store = Arc::new(Watched::new(store, health.clone()));
    let store = Arc::new(Limited::new(store, READS_MAX, CREATES_MAX));
    Connected { store: Arc::new(Retry::new(store, health.clone(), patience)), health }
}

fn local(path: &Path, create: bool) -> Result<ObjectStoreAdapter, StoreError> {
    let failed = |error: io::Error| {
        let detail = match error.kind() {
            io::ErrorKind::NotFound => format!("there is no folder {}; is its disk mounted?", path.display()),
            _ => format!("{}: {error}", path.display()),
        };
        StoreError::new(StoreErrorKind::Io, Op::Connect, None, detail)
    };
    if create {
        RealDisk.create_dir_all(path).map_err(failed)?;
    }
    let root = LocalRoot::open(path.to_owned()).map_err(failed)?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(error.into()))?.with_fsync(true);
    Ok(ObjectStoreAdapter::local(Arc::new(store), root))
}

fn remote(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<ObjectStoreAdapter, StoreError> {
    let prefix = ObjectPath::parse(prefix).map_err(|error| refused(error.to_string()))?;
    Ok(ObjectStoreAdapter::new(store, prefix))
}

fn s3(bucket: &str, options: &StoreOptions, environment: &Environment) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in environment.with_prefix("AWS_") {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let source = ProfileSource::find(environment, options.profile.as_deref());
    let profile = match &source {
        Some(source) => source.read().map_err(|error| no_credentials(&error.detail))?,
        None => None,
    };
    if let Some(source) = source.as_ref().filter(|source| source.is_explicit && profile.is_none()) {
        return Err(no_credentials(&format!("there is no profile {} in ~/.aws", source.name)));
    }
    let setting = |name| profile.as_ref().and_then(|profile| profile.get(name)).map(ToOwned::to_owned);

    let region = options.region.clone().or_else(|| {
        let is_set = builder.get_config_value(&AmazonS3ConfigKey::Region).is_some()
            || builder.get_config_value(&AmazonS3ConfigKey::DefaultRegion).is_some();
        if is_set { None } else { setting("region") }
    });
    if let Some(region) = region {
        builder = builder.with_region(region);
    }

    let specific = environment.get("AWS_ENDPOINT_URL_S3").map(ToOwned::to_owned);
    let general = || builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let endpoint = options.endpoint_url.clone().or(specific).or_else(general).or_else(|| setting("endpoint_url"));
    let is_http = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    endpoint.as_deref().map_or(Ok(()), check_endpoint)?;
    if let Some(endpoint) = endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint.clone()).with_endpoint(endpoint);
    }

    let given = |key| builder.get_config_value(&key).is_some();
    let has_keys = given(AmazonS3ConfigKey::AccessKeyId) || given(AmazonS3ConfigKey::SecretAccessKey);
    let has_role = given(AmazonS3ConfigKey::WebIdentityTokenFile) && given(AmazonS3ConfigKey::RoleArn)
        || given(AmazonS3ConfigKey::ContainerCredentialsRelativeUri)
        || given(AmazonS3ConfigKey::ContainerCredentialsFullUri)
            && given(AmazonS3ConfigKey::ContainerAuthorizationTokenFile);
    let is_anonymous = environment.is_true("AWS_SKIP_SIGNATURE");
    let has_instance = options.instance_credentials
        || environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("false"))
        || given(AmazonS3ConfigKey::MetadataEndpoint);
    if options.profile.is_some() || !(has_keys || has_role || is_anonymous) {
        match source.filter(|_| profile.as_ref().is_some_and(|profile| profile.has_credentials())) {
            Some(source) => builder = builder.with_credentials(Arc::new(ProfileProvider::new(source))),
            None if has_instance && options.profile.is_none() => {}
            None => {
                return Err(no_credentials(
                    "found neither a profile with keys nor AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; name a profile by \
                     AWS_PROFILE",
                ));
            }
        }
    }

    let store = builder
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // What is sent is sealed and its hash is in the log; hashing it once more for the signature takes most of
        // the client's time.
        .with_unsigned_payload(true)
        // One DELETE for one object: not every server has the request for many.
        .with_disable_bulk_delete(true)
        .with_retry(no_retry())
        .with_client_options(client_options(is_http || environment.is_true("AWS_ALLOW_HTTP")))
        .build()
        .map_err(configuration)?;
    Ok(Arc::new(store))
}

fn gcs(bucket: &str, options: &StoreOptions, environment: &Environment) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value) in environment.with_prefix("GOOGLE_") {
        if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let given = [
        GoogleConfigKey::ServiceAccount,
        GoogleConfigKey::ServiceAccountKey,
        GoogleConfigKey::ApplicationCredentials,
        GoogleConfigKey::SkipSignature,
    ];
    let has_keys = given.iter().any(|key| builder.get_config_value(key).is_some_and(|value| value != "false"));
    let default_file =
        |home: &str| Path::new(home).join(".config/gcloud/application_default_credentials.json").exists();
    if !(has_keys || options.instance_credentials || environment.get("HOME").is_some_and(default_file)) {
        return Err(no_credentials(
            "for gs://, set GOOGLE_APPLICATION_CREDENTIALS or run `gcloud auth application-default login`",
        ));
    }
    let is_http = options.endpoint_url.as_ref().is_some_and(|url| url.starts_with("http://"));
    options.endpoint_url.as_deref().map_or(Ok(()), check_endpoint)?;
    if let Some(endpoint) = &options.endpoint_url {
        builder = builder.with_base_url(endpoint);
    }
    let builder = builder.with_bucket_name(bucket).with_retry(no_retry()).with_client_options(client_options(is_http));
    Ok(Arc::new(builder.build().map_err(configuration)?))
}

fn azure(
    container: &str,
    options: &StoreOptions,
    environment: &Environment,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in environment.with_prefix("AZURE_") {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let given = [
        AzureConfigKey::AccessKey,
        AzureConfigKey::SasKey,
        AzureConfigKey::Token,
        AzureConfigKey::ClientSecret,
        AzureConfigKey::FederatedTokenFile,
        AzureConfigKey::UseAzureCli,
        AzureConfigKey::UseEmulator,
        AzureConfigKey::SkipSignature,
    ];
    let has_keys = given.iter().any(|key| builder.get_config_value(key).is_some_and(|value| value != "false"));
    if !(has_keys || options.instance_credentials) {
        return Err(no_credentials(
            "for az://, set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_USE_AZURE_CLI=true",
        ));
    }
    let is_http = options.endpoint_url.as_ref().is_some_and(|url| url.starts_with("http://"));
    options.endpoint_url.as_deref().map_or(Ok(()), check_endpoint)?;
    if let Some(endpoint) = &options.endpoint_url {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let builder =
        builder.with_container_name(container).with_retry(no_retry()).with_client_options(client_options(is_http));
    Ok(Arc::new(builder.build().map_err(configuration)?))
}

/// object_store takes any text here, and panics at the first request.
fn check_endpoint(endpoint: &str) -> Result<(), StoreError> {
    let is_http = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    if url::Url::parse(endpoint).is_ok_and(|url| is_http(&url)) {
        return Ok(());
    }
    Err(refused(format!("the endpoint {endpoint:?} is not a URL such as https://host or http://127.0.0.1:9000")))
}

/// Deadlines and retries are ours (`deadline`, `retry`): object_store's know neither our sizes nor our creates.
fn client_options(allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_timeout_disabled()
        .with_read_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
}

fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn no_credentials(detail: &str) -> StoreError {
    StoreError::new(StoreErrorKind::NoCredentials, Op::Connect, None, detail)
}

fn refused(detail: String) -> StoreError {
    StoreError::new(StoreErrorKind::Refused, Op::Connect, None, detail)
}

fn configuration(error: object_store::Error) -> StoreError {
    match super::translate::translate(Op::Connect, None, error) {
        Err(error) => error,
        Ok(super::object::Missing) => refused("the store's settings name a file that is not there".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3_in(options: &StoreOptions, environment: Environment) -> Result<Connected, StoreError> {
        connect_with(&StoreUrl::parse("s3://bucket/p").unwrap(), options, &environment)
    }

    fn kind(outcome: Result<Connected, StoreError>) -> Option<StoreErrorKind> {
        outcome.err().map(|error| error.kind)
    }

    #[test]
    fn without_keys_nothing_is_asked_unless_the_machine_is_said_to_have_them() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().to_str().unwrap();
        let options = StoreOptions::default();
        let none = Some(StoreErrorKind::NoCredentials);
        assert_eq!(kind(s3_in(&options, Environment::from([("HOME", home)]))), none);
        assert_eq!(kind(s3_in(&options, Environment::from([("AWS_EC2_METADATA_DISABLED", "true")]))), none);
        assert_eq!(kind(s3_in(&options, Environment::from([("AWS_EC2_METADATA_DISABLED", "false")]))), None);
        let told = StoreOptions { instance_credentials: true, ..StoreOptions::default() };
        assert_eq!(kind(s3_in(&told, Environment::default())), None);
        let ecs = Environment::from([("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")]);
        assert_eq!(kind(s3_in(&options, ecs)), None);
        for url in ["gs://bucket", "az://container"] {
            let outcome = connect_with(&StoreUrl::parse(url).unwrap(), &options, &Environment::from([("HOME", home)]));
            assert_eq!(kind(outcome), none, "{url}");
        }
    }

    #[test]
    fn an_endpoint_must_be_a_url() {
        let keys = Environment::from([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]);
        for (endpoint, expected) in [
            ("http://127.0.0.1:1", None),
            ("https://host/path", None),
            ("127.0.0.1:1", Some(StoreErrorKind::Refused)),
            ("host", Some(StoreErrorKind::Refused)),
            ("ftp://host", Some(StoreErrorKind::Refused)),
        ] {
            let options = StoreOptions { endpoint_url: Some(endpoint.into()), ..StoreOptions::default() };
            assert_eq!(kind(s3_in(&options, keys.clone())), expected, "{endpoint}");
        }
    }

    #[test]
    fn a_profile_that_is_named_must_exist() {
        let keys = Environment::from([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("HOME", "/none")]);
        assert_eq!(kind(s3_in(&StoreOptions::default(), keys.clone())), None);
        let options = StoreOptions { profile: Some("work".into()), ..StoreOptions::default() };
        assert_eq!(kind(s3_in(&options, keys)), Some(StoreErrorKind::NoCredentials));
    }

    #[test]
    fn unknown_options_are_refused() {
        let mut options = StoreOptions::default();
        options.set("endpoint-url", "http://127.0.0.1:1").unwrap();
        options.set("instance-credentials", "true").unwrap();
        assert_eq!(options.set("fsync", "no"), Err(OptionError::Unknown("fsync".into())));
        assert_eq!(options.set("instance-credentials", "1"), Err(OptionError::NotBool("instance-credentials")));
        assert_eq!(options.set("region", ""), Err(OptionError::Empty("region".into())));
    }

    /// The deadline came, or the store had been down for longer than one.
    fn is_offline<T>(outcome: Result<T, StoreError>) -> bool {
        outcome.is_err_and(|error| matches!(error.kind, StoreErrorKind::Timeout | StoreErrorKind::Unreachable))
    }

    #[tokio::test]
    async fn nobody_listening_is_unreachable_and_nothing_is_stored() {
        let patience = Patience { total_timeout: std::time::Duration::from_millis(300), ..Patience::default() };
        let mut options = StoreOptions { patience, ..StoreOptions::default() };
        // Bound and dropped, so that nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        options.set("endpoint-url", &format!("http://127.0.0.1:{port}")).unwrap();
        let keys = Environment::from([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]);
        let connected = s3_in(&options, keys).unwrap();
        let name = crate::format::ObjectName::Volume;
        let created = connected.store.create(&name, bytes::Bytes::from_static(b"x")).await;
        assert_eq!(created.unwrap_err().kind, StoreErrorKind::Unreachable);
        assert!(is_offline(connected.store.get(&name).await));
        assert!(connected.health.snapshot().last_error.unwrap().1.contains("unreachable"));
    }

    #[tokio::test]
    async fn a_local_folder_that_went_away_is_unreachable_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let url = StoreUrl::Local(path.clone());
        let patience = Patience { total_timeout: std::time::Duration::from_millis(50), ..Patience::default() };
        let mut options = StoreOptions { patience, ..StoreOptions::default() };
        assert_eq!(kind(connect_with(&url, &options, &Environment::default())), Some(StoreErrorKind::Io));
        options.create_folder = true;
        let store = connect_with(&url, &options, &Environment::default()).unwrap().store;
        let name = crate::format::ObjectName::Volume;
        let bytes = bytes::Bytes::from_static(b"x");
        store.create(&name, bytes.clone()).await.unwrap();
        std::fs::rename(&path, dir.path().join("unmounted")).unwrap();
        for is_replaced in [false, true] {
            if is_replaced {
                std::fs::create_dir(&path).unwrap();
            }
            assert!(is_offline(store.get(&name).await));
            assert!(is_offline(store.list(super::super::Prefix::Everything).await));
            let created = store.create(&name, bytes.clone()).await;
            assert_eq!(created.unwrap_err().kind, StoreErrorKind::Unreachable);
        }
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }
}
