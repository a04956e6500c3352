//! Tunnel v1: what gateways of two clusters say to each other over QUIC. `docs/reference/tunnel.md`
//! is the specification; its tables and vectors are checked against this code.
//!
//! Reading a stream: [`FrameDecoder`] turns bytes into [`Frame`]s, [`FrameOrder`] says whether each
//! may come where it came. Writing: the `encode_*` functions. There is no I/O, clock or randomness.

pub mod limits;
pub mod varint;

mod code;
mod connection_id;
mod datagram;
mod encode;
mod error;
mod fields;
mod frame;
mod head;
mod hello;
mod open;
mod order;
mod pb;
mod protobuf;
mod refused;
mod static_table;

pub use code::{Blame, Dispatched, ERROR_CODES, ErrorCode, ErrorEntry, Retry, StreamReset};
pub use connection_id::{CONNECTION_ID_BYTES, ConnectionId};
pub use datagram::Datagram;
pub use encode::{
    encode_beacon, encode_data, encode_drain, encode_end, encode_hello, encode_moved, encode_open,
    encode_opened, encode_refused, encode_request_head, encode_response_head, encode_resume,
    encode_trailers,
};
pub use error::{DecodeError, EncodeError};
pub use frame::{Frame, FrameDecoder, FrameType, MoveToken};
pub use head::{Head, RequestHead, ResponseHead};
pub use hello::{Beacon, ConnectionClass, Drain, Hello, PeerLimits, VERSIONS, VersionRange};
pub use open::{Open, RouteRevision, RouteSide, StreamKind, TraceContext, Via};
pub use order::FrameOrder;
pub use refused::Refused;
pub use static_table::{FIELDS, NAMES};

/// Traffic between gateways: the protocol of this module.
pub const ALPN_TUNNEL: &[u8] = b"fedgate-tunnel/1";
/// Raft and store RPC between federation nodes, relayed by gateways.
pub const ALPN_STORE: &[u8] = b"fedgate-store/1";
/// Joining a federation, relayed by gateways.
pub const ALPN_JOIN: &[u8] = b"fedgate-join/1";
