//! An HTTP client for tests: HTTP/1.1 and HTTP/2, with trailers in both directions, and raw bytes
//! for what no honest client sends.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::pattern::{Check, PatternBody};

/// No test waits longer for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Frames of a [`streamed`] body that wait for the connection.
const FRAMES_MAX: usize = 4;

/// Fields of a response that are read; gateways stop much earlier.
const HEADERS_MAX: usize = 1_000;

/// Any request body.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// One connection.
#[derive(Debug)]
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_string()
    }

    /// A field's value; empty when it is absent or not text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What `x-fed-code` says.
    pub fn code(&self) -> &str {
        self.header("x-fed-code")
    }
}

impl Client {
    /// Connects and speaks `version`.
    pub async fn connect(address: SocketAddr, version: Version) -> anyhow::Result<Self> {
        let connecting = TcpStream::connect(address);
        let stream = connecting.await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
            let (sender, connection) = builder.handshake(io).await?;
            tokio::spawn(async move {
                // Its end shows as an error of the next request.
                let _closed = connection.await;
            });
            return Ok(Self::Http2(sender));
        }
        let mut builder = http1::Builder::new();
        let (sender, connection) = builder.max_headers(HEADERS_MAX).handshake(io).await?;
        tokio::spawn(async move {
            let _closed = connection.with_upgrades().await;
        });
        Ok(Self::Http1(sender))
    }

    /// Sends a request and returns when the head of the response is there.
    pub async fn open(&mut self, request: Request<Body>) -> anyhow::Result<Response<Incoming>> {
        let answer = async {
            match self {
                Self::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Self::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        Ok(tokio::time::timeout(ANSWER_LIMIT, answer).await.context("no head in time")??)
    }

    /// Sends a request and reads the whole response.
    pub async fn send(&mut self, request: Request<Body>) -> anyhow::Result<Answer> {
        collect(self.open(request).await?).await
    }

    pub fn version(&self) -> Version {
        match self {
            Self::Http1(_) => Version::HTTP_11,
            Self::Http2(_) => Version::HTTP_2,
        }
    }

    /// A request as this connection's version writes it.
    pub fn request(&self, method: Method, host: &str, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method);
        match self {
            Self::Http1(_) => request.uri(path).header(HOST, host),
            Self::Http2(_) => request.uri(format!("http://{host}{path}")),
        }
    }
}

/// Reads a response to its end.
pub async fn collect(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let body =
        tokio::time::timeout(ANSWER_LIMIT, body.collect()).await.context("no end in time")?;
    let body = body.context("the response broke off")?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let (status, headers) = (head.status, head.headers);
    Ok(Answer { status, headers, body: body.to_bytes(), trailers })
}

/// Reads a response to its end and compares it with the pattern.
pub async fn check(response: Response<Incoming>) -> anyhow::Result<Check> {
    let (mut body, mut check) = (response.into_body(), Check::default());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.context("the response broke off")?.into_data() {
            check.take(&data);
        }
    }
    Ok(check)
}

/// One GET over HTTP/1.1 on a connection of its own.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let mut client = Client::connect(address, Version::HTTP_11).await?;
    let request = client.request(Method::GET, host, path).body(empty())?;
    client.send(request).await
}

/// One POST over HTTP/1.1 on a connection of its own.
pub async fn post(
    address: SocketAddr,
    host: &str,
    path: &str,
    body: Body,
) -> anyhow::Result<Answer> {
    let mut client = Client::connect(address, Version::HTTP_11).await?;
    let request = client.request(Method::POST, host, path).body(body)?;
    client.send(request).await
}

/// Sends bytes as they are and returns all that comes until the other side closes.
pub async fn raw(address: SocketAddr, request: impl AsRef<[u8]>) -> anyhow::Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_ref()).await?;
        let mut answer = Vec::new();
        // A server that refuses may reset the connection after its answer.
        let _reset = stream.read_to_end(&mut answer).await;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let request = request.as_ref();
    let begins = || String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
    let answer = tokio::time::timeout(ANSWER_LIMIT, talk).await;
    answer.with_context(|| format!("not closed in time after {:?}", begins()))?
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The first bytes of the pattern, with their length.
pub fn pattern(bytes: u64) -> Body {
    PatternBody::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Without a length, since HTTP/1.1 has trailers after chunks only.
pub fn with_trailers(bytes: impl Into<Bytes>, trailers: HeaderMap) -> Body {
    let frames = [Ok(Frame::data(bytes.into())), Ok(Frame::trailers(trailers))];
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// A body whose frames the test sends one by one. It ends when the sender is dropped.
pub fn streamed() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, mut frames) = mpsc::channel::<Bytes>(FRAMES_MAX);
    let frames = futures_util::stream::poll_fn(move |context| {
        frames.poll_recv(context).map(|frame| frame.map(|data| Ok(Frame::data(data))))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}
