//! The control stream's frames: HELLO once, then beacons and DRAIN.

use bytes::{Bytes, BytesMut};
use model::GatewayId;
use prost::Message;

use super::code::ErrorCode;
use super::error::{DecodeError, EncodeError};
use super::fields::{decode_message, fixed, number};
use super::limits::{
    BEACON_HEADS_MAX, BEACON_REVOCATIONS_MAX, DEADLINE_MS_MAX, FEATURES_MAX, LOAD_PERMILLE_MAX,
    SIBLINGS_MAX, SIGNED_HEAD_BYTES_MAX, SIGNED_REVOCATION_BYTES_MAX, STREAM_WINDOW_BYTES_MIN,
    WINDOW_BYTES_MAX, WORKERS_MAX,
};
use super::pb;

/// The minor versions that this code speaks. The major version is in the ALPN.
pub const VERSIONS: VersionRange = VersionRange { min: 1, max: 1 };

/// The first frame of the control stream, once from each side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub versions: VersionRange,
    /// Registered feature numbers, ascending; unknown ones are kept and mean nothing.
    pub features: Vec<u32>,
    pub limits: PeerLimits,
    /// To be compared with the id that the peer's certificate gives.
    pub gateway: GatewayId,
    /// Random, drawn once per process start.
    pub incarnation: u64,
    pub class: ConnectionClass,
    /// The sender's worker that drives this connection.
    pub worker: u8,
    /// The Head of the sender's cluster in its signed envelope, which is not judged here; empty
    /// without a federation store.
    pub head: Bytes,
    /// The gateways of the sender's cluster that serve now, its own among them, ascending; empty if
    /// the sender does not know.
    pub siblings: Vec<GatewayId>,
}

/// Minor versions spoken, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    pub min: u32,
    pub max: u32,
}

impl VersionRange {
    /// The version that two sides use: the highest that both speak.
    pub fn common(self, peer: Self) -> Result<u32, DecodeError> {
        let version = self.max.min(peer.max);
        if version < self.min.max(peer.min) {
            return Err(DecodeError::new(
                ErrorCode::UnsupportedVersion,
                "HELLO.version_min..version_max",
                format!("{}..{}", peer.min, peer.max),
                format!("this side speaks {}..{}", self.min, self.max),
                "upgrade the older gateway",
            ));
        }
        Ok(version)
    }
}

/// What the sender of a HELLO grants its peer on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    pub stream_window_bytes: u64,
    pub connection_window_bytes: u64,
    /// Bidirectional streams open at once.
    pub streams_max: u32,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionClass {
    /// Control, small exchanges, and the first part of each.
    Fast,
    /// Long transfers, with large windows.
    Bulk,
}

impl ConnectionClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Bulk => "bulk",
        }
    }
}

/// A sign of life with a summary of load, and what the sender's federation node has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    pub incarnation: u64,
    /// Counts up within the incarnation and the connection.
    pub sequence: u64,
    /// Milliseconds since the sender last heard an authenticated packet on this connection.
    pub heard_age_ms: u32,
    /// Exchanges that the sender's whole gateway is serving now.
    pub in_flight: u32,
    /// How busy the sender's whole gateway is; 1000 is full.
    pub load_permille: u32,
    pub draining: bool,
    /// Heads in their signed envelopes, which are not judged here: of any owner.
    pub heads: Vec<Bytes>,
    /// Revocations in their signed envelopes.
    pub revocations: Vec<Bytes>,
    /// As in HELLO; empty when nothing has changed since it was last said on this connection.
    pub siblings: Vec<GatewayId>,
}

/// The sender takes no new streams; what is open may go on for `grace_ms`, at most a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    pub grace_ms: u32,
}

impl Hello {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let class = match self.class {
            ConnectionClass::Fast => pb::ConnectionClass::Fast,
            ConnectionClass::Bulk => pb::ConnectionClass::Bulk,
        };
        let raw = pb::Hello {
            version_min: self.versions.min,
            version_max: self.versions.max,
            features: self.features.clone(),
            limits: Some(pb::Limits {
                stream_window_bytes: self.limits.stream_window_bytes,
                connection_window_bytes: self.limits.connection_window_bytes,
                streams_max: self.limits.streams_max,
            }),
            gateway_id: Bytes::copy_from_slice(self.gateway.as_bytes()),
            incarnation: self.incarnation,
            connection_class: class.into(),
            worker: self.worker.into(),
            head: self.head.clone(),
            siblings: ids(&self.siblings),
        };
        // One set of rules: what a peer would refuse is not sent.
        Self::convert(raw.clone()).map_err(EncodeError::Refused)?;
        raw.encode_raw(out);
        Ok(())
    }

    pub(crate) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        Self::convert(decode_message("HELLO", payload)?)
    }

    fn convert(raw: pb::Hello) -> Result<Self, DecodeError> {
        if raw.version_min == 0 || raw.version_min > raw.version_max {
            return Err(DecodeError::malformed(
                "HELLO.version_min..version_max",
                format!("{}..{}", raw.version_min, raw.version_max),
                "it is not an ascending range that begins at 1 or above",
                "send the lowest and highest minor version spoken",
            ));
        }
        Ok(Self {
            versions: VersionRange { min: raw.version_min, max: raw.version_max },
            features: features(raw.features)?,
            limits: PeerLimits::convert(raw.limits)?,
            gateway: GatewayId::from_bytes(fixed("HELLO.gateway_id", &raw.gateway_id)?),
            incarnation: incarnation("HELLO.incarnation", raw.incarnation)?,
            class: match pb::ConnectionClass::try_from(raw.connection_class) {
                Ok(pb::ConnectionClass::Fast) => ConnectionClass::Fast,
                Ok(pb::ConnectionClass::Bulk) => ConnectionClass::Bulk,
                Ok(pb::ConnectionClass::Unspecified) | Err(_) => {
                    return Err(DecodeError::malformed(
                        "HELLO.connection_class",
                        raw.connection_class,
                        "it is not fast (1) or bulk (2)",
                        "say what the connection is for",
                    ));
                }
            },
            worker: number(
                "HELLO.worker",
                raw.worker.into(),
                0,
                WORKERS_MAX - 1,
                "it is above 31",
                "number workers from 0",
            )? as u8,
            head: signed("HELLO.head", raw.head, SIGNED_HEAD_BYTES_MAX)?,
            siblings: siblings("HELLO.siblings", &raw.siblings)?,
        })
    }
}

/// An envelope of the federation store's; what is in it is for federation nodes to judge.
fn signed(field: &'static str, value: Bytes, bytes_max: usize) -> Result<Bytes, DecodeError> {
    if value.len() <= bytes_max {
        return Ok(value);
    }
    let problem = format!("it is longer than {bytes_max} bytes");
    let shown = format!("{} bytes", value.len());
    Err(DecodeError::malformed(field, shown, problem, "leave it out"))
}

fn signed_list(
    field: &'static str,
    values: Vec<Bytes>,
    count_max: usize,
    bytes_max: usize,
) -> Result<Vec<Bytes>, DecodeError> {
    if values.len() > count_max {
        let shown = format!("{} entries", values.len());
        let problem = format!("there are more than {count_max}");
        return Err(DecodeError::malformed(field, shown, problem, "send the others in the next"));
    }
    if values.iter().any(Bytes::is_empty) {
        let problem = "an entry is empty";
        return Err(DecodeError::malformed(field, "0 bytes", problem, "leave it out"));
    }
    values.into_iter().map(|value| signed(field, value, bytes_max)).collect()
}

fn ids(siblings: &[GatewayId]) -> Vec<Bytes> {
    siblings.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect()
}

fn siblings(field: &'static str, values: &[Bytes]) -> Result<Vec<GatewayId>, DecodeError> {
    if values.len() > SIBLINGS_MAX {
        let shown = format!("{} entries", values.len());
        let problem = format!("there are more than {SIBLINGS_MAX}");
        return Err(DecodeError::malformed(field, shown, problem, "send fewer"));
    }
    let id = |value: &Bytes| Ok(GatewayId::from_bytes(fixed(field, value)?));
    let ids: Vec<_> = values.iter().map(id).collect::<Result<_, DecodeError>>()?;
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(DecodeError::malformed(
            field,
            format!("{}, {}", pair[0], pair[1]),
            "the ids do not ascend",
            "send each id once, in ascending order",
        ));
    }
    Ok(ids)
}

fn features(features: Vec<u32>) -> Result<Vec<u32>, DecodeError> {
    if features.len() > FEATURES_MAX {
        return Err(DecodeError::malformed(
            "HELLO.features",
            format!("{} numbers", features.len()),
            format!("there are more than {FEATURES_MAX}"),
            "send fewer",
        ));
    }
    if let Some(pair) = features.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(DecodeError::malformed(
            "HELLO.features",
            format!("{}, {}", pair[0], pair[1]),
            "the numbers do not ascend",
            "send each number once, in ascending order",
        ));
    }
    Ok(features)
}

fn incarnation(field: &'static str, value: u64) -> Result<u64, DecodeError> {
    if value == 0 {
        let problem = "it is zero";
        return Err(DecodeError::malformed(field, value, problem, "draw a random number at start"));
    }
    Ok(value)
}

impl PeerLimits {
    fn convert(raw: Option<pb::Limits>) -> Result<Self, DecodeError> {
        let raw = raw.unwrap_or_default();
        window(
            "HELLO.limits.stream_window_bytes",
            raw.stream_window_bytes,
            STREAM_WINDOW_BYTES_MIN,
            "grant at least 16384 bytes and at most 1 GiB",
        )?;
        window(
            "HELLO.limits.connection_window_bytes",
            raw.connection_window_bytes,
            raw.stream_window_bytes,
            "grant at least a stream's window and at most 1 GiB",
        )?;
        if raw.streams_max == 0 {
            return Err(DecodeError::malformed(
                "HELLO.limits.streams_max",
                0,
                "no stream could be opened",
                "grant at least one",
            ));
        }
        Ok(Self {
            stream_window_bytes: raw.stream_window_bytes,
            connection_window_bytes: raw.connection_window_bytes,
            streams_max: raw.streams_max,
        })
    }
}

fn window(field: &'static str, value: u64, min: u64, fix: &'static str) -> Result<(), DecodeError> {
    if (min..=WINDOW_BYTES_MAX).contains(&value) {
        return Ok(());
    }
    let problem = format!("it is not in {min}..={WINDOW_BYTES_MAX}");
    Err(DecodeError::malformed(field, value, problem, fix))
}

impl Beacon {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        if self.incarnation == 0 {
            let fix = "draw a random number at start";
            return Err(EncodeError::invalid("BEACON.incarnation", 0, "it is zero", fix));
        }
        let raw = pb::Beacon {
            incarnation: self.incarnation,
            sequence: self.sequence,
            heard_age_ms: self.heard_age_ms,
            in_flight: self.in_flight,
            load_permille: self.load_permille.min(LOAD_PERMILLE_MAX),
            draining: self.draining,
            heads: self.heads.clone(),
            revocations: self.revocations.clone(),
            siblings: ids(&self.siblings),
        };
        // One set of rules: what a peer would refuse is not sent.
        Self::convert(raw.clone()).map_err(EncodeError::Refused)?;
        raw.encode_raw(out);
        Ok(())
    }

    pub(crate) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        Self::convert(decode_message("BEACON", payload)?)
    }

    fn convert(raw: pb::Beacon) -> Result<Self, DecodeError> {
        Ok(Self {
            incarnation: incarnation("BEACON.incarnation", raw.incarnation)?,
            sequence: raw.sequence,
            heard_age_ms: raw.heard_age_ms,
            in_flight: raw.in_flight,
            load_permille: number(
                "BEACON.load_permille",
                raw.load_permille.into(),
                0,
                LOAD_PERMILLE_MAX,
                "it is above 10000",
                "send 1000 for a full gateway",
            )?,
            draining: raw.draining,
            heads: signed_list("BEACON.heads", raw.heads, BEACON_HEADS_MAX, SIGNED_HEAD_BYTES_MAX)?,
            revocations: signed_list(
                "BEACON.revocations",
                raw.revocations,
                BEACON_REVOCATIONS_MAX,
                SIGNED_REVOCATION_BYTES_MAX,
            )?,
            siblings: siblings("BEACON.siblings", &raw.siblings)?,
        })
    }
}

impl Drain {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let raw = pb::Drain { grace_ms: self.grace_ms.min(DEADLINE_MS_MAX) };
        raw.encode_raw(out);
        Ok(())
    }

    pub(crate) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let raw: pb::Drain = decode_message("DRAIN", payload)?;
        let grace_ms = number(
            "DRAIN.grace_ms",
            raw.grace_ms.into(),
            0,
            DEADLINE_MS_MAX,
            "it is above 86400000",
            "grant at most one day",
        )?;
        Ok(Self { grace_ms })
    }
}
