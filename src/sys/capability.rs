//! Which Linux capabilities this process has.

#![allow(unsafe_code)]

/// A capability that `--user` needs, by its number in `linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Give a file to another user.
    Chown = 0,
    /// Send a signal to a process of another user.
    Kill = 5,
    /// Change the group and the supplementary groups.
    SetGid = 6,
    /// Change the user.
    SetUid = 7,
}

impl Capability {
    /// The name as `cap_add:` and `--cap-add` take it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chown => "CHOWN",
            Self::Kill => "KILL",
            Self::SetGid => "SETGID",
            Self::SetUid => "SETUID",
        }
    }
}

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two blocks of 32 bits.
const VERSION_3: u32 = 0x2008_0522;

/// Whether the capability is in the effective set of this process. A kernel that does not say counts as yes: the call that needs it will tell.
#[must_use]
pub fn is_effective(capability: Capability) -> bool {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: capget(2) writes at most two `Data` for version 3, and both arguments live on our stack for the whole call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    result != 0 || data[0].effective & (1 << capability as u32) != 0
}
