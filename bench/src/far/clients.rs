//! What east does, by either way.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::stage::{Stage, Way, client};
use crate::load::{self, Outcome, Target};

/// Connections that are kept for small requests.
const CONNECTIONS: usize = 16;
/// More than any of these paths carries in the time.
const DOWNLOAD_BYTES: u64 = 8 << 30;
const PGBENCH_CLIENTS: &str = "--client=8";
const REDIS_CLIENTS: &str = "50";
/// So that a run takes about as long as the others.
const REDIS_REQUESTS_PER_SECOND: u64 = 1500;

/// An application's own tool, told what to do; operations a second.
pub(super) type Measure = fn(&Stage, Way, &str, Duration) -> anyhow::Result<f64>;

/// Requests for 1 KiB at a fixed rate.
pub(super) fn small(
    stage: &Stage,
    way: Way,
    rate: u32,
    lasting: Duration,
) -> anyhow::Result<Outcome> {
    let target = stage.http(way);
    let outcome = stage.in_east(async move {
        // Connections and their windows are there before anything counts.
        load::open(&target, CONNECTIONS, rate, Duration::from_secs(2)).await;
        anyhow::Ok(load::open(&target, CONNECTIONS, rate, lasting).await)
    })?;
    ensure!(outcome.requests > outcome.failed, "no request was answered by {way:?}");
    Ok(outcome)
}

/// One download, from its start.
pub(super) fn goodput_mbps(stage: &Stage, way: Way, lasting: Duration) -> anyhow::Result<f64> {
    let received = stage.in_east(download(stage.http(way), lasting))?;
    Ok(received as f64 * 8.0 / 1e6 / lasting.as_secs_f64())
}

async fn download(target: Target, lasting: Duration) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let stream = TcpStream::connect(target.address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(format!("/bytes/{DOWNLOAD_BYTES}")).header(HOST, &target.host);
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    ensure!(response.status().is_success(), "status {}", response.status());
    let (mut body, mut received) = (response.into_body(), 0);
    let end = (begun + lasting).into();
    while let Ok(frame) = tokio::time::timeout_at(end, body.frame()).await {
        let frame = frame.context("the download ended before its time")??;
        received += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    driver.abort();
    Ok(received)
}

/// `what` is pgbench's built-in script.
pub(super) fn pgbench(
    stage: &Stage,
    way: Way,
    what: &str,
    lasting: Duration,
) -> anyhow::Result<f64> {
    let mut pgbench = client(&stage.east, "pgbench", stage.postgres(way), "-p");
    pgbench.args([what, PGBENCH_CLIENTS, "--no-vacuum", "--username=postgres"]);
    pgbench.arg(format!("--time={}", lasting.as_secs())).arg("postgres");
    let output = pgbench.output().context("start pgbench")?;
    let told = String::from_utf8_lossy(&output.stdout);
    let problems = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench by {way:?}: {problems}");
    let failed = "number of failed transactions: 0 ";
    ensure!(told.contains(failed), "pgbench by {way:?}: {told}");
    let tps = told.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = tps.and_then(|rest| rest.split(' ').next()).context("pgbench says no `tps = `")?;
    Ok(tps.parse()?)
}

/// `what` is the command that is sent.
pub(super) fn redis_benchmark(
    stage: &Stage,
    way: Way,
    what: &str,
    lasting: Duration,
) -> anyhow::Result<f64> {
    let requests = (REDIS_REQUESTS_PER_SECOND * lasting.as_secs()).to_string();
    let mut redis = client(&stage.east, "redis-benchmark", stage.redis(way), "-p");
    redis.args(["--csv", "-c", REDIS_CLIENTS, "-n", &requests, "-t", what]);
    let output = redis.output().context("start redis-benchmark")?;
    let told = String::from_utf8_lossy(&output.stdout);
    let problems = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "redis-benchmark by {way:?}: {problems}");
    // "SET","1234.56",...
    let row = told.lines().find(|line| line.starts_with(&format!("\"{}\"", what.to_uppercase())));
    let rate = row.and_then(|row| row.split(',').nth(1)).context("no such row")?;
    Ok(rate.trim_matches('"').parse()?)
}
