//! A lease, by its name at the server.

use std::time::Duration;

use super::super::{Failure, FailureKind, Term};
use super::api::{Api, RenewLease, Reply, RevokeLease, Trouble};

/// A lease, and the namespace that its secret was asked for in: only there it is known.
pub struct Leased {
    id: String,
    namespace: Option<String>,
}

impl Leased {
    pub fn new(id: String, namespace: Option<&str>) -> Self {
        Self { id, namespace: namespace.map(str::to_owned) }
    }

    /// Both in one line for those to whom it is a name alone, and back. No namespace has a newline in it, since it travels in a header.
    pub fn name(&self) -> String {
        self.namespace.as_ref().map_or_else(|| self.id.clone(), |namespace| format!("{namespace}\n{}", self.id))
    }

    pub fn by_name(name: &str) -> Self {
        match name.split_once('\n') {
            Some((namespace, id)) => Self::new(id.to_owned(), Some(namespace)),
            None => Self::new(name.to_owned(), None),
        }
    }

    /// The path of the secret.
    pub fn path(&self) -> &str {
        self.id.rsplit_once('/').map_or("", |(path, _)| path)
    }

    /// Asks for it to last this long from now on.
    pub async fn renew(&self, api: &Api, duration: Duration) -> Result<Term, Failure> {
        let request = RenewLease { lease_id: self.id.clone(), increment: duration.as_secs().max(1) };
        let reply = api.run(request, self.namespace.as_deref()).await.map_err(|trouble| failure("renewed", &trouble))?;
        Ok(term(&reply))
    }

    /// Ends it. A server that does not know it says the same as one that did.
    pub async fn revoke(&self, api: &Api) -> Result<(), Failure> {
        let request = RevokeLease { lease_id: self.id.clone() };
        api.run(request, self.namespace.as_deref()).await.map(drop).map_err(|trouble| failure("ended", &trouble))
    }
}

/// How long what a reply tells of lasts.
pub fn term(reply: &Reply) -> Term {
    Term { duration: Duration::from_secs(reply.lease_duration), is_renewable: reply.renewable }
}

/// What is wrong with a lease that was to be renewed or ended.
fn failure(what: &str, trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Denied { status, .. } => Failure::new(FailureKind::Denied, format!("the lease may not be {what} ({status})"))
            .hint("the token may have ended, and its leases with it; else its policy lacks sys/leases/renew or sys/leases/revoke"),
        Trouble::Refused { status } => Failure::new(FailureKind::NotFound, format!("the lease cannot be {what} ({status})"))
            .hint("it may have ended or been revoked, or last as long as it can: its secret has to be read anew"),
        trouble => trouble.failure(),
    }
}
