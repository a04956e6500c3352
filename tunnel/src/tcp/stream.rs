//! One tunnel stream on an HTTP/2 stream. What QUIC says of one direction alone (RESET_STREAM,
//! STOP_SENDING) is said between the frames, since HTTP/2 can only reset both directions at once; that
//! is done when both were given up. The end of a direction is its END or REFUSED frame, so that STOP can
//! still follow it; END_STREAM is sent when nothing more can be said.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use h2::Reason;
use http::StatusCode;
use quinn::{ApplicationClose, ConnectionError, ReadError, StoppedError, VarInt, WriteError};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use wire::tunnel::{Dispatched, ErrorCode, StreamReset, encode_end};

use super::scan::{Found, Malformed, Scanner, Signal};
use super::{Core, TcpRecv, TcpSend};

/// RST_STREAM carries a stream's reset code above the codes of HTTP/2 itself.
const RESET_CODES_FROM: u32 = 0x1_0000;

/// Both directions; each half has a reference.
pub(super) struct Stream {
    core: Arc<Core>,
    id: u64,
    wakers: Arc<Wakers>,
    state: Mutex<State>,
    _place: Option<OwnedSemaphorePermit>,
}

/// Who waits for something to happen on a stream.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    reader: AtomicWaker,
    writer: AtomicWaker,
    others: Notify,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
        self.others.notify_waiters();
    }
}

/// Where the bytes of the peer come from.
pub(super) enum Source {
    /// The peer has not taken the stream yet.
    Awaited(h2::client::ResponseFuture),
    Open(h2::RecvStream),
    Over,
}

/// How far a direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Ended,
    /// By us.
    GivenUp,
}

struct State {
    send: h2::SendStream<Bytes>,
    source: Source,
    scanner: Scanner,
    /// For the reader, with how many bytes of the window each piece holds.
    ready: VecDeque<(Bytes, usize)>,
    sending: Way,
    receiving: Way,
    /// The code of the direction that was given up first.
    given_up: u64,
    /// What the peer has said: of its own direction, of ours, and of both.
    reset: Option<u64>,
    stopped: Option<u64>,
    broken: Option<u64>,
    is_settled: bool,
    /// Halves that are not dropped yet.
    halves: u8,
}

impl Stream {
    pub(super) fn open(
        core: &Arc<Core>,
        send: h2::SendStream<Bytes>,
        source: Source,
        place: Option<OwnedSemaphorePermit>,
    ) -> (TcpSend, TcpRecv) {
        let wakers = Arc::new(Wakers::default());
        let stream = Arc::new(Self {
            core: Arc::clone(core),
            id: core.enter(&wakers),
            wakers,
            state: Mutex::new(State {
                send,
                source,
                scanner: Scanner::default(),
                ready: VecDeque::new(),
                sending: Way::Open,
                receiving: Way::Open,
                given_up: 0,
                reset: None,
                stopped: None,
                broken: None,
                is_settled: false,
                halves: 2,
            }),
            _place: place,
        });
        core.first_is_control(&stream);
        (TcpSend(Arc::clone(&stream)), TcpRecv(stream))
    }

    /// Says something between two frames.
    pub(super) fn say(&self, signal: &Signal) {
        self.lock().say(signal);
    }

    pub(super) fn finish(&self) {
        self.lock().finish();
    }

    /// As [`Self::finish`], for one whose user writes no frames: END is said here.
    pub(super) fn end(&self) {
        self.lock().end();
    }

    pub(super) fn reset(&self, code: u64) {
        self.lock().reset(code);
    }

    pub(super) fn stop(&self, code: u64) {
        self.lock().stop(code);
    }

    /// Takes everything in that is here, whoever asks: a STOP must not wait for a reader.
    fn pumped(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.pump(&self.core, &Waker::from(Arc::clone(&self.wakers)));
        state
    }

    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, ReadError>> {
        self.wakers.reader.register(context.waker());
        let mut state = self.pumped();
        let mut count = 0;
        while let Some(chunk) = chunks.get_mut(count)
            && let Some((bytes, held)) = state.ready.pop_front()
        {
            state.release(held);
            (*chunk, count) = (bytes, count + 1);
        }
        if count > 0 {
            return Poll::Ready(Ok(Some(count)));
        }
        if let Some(code) = state.reset {
            return Poll::Ready(Err(ReadError::Reset(packed(code))));
        }
        match state.receiving {
            Way::Ended => return Poll::Ready(Ok(None)),
            Way::GivenUp => return Poll::Ready(Err(ReadError::ClosedStream)),
            Way::Open => {}
        }
        if let Some(end) = self.core.end() {
            return Poll::Ready(Err(ReadError::ConnectionLost(end)));
        }
        match state.broken {
            Some(code) => Poll::Ready(Err(ReadError::Reset(packed(code)))),
            None => Poll::Pending,
        }
    }

    /// Hands all of the chunks over, or none: so there is always a place between two frames.
    fn try_write(&self, chunks: &mut [Bytes]) -> Poll<Result<(), WriteError>> {
        let mut state = self.pumped();
        if let Some(code) = state.stopped.or(state.broken) {
            return Poll::Ready(Err(WriteError::Stopped(packed(code))));
        }
        if let Some(end) = self.core.end() {
            return Poll::Ready(Err(WriteError::ConnectionLost(end)));
        }
        if state.sending != Way::Open {
            return Poll::Ready(Err(WriteError::ClosedStream));
        }
        state.send.reserve_capacity(chunks.iter().map(Bytes::len).sum());
        let waker = Waker::from(Arc::clone(&self.wakers));
        while state.send.capacity() == 0 {
            match state.send.poll_capacity(&mut Context::from_waker(&waker)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Err(WriteError::ClosedStream)),
            }
        }
        for chunk in chunks {
            if state.send.send_data(std::mem::take(chunk), false).is_err() {
                return Poll::Ready(Err(WriteError::ClosedStream));
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) async fn write(&self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        self.until(|| self.try_write(chunks)).await
    }

    pub(super) fn poll_write(
        &self,
        context: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), WriteError>> {
        self.wakers.writer.register(context.waker());
        self.try_write(chunks)
    }

    pub(super) async fn stopped(self: Arc<Self>) -> Result<Option<VarInt>, StoppedError> {
        self.until(|| {
            let state = self.pumped();
            if let Some(code) = state.stopped.or(state.broken) {
                return Poll::Ready(Ok(Some(packed(code))));
            }
            match self.core.end() {
                Some(end) => Poll::Ready(Err(StoppedError::ConnectionLost(end))),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// HTTP/2 would throw away what is not sent yet when nobody holds a stream any more: so it is held
    /// until the peer has ended it, too.
    pub(super) fn leave_half(self: &Arc<Self>) {
        let mut state = self.lock();
        state.halves -= 1;
        if state.halves == 0 && !state.is_done() {
            self.core.linger(Arc::clone(self));
        }
    }

    pub(super) async fn done(self: Arc<Self>) {
        self.until(|| {
            let is_done = self.pumped().is_done() || self.core.end().is_some();
            if is_done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Looks again whenever something happens on the stream or its connection.
    async fn until<T>(&self, mut look: impl FnMut() -> Poll<T>) -> T {
        loop {
            let mut happened = std::pin::pin!(self.wakers.others.notified());
            happened.as_mut().enable();
            if let Poll::Ready(found) = look() {
                return found;
            }
            happened.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.core.leave(self.id);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).finish_non_exhaustive()
    }
}

impl State {
    fn pump(&mut self, core: &Core, waker: &Waker) {
        let mut context = Context::from_waker(waker);
        loop {
            let piece = match &mut self.source {
                Source::Over => return,
                Source::Awaited(response) => match Pin::new(response).poll(&mut context) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(answer)) if answer.status() == StatusCode::OK => {
                        self.source = Source::Open(answer.into_body());
                        continue;
                    }
                    Poll::Ready(Ok(_)) => return self.broke(ErrorCode::UnsupportedKind),
                    Poll::Ready(Err(error)) => Some(Err(error)),
                },
                Source::Open(body) => match body.poll_data(&mut context) {
                    Poll::Pending => return,
                    Poll::Ready(piece) => piece,
                },
            };
            match piece {
                Some(Ok(piece)) => self.take(piece, core),
                Some(Err(error)) => {
                    self.source = Source::Over;
                    // Anything else is the whole connection's end, which is told there.
                    if let Some(reason) = error.reason().filter(|_| error.is_reset()) {
                        self.broken = Some(code_of(reason));
                    }
                }
                None => {
                    self.source = Source::Over;
                    self.peer_ended();
                }
            }
        }
    }

    fn take(&mut self, mut piece: Bytes, core: &Core) {
        let (length, mut held) = (piece.len(), 0);
        loop {
            match self.scanner.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Found::Bytes(_, _))) if self.receiving != Way::Open => {}
                Ok(Some(Found::Bytes(bytes, is_counted))) => {
                    let size = if is_counted { bytes.len() } else { 0 };
                    held += size;
                    self.ready.push_back((bytes, size));
                }
                Ok(Some(Found::Signal(Signal::Reset(code)))) => {
                    self.reset.get_or_insert(code);
                    self.peer_ended();
                }
                Ok(Some(Found::Signal(Signal::Stop(code)))) => {
                    self.stopped.get_or_insert(code);
                }
                Ok(Some(Found::Signal(Signal::Close(code, reason)))) => {
                    let error_code = packed(code);
                    let close = ApplicationClose { error_code, reason };
                    core.lost(ConnectionError::ApplicationClosed(close));
                }
                Err(Malformed) => {
                    self.broke(ErrorCode::MalformedFrame);
                    break;
                }
            }
            if self.scanner.is_over() {
                self.peer_ended();
            }
        }
        self.release(length - held);
    }

    fn peer_ended(&mut self) {
        if self.receiving == Way::Open {
            self.receiving = Way::Ended;
            self.settle();
        }
    }

    /// The peer does what it may not: nothing of the stream counts any more.
    fn broke(&mut self, code: ErrorCode) {
        let code = StreamReset::new(code, Dispatched::Maybe).pack();
        self.broken = Some(code);
        self.source = Source::Over;
        self.send.send_reset(reason_of(code));
        self.is_settled = true;
    }

    fn release(&mut self, bytes: usize) {
        if let Source::Open(body) = &mut self.source
            && bytes > 0
        {
            let _ = body.flow_control().release_capacity(bytes); // of a stream that lives still
        }
    }

    fn say(&mut self, signal: &Signal) {
        if !self.is_settled {
            let _ = self.send.send_data(signal.encode(), false); // a dead stream hears nothing
        }
    }

    fn finish(&mut self) {
        if self.sending == Way::Open {
            self.sending = Way::Ended;
            self.settle();
        }
    }

    fn end(&mut self) {
        if self.sending == Way::Open {
            let mut end = BytesMut::new();
            encode_end(&mut end);
            let _ = self.send.send_data(end.freeze(), false); // a dead stream hears nothing
            self.finish();
        }
    }

    fn reset(&mut self, code: u64) {
        if self.sending == Way::Open {
            self.sending = Way::GivenUp;
            if self.receiving != Way::GivenUp {
                self.given_up = code;
                self.say(&Signal::Reset(code));
            }
            self.settle();
        }
    }

    fn stop(&mut self, code: u64) {
        let held: usize = self.ready.drain(..).map(|(_, held)| held).sum();
        self.release(held);
        if self.receiving == Way::Open {
            self.receiving = Way::GivenUp;
            if self.sending != Way::GivenUp {
                self.given_up = code;
                self.say(&Signal::Stop(code));
            }
            self.settle();
        }
    }

    /// Whether the HTTP/2 stream is at its end, both ways.
    fn is_done(&self) -> bool {
        let is_over = matches!(self.source, Source::Over) || self.is_given_up();
        self.is_settled && is_over
    }

    fn is_given_up(&self) -> bool {
        (self.sending, self.receiving) == (Way::GivenUp, Way::GivenUp)
    }

    /// Ends the HTTP/2 stream once there is nothing more to be said.
    fn settle(&mut self) {
        if self.is_settled || self.sending == Way::Open || self.receiving == Way::Open {
            return;
        }
        self.is_settled = true;
        if self.is_given_up() {
            self.send.send_reset(reason_of(self.given_up));
        } else {
            let _ = self.send.send_data(Bytes::new(), true);
        }
    }
}

fn packed(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn reason_of(code: u64) -> Reason {
    let code = u32::try_from(code).ok().and_then(|code| code.checked_add(RESET_CODES_FROM));
    code.map_or(Reason::CANCEL, Reason::from)
}

/// What RST_STREAM means: a code of ours, or that the peer let the stream go.
fn code_of(reason: Reason) -> u64 {
    if let Some(code) = u32::from(reason).checked_sub(RESET_CODES_FROM) {
        return code.into();
    }
    let code = match reason {
        Reason::NO_ERROR => ErrorCode::NoError,
        Reason::CANCEL => ErrorCode::Cancelled,
        Reason::REFUSED_STREAM => ErrorCode::Overloaded,
        _ => ErrorCode::Truncated,
    };
    StreamReset::new(code, Dispatched::Maybe).pack()
}
