//! Who tells the agent what to do.

use std::os::fd::{AsFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use super::handover::no_memory;
use crate::handshake::{Starter, Told};
use crate::report::Failure;
use crate::sys::signal::{Buffer, Mask, Signal, SignalFd};
use crate::sys::{descriptor, entry};

/// Who tells the agent what to do besides.
pub enum Master<'a> {
    /// The supervisor, which runs the program.
    Supervisor(&'a Starter),
    /// Nobody but signals: the agent is a sidecar.
    Signals(SignalFd),
}

impl<'a> Master<'a> {
    /// Signals: those that end a sidecar, and HUP and USR2, which mean that all is to be looked at now.
    ///
    /// # Errors
    ///
    /// When there is no descriptor for them.
    pub fn of_signals() -> Result<Self, Failure> {
        let mask = Mask::of(&[Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal(nix::libc::SIGUSR2)]);
        SignalFd::new(mask).map(Self::Signals).map_err(|error| no_memory(&error))
    }

    /// What to wait for.
    pub(super) fn link(&self) -> Result<AsyncFd<OwnedFd>, Failure> {
        let link = match self {
            Self::Supervisor(starter) => starter.as_fd(),
            Self::Signals(signals) => signals.as_fd(),
        };
        link.try_clone_to_owned().and_then(descriptor::readable).map_err(|error| no_memory(&error))
    }

    pub(super) fn supervisor(&self) -> Option<&'a Starter> {
        match self {
            Self::Supervisor(starter) => Some(starter),
            Self::Signals(_) => None,
        }
    }

    /// What the supervisor tells, or what signals mean to a sidecar. A supervisor that is gone takes us with it.
    pub(super) async fn hear(&self, link: &AsyncFd<OwnedFd>) -> Told {
        loop {
            let Ok(mut ready) = link.readable().await else { entry::exit(0) };
            match self {
                Self::Supervisor(starter) => match starter.hear() {
                    Ok(Some(told)) => return told,
                    Ok(None) => entry::exit(0),
                    Err(_) => ready.clear_ready(),
                },
                Self::Signals(signals) => {
                    let mut buffer = Buffer::default();
                    match signals.read(&mut buffer).first() {
                        Some(received) if ends_a_sidecar(received.signal) => return Told::Finish,
                        Some(_) => return Told::Refresh,
                        None => ready.clear_ready(),
                    }
                }
            }
        }
    }
}

/// The signals that end a sidecar; others mean that everything is to be looked at.
fn ends_a_sidecar(signal: Signal) -> bool {
    matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT)
}
