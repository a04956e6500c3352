//! An application that says who it is and remembers nothing, for as many requests as may come.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

/// Where it says the same many times over.
pub const BIG: &str = "/big";
/// How many times: far more than one packet has room for.
pub const BIG_TIMES: usize = 4096;

/// It stops when dropped.
#[derive(Debug)]
pub struct Greeter {
    pub address: SocketAddr,
    serving: AbortHandle,
}

impl Greeter {
    /// On a free port of this address; answers each request with `text`, and [`BIG`] with much of it.
    pub fn start(runtime: &Runtime, address: IpAddr, text: &str) -> anyhow::Result<Self> {
        let listener = runtime.block_on(TcpListener::bind((address, 0)));
        let listener = listener.with_context(|| format!("bind a port of {address}"))?;
        let address = listener.local_addr()?;
        let line = format!("{text}\n");
        let bodies = [Bytes::from(line.repeat(BIG_TIMES)), Bytes::from(line)];
        let serving = runtime.spawn(serve(listener, bodies)).abort_handle();
        Ok(Self { address, serving })
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, bodies: [Bytes; 2]) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Without it the kernel holds small answers back.
        let _unsupported = stream.set_nodelay(true);
        let [big, small] = bodies.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let body = if request.uri().path() == BIG { &big } else { &small };
                let answer = Response::new(Full::new(body.clone()));
                async move { Ok::<_, Infallible>(answer) }
            });
            let _gone = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
