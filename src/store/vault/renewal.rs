//! Logins and leases that last as long as they are needed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};

use super::super::http::Client;
use super::super::{BoxFuture, Failure, FailureKind, Renew, Term};
use super::api::{Api, Denial, LookupSelf, RenewSelf, RevokeSelf, Trouble};
use super::lease::Leased;
use super::login::{End, Known, Session, Unwrapped};
use super::{SIDE_BY_SIDE, Vault};
use crate::report::count;
use crate::secret::Secret;
use crate::sys::clock;

impl Renew for Vault {
    fn login_number(&self) -> u64 {
        self.logins.load(Ordering::Relaxed)
    }

    fn login(&self) -> BoxFuture<'_, Result<Option<Term>, Failure>> {
        Box::pin(self.term())
    }

    fn renew_login(&self) -> BoxFuture<'_, Result<Option<Term>, Failure>> {
        Box::pin(async move {
            let Some((api, number)) = self.current().await? else { return Ok(None) };
            let asked = clock::now();
            let auth = api.run(RenewSelf {}, None).await.map_err(|trouble| failure(&trouble))?.auth;
            let auth = auth.ok_or_else(|| Trouble::Nonsense("there is no token in it").failure())?;
            // What the server would not make longer than this second has no second left: 0 is no token without an end here.
            self.ends(number, End::after(asked, auth.lease_duration, auth.renewable)).await;
            self.term().await
        })
    }

    fn log_in(&self) -> BoxFuture<'_, Result<Option<Term>, Failure>> {
        let before = self.login_number();
        Box::pin(async move {
            self.api(&self.client()?, Some(before)).await?;
            self.term().await
        })
    }

    fn renew<'a>(&'a self, lease: &'a str, duration: Duration) -> BoxFuture<'a, Result<Term, Failure>> {
        Box::pin(async move {
            let (api, _) = self.api(&self.client()?, None).await?;
            Leased::by_name(lease).renew(&api, duration).await
        })
    }

    fn end<'a>(&'a self, leases: &'a [String]) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            match self.current().await? {
                Some((api, _)) => end_all(&api, leases).await,
                None => Ok(()),
            }
        })
    }

    fn revoke<'a>(&'a self, leases: &'a [String]) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let Some((api, number)) = self.current().await? else { return Ok(()) };
            // Leases end with the login that they came with: when there was no other, that is one request for all.
            if number == 1 && self.setup.login.makes_tokens() && self.log_out(&api).await.is_ok() {
                return Ok(());
            }
            let ended = end_all(&api, leases).await;
            let logged_out = if self.setup.login.makes_tokens() { self.log_out(&api).await } else { Ok(()) };
            ended.and(logged_out)
        })
    }

    fn remember(&self) -> BoxFuture<'_, Option<Secret>> {
        Box::pin(async move {
            let Known { session, unwrapped } = &*self.known.lock().await;
            let bytes = |secret: &Secret| secret.expose().to_vec();
            let session = session.as_ref().map(|Session { token, end }| (bytes(token), *end));
            let unwrapped = unwrapped.as_ref().map(|Unwrapped { from, content }| (bytes(from), bytes(content)));
            if session.is_none() && unwrapped.is_none() {
                return None;
            }
            serde_json::to_vec(&Remembered { number: self.login_number(), session, unwrapped }).ok().map(Secret::new)
        })
    }

    fn resume<'a>(&'a self, remembered: &'a Secret) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Ok(Remembered { number, session, unwrapped }) = serde_json::from_slice(remembered.expose()) else { return };
            let mut known = self.known.lock().await;
            known.session = session.map(|(token, end)| Session { token: Secret::new(token), end });
            known.unwrapped = unwrapped.map(|(from, content)| Unwrapped { from: Secret::new(from), content: Secret::new(content) });
            self.logins.store(number, Ordering::Relaxed);
        })
    }
}

/// What goes on in another process. Bytes and not text: a token is what its giver made it.
#[derive(Serialize, Deserialize)]
struct Remembered {
    number: u64,
    /// The token, and when it ends: a moment is the same for all processes of a machine.
    session: Option<(Vec<u8>, End)>,
    unwrapped: Option<(Vec<u8>, Vec<u8>)>,
}

impl Vault {
    fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.setup.servers, &self.setup.transport)
    }

    /// The API by the login that there is, with its number; none without one.
    async fn current(&self) -> Result<Option<(Api, u64)>, Failure> {
        let client = self.client()?;
        let known = self.known.lock().await;
        let Some(session) = &known.session else { return Ok(None) };
        Ok(Some((Api::new(&self.setup, client, session.token.expose())?, self.login_number())))
    }

    /// How long the login lasts, which the server is asked for when it did not tell.
    async fn term(&self) -> Result<Option<Term>, Failure> {
        let end = self.known.lock().await.session.as_ref().map(|session| session.end);
        let end = match end {
            Some(End::Unknown) => {
                let Some((api, number)) = self.current().await? else { return Ok(None) };
                let end = look_up(&api).await?;
                self.ends(number, end).await;
                end
            }
            Some(end) => end,
            None => return Ok(None),
        };
        Ok(match end {
            End::At { moment, is_renewable } => Some(Term { duration: moment.saturating_sub(clock::now()), is_renewable }),
            End::Never | End::Unknown => None,
        })
    }

    /// Notes when a login ends, unless there is another by now.
    async fn ends(&self, number: u64, end: End) {
        let mut known = self.known.lock().await;
        if let Some(session) = known.session.as_mut().filter(|_| self.login_number() == number) {
            session.end = end;
        }
    }

    /// Ends our token, and the leases that came with it.
    async fn log_out(&self, api: &Api) -> Result<(), Failure> {
        api.run(RevokeSelf {}, None).await.map_err(|trouble| failure(&trouble))?;
        self.known.lock().await.session = None;
        Ok(())
    }
}

async fn end_all(api: &Api, leases: &[String]) -> Result<(), Failure> {
    let ends: Vec<BoxFuture<'_, Result<(), Failure>>> = leases.iter().map(|lease| Box::pin(end(api, lease)) as BoxFuture<'_, _>).collect();
    let ended: Vec<Result<(), Failure>> = stream::iter(ends).buffered(SIDE_BY_SIDE).collect().await;
    let left: Vec<Failure> = ended.into_iter().filter_map(Result::err).collect();
    let Some(first) = left.first() else { return Ok(()) };
    let cause = format!("{} could not be ended: {}", count(left.len(), "lease"), first.cause);
    Err(Failure { cause, ..first.clone() })
}

async fn end(api: &Api, lease: &str) -> Result<(), Failure> {
    Leased::by_name(lease).revoke(api).await
}

/// What the server knows of our token.
async fn look_up(api: &Api) -> Result<End, Failure> {
    let asked = clock::now();
    let data = api.run(LookupSelf {}, None).await.map_err(|trouble| failure(&trouble))?.data;
    let token: Option<Token> = data.and_then(|data| serde_json::from_str(data.get()).ok());
    let token = token.ok_or_else(|| Trouble::Nonsense("it tells nothing of the token").failure())?;
    Ok(match token {
        Token { expire_time: None, ttl: 0, .. } => End::Never,
        Token { ttl, renewable, .. } => End::after(asked, ttl, renewable),
    })
}

#[derive(Deserialize)]
struct Token {
    /// In seconds: 0 in the last one, and for a token without an end.
    ttl: u64,
    /// A time, null for a token without an end.
    expire_time: Option<String>,
    #[serde(default)]
    renewable: bool,
}

/// What is wrong with our token.
fn failure(trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Denied { status, why: Denial::Policy } => {
            Failure::new(FailureKind::Denied, format!("the token may not look after itself ({status})"))
                .hint("its policy needs auth/token/lookup-self, renew-self and revoke-self, as the policy default has them")
        }
        Trouble::Denied { status, .. } => Failure::new(FailureKind::Denied, format!("the token is not valid any more ({status})"))
            .hint("it has ended or was revoked, and its leases with it"),
        Trouble::Refused { status: 400 } => Failure::new(FailureKind::Denied, "the token cannot be renewed (400)")
            .hint("it is a batch token, or was made so, or lasts as long as it can: another login takes its place"),
        trouble => trouble.failure(),
    }
}
