//! The way to the cluster's federation node, as a client: a Unix socket on this host, or TCP with TLS
//! to another pod.

mod own_bundle;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use identity::{ClusterTrust, IdentityCell, OwnPeer};
use model::code::FEDERATION_UNREACHABLE;
use model::spiffe::Part;
use tokio::net::{TcpStream, UnixStream};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::service_fn;
use tunnel::{ClusterClient, ClusterStream};

use crate::config::{FederationLink, HostPort};
use crate::limits::{NODE_PING_INTERVAL, NODE_PING_TIMEOUT, TOKEN_BYTES_MAX};
use crate::state::GatewayState;

pub use own_bundle::{BundleMissing, OwnBundle};

/// What the node is shown besides a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Before there is an SVID, or whatever it is worth.
    Nothing,
    Svid,
}

/// A gRPC channel to the node.
pub(crate) async fn connect(state: &GatewayState, shown: Shown) -> anyhow::Result<Channel> {
    match &state.config.federation {
        FederationLink::Sockets { resource, .. } => connect_socket(resource).await,
        FederationLink::Tcp(link) => {
            let client = client(state, shown, wire::grpc::ALPN)?;
            connect_tcp(link.address.clone(), client).await
        }
    }
}

async fn connect_socket(socket: &Path) -> anyhow::Result<Channel> {
    let path: PathBuf = socket.into();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let connected = endpoint().connect_with_connector(connector).await;
    told(connected, || socket.display().to_string())
}

async fn connect_tcp(address: HostPort, client: ClusterClient) -> anyhow::Result<Channel> {
    let endpoint = endpoint()
        .http2_keep_alive_interval(NODE_PING_INTERVAL)
        .keep_alive_timeout(NODE_PING_TIMEOUT)
        .keep_alive_while_idle(true);
    let shown = address.to_string();
    let connector = service_fn(move |_: Uri| {
        let (address, client) = (address.clone(), client.clone());
        async move { dial(&address, &client).await.map(TokioIo::new) }
    });
    told(endpoint.connect_with_connector(connector).await, || shown)
}

/// The URI is never resolved; gRPC wants an authority, and the connectors know the way.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://federation.invalid")
}

fn told(
    connected: Result<Channel, tonic::transport::Error>,
    node: impl FnOnce() -> String,
) -> anyhow::Result<Channel> {
    connected
        .map_err(|error| anyhow::anyhow!("{}", root_cause(&error)))
        .with_context(|| format!("{FEDERATION_UNREACHABLE}: failed to connect to {}", node()))
}

/// A stream on which the other clusters' nodes are passed on.
pub(crate) async fn connect_relay(
    state: &GatewayState,
    address: &HostPort,
) -> io::Result<ClusterStream<TcpStream>> {
    let client = client(state, Shown::Svid, wire::relay::ALPN).map_err(io::Error::other)?;
    dial(address, &client).await
}

/// The name is resolved anew each time: the node's pod may have moved.
async fn dial(address: &HostPort, client: &ClusterClient) -> io::Result<ClusterStream<TcpStream>> {
    let stream = TcpStream::connect((&*address.host, address.port)).await?;
    let _ = stream.set_nodelay(true); // then it is a little slower
    client.connect(stream).await.map_err(io::Error::other)
}

/// Whom to expect at the node's ports: its federation SVID, of the own trust domain.
fn client(
    state: &GatewayState,
    shown: Shown,
    alpn: &'static [u8],
) -> Result<ClusterClient, BundleMissing> {
    let identity = match shown {
        Shown::Nothing => None,
        Shown::Svid => Some(state.identity.clone()),
    };
    let trust = own_trust(state)?;
    Ok(ClusterClient { identity, trust, expected: OwnPeer::Any(Part::Federation), alpn })
}

/// What the processes of the own cluster are verified with, as the file has it now.
pub(crate) fn own_trust(state: &GatewayState) -> Result<Arc<ClusterTrust>, BundleMissing> {
    let bundle = state.own_bundle.as_ref();
    bundle.ok_or_else(|| BundleMissing("`federation.bundle` is not configured".into()))?.current()
}

/// The pod's ServiceAccount token, as it is now: the kubelet replaces it before it runs out.
pub(crate) fn read_token(path: &Path) -> anyhow::Result<MetadataValue<Ascii>> {
    let shown = path.display();
    let token = fs::read_to_string(path)
        .with_context(|| format!("failed to read federation.token = {shown}"))?;
    let token = token.trim();
    let length = token.len();
    anyhow::ensure!(
        (1..=TOKEN_BYTES_MAX).contains(&length),
        "federation.token = {shown}: it has {length} bytes; 1 to {TOKEN_BYTES_MAX} are sent"
    );
    // Without the cause, which would quote the token.
    let value = MetadataValue::try_from(format!("Bearer {token}"));
    let mut value = value
        .map_err(|_| anyhow::anyhow!("federation.token = {shown}: it holds more than a token"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a node said, without gRPC's wording around it.
pub(crate) fn explain(status: Status) -> anyhow::Error {
    let (text, code) = (status.message(), status.code());
    match std::error::Error::source(&status) {
        None => anyhow::anyhow!("the federation node answered: {text} ({code:?})"),
        Some(cause) => {
            let cause = root_cause(cause);
            anyhow::anyhow!("the federation node did not answer: {text} ({code:?}): {cause}")
        }
    }
}

/// Whether the node refuses this gateway's SVID as a revoked one: rustls' word for the alert of RFC 8446
/// §6.2, which comes after TLS 1.3's handshake and so by whatever is read first.
pub(crate) fn is_revoked(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("CertificateRevoked")
}

/// Whether the node could not find out whose a token is.
pub(crate) fn is_unreviewed(status: &Status) -> bool {
    let code = model::code::TOKEN_REVIEW_UNAVAILABLE.to_string();
    let told = status.metadata().get("x-fed-code").and_then(|value| value.to_str().ok());
    status.code() == Code::Unavailable && told == Some(&*code)
}

/// Whether an SVID is there that the node may still believe.
pub(crate) fn has_live_svid(identity: &IdentityCell, now: std::time::SystemTime) -> bool {
    identity.load().svid.as_ref().is_some_and(|svid| !svid.is_expired(now))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
