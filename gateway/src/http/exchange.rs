//! One request in progress, from its head to the end of its response: what the access log will say
//! of it, and the places that it takes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use model::RequestId;

use super::outgoing::Outgoing;
use super::upgrade::{self, Switch};
use super::{Client, filters};
use crate::access_log::{self, LogEntry, Protocol, Record, Role};
use crate::balance::EndpointLease;
use crate::body::{BodyError, ReplayBody, TunnelBody};
use crate::drain::DrainGuard;
use crate::error::{Kind, ProxyError};
use crate::respond::{self, Dialect};
use crate::state::Place;
use crate::upstream::Returning;
use crate::worker::WorkerState;

/// A request in progress. Dropping it ends it, and writes its record.
pub(crate) struct Exchange {
    entry: LogEntry,
    worker: Arc<WorkerState>,
    place: Option<Place>,
    _drain: DrainGuard,
    method: Method,
    /// For the count of its bytes.
    body: Option<ReplayBody>,
}

impl Exchange {
    pub(crate) fn begin(client: &Client, request: &Request<Incoming>) -> Self {
        let worker = client.worker.clone();
        let http2 = request.version() == Version::HTTP_2;
        let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
        let mut record = Record::new(Role::Source, protocol, client.remote);
        record.method = Some(request.method().clone());
        record.authority = authority_text(request);
        record.path = access_log::cut(request.uri().path());
        let given = filters::given_request_id(request.headers());
        record.request_id = given.or_else(|| Some(RequestId::from_bytes(rand::random())));
        let entry = LogEntry::begin(record, &worker.gateway.log, &worker.shard);
        let place = worker.gateway.exchanges.take();
        let drain = worker.gateway.drain.guard();
        let method = request.method().clone();
        Self { entry, worker, place, _drain: drain, method, body: None }
    }

    pub(crate) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    pub(crate) fn log(&mut self, describe: impl FnOnce(&mut Record)) {
        describe(self.entry.record());
    }

    /// From now on the body's bytes are counted, and the record has the request's ids.
    pub(crate) fn follow(&mut self, outgoing: &Outgoing) {
        self.body = Some(outgoing.body.clone());
        let record = self.entry.record();
        record.request_id = Some(outgoing.trail.request_id);
        record.trace_id = Some(outgoing.trail.trace.trace_id);
        record.source = Some(outgoing.source.identity.clone());
        record.unattested = outgoing.source.unattested;
    }

    /// The response of an application, on its way to the client.
    pub(crate) fn respond(mut self, served: Served) -> Response<ResponseBody> {
        let Served { status, headers, source, lease, returning } = served;
        let leaves = self.leaves();
        if let Some(body) = &self.body {
            body.settle();
        }
        self.entry.record().status = Some(status);
        let source = match source {
            ResponseSource::Switching(switch) => {
                upgrade::spawn(*switch, self, lease);
                return switching(status, headers);
            }
            source => source,
        };
        let promised = content_length(&headers);
        let bodiless = self.method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = ResponseBody {
            source,
            exchange: Some(self),
            lease,
            returning,
            promised,
            bodiless,
            sent_bytes: 0,
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if leaves {
            end_connection(&mut response);
        }
        response
    }

    /// Our own response to a request that could not be served.
    pub(crate) fn respond_failed(
        mut self,
        error: &ProxyError,
        dialect: Dialect,
    ) -> Response<ResponseBody> {
        tracing::debug!(kind = ?error.kind, %error, "a request failed");
        self.entry.fail(error);
        let (parts, body) = respond::respond(error, dialect).into_parts();
        self.entry.record().status = Some(parts.status);
        let leaves = self.leaves();
        let promised = content_length(&parts.headers);
        let bodiless = self.method == Method::HEAD;
        let body = ResponseBody {
            source: ResponseSource::Own(body),
            exchange: Some(self),
            lease: None,
            returning: None,
            promised,
            bodiless,
            sent_bytes: 0,
        };
        let mut response = Response::from_parts(parts, body);
        if leaves {
            end_connection(&mut response);
        }
        response
    }

    /// Whether the client's next request is to come by another connection, which a load balancer takes
    /// elsewhere. HTTP/2 has no header for it.
    fn leaves(&mut self) -> bool {
        self.entry.record().protocol == Protocol::Http1 && self.worker.gateway.drain.is_cordoned()
    }

    pub(crate) fn entry(&mut self) -> &mut LogEntry {
        &mut self.entry
    }

    pub(crate) fn worker(&self) -> &Arc<WorkerState> {
        &self.worker
    }

    fn client_failed(&self) -> bool {
        self.body.as_ref().is_some_and(ReplayBody::failed)
    }

    /// `sent_bytes`: of the response's body.
    fn end(mut self, outcome: Result<(), &ProxyError>, sent_bytes: u64) {
        self.entry.record().sent_bytes = sent_bytes;
        match outcome {
            Ok(()) => self.entry.succeed(),
            Err(error) => self.entry.fail(error),
        }
    }
}

/// Also on the way out that hyper takes when the client is gone: it drops the handler.
impl Drop for Exchange {
    fn drop(&mut self) {
        let read_bytes = self.body.as_ref().map_or(0, ReplayBody::read_bytes);
        self.entry.record().received_bytes += read_bytes;
    }
}

/// Unlike the end of an idle connection, it cannot meet a request on its way.
fn end_connection(response: &mut Response<ResponseBody>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// The connection belongs to its two ends from now on; the exchange goes on beside it.
fn switching(status: StatusCode, headers: HeaderMap) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn authority_text<B>(request: &Request<B>) -> String {
    let host = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(|authority| authority.as_str());
    access_log::cut(authority.or_else(host).unwrap_or_default())
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A response whose head has come.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) source: ResponseSource,
    /// The endpoint counts as busy until the body ends.
    pub(crate) lease: Option<EndpointLease>,
    pub(crate) returning: Option<Returning>,
}

/// Where a response's body comes from.
#[derive(Debug)]
pub(crate) enum ResponseSource {
    Own(Full<Bytes>),
    Endpoint(Incoming),
    Tunnel(TunnelBody),
    /// The client's connection is handed over after this response.
    Switching(Box<Switch>),
}

/// A response's body on its way to the client; it ends the exchange when it ends.
pub struct ResponseBody {
    source: ResponseSource,
    exchange: Option<Exchange>,
    lease: Option<EndpointLease>,
    returning: Option<Returning>,
    /// Content-Length.
    promised: Option<u64>,
    /// The response has no body, whatever its head promises (HEAD, 204, 304).
    bodiless: bool,
    sent_bytes: u64,
}

impl ResponseBody {
    fn empty() -> Self {
        Self {
            source: ResponseSource::Own(Full::new(Bytes::new())),
            exchange: None,
            lease: None,
            returning: None,
            promised: Some(0),
            bodiless: true,
            sent_bytes: 0,
        }
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            ResponseSource::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| Ok(frame.unwrap_or_else(|never| match never {})))),
            ResponseSource::Endpoint(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyError::Upstream))),
            ResponseSource::Tunnel(body) => Pin::new(body).poll_frame(cx),
            ResponseSource::Switching(_) => Poll::Ready(None),
        }
    }

    fn source_ended(&self) -> bool {
        match &self.source {
            ResponseSource::Own(body) => body.is_end_stream(),
            ResponseSource::Endpoint(body) => body.is_end_stream(),
            ResponseSource::Tunnel(body) => body.is_end_stream(),
            ResponseSource::Switching(_) => true,
        }
    }

    fn finish(&mut self, outcome: Result<(), &ProxyError>) {
        self.lease = None;
        let returning = self.returning.take();
        let Some(exchange) = self.exchange.take() else { return };
        if let (Some(returning), Ok(())) = (returning, outcome)
            && self.source_ended()
        {
            exchange.worker.pool.put_back(returning);
        }
        exchange.end(outcome, self.sent_bytes);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_source(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.sent_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.source_ended() {
                    this.finish(Ok(()));
                }
            }
            None => this.finish(Ok(())),
            Some(Err(error)) => {
                let client_failed = this.exchange.as_ref().is_some_and(Exchange::client_failed);
                let error = response_failure(error, client_failed);
                this.finish(Err(&error));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            ResponseSource::Own(body) => body.size_hint(),
            ResponseSource::Endpoint(body) => body.size_hint(),
            ResponseSource::Tunnel(body) => body.size_hint(),
            ResponseSource::Switching(_) => SizeHint::with_exact(0),
        }
    }
}

/// hyper stops polling at the promised length and drops the body then, so that is an end too.
impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.exchange.is_none() {
            return;
        }
        if self.bodiless || self.source_ended() || self.promised == Some(self.sent_bytes) {
            self.finish(Ok(()));
        } else {
            let gone =
                ProxyError::maybe_sent(Kind::ClientGone, "the client left during the response");
            self.finish(Err(&gone));
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("promised", &self.promised)
            .field("sent_bytes", &self.sent_bytes)
            .finish_non_exhaustive()
    }
}

/// An application that breaks off because its request did is not to blame.
fn response_failure(error: &BodyError, client_failed: bool) -> ProxyError {
    let kind = match error {
        _ if client_failed => Kind::ClientGone,
        BodyError::Tunnel(error) => Kind::at_source(error.kind, error.code),
        BodyError::Upstream(_) | BodyError::Client(_) | BodyError::Superseded => {
            Kind::UpstreamReset
        }
    };
    ProxyError::maybe_sent(kind, error.to_string())
}
