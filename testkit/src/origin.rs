//! An application that does what a request's path asks for, and remembers every request.
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | N bytes of the pattern |
//! | `/sink` | reads the body and says `N intact` or where it differs from the pattern |
//! | `/hold` | reads the body and answers after [`Origin::release`] |
//! | `/half/N` | announces N bytes, sends half, and the rest after [`Origin::release`] |
//! | `/reset` | reads the body and closes without an answer |
//! | `/reset-half/N` | announces N bytes, sends half and breaks off |
//! | `/trailers` | the label, then the trailer `x-sum: 42` |
//! | `/hop` | fields that concern the connection only, and one that `Connection` names |
//! | `/fields/N` | N fields |
//! | `/status/N` | that status without a body |
//! | `/early` | 413, and only then reads the body |
//! | `/upgrade` | 101, if an upgrade is asked for, and then every byte back |
//! | others | reads the body and answers with the label |

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRAILER, UPGRADE};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::pattern::{self, Check, PatternBody};

/// What an origin speaks on its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    /// HTTP/2 with prior knowledge, and nothing else.
    H2c,
}

/// A request as the application saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Check,
    pub trailers: HeaderMap,
    /// The body was read to its end.
    pub complete: bool,
    /// The answer was handed to the connection, or the connection ended before it could be.
    pub done: bool,
}

/// The running application. It stops when dropped.
#[derive(Debug)]
pub struct Origin {
    pub address: SocketAddr,
    speaks: Speaks,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    label: String,
    seen: Mutex<Vec<Seen>>,
    released: watch::Sender<bool>,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

impl Origin {
    /// Starts on a free port.
    pub async fn start(label: &str, address: IpAddr, speaks: Speaks) -> anyhow::Result<Self> {
        let shared = Shared {
            label: label.into(),
            seen: Mutex::default(),
            released: watch::Sender::new(false),
        };
        let address = SocketAddr::new(address, 0);
        let mut origin = Self { address, speaks, shared: Arc::new(shared), tasks: JoinSet::new() };
        origin.resume().await?;
        Ok(origin)
    }

    /// The process dies: its port refuses connections, those that stand break.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// It is started again, on the same port.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await;
        let listener = listener.with_context(|| format!("bind {}", self.address))?;
        self.address = listener.local_addr()?;
        self.tasks.spawn(serve(listener, self.speaks, self.shared.clone()));
        Ok(())
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().clone()
    }

    /// The requests whose path and query begin so.
    pub fn seen_of(&self, prefix: &str) -> Vec<Seen> {
        let about =
            |seen: &Seen| seen.uri.path_and_query().is_some_and(|p| p.as_str().starts_with(prefix));
        self.seen().into_iter().filter(about).collect()
    }

    /// How often each path and query came.
    pub fn executions(&self) -> BTreeMap<String, usize> {
        let mut executions = BTreeMap::new();
        for seen in self.seen() {
            let path = seen.uri.path_and_query().map(ToString::to_string);
            *executions.entry(path.unwrap_or_default()).or_default() += 1;
        }
        executions
    }

    /// Lets everything go on that waits, now and later.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Makes requests wait again, from now on.
    pub fn hold(&self) {
        self.shared.released.send_replace(false);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock()[index]);
    }

    async fn released(&self) {
        let mut released = self.released.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _released = released.wait_for(|released| *released).await;
    }
}

async fn serve(listener: TcpListener, speaks: Speaks, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(serve_connection(stream, speaks, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(stream: TcpStream, speaks: Speaks, shared: Arc<Shared>) {
    // Without it the kernel holds small answers back, and tests take far longer.
    let _unsupported = stream.set_nodelay(true);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().max_headers(1_000);
    let server = match speaks {
        Speaks::Http1 => server.http1_only(),
        Speaks::H2c => server.http2_only(),
    };
    let service = service_fn(move |request| answer(request, shared.clone()));
    // A gateway that goes away in the middle of a request is what some tests are about.
    let _gone = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// Remembers that a request is over, also when its connection ended first.
struct Done {
    shared: Arc<Shared>,
    index: usize,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.shared.update(self.index, |seen| seen.done = true);
    }
}

async fn answer(
    mut request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, std::io::Error> {
    let index = remember(&request, &shared);
    let path = request.uri().path().to_string();
    let done = Done { shared: shared.clone(), index };
    if path == "/early" {
        // Who closes with bytes unread resets the connection, and the answer may be lost with it.
        tokio::spawn(async move { receive(request.into_body(), &shared, index).await });
        return Ok(response(StatusCode::PAYLOAD_TOO_LARGE, full("too large\n")));
    }
    if let ("/upgrade", Some(protocol)) = (path.as_str(), request.headers().get(UPGRADE).cloned()) {
        tokio::spawn(echo(hyper::upgrade::on(&mut request), done));
        let mut response = response(StatusCode::SWITCHING_PROTOCOLS, full(""));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, protocol);
        return Ok(response);
    }
    let received = receive(request.into_body(), &shared, index).await?;
    respond(&path, &received, &shared, done).await
}

fn remember(request: &Request<Incoming>, shared: &Shared) -> usize {
    let mut seen = shared.lock();
    seen.push(Seen {
        method: request.method().clone(),
        uri: request.uri().clone(),
        version: request.version(),
        headers: request.headers().clone(),
        body: Check::default(),
        trailers: HeaderMap::new(),
        complete: false,
        done: false,
    });
    seen.len() - 1
}

async fn echo(upgrade: hyper::upgrade::OnUpgrade, _done: Done) {
    let Ok(upgraded) = upgrade.await else { return };
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    // However it ends, the connection is over.
    let _ended = tokio::io::copy(&mut read, &mut write).await;
    let _ended = write.shutdown().await;
}

async fn receive(
    mut body: Incoming,
    shared: &Shared,
    index: usize,
) -> Result<Check, std::io::Error> {
    let mut check = Check::default();
    while let Some(frame) = body.frame().await {
        match frame.map_err(std::io::Error::other)?.into_data() {
            Ok(data) => {
                check.take(&data);
                shared.update(index, |seen| seen.body = check.clone());
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                shared.update(index, |seen| seen.trailers = trailers);
            }
        }
    }
    shared.update(index, |seen| seen.complete = true);
    Ok(check)
}

async fn respond(
    path: &str,
    received: &Check,
    shared: &Arc<Shared>,
    done: Done,
) -> Result<Response<Body>, std::io::Error> {
    let mut parts = path.split('/').skip(1);
    let (verb, number) = (parts.next().unwrap_or_default(), parts.next());
    let number = number.and_then(|number| number.parse().ok()).unwrap_or(0_u64);
    let label = || full(format!("{}\n", shared.label));
    let ok = |body| response(StatusCode::OK, body);
    Ok(match verb {
        "bytes" => ok(PatternBody::new(number).map_err(never).boxed_unsync()),
        "sink" => ok(full(match received.wrong_at {
            None => format!("{} intact\n", received.bytes),
            Some(at) => format!("{} wrong at {at}\n", received.bytes),
        })),
        "hold" => {
            shared.released().await;
            ok(label())
        }
        "half" => in_halves(number, Some(shared.clone()), done),
        "reset" => return Err(std::io::Error::other("reset, as asked")),
        "reset-half" => in_halves(number, None, done),
        "trailers" => with_trailers(&shared.label),
        "hop" => with_hop_fields(ok(label())),
        "fields" => with_fields(ok(label()), number),
        "status" => {
            let status = u16::try_from(number).ok().and_then(|n| StatusCode::from_u16(n).ok());
            let empty = Empty::new().map_err(never).boxed_unsync();
            response(status.unwrap_or(StatusCode::BAD_REQUEST), empty)
        }
        _ => ok(label()),
    })
}

/// Half of the announced bytes; then the rest once released, or the end of the connection.
fn in_halves(bytes: u64, gate: Option<Arc<Shared>>, done: Done) -> Response<Body> {
    let (frames, mut queue) = mpsc::channel(1);
    tokio::spawn(async move {
        let (_done, half) = (done, bytes / 2);
        if send_pattern(&frames, 0, half).await.is_none() {
            return;
        }
        match gate {
            None => drop(frames.send(Err(std::io::Error::other("broken off, as asked"))).await),
            Some(shared) => {
                tokio::select! {
                    () = shared.released() => drop(send_pattern(&frames, half, bytes).await),
                    () = frames.closed() => {}
                }
            }
        }
    });
    let frames = futures_util::stream::poll_fn(move |context| queue.poll_recv(context));
    let mut response = response(StatusCode::OK, StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    response
}

type Frames = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

/// `None` when the reader is gone.
async fn send_pattern(frames: &Frames, mut offset: u64, end: u64) -> Option<()> {
    while offset < end {
        let data = pattern::piece(offset, end - offset);
        offset += data.len() as u64;
        frames.send(Ok(Frame::data(data))).await.ok()?;
    }
    Some(())
}

fn with_trailers(label: &str) -> Response<Body> {
    let (name, value) = (HeaderName::from_static("x-sum"), HeaderValue::from_static("42"));
    let data = Frame::data(Bytes::from(format!("{label}\n")));
    let trailers = Frame::trailers(HeaderMap::from_iter([(name, value)]));
    let frames = futures_util::stream::iter([Ok(data), Ok(trailers)]);
    let mut response = response(StatusCode::OK, StreamBody::new(frames).boxed_unsync());
    // HTTP/1.1 sends only trailers that were announced.
    response.headers_mut().insert(TRAILER, HeaderValue::from_static("x-sum"));
    response
}

fn with_hop_fields(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("x-internal"));
    for (name, value) in [
        ("x-internal", "secret of the connection"),
        ("keep-alive", "timeout=77"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authenticate", "Basic"),
        ("x-kept", "1"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn with_fields(mut response: Response<Body>, count: u64) -> Response<Body> {
    for index in 0..count {
        let name = HeaderName::try_from(format!("x-field-{index}")).expect("letters and digits");
        response.headers_mut().insert(name, HeaderValue::from(index));
    }
    response
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> std::io::Error {
    match never {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{self, Client};
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn it_does_what_paths_ask_for_and_remembers() {
        let mut origin = Origin::start("me", HERE, Speaks::Http1).await.unwrap();
        let address = origin.address;
        let get = |path: &'static str| client::get(address, "x", path);
        assert_eq!(get("/").await.unwrap().text(), "me");
        let mut client = Client::connect(address, Version::HTTP_11).await.unwrap();
        let request = client.request(Method::GET, "x", "/trailers").header("te", "trailers");
        let answer = client.send(request.body(client::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.trailers["x-sum"], "42");
        assert_eq!(get("/fields/120").await.unwrap().headers.len(), 122);
        assert_eq!(get("/status/204").await.unwrap().status, 204);
        assert_eq!(get("/hop").await.unwrap().header("x-internal"), "secret of the connection");
        assert!(get("/reset").await.is_err());
        assert!(get("/reset-half/100000").await.is_err());
        let sunk = client::post(address, "x", "/sink", client::pattern(100_000)).await.unwrap();
        assert_eq!(sunk.text(), "100000 intact");
        let wrong = client::post(address, "x", "/sink", client::full("no pattern")).await.unwrap();
        assert_eq!(wrong.text(), "10 wrong at 0");
        assert_eq!(origin.executions()["/sink"], 2);
        assert!(origin.seen().iter().all(|seen| seen.complete));

        origin.stop().await;
        let refused = get("/").await.unwrap_err();
        assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
        origin.resume().await.unwrap();
        assert_eq!(get("/").await.unwrap().text(), "me");
    }

    #[tokio::test]
    async fn held_answers_wait_for_the_release() {
        let origin = Origin::start("me", HERE, Speaks::H2c).await.unwrap();
        let mut client = Client::connect(origin.address, Version::HTTP_2).await.unwrap();
        let request =
            client.request(Method::GET, "x", "/half/50000").body(client::empty()).unwrap();
        let half = client.open(request).await.unwrap();
        let request = client.request(Method::GET, "x", "/hold").body(client::empty()).unwrap();
        let mut hold = Box::pin(client.send(request));
        assert!(futures_util::poll!(&mut hold).is_pending());
        origin.release();
        assert_eq!(hold.await.unwrap().text(), "me");
        assert!(client::check(half).await.unwrap().is_intact(50_000));
        assert!(origin.seen().iter().all(|seen| seen.version == Version::HTTP_2));
    }
}
