//! Load, two ways: *closed* (as fast as answers come, for efficiency) and *open* (at a fixed rate,
//! each latency counted from the moment the request was due, so that a stall is not hidden).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use fedctl::demo::probe::{Connection, connect};
use hdrhistogram::Histogram;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use tokio::task::JoinSet;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub host: String,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub requests: u64,
    /// Refused, reset, timed out, truncated, or not 200.
    pub failed: u64,
    pub elapsed: Duration,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

impl Outcome {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3);
        let latency = latency.expect("1 to 60 s with 3 digits are valid bounds");
        Self { requests: 0, failed: 0, elapsed: Duration::ZERO, latency }
    }

    fn record(&mut self, latency: Duration, answer: &anyhow::Result<()>) {
        self.requests += 1;
        match answer {
            Ok(()) => self.latency.saturating_record(micros(latency)),
            Err(_) => self.failed += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
    }

    pub fn quantile_us(&self, quantile: f64) -> u64 {
        self.latency.value_at_quantile(quantile)
    }
}

/// `connections` clients, each sending its next request when the last one is answered.
pub async fn closed(target: &Target, connections: usize, lasting: Duration) -> Outcome {
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let target = target.clone();
        clients.spawn(async move {
            let (mut outcome, mut connection) = (Outcome::new(), None);
            while begun.elapsed() < lasting {
                let sent = Instant::now();
                let answer = request(&mut connection, &target).await;
                outcome.record(sent.elapsed(), &answer);
            }
            outcome
        });
    }
    collect(clients, begun).await
}

/// `per_second` requests a second over `connections`; a due request is sent by the first free one.
pub async fn open(
    target: &Target,
    connections: usize,
    per_second: u32,
    lasting: Duration,
) -> Outcome {
    let begun = Instant::now();
    let total = u64::from(per_second) * lasting.as_secs();
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let (target, next) = (target.clone(), next.clone());
        clients.spawn(async move {
            let (mut outcome, mut connection) = (Outcome::new(), None);
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= total {
                    return outcome;
                }
                let due = begun + Duration::from_secs(turn) / per_second;
                tokio::time::sleep_until(due.into()).await;
                let answer = request(&mut connection, &target).await;
                outcome.record(due.elapsed(), &answer);
            }
        });
    }
    collect(clients, begun).await
}

async fn collect(mut clients: JoinSet<Outcome>, begun: Instant) -> Outcome {
    let mut all = Outcome::new();
    while let Some(outcome) = clients.join_next().await {
        all.add(&outcome.expect("a client does not panic"));
    }
    all.elapsed = begun.elapsed();
    all
}

async fn request(connection: &mut Option<Connection>, target: &Target) -> anyhow::Result<()> {
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, exchange(connection, target)).await;
    let answer = answer.context("no answer in time").flatten();
    if answer.is_err() {
        *connection = None;
    }
    answer
}

async fn exchange(connection: &mut Option<Connection>, target: &Target) -> anyhow::Result<()> {
    let sender = match connection {
        Some(sender) => sender,
        None => connection.insert(connect(target.address).await?),
    };
    sender.ready().await?;
    let request = Request::get("/").header(HOST, &target.host).body(Empty::new())?;
    let response = sender.send_request(request).await?;
    anyhow::ensure!(response.status().is_success(), "status {}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(body.len() == crate::origin::BODY_BYTES, "a body of {} bytes", body.len());
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn target(address: SocketAddr) -> Target {
        Target { address, host: "a".into() }
    }

    #[tokio::test]
    async fn a_good_server_is_reported_as_good() {
        let good = target(crate::origin::start(local(0)).unwrap());
        let closed = closed(&good, 4, Duration::from_millis(100)).await;
        assert!(closed.requests > 10 && closed.failed == 0, "{closed:?}");
        let open = open(&good, 4, 100, Duration::from_secs(1)).await;
        assert_eq!((open.requests, open.failed), (100, 0));
    }

    /// One injected failure of each kind is seen as a failure.
    #[tokio::test]
    async fn failures_are_reported_as_failures() {
        let refused = std::net::TcpListener::bind(local(0)).unwrap().local_addr().unwrap();
        assert_failed(refused).await;
        let short = b"HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\nshort";
        for answer in [&b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"[..], short, b""] {
            assert_failed(server_that_says(answer)).await;
        }
    }

    async fn assert_failed(address: SocketAddr) {
        let outcome = open(&target(address), 1, 1, Duration::from_secs(1)).await;
        assert_eq!((outcome.requests, outcome.failed), (1, 1), "{address}");
    }

    /// Answers one request with these bytes and closes.
    fn server_that_says(answer: &'static [u8]) -> SocketAddr {
        let listener = std::net::TcpListener::bind(local(0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _request = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer).unwrap();
        });
        address
    }
}
