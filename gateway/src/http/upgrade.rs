//! Switching protocols (WebSocket and the like): after the response the client's connection and
//! the way to the application are spliced together, byte for byte.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Response};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tunnel::{Exchange as Stream, RecvHalf, SendHalf};
use wire::tunnel::ErrorCode;

use super::exchange::Exchange;
use super::filters;
use super::outgoing::{Outgoing, Upgrade};
use super::websocket;
use crate::access_log::Role;
use crate::balance::EndpointLease;
use crate::drain::DrainStage;
use crate::error::{Kind, ProxyError};
use crate::splice::{self, Counts, SpliceError};

/// What a client's connection will be joined with.
pub(crate) struct Switch {
    client: OnUpgrade,
    other: Other,
}

enum Other {
    Endpoint(OnUpgrade),
    Tunnel(Box<Stream>),
}

impl Switch {
    /// An endpoint answered 101. `headers` become the client's answer.
    pub(super) fn to_endpoint(
        outgoing: &mut Outgoing,
        mut response: Response<Incoming>,
        headers: &mut HeaderMap,
    ) -> Result<Self, ProxyError> {
        let protocol = filters::upgrade_of(headers);
        let other = Other::Endpoint(hyper::upgrade::on(&mut response));
        Self::begin(outgoing, other, protocol, headers)
    }

    /// A peer answered extended CONNECT with success.
    pub(super) fn to_tunnel(
        outgoing: &mut Outgoing,
        send: SendHalf,
        recv: RecvHalf,
        headers: &mut HeaderMap,
    ) -> Result<Self, ProxyError> {
        let protocol = outgoing.upgrade.as_ref().map(|upgrade| upgrade.protocol.as_str());
        websocket::accept_client(protocol, &outgoing.headers, headers);
        Self::begin(outgoing, Other::Tunnel(Box::new(Stream { send, recv })), None, headers)
    }

    fn begin(
        outgoing: &mut Outgoing,
        other: Other,
        protocol: Option<String>,
        headers: &mut HeaderMap,
    ) -> Result<Self, ProxyError> {
        let Some(Upgrade { protocol: asked, client }) = outgoing.upgrade.take() else {
            let detail = "the endpoint switches protocols, which nobody asked for";
            return Err(ProxyError::maybe_sent(Kind::UpstreamReset, detail));
        };
        filters::apply_to_response(headers);
        filters::ask_upgrade(headers, protocol.as_deref().unwrap_or(&asked));
        Ok(Self { client, other })
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch").finish_non_exhaustive()
    }
}

/// Runs beside the client's connection until either end is done.
pub(super) fn spawn(switch: Switch, mut exchange: Exchange, lease: Option<EndpointLease>) {
    tokio::spawn(async move {
        let drain = exchange.worker().gateway.drain.clone();
        let counts = Arc::new(Counts::default());
        let outcome = tokio::select! {
            outcome = run(switch, &counts) => outcome,
            () = drain.reached(DrainStage::Stopped) => return,
        };
        drop(lease);
        exchange.log(|record| {
            record.received_bytes += counts.forward();
            record.sent_bytes = counts.backward();
        });
        match outcome {
            Ok(()) => exchange.entry().succeed(),
            Err(error) => exchange.entry().fail(&error.to_proxy_error(Role::Source)),
        }
    });
}

async fn run(switch: Switch, counts: &Counts) -> Result<(), SpliceError> {
    let client = switch.client.await.map_err(|error| SpliceError::Downstream(error.to_string()))?;
    match switch.other {
        Other::Endpoint(endpoint) => {
            let endpoint =
                endpoint.await.map_err(|error| SpliceError::Upstream(error.to_string()))?;
            splice::streams(TokioIo::new(client), TokioIo::new(endpoint), counts).await
        }
        Other::Tunnel(stream) => {
            let Stream { send, recv } = *stream;
            let (read, write) = tokio::io::split(TokioIo::new(client));
            splice::from_client(read, write, send, recv, counts).await
        }
    }
}

/// The destination's side: an endpoint has answered 101 to the request of a tunnel stream.
pub(crate) async fn switch_protocols(
    endpoint: Upgraded,
    send: SendHalf,
    recv: RecvHalf,
    counts: &Counts,
) -> Result<(), SpliceError> {
    let (read, write) = tokio::io::split(TokioIo::new(endpoint));
    splice::to_endpoint(read, write, send, recv, counts, ErrorCode::UpstreamReset).await
}
