//! The grammar of a reference: `SCHEME:LOCATOR[?OPTION=VALUE[&…]][#SELECTOR]`.
//!
//! `Display` is safe to print: what may be a secret (a default, a literal) is left out. [`Reference::to_source`] has it all.

mod arn;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode, percent_encode_byte, utf8_percent_encode};

use crate::report::printable;
pub use arn::is_region;

/// The kinds of store that a reference can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// A file.
    File,
    /// One variable of an environment file.
    Dotenv,
    /// A credential in `$CREDENTIALS_DIRECTORY`.
    Cred,
    /// The text itself.
    Literal,
    /// `HashiCorp` Vault.
    Vault,
    /// `OpenBao`.
    Bao,
    /// AWS Secrets Manager.
    AwsSecretsManager,
    /// AWS Systems Manager Parameter Store.
    AwsParameterStore,
    /// Google Secret Manager.
    Google,
    /// Azure Key Vault.
    Azure,
    /// A Kubernetes Secret.
    Kubernetes,
    /// The password store `pass`.
    Pass,
}

impl Scheme {
    /// The word that stands for the scheme where the configuration sets up its store.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dotenv => "dotenv",
            Self::Cred => "cred",
            Self::Literal => "literal",
            Self::Vault => "vault",
            Self::Bao => "bao",
            Self::AwsSecretsManager => "aws-sm",
            Self::AwsParameterStore => "aws-ssm",
            Self::Google => "gcp-sm",
            Self::Azure => "azure-kv",
            Self::Kubernetes => "k8s",
            Self::Pass => "pass",
        }
    }

    /// Whether it is a service of AWS.
    fn is_aws(self) -> bool {
        matches!(self, Self::AwsSecretsManager | Self::AwsParameterStore)
    }

    /// All that are there.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.scheme)
    }
}

/// How a scheme is written, and what holds for it.
struct Row {
    /// The text before the locator.
    prefix: &'static str,
    scheme: Scheme,
    /// When a variable's whole value counts as a reference without `${…}` around it.
    bare: Bare,
    /// The options of its store.
    options: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    Always,
    /// Many programs take values like `vault:8200`: only with a selector.
    WithSelector,
    /// Many programs take values like `file:/config/app.yml`: only below a secret folder.
    InSecretFolder,
}

/// Longer prefixes stand before those that they begin with.
const ROWS: &[Row] = &[
    Row { prefix: "file:", scheme: Scheme::File, bare: Bare::InSecretFolder, options: &[] },
    Row { prefix: "dotenv:", scheme: Scheme::Dotenv, bare: Bare::WithSelector, options: &[] },
    Row { prefix: "cred:", scheme: Scheme::Cred, bare: Bare::Always, options: &[] },
    Row { prefix: "literal:", scheme: Scheme::Literal, bare: Bare::Always, options: &[] },
    Row { prefix: "vault:", scheme: Scheme::Vault, bare: Bare::WithSelector, options: &["namespace", "store", "version"] },
    Row { prefix: "bao:", scheme: Scheme::Bao, bare: Bare::WithSelector, options: &["namespace", "store", "version"] },
    Row { prefix: "aws-sm:", scheme: Scheme::AwsSecretsManager, bare: Bare::Always, options: &["region", "stage", "store", "version"] },
    Row { prefix: "aws-ssm:", scheme: Scheme::AwsParameterStore, bare: Bare::Always, options: &["region", "store"] },
    Row { prefix: "gcp:secretmanager:", scheme: Scheme::Google, bare: Bare::Always, options: &["version"] },
    Row { prefix: "gcp-sm:", scheme: Scheme::Google, bare: Bare::Always, options: &["version"] },
    Row { prefix: "azure:keyvault:", scheme: Scheme::Azure, bare: Bare::Always, options: &["version"] },
    Row { prefix: "azure-kv:", scheme: Scheme::Azure, bare: Bare::Always, options: &["version"] },
    Row { prefix: "k8s:", scheme: Scheme::Kubernetes, bare: Bare::Always, options: &[] },
    Row { prefix: "pass:", scheme: Scheme::Pass, bare: Bare::Always, options: &[] },
];

/// ARNs have the partition before the service: `arn:aws:secretsmanager:…`, `arn:aws-us-gov:ssm:…`.
const ARN_SERVICES: &[Row] = &[
    Row {
        prefix: "secretsmanager:",
        scheme: Scheme::AwsSecretsManager,
        bare: Bare::Always,
        options: &["region", "stage", "store", "version"],
    },
    Row { prefix: "ssm:", scheme: Scheme::AwsParameterStore, bare: Bare::Always, options: &["region", "store"] },
];

/// A reference to a secret. It holds no secret itself, but for a `literal:` and a `default=`.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference {
    /// The kind of store.
    pub scheme: Scheme,
    /// The text before the locator, with its colon, as it was written.
    prefix: String,
    /// Where in the store, decoded.
    pub locator: Vec<u8>,
    /// Which part of what is there.
    pub selector: Option<Selector>,
    /// How it is fetched and what is done with it.
    pub options: Options,
}

/// Which part of a structured secret is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A key of the JSON object, or of the store's own map.
    Key(String),
    /// The steps of a JSON pointer (RFC 6901).
    Pointer(Vec<String>),
}

/// The options of a reference.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// A secret that does not exist is left out instead of ending the start.
    pub optional: bool,
    /// What stands in for a secret that does not exist.
    pub default: Option<String>,
    /// The value is base64 text, and its bytes are meant.
    pub decode_base64: bool,
    /// White space around the value is dropped.
    pub trim: bool,
    /// How often to look for a change.
    pub refresh: Option<Duration>,
    /// The mode of the file, in place of 0400.
    pub mode: Option<u32>,
    /// Those of the store, in the order of their names.
    pub store: Vec<(&'static str, String)>,
}

/// What is wrong with the text of a reference. Nothing of the text is in it but the names of options that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub cause: String,
    /// What to write instead.
    pub hint: Option<&'static str>,
}

impl Malformed {
    fn new(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), hint: None }
    }

    fn hint(cause: impl Into<String>, hint: &'static str) -> Self {
        Self { cause: cause.into(), hint: Some(hint) }
    }
}

/// Whether a text begins a reference: a known scheme, and after it something that can be a locator.
///
/// `${vault:-x}` is a shell's default value and `file://` a URL: neither is a reference.
#[must_use]
pub fn begins(text: &[u8]) -> bool {
    row(text).is_some()
}

/// The scheme of a text that [`begins`] a reference.
#[must_use]
pub fn scheme(text: &[u8]) -> Option<Scheme> {
    row(text).map(|(row, _)| row.scheme)
}

/// Whether a variable's whole value is a reference, written without `${…}`. `in_secret_folder` tells for a path.
pub fn is_bare(text: &[u8], in_secret_folder: impl Fn(&[u8]) -> bool) -> bool {
    let Some((row, prefix)) = row(text) else { return false };
    match row.bare {
        Bare::Always => true,
        Bare::WithSelector => text.contains(&b'#') || encrypted(text).is_some(),
        Bare::InSecretFolder => {
            let locator = &text[prefix..];
            let end = locator.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(locator.len());
            in_secret_folder(&locator[..end])
        }
    }
}

/// Where the text that Vault's transit engine encrypted begins, `vault:v1:…`; none for other texts. It is no path.
#[must_use]
pub fn encrypted(text: &[u8]) -> Option<usize> {
    let (row, prefix) = row(text).filter(|(row, _)| matches!(row.scheme, Scheme::Vault | Scheme::Bao))?;
    let version = text[row.prefix.len()..].strip_prefix(b"v")?;
    let digits = version.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0 && version.get(digits) == Some(&b':')).then_some(prefix + 1 + digits + 1)
}

/// The row of the scheme that a text begins with, and where the locator begins.
fn row(text: &[u8]) -> Option<(&'static Row, usize)> {
    let (row, prefix) =
        ROWS.iter().find(|row| text.starts_with(row.prefix.as_bytes())).map(|row| (row, row.prefix.len())).or_else(|| arn::row(text))?;
    (row.scheme == Scheme::Literal || can_start(&text[prefix..])).then_some((row, prefix))
}

/// Whether a locator, as it is written, can stand after a scheme.
fn can_start(locator: &[u8]) -> bool {
    !locator.starts_with(b"//") && !matches!(locator.first(), Some(b'-' | b'=' | b'?' | b'+'))
}

/// The first row of a scheme. Its rows differ in their prefix alone.
fn row_of(scheme: Scheme) -> &'static Row {
    ROWS.iter().find(|row| row.scheme == scheme).unwrap_or(&ROWS[0])
}

/// Whether a word is how a scheme begins, so that `${WORD…}` could be meant for it.
#[must_use]
pub fn is_scheme(word: &str) -> bool {
    scheme_words().any(|known| known == word)
}

/// The words that schemes begin with, some more than once.
pub fn scheme_words() -> impl Iterator<Item = &'static str> {
    ROWS.iter().filter_map(|row| row.prefix.split(':').next()).chain(["arn"])
}

/// How a reference begins, as a regular expression (ECMA 262) for editors.
#[must_use]
pub fn pattern() -> String {
    let alternatives = |rows: &[Row]| rows.iter().map(|row| row.prefix).collect::<Vec<_>>().join("|");
    format!("^({}|arn:aws[a-z-]*:({}))", alternatives(ROWS), alternatives(ARN_SERVICES))
}

/// What [`Reference::identity`] gives, for maps.
pub type Identity<'a> = (Scheme, &'a [u8], &'a str, &'a [(&'static str, String)]);

impl Reference {
    /// Parses a text that [`begins`] a reference.
    ///
    /// # Errors
    ///
    /// [`Malformed`] says what of the grammar does not hold.
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let reference = Self::parse_whole(text)?;
        reference.check_part()?;
        Ok(reference)
    }

    /// Parses a reference to a secret of which [`Self::part`] takes parts, so that it may lack a selector that is needed in the end.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn parse_whole(text: &[u8]) -> Result<Self, Malformed> {
        let Some((row, prefix)) = row(text) else {
            return Err(Malformed::new("no reference"));
        };
        if row.scheme == Scheme::Literal {
            return Ok(Self::new(row, "literal:", text[prefix..].to_vec()));
        }
        if encrypted(text).is_some() {
            return Err(Malformed::hint(
                "it is encrypted by the transit engine, and nothing is decrypted here",
                "keep the secret itself in the store, or let the program decrypt it and name the variable with --skip",
            ));
        }
        let text = std::str::from_utf8(text).map_err(|_| Malformed::hint("not UTF-8", "write other bytes as %XX"))?;
        let (prefix, rest) = text.split_at(prefix);
        let tail = rest.find(['?', '#']).unwrap_or(rest.len());
        let (mut locator, tail) = rest.split_at(tail);
        let is_arn = prefix.starts_with("arn:");
        if let Some((of, _)) = arn::row(locator.as_bytes()).filter(|_| row.scheme.is_aws() && !is_arn) {
            let is_same = of.scheme == row.scheme;
            return if is_same { Self::parse_whole(rest.as_bytes()) } else { Err(Malformed::new("the ARN is one of another service")) };
        }
        let mut reference = Self::new(row, prefix, Vec::new());
        if row.scheme == Scheme::AwsSecretsManager && is_arn {
            locator = arn::take_tail(&mut reference, locator)?;
        }
        reference.locator = decode(locator)?.into_owned();
        reference.add(tail)?;
        reference.check_locator()?;
        Ok(reference)
    }

    /// The same secret with more options and a selector: what stands after the name of a secret in the configuration, `[?OPTION=VALUE[&…]][#SELECTOR]`.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`]; also when there is a selector already, or an option is given again.
    pub fn part(&self, tail: &str) -> Result<Self, Malformed> {
        let mut part = self.clone();
        if self.scheme == Scheme::Literal && !tail.is_empty() {
            return Err(Malformed::new("a literal has neither options nor parts"));
        }
        part.add(tail)?;
        part.check_locator()?;
        part.check_part()?;
        Ok(part)
    }

    /// Takes options and selector.
    fn add(&mut self, tail: &str) -> Result<(), Malformed> {
        let (options, selector) = match tail.split_once('#') {
            Some((options, selector)) => (options, Some(selector)),
            None => (tail, None),
        };
        if let Some(options) = options.strip_prefix('?') {
            let mut given = Vec::new();
            for option in options.split('&') {
                self.options.set(row_of(self.scheme), option)?;
                let name = option.split_once('=').map_or(option, |(name, _)| name);
                if given.contains(&name) {
                    return Err(twice(name));
                }
                given.push(name);
            }
        }
        selector.map_or(Ok(()), |selector| self.set_selector(selector))
    }

    /// The reference to a file, as `NAME_FILE=/path` means it.
    #[must_use]
    pub fn file(path: &[u8]) -> Self {
        Self::new(&ROWS[0], "file:", path.to_vec())
    }

    fn new(row: &Row, prefix: &str, locator: Vec<u8>) -> Self {
        Self { scheme: row.scheme, prefix: prefix.to_owned(), locator, selector: None, options: Options::default() }
    }

    fn set_selector(&mut self, text: &str) -> Result<(), Malformed> {
        if self.selector.is_some() {
            return Err(Malformed::new("a part of the secret is selected already"));
        }
        if text.contains("${") {
            return Err(Malformed::hint(
                "Go templates are not supported",
                "name the key after #, and write filters as ${REFERENCE | FILTER}",
            ));
        }
        if text.contains('?') {
            return Err(Malformed::hint("an option stands after the selector", "options go before #, and a ? in a key is written as %3F"));
        }
        let (key, version) = match text.split_once('#') {
            Some((key, version)) => (key, Some(version)),
            None => (text, None),
        };
        if let Some(version) = version {
            if !matches!(self.scheme, Scheme::Vault | Scheme::Bao) {
                return Err(Malformed::hint("a second #", "a # in a key is written as %23"));
            }
            if self.options.store.iter().any(|(name, _)| *name == "version") {
                return Err(Malformed::new("the version is given twice"));
            }
            if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Malformed::hint("the version after the second # is no number", "a # in a key is written as %23"));
            }
            self.options.put("version", version.to_owned());
        }
        self.selector = Some(match key.strip_prefix('/') {
            Some(pointer) => Selector::Pointer(pointer.split('/').map(pointer_step).collect::<Result<_, _>>()?),
            None if key.is_empty() => return Err(Malformed::hint("the selector is empty", "name a key after #, or leave the # out")),
            None => Selector::Key(decode_text(key)?),
        });
        Ok(())
    }

    /// What holds for the locator of each scheme.
    fn check_locator(&self) -> Result<(), Malformed> {
        if self.locator.is_empty() {
            return Err(Malformed::new("nothing stands after the scheme"));
        }
        if self.locator.contains(&0) {
            return Err(Malformed::new("a NUL byte in the locator"));
        }
        match self.scheme {
            Scheme::File | Scheme::Dotenv if !self.locator.starts_with(b"/") => Err(Malformed::new("the path is not absolute")),
            Scheme::Vault | Scheme::Bao => self.check_api_path(),
            Scheme::Cred if !is_component(&self.locator) => {
                Err(Malformed::new("the name of a credential is one path component of A-Z a-z 0-9 _ . -"))
            }
            Scheme::AwsSecretsManager | Scheme::AwsParameterStore => arn::check(self),
            _ => Ok(()),
        }
    }

    /// What holds for paths of Vault's API: what is written is what is asked for.
    fn check_api_path(&self) -> Result<(), Malformed> {
        if !std::str::from_utf8(&self.locator).is_ok_and(is_api_path) {
            return Err(Malformed::hint("the path has a part . or .., or characters that no path has", "write the path as the API has it"));
        }
        let is_number = |version: &str| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
        if self.store_option("version").is_some_and(|version| !is_number(version)) {
            return Err(Malformed::new("version takes a number"));
        }
        Ok(())
    }

    /// What holds for the part that is taken.
    fn check_part(&self) -> Result<(), Malformed> {
        if self.scheme == Scheme::Dotenv && !matches!(self.selector, Some(Selector::Key(_))) {
            return Err(Malformed::hint("no variable is named", "write dotenv:/path/.env#NAME, or load the whole file with --env-file"));
        }
        Ok(())
    }

    /// Whether two references are answered by the same fetch.
    #[must_use]
    pub fn same_secret(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// What makes a secret the same one, whatever is taken of it.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        (self.scheme, &self.locator, &self.prefix, &self.options.store)
    }

    /// The secret as a whole, without the part that is taken and what is done with it.
    #[must_use]
    pub fn whole(&self) -> Self {
        Self { selector: None, options: Options { store: self.options.store.clone(), ..Options::default() }, ..self.clone() }
    }

    /// An option of the store.
    #[must_use]
    pub fn store_option(&self, name: &str) -> Option<&str> {
        self.options.store.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The name of the store in the configuration: what the option `store` says, else the scheme's own.
    #[must_use]
    pub fn store_name(&self) -> &str {
        self.store_option("store").unwrap_or_else(|| self.scheme.word())
    }

    /// The scheme as it was written, without the colon.
    #[must_use]
    pub fn scheme_name(&self) -> &str {
        self.prefix.trim_end_matches(':')
    }

    /// The whole text. It may hold a secret (a literal, a default): not for printing.
    #[must_use]
    pub fn to_source(&self) -> Vec<u8> {
        if self.scheme == Scheme::Literal {
            return [b"literal:", self.locator.as_slice()].concat();
        }
        self.write(|default| encode(default).into_owned()).into_bytes()
    }

    fn write(&self, default: impl Fn(&str) -> String) -> String {
        let mut text = self.prefix.clone();
        let locator = percent_encode(&self.locator, SPECIAL).to_string();
        if can_start(locator.as_bytes()) {
            text.push_str(&locator);
        } else {
            text.push_str(percent_encode_byte(self.locator[0]));
            text.push_str(&locator[1..]);
        }
        let mut separator = '?';
        let mut option = |name: &str, value: &str| {
            text.push(separator);
            text.push_str(name);
            text.push('=');
            text.push_str(value);
            separator = '&';
        };
        let options = &self.options;
        if options.optional {
            option("optional", "true");
        }
        if let Some(value) = &options.default {
            option("default", &default(value));
        }
        if options.decode_base64 {
            option("decode", "base64");
        }
        if options.trim {
            option("trim", "true");
        }
        if let Some(refresh) = options.refresh {
            option("refresh", &format!("{}s", refresh.as_secs()));
        }
        if let Some(mode) = options.mode {
            option("mode", &format!("{mode:04o}"));
        }
        for (name, value) in &options.store {
            option(name, &encode(value));
        }
        match &self.selector {
            None => {}
            Some(Selector::Key(key)) => {
                // A key that begins with a slash would be read as a pointer.
                let (escaped, rest) = key.strip_prefix('/').map_or(("#", key.as_str()), |rest| ("#%2F", rest));
                text.push_str(escaped);
                text.push_str(&encode_key(rest));
            }
            Some(Selector::Pointer(steps)) => {
                text.push('#');
                for step in steps {
                    text.push('/');
                    text.push_str(&encode_key(&step.replace('~', "~0").replace('/', "~1")));
                }
            }
        }
        text
    }
}

/// Safe to print: a default is not shown, of a literal only that it is one, and control characters are escaped.
impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == Scheme::Literal {
            return out.write_str("literal:…");
        }
        out.write_str(&printable(self.write(|_| "…".to_owned()).as_bytes()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl Options {
    fn set(&mut self, row: &Row, text: &str) -> Result<(), Malformed> {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Malformed::hint("an option without a value", "options are written ?NAME=VALUE&NAME=VALUE"));
        };
        let value = decode_text(value)?;
        let twice = || twice(name);
        match name {
            "optional" if self.optional => return Err(twice()),
            "decode" if self.decode_base64 => return Err(twice()),
            "trim" if self.trim => return Err(twice()),
            "optional" => self.optional = flag(name, &value)?,
            "default" => {
                if self.default.replace(value).is_some() {
                    return Err(twice());
                }
            }
            "decode" if value == "base64" => self.decode_base64 = true,
            "decode" => return Err(Malformed::new("decode takes base64")),
            "trim" => self.trim = flag(name, &value)?,
            "refresh" => {
                let duration =
                    period(&value).ok_or_else(|| Malformed::new("refresh takes a duration of at least 5s, like 30s, 5m or 1h"))?;
                if self.refresh.replace(duration).is_some() {
                    return Err(twice());
                }
            }
            "mode" => {
                let mode = file_mode(&value).ok_or_else(|| {
                    Malformed::hint("mode takes an octal number like 0440", "the owner must be able to read, and others never may write")
                })?;
                if self.mode.replace(mode).is_some() {
                    return Err(twice());
                }
            }
            _ => {
                let Some(known) = row.options.iter().find(|known| **known == name) else {
                    return Err(unknown_option(row));
                };
                if self.store.iter().any(|(given, _)| given == known) {
                    return Err(twice());
                }
                self.put(known, value);
            }
        }
        Ok(())
    }

    fn put(&mut self, name: &'static str, value: String) {
        self.store.push((name, value));
        self.store.sort_unstable();
    }
}

/// Of an option that is known.
fn twice(name: &str) -> Malformed {
    Malformed::new(format!("the option {name} is given twice"))
}

/// The name of the option is not told: the whole may be a password that begins like a reference.
fn unknown_option(row: &Row) -> Malformed {
    let mut known = vec!["optional", "default", "decode", "trim", "refresh", "mode"];
    known.extend(row.options);
    Malformed::hint(format!("unknown option; {} takes {}", row.prefix, known.join(", ")), "a ? in a path is written as %3F")
}

fn flag(name: &str, value: &str) -> Result<bool, Malformed> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Malformed::new(format!("{name} takes true or false"))),
    }
}

/// A number of seconds, or one with a unit: `90`, `30s`, `5m`, `1h`, `1d`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds: u64 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// More often than this a store is not asked.
pub const SHORTEST_PERIOD: Duration = Duration::from_secs(5);

/// How often to look for a change: a [`duration`] of at least [`SHORTEST_PERIOD`].
#[must_use]
pub fn period(text: &str) -> Option<Duration> {
    duration(text).filter(|&duration| duration >= SHORTEST_PERIOD)
}

/// [`period`] as a regular expression (ECMA 262).
pub const PERIOD_PATTERN: &str = "^0*([5-9]|[1-9][0-9]+)s?$|^0*[1-9][0-9]*[mhd]$";

/// An octal mode of a secret file: readable by its owner, executable or writable by nobody else, no special bits.
#[must_use]
pub fn file_mode(text: &str) -> Option<u32> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal)?;
    (mode & 0o400 != 0 && mode & !0o644 == 0).then_some(mode)
}

/// [`file_mode`] as a regular expression (ECMA 262).
pub const MODE_PATTERN: &str = "^0?[46][04][04]$";

/// Whether a text is a path of an API that a URL takes as it is: parts that are neither `.` nor `..`, without control characters.
#[must_use]
pub fn is_api_path(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.split('/').all(|part| !matches!(part, "." | ".."))
}

/// Whether bytes are one harmless name of a file: `A-Z a-z 0-9 _ . -`, at most 128, and not beginning with `..` nor being `.`.
#[must_use]
pub fn is_component(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=128).contains(&name.len()) && name.iter().all(is_plain) && name != b"." && !name.starts_with(b"..")
}

/// Whether a text is a harmless path below a directory: components, at most 8, none of which begins with a dot.
#[must_use]
pub fn is_path(text: &str) -> bool {
    let is_visible = |part: &str| is_component(part.as_bytes()) && !part.starts_with('.');
    text.split('/').count() <= 8 && text.split('/').all(is_visible)
}

/// [`is_path`] as a regular expression (ECMA 262).
pub const PATH_PATTERN: &str = "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}){0,7}$";

/// `~1` is a slash and `~0` a tilde (RFC 6901).
fn pointer_step(text: &str) -> Result<String, Malformed> {
    Ok(decode_text(text)?.replace("~1", "/").replace("~0", "~"))
}

fn decode_text(text: &str) -> Result<String, Malformed> {
    String::from_utf8(decode(text)?.into_owned()).map_err(|_| Malformed::new("%XX gives bytes that are not UTF-8"))
}

fn decode(text: &str) -> Result<Cow<'_, [u8]>, Malformed> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if after.len() < 2 || !after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Malformed::hint("a % without two hexadecimal digits", "a % itself is written as %25"));
        }
        rest = &after[2..];
    }
    Ok(percent_decode_str(text).into())
}

/// What cannot stand for itself in a part of a reference, or in `${…}`.
const SPECIAL: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b'&').add(b'}').add(b'|');

fn encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, SPECIAL).into()
}

/// A key that has `${` in it would be taken for a template.
fn encode_key(key: &str) -> String {
    encode(key).replace("${", "%24{")
}
