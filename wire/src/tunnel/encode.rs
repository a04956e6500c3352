//! Writing frames. Each function appends one frame to a buffer of the caller's, so that OPEN, HEAD
//! and the first DATA header can leave in one write; DATA's payload is never copied.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::error::EncodeError;
use super::frame::{FrameType, MoveToken};
use super::head::{self, RequestHead, ResponseHead};
use super::hello::{Beacon, Drain, Hello};
use super::limits::DATA_BYTES_MAX;
use super::open::Open;
use super::refused::Refused;
use super::varint;

pub fn encode_hello(hello: &Hello, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame(FrameType::Hello, out, |out| hello.encode(out))
}

pub fn encode_beacon(beacon: &Beacon, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame(FrameType::Beacon, out, |out| beacon.encode(out))
}

pub fn encode_drain(drain: &Drain, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame(FrameType::Drain, out, |out| drain.encode(out))
}

pub fn encode_open(open: &Open, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame(FrameType::Open, out, |out| open.encode(out))
}

pub fn encode_opened(out: &mut BytesMut) {
    out.put_slice(&[FrameType::Opened as u8, 0]);
}

pub fn encode_refused(refused: &Refused, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame(FrameType::Refused, out, |out| refused.encode(out))
}

pub fn encode_request_head(head: &RequestHead, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame(FrameType::Head, out, |out| head.encode(out))
}

pub fn encode_response_head(head: &ResponseHead, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame(FrameType::Head, out, |out| head.encode(out))
}

pub fn encode_trailers(trailers: &HeaderMap, out: &mut BytesMut) -> Result<(), EncodeError> {
    frame(FrameType::Trailers, out, |out| head::encode_trailers(trailers, out))
}

pub fn encode_end(out: &mut BytesMut) {
    out.put_slice(&[FrameType::End as u8, 0]);
}

pub fn encode_moved(token: MoveToken, out: &mut BytesMut) {
    encode_token(FrameType::Moved, token, out);
}

pub fn encode_resume(token: MoveToken, out: &mut BytesMut) {
    encode_token(FrameType::Resume, token, out);
}

fn encode_token(kind: FrameType, token: MoveToken, out: &mut BytesMut) {
    let bytes = token.as_bytes();
    out.put_slice(&[kind as u8, bytes.len() as u8]);
    out.put_slice(bytes);
}

/// Takes the next DATA frame off `payload`: appends its header to `out` and returns the bytes that
/// must follow it. `None` once nothing is left.
pub fn encode_data(payload: &mut Bytes, out: &mut BytesMut) -> Option<Bytes> {
    if payload.is_empty() {
        return None;
    }
    let chunk = payload.split_to(payload.len().min(DATA_BYTES_MAX));
    out.put_u8(FrameType::Data as u8);
    varint::encode(chunk.len() as u64, out);
    Some(chunk)
}

/// Appends one frame whose length is known only after its body was written. The length is written
/// in two bytes, as most bodies are short; a longer one is moved to make room for four.
fn frame(
    kind: FrameType,
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_slice(&[kind as u8, 0, 0]);
    let body_start = out.len();
    let result = body(out).and_then(|()| {
        let (bytes, max) = (out.len() - body_start, kind.bytes_max());
        if bytes > max {
            return Err(EncodeError::TooLarge { frame: kind.as_str(), bytes, max });
        }
        Ok(())
    });
    if let Err(error) = result {
        out.truncate(start);
        return Err(error);
    }
    let length = out.len() - body_start;
    if length < 0x4000 {
        out[start + 1..body_start].copy_from_slice(&(0x4000 | length as u16).to_be_bytes());
    } else {
        out.put_u16(0);
        out.copy_within(body_start..body_start + length, body_start + 2);
        out[start + 1..start + 5].copy_from_slice(&(0x8000_0000 | length as u32).to_be_bytes());
    }
    Ok(())
}
