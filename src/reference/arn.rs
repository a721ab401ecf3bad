//! Names of Amazon's: `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`, and regions.

use super::{Malformed, Reference, Row, Scheme, Selector, decode_text};

/// ARNs have the partition before the service: `arn:aws:secretsmanager:…`, `arn:aws-us-gov:ssm:…`. The row of one, and where its region begins.
pub(super) fn row(text: &[u8]) -> Option<(&'static Row, usize)> {
    let rest = text.strip_prefix(b"arn:aws")?;
    let partition = rest.iter().position(|&byte| byte == b':')?;
    let is_partition = rest[..partition].iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-');
    let service = &rest[partition + 1..];
    let row = super::ARN_SERVICES.iter().find(|row| service.starts_with(row.prefix.as_bytes()))?;
    is_partition.then_some((row, "arn:aws".len() + partition + 1 + row.prefix.len()))
}

/// Takes what ECS writes behind the name of a secret, `:JSON-KEY:VERSION-STAGE:VERSION-ID`, each of which may be empty, and gives the text before it. A name has no
/// colon in it.
pub(super) fn take_tail<'a>(reference: &mut Reference, locator: &'a str) -> Result<&'a str, Malformed> {
    let Some((end, _)) = locator.match_indices(':').nth(3) else { return Ok(locator) };
    let mut tail = locator[end + 1..].split(':');
    let mut part = || tail.next().filter(|part| !part.is_empty()).map(decode_text).transpose();
    let (key, stage, version) = (part()?, part()?, part()?);
    if tail.next().is_some() {
        return Err(Malformed::hint("too much stands behind the name in the ARN", "it ends as ECS has it: NAME:KEY:STAGE:VERSION"));
    }
    reference.selector = key.map(Selector::Key);
    for (name, value) in [("stage", stage), ("version", version)] {
        if let Some(value) = value {
            reference.options.put(name, value);
        }
    }
    Ok(&locator[..end])
}

/// Whether an ARN is that of a secret or a parameter, and a region one.
pub(super) fn check(reference: &Reference) -> Result<(), Malformed> {
    if reference.region().is_some_and(|region| !is_region(region)) {
        return Err(Malformed::hint("the region is none", "regions are written like eu-central-1"));
    }
    let colons = reference.locator.split(|&byte| byte == b':').count() - 1;
    match (reference.scheme, reference.arn().is_some()) {
        // Three stand before the name in an ARN. What ECS has behind it is taken away.
        (Scheme::AwsSecretsManager, is_arn) if colons > if is_arn { 3 } else { 0 } => {
            return Err(Malformed::hint("a name in Secrets Manager has no colon", "a key stands after #, a version in ?version="));
        }
        (Scheme::AwsParameterStore, false) if colons > 1 => {
            return Err(Malformed::hint("a name in Parameter Store has no colon", "one stands between it and a version or a label"));
        }
        (_, false) => return Ok(()),
        (_, true) => {}
    }
    if reference.store_option("region").is_some() {
        return Err(Malformed::new("the ARN has a region already"));
    }
    let mut parts = reference.locator.splitn(3, |&byte| byte == b':').skip(1);
    let has_account = parts.next().is_some_and(|account| !account.is_empty() && account.iter().all(u8::is_ascii_digit));
    let resource = parts.next().unwrap_or_default();
    let (kind, shape): (&[u8], _) = match reference.scheme {
        Scheme::AwsParameterStore => (b"parameter/", "it is written arn:aws:ssm:REGION:ACCOUNT:parameter/PATH"),
        _ => (b"secret:", "it is written arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME"),
    };
    if has_account && resource.len() > kind.len() && resource.starts_with(kind) {
        return Ok(());
    }
    Err(Malformed::hint("the ARN names no secret", shape))
}

/// Whether a text can be the name of a region. It becomes part of the name of a host.
#[must_use]
pub fn is_region(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(is_plain) && text.starts_with(|first: char| first.is_ascii_lowercase())
}

impl Reference {
    /// The whole ARN of a secret of AWS that is named by one.
    #[must_use]
    pub fn arn(&self) -> Option<String> {
        self.prefix.starts_with("arn:").then(|| format!("{}{}", self.prefix, String::from_utf8_lossy(&self.locator)))
    }

    /// The region of a secret of AWS, if the reference says it.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        let of_arn = || std::str::from_utf8(self.locator.split(|&byte| byte == b':').next()?).ok();
        self.store_option("region").or_else(|| self.prefix.starts_with("arn:").then(of_arn).flatten())
    }

    /// Whether it asks Secrets Manager for what is current, which is all that a batch can give.
    #[must_use]
    pub fn asks_for_current(&self) -> bool {
        ["stage", "version"].iter().all(|option| self.store_option(option).is_none())
    }
}
