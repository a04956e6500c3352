//! Readers that do not read: each holds up to a stream's window of its connection's window, and
//! enough of them would hold all of it. Over three quarters, the longest-stalled is reset.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use quinn::ReadError;
use wire::tunnel::limits::HELD_WINDOW_PERCENT_MAX;
use wire::tunnel::{Dispatched, ErrorCode, StreamReset};

use crate::carrier::RecvStream;
use crate::limits::{CHUNKS_PER_READ, STALL_GRACE};
use crate::stream::stream_code;

/// The readers of one connection's streams.
#[derive(Debug)]
pub(crate) struct StallWatch {
    start: Instant,
    /// Milliseconds since `start` up to which nobody can have read, since our own loop stood still.
    excused_ms: AtomicU64,
    gates: Mutex<Gates>,
}

#[derive(Debug, Default)]
struct Gates {
    next: u64,
    open: HashMap<u64, Weak<RecvGate>>,
}

impl StallWatch {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, excused_ms: AtomicU64::new(0), gates: Mutex::default() }
    }

    /// Puts a stream under watch, for as long as the gate lives.
    pub(crate) fn gate(&self, stream: RecvStream) -> (u64, Arc<RecvGate>) {
        let gate = Arc::new(RecvGate {
            stream: Mutex::new(Gated { stream: Some(stream), peeked: None, is_reset: false }),
            reader: AtomicWaker::new(),
            start: self.start,
            touched_ms: AtomicU64::new(millis_since(self.start)),
            is_waiting: AtomicBool::new(false),
        });
        let mut gates = self.lock();
        let id = gates.next;
        gates.next += 1;
        gates.open.insert(id, Arc::downgrade(&gate));
        (id, gate)
    }

    /// The event loop that readers run on stood still until now: their clocks begin anew.
    pub(crate) fn excuse(&self) {
        self.excused_ms.store(millis_since(self.start), Ordering::Relaxed);
    }

    pub(crate) fn forget(&self, id: u64) {
        self.lock().open.remove(&id);
    }

    /// Resets the longest-stalled streams as long as the stalled ones hold too much; how many.
    pub(crate) fn relieve(&self, stream_window: u64, connection_window: u64) -> usize {
        let held_max = connection_window * u64::from(HELD_WINDOW_PERCENT_MAX) / 100;
        let gates: Vec<_> = {
            let gates = self.lock();
            // The usual case: even if all were stalled, they could not hold that much.
            if gates.open.len() as u64 * stream_window <= held_max {
                return 0;
            }
            gates.open.values().filter_map(Weak::upgrade).collect()
        };
        let now_ms = millis_since(self.start);
        let excused_ms = self.excused_ms.load(Ordering::Relaxed);
        let grace_ms = STALL_GRACE.as_millis() as u64;
        let mut stalled: Vec<_> = gates
            .iter()
            .map(|gate| (gate.touched_ms.load(Ordering::Relaxed).max(excused_ms), gate))
            .filter(|(since_ms, gate)| now_ms.saturating_sub(*since_ms) > grace_ms && gate.holds())
            .collect();
        stalled.sort_by_key(|(since_ms, _)| *since_ms);
        let mut held = stalled.len() as u64 * stream_window;
        let mut reset = 0;
        for (_, gate) in stalled {
            if held <= held_max {
                break;
            }
            gate.reset();
            held -= stream_window;
            reset += 1;
        }
        reset
    }

    fn lock(&self) -> MutexGuard<'_, Gates> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis_since(start: Instant) -> u64 {
    start.elapsed().as_millis() as u64
}

/// One stream's receiving end, shared by its reader and the watch. The lock is never contended,
/// save when a connection is about to be held up.
#[derive(Debug)]
pub(crate) struct RecvGate {
    stream: Mutex<Gated>,
    reader: AtomicWaker,
    start: Instant,
    /// When the reader last asked, in milliseconds since `start`.
    touched_ms: AtomicU64,
    /// The reader asked and there was nothing, nor has anything come since.
    is_waiting: AtomicBool,
}

#[derive(Debug)]
struct Gated {
    /// `None` once the reader is gone.
    stream: Option<RecvStream>,
    /// What the watch read to learn whether there was anything; at most one chunk.
    peeked: Option<Bytes>,
    is_reset: bool,
}

/// What a reader is told instead of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GateError {
    Read(ReadError),
    /// The watch reset the stream.
    Stalled,
}

impl RecvGate {
    /// The next chunks, appended to `chunks`; false at the stream's end (FIN).
    pub(crate) fn poll_chunks(
        self: &Arc<Self>,
        context: &mut Context<'_>,
        chunks: &mut VecDeque<Bytes>,
    ) -> Poll<Result<bool, GateError>> {
        self.touched_ms.store(millis_since(self.start), Ordering::Relaxed);
        self.reader.register(context.waker());
        let mut gated = self.lock();
        if gated.is_reset {
            return Poll::Ready(Err(GateError::Stalled));
        }
        if let Some(peeked) = gated.peeked.take() {
            chunks.push_back(peeked);
            return Poll::Ready(Ok(true));
        }
        let mut buffers = [const { Bytes::new() }; CHUNKS_PER_READ];
        match self.poll_stream(&mut gated, &mut buffers) {
            Poll::Ready(Ok(Some(count))) => {
                chunks.extend(buffers.into_iter().take(count));
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(Ok(false)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(GateError::Read(error))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Tells the peer that nothing more is read.
    pub(crate) fn stop(&self, reset: StreamReset) {
        if let Some(stream) = &mut self.lock().stream {
            stream.stop(stream_code(reset));
        }
    }

    /// The reader is gone. The stream must not wait for the gate's last reference: the connection
    /// holds one, as the waker of a blocked read, and the stream holds the connection.
    pub(crate) fn close(&self) {
        let stream = self.lock().stream.take();
        drop(stream);
    }

    /// Whether bytes lie here unread.
    fn holds(self: &Arc<Self>) -> bool {
        if self.is_waiting.load(Ordering::Acquire) {
            return false;
        }
        let mut gated = self.lock();
        if gated.is_reset {
            return false;
        }
        if gated.peeked.is_some() {
            return true;
        }
        let mut buffer = [Bytes::new()];
        match self.poll_stream(&mut gated, &mut buffer) {
            Poll::Ready(Ok(Some(_))) => {
                let [chunk] = buffer;
                gated.peeked = Some(chunk);
                true
            }
            // An end or an error is for the reader to find; it holds nothing.
            _ => false,
        }
    }

    fn reset(&self) {
        let mut gated = self.lock();
        gated.is_reset = true;
        gated.peeked = None;
        let reset = StreamReset::new(ErrorCode::StalledReader, Dispatched::Maybe);
        if let Some(stream) = &mut gated.stream {
            stream.stop(stream_code(reset));
        }
        drop(gated);
        self.reader.wake();
    }

    /// Reads with this gate as the one to be woken, whoever asks: the watch must not take the
    /// reader's place in the stream's list.
    fn poll_stream(
        self: &Arc<Self>,
        gated: &mut Gated,
        buffers: &mut [Bytes],
    ) -> Poll<Result<Option<usize>, ReadError>> {
        let Some(stream) = &mut gated.stream else {
            return Poll::Ready(Err(ReadError::ClosedStream));
        };
        self.is_waiting.store(true, Ordering::Release);
        let waker = Waker::from(Arc::clone(self));
        let read = stream.poll_chunks(&mut Context::from_waker(&waker), buffers);
        if read.is_ready() {
            self.is_waiting.store(false, Ordering::Release);
        }
        read
    }

    fn lock(&self) -> MutexGuard<'_, Gated> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for RecvGate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_waiting.store(false, Ordering::Release);
        self.reader.wake();
    }
}
