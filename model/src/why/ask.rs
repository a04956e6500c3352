//! The question: who asks, and for what.

use std::fmt;

use super::Facts;
use crate::name::{ClusterName, Namespace, ObjectName, ServiceName};
use crate::spiffe::{SpiffeId, TrustDomain};

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub source: Source,
    pub target: Target,
    /// Of an HTTP request, without its query.
    pub path: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Cluster(ClusterName),
    Workload { cluster: ClusterName, namespace: Namespace, account: ObjectName },
    Identity(SpiffeId),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Service { service: ServiceName, cluster: Option<ClusterName>, port: Option<u16> },
    Host { host: String, port: Option<u16> },
}

/// Why an argument was refused: which, its value, what is wrong, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskError {
    pub field: &'static str,
    pub value: String,
    pub problem: String,
    pub fix: &'static str,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} is not valid: {}", self.field, self.value, self.problem)
    }
}

impl std::error::Error for AskError {}

const SOURCE_FORMS: &str = "write CLUSTER, CLUSTER/NAMESPACE/SERVICEACCOUNT, or \
                            spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME";
const TARGET_FORMS: &str =
    "write NAMESPACE/SERVICE[.CLUSTER][:PORT], or the host name that clients call: HOST[:PORT]";
/// An argument may be of any length; a message need not be.
const VALUE_SHOWN_MAX: usize = 300;

fn refused(field: &'static str, value: &str, problem: impl ToString) -> AskError {
    let fix = if field == "SRC" { SOURCE_FORMS } else { TARGET_FORMS };
    let value = value.chars().take(VALUE_SHOWN_MAX).collect();
    AskError { field, value, problem: problem.to_string(), fix }
}

impl Source {
    pub fn parse(text: &str) -> Result<Self, AskError> {
        let refuse = |problem: &dyn fmt::Display| refused("SRC", text, problem);
        if text.contains("://") {
            return SpiffeId::parse(text).map(Self::Identity).map_err(|e| refuse(&e.reason));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let cluster = |name: &str| ClusterName::parse(name).map_err(|error| refuse(&error));
        match parts[..] {
            [name] => Ok(Self::Cluster(cluster(name)?)),
            [name, namespace, account] => Ok(Self::Workload {
                cluster: cluster(name)?,
                namespace: Namespace::parse(namespace).map_err(|error| refuse(&error))?,
                account: ObjectName::parse(account).map_err(|error| refuse(&error))?,
            }),
            _ => Err(refuse(&"it has neither one nor three parts")),
        }
    }

    /// The cluster that the request comes from; a SPIFFE ID tells it by its trust domain.
    pub(super) fn cluster(&self, facts: &Facts) -> Result<ClusterName, AskError> {
        let id = match self {
            Self::Cluster(cluster) | Self::Workload { cluster, .. } => return Ok(cluster.clone()),
            Self::Identity(id) => id,
        };
        let rows = facts.values().flat_map(|node| &node.trust);
        let owner = rows.clone().find(|row| row.trust_domain == *id.trust_domain());
        owner.map(|row| row.cluster.clone()).ok_or_else(|| {
            let mut known: Vec<&str> = rows.map(|row| row.trust_domain.as_str()).collect();
            known.sort_unstable();
            known.dedup();
            let known = known.join(", ");
            let problem = format!("no cluster that is known has its trust domain; known: {known}");
            refused("SRC", id.as_str(), problem)
        })
    }

    /// The SPIFFE ID of the workload, if one was named and its trust domain is known.
    pub(super) fn workload(&self, from: &ClusterName, facts: &Facts) -> Option<SpiffeId> {
        match self {
            Self::Cluster(_) => None,
            Self::Identity(id) => Some(id.clone()),
            Self::Workload { namespace, account, .. } => {
                let domain = trust_domain(from, facts)?;
                SpiffeId::parse(&format!("spiffe://{domain}/ns/{namespace}/sa/{account}")).ok()
            }
        }
    }
}

/// The first trust domain of a cluster, as it says itself or another one does.
pub(super) fn trust_domain(cluster: &ClusterName, facts: &Facts) -> Option<TrustDomain> {
    let own = facts.get(cluster).map(|node| node.trust_domain.clone());
    own.or_else(|| {
        let mut rows = facts.values().flat_map(|node| &node.trust);
        rows.find(|row| row.cluster == *cluster).map(|row| row.trust_domain.clone())
    })
}

impl Target {
    pub fn parse(text: &str) -> Result<Self, AskError> {
        let refuse = |problem: &dyn fmt::Display| refused("DST", text, problem);
        let (rest, port) = match text.rsplit_once(':') {
            None => (text, None),
            Some((rest, port)) => {
                let parsed = port.parse::<u16>().ok().filter(|port| *port > 0);
                let problem = format!("{port:?} is no port; ports are 1 to 65535");
                (rest, Some(parsed.ok_or_else(|| refuse(&problem))?))
            }
        };
        let Some((namespace, rest)) = rest.split_once('/') else {
            let host = rest.trim_end_matches('.').to_ascii_lowercase();
            return match crate::name::Hostname::parse(&host) {
                Ok(crate::name::Hostname::Exact(_)) => Ok(Self::Host { host, port }),
                Ok(_) => Err(refuse(&"it is a pattern, not a name that a client can call")),
                Err(error) => Err(refuse(&error.reason)),
            };
        };
        // A Service's name is a label (RFC 1035), so that the first dot ends it.
        let (name, cluster) = match rest.split_once('.') {
            Some((name, cluster)) => (name, Some(cluster)),
            None => (rest, None),
        };
        let cluster = cluster.map(ClusterName::parse).transpose();
        let service = ServiceName::parse(&format!("{namespace}/{name}"));
        Ok(Self::Service {
            service: service.map_err(|error| refuse(&error))?,
            cluster: cluster.map_err(|error| refuse(&error))?,
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_targets_have_their_forms() {
        for good in ["east", "east/shop/web", "spiffe://east.fed/ns/shop/sa/web"] {
            assert!(Source::parse(good).is_ok(), "{good}");
        }
        let service = |text: &str| match Target::parse(text).unwrap() {
            Target::Service { service, cluster, port } => {
                (service.to_string(), cluster.map(|name| name.to_string()), port)
            }
            Target::Host { host, port } => (host, None, port),
        };
        assert_eq!(service("shop/api"), ("shop/api".into(), None, None));
        assert_eq!(service("shop/api.west:80"), ("shop/api".into(), Some("west".into()), Some(80)));
        assert_eq!(service("shop/api:80"), ("shop/api".into(), None, Some(80)));
        assert_eq!(service("API.example:80"), ("api.example".into(), None, Some(80)));
    }

    #[test]
    fn a_refusal_names_the_argument_its_value_and_the_forms() {
        for (text, wanted) in [
            ("east/shop", "SRC \"east/shop\" is not valid: it has neither one nor three parts"),
            ("East", "SRC \"East\" is not valid: cluster name \"East\" is not valid: use only"),
            ("http://x", "SRC \"http://x\" is not valid: its scheme is not spiffe"),
        ] {
            let error = Source::parse(text).unwrap_err();
            assert!(error.to_string().starts_with(wanted), "{error}");
            assert!(error.fix.contains("CLUSTER/NAMESPACE/SERVICEACCOUNT"));
        }
        for (text, wanted) in [
            ("shop/api:http", "DST \"shop/api:http\" is not valid: \"http\" is no port"),
            ("shop/api:0", "DST \"shop/api:0\" is not valid: \"0\" is no port; ports are 1 to"),
            ("shop/", "DST \"shop/\" is not valid: name \"\" is not valid: it is empty"),
            ("shop/api.We", "DST \"shop/api.We\" is not valid: cluster name"),
            ("*.example", "DST \"*.example\" is not valid: it is a pattern"),
            ("10.0.0.1", "DST \"10.0.0.1\" is not valid: an IP address is not a host name"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.to_string().starts_with(wanted), "{error}");
            assert!(error.fix.contains("NAMESPACE/SERVICE"));
        }
    }
}
