//! The receiving half of an exchange.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method};
use quinn::ReadError;
use tokio::time::{Instant, timeout_at};
use wire::tunnel::limits::RESUME_TIMEOUT_MS;
use wire::tunnel::{
    DecodeError, Dispatched, ErrorCode, Frame, FrameDecoder, FrameOrder, Head, MoveToken, Refused,
    StreamKind, StreamReset,
};

use super::Life;
use super::moved::{AwaitedResume, Resumed};
use crate::carrier::RecvStream;
use crate::error::{StreamError, StreamErrorKind};
use crate::link::{Link, LinkLease};
use crate::stall::{GateError, RecvGate};

const RESUME_TIMEOUT: Duration = Duration::from_millis(RESUME_TIMEOUT_MS as u64);

/// A piece of an exchange's direction.
#[derive(Debug)]
pub enum Part {
    Head(Box<Head>),
    Data(Bytes),
    Trailers(Box<HeaderMap>),
    /// The direction is complete.
    End,
}

/// Receives one direction of an exchange.
#[derive(Debug)]
pub struct RecvHalf {
    life: Arc<Life>,
    reader: FrameReader,
    /// Whether the acceptor's answer is still to come (initiator only).
    awaits_answer: bool,
    moving: Option<Moving>,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
enum Outcome {
    Ended,
    Failed(StreamError),
}

/// A direction between its two streams.
#[derive(Debug)]
enum Moving {
    /// MOVED was read; the stream's end is to follow.
    Left(MoveToken),
    Awaited(AwaitedResume, Instant),
}

impl RecvHalf {
    /// The accepting side's: OPEN was read already.
    pub(crate) fn of_acceptor(life: Arc<Life>, reader: FrameReader) -> Self {
        Self { life, reader, awaits_answer: false, moving: None, outcome: None }
    }

    /// The initiating side's.
    pub(crate) fn of_initiator(life: Arc<Life>, stream: RecvStream) -> Self {
        let order = match life.kind {
            // The method is not known yet, and does not matter before the first HEAD.
            StreamKind::Http => FrameOrder::acceptor_http(&Method::GET),
            StreamKind::Tcp | StreamKind::Udp => FrameOrder::acceptor_tcp(),
        };
        let reader = FrameReader::new(&life.link, stream, order);
        Self { life, reader, awaits_answer: true, moving: None, outcome: None }
    }

    /// Whether the acceptor serves the exchange. On its own side, and once it was asked, at once.
    pub async fn opened(&mut self) -> Result<Result<(), Refused>, StreamError> {
        if !self.awaits_answer {
            return Ok(Ok(()));
        }
        match self.next_frame().await? {
            Frame::Opened => Ok(Ok(())),
            Frame::Refused(refused) => Ok(Err(refused)),
            frame => Err(self.fail(unexpected(&frame))),
        }
    }

    /// The next piece. It may be dropped and called again. After [`Part::End`] it says so again,
    /// and after an error it gives the same error.
    pub async fn next(&mut self) -> Result<Part, StreamError> {
        loop {
            if let Some(Outcome::Ended) = self.outcome {
                return Ok(Part::End);
            }
            let frame = self.next_frame().await?;
            match frame {
                Frame::Opened => {}
                Frame::Refused(refused) => {
                    let text = format!("the peer refused the exchange: {}", refused.message);
                    let (code, dispatched) = (refused.code, refused.dispatched);
                    let kind = StreamErrorKind::Reset;
                    return Err(self.fail(StreamError::new(kind, code, dispatched, text)));
                }
                Frame::Head(head) => return Ok(Part::Head(head)),
                Frame::Data(data) => return Ok(Part::Data(data)),
                Frame::Trailers(trailers) => return Ok(Part::Trailers(trailers)),
                Frame::End => {
                    // FIN came with END, mostly: reading it spares the peer a STOP_SENDING.
                    let _ = self.reader.expect_end().now_or_never();
                    self.outcome = Some(Outcome::Ended);
                    return Ok(Part::End);
                }
                other => return Err(self.fail(unexpected(&other))),
            }
        }
    }

    /// Wants no more of it.
    pub fn stop(mut self, code: ErrorCode, dispatched: Dispatched) {
        self.stop_stream(StreamReset::new(code, dispatched));
    }

    /// The next frame that has a meaning outside: MOVED and RESUME are followed here.
    async fn next_frame(&mut self) -> Result<Frame, StreamError> {
        loop {
            if let Some(Outcome::Failed(error)) = &self.outcome {
                return Err(error.clone());
            }
            if let Some(moving) = &mut self.moving {
                match moving.follow(&mut self.reader, &self.life).await {
                    Ok(true) => self.moving = None,
                    Ok(false) => {}
                    Err(error) => return Err(self.fail(error)),
                }
                continue;
            }
            match self.read_frame().await {
                Ok(Frame::Moved(token)) => self.moving = Some(Moving::Left(token)),
                Ok(frame @ (Frame::Opened | Frame::Refused(_))) => {
                    self.awaits_answer = false;
                    return Ok(frame);
                }
                Ok(frame) => return Ok(frame),
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    async fn read_frame(&mut self) -> Result<Frame, StreamError> {
        let method =
            if matches!(self.life.kind, StreamKind::Http) { self.life.method.get() } else { None };
        self.reader.next(method).await
    }

    fn fail(&mut self, error: StreamError) -> StreamError {
        if error.kind == StreamErrorKind::Malformed {
            // The peer is told which rule it broke.
            self.stop_stream(StreamReset::new(error.code, error.dispatched));
        }
        self.outcome = Some(Outcome::Failed(error.clone()));
        error
    }

    fn stop_stream(&mut self, reset: StreamReset) {
        self.reader.gate.stop(reset);
        self.outcome.get_or_insert_with(|| {
            Outcome::Failed(StreamError::local(reset.code, "the direction was stopped here"))
        });
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            self.stop_stream(StreamReset::new(ErrorCode::Cancelled, Dispatched::Maybe));
        }
    }
}

impl Moving {
    /// One step from stream to stream; true when the direction goes on. It may be dropped and
    /// called again.
    async fn follow(
        &mut self,
        reader: &mut FrameReader,
        life: &Arc<Life>,
    ) -> Result<bool, StreamError> {
        match self {
            Self::Left(token) => {
                reader.expect_end().await?;
                let gateway = life.link.peer.gateway;
                let awaited = life.shared.resumes.await_resume(gateway, *token);
                *self = Self::Awaited(awaited, Instant::now() + RESUME_TIMEOUT);
                Ok(false)
            }
            Self::Awaited(awaited, deadline) => {
                match timeout_at(*deadline, &mut awaited.receiver).await {
                    Ok(Ok(resumed)) => {
                        reader.go_on(resumed)?;
                        Ok(true)
                    }
                    _ => Err(StreamError::timeout(
                        ErrorCode::ResumeTimeout,
                        "the stream that MOVED announced did not come in time",
                    )),
                }
            }
        }
    }
}

/// Frames of one stream, each checked for its place.
#[derive(Debug)]
pub(crate) struct FrameReader {
    link: Arc<Link>,
    /// Keeps it, if the exchange began on another one.
    lease: Option<LinkLease>,
    gate: Arc<RecvGate>,
    gate_id: u64,
    chunks: VecDeque<Bytes>,
    decoder: FrameDecoder,
    order: FrameOrder,
    /// Whether the order was told the request's method.
    knows_method: bool,
    at_end: bool,
}

impl FrameReader {
    pub(crate) fn new(link: &Arc<Link>, stream: RecvStream, order: FrameOrder) -> Self {
        let (gate_id, gate) = link.stalls.gate(stream);
        Self {
            link: Arc::clone(link),
            lease: None,
            gate,
            gate_id,
            chunks: VecDeque::new(),
            decoder: FrameDecoder::new(),
            order,
            knows_method: false,
            at_end: false,
        }
    }

    /// The next frame. It may be dropped and called again.
    pub(crate) async fn next(&mut self, method: Option<&Method>) -> Result<Frame, StreamError> {
        loop {
            let malformed = |error: DecodeError| StreamError::malformed(&error);
            if let Some(frame) = self.decoder.next().map_err(malformed)? {
                if let (Frame::Head(_), Some(method), false) = (&frame, method, self.knows_method) {
                    self.knows_method = true;
                    self.order = FrameOrder::acceptor_http(method);
                    self.order.check(&Frame::Opened).map_err(malformed)?;
                }
                self.order.check(&frame).map_err(malformed)?;
                return Ok(frame);
            }
            if let Some(chunk) = self.chunks.pop_front() {
                self.decoder.push(chunk);
            } else if self.at_end {
                self.order.finish().map_err(malformed)?;
                return Err(truncated());
            } else {
                self.fill().await?;
            }
        }
    }

    pub(crate) fn stop(&self, reset: StreamReset) {
        self.gate.stop(reset);
    }

    /// After MOVED: only the stream's end may follow.
    async fn expect_end(&mut self) -> Result<(), StreamError> {
        while !self.at_end {
            if !self.chunks.is_empty() || !self.decoder.is_between_frames() {
                break;
            }
            self.fill().await?;
        }
        if self.chunks.is_empty() && self.decoder.is_between_frames() {
            return Ok(());
        }
        Err(StreamError::new(
            StreamErrorKind::Malformed,
            ErrorCode::FrameOutOfOrder,
            Dispatched::Maybe,
            "bytes came after MOVED on the stream that it left",
        ))
    }

    /// Goes on with the stream that began with RESUME.
    fn go_on(&mut self, resumed: Resumed) -> Result<(), StreamError> {
        let Resumed { stream, decoder, link } = resumed;
        // The token itself was compared in the table of meetings.
        let resume = Frame::Resume(MoveToken::from_bytes([0; 16]));
        self.order.check(&resume).map_err(|error| StreamError::malformed(&error))?;
        self.link.stalls.forget(self.gate_id);
        self.gate.close();
        (self.gate_id, self.gate) = link.stalls.gate(stream);
        self.lease = Some(LinkLease::of(&link));
        self.link = link;
        self.decoder = decoder;
        self.at_end = false;
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), StreamError> {
        let (gate, chunks) = (&self.gate, &mut self.chunks);
        match poll_fn(|context| gate.poll_chunks(context, chunks)).await {
            Ok(true) => {}
            Ok(false) => self.at_end = true,
            Err(error) => return Err(self.read_error(&error)),
        }
        Ok(())
    }

    fn read_error(&self, error: &GateError) -> StreamError {
        match error {
            GateError::Stalled => StreamError::local(
                ErrorCode::StalledReader,
                "the stream was reset because its reader held the window for too long",
            ),
            GateError::Read(ReadError::Reset(packed)) => StreamError::reset(packed.into_inner()),
            GateError::Read(ReadError::ConnectionLost(lost)) => self.link.stream_error(lost),
            GateError::Read(other) => {
                StreamError::local(ErrorCode::Internal, &format!("cannot read: {other}"))
            }
        }
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        self.link.stalls.forget(self.gate_id);
        self.gate.close();
    }
}

fn unexpected(frame: &Frame) -> StreamError {
    StreamError::new(
        StreamErrorKind::Malformed,
        ErrorCode::FrameOutOfOrder,
        Dispatched::Maybe,
        format!("{} came where it has no meaning", frame.frame_type()),
    )
}

fn truncated() -> StreamError {
    StreamError::new(
        StreamErrorKind::Truncated,
        ErrorCode::Truncated,
        Dispatched::Maybe,
        "the stream ended without END",
    )
}
