//! `literal:TEXT`: the text itself, whatever it looks like.

use super::{BoxFuture, Content, Failure, Fetched, Life, Row, Store, Wanted};
use crate::reference::Scheme;
use crate::secret::{Secret, Version};

pub(super) const ROW: Row = Row {
    scheme: Scheme::Literal,
    name: "literal",
    summary: "the text itself: literal:vault:8200",
    is_remote: false,
    open: |_, _| Ok(Box::new(Literal)),
};

struct Literal;

impl Store for Literal {
    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Result<Fetched, Failure>>> {
        Box::pin(std::future::ready(wanted.iter().map(|wanted| Ok(fetch(wanted))).collect()))
    }
}

/// A literal never changes: it has one version.
fn fetch(wanted: &Wanted) -> Fetched {
    if wanted.since.is_some() {
        return Fetched::Unchanged;
    }
    Fetched::New {
        content: Content::Bytes(Secret::copy_of(&wanted.reference.locator)),
        version: Version::new("-".into()),
        life: Life::Lasting,
    }
}
