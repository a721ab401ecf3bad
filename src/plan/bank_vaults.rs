//! Variables that mean something to the programs of bank-vaults and nothing to us: better a word than silence.

/// Names after `VAULT_` and `BAO_`, whether the value has to be true to count, and what is to be said.
const UNREAD: &[(&str, bool, &str, &str)] = &[
    (
        "IGNORE_MISSING_SECRETS",
        true,
        "is not read: a secret that does not exist ends the start",
        "add ?optional=true or ?default=… to each that may be missing",
    ),
    (
        "REVOKE_TOKEN",
        true,
        "is not read: --revoke-on-exit ends a login",
        "set SECRET_INIT_REVOKE_ON_EXIT=true beside SECRET_INIT_WATCH=true",
    ),
    ("ENV_DAEMON", true, "is not read: it is --on-change restart that starts the program anew", "set SECRET_INIT_ON_CHANGE=restart"),
    ("PASSTHROUGH", false, "is not read", "name by --keep-env what of a login is to reach the program"),
    ("ENV_PASSTHROUGH", false, "is not read", "name by --keep-env what of a login is to reach the program"),
];

/// What there is to say of a variable that is not read, and what to do.
pub fn unread(name: &[u8], value: &[u8]) -> Option<(&'static str, &'static str)> {
    let plain = name.strip_prefix(b"VAULT_").or_else(|| name.strip_prefix(b"BAO_"))?;
    let (_, is_switch, cause, hint) = UNREAD.iter().find(|(known, ..)| known.as_bytes() == plain)?;
    let is_true = matches!(value, b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True");
    let counts = if *is_switch { is_true } else { !value.is_empty() };
    counts.then_some((cause, hint))
}

/// Whether a variable asks for the token of our login, which no program gets.
pub fn asks_for_token(name: &[u8], value: &[u8]) -> bool {
    matches!((name, value), (b"VAULT_TOKEN", b"vault:login") | (b"BAO_TOKEN", b"bao:login"))
}
