//! The admin port: liveness, readiness, metrics, dumps, drain, cordon, log level; loopback by default. The
//! health port tells the first three alone, to whoever reaches the pod. Both have one thread and a
//! runtime of its own, so that a scrape cannot slow traffic down.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::code::{ADDRESS_IN_USE, DATA_FOLDER_UNUSABLE};
use model::snapshot::Destination;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::drain::{DrainStage, tell_cordon};
use crate::limits::{ACCEPT_ERROR_PAUSE, ADMIN_CONNECTIONS_MAX, ADMIN_TIMEOUT, STOP_MAX};
use crate::metrics;
use crate::report;
use crate::state::{GatewayState, Places};

/// Reads and changes the filter of the process's log; whoever set up logging gives it.
#[derive(Clone)]
pub struct LogLevel {
    pub read: Arc<ReadLevel>,
    pub change: Arc<ChangeLevel>,
}

/// Gives the filter in force.
pub type ReadLevel = dyn Fn() -> String + Send + Sync;
/// Puts another filter into force, or says what is wrong with it.
pub type ChangeLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").field("level", &(self.read)()).finish()
    }
}

#[derive(Debug, Clone)]
struct Admin {
    state: Arc<GatewayState>,
    log_level: Option<LogLevel>,
}

/// The thread of both ports.
#[derive(Debug)]
pub struct Started {
    pub admin: SocketAddr,
    /// `None` if `health.listen` is not there.
    pub health: Option<SocketAddr>,
    pub thread: JoinHandle<()>,
}

/// Binds the ports and serves them on a thread of their own until the gateway stops.
pub fn start(state: &Arc<GatewayState>, log_level: Option<LogLevel>) -> anyhow::Result<Started> {
    state.drain.restore_cordon(&state.config.data_dir).with_context(|| {
        let folder = state.config.data_dir.display();
        format!("{DATA_FOLDER_UNUSABLE}: failed to look whether {folder} says that it is cordoned")
    })?;
    let (listener, admin) = bind("admin.listen", state.config.admin_listen)?;
    let health = state.config.health_listen.map(|wanted| bind("health.listen", wanted));
    let (health_listener, health) = health.transpose()?.unzip();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let of_health = health_routes().with_state(Admin { state: state.clone(), log_level: None });
    let all = router(Admin { state: state.clone(), log_level });
    let (drain, cordoning) = (state.drain.clone(), state.clone());
    let thread = std::thread::Builder::new().name("fg-admin".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = serve(Some(listener), all) => {}
                () = serve(health_listener, of_health) => {}
                () = tell_cordon(&cordoning) => {}
                () = drain.reached(DrainStage::Stopped) => {}
            }
        });
        runtime.shutdown_timeout(STOP_MAX);
    })?;
    Ok(Started { admin, health, thread })
}

fn bind(field: &str, wanted: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(wanted).with_context(|| {
        format!("{ADDRESS_IN_USE}: failed to listen on {field} = {wanted}; choose another port")
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Never returns: a port that is not there, or cannot be used, ends nothing else.
async fn serve(listener: Option<TcpListener>, router: Router) {
    match listener.map(tokio::net::TcpListener::from_std) {
        Some(Ok(listener)) => accept_all(&listener, &router).await,
        Some(Err(error)) => tracing::error!(%error, "a port cannot be used"),
        None => {}
    }
    std::future::pending::<()>().await;
}

async fn accept_all(listener: &tokio::net::TcpListener, router: &Router) {
    let places = Places::new(ADMIN_CONNECTIONS_MAX);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed at the admin port");
                sleep(ACCEPT_ERROR_PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.take() else { continue }; // dropped, so closed
        let router = router.clone();
        tokio::spawn(async move {
            serve_connection(stream, router, ADMIN_TIMEOUT).await;
            drop(place);
        });
    }
}

/// Who says nothing, or not enough, for `limit` gives its place back.
async fn serve_connection(stream: TcpStream, router: Router, limit: Duration) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = timeout(limit, router.clone().oneshot(request));
        async { answer.await.unwrap_or_else(|_| Ok(StatusCode::REQUEST_TIMEOUT.into_response())) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the admin port ended");
    }
}

/// What anybody may know, and nobody can change.
fn health_routes() -> Router<Admin> {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
}

fn router(admin: Admin) -> Router {
    health_routes()
        .route("/config_dump", get(config_dump))
        .route("/drain", post(drain))
        .route("/cordon", get(read_cordon).post(cordon))
        .route("/uncordon", post(uncordon))
        .route("/loglevel", get(read_log_level).post(change_log_level))
        .with_state(admin)
}

/// 200 and `ok`, or 503 and one line per reason.
async fn readyz(State(admin): State<Admin>) -> Response {
    let reasons = admin.state.unready();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    let lines: Vec<String> =
        reasons.iter().map(|(code, reason)| format!("{code}: {reason}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines.concat()).into_response()
}

async fn metrics_page(State(admin): State<Admin>) -> Response {
    match metrics::render(&admin.state) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn drain(State(admin): State<Admin>) -> Response {
    admin.state.drain.request();
    (StatusCode::ACCEPTED, "draining; the process ends when it is done\n").into_response()
}

/// Whether the gateway is out of service, and what is in progress: what to wait for.
async fn read_cordon(State(admin): State<Admin>) -> Response {
    let state = &admin.state;
    let clusters: Vec<Value> = report::of(state)
        .exchanges
        .iter()
        .map(
            |row| json!({"name": row.cluster.as_str(), "sent": row.sent, "received": row.received}),
        )
        .collect();
    let body = json!({
        "gateway": state.config.name.as_str(),
        "cluster": state.config.cluster.as_str(),
        "cordoned": state.drain.is_cordoned(),
        "inProgress": state.in_progress(),
        "clusters": clusters,
    });
    ([(header::CONTENT_TYPE, "application/json")], format!("{body:#}\n")).into_response()
}

async fn cordon(State(admin): State<Admin>) -> Response {
    set_cordoned(admin, true).await
}

async fn uncordon(State(admin): State<Admin>) -> Response {
    set_cordoned(admin, false).await
}

async fn set_cordoned(admin: Admin, is_cordoned: bool) -> Response {
    let state = admin.state.clone();
    let set = move || {
        state.drain.set_cordoned(is_cordoned, &state.config.data_dir).map_err(|e| e.to_string())
    };
    let set = tokio::task::spawn_blocking(set).await.unwrap_or_else(|error| Err(error.to_string()));
    admin.state.note_change();
    let text = match (set, is_cordoned) {
        (Ok(true), true) => {
            "cordoned: peers and load balancers are told; `POST /uncordon` takes it back"
        }
        (Ok(false), true) => "it was cordoned already",
        (Ok(true), false) => "uncordoned: peers and load balancers are told",
        (Ok(false), false) => "it was not cordoned",
        (Err(error), _) => {
            let folder = admin.state.config.data_dir.display();
            let text =
                format!("{DATA_FOLDER_UNUSABLE}: nothing was changed in {folder}: {error}\n");
            return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
        }
    };
    tracing::info!(is_cordoned, "{text}");
    format!("{text}\n").into_response()
}

async fn read_log_level(State(admin): State<Admin>) -> Response {
    match &admin.log_level {
        Some(level) => format!("{}\n", (level.read)()).into_response(),
        None => no_log_level(),
    }
}

/// The body is a filter such as `info` or `gateway=debug,tunnel=trace`.
async fn change_log_level(State(admin): State<Admin>, body: String) -> Response {
    let Some(level) = &admin.log_level else { return no_log_level() };
    match (level.change)(body.trim()) {
        Ok(()) => format!("{}\n", (level.read)()).into_response(),
        Err(error) => {
            (StatusCode::BAD_REQUEST, format!("{:?}: {error}\n", body.trim())).into_response()
        }
    }
}

fn no_log_level() -> Response {
    let text = "the process that runs this gateway keeps its log level to itself\n";
    (StatusCode::NOT_IMPLEMENTED, text).into_response()
}

async fn config_dump(State(admin): State<Admin>) -> Response {
    let text = format!("{:#}\n", dump(&admin.state));
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// What is in service: intent, endpoints, ways, and what was wrong with the rest. No secret is in
/// any of it.
fn dump(state: &GatewayState) -> Value {
    let snapshot = state.snapshot.load();
    let report = report::of(state);
    let listeners: Vec<Value> = snapshot.listeners.values().map(dump_listener).collect();
    let exports: Vec<Value> = snapshot
        .exports
        .iter()
        .map(|(name, export)| {
            json!({
                "service": name.to_string(),
                "ports": export.ports.keys().collect::<Vec<_>>(),
                "targeted": export.targeted,
                "allow": export.allow.iter().map(|entry| format!("{entry:?}")).collect::<Vec<_>>(),
            })
        })
        .collect();
    let services: Vec<Value> = report
        .services
        .iter()
        .map(|health| {
            let clusters: Vec<Value> = health
                .clusters
                .iter()
                .map(|c| json!({"cluster": c.cluster.as_str(), "usable": c.usable, "endpoints": c.endpoints}))
                .collect();
            json!({"service": health.service.to_string(), "port": health.port, "clusters": clusters})
        })
        .collect();
    json!({
        "apiVersion": "fedgate.dev/v1alpha1",
        "kind": "GatewayConfigDump",
        "gateway": state.config.name.as_str(),
        "cluster": state.config.cluster.as_str(),
        "revision": state.revision().map(|revision| revision.to_string()),
        "spiffeId": report.spiffe_id.map(|id| id.to_string()),
        "tunnelAddress": report.tunnel_address,
        "peers": snapshot.peers.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
        "trustDomains": state.identity.load().owners.iter()
            .map(|(domain, owner)| json!({"name": domain.as_str(), "cluster": owner.as_str()}))
            .collect::<Vec<_>>(),
        "listeners": listeners,
        "bound": state.listeners().iter()
            .map(|l| json!({"name": l.name, "address": l.address, "error": l.error}))
            .collect::<Vec<_>>(),
        "exports": exports,
        "services": services,
        "diagnostics": state.diagnostics().iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn dump_listener(listener: &model::snapshot::Listener) -> Value {
    use model::snapshot::ListenerRouting;
    let routes: Vec<Value> = match &listener.routing {
        ListenerRouting::Http(table) => table
            .entries()
            .into_iter()
            .flat_map(|(host, entries)| entries.iter().map(move |entry| (host.clone(), entry)))
            .map(|(host, entry)| {
                let backend = dump_destination(&entry.destination);
                json!({"host": host, "prefix": entry.prefix, "route": &*entry.route, "backend": backend})
            })
            .collect(),
        ListenerRouting::Tcp(target) => target
            .iter()
            .map(|target| {
                json!({"route": &*target.route, "backend": dump_destination(&target.destination)})
            })
            .collect(),
    };
    let protocol = listener.protocol().as_str();
    json!({"name": listener.name, "port": listener.port, "protocol": protocol, "routes": routes})
}

fn dump_destination(destination: &Destination) -> String {
    let (service, port) = destination.service();
    let unresolved = if destination.backend().is_none() { " (unresolved)" } else { "" };
    format!("{service}:{port}{unresolved}")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net;

    use super::*;
    use crate::state::tests::state;

    fn admin(folder: &std::path::Path) -> Arc<GatewayState> {
        let mut state = state(folder);
        state.config.admin_listen = ([127, 0, 0, 1], 0).into();
        Arc::new(state)
    }

    /// Whether the admin port serves a new connection; one that it closes may be reset, too.
    fn is_served(address: SocketAddr) -> bool {
        let mut stream = net::TcpStream::connect(address).unwrap();
        let asked =
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.ends_with("ok\n")
    }

    #[test]
    fn connections_to_the_admin_port_are_bounded_and_places_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = admin(folder.path());
        let Started { admin: address, thread, .. } = start(&state, None).unwrap();
        assert!(is_served(address));
        let connect = |_| net::TcpStream::connect(address).unwrap();
        // One more, in case the connection above still has its place.
        let silent: Vec<net::TcpStream> = (0..=ADMIN_CONNECTIONS_MAX).map(connect).collect();
        assert!(!is_served(address));
        drop(silent);
        while !is_served(address) {
            std::thread::yield_now();
        }
        state.drain.advance(DrainStage::Stopped);
        thread.join().unwrap();
    }

    /// The status of an answer, and its body.
    fn ask(address: SocketAddr, request: &str) -> (u16, String) {
        let mut stream = net::TcpStream::connect(address).unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[test]
    fn the_health_port_tells_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = state(folder.path());
        state.config.admin_listen = ([127, 0, 0, 1], 0).into();
        state.config.health_listen = Some(([127, 0, 0, 1], 0).into());
        let state = Arc::new(state);
        let Started { admin, health, thread } = start(&state, None).unwrap();
        let health = health.unwrap();
        assert_eq!(ask(health, "GET /livez"), (200, "ok\n".into()));
        let (status, reasons) = ask(health, "GET /readyz");
        assert_eq!(status, 503);
        assert!(reasons.starts_with("FED3001: "), "{reasons}");
        let (status, page) = ask(health, "GET /metrics");
        assert!(status == 200 && page.contains("fed_connections_open"), "{status} {page}");
        for request in [
            "POST /drain",
            "GET /cordon",
            "POST /cordon",
            "POST /uncordon",
            "GET /config_dump",
            "GET /loglevel",
            "POST /loglevel",
        ] {
            assert_eq!(ask(health, request).0, 404, "{request}");
        }
        assert!(!state.drain.is_cordoned());
        assert_eq!(state.drain.stage(), DrainStage::Serving);
        assert_eq!(ask(admin, "GET /config_dump").0, 200);
        state.drain.advance(DrainStage::Stopped);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn who_sends_no_head_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let router = router(Admin { state: admin(folder.path()), log_level: None });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"GET /livez HTTP/1.1\r\nhost:").unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        serve_connection(stream, router, Duration::from_millis(1)).await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer); // ends, whether or not with a word
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}
