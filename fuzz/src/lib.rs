//! What must hold for every input of every decoder that reads what others wrote. Not only must
//! nothing panic: what was read and written again must read the same.

mod store;

pub use store::{store, tokens, watch};

use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::Method;
use identity::Ca;
use model::{ClusterName, Hostname, Namespace, ObjectName, ServiceName, SpiffeId, TrustDomain};
use prost::Message;
use rustls_pki_types::CertificateDer;
use wire::resource::{Ack, Delta, EnrolRequest, EnrolResponse, StatusReport, Subscribe, proto};
use wire::tunnel::{
    ConnectionId, Datagram, DecodeError, EncodeError, Frame, FrameDecoder, FrameOrder, Head,
    encode_beacon, encode_drain, encode_hello, encode_open, encode_refused, encode_request_head,
    encode_response_head, encode_trailers, varint,
};

/// Frames of the tunnel. The first byte chooses the stream's direction, the second the length of the
/// pieces in which the rest arrives, which must not matter.
pub fn frames(data: &[u8]) {
    let &[direction, piece, ref stream @ ..] = data else { return };
    let whole = read_frames(stream, stream.len().max(1));
    let pieces = read_frames(stream, usize::from(piece) + 1);
    assert_eq!(whole, pieces, "the cut between two packets must not matter");

    let mut order = match direction % 5 {
        0 => FrameOrder::control(),
        1 => FrameOrder::initiator(),
        2 => FrameOrder::acceptor_tcp(),
        3 => FrameOrder::acceptor_http(&Method::GET),
        _ => FrameOrder::acceptor_http(&Method::CONNECT),
    };
    for frame in &whole.0 {
        check_rewritten(frame);
        if order.check(frame).is_err() {
            return;
        }
    }
    assert!(!order.is_complete() || order.finish().is_ok(), "a complete stream may end");
}

/// Heads and trailers: the field block, without having to find the frame around it first.
pub fn heads(data: &[u8]) {
    const TYPES: [u8; 2] = [0x0b, 0x0f];
    payload(&TYPES, data);
}

/// HELLO, BEACON, DRAIN, OPEN and REFUSED: protobuf, then the checks of each field.
pub fn bodies(data: &[u8]) {
    const TYPES: [u8; 5] = [0x01, 0x02, 0x03, 0x05, 0x09];
    payload(&TYPES, data);
}

/// One frame of one of these types; the first byte chooses which, the rest is its payload.
fn payload(types: &[u8], data: &[u8]) {
    let Some((&choice, payload)) = data.split_first() else { return };
    let mut frame = BytesMut::from(&[types[usize::from(choice) % types.len()]][..]);
    varint::encode(payload.len() as u64, &mut frame);
    frame.extend_from_slice(payload);
    let (frames, error) = read_frames(&frame, frame.len());
    assert!(error.is_some() != (frames.len() == 1), "one frame or one error");
    if let Some(frame) = frames.first() {
        check_rewritten(frame);
    }
}

/// All frames, with neighbouring pieces of DATA joined, and the error that ended them.
fn read_frames(stream: &[u8], piece_bytes: usize) -> (Vec<Frame>, Option<DecodeError>) {
    let mut decoder = FrameDecoder::new();
    let mut frames: Vec<Frame> = Vec::new();
    for piece in stream.chunks(piece_bytes) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next() {
                Ok(Some(frame)) => append(&mut frames, frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn append(frames: &mut Vec<Frame>, frame: Frame) {
    if let (Some(Frame::Data(before)), Frame::Data(after)) = (frames.last_mut(), &frame) {
        *before = [&before[..], &after[..]].concat().into();
    } else {
        frames.push(frame);
    }
}

fn check_rewritten(frame: &Frame) {
    let mut bytes = BytesMut::new();
    if let Err(error) = write_frame(frame, &mut bytes) {
        panic!("what we read, we write: {error}: {frame:?}");
    }
    if !bytes.is_empty() {
        let (again, error) = read_frames(&bytes, bytes.len());
        assert_eq!(error, None, "what we write, we read: {frame:?}");
        assert_eq!(again.first(), Some(frame));
    }
}

fn write_frame(frame: &Frame, out: &mut BytesMut) -> Result<(), EncodeError> {
    match frame {
        Frame::Hello(hello) => encode_hello(hello, out),
        Frame::Beacon(beacon) => encode_beacon(beacon, out),
        Frame::Drain(drain) => encode_drain(drain, out),
        Frame::Open(open) => encode_open(open, out),
        Frame::Refused(refused) => encode_refused(refused, out),
        Frame::Head(head) => match &**head {
            Head::Request(head) => encode_request_head(head, out),
            Head::Response(head) => encode_response_head(head, out),
        },
        Frame::Trailers(trailers) => encode_trailers(trailers, out),
        Frame::Opened | Frame::Data(_) | Frame::End | Frame::Moved(_) | Frame::Resume(_) => Ok(()),
    }
}

/// Datagrams and connection ids.
pub fn datagrams(data: &[u8]) {
    if let Ok(datagram) = Datagram::decode(Bytes::copy_from_slice(data)) {
        let mut bytes = BytesMut::new();
        datagram.encode(&mut bytes).expect("a flow id that was read fits a varint");
        assert_eq!(Datagram::decode(bytes.freeze()).ok(), Some(datagram));
    }
    if let Ok(id) = ConnectionId::decode(data) {
        assert_eq!(id.to_bytes(), data);
    }
}

/// SPIFFE bundle documents.
pub fn bundles(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let domain = TrustDomain::parse("east.example").expect("the name is valid");
    if let Ok(bundle) = wire::bundle::parse_bundle(text, &domain) {
        let text = wire::bundle::format_bundle(&bundle).expect("what was read can be written");
        assert_eq!(wire::bundle::parse_bundle(&text, &domain).ok(), Some(bundle));
    }
}

/// Messages of the resource stream; the first byte chooses which.
pub fn resources(data: &[u8]) {
    let Some((choice, message)) = data.split_first() else { return };
    match choice % 6 {
        0 => check_message(message, Delta::decode, Delta::encode),
        1 => check_message(message, StatusReport::decode, StatusReport::encode),
        2 => check_message(message, Subscribe::decode, Subscribe::encode),
        3 => check_message(message, Ack::decode, Ack::encode),
        4 => check_message(message, EnrolRequest::decode, EnrolRequest::encode),
        _ => check_message(message, EnrolResponse::decode, EnrolResponse::encode),
    }
    if let Ok(key) = proto::Key::decode(message) {
        let decoded = wire::resource::decode_key(key);
        drop(decoded);
    }
}

pub(crate) fn check_message<P, T, E>(
    message: &[u8],
    decode: impl Fn(P) -> Result<T, E>,
    encode: impl Fn(&T) -> P,
) where
    P: Message + Default + PartialEq + Debug,
{
    let Ok(message) = P::decode(message) else { return };
    let Ok(value) = decode(message) else { return };
    // What a newer node added is left out the first time; after that nothing may get lost.
    let written = encode(&value);
    let Ok(again) = decode(P::decode(&written.encode_to_vec()[..]).expect("just written")) else {
        panic!("what we write, we read: {written:?}");
    };
    assert!(encode(&again) == written, "read and written again it differs: {written:?}");
}

/// Kubernetes manifests.
pub fn manifests(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let first = api::parse_manifest("fuzz.yaml", text).map(|manifest| manifest.objects.len());
    let second = api::parse_manifest("fuzz.yaml", text).map(|manifest| manifest.objects.len());
    assert_eq!(first.ok(), second.ok(), "the same text means the same");
}

/// Names and SPIFFE IDs.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    macro_rules! check {
        ($($name:ident)*) => {$(
            if let Ok(name) = $name::parse(text) {
                assert_eq!($name::parse(&name.to_string()).ok(), Some(name));
            }
        )*};
    }
    check!(ClusterName Hostname Namespace ObjectName ServiceName SpiffeId TrustDomain);
}

/// Certificates of peers and signing requests of gateways.
pub fn certificates(data: &[u8]) {
    let id = identity::peer_id(&[CertificateDer::from(data)]);
    drop(id);
    let asked = SpiffeId::parse("spiffe://east.example/fedgate/gateway/one").expect("is valid");
    let issued = CA.issue(data, &asked, Duration::from_secs(3600), SystemTime::now());
    if let Ok(chain) = issued {
        assert_eq!(identity::peer_id(&chain).ok(), Some(asked), "the CA decides the name");
    }
}

static CA: LazyLock<Ca> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let domain = TrustDomain::parse("east.example").expect("the name is valid");
    Ca::load_or_create(&folder.path().join("ca"), &domain, SystemTime::now()).expect("a new CA")
});
