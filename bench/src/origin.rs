//! The application behind everything that is measured: it answers every request with 1 KiB.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

pub const BODY_BYTES: usize = 1024;

/// Serves on a thread of its own until the process ends.
pub fn start(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = std::net::TcpListener::bind(address).context("bind the origin")?;
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
            let service = service_fn(move |_: Request<Incoming>| {
                let body = body.clone();
                async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _client_gone = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
