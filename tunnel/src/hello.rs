//! From a connection to a link: admission, the control stream, HELLO both ways.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use identity::ExpectedPeer;
use model::code::{self, Code};
use model::{ClusterName, GatewayId};
use quinn::{ConnectionError, ReadError};
use tokio::time::timeout;
use wire::tunnel::limits::HELLO_TIMEOUT_MS;
use wire::tunnel::{
    ConnectionClass, DecodeError, ErrorCode, Frame, FrameDecoder, FrameOrder, Hello, PeerLimits,
    VERSIONS, encode_hello,
};

use crate::admit::{Admitted, AdmittedPeer, Refusal, admit};
use crate::carrier::{Connection, RecvStream, SendStream};
use crate::dial::check_wanted;
use crate::link::{Link, LinkParts, PeerIdentity, close_code, describe};
use crate::tunnel::Shared;

const HELLO_TIMEOUT: Duration = Duration::from_millis(HELLO_TIMEOUT_MS as u64);
/// Between the control stream and sunk exchanges lie those that have just begun, at 0.
const PRIORITY_CONTROL: i32 = 1;

/// Why a connection did not become a link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the connection ended before HELLO: {}", describe(.0).text)]
    Lost(ConnectionError),
    #[error("no HELLO came within {HELLO_TIMEOUT:?}")]
    Timeout,
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    #[error("it reached worker {0}, which has a connection already: another one is wanted")]
    Crowded(u8),
    #[error("it reached gateway {0}, which has its connection already, or goes")]
    NotWanted(GatewayId),
    #[error("its SVIDs end no later than those of the connection that it would replace")]
    NotLater(GatewayId),
    #[error("the control stream {0} before HELLO: both sides keep it open")]
    NoControl(&'static str),
    #[error("HELLO.gateway_id = {found}: the peer's certificate gives {expected}: send that one")]
    WrongGateway { found: GatewayId, expected: GatewayId },
    #[error(
        "HELLO.connection_class = {}: the dialler said {}: say the same",
        .found.as_str(), .expected.as_str()
    )]
    WrongClass { found: ConnectionClass, expected: ConnectionClass },
}

impl HelloError {
    fn error_code(&self) -> ErrorCode {
        match self {
            Self::Refused(refusal) => refusal.error_code(),
            Self::Lost(error) => describe(error).code,
            Self::Timeout => ErrorCode::HelloTimeout,
            Self::Crowded(_) | Self::NotWanted(_) | Self::NotLater(_) => ErrorCode::NoError,
            Self::Malformed(error) => error.code(),
            Self::NoControl(_) => ErrorCode::FrameOutOfOrder,
            Self::WrongGateway { .. } => ErrorCode::BadIdentity,
            Self::WrongClass { .. } => ErrorCode::MalformedFrame,
        }
    }

    /// Whether the dialler went away without a complaint.
    pub(crate) fn is_harmless(&self) -> bool {
        matches!(self, Self::Lost(error) if describe(error).code == ErrorCode::NoError)
    }

    /// The code that a person is shown.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => refusal.code(),
            other => other.error_code().entry().fed.unwrap_or(code::TUNNEL_DOWN),
        }
    }
}

/// What a connection is meant to be.
#[derive(Debug, Clone)]
pub(crate) struct Purpose {
    pub(crate) worker: u8,
    pub(crate) class: ConnectionClass,
    pub(crate) dialled: Option<Dialled>,
    /// The dialler tries to reach a worker of the listener's that has no connection of the pair.
    pub(crate) spreads: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Dialled {
    pub(crate) cluster: ClusterName,
    pub(crate) address: String,
    /// When the SVID runs out that this side had before the handshake: it may have another one now.
    pub(crate) svid_not_after: SystemTime,
    /// The link in whose place the connection is to be.
    pub(crate) replaces: Option<Arc<Link>>,
}

impl Dialled {
    /// As long as the older one lives: after that it is a dial like any other.
    pub(crate) fn replaced(&self) -> Option<&Arc<Link>> {
        self.replaces.as_ref().filter(|older| older.is_live())
    }
}

/// A connection with its control stream, after both HELLOs.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) parts: LinkParts,
    pub(crate) control: ControlStream,
    /// The Head that the peer said.
    pub(crate) head: Bytes,
    /// The gateways of its cluster that it named.
    pub(crate) siblings: Vec<GatewayId>,
}

/// The control stream's two directions.
#[derive(Debug)]
pub(crate) struct ControlStream {
    pub(crate) send: SendStream,
    pub(crate) reader: ControlReader,
}

/// Admits the peer and exchanges HELLOs. On failure the connection is closed with the reason.
pub(crate) async fn greet(
    shared: &Shared,
    connection: Connection,
    purpose: Purpose,
) -> Result<Greeted, HelloError> {
    let result = greet_open(shared, &connection, purpose).await;
    if let Err(error) = &result {
        let text = error.to_string();
        let reason = &text.as_bytes()[..text.floor_char_boundary(512)];
        connection.close(close_code(error.error_code()), reason);
    }
    result
}

async fn greet_open(
    shared: &Shared,
    connection: &Connection,
    purpose: Purpose,
) -> Result<Greeted, HelloError> {
    let chain = connection.peer_chain();
    let expected = match &purpose.dialled {
        Some(dialled) => ExpectedPeer::Cluster(dialled.cluster.clone()),
        None => ExpectedPeer::AnyKnown,
    };
    let alpn = connection.peer_alpn();
    let (_, now) = shared.now();
    let identity = shared.identity.load();
    let admitted = admit(&alpn, &chain, &identity, &expected, now)?;
    let Admitted::Tunnel(admitted) = admitted else {
        unreachable!("connections of other ALPNs are met by `relay`");
    };
    let own = own_hello(shared, &purpose);
    // Who already has a connection to the gateway may want another one of its processes or workers.
    let gateway = GatewayId::of(&admitted.spiffe_id);
    let own_end = match &purpose.dialled {
        Some(dialled) => Some(dialled.svid_not_after),
        None => identity.svid.as_ref().map(|svid| svid.not_after()),
    };
    let ends_at = own_end.map_or(admitted.not_after, |own| own.min(admitted.not_after));
    let older = purpose.dialled.as_ref().and_then(Dialled::replaced);
    check_younger(older, gateway, ends_at)?;
    let replaces = older.is_some();
    let is_choosy = shared.registry.load().knows(&admitted.cluster, gateway);
    let choosy = purpose.dialled.as_ref().filter(|_| is_choosy);
    let exchange = exchange_hellos(shared, connection, &purpose, &own, choosy);
    let (control, hello) =
        timeout(HELLO_TIMEOUT, exchange).await.unwrap_or(Err(HelloError::Timeout))?;
    check_hello(&hello, &admitted, purpose.class)?;
    let remote = plain(connection.remote_address());
    let AdmittedPeer { cluster, spiffe_id, not_after } = admitted;
    let limits = shared.config.limits.of(purpose.class);
    let dialled = purpose.dialled.is_some();
    let parts = LinkParts {
        connection: connection.clone(),
        peer: Arc::new(PeerIdentity { cluster, gateway, spiffe_id, remote }),
        chain,
        svid_not_after: not_after,
        ends_at,
        replaces,
        class: purpose.class,
        worker: purpose.worker,
        slot: if dialled { purpose.worker } else { hello.worker },
        peer_worker: hello.worker,
        dialled,
        address: purpose.dialled.map(|dialled| dialled.address),
        incarnation: hello.incarnation,
        stream_window_bytes: limits.stream_window_bytes,
        connection_window_bytes: limits.connection_window_bytes,
    };
    Ok(Greeted { parts, control, head: hello.head, siblings: hello.siblings })
}

/// Whether a connection is better than the one that it is to replace, before a word is said on it.
fn check_younger(
    older: Option<&Arc<Link>>,
    gateway: GatewayId,
    ends_at: SystemTime,
) -> Result<(), HelloError> {
    match older {
        Some(older) if older.peer.gateway != gateway => Err(HelloError::NotWanted(gateway)),
        Some(older) if older.ends_at >= ends_at => Err(HelloError::NotLater(gateway)),
        _ => Ok(()),
    }
}

async fn exchange_hellos(
    shared: &Shared,
    connection: &Connection,
    purpose: &Purpose,
    own: &Hello,
    choosy: Option<&Dialled>,
) -> Result<(ControlStream, Hello), HelloError> {
    let dialled = purpose.dialled.is_some();
    let streams = if dialled { connection.open_bi().await } else { connection.accept_bi().await };
    let (mut send, recv) = streams.map_err(HelloError::Lost)?;
    send.set_priority(PRIORITY_CONTROL);
    let mut frame = BytesMut::with_capacity(128);
    encode_hello(own, &mut frame).expect("what HELLO says was checked when the tunnel was bound");
    let mut reader = ControlReader::new(recv);
    // Who may want another worker or gateway says nothing of itself until it knows where it is: the
    // listener takes the connection into use only when it has our HELLO.
    let opening: Bytes = if choosy.is_some() { SKIPPED } else { frame.split().freeze() };
    write(&mut send, connection, opening).await?;
    let hello = read_hello(&mut reader).await?;
    if let Some(dialled) = choosy {
        check_wanted(shared, purpose, dialled, connection.transport(), &hello)?;
    }
    if !frame.is_empty() {
        write(&mut send, connection, frame.freeze()).await?;
    }
    Ok((ControlStream { send, reader }, hello))
}

/// An even frame of a type that is never assigned: it opens the stream and is skipped.
const SKIPPED: Bytes = Bytes::from_static(&[0x3e, 0]);

async fn write(
    send: &mut SendStream,
    connection: &Connection,
    bytes: Bytes,
) -> Result<(), HelloError> {
    let written = send.write_chunk(bytes).await;
    written.map_err(|_| lost_or(connection, HelloError::NoControl("was stopped")))
}

async fn read_hello(reader: &mut ControlReader) -> Result<Hello, HelloError> {
    match reader.next().await {
        Ok(Some(Frame::Hello(hello))) => Ok(*hello),
        Ok(_) => Err(HelloError::NoControl("ended")),
        Err(ControlError::Malformed(error)) => Err(HelloError::Malformed(error)),
        Err(ControlError::Read(ReadError::ConnectionLost(error))) => Err(HelloError::Lost(error)),
        Err(ControlError::Read(_)) => Err(HelloError::NoControl("was reset")),
    }
}

fn lost_or(connection: &Connection, error: HelloError) -> HelloError {
    connection.close_reason().map_or(error, HelloError::Lost)
}

fn own_hello(shared: &Shared, purpose: &Purpose) -> Hello {
    let limits = shared.config.limits.of(purpose.class);
    Hello {
        versions: VERSIONS,
        features: Vec::new(),
        limits: PeerLimits {
            stream_window_bytes: limits.stream_window_bytes,
            connection_window_bytes: limits.connection_window_bytes,
            streams_max: limits.streams_max,
        },
        gateway: shared.gateway,
        incarnation: shared.config.incarnation,
        class: purpose.class,
        worker: purpose.worker,
        head: shared.gossip.own_head(),
        siblings: shared.gossip.siblings().ids.clone(),
    }
}

fn check_hello(
    hello: &Hello,
    admitted: &AdmittedPeer,
    class: ConnectionClass,
) -> Result<(), HelloError> {
    VERSIONS.common(hello.versions)?;
    let expected = GatewayId::of(&admitted.spiffe_id);
    if hello.gateway != expected {
        return Err(HelloError::WrongGateway { found: hello.gateway, expected });
    }
    if hello.class != class {
        return Err(HelloError::WrongClass { found: hello.class, expected: class });
    }
    Ok(())
}

/// A dual-stack socket shows IPv4 peers as `::ffff:a.b.c.d`; people know them as `a.b.c.d`.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Frames of the control stream, in their order.
pub(crate) struct ControlReader {
    recv: RecvStream,
    decoder: FrameDecoder,
    order: FrameOrder,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    #[error("{0}")]
    Read(#[from] ReadError),
}

impl ControlReader {
    fn new(recv: RecvStream) -> Self {
        Self { recv, decoder: FrameDecoder::new(), order: FrameOrder::control() }
    }

    /// The next frame; `None` at the stream's end. It may be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ControlError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                self.order.check(&frame)?;
                return Ok(Some(frame));
            }
            match self.recv.read_chunk(CONTROL_CHUNK_BYTES_MAX).await? {
                Some(chunk) => self.decoder.push(chunk),
                None => return Ok(None),
            }
        }
    }
}

const CONTROL_CHUNK_BYTES_MAX: usize = 64 * 1024;

impl fmt::Debug for ControlReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlReader").finish_non_exhaustive()
    }
}
