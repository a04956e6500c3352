//! `make bench-smoke`: a gateway pair beside a direct connection to the same origin, in one run.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;

use crate::load::{self, Outcome, Target};
use crate::pair::Pair;
use crate::{origin, proc};

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Rounds, each with both paths in turn
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Concurrent clients of the efficiency measurement
    #[arg(long, default_value_t = 128)]
    pub connections: usize,
    /// Requests a second of the latency measurement
    #[arg(long, default_value_t = 200)]
    pub rate: u32,
}

/// One path in one round.
struct Row {
    latency: Outcome,
    throughput: Outcome,
    gateways_cpu: Duration,
    machine_cpu: Duration,
}

/// Measures and returns the report as Markdown.
pub async fn run(options: &Options) -> anyhow::Result<String> {
    let folder = tempfile::Builder::new().prefix("fg-bench-").tempdir()?;
    let address = SocketAddr::from(([127, 72, 1, 3], 0));
    let origin = origin::start(address)?;
    let pair = Pair::start(folder.path(), origin).await?;
    let [east, west] = pair.gateways()?;
    let idle = [proc::resident_kib(east)?, proc::resident_kib(west)?];
    let direct = Target { address: origin, host: "direct".into() };
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let without = measure(&direct, &pair, options).await?;
        rounds.push((without, measure(&pair.target, &pair, options).await?));
    }
    let busy = [proc::resident_kib(east)?, proc::resident_kib(west)?];
    report(&rounds, options, &pair, idle, busy)
}

async fn measure(target: &Target, pair: &Pair, options: &Options) -> anyhow::Result<Row> {
    let lasting = Duration::from_secs(options.seconds);
    load::closed(target, 8, Duration::from_millis(500)).await;
    let latency = load::open(target, 16, options.rate, lasting).await;
    let [east, west] = pair.gateways()?;
    let used =
        || anyhow::Ok((proc::cpu_time(east)? + proc::cpu_time(west)?, proc::machine_cpu_time()?));
    let before = used()?;
    let throughput = load::closed(target, options.connections, lasting).await;
    let after = used()?;
    let failed = latency.failed + throughput.failed;
    ensure!(failed == 0, "{failed} requests to {} failed: the figures mean nothing", target.host);
    Ok(Row {
        latency,
        throughput,
        gateways_cpu: after.0 - before.0,
        machine_cpu: after.1 - before.1,
    })
}

fn report(
    rounds: &[(Row, Row)],
    options: &Options,
    pair: &Pair,
    idle: [u64; 2],
    busy: [u64; 2],
) -> anyhow::Result<String> {
    let mut text = String::new();
    let Options { rate, connections, seconds, .. } = options;
    writeln!(
        text,
        "| figure | direct | through two gateways | ratio or difference |\n|---|---|---|---|"
    )?;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let (a, b) = medians(rounds, |row| row.latency.quantile_us(quantile) as f64);
        let name = format!("latency {name} at {rate}/s, µs");
        writeln!(text, "| {name} | {a:.0} | {b:.0} | +{:.0} µs |", b - a)?;
    }
    let per_second =
        |row: &Row| row.throughput.requests as f64 / row.throughput.elapsed.as_secs_f64();
    let (a, b) = medians(rounds, per_second);
    let what = format!("1 KiB requests/s, {connections} clients");
    writeln!(text, "| {what} | {a:.0} | {b:.0} | {:.2} |", b / a)?;
    let machine = |row: &Row| row.throughput.requests as f64 / row.machine_cpu.as_secs_f64();
    let (a, b) = medians(rounds, machine);
    writeln!(text, "| requests per CPU-second, whole machine | {a:.0} | {b:.0} | {:.2} |", b / a)?;
    let of_pair = |row: &Row| row.throughput.requests as f64 / row.gateways_cpu.as_secs_f64();
    let (_, b) = medians(rounds, of_pair);
    writeln!(
        text,
        "| requests per CPU-second of the pair | – | {b:.0} | {:.1} µs each |",
        1e6 / b
    )?;
    let mib =
        |kib: [u64; 2]| format!("{:.1} + {:.1} MiB", kib[0] as f64 / 1024., kib[1] as f64 / 1024.);
    writeln!(text, "| resident memory of the two gateways, idle | – | {} | |", mib(idle))?;
    writeln!(text, "| the same after the load | – | {} | |", mib(busy))?;
    let start = pair.warm_start.as_secs_f64() * 1e3;
    writeln!(text, "| warm start of both gateways to the first answer | – | {start:.0} ms | |")?;
    writeln!(text, "\nMedians of {} rounds of {seconds} s, paths in turn.", rounds.len())?;
    Ok(text)
}

fn medians(rounds: &[(Row, Row)], figure: impl Fn(&Row) -> f64) -> (f64, f64) {
    let direct = rounds.iter().map(|(direct, _)| figure(direct)).collect();
    let through = rounds.iter().map(|(_, through)| figure(through)).collect();
    (median(direct), median(through))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
