//! `cred:NAME`: a credential as systemd hands it over, a file in `$CREDENTIALS_DIRECTORY`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::{BoxFuture, Failure, FailureKind, Fetched, Row, Store, Wanted, file};
use crate::reference::Scheme;

pub(super) const ROW: Row = Row {
    scheme: Scheme::Cred,
    name: "cred",
    summary: "a credential of systemd's kind: cred:NAME is $CREDENTIALS_DIRECTORY/NAME",
    is_remote: false,
    open: |settings, _| {
        let directory = settings.variables.get("CREDENTIALS_DIRECTORY").map(|value| OsString::from_vec(value.to_vec()));
        Ok(Box::new(Credentials { directory }))
    },
};

struct Credentials {
    directory: Option<OsString>,
}

impl Store for Credentials {
    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Result<Fetched, Failure>>> {
        Box::pin(std::future::ready(wanted.iter().map(|wanted| self.fetch_one(wanted)).collect()))
    }
}

impl Credentials {
    fn fetch_one(&self, wanted: &Wanted) -> Result<Fetched, Failure> {
        let Some(directory) = &self.directory else {
            return Err(Failure::new(FailureKind::NotFound, "CREDENTIALS_DIRECTORY is not set")
                .hint("set CREDENTIALS_DIRECTORY to the folder of the credentials, as systemd does for LoadCredential="));
        };
        // The grammar lets only a plain name through: it cannot leave the directory.
        file::fetch(&Path::new(directory).join(OsStr::from_bytes(&wanted.reference.locator)), wanted)
    }
}
