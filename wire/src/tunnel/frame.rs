//! Frames: varint type, varint length, payload. The decoder takes bytes as they arrive and never
//! copies a payload that lies in one piece.

use std::fmt;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::code::ErrorCode;
use super::error::DecodeError;
use super::fields::{decode_message, fixed};
use super::head::{self, Head};
use super::hello::{Beacon, Drain, Hello};
use super::limits;
use super::open::Open;
use super::pb;
use super::refused::Refused;
use super::varint;

/// The registered frame types. Whoever does not know an odd one must refuse it, an even one must
/// skip it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    Hello = 0x01,
    /// Even: whoever skips beacons still hears every packet, and loses precision only.
    Beacon = 0x02,
    Drain = 0x03,
    Open = 0x05,
    Opened = 0x07,
    Refused = 0x09,
    Head = 0x0b,
    Data = 0x0d,
    Trailers = 0x0f,
    End = 0x11,
    Moved = 0x13,
    Resume = 0x15,
}

impl FrameType {
    pub const ALL: [Self; 12] = [
        Self::Hello,
        Self::Beacon,
        Self::Drain,
        Self::Open,
        Self::Opened,
        Self::Refused,
        Self::Head,
        Self::Data,
        Self::Trailers,
        Self::End,
        Self::Moved,
        Self::Resume,
    ];

    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u64 == number)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Beacon => "BEACON",
            Self::Drain => "DRAIN",
            Self::Open => "OPEN",
            Self::Opened => "OPENED",
            Self::Refused => "REFUSED",
            Self::Head => "HEAD",
            Self::Data => "DATA",
            Self::Trailers => "TRAILERS",
            Self::End => "END",
            Self::Moved => "MOVED",
            Self::Resume => "RESUME",
        }
    }

    /// The longest payload.
    pub fn bytes_max(self) -> usize {
        match self {
            Self::Hello => limits::HELLO_BYTES_MAX,
            Self::Beacon => limits::BEACON_BYTES_MAX,
            Self::Drain => limits::DRAIN_BYTES_MAX,
            Self::Open => limits::OPEN_BYTES_MAX,
            Self::Opened => limits::OPENED_BYTES_MAX,
            Self::Refused => limits::REFUSED_BYTES_MAX,
            Self::Head => limits::HEAD_BYTES_MAX,
            Self::Data => limits::DATA_BYTES_MAX,
            Self::Trailers => limits::TRAILERS_BYTES_MAX,
            Self::End => 0,
            Self::Moved | Self::Resume => TOKEN_BYTES,
        }
    }
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Types that are registered for the TCP fallback and for UDP flows; on QUIC they are refused.
const RESERVED: [(u64, &str); 3] = [(0x17, "RESET"), (0x19, "STOP"), (0x1b, "PACKET")];

const TOKEN_BYTES: usize = 16;

/// What ties a MOVED to its RESUME: random, used once.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MoveToken([u8; TOKEN_BYTES]);

impl MoveToken {
    pub const fn from_bytes(bytes: [u8; TOKEN_BYTES]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; TOKEN_BYTES] {
        &self.0
    }
}

impl fmt::Debug for MoveToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One frame, decoded; DATA comes in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Hello(Box<Hello>),
    Beacon(Beacon),
    Drain(Drain),
    Open(Box<Open>),
    Opened,
    Refused(Refused),
    Head(Box<Head>),
    /// Bytes of a DATA frame, never empty. Where one DATA frame ends and the next begins has no
    /// meaning, so it is not told.
    Data(Bytes),
    Trailers(Box<HeaderMap>),
    /// The direction is complete.
    End,
    /// The rest of the direction follows on another stream.
    Moved(MoveToken),
    /// This stream continues the direction that MOVED with this token left.
    Resume(MoveToken),
}

impl Frame {
    pub fn frame_type(&self) -> FrameType {
        match self {
            Self::Hello(_) => FrameType::Hello,
            Self::Beacon(_) => FrameType::Beacon,
            Self::Drain(_) => FrameType::Drain,
            Self::Open(_) => FrameType::Open,
            Self::Opened => FrameType::Opened,
            Self::Refused(_) => FrameType::Refused,
            Self::Head(_) => FrameType::Head,
            Self::Data(_) => FrameType::Data,
            Self::Trailers(_) => FrameType::Trailers,
            Self::End => FrameType::End,
            Self::Moved(_) => FrameType::Moved,
            Self::Resume(_) => FrameType::Resume,
        }
    }
}

/// Turns a stream's bytes into frames: `push` what arrived, then call `next` until it gives `None`.
///
/// It holds at most one payload of a bounded type; DATA and skipped frames pass through. Whether a
/// frame may come where it came is for [`super::FrameOrder`] to say.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    input: Bytes,
    state: State,
    /// A frame's head or payload of which the last chunk held only a part.
    partial: BytesMut,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Header,
    Payload {
        kind: FrameType,
        length: usize,
    },
    Data {
        remaining: usize,
    },
    Skipped {
        remaining: usize,
    },
    Failed(DecodeError),
}

impl FrameDecoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes. Call it after `next` gave `None`: then nothing is copied.
    pub fn push(&mut self, chunk: Bytes) {
        if self.input.is_empty() {
            self.input = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.input.len() + chunk.len());
            joined.extend_from_slice(&self.input);
            joined.extend_from_slice(&chunk);
            self.input = joined.freeze();
        }
    }

    /// The next frame or piece of DATA; `None` until more bytes are pushed. After an error every
    /// further call returns the same error.
    #[expect(clippy::should_implement_trait, reason = "an iterator would have to end at None")]
    pub fn next(&mut self) -> Result<Option<Frame>, DecodeError> {
        let result = self.step();
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
            self.input = Bytes::new();
            self.partial = BytesMut::new();
        }
        result
    }

    /// Whether the stream stands between two frames: only there may it end.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header) && self.partial.is_empty() && self.input.is_empty()
    }

    /// Accepts the end (FIN) of the stream, or says that it came within a frame.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.is_between_frames() {
            return Ok(());
        }
        Err(DecodeError::new(
            ErrorCode::Truncated,
            "stream",
            "FIN",
            "the stream ended within a frame",
            "send frames whole, or reset the stream",
        ))
    }

    fn step(&mut self) -> Result<Option<Frame>, DecodeError> {
        loop {
            match &mut self.state {
                State::Failed(error) => return Err(error.clone()),
                State::Header => {
                    let Some((number, length)) = self.take_header() else { return Ok(None) };
                    self.state = begin(number, length)?;
                }
                State::Payload { kind, length } => {
                    let (kind, length) = (*kind, *length);
                    let Some(payload) = self.take_payload(length) else { return Ok(None) };
                    self.state = State::Header;
                    return decode_payload(kind, payload).map(Some);
                }
                State::Data { remaining } => {
                    if self.input.is_empty() {
                        return Ok(None);
                    }
                    let piece = self.input.split_to(self.input.len().min(*remaining));
                    *remaining -= piece.len();
                    if *remaining == 0 {
                        self.state = State::Header;
                    }
                    return Ok(Some(Frame::Data(piece)));
                }
                State::Skipped { remaining } => {
                    let piece = self.input.split_to(self.input.len().min(*remaining));
                    *remaining -= piece.len();
                    if *remaining > 0 {
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
            }
        }
    }

    /// Type and length, if they have arrived.
    fn take_header(&mut self) -> Option<(u64, u64)> {
        if self.partial.is_empty()
            && let Some((number, length, taken)) = parse_header(&self.input)
        {
            let _ = self.input.split_to(taken);
            return Some((number, length));
        }
        // The header is split over chunks: gather it bytewise; it has at most 16 bytes.
        while !self.input.is_empty() {
            self.partial.extend_from_slice(&self.input.split_to(1));
            if let Some((number, length, _)) = parse_header(&self.partial) {
                self.partial.clear();
                return Some((number, length));
            }
        }
        None
    }

    /// A whole payload, if it has arrived: shared if it lies in one chunk, else gathered.
    fn take_payload(&mut self, length: usize) -> Option<Bytes> {
        if self.partial.is_empty() && self.input.len() >= length {
            return Some(self.input.split_to(length));
        }
        let missing = length - self.partial.len();
        let piece = self.input.split_to(self.input.len().min(missing));
        self.partial.extend_from_slice(&piece);
        (self.partial.len() == length).then(|| self.partial.split().freeze())
    }
}

fn parse_header(input: &[u8]) -> Option<(u64, u64, usize)> {
    let (number, first) = varint::decode(input)?;
    let (length, second) = varint::decode(&input[first..])?;
    Some((number, length, first + second))
}

/// Decides by type and length alone what to do with a frame: nothing of it is held before.
fn begin(number: u64, length: u64) -> Result<State, DecodeError> {
    let Some(kind) = FrameType::from_number(number) else {
        return begin_unknown(number, length);
    };
    let max = kind.bytes_max();
    let length = match usize::try_from(length) {
        Ok(length) if length <= max => length,
        _ => return Err(too_large(kind.as_str().into(), length, max)),
    };
    match (kind, length) {
        (FrameType::Data, 0) => Err(DecodeError::malformed(
            "DATA.length",
            0,
            "an empty DATA frame says nothing",
            "leave it out",
        )),
        (FrameType::Data, remaining) => Ok(State::Data { remaining }),
        (kind, length) => Ok(State::Payload { kind, length }),
    }
}

fn begin_unknown(number: u64, length: u64) -> Result<State, DecodeError> {
    if let Some((_, name)) = RESERVED.iter().find(|(reserved, _)| *reserved == number) {
        return Err(DecodeError::new(
            ErrorCode::UnknownOddFrame,
            "frame type",
            format!("{number:#x} ({name})"),
            "it is reserved and not used on QUIC streams",
            "reset the QUIC stream, or send UDP payloads as datagrams",
        ));
    }
    if number % 2 == 1 {
        return Err(DecodeError::new(
            ErrorCode::UnknownOddFrame,
            "frame type",
            format!("{number:#x}"),
            "it is odd, so it must be understood, and it is not known here",
            "send only types that the negotiated version and features have",
        ));
    }
    match usize::try_from(length) {
        Ok(remaining) if remaining <= limits::SKIPPED_BYTES_MAX => Ok(State::Skipped { remaining }),
        _ => Err(too_large(format!("frame {number:#x}"), length, limits::SKIPPED_BYTES_MAX)),
    }
}

fn too_large(frame: String, length: u64, max: usize) -> DecodeError {
    DecodeError::new(
        ErrorCode::FrameTooLarge,
        format!("{frame}.length"),
        length,
        format!("it is more than {max} bytes"),
        "send less in one frame",
    )
}

fn decode_payload(kind: FrameType, payload: Bytes) -> Result<Frame, DecodeError> {
    Ok(match kind {
        FrameType::Hello => Frame::Hello(Box::new(Hello::decode(payload)?)),
        FrameType::Beacon => Frame::Beacon(Beacon::decode(payload)?),
        FrameType::Drain => Frame::Drain(Drain::decode(payload)?),
        FrameType::Open => Frame::Open(Box::new(Open::decode(payload)?)),
        FrameType::Opened => {
            let pb::Opened {} = decode_message("OPENED", payload)?;
            Frame::Opened
        }
        FrameType::Refused => Frame::Refused(Refused::decode(payload)?),
        FrameType::Head => Frame::Head(Box::new(Head::decode(payload)?)),
        FrameType::Data => Frame::Data(payload),
        FrameType::Trailers => Frame::Trailers(Box::new(head::decode_trailers(payload)?)),
        FrameType::End => Frame::End,
        FrameType::Moved => Frame::Moved(MoveToken(fixed("MOVED.token", &payload)?)),
        FrameType::Resume => Frame::Resume(MoveToken(fixed("RESUME.token", &payload)?)),
    })
}
