//! One GET of a bundle, by either profile, bounded in bytes and time. Redirects are not followed: who
//! moves an endpoint says so to those who poll it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::{BundleSet, VerifyError, WebCertificateError};
use model::TrustBundle;
use model::code::{BUNDLE_ENDPOINT_FAILED, Code};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{BundleSource, SourceProfile};
use crate::limits::{BUNDLE_BODY_BYTES_MAX, BUNDLE_HEAD_BYTES_MAX, BUNDLE_POLL_TIMEOUT};

const HTTPS_PORT: u16 = 443;
/// Characters of a foreign header that a message quotes.
const QUOTED_CHARS_MAX: usize = 200;

/// Why an endpoint gave no bundle.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("its authorities are not known: {0}")]
    Authorities(#[from] WebCertificateError),
    #[error("the endpoint cannot be reached: {0}")]
    Connect(io::Error),
    #[error("the endpoint is not the one that is meant: {0}")]
    Refused(VerifyError),
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    #[error("the endpoint answered {0}; a bundle comes with 200")]
    Status(StatusCode),
    #[error(
        "the endpoint answered {status} with {location:?}; redirects are not followed, poll that URL"
    )]
    Redirect { status: StatusCode, location: String },
    #[error("the answer has more than {BUNDLE_BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the answer is no bundle: {0}")]
    Document(String),
    #[error("the whole answer took longer than {BUNDLE_POLL_TIMEOUT:?}")]
    Timeout,
}

impl FetchError {
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Refused(problem) => problem.code(),
            _ => BUNDLE_ENDPOINT_FAILED,
        }
    }
}

/// Asks the source once; `in_force` judges an endpoint that shows an SVID.
pub(super) async fn fetch(
    source: &BundleSource,
    in_force: BundleSet,
) -> Result<TrustBundle, FetchError> {
    let exchange = async {
        let stream = connect(source, in_force).await?;
        let text = get(stream, source.url.clone()).await?;
        wire::bundle::parse_bundle(&text, &source.trust_domain)
            .map_err(|error| FetchError::Document(error.to_string()))
    };
    timeout(BUNDLE_POLL_TIMEOUT, exchange).await.unwrap_or(Err(FetchError::Timeout))
}

async fn connect(
    source: &BundleSource,
    in_force: BundleSet,
) -> Result<TlsStream<TcpStream>, FetchError> {
    let host = source.url.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).to_owned();
    let port = source.url.port_u16().unwrap_or(HTTPS_PORT);
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(FetchError::Connect)?;
    let invalid = |error| FetchError::Connect(io::Error::other(error));
    let name = ServerName::try_from(host).map_err(invalid)?;
    match &source.profile {
        SourceProfile::Web { ca_file } => {
            let ca_file = ca_file.clone();
            // The system's authorities are a hundred files and more.
            let reading = move || identity::web_poller_config(ca_file.as_deref());
            let config = tokio::task::spawn_blocking(reading).await;
            let config = config.map_err(|error| FetchError::Answer(error.to_string()))??;
            let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
            handshake.await.map_err(FetchError::Handshake)
        }
        SourceProfile::Spiffe { endpoint, .. } => {
            let (config, refusal) = identity::spiffe_poller_config(in_force, endpoint.clone());
            let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
            // TLS shows an alert only; the verifier knows what was wrong.
            handshake.map_err(|error| match refusal.get() {
                Some(refused) => FetchError::Refused(refused.clone()),
                None => FetchError::Handshake(error),
            })
        }
    }
}

async fn get(stream: TlsStream<TcpStream>, url: Uri) -> Result<String, FetchError> {
    let unreadable = |error: &dyn std::error::Error| FetchError::Answer(with_causes(error));
    let slot = Arc::new(Mutex::new(Some(TokioIo::new(Dialled(stream)))));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(stream.ok_or_else(|| io::Error::other("one connection is one request")))
    });
    let client = Client::builder(TokioExecutor::new())
        .http1_max_buf_size(BUNDLE_HEAD_BYTES_MAX)
        .pool_max_idle_per_host(0)
        .retry_canceled_requests(false)
        .build(connector);
    let request = Request::get(url)
        .header(header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| unreadable(&error))?;
    let response = client.request(request).await.map_err(|error| unreadable(&error))?;
    check_status(&response)?;
    let body = Limited::new(response.into_body(), BUNDLE_BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => FetchError::TooLarge,
        false => FetchError::Answer(error.to_string()),
    })?;
    let body = Vec::from(body.to_bytes());
    String::from_utf8(body).map_err(|_| FetchError::Document("it is not UTF-8".into()))
}

fn check_status<B>(response: &Response<B>) -> Result<(), FetchError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    match response.headers().get(header::LOCATION) {
        Some(location) if status.is_redirection() => {
            let location = String::from_utf8_lossy(location.as_bytes());
            let location = location.chars().take(QUOTED_CHARS_MAX).collect();
            Err(FetchError::Redirect { status, location })
        }
        _ => Err(FetchError::Status(status)),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A connection after its handshake, as hyper's client wants it.
struct Dialled(TlsStream<TcpStream>);

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
