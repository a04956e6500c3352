//! A request on its way out: filtered, with a body that can be sent again, and with its time limit.

use std::net::SocketAddr;
use std::time::Duration;

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use model::Revision;
use model::snapshot::Backend;
use rand::Rng;
use tokio::time::{Instant, timeout_at};
use wire::tunnel::limits::DEADLINE_MS_MAX;
use wire::tunnel::{Open, RequestHead, RouteRevision, RouteSide, StreamKind, Via};

use super::Source;
use super::filters::{self, FreshIds, Origin, Trail};
use super::target::Target;
use super::websocket;
use crate::attempts::AttemptNumber;
use crate::body::{ReplayBody, UpstreamBody};
use crate::error::{Kind, ProxyError};
use crate::limits::RESPONSE_HEAD_TIMEOUT;
use crate::worker::WorkerState;

/// A request as each attempt sends it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) authority: Authority,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: ReplayBody,
    /// The client asks to switch protocols; a body it cannot have then.
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) trail: Trail,
    pub(crate) source: Source,
    /// From `grpc-timeout`.
    pub(crate) deadline: Option<Instant>,
    began: Instant,
}

/// What a client wants to switch to, and its connection once that is agreed.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) protocol: String,
    pub(crate) client: OnUpgrade,
}

impl Outgoing {
    pub(crate) fn new(
        mut request: Request<Incoming>,
        client: SocketAddr,
        backend: &Backend,
        target: &Target,
        source: Source,
    ) -> Self {
        let upgrade = filters::asked_upgrade(&request).map(|protocol| {
            let client = hyper::upgrade::on(&mut request);
            Upgrade { protocol, client }
        });
        let (parts, body) = request.into_parts();
        let Parts { method, uri, mut headers, .. } = parts;
        let authority = target.authority.clone().unwrap_or_else(|| service_authority(backend));
        let origin =
            Origin { client: client.ip(), authority: Some(&authority), fresh: fresh_ids() };
        let trail = filters::apply_to_request(&mut headers, &origin);
        let began = Instant::now();
        let deadline = grpc_timeout(&headers).map(|timeout| began + timeout);
        let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let body = ReplayBody::new(body);
        Self { method, authority, path, headers, body, upgrade, trail, source, deadline, began }
    }

    /// For an endpoint of our own, as HTTP/1.1 or HTTP/2; the connection adds target and version.
    pub(crate) fn to_request(&self) -> Request<UpstreamBody> {
        let body = self.body.attempt().map_or(UpstreamBody::Empty, UpstreamBody::Client);
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(upgrade) = &self.upgrade {
            filters::ask_upgrade(request.headers_mut(), &upgrade.protocol);
        }
        request
    }

    /// For a peer. An upgrade travels as extended CONNECT (RFC 8441), as tunnel.md has it.
    pub(crate) fn to_head(&self) -> RequestHead {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(self.path.clone());
        let protocol = self.upgrade.as_ref().map(|upgrade| upgrade.protocol.as_str().into());
        let method = if protocol.is_some() { Method::CONNECT } else { self.method.clone() };
        let uri = Uri::from_parts(uri).expect("scheme, authority and path make a URI");
        let mut headers = self.headers.clone();
        headers.remove(http::header::HOST); // the authority says it
        websocket::remove_key(protocol.as_deref(), &mut headers);
        RequestHead { method, uri, protocol, headers }
    }

    pub(crate) fn open(
        &self,
        worker: &WorkerState,
        backend: &Backend,
        attempt: AttemptNumber,
        revision: Revision,
    ) -> Result<Open, ProxyError> {
        let remaining = self.deadline.map(|end| end.saturating_duration_since(Instant::now()));
        let deadline_ms =
            remaining.map(|left| (left.as_millis() as u64).clamp(1, DEADLINE_MS_MAX.into()) as u32);
        Ok(Open {
            kind: StreamKind::Http,
            service: backend.service.clone(),
            port: backend.port,
            source: self.source.identity.clone(),
            unattested: self.source.unattested,
            trace: Some(self.trail.trace.clone()),
            deadline_ms,
            request_id: self.trail.request_id,
            attempt: attempt.number,
            retries_left: attempt.retries_left,
            via: Via::new(worker.cluster_id()?),
            route: Some(RouteRevision { side: RouteSide::Consumer, revision }),
        })
    }

    /// Whether this request may be sent again after `error`: nothing can happen twice, and what
    /// was read of the body is still there.
    pub(crate) fn may_go_again(&self, error: &ProxyError) -> bool {
        error.may_retry(is_idempotent(&self.method)) && self.body.is_replayable()
    }

    /// Waits for a response's head: until the deadline, and no longer than the head timeout since
    /// the last byte of the request's body came.
    pub(crate) async fn in_time<T>(
        &self,
        response: impl Future<Output = Result<T, ProxyError>>,
    ) -> Result<T, ProxyError> {
        let mut response = std::pin::pin!(response);
        loop {
            let due = self.response_due();
            match timeout_at(due, response.as_mut()).await {
                Ok(outcome) => return outcome.map_err(|error| self.blame_client(error)),
                Err(_) if self.response_due() > due => {} // the body moved meanwhile
                Err(_) => {
                    let detail = "no response head came in time";
                    return Err(ProxyError::maybe_sent(Kind::Deadline, detail));
                }
            }
        }
    }

    fn response_due(&self) -> Instant {
        let due = self.body.read_at().unwrap_or(self.began) + RESPONSE_HEAD_TIMEOUT;
        self.deadline.map_or(due, |deadline| deadline.min(due))
    }

    /// An attempt that failed because the client broke its body off is the client's failure.
    fn blame_client(&self, error: ProxyError) -> ProxyError {
        if !self.body.failed() {
            return error;
        }
        let (kind, what) = match self.body.is_malformed() {
            true => (Kind::BadRequest, "the request's body has a wrong framing"),
            false => (Kind::ClientGone, "the client broke its request off"),
        };
        let detail = format!("{what}; then {}", error.detail);
        ProxyError { kind, dispatched: error.dispatched, detail: detail.into() }
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Stands in for the Host that an HTTP/1.0 client may leave out.
fn service_authority(backend: &Backend) -> Authority {
    let text = format!("{}.{}", backend.service.name, backend.service.namespace);
    Authority::try_from(text).expect("RFC 1123 names joined by a dot are a host")
}

pub(crate) fn fresh_ids() -> FreshIds {
    let mut rng = rand::rng();
    FreshIds { request_id: rng.random(), trace_id: rng.random(), parent_id: rng.random() }
}

/// gRPC over HTTP/2, Requests: `TimeoutValue TimeoutUnit`, at most eight digits.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_timeouts_are_read_strictly() {
        let timeout = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            grpc_timeout(&headers)
        };
        assert_eq!(timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7_200)));
        for bad in ["", "S", "5", "5x", "-1S", "123456789S", "1.5S"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn only_idempotent_methods_repeat() {
        for (method, expected) in [
            (Method::GET, true),
            (Method::PUT, true),
            (Method::DELETE, true),
            (Method::POST, false),
            (Method::PATCH, false),
            (Method::from_bytes(b"LOCK").unwrap(), false),
        ] {
            assert_eq!(is_idempotent(&method), expected, "{method}");
        }
    }
}
