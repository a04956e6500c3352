//! From sockets to connections: TLS with the same identities as on QUIC, then HTTP/2.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use identity::{ExpectedPeer, IdentityCell, VerifyError};
use rustls_pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::task::TaskTracker;
use wire::tunnel::{ALPN_TUNNEL, ConnectionClass};

use super::run::{Inbox, run_dialler, run_listener};
use super::{Core, Offers, Opener, TcpConnection};
use crate::accept::{UnderWay, meet};
use crate::carrier::Connection;
use crate::config::{ConnectionLimits, TunnelLimits};
use crate::handshake::{peer_chain, require_alpn};
use crate::limits::{
    HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_PER_SOURCE_MAX, TCP_BACKLOG_MAX,
    TCP_HEADER_BYTES_MAX, TCP_OFFERS_IDLE, TCP_SEND_BUFFER_BYTES,
};
use crate::worker::WorkerContext;

/// A worker's share of the TCP port of the tunnel's number.
pub(crate) fn bind_listener(address: SocketAddr, is_shared: bool) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
    let tls = identity::server_config(Arc::clone(&shared.identity), &[ALPN_TUNNEL]);
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let closing = shared.closing.clone();
    loop {
        let (stream, remote) = tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a TCP connection could not be taken");
                    tokio::time::sleep(crate::limits::TCP_ACCEPT_PAUSE).await;
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
            let limits = &context.shared.config.limits;
            match timeout(
                HANDSHAKE_TIMEOUT,
                accept(&acceptor, stream, remote, limits, &context.shared.tasks),
            )
            .await
            {
                Ok(Ok(connection)) => {
                    let connection = Connection::Tcp(Arc::new(connection));
                    meet(&context, connection, ConnectionClass::Fast).await;
                }
                Ok(Err(error)) => {
                    context.shared.counts.of(context.index).peers_refused();
                    tracing::debug!(%remote, %error, "a peer's handshake on TCP failed");
                }
                Err(_) => tracing::debug!(%remote, "a peer's handshake on TCP took too long"),
            }
            drop(place);
        });
    }
}

async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    limits: &TunnelLimits,
    tasks: &TaskTracker,
) -> io::Result<TcpConnection> {
    stream.set_nodelay(true)?;
    let started = Instant::now();
    let stream: TlsStream<_> = acceptor.accept(stream).await?.into();
    require_alpn(&stream)?;
    let chain = peer_chain(&stream);
    let (core, lingering) = Core::new(streams_max(&limits.fast) as usize);
    core.rtt.observe(started.elapsed()); // about one round trip, until one is measured
    let granted = &limits.fast;
    let mut builder = h2::server::Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(window(granted.stream_window_bytes))
        .initial_connection_window_size(window(granted.connection_window_bytes))
        .max_concurrent_streams(streams_max(granted))
        .max_pending_accept_reset_streams(granted.streams_max as usize)
        .max_concurrent_reset_streams(granted.streams_max as usize)
        .max_send_buffer_size(TCP_SEND_BUFFER_BYTES)
        .max_header_list_size(TCP_HEADER_BYTES_MAX);
    let io = Counted { stream, core: Arc::clone(&core) };
    let connection = builder.handshake::<_, Bytes>(io).await.map_err(io::Error::other)?;
    let offers = Arc::new(Offers::default());
    let (inbox, accepted) = inbox(granted, lingering);
    tasks.spawn(run_listener(Arc::clone(&core), connection, Arc::clone(&offers), inbox));
    let alpn = ALPN_TUNNEL.to_vec();
    let opener = Opener::Listener(offers);
    Ok(TcpConnection { core, remote, chain, alpn, opener, accepted })
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
    let started = Instant::now();
    let stream = connect(own, remote).await?;
    let (core, lingering) = Core::new(streams_max(&limits.fast) as usize);
    core.rtt.observe(started.elapsed());
    let tls = identity::client_config(Arc::clone(identity), expected.clone(), ALPN_TUNNEL);
    // Neither sent nor looked at: a peer is known by its SPIFFE ID.
    let name = ServerName::try_from("tunnel.invalid").expect("it is a DNS name");
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
    let stream: TlsStream<_> = stream
        .map_err(|error| match identity.last_refusal(&expected) {
            // TLS shows an alert only; the verifier knows what was wrong.
            Some(refusal) if error.kind() == io::ErrorKind::InvalidData => refusal.error.into(),
            _ => TcpDialError::Io(error),
        })?
        .into();
    require_alpn(&stream)?;
    let chain = peer_chain(&stream);
    let peer = identity.load().verify_peer(&chain, &expected, SystemTime::now())?;
    let granted = &limits.fast;
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
    let (inbox, accepted) = inbox(granted, lingering);
    let authority = peer.trust_domain.to_string();
    let task =
        run_dialler(Arc::clone(&core), connection, requests.clone(), authority.clone(), inbox);
    tasks.spawn(task);
    let alpn = ALPN_TUNNEL.to_vec();
    let opener = Opener::Dialler { requests, authority };
    Ok(TcpConnection { core, remote, chain, alpn, opener, accepted })
}

/// From the tunnel's own address, where that reaches the remote's family.
async fn connect(own: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let (socket, any) = match remote {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
    };
    let source = if own.is_ipv4() == remote.is_ipv4() { own.ip() } else { any };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.set_nodelay(true)?;
    socket.connect(remote).await
}

fn inbox(
    granted: &ConnectionLimits,
    lingering: mpsc::Receiver<Arc<super::stream::Stream>>,
) -> (Inbox, AsyncMutex<mpsc::Receiver<super::Halves>>) {
    let streams = granted.streams_max as usize;
    let (accepted, receiver) = mpsc::channel(streams);
    let places = Arc::new(Semaphore::new(streams));
    (Inbox { accepted, places, lingering }, AsyncMutex::new(receiver))
}

/// What the dialler may have open: its own streams, those that it left to us, and those that wait.
fn streams_max(granted: &ConnectionLimits) -> u32 {
    granted.streams_max.saturating_mul(2).saturating_add(TCP_OFFERS_IDLE as u32)
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
