//! HEAD and TRAILERS: an HTTP message's start line and fields as a light binary block.
//!
//! There is no dynamic table, so a block means the same wherever it stands, nothing is shared
//! between exchanges, and a length tells nothing of another caller's secrets.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::error::{DecodeError, EncodeError};
use super::limits::{HEAD_FIELDS_MAX, TRAILERS_FIELDS_MAX};
use super::static_table::{self, FIRST_FIELD, FIRST_NAME, LITERAL, NameEntry};
use super::varint;

/// A HEAD frame's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    Request(RequestHead),
    Response(ResponseHead),
}

/// An HTTP request without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    /// Absolute (`http://api.shop/path`), or only an authority for CONNECT without `protocol`.
    pub uri: Uri,
    /// `:protocol` of an extended CONNECT (RFC 8441), such as `websocket`.
    pub protocol: Option<Box<str>>,
    pub headers: HeaderMap,
}

/// An HTTP response without its body: interim (1xx) or final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

impl ResponseHead {
    /// Whether further heads follow.
    pub fn is_interim(&self) -> bool {
        self.status.is_informational()
    }
}

/// Method numbers, from 1; 0 is followed by the method's name.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

const SCHEME_NONE: u8 = 0;
const SCHEME_HTTP: u8 = 1;
const SCHEME_HTTPS: u8 = 2;

/// First byte of a request's block; a response's block begins with its status, 100 or above.
const REQUEST: u64 = 0;

impl RequestHead {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.check()?;
        varint::encode(REQUEST, out);
        match METHODS.iter().position(|method| *method == self.method) {
            Some(index) => out.put_u8(index as u8 + 1),
            None => {
                out.put_u8(0);
                put_string(self.method.as_str().as_bytes(), out);
            }
        }
        out.put_u8(match self.uri.scheme_str() {
            None => SCHEME_NONE,
            Some("http") => SCHEME_HTTP,
            Some(_) => SCHEME_HTTPS,
        });
        put_string(self.uri.authority().map_or("", |authority| authority.as_str()).as_bytes(), out);
        put_string(self.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes(), out);
        put_string(self.protocol.as_deref().unwrap_or("").as_bytes(), out);
        put_fields("HEAD", &self.headers, HEAD_FIELDS_MAX, out)
    }

    /// The rules that [`RequestHead::decode`] applies too.
    fn check(&self) -> Result<(), EncodeError> {
        let connect = self.method == Method::CONNECT;
        if connect && self.protocol.is_none() {
            if self.uri.scheme().is_some() || self.uri.path_and_query().is_some() {
                return Err(invalid("HEAD.path", &self.uri, CONNECT_PROBLEM, CONNECT_FIX));
            }
        } else if !matches!(self.uri.scheme_str(), Some("http" | "https")) {
            return Err(invalid("HEAD.scheme", &self.uri, SCHEME_PROBLEM, SCHEME_FIX));
        } else {
            let path = self.uri.path_and_query().map_or("", |path| path.as_str());
            if !path_is_good(&self.method, path.as_bytes()) {
                return Err(invalid("HEAD.path", path, PATH_PROBLEM, PATH_FIX));
            }
        }
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        if authority.is_empty() || authority.contains('@') {
            return Err(invalid("HEAD.authority", authority, AUTHORITY_PROBLEM, AUTHORITY_FIX));
        }
        if let Some(protocol) = &self.protocol
            && !(connect && is_token(protocol.as_bytes()))
        {
            return Err(invalid("HEAD.protocol", protocol, PROTOCOL_PROBLEM, PROTOCOL_FIX));
        }
        if let Some(length) = length_of_connect(&self.method, &self.headers) {
            let shown = show(length.as_bytes());
            return Err(invalid("content-length", shown, LENGTH_PROBLEM, LENGTH_FIX));
        }
        Ok(())
    }

    fn decode(input: &mut Bytes) -> Result<Self, DecodeError> {
        let method = take_method(input)?;
        let scheme = take_byte("HEAD.scheme", input)?;
        let authority = take_string("HEAD.authority", input)?;
        let path = take_string("HEAD.path", input)?;
        let protocol = take_string("HEAD.protocol", input)?;
        let connect = method == Method::CONNECT;
        if !(protocol.is_empty() || connect && is_token(&protocol)) {
            let shown = show(&protocol);
            return Err(malformed("HEAD.protocol", shown, PROTOCOL_PROBLEM, PROTOCOL_FIX));
        }
        let mut parts = Parts::default();
        if connect && protocol.is_empty() {
            if scheme != SCHEME_NONE || !path.is_empty() {
                return Err(malformed("HEAD.path", show(&path), CONNECT_PROBLEM, CONNECT_FIX));
            }
        } else {
            parts.scheme = Some(match scheme {
                SCHEME_HTTP => Scheme::HTTP,
                SCHEME_HTTPS => Scheme::HTTPS,
                other => return Err(malformed("HEAD.scheme", other, SCHEME_PROBLEM, SCHEME_FIX)),
            });
            parts.path_and_query = Some(parse_path(&method, path)?);
        }
        parts.authority = Some(parse_authority(authority)?);
        // Cannot fail: scheme and path are there together, with an authority.
        let uri = Uri::from_parts(parts)
            .map_err(|error| malformed("HEAD.path", error, PATH_PROBLEM, PATH_FIX))?;
        let protocol = std::str::from_utf8(&protocol).ok().filter(|text| !text.is_empty());
        let protocol = protocol.map(Into::into);
        let headers = take_fields("HEAD", input, HEAD_FIELDS_MAX)?;
        if let Some(length) = length_of_connect(&method, &headers) {
            let shown = show(length.as_bytes());
            return Err(malformed("content-length", shown, LENGTH_PROBLEM, LENGTH_FIX));
        }
        Ok(Self { method, uri, protocol, headers })
    }
}

const CONNECT_PROBLEM: &str = "CONNECT without a protocol has neither scheme nor path";
const CONNECT_FIX: &str = "send only the authority";
const SCHEME_PROBLEM: &str = "it is not http (1) or https (2)";
const SCHEME_FIX: &str = "send the scheme that the caller used";
const PATH_PROBLEM: &str = "it is not a path and query as RFC 9110 §4 has it";
const PATH_FIX: &str = "begin it with '/' and send neither fragment nor raw spaces";
const AUTHORITY_PROBLEM: &str = "it is empty, has user information, or is not host[:port]";
const AUTHORITY_FIX: &str = "send the Host header's value";
const PROTOCOL_PROBLEM: &str = "only CONNECT has a protocol, and it is a token";
const PROTOCOL_FIX: &str = "leave it empty, or send CONNECT with a protocol such as websocket";
const LENGTH_PROBLEM: &str = "CONNECT has no body (RFC 9110 §9.3.6), so it promises none";
const LENGTH_FIX: &str = "leave it out, and send no body with a request to switch protocols";
const STATUS_PROBLEM: &str = "it is not in 100..=999, or is 101, which the tunnel does not carry";
const STATUS_FIX: &str = "send the response's status; an upgrade is answered with 200 to CONNECT";

/// A length that a CONNECT promises. An upgrade goes on as GET without a body: an endpoint that
/// believed the length would take the connection's next request for it.
fn length_of_connect<'a>(method: &Method, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
    let length = headers.get(http::header::CONTENT_LENGTH).filter(|_| *method == Method::CONNECT);
    length.filter(|length| content_length(length.as_bytes()) != Some(0))
}

fn parse_path(method: &Method, path: Bytes) -> Result<PathAndQuery, DecodeError> {
    let error = |shown| malformed("HEAD.path", shown, PATH_PROBLEM, PATH_FIX);
    if !path_is_good(method, &path) {
        return Err(error(show(&path)));
    }
    PathAndQuery::from_maybe_shared(path.clone()).map_err(|_| error(show(&path)))
}

/// What the `http` crate leaves open: a fragment (which it drops silently) and the path's start.
fn path_is_good(method: &Method, path: &[u8]) -> bool {
    match path.first() {
        Some(b'/') => !path.contains(&b'#'),
        Some(b'*') => path.len() == 1 && method == Method::OPTIONS,
        _ => false,
    }
}

fn parse_authority(authority: Bytes) -> Result<Authority, DecodeError> {
    let error = |shown| malformed("HEAD.authority", shown, AUTHORITY_PROBLEM, AUTHORITY_FIX);
    // RFC 9113 §8.3.1: no user information.
    if authority.is_empty() || authority.contains(&b'@') {
        return Err(error(show(&authority)));
    }
    Authority::from_maybe_shared(authority.clone()).map_err(|_| error(show(&authority)))
}

fn take_method(input: &mut Bytes) -> Result<Method, DecodeError> {
    const FIELD: &str = "HEAD.method";
    let number = take_byte(FIELD, input)?;
    if number == 0 {
        let name = take_string(FIELD, input)?;
        return Method::from_bytes(&name).map_err(|_| {
            malformed(
                FIELD,
                show(&name),
                "it is not a token",
                "send a method as RFC 9110 §9 has it",
            )
        });
    }
    METHODS.get(usize::from(number) - 1).cloned().ok_or_else(|| {
        malformed(FIELD, number, "it is not in 0..=9", "send 0 and the method's name")
    })
}

impl ResponseHead {
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        if self.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(invalid("HEAD.status", "101", STATUS_PROBLEM, STATUS_FIX));
        }
        varint::encode(self.status.as_u16().into(), out);
        put_fields("HEAD", &self.headers, HEAD_FIELDS_MAX, out)
    }

    fn decode(status: u64, input: &mut Bytes) -> Result<Self, DecodeError> {
        let status = u16::try_from(status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .filter(|status| *status != StatusCode::SWITCHING_PROTOCOLS)
            .ok_or_else(|| malformed("HEAD.status", status, STATUS_PROBLEM, STATUS_FIX))?;
        Ok(Self { status, headers: take_fields("HEAD", input, HEAD_FIELDS_MAX)? })
    }
}

impl Head {
    pub(crate) fn decode(mut payload: Bytes) -> Result<Self, DecodeError> {
        let input = &mut payload;
        let head = match take_varint("HEAD.start", input)? {
            REQUEST => Self::Request(RequestHead::decode(input)?),
            status => Self::Response(ResponseHead::decode(status, input)?),
        };
        expect_end("HEAD", input)?;
        Ok(head)
    }
}

pub(crate) fn encode_trailers(trailers: &HeaderMap, out: &mut BytesMut) -> Result<(), EncodeError> {
    put_fields("TRAILERS", trailers, TRAILERS_FIELDS_MAX, out)
}

pub(crate) fn decode_trailers(mut payload: Bytes) -> Result<HeaderMap, DecodeError> {
    let trailers = take_fields("TRAILERS", &mut payload, TRAILERS_FIELDS_MAX)?;
    expect_end("TRAILERS", &payload)?;
    Ok(trailers)
}

fn put_fields(
    frame: &'static str,
    headers: &HeaderMap,
    max: usize,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let fields = headers.len();
    if fields > max {
        return Err(EncodeError::TooManyFields { frame, fields, max });
    }
    varint::encode(fields as u64, out);
    for (name, value) in headers {
        let value = trim(value.as_bytes());
        match static_table::find_name(name.as_str()) {
            NameEntry::Forbidden => {
                return Err(invalid("field", name, FORBIDDEN_PROBLEM, FORBIDDEN_FIX));
            }
            NameEntry::Unknown => {
                out.put_u8(LITERAL);
                put_string(name.as_str().as_bytes(), out);
                put_string(value, out);
            }
            NameEntry::Known(index) => match static_table::find_field(index, value) {
                Some(representation) => out.put_u8(representation),
                None => {
                    check_field(name, value)
                        .map_err(|(problem, fix)| invalid("field", name, problem, fix))?;
                    out.put_u8(FIRST_NAME + index);
                    put_string(value, out);
                }
            },
        }
    }
    Ok(())
}

const FORBIDDEN_PROBLEM: &str = "it belongs to one connection, or the head carries it elsewhere";
const FORBIDDEN_FIX: &str = "strip it before the message enters the tunnel";

/// Rules for single fields: `te` (RFC 9113 §8.2.2) and `content-length` (RFC 9110 §8.6).
fn check_field(name: &HeaderName, value: &[u8]) -> Result<(), (&'static str, &'static str)> {
    if *name == http::header::TE && !value.eq_ignore_ascii_case(b"trailers") {
        return Err(("only \"trailers\" is allowed in te", "strip other transfer codings"));
    }
    if *name == http::header::CONTENT_LENGTH && content_length(value).is_none() {
        return Err(("it is not a decimal number below 2^62", "send one number of bytes"));
    }
    Ok(())
}

/// A Content-Length's value, strictly: digits only, no list, no sign.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (length <= varint::VARINT_MAX).then_some(length)
}

fn take_fields(
    frame: &'static str,
    input: &mut Bytes,
    max: usize,
) -> Result<HeaderMap, DecodeError> {
    let count = take_varint(frame, input)?;
    if count > max as u64 {
        let problem = format!("there are more than {max} fields");
        let value = format!("{count} fields");
        return Err(DecodeError::malformed(frame, value, problem, "send fewer fields"));
    }
    let mut headers = HeaderMap::with_capacity(count as usize);
    for _ in 0..count {
        let (name, value) = take_field(frame, input)?;
        if name == http::header::CONTENT_LENGTH && headers.contains_key(&name) {
            let problem = "the field stands twice";
            return Err(malformed(
                "content-length",
                show(value.as_bytes()),
                problem,
                "send it once",
            ));
        }
        headers.append(name, value);
    }
    Ok(headers)
}

fn take_field(
    frame: &'static str,
    input: &mut Bytes,
) -> Result<(HeaderName, HeaderValue), DecodeError> {
    let representation = take_byte(frame, input)?;
    if representation >= FIRST_FIELD {
        return static_table::field_at(representation)
            .cloned()
            .ok_or_else(|| bad_representation(frame, representation));
    }
    let name = if representation == LITERAL {
        take_name(frame, input)?
    } else {
        static_table::name_at(representation)
            .cloned()
            .ok_or_else(|| bad_representation(frame, representation))?
    };
    let bytes = take_string(frame, input)?;
    let error = |problem: &'static str, fix: &'static str| {
        DecodeError::malformed(format!("{frame} field {name}"), show(&bytes), problem, fix)
    };
    if trim(&bytes).len() != bytes.len() {
        return Err(error("it begins or ends with a space or tab", "trim the value"));
    }
    check_field(&name, &bytes).map_err(|(problem, fix)| error(problem, fix))?;
    let mut value = HeaderValue::from_maybe_shared(bytes.clone())
        .map_err(|_| error("it contains a control character", "send a value of RFC 9110 §5.5"))?;
    value.set_sensitive(is_sensitive(&name));
    Ok((name, value))
}

fn take_name(frame: &'static str, input: &mut Bytes) -> Result<HeaderName, DecodeError> {
    let bytes = take_string(frame, input)?;
    let error = |problem: &'static str, fix: &'static str| {
        DecodeError::malformed(format!("{frame} field name"), show(&bytes), problem, fix)
    };
    let Ok(name) = HeaderName::from_lowercase(&bytes) else {
        return Err(error(
            "it is not a token in lower case",
            "send names as RFC 9113 §8.2 has them",
        ));
    };
    match static_table::find_name(name.as_str()) {
        NameEntry::Forbidden => Err(error(FORBIDDEN_PROBLEM, FORBIDDEN_FIX)),
        // A name of the table may be spelt out all the same.
        NameEntry::Unknown | NameEntry::Known(_) => Ok(name),
    }
}

fn bad_representation(frame: &'static str, representation: u8) -> DecodeError {
    let problem = "the static table has no such entry";
    let fix = "use the table of tunnel v1, or spell the field out after a 0";
    DecodeError::malformed(format!("{frame} representation"), representation, problem, fix)
}

/// Fields that HPACK and QPACK encoders must not put into a shared table (RFC 7541 §7.1.3).
fn is_sensitive(name: &HeaderName) -> bool {
    use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE};
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE].contains(name)
}

fn put_string(value: &[u8], out: &mut BytesMut) {
    varint::encode(value.len() as u64, out);
    out.put_slice(value);
}

fn take_string(field: &'static str, input: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = take_varint(field, input)?;
    match usize::try_from(length) {
        Ok(length) if length <= input.len() => Ok(input.split_to(length)),
        _ => Err(cut(field, format!("{} of {length} bytes", input.len()))),
    }
}

fn take_varint(field: &'static str, input: &mut Bytes) -> Result<u64, DecodeError> {
    let (value, length) =
        varint::decode(input).ok_or_else(|| cut(field, format!("{} bytes", input.len())))?;
    input.advance(length);
    Ok(value)
}

fn take_byte(field: &'static str, input: &mut Bytes) -> Result<u8, DecodeError> {
    input.try_get_u8().map_err(|_| cut(field, "0 bytes".to_owned()))
}

fn cut(field: &'static str, have: String) -> DecodeError {
    malformed(field, have, "the frame ends within it", "make the frame as long as its content")
}

fn expect_end(frame: &'static str, rest: &Bytes) -> Result<(), DecodeError> {
    if rest.is_empty() {
        return Ok(());
    }
    let shown = format!("{} more bytes", rest.len());
    Err(malformed(frame, shown, "they follow the last field", "end the frame after its content"))
}

fn malformed(
    field: &'static str,
    value: impl std::fmt::Display,
    problem: &'static str,
    fix: &'static str,
) -> DecodeError {
    DecodeError::malformed(field, value, problem, fix)
}

fn invalid(
    field: &'static str,
    value: impl std::fmt::Display,
    problem: &'static str,
    fix: &'static str,
) -> EncodeError {
    EncodeError::invalid(field, value, problem, fix)
}

fn show(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}

fn is_token(value: &[u8]) -> bool {
    !value.is_empty()
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
