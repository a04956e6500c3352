//! What a client is told: the one match from [`Kind`] to HTTP status, gRPC code, response flag and
//! FED code, and the response made of it.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use http_body_util::Full;
use model::code::{self, Code};
use wire::tunnel::Dispatched;

use crate::error::{Kind, ProxyError};

/// The response header that carries the FED code.
pub const X_FED_CODE: HeaderName = HeaderName::from_static("x-fed-code");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A failure as clients, logs and metrics see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// gRPC's status code, as a response's trailer has it.
    pub grpc: u8,
    /// Envoy's response flags where one fits, else one of ours.
    pub flag: &'static str,
    /// `None` only where no person meets the failure, or the fault is ours.
    pub code: Option<Code>,
}

const GRPC_CANCELLED: u8 = 1;
const GRPC_DEADLINE_EXCEEDED: u8 = 4;
const GRPC_PERMISSION_DENIED: u8 = 7;
const GRPC_RESOURCE_EXHAUSTED: u8 = 8;
const GRPC_UNIMPLEMENTED: u8 = 12;
const GRPC_INTERNAL: u8 = 13;
const GRPC_UNAVAILABLE: u8 = 14;
const GRPC_UNAUTHENTICATED: u8 = 16;

impl Answer {
    /// The one match. gRPC codes follow gRPC's own HTTP mapping, except where ours knows more.
    pub fn to(kind: Kind) -> Self {
        let (status, grpc, flag, code) = match kind {
            Kind::BadRequest => (400, GRPC_INTERNAL, "DPE", Some(code::BAD_REQUEST)),
            Kind::HeadTooLarge => (431, GRPC_RESOURCE_EXHAUSTED, "DPE", Some(code::BAD_REQUEST)),
            Kind::MethodNotServed => (501, GRPC_UNIMPLEMENTED, "DPE", Some(code::BAD_REQUEST)),
            // Nobody reads this status: it is nginx's number for the log.
            Kind::ClientGone => (499, GRPC_CANCELLED, "DC", None),
            Kind::NoRoute => (404, GRPC_UNIMPLEMENTED, "NR", Some(code::NO_ROUTE)),
            // The status is Gateway API's, the gRPC code GRPCRoute's, the flag Envoy's.
            Kind::BackendUnresolved => {
                (500, GRPC_UNAVAILABLE, "NC", Some(code::BACKEND_UNRESOLVED))
            }
            Kind::NoEndpoint => (503, GRPC_UNAVAILABLE, "UH", Some(code::NO_ENDPOINT)),
            Kind::NoIdentity => (503, GRPC_UNAVAILABLE, "UF", Some(code::SVID_MISSING)),
            Kind::TunnelDown => (503, GRPC_UNAVAILABLE, "UF", Some(code::TUNNEL_DOWN)),
            Kind::TunnelLost => (502, GRPC_UNAVAILABLE, "UC", Some(code::TUNNEL_SILENT)),
            Kind::ConnectFailed => (503, GRPC_UNAVAILABLE, "UF", Some(code::UPSTREAM_CONNECT)),
            Kind::UpstreamReset => (502, GRPC_UNAVAILABLE, "UC", Some(code::UPSTREAM_RESET)),
            Kind::Truncated => (502, GRPC_UNAVAILABLE, "UC", Some(code::TRUNCATED)),
            Kind::Deadline => (504, GRPC_DEADLINE_EXCEEDED, "UT", Some(code::DEADLINE)),
            Kind::Denied => (403, GRPC_PERMISSION_DENIED, "UAEX", Some(code::ACCESS_DENIED)),
            Kind::NotExported => (503, GRPC_UNAVAILABLE, "NC", Some(code::SERVICE_NOT_FOUND)),
            Kind::Loop => (508, GRPC_INTERNAL, "LOOP", Some(code::LOOP_REFUSED)),
            Kind::NotYet => (503, GRPC_UNAVAILABLE, "NC", Some(code::NOT_YET)),
            Kind::Overloaded => (503, GRPC_UNAVAILABLE, "UO", Some(code::TUNNEL_OVERLOADED)),
            Kind::Draining => (503, GRPC_UNAVAILABLE, "UO", Some(code::DRAINING)),
            Kind::PeerProtocol => (502, GRPC_INTERNAL, "UPE", Some(code::PEER_PROTOCOL_ERROR)),
            Kind::IdentityRefused => {
                (502, GRPC_UNAUTHENTICATED, "UF", Some(code::PEER_IDENTITY_REFUSED))
            }
            Kind::StalledReader => (503, GRPC_UNAVAILABLE, "SI", Some(code::STALLED_READER)),
            Kind::Internal => (500, GRPC_INTERNAL, "IE", None),
        };
        let status = StatusCode::from_u16(status).expect("the table has statuses of 100 to 999");
        Self { status, grpc, flag, code }
    }

    /// The same for one failure: 503 says that the application never saw the request, so what it
    /// may have seen is 502.
    pub fn to_error(error: &ProxyError) -> Self {
        let mut answer = Self::to(error.kind);
        let seen = error.dispatched != Dispatched::No;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE && seen {
            answer.status = StatusCode::BAD_GATEWAY;
        }
        answer
    }
}

/// How a client expects to be told about failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Plain,
    /// gRPC: status 200 and a "trailers-only" response (gRPC over HTTP/2, Responses).
    Grpc,
}

impl Dialect {
    pub fn of(version: Version, headers: &HeaderMap) -> Self {
        let grpc = version == Version::HTTP_2
            && headers
                .get(CONTENT_TYPE)
                .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if grpc { Self::Grpc } else { Self::Plain }
    }
}

/// The response to a failed request. Internal text never reaches the client.
pub fn respond(error: &ProxyError, dialect: Dialect) -> Response<Full<Bytes>> {
    let answer = Answer::to_error(error);
    let mut headers = HeaderMap::with_capacity(4);
    if let Some(code) = answer.code {
        let value = HeaderValue::try_from(code.to_string());
        headers.insert(X_FED_CODE, value.expect("FED and digits are visible ASCII"));
    }
    let (status, body) = match dialect {
        Dialect::Plain => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            (answer.status, Bytes::from(text(answer)))
        }
        Dialect::Grpc => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(answer.grpc)));
            let message = HeaderValue::try_from(summary(answer).trim_end());
            headers.insert(GRPC_MESSAGE, message.expect("summaries are printable ASCII"));
            (StatusCode::OK, Bytes::new())
        }
    };
    if dialect == Dialect::Plain {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn text(answer: Answer) -> String {
    match answer.code {
        Some(code) => format!("{code} {}\n", code.entry().summary),
        None => summary(answer).to_owned(),
    }
}

fn summary(answer: Answer) -> &'static str {
    answer.code.map_or("The gateway failed.\n", |code| code.entry().summary)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body_of(response: Response<Full<Bytes>>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_kind_has_an_answer_in_both_dialects() {
        for kind in Kind::ALL {
            let answer = Answer::to(kind);
            let error = ProxyError::unsent(kind, "");
            let plain = respond(&error, Dialect::Plain);
            assert_eq!(plain.status(), answer.status, "{kind:?}");
            let code = answer.code.map(|code| code.to_string());
            let shown = plain.headers().get(X_FED_CODE).map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(shown, code, "{kind:?}");
            let body = body_of(plain).await;
            assert!(body.starts_with(code.as_deref().unwrap_or("The gateway")), "{body}");

            let grpc = respond(&error, Dialect::Grpc);
            assert_eq!(grpc.status(), StatusCode::OK);
            assert_eq!(grpc.headers()[GRPC_STATUS], answer.grpc.to_string().as_str());
            assert!(body_of(grpc).await.is_empty());
        }
    }

    #[test]
    fn a_client_may_repeat_what_was_answered_with_503() {
        // 503 stands for "not dispatched", 502 for "nobody knows": clients retry accordingly.
        for kind in [Kind::TunnelDown, Kind::ConnectFailed, Kind::NoEndpoint, Kind::Overloaded] {
            assert_eq!(Answer::to(kind).status, StatusCode::SERVICE_UNAVAILABLE);
        }
        for kind in [Kind::TunnelLost, Kind::UpstreamReset, Kind::Truncated] {
            assert_eq!(Answer::to(kind).status, StatusCode::BAD_GATEWAY);
        }
    }

    #[test]
    fn what_the_application_may_have_seen_is_never_answered_with_503() {
        for kind in Kind::ALL {
            let never = Answer::to_error(&ProxyError::unsent(kind, ""));
            assert_eq!(never, Answer::to(kind));
            let maybe = respond(&ProxyError::maybe_sent(kind, ""), Dialect::Plain);
            let expected = match Answer::to(kind).status {
                StatusCode::SERVICE_UNAVAILABLE => StatusCode::BAD_GATEWAY,
                status => status,
            };
            assert_eq!(maybe.status(), expected, "{kind:?}");
        }
    }

    #[test]
    fn grpc_is_told_by_version_and_content_type() {
        let mut headers = HeaderMap::new();
        assert_eq!(Dialect::of(Version::HTTP_2, &headers), Dialect::Plain);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        assert_eq!(Dialect::of(Version::HTTP_2, &headers), Dialect::Grpc);
        assert_eq!(Dialect::of(Version::HTTP_11, &headers), Dialect::Plain);
    }
}
