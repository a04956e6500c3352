//! The admin port: liveness, readiness, metrics, dumps, drain, log level. It has a thread and a
//! runtime of its own, so that a scrape cannot slow traffic down; loopback by default.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use model::code::ADDRESS_IN_USE;
use serde_json::{Value, json};

use crate::drain::DrainStage;
use crate::limits::STOP_MAX;
use crate::metrics;
use crate::report;
use crate::state::GatewayState;

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

/// Binds the port and serves it on a thread of its own until the gateway stops.
pub fn start(
    state: &Arc<GatewayState>,
    log_level: Option<LogLevel>,
) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    let wanted = state.config.admin_listen;
    let listener = TcpListener::bind(wanted).with_context(|| {
        format!(
            "{ADDRESS_IN_USE}: failed to listen on admin.listen = {wanted}; choose another port"
        )
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = Admin { state: state.clone(), log_level };
    let thread = std::thread::Builder::new().name("fg-admin".into()).spawn(move || {
        runtime.block_on(serve(listener, admin));
        runtime.shutdown_timeout(STOP_MAX);
    })?;
    Ok((address, thread))
}

async fn serve(listener: TcpListener, admin: Admin) {
    let drain = admin.state.drain.clone();
    let served = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, router(admin)).await
    };
    tokio::select! {
        outcome = served => if let Err(error) = outcome {
            tracing::error!(%error, "the admin port ended");
        },
        () = drain.reached(DrainStage::Stopped) => {}
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/config_dump", get(config_dump))
        .route("/drain", post(drain))
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
                let backend = format!("{}:{}", entry.backend.service, entry.backend.port);
                json!({"host": host, "prefix": entry.prefix, "route": &*entry.route, "backend": backend})
            })
            .collect(),
        ListenerRouting::Tcp(target) => target
            .iter()
            .map(|target| {
                let backend = format!("{}:{}", target.backend.service, target.backend.port);
                json!({"route": &*target.route, "backend": backend})
            })
            .collect(),
    };
    let protocol = listener.protocol().as_str();
    json!({"name": listener.name, "port": listener.port, "protocol": protocol, "routes": routes})
}
