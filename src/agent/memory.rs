//! What an agent leaves for one after it, should it die: who logs in and how, what is lent to us, and what the program was told. Never a secret that is delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::handover::no_memory;
use super::track::digest;
use crate::cli::Options;
use crate::plan::{Plan, Watched};
use crate::report::{Code, Failure, Problem};
use crate::resolve::{Answer, Answers, Secrets, Stores};
use crate::secret::{Key, Secret};
use crate::store::{Lease, Life};
use crate::sys::clock::{self, Moment};

/// What is left for a later agent.
#[derive(Default, Serialize, Deserialize)]
pub struct Memory {
    /// The environment that the container was started with, in base64.
    environment: Vec<String>,
    /// The directory that it was started in.
    pub directory: Option<String>,
    /// The key of the digests.
    key: [u8; 16],
    /// The files that the plan was made from, and digests of what is in them.
    inputs: BTreeMap<PathBuf, Option<String>>,
    /// The digests of what was delivered, by the names of the deliveries.
    pub delivered: BTreeMap<String, String>,
    /// What is known of the watched secrets, by their references.
    pub secrets: BTreeMap<String, Known>,
    /// The deliveries that have changed and that an action is still to follow for, by the action.
    pub pending: BTreeMap<String, BTreeSet<String>>,
    /// What the stores need to go on with the same login, in base64, by their names.
    stores: BTreeMap<String, String>,
}

/// What is known of a secret.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Known {
    /// Its version.
    pub version: Option<String>,
    /// Its lease: the name, how long it was granted for, and when it ends.
    pub lease: Option<(String, Duration, Moment)>,
    /// When the store itself makes another.
    pub rotation: Option<Moment>,
    /// Whether the lease can be renewed.
    pub is_renewable: bool,
}

impl Known {
    /// What an answer tells; nothing of a secret that is not there.
    fn of(answer: &Answer, now: Moment) -> Option<Self> {
        let version = Some(answer.version()?.name().to_owned());
        Some(match answer.life()? {
            Life::Leased(Lease { id, term }) => Self {
                version,
                lease: Some((id.clone(), term.duration, now + term.duration)),
                is_renewable: term.is_renewable,
                rotation: None,
            },
            Life::Rotated(duration) => Self { version, rotation: Some(now + *duration), ..Self::default() },
            _ => Self { version, ..Self::default() },
        })
    }
}

/// The name of a secret in the memory.
pub fn name(watched: &Watched) -> String {
    format!("{}:{}", watched.reference.store_name(), watched.reference.whole())
}

impl Memory {
    /// An empty memory of a container that was started with this environment.
    fn of(environment: &[Vec<u8>]) -> Self {
        let environment = environment.iter().map(|entry| text(entry)).collect();
        let directory = std::env::current_dir().ok().and_then(|path| path.into_os_string().into_string().ok());
        Self { environment, directory, key: Key::own().expose(), ..Self::default() }
    }

    /// The same, after a start that delivered all of it: what a later agent needs, should this one die before it could say more.
    #[must_use]
    pub fn of_start(
        environment: &[Vec<u8>],
        options: &Options,
        plan: &Plan,
        stores: &Stores,
        answers: &Answers,
        secrets: &Secrets,
    ) -> Self {
        let now = clock::now();
        let digests = plan.deliveries.iter().zip(secrets);
        let delivered = digests.filter_map(|(delivery, value)| Some((delivery.name.clone(), digest(value)?.to_string()))).collect();
        let known = |watched: &Watched| Some((name(watched), Known::of(answers.about(&watched.reference)?, now)?));
        let secrets = plan.rotation.iter().flat_map(|rotation| &rotation.watched).filter_map(known).collect();
        let mut memory = Self { delivered, secrets, inputs: inputs(options), ..Self::of(environment) };
        for (store, renew) in stores.all_renewing() {
            // Nobody uses it at this moment.
            if let Some(Some(remembered)) = renew.remember().now_or_never() {
                memory.note(store, &remembered);
            }
        }
        memory
    }

    /// The file that is not any more as it was at the start, if there is one: another plan would be made of it than the program and its files are by.
    #[must_use]
    pub fn changed_input(&self, options: &Options) -> Option<PathBuf> {
        let now = inputs(options);
        self.inputs.iter().find(|(path, digest)| now.get(*path) != Some(*digest)).map(|(path, _)| path.clone())
    }

    /// The environment that the container was started with.
    #[must_use]
    pub fn environment(&self) -> Vec<Vec<u8>> {
        self.environment.iter().filter_map(|text| bytes(text)).map(|secret| secret.expose().to_vec()).collect()
    }

    /// Notes what a store needs.
    pub fn note(&mut self, store: &str, remembered: &Secret) {
        self.stores.insert(store.to_owned(), text(remembered.expose()));
    }

    /// What a store needs.
    #[must_use]
    pub fn of_store(&self, store: &str) -> Option<Secret> {
        bytes(self.stores.get(store)?)
    }

    /// Puts it into a file in memory.
    ///
    /// # Errors
    ///
    /// When there is no room for one.
    pub fn write(&self) -> Result<OwnedFd, Failure> {
        let text = serde_json::to_vec(self).map(Secret::new).map_err(|error| no_memory(&error.into()))?;
        let file = memfd_create(c"secret-init", MFdFlags::MFD_CLOEXEC).map_err(|errno| no_memory(&errno.into()))?;
        let mut file = File::from(file);
        file.write_all(text.expose()).map_err(|error| no_memory(&error))?;
        Ok(file.into())
    }

    /// Reads what an agent before us has left, and goes on with its key.
    ///
    /// # Errors
    ///
    /// When it is not whole.
    pub fn read(from: OwnedFd) -> Result<Self, Failure> {
        let mut file = File::from(from);
        let mut text = Secret::default();
        let mut buffer = vec![0; 4096];
        let mut read = || -> std::io::Result<()> {
            file.seek(SeekFrom::Start(0))?;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => text.push(&buffer[..count]),
                }
            }
        };
        let memory: Option<Self> = read().ok().and_then(|()| serde_json::from_slice(text.expose()).ok());
        let memory = memory.ok_or_else(|| Problem::new(Code::Internal, "what an agent left for this one cannot be read"))?;
        Key::go_on_with(memory.key);
        Ok(memory)
    }
}

/// The files that a plan is made from. What is no file, such as a pipe, is read once.
fn inputs(options: &Options) -> BTreeMap<PathBuf, Option<String>> {
    let digest = |path: &PathBuf| {
        let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let content = is_file.then(|| std::fs::read(path).ok()).flatten().map(Secret::new)?;
        Some(Key::own().digest(content.expose()).to_string())
    };
    options.config.iter().chain(&options.env_files).map(|path| (path.clone(), digest(path))).collect()
}

fn text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn bytes(text: &str) -> Option<Secret> {
    STANDARD.decode(text).ok().map(Secret::new)
}
