//! The program's environment.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;

use nix::sys::resource::{Resource, getrlimit};

use super::directory::Directory;
use crate::plan::{File, Plan, Target};
use crate::report::{Code, Problem};
use crate::resolve::{Secrets, Value};
use crate::user::Account;

/// What came in, less what was taken, plus what was made. No name is in it twice.
pub fn of(plan: &Plan, secrets: &Secrets, directory: Option<&Directory>, account: Option<&Account>) -> Vec<CString> {
    let mut set = plan.set.clone();
    // Of several secrets with the same key the last wins.
    let mut imported = BTreeMap::new();
    for (delivery, value) in plan.deliveries.iter().zip(secrets) {
        match (&delivery.target, value, directory) {
            (Target::Variable(name), Value::Secret(secret), _) => set.push((name.clone(), secret.expose().to_vec())),
            (_, Value::Variables(variables), _) => imported.extend(variables.iter().map(|(name, secret)| (name, secret))),
            (Target::File(File { path, variable: Some(variable), .. }), Value::Secret(_), Some(directory)) => {
                set.push((variable.clone(), directory.path.join(path).into_os_string().as_bytes().to_vec()));
            }
            _ => {}
        }
    }
    set.extend(imported.into_iter().map(|(name, secret)| (name.clone().into_bytes(), secret.expose().to_vec())));
    if let Some(directory) = directory {
        set.push((b"SECRET_INIT_DIR".to_vec(), directory.path.as_os_str().as_bytes().to_vec()));
    }
    for (name, value) in account.into_iter().flat_map(Account::variables) {
        // What is called HOME or USER there is meant.
        if !set.iter().any(|(set, _)| *set == name) {
            set.push((name, value));
        }
    }
    let mut names: Vec<&[u8]> = set.iter().map(|(name, _)| name.as_slice()).collect();
    names.sort_unstable();
    let is_set = |entry: &[u8]| entry.split(|&byte| byte == b'=').next().is_some_and(|name| names.binary_search(&name).is_ok());
    let passed = plan.passed.iter().filter(|entry| !is_set(entry)).cloned();
    let made = set.iter().map(|(name, value)| [name.as_slice(), b"=", value].concat());
    // What came from the kernel has no NUL inside, nor has what was read since: `check_entry` saw to it.
    passed.chain(made).map(|entry| CString::new(entry).unwrap_or_default()).collect()
}

/// What the kernel takes at `execve` is bounded by a quarter of the stack limit, at least 128 KiB and at most 6 MiB (fs/exec.c): arguments, environment,
/// and a pointer for each.
pub fn check_size(plan: &Plan, secrets: &Secrets, environment: &[CString], program: &[OsString]) -> Result<(), Problem> {
    const LEAST: u64 = 128 << 10;
    const MOST: u64 = 6 << 20;
    let stack = getrlimit(Resource::RLIMIT_STACK).map_or(u64::MAX, |(soft, _)| soft);
    let limit = (stack / 4).clamp(LEAST, MOST);
    let lengths = environment.iter().map(|text| text.count_bytes()).chain(program.iter().map(|text| text.len()));
    let strings: usize = lengths.map(|length| length + 1 + size_of::<usize>()).sum();
    // The kernel puts the program's path on the stack too, and keeps a page to spare.
    let total = u64::try_from(strings + 2 * 4096).unwrap_or(u64::MAX);
    if total <= limit {
        return Ok(());
    }
    let cause = format!("environment and arguments have {total} bytes, and the kernel takes {limit}");
    let problem = Problem::new(Code::Data, cause);
    let variables = plan.deliveries.iter().zip(secrets).flat_map(|(delivery, value)| match (&delivery.target, value) {
        (Target::Variable(_), Value::Secret(secret)) => vec![(delivery.name.as_str(), secret.len())],
        (_, Value::Variables(variables)) => variables.iter().map(|(name, secret)| (name.as_str(), secret.len())).collect(),
        _ => Vec::new(),
    });
    match variables.max_by_key(|(_, length)| *length) {
        Some((largest, length)) => {
            Err(problem.about(largest).hint(format!("{largest} is the largest with {length} bytes: deliver it as a file")))
        }
        None => Err(problem.hint("raise the stack limit (ulimit -s), or pass less")),
    }
}
