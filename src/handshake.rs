//! What the supervisor and its children tell each other, by messages of a fixed size.
//!
//! The runner's side closes on exec, so that the end of the pair means that the program runs; a message tells that it does not. And a pipe holds one token, which only
//! one of the two can take: the runner before it becomes the program, the supervisor before it ends the start. So a signal that comes in between is either an end of the
//! start or is forwarded to the program, and never lost. An agent that stays keeps its side, and asks by it for what the supervisor alone does.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use nix::unistd::Pid;

use crate::sys::descriptor::{self, FRAME};
use crate::sys::signal::Signal;

/// The supervisor's side.
pub struct Watcher {
    socket: OwnedFd,
    /// None when the start is over.
    token: Option<OwnedFd>,
}

/// The side of a child.
pub struct Starter {
    socket: OwnedFd,
    token: OwnedFd,
}

/// What the supervisor hears.
#[derive(Debug)]
pub enum Heard {
    /// The other side is closed: the program runs, or the process died.
    Closed,
    /// The start failed, was told to the user, and ends with this code.
    Failed(u8),
    /// A descriptor to keep open as long as the program runs.
    Keep(OwnedFd),
    /// What was delivered, in a file in memory: another process is to become the program with it.
    HandedOver(OwnedFd, Stay),
    /// What an agent after this one needs, in a file in memory.
    Remember(OwnedFd),
    /// Something that only the supervisor does, and what an agent after this one needs once that is done: either both arrive or neither.
    Asked(Ask, Option<OwnedFd>),
    /// Nothing yet, or nothing that is understood.
    Nothing,
}

/// What an agent asks for that the supervisor alone does.
#[derive(Debug)]
pub enum Ask {
    /// Send the program a signal, if it still is this process.
    Signal(Signal, Pid),
    /// Stop the program, and start it again with this environment, or end with a code.
    Stop(Stop, Then),
}

/// Whether an agent stays when it has handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// It ends.
    No,
    /// It stays, and may ask for signals.
    Signalling,
    /// It stays, and may ask for another start: that one is to find what this one found.
    Restarting,
}

/// How the program is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The signal that asks it to end.
    pub signal: Signal,
    /// How long it may take before it is killed.
    pub grace: Duration,
}

/// What comes after the program was stopped.
#[derive(Debug)]
pub enum Then {
    /// Another start, with what was delivered.
    Start(OwnedFd),
    /// The end, with this exit code.
    Exit(u8),
}

/// What an agent hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The program runs, as this process.
    Program(Pid),
    /// Fetch everything now.
    Refresh,
    /// The program has ended: give back what was lent, and end.
    Finish,
    /// Nothing that is understood.
    Nothing,
}

const TOKEN: [u8; 1] = [b'T'];

const FAILED: u8 = 1;
const KEEP: u8 = 2;
const HAND_OVER: u8 = 3;
const REMEMBER: u8 = 4;
const SIGNAL: u8 = 5;
const RESTART: u8 = 6;
const EXIT: u8 = 7;
const PROGRAM: u8 = 8;
const REFRESH: u8 = 9;
const FINISH: u8 = 10;

/// A message: what it is, two short numbers and a long one.
#[derive(Clone, Copy)]
struct Frame {
    kind: u8,
    number: u8,
    other: u8,
    long: u32,
}

impl Frame {
    const fn of(kind: u8) -> Self {
        Self { kind, number: 0, other: 0, long: 0 }
    }

    fn to_bytes(self) -> [u8; FRAME] {
        let [a, b, c, d] = self.long.to_le_bytes();
        [self.kind, self.number, self.other, 0, a, b, c, d]
    }

    fn from_bytes([kind, number, other, _, a, b, c, d]: [u8; FRAME]) -> Self {
        Self { kind, number, other, long: u32::from_le_bytes([a, b, c, d]) }
    }

    /// No signal of another number can be sent.
    fn signal(self) -> Option<Signal> {
        (1..=64).contains(&self.number).then_some(Signal(i32::from(self.number)))
    }

    fn process(self) -> Option<Pid> {
        i32::try_from(self.long).ok().filter(|&number| number > 0).map(Pid::from_raw)
    }

    fn stop(self) -> Option<Stop> {
        Some(Stop { signal: self.signal()?, grace: Duration::from_millis(u64::from(self.long)) })
    }
}

/// Makes both sides. Each is to be dropped in the process that the other belongs to.
///
/// # Errors
///
/// When there are no descriptors left.
pub fn pair() -> io::Result<(Watcher, Starter)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    nix::unistd::write(&into, &TOKEN)?;
    let token = out.try_clone()?;
    Ok((Watcher { socket: ours, token: Some(out) }, Starter { socket: theirs, token }))
}

/// Takes the token, if it is still there.
fn take(token: &OwnedFd) -> bool {
    nix::unistd::read(token, &mut [0]) == Ok(1)
}

impl Watcher {
    /// Tries to end the start; false when the runner is about to become the program, or has.
    #[must_use]
    pub fn abort(&self) -> bool {
        self.token.as_ref().is_some_and(take)
    }

    /// Of an agent that stays: its part of the start is over.
    #[must_use]
    pub fn of_an_agent(self) -> Self {
        Self { token: None, ..self }
    }

    /// Takes one message, without waiting. Any bytes are taken.
    #[must_use]
    pub fn hear(&self) -> Heard {
        let (frame, descriptors) = match descriptor::receive(&self.socket) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Heard::Nothing,
            Err(_) | Ok(None) => return Heard::Closed,
            Ok(Some((bytes, descriptors))) => (Frame::from_bytes(bytes), descriptors),
        };
        let stop = |then| frame.stop().map(|stop| Ask::Stop(stop, then));
        let (ask, memory) = match (frame.kind, descriptors) {
            (FAILED, [None, _]) => return Heard::Failed(frame.number),
            (KEEP, [Some(descriptor), None]) => return Heard::Keep(descriptor),
            (HAND_OVER, [Some(delivered), None]) => return Heard::HandedOver(delivered, stay(frame.number)),
            (REMEMBER, [Some(memory), None]) => return Heard::Remember(memory),
            (SIGNAL, [memory, None]) => (frame.signal().zip(frame.process()).map(|(signal, process)| Ask::Signal(signal, process)), memory),
            (RESTART, [Some(delivered), memory]) => (stop(Then::Start(delivered)), memory),
            (EXIT, [memory, None]) => (stop(Then::Exit(frame.other)), memory),
            _ => return Heard::Nothing,
        };
        ask.map_or(Heard::Nothing, |ask| Heard::Asked(ask, memory))
    }

    /// Tells an agent that stays. False when it has not read what it was told before, and there is no room for more: nobody waits for it.
    #[must_use]
    pub fn tell(&self, told: Told) -> bool {
        let frame = match told {
            Told::Program(program) => Frame { long: program.as_raw().unsigned_abs(), ..Frame::of(PROGRAM) },
            Told::Refresh => Frame::of(REFRESH),
            Told::Finish => Frame::of(FINISH),
            Told::Nothing => return true,
        };
        send(&self.socket, frame, &[], MsgFlags::MSG_DONTWAIT)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Starter {
    /// Tells that the start failed with this code, which has been explained to the user.
    pub fn fail(&self, code: u8) {
        self.send(Frame { number: code, ..Frame::of(FAILED) }, &[]);
    }

    /// Asks the supervisor to keep a descriptor open as long as the program runs.
    pub fn keep(&self, descriptor: &OwnedFd) {
        self.send(Frame::of(KEEP), &[descriptor]);
    }

    /// Gives what was delivered to the supervisor, which does not look into it, for the process that becomes the program.
    pub fn hand_over(&self, delivered: &OwnedFd, stay: Stay) {
        self.send(Frame { number: stay as u8, ..Frame::of(HAND_OVER) }, &[delivered]);
    }

    /// Before the program: from here on signals go to it. False when the supervisor has ended the start.
    #[must_use]
    pub fn commit(&self) -> bool {
        take(&self.token)
    }

    /// What it holds open.
    #[must_use]
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.socket.as_fd(), self.token.as_fd()]
    }

    /// Closes the connection for both sides: this process is the program.
    pub fn leave(&self) {
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }

    /// Gives the supervisor what an agent after this one needs. It takes the place of what was given before.
    pub fn remember(&self, memory: &OwnedFd) {
        self.send(Frame::of(REMEMBER), &[memory]);
    }

    /// Asks for what the supervisor alone does, with what an agent after this one needs once that is done.
    pub fn ask(&self, ask: &Ask, memory: Option<&OwnedFd>) {
        let frame = |kind, signal: Signal, long| Frame { number: u8::try_from(signal.0).unwrap_or(0), long, ..Frame::of(kind) };
        let milliseconds = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let (frame, delivered) = match ask {
            Ask::Signal(signal, program) => (frame(SIGNAL, *signal, program.as_raw().unsigned_abs()), None),
            Ask::Stop(stop, Then::Start(delivered)) => (frame(RESTART, stop.signal, milliseconds(stop.grace)), Some(delivered)),
            Ask::Stop(stop, Then::Exit(code)) => (Frame { other: *code, ..frame(EXIT, stop.signal, milliseconds(stop.grace)) }, None),
        };
        self.send(frame, &delivered.into_iter().chain(memory).collect::<Vec<_>>());
    }

    fn send(&self, frame: Frame, descriptors: &[&OwnedFd]) {
        send(&self.socket, frame, descriptors, MsgFlags::empty());
    }

    /// Takes what the supervisor tells, without waiting; nothing when it is gone.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when there is nothing yet.
    pub fn hear(&self) -> Result<Option<Told>, Errno> {
        let Some((bytes, _)) = descriptor::receive(&self.socket)? else { return Ok(None) };
        let frame = Frame::from_bytes(bytes);
        Ok(Some(match (frame.kind, i32::try_from(frame.long)) {
            (PROGRAM, Ok(program)) if program > 0 => Told::Program(Pid::from_raw(program)),
            (REFRESH, _) => Told::Refresh,
            (FINISH, _) => Told::Finish,
            _ => Told::Nothing,
        }))
    }
}

impl AsFd for Starter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn stay(number: u8) -> Stay {
    match number {
        1 => Stay::Signalling,
        2 => Stay::Restarting,
        _ => Stay::No,
    }
}

/// That the other side is gone is no news to either: its end is seen by other means.
fn send(socket: &OwnedFd, frame: Frame, descriptors: &[&OwnedFd], flags: MsgFlags) -> bool {
    let numbers: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    let result = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&frame.to_bytes())], control, flags | MsgFlags::MSG_NOSIGNAL, None);
    result != Err(Errno::EAGAIN)
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher as _;

    use super::*;

    /// What an agent could send that is no longer ours: any bytes of any length, with any number of descriptors.
    fn send_anything(socket: &OwnedFd, bytes: &[u8], count: usize) {
        let null = std::fs::File::open("/dev/null").unwrap();
        let numbers = vec![null.as_raw_fd(); count];
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if count == 0 { &[][..] } else { &rights[..] };
        // An empty message means the end, as from a side that is closed.
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None).unwrap();
    }

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn any_bytes_and_any_descriptors_are_taken_and_none_stays_open() {
        let random = RandomState::new();
        let number = |round: u64, which: u64| random.hash_one((round, which));
        let (watcher, starter) = pair().unwrap();
        let watcher = watcher.of_an_agent();
        for round in 0..20_000 {
            let long = [number(round, 0).to_le_bytes(), number(round, 1).to_le_bytes()].concat();
            let mut bytes = long[..=usize::try_from(number(round, 2) % 16).unwrap()].to_vec();
            // Most kinds are none of ours.
            bytes[0] %= 12;
            let count = [0, 1, 2, 253][usize::try_from(number(round, 3) % 4).unwrap()];
            send_anything(&starter.socket, &bytes, count);
            match watcher.hear() {
                Heard::Closed => panic!("{bytes:?} is taken for the end"),
                Heard::Asked(Ask::Signal(signal, _) | Ask::Stop(Stop { signal, .. }, _), _) => {
                    assert!((1..=64).contains(&signal.0), "{bytes:?}");
                }
                _ => {}
            }
            assert!(matches!(watcher.hear(), Heard::Nothing), "{bytes:?}");
        }
        // Other tests of this process open some at the same time, and never as many.
        assert!(descriptors() < 1000, "{}", descriptors());
        drop(starter);
        assert!(matches!(watcher.hear(), Heard::Closed));
    }

    #[test]
    fn any_bytes_are_taken_by_an_agent_too() {
        let random = RandomState::new();
        let (watcher, starter) = pair().unwrap();
        for round in 0..20_000_u64 {
            let mut bytes = random.hash_one(round).to_le_bytes();
            bytes[0] %= 12;
            send_anything(&watcher.socket, &bytes, usize::from(bytes[1] % 3));
            match starter.hear() {
                Ok(Some(Told::Program(program))) => assert!(program.as_raw() > 0),
                told => assert!(matches!(told, Ok(Some(_))), "{bytes:?}"),
            }
        }
    }
}
