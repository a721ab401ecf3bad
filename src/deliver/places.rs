//! Where to look for the directory of another secret-init, which runs already.

use std::fs::{self, DirEntry};
use std::path::PathBuf;

use super::directory::{DEFAULT, SHARED_MEMORY, own_in_shared_memory};
use crate::cli::Options;

/// Where the options say; else the default places, those of other users among them: root may ask for anybody's.
#[must_use]
pub fn places(options: &Options) -> Vec<PathBuf> {
    if let Some(path) = &options.directory {
        return vec![path.clone()];
    }
    let ours = own_in_shared_memory();
    let mut places = vec![PathBuf::from(DEFAULT), ours.clone()];
    // The number of the container's own mount namespace, which ends the name.
    if let Some((_, number)) = ours.to_str().and_then(|path| path.rsplit_once('-')) {
        let entries = fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten();
        places.extend(entries.filter(|entry| is_of_its_user(entry, number)).map(|entry| entry.path()).filter(|path| *path != ours));
    }
    places
}

/// Whether a directory belongs to the user that is in its name: whoever else made it could answer whatever they like.
fn is_of_its_user(entry: &DirEntry, number: &str) -> bool {
    let name = entry.file_name();
    let user = name.to_str().and_then(|name| name.strip_prefix("secret-init-")?.strip_suffix(number)?.strip_suffix('-')?.parse().ok());
    user.is_some_and(|user: u32| nix::sys::stat::lstat(&entry.path()).is_ok_and(|status| status.st_uid == user))
}
