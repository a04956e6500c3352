//! Host and path of a request in one canonical form, for routing and for policy alike.
//!
//! What is ambiguous is refused, never repaired: two readers of one request must not disagree on
//! what it asks for (RFC 9110 §4.2.4 and §17.1, RFC 9112 §3.2).
//! * Host: lower case, without port and trailing dot. Absent, repeated, empty (HTTP/1.1), with user
//!   information or with characters that no host has: refused. An absolute-form target replaces
//!   the Host header (RFC 9112 §3.2.2); in HTTP/2 the two must be equal (RFC 9113 §8.3.1).
//! * Path: kept byte for byte. `%2F` and `%5C` divide nothing in routing, since applications use
//!   them as data; but a segment `.` or `..`, in any spelling and with any such divider, is refused.

use http::Request;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Version};

use crate::error::{Kind, ProxyError};
use crate::limits::HOST_BYTES_MAX;

/// Where a request wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Lower case, no port, no trailing dot; empty only for an HTTP/1.0 request without Host.
    pub host: String,
    /// As sent, with the port; what the application sees as Host.
    pub authority: Option<Authority>,
}

impl Target {
    pub(super) fn of<B>(request: &Request<B>) -> Result<Self, ProxyError> {
        check_path(request.uri().path()).map_err(bad)?;
        let authority = authority(request)?;
        let host = match &authority {
            Some(authority) => canonical_host(authority.as_str()).map_err(bad)?,
            None => String::new(),
        };
        Ok(Self { host, authority })
    }
}

fn bad(problem: &'static str) -> ProxyError {
    ProxyError::unsent(Kind::BadRequest, problem)
}

fn authority<B>(request: &Request<B>) -> Result<Option<Authority>, ProxyError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("the request has several Host headers"));
    }
    let in_uri = request.uri().authority();
    if in_uri.is_some() && request.uri().scheme().is_none() {
        // The form of CONNECT (RFC 9112 §3.2.3), which others may not use.
        return Err(bad("the request's target is neither a path nor a whole URI"));
    }
    if let (Version::HTTP_2, Some(authority), Some(host)) = (request.version(), in_uri, host)
        && !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
    {
        return Err(bad(":authority and Host differ"));
    }
    match (in_uri, host) {
        (Some(authority), _) => Ok(Some(authority.clone())),
        (None, Some(host)) => parse_host(host).map(Some),
        (None, None) if request.version() <= Version::HTTP_10 => Ok(None),
        (None, None) => Err(bad("the request has no Host header")),
    }
}

fn parse_host(value: &HeaderValue) -> Result<Authority, ProxyError> {
    Authority::try_from(value.as_bytes()).map_err(|_| bad("the Host header is not host[:port]"))
}

/// Lower case, without port and trailing dot.
pub(super) fn canonical_host(authority: &str) -> Result<String, &'static str> {
    if authority.contains('@') {
        return Err("the host has user information in front of it");
    }
    let (host, port) = split_port(authority)?;
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.len() > 5 {
        return Err("the host's port is not a number");
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err("the host is empty");
    }
    if host.len() > HOST_BYTES_MAX {
        return Err("the host is longer than 253 bytes");
    }
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let fine = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => labels_are_good(host),
    };
    if !fine {
        return Err("the host has characters or empty labels that no host name has");
    }
    Ok(host.to_ascii_lowercase())
}

fn split_port(authority: &str) -> Result<(&str, &str), &'static str> {
    let after_address = authority.find(']').map_or(0, |end| end + 1);
    let (address, rest) = authority.split_at(after_address);
    match rest.split_once(':') {
        Some((host, port)) if address.is_empty() => Ok((host, port)),
        Some(("", port)) => Ok((address, port)),
        None if address.is_empty() || rest.is_empty() => Ok((authority, "")),
        _ => Err("the host has text after its IPv6 address"),
    }
}

/// Underscores are no host name's, but DNS has them and people use them.
fn labels_are_good(host: &str) -> bool {
    host.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// Refuses dot segments however they are spelt and divided, and bytes that end strings elsewhere.
fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.bytes().any(|byte| matches!(byte, b'%' | b'.' | b'\\')) {
        return Ok(()); // the common case costs one pass
    }
    let mut segment = Segment::default();
    let bytes = path.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let (byte, length) = match bytes[index] {
            b'%' => match bytes.get(index + 1..index + 3).and_then(decode_hex) {
                Some(byte) => (byte, 3),
                None => return Err("the path has a % that two hexadecimal digits do not follow"),
            },
            byte => (byte, 1),
        };
        match byte {
            b'/' | b'\\' => segment.end()?,
            b'.' => segment.dots += 1,
            0 => return Err("the path has a zero byte"),
            _ => segment.other = true,
        }
        index += length;
    }
    segment.end()
}

#[derive(Default)]
struct Segment {
    dots: usize,
    other: bool,
}

impl Segment {
    fn end(&mut self) -> Result<(), &'static str> {
        let Self { dots, other } = std::mem::take(self);
        if !other && (dots == 1 || dots == 2) {
            return Err("the path has a segment . or ..; send the path that is meant");
        }
        Ok(())
    }
}

fn decode_hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(digits[0])? * 16 + digit(digits[1])?) as u8)
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    fn target(uri: &str, version: Version, hosts: &[&str]) -> Result<Target, String> {
        let mut request = Request::builder().uri(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let request = request.body(()).unwrap();
        Target::of(&request).map_err(|error| error.detail.into_owned())
    }

    #[test]
    fn hosts_have_one_canonical_form() {
        for (given, expected) in [
            ("shop.example", Ok("shop.example")),
            ("Shop.Example:8080", Ok("shop.example")),
            ("shop.example.", Ok("shop.example")),
            ("shop.example.:80", Ok("shop.example")),
            ("shop.example:", Ok("shop.example")),
            ("127.0.0.1:80", Ok("127.0.0.1")),
            ("[2001:DB8::1]:80", Ok("[2001:db8::1]")),
            ("[::1]", Ok("[::1]")),
            ("a_b.example", Ok("a_b.example")),
            ("user@shop.example", Err("user information")),
            ("user:pw@shop.example:80", Err("user information")),
            ("shop.example:80a", Err("not a number")),
            ("shop.example:123456", Err("not a number")),
            ("shop..example", Err("empty labels")),
            (".", Err("empty")),
            ("", Err("empty")),
            ("shop example", Err("characters")),
            ("shop/example", Err("characters")),
            ("[::1]x", Err("after its IPv6")),
            ("[zz]", Err("characters")),
            ("::1", Err("not a number")),
        ] {
            let found = canonical_host(given);
            match expected {
                Ok(host) => assert_eq!(found.as_deref(), Ok(host), "{given}"),
                Err(part) => {
                    let problem = found.expect_err(given);
                    assert!(problem.contains(part), "{given}: {problem}");
                }
            }
        }
        assert!(canonical_host(&"a".repeat(254)).is_err());
    }

    #[test]
    fn one_host_is_needed_and_only_one() {
        let v11 = Version::HTTP_11;
        assert_eq!(target("/", v11, &["A.b:1"]).unwrap().host, "a.b");
        assert_eq!(target("/", v11, &[]).unwrap_err(), "the request has no Host header");
        assert_eq!(
            target("/", v11, &["a", "b"]).unwrap_err(),
            "the request has several Host headers"
        );
        assert_eq!(
            target("/", v11, &["a", "a"]).unwrap_err(),
            "the request has several Host headers"
        );
        assert_eq!(target("/", Version::HTTP_10, &[]).unwrap().host, "");
        let absolute = target("http://x.y:7/z", v11, &["a.b"]).unwrap();
        assert_eq!(
            (absolute.host.as_str(), absolute.authority.unwrap().as_str()),
            ("x.y", "x.y:7")
        );
        let h2 = Version::HTTP_2;
        assert_eq!(target("http://x.y/z", h2, &["X.Y"]).unwrap().host, "x.y");
        assert_eq!(target("http://x.y/z", h2, &["q"]).unwrap_err(), ":authority and Host differ");
    }

    #[test]
    fn paths_that_could_climb_are_refused_and_others_kept() {
        for path in [
            "/",
            "/a/b",
            "/a.b/..c/...",
            "/@s%2Fname",
            "/a%2fb%5cc",
            "/%C3%A4",
            "/a//b",
            "/.well-known/x",
        ] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        for path in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a%2f..%2fb",
            "/a%5c..",
            "/a\\..\\b",
            "/%2e",
        ] {
            let problem = check_path(path).expect_err(path);
            assert!(problem.contains("segment . or .."), "{path}: {problem}");
        }
        assert!(check_path("/a%00").unwrap_err().contains("zero byte"));
        for path in ["/%", "/%2", "/%zz"] {
            assert!(check_path(path).unwrap_err().contains("hexadecimal"), "{path}");
        }
    }
}
