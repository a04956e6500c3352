//! Applications: an HTTP echo (HTTP/1.1 or HTTP/2) with trailers, and a TCP echo.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// A running HTTP application.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    /// `/held` answers when a permit is added.
    pub(crate) release: Arc<Semaphore>,
    task: tokio::task::JoinHandle<()>,
}

impl Origin {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let shared = (requests.clone(), release.clone());
        let task = tokio::spawn(async move {
            // Dropped with the task, and the connections with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, release) = shared.clone();
                let service = service_fn(move |request| {
                    requests.fetch_add(1, Ordering::Relaxed);
                    answer(name, request, release.clone())
                });
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let io = TokioIo::new(stream);
                    let _ = server.serve_connection_with_upgrades(io, service).await;
                });
            }
        });
        Self { address, requests, release, task }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// The port refuses connections from now on.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// `x-origin` names the application, `x-saw-<field>` repeats what it was told.
async fn answer(
    name: &'static str,
    request: Request<Incoming>,
    release: Arc<Semaphore>,
) -> Result<Answer, Infallible> {
    let mut headers = HeaderMap::new();
    headers.insert("x-origin", HeaderValue::from_static(name));
    for field in [
        "host",
        "x-forwarded-for",
        "x-request-id",
        "traceparent",
        "x-fed-claim",
        "x-fed-hops",
        "te",
    ] {
        if let Some(value) = request.headers().get(field) {
            let repeated = http::HeaderName::try_from(format!("x-saw-{field}")).unwrap();
            headers.insert(repeated, value.clone());
        }
    }
    // What an application must not be able to say.
    headers.insert("x-fed-code", HeaderValue::from_static("FED9999"));
    let path = request.uri().path().to_owned();
    let mut response = match path.as_str() {
        "/held" => {
            release.acquire().await.unwrap().forget();
            full("held")
        }
        "/trailers" => trailers(request).await,
        "/broken" => broken(release),
        "/status/204" => {
            let mut response = full("");
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        "/socket" => return Ok(crate::upgrade::accept(request)),
        _ => Response::new(request.into_body().boxed()),
    };
    response.headers_mut().extend(headers);
    Ok(response)
}

fn full(text: &'static str) -> Answer {
    Response::new(Full::new(Bytes::from_static(text.as_bytes())).map_err(|n| match n {}).boxed())
}

/// Repeats body and trailers, as gRPC does with its status.
async fn trailers(request: Request<Incoming>) -> Answer {
    let collected = request.into_body().collect().await.unwrap();
    let mut trailers = collected.trailers().cloned().unwrap_or_default();
    trailers.insert("grpc-status", HeaderValue::from_static("7"));
    let frames = [Ok(Frame::data(collected.to_bytes())), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed());
    response.headers_mut().insert("trailer", HeaderValue::from_static("grpc-status, x-sum"));
    response
}

/// Promises more than it sends, and breaks off when a permit is added.
fn broken(release: Arc<Semaphore>) -> Answer {
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        let _ = send.send(Ok(Frame::data(Bytes::from_static(b"half")))).await;
        release.acquire().await.unwrap().forget();
    });
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(receive)).boxed());
    response.headers_mut().insert("content-length", HeaderValue::from_static("8"));
    response
}

/// Echoes bytes, and answers the end of its input with `bye` before its own end.
pub(crate) async fn tcp_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    address
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) if buffer[..count].starts_with(b"RESET") => {
                let linger = Some(std::time::Duration::ZERO);
                socket2::SockRef::from(&stream).set_linger(linger).unwrap();
                return;
            }
            Ok(count) => stream.write_all(&buffer[..count]).await.unwrap(),
            Err(_) => return,
        }
    }
    let _ = stream.write_all(b"bye").await;
    let _ = stream.shutdown().await;
}

/// Takes a request and closes without an answer; counts what it took.
pub(crate) async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, taken)
}

/// Reads `bytes` bytes and closes without an answer.
pub(crate) async fn silent_after(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; bytes];
            let _ = stream.read_exact(&mut request).await;
        }
    });
    address
}

/// An address that refuses connections.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
