//! Where AWS is and how it is reached, by the configuration or the variables that AWS's own tools read.

use super::super::http::{Servers, parse_address};
use super::super::{Failure, FailureKind, Instance, Settings};
use crate::reference::{Scheme, begins, is_region};

/// A service of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Secrets,
    Parameters,
}

impl Service {
    /// What a store is called that the configuration does not name.
    fn word(self) -> &'static str {
        match self {
            Self::Secrets => Scheme::AwsSecretsManager.word(),
            Self::Parameters => Scheme::AwsParameterStore.word(),
        }
    }
}

/// A store, ready to be asked.
pub(super) struct Setup {
    /// The variables that the SDK reads, and no others.
    pub(super) variables: Vec<(String, String)>,
    /// The region of all that does not name its own.
    pub(super) region: Option<String>,
    /// The address of the service, when the configuration has one.
    pub(super) endpoint: Option<String>,
    /// What is special about the servers.
    pub(super) servers: Servers,
    /// What the transport reads besides.
    pub(super) transport: Settings,
}

/// What logs in, each of which would be taken by its letters.
const KEYS: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

impl Setup {
    /// Reads what is set, and asks nobody.
    ///
    /// # Errors
    ///
    /// [`FailureKind::Misconfigured`] says what is wrong.
    pub(super) fn new(service: Service, settings: &Settings, instance: Option<&Instance>) -> Result<Self, Failure> {
        let variable = |name: &str| settings.variables.text(name).map(str::to_owned);
        if let Some(name) =
            KEYS.iter().find(|name| settings.variables.get(name).is_some_and(|value| begins(value) || value.starts_with(b"${")))
        {
            let cause = format!("{name} is a reference, and is needed to resolve references");
            return Err(misconfigured(cause, "name a file with the keys by AWS_SHARED_CREDENTIALS_FILE"));
        }
        let is_plain = |value: &[u8]| value.iter().all(u8::is_ascii_graphic);
        if let Some(name) = KEYS.iter().find(|name| settings.variables.get(name).is_some_and(|value| !is_plain(value))) {
            let cause = format!("{name} has characters that no key has");
            return Err(misconfigured(cause, "is there a newline at its end?"));
        }
        if instance.is_some_and(|instance| instance.auth.is_some()) {
            return Err(misconfigured(
                "auth is set",
                "the login to AWS comes from where its own tools have it: variables, a profile, the platform",
            ));
        }
        if instance.is_some_and(|instance| instance.namespace.is_some()) {
            return Err(misconfigured("namespace is set", "AWS has none"));
        }
        let named = |name: &str| variable(name).map(|value| (name.to_owned(), value));
        let configured = |key: &str, value: &Option<String>| value.clone().map(|value| (key.to_owned(), value));
        let region = settings.region(instance);
        if let Some((name, _)) = region.filter(|(_, region)| !is_region(region)) {
            return Err(misconfigured(format!("{name} is no region"), "regions are written like eu-central-1"));
        }
        let own = match service {
            Service::Secrets => "AWS_ENDPOINT_URL_SECRETS_MANAGER",
            Service::Parameters => "AWS_ENDPOINT_URL_SSM",
        };
        let ignores = variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let endpoint = instance.and_then(|instance| configured("address", &instance.address));
        let of_environment = || named(own).or_else(|| named("AWS_ENDPOINT_URL")).filter(|_| !ignores);
        if let Some((name, address)) = endpoint.clone().or_else(of_environment) {
            parse_address(&address, settings).map_err(|failure| Failure { cause: format!("{name}: {}", failure.cause), ..failure })?;
        }
        let authorities = instance.and_then(|instance| configured("ca_file", &instance.ca_file)).or_else(|| named("AWS_CA_BUNDLE"));
        Ok(Self {
            variables: settings.variables.texts().filter(|(name, _)| name.starts_with("AWS_") || *name == "HOME").map(owned).collect(),
            region: region.map(|(_, region)| region.to_owned()),
            endpoint: endpoint.map(|(_, address)| address),
            servers: Servers { authorities, ..Servers::default() },
            transport: settings.transport(instance.map_or(service.word(), |instance| &instance.name)),
        })
    }

    /// A variable that the SDK reads.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn misconfigured(cause: impl Into<String>, hint: &str) -> Failure {
    Failure::new(FailureKind::Misconfigured, cause).hint(hint)
}
