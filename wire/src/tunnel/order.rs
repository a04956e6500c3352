//! Which frame may come when: one small state machine per direction of a stream.

use http::{HeaderMap, Method, StatusCode};

use super::code::ErrorCode;
use super::error::DecodeError;
use super::frame::Frame;
use super::head::{Head, ResponseHead, content_length};
use super::limits::INTERIM_HEADS_MAX;
use super::open::StreamKind;

/// Follows one direction of a stream and refuses frames that it does not allow. After MOVED it goes
/// on with the frames of the RESUME stream.
#[derive(Debug, Clone)]
pub struct FrameOrder {
    stage: Stage,
    message: Message,
    body: Body,
    interim_heads: usize,
    has_moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    ControlStart,
    Control,
    /// Waits for OPEN.
    Open,
    /// Waits for OPENED or REFUSED.
    Answer,
    Head,
    Body,
    /// Only END is left to come.
    Trailed,
    /// Left this stream; RESUME on another goes on.
    Moved,
    Ended,
    Refused,
}

/// What the direction carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Request,
    /// `to_head`: it answers HEAD, so it has no body whatever its Content-Length says.
    Response {
        to_head: bool,
        to_connect: bool,
    },
    /// No heads, no trailers.
    Raw,
}

/// What Content-Length promised and how much of it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Body {
    promised: Option<u64>,
    received: u64,
}

impl FrameOrder {
    /// Either direction of the control stream.
    pub fn control() -> Self {
        Self::starting_at(Stage::ControlStart, Message::Raw)
    }

    /// From the initiator of a bidirectional stream: OPEN, then the request or raw bytes.
    pub fn initiator() -> Self {
        Self::starting_at(Stage::Open, Message::Raw)
    }

    /// From the acceptor of a TCP stream.
    pub fn acceptor_tcp() -> Self {
        Self::starting_at(Stage::Answer, Message::Raw)
    }

    /// From the acceptor of an HTTP stream whose request has this method.
    pub fn acceptor_http(method: &Method) -> Self {
        let (to_head, to_connect) = (*method == Method::HEAD, *method == Method::CONNECT);
        Self::starting_at(Stage::Answer, Message::Response { to_head, to_connect })
    }

    fn starting_at(stage: Stage, message: Message) -> Self {
        let body = Body { promised: None, received: 0 };
        Self { stage, message, body, interim_heads: 0, has_moved: false }
    }

    /// Accepts the next frame of the direction, or says why it may not come here.
    pub fn check(&mut self, frame: &Frame) -> Result<(), DecodeError> {
        self.stage = match (self.stage, frame) {
            (Stage::ControlStart, Frame::Hello(_)) => Stage::Control,
            (Stage::Control, Frame::Beacon(_) | Frame::Drain(_)) => Stage::Control,
            (Stage::Open, Frame::Open(open)) => self.open(open.kind),
            (Stage::Answer, Frame::Opened) if self.message == Message::Raw => Stage::Body,
            (Stage::Answer, Frame::Opened) => Stage::Head,
            (Stage::Answer, Frame::Refused(_)) => Stage::Refused,
            (Stage::Head, Frame::Head(head)) => self.head(head)?,
            (Stage::Body, Frame::Data(data)) => {
                self.body.add(data.len() as u64)?;
                Stage::Body
            }
            (Stage::Body, Frame::Trailers(_)) if self.message != Message::Raw => Stage::Trailed,
            (Stage::Body | Stage::Trailed, Frame::End) => {
                self.body.finish()?;
                Stage::Ended
            }
            (Stage::Body, Frame::Moved(_)) if !self.has_moved => {
                self.has_moved = true;
                Stage::Moved
            }
            (Stage::Moved, Frame::Resume(_)) => Stage::Body,
            (Stage::Body, Frame::Moved(_)) => {
                return Err(out_of_order(frame, "a direction moves only once"));
            }
            (stage, frame) => return Err(out_of_order(frame, due(stage, self.message))),
        };
        Ok(())
    }

    /// Accepts the end (FIN) of the stream that carries the direction now, or says what is missing.
    /// After MOVED that is the stream it left, until RESUME was checked.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.stage {
            Stage::Ended | Stage::Refused | Stage::Moved => Ok(()),
            stage => Err(DecodeError::new(
                ErrorCode::Truncated,
                "stream",
                "FIN",
                format!("the stream ended where {}", due(stage, self.message)),
                "end each direction with END, or reset the stream",
            )),
        }
    }

    /// Whether nothing more may come in this direction.
    pub fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Ended | Stage::Refused)
    }

    fn open(&mut self, kind: StreamKind) -> Stage {
        match kind {
            StreamKind::Http => {
                self.message = Message::Request;
                Stage::Head
            }
            StreamKind::Tcp => Stage::Body,
            // A flow's payloads are datagrams.
            StreamKind::Udp => Stage::Trailed,
        }
    }

    fn head(&mut self, head: &Head) -> Result<Stage, DecodeError> {
        match (self.message, head) {
            (Message::Request, Head::Request(head)) => {
                // What follows CONNECT is not content (RFC 9110 §9.3.6).
                if head.method != Method::CONNECT {
                    self.body.promised = promised_length(&head.headers);
                }
                Ok(Stage::Body)
            }
            (Message::Response { .. }, Head::Response(head)) if head.is_interim() => {
                self.interim_heads += 1;
                if self.interim_heads > INTERIM_HEADS_MAX {
                    return Err(DecodeError::new(
                        ErrorCode::FrameOutOfOrder,
                        "HEAD.status",
                        head.status.as_str(),
                        format!("more than {INTERIM_HEADS_MAX} interim heads came"),
                        "send the final response",
                    ));
                }
                Ok(Stage::Head)
            }
            (Message::Response { to_head, to_connect }, Head::Response(head)) => {
                self.body.promised = response_length(head, to_head, to_connect);
                Ok(Stage::Body)
            }
            (_, Head::Request(_)) => Err(wrong_head("a request", "a response")),
            (_, Head::Response(_)) => Err(wrong_head("a response", "a request")),
        }
    }
}

/// RFC 9110 §6.4.1: which responses have a body, and how long it is.
fn response_length(head: &ResponseHead, to_head: bool, to_connect: bool) -> Option<u64> {
    if to_connect && head.status.is_success() {
        return None;
    }
    if to_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Some(0);
    }
    promised_length(&head.headers)
}

fn promised_length(headers: &HeaderMap) -> Option<u64> {
    content_length(headers.get(http::header::CONTENT_LENGTH)?.as_bytes())
}

impl Body {
    fn add(&mut self, bytes: u64) -> Result<(), DecodeError> {
        self.received = self.received.saturating_add(bytes);
        match self.promised {
            Some(promised) if self.received > promised => Err(self.unlike(promised)),
            _ => Ok(()),
        }
    }

    fn finish(&self) -> Result<(), DecodeError> {
        match self.promised {
            Some(promised) if self.received != promised => Err(self.unlike(promised)),
            _ => Ok(()),
        }
    }

    /// A difference here is how requests are smuggled further on, so it ends the exchange.
    fn unlike(&self, promised: u64) -> DecodeError {
        DecodeError::malformed(
            "body",
            format!("{} bytes", self.received),
            format!("the head promised {promised}"),
            "send as many bytes as content-length says, and none where a response has no body",
        )
    }
}

/// What the direction is waiting for, for an error's text.
fn due(stage: Stage, message: Message) -> &'static str {
    match stage {
        Stage::ControlStart => "HELLO was due",
        Stage::Control => "BEACON or DRAIN was due",
        Stage::Open => "OPEN was due",
        Stage::Answer => "OPENED or REFUSED was due",
        Stage::Head => "HEAD was due",
        Stage::Body if message == Message::Raw => "DATA, END or MOVED was due",
        Stage::Body => "DATA, TRAILERS, END or MOVED was due",
        Stage::Trailed => "END was due",
        Stage::Moved => "the rest of the direction follows on the RESUME stream",
        Stage::Ended => "nothing may follow END",
        Stage::Refused => "nothing may follow REFUSED",
    }
}

fn out_of_order(frame: &Frame, problem: &'static str) -> DecodeError {
    let fix = "send frames in the order of the stream's kind";
    DecodeError::new(ErrorCode::FrameOutOfOrder, "frame", frame.frame_type(), problem, fix)
}

fn wrong_head(got: &'static str, due: &'static str) -> DecodeError {
    let fix = "the initiator sends the request, the acceptor the response";
    DecodeError::malformed("HEAD.start", got, format!("{due} was due"), fix)
}
