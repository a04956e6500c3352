//! Directions that move to a bulk connection.

use bytes::Bytes;
use tunnel::Part;
use wire::tunnel::StreamKind;

use crate::site::{Checksum, Options, PIECE_BYTES, Site, pair, pattern, read_pattern};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_move_and_every_byte_keeps_its_place() {
    let (east, west) = pair(|| Options { workers: 2, ..Options::default() }).await;
    east.is_settled_with(&west, 2).await;
    west.is_settled_with(&east, 2).await;
    for (from, to) in [(&east, &west), (&west, &east)] {
        // Down: 4 MiB, of which the first half MiB stays on the fast connection.
        let moved = to.tunnel.counters().directions_moved;
        let mut exchange = from.open(to, "source-4194304", StreamKind::Tcp).await;
        assert_eq!(read_pattern(&mut exchange).await.unwrap(), 4 << 20);
        assert_eq!(to.tunnel.counters().directions_moved, moved + 1);
        // Down with its length told: it moves at the first byte.
        let mut exchange = from.open(to, "big-2097152", StreamKind::Tcp).await;
        assert_eq!(read_pattern(&mut exchange).await.unwrap(), 2 << 20);
        assert_eq!(to.tunnel.counters().directions_moved, moved + 2);
        // Up.
        let before = from.tunnel.counters().directions_moved;
        let mut exchange = from.open(to, "sink", StreamKind::Tcp).await;
        let mut sum = Checksum::default();
        for piece in 0..64 {
            let data = pattern(piece * PIECE_BYTES as u64, PIECE_BYTES);
            sum.add(&data);
            exchange.send.data(data).await.unwrap();
        }
        exchange.send.end().await.unwrap();
        let Part::Data(answer) = exchange.recv.next().await.unwrap() else { panic!() };
        assert_eq!(answer, sum.finish()[..]);
        assert!(matches!(exchange.recv.next().await.unwrap(), Part::End));
        assert_eq!(from.tunnel.counters().directions_moved, before + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_of_one_exchange_may_move() {
    let (east, west) = pair(Options::default).await;
    east.is_settled_with(&west, 1).await;
    let mut exchange = east.open(&west, "echo", StreamKind::Tcp).await;
    let (mut send, mut recv) = (exchange.send, exchange.recv);
    let sender = tokio::spawn(async move {
        for piece in 0..96 {
            send.data(pattern(piece * PIECE_BYTES as u64, PIECE_BYTES)).await.unwrap();
        }
        send.end().await.unwrap();
    });
    let mut offset = 0;
    while let Part::Data(data) = recv.next().await.unwrap() {
        assert_eq!(data, pattern(offset, data.len()), "at {offset}");
        offset += data.len() as u64;
    }
    assert_eq!(offset, 96 * PIECE_BYTES as u64);
    sender.await.unwrap();
    assert_eq!(east.tunnel.counters().directions_moved, 1);
    assert_eq!(west.tunnel.counters().directions_moved, 1);
    exchange = open_bulk(&east, &west, "echo").await;
    exchange.send.data(Bytes::from(vec![1; 700_000])).await.unwrap();
    exchange.send.data(Bytes::from(vec![1; 700_000])).await.unwrap();
    exchange.send.end().await.unwrap();
    assert_eq!(east.tunnel.counters().directions_moved, 1, "what begins on bulk stays there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_after_the_move_reaches_the_other_side() {
    let (east, west) = pair(Options::default).await;
    east.is_settled_with(&west, 1).await;
    let mut exchange = east.open(&west, "source-67108864", StreamKind::Tcp).await;
    let mut read = 0;
    while read < 2 << 20 {
        let Part::Data(data) = exchange.recv.next().await.unwrap() else { panic!() };
        read += data.len();
    }
    assert_eq!(west.tunnel.counters().directions_moved, 1);
    assert_eq!(west.tunnel.in_flight(), 1);
    drop(exchange);
    crate::site::wait_for("the sender to stop", || west.tunnel.in_flight() == 0).await;
}

async fn open_bulk(from: &Site, to: &Site, service: &str) -> tunnel::Exchange {
    let open = from.open_for(service, StreamKind::Tcp);
    from.workers[0].open_bulk(&to.cluster.name, &open).await.unwrap()
}
