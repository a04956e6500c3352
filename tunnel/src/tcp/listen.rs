//! From sockets to connections: TLS with the same identities as on QUIC, then HTTP/2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use identity::{ExpectedPeer, IdentityCell, VerifyError, peer_id, self_signed_key};
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::task::TaskTracker;
use wire::tunnel::{ALPN_JOIN, ALPN_STORE, ALPN_TUNNEL, ConnectionClass};

use super::run::{Inbox, run_dialler, run_listener};
use super::terms::Terms;
use super::{Core, Offers, Opener, TcpConnection};
use crate::accept::{UnderWay, meet};
use crate::admit::Protocol;
use crate::carrier::Connection;
use crate::config::TunnelLimits;
use crate::handshake::{peer_chain, require_alpn};
use crate::limits::{
    HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_PER_SOURCE_MAX, TCP_ACCEPT_PAUSE,
    TCP_BACKLOG_MAX, TCP_CLOSE_TIMEOUT, TCP_HEADER_BYTES_MAX, TCP_SEND_BUFFER_BYTES,
};
use crate::relay;
use crate::worker::WorkerContext;

/// A worker's share of the TCP port of the tunnel's number.
pub(crate) fn bind_listener(address: SocketAddr, is_shared: bool) -> io::Result<StdTcpListener> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of the process that was may linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG_MAX)?;
    Ok(socket.into())
}

/// Takes a worker's connections until the tunnel is closed.
pub(crate) async fn serve(listener: TcpListener, context: Arc<WorkerContext>) {
    let under_way = Arc::new(UnderWay::default());
    let shared = &context.shared;
    // As on QUIC: whoever asks for another protocol gets TLS's no_application_protocol.
    let alpns = [ALPN_TUNNEL, ALPN_STORE, ALPN_JOIN];
    let tls = identity::public_server_config(Arc::clone(&shared.identity), &alpns);
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let closing = shared.closing.clone();
    loop {
        let (stream, remote) = tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a TCP connection could not be taken");
                    sleep(TCP_ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let place = under_way.enter(remote.ip());
        if place.all > HANDSHAKES_MAX || place.of_source > HANDSHAKES_PER_SOURCE_MAX {
            shared.counts.of(context.index).handshakes_refused();
            continue;
        }
        let (acceptor, context) = (acceptor.clone(), Arc::clone(&context));
        tokio::spawn(async move {
            welcome(&acceptor, stream, remote, &context).await;
            drop(place);
        });
    }
}

async fn welcome(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    context: &Arc<WorkerContext>,
) {
    let shared = &context.shared;
    let accepting = accept(acceptor, stream, remote, &shared.config.limits, &shared.tasks);
    let (connection, protocol) = match timeout(HANDSHAKE_TIMEOUT, accepting).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            shared.counts.of(context.index).peers_refused();
            return tracing::debug!(%remote, %error, "a peer's handshake on TCP failed");
        }
        Err(_) => return tracing::debug!(%remote, "a peer's handshake on TCP took too long"),
    };
    let connection = Connection::Tcp(Arc::new(connection));
    match protocol {
        Protocol::Tunnel => meet(context, connection, ConnectionClass::Fast).await,
        Protocol::Store | Protocol::Join => relay::meet(context, connection),
    }
}

async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    limits: &TunnelLimits,
    tasks: &TaskTracker,
) -> io::Result<(TcpConnection, Protocol)> {
    stream.set_nodelay(true)?;
    let started = Instant::now();
    let stream: TlsStream<_> = acceptor.accept(stream).await?.into();
    let alpn = require_alpn(&stream)?;
    let chain = peer_chain(&stream);
    // TLS chose one of those that were offered.
    let protocol = Protocol::of_alpn(&alpn).unwrap_or(Protocol::Tunnel);
    if protocol != Protocol::Join && self_signed_key(&chain).is_ok() {
        return Err(io::Error::other("a key without a name opens nothing but joining"));
    }
    let terms = Terms::to_accept(protocol, limits);
    let (core, lingering) = Core::new(terms.streams_max() as usize);
    core.rtt.observe(started.elapsed()); // about one round trip, until one is measured
    let granted = &terms.granted;
    let mut builder = h2::server::Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(window(granted.stream_window_bytes))
        .initial_connection_window_size(window(granted.connection_window_bytes))
        .max_concurrent_streams(terms.streams_max())
        .max_pending_accept_reset_streams(granted.streams_max as usize)
        .max_concurrent_reset_streams(granted.streams_max as usize)
        .max_send_buffer_size(TCP_SEND_BUFFER_BYTES)
        .max_header_list_size(TCP_HEADER_BYTES_MAX);
    let io = Counted { stream, core: Arc::clone(&core) };
    let connection = builder.handshake::<_, Bytes>(io).await.map_err(io::Error::other)?;
    let offers = Arc::new(Offers::default());
    let (inbox, accepted) = inbox(terms, lingering);
    tasks.spawn(run_listener(Arc::clone(&core), connection, Arc::clone(&offers), inbox));
    let opener = Opener::Listener(offers);
    let connection = TcpConnection { core, remote, chain, alpn, opener, accepted };
    if protocol != Protocol::Tunnel {
        let control = connection.accept().await?;
        tasks.spawn(hear_close(Arc::clone(&connection.core), control));
    }
    Ok((connection, protocol))
}

/// On a store or join connection the control stream is for CLOSE alone, which is found on it while it
/// is read.
async fn hear_close(core: Arc<Core>, (control, mut heard): super::Halves) {
    let reading = async {
        while let Ok(Some(_)) = heard.read_chunk().await {} // a later version may say more
        std::future::pending::<()>().await;
    };
    core.ended.clone().run_until_cancelled(reading).await;
    sleep(TCP_CLOSE_TIMEOUT).await; // what we have to say ourselves is on its way
    drop(control);
}

/// Why an address could not be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TcpDialError {
    #[error("TCP: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Refused(#[from] VerifyError),
    #[error("HTTP/2: {0}")]
    Http(#[from] h2::Error),
}

/// Dials a gateway of `expected`.
pub(crate) async fn dial(
    own: SocketAddr,
    remote: SocketAddr,
    identity: &Arc<IdentityCell>,
    expected: ExpectedPeer,
    limits: &TunnelLimits,
    tasks: &TaskTracker,
) -> Result<TcpConnection, TcpDialError> {
    let tls = identity::client_config(Arc::clone(identity), expected.clone(), ALPN_TUNNEL);
    let secured = secure(own.ip(), remote, tls).await;
    let secured = secured.map_err(|error| told(error, identity, &expected))?;
    let peer = identity.load().verify_peer(&secured.chain, &expected, SystemTime::now())?;
    let terms = Terms::of(Protocol::Tunnel, limits);
    secured.begin(terms, peer.trust_domain.to_string(), tasks).await
}

/// Dials a gateway for a store or join connection, as the TLS settings say. Whom it shows, and whether
/// that will do, is for the caller to judge.
pub(crate) async fn dial_relay(
    own: IpAddr,
    remote: SocketAddr,
    tls: rustls::ClientConfig,
    protocol: Protocol,
    limits: &TunnelLimits,
    tasks: &TaskTracker,
) -> Result<TcpConnection, TcpDialError> {
    let secured = secure(own, remote, tls).await?;
    // A joiner cannot know who it is: the listener does not look at it.
    let authority = peer_id(&secured.chain).map(|id| id.trust_domain().to_string());
    let authority = authority.unwrap_or_else(|_| UNNAMED.to_owned());
    let connection = secured.begin(Terms::of(protocol, limits), authority, tasks).await?;
    let control = connection.open().await.map_err(io::Error::from)?;
    tasks.spawn(hear_close(Arc::clone(&connection.core), control));
    Ok(connection)
}

/// Neither sent nor looked at: a peer is known by its SPIFFE ID.
const UNNAMED: &str = "tunnel.invalid";

/// After the TLS handshake.
struct Secured {
    stream: TlsStream<TcpStream>,
    remote: SocketAddr,
    chain: Vec<CertificateDer<'static>>,
    alpn: Vec<u8>,
    /// How long the connection took, which is about one round trip.
    rtt: Duration,
}

async fn secure(own: IpAddr, remote: SocketAddr, tls: rustls::ClientConfig) -> io::Result<Secured> {
    let started = Instant::now();
    let stream = connect(own, remote).await?;
    let rtt = started.elapsed();
    let name = ServerName::try_from(UNNAMED).expect("it is a DNS name");
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    let stream = TlsStream::from(stream);
    let alpn = require_alpn(&stream)?;
    let chain = peer_chain(&stream);
    Ok(Secured { stream, remote, chain, alpn, rtt })
}

/// TLS shows an alert only; the verifier knows what was wrong.
pub(crate) fn told(
    error: io::Error,
    identity: &IdentityCell,
    expected: &ExpectedPeer,
) -> TcpDialError {
    match identity.last_refusal(expected) {
        Some(refusal) if error.kind() == io::ErrorKind::InvalidData => refusal.error.into(),
        _ => TcpDialError::Io(error),
    }
}

impl Secured {
    async fn begin(
        self,
        terms: Terms,
        authority: String,
        tasks: &TaskTracker,
    ) -> Result<TcpConnection, TcpDialError> {
        let Self { stream, remote, chain, alpn, rtt } = self;
        let (core, lingering) = Core::new(terms.streams_max() as usize);
        core.rtt.observe(rtt);
        let granted = &terms.granted;
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(window(granted.stream_window_bytes))
            .initial_connection_window_size(window(granted.connection_window_bytes))
            .max_concurrent_reset_streams(granted.streams_max as usize)
            .max_send_buffer_size(TCP_SEND_BUFFER_BYTES)
            .max_header_list_size(TCP_HEADER_BYTES_MAX);
        let io = Counted { stream, core: Arc::clone(&core) };
        let (requests, connection) = builder.handshake::<_, Bytes>(io).await?;
        let (inbox, accepted) = inbox(terms, lingering);
        let task =
            run_dialler(Arc::clone(&core), connection, requests.clone(), authority.clone(), inbox);
        tasks.spawn(task);
        let opener = Opener::Dialler { requests, authority };
        Ok(TcpConnection { core, remote, chain, alpn, opener, accepted })
    }
}

/// From this address, where that reaches the remote's family.
async fn connect(own: IpAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let (socket, any) = match remote {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
    };
    let source = if own.is_ipv4() == remote.is_ipv4() { own } else { any };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.set_nodelay(true)?;
    socket.connect(remote).await
}

fn inbox(
    terms: Terms,
    lingering: mpsc::Receiver<Arc<super::stream::Stream>>,
) -> (Inbox, AsyncMutex<mpsc::Receiver<super::Halves>>) {
    let streams = terms.granted.streams_max as usize;
    let (accepted, receiver) = mpsc::channel(streams);
    let places = Arc::new(Semaphore::new(streams));
    (Inbox { terms, accepted, places, lingering }, AsyncMutex::new(receiver))
}

fn window(bytes: u64) -> u32 {
    u32::try_from(bytes).expect("windows were checked to be at most 1 GiB")
}

/// Counts what passes, and keeps what TLS says when it ends.
struct Counted<S> {
    stream: S,
    core: Arc<Core>,
}

impl<S> Counted<S> {
    fn told(&self, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = inner {
            let _ = self.core.alert.set(u8::from(*alert)); // the first one is the cause
        }
    }
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        count(&self.core.received, buffer.filled().len() - before);
        Poll::Ready(result.inspect_err(|error| self.told(error)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        Poll::Ready(written.inspect(|written| count(&self.core.sent, *written)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, bytes));
        Poll::Ready(written.inspect(|written| count(&self.core.sent, *written)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
