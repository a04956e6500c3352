//! The sending half of an exchange.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use model::Transport;
use quinn::{StoppedError, WriteError};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use wire::tunnel::limits::BULK_LENGTH_BYTES_MIN;
use wire::tunnel::{
    ConnectionClass, Dispatched, EncodeError, ErrorCode, MoveToken, RequestHead, ResponseHead,
    StreamReset, encode_data, encode_end, encode_moved, encode_request_head, encode_response_head,
    encode_resume, encode_trailers,
};

use super::{Life, stream_code};
use crate::carrier::SendStream;
use crate::error::StreamError;
use crate::limits::SINK_AFTER_BYTES;
use crate::link::{Link, LinkLease};

/// Below the control stream (1) and exchanges that have just begun (0).
const PRIORITY_SUNK: i32 = -1;

/// Sends one direction of an exchange. Every call hands its bytes to the connection, which joins
/// what one task writes before it yields, so nothing has to be flushed.
///
/// A call whose future is dropped before it is done may have sent a part of a frame: after that the
/// half can only be reset, and every further call says so.
#[derive(Debug)]
pub struct SendHalf {
    life: Arc<Life>,
    /// The link that carries the direction now.
    link: Arc<Link>,
    /// Keeps it, if the exchange began on another one.
    lease: Option<LinkLease>,
    stream: SendStream,
    successor: Arc<Successor>,
    sent_bytes: u64,
    expected_bytes: Option<u64>,
    /// Sent bytes at which the direction moves to bulk.
    move_at_bytes: u64,
    is_sunk: bool,
    state: State,
    /// Where frames are built; grows to the largest head.
    scratch: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// A write is under way, or was given up in the middle.
    Writing,
    Ended,
    /// Reset by us, or given up by the peer.
    Over,
}

impl SendHalf {
    pub(super) fn life(&self) -> &Arc<Life> {
        &self.life
    }

    pub(crate) fn new(life: Arc<Life>, stream: SendStream) -> Self {
        let link = Arc::clone(&life.link);
        let move_at_bytes = match link.class {
            ConnectionClass::Fast => life.shared.config.limits.move_after_bytes,
            ConnectionClass::Bulk => u64::MAX,
        };
        Self {
            life,
            link,
            lease: None,
            stream,
            successor: Arc::default(),
            sent_bytes: 0,
            expected_bytes: None,
            move_at_bytes,
            is_sunk: false,
            state: State::Open,
            scratch: BytesMut::new(),
        }
    }

    /// The initiator's HEAD.
    pub async fn request_head(&mut self, head: &RequestHead) -> Result<(), StreamError> {
        let _ = self.life.method.set(head.method.clone());
        self.frame(|out| encode_request_head(head, out)).await
    }

    /// The acceptor's HEAD: any number of interim ones, then the final one.
    pub async fn response_head(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        self.frame(|out| encode_response_head(head, out)).await
    }

    /// Any number of bytes; none is fine.
    pub async fn data(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        self.check_open()?;
        if self.sent_bytes >= self.move_at_bytes {
            self.move_to_bulk().await?;
        }
        self.state = State::Writing;
        self.sent_bytes += data.len() as u64;
        // One write per frame: a header of few bytes, and the payload as it came.
        while let Some(payload) = encode_data(&mut data, &mut self.scratch) {
            let mut chunks = [self.scratch.split().freeze(), payload];
            let written = self.stream.write_all_chunks(&mut chunks).await;
            self.finish_write(written)?;
            self.state = State::Writing;
        }
        self.state = State::Open;
        if !self.is_sunk && self.sent_bytes >= SINK_AFTER_BYTES {
            self.is_sunk = true;
            self.stream.set_priority(PRIORITY_SUNK);
        }
        Ok(())
    }

    pub async fn trailers(&mut self, trailers: &HeaderMap) -> Result<(), StreamError> {
        self.frame(|out| encode_trailers(trailers, out)).await
    }

    /// The direction is complete (END and FIN).
    pub async fn end(&mut self) -> Result<(), StreamError> {
        self.frame(|out| {
            encode_end(out);
            Ok(())
        })
        .await?;
        self.stream.finish();
        self.state = State::Ended;
        self.successor.has_ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// How many bytes of DATA will be sent, if that is known: large ones go to bulk from the start.
    pub fn expect_bytes(&mut self, bytes: Option<u64>) {
        self.expected_bytes = bytes;
        if bytes.is_some_and(|bytes| bytes >= BULK_LENGTH_BYTES_MIN)
            && self.link.class == ConnectionClass::Fast
        {
            self.move_at_bytes = 0;
        }
    }

    /// Gives the direction up.
    pub fn reset(mut self, code: ErrorCode, dispatched: Dispatched) {
        self.reset_stream(StreamReset::new(code, dispatched));
    }

    /// Resolves when the peer wants no more, or the connection died; never after a clean end. It
    /// does not borrow the half, so it can be awaited beside `data`.
    pub fn stopped(&self) -> impl Future<Output = StreamError> + Send + 'static {
        let first = stopped_on(&self.stream, &self.link);
        let successor = Arc::clone(&self.successor);
        async move {
            let mut stopped = first.await;
            if stopped.is_none() {
                // Acknowledged to the end: either all of it, or up to MOVED.
                stopped = successor.wait().await.await;
            }
            match stopped {
                // A reader that closes after END without having read FIN.
                Some(error) if !(error.code == ErrorCode::NoError && successor.has_ended()) => {
                    error
                }
                _ => pending().await,
            }
        }
    }

    async fn frame(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), StreamError> {
        self.check_open()?;
        encode(&mut self.scratch)?;
        let frame = self.scratch.split().freeze();
        self.write(frame).await
    }

    pub(crate) async fn write(&mut self, frame: Bytes) -> Result<(), StreamError> {
        self.state = State::Writing;
        let written = self.stream.write_chunk(frame).await;
        self.finish_write(written)
    }

    fn finish_write(&mut self, written: Result<(), WriteError>) -> Result<(), StreamError> {
        match written {
            Ok(()) => {
                self.state = State::Open;
                Ok(())
            }
            Err(error) => {
                let error = self.write_error(&error);
                self.reset_stream(StreamReset::new(error.code, error.dispatched));
                Err(error)
            }
        }
    }

    fn write_error(&self, error: &WriteError) -> StreamError {
        match error {
            WriteError::Stopped(packed) => StreamError::reset(packed.into_inner()),
            WriteError::ConnectionLost(lost) => self.link.stream_error(lost),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => already_over(),
        }
    }

    fn check_open(&self) -> Result<(), StreamError> {
        match self.state {
            State::Open => Ok(()),
            State::Writing => Err(StreamError::local(
                ErrorCode::Internal,
                "an earlier write was given up in the middle of a frame: reset the exchange",
            )),
            State::Ended | State::Over => Err(already_over()),
        }
    }

    /// Leaves the fast connection: RESUME opens a stream of a bulk connection to the same gateway,
    /// MOVED is the last frame here. Without one, or without stream credit on it, the direction
    /// stays, and tries again as many bytes later.
    async fn move_to_bulk(&mut self) -> Result<(), StreamError> {
        self.move_at_bytes = self.sent_bytes + self.life.shared.config.limits.move_after_bytes;
        let bulk = self.life.shared.registry.peek().bulk_beside(&self.link).cloned();
        let Some(bulk) = bulk else { return Ok(()) };
        let Some(Ok(mut stream)) = bulk.connection.open_uni().now_or_never() else {
            return Ok(());
        };
        let token = MoveToken::from_bytes(rand::random());
        self.state = State::Writing;
        encode_resume(token, &mut self.scratch);
        let resume = self.scratch.split().freeze();
        if let Err(error) = stream.write_chunk(resume).await {
            tracing::debug!(%error, "a direction could not move to bulk");
            self.state = State::Open;
            return Ok(());
        }
        encode_moved(token, &mut self.scratch);
        let moved = self.scratch.split().freeze();
        let written = self.stream.write_chunk(moved).await;
        self.finish_write(written)?;
        self.stream.finish();
        self.successor.set(Box::pin(stopped_on(&stream, &bulk)));
        self.stream = stream;
        self.lease = Some(LinkLease::of(&bulk));
        self.link = bulk;
        self.move_at_bytes = u64::MAX;
        self.life.shared.counts.of(self.life.link.worker).directions_moved();
        Ok(())
    }

    /// What was sent to the end is still to arrive: until then the exchange is open, so that neither a link
    /// that retires nor a gateway that drains closes the connection under it. A short direction on a link
    /// that stays has arrived before that could be.
    fn hold_exchange(&mut self) {
        let is_short = self.link.class == ConnectionClass::Fast;
        let stays = !self.link.is_retiring() && !self.life.shared.is_draining();
        if is_short && stays || self.link.transport() == Transport::Tcp {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let lease = self.lease.take().unwrap_or_else(|| LinkLease::of(&self.link));
        let held = (lease, Arc::clone(&self.life));
        let arrived = self.stream.stopped();
        runtime.spawn(async move {
            let _ = arrived.await;
            drop(held);
        });
    }

    fn reset_stream(&mut self, reset: StreamReset) {
        self.stream.reset(stream_code(reset));
        self.state = State::Over;
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        match self.state {
            // A plain drop would send FIN: to the peer that is a truncation, and our fault.
            State::Open | State::Writing => {
                self.reset_stream(StreamReset::new(ErrorCode::Cancelled, Dispatched::Maybe));
            }
            State::Ended => self.hold_exchange(),
            State::Over => {}
        }
    }
}

fn already_over() -> StreamError {
    StreamError::local(ErrorCode::Internal, "the direction has already ended or was reset")
}

/// `None`: the peer has acknowledged the stream to its end.
fn stopped_on(
    stream: &SendStream,
    link: &Arc<Link>,
) -> impl Future<Output = Option<StreamError>> + Send + 'static {
    let (stopped, link) = (stream.stopped(), Arc::clone(link));
    async move {
        match stopped.await {
            Ok(Some(packed)) => Some(StreamError::reset(packed.into_inner())),
            Ok(None) => None,
            Err(StoppedError::ConnectionLost(lost)) => Some(link.stream_error(&lost)),
            Err(StoppedError::ZeroRttRejected) => Some(already_over()),
        }
    }
}

/// The end of the stream that a direction moved to, for whoever waits for the first stream's.
#[derive(Default)]
struct Successor {
    stopped: Mutex<Option<BoxFuture<'static, Option<StreamError>>>>,
    changed: Notify,
    has_ended: AtomicBool,
}

impl Successor {
    fn set(&self, stopped: BoxFuture<'static, Option<StreamError>>) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(stopped);
        self.changed.notify_one();
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    async fn wait(&self) -> BoxFuture<'static, Option<StreamError>> {
        loop {
            let changed = self.changed.notified();
            let taken = self.stopped.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(stopped) = taken {
                return stopped;
            }
            changed.await;
        }
    }
}

impl std::fmt::Debug for Successor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Successor").finish_non_exhaustive()
    }
}
