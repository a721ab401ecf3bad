//! Where a server of Vault or `OpenBao` is and how to log in, by the configuration or the variables of the official command line and of bank-vaults.

use super::super::http::{Servers, parse_address};
use super::super::{Auth, Failure, FailureKind, Instance, Settings, Variables};
use crate::reference::{self, Scheme};
use crate::secret::Secret;

/// A store, ready to be asked.
pub struct Setup {
    /// The address of the API, with `/v1` at its end.
    pub address: String,
    /// The namespace of all that does not name its own.
    pub namespace: Option<String>,
    /// What is special about the servers.
    pub servers: Servers,
    /// What the transport reads besides.
    pub transport: Settings,
    /// How to log in.
    pub login: Login,
}

/// A way to log in. The files are read at each login: what is in them is renewed by others.
pub enum Login {
    /// A token that is there already.
    Token(Token),
    /// An identity that the platform gives as a signed token; Kubernetes and JWT differ in the mount alone.
    Jwt { mount: String, role: Option<String>, file: String, is_kubernetes: bool },
    /// A role and its secret id.
    AppRole { mount: String, role_id: String, secret_id: Source, creation_path: Option<String> },
    /// A user and a password.
    Userpass { mount: String, username: String, password: Source },
    /// The certificate of the TLS connection.
    Certificate { mount: String, role: Option<String> },
}

/// Where a token is.
pub enum Token {
    /// In a variable.
    Value(Secret),
    /// In a file; what it was wrapped by, when it is a wrapping token.
    File { path: String, creation_path: Option<String> },
    /// Where the official command line keeps it, if it does.
    OfCommandLine(Option<String>),
}

/// Where something secret is.
pub enum Source {
    Value(Secret),
    File(String),
}

impl Login {
    /// What becomes part of a request's path.
    fn in_path(&self) -> [Option<(&'static str, &str)>; 2] {
        match self {
            Self::Token(_) => [None, None],
            Self::Userpass { mount, username, .. } => [Some(("mount", mount)), Some(("user's name", username))],
            Self::Jwt { mount, .. } | Self::AppRole { mount, .. } | Self::Certificate { mount, .. } => [Some(("mount", mount)), None],
        }
    }

    /// Whether a login makes a token, which nobody else has.
    pub fn makes_tokens(&self) -> bool {
        !matches!(self, Self::Token(Token::Value(_) | Token::File { creation_path: None, .. } | Token::OfCommandLine(_)))
    }
}

const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

impl Setup {
    /// Reads what is set, and asks nobody.
    ///
    /// # Errors
    ///
    /// [`FailureKind::Misconfigured`] says what is missing or wrong.
    pub fn new(scheme: Scheme, settings: &Settings, instance: Option<&Instance>) -> Result<Self, Failure> {
        let names = Names { variables: &settings.variables, bao_first: scheme == Scheme::Bao };
        let own_address = instance.and_then(|instance| instance.address.clone());
        let address = own_address.or_else(|| names.text("ADDR")).unwrap_or_else(|| "https://127.0.0.1:8200".to_owned());
        let mut url = parse_address(&address, settings)?;
        url.set_query(None);
        url.set_fragment(None);
        names.refuse_what_is_unsafe()?;
        if instance.is_some_and(|instance| instance.region.is_some()) {
            return Err(misconfigured("region is set", "Vault and OpenBao have none: a store in a region has an address of its own"));
        }
        let auth = instance.and_then(|instance| instance.auth.as_ref());
        let login = match (auth, instance) {
            (Some(auth), _) => configured(auth)?,
            (None, Some(instance)) if instance.name != scheme.word() => {
                return Err(misconfigured("auth is missing", "the login of the environment is for the store that has no other name alone"));
            }
            (None, _) => names.login()?,
        };
        let authorities = match instance.and_then(|instance| instance.ca_file.clone()) {
            Some(path) => Some(("ca_file".to_owned(), path)),
            None => names.named("CACERT"),
        };
        let file = |file: Option<&String>, name: &str| file.cloned().or_else(|| names.text(name));
        let certificate = file(auth.and_then(|auth| auth.cert_file.as_ref()), "CLIENT_CERT");
        let key = file(auth.and_then(|auth| auth.key_file.as_ref()), "CLIENT_KEY");
        if certificate.is_some() != key.is_some() {
            return Err(misconfigured("of a certificate and its key one is missing", BOTH));
        }
        let identity = certificate.zip(key);
        if matches!(login, Login::Certificate { .. }) && identity.is_none() {
            return Err(misconfigured("a login by certificate has no certificate", BOTH));
        }
        for (what, text) in login.in_path().into_iter().flatten() {
            if !reference::is_api_path(text) {
                return Err(misconfigured(&format!("the {what} is no path"), "it has no part . or .., and no control characters"));
            }
        }
        Ok(Self {
            address: format!("{}/v1", url.as_str().trim_end_matches('/')),
            namespace: settings.namespace(scheme, instance).map(str::to_owned),
            servers: Servers { authorities, identity, proxy: names.text("PROXY_ADDR").or_else(|| names.text("HTTP_PROXY")) },
            transport: settings.transport(instance.map_or(scheme.word(), |instance| &instance.name)),
            login,
        })
    }
}

const BOTH: &str = "name it and its key: cert_file and key_file, or VAULT_CLIENT_CERT and VAULT_CLIENT_KEY";

fn misconfigured(cause: &str, hint: &str) -> Failure {
    Failure::new(FailureKind::Misconfigured, cause).hint(hint)
}

/// The keys of `auth:` that a method has besides `mount`.
fn keys(method: &str) -> &'static [&'static str] {
    match method {
        "token" => &["token_file", "creation_path"],
        "kubernetes" | "jwt" => &["role", "jwt_file"],
        "approle" => &["role_id", "secret_id_file", "creation_path"],
        "userpass" => &["username", "password_file"],
        _ => &["role", "cert_file", "key_file"],
    }
}

/// The login that the configuration describes.
fn configured(auth: &Auth) -> Result<Login, Failure> {
    if auth.creation_path.as_ref().is_some_and(String::is_empty) {
        return Err(misconfigured("auth.creation_path is empty", "write the path, like auth/approle/role/NAME/secret-id, or leave it out"));
    }
    let own = keys(&auth.method);
    let given = [
        ("role", &auth.role),
        ("username", &auth.username),
        ("token_file", &auth.token_file),
        ("jwt_file", &auth.jwt_file),
        ("role_id", &auth.role_id),
        ("secret_id_file", &auth.secret_id_file),
        ("password_file", &auth.password_file),
        ("creation_path", &auth.creation_path),
    ];
    // A certificate may be shown whatever the login is.
    if let Some((key, _)) = given.iter().find(|(key, value)| value.is_some() && !own.contains(key)) {
        return Err(misconfigured(&format!("auth.{key} is not for the method {}", auth.method), &format!("it takes {}", own.join(", "))));
    }
    let needed = |value: &Option<String>, key: &str| {
        value.clone().ok_or_else(|| misconfigured(&format!("auth.{key} is missing"), &format!("the method {} needs it", auth.method)))
    };
    let mount = || auth.mount.as_ref().map_or_else(|| auth.method.clone(), |mount| plain_mount(mount));
    Ok(match auth.method.as_str() {
        "token" => Login::Token(Token::File { path: needed(&auth.token_file, "token_file")?, creation_path: auth.creation_path.clone() }),
        "kubernetes" => Login::Jwt {
            mount: mount(),
            role: Some(needed(&auth.role, "role")?),
            file: auth.jwt_file.clone().unwrap_or_else(|| SERVICE_ACCOUNT_TOKEN.to_owned()),
            is_kubernetes: true,
        },
        "jwt" => Login::Jwt { mount: mount(), role: auth.role.clone(), file: needed(&auth.jwt_file, "jwt_file")?, is_kubernetes: false },
        "approle" => Login::AppRole {
            mount: mount(),
            role_id: needed(&auth.role_id, "role_id")?,
            secret_id: Source::File(needed(&auth.secret_id_file, "secret_id_file")?),
            creation_path: auth.creation_path.clone(),
        },
        "userpass" => Login::Userpass {
            mount: mount(),
            username: needed(&auth.username, "username")?,
            password: Source::File(needed(&auth.password_file, "password_file")?),
        },
        _ => Login::Certificate { mount: mount(), role: auth.role.clone() },
    })
}

/// People write `auth/kubernetes` and `kubernetes/` for the mount `kubernetes`.
fn plain_mount(mount: &str) -> String {
    let mount = mount.trim_matches('/');
    mount.strip_prefix("auth/").unwrap_or(mount).to_owned()
}

/// The variables, by their names after `VAULT_` and `BAO_`: for OpenBao its own come first, for Vault Vault's.
struct Names<'a> {
    variables: &'a Variables,
    bao_first: bool,
}

impl Names<'_> {
    /// The first that is set, with its whole name.
    fn named(&self, name: &str) -> Option<(String, String)> {
        let (first, second) = if self.bao_first { ("BAO_", "VAULT_") } else { ("VAULT_", "BAO_") };
        [first, second].iter().find_map(|prefix| {
            let whole = format!("{prefix}{name}");
            self.variables.text(&whole).map(|value| (whole, value.to_owned()))
        })
    }

    fn text(&self, name: &str) -> Option<String> {
        self.named(name).map(|(_, value)| value)
    }

    /// A value, or a file by the same name with `_FILE`.
    fn source(&self, name: &str) -> Result<Option<Source>, Failure> {
        let Some((whole, value)) = self.named(name) else { return Ok(self.text(&format!("{name}_FILE")).map(Source::File)) };
        if reference::begins(value.as_bytes()) || value.contains("${") {
            return Err(misconfigured(
                &format!("{whole} is a reference, and is needed to resolve references"),
                &format!("name a file by {whole}_FILE"),
            ));
        }
        Ok(Some(Source::Value(Secret::new(value.into_bytes()))))
    }

    fn refuse_what_is_unsafe(&self) -> Result<(), Failure> {
        let is_true = |value: &str| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
        if let Some((name, _)) = self.named("SKIP_VERIFY").filter(|(_, value)| is_true(value)) {
            let cause = format!("{name} is set, and certificates are always verified");
            return Err(misconfigured(&cause, "name the authority's certificate by VAULT_CACERT, and unset it"));
        }
        for name in ["AGENT_ADDR", "CAPATH", "CACERT_BYTES", "SRV_LOOKUP", "TLS_SERVER_NAME"] {
            if let Some((whole, _)) = self.named(name) {
                let cause = format!("{whole} is set, and is not read");
                return Err(misconfigured(
                    &cause,
                    "name a file with the authority's certificate by VAULT_CACERT, and the server by VAULT_ADDR, as its certificate does",
                ));
            }
        }
        Ok(())
    }

    /// What is said about the login: a method by its name, else what is there.
    fn login(&self) -> Result<Login, Failure> {
        let method = self.named("AUTH_METHOD");
        match method.as_ref().map(|(name, method)| (name.as_str(), method.as_str())) {
            Some((_, "token")) => self.token(),
            Some((_, "kubernetes" | "jwt")) => Ok(self.jwt()),
            Some((_, "approle")) => self.app_role(),
            Some((_, "userpass")) => self.userpass(),
            Some((_, "cert")) => Ok(Login::Certificate { mount: self.mount("cert"), role: self.text("ROLE") }),
            Some((name, _)) => Err(misconfigured(
                &format!("{name} names no method that there is"),
                "the methods are token, kubernetes, jwt, approle, userpass and cert",
            )),
            None if self.named("TOKEN").or_else(|| self.named("TOKEN_FILE")).is_some() => self.token(),
            None if self.named("ROLE_ID").is_some() => self.app_role(),
            None if self.named("USERNAME").is_some() => self.userpass(),
            None if self.named("ROLE").is_some() => Ok(self.jwt()),
            None => self.token(),
        }
    }

    fn token(&self) -> Result<Login, Failure> {
        Ok(Login::Token(match self.source("TOKEN")? {
            Some(Source::Value(token)) => Token::Value(token),
            Some(Source::File(path)) => Token::File { path, creation_path: None },
            None => Token::OfCommandLine(self.variables.text("HOME").map(|home| format!("{home}/.vault-token"))),
        }))
    }

    /// As bank-vaults has it: the mount is `kubernetes` and the role `default` when nothing is said.
    fn jwt(&self) -> Login {
        Login::Jwt {
            mount: self.mount("kubernetes"),
            role: Some(self.text("ROLE").unwrap_or_else(|| "default".to_owned())),
            file: self.text("JWT_FILE").unwrap_or_else(|| SERVICE_ACCOUNT_TOKEN.to_owned()),
            is_kubernetes: true,
        }
    }

    fn app_role(&self) -> Result<Login, Failure> {
        let role_id = self.text("ROLE_ID").ok_or_else(|| misconfigured("VAULT_ROLE_ID is not set", "a login by AppRole needs it"))?;
        let secret_id = self
            .source("SECRET_ID")?
            .ok_or_else(|| misconfigured("VAULT_SECRET_ID_FILE is not set", "a login by AppRole needs it, or VAULT_SECRET_ID"))?;
        Ok(Login::AppRole { mount: self.mount("approle"), role_id, secret_id, creation_path: None })
    }

    fn userpass(&self) -> Result<Login, Failure> {
        let username = self.text("USERNAME").ok_or_else(|| misconfigured("VAULT_USERNAME is not set", "a login by userpass needs it"))?;
        let password = self
            .source("PASSWORD")?
            .ok_or_else(|| misconfigured("VAULT_PASSWORD_FILE is not set", "a login by userpass needs it, or VAULT_PASSWORD"))?;
        Ok(Login::Userpass { mount: self.mount("userpass"), username, password })
    }

    fn mount(&self, usual: &str) -> String {
        self.text("PATH").map_or_else(|| usual.to_owned(), |mount| plain_mount(&mount))
    }
}
