//! The bytes of the vectors, by name: good ones come from the encoder, bad ones are good ones with
//! one thing wrong.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use http::Method;
use model::GatewayId;
use wire::relay::{Preamble, RelayProtocol, StreamAnswer, StreamRequest};
use wire::tunnel::{
    Beacon, ConnectionId, Datagram, Dispatched, ErrorCode, Frame, Hello, MoveToken, Refused,
    StreamKind, StreamReset, encode_open, varint,
};

use super::samples::{
    answer, beacon, data, drain, encode_all, full_open, head, headers, hello, open, raw_frame,
    request, response,
};

type Built = BTreeMap<&'static str, Vec<u8>>;

const TOKEN: MoveToken = MoveToken::from_bytes(*b"a token, random.");

pub(crate) fn streams() -> Built {
    let mut built = single_frames();
    built.extend(whole_streams());
    built.extend(tolerated());
    built
}

fn single_frames() -> Built {
    let mut websocket = request(Method::CONNECT, "http://chat.shop/live", &[]);
    websocket.protocol = Some("websocket".into());
    let refused = Refused::new(ErrorCode::NoReadyEndpoint, Dispatched::No, "shop/api has none");
    let grpc = [("grpc-status", "0"), ("grpc-message", "fine")];
    let frames: Vec<(&'static str, Frame)> = vec![
        ("hello", Frame::Hello(Box::new(hello()))),
        ("hello-head", Frame::Hello(Box::new(hello_with_head()))),
        ("hello-siblings", Frame::Hello(Box::new(Hello { siblings: siblings(), ..hello() }))),
        ("beacon", Frame::Beacon(beacon())),
        ("beacon-siblings", Frame::Beacon(Beacon { siblings: siblings(), ..beacon() })),
        ("beacon-news", Frame::Beacon(beacon_with_news())),
        ("drain", Frame::Drain(drain())),
        ("open-least", open_frame(StreamKind::Tcp)),
        ("open-full", Frame::Open(Box::new(full_open()))),
        ("opened", Frame::Opened),
        ("refused", Frame::Refused(refused)),
        ("head-get", head(request(Method::GET, "http://api.shop/", &[]))),
        ("head-fields", head(get_with_fields())),
        ("head-other-method", head(request(purge(), "https://api.shop:8443/a?b=c", &[]))),
        ("head-options-star", head(request(Method::OPTIONS, "http://api.shop/*", &[]))),
        ("head-connect", head(request(Method::CONNECT, "db.shop:5432", &[]))),
        ("head-websocket", head(websocket)),
        ("head-200", answer(response(200, &[("content-type", "application/json")]))),
        ("head-103", answer(response(103, &[("link", "</a.css>; rel=preload")]))),
        ("data", data("hello")),
        ("trailers", Frame::Trailers(Box::new(headers(&grpc)))),
        ("end", Frame::End),
        ("moved", Frame::Moved(TOKEN)),
        ("resume", Frame::Resume(TOKEN)),
    ];
    let mut built: Built =
        frames.into_iter().map(|(name, frame)| (name, encode_all(&[frame]))).collect();
    // http's parser has no absolute form of "*", so its path is written here.
    built.insert("head-options-star", raw_frame(0x0b, b"\x00\x07\x01\x08api.shop\x01*\x00\x00"));
    built
}

fn purge() -> Method {
    Method::from_bytes(b"PURGE").unwrap()
}

fn get_with_fields() -> wire::tunnel::RequestHead {
    let fields = [
        ("accept", "*/*"),
        ("user-agent", "curl/7.88.1"),
        ("x-shop-tenant", "blue"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    request(Method::GET, "https://api.shop/v1/items?limit=10", &fields)
}

fn open_frame(kind: StreamKind) -> Frame {
    Frame::Open(Box::new(open(kind)))
}

fn post(length: &'static str) -> Frame {
    head(request(Method::POST, "http://api.shop/orders", &[("content-length", length)]))
}

fn ok(fields: &[(&'static str, &'static str)]) -> Frame {
    answer(response(200, fields))
}

fn whole_streams() -> Built {
    let grpc_fields = [("content-type", "application/grpc")];
    let grpc_end = Frame::Trailers(Box::new(headers(&[("grpc-status", "0")])));
    let early = answer(response(103, &[("link", "</a.css>; rel=preload")]));
    let refused = Refused::new(ErrorCode::DeniedByPolicy, Dispatched::No, "");
    let length = [("content-length", "1048576")];
    let five = [("content-length", "5")];
    let tcp = open_frame(StreamKind::Tcp);
    let http = open_frame(StreamKind::Http);
    let connect = head(request(Method::CONNECT, "db.shop:5432", &[]));
    let mut frames: Vec<(&'static str, Vec<Frame>)> = vec![
        ("stream-control", vec![Frame::Hello(Box::new(hello())), Frame::Beacon(beacon())]),
        ("stream-request", vec![http.clone(), post("5"), data("hello"), Frame::End]),
        ("stream-response", vec![Frame::Opened, early, ok(&five), data("hello"), Frame::End]),
        ("stream-grpc", vec![Frame::Opened, ok(&grpc_fields), data("x"), grpc_end, Frame::End]),
        ("stream-to-head", vec![Frame::Opened, ok(&length), Frame::End]),
        ("stream-connect", vec![http, connect, data("raw"), data("bytes"), Frame::End]),
        ("stream-tcp", vec![tcp, data("PING\r\n"), Frame::End]),
        ("stream-tcp-answer", vec![Frame::Opened, data("+PONG\r\n"), Frame::End]),
        ("stream-refused", vec![Frame::Refused(refused)]),
        ("stream-moved", vec![Frame::Opened, ok(&length), data("start"), Frame::Moved(TOKEN)]),
        ("stream-resumed", vec![Frame::Resume(TOKEN), data("rest"), Frame::End]),
    ];
    frames[0].1.push(Frame::Drain(drain()));
    frames.into_iter().map(|(name, frames)| (name, encode_all(&frames))).collect()
}

/// What a receiver must take although our encoder does not write it.
fn tolerated() -> Built {
    let (_, open) = open_payload();
    let unknown_fields = [&open[..], &[0x7a, 1, b'x', 0x85, 1, 1, 2, 3, 4, 0x80, 2, 5]].concat();
    BTreeMap::from([
        ("tolerated-long-varints", vec![0x40, 0x11, 0x80, 0, 0, 0]),
        ("tolerated-even-frame", [raw_frame(0x3e, b"later"), encode_all(&[Frame::End])].concat()),
        ("tolerated-open-fields", raw_frame(0x05, &unknown_fields)),
        ("tolerated-opened-fields", raw_frame(0x07, &[0x08, 1])),
        ("tolerated-code", raw_frame(0x09, &[0x08, 0xff, 0x7f, 0x10, 2])),
        ("tolerated-connect-length", encode_all(&connect_with_length())),
        ("tolerated-spelt-name", raw_frame(0x0b, b"\x40\xc8\x01\x00\x06accept\x03*/*")),
    ])
}

fn connect_with_length() -> [Frame; 4] {
    let length = [("content-length", "0")];
    let connect = head(request(Method::CONNECT, "db.shop:5432", &length));
    [open_frame(StreamKind::Http), connect, data("raw"), Frame::End]
}

fn open_payload() -> (Vec<u8>, Vec<u8>) {
    let mut out = BytesMut::new();
    encode_open(&open(StreamKind::Http), &mut out).unwrap();
    let payload = out.split_off(3);
    (out.to_vec(), payload.to_vec())
}

/// An OPEN in which the last fields override earlier ones, as protobuf has it.
fn open_with(fields: &[u8]) -> Vec<u8> {
    raw_frame(0x05, &[open_payload().1, fields.to_vec()].concat())
}

fn hello_with_head() -> Hello {
    Hello { head: Bytes::from_static(b"signed Head"), ..hello() }
}

fn beacon_with_news() -> Beacon {
    let heads = vec![Bytes::from_static(b"Head 1"), Bytes::from_static(b"Head 2")];
    Beacon { heads, revocations: vec![Bytes::from_static(b"revocation")], ..beacon() }
}

fn siblings() -> Vec<GatewayId> {
    vec![GatewayId::from_bytes([0x11; 16]), hello().gateway]
}

/// A beacon of an incarnation with these fields.
fn beacon_with(fields: &[u8]) -> Vec<u8> {
    raw_frame(0x02, &[&[0x09, 1, 0, 0, 0, 0, 0, 0, 0], fields].concat())
}

fn hello_with(fields: &[u8]) -> Vec<u8> {
    let bytes = encode_all(&[Frame::Hello(Box::new(hello()))]);
    raw_frame(0x01, &[&bytes[3..], fields].concat())
}

fn get_with(rest: &[u8]) -> Vec<u8> {
    raw_frame(0x0b, &[b"\x00\x01\x01\x08api.shop\x01/\x00", rest].concat())
}

fn trailers_with(rest: &[u8]) -> Vec<u8> {
    raw_frame(0x0f, rest)
}

/// What stands before the bytes of a relayed stream.
pub(crate) fn relay() -> Built {
    let remote = "192.0.2.7:8443".parse().unwrap();
    let west = model::ClusterName::parse("west").unwrap();
    let node = model::SpiffeId::parse("spiffe://west.fed/fedgate/federation/node-0").unwrap();
    let peer = Some((west.clone(), node));
    let store = Preamble { protocol: RelayProtocol::Store, peer, remote };
    let join = Preamble { protocol: RelayProtocol::Join, peer: None, remote };
    let nameless = Preamble { protocol: RelayProtocol::Store, ..join.clone() }.encode();
    BTreeMap::from([
        ("preamble-store", store.encode()),
        ("preamble-join", join.encode()),
        ("request", StreamRequest { cluster: west }.encode()),
        ("answer-open", StreamAnswer::Open.encode()),
        ("answer-refused", StreamAnswer::Refused("no store connection".into()).encode()),
        ("header-version", b"FGR2\0\0".to_vec()),
        ("header-long", b"FGR1\x10\x01".to_vec()),
        ("preamble-nameless", nameless),
        ("preamble-protocol", b"FGR1\0\x02\x08\x03".to_vec()),
        ("request-name", b"FGR1\0\x03\x0a\x01W".to_vec()),
    ])
}

pub(crate) fn bad_streams() -> Built {
    let mut built = bad_frames();
    built.extend(bad_control());
    built.extend(bad_opens());
    built.extend(bad_heads());
    built.extend(bad_fields());
    built.extend(bad_order());
    built.extend(bad_ends());
    built
}

fn bad_frames() -> Built {
    let header = |number: u64, length: u64| {
        let mut out = BytesMut::new();
        varint::encode(number, &mut out);
        varint::encode(length, &mut out);
        out.to_vec()
    };
    BTreeMap::from([
        ("frame-odd-unknown", raw_frame(0x1d, b"?")),
        ("frame-reset-on-quic", raw_frame(0x17, &[4])),
        ("frame-even-too-long", header(0x3e, 65_537)),
        ("frame-hello-too-long", header(0x01, 16_385)),
        ("frame-open-too-long", header(0x05, 16_385)),
        ("frame-head-too-long", header(0x0b, 65_537)),
        ("frame-trailers-too-long", header(0x0f, 16_385)),
        ("frame-data-too-long", header(0x0d, 65_537)),
        ("frame-data-huge", header(0x0d, varint::VARINT_MAX)),
        ("frame-data-empty", header(0x0d, 0)),
        ("frame-end-with-payload", raw_frame(0x11, b"x")),
        ("frame-token-short", raw_frame(0x13, &[7; 15])),
        ("frame-token-long", raw_frame(0x15, &[7; 17])),
    ])
}

fn bad_control() -> Built {
    let many: Vec<u8> = [&[0x1a, 65][..], &(1..=65).collect::<Vec<u8>>()].concat();
    let id = |byte: u8| [&[0x52, 16][..], &[byte; 16]].concat();
    let many_ids: Vec<u8> = (0..33).flat_map(|n| [&[0x4a, 16][..], &[n; 16]].concat()).collect();
    let long_head = [&[0x4a, 0x81, 8][..], &[7; 1025]].concat();
    let refusal = |rest: &[u8]| raw_frame(0x09, &[&[0x08, 0x35][..], rest].concat());
    let long_message = [&[0x10, 1, 0x1a, 0x81, 4][..], &[b'x'; 513]].concat();
    BTreeMap::from([
        ("hello-version-zero", hello_with(&[0x08, 0])),
        ("hello-version-range", hello_with(&[0x08, 9])),
        ("hello-features-unsorted", hello_with(&[0x1a, 2, 7, 5])),
        ("hello-features-many", hello_with(&many)),
        ("hello-stream-window", hello_with(&[0x22, 2, 0x08, 1])),
        ("hello-connection-window", hello_with(&[0x22, 2, 0x10, 1])),
        ("hello-streams-max", hello_with(&[0x22, 2, 0x18, 0])),
        ("hello-gateway-id", hello_with(&[0x2a, 1, 9])),
        ("hello-incarnation", hello_with(&[0x31, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("hello-class", hello_with(&[0x38, 0])),
        ("hello-worker", hello_with(&[0x40, 32])),
        ("hello-head-long", hello_with(&long_head)),
        ("hello-sibling-short", hello_with(&[0x52, 1, 9])),
        ("hello-siblings-unsorted", hello_with(&[&id(7)[..], &id(7)].concat())),
        ("beacon-siblings-many", beacon_with(&many_ids)),
        ("hello-not-protobuf", hello_with(&[0x0b])),
        ("beacon-head-empty", beacon_with(&[0x3a, 0])),
        ("beacon-head-long", beacon_with(&[&[0x3a, 0x81, 8][..], &[7; 1025]].concat())),
        ("beacon-heads-many", beacon_with(&[0x3a, 1, 7].repeat(17))),
        ("beacon-revocations-many", beacon_with(&[0x42, 1, 7].repeat(3))),
        ("beacon-incarnation", raw_frame(0x02, &[0x10, 7])),
        ("beacon-load", raw_frame(0x02, &[0x09, 1, 0, 0, 0, 0, 0, 0, 0, 0x28, 0x91, 0x4e])),
        ("drain-grace", raw_frame(0x03, &[0x08, 0x81, 0xb8, 0x99, 0x29])),
        ("opened-not-protobuf", raw_frame(0x07, &[0x08])),
        ("refused-dispatched", refusal(&[])),
        ("refused-message", refusal(&long_message)),
    ])
}

fn bad_opens() -> Built {
    let field = |number: u8, value: &[u8]| {
        open_with(&[&[number << 3 | 2, value.len() as u8][..], value].concat())
    };
    let (_, payload) = open_payload();
    let via = |count: usize| [&[0x6a, 16][..], &[7; 16]].concat().repeat(count);
    BTreeMap::from([
        ("open-kind-missing", open_with(&[0x08, 0])),
        ("open-kind-unknown", open_with(&[0x08, 9])),
        ("open-namespace", field(2, b"Shop")),
        ("open-service-empty", field(3, b"")),
        ("open-service-utf8", field(3, &[0xff])),
        ("open-port-zero", open_with(&[0x20, 0])),
        ("open-port-high", open_with(&[0x20, 0x80, 0x80, 4])),
        ("open-source", field(5, b"https://east.fed/web")),
        ("open-source-case", field(5, b"spiffe://East.fed/web")),
        ("open-trace-short", field(7, &[1; 24])),
        ("open-trace-zeros", field(7, &[0; 25])),
        ("open-trace-state", open_with(&[0x42, 1, 0x0a])),
        ("open-trace-state-alone", field(8, b"vendor=1")),
        ("open-deadline-zero", open_with(&[0x48, 0])),
        ("open-deadline-long", open_with(&[0x48, 0x81, 0xb8, 0x99, 0x29])),
        ("open-request-id", field(10, &[1; 15])),
        ("open-attempt-zero", open_with(&[0x58, 0])),
        ("open-attempt-high", open_with(&[0x58, 17])),
        ("open-retries-high", open_with(&[0x60, 17])),
        ("open-via-missing", raw_frame(0x05, &payload[..payload.len() - 18])),
        ("open-via-short", field(13, &[1; 15])),
        ("open-via-four", open_with(&via(3))),
        ("open-route-side", open_with(&[0x72, 2, 0x10, 1])),
        ("open-wire-type", field(4, b"80")),
        ("open-group", open_with(&[0x0b])),
        ("open-cut", open_with(&[0x12, 9, b'x'])),
    ])
}

fn bad_heads() -> Built {
    let start = |start: &[u8]| raw_frame(0x0b, start);
    BTreeMap::from([
        ("head-empty", start(b"")),
        ("head-status-99", start(b"\x40\x63\x00")),
        ("head-status-101", start(b"\x40\x65\x00")),
        ("head-status-1000", start(b"\x43\xe8\x00")),
        ("head-method-number", start(b"\x00\x0a\x01\x01a\x01/\x00\x00")),
        ("head-method-token", start(b"\x00\x00\x03G T\x01\x01a\x01/\x00\x00")),
        ("head-scheme-missing", start(b"\x00\x01\x00\x01a\x01/\x00\x00")),
        ("head-scheme-unknown", start(b"\x00\x01\x03\x01a\x01/\x00\x00")),
        ("head-authority-empty", start(b"\x00\x01\x01\x00\x01/\x00\x00")),
        ("head-authority-user", start(b"\x00\x01\x01\x03u@a\x01/\x00\x00")),
        ("head-authority-space", start(b"\x00\x01\x01\x03a b\x01/\x00\x00")),
        ("head-path-empty", start(b"\x00\x01\x01\x01a\x00\x00\x00")),
        ("head-path-relative", start(b"\x00\x01\x01\x01a\x01b\x00\x00")),
        ("head-path-fragment", start(b"\x00\x01\x01\x01a\x04/b#c\x00\x00")),
        ("head-path-space", start(b"\x00\x01\x01\x01a\x04/b c\x00\x00")),
        ("head-path-newline", start(b"\x00\x01\x01\x01a\x03/\r\n\x00\x00")),
        ("head-path-star", start(b"\x00\x01\x01\x01a\x01*\x00\x00")),
        ("head-protocol-on-get", start(b"\x00\x01\x01\x01a\x01/\x09websocket\x00")),
        ("head-protocol-token", start(b"\x00\x06\x01\x01a\x01/\x03a b\x00")),
        ("head-connect-path", start(b"\x00\x06\x00\x04a:80\x01/\x00\x00")),
        ("head-connect-scheme", start(b"\x00\x06\x01\x04a:80\x00\x00\x00")),
        ("head-connect-length", start(b"\x00\x06\x01\x01a\x01/\x09websocket\x01\x18\x015")),
        ("head-cut", start(b"\x00\x01\x01\x08api")),
        ("head-long", get_with(b"\x00more")),
    ])
}

fn bad_fields() -> Built {
    BTreeMap::from([
        ("field-count", get_with(b"\x40\x65")),
        ("field-missing", get_with(b"\x01")),
        ("field-name-number", get_with(b"\x01\x7f")),
        ("field-field-number", get_with(b"\x01\xff")),
        ("field-connection", get_with(b"\x01\x00\x0aconnection\x05close")),
        ("field-transfer-encoding", get_with(b"\x01\x00\x11transfer-encoding\x07chunked")),
        ("field-host", get_with(b"\x01\x00\x04host\x01b")),
        ("field-name-case", get_with(b"\x01\x00\x03X-A\x01b")),
        ("field-name-empty", get_with(b"\x01\x00\x00\x01b")),
        ("field-name-colon", get_with(b"\x01\x00\x05:path\x01/")),
        ("field-name-space", get_with(b"\x01\x00\x03a b\x01c")),
        ("field-value-space", get_with(b"\x01\x01\x02 a")),
        ("field-value-newline", get_with(b"\x01\x01\x04a\r\nb")),
        ("field-value-nul", get_with(b"\x01\x01\x02a\x00")),
        ("field-value-cut", get_with(b"\x01\x01\x09abc")),
        ("field-te", get_with(b"\x01\x00\x02te\x04gzip")),
        ("field-length-list", get_with(b"\x01\x00\x0econtent-length\x045, 5")),
        ("field-length-sign", get_with(b"\x01\x00\x0econtent-length\x02+5")),
        ("field-length-empty", get_with(b"\x01\x00\x0econtent-length\x00")),
        ("field-length-huge", get_with(b"\x01\x00\x0econtent-length\x134611686018427387904")),
        ("field-length-twice", get_with(b"\x02\x91\x91")),
        ("trailers-count", trailers_with(b"\x40\x65")),
        ("trailers-connection", trailers_with(b"\x01\x00\x0akeep-alive\x01a")),
        ("trailers-long", trailers_with(b"\x00\x00")),
    ])
}

fn bad_order() -> Built {
    let http = || open_frame(StreamKind::Http);
    let tcp = || open_frame(StreamKind::Tcp);
    let get = || head(request(Method::GET, "http://api.shop/", &[]));
    let hello = || Frame::Hello(Box::new(hello()));
    let trailers = || Frame::Trailers(Box::new(headers(&[("a", "b")])));
    let moved = || Frame::Moved(TOKEN);
    let resume = || Frame::Resume(TOKEN);
    let early = || answer(response(100, &[]));
    let seventeen = [vec![Frame::Opened], vec![early(); 17]].concat();
    let refused = || Frame::Refused(Refused::new(ErrorCode::Draining, Dispatched::No, ""));
    let frames: Vec<(&'static str, Vec<Frame>)> = vec![
        ("order-data-first", vec![data("x")]),
        ("order-two-opens", vec![tcp(), tcp()]),
        ("order-data-before-head", vec![http(), data("x")]),
        ("order-two-requests", vec![http(), get(), get()]),
        ("order-response-from-initiator", vec![http(), ok(&[])]),
        ("order-request-from-acceptor", vec![Frame::Opened, get()]),
        ("order-open-from-acceptor", vec![tcp()]),
        ("order-head-before-opened", vec![ok(&[])]),
        ("order-two-finals", vec![Frame::Opened, ok(&[]), ok(&[])]),
        ("order-interim-after-final", vec![Frame::Opened, ok(&[]), early()]),
        ("order-data-after-interim", vec![Frame::Opened, early(), data("x")]),
        ("order-many-interims", seventeen),
        ("order-trailers-first", vec![Frame::Opened, trailers()]),
        ("order-data-after-trailers", vec![Frame::Opened, ok(&[]), trailers(), data("x")]),
        ("order-trailers-on-tcp", vec![tcp(), trailers()]),
        ("order-head-on-tcp", vec![tcp(), get()]),
        ("order-data-on-udp", vec![open_frame(StreamKind::Udp), data("x")]),
        ("order-data-after-end", vec![tcp(), Frame::End, data("x")]),
        ("order-two-ends", vec![tcp(), Frame::End, Frame::End]),
        ("order-data-after-refused", vec![refused(), data("x")]),
        ("order-moved-before-head", vec![http(), moved()]),
        ("order-data-after-moved", vec![tcp(), moved(), data("x")]),
        ("order-moved-twice", vec![tcp(), moved(), resume(), moved()]),
        ("order-resume-first", vec![resume()]),
        ("order-hello-on-request", vec![hello()]),
        ("order-open-on-control", vec![hello(), tcp()]),
        ("order-beacon-first", vec![Frame::Beacon(beacon())]),
        ("order-two-hellos", vec![hello(), hello()]),
    ];
    frames.into_iter().map(|(name, frames)| (name, encode_all(&frames))).collect()
}

fn bad_ends() -> Built {
    let http = || open_frame(StreamKind::Http);
    let five = || ok(&[("content-length", "5")]);
    let frames: Vec<(&'static str, Vec<Frame>)> = vec![
        ("fin-at-once", vec![]),
        ("fin-after-open", vec![open_frame(StreamKind::Tcp)]),
        ("fin-after-opened", vec![Frame::Opened]),
        ("fin-after-interim", vec![Frame::Opened, answer(response(100, &[]))]),
        ("fin-without-end", vec![Frame::Opened, ok(&[]), data("x")]),
        ("fin-after-trailers", vec![Frame::Opened, ok(&[]), Frame::Trailers(Box::default())]),
        ("body-short", vec![http(), post("5"), data("hell"), Frame::End]),
        ("body-long", vec![http(), post("5"), data("hello!")]),
        ("body-on-204", vec![Frame::Opened, answer(response(204, &[])), data("x")]),
        ("body-on-304", vec![Frame::Opened, answer(response(304, &[])), data("x")]),
        ("body-on-head", vec![Frame::Opened, five(), data("hello")]),
    ];
    let mut built: Built =
        frames.into_iter().map(|(name, frames)| (name, encode_all(&frames))).collect();
    let whole = encode_all(&[open_frame(StreamKind::Tcp), data("hello")]);
    built.insert("fin-within-data", whole[..whole.len() - 2].to_vec());
    built
}

pub(crate) fn varints() -> Built {
    let values: [(&str, u64); 6] = [
        ("one-byte", 37),
        ("two-bytes", 15_293),
        ("four-bytes", 494_878_333),
        ("eight-bytes", 151_288_809_941_952_652),
        ("largest", varint::VARINT_MAX),
        ("zero", 0),
    ];
    let mut built = Built::new();
    for (name, value) in values {
        let mut out = BytesMut::new();
        varint::encode(value, &mut out);
        built.insert(name, out.to_vec());
    }
    built
}

pub(crate) fn datagrams() -> Built {
    let datagrams = [
        ("small-flow", Datagram { flow: 4, payload: Bytes::from_static(b"tick") }),
        ("empty-payload", Datagram { flow: 8, payload: Bytes::new() }),
        ("large-flow", Datagram { flow: 70_000, payload: Bytes::from_static(&[0xff, 0]) }),
    ];
    let mut built = Built::new();
    for (name, datagram) in datagrams {
        let mut out = BytesMut::new();
        datagram.encode(&mut out).unwrap();
        built.insert(name, out.to_vec());
    }
    built
}

pub(crate) fn connection_ids() -> Built {
    let server = [0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];
    let nonce = [0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57];
    let id = |rotation, worker| ConnectionId::new(rotation, worker, server, nonce).unwrap();
    BTreeMap::from([
        ("first", id(0, 0).to_bytes().to_vec()),
        ("worker-five", id(1, 5).to_bytes().to_vec()),
        ("last", id(7, 31).to_bytes().to_vec()),
    ])
}

pub(crate) fn resets() -> Built {
    let resets = [
        ("cancelled", StreamReset::new(ErrorCode::Cancelled, Dispatched::Yes)),
        ("overloaded", StreamReset::new(ErrorCode::Overloaded, Dispatched::No)),
        ("upstream-reset", StreamReset::new(ErrorCode::UpstreamReset, Dispatched::Maybe)),
        ("response-needs-no-more", StreamReset::new(ErrorCode::NoError, Dispatched::Yes)),
    ];
    let mut built = Built::new();
    for (name, reset) in resets {
        let mut out = BytesMut::new();
        varint::encode(reset.pack(), &mut out);
        built.insert(name, out.to_vec());
    }
    built
}
