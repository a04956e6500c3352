//! Raw TCP from applications and clients: one connection goes to one endpoint or into one tunnel
//! stream, with half-close and resets both ways, and makes one access-log record.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::snapshot::TcpTarget;
use model::{ClusterName, RequestId, Revision};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tunnel::Exchange as Stream;
use wire::tunnel::{Open, RouteRevision, RouteSide, StreamKind, Via};

use crate::access_log::{LogEntry, Protocol, Record, Role};
use crate::attempts::{AttemptNumber, Attempts};
use crate::balance::{EndpointLease, Upstream};
use crate::drain::DrainStage;
use crate::error::{Kind, ProxyError};
use crate::http::{open_failure, stream_failure};
use crate::limits::PEER_CONNECT_TIMEOUT;
use crate::splice::{self, Counts, SpliceError};
use crate::upstream::connect_tcp;
use crate::worker::WorkerState;

/// The other end of a connection, once there is one.
enum Joined {
    Endpoint(TcpStream, EndpointLease),
    Peer(Box<Stream>),
}

/// Serves one connection to its end.
pub async fn serve_connection(
    worker: Arc<WorkerState>,
    client: TcpStream,
    remote: SocketAddr,
    target: Option<TcpTarget>,
    revision: Revision,
) {
    let gateway = &worker.gateway;
    let _guard = gateway.drain.guard();
    let mut record = Record::new(Role::Source, Protocol::Tcp, remote);
    record.request_id = Some(RequestId::from_bytes(rand::random()));
    let mut entry = LogEntry::begin(record, &gateway.log, &worker.shard);
    let Some(_place) = gateway.exchanges.take() else {
        worker.shard.exchanges_refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let full = ProxyError::unsent(Kind::Overloaded, "too many exchanges are in progress");
        entry.fail(&full);
        return reset(&client);
    };
    let counts = Counts::default();
    let outcome = tokio::select! {
        outcome = serve(&worker, client, target, revision, &mut entry, &counts) => outcome,
        // The record says by itself that the end of the drain cut the connection off.
        () = gateway.drain.reached(DrainStage::Stopped) => return,
    };
    let record = entry.record();
    (record.received_bytes, record.sent_bytes) = (counts.forward(), counts.backward());
    match outcome {
        Ok(()) => entry.succeed(),
        Err(error) => {
            tracing::debug!(%remote, %error, "a TCP connection failed");
            entry.fail(&error);
        }
    }
}

async fn serve(
    worker: &WorkerState,
    mut client: TcpStream,
    target: Option<TcpTarget>,
    revision: Revision,
    entry: &mut LogEntry,
    counts: &Counts,
) -> Result<(), ProxyError> {
    let spliced = match connect(worker, target, revision, entry).await {
        Err(error) => {
            reset(&client);
            return Err(error);
        }
        Ok(Joined::Endpoint(mut endpoint, lease)) => {
            let outcome = splice::halves(client.split(), endpoint.split(), counts).await;
            drop(lease);
            if outcome.is_err() {
                reset(&endpoint);
            }
            outcome
        }
        Ok(Joined::Peer(stream)) => {
            let Stream { send, recv } = *stream;
            let (read, write) = client.split();
            splice::from_client(read, write, send, recv, counts).await
        }
    };
    spliced.map_err(|error: SpliceError| {
        reset(&client);
        error.to_proxy_error(Role::Source)
    })
}

/// Tries own endpoints and peers until one takes the connection; nothing of it was sent before.
async fn connect(
    worker: &WorkerState,
    target: Option<TcpTarget>,
    revision: Revision,
    entry: &mut LogEntry,
) -> Result<Joined, ProxyError> {
    let Some(TcpTarget { route, destination }) = target else {
        let detail = "no TCPRoute is attached to the listener";
        return Err(ProxyError::unsent(Kind::NoRoute, detail));
    };
    let record = entry.record();
    record.route = Some(route);
    let (service, port) = destination.service();
    record.service = Some((service.clone(), port));
    record.source = Some(worker.gateway.own_id.clone());
    record.unattested = true;
    let request_id = record.request_id.unwrap_or(RequestId::from_bytes([0; 16]));
    let backend = destination.backend();
    let backend = backend.ok_or_else(|| ProxyError::unresolved(&destination))?;
    let mut attempts = Attempts::begin(worker, backend);
    loop {
        let upstream = attempts.pick(None).await?;
        attempts.describe(entry.record());
        entry.record().transport = None; // of the attempt before
        let joined = match upstream {
            Upstream::Local(lease) => connect_endpoint(worker, lease).await,
            Upstream::Peer(cluster) => {
                let open = open(worker, &attempts, request_id, revision)?;
                connect_peer(worker, &cluster, &open, entry.record()).await
            }
        };
        match joined {
            Ok(joined) => return Ok(joined),
            Err(error) => {
                let again = error.may_retry(false);
                attempts.retry_or_respond(error, again, None).await?;
            }
        }
    }
}

async fn connect_endpoint(
    worker: &WorkerState,
    lease: EndpointLease,
) -> Result<Joined, ProxyError> {
    worker.gateway.check_endpoint(lease.address())?;
    let began = worker.gateway.now();
    let connected = connect_tcp(lease.address()).await;
    let now = worker.gateway.now();
    match connected {
        Ok(stream) => {
            lease.measure(now.saturating_sub(began), now);
            Ok(Joined::Endpoint(stream, lease))
        }
        Err(error) => {
            lease.connect_failed(now);
            Err(ProxyError::unsent(Kind::ConnectFailed, error.to_string()))
        }
    }
}

async fn connect_peer(
    worker: &WorkerState,
    cluster: &ClusterName,
    open: &Open,
    record: &mut Record,
) -> Result<Joined, ProxyError> {
    let stream = worker.tunnel()?.open(cluster, open).await;
    let mut stream = stream.map_err(|error| open_failure(&error))?;
    record.transport = Some(stream.transport());
    let Ok(opened) = timeout(PEER_CONNECT_TIMEOUT, stream.recv.opened()).await else {
        let detail = format!("cluster {cluster} did not say in time whether it serves this");
        return Err(ProxyError::unsent(Kind::Deadline, detail));
    };
    match opened {
        Ok(Ok(())) => Ok(Joined::Peer(Box::new(stream))),
        Ok(Err(refused)) => Err(ProxyError::refused(&refused)),
        // No byte of the connection is on its way before `Opened`, whatever the tunnel knows.
        Err(error) => {
            let error = stream_failure(&error);
            Err(ProxyError::unsent(error.kind, error.detail))
        }
    }
}

fn open(
    worker: &WorkerState,
    attempts: &Attempts<'_>,
    request_id: RequestId,
    revision: Revision,
) -> Result<Open, ProxyError> {
    let AttemptNumber { number, retries_left } = attempts.number();
    Ok(Open {
        kind: StreamKind::Tcp,
        service: attempts.backend().service.clone(),
        port: attempts.backend().port,
        source: worker.gateway.own_id.clone(),
        unattested: true,
        trace: None,
        deadline_ms: None,
        request_id,
        attempt: number,
        retries_left,
        via: Via::new(worker.cluster_id()?),
        route: Some(RouteRevision { side: RouteSide::Consumer, revision }),
    })
}

/// Makes the close a reset (RFC 9293 §3.10.7.1): the other end must not take it for a clean end.
pub(crate) fn reset(stream: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a connection could not be reset; it is closed");
    }
}
