//! `--live`: one real request, as a client in the source's cluster sends it to its gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::code::Code;
use model::why::{Answer, Entry, Facts, Probe};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::printer::milliseconds;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// More than a gateway takes to try every cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A gateway closes a TCP connection that nobody serves within its attempts' time.
const STANDS_AFTER: Duration = Duration::from_secs(3);
/// Of a refusal's words.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Sends it to the listener that the answer names.
pub async fn send(answer: &Answer, facts: &Facts) -> Probe {
    let Some(entry) = &answer.entry else {
        let from = &answer.from;
        return Probe::Mute(format!(
            "it is not known where a request enters the gateway of {from}"
        ));
    };
    let gateways = facts.get(&answer.from).into_iter().flat_map(|node| &node.gateways);
    let listeners = gateways.filter(|gateway| gateway.connected).flat_map(|it| &it.listeners);
    let bound = listeners.filter(|row| row.error.is_none() && row.address.port() == entry.port);
    let mut problem = format!("no gateway of {} listens on port {}", answer.from, entry.port);
    for address in bound.map(|row| reachable(row.address)) {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return over(stream, entry).await,
            Ok(Err(error)) => problem = format!("{address} cannot be reached from here: {error}"),
            Err(_) => problem = format!("{address} cannot be reached from here: it is silent"),
        }
    }
    Probe::Mute(problem)
}

/// One that is bound to every address is on this machine's loopback too, if it is on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn over(stream: TcpStream, entry: &Entry) -> Probe {
    match &entry.http {
        Some((host, path)) => match timeout(ANSWER_TIMEOUT, get(stream, host, path)).await {
            Ok(Ok(probe)) => probe,
            Ok(Err(problem)) => Probe::Mute(format!("no HTTP answer came: {problem}")),
            Err(_) => Probe::Mute(format!("no answer in {} s", ANSWER_TIMEOUT.as_secs())),
        },
        None => stands(stream).await,
    }
}

async fn get(
    stream: TcpStream,
    host: &str,
    path: &str,
) -> Result<Probe, Box<dyn std::error::Error + Send + Sync>> {
    let begun = Instant::now();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its end shows as an error of the request.
        let _closed = connection.await;
    });
    let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new())?;
    let response: Response<Incoming> = sender.send_request(request).await?;
    let took = milliseconds(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    let status = response.status();
    let code = response.headers().get("x-fed-code").and_then(|code| code.to_str().ok());
    let Some(code) = code.and_then(Code::parse) else {
        return Ok(Probe::Answered(format!("{status} in {took}")));
    };
    let body = Limited::new(response.into_body(), TEXT_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let words = body.lines().next().unwrap_or_default();
    Ok(Probe::Refused { code, text: format!("{status}: {words}") })
}

/// Over TCP a gateway can say nothing; it closes what it cannot serve.
async fn stands(mut stream: TcpStream) -> Probe {
    let mut byte = [0];
    match timeout(STANDS_AFTER, stream.read(&mut byte)).await {
        Err(_) => Probe::Answered(format!("the connection stood for {} s", STANDS_AFTER.as_secs())),
        Ok(Ok(1)) => Probe::Answered("the other end spoke first".into()),
        Ok(_) => Probe::Mute(
            "the connection was closed at once; the access log of the gateway says why".into(),
        ),
    }
}
