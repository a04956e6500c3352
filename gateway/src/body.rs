//! Message bodies on their way: from a client to an endpoint or a tunnel, and back.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;
use tunnel::{Part, RecvHalf, StreamError};

use crate::http::apply_to_request_trailers;
use crate::limits::{REPLAY_BYTES_MAX, REPLAY_FRAME_BYTES_MIN};

/// Why a body broke off.
#[derive(Debug)]
pub enum BodyError {
    /// The client broke its request off.
    Client(hyper::Error),
    /// The application broke its response off.
    Upstream(hyper::Error),
    /// The tunnel stream ended before its END.
    Tunnel(StreamError),
    /// A newer attempt has taken the body over.
    Superseded,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(error) => write!(f, "the client broke its request off: {error}"),
            Self::Upstream(error) => write!(f, "the application broke its response off: {error}"),
            Self::Tunnel(error) => error.fmt(f),
            Self::Superseded => f.write_str("another attempt has taken the body over"),
        }
    }
}

impl Error for BodyError {}

/// What a pool's connections send as a request's body.
#[derive(Debug)]
pub enum UpstreamBody {
    Empty,
    /// From a client of this gateway.
    Client(AttemptBody),
    /// From a peer's gateway.
    Tunnel(TunnelBody),
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => Pin::new(body).poll_frame(cx),
            Self::Tunnel(body) => {
                let mut frame = ready!(Pin::new(body).poll_frame(cx));
                // As the head (`apply_to_peer_request`): the peer may not have filtered them.
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    apply_to_request_trailers(trailers);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.is_end_stream(),
            Self::Tunnel(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.size_hint(),
            Self::Tunnel(body) => body.size_hint(),
        }
    }
}

/// A client's request body that several attempts may send one after the other, as long as what
/// was read of it fits the replay limit.
#[derive(Debug, Clone)]
pub struct ReplayBody(Option<Arc<Mutex<Replay>>>);

#[derive(Debug)]
struct Replay {
    body: Incoming,
    /// Everything read so far, as long as it fits.
    kept: KeptFrames,
    /// No further attempt will be made.
    settled: bool,
    /// Frames read so far, whether or not they are kept.
    frames: usize,
    ended: bool,
    failed: bool,
    /// It failed because its framing is wrong, not because the client left.
    malformed: bool,
    /// The attempt that may read; those before it get [`BodyError::Superseded`].
    attempt: u32,
    read_bytes: u64,
    read_at: Instant,
    size_hint: SizeHint,
}

#[derive(Debug, Clone)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Kept {
    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

impl ReplayBody {
    pub fn new(body: Incoming) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        let size_hint = body.size_hint();
        Self(Some(Arc::new(Mutex::new(Replay {
            body,
            kept: KeptFrames::default(),
            settled: false,
            frames: 0,
            ended: false,
            failed: false,
            malformed: false,
            attempt: 0,
            read_bytes: 0,
            read_at: Instant::now(),
            size_hint,
        }))))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The body for the next attempt, from its first byte; earlier attempts lose it. `None` for an
    /// empty body.
    pub fn attempt(&self) -> Option<AttemptBody> {
        let replay = self.0.clone()?;
        let attempt = {
            let mut replay = lock(&replay);
            replay.attempt += 1;
            replay.attempt
        };
        Some(AttemptBody { replay, attempt, next: 0, ended: false })
    }

    /// A response has come: nobody will ask for what was read, so it need not be kept.
    pub fn settle(&self) {
        if let Some(replay) = &self.0 {
            let mut replay = lock(replay);
            replay.settled = true;
            replay.forget();
        }
    }

    /// Whether another attempt could still send everything.
    pub fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|replay| {
            let replay = lock(replay);
            !replay.kept.overflowed && !replay.settled && !replay.failed
        })
    }

    /// Whether the client broke the body off.
    pub fn failed(&self) -> bool {
        self.0.as_ref().is_some_and(|replay| lock(replay).failed)
    }

    /// Whether it was broken by a framing that means nothing.
    pub fn is_malformed(&self) -> bool {
        self.0.as_ref().is_some_and(|replay| lock(replay).malformed)
    }

    pub fn read_bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |replay| lock(replay).read_bytes)
    }

    /// When the last byte came; the time for the response's head counts from there.
    pub fn read_at(&self) -> Option<Instant> {
        self.0.as_ref().map(|replay| lock(replay).read_at)
    }

    /// The length that the client declared.
    pub fn declared_bytes(&self) -> Option<u64> {
        self.0.as_ref().map_or(Some(0), |replay| lock(replay).size_hint.exact())
    }
}

fn lock(replay: &Mutex<Replay>) -> MutexGuard<'_, Replay> {
    replay.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One attempt's view of a [`ReplayBody`].
#[derive(Debug)]
pub struct AttemptBody {
    replay: Arc<Mutex<Replay>>,
    attempt: u32,
    /// Index of the next frame within `kept`.
    next: usize,
    ended: bool,
}

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut replay = lock(&this.replay);
        if replay.attempt != this.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if this.next < replay.frames {
            // The attempt is new: what an earlier one read is sent again, if it was kept.
            let Some(kept) = replay.kept.frames.get(this.next).cloned() else {
                return Poll::Ready(Some(Err(BodyError::Superseded)));
            };
            this.next += 1;
            return Poll::Ready(Some(Ok(kept.into_frame())));
        }
        let frame = if replay.ended { None } else { ready!(replay.poll_read(cx)) };
        match &frame {
            None => this.ended = true,
            Some(Ok(_)) => this.next = replay.frames,
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        let replay = lock(&self.replay);
        if self.next == 0 { replay.size_hint } else { replay.body.size_hint() }
    }
}

impl Replay {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.failed = true;
                self.malformed = is_malformed(&error);
                return Poll::Ready(Some(Err(BodyError::Client(error))));
            }
            Some(Ok(frame)) => frame,
        };
        self.read_at = Instant::now();
        let kept = match frame.into_data() {
            Ok(data) => Kept::Data(data),
            Err(frame) => match frame.into_trailers() {
                Ok(mut trailers) => {
                    apply_to_request_trailers(&mut trailers);
                    Kept::Trailers(trailers)
                }
                Err(other) => return Poll::Ready(Some(Ok(other))), // a kind that hyper has not yet
            },
        };
        self.keep(&kept);
        Poll::Ready(Some(Ok(kept.into_frame())))
    }

    fn keep(&mut self, frame: &Kept) {
        if let Kept::Data(data) = frame {
            self.read_bytes += data.len() as u64;
        }
        self.frames += 1;
        if !self.settled {
            self.kept.push(frame);
        }
    }

    fn forget(&mut self) {
        self.kept.frames = Vec::new();
    }
}

/// The beginning of a body, until it is too much.
#[derive(Debug, Default)]
struct KeptFrames {
    frames: Vec<Kept>,
    bytes: usize,
    overflowed: bool,
}

impl KeptFrames {
    fn push(&mut self, frame: &Kept) {
        let bytes = if let Kept::Data(data) = frame { data.len() } else { 0 };
        self.bytes += bytes.max(REPLAY_FRAME_BYTES_MIN);
        if self.bytes > REPLAY_BYTES_MAX {
            self.overflowed = true;
            self.frames = Vec::new();
        }
        if !self.overflowed {
            self.frames.push(frame.clone());
        }
    }
}

/// hyper tells wrong chunks from a connection that ended by the kind of the I/O error.
fn is_malformed(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
    })
}

type NextPart = (RecvHalf, Result<Part, StreamError>);

/// One direction of a tunnel stream as an HTTP body: DATA, TRAILERS, END.
///
/// The last bytes that Content-Length promises are held until END came. So a reader that stops at
/// the promised length has seen the end, and the stream is not reset under its sender.
pub struct TunnelBody {
    /// Reads one part and gives the stream back; the allocation is used again for each part.
    reading: ReusableBoxFuture<'static, NextPart>,
    first: Option<Part>,
    held: Option<Bytes>,
    /// They go on only when END is here, so that whoever reads them knows the message is whole.
    trailers: Option<HeaderMap>,
    remaining: Option<u64>,
    received: Count,
    ended: bool,
}

/// Bytes of a body, shared with whoever logs them.
#[derive(Debug, Clone, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl TunnelBody {
    /// `promised` is Content-Length, if the message has a body of that length.
    pub fn new(recv: RecvHalf, promised: Option<u64>) -> Self {
        let reading = ReusableBoxFuture::new(next(recv));
        let remaining = promised.filter(|bytes| *bytes > 0);
        let (first, held, trailers, received) = (None, None, None, Count::default());
        Self { reading, first, held, trailers, remaining, received, ended: false }
    }

    /// Continues after a part that was read to see whether there is a body at all.
    pub fn after(first: Part, recv: RecvHalf) -> Self {
        Self { first: Some(first), ..Self::new(recv, None) }
    }

    /// The bytes that came so far; it can be read when the body is gone.
    pub fn count(&self) -> Count {
        self.received.clone()
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, StreamError>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(first));
        }
        let (recv, part) = ready!(self.reading.poll(cx));
        self.reading.set(next(recv));
        Poll::Ready(part)
    }

    fn completes(&mut self, data: &Bytes) -> bool {
        self.received.add(data.len());
        let Some(remaining) = &mut self.remaining else { return false };
        *remaining = remaining.saturating_sub(data.len() as u64);
        *remaining == 0
    }
}

async fn next(mut recv: RecvHalf) -> NextPart {
    let part = recv.next().await;
    (recv, part)
}

impl Body for TunnelBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                let data = this.held.take().map(Frame::data);
                return Poll::Ready(
                    data.or_else(|| this.trailers.take().map(Frame::trailers)).map(Ok),
                );
            }
            match ready!(this.poll_part(cx)) {
                Ok(Part::Data(data)) => {
                    if !this.completes(&data) {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    this.held = Some(data);
                }
                Ok(Part::Trailers(trailers)) => this.trailers = Some(*trailers),
                Ok(Part::End) => this.ended = true,
                Ok(Part::Head(_)) => {} // the tunnel lets no head through here
                Err(error) => {
                    this.ended = true;
                    (this.held, this.trailers) = (None, None);
                    return Poll::Ready(Some(Err(BodyError::Tunnel(error))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.held.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().map_or(0, |data| data.len() as u64);
        match self.remaining {
            Some(remaining) => SizeHint::with_exact(remaining + held),
            None => SizeHint::default(),
        }
    }
}

impl fmt::Debug for TunnelBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelBody")
            .field("remaining", &self.remaining)
            .field("received", &self.received)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_tiny_pieces_costs_no_more_than_one_in_large_pieces() {
        for (piece_bytes, pieces_max) in
            [(1, REPLAY_BYTES_MAX / REPLAY_FRAME_BYTES_MIN), (16 * 1024, REPLAY_BYTES_MAX / 16384)]
        {
            let mut kept = KeptFrames::default();
            let piece = Kept::Data(Bytes::from(vec![0; piece_bytes]));
            let pieces = std::iter::from_fn(|| {
                kept.push(&piece);
                (!kept.overflowed).then_some(())
            });
            assert_eq!(pieces.take(REPLAY_BYTES_MAX + 1).count(), pieces_max, "{piece_bytes}");
            assert!(kept.frames.is_empty(), "what cannot be sent again is not kept");
        }
    }
}
