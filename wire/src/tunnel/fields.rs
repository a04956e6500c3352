//! Checks that the bodies' fields share, each with an error that names field, value and fix.

use bytes::Bytes;
use prost::Message;

use super::error::DecodeError;
use super::protobuf;

/// Decodes a protobuf body with the generated code.
pub(crate) fn decode_message<M: Message + Default>(
    frame: &'static str,
    payload: Bytes,
) -> Result<M, DecodeError> {
    let length = payload.len();
    M::decode(payload).map_err(|error| {
        DecodeError::malformed(
            frame,
            format!("{length} bytes"),
            format!("it is not the protobuf message of the schema ({error})"),
            "encode it as tunnel.proto has it",
        )
    })
}

pub(crate) fn not_protobuf(frame: &'static str, broken: protobuf::Broken) -> DecodeError {
    let fix = "encode it as tunnel.proto has it";
    DecodeError::malformed(frame, "the payload", broken.as_str(), fix)
}

/// A bytes field of a fixed width.
pub(crate) fn fixed<const N: usize>(
    field: &'static str,
    value: &[u8],
) -> Result<[u8; N], DecodeError> {
    value.try_into().map_err(|_| {
        let problem = format!("it is not {N} bytes long");
        DecodeError::malformed(
            field,
            format!("{} bytes", value.len()),
            problem,
            format!("send {N} bytes"),
        )
    })
}

/// A number field with both bounds included.
pub(crate) fn number(
    field: &'static str,
    value: u64,
    min: u32,
    max: u32,
    problem: &'static str,
    fix: &'static str,
) -> Result<u32, DecodeError> {
    match u32::try_from(value) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(DecodeError::malformed(field, value, problem, fix)),
    }
}

pub(crate) fn text<'a>(field: &'static str, value: &'a [u8]) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(value).map_err(|_| {
        let shown = format!("{:?}", String::from_utf8_lossy(value));
        DecodeError::malformed(field, shown, "it is not UTF-8", "send text as UTF-8")
    })
}

pub(crate) fn bad_name(field: &'static str, value: &str, reason: &'static str) -> DecodeError {
    DecodeError::malformed(field, format!("{value:?}"), reason, "send a valid name")
}
