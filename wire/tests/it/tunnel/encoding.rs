//! What the encoder refuses to send, and how it cuts DATA.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wire::tunnel::{
    ConnectionId, Datagram, Frame, RequestHead, encode_data, encode_hello, encode_request_head,
    encode_response_head, encode_trailers, limits,
};

use super::samples::{decode_all, encode_all, headers, hello, request, response};

#[test]
fn heads_that_a_peer_would_refuse_are_not_sent() {
    let with = |fields| request(Method::GET, "http://api.shop/", fields);
    let websocket = |method| RequestHead {
        protocol: Some("websocket".into()),
        ..request(method, "http://chat.shop/live", &[])
    };
    let cases: Vec<(RequestHead, &str)> = vec![
        (request(Method::GET, "/relative", &[]), "HEAD.scheme = /relative: it is not http"),
        (request(Method::GET, "ftp://a/", &[]), "HEAD.scheme = ftp://a/: it is not http"),
        (request(Method::GET, "http://u@a/", &[]), "HEAD.authority = u@a: it is empty, has user"),
        (request(Method::CONNECT, "http://a/b", &[]), "CONNECT without a protocol has neither"),
        (websocket(Method::GET), "HEAD.protocol = websocket: only CONNECT has a protocol"),
        (
            RequestHead {
                headers: headers(&[("content-length", "5")]),
                ..websocket(Method::CONNECT)
            },
            "content-length = \"5\": CONNECT has no body",
        ),
        (with(&[("connection", "close")]), "field = connection: it belongs to one"),
        (with(&[("transfer-encoding", "chunked")]), "strip it before the message enters"),
        (with(&[("host", "b")]), "field = host: it belongs to one connection, or the head"),
        (with(&[("upgrade", "websocket")]), "field = upgrade: it belongs"),
        (with(&[("te", "gzip")]), "field = te: only \"trailers\" is allowed in te"),
        (with(&[("content-length", "5, 5")]), "field = content-length: it is not a decimal"),
    ];
    for (head, text) in cases {
        let mut out = BytesMut::from(&b"before"[..]);
        let error = encode_request_head(&head, &mut out).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert_eq!(out, "before", "nothing of the frame is left");
    }
    assert!(encode_request_head(&websocket(Method::CONNECT), &mut BytesMut::new()).is_ok());
    let error = encode_response_head(&response(101, &[]), &mut BytesMut::new()).unwrap_err();
    assert!(error.to_string().contains("HEAD.status = 101: it is not in 100..=999"), "{error}");
}

#[test]
fn heads_keep_their_limits() {
    let mut many = HeaderMap::new();
    for number in 0..=limits::HEAD_FIELDS_MAX {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        many.append(name, HeaderValue::from_static("1"));
    }
    let error = encode_trailers(&many, &mut BytesMut::new()).unwrap_err().to_string();
    assert_eq!(error, "TRAILERS has 101 fields, more than 100; send fewer fields");

    let mut long = request(Method::GET, "http://a/", &[]);
    let value = HeaderValue::try_from("x".repeat(limits::HEAD_BYTES_MAX)).unwrap();
    long.headers.insert("x-long", value);
    let error = encode_request_head(&long, &mut BytesMut::new()).unwrap_err().to_string();
    assert_eq!(error, "HEAD is 65557 bytes long, more than 65536; send less in it");
}

#[test]
fn field_values_are_trimmed_as_rfc_9110_has_it() {
    let mut out = BytesMut::new();
    encode_trailers(&headers(&[("x-a", " \t b c\t"), ("x-b", "  ")]), &mut out).unwrap();
    let frames = decode_all(&out).unwrap();
    let trimmed = headers(&[("x-a", "b c"), ("x-b", "")]);
    assert_eq!(frames, [Frame::Trailers(Box::new(trimmed))]);
}

#[test]
fn secrets_are_kept_out_of_shared_tables() {
    let secret = [("authorization", "Bearer x"), ("set-cookie", "a=1"), ("accept", "*/*")];
    let mut out = BytesMut::new();
    encode_trailers(&headers(&secret), &mut out).unwrap();
    let [Frame::Trailers(got)] = &decode_all(&out).unwrap()[..] else { panic!("no trailers") };
    let sensitive = |name| got.get(name).is_some_and(HeaderValue::is_sensitive);
    assert!(sensitive("authorization") && sensitive("set-cookie") && !sensitive("accept"));
}

#[test]
fn data_is_cut_into_frames_and_never_copied() {
    let mut payload = Bytes::from(vec![1; 2 * limits::DATA_BYTES_MAX + 10]);
    let start = payload.as_ptr();
    let mut lengths = Vec::new();
    let mut header = BytesMut::new();
    while let Some(chunk) = encode_data(&mut payload, &mut header) {
        if lengths.is_empty() {
            assert_eq!(chunk.as_ptr(), start);
        }
        lengths.push(chunk.len());
    }
    assert_eq!(lengths, [limits::DATA_BYTES_MAX, limits::DATA_BYTES_MAX, 10]);
    assert_eq!(&header[..], b"\x0d\x80\x01\x00\x00\x0d\x80\x01\x00\x00\x0d\x0a");
}

#[test]
fn long_heads_have_long_lengths() {
    for length in [16_000, 16_381, 16_382, 16_383, 16_384, 40_000] {
        let mut trailers = HeaderMap::new();
        let mut rest = length;
        while rest > 0 {
            let part = rest.min(8000);
            trailers.append("x-a", HeaderValue::try_from("v".repeat(part)).unwrap());
            rest -= part;
        }
        let head = response(200, &[]);
        let frame =
            super::samples::answer(wire::tunnel::ResponseHead { headers: trailers, ..head });
        let bytes = encode_all(std::slice::from_ref(&frame));
        assert_eq!(decode_all(&bytes).unwrap(), [frame], "{length}");
    }
}

#[test]
fn a_hello_that_a_peer_would_refuse_is_not_sent() {
    let mut hello = hello();
    hello.worker = 32;
    let error = encode_hello(&hello, &mut BytesMut::new()).unwrap_err().to_string();
    let text = "not sent, since a peer would refuse it: HELLO.worker = 32: it is above 31";
    assert!(error.starts_with(text), "{error}");
}

#[test]
fn flow_ids_fit_a_varint() {
    let datagram = Datagram { flow: u64::MAX, payload: Bytes::new() };
    let error = datagram.encode(&mut BytesMut::new()).unwrap_err().to_string();
    assert!(error.contains("it does not fit a QUIC varint"), "{error}");
    assert!(ConnectionId::new(0, 31, [0; 8], [0; 7]).is_ok());
}
