//! Names as Kubernetes and DNS have them, parsed once at the edge and never strings afterwards.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a name was refused: the field's kind, the value as given, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {reason}")]
pub struct NameError {
    pub what: &'static str,
    pub value: String,
    pub reason: &'static str,
}

impl NameError {
    pub(crate) fn new(what: &'static str, value: &str, reason: &'static str) -> Self {
        // A hostile name may be megabytes long; an error message need not be.
        let value = value.chars().take(300).collect();
        Self { what, value, reason }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn parse(value: &str) -> Result<Self, NameError> {
                $check(value).map_err(|reason| NameError::new($what, value, reason))?;
                Ok(Self(value.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::parse(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A cluster's name in the federation: an RFC 1123 label. "Cluster" always means a Kubernetes
    /// cluster, VM group or datacentre.
    ClusterName,
    "cluster name",
    check_label
);
name_type!(
    /// A Kubernetes namespace: an RFC 1123 label.
    Namespace,
    "namespace",
    check_label
);
name_type!(
    /// What the names of several namespaces begin with.
    NamespacePrefix,
    "namespace prefix",
    check_label_prefix
);
name_type!(
    /// A Kubernetes object's name: an RFC 1123 subdomain.
    ObjectName,
    "name",
    check_subdomain
);

/// A service, named as its owner names it: namespace and name (KEP-1645 namespace sameness).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    pub namespace: Namespace,
    pub name: ObjectName,
}

impl ServiceName {
    pub fn new(namespace: Namespace, name: ObjectName) -> Self {
        Self { namespace, name }
    }

    /// Parses `namespace/name`.
    pub fn parse(value: &str) -> Result<Self, NameError> {
        let Some((namespace, name)) = value.split_once('/') else {
            return Err(NameError::new("service", value, "write it as namespace/name"));
        };
        Ok(Self { namespace: Namespace::parse(namespace)?, name: ObjectName::parse(name)? })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A host name of a listener or a route (Gateway API `Hostname`): exact, or `*.suffix`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hostname {
    Exact(Arc<str>),
    /// The suffix without `*.`; matches one or more labels in front of it (GEP-1756 semantics).
    Wildcard(Arc<str>),
}

impl Hostname {
    pub fn parse(value: &str) -> Result<Self, NameError> {
        let error = |reason| NameError::new("hostname", value, reason);
        if value.parse::<std::net::IpAddr>().is_ok() {
            return Err(error("an IP address is not a host name"));
        }
        match value.strip_prefix("*.") {
            Some(suffix) => {
                check_subdomain(suffix).map_err(error)?;
                Ok(Self::Wildcard(suffix.into()))
            }
            None => {
                check_subdomain(value).map_err(error)?;
                Ok(Self::Exact(value.into()))
            }
        }
    }

    /// Whether `host` (lower case, no port) is covered.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => &**name == host,
            Self::Wildcard(suffix) => host
                .strip_suffix(&**suffix)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
        }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// RFC 1123 label: 1 to 63 of `a-z 0-9 -`, beginning and ending with a letter or digit.
fn check_label(value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        return Err("it is empty");
    }
    if value.len() > 63 {
        return Err("it is longer than 63 characters");
    }
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = value.as_bytes();
    if !bytes.iter().all(|&b| ok(b) || b == b'-') {
        return Err("use only lower-case letters, digits and '-'");
    }
    if !ok(bytes[0]) || !ok(bytes[bytes.len() - 1]) {
        return Err("begin and end it with a letter or a digit");
    }
    Ok(())
}

/// A beginning of an RFC 1123 label.
fn check_label_prefix(value: &str) -> Result<(), &'static str> {
    // It may end with '-', which a label may not.
    match value.strip_suffix('-') {
        Some(rest) if !rest.is_empty() && value.len() <= 62 => check_label_prefix(rest),
        _ => check_label(value),
    }
}

/// RFC 1123 subdomain: labels joined by dots, 253 characters at most.
fn check_subdomain(value: &str) -> Result<(), &'static str> {
    if value.len() > 253 {
        return Err("it is longer than 253 characters");
    }
    if value.is_empty() {
        return Err("it is empty");
    }
    value.split('.').try_for_each(check_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains_follow_rfc_1123() {
        for good in ["a", "east", "a-1", "0", &"x".repeat(63)] {
            assert!(ClusterName::parse(good).is_ok(), "{good}");
        }
        for (bad, reason) in [
            ("", "empty"),
            ("East", "lower-case"),
            ("-a", "begin and end"),
            ("a-", "begin and end"),
            ("a.b", "lower-case"),
            ("a_b", "lower-case"),
            ("é", "lower-case"),
            (&*"x".repeat(64), "63"),
        ] {
            let error = ClusterName::parse(bad).unwrap_err().to_string();
            assert!(error.contains("cluster name") && error.contains(reason), "{bad}: {error}");
        }
        assert!(ObjectName::parse("a.b-c.d").is_ok());
        assert!(ObjectName::parse("a..b").is_err());
        assert!(ObjectName::parse(&"a.".repeat(127)).is_err());
    }

    #[test]
    fn service_names_need_both_parts() {
        assert_eq!(ServiceName::parse("shop/api").unwrap().to_string(), "shop/api");
        let error = ServiceName::parse("api").unwrap_err().to_string();
        assert_eq!(error, "service \"api\" is not valid: write it as namespace/name");
    }

    #[test]
    fn wildcards_match_whole_labels_only() {
        let wildcard = Hostname::parse("*.example.com").unwrap();
        assert!(wildcard.matches("a.example.com"));
        assert!(wildcard.matches("a.b.example.com"));
        assert!(!wildcard.matches("example.com"));
        assert!(!wildcard.matches("aexample.com"));
        assert!(!wildcard.matches(".example.com"));
        assert!(Hostname::parse("a.example.com").unwrap().matches("a.example.com"));
        assert!(Hostname::parse("10.0.0.1").is_err());
        assert!(Hostname::parse("*").is_err());
        assert!(Hostname::parse("a.*.com").is_err());
    }

    #[test]
    fn a_namespace_prefix_is_the_beginning_of_a_namespace() {
        for good in ["a", "team-", "team-a", "team--", "1", &"a".repeat(63)] {
            assert_eq!(NamespacePrefix::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-", "--", "-a", "A", "a.b", "a*", &"a".repeat(64), &("a".repeat(62) + "-")]
        {
            assert!(NamespacePrefix::parse(bad).is_err(), "{bad}");
        }
    }
}
