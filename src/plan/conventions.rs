//! What the names of variables and the paths of files mean by convention: which `*_FILE` variables are secrets, and where platforms mount them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::cli::Options;
use crate::environment::Environment;

/// The name without the convention that says that the value names a file: `NAME_FILE`, or `FILE__NAME` as the images of LinuxServer have it.
pub fn plain_name(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"FILE__").or_else(|| name.strip_suffix(b"_FILE")).filter(|plain| !plain.is_empty())
}

/// Variables whose file is read by the program's own libraries, under these very names.
const READ_BY_LIBRARIES: &[&str] = &[
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "BAO_JWT_FILE",
    "BAO_PASSWORD_FILE",
    "BAO_SECRET_ID_FILE",
    "BAO_TOKEN_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "COMPOSE_FILE",
    "CONSUL_HTTP_TOKEN_FILE",
    "ENV_FILE",
    "SSL_CERT_FILE",
    "VAULT_JWT_FILE",
    "VAULT_PASSWORD_FILE",
    "VAULT_SECRET_ID_FILE",
    "VAULT_TOKEN_FILE",
];

/// What holds the secret of a login to Vault or `OpenBao`, after `VAULT_` and `BAO_`. It opens more than the program is to have.
const LOGINS: &[&str] = &["PASSWORD", "SECRET_ID", "TOKEN"];

/// Whether a variable holds the secret of a login to Vault or `OpenBao`.
pub fn is_login(name: &[u8]) -> bool {
    let plain = name.strip_prefix(b"VAULT_").or_else(|| name.strip_prefix(b"BAO_"));
    plain.is_some_and(|plain| LOGINS.iter().any(|login| login.as_bytes() == plain))
}

/// What stands before `_FILE` in names that seldom mean a secret: `TLS_CERT_FILE`, `PID_FILE`.
const SELDOM_SECRET: &[&str] = &["CERT", "CRT", "CA", "CACERT", "PEM", "CONFIG", "LOG", "PID", "LOCK", "SOCK", "STATE", "OUTPUT"];

/// Why a `*_FILE` variable that holds no reference is not taken.
pub fn reason_to_leave_alone(name: &[u8], value: &[u8], options: &Options, folders: &SecretFolders) -> Option<&'static str> {
    let plain = plain_name(name)?;
    if !value.starts_with(b"/") {
        return Some("neither an absolute path nor a reference");
    }
    if !options.only.is_empty() {
        let is_named = options.only.iter().any(|glob| glob.matches(name));
        return (!is_named).then_some("--only does not name it");
    }
    if READ_BY_LIBRARIES.iter().any(|known| known.as_bytes() == name) {
        return Some("its file is read by libraries");
    }
    if plain.ends_with(b"_") {
        return Some("programs read __FILE themselves");
    }
    let last_word = plain.rsplit(|&byte| byte == b'_').next().unwrap_or_default();
    let is_seldom_secret = SELDOM_SECRET.iter().any(|word| word.as_bytes() == last_word);
    (is_seldom_secret && !folders.contain(value)).then_some("such names seldom mean a secret")
}

/// The folders in which platforms mount secrets.
pub struct SecretFolders(Vec<Vec<u8>>);

const SECRET_FOLDERS: &[&str] = &["/run/secrets", "/var/run/secrets", "/etc/secrets", "/mnt/secrets-store", "/vault/secrets"];

/// Kubernetes mounts the pod's own identity here, which is not the program's secret.
const SERVICE_ACCOUNT: &[&str] = &["/run/secrets/kubernetes.io", "/var/run/secrets/kubernetes.io"];

impl SecretFolders {
    /// Those that are known, and those of the options and the environment.
    pub fn new(options: &Options, environment: &Environment) -> Self {
        let mut folders: Vec<Vec<u8>> = SECRET_FOLDERS.iter().map(|folder| folder.as_bytes().to_vec()).collect();
        folders.extend(environment.value(b"CREDENTIALS_DIRECTORY").filter(|folder| folder.starts_with(b"/")).map(<[u8]>::to_vec));
        folders.extend(options.file_roots.iter().map(|root| root.as_os_str().as_bytes().to_vec()));
        Self(folders)
    }

    /// Whether a path lies below one of the folders, by its text: a plan does not look at the disk.
    pub fn contain(&self, path: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        let climbs = path.components().any(|part| part == Component::ParentDir);
        let is_below = |folder: &Path| path.starts_with(folder) && path != folder;
        !climbs
            && !SERVICE_ACCOUNT.iter().any(|folder| path.starts_with(folder))
            && self.0.iter().any(|folder| is_below(Path::new(OsStr::from_bytes(folder))))
    }
}
