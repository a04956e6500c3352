//! `bench fallback`: the same path over QUIC, over TCP while UDP is blocked, and over QUIC again, in one run.

use std::fmt::Write;
use std::time::Duration;

use anyhow::ensure;
use wan::{Impairment, Rate, netns};

use super::clients;
use super::stage::{Stage, Way};

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Round-trip time
    #[arg(long, default_value_t = 40)]
    pub rtt_ms: u64,
    /// What the path carries each way
    #[arg(long, default_value_t = 50)]
    pub mbit_per_s: u64,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 15)]
    pub seconds: u64,
    /// Small requests a second
    #[arg(long, default_value_t = 50)]
    pub rate: u32,
}

/// Measures and returns the report as Markdown.
pub fn run(options: &Options) -> anyhow::Result<String> {
    if let Some(reason) = netns::unavailable() {
        anyhow::bail!("this needs network namespaces and a TUN device: {reason}");
    }
    let Options { rtt_ms, mbit_per_s, seconds, rate } = *options;
    ensure!((1..=200).contains(&mbit_per_s), "--mbit-per-s {mbit_per_s}: 1 to 200");
    let (stage, lasting) = (Stage::build()?, Duration::from_secs(seconds));
    let bits_per_s = mbit_per_s * 1_000_000;
    // A queue of about one round trip.
    let queue_packets = (bits_per_s * rtt_ms / 1000 / 8 / 1500).max(50) as usize;
    let rate_limit = Rate { bits_per_s, burst_bytes: 30_000, queue_packets };
    let one_way = Duration::from_millis(rtt_ms) / 2;
    stage.impair_by(&Impairment::delayed(one_way).with_rate(rate_limit))?;
    let mut changes = Vec::new();
    let mut columns = Vec::new();
    for (over, is_blocked) in [("quic", false), ("tcp", true), ("quic", false)] {
        if is_blocked || !columns.is_empty() {
            stage.block_udp(is_blocked)?;
            changes.push(stage.until_over(over)?);
        }
        let small = clients::small(&stage, Way::Federation, rate, lasting)?;
        ensure!(small.failed == 0, "{} small requests failed over {over}", small.failed);
        let goodput = clients::goodput_mbps(&stage, Way::Federation, lasting)?;
        let ms = |quantile| small.quantile_us(quantile) as f64 / 1e3;
        columns.push([ms(0.5), ms(0.99), goodput]);
    }
    let mut text = String::new();
    writeln!(
        text,
        "| {rtt_ms} ms, {mbit_per_s} Mbit/s | QUIC | TCP, UDP blocked | QUIC again | TCP / QUIC | again / before |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    let rows = ["small requests, p50, ms", "small requests, p99, ms", "one download, Mbit/s"];
    for (row, name) in rows.into_iter().enumerate() {
        let [before, tcp, after] = [0, 1, 2].map(|column: usize| columns[column][row]);
        let (to_tcp, to_after) = (tcp / before, after / before);
        writeln!(
            text,
            "| {name} | {before:.1} | {tcp:.1} | {after:.1} | {to_tcp:.2} | {to_after:.2} |"
        )?;
    }
    let [to_tcp, to_quic] = [0, 1].map(|change: usize| changes[change].as_secs_f64());
    writeln!(
        text,
        "\nOver TCP {to_tcp:.1} s after UDP was blocked, over QUIC {to_quic:.1} s after it passed."
    )?;
    Ok(text)
}
