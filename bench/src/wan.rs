//! A long download at 40 ms beside small requests: is the download bound by windows, and do the
//! small ones wait behind it? Compared with the same small requests alone, in the same run.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use fedctl::demo::manifests::{self, BackendRefKind, HTTP_PORT, clusterset_host};
use fedctl::demo::probe;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use testkit::{Fleet, FleetSpec, Introduction};
use tokio::net::TcpStream;

use crate::load::{self, Outcome, Target};
use crate::origin;

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Length of the download
    #[arg(long, default_value_t = 1024)]
    pub mebibytes: u64,
    /// Round-trip time
    #[arg(long, default_value_t = 40)]
    pub rtt_ms: u64,
    /// Small requests a second
    #[arg(long, default_value_t = 100)]
    pub rate: u32,
}

/// Measures and returns the report as Markdown.
pub async fn run(options: &Options) -> anyhow::Result<String> {
    let folder = tempfile::Builder::new().prefix("fg-wan-").tempdir()?;
    let spec = FleetSpec {
        folder: folder.path().into(),
        clusters: vec!["east".into(), "west".into()],
        delays: vec![("east".into(), "west".into(), Duration::from_millis(options.rtt_ms) / 2)],
        introduction: Introduction::Manifests,
        workers: 1,
    };
    let fleet = Fleet::start(spec).await?;
    let target = serve(&fleet).await?;
    let lasting = Duration::from_secs(10);
    let alone = load::open(&target, 32, options.rate, lasting).await;
    let download = tokio::spawn(download(target.clone(), options.mebibytes << 20));
    let beside = load::open(&target, 32, options.rate, lasting).await;
    let took = download.await.context("the download's task")??;
    fleet.stop().await;
    let failed = alone.failed + beside.failed;
    ensure!(failed == 0, "{failed} small requests failed: the figures mean nothing");
    report(options, &alone, &beside, took)
}

/// West exports the origin; east reaches it.
async fn serve(fleet: &Fleet) -> anyhow::Result<Target> {
    let (east, west) = (fleet.cluster("east"), fleet.cluster("west"));
    let origin = origin::start(SocketAddr::new(west.address, 0))?;
    west.write_manifest("service", &manifests::service("api", origin, origin))?;
    west.write_manifest("export", &manifests::export("api", &["east"]))?;
    east.write_manifest("gateway", &manifests::gateway(&["api"]))?;
    east.write_manifest("import", &manifests::import("api", &["west"]))?;
    let host = clusterset_host("api");
    let routes = manifests::routes("api", BackendRefKind::ServiceImport, &host);
    east.write_manifest("routes", &routes)?;
    let target = Target { address: SocketAddr::new(east.address, HTTP_PORT), host };
    let begun = Instant::now();
    while probe::get_once(target.address, &target.host).await.is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "no first answer");
        tokio::task::yield_now().await;
    }
    Ok(target)
}

async fn download(target: Target, length: u64) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let stream = TcpStream::connect(target.address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(format!("/bytes/{length}")).header(HOST, &target.host);
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    ensure!(response.status().is_success(), "status {}", response.status());
    let (mut body, mut received) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        received += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    ensure!(received == length, "{received} of {length} bytes came");
    driver.abort();
    Ok(begun.elapsed())
}

fn report(
    options: &Options,
    alone: &Outcome,
    beside: &Outcome,
    took: Duration,
) -> anyhow::Result<String> {
    let Options { mebibytes, rtt_ms, rate } = options;
    let mut text = String::new();
    let rtt = *rtt_ms as f64;
    writeln!(
        text,
        "| small requests at {rate}/s, {rtt_ms} ms away | alone | beside the download | in round trips |"
    )?;
    writeln!(text, "|---|---|---|---|")?;
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let [a, b] = [alone, beside].map(|outcome| outcome.quantile_us(quantile) as f64 / 1e3);
        writeln!(text, "| {name} | {a:.1} ms | {b:.1} ms | {:.2} |", b / rtt)?;
    }
    let seconds = took.as_secs_f64();
    let mbit_per_s = (mebibytes << 23) as f64 / seconds / 1e6;
    // What one window of the fast connection's streams would allow.
    let bound = 256.0 * 1024.0 * 8.0 / (rtt / 1e3) / 1e6;
    writeln!(
        text,
        "\nDownload of {mebibytes} MiB: {seconds:.1} s, {mbit_per_s:.0} Mbit/s; \
         256 KiB each round trip would be {bound:.0} Mbit/s."
    )?;
    Ok(text)
}
