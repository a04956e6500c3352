//! The application behind everything that is measured: it answers with 1 KiB, and `/bytes/N` with N
//! bytes.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpListener;

pub const BODY_BYTES: usize = 1024;
const CHUNK_BYTES: usize = 64 * 1024;

/// Serves on a thread of its own until the process ends.
pub fn start(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    serve_on(std::net::TcpListener::bind(address).context("bind the origin")?)
}

/// The same; what it sends is under this congestion control of the kernel's.
pub fn start_with(address: SocketAddr, congestion: &str) -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address).context("bind the origin")?;
    // Whom it accepts inherits it.
    let set = SockRef::from(&listener).set_tcp_congestion(congestion.as_bytes());
    set.with_context(|| format!("the kernel's congestion control {congestion}"))?;
    serve_on(listener)
}

fn serve_on(listener: std::net::TcpListener) -> anyhow::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    std::thread::Builder::new()
        .name("origin".into())
        .spawn(move || runtime.block_on(serve(listener)))?;
    Ok(bound)
}

async fn serve(listener: std::net::TcpListener) {
    let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _no_delay = stream.set_nodelay(true);
        let body = body.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.uri().path(), &body);
                async move { Ok::<_, Infallible>(Response::new(answer)) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _client_gone = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(path: &str, small: &Bytes) -> BoxBody<Bytes, Infallible> {
    let length = path.strip_prefix("/bytes/").and_then(|digits| digits.parse().ok());
    let Some(length): Option<u64> = length else { return Full::new(small.clone()).boxed() };
    let chunk = Bytes::from_static(&[b'x'; CHUNK_BYTES]);
    let pieces = (0..length.div_ceil(CHUNK_BYTES as u64)).map(move |index| {
        let left = length - index * CHUNK_BYTES as u64;
        chunk.slice(..left.min(CHUNK_BYTES as u64) as usize)
    });
    BodyExt::boxed(StreamBody::new(stream::iter(pieces).map(|piece| Ok(Frame::data(piece)))))
}
