//! Exchanges from peers, at the destination: who asks, may they, and which endpoint serves them.

mod admit;
mod connection;
mod not_yet;
mod quota;
mod request;

pub use not_yet::NotYet;
pub use quota::{PeerPlace, PeerQuotas};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::AppProtocol;
use tunnel::{Incoming, IncomingExchange, PeerIdentity, StreamError};
use wire::tunnel::{Open, StreamKind};

use crate::access_log::{LogEntry, Protocol, Record, Role};
use crate::balance::EndpointLease;
use crate::drain::DrainStage;
use crate::error::{Kind, ProxyError};
use crate::limits::PEER_EXCHANGES_MAX;
use crate::state::{GatewayState, Place};
use crate::worker::WorkerState;

/// Endpoints that are tried for one exchange: the destination re-picks once (DESIGN §10).
const ENDPOINT_ATTEMPTS_MAX: usize = 2;

/// Serves what peers send to one worker, until the tunnel ends.
pub async fn serve(worker: Arc<WorkerState>, mut incoming: Incoming) {
    while let Some(exchange) = incoming.next().await {
        tokio::spawn(serve_exchange(worker.clone(), exchange));
    }
}

/// One exchange: admitted by [`admit::admit`] or refused, then served like a request of our own.
async fn serve_exchange(worker: Arc<WorkerState>, incoming: IncomingExchange) {
    let gateway = &worker.gateway;
    let _guard = gateway.drain.guard();
    let mut record = record(gateway, &incoming.peer, &incoming.open);
    record.transport = incoming.transport();
    let mut entry = LogEntry::begin(record, &gateway.log, &worker.shard);
    let snapshot = gateway.snapshot.load_full();
    let admitted = admit::admit(gateway, &snapshot, &incoming.peer, &incoming.open);
    let protocol = match admitted {
        Ok(protocol) => protocol,
        Err(error) => {
            if error.kind == Kind::Denied {
                worker.shard.policy_denied.fetch_add(1, Ordering::Relaxed);
            }
            return refuse(incoming, entry, &error).await;
        }
    };
    let _places = match take_places(gateway, &incoming.peer) {
        Ok(places) => places,
        Err(error) => {
            worker.shard.exchanges_refused.fetch_add(1, Ordering::Relaxed);
            return refuse(incoming, entry, &error).await;
        }
    };
    let served = async {
        match incoming.open.kind {
            StreamKind::Http => request::serve(&worker, incoming, protocol, &mut entry).await,
            StreamKind::Tcp | StreamKind::Udp => {
                connection::serve(&worker, incoming, &mut entry).await;
            }
        }
    };
    tokio::select! {
        () = served => {}
        // The record says by itself that the end of the drain cut the exchange off.
        () = gateway.drain.reached(DrainStage::Stopped) => {}
    }
}

/// One of the peer's places and one of all.
fn take_places(
    gateway: &GatewayState,
    peer: &PeerIdentity,
) -> Result<(PeerPlace, Place), ProxyError> {
    let full = |detail| ProxyError::unsent(Kind::Overloaded, detail);
    let of_peer = gateway.peer_quotas.take(&peer.cluster).ok_or_else(|| {
        full(format!("{PEER_EXCHANGES_MAX} exchanges of cluster {} are in progress", peer.cluster))
    })?;
    let place = gateway
        .exchanges
        .take()
        .ok_or_else(|| full(format!("{} exchanges are in progress", gateway.exchanges.max())))?;
    Ok((of_peer, place))
}

async fn refuse(incoming: IncomingExchange, mut entry: LogEntry, error: &ProxyError) {
    refuse_in_place(incoming, &mut entry, error).await;
}

async fn refuse_in_place(incoming: IncomingExchange, entry: &mut LogEntry, error: &ProxyError) {
    entry.fail(error);
    incoming.refuse(error.to_refused()).await;
}

fn stream_failure(error: &StreamError) -> ProxyError {
    ProxyError::of_stream(error, Role::Destination)
}

fn record(gateway: &GatewayState, peer: &PeerIdentity, open: &Open) -> Record {
    let protocol = match open.kind {
        StreamKind::Http => Protocol::TunnelHttp,
        StreamKind::Tcp | StreamKind::Udp => Protocol::Tcp,
    };
    let mut record = Record::new(Role::Destination, protocol, peer.remote);
    record.service = Some((open.service.clone(), open.port));
    record.source_cluster = Some(peer.cluster.clone());
    record.destination_cluster = Some(gateway.config.cluster.clone());
    record.source = Some(open.source.clone());
    record.unattested = open.unattested;
    record.request_id = Some(open.request_id);
    record.trace_id = open.trace.as_ref().map(|trace| trace.trace_id);
    record.attempts = open.attempt;
    record
}

/// The endpoints of one exchange, one after the other until one accepts a connection.
struct Endpoints<'a> {
    gateway: &'a GatewayState,
    open: &'a Open,
    tried: Vec<SocketAddr>,
}

impl<'a> Endpoints<'a> {
    fn new(gateway: &'a GatewayState, open: &'a Open) -> Self {
        Self { gateway, open, tried: Vec::new() }
    }

    fn pick(&self) -> Result<EndpointLease, ProxyError> {
        let Open { service, port, .. } = self.open;
        let group = self.gateway.endpoints.group(service, *port);
        let (now, mut rng) = (self.gateway.now(), rand::rng());
        group
            .and_then(|group| {
                let sound = group.pick_sound(&self.tried, now, &mut rng);
                sound.or_else(|| group.pick_any(&self.tried, &mut rng))
            })
            .ok_or_else(|| {
                let detail = format!("no ready endpoint for {service}:{port}");
                ProxyError::unsent(Kind::NoEndpoint, detail)
            })
    }

    /// `Ok` when another endpoint may be tried after `error`.
    fn failed(&mut self, lease: &EndpointLease, error: ProxyError) -> Result<(), ProxyError> {
        lease.connect_failed(self.gateway.now());
        self.tried.push(lease.address());
        let more = self.tried.len() < ENDPOINT_ATTEMPTS_MAX && self.pick().is_ok();
        if more { Ok(()) } else { Err(error) }
    }
}

/// Whether a stream kind can reach a port that speaks `protocol`.
fn fits(kind: StreamKind, protocol: AppProtocol) -> bool {
    match kind {
        StreamKind::Http => protocol.is_http(),
        StreamKind::Tcp => true, // every protocol here is bytes over TCP in the end
        StreamKind::Udp => false,
    }
}
