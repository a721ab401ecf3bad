//! From the keys of a secret to variables. Their names come from a store, so they are looked at.

use std::collections::BTreeSet;

use crate::cli::Glob;
use crate::environment::check_entry;
use crate::plan::Delivery;
use crate::reference::Reference;
use crate::report::{Code, Problem, printable};
use crate::secret::Secret;
use crate::store::{self, Content};

/// By these a program, its libraries or its interpreter loads code, finds other programs, or trusts other servers: who may write a secret is not to run what they like.
const DENIED: &[&str] = &[
    "AWS_CA_BUNDLE",
    "AWS_ENDPOINT_URL*",
    "BASHOPTS",
    "BASH_ENV",
    "BASH_FUNC_*",
    "CLASSPATH",
    "CORECLR_*",
    "COR_*",
    "CURL_CA_BUNDLE",
    "DOCKER_HOST",
    "DOTNET_*",
    "ENV",
    "ERL_FLAGS",
    "GCONV_PATH",
    "GIT_*",
    "GLIBC_TUNABLES",
    "HOME",
    "HOSTALIASES",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "KUBECONFIG",
    "LD_*",
    "LOCPATH",
    "LUA_*",
    "MAVEN_OPTS",
    "NODE_EXTRA_CA_CERTS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "OPENSSL_*",
    "PATH",
    "PERL5*",
    "PERLLIB",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "PS4",
    "PYTHON*",
    "REQUESTS_CA_BUNDLE",
    "RES_OPTIONS",
    "RUBYLIB",
    "RUBYOPT",
    "SECRET_INIT_*",
    "SHELLOPTS",
    "SSLKEYLOGFILE",
    "SSL_CERT_*",
    "ZDOTDIR",
    "_JAVA_OPTIONS",
    "*_PROXY",
    "*_proxy",
];

/// Makes the variables of a secret, less those that are taken.
///
/// # Errors
///
/// A problem for each key that cannot be a variable, or one about the secret.
pub fn variables(
    delivery: &Delivery,
    reference: &Reference,
    content: &Content,
    taken: &BTreeSet<Vec<u8>>,
) -> Result<Vec<(String, Secret)>, Vec<Problem>> {
    let data = |cause: String| Problem::new(Code::Data, cause).about(reference);
    let entries = store::entries(content).map_err(|failure| vec![delivery.about(data(failure.cause))])?;
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    for (key, value) in entries.into_iter().filter(|(key, _)| !taken.contains(key.as_bytes())) {
        let shown = printable(key.as_bytes()).into_owned();
        let one_by_one = || format!("take the keys that are needed one by one, by NAME={reference}#KEY, in place of {}", delivery.name);
        match (check_name(&key), value) {
            (Name::Good, Some(value)) => match check_entry(key.as_bytes(), value.expose()) {
                Ok(()) => variables.push((key, value)),
                Err(cause) => problems.push(data(format!("the key {shown}: {cause}")).hint(one_by_one())),
            },
            (Name::Good, None) => {
                problems.push(data(format!("the value of the key {shown} is no text, number or boolean")).hint(one_by_one()));
            }
            (Name::Denied, _) => {
                let hint = format!("remove the key, or write {shown}={reference}#{shown} when it is meant");
                problems.push(data(format!("the key {shown} would change how programs run")).hint(hint));
            }
            (Name::Malformed, _) => {
                let cause = format!("the key {shown} cannot be the name of a variable, which is A-Z a-z 0-9 _ and begins with no digit");
                problems.push(data(cause).hint(one_by_one()));
            }
        }
    }
    let about = |problem| delivery.about(problem);
    if problems.is_empty() { Ok(variables) } else { Err(problems.into_iter().map(about).collect()) }
}

enum Name {
    Good,
    Denied,
    Malformed,
}

fn check_name(name: &str) -> Name {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if name.is_empty() || !is_plain || name.starts_with(|first: char| first.is_ascii_digit()) {
        Name::Malformed
    } else if DENIED.iter().any(|pattern| Glob::from(*pattern).matches(name.as_bytes())) {
        Name::Denied
    } else {
        Name::Good
    }
}
