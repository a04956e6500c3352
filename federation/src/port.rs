//! TCP ports with TLS, for gateways and operators in other pods: who is at the other end, and that
//! nobody takes all places.
//!
//! A connection is a handshake first, then known by its SVID, or a stranger's until a token is found
//! good on it. Handshakes and strangers have places of their own, few of them for one address, and
//! little time.

mod places;

use std::fmt;
use std::future::Future as _;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use identity::{ClusterTrust, VerifiedPeer};
use model::ObjectName;
use model::code::{ADDRESS_IN_USE, PEER_IDENTITY_REFUSED};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;
use tunnel::{ClusterServer, ClusterStream, ClusterStreamError};

use crate::app::coded;
use crate::limits::{
    ACCEPT_RETRY_PAUSE, ARRIVALS_MAX, CONNECTIONS_MAX, PORT_EXPIRED_SVID_AGE_MAX,
    PORT_HANDSHAKES_MAX, PORT_HANDSHAKES_PER_ADDRESS_MAX, PORT_STRANGER_TIME, PORT_STRANGERS_MAX,
    PORT_STRANGERS_PER_ADDRESS_MAX, PORT_TRUST_CHECK_INTERVAL,
};
pub(crate) use places::Places;
use places::{Place, Standing};

/// Log lines of this target are the record of who was refused.
const AUDIT: &str = "fedgate::audit";

/// A bound port.
#[derive(Debug)]
pub(crate) struct Port {
    listener: StdTcpListener,
    server: ClusterServer,
    /// The configuration's name for it.
    field: &'static str,
}

/// Binds a port. The kernel queues its connections until [`Port::into_incoming`].
pub(crate) fn bind(
    field: &'static str,
    address: SocketAddr,
    server: ClusterServer,
) -> anyhow::Result<Port> {
    let bound = StdTcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    let listener = bound.map_err(|error| {
        let problem = BindError { field, address, source: error };
        coded(ADDRESS_IN_USE, problem)
    })?;
    Ok(Port { listener, server, field })
}

#[derive(Debug, thiserror::Error)]
#[error("cannot bind {address}: {source}; check `{field}`")]
struct BindError {
    field: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// How many may be at a port, by what is known of them.
#[derive(Debug, Clone)]
struct Room {
    handshakes: Places,
    strangers: Places,
    known: Places,
}

impl Room {
    fn new() -> Self {
        Self {
            handshakes: Places::new(PORT_HANDSHAKES_MAX, PORT_HANDSHAKES_PER_ADDRESS_MAX),
            strangers: Places::new(PORT_STRANGERS_MAX, PORT_STRANGERS_PER_ADDRESS_MAX),
            known: Places::new(CONNECTIONS_MAX, CONNECTIONS_MAX),
        }
    }
}

impl Port {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Connections after their handshakes, until `stop`.
    pub(crate) fn into_incoming(
        self,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> io::Result<impl Stream<Item = io::Result<PortStream>> + Send + use<>> {
        let listener = TcpListener::from_std(self.listener)?;
        let (arrivals, incoming) = mpsc::channel(ARRIVALS_MAX);
        let door = Arc::new(Door { server: self.server, room: Room::new(), arrivals });
        let (field, stop) = (self.field, stop.clone());
        let accepting = accept(listener, door, field, stop.clone(), tasks.clone());
        tasks.spawn(stop.run_until_cancelled_owned(accepting));
        Ok(tokio_stream::wrappers::ReceiverStream::new(incoming))
    }
}

/// What a connection passes on its way in.
struct Door {
    server: ClusterServer,
    room: Room,
    arrivals: mpsc::Sender<io::Result<PortStream>>,
}

async fn accept(
    listener: TcpListener,
    door: Arc<Door>,
    field: &'static str,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let Some(place) = door.room.handshakes.take(remote.ip()) else {
                    tracing::debug!(%remote, field, "too many handshakes; a connection is closed");
                    continue;
                };
                let door = door.clone();
                let admitting = async move { door.admit(stream, remote, place, field).await };
                tasks.spawn(stop.clone().run_until_cancelled_owned(admitting));
            }
            // One bad moment must not end the node (RUSTSEC-2024-0376).
            Err(problem) => {
                tracing::warn!(%problem, field, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
}

impl Door {
    async fn admit(&self, stream: TcpStream, remote: SocketAddr, place: Place, field: &str) {
        let _ = stream.set_nodelay(true); // then it is a little slower
        let stream = match self.server.accept(stream).await {
            Ok(stream) => stream,
            Err(ClusterStreamError::Refused(problem)) => {
                let code = PEER_IDENTITY_REFUSED;
                return tracing::warn!(
                    target: AUDIT, %code, %remote, port = field, %problem, "a connection is refused"
                );
            }
            // Port scans and health checks end here, too.
            Err(problem) => return tracing::debug!(%remote, field, %problem, "no handshake"),
        };
        drop(place);
        let peer = stream.peer().cloned();
        let places = if peer.is_some() { &self.room.known } else { &self.room.strangers };
        let Some(place) = places.take(remote.ip()) else {
            return tracing::warn!(%remote, port = field, "no place is left; a connection is closed");
        };
        let life = match &peer {
            Some(peer) => time_left(peer, SystemTime::now()),
            None => PORT_STRANGER_TIME,
        };
        let standing = Standing::new(place, peer.is_some(), self.room.known.clone());
        let info = PortInfo { remote, peer, standing };
        let end = Box::pin(tokio::time::sleep(life));
        let mut look = tokio::time::interval(PORT_TRUST_CHECK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let trust = self.server.trust.clone();
        // Nobody serves any more: it is dropped.
        let _ = self.arrivals.send(Ok(PortStream { stream, info, end, look, trust })).await;
    }
}

/// Until the SVID of the handshake has been expired for too long.
fn time_left(peer: &VerifiedPeer, now: SystemTime) -> Duration {
    peer.not_after.duration_since(now).unwrap_or_default() + PORT_EXPIRED_SVID_AGE_MAX
}

/// Who is at the other end of a connection. A service finds it in its request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct PortInfo {
    pub(crate) remote: SocketAddr,
    /// By an SVID that the handshake verified.
    pub(crate) peer: Option<VerifiedPeer>,
    standing: Standing,
}

impl PortInfo {
    /// The gateway that the SVID names.
    pub(crate) fn gateway(&self) -> Option<ObjectName> {
        self.peer.as_ref()?.id.part().map(|(_, name)| name)
    }

    /// The caller has shown a good token: the connection is no stranger's any more.
    pub(crate) fn admit(&self) {
        self.standing.admit(self.remote.ip());
    }
}

/// A connection after its handshake, counted as long as it lives.
pub(crate) struct PortStream {
    stream: ClusterStream<TcpStream>,
    info: PortInfo,
    end: Pin<Box<Sleep>>,
    look: Interval,
    trust: Arc<ClusterTrust>,
}

impl PortStream {
    fn poll_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_stranger = !self.info.standing.is_known();
        let outlived = self.info.peer.is_some() || is_stranger;
        if outlived && self.end.as_mut().poll(context).is_ready() {
            let text = if is_stranger { "no good token came in time" } else { "its SVID expired" };
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        self.poll_revoked(context)
    }

    /// A handshake asks only once.
    fn poll_revoked(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(peer) = &self.info.peer else { return Ok(()) };
        while self.look.poll_tick(context).is_ready() {
            self.trust.check_revoked(peer).map_err(|problem| {
                let remote = self.info.remote;
                tracing::warn!(target: AUDIT, %remote, %problem, "a connection is closed");
                io::Error::new(io::ErrorKind::PermissionDenied, problem)
            })?;
        }
        Ok(())
    }
}

impl Connected for PortStream {
    type ConnectInfo = PortInfo;

    fn connect_info(&self) -> PortInfo {
        self.info.clone()
    }
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl fmt::Debug for PortStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortStream").field("info", &self.info).finish_non_exhaustive()
    }
}
