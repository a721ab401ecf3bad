//! `VAULT_FROM_PATH`: secrets of which every key becomes a variable.

use crate::reference::{self, Malformed, Options, Reference};
use crate::report::printable;
use crate::template::Fault;

/// The variables that name such secrets, as bank-vaults has them (the longer one is of its older program), and how references to their store begin.
const VARIABLES: &[(&str, &str)] = &[("BAO_FROM_PATH", "bao:"), ("VAULT_ENV_FROM_PATH", "vault:"), ("VAULT_FROM_PATH", "vault:")];

/// How the references of a variable begin that names such secrets; none for another.
pub fn prefix(name: &[u8]) -> Option<&'static str> {
    VARIABLES.iter().find(|(variable, _)| variable.as_bytes() == name).map(|(_, prefix)| *prefix)
}

/// Reads `PATH[?OPTION=VALUE…][#VERSION]`, several with commas between them.
pub fn references(prefix: &str, value: &[u8]) -> Vec<Result<Reference, Fault>> {
    let parts = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty());
    parts.map(|part| read(prefix, part).map_err(|malformed| fault(prefix, part, malformed))).collect()
}

fn read(prefix: &str, part: &[u8]) -> Result<Reference, Malformed> {
    let text = std::str::from_utf8(part).map_err(|_| malformed("not UTF-8", "write other bytes as %XX"))?;
    let text = text.strip_prefix(prefix).unwrap_or(text);
    let whole = match text.split_once('#') {
        None => format!("{prefix}{text}"),
        Some((path, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) && !version.is_empty() => {
            let separator = if path.contains('?') { '&' } else { '?' };
            format!("{prefix}{path}{separator}version={version}")
        }
        Some(_) => return Err(malformed("the version after # is no number", "for one key alone write NAME=vault:PATH#KEY")),
    };
    let reference = Reference::parse(whole.as_bytes())?;
    let Options { default, decode_base64, trim, mode, .. } = &reference.options;
    if default.is_some() || *decode_base64 || *trim || mode.is_some() {
        let cause = "default, decode, trim and mode are for one value, and here each key has one";
        return Err(malformed(cause, "for one key alone write NAME=vault:PATH?OPTION=VALUE#KEY"));
    }
    Ok(reference)
}

fn malformed(cause: &str, hint: &'static str) -> Malformed {
    Malformed { cause: cause.to_owned(), hint: Some(hint) }
}

/// The path is shown, and what follows it is not.
fn fault(prefix: &str, part: &[u8], malformed: Malformed) -> Fault {
    let end = part.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(part.len());
    let more = if end < part.len() { "…" } else { "" };
    Fault { scheme: reference::scheme(format!("{prefix}x").as_bytes()), reference: format!("{}{more}", printable(&part[..end])), malformed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(value: &str) -> Vec<String> {
        let say = |result: Result<Reference, Fault>| match result {
            Ok(reference) => reference.to_string(),
            Err(fault) => format!("{}: {}", fault.reference, fault.malformed.cause),
        };
        references("vault:", value.as_bytes()).into_iter().map(say).collect()
    }

    #[test]
    fn paths_stand_in_a_list_each_with_a_version_or_options() {
        assert_eq!(
            read_all("secret/data/app, secret/data/db#2,,vault:kv/x?namespace=a&optional=true#3"),
            ["vault:secret/data/app", "vault:secret/data/db?version=2", "vault:kv/x?optional=true&namespace=a&version=3"]
        );
    }

    #[test]
    fn what_makes_no_sense_for_a_whole_secret_is_refused() {
        assert_eq!(read_all("secret/data/app#password"), ["secret/data/app…: the version after # is no number"]);
        assert_eq!(read_all("secret/data/app#"), ["secret/data/app…: the version after # is no number"]);
        assert_eq!(read_all("a?version=1#2"), ["a…: the option version is given twice"]);
        let cause = "default, decode, trim and mode are for one value, and here each key has one";
        assert_eq!(read_all("a?default=hunter2"), [format!("a…: {cause}")]);
        assert_eq!(read_all("a?trim=true"), [format!("a…: {cause}")]);
        assert_eq!(read_all("?optional=true,-x"), ["…: no reference", "-x: no reference"]);
    }
}
