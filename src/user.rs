//! `--user`: who the program runs as.
//!
//! `/etc/passwd` and `/etc/group` are read by ourselves: a static binary that asks the C library would load the image's name-service plugins.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::{Gid, Uid};

use crate::cli::{Arguments, Command};
use crate::plan::consequence;
use crate::report::{Code, Failure, Problem, printable};
use crate::sys::capability::{self, Capability};

/// A user as the program will have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// What `USER` is set to: the name, or the number when there is no entry.
    pub name: String,
    /// What `HOME` is set to.
    pub home: Vec<u8>,
}

impl Account {
    /// The account that `--user` names, if we may become it; none to stay who we are.
    ///
    /// # Errors
    ///
    /// 78 when it is not known, 71 when we may not.
    pub fn wanted(arguments: &Arguments) -> Result<Option<Self>, Failure> {
        let Some(text) = &arguments.options.user else { return Ok(None) };
        // What `check` tries is a start.
        let stays = matches!(arguments.command, Command::Supervise | Command::Check);
        match find(text).map_err(|problem| problem.about("--user")).and_then(|account| account.check_privileges(stays).map(|()| account)) {
            Ok(account) => Ok(Some(account)),
            Err(problem) => Err(Failure { problems: vec![problem], summary: consequence(arguments.command).to_owned() }),
        }
    }
}

/// Who a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Ownership {
    /// The owner by `USER` or `USER:GROUP`, as for `--user`, if we may give files to it.
    ///
    /// # Errors
    ///
    /// A problem with exit code 78 when it is not known, 71 when we may not.
    pub fn find(text: &str) -> Result<Self, Problem> {
        let Account { uid, gid, .. } = find(text)?;
        let owner = Self { uid, gid };
        if owner.is_current() || capability::is_effective(Capability::Chown) {
            return Ok(owner);
        }
        let name = Capability::Chown.name();
        Err(Problem::new(
            Code::System,
            format!("only root can give files away, with the capability {name}; this is uid {}", nix::unistd::geteuid()),
        )
        .about(printable(text.as_bytes()))
        .hint(format!(
            "leave the owner out, or let the container start as root with cap_add: [{name}] and give the program its user with --user"
        )))
    }

    /// Whether what we make is this owner's already.
    #[must_use]
    pub fn is_current(self) -> bool {
        nix::unistd::geteuid().as_raw() == self.uid && nix::unistd::getegid().as_raw() == self.gid
    }
}

/// Finds a user by `NAME`, `UID`, `NAME:GROUP`, `UID:GID` and the like in the image's files.
///
/// # Errors
///
/// A problem with exit code 78 when the user, or a group, is not known.
pub fn find(text: &str) -> Result<Account, Problem> {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let group = std::fs::read("/etc/group").unwrap_or_default();
    find_in(text, &passwd, &group).map_err(|problem| problem.about(printable(text.as_bytes())))
}

/// As [`find`], in the given texts of the files.
///
/// # Errors
///
/// As [`find`].
pub fn find_in(text: &str, passwd: &[u8], group: &[u8]) -> Result<Account, Problem> {
    let configuration = |cause: &str, hint: &str| Problem::new(Code::Configuration, cause).hint(hint);
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let entry = lines(passwd)
        .filter_map(|fields| PasswdEntry::read(&fields))
        .find(|entry| entry.name == user.as_bytes() || number(user.as_bytes()) == Some(entry.uid));
    let uid = match (&entry, number(user.as_bytes())) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) if is_like_number(user) => return Err(configuration("no user can have this number", IDS)),
        (None, None) => return Err(configuration("no such user in /etc/passwd", "give numbers, UID:GID, which need no entry")),
    };
    let gid = match (wanted_group, &entry) {
        (Some(name), _) => match find_group(name, group) {
            Some(gid) => gid,
            None if is_like_number(name) => return Err(configuration("no group can have this number", IDS)),
            None => return Err(configuration("no such group in /etc/group", "give the group's number")),
        },
        (None, Some(entry)) => entry.gid,
        (None, None) => return Err(configuration("the user has no entry in /etc/passwd", "give the group too, as UID:GID")),
    };
    let mut groups = vec![gid];
    if let (None, Some(entry)) = (wanted_group, &entry) {
        groups.extend(lines(group).filter(|fields| is_member(fields, entry.name)).filter_map(|fields| number(fields.get(2)?)));
        groups.sort_unstable();
        groups.dedup();
    }
    let name = entry.as_ref().map_or_else(|| uid.to_string(), |entry| String::from_utf8_lossy(entry.name).into_owned());
    let home = entry.as_ref().map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or(b"/").to_vec();
    Ok(Account { uid, gid, groups, name, home })
}

struct PasswdEntry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> PasswdEntry<'a> {
    fn read(fields: &[&'a [u8]]) -> Option<Self> {
        Some(Self {
            name: fields.first().filter(|name| !name.is_empty())?,
            uid: number(fields.get(2)?)?,
            gid: number(fields.get(3)?)?,
            home: fields.get(5)?,
        })
    }
}

fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|&byte| byte == b'\n').map(|line| line.split(|&byte| byte == b':').collect())
}

fn find_group(name: &str, group: &[u8]) -> Option<u32> {
    lines(group)
        .find(|fields| fields.first() == Some(&name.as_bytes()))
        .and_then(|fields| number(fields.get(2)?))
        .or_else(|| number(name.as_bytes()))
}

fn is_member(fields: &[&[u8]], user: &[u8]) -> bool {
    fields.get(3).is_some_and(|members| members.split(|&byte| byte == b',').any(|member| member == user))
}

const IDS: &str = "a number is from 0 to 4294967294";

/// Whether a text was meant as a number.
fn is_like_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A decimal number without a sign. The highest is no id: it means "unchanged" to the kernel.
fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|&number| number != u32::MAX)
}

impl Account {
    /// Whether the process already runs as this user and needs no privilege.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.ownership().is_current()
    }

    /// Who the user's files belong to.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        Ownership { uid: self.uid, gid: self.gid }
    }

    /// Names the first capability that is missing.
    ///
    /// # Errors
    ///
    /// A problem with exit code 71.
    pub fn check_privileges(&self, stays: bool) -> Result<(), Problem> {
        if self.is_current() {
            return Ok(());
        }
        if !nix::unistd::geteuid().is_root() {
            let cause = format!("only root can change the user, and this is uid {}", nix::unistd::geteuid());
            return Err(self.problem(cause).hint("leave --user out, or let the container start as root"));
        }
        // An init that stays root needs KILL for the signals that it forwards.
        let needed = [Capability::SetUid, Capability::SetGid, Capability::Chown, Capability::Kill];
        let needed = if stays { &needed[..] } else { &needed[..3] };
        let missing: Vec<&str> =
            needed.iter().filter(|&&capability| !capability::is_effective(capability)).map(|capability| capability.name()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.join(", ");
        Err(self
            .problem(format!("the capability to change the user is missing: {names}"))
            .hint(format!("add it: cap_add: [{names}] in Compose, --cap-add for docker run")))
    }

    /// Gives up root for good: groups, group, user, in all their forms, and makes sure of it.
    ///
    /// # Errors
    ///
    /// A problem with exit code 71, after which the process must end.
    pub fn become_it(&self) -> Result<(), Problem> {
        if self.is_current() {
            return Ok(());
        }
        let failed = |what: &str, errno: Errno| self.problem(format!("{what}: {}", errno.desc().to_lowercase()));
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        give_standard_streams(uid);
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        nix::unistd::setgroups(&groups).map_err(|errno| failed("setgroups", errno))?;
        nix::unistd::setresgid(gid, gid, gid).map_err(|errno| failed("setresgid", errno))?;
        nix::unistd::setresuid(uid, uid, uid).map_err(|errno| failed("setresuid", errno))?;
        self.verify(uid, gid, groups)
    }

    fn verify(&self, uid: Uid, gid: Gid, wanted: Vec<Gid>) -> Result<(), Problem> {
        let unverified = || self.problem("the user was changed, and the kernel says otherwise");
        let user = nix::unistd::getresuid().map_err(|_| unverified())?;
        let group = nix::unistd::getresgid().map_err(|_| unverified())?;
        let raw = |groups: Vec<Gid>| {
            let mut numbers: Vec<u32> = groups.into_iter().map(Gid::as_raw).collect();
            numbers.sort_unstable();
            numbers
        };
        let groups = nix::unistd::getgroups().map_err(|_| unverified())?;
        let is_complete = [user.real, user.effective, user.saved] == [uid; 3]
            && [group.real, group.effective, group.saved] == [gid; 3]
            && raw(groups) == raw(wanted);
        let is_final = uid.is_root() || nix::unistd::setuid(Uid::from_raw(0)).is_err();
        if is_complete && is_final { Ok(()) } else { Err(unverified()) }
    }

    fn problem(&self, cause: impl Into<String>) -> Problem {
        Problem::new(Code::System, cause).about(printable(self.name.as_bytes())).about("--user")
    }

    /// The variables that tell the program who it is.
    #[must_use]
    pub fn variables(&self) -> [(Vec<u8>, Vec<u8>); 2] {
        [(b"HOME".to_vec(), self.home.clone()), (b"USER".to_vec(), self.name.clone().into_bytes())]
    }
}

/// A program that opens `/dev/stdout` by its name needs to own the pipe or terminal behind it. Files, sockets and devices stay whose they are.
fn give_standard_streams(uid: Uid) {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let is_pipe =
            nix::sys::stat::fstat(stream).is_ok_and(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO);
        let is_terminal = nix::unistd::isatty(stream).unwrap_or(false);
        if is_pipe || is_terminal {
            // Not worth a failed start: most programs write to the descriptor that they have.
            let _ = nix::unistd::fchown(stream, Some(uid), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\nbad:x:-1:0::/:\n42:x:7:8::/:\n";
    const GROUP: &[u8] = b"root:x:0:\napp:x:1001:\nssl:x:50:www,app\nlogs:x:51:app\nother:x:52:apple\n";

    fn find(text: &str) -> Result<Account, String> {
        find_in(text, PASSWD, GROUP).map_err(|problem| problem.cause)
    }

    #[test]
    fn a_name_brings_its_groups() {
        let account = find("app").unwrap();
        assert_eq!(
            (account.uid, account.gid, account.groups, account.name.as_str(), account.home.as_slice()),
            (1000, 1001, vec![50, 51, 1001], "app", &b"/home/app"[..])
        );
        assert_eq!(find("1000").unwrap().groups, [50, 51, 1001]);
    }

    #[test]
    fn a_group_that_is_given_is_the_only_one() {
        assert_eq!(find("app:ssl").unwrap().groups, [50]);
        assert_eq!(find("1000:77").unwrap().groups, [77]);
        let account = find("4242:4343").unwrap();
        assert_eq!((account.uid, account.gid, account.name.as_str(), account.home.as_slice()), (4242, 4343, "4242", &b"/"[..]));
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert_eq!(find("nobody").unwrap_err(), "no such user in /etc/passwd");
        assert_eq!(find("4242").unwrap_err(), "the user has no entry in /etc/passwd");
        assert_eq!(find("app:nogroup").unwrap_err(), "no such group in /etc/group");
        for text in ["-1:0", "4294967295:0", "99999999999"] {
            assert_eq!(find(text).unwrap_err(), "no user can have this number", "{text}");
        }
        let problem = find_in("0:4294967295", PASSWD, GROUP).unwrap_err();
        assert_eq!((problem.cause.as_str(), problem.hint.as_deref()), ("no group can have this number", Some(IDS)));
        assert_eq!(find("bad").unwrap_err(), "no such user in /etc/passwd");
    }
}
