//! Readers that do not read.

use std::time::Duration;

use tunnel::{Part, StreamErrorKind};
use wire::tunnel::{ErrorCode, StreamKind};

use crate::site::{LONG, Options, ask, pair, wait_for};

/// 300 readers that never read hold 75 MiB of windows, of which the connection grants 16. With
/// `relieve` made to do nothing, the good client was never answered: seen so before the guard was
/// put back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_stalled_readers_do_not_harm_a_good_one() {
    let (east, west) = pair(Options::default).await;
    let mut stalled = Vec::new();
    for _ in 0..300 {
        stalled.push(east.open(&west, "source-1048576", StreamKind::Tcp).await);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let answer = tokio::time::timeout(LONG, ask(&east, &west)).await.expect("an answer");
        slowest = slowest.max(answer.unwrap());
    }
    // Each reset lets further streams fill their windows, until no more than 48 hold one.
    wait_for("the resets", || east.tunnel.counters().stalled_readers_reset > 200).await;
    // Generous: what is asserted is that it does not hang, and that no good exchange is reset.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    // The stalled ones are told why, when they come to read at last.
    let mut told = 0;
    for mut exchange in stalled {
        let error = loop {
            match tokio::time::timeout(Duration::from_millis(50), exchange.recv.next()).await {
                Ok(Ok(Part::End)) | Err(_) => break None,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => break Some(error),
            }
        };
        if let Some(error) = error {
            assert_eq!(
                (error.code, error.kind),
                (ErrorCode::StalledReader, StreamErrorKind::Local)
            );
            told += 1;
        }
    }
    assert!(told >= 200, "{told} were told");
}

/// A slow reader is not a stalled one: it reads all the time, and is left alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_that_read_are_left_alone() {
    let mut limits = tunnel::TunnelLimits::default();
    // Four streams fill three quarters.
    limits.fast.connection_window_bytes = 5 * limits.fast.stream_window_bytes;
    limits.move_after_bytes = u64::MAX;
    let (east, west) = pair(|| Options { limits: limits.clone(), ..Options::default() }).await;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let exchange = east.open(&west, "source-300000", StreamKind::Tcp).await;
        readers.spawn(async move {
            let mut exchange = exchange; // whole: a dropped sending half would be a reset
            let mut read = 0;
            while let Part::Data(data) = exchange.recv.next().await.unwrap() {
                read += data.len();
                tokio::time::sleep(Duration::from_millis(2)).await; // a slow reader, not a wait
            }
            read
        });
    }
    while let Some(read) = readers.join_next().await {
        assert_eq!(read.unwrap(), 300_000);
    }
    assert_eq!(east.tunnel.counters().stalled_readers_reset, 0);
}
