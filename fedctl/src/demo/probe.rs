//! An outside client: it sends one request after the other and writes down what it got and when.
//!
//! It runs on a thread of its own and uses nothing of Fedgate's, so that what it measures is what a
//! user would have seen.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A request that has no answer by then counts as failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(4);
/// Older answers are forgotten: ten minutes' worth at the fastest pace.
const SAMPLES_MAX: usize = 150_000;
const BODY_BYTES_MAX: usize = 4096;

/// What one request got.
#[derive(Debug, Clone)]
pub struct Sample {
    pub done: Instant,
    pub latency: Duration,
    /// The body of a 200, or what went wrong.
    pub outcome: Result<String, String>,
}

/// A client at work; it stops when dropped.
#[derive(Debug)]
pub struct Probe {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a client saw between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    pub requests: usize,
    pub failed: usize,
    /// The longest time between two good answers.
    pub gap: Duration,
}

impl Probe {
    pub fn start(address: SocketAddr, host: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let samples = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, until, host) = (samples.clone(), stop.clone(), host.to_string());
        let thread = std::thread::Builder::new()
            .name("outside-client".into())
            .spawn(move || runtime.block_on(run(address, &host, &theirs, &until)))
            .context("start the outside client's thread")?;
        Ok(Self { samples, stop, thread: Some(thread) })
    }

    /// Everything since `from`.
    pub fn since(&self, from: Instant) -> Vec<Sample> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let start = samples.partition_point(|sample| sample.done < from);
        samples[start..].to_vec()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Counts what `samples` show from `from` on; the gap begins there at the earliest.
pub fn outage(from: Instant, samples: &[Sample]) -> Outage {
    let (mut last_good, mut gap, mut failed) = (from, Duration::ZERO, 0);
    for sample in samples {
        match sample.outcome {
            Ok(_) => {
                gap = gap.max(sample.done.saturating_duration_since(last_good));
                last_good = sample.done;
            }
            Err(_) => failed += 1,
        }
    }
    Outage { requests: samples.len(), failed, gap }
}

/// One request on a connection of its own.
pub async fn get_once(address: SocketAddr, host: &str) -> anyhow::Result<String> {
    let mut connection = None;
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, get(&mut connection, address, host)).await;
    answer.with_context(|| format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))?
}

async fn run(address: SocketAddr, host: &str, samples: &Mutex<Vec<Sample>>, stop: &AtomicBool) {
    let mut connection = None;
    let mut pace = tokio::time::interval(PAUSE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let begun = Instant::now();
        let answer =
            tokio::time::timeout(REQUEST_TIMEOUT, get(&mut connection, address, host)).await;
        let outcome = match answer {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err("no answer in time".into()),
        };
        if outcome.is_err() {
            connection = None;
        }
        let done = Instant::now();
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES_MAX {
            samples.drain(..SAMPLES_MAX / 2);
        }
        samples.push(Sample { done, latency: done - begun, outcome });
    }
}

/// The sending half of an HTTP/1.1 connection.
pub type Connection = SendRequest<Empty<Bytes>>;

async fn get(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    host: &str,
) -> anyhow::Result<String> {
    let reusable = match connection {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !reusable {
        *connection = Some(connect(address).await?);
    }
    let sender = connection.as_mut().context("a connection was just made")?;
    let request = Request::get("/").header(HOST, host).body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
    let text = String::from_utf8_lossy(&body).trim_end().to_string();
    anyhow::ensure!(status.is_success(), "{status}: {text}");
    Ok(text)
}

/// A connection for one request after the other.
pub async fn connect(address: SocketAddr) -> anyhow::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its end shows as an error of the next request.
        let _closed = connection.await;
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_the_longest_time_without_a_good_answer() {
        let start = Instant::now();
        let sample = |ms, good| Sample {
            done: start + Duration::from_millis(ms),
            latency: Duration::ZERO,
            outcome: if good { Ok(String::new()) } else { Err(String::new()) },
        };
        let samples = [sample(10, true), sample(30, false), sample(250, true), sample(300, true)];
        let seen = outage(start, &samples);
        assert_eq!(seen, Outage { requests: 4, failed: 1, gap: Duration::from_millis(240) });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_client_reports_a_server_that_refuses_and_one_that_answers() {
        let here = std::net::Ipv4Addr::LOCALHOST.into();
        let app = crate::demo::app::start("db@south".into(), here, None).await.unwrap();
        let begun = Instant::now();
        let probe = Probe::start(app.http, "db").unwrap();
        let seen = |wanted: fn(&Sample) -> bool| loop {
            if probe.since(begun).iter().any(wanted) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        };
        seen(|sample| sample.outcome.as_deref() == Ok("db@south"));
        drop(app);
        seen(|sample| sample.outcome.is_err());
    }
}
