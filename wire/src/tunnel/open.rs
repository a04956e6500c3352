//! OPEN: what a stream is for, and on whose behalf.

use std::fmt;

use bytes::{Bytes, BytesMut};
use model::{ClusterId, Namespace, ObjectName, RequestId, Revision, ServiceName, SpiffeId};
use prost::Message;

use super::code::ErrorCode;
use super::error::{DecodeError, EncodeError};
use super::fields::{bad_name, decode_message, fixed, not_protobuf, number, text};
use super::limits::{ATTEMPTS_MAX, DEADLINE_MS_MAX, TRACE_STATE_BYTES_MAX, VIA_CLUSTERS_MAX};
use super::pb;
use super::protobuf::{self, Value};

/// What travels on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamKind {
    Http,
    Tcp,
    Udp,
}

impl StreamKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The first frame of a stream, from its initiator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub kind: StreamKind,
    pub service: ServiceName,
    pub port: u16,
    /// The caller, or the initiating gateway if `unattested`.
    pub source: SpiffeId,
    /// The caller showed no SVID: it matches policies by cluster and trust domain only.
    pub unattested: bool,
    pub trace: Option<TraceContext>,
    /// Milliseconds that remain.
    pub deadline_ms: Option<u32>,
    pub request_id: RequestId,
    /// 1 for the first.
    pub attempt: u32,
    /// Further attempts that the source may still make.
    pub retries_left: u32,
    pub via: Via,
    pub route: Option<RouteRevision>,
}

/// W3C trace context, level 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    pub parent_id: [u8; 8],
    pub flags: u8,
    /// The `tracestate` header's value; may be empty.
    pub state: Box<str>,
}

/// Which side runs the route that the source went by, and which revision of it the source had:
/// epoch and generation of the record's owner (`Revision::index` is the generation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRevision {
    pub side: RouteSide,
    pub revision: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteSide {
    Producer,
    Consumer,
}

/// The clusters that an exchange has passed: one to three, oldest first, the initiator's own last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Via {
    clusters: [ClusterId; VIA_CLUSTERS_MAX],
    length: usize,
}

impl Via {
    /// The path of an exchange that begins in `origin`.
    pub fn new(origin: ClusterId) -> Self {
        Self { clusters: [origin; VIA_CLUSTERS_MAX], length: 1 }
    }

    /// The path one hop further. `None`: there are as many hops as allowed already.
    pub fn with(mut self, cluster: ClusterId) -> Option<Self> {
        *self.clusters.get_mut(self.length)? = cluster;
        self.length += 1;
        Some(self)
    }

    pub fn clusters(&self) -> &[ClusterId] {
        &self.clusters[..self.length]
    }

    pub fn contains(&self, cluster: ClusterId) -> bool {
        self.clusters().contains(&cluster)
    }

    /// The cluster that opened the stream.
    pub fn initiator(&self) -> ClusterId {
        self.clusters[self.length - 1]
    }
}

impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clusters()).finish()
    }
}

impl Open {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.check()?;
        let kind = match self.kind {
            StreamKind::Http => pb::Kind::Http,
            StreamKind::Tcp => pb::Kind::Tcp,
            StreamKind::Udp => pb::Kind::Udp,
        };
        protobuf::put_varint_field(1, kind as u64, out);
        protobuf::put_bytes_field(2, self.service.namespace.as_str().as_bytes(), out);
        protobuf::put_bytes_field(3, self.service.name.as_str().as_bytes(), out);
        protobuf::put_varint_field(4, self.port.into(), out);
        protobuf::put_bytes_field(5, self.source.as_str().as_bytes(), out);
        protobuf::put_varint_field(6, self.unattested.into(), out);
        if let Some(trace) = &self.trace {
            protobuf::put_bytes_field(7, &trace.to_bytes(), out);
            protobuf::put_bytes_field(8, trace.state.as_bytes(), out);
        }
        if let Some(deadline_ms) = self.deadline_ms {
            protobuf::put_present_varint_field(9, deadline_ms.into(), out);
        }
        protobuf::put_bytes_field(10, self.request_id.as_bytes(), out);
        protobuf::put_varint_field(11, self.attempt.into(), out);
        protobuf::put_varint_field(12, self.retries_left.into(), out);
        for cluster in self.via.clusters() {
            protobuf::put_bytes_field(13, cluster.as_bytes(), out);
        }
        if let Some(route) = &self.route {
            route.encode(out);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), EncodeError> {
        if self.port == 0 {
            return Err(EncodeError::invalid("OPEN.port", 0, PORT_PROBLEM, PORT_FIX));
        }
        if let Some(deadline_ms) = self.deadline_ms
            && !(1..=DEADLINE_MS_MAX).contains(&deadline_ms)
        {
            let field = "OPEN.deadline_ms";
            return Err(EncodeError::invalid(field, deadline_ms, DEADLINE_PROBLEM, DEADLINE_FIX));
        }
        if !(1..=ATTEMPTS_MAX).contains(&self.attempt) {
            let field = "OPEN.attempt";
            return Err(EncodeError::invalid(field, self.attempt, ATTEMPT_PROBLEM, ATTEMPT_FIX));
        }
        if self.retries_left > ATTEMPTS_MAX {
            let field = "OPEN.retries_left";
            return Err(EncodeError::invalid(
                field,
                self.retries_left,
                RETRIES_PROBLEM,
                RETRIES_FIX,
            ));
        }
        self.trace.as_ref().map_or(Ok(()), TraceContext::check)
    }

    pub(crate) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        RawOpen::read(payload)?.convert()
    }
}

const PORT_PROBLEM: &str = "it is not in 1..=65535";
const PORT_FIX: &str = "send the service's port";
const DEADLINE_PROBLEM: &str = "it is not in 1..=86400000";
const DEADLINE_FIX: &str = "send the milliseconds that remain, or leave it out for no deadline";
const ATTEMPT_PROBLEM: &str = "it is not in 1..=16";
const ATTEMPT_FIX: &str = "count attempts from 1";
const RETRIES_PROBLEM: &str = "it is above 16";
const RETRIES_FIX: &str = "send how many further attempts the source may make";
const TRACE_STATE_PROBLEM: &str = "it is longer than 512 bytes or not printable ASCII";
const TRACE_STATE_FIX: &str = "send the tracestate header's value, or leave it out";

/// OPEN's fields as they stand on the wire, unchecked; strings still share the packet's buffer.
#[derive(Debug, Default)]
struct RawOpen {
    kind: u64,
    namespace: Bytes,
    service: Bytes,
    port: u64,
    source: Bytes,
    unattested: u64,
    trace_context: Bytes,
    trace_state: Bytes,
    deadline_ms: Option<u64>,
    request_id: Bytes,
    attempt: u64,
    retries_left: u64,
    via: Option<Via>,
    route: Option<Bytes>,
}

impl RawOpen {
    fn read(mut payload: Bytes) -> Result<Self, DecodeError> {
        let mut raw = Self::default();
        while let Some((number, value)) =
            protobuf::next_field(&mut payload).map_err(|broken| not_protobuf("OPEN", broken))?
        {
            match (number, value) {
                (1, Value::Varint(value)) => raw.kind = value,
                (2, Value::Bytes(value)) => raw.namespace = value,
                (3, Value::Bytes(value)) => raw.service = value,
                (4, Value::Varint(value)) => raw.port = value,
                (5, Value::Bytes(value)) => raw.source = value,
                (6, Value::Varint(value)) => raw.unattested = value,
                (7, Value::Bytes(value)) => raw.trace_context = value,
                (8, Value::Bytes(value)) => raw.trace_state = value,
                (9, Value::Varint(value)) => raw.deadline_ms = Some(value),
                (10, Value::Bytes(value)) => raw.request_id = value,
                (11, Value::Varint(value)) => raw.attempt = value,
                (12, Value::Varint(value)) => raw.retries_left = value,
                (13, Value::Bytes(value)) => raw.add_via(&value)?,
                (14, Value::Bytes(value)) => raw.route = Some(value),
                (1..=14, _) => {
                    return Err(DecodeError::malformed(
                        "OPEN",
                        format!("field {number}"),
                        "its wire type is not the one of the schema",
                        "encode it as tunnel.proto has it",
                    ));
                }
                _ => {} // a field of a later minor version
            }
        }
        Ok(raw)
    }

    fn add_via(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        let cluster = ClusterId::from_bytes(fixed("OPEN.via", value)?);
        let longer = match self.via {
            None => Some(Via::new(cluster)),
            Some(via) => via.with(cluster),
        };
        self.via = Some(longer.ok_or_else(|| {
            DecodeError::new(
                ErrorCode::TooManyHops,
                "OPEN.via",
                cluster,
                format!("the exchange passed more than {VIA_CLUSTERS_MAX} clusters"),
                "point the route at the cluster that runs the service",
            )
        })?);
        Ok(())
    }

    fn convert(self) -> Result<Open, DecodeError> {
        let request_id = RequestId::from_bytes(fixed("OPEN.request_id", &self.request_id)?);
        let via = self.via.ok_or_else(|| {
            DecodeError::malformed(
                "OPEN.via",
                "(empty)",
                "it does not hold the initiator's cluster id",
                "end it with your own cluster's id",
            )
        })?;
        let service = ServiceName::new(
            Namespace::parse(text("OPEN.namespace", &self.namespace)?)
                .map_err(|error| bad_name("OPEN.namespace", &error.value, error.reason))?,
            ObjectName::parse(text("OPEN.service", &self.service)?)
                .map_err(|error| bad_name("OPEN.service", &error.value, error.reason))?,
        );
        Ok(Open {
            kind: kind(self.kind)?,
            service,
            port: number("OPEN.port", self.port, 1, 65_535, PORT_PROBLEM, PORT_FIX)? as u16,
            source: source(&self.source)?,
            unattested: self.unattested != 0,
            trace: TraceContext::decode(&self.trace_context, &self.trace_state)?,
            deadline_ms: match self.deadline_ms {
                None => None,
                Some(value) => Some(deadline(value)?),
            },
            request_id,
            attempt: number(
                "OPEN.attempt",
                self.attempt,
                1,
                ATTEMPTS_MAX,
                ATTEMPT_PROBLEM,
                ATTEMPT_FIX,
            )?,
            retries_left: number(
                "OPEN.retries_left",
                self.retries_left,
                0,
                ATTEMPTS_MAX,
                RETRIES_PROBLEM,
                RETRIES_FIX,
            )?,
            via,
            route: self.route.map(RouteRevision::decode).transpose()?,
        })
    }
}

fn kind(value: u64) -> Result<StreamKind, DecodeError> {
    match value {
        1 => Ok(StreamKind::Http),
        2 => Ok(StreamKind::Tcp),
        3 => Ok(StreamKind::Udp),
        _ => Err(DecodeError::new(
            ErrorCode::UnsupportedKind,
            "OPEN.kind",
            value,
            "it is not http (1), tcp (2) or udp (3)",
            "open a stream of a kind that the peer knows",
        )),
    }
}

/// A source is compared byte for byte by policies, so it must be in its canonical form already.
fn source(value: &[u8]) -> Result<SpiffeId, DecodeError> {
    let value = text("OPEN.source", value)?;
    let id = SpiffeId::parse(value)
        .map_err(|error| bad_name("OPEN.source", &error.value, error.reason))?;
    if id.as_str() != value {
        return Err(bad_name("OPEN.source", value, "its trust domain is not in lower case"));
    }
    Ok(id)
}

fn deadline(value: u64) -> Result<u32, DecodeError> {
    number("OPEN.deadline_ms", value, 1, DEADLINE_MS_MAX, DEADLINE_PROBLEM, DEADLINE_FIX)
}

impl TraceContext {
    fn to_bytes(&self) -> [u8; 25] {
        let mut bytes = [0; 25];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.parent_id);
        bytes[24] = self.flags;
        bytes
    }

    fn check(&self) -> Result<(), EncodeError> {
        if self.trace_id == [0; 16] || self.parent_id == [0; 8] {
            let fix = "leave the trace out";
            return Err(EncodeError::invalid("OPEN.trace_context", "zeros", ZERO_TRACE, fix));
        }
        if !trace_state_is_good(self.state.as_bytes()) {
            let field = "OPEN.trace_state";
            let shown = &self.state;
            return Err(EncodeError::invalid(field, shown, TRACE_STATE_PROBLEM, TRACE_STATE_FIX));
        }
        Ok(())
    }

    fn decode(context: &[u8], state: &[u8]) -> Result<Option<Self>, DecodeError> {
        const FIELD: &str = "OPEN.trace_context";
        if !trace_state_is_good(state) {
            let shown = format!("{:?}", String::from_utf8_lossy(state));
            let (problem, fix) = (TRACE_STATE_PROBLEM, TRACE_STATE_FIX);
            return Err(DecodeError::malformed("OPEN.trace_state", shown, problem, fix));
        }
        if context.is_empty() && state.is_empty() {
            return Ok(None);
        }
        let context: [u8; 25] = fixed(FIELD, context)?;
        let (mut trace_id, mut parent_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&context[..16]);
        parent_id.copy_from_slice(&context[16..24]);
        if trace_id == [0; 16] || parent_id == [0; 8] {
            return Err(DecodeError::malformed(FIELD, "zeros", ZERO_TRACE, "leave the trace out"));
        }
        let state = text("OPEN.trace_state", state)?.into();
        Ok(Some(Self { trace_id, parent_id, flags: context[24], state }))
    }
}

const ZERO_TRACE: &str = "W3C trace context forbids a trace-id or parent-id of zeros";

fn trace_state_is_good(state: &[u8]) -> bool {
    state.len() <= TRACE_STATE_BYTES_MAX && state.iter().all(|byte| matches!(byte, 0x20..=0x7e))
}

impl RouteRevision {
    fn encode(&self, out: &mut BytesMut) {
        let side = match self.side {
            RouteSide::Producer => pb::RouteSide::Producer,
            RouteSide::Consumer => pb::RouteSide::Consumer,
        };
        let (epoch, generation) = (self.revision.epoch, self.revision.index);
        let raw = pb::Route { side: side.into(), epoch, generation };
        protobuf::put_message_header(14, raw.encoded_len(), out);
        raw.encode_raw(out);
    }

    fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let raw: pb::Route = decode_message("OPEN.route", payload)?;
        let side = match pb::RouteSide::try_from(raw.side) {
            Ok(pb::RouteSide::Producer) => RouteSide::Producer,
            Ok(pb::RouteSide::Consumer) => RouteSide::Consumer,
            Ok(pb::RouteSide::Unspecified) | Err(_) => {
                return Err(DecodeError::malformed(
                    "OPEN.route.side",
                    raw.side,
                    "it is not producer (1) or consumer (2)",
                    "say which side runs the route, or leave the route out",
                ));
            }
        };
        Ok(Self { side, revision: Revision { epoch: raw.epoch, index: raw.generation } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Open {
        let via = Via::new(ClusterId::from_bytes([1; 16]));
        Open {
            kind: StreamKind::Http,
            service: ServiceName::parse("shop/api").unwrap(),
            port: 8080,
            source: SpiffeId::parse("spiffe://east.fed/ns/shop/sa/web").unwrap(),
            unattested: true,
            trace: Some(TraceContext {
                trace_id: [3; 16],
                parent_id: [4; 8],
                flags: 1,
                state: "a=b".into(),
            }),
            deadline_ms: Some(30_000),
            request_id: RequestId::from_bytes([2; 16]),
            attempt: 1,
            retries_left: 2,
            via: via.with(ClusterId::from_bytes([5; 16])).unwrap(),
            route: Some(RouteRevision {
                side: RouteSide::Consumer,
                revision: Revision { epoch: 1, index: u64::MAX },
            }),
        }
    }

    /// The same OPEN as the generated code has it.
    fn generated(open: &Open) -> pb::Open {
        pb::Open {
            kind: pb::Kind::Http.into(),
            namespace: open.service.namespace.as_str().into(),
            service: open.service.name.as_str().into(),
            port: open.port.into(),
            source: open.source.as_str().into(),
            unattested: open.unattested,
            trace_context: open
                .trace
                .as_ref()
                .map(|trace| Bytes::copy_from_slice(&trace.to_bytes()))
                .unwrap_or_default(),
            trace_state: open
                .trace
                .as_ref()
                .map(|trace| trace.state.to_string())
                .unwrap_or_default(),
            deadline_ms: open.deadline_ms,
            request_id: Bytes::copy_from_slice(open.request_id.as_bytes()),
            attempt: open.attempt,
            retries_left: open.retries_left,
            via: open
                .via
                .clusters()
                .iter()
                .map(|cluster| Bytes::copy_from_slice(cluster.as_bytes()))
                .collect(),
            route: open.route.map(|route| pb::Route {
                side: pb::RouteSide::Consumer.into(),
                epoch: route.revision.epoch,
                generation: route.revision.index,
            }),
        }
    }

    #[test]
    fn open_is_written_and_read_as_the_schema_has_it() {
        let full = sample();
        let bare = Open {
            unattested: false,
            trace: None,
            deadline_ms: None,
            retries_left: 0,
            via: Via::new(ClusterId::from_bytes([9; 16])),
            route: None,
            ..sample()
        };
        for open in [full, bare] {
            let mut ours = BytesMut::new();
            open.encode(&mut ours).unwrap();
            let ours = ours.freeze();
            assert_eq!(ours, generated(&open).encode_to_vec(), "{open:?}");
            assert_eq!(pb::Open::decode(ours.clone()).unwrap(), generated(&open));
            assert_eq!(Open::decode(ours).unwrap(), open);
        }
    }

    #[test]
    fn values_that_a_peer_would_refuse_are_not_sent() {
        type Spoil = fn(&mut Open);
        let cases: [(Spoil, &str); 6] = [
            (|open| open.port = 0, "OPEN.port = 0: it is not in 1..=65535"),
            (|open| open.deadline_ms = Some(0), "OPEN.deadline_ms = 0: it is not in 1..=86400000"),
            (|open| open.attempt = 0, "OPEN.attempt = 0: it is not in 1..=16"),
            (|open| open.retries_left = 17, "OPEN.retries_left = 17: it is above 16"),
            (
                |open| open.trace.as_mut().unwrap().trace_id = [0; 16],
                "OPEN.trace_context = zeros: W3C trace context forbids",
            ),
            (
                |open| open.trace.as_mut().unwrap().state = "é".into(),
                "OPEN.trace_state = é: it is longer than 512 bytes or not printable ASCII",
            ),
        ];
        for (spoil, text) in cases {
            let mut open = sample();
            spoil(&mut open);
            let error = open.encode(&mut BytesMut::new()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn via_holds_three_clusters() {
        let cluster = |byte| ClusterId::from_bytes([byte; 16]);
        let via = Via::new(cluster(1)).with(cluster(2)).unwrap().with(cluster(3)).unwrap();
        assert_eq!(via.clusters(), [cluster(1), cluster(2), cluster(3)]);
        assert_eq!(via.initiator(), cluster(3));
        assert!(via.contains(cluster(2)) && !via.contains(cluster(4)));
        assert_eq!(via.with(cluster(4)), None);
    }
}
