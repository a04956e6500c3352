//! Long paths: a download is bound by the path, not by windows, and small requests do not wait.

use std::time::{Duration, Instant};

use wan::Impairment;
use wire::tunnel::StreamKind;

use crate::site::{Options, ask, read_pattern, relayed};

/// 40 ms there and back. 24 MiB through a 256 KiB window would take four seconds at least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_and_small_requests_share_a_long_path() {
    let path = Impairment::delayed(Duration::from_millis(20));
    let (east, west, _relay) = relayed(path, Options::default).await;
    east.is_settled_with(&west, 1).await;
    west.is_settled_with(&east, 1).await;
    let mut download = east.open(&west, "big-25165824", StreamKind::Tcp).await;
    let download = tokio::spawn(async move {
        let start = Instant::now();
        assert_eq!(read_pattern(&mut download).await.unwrap(), 24 << 20);
        start.elapsed()
    });
    let mut times = Vec::new();
    while !download.is_finished() {
        times.push(ask(&east, &west).await.unwrap());
    }
    let took = download.await.unwrap();
    times.sort();
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(120), "median {median:?} beside a download of {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(west.tunnel.counters().directions_moved, 1);
}
