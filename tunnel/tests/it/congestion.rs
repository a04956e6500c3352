//! Long paths: a download is bound by the path, not by windows, and small requests do not wait.

use std::time::{Duration, Instant};

use tunnel::{CongestionControl, TunnelLimits};
use wan::Impairment;
use wire::tunnel::StreamKind;

use crate::site::{Options, Site, ask, read_pattern, relayed};

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

/// Not run by default: prints what docs/design/0001-congestion-control.md quotes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, minutes long: cargo test -p tunnel --test it -- --ignored --nocapture"]
async fn measure_congestion_control() {
    use CongestionControl::{Cubic, NewReno, Steady};
    for control in [Steady, Cubic, NewReno] {
        for loss in [0.0, 0.001, 0.01, 0.03] {
            let limits = TunnelLimits { congestion_control: control, ..TunnelLimits::default() };
            let path = Impairment::delayed(Duration::from_millis(20)).with_loss(loss);
            let path = path.with_rate(wan::Rate {
                bits_per_s: 100_000_000,
                burst_bytes: 30_000,
                queue_packets: 400,
            });
            let options = || Options { limits: limits.clone(), ..Options::default() };
            let (east, west, relay) = relayed(path, options).await;
            east.is_settled_with(&west, 1).await;
            let (mbit_per_s, asks) = bulk_for(&east, &west, Duration::from_secs(8)).await;
            let dropped: u64 = relay
                .counters()
                .iter()
                .flat_map(|l| {
                    l.forward.dropped.iter().chain(l.back.dropped.iter()).collect::<Vec<_>>()
                })
                .map(|(_, count)| count)
                .sum();
            let (p50, p99) = (asks[asks.len() / 2], asks[asks.len() * 99 / 100]);
            println!(
                "{:9} loss {:4.1} %: {mbit_per_s:5.1} Mbit/s, small p50 {p50:?} p99 {p99:?}, dropped {dropped}",
                control.as_str(),
                loss * 100.0,
            );
        }
    }
}

async fn bulk_for(east: &Site, west: &Site, time: Duration) -> (f64, Vec<Duration>) {
    let mut exchange = east.open(west, "big-4294967296", StreamKind::Tcp).await;
    let start = Instant::now();
    let reader = tokio::spawn(async move {
        let mut read = 0_u64;
        while start.elapsed() < time {
            match exchange.recv.next().await.unwrap() {
                tunnel::Part::Data(data) => read += data.len() as u64,
                part => panic!("{part:?}"),
            }
        }
        read as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6
    });
    let mut asks = Vec::new();
    while !reader.is_finished() {
        asks.push(ask(east, west).await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    asks.sort();
    (reader.await.unwrap(), asks)
}
