//! Clients: raw HTTP/1.1 for what no library would send, hyper for the rest.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    async fn read(response: Response<hyper::body::Incoming>) -> Result<Self, hyper::Error> {
        let (parts, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        let body = collected.to_bytes();
        Ok(Self { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
    }
}

/// GET over a connection of its own.
pub(crate) async fn get(gateway: SocketAddr, host: &str, path: &str) -> Answer {
    let request = Request::builder().uri(path).header("host", host).body(Bytes::new()).unwrap();
    send(gateway, request).await.unwrap()
}

pub(crate) async fn send(
    gateway: SocketAddr,
    request: Request<Bytes>,
) -> Result<Answer, hyper::Error> {
    let stream = TcpStream::connect(gateway).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Answer::read(sender.send_request(request.map(Full::new)).await?).await
}

/// An HTTP/2 connection with prior knowledge.
pub(crate) async fn h2<B>(gateway: SocketAddr) -> http2::SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(gateway).await.unwrap();
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn h2_send<B>(
    sender: &mut http2::SendRequest<B>,
    request: Request<B>,
) -> Result<Answer, hyper::Error>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Answer::read(sender.send_request(request).await?).await
}

/// Writes `text`, and reads until the other side closes.
pub(crate) async fn raw(gateway: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(crate::PATIENCE, read).await.expect("the other side closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// GETs `/broken`, lets the application break off once half of the body is here, and gives all that
/// came until the connection closed.
pub(crate) async fn get_broken(gateway: SocketAddr, origin: &crate::origin::Origin) -> String {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    stream.write_all(b"GET /broken HTTP/1.1\r\nHost: api.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"half") {
        answer.push(stream.read_u8().await.unwrap());
    }
    origin.release.add_permits(1);
    let _ = stream.read_to_end(&mut answer).await; // a reset is as good as an end
    String::from_utf8(answer).unwrap()
}

/// Method and path, without a body; status and text.
pub(crate) async fn plain(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "admin");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = Answer::read(sender.send_request(request).await.unwrap()).await.unwrap();
    (answer.status, answer.text().to_owned())
}
