//! The way where UDP does not pass: TLS 1.3 on TCP, one HTTP/2 connection, in which each tunnel stream is
//! an extended CONNECT (RFC 8441) that carries the same bytes (docs/reference/tunnel.md §9).
//!
//! `run` keeps a connection going, `stream` is one stream of it and `halves` its two directions, `scan` finds
//! what is said between the frames, and `listen` makes connections of sockets, from either side, on the terms
//! of `terms`.

mod halves;
mod listen;
mod run;
mod scan;
mod stream;
mod terms;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{Method, Request, Response, Version};
use quinn::{ConnectionClose, ConnectionError, TransportErrorCode, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};
use tokio_util::sync::CancellationToken;

use scan::Signal;
use stream::{Source, Stream, Wakers};

pub(crate) use halves::{TcpRecv, TcpSend};
pub(crate) use listen::{TcpDialError, bind_listener, dial, dial_relay, serve, told};

/// The two halves of a stream.
type Halves = (TcpSend, TcpRecv);

/// One HTTP/2 connection after its handshakes. When it is dropped it is closed.
pub(crate) struct TcpConnection {
    core: Arc<Core>,
    remote: SocketAddr,
    chain: Vec<CertificateDer<'static>>,
    alpn: Vec<u8>,
    opener: Opener,
    /// Streams that the peer has opened.
    accepted: AsyncMutex<mpsc::Receiver<Halves>>,
}

/// How a side opens streams. HTTP/2 lets only the client do so: a listener takes one of those that the
/// dialler keeps open for it.
enum Opener {
    Dialler { requests: SendRequest<Bytes>, authority: String },
    Listener(Arc<Offers>),
}

/// Streams of the dialler's on which the listener may begin.
#[derive(Default)]
struct Offers {
    idle: Mutex<VecDeque<(h2::RecvStream, SendResponse<Bytes>)>>,
    arrived: Notify,
}

impl Offers {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(h2::RecvStream, SendResponse<Bytes>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TcpConnection {
    pub(crate) async fn open(&self) -> Result<Halves, ConnectionError> {
        match &self.opener {
            Opener::Dialler { requests, authority } => {
                let ready = requests.clone().ready().await;
                let mut requests = ready.map_err(|error| self.core.end_by(&error))?;
                let sent = requests.send_request(request(authority, BEGIN), false);
                let (response, send) = sent.map_err(|error| self.core.end_by(&error))?;
                Ok(Stream::open(&self.core, send, Source::Awaited(response), None))
            }
            Opener::Listener(offers) => tokio::select! {
                halves = self.take_offer(offers) => Ok(halves),
                end = self.closed() => Err(end),
            },
        }
    }

    async fn take_offer(&self, offers: &Offers) -> Halves {
        loop {
            let arrived = offers.arrived.notified();
            let (offer, has_more) = {
                let mut idle = offers.lock();
                (idle.pop_front(), !idle.is_empty())
            };
            if has_more {
                offers.arrived.notify_one(); // a word for several waiters may have come as one
            }
            let Some((body, mut respond)) = offer else {
                arrived.await;
                continue;
            };
            // One that the dialler has given up meanwhile is none.
            if let Ok(send) = respond.send_response(Response::new(()), false) {
                return Stream::open(&self.core, send, Source::Open(body), None);
            }
        }
    }

    pub(crate) async fn accept(&self) -> Result<Halves, ConnectionError> {
        let next = async { self.accepted.lock().await.recv().await };
        tokio::select! {
            halves = next => match halves {
                Some(halves) => Ok(halves),
                None => Err(self.closed().await),
            },
            end = self.closed() => Err(end),
        }
    }

    pub(crate) fn close(&self, code: VarInt, reason: &[u8]) {
        self.core.close(code, reason);
    }

    pub(crate) async fn closed(&self) -> ConnectionError {
        self.core.ended.cancelled().await;
        self.core.end().unwrap_or(ConnectionError::Reset)
    }

    pub(crate) fn close_reason(&self) -> Option<ConnectionError> {
        self.core.end()
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    pub(crate) fn peer_chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(crate) fn peer_alpn(&self) -> &[u8] {
        &self.alpn
    }

    /// Round-trip time and how much it varies.
    pub(crate) fn rtt(&self) -> (Duration, Duration) {
        self.core.rtt.get()
    }

    /// Bytes sent and received inside of TLS; what was received is authentic.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let count = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed);
        (count(&self.core.sent), count(&self.core.received))
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.core.close(VarInt::from_u32(0), b"");
    }
}

impl fmt::Debug for TcpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpConnection").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// Paths of the requests: a stream that the dialler begins, and one that it leaves to the listener.
const BEGIN: &str = "/";
const OFFER: &str = "/offer";

/// RFC 8441 §4.
fn request(authority: &str, path: &str) -> Request<()> {
    let uri = format!("https://{authority}{path}");
    let protocol = h2::ext::Protocol::from_static("fedgate-tunnel");
    let request = Request::builder().method(Method::CONNECT).version(Version::HTTP_2).uri(uri);
    request.extension(protocol).body(()).expect("a trust domain is an authority")
}

/// What a connection's task, its streams and its owner share.
struct Core {
    end: OnceLock<ConnectionError>,
    ended: CancellationToken,
    /// A TLS alert of the peer's: HTTP/2 forgets what I/O errors were.
    alert: OnceLock<u8>,
    control: OnceLock<Weak<Stream>>,
    streams: Mutex<HashMap<u64, Weak<Wakers>>>,
    last_stream: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    rtt: Rtt,
    /// Streams that nobody uses any more and that are not over; as many as streams may be open.
    lingering: mpsc::Sender<Arc<Stream>>,
}

impl Core {
    fn new(streams_max: usize) -> (Arc<Self>, mpsc::Receiver<Arc<Stream>>) {
        let (lingering, receiver) = mpsc::channel(streams_max);
        let core = Self {
            end: OnceLock::new(),
            ended: CancellationToken::new(),
            alert: OnceLock::new(),
            control: OnceLock::new(),
            streams: Mutex::default(),
            last_stream: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            rtt: Rtt::default(),
            lingering,
        };
        (Arc::new(core), receiver)
    }

    fn linger(&self, stream: Arc<Stream>) {
        // Without its task the connection has ended, and beyond the limit the peer broke its own.
        let _ = self.lingering.try_send(stream);
    }

    fn end(&self) -> Option<ConnectionError> {
        self.end.get().cloned()
    }

    /// Tells the peer why, on the control stream. The task sends it if the network takes it.
    fn close(&self, code: VarInt, reason: &[u8]) {
        if self.end.set(ConnectionError::LocallyClosed).is_ok() {
            if let Some(control) = self.control.get().and_then(Weak::upgrade) {
                let reason = Bytes::copy_from_slice(reason);
                control.say(&Signal::Close(code.into_inner(), reason));
            }
            self.wake_all();
        }
    }

    /// The connection ended by itself or by the peer; the first reason stays.
    fn lost(&self, error: ConnectionError) {
        if self.end.set(error).is_ok() {
            self.wake_all();
        }
    }

    /// HTTP/2 cannot go on.
    fn end_by(&self, error: &h2::Error) -> ConnectionError {
        self.lost(match self.alert.get() {
            Some(alert) => ConnectionError::ConnectionClosed(ConnectionClose {
                error_code: TransportErrorCode::crypto(*alert),
                frame_type: None,
                reason: Bytes::from(error.to_string()),
            }),
            None => ConnectionError::Reset,
        });
        self.end().unwrap_or(ConnectionError::Reset)
    }

    fn wake_all(&self) {
        self.ended.cancel();
        let streams: Vec<_> = self.streams().values().filter_map(Weak::upgrade).collect();
        streams.into_iter().for_each(std::task::Wake::wake);
    }

    fn enter(&self, wakers: &Arc<Wakers>) -> u64 {
        let id = self.last_stream.fetch_add(1, Ordering::Relaxed);
        self.streams().insert(id, Arc::downgrade(wakers));
        id
    }

    fn leave(&self, id: u64) {
        self.streams().remove(&id);
    }

    fn first_is_control(&self, stream: &Arc<Stream>) {
        let _ = self.control.set(Arc::downgrade(stream)); // refused for all but the first
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u64, Weak<Wakers>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Smoothed as RFC 6298 §2 does.
#[derive(Debug, Default)]
struct Rtt(Mutex<Option<(Duration, Duration)>>);

impl Rtt {
    fn get(&self) -> (Duration, Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default()
    }

    fn observe(&self, sample: Duration) {
        let mut smoothed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *smoothed = Some(match *smoothed {
            None => (sample, sample / 2),
            Some((rtt, var)) => ((rtt * 7 + sample) / 8, (var * 3 + rtt.abs_diff(sample)) / 4),
        });
    }
}
