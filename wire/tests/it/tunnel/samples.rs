//! Values that several tests send.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use model::{ClusterId, GatewayId, RequestId, Revision, ServiceName, SpiffeId};
use wire::tunnel::{
    Beacon, ConnectionClass, Drain, Frame, FrameDecoder, Head, Hello, Open, PeerLimits,
    RequestHead, ResponseHead, RouteRevision, RouteSide, StreamKind, TraceContext, VERSIONS, Via,
    encode_beacon, encode_data, encode_drain, encode_end, encode_hello, encode_moved, encode_open,
    encode_opened, encode_refused, encode_request_head, encode_response_head, encode_resume,
    encode_trailers,
};

pub(crate) fn cluster(byte: u8) -> ClusterId {
    ClusterId::from_bytes([byte; 16])
}

pub(crate) fn hello() -> Hello {
    let id = SpiffeId::parse("spiffe://east.fed/fedgate/gateway/gw-0").unwrap();
    Hello {
        versions: VERSIONS,
        features: Vec::new(),
        limits: PeerLimits {
            stream_window_bytes: 262_144,
            connection_window_bytes: 16_777_216,
            streams_max: 1024,
        },
        gateway: GatewayId::of(&id),
        incarnation: 0x0123_4567_89ab_cdef,
        class: ConnectionClass::Fast,
        worker: 3,
        head: Bytes::new(),
        siblings: Vec::new(),
    }
}

pub(crate) fn beacon() -> Beacon {
    Beacon {
        incarnation: 0x0123_4567_89ab_cdef,
        sequence: 7,
        heard_age_ms: 42,
        in_flight: 128,
        load_permille: 350,
        draining: false,
        heads: Vec::new(),
        revocations: Vec::new(),
        siblings: Vec::new(),
    }
}

pub(crate) fn drain() -> Drain {
    Drain { grace_ms: 30_000 }
}

/// An OPEN with only what every OPEN has.
pub(crate) fn open(kind: StreamKind) -> Open {
    let (service, port) = match kind {
        StreamKind::Http => ("shop/api", 8080),
        StreamKind::Tcp => ("data/redis", 6379),
        StreamKind::Udp => ("game/state", 7777),
    };
    Open {
        kind,
        service: ServiceName::parse(service).unwrap(),
        port,
        source: SpiffeId::parse("spiffe://east.fed/ns/shop/sa/web").unwrap(),
        unattested: false,
        trace: None,
        deadline_ms: None,
        request_id: RequestId::from_bytes(*b"0123456789abcdef"),
        attempt: 1,
        retries_left: 0,
        via: Via::new(cluster(0xea)),
        route: None,
    }
}

/// An OPEN with every field.
pub(crate) fn full_open() -> Open {
    Open {
        source: SpiffeId::parse("spiffe://east.fed/fedgate/gateway/gw-0").unwrap(),
        unattested: true,
        trace: Some(TraceContext {
            trace_id: [0x11; 16],
            parent_id: [0x22; 8],
            flags: 1,
            state: "vendor=1".into(),
        }),
        deadline_ms: Some(2500),
        attempt: 2,
        retries_left: 1,
        via: Via::new(cluster(0xaa)).with(cluster(0xea)).unwrap(),
        route: Some(RouteRevision {
            side: RouteSide::Producer,
            revision: Revision { epoch: 1, index: 300 },
        }),
        ..open(StreamKind::Http)
    }
}

pub(crate) fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

pub(crate) fn request(
    method: Method,
    uri: &'static str,
    fields: &[(&'static str, &'static str)],
) -> RequestHead {
    RequestHead { method, uri: uri.parse().unwrap(), protocol: None, headers: headers(fields) }
}

pub(crate) fn response(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHead {
    ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers: headers(fields) }
}

/// Encodes any frame, each DATA as one frame.
pub(crate) fn encode(frame: &Frame, out: &mut BytesMut) {
    match frame {
        Frame::Hello(hello) => encode_hello(hello, out).unwrap(),
        Frame::Beacon(beacon) => encode_beacon(beacon, out).unwrap(),
        Frame::Drain(drain) => encode_drain(drain, out).unwrap(),
        Frame::Open(open) => encode_open(open, out).unwrap(),
        Frame::Opened => encode_opened(out),
        Frame::Refused(refused) => encode_refused(refused, out).unwrap(),
        Frame::Head(head) => match &**head {
            Head::Request(head) => encode_request_head(head, out).unwrap(),
            Head::Response(head) => encode_response_head(head, out).unwrap(),
        },
        Frame::Data(data) => {
            let mut data = data.clone();
            while let Some(chunk) = encode_data(&mut data, out) {
                out.extend_from_slice(&chunk);
            }
        }
        Frame::Trailers(trailers) => encode_trailers(trailers, out).unwrap(),
        Frame::End => encode_end(out),
        Frame::Moved(token) => encode_moved(*token, out),
        Frame::Resume(token) => encode_resume(*token, out),
    }
}

pub(crate) fn encode_all(frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for frame in frames {
        encode(frame, &mut out);
    }
    out.to_vec()
}

/// All frames of `bytes`, which must end between frames; or the error's text.
pub(crate) fn decode_all(bytes: &[u8]) -> Result<Vec<Frame>, String> {
    let mut decoder = FrameDecoder::new();
    decoder.push(Bytes::copy_from_slice(bytes));
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next().map_err(|error| error.to_string())? {
        frames.push(frame);
    }
    if !decoder.is_between_frames() {
        return Err("the bytes end within a frame".into());
    }
    Ok(frames)
}

/// A frame with any type number and payload, lengths in the fewest bytes.
pub(crate) fn raw_frame(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    wire::tunnel::varint::encode(number, &mut out);
    wire::tunnel::varint::encode(payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out.to_vec()
}

pub(crate) fn head(head: RequestHead) -> Frame {
    Frame::Head(Box::new(Head::Request(head)))
}

pub(crate) fn answer(head: ResponseHead) -> Frame {
    Frame::Head(Box::new(Head::Response(head)))
}

pub(crate) fn data(text: &'static str) -> Frame {
    Frame::Data(Bytes::from_static(text.as_bytes()))
}
