//! The incremental decoder: any cut gives the same frames, payloads are shared, and nothing is held
//! beyond what the limits allow.

use bytes::{Bytes, BytesMut};
use http::Method;
use wire::tunnel::{Frame, FrameDecoder, StreamKind, limits};

use super::samples::{
    answer, data, encode_all, full_open, head, open, raw_frame, request, response,
};

/// One direction with a frame of every shape: long, short, empty, skipped.
fn sample() -> (Vec<u8>, Vec<Frame>) {
    let long = "x".repeat(20_000).leak();
    let frames = vec![
        Frame::Open(Box::new(full_open())),
        head(request(Method::POST, "http://api.shop/", &[("x-long", long)])),
        data("hello"),
        Frame::Opened,
        answer(response(200, &[("content-type", "text/html")])),
        Frame::End,
    ];
    let mut bytes = encode_all(&frames[..3]);
    bytes.extend(raw_frame(0x40 * 7 + 0x3e, b"skipped"));
    bytes.extend(raw_frame(0x3e, b""));
    bytes.extend(encode_all(&frames[3..]));
    (bytes, frames)
}

fn read_in_pieces(bytes: &[u8], length: usize) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new();
    let mut frames: Vec<Frame> = Vec::new();
    for piece in bytes.chunks(length) {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(frame) = decoder.next().unwrap() {
            match (frames.last_mut(), frame) {
                // Pieces of DATA are joined again, to compare.
                (Some(Frame::Data(data)), Frame::Data(more)) => {
                    let mut joined = BytesMut::from(&data[..]);
                    joined.extend_from_slice(&more);
                    *data = joined.freeze();
                }
                (_, frame) => frames.push(frame),
            }
        }
    }
    assert!(decoder.is_between_frames());
    frames
}

#[test]
fn any_cut_gives_the_same_frames() {
    let (bytes, frames) = sample();
    for length in [1, 2, 3, 5, 16, 100, 1452, 16_384, bytes.len()] {
        assert_eq!(read_in_pieces(&bytes, length), frames, "pieces of {length} bytes");
    }
}

#[test]
fn chunks_pushed_before_they_are_read_are_joined() {
    let (bytes, frames) = sample();
    let mut decoder = FrameDecoder::new();
    for piece in bytes.chunks(1000) {
        decoder.push(Bytes::copy_from_slice(piece));
    }
    for frame in frames {
        assert_eq!(decoder.next().unwrap(), Some(frame));
    }
    assert_eq!(decoder.next().unwrap(), None);
}

#[test]
fn data_passes_through_as_it_arrives_and_is_not_copied() {
    let whole = Bytes::from(encode_all(&[Frame::Data(Bytes::from(vec![7; 60_000]))]));
    let mut decoder = FrameDecoder::new();
    decoder.push(whole.slice(..100));
    let Some(Frame::Data(first)) = decoder.next().unwrap() else { panic!("no first piece") };
    assert_eq!(first.as_ptr(), whole[5..].as_ptr(), "the piece lies in the chunk");
    assert_eq!(first.len(), 95);
    assert_eq!(decoder.next().unwrap(), None);
    decoder.push(whole.slice(100..));
    let Some(Frame::Data(second)) = decoder.next().unwrap() else { panic!("no second piece") };
    assert_eq!((second.as_ptr(), second.len()), (whole[100..].as_ptr(), 60_000 - 95));
    assert!(decoder.is_between_frames());
}

#[test]
fn field_values_share_the_chunk() {
    let mut bytes = encode_all(&[Frame::Open(Box::new(open(StreamKind::Http)))]);
    let value = "a value of some length that would be worth copying";
    bytes.extend(encode_all(&[head(request(Method::GET, "http://a/", &[("x-a", value)]))]));
    let chunk = Bytes::from(bytes);
    let mut decoder = FrameDecoder::new();
    decoder.push(chunk.clone());
    assert!(matches!(decoder.next().unwrap(), Some(Frame::Open(_))));
    let Some(Frame::Head(head)) = decoder.next().unwrap() else { panic!("no head") };
    let wire::tunnel::Head::Request(head) = *head else { panic!("no request") };
    let shared = head.headers["x-a"].as_bytes().as_ptr();
    assert!(chunk.as_ptr_range().contains(&shared), "the value lies in the chunk");
}

#[test]
fn the_longest_frames_pass_and_one_byte_more_does_not() {
    for (number, max) in [(0x0d, limits::DATA_BYTES_MAX), (0x3e, limits::SKIPPED_BYTES_MAX)] {
        let mut decoder = FrameDecoder::new();
        decoder.push(raw_frame(number, &vec![1; max]).into());
        while decoder.next().unwrap().is_some() {}
        assert!(decoder.is_between_frames());
        decoder.push(raw_frame(number, &vec![1; max + 1]).into());
        let error = decoder.next().unwrap_err().to_string();
        assert!(error.contains(&format!("{}: it is more than {max} bytes", max + 1)), "{error}");
    }
}

#[test]
fn an_error_stays_and_the_rest_is_dropped() {
    let mut decoder = FrameDecoder::new();
    decoder.push([raw_frame(0x1d, b""), encode_all(&[Frame::End])].concat().into());
    let first = decoder.next().unwrap_err();
    decoder.push(Bytes::from(encode_all(&[Frame::End])));
    assert_eq!(decoder.next().unwrap_err(), first);
    assert!(!decoder.is_between_frames());
}
