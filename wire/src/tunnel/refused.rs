//! REFUSED: the acceptor does not serve the stream.

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::code::{Dispatched, ErrorCode};
use super::error::{DecodeError, EncodeError};
use super::fields::decode_message;
use super::limits::MESSAGE_BYTES_MAX;
use super::pb;

/// The acceptor does not serve the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub code: ErrorCode,
    pub dispatched: Dispatched,
    /// For people.
    pub message: String,
}

impl Refused {
    /// `message` is cut to what the format allows.
    pub fn new(code: ErrorCode, dispatched: Dispatched, message: &str) -> Self {
        let message = message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned();
        Self { code, dispatched, message }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let message = pb::Refused {
            code: self.code.number(),
            dispatched: match self.dispatched {
                Dispatched::No => pb::Dispatched::No,
                Dispatched::Maybe => pb::Dispatched::Maybe,
                Dispatched::Yes => pb::Dispatched::Yes,
            }
            .into(),
            message: self.message.clone(),
        };
        message.encode_raw(out);
        Ok(())
    }

    pub(crate) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let raw: pb::Refused = decode_message("REFUSED", payload)?;
        let dispatched = match pb::Dispatched::try_from(raw.dispatched) {
            Ok(pb::Dispatched::No) => Dispatched::No,
            Ok(pb::Dispatched::Yes) => Dispatched::Yes,
            Ok(pb::Dispatched::Maybe) => Dispatched::Maybe,
            Ok(pb::Dispatched::Unspecified) | Err(_) => {
                return Err(DecodeError::malformed(
                    "REFUSED.dispatched",
                    raw.dispatched,
                    "it is not no (1), maybe (2) or yes (3)",
                    "say whether the application may have seen the exchange",
                ));
            }
        };
        if raw.message.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::malformed(
                "REFUSED.message",
                format!("{:?}", raw.message),
                format!("it is {} bytes long, more than {MESSAGE_BYTES_MAX}", raw.message.len()),
                "shorten it",
            ));
        }
        Ok(Self { code: ErrorCode::from_number(raw.code), dispatched, message: raw.message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_cut_between_characters() {
        let message = "é".repeat(MESSAGE_BYTES_MAX);
        let refused = Refused::new(ErrorCode::Overloaded, Dispatched::No, &format!("x{message}"));
        assert_eq!(refused.message.len(), MESSAGE_BYTES_MAX - 1);
    }
}
