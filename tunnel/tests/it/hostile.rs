//! Streams that break the rules: each costs its exchange, and nothing else.

use bytes::{Bytes, BytesMut};
use wire::tunnel::{
    ConnectionClass, Dispatched, ErrorCode, Frame, MoveToken, StreamKind, StreamReset, encode_data,
    encode_end, encode_moved, encode_open, encode_resume,
};

use crate::admission::{cell_of, host};
use crate::site::{Checksum, Site};
use crate::stranger::{Stranger, read_frames};

const GATEWAY: &str = "/fedgate/gateway/gw-0";

fn open(site: &Site, service: &str, path: &str) -> Bytes {
    let mut open = site.open_for(service, StreamKind::Tcp);
    open.source = format!("spiffe://east.fed{path}").parse().unwrap();
    let mut out = BytesMut::new();
    encode_open(&open, &mut out).unwrap();
    out.freeze()
}

fn data(text: &str) -> Bytes {
    let (mut out, mut payload) = (BytesMut::new(), Bytes::copy_from_slice(text.as_bytes()));
    let piece = encode_data(&mut payload, &mut out).unwrap();
    out.extend_from_slice(&piece);
    out.freeze()
}

fn end() -> Bytes {
    let mut out = BytesMut::new();
    encode_end(&mut out);
    out.freeze()
}

fn moved(token: [u8; 16]) -> Bytes {
    let mut out = BytesMut::new();
    encode_moved(MoveToken::from_bytes(token), &mut out);
    out.freeze()
}

fn resume(token: [u8; 16]) -> Bytes {
    let mut out = BytesMut::new();
    encode_resume(MoveToken::from_bytes(token), &mut out);
    out.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_beginning_is_refused_with_its_code_and_text() {
    let (east, west) = host();
    let fast = ConnectionClass::Fast;
    let stranger = Stranger::greeted(cell_of(&east, GATEWAY, &west), &west, fast).await;
    let good = open(&west, "echo", GATEWAY);
    for (bytes, code, text) in [
        (data("early"), ErrorCode::FrameOutOfOrder, "frame = DATA: OPEN was due"),
        (end(), ErrorCode::FrameOutOfOrder, "frame = END: OPEN was due"),
        (resume([1; 16]), ErrorCode::FrameOutOfOrder, "frame = RESUME: OPEN was due"),
        (good.slice(..good.len() - 1), ErrorCode::Truncated, "ended where OPEN was due"),
        (Bytes::new(), ErrorCode::Truncated, "ended where OPEN was due"),
        (Bytes::from_static(&[5, 0x80, 1, 0, 0]), ErrorCode::FrameTooLarge, "OPEN.length = 65536"),
        (Bytes::from_static(&[5, 1, 0xff]), ErrorCode::MalformedFrame, "OPEN"),
        (Bytes::from_static(&[0x17, 0]), ErrorCode::UnknownOddFrame, "frame type = 0x17 (RESET)"),
    ] {
        let frames = stranger.exchange(&bytes).await;
        let Ok([Frame::Refused(refused)]) = frames.as_deref() else {
            panic!("{bytes:?}: {frames:?}")
        };
        assert_eq!((refused.code, refused.dispatched), (code, Dispatched::No), "{refused:?}");
        assert!(refused.message.contains(text), "{:?} has not {text:?}", refused.message);
    }
    // The connection has borne it all.
    let frames = stranger.exchange(&[good, data("x"), end()].concat()).await.unwrap();
    assert!(matches!(&frames[..], [Frame::Opened, Frame::Data(_), Frame::End]), "{frames:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_off_is_never_taken_for_complete() {
    let (east, west) = host();
    let fast = ConnectionClass::Fast;
    let stranger = Stranger::greeted(cell_of(&east, GATEWAY, &west), &west, fast).await;
    let sink = open(&west, "sink", GATEWAY);
    for (rest, what) in [
        (vec![data("half")], "FIN without END"),
        (vec![data("half"), Bytes::from_static(&[0x0d, 5, 1])], "FIN within DATA"),
        (vec![end(), data("more")], "DATA after END"),
        (vec![moved([3; 16]), data("more")], "DATA after MOVED"),
        (vec![moved([4; 16]), moved([4; 16])], "MOVED twice"),
    ] {
        let bytes = [vec![sink.clone()], rest].concat().concat();
        match stranger.exchange(&bytes).await {
            // The gateway gives its own direction up.
            Err(reset) => assert_eq!(reset.code, ErrorCode::Cancelled, "{what}"),
            // What stands before END is complete, whatever follows it.
            Ok(frames) => {
                assert_eq!(what, "DATA after END");
                assert!(matches!(&frames[..], [Frame::Opened, Frame::Data(_), Frame::End]));
            }
        }
    }
}

/// The token alone is no right to go on with an exchange: with the gateway left out of the table's
/// key, the thief's bytes were seen to end up in the victim's exchange.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_goes_on_with_a_direction_that_moved() {
    let (east, west) = host();
    let (fast, bulk) = (ConnectionClass::Fast, ConnectionClass::Bulk);
    let victim = Stranger::greeted(cell_of(&east, GATEWAY, &west), &west, fast).await;
    let victim_bulk = Stranger::greeted(cell_of(&east, GATEWAY, &west), &west, bulk).await;
    let thief_cell = cell_of(&east, "/fedgate/gateway/gw-1", &west);
    let thief = Stranger::greeted(thief_cell, &west, bulk).await;
    let token = [9; 16];
    let stolen = async |thief: &Stranger, text: &str| {
        let mut send = thief.connection.open_uni().await.unwrap();
        // Without FIN: a stream that is read to its end can no longer be stopped.
        send.write_all(&[resume(token), data(text), end()].concat()).await.unwrap();
        send
    };
    let before = stolen(&thief, "stolen before").await;
    let (mut send, recv) = victim.connection.open_bi().await.unwrap();
    let sink = open(&west, "sink", GATEWAY);
    send.write_all(&[sink, data("mine, "), moved(token)].concat()).await.unwrap();
    send.finish().unwrap();
    let after = stolen(&thief, "stolen after").await;
    // The second use of a token by one gateway is refused at once, the first one when it is too old.
    let stopped = after.stopped().await.unwrap().map(|code| StreamReset::unpack(code.into_inner()));
    assert_eq!(stopped.map(|reset| reset.code), Some(ErrorCode::FrameOutOfOrder));
    let _goes_on = stolen(&victim_bulk, "all of it").await;
    let frames = read_frames(recv).await.unwrap();
    let [Frame::Opened, Frame::Data(answer), Frame::End] = &frames[..] else {
        panic!("{frames:?}")
    };
    let mut sum = Checksum::default();
    sum.add(b"mine, all of it");
    assert_eq!(answer[..], sum.finish());
    let stopped =
        before.stopped().await.unwrap().map(|code| StreamReset::unpack(code.into_inner()));
    assert_eq!(stopped.map(|reset| reset.code), Some(ErrorCode::ResumeTimeout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direction_whose_other_stream_never_comes_breaks_off() {
    let (east, west) = host();
    let cell = || cell_of(&east, GATEWAY, &west);
    let fast = Stranger::greeted(cell(), &west, ConnectionClass::Fast).await;
    let bulk = Stranger::greeted(cell(), &west, ConnectionClass::Bulk).await;
    let sink = open(&west, "sink", GATEWAY);
    let start = std::time::Instant::now();
    let lost = fast.exchange(&[sink, data("x"), moved([5; 16])].concat()).await.unwrap_err();
    assert_eq!(lost.code, ErrorCode::Cancelled);
    assert!(start.elapsed() >= std::time::Duration::from_secs(4), "{:?}", start.elapsed());
    // Unidirectional streams carry RESUME and nothing else.
    for (bytes, code) in [
        (data("x"), ErrorCode::FrameOutOfOrder),
        (Bytes::from_static(&[0x21, 0]), ErrorCode::UnknownOddFrame),
        (resume([6; 16]).slice(..5), ErrorCode::ResumeTimeout),
    ] {
        let mut send = bulk.connection.open_uni().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let stopped = send.stopped().await.unwrap();
        let stopped = stopped.map(|packed| StreamReset::unpack(packed.into_inner()).code);
        assert_eq!(stopped, Some(code), "{bytes:?}");
    }
}
