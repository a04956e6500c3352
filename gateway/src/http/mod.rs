//! HTTP from applications and clients: connections, and the way of one request.

mod exchange;
mod filters;
mod local;
mod outgoing;
mod remote;
mod target;
mod upgrade;
pub(crate) mod websocket;

pub use exchange::ResponseBody;
pub(crate) use exchange::content_length;
pub(crate) use filters::{
    apply_to_peer_request, apply_to_request_trailers, apply_to_response, ask_upgrade, hex,
};
pub(crate) use remote::{open_failure, send_data, stream_failure};
pub(crate) use upgrade::switch_protocols;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use model::snapshot::{Backend, Destination, ListenerRouting};
use model::{Revision, Snapshot, SpiffeId};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::access_log::Record;
use crate::attempts::Attempts;
use crate::balance::Upstream;
use crate::drain::DrainStage;
use crate::error::{Kind, ProxyError};
use crate::limits;
use crate::respond::Dialect;
use crate::worker::WorkerState;
use exchange::{Exchange, Served};
use outgoing::Outgoing;
use target::Target;

/// The other end of a connection that a listener accepted.
#[derive(Debug)]
pub struct Client {
    pub worker: Arc<WorkerState>,
    /// The listener's port.
    pub port: u16,
    pub remote: SocketAddr,
    requests: AtomicU64,
}

/// **One request, from top to bottom.** Each step is a function of the same name, in this file or
/// in the file that its type comes from; `exchange` writes the access-log record when it is
/// dropped, which for a response with a body is when the body ends.
pub async fn handle_request(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let worker = &client.worker;
    let dialect = Dialect::of(request.version(), request.headers());
    let mut exchange = Exchange::begin(&client, &request);
    let snapshot = worker.gateway.snapshot.load_full();
    let served = async {
        let route = find_route(&snapshot, client.port, &request)?;
        exchange.log(|record| route.describe(record));
        let source = authorize(worker, &exchange)?;
        let backend = route.backend()?;
        let mut outgoing = apply_filters(&client, request, &route, backend, source, &mut exchange);
        let mut attempts = Attempts::begin(worker, backend);
        loop {
            let upstream = attempts.pick(outgoing.deadline).await?;
            exchange.log(|record| attempts.describe(record));
            let record = exchange.entry().record();
            match forward(worker, &mut outgoing, upstream, &attempts, route.revision, record).await
            {
                Ok(served) => break Ok(served),
                Err(error) => {
                    let again = outgoing.may_go_again(&error);
                    attempts.retry_or_respond(error, again, outgoing.deadline).await?;
                }
            }
        }
    };
    match served.await {
        Ok(served) => exchange.respond(served),
        Err(error) => exchange.respond_failed(&error, dialect),
    }
}

/// Where the request's host and path lead, by one revision of the routes.
struct Route {
    /// `HTTPRoute/namespace/name`.
    name: Arc<str>,
    destination: Destination,
    target: Target,
    revision: Revision,
}

fn find_route<B>(
    snapshot: &Snapshot,
    port: u16,
    request: &Request<B>,
) -> Result<Route, ProxyError> {
    if request.method() == Method::CONNECT {
        let detail = "CONNECT is not served: name the service by its host";
        return Err(ProxyError::unsent(Kind::MethodNotServed, detail));
    }
    if request.headers().len() > limits::HEADERS_MAX {
        let detail = format!("the request has more than {} header fields", limits::HEADERS_MAX);
        return Err(ProxyError::unsent(Kind::HeadTooLarge, detail));
    }
    let hops = filters::hops(request.headers());
    if hops > limits::HOPS_MAX {
        let detail = format!("the request has entered {} gateways already", limits::HOPS_MAX);
        return Err(ProxyError::unsent(Kind::Loop, detail));
    }
    let target = Target::of(request)?;
    let table = match snapshot.listeners.get(&port).map(|listener| &listener.routing) {
        Some(ListenerRouting::Http(table)) => Some(table),
        _ => None,
    };
    let entry = table.and_then(|table| table.find(&target.host, request.uri().path()));
    let entry = entry.ok_or_else(|| {
        let detail = format!("no route for host {:?} and path on port {port}", target.host);
        ProxyError::unsent(Kind::NoRoute, detail)
    })?;
    let (name, destination) = (entry.route.clone(), entry.destination.clone());
    Ok(Route { name, destination, target, revision: snapshot.revision })
}

/// On whose behalf the request goes on.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) identity: SpiffeId,
    /// The caller showed no SVID; the identity is this gateway's.
    pub(crate) unattested: bool,
}

/// Who may is decided where the service runs (DESIGN §8). Here it is settled who asks: over plain
/// HTTP nobody proves an identity, so the gateway speaks for the caller. And a full gateway says no.
fn authorize(worker: &WorkerState, exchange: &Exchange) -> Result<Source, ProxyError> {
    if !exchange.has_place() {
        worker.shard.exchanges_refused.fetch_add(1, Ordering::Relaxed);
        let detail = format!("{} exchanges are in progress", worker.gateway.exchanges.max());
        return Err(ProxyError::unsent(Kind::Overloaded, detail));
    }
    Ok(Source { identity: worker.gateway.own_id.clone(), unattested: true })
}

fn apply_filters(
    client: &Client,
    request: Request<Incoming>,
    route: &Route,
    backend: &Backend,
    source: Source,
    exchange: &mut Exchange,
) -> Outgoing {
    let outgoing = Outgoing::new(request, client.remote, backend, &route.target, source);
    exchange.follow(&outgoing);
    outgoing
}

async fn forward(
    worker: &Arc<WorkerState>,
    outgoing: &mut Outgoing,
    upstream: Upstream,
    attempts: &Attempts<'_>,
    revision: Revision,
    record: &mut Record,
) -> Result<Served, ProxyError> {
    let backend = attempts.backend();
    record.transport = None; // of the attempt before
    match upstream {
        Upstream::Local(lease) => local::forward(worker, outgoing, lease, backend.protocol).await,
        Upstream::Peer(cluster) => {
            let open = outgoing.open(worker, backend, attempts.number(), revision)?;
            remote::forward(worker, outgoing, &cluster, &open, record).await
        }
    }
}

impl Route {
    fn describe(&self, record: &mut Record) {
        record.route = Some(self.name.clone());
        let (service, port) = self.destination.service();
        record.service = Some((service.clone(), port));
    }

    fn backend(&self) -> Result<&Arc<Backend>, ProxyError> {
        self.destination.backend().ok_or_else(|| ProxyError::unresolved(&self.destination))
    }
}

/// How this gateway speaks HTTP towards clients; HTTP/1.1 and HTTP/2 with prior knowledge share a
/// port. One per worker.
pub fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_READ_TIMEOUT)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::HEAD_BYTES_MAX)
        // A client that closes its side is gone, as nginx and Envoy see it; else a request that
        // nobody waits for would keep its endpoint busy.
        .half_close(false);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::H2_STREAMS_MAX)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::H2_FRAME_BYTES_MAX)
        .max_send_buf_size(limits::H2_SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(limits::HEAD_BYTES_MAX as u32)
        .keep_alive_interval(limits::H2_PING_INTERVAL)
        .keep_alive_timeout(limits::H2_PING_TIMEOUT);
    server
}

/// Serves one connection until it ends, or until `close` asks it to end after its request.
pub async fn serve_connection(
    worker: Arc<WorkerState>,
    stream: TcpStream,
    remote: SocketAddr,
    port: u16,
    close: CancellationToken,
) {
    let drain = worker.gateway.drain.clone();
    let server = worker.http_server.clone();
    let client = Arc::new(Client { worker, port, remote, requests: AtomicU64::new(0) });
    let service = service_fn(|request| {
        let client = client.clone();
        client.requests.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(handle_request(client, request).await) }
    });
    let mut connection = pin!(server.serve_connection_with_upgrades(TokioIo::new(stream), service));
    // hyper's own timers begin with the protocol, which a silent client never shows.
    let silent_until = Instant::now() + limits::HEAD_READ_TIMEOUT;
    let silent = || client.requests.load(Ordering::Relaxed) == 0;
    let (mut closing, mut watching) = (false, true);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%remote, port, error = %error, "a client's connection ended");
                }
                return;
            }
            () = close.cancelled(), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(silent_until), if watching => {
                watching = false;
                if silent() {
                    return;
                }
            }
            () = drain.reached(DrainStage::Stopped) => return,
        }
    }
}
