//! What stores are made from: the variables that they read, and what the configuration says of them.

use std::collections::BTreeMap;
use std::fmt;

use super::Traffic;
use crate::reference::{Reference, Scheme};

/// What stores are made from.
#[derive(Debug, Default)]
pub struct Settings {
    /// The variables that they read.
    pub variables: Variables,
    /// The stores that the configuration sets up.
    pub instances: Vec<Instance>,
    /// Whether a secret may travel by plain http to another machine.
    pub allow_http: bool,
    /// Nothing that a secret is needed for happens: what can be used once alone is left unused.
    pub is_rehearsal: bool,
    /// Where requests are counted.
    pub traffic: Traffic,
}

impl Settings {
    /// What the transport to the store of this name reads: no login is in it.
    #[must_use]
    pub fn transport(&self, store: &str) -> Self {
        let is_login = |name: &str| ["AWS_", "BAO_", "VAULT_"].iter().any(|prefix| name.starts_with(prefix));
        let kept = self.variables.0.iter().filter(|(name, _)| !is_login(name));
        let variables = Variables(kept.map(|(name, value)| (name.clone(), value.clone())).collect());
        Self { variables, traffic: self.traffic.to(store), instances: Vec::new(), ..*self }
    }

    /// The namespace of a login to Vault or `OpenBao`: that of the instance, else of the variables, where each of the two has its own first.
    #[must_use]
    pub fn namespace<'a>(&'a self, scheme: Scheme, instance: Option<&'a Instance>) -> Option<&'a str> {
        let mut variables = ["VAULT_NAMESPACE", "BAO_NAMESPACE"];
        if scheme == Scheme::Bao {
            variables.reverse();
        }
        let own = instance.and_then(|instance| instance.namespace.as_deref());
        own.or_else(|| variables.iter().find_map(|name| self.variables.text(name)))
    }

    /// The region of AWS for what does not name its own: that of the instance, else of the variables. What names it comes before it.
    #[must_use]
    pub fn region<'a>(&'a self, instance: Option<&'a Instance>) -> Option<(&'static str, &'a str)> {
        let own = instance.and_then(|instance| Some(("region", instance.region.as_deref()?)));
        own.or_else(|| ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| Some((*name, self.variables.text(name)?))))
    }

    /// The account in AWS, where the variables tell: by its number or in the role that we take on.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        let of_role = || self.variables.text("AWS_ROLE_ARN")?.split(':').nth(4);
        self.variables.text("AWS_ACCOUNT_ID").or_else(of_role).filter(|account| account.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// How the store of a reference is set up: by the name that the option `store` gives, else by the name of its scheme; none when the environment alone does it.
    #[must_use]
    pub fn instance(&self, reference: &Reference) -> Option<&Instance> {
        let name = reference.store_name();
        self.instances.iter().find(|instance| instance.name == name && instance.scheme == reference.scheme)
    }
}

/// Variables of the environment, some of which hold secrets: tokens and keys to log in with.
#[derive(Default)]
pub struct Variables(BTreeMap<String, Vec<u8>>);

/// What the names of the variables begin with that stores read.
const READ: &[&str] = &[
    "ALL_PROXY",
    "AWS_",
    "BAO_",
    "CREDENTIALS_DIRECTORY",
    "HOME",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "VAULT_",
    "all_proxy",
    "https_proxy",
    "no_proxy",
];

impl Variables {
    /// Keeps those that a store may read. An empty one counts as unset.
    pub fn of<'a>(all: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let text = |name: &'a [u8]| std::str::from_utf8(name).ok().filter(|name| READ.iter().any(|prefix| name.starts_with(prefix)));
        let kept = all.filter(|(_, value)| !value.is_empty()).filter_map(|(name, value)| Some((text(name)?.to_owned(), value.to_vec())));
        Self(kept.collect())
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// The value of a variable that is to be text; none when it is none.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All that are text, by their names.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), std::str::from_utf8(value).ok()?)))
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Variables({})", self.0.len())
    }
}

/// A store as the configuration sets it up. What is not said the environment says, or the store's own default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name in the configuration.
    pub name: String,
    /// Its kind.
    pub scheme: Scheme,
    /// Where it stands in the configuration, printable.
    pub place: String,
    /// Its address, an URL.
    pub address: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The file with the certificates of its authorities.
    pub ca_file: Option<String>,
    /// How to log in.
    pub auth: Option<Auth>,
}

/// How to log in to a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are those of the configuration file, which says what each is")]
pub struct Auth {
    pub method: String,
    pub mount: Option<String>,
    pub role: Option<String>,
    pub username: Option<String>,
    pub token_file: Option<String>,
    pub jwt_file: Option<String>,
    pub role_id: Option<String>,
    pub secret_id_file: Option<String>,
    pub password_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    pub creation_path: Option<String>,
}
