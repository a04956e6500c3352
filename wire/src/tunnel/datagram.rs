//! A QUIC datagram of the tunnel: the flow that it belongs to, then one UDP payload.

use bytes::{Bytes, BytesMut};

use super::error::{DecodeError, EncodeError};
use super::varint::{self, VARINT_MAX};

/// One UDP payload of one flow. The flow's id is the QUIC stream id of its `Open`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub flow: u64,
    pub payload: Bytes,
}

impl Datagram {
    /// Appends flow id and payload.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        if self.flow > VARINT_MAX {
            let fix = "use the stream id of the flow's OPEN";
            let problem = "it does not fit a QUIC varint";
            return Err(EncodeError::invalid("DATAGRAM.flow", self.flow, problem, fix));
        }
        varint::encode(self.flow, out);
        out.extend_from_slice(&self.payload);
        Ok(())
    }

    /// Splits a datagram; the payload shares its buffer.
    pub fn decode(mut datagram: Bytes) -> Result<Self, DecodeError> {
        let (flow, length) = varint::decode(&datagram).ok_or_else(|| {
            DecodeError::malformed(
                "DATAGRAM.flow",
                format!("{} bytes", datagram.len()),
                "the datagram ends within its flow id",
                "begin it with the flow id as a QUIC varint",
            )
        })?;
        let payload = datagram.split_off(length);
        Ok(Self { flow, payload })
    }
}
