//! An HTTP request from a peer, to an endpoint of this cluster.

use std::time::Duration;

use http::header::EXPECT;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming as EndpointBody;
use model::AppProtocol;
use rand::Rng;
use tokio::time::timeout;
use tunnel::{
    Exchange as Stream, IncomingExchange, Part, RecvHalf, SendHalf, StreamError, StreamErrorKind,
};
use wire::tunnel::{Dispatched, Head, RequestHead, ResponseHead};

use super::{Endpoints, refuse_in_place, stream_failure};
use crate::access_log::{LogEntry, Record, Role, cut};
use crate::balance::EndpointLease;
use crate::body::{Count, TunnelBody, UpstreamBody};
use crate::error::{Kind, ProxyError};
use crate::http::{self as own_http, content_length, send_data, websocket};
use crate::limits::{HEAD_READ_TIMEOUT, RESPONSE_HEAD_TIMEOUT};
use crate::splice::Counts;
use crate::upstream::{Connection, Returning, SendError};
use crate::worker::WorkerState;

/// Connects first and opens then: a refusal after `Opened` could not be tried elsewhere.
pub(super) async fn serve(
    worker: &WorkerState,
    incoming: IncomingExchange,
    protocol: AppProtocol,
    entry: &mut LogEntry,
) {
    let (connection, lease) = match connect(worker, &incoming, protocol, entry).await {
        Ok(connected) => connected,
        Err(error) => return refuse_in_place(incoming, entry, &error).await,
    };
    let deadline = incoming.open.deadline_ms.map(|ms| Duration::from_millis(ms.into()));
    let Stream { mut send, recv } = match incoming.accept().await {
        Ok(stream) => stream,
        Err(error) => return entry.fail(&stream_failure(&error)),
    };
    let mut forwarding = Forwarding { worker, entry, protocol, lease, received: None };
    let stopped = send.stopped();
    let served = async {
        tokio::select! {
            served = forwarding.run(connection, &mut send, recv) => served,
            error = stopped => Err(stream_failure(&error)),
        }
    };
    let served = match deadline {
        None => served.await,
        Some(limit) => timeout(limit, served).await.unwrap_or_else(|_| {
            Err(ProxyError::maybe_sent(Kind::Deadline, "OPEN.deadline_ms ran out"))
        }),
    };
    drop(forwarding);
    match served {
        Ok(Served::Complete) => entry.succeed(),
        Ok(Served::Switching(switching)) => switching.run(send, entry).await,
        Err(error) => {
            entry.fail(&error);
            send.reset(error.kind.to_code(), error.dispatched);
        }
    }
}

async fn connect(
    worker: &WorkerState,
    incoming: &IncomingExchange,
    protocol: AppProtocol,
    entry: &mut LogEntry,
) -> Result<(Connection, EndpointLease), ProxyError> {
    let mut endpoints = Endpoints::new(&worker.gateway, &incoming.open);
    loop {
        let lease = endpoints.pick()?;
        entry.record().upstream = Some(lease.address());
        if let Err(error) = worker.gateway.check_not_admin(lease.address()) {
            endpoints.failed(&lease, error)?;
            continue;
        }
        match worker.pool.checkout(lease.address(), protocol).await {
            Ok(connection) => return Ok((connection, lease)),
            Err(error) => {
                let error = ProxyError::unsent(Kind::ConnectFailed, error.to_string());
                endpoints.failed(&lease, error)?;
            }
        }
    }
}

/// How an exchange went.
enum Served {
    Complete,
    Switching(Box<Switching>),
}

/// An endpoint that has agreed to switch protocols.
struct Switching {
    response: Response<EndpointBody>,
    recv: RecvHalf,
}

impl Switching {
    async fn run(self, send: SendHalf, entry: &mut LogEntry) {
        let counts = Counts::default();
        let outcome = match hyper::upgrade::on(self.response).await {
            Ok(endpoint) => {
                let spliced = own_http::switch_protocols(endpoint, send, self.recv, &counts).await;
                spliced.map_err(|error| error.to_proxy_error(Role::Destination))
            }
            Err(error) => Err(ProxyError::maybe_sent(Kind::UpstreamReset, error.to_string())),
        };
        let record = entry.record();
        (record.received_bytes, record.sent_bytes) = (counts.forward(), counts.backward());
        match outcome {
            Ok(()) => entry.succeed(),
            Err(error) => entry.fail(&error),
        }
    }
}

/// One request between a stream and an endpoint.
struct Forwarding<'a> {
    worker: &'a WorkerState,
    entry: &'a mut LogEntry,
    protocol: AppProtocol,
    lease: EndpointLease,
    /// What came of the request's body.
    received: Option<Count>,
}

/// However it ends, also cut off in the middle: the record says how much had come.
impl Drop for Forwarding<'_> {
    fn drop(&mut self) {
        if let Some(received) = &self.received {
            self.entry.record().received_bytes = received.get();
        }
    }
}

impl Forwarding<'_> {
    async fn run(
        &mut self,
        connection: Connection,
        send: &mut SendHalf,
        mut recv: RecvHalf,
    ) -> Result<Served, ProxyError> {
        let mut head = begun_within(HEAD_READ_TIMEOUT, read_head(&mut recv)).await?;
        describe(&head, self.entry.record());
        own_http::apply_to_peer_request(&mut head.headers);
        if let Some(protocol) = head.protocol.clone() {
            return self.switch(connection, send, recv, head, &protocol).await;
        }
        if head.method == Method::CONNECT {
            let detail = "CONNECT without a protocol is not served";
            return Err(ProxyError::unsent(Kind::MethodNotServed, detail));
        }
        let body = body_of(&head, recv, connection.is_http1());
        let (body, received) = begun_within(HEAD_READ_TIMEOUT, body).await?;
        let method = head.method.clone();
        let request = build_request(head, body, &connection);
        self.received = received.clone();
        let (response, returning) = self.exchange(connection, request, received.as_ref()).await?;
        self.respond(send, response, returning, &method).await.map(|()| Served::Complete)
    }

    /// Sends the request; an idle connection that closed under it is replaced.
    async fn exchange(
        &mut self,
        mut connection: Connection,
        mut request: Request<UpstreamBody>,
        received: Option<&Count>,
    ) -> Result<(Response<EndpointBody>, Option<Returning>), ProxyError> {
        let gateway = &self.worker.gateway;
        let began = gateway.now();
        let mut fresh = false;
        loop {
            let failure = match in_time(connection.send(request), received).await {
                Ok(Ok(answer)) => {
                    let now = gateway.now();
                    self.lease.measure(now.saturating_sub(began), now);
                    return Ok(answer);
                }
                Ok(Err(failure)) => failure,
                Err(error) => return Err(error),
            };
            let address = self.lease.address();
            let detail = format!("no response from {address}: {}", failure.source);
            match failure {
                SendError { unsent: Some(unsent), .. } if !fresh => {
                    fresh = true;
                    request = unsent;
                    let again = self.worker.pool.checkout(address, self.protocol).await;
                    connection = again.map_err(|error| {
                        ProxyError::unsent(Kind::ConnectFailed, error.to_string())
                    })?;
                }
                SendError { unsent: Some(_), .. } => {
                    return Err(ProxyError::unsent(Kind::UpstreamReset, detail));
                }
                SendError { unsent: None, .. } => {
                    return Err(ProxyError::maybe_sent(Kind::UpstreamReset, detail));
                }
            }
        }
    }

    async fn respond(
        &mut self,
        send: &mut SendHalf,
        response: Response<EndpointBody>,
        returning: Option<Returning>,
        method: &Method,
    ) -> Result<(), ProxyError> {
        let (parts, mut body) = response.into_parts();
        let (status, mut headers) = (parts.status, parts.headers);
        self.entry.record().status = Some(status);
        own_http::apply_to_response(&mut headers);
        let bodiless = *method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !bodiless {
            send.expect_bytes(content_length(&headers));
        }
        send.response_head(&ResponseHead { status, headers }).await.map_err(head_failure)?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let detail = format!("the endpoint broke its response off: {error}");
                ProxyError {
                    kind: Kind::UpstreamReset,
                    dispatched: Dispatched::Yes,
                    detail: detail.into(),
                }
            })?;
            match frame.into_data() {
                Ok(data) => {
                    self.entry.record().sent_bytes += data.len() as u64;
                    send_data(send, data).await.map_err(sent_failure)?;
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        send.trailers(&trailers).await.map_err(sent_failure)?;
                    }
                }
            }
        }
        send.end().await.map_err(sent_failure)?;
        if let Some(returning) = returning {
            self.worker.pool.put_back(returning);
        }
        Ok(())
    }

    /// Extended CONNECT becomes an HTTP/1.1 upgrade, with a handshake of its own (tunnel.md §5.4).
    async fn switch(
        &mut self,
        connection: Connection,
        send: &mut SendHalf,
        recv: RecvHalf,
        head: RequestHead,
        protocol: &str,
    ) -> Result<Served, ProxyError> {
        if !connection.is_http1() {
            let detail = "an upgrade needs an endpoint that speaks HTTP/1.1";
            return Err(ProxyError::unsent(Kind::MethodNotServed, detail));
        }
        let mut request = build_request(head, UpstreamBody::Empty, &connection);
        *request.method_mut() = Method::GET;
        own_http::ask_upgrade(request.headers_mut(), protocol);
        let expected = websocket::add_key(protocol, rand::rng().random(), request.headers_mut());
        let (mut response, returning) = self.exchange(connection, request, None).await?;
        if response.status().is_success() {
            // A server may ignore an upgrade and answer as usual, but on the tunnel success agrees.
            let detail = "the endpoint ignored the upgrade";
            return Err(ProxyError {
                kind: Kind::MethodNotServed,
                dispatched: Dispatched::Yes,
                detail: detail.into(),
            });
        }
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let get = Method::GET;
            return self.respond(send, response, returning, &get).await.map(|()| Served::Complete);
        }
        if !websocket::check_accept(expected, response.headers_mut()) {
            let detail = "the endpoint's sec-websocket-accept is wrong";
            return Err(ProxyError::maybe_sent(Kind::UpstreamReset, detail));
        }
        let status = StatusCode::OK;
        self.entry.record().status = Some(StatusCode::SWITCHING_PROTOCOLS);
        let mut headers = response.headers().clone();
        own_http::apply_to_response(&mut headers);
        send.response_head(&ResponseHead { status, headers }).await.map_err(head_failure)?;
        Ok(Served::Switching(Box::new(Switching { response, recv })))
    }
}

/// Waits for a response's head, no longer than the limit after the request's body last moved.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    received: Option<&Count>,
) -> Result<T, ProxyError> {
    let mut answer = std::pin::pin!(answer);
    let bytes = || received.map_or(0, Count::get);
    loop {
        let before = bytes();
        match timeout(RESPONSE_HEAD_TIMEOUT, answer.as_mut()).await {
            Ok(answer) => return Ok(answer),
            Err(_) if bytes() > before => {} // the body moved meanwhile
            Err(_) => {
                let detail = "the endpoint sent no response head in time";
                return Err(ProxyError::maybe_sent(Kind::Deadline, detail));
            }
        }
    }
}

/// A stream holds a place, an endpoint's lease and a connection from OPEN on, so it has as long as
/// a client's connection to say what it wants.
async fn begun_within<T>(
    limit: Duration,
    part: impl Future<Output = Result<T, ProxyError>>,
) -> Result<T, ProxyError> {
    timeout(limit, part).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        let detail = format!("the peer did not send the request's beginning within {seconds} s");
        Err(ProxyError::unsent(Kind::Deadline, detail))
    })
}

async fn read_head(recv: &mut RecvHalf) -> Result<RequestHead, ProxyError> {
    if let Part::Head(head) = recv.next().await.map_err(|error| stream_failure(&error))?
        && let Head::Request(head) = *head
    {
        return Ok(head);
    }
    let detail = "the stream does not begin with a request's head";
    Err(ProxyError::unsent(Kind::PeerProtocol, detail))
}

fn describe(head: &RequestHead, record: &mut Record) {
    record.method = Some(head.method.clone());
    record.path = cut(head.uri.path());
    record.authority =
        head.uri.authority().map(|authority| cut(authority.as_str())).unwrap_or_default();
}

/// The request's body. Towards HTTP/1.1, a method that hardly ever has one is only given one if
/// the stream does not end at once: servers dislike a chunked GET.
async fn body_of(
    head: &RequestHead,
    mut recv: RecvHalf,
    http1: bool,
) -> Result<(UpstreamBody, Option<Count>), ProxyError> {
    let promised = content_length(&head.headers);
    let rarely = matches!(
        head.method,
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS | Method::TRACE
    );
    let body = match promised {
        Some(bytes) => TunnelBody::new(recv, Some(bytes)),
        None if http1 && rarely => {
            match recv.next().await.map_err(|error| stream_failure(&error))? {
                Part::End => return Ok((UpstreamBody::Empty, None)),
                part => TunnelBody::after(part, recv),
            }
        }
        None => TunnelBody::new(recv, None),
    };
    let count = body.count();
    Ok((UpstreamBody::Tunnel(body), Some(count)))
}

fn build_request(
    head: RequestHead,
    body: UpstreamBody,
    connection: &Connection,
) -> Request<UpstreamBody> {
    let RequestHead { method, uri, mut headers, .. } = head;
    // The source answers 100-continue where it waits for it; the body comes in any case.
    headers.remove(EXPECT);
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    if let Some(authority) = uri.authority() {
        connection.address_request(&mut request, authority, &path);
    }
    request
}

/// A head that tunnel v1 cannot carry is the application's to mend (tunnel.md §5.1).
fn head_failure(error: StreamError) -> ProxyError {
    let failure = sent_failure(error.clone());
    match error.kind {
        StreamErrorKind::Local => ProxyError { kind: Kind::UpstreamReset, ..failure },
        _ => failure,
    }
}

fn sent_failure(error: StreamError) -> ProxyError {
    let failure = stream_failure(&error);
    ProxyError { dispatched: Dispatched::Yes, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_that_never_says_what_it_wants_ends() {
        let silent = std::future::pending::<Result<(), _>>();
        let error = begun_within(Duration::from_millis(1), silent).await.unwrap_err();
        assert_eq!((error.kind, error.dispatched), (Kind::Deadline, Dispatched::No));
        assert!(error.detail.contains("did not send the request's beginning within"), "{error}");
        let said = begun_within(HEAD_READ_TIMEOUT, async { Ok(7) });
        assert_eq!(said.await.unwrap(), 7);
    }
}
