//! The demo's applications: each answers over HTTP and over TCP with its own label and, if it calls
//! another service, that one's answer behind it: `web@east → api@west → db@south`.
//!
//! They know nothing of Fedgate: they call a host name and a port, and somebody answers.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The service that an application calls, as it sees it: through its own cluster's gateway.
#[derive(Debug, Clone)]
pub struct Next {
    /// The name in the Host header.
    pub host: String,
    pub http: SocketAddr,
    pub tcp: SocketAddr,
}

/// A running application; it stops when dropped.
#[derive(Debug)]
pub struct App {
    pub http: SocketAddr,
    pub tcp: SocketAddr,
    _tasks: JoinSet<()>,
}

/// How long an application waits for the service that it calls.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What an application accepts as an answer or a line.
const ANSWER_BYTES_MAX: usize = 4096;

/// Starts an application on `address`, on ports that the system chooses.
pub async fn start(label: String, address: IpAddr, next: Option<Next>) -> anyhow::Result<App> {
    let bind = |protocol: &'static str| async move {
        let bound = TcpListener::bind((address, 0)).await;
        bound.with_context(|| format!("bind the demo application's {protocol} port on {address}"))
    };
    let (http, tcp) = (bind("HTTP").await?, bind("TCP").await?);
    let addresses = (http.local_addr()?, tcp.local_addr()?);
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_http(http, label.clone(), next.clone()));
    tasks.spawn(serve_tcp(tcp, label, next));
    Ok(App { http: addresses.0, tcp: addresses.1, _tasks: tasks })
}

async fn serve_http(listener: TcpListener, label: String, next: Option<Next>) {
    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (label, next, client) = (label.clone(), next.clone(), client.clone());
        connections.spawn(async move {
            let service = service_fn(move |_request: Request<hyper::body::Incoming>| {
                let (label, next, client) = (label.clone(), next.clone(), client.clone());
                async move { Ok::<_, Infallible>(answer_http(&label, next.as_ref(), &client).await) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            // A client that goes away in the middle of a request is its own affair.
            let _gone = server.serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer_http(
    label: &str,
    next: Option<&Next>,
    client: &Client<HttpConnector, Empty<Bytes>>,
) -> Response<Full<Bytes>> {
    let answer = match next {
        None => Ok(label.to_string()),
        Some(next) => tokio::time::timeout(CALL_TIMEOUT, call_http(next, client))
            .await
            .context("the call took too long")
            .flatten()
            .map(|rest| format!("{label} → {rest}")),
    };
    let (status, text) = match answer {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{label} → {error:#}")),
    };
    let mut response = Response::new(Full::from(text + "\n"));
    *response.status_mut() = status;
    response
}

async fn call_http(
    next: &Next,
    client: &Client<HttpConnector, Empty<Bytes>>,
) -> anyhow::Result<String> {
    let request = Request::get(format!("http://{}/", next.http))
        .header(HOST, &next.host)
        .body(Empty::new())?;
    let response = client.request(request).await.with_context(|| format!("call {}", next.host))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
    let text = String::from_utf8_lossy(&body).trim_end().to_string();
    anyhow::ensure!(status.is_success(), "{} answered {status}: {text}", next.host);
    Ok(text)
}

async fn serve_tcp(listener: TcpListener, label: String, next: Option<Next>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (label, next) = (label.clone(), next.clone());
        connections.spawn(async move {
            let _gone = converse(stream, &label, next.as_ref()).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Answers one line for each line, until the client closes.
async fn converse(stream: TcpStream, label: &str, next: Option<&Next>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut stream).take(ANSWER_BYTES_MAX as u64).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match next {
            None => label.to_string(),
            Some(next) => format!("{label} → {}", call_tcp(next.tcp, &line).await?),
        };
        stream.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

/// Sends one line and reads one line.
pub async fn call_tcp(address: SocketAddr, line: &str) -> anyhow::Result<String> {
    let call = async {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        stream.write_all(format!("{}\n", line.trim_end()).as_bytes()).await?;
        let mut answer = String::new();
        let read = (&mut stream).take(ANSWER_BYTES_MAX as u64).read_line(&mut answer).await?;
        anyhow::ensure!(read > 0, "{address} closed the connection without an answer");
        Ok(answer.trim_end().to_string())
    };
    let answer = tokio::time::timeout(CALL_TIMEOUT, call).await;
    answer.with_context(|| format!("{address} did not answer in time"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn applications_chain_over_both_protocols_and_report_a_broken_chain() {
        let db = start("db@south".into(), HERE, None).await.unwrap();
        let next = Next { host: "db".into(), http: db.http, tcp: db.tcp };
        let api = start("api@west".into(), HERE, Some(next)).await.unwrap();
        assert_eq!(call_tcp(api.tcp, "hello").await.unwrap(), "api@west → db@south");
        let client = Client::builder(TokioExecutor::new()).build_http();
        let api_next = Next { host: "api".into(), http: api.http, tcp: api.tcp };
        assert_eq!(call_http(&api_next, &client).await.unwrap(), "api@west → db@south");
        drop(db);
        let error = call_http(&api_next, &client).await.unwrap_err().to_string();
        assert!(error.contains("502"), "{error}");
    }
}
