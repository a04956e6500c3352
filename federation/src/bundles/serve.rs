//! This cluster's bundle for whoever asks: `GET /` by HTTPS, without a certificate of the caller's
//! (SPIFFE Federation §5.2.1.3 and §5.2.2.3). A bundle is public; who asks learns nothing else.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use identity::{Ca, IdentityCell, WebCertificate};
use model::code::ADDRESS_IN_USE;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::coded;
use crate::config::{BundleEndpoint, ServedProfile};
use crate::limits::{
    ACCEPT_RETRY_PAUSE, BUNDLE_CERTIFICATE_INTERVAL, BUNDLE_CONNECTIONS_MAX,
    BUNDLE_CONNECTIONS_PER_ADDRESS_MAX, BUNDLE_HEAD_BYTES_MAX, BUNDLE_SERVE_TIMEOUT,
};
use crate::port::Places;

/// The bound port; the kernel queues its connections until it is served.
pub(crate) struct Endpoint {
    listener: StdTcpListener,
    acceptor: TlsAcceptor,
    /// Of `https_web`.
    certificate: Option<Arc<WebCertificate>>,
}

impl Endpoint {
    /// `identity` has the SVID that `https_spiffe` shows, as it is at each handshake.
    pub(crate) fn bind(
        config: &BundleEndpoint,
        identity: Arc<IdentityCell>,
    ) -> anyhow::Result<Self> {
        let (acceptor, certificate) = match &config.profile {
            ServedProfile::Web { certificate, key } => {
                let certificate = WebCertificate::load(certificate.clone(), key.clone());
                let certificate = Arc::new(certificate.map_err(|e| coded(e.code(), e))?);
                let config = identity::web_endpoint_config(certificate.clone());
                (TlsAcceptor::from(Arc::new(config)), Some(certificate))
            }
            ServedProfile::Spiffe => {
                let config = identity::spiffe_endpoint_config(identity);
                (TlsAcceptor::from(Arc::new(config)), None)
            }
        };
        let address = config.listen;
        let bound = StdTcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener = bound.map_err(|error| {
            anyhow::anyhow!(
                "{ADDRESS_IN_USE}: cannot bind {address}: {error}; check `bundleEndpoint.listen`"
            )
        })?;
        Ok(Self { listener, acceptor, certificate })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Until the node stops.
    pub(crate) async fn serve(self, ca: Arc<Ca>, stop: CancellationToken, tasks: TaskTracker) {
        let Self { listener, acceptor, certificate } = self;
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(problem) => {
                return tracing::error!(%problem, "`bundleEndpoint.listen` cannot be used");
            }
        };
        let router = Router::new().route("/", get(document)).with_state(ca);
        let accepting = accept_all(listener, acceptor, router, &stop, &tasks);
        let following = async {
            match &certificate {
                Some(certificate) => follow(certificate).await,
                None => std::future::pending().await,
            }
        };
        let both = async { tokio::join!(accepting, following) };
        stop.run_until_cancelled(both).await;
    }
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    router: Router,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let places = Places::new(BUNDLE_CONNECTIONS_MAX, BUNDLE_CONNECTIONS_PER_ADDRESS_MAX);
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(problem) => {
                tracing::warn!(%problem, "accept failed at the bundle endpoint");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.take(remote.ip()) else { continue }; // dropped, so closed
        let serving = serve_connection(stream, acceptor.clone(), router.clone());
        let serving = async move {
            if timeout(BUNDLE_SERVE_TIMEOUT, serving).await.is_err() {
                tracing::debug!(%remote, "a caller of the bundle endpoint took too long");
            }
            drop(place);
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(serving));
    }
}

/// One request.
async fn serve_connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        // Port scans and health checks end here, too.
        Err(problem) => return tracing::debug!(%problem, "no handshake at the bundle endpoint"),
    };
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    let mut http = server.http1();
    http.timer(TokioTimer::new()).header_read_timeout(BUNDLE_SERVE_TIMEOUT);
    http.keep_alive(false).max_buf_size(BUNDLE_HEAD_BYTES_MAX);
    let service = TowerToHyperService::new(router);
    if let Err(problem) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(problem, "a connection to the bundle endpoint ended");
    }
}

/// As it is now: a stage of a rotation is to be seen by the next poll.
async fn document(State(ca): State<Arc<Ca>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    match wire::bundle::format_bundle(&ca.bundle()) {
        Ok(text) => (headers, text).into_response(),
        Err(problem) => {
            tracing::error!(%problem, "this cluster's bundle cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Web certificates live weeks; whoever renews them replaces the files.
async fn follow(certificate: &WebCertificate) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(BUNDLE_CERTIFICATE_INTERVAL).await;
        match certificate.reload() {
            Ok(is_other) => {
                told.clear();
                if is_other {
                    tracing::info!("the bundle endpoint shows another certificate");
                }
            }
            Err(problem) => {
                let text = problem.to_string();
                if text != told {
                    let code = problem.code();
                    tracing::warn!(%code, %problem, "the bundle endpoint keeps its certificate");
                    told = text;
                }
            }
        }
    }
}
