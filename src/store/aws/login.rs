//! Credentials and region, by the SDK's own chain: variables, a profile, a web identity, the container's, the instance's.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature as Feature;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_types::os_shim_internal::Env;
use tokio::sync::Mutex;

use super::super::http::Client;
use super::super::{Failure, FailureKind, Wanted, read_file};
use super::setup::Setup;
use super::wire::Wire;
use super::{failure, protocol};
use crate::reference::is_region;
use crate::report::printable;

/// How a store asks, for the time of a fetch.
pub(super) struct Account {
    /// What clients are made from.
    pub(super) config: SdkConfig,
    /// The region of all that does not name its own, once it is needed.
    pub(super) region: Option<String>,
    /// Where the credentials come from.
    pub(super) source: Source,
    /// Whether they were got just now.
    pub(super) is_new: bool,
}

/// Where credentials come from, and what AWS says of them.
pub(super) struct Source {
    pub(super) words: &'static str,
    are_over: AtomicBool,
}

impl Source {
    pub(super) fn new(words: &'static str) -> Self {
        Self { words, are_over: AtomicBool::new(false) }
    }

    /// Notes that AWS does not take these credentials any more.
    pub(super) fn give_up(&self) {
        self.are_over.store(true, Ordering::Relaxed);
    }
}

impl Account {
    /// Whether AWS does not take the credentials any more: they have ended, or were deleted.
    pub(super) fn is_over(&self) -> bool {
        self.source.are_over.load(Ordering::Relaxed)
    }
}

/// What is kept from one fetch to the next. No connection is.
#[derive(Default)]
pub(super) struct Login(Mutex<Known>);

#[derive(Default)]
struct Known {
    region: Option<String>,
    credentials: Option<Credentials>,
}

/// Credentials that end within this time are not used any more.
const MARGIN: Duration = Duration::from_mins(1);

impl Login {
    /// Finds the region, if one is needed, and logs in, if that was not done.
    ///
    /// # Errors
    ///
    /// When there are no credentials or no region, and all that reading files and asking the platform can fail by.
    pub(super) async fn account(&self, setup: &Setup, wanted: &[Wanted]) -> Result<Account, Failure> {
        check_files(setup)?;
        let client = Client::new(&setup.servers, &setup.transport)?;
        let load = || loader(setup, &client);
        let known = &mut *self.0.lock().await;
        if known.region.is_none() {
            known.region.clone_from(&setup.region);
        }
        let mut of_references = wanted.iter().map(|wanted| wanted.reference.region());
        if known.region.is_none() && of_references.clone().any(|region| region.is_none()) {
            let found = load().no_credentials().load().await.region().map(ToString::to_string);
            if found.as_deref().is_some_and(|region| !is_region(region)) {
                return Err(failure::wrong_region());
            }
            known.region = found;
        }
        let region = known.region.as_deref().or_else(|| of_references.find_map(|region| region)).ok_or_else(failure::no_region)?;
        let load = || load().region(Region::new(region.to_owned()));
        let (config, is_new) = match known.credentials.take().filter(lasts) {
            Some(credentials) => (load().credentials_provider(credentials.clone()).load().await, false),
            None => (load().load().await, true),
        };
        let provider = config.credentials_provider().ok_or_else(|| protocol("no credentials can be asked for"))?;
        let credentials = provider.provide_credentials().await.map_err(|error| failure::of_credentials(setup, region, &error))?;
        let source = source(&credentials);
        check(&credentials, source)?;
        let account = Account {
            config: config.into_builder().credentials_provider(SharedCredentialsProvider::new(credentials.clone())).build(),
            region: known.region.clone(),
            source: Source::new(source),
            is_new,
        };
        known.credentials = Some(credentials);
        Ok(account)
    }

    /// Does not use the credentials again that it has.
    pub(super) async fn forget(&self) {
        self.0.lock().await.credentials = None;
    }
}

/// The files that the variables name are read by the SDK, which would wait for a FIFO for ever.
fn check_files(setup: &Setup) -> Result<(), Failure> {
    for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", TOKEN_FILE] {
        let Some(path) = setup.variable(name) else { continue };
        if let Err(failure) = read_file(Path::new(path))
            && failure.kind == FailureKind::Invalid
        {
            let cause = format!("the login needs {}, which {name} names: {}", printable(path.as_bytes()), failure.cause);
            return Err(Failure { kind: FailureKind::Misconfigured, cause, hint: failure.hint });
        }
    }
    Ok(())
}

/// The SDK would panic, or send nothing, over what no header can hold.
fn check(credentials: &Credentials, source: &str) -> Result<(), Failure> {
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain(credentials.access_key_id()) && credentials.session_token().is_none_or(is_plain) {
        return Ok(());
    }
    let cause = format!("{source}: the credentials have characters that none have");
    Err(Failure::new(FailureKind::Invalid, cause).hint("is there a newline at the end of the key or of the session token?"))
}

/// Credentials without an end come from variables or files: to read them anew costs nothing, and they may have been replaced.
fn lasts(credentials: &Credentials) -> bool {
    credentials.expiry().is_some_and(|end| end > SystemTime::now() + MARGIN)
}

/// The SDK with nothing of its own between it and the network, and with our variables in place of the process's.
fn loader(setup: &Setup, client: &Client) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
        .env(Env::from(variables(setup)))
        .http_client(Wire::new(client.clone()))
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

/// The variables for the SDK. It would send the content of the token's file with a newline at its end, which no header can hold, so that is read here.
fn variables(setup: &Setup) -> HashMap<String, String> {
    let mut variables: HashMap<String, String> = setup.variables.iter().cloned().collect();
    let token = variables.get(TOKEN_FILE).and_then(|path| {
        let (text, _) = read_file(Path::new(path)).ok()?;
        Some(std::str::from_utf8(text.expose()).ok()?.trim_end().to_owned())
    });
    if let Some(token) = token {
        variables.remove(TOKEN_FILE);
        variables.insert(TOKEN.to_owned(), token);
    }
    variables
}

/// Where credentials come from, by the marks that the SDK leaves on them.
fn source(credentials: &Credentials) -> &'static str {
    let marks = credentials.get_property::<Vec<Feature>>().map(Vec::as_slice).unwrap_or_default();
    let has = |wanted: &[Feature]| marks.iter().any(|mark| wanted.contains(mark));
    if has(&[Feature::CredentialsEnvVars]) {
        "AWS_ACCESS_KEY_ID"
    } else if has(&[Feature::CredentialsProfile]) {
        "the profile"
    } else if has(&[Feature::CredentialsHttp]) {
        "the container's credentials"
    } else if has(&[Feature::CredentialsImds]) {
        "the instance's role"
    } else {
        "the web identity"
    }
}
