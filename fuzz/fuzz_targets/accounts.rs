//! `--user` in `/etc/passwd` and `/etc/group`: no user, no group and no right that stands nowhere.
//!
//! The input is the text of `--user`, passwd and group, apart by NUL bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secret_init::report::Code;
use secret_init::user::{Account, find_in};

const CAUSES: [&str; 5] = [
    "no such user in /etc/passwd",
    "the user has no entry in /etc/passwd",
    "no such group in /etc/group",
    "no user can have this number",
    "no group can have this number",
];

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |&byte| byte == 0);
    let (Some(text), Some(passwd), Some(group)) = (parts.next(), parts.next(), parts.next()) else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    match find_in(text, passwd, group) {
        Ok(account) => is_sound(&account, text, passwd, group),
        Err(problem) => {
            assert!(problem.code == Code::Configuration && problem.hint.is_some() && CAUSES.contains(&problem.cause.as_str()), "{problem}");
            let are_numbers = text.split_once(':').is_some_and(|(user, group)| is_id(user) && is_id(group));
            assert!(!are_numbers, "numbers need no entry: {problem}");
        }
    }
});

fn is_id(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u32>().is_ok_and(|number| number != u32::MAX)
}

fn id(field: &[u8]) -> Option<u32> {
    str::from_utf8(field).ok().filter(|text| is_id(text))?.parse().ok()
}

/// The fields of the lines that have at least so many.
fn lines(file: &[u8], fields: usize) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|&byte| byte == b'\n')
        .map(|line| line.split(|&byte| byte == b':').collect())
        .filter(move |line: &Vec<_>| line.len() >= fields)
}

fn is_sound(account: &Account, text: &str, passwd: &[u8], group: &[u8]) {
    let Account { uid, gid, groups, name, home } = account;
    let wanted_group = text.split_once(':').map(|(_, group)| group);
    assert!(*uid != u32::MAX && *gid != u32::MAX, "{account:?}");
    assert!(groups.is_sorted_by(|one, other| one < other) && groups.contains(gid), "{account:?}");
    assert!(!name.is_empty() && !home.is_empty() && !home.contains(&b':') && !home.contains(&b'\n'), "{account:?}");

    let is_named = |field: &[u8]| String::from_utf8_lossy(field) == *name;
    let is_in_passwd = lines(passwd, 6).any(|fields| {
        is_named(fields[0])
            && id(fields[2]) == Some(*uid)
            && (wanted_group.is_some() || id(fields[3]) == Some(*gid))
            && (fields[5] == home || fields[5].is_empty() && home == b"/")
    });
    assert!(is_in_passwd || wanted_group.is_some() && *name == uid.to_string() && home == b"/", "{account:?}");
    match wanted_group {
        Some(wanted) => {
            let is_in_group = lines(group, 3).any(|fields| fields[0] == wanted.as_bytes() && id(fields[2]) == Some(*gid));
            assert!(is_in_group || id(wanted.as_bytes()) == Some(*gid), "{account:?}");
            assert_eq!(groups, &[*gid], "a group that is given is the only one");
        }
        // Names that are not UTF-8 are not told apart here.
        None if !name.contains(char::REPLACEMENT_CHARACTER) => {
            let of_user = lines(group, 4).filter(|fields| fields[3].split(|&byte| byte == b',').any(is_named));
            let mut expected: Vec<u32> = of_user.filter_map(|fields| id(fields[2])).chain([*gid]).collect();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(groups, &expected);
        }
        None => {}
    }
}
