//! Random bytes never panic a decoder, and random values come back as they were. The fuzz targets in
//! `fuzz/` do the same for longer.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use model::{ClusterId, RequestId, Revision, ServiceName, SpiffeId};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::tunnel::{
    ConnectionId, Datagram, Frame, FrameDecoder, FrameOrder, Open, ResponseHead, RouteRevision,
    RouteSide, StreamKind, StreamReset, TraceContext, Via, varint,
};

use super::samples::{answer, decode_all, encode, encode_all, raw_frame};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_are_refused_or_read(bytes in vec(any::<u8>(), 0..600), cut in 1usize..64) {
        let whole = read(&bytes, bytes.len().max(1));
        prop_assert_eq!(read(&bytes, cut), whole, "the cut changes nothing");
        let _ = Datagram::decode(Bytes::copy_from_slice(&bytes));
        let _ = ConnectionId::decode(&bytes);
    }

    #[test]
    fn random_payloads_of_known_frames(number in 1u64..0x18, bytes in vec(any::<u8>(), 0..300)) {
        let mut decoder = FrameDecoder::new();
        decoder.push(raw_frame(number, &bytes).into());
        while let Ok(Some(frame)) = decoder.next() {
            // What was accepted can be sent on, and means the same then.
            let mut out = BytesMut::new();
            encode(&frame, &mut out);
            prop_assert_eq!(decode_all(&out), Ok(vec![frame]));
        }
    }

    #[test]
    fn spoilt_streams_are_refused_or_read(
        at in any::<prop::sample::Index>(), bit in 0u8..8, fields in fields(),
    ) {
        let mut bytes = encode_all(&[
            Frame::Open(Box::new(super::samples::full_open())),
            answer(ResponseHead { status: StatusCode::OK, headers: fields }),
            Frame::End,
        ]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = decode_all(&bytes);
    }

    #[test]
    fn orders_never_panic(frames in vec(any_frame(), 0..8)) {
        let orders = [
            FrameOrder::control(),
            FrameOrder::initiator(),
            FrameOrder::acceptor_tcp(),
            FrameOrder::acceptor_http(&Method::GET),
        ];
        for mut order in orders {
            let accepted = frames.iter().take_while(|frame| order.check(frame).is_ok()).count();
            if accepted == frames.len() && order.is_complete() {
                prop_assert!(order.finish().is_ok());
                prop_assert!(order.check(&Frame::End).is_err(), "nothing follows the end");
            }
        }
    }

    #[test]
    fn opens_come_back(open in any_open()) {
        let frame = Frame::Open(Box::new(open));
        prop_assert_eq!(decode_all(&encode_all(std::slice::from_ref(&frame))), Ok(vec![frame]));
    }

    #[test]
    fn fields_come_back(headers in fields(), status in 200u16..=999) {
        let status = StatusCode::from_u16(status).unwrap();
        let frame = answer(ResponseHead { status, headers });
        prop_assert_eq!(decode_all(&encode_all(std::slice::from_ref(&frame))), Ok(vec![frame]));
    }

    #[test]
    fn small_codecs_come_back(value in 0..=varint::VARINT_MAX, payload in vec(any::<u8>(), 0..40)) {
        let mut out = BytesMut::new();
        varint::encode(value, &mut out);
        prop_assert_eq!(varint::decode(&out), Some((value, out.len())));
        let datagram = Datagram { flow: value, payload: payload.into() };
        let mut out = BytesMut::new();
        datagram.encode(&mut out).unwrap();
        prop_assert_eq!(Datagram::decode(out.freeze()), Ok(datagram));
        let reset = StreamReset::unpack(value);
        prop_assert_eq!(StreamReset::unpack(reset.pack()), reset);
    }
}

/// Frames (DATA as a byte count, since cuts move its pieces) and the error, if any.
fn read(bytes: &[u8], cut: usize) -> (Vec<Frame>, usize, Option<String>) {
    let mut decoder = FrameDecoder::new();
    let (mut frames, mut data_bytes) = (Vec::new(), 0);
    for piece in bytes.chunks(cut) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next() {
                Ok(Some(Frame::Data(data))) => data_bytes += data.len(),
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, data_bytes, Some(error.to_string())),
            }
        }
    }
    (frames, data_bytes, None)
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    let name = "[a-z][a-z0-9-]{0,20}";
    let value = "[!-~]{0,30}";
    vec((name, value), 0..20).prop_map(|fields| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(format!("x-{name}")).unwrap();
            headers.append(name, HeaderValue::try_from(value).unwrap());
        }
        headers
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let status = prop_oneof![Just(103), Just(200), Just(204)];
    let head = (status, fields()).prop_map(|(status, headers)| {
        answer(ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers })
    });
    let token = wire::tunnel::MoveToken::from_bytes([1; 16]);
    prop_oneof![
        Just(Frame::Hello(Box::new(super::samples::hello()))),
        Just(Frame::Beacon(super::samples::beacon())),
        any_open().prop_map(|open| Frame::Open(Box::new(open))),
        Just(Frame::Opened),
        head,
        Just(super::samples::data("x")),
        Just(Frame::End),
        Just(Frame::Moved(token)),
        Just(Frame::Resume(token)),
    ]
}

fn any_open() -> impl Strategy<Value = Open> {
    let kind = prop_oneof![Just(StreamKind::Http), Just(StreamKind::Tcp), Just(StreamKind::Udp)];
    let service = ("[a-z][a-z0-9-]{0,20}[a-z0-9]", "[a-z][a-z0-9.]{0,10}[a-z]");
    let service = service.prop_filter_map("two dots", |(namespace, name)| {
        ServiceName::parse(&format!("{namespace}/{name}")).ok()
    });
    let source = "spiffe://[a-z]{1,10}/[a-zA-Z0-9]{1,10}";
    let source = source.prop_map(|text| SpiffeId::parse(&text).unwrap());
    let trace =
        (1u8.., 1u8.., any::<u8>(), "[ -~]{0,20}").prop_map(|(trace, parent, flags, state)| {
            TraceContext {
                trace_id: [trace; 16],
                parent_id: [parent; 8],
                flags,
                state: state.into(),
            }
        });
    let via = vec(any::<[u8; 16]>(), 1..=3).prop_map(|clusters| {
        let mut clusters = clusters.into_iter().map(ClusterId::from_bytes);
        let first = Via::new(clusters.next().unwrap());
        clusters.fold(first, |via, cluster| via.with(cluster).unwrap())
    });
    let route = (any::<bool>(), any::<u64>(), any::<u64>()).prop_map(|(producer, epoch, index)| {
        let side = if producer { RouteSide::Producer } else { RouteSide::Consumer };
        RouteRevision { side, revision: Revision { epoch, index } }
    });
    let numbers = (1u16.., prop::option::of(1u32..=86_400_000), 1u32..=16, 0u32..=16);
    let rest = (any::<[u8; 16]>(), any::<bool>(), numbers);
    let parts =
        (kind, service, source, prop::option::of(trace), via, prop::option::of(route), rest);
    parts.prop_map(|(kind, service, source, trace, via, route, rest)| {
        let (request_id, unattested, (port, deadline_ms, attempt, retries_left)) = rest;
        let request_id = RequestId::from_bytes(request_id);
        Open {
            kind,
            service,
            port,
            source,
            unattested,
            trace,
            deadline_ms,
            request_id,
            attempt,
            retries_left,
            via,
            route,
        }
    })
}
