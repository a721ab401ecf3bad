//! The SDK's requests over our own client.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use tokio::time::timeout;

use super::super::http::Client;
use super::super::{Failure, FailureKind};
use crate::report::printable;

/// Our client, as the SDK sees it.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    client: Client,
    /// What the SDK wants less time for than we would give: the metadata of an instance answers at once or never.
    limit: Option<Duration>,
}

impl Wire {
    pub(super) fn new(client: Client) -> Self {
        Self { client, limit: None }
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let nonsense = |_| Failure::new(FailureKind::Misconfigured, "the address is no URL");
        let request = request.try_into_http1x().map_err(nonsense)?.map(|body| body.bytes().unwrap_or_default().to_vec());
        let host = request.uri().authority().map(|authority| printable(authority.as_str().as_bytes()).into_owned()).unwrap_or_default();
        let sent = self.client.send(request);
        let response = match self.limit {
            None => sent.await?,
            Some(limit) => timeout(limit, sent).await.map_err(|_| {
                let cause = format!("{host}: no answer within {} s", limit.as_secs());
                Failure::new(FailureKind::Unavailable { retry_after: None }, cause)
            })??,
        };
        HttpResponse::try_from(response.map(SdkBody::from))
            .map_err(|_| Failure::new(FailureKind::Protocol, format!("{host}: the answer is no HTTP")))
    }
}

impl HttpClient for Wire {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Self { limit: settings.read_timeout(), ..self.clone() })
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let sent = self.clone().send(request);
        // Of no kind that the SDK would try again.
        HttpConnectorFuture::new(async move { sent.await.map_err(|failure| ConnectorError::other(Carried(failure).into(), None)) })
    }
}

/// A failure of ours on its way through the SDK.
#[derive(Debug)]
struct Carried(Failure);

impl fmt::Display for Carried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.cause)
    }
}

impl Error for Carried {}

/// An error and what caused it.
pub(super) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The failure of ours that an error of the SDK came from.
pub(super) fn carried<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Failure> {
    causes(error).find_map(|cause| cause.downcast_ref::<Carried>()).map(|carried| &carried.0)
}
