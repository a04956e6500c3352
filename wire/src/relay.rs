//! What stands before the bytes of a relayed store or join stream, on the Unix sockets or TLS
//! connections between a gateway and its federation node: one message in each direction that has something to say.
//!
//! A message is `FGR1`, its length as a big-endian `u16`, and a protobuf body of `relay.proto`.

use std::net::SocketAddr;

use model::{ClusterName, SpiffeId};
use prost::Message;

use crate::error::{At, WireError};

pub use crate::grpc::fedgate::relay::v1 as proto;

/// What both sides name in the TLS handshake where there are no Unix sockets.
pub const ALPN: &[u8] = b"fedgate-relay/1";
/// Magic and length.
pub const HEADER_BYTES: usize = 6;
/// Longest body.
pub const BODY_BYTES_MAX: usize = 4096;
/// Longest text of a refusal.
pub const REFUSED_BYTES_MAX: usize = 1024;

/// The digit is the format's version: another one is refused.
const MAGIC: [u8; 4] = *b"FGR1";

/// What a relayed stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelayProtocol {
    Store,
    Join,
}

/// Whose bytes follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    pub protocol: RelayProtocol,
    /// As the outer handshake proved it; `None` is unverified, which only a joiner may be.
    pub peer: Option<(ClusterName, SpiffeId)>,
    pub remote: SocketAddr,
}

/// The node asks a gateway for a stream on a store connection that the gateway holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRequest {
    pub cluster: ClusterName,
}

/// Whether there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamAnswer {
    Open,
    Refused(String),
}

/// The body's length, from the header that was read.
pub fn body_length(header: [u8; HEADER_BYTES]) -> Result<usize, WireError> {
    let at = At::message("relay header");
    let [magic @ .., high, low] = header;
    if magic != MAGIC {
        let shown = String::from_utf8_lossy(&magic).into_owned();
        return Err(at.field("magic").refuse(shown, "begin with FGR1"));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    at.field("length").check_bytes(length, BODY_BYTES_MAX)?;
    Ok(length)
}

impl Preamble {
    pub fn encode(&self) -> Vec<u8> {
        let protocol = match self.protocol {
            RelayProtocol::Store => proto::Protocol::Store,
            RelayProtocol::Join => proto::Protocol::Join,
        };
        let peer = self.peer.as_ref();
        let (cluster, spiffe_id) =
            peer.map(|(cluster, id)| (cluster.to_string(), id.to_string())).unwrap_or_default();
        let remote = self.remote.to_string();
        framed(&proto::Preamble { protocol: protocol.into(), cluster, spiffe_id, remote })
    }

    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let at = At::message("Preamble");
        let message: proto::Preamble = unframed(at, body)?;
        let protocol = match proto::Protocol::try_from(message.protocol) {
            Ok(proto::Protocol::Store) => RelayProtocol::Store,
            Ok(proto::Protocol::Join) => RelayProtocol::Join,
            _ => return Err(at.field("protocol").refuse(message.protocol, "use 1 or 2")),
        };
        let (cluster, id) = (at.field("cluster"), at.field("spiffe_id"));
        let peer = match (message.cluster.is_empty(), message.spiffe_id.is_empty()) {
            (true, true) if protocol == RelayProtocol::Join => None,
            (true, _) => return Err(cluster.missing("only a joiner may be unverified")),
            (false, _) => Some((
                ClusterName::parse(&message.cluster)
                    .map_err(|error| cluster.refuse(&message.cluster, error))?,
                SpiffeId::parse(&message.spiffe_id)
                    .map_err(|error| id.refuse(&message.spiffe_id, error))?,
            )),
        };
        let wrong = |_| at.field("remote").refuse(&message.remote, "write it as address:port");
        let remote = message.remote.parse().map_err(wrong)?;
        Ok(Self { protocol, peer, remote })
    }
}

impl StreamRequest {
    pub fn encode(&self) -> Vec<u8> {
        framed(&proto::StreamRequest { cluster: self.cluster.to_string() })
    }

    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let at = At::message("StreamRequest");
        let message: proto::StreamRequest = unframed(at, body)?;
        let cluster = ClusterName::parse(&message.cluster)
            .map_err(|error| at.field("cluster").refuse(&message.cluster, error))?;
        Ok(Self { cluster })
    }
}

impl StreamAnswer {
    pub fn encode(&self) -> Vec<u8> {
        let refused = match self {
            Self::Open => String::new(),
            Self::Refused(text) if text.is_empty() => "no reason given".into(),
            Self::Refused(text) => text[..text.floor_char_boundary(REFUSED_BYTES_MAX)].into(),
        };
        framed(&proto::StreamAnswer { refused })
    }

    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let at = At::message("StreamAnswer");
        let message: proto::StreamAnswer = unframed(at, body)?;
        at.field("refused").check_bytes(message.refused.len(), REFUSED_BYTES_MAX)?;
        Ok(if message.refused.is_empty() { Self::Open } else { Self::Refused(message.refused) })
    }
}

fn framed(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u16::try_from(body.len()).expect("names, addresses and refusals are short");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn unframed<M: Message + Default>(at: At<'_>, body: &[u8]) -> Result<M, WireError> {
    M::decode(body).map_err(|error| at.refuse(body, format_args!("it is not protobuf: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(bytes: &[u8]) -> &[u8] {
        let (header, body) = bytes.split_first_chunk().unwrap();
        assert_eq!(body_length(*header).unwrap(), body.len());
        body
    }

    fn peer() -> Option<(ClusterName, SpiffeId)> {
        let id = SpiffeId::parse("spiffe://west.fed/fedgate/federation/node-0").unwrap();
        Some((ClusterName::parse("west").unwrap(), id))
    }

    #[test]
    fn messages_survive_the_wire() {
        let remote = "192.0.2.7:8443".parse().unwrap();
        let (store, join) = (RelayProtocol::Store, RelayProtocol::Join);
        for (protocol, peer) in [(store, peer()), (join, peer()), (join, None)] {
            let preamble = Preamble { protocol, peer, remote };
            assert_eq!(Preamble::decode(split(&preamble.encode())), Ok(preamble));
        }
        let request = StreamRequest { cluster: ClusterName::parse("west").unwrap() };
        assert_eq!(StreamRequest::decode(split(&request.encode())), Ok(request));
        for answer in [StreamAnswer::Open, StreamAnswer::Refused("no".into())] {
            assert_eq!(StreamAnswer::decode(split(&answer.encode())), Ok(answer));
        }
        let long = StreamAnswer::Refused("ä".repeat(1000)).encode();
        let StreamAnswer::Refused(text) = StreamAnswer::decode(split(&long)).unwrap() else {
            panic!("{long:?}")
        };
        assert_eq!(text.len(), REFUSED_BYTES_MAX);
    }

    /// If this fails, the format has changed: give it another digit instead.
    #[test]
    fn the_bytes_of_a_preamble_stay_the_same() {
        let remote = "192.0.2.7:8443".parse().unwrap();
        let bytes = Preamble { protocol: RelayProtocol::Store, peer: peer(), remote }.encode();
        let mut golden = b"FGR1\0\x45\x08\x01\x12\x04west\x1a\x2b".to_vec();
        golden.extend_from_slice(b"spiffe://west.fed/fedgate/federation/node-0");
        golden.extend_from_slice(b"\x22\x0e192.0.2.7:8443");
        assert_eq!(bytes, golden);
    }

    #[test]
    fn what_breaks_the_format_is_named() {
        let header = |text: &[u8; 6]| body_length(*text).unwrap_err().to_string();
        assert_eq!(header(b"FGR2\0\0"), "relay header.magic = \"FGR2\": begin with FGR1");
        let long = "relay header.length = 4097 bytes: at most 4096 bytes are allowed";
        assert_eq!(header(b"FGR1\x10\x01"), long);
        let good = proto::Preamble {
            protocol: 1,
            cluster: "west".into(),
            spiffe_id: "spiffe://west.fed/fedgate/federation/node-0".into(),
            remote: "192.0.2.7:8443".into(),
        };
        type Spoil = fn(&mut proto::Preamble);
        let table: [(Spoil, &str); 6] = [
            (|p| p.protocol = 3, "Preamble.protocol = 3: use 1 or 2"),
            (|p| p.cluster = "W".into(), "Preamble.cluster = \"W\""),
            (|p| p.spiffe_id = "west".into(), "Preamble.spiffe_id = \"west\""),
            (|p| p.remote = "west".into(), "Preamble.remote = \"west\": write it as address:port"),
            (|p| p.cluster.clear(), "Preamble.cluster = (absent): only a joiner may be unverified"),
            (
                |p| {
                    p.cluster.clear();
                    p.spiffe_id.clear();
                },
                "Preamble.cluster = (absent): only a joiner may be unverified",
            ),
        ];
        for (spoil, text) in table {
            let mut message = good.clone();
            spoil(&mut message);
            let error = Preamble::decode(&message.encode_to_vec()).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error:?} does not begin with {text:?}");
        }
        let garbage = Preamble::decode(&[0xff]).unwrap_err().to_string();
        assert!(garbage.starts_with("Preamble = [255]: it is not protobuf"), "{garbage}");
        let long = proto::StreamAnswer { refused: "x".repeat(1025) }.encode_to_vec();
        let error = StreamAnswer::decode(&long).unwrap_err().to_string();
        assert_eq!(error, "StreamAnswer.refused = 1025 bytes: at most 1024 bytes are allowed");
    }
}
