//! The environment that we were given, as a value: the container's variables, and those of `--env-file`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config;
use crate::report::{Code, Problem, printable};
use crate::store;

/// The variables, in their order.
#[derive(Default)]
pub struct Environment {
    /// Each name once.
    pub variables: Vec<Variable>,
    /// Entries without `=` or without a name, which the kernel allows: nobody's business, so they are passed on.
    pub irregular: Vec<Vec<u8>>,
    /// Names that came more than once. The first is kept, as `getenv` has it; a shell would have taken the last.
    pub repeated: Vec<Vec<u8>>,
    /// Names to which a file gave another value than the container's, which won.
    pub overridden: Vec<Vec<u8>>,
    /// The environment files that could not be read.
    pub problems: Vec<Problem>,
}

/// One variable. Its value may be a secret.
pub struct Variable {
    /// The name, not empty and without `=`.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

impl Environment {
    /// The entries that the container was started with, and what stands in the files. A variable of the container wins over one of a file, a later file over
    /// an earlier one; an empty variable counts as unset.
    #[must_use]
    pub fn load(entries: &[Vec<u8>], files: &[impl AsRef<Path>]) -> Self {
        let mut environment = Self::from_entries(entries);
        let mut added = BTreeMap::new();
        for file in files {
            if let Err(problem) = read_file(file.as_ref(), &mut added) {
                environment.problems.push(problem.about(printable(file.as_ref().as_os_str().as_encoded_bytes())).about("--env-file"));
            }
        }
        environment.add(added);
        environment
    }

    /// Adds the variables of the files.
    fn add(&mut self, mut added: BTreeMap<Vec<u8>, Vec<u8>>) {
        for Variable { name, value } in &mut self.variables {
            match added.remove(name) {
                Some(other) if value.is_empty() => *value = other,
                Some(other) if other != *value => self.overridden.push(name.clone()),
                _ => {}
            }
        }
        self.overridden.sort_unstable();
        self.variables.extend(added.into_iter().map(|(name, value)| Variable { name, value }));
    }

    /// Reads entries of the form `NAME=VALUE`.
    #[must_use]
    pub fn from_entries(entries: &[Vec<u8>]) -> Self {
        let mut environment = Self::default();
        let mut names = BTreeSet::new();
        for entry in entries {
            match entry.iter().position(|&byte| byte == b'=') {
                None | Some(0) => environment.irregular.push(entry.clone()),
                Some(at) if names.insert(&entry[..at]) => {
                    environment.variables.push(Variable { name: entry[..at].to_vec(), value: entry[at + 1..].to_vec() });
                }
                Some(at) => environment.repeated.push(entry[..at].to_vec()),
            }
        }
        environment
    }

    /// The value of a variable.
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.variables.iter().find(|variable| variable.name == name).map(|variable| variable.value.as_slice())
    }
}

/// Reads the variables of a file; a later line or file wins over an earlier one.
fn read_file(file: &Path, variables: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), Problem> {
    let (text, _) = store::read_file(file).map_err(|failure| {
        let code = failure.code();
        Problem { code, subject: Vec::new(), cause: failure.cause, hint: failure.hint }
    })?;
    let lines = store::parse_dotenv(&text)
        .map_err(|error| Problem::new(Code::Data, error.to_string()).hint("lines are NAME=value, as in Compose"))?;
    for store::Line { name, value } in lines {
        if name.starts_with(config::SETTINGS) {
            let (cause, hint) = config::IS_A_SETTING;
            return Err(Problem::new(Code::Configuration, cause).about(&name).hint(hint));
        }
        check_entry(name.as_bytes(), value.expose()).map_err(|cause| Problem::new(Code::Data, cause).about(&name))?;
        variables.insert(name.into_bytes(), value.expose().to_vec());
    }
    Ok(())
}

/// Whether a variable can be what the kernel lets an entry be: 32 pages with its NUL (`MAX_ARG_STRLEN` in linux/binfmts.h), without a NUL inside.
///
/// # Errors
///
/// In words, what it is too much of.
pub fn check_entry(name: &[u8], value: &[u8]) -> Result<(), String> {
    const LONGEST: usize = 131_072;
    if value.contains(&0) {
        return Err("the value has a NUL byte, which no variable can hold".to_owned());
    }
    let most = LONGEST.saturating_sub(name.len() + 2);
    if value.len() > most {
        return Err(format!("the value has {} bytes, and a variable holds {most} at most", value.len()));
    }
    Ok(())
}

/// The value may be a secret.
impl std::fmt::Debug for Variable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}=({} bytes)", printable(&self.name), self.value.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_kernel_allows_is_kept() {
        let entries = [&b"A=1"[..], b"NOEQUALS", b"=x", b"A=2", b"N\nL=\xff", b"E="].map(<[u8]>::to_vec);
        let environment = Environment::from_entries(&entries);
        assert_eq!(environment.value(b"A"), Some(&b"1"[..]));
        assert_eq!(environment.value(b"N\nL"), Some(&b"\xff"[..]));
        assert_eq!(environment.value(b"E"), Some(&b""[..]));
        assert_eq!(environment.irregular, [b"NOEQUALS".to_vec(), b"=x".to_vec()]);
        assert_eq!(environment.repeated, [b"A".to_vec()]);
    }
}
