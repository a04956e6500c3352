//! Switching protocols: WebSocket locally and across, and what happens when it is declined.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::{AppProtocol, BackendKind, ListenerProtocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::objects;
use crate::origin::Origin;
use crate::site::{HTTP_PORT, Site};

/// RFC 6455 §1.3's example.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The application: agrees, and echoes raw bytes in upper case.
pub(crate) fn accept(request: Request<Incoming>) -> Response<BoxBody<Bytes, hyper::Error>> {
    let empty = || Empty::new().map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(empty());
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let accepted = accept_of(&key);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..count].to_ascii_uppercase()).await.unwrap();
        }
        stream.shutdown().await.unwrap();
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", accepted);
    response
}

fn accept_of(key: &HeaderValue) -> HeaderValue {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    use base64::Engine;
    let input = [key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &input);
    let text = base64::engine::general_purpose::STANDARD.encode(hash);
    HeaderValue::try_from(text).unwrap()
}

/// A handshake by hand, then bytes.
async fn talk(gateway: std::net::SocketAddr) {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let head = format!(
        "GET /socket HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains(ACCEPT), "{answer}");
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo, word.to_ascii_uppercase().as_bytes());
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "the end passes both ways");
}

fn listener() -> model::Resource {
    objects::gateway(&[("http", HTTP_PORT, ListenerProtocol::Http)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_reaches_an_endpoint_of_the_own_cluster() {
    let origin = Origin::start("one").await;
    let mut objects = objects::service("api", AppProtocol::Http, &[origin.address]);
    objects.extend([listener(), objects::http_route("api.test", "/", BackendKind::Service, "api")]);
    let site = Site::ready("east", objects).await;
    talk(site.http()).await;
    let record = &site.records(1).await[0];
    assert_eq!((&record["status"], &record["bytes_received"]), (&101.into(), &10.into()));
    assert_eq!(record["response_flags"], "-");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_crosses_the_tunnel() {
    let origin = Origin::start("west").await;
    let (mut east, mut west) = (Site::new("east"), Site::new("west"));
    west.node.put(objects::service("api", AppProtocol::Http, &[origin.address]));
    west.node.put([objects::export("api"), objects::allow_cluster("api", "east"), east.as_peer()]);
    let import = objects::import("api", AppProtocol::Http, &["west"]);
    let route = objects::http_route("api.test", "/", BackendKind::ServiceImport, "api");
    east.node.put([west.as_peer(), import, route, listener()]);
    east.start().await;
    west.start().await;
    east.sees("west").await;
    talk(east.http()).await;
    let (source, destination) = (&east.records(1).await[0], &west.records(1).await[0]);
    for record in [source, destination] {
        assert_eq!((&record["status"], &record["bytes_sent"]), (&101.into(), &10.into()));
        assert_eq!(record["response_flags"], "-");
    }
    // An application that ignores the upgrade cannot be told from one that agrees by a 2xx.
    let declined = "GET /echo HTTP/1.1\r\nHost: api.test\r\nConnection: close, Upgrade\r\n\
                    Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    let answer = crate::client::raw(east.http(), declined).await;
    assert!(answer.starts_with("HTTP/1.1 501") && answer.contains("FED7009"), "{answer}");
}
