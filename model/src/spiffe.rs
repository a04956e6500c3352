//! SPIFFE IDs and trust domains, strictly as the SPIFFE-ID standard §2 has them.
//!
//! The scheme and the trust domain are compared without regard to case when parsed and are kept in
//! lower case; paths are compared byte for byte.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::ObjectName;

/// SPIFFE-ID §2.3: an implementation must support 2048 bytes, and we accept no more.
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// SPIFFE-ID §2.1: the trust domain's length.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Why a SPIFFE ID or trust domain was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {reason}")]
pub struct SpiffeError {
    pub what: &'static str,
    pub value: String,
    pub reason: &'static str,
}

/// A trust domain's name; exactly one cluster owns it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    pub fn parse(value: &str) -> Result<Self, SpiffeError> {
        check_trust_domain(value).map_err(|reason| error("trust domain", value, reason))?;
        Ok(Self(value.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `spiffe://<trust-domain>/<path>`; the path may be empty (then the ID names the domain itself).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

/// The parts of Fedgate that carry an SVID of their own (DESIGN §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Gateway,
    Federation,
}

impl Part {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Federation => "federation",
        }
    }
}

impl SpiffeId {
    pub fn parse(value: &str) -> Result<Self, SpiffeError> {
        let fail = |reason| Err(error("SPIFFE ID", value, reason));
        if value.len() > SPIFFE_ID_BYTES_MAX {
            return fail("it is longer than 2048 bytes");
        }
        let Some((scheme, rest)) = value.split_once("://") else {
            return fail("it does not begin with spiffe://");
        };
        if !scheme.eq_ignore_ascii_case("spiffe") {
            return fail("its scheme is not spiffe");
        }
        let (domain, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let domain = domain.to_ascii_lowercase();
        let trust_domain = TrustDomain::parse(&domain)
            .map_err(|problem| error("SPIFFE ID", value, problem.reason))?;
        if let Err(reason) = check_path(path) {
            return fail(reason);
        }
        Ok(Self { text: format!("spiffe://{domain}{path}").into(), trust_domain })
    }

    /// The ID of one of our own parts, `spiffe://<td>/fedgate/{gateway,federation}/<name>`.
    pub fn of_part(trust_domain: &TrustDomain, part: Part, name: &ObjectName) -> Self {
        let text = format!("spiffe://{trust_domain}/fedgate/{}/{name}", part.as_str());
        Self { text: text.into(), trust_domain: trust_domain.clone() }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash, or an empty string.
    pub fn path(&self) -> &str {
        &self.text["spiffe://".len() + self.trust_domain.as_str().len()..]
    }

    /// Which part of Fedgate this ID names, if it names one.
    pub fn part(&self) -> Option<(Part, ObjectName)> {
        let (kind, name) = self.path().strip_prefix("/fedgate/")?.split_once('/')?;
        let part = match kind {
            "gateway" => Part::Gateway,
            "federation" => Part::Federation,
            _ => return None,
        };
        Some((part, ObjectName::parse(name).ok()?))
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;
    fn from_str(value: &str) -> Result<Self, SpiffeError> {
        Self::parse(value)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;
    fn from_str(value: &str) -> Result<Self, SpiffeError> {
        Self::parse(value)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

fn error(what: &'static str, value: &str, reason: &'static str) -> SpiffeError {
    SpiffeError { what, value: value.chars().take(300).collect(), reason }
}

fn check_trust_domain(value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        return Err("the trust domain is empty");
    }
    if value.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err("the trust domain is longer than 255 bytes");
    }
    let ok =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if !value.bytes().all(ok) {
        return Err("a trust domain has only a-z, 0-9, '.', '-' and '_' (no port, no user, no %)");
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let Some(segments) = path.strip_prefix('/') else {
        return Ok(()); // no path at all: the ID of the trust domain itself
    };
    for segment in segments.split('/') {
        match segment {
            "" => return Err("a path segment is empty, or the path ends with '/'"),
            "." | ".." => return Err("a path segment is '.' or '..'"),
            _ => {}
        }
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if !segment.bytes().all(ok) {
            return Err("a path segment has only letters, digits, '.', '-' and '_'");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ids_keep_their_path_and_lower_their_domain() {
        let id = SpiffeId::parse("SPIFFE://East.Fed/ns/shop/sa/Web").unwrap();
        assert_eq!(id.as_str(), "spiffe://east.fed/ns/shop/sa/Web");
        assert_eq!(id.trust_domain().as_str(), "east.fed");
        assert_eq!(id.path(), "/ns/shop/sa/Web");
        assert_eq!(SpiffeId::parse("spiffe://east.fed").unwrap().path(), "");
        assert!(SpiffeId::parse("spiffe://10.0.0.1/a").is_ok(), "IP-like domains are not special");
    }

    #[test]
    fn bad_ids_say_why() {
        for (bad, reason) in [
            ("", "spiffe://"),
            ("https://a/b", "scheme"),
            ("spiffe://", "empty"),
            ("spiffe:///a", "empty"),
            ("spiffe://a:80/b", "port"),
            ("spiffe://u@a/b", "user"),
            ("spiffe://a%2e/b", "%"),
            ("spiffe://a/", "ends with"),
            ("spiffe://a//b", "empty"),
            ("spiffe://a/../b", "'..'"),
            ("spiffe://a/./b", "'..'"),
            ("spiffe://a/b?c", "segment"),
            ("spiffe://a/b#c", "segment"),
            ("spiffe://a/b\0", "segment"),
            ("spiffe://a\0/b", "a-z"),
        ] {
            let error = SpiffeId::parse(bad).unwrap_err().to_string();
            assert!(error.contains(reason), "{bad:?}: {error}");
        }
        assert!(SpiffeId::parse(&format!("spiffe://a/{}", "x".repeat(2048))).is_err());
        assert!(TrustDomain::parse("East").is_err(), "a configured domain is lower case");
    }

    #[test]
    fn parts_round_trip() {
        let domain = TrustDomain::parse("east.fed").unwrap();
        let name = ObjectName::parse("gw-0").unwrap();
        let id = SpiffeId::of_part(&domain, Part::Gateway, &name);
        assert_eq!(id.as_str(), "spiffe://east.fed/fedgate/gateway/gw-0");
        assert_eq!(SpiffeId::parse(id.as_str()).unwrap().part(), Some((Part::Gateway, name)));
        assert_eq!(SpiffeId::parse("spiffe://a/ns/x/sa/y").unwrap().part(), None);
    }
}
