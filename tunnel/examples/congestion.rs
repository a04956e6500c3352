//! Measures what docs/design/0001-congestion-control.md quotes: a download beside small requests on a
//! path of 100 Mbit/s and 40 ms, by congestion control and loss.

#![expect(clippy::unwrap_used, reason = "a measurement fails by panicking")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

#[expect(dead_code, reason = "the tests' gateways, of which not everything is needed here")]
#[path = "../tests/it/site.rs"]
mod site;

use std::time::{Duration, Instant};

use tunnel::{CongestionControl, Part, TunnelLimits};
use wan::{Impairment, Rate};
use wire::tunnel::StreamKind;

use site::{Options, Site, ask, relayed};

const RUN: Duration = Duration::from_secs(8);
const RATE: Rate = Rate { bits_per_s: 100_000_000, burst_bytes: 30_000, queue_packets: 400 };

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    println!("| control | loss % | Mbit/s | small p50 ms | small p99 ms | packets dropped |");
    println!("|---|---|---|---|---|---|");
    for control in [CongestionControl::Steady, CongestionControl::Cubic, CongestionControl::NewReno]
    {
        for loss in [0.0, 0.001, 0.01, 0.03] {
            let limits = TunnelLimits { congestion_control: control, ..TunnelLimits::default() };
            let path = Impairment::delayed(Duration::from_millis(20)).with_loss(loss);
            let options = || Options { limits: limits.clone(), ..Options::default() };
            let (east, west, relay) = relayed(path.with_rate(RATE), options).await;
            east.is_settled_with(&west, 1).await;
            let (mbit_per_s, asks) = download(&east, &west).await;
            let mut dropped = 0;
            for link in relay.counters() {
                for counters in [link.forward, link.back] {
                    dropped += counters.dropped.iter().map(|(_, count)| count).sum::<u64>();
                }
            }
            let ms = |share: usize| asks[asks.len() * share / 100].as_secs_f64() * 1e3;
            println!(
                "| {} | {:.1} | {mbit_per_s:.1} | {:.0} | {:.0} | {dropped} |",
                control.as_str(),
                loss * 100.0,
                ms(50),
                ms(99),
            );
        }
    }
}

async fn download(east: &Site, west: &Site) -> (f64, Vec<Duration>) {
    let mut exchange = east.open(west, "big-4294967296", StreamKind::Tcp).await;
    let start = Instant::now();
    let reader = tokio::spawn(async move {
        let mut read = 0_u64;
        while start.elapsed() < RUN {
            let Part::Data(data) = exchange.recv.next().await.unwrap() else { break };
            read += data.len() as u64;
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
