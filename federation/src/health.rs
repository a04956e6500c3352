//! `health.listen`: whether the node lives, whether it can serve, and what it counts, by HTTP without
//! TLS to whoever reaches the port. It tells nothing secret and changes nothing.
//!
//! It is served by the node's own runtime: no answer is an answer, too.

mod metrics;

pub use metrics::{CATALOG, MetricEntry};

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use identity::Ca;
use model::code::{ADDRESS_IN_USE, Code, STORE_FAULT, SVID_EXPIRED};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateways::Gateways;
use crate::intake::Intake;
use crate::kubernetes::Health;
use crate::limits::{ACCEPT_RETRY_PAUSE, HEALTH_CONNECTIONS_MAX, HEALTH_HEAD_TIMEOUT};
use crate::membership::Membership;
use crate::revisions::Revisions;
use crate::store::Role;
use crate::svid::OwnSvid;

/// Something that runs as long as the node does.
#[derive(Debug)]
pub(crate) struct Loop {
    name: &'static str,
    task: AbortHandle,
}

impl Loop {
    pub(crate) fn spawn(
        name: &'static str,
        running: impl Future<Output = ()> + Send + 'static,
        tasks: &TaskTracker,
    ) -> Self {
        Self { name, task: tasks.spawn(running).abort_handle() }
    }
}

/// What the node is asked about.
pub(crate) struct Vitals {
    pub(crate) loops: Vec<Loop>,
    pub(crate) ca: Arc<Ca>,
    pub(crate) svid: Arc<OwnSvid>,
    pub(crate) membership: Membership,
    pub(crate) gateways: Gateways,
    pub(crate) revisions: Arc<Revisions>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) kubernetes: Option<Arc<Health>>,
    pub(crate) data_dir: PathBuf,
}

impl Vitals {
    /// Loops that ended before the node did: only another process brings them back.
    fn ended(&self) -> Vec<String> {
        let ended = self.loops.iter().filter(|one| one.task.is_finished());
        ended.map(|one| format!("{} has ended; the process is to start anew", one.name)).collect()
    }

    /// Why gateways cannot be served. Whether a leader of the store is known plays no part: without a
    /// quorum the node goes on with what it has.
    fn unready(&self, now: SystemTime) -> Vec<String> {
        let mut reasons = self.ended();
        let is_closed = self.membership.node().store().status().role == Role::Stopped;
        let closed = is_closed.then(|| "it is closed".to_owned());
        if let Some(fault) = self.membership.store_fault().or(closed) {
            reasons.push(reason(STORE_FAULT, &format!("the store: {fault}")));
        }
        let svid = self.svid.current();
        if svid.is_expired(now) {
            reasons.push(reason(SVID_EXPIRED, &format!("the SVID {} has expired", svid.id())));
        }
        reasons
    }
}

fn reason(code: Code, text: &str) -> String {
    format!("{code}: {text}")
}

/// The bound port; the kernel queues its connections until it is served.
#[derive(Debug)]
pub(crate) struct HealthPort(StdTcpListener);

impl HealthPort {
    pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let bound = StdTcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        bound.map(Self).map_err(|error| {
            anyhow::anyhow!(
                "{ADDRESS_IN_USE}: cannot bind {address}: {error}; check `health.listen`"
            )
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Until the node stops.
    pub(crate) async fn serve(self, vitals: Vitals, stop: CancellationToken) {
        match TcpListener::from_std(self.0) {
            Ok(listener) => {
                let accepting = accept_all(listener, router(vitals), stop.clone());
                stop.run_until_cancelled(accepting).await;
            }
            Err(problem) => tracing::error!(%problem, "`health.listen` cannot be used"),
        }
    }
}

async fn accept_all(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(HEALTH_CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(problem) => {
                tracing::warn!(%problem, "accept failed at the health port");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue }; // dropped, so closed
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(serve_connection(stream, router)).await;
            drop(place);
        });
    }
}

/// Who says nothing, or not enough, gives its place back.
async fn serve_connection(stream: TcpStream, router: Router) {
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEALTH_HEAD_TIMEOUT);
    let service = TowerToHyperService::new(router);
    if let Err(problem) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(problem, "a connection to the health port ended");
    }
}

fn router(vitals: Vitals) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .with_state(Arc::new(vitals))
}

async fn livez(State(vitals): State<Arc<Vitals>>) -> Response {
    verdict(&vitals.ended())
}

async fn readyz(State(vitals): State<Arc<Vitals>>) -> Response {
    verdict(&vitals.unready(SystemTime::now()))
}

/// 200 and `ok`, or 503 and one line per reason.
fn verdict(reasons: &[String]) -> Response {
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response()
}

async fn metrics_page(State(vitals): State<Arc<Vitals>>) -> Response {
    match metrics::render(&vitals) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
