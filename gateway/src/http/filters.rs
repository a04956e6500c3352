//! What is taken from and added to a message's fields on its way: hop-by-hop fields go, identity
//! claims from outside go, and the fields that tell an application about its client come.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use model::RequestId;
use wire::tunnel::TraceContext;

use crate::respond::X_FED_CODE;

/// Names the request in every log on its way.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// How many gateways a request has entered from an application or client. `via` ends circles from
/// tunnel to tunnel; this ends those that lead through an endpoint, such as a gateway's own port.
/// Whoever sends it from outside can only have their own request refused.
const X_FED_HOPS: HeaderName = HeaderName::from_static("x-fed-hops");
/// Fields of ours; from outside they would be claims.
const OWN_PREFIX: &str = "x-fed-";
/// Fields that say whom a request came through.
const FORWARDED_PREFIX: &str = "x-forwarded-";

/// Removes from an application's response what it must not say: fields of one connection, and a
/// failure code, which only gateways give.
pub(crate) fn apply_to_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.remove(X_FED_CODE);
}

/// Removes what concerns one connection only: the fields that `Connection` names, and those that
/// RFC 9110 §7.6.1 names. `te: trailers` stays, since gRPC demands it and we carry trailers.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
    let trailers_wanted = headers.get_all(TE).iter().any(wants_trailers);
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        HTTP2_SETTINGS,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    // hyper has refused different lengths; equal ones may be repeated (RFC 9110 §8.6), but once is
    // enough and all that tunnel v1 carries.
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some()
        && let Some(length) = headers.remove(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length);
    }
    if trailers_wanted {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        // `Connection: te` is how an HTTP/1.1 client says that TE is its own, not that it is void.
        .filter(|name| *name != TE)
        .collect()
}

fn wants_trailers(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.split(',').any(|coding| {
        coding.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("trailers"))
    })
}

/// The protocol that a request asks to switch to. Only GET of HTTP/1.1 does: the tunnel carries no
/// other method beside a protocol, HTTP/1.0 has no upgrade, and HTTP/2 no such field; otherwise the
/// request is served as it stands.
pub(super) fn asked_upgrade<B>(request: &Request<B>) -> Option<String> {
    let may_ask = request.method() == Method::GET && request.version() == Version::HTTP_11;
    if may_ask { upgrade_of(request.headers()) } else { None }
}

/// The protocol that these fields speak of switching to, as RFC 9110 §7.8 has it.
pub(super) fn upgrade_of(headers: &HeaderMap) -> Option<String> {
    let asks =
        headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).any(|value| {
            value.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
        });
    let protocol = headers.get(UPGRADE)?.to_str().ok()?.trim();
    // h2c by upgrade is gone from HTTP/2 (RFC 9113 §3.1); such a request is served as it stands.
    (asks && !protocol.eq_ignore_ascii_case("h2c")).then(|| protocol.to_ascii_lowercase())
}

/// The opposite of [`upgrade_of`]: what an endpoint is asked, or a client is answered.
pub(crate) fn ask_upgrade(headers: &mut HeaderMap, protocol: &str) {
    if let Ok(protocol) = HeaderValue::from_str(protocol) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// What a request from outside says about itself, after the filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trail {
    pub request_id: RequestId,
    pub trace: TraceContext,
}

/// Where a request came from, and fresh ids for one that brings none.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    pub client: IpAddr,
    pub authority: Option<&'a Authority>,
    pub fresh: FreshIds,
}

/// Random numbers for the ids of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreshIds {
    pub request_id: [u8; 16],
    pub trace_id: [u8; 16],
    pub parent_id: [u8; 8],
}

/// The request's way from a client to the first gateway.
pub(super) fn apply_to_request(headers: &mut HeaderMap, origin: &Origin<'_>) -> Trail {
    let hops = hops(headers);
    remove_hop_by_hop(headers);
    // The client's `Expect: 100-continue` is answered here, when its body is first read.
    headers.remove(EXPECT);
    strip_claims(headers);
    headers.insert(X_FED_HOPS, HeaderValue::from(hops));
    add_forwarded(headers, origin);
    let request_id = request_id(headers, origin.fresh.request_id);
    let trace = trace(headers, origin.fresh);
    Trail { request_id, trace }
}

/// The request's way from a peer's gateway to an endpoint. The peer has filtered it already, but
/// applications trust the gateway of their own cluster.
pub(crate) fn apply_to_peer_request(headers: &mut HeaderMap) {
    let hops = headers.remove(X_FED_HOPS);
    strip_claims(headers);
    if let Some(hops) = hops {
        headers.insert(X_FED_HOPS, hops);
    }
}

/// The gateways that a request has entered, this one included.
pub(super) fn hops(headers: &HeaderMap) -> u32 {
    let before = headers.get(X_FED_HOPS).and_then(|value| value.to_str().ok()?.parse().ok());
    before.unwrap_or(0_u32).saturating_add(1)
}

/// The id that a request brings, if it is one.
pub(super) fn given_request_id(headers: &HeaderMap) -> Option<RequestId> {
    headers.get(X_REQUEST_ID).and_then(|value| parse_request_id(value.as_bytes()))
}

/// Removes from a request's trailers what its headers must not have, and what only headers may have
/// (RFC 9110 §6.5.1): an application may merge the two.
pub(crate) fn apply_to_request_trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    strip_claims(trailers);
    remove_where(trailers, |name| is_ours(name.as_str()));
    for name in [TE, CONTENT_LENGTH, HOST] {
        trailers.remove(name);
    }
}

/// Fields by which an outsider could claim an identity or an origin (DESIGN §8). CGI and its heirs
/// tell `-`, `_` and sometimes `.` in a name not apart, so a name is judged by how they read it; and
/// one that they would take for a field that we set must not stand beside ours.
fn strip_claims(headers: &mut HeaderMap) {
    remove_where(headers, |name| {
        let name = name.as_str();
        if name.starts_with(OWN_PREFIX) || *name == X_FORWARDED_CLIENT_CERT || *name == FORWARDED {
            // We keep no `Forwarded` chain; one from outside would contradict ours.
            return true;
        }
        name.contains(['_', '.']) && is_ours(&name.replace(['_', '.'], "-"))
    });
}

/// Fields that we set, or that nobody may set.
fn is_ours(name: &str) -> bool {
    name.starts_with(OWN_PREFIX)
        || name.starts_with(FORWARDED_PREFIX)
        || [FORWARDED, X_REQUEST_ID].iter().any(|ours| *name == *ours)
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn add_forwarded(headers: &mut HeaderMap, origin: &Origin<'_>) {
    let client = origin.client.to_canonical().to_string();
    let mut chain = String::new();
    for value in headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
        chain.push_str(value);
        chain.push_str(", ");
    }
    chain.push_str(&client);
    if let Ok(value) = HeaderValue::try_from(chain) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.remove(X_FORWARDED_HOST);
    let host = origin.authority.map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = host {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// A UUID or 32 hexadecimal digits are taken over; anything else is replaced.
fn request_id(headers: &mut HeaderMap, fresh: [u8; 16]) -> RequestId {
    if let Some(given) = given_request_id(headers) {
        return given;
    }
    let id = RequestId::from_bytes(fresh);
    let value = HeaderValue::try_from(id.to_string());
    headers.insert(X_REQUEST_ID, value.expect("an id is printed in hexadecimal"));
    id
}

fn parse_request_id(value: &[u8]) -> Option<RequestId> {
    let dashes = [8, 13, 18, 23];
    let mut digits = Vec::with_capacity(32);
    for (index, byte) in value.iter().enumerate().take(37) {
        match byte {
            b'-' if value.len() == 36 && dashes.contains(&index) => {}
            byte => digits.push(*byte),
        }
    }
    decode_hex(&digits).map(RequestId::from_bytes)
}

/// W3C trace context §4.3: a valid `traceparent` passes through, else the trace begins here.
fn trace(headers: &mut HeaderMap, fresh: FreshIds) -> TraceContext {
    let parent = headers.get(TRACEPARENT).and_then(|value| parse_traceparent(value.as_bytes()));
    if let Some((trace_id, parent_id, flags)) = parent {
        let state = headers.get(TRACESTATE).and_then(|value| value.to_str().ok());
        let fits = |state: &&str| state.len() <= wire::tunnel::limits::TRACE_STATE_BYTES_MAX;
        let state = state.filter(fits).unwrap_or_default().into();
        return TraceContext { trace_id, parent_id, flags, state };
    }
    headers.remove(TRACESTATE);
    let FreshIds { trace_id, parent_id, .. } = fresh;
    let text = format!("00-{}-{}-00", hex(&trace_id), hex(&parent_id));
    let value = HeaderValue::try_from(text).expect("hexadecimal digits and dashes");
    headers.insert(TRACEPARENT, value);
    TraceContext { trace_id, parent_id, flags: 0, state: "".into() }
}

/// `version-traceid-parentid-flags`; a later version may have more after it (§4.1).
fn parse_traceparent(value: &[u8]) -> Option<([u8; 16], [u8; 8], u8)> {
    let (head, rest) = value.split_at_checked(55)?;
    let [version]: [u8; 1] = decode_hex(&head[..2])?;
    let dashes = [head[2], head[35], head[52]] == [b'-'; 3];
    let length_fits =
        if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|b| *b == b'-') };
    if version == 0xff || !dashes || !length_fits || head.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let trace_id: [u8; 16] = decode_hex(&head[3..35])?;
    let parent_id: [u8; 8] = decode_hex(&head[36..52])?;
    let [flags]: [u8; 1] = decode_hex(&head[53..55])?;
    (trace_id != [0; 16] && parent_id != [0; 8]).then_some((trace_id, parent_id, flags))
}

fn decode_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        fields.iter().map(field).for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    fn apply(map: &mut HeaderMap) -> Trail {
        let authority = Authority::from_static("shop.example:80");
        let fresh = FreshIds { request_id: [1; 16], trace_id: [2; 16], parent_id: [3; 8] };
        let client = "192.0.2.7".parse().unwrap();
        apply_to_request(map, &Origin { client, authority: Some(&authority), fresh })
    }

    #[test]
    fn fields_of_one_connection_go_and_those_it_names() {
        let mut map = headers(&[
            ("connection", "keep-alive, X-Secret , te"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "x"),
            ("proxy-connection", "x"),
            ("te", "gzip, Trailers;q=1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut map);
        assert_eq!(names(&map), ["accept", "te", "trailer"]);
        assert_eq!(map[TE], "trailers");
    }

    #[test]
    fn claims_from_outside_are_stripped_and_the_origin_is_told() {
        let mut map = headers(&[
            ("x-fed-source", "spiffe://a/b"),
            ("x-fed-code", "FED1001"),
            ("x-forwarded-client-cert", "x"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "203.0.113.9"),
            ("expect", "100-continue"),
        ]);
        let trail = apply(&mut map);
        assert_eq!(map["x-forwarded-for"], "203.0.113.9, 192.0.2.7");
        assert_eq!(map["x-forwarded-proto"], "http");
        assert_eq!(map["x-forwarded-host"], "shop.example:80");
        assert_eq!(map["x-request-id"], "01".repeat(16).as_str());
        assert_eq!(map["x-fed-hops"], "1");
        assert_eq!(trail.request_id, RequestId::from_bytes([1; 16]));
        assert_eq!(
            names(&map),
            [
                "traceparent",
                "x-fed-hops",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-request-id"
            ]
        );
    }

    #[test]
    fn a_peers_claims_are_stripped_too_but_the_count_of_hops_goes_on() {
        let mut map = headers(&[
            ("x-fed-source", "spiffe://a/b"),
            ("x-fed-hops", "3"),
            ("x-forwarded-client-cert", "x"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "203.0.113.9"),
        ]);
        apply_to_peer_request(&mut map);
        assert_eq!(names(&map), ["x-fed-hops", "x-forwarded-for"]);
        assert_eq!(map["x-fed-hops"], "3");
    }

    #[test]
    fn other_spellings_of_a_claim_are_claims() {
        let mut map = headers(&[
            ("x_fed_source", "spiffe://a/b"),
            ("x.fed.hops", "3"),
            ("x-fed_code", "FED5001"),
            ("x_forwarded_client_cert", "x"),
            ("x_forwarded-for", "203.0.113.9"),
            ("x_request_id", "x"),
            ("x_federal", "stays"),
            ("my_field", "stays"),
        ]);
        apply_to_peer_request(&mut map);
        assert_eq!(names(&map), ["my_field", "x_federal"]);
    }

    #[test]
    fn trailers_claim_nothing_either() {
        let mut map = headers(&[
            ("x-fed-source", "spiffe://a/b"),
            ("x-fed-hops", "3"),
            ("x_fed_source", "x"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-client-cert", "x"),
            ("forwarded", "for=1.2.3.4"),
            ("x-request-id", "x"),
            ("connection", "secret"),
            ("secret", "x"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("host", "shop.example"),
            ("content-length", "7"),
            ("grpc-status", "0"),
            ("x-checksum", "stays"),
        ]);
        apply_to_request_trailers(&mut map);
        assert_eq!(names(&map), ["grpc-status", "x-checksum"]);
    }

    #[test]
    fn each_gateway_counts_one_hop_and_what_is_no_number_counts_none() {
        for (given, expected) in
            [("1", "2"), ("7", "8"), ("", "1"), ("-3", "1"), ("4294967295", "4294967295")]
        {
            let mut map = headers(&[("x-fed-hops", given)]);
            apply(&mut map);
            assert_eq!(map[X_FED_HOPS], expected, "{given}");
        }
    }

    #[test]
    fn request_ids_are_taken_over_when_they_are_ids() {
        let hex32 = "00112233445566778899aabbccddeeff";
        let uuid = "00112233-4455-6677-8899-AABBCCDDEEFF";
        for given in [hex32, uuid] {
            let mut map = headers(&[]);
            map.insert(X_REQUEST_ID, HeaderValue::from_str(given).unwrap());
            assert_eq!(apply(&mut map).request_id.to_string(), hex32);
            assert_eq!(map[X_REQUEST_ID], given);
        }
        let repeated = "0".repeat(4000);
        for given in ["", "abc", "0011\"2233445566778899aabbccddeeff", &repeated] {
            let mut map = headers(&[]);
            map.insert(X_REQUEST_ID, HeaderValue::from_str(given).unwrap());
            assert_eq!(apply(&mut map).request_id, RequestId::from_bytes([1; 16]), "{given}");
        }
    }

    #[test]
    fn traces_pass_through_or_begin_here() {
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut map = headers(&[("traceparent", given), ("tracestate", "a=b")]);
        let trace = apply(&mut map).trace;
        assert_eq!((hex(&trace.trace_id).as_str(), trace.flags), (&given[3..35], 1));
        assert_eq!(&*trace.state, "a=b");
        assert_eq!(map[TRACEPARENT], given);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            let mut map = headers(&[("tracestate", "a=b")]);
            map.insert(TRACEPARENT, HeaderValue::from_str(bad).unwrap());
            let trace = apply(&mut map).trace;
            assert_eq!((trace.trace_id, trace.parent_id), ([2; 16], [3; 8]), "{bad}");
            let fresh = format!("00-{}-{}-00", "02".repeat(16), "03".repeat(8));
            assert_eq!(map[TRACEPARENT], fresh.as_str());
            assert!(!map.contains_key(TRACESTATE));
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert!(parse_traceparent(later.as_bytes()).is_some());
    }

    #[test]
    fn only_get_of_http_1_1_asks_for_an_upgrade() {
        for (method, version, expected) in [
            (Method::GET, Version::HTTP_11, Some("websocket")),
            (Method::GET, Version::HTTP_10, None),
            (Method::GET, Version::HTTP_2, None),
            (Method::POST, Version::HTTP_11, None),
            (Method::HEAD, Version::HTTP_11, None),
        ] {
            let mut request = Request::new(());
            (*request.method_mut(), *request.version_mut()) = (method.clone(), version);
            *request.headers_mut() =
                headers(&[("connection", "upgrade"), ("upgrade", "websocket")]);
            assert_eq!(asked_upgrade(&request).as_deref(), expected, "{method} {version:?}");
        }
    }

    #[test]
    fn upgrades_need_both_fields() {
        let asks = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert_eq!(upgrade_of(&asks).as_deref(), Some("websocket"));
        assert_eq!(upgrade_of(&headers(&[("upgrade", "websocket")])), None);
        assert_eq!(upgrade_of(&headers(&[("connection", "upgrade")])), None);
        let h2c = headers(&[("connection", "upgrade"), ("upgrade", "h2c")]);
        assert_eq!(upgrade_of(&h2c), None);
    }
}
