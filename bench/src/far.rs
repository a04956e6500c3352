//! `bench far`: two sites in network namespaces of their own, and a router of ours between them that delays
//! and loses packets. What HTTP, PostgreSQL and Redis get through the federation, beside a TCP connection
//! over the same path in the same run.

mod clients;
pub mod fallback;
mod stage;

use std::fmt::Write;
use std::time::Duration;

use anyhow::ensure;
use wan::netns;

use stage::{Control, Stage, Way};

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Percent of packets that are lost each way, one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 1.0, 5.0, 10.0])]
    pub loss: Vec<f64>,
    /// Round-trip time under loss
    #[arg(long, default_value_t = 100)]
    pub rtt_ms: u64,
    /// Round-trip time of PostgreSQL and Redis
    #[arg(long, default_value_t = 20)]
    pub applications_rtt_ms: u64,
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
    let percent = |loss: &f64| (0.0..=50.0).contains(loss);
    ensure!(options.loss.iter().all(percent), "--loss {:?}: 0 to 50 percent", options.loss);
    let lasting = Duration::from_secs(options.seconds);
    let stage = Stage::build()?;
    let mut text = String::new();
    let rtt = options.rtt_ms;
    writeln!(
        text,
        "| {rtt} ms, loss each way | TCP, CUBIC | TCP, BBR | federation | to CUBIC | to BBR |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    for loss in &options.loss {
        stage.impair(Duration::from_millis(rtt), loss / 100.0)?;
        let small = |way| clients::small(&stage, way, options.rate, lasting);
        let small = [small(WAYS[0])?, small(WAYS[1])?, small(WAYS[2])?];
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
            let [cubic, bbr, federation] =
                small.each_ref().map(|outcome| outcome.quantile_us(quantile) as f64 / 1e3);
            let what = format!("{loss} %: {} small requests/s, {name}, ms", options.rate);
            write_row(&mut text, &what, [cubic, bbr, federation])?;
        }
        let failed = small.each_ref().map(|o| format!("{} of {}", o.failed, o.requests));
        writeln!(text, "| {loss} %: failed, or over 5 s | {} | | |", failed.join(" | "))?;
        let goodput = |way| clients::goodput_mbps(&stage, way, lasting);
        let goodput = [goodput(WAYS[0])?, goodput(WAYS[1])?, goodput(WAYS[2])?];
        write_row(&mut text, &format!("{loss} %: one download, Mbit/s"), goodput)?;
    }
    write_applications(&mut text, &stage, options)?;
    Ok(text)
}

/// Each with each, in the order of the report.
const WAYS: [Way; 3] = [Way::Direct(Control::Cubic), Way::Direct(Control::Bbr), Way::Federation];

fn write_row(text: &mut String, what: &str, [cubic, bbr, ours]: [f64; 3]) -> std::fmt::Result {
    let (to_cubic, to_bbr) = (ours / cubic, ours / bbr);
    writeln!(text, "| {what} | {cubic:.1} | {bbr:.1} | {ours:.1} | {to_cubic:.2} | {to_bbr:.2} |")
}

fn write_applications(text: &mut String, stage: &Stage, options: &Options) -> anyhow::Result<()> {
    let rtt = options.applications_rtt_ms;
    stage.impair(Duration::from_millis(rtt), 0.0)?;
    let lasting = Duration::from_secs(options.seconds);
    writeln!(text, "\n| {rtt} ms, no loss | direct TCP | federation | federation / direct |")?;
    writeln!(text, "|---|---|---|---|")?;
    let measurements = [
        ("pgbench, 8 clients, select only", clients::pgbench as clients::Measure, "-S"),
        ("pgbench, 8 clients, simple update (`-N`)", clients::pgbench, "-N"),
        ("redis-benchmark, 50 clients, SET", clients::redis_benchmark, "set"),
        ("redis-benchmark, 50 clients, GET", clients::redis_benchmark, "get"),
    ];
    for (name, measure, what) in measurements {
        // Nothing is lost, so that it does not matter what TCP does about it.
        let direct = measure(stage, Way::Direct(Control::Cubic), what, lasting)?;
        let federation = measure(stage, Way::Federation, what, lasting)?;
        let share = federation / direct;
        writeln!(text, "| {name} | {direct:.0}/s | {federation:.0}/s | {share:.3} |")?;
    }
    Ok(())
}
