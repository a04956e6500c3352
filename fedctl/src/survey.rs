//! What a Kubernetes cluster is like, as far as that matters for an installation: read by I/O that
//! decides nothing, for decisions that read nothing.

mod read;

use std::fmt;

pub use read::{read, served_groups};

/// All that is looked at. What could not be read is `None`, with the reason among the problems.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// As messages call the cluster: the kubeconfig's context.
    pub context: String,
    pub version: Option<Version>,
    /// Seconds that the API server's clock is ahead of ours.
    pub clock_ahead_seconds: Option<i64>,
    pub nodes: Option<Nodes>,
    /// Groups of custom resources and the versions that are served.
    pub groups: Vec<Group>,
    /// Of the CRDs of Gateway API, if there are any and they tell.
    pub gateway_api: Option<GatewayApi>,
    pub storage: Option<Vec<StorageClass>>,
    pub load_balancers: Option<LoadBalancers>,
    pub api_server: ApiServer,
    /// Level of Pod Security that the namespace of Fedgate enforces, if it is there and does.
    pub pod_security: Option<Option<String>>,
    pub installed: Option<Option<Installed>>,
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    /// `v1.36.3`.
    pub text: String,
}

impl Version {
    /// Clouds write a minor version as `33+`.
    pub fn of(major: &str, minor: &str, text: &str) -> Option<Self> {
        let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
        Some(Self { major: major.parse().ok()?, minor: digits.parse().ok()?, text: text.into() })
    }
}

/// Who runs the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    Kind,
    Eks,
    Gke,
    Aks,
    K3s,
    Other,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "kind",
            Self::Eks => "EKS",
            Self::Gke => "GKE",
            Self::Aks => "AKS",
            Self::K3s => "k3s",
            Self::Other => "of no known provider",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    pub count: usize,
    pub provider: Provider,
}

/// What one node says of its provider.
pub(crate) fn provider_of(provider_id: &str, labels: &dyn Fn(&str) -> bool) -> Provider {
    let schemes = [
        ("kind://", Provider::Kind),
        ("gce://", Provider::Gke),
        ("azure://", Provider::Aks),
        ("k3s://", Provider::K3s),
    ];
    if let Some((_, provider)) = schemes.iter().find(|(scheme, _)| provider_id.starts_with(scheme))
    {
        // Machines of a cloud can carry a cluster that its owner runs.
        return match provider {
            Provider::Gke if !labels("cloud.google.com/gke-nodepool") => Provider::Other,
            Provider::Aks if !labels("kubernetes.azure.com/cluster") => Provider::Other,
            provider => *provider,
        };
    }
    let eks = [
        "eks.amazonaws.com/nodegroup",
        "eks.amazonaws.com/compute-type",
        "eks.amazonaws.com/capacityType",
    ];
    match eks.iter().any(|label| labels(label)) {
        true => Provider::Eks,
        false => Provider::Other,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub versions: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayApi {
    /// `v1.6.3`.
    pub version: String,
    /// `standard` or `experimental`.
    pub channel: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageClass {
    pub name: String,
    pub default: bool,
}

/// Services of type LoadBalancer that are there already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadBalancers {
    /// With an address.
    pub ready: usize,
    pub pending: usize,
}

/// The API server as pods see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// TCP ports behind its Service.
    pub ports: Vec<u16>,
    /// `IPv4` or `IPv6`: the first family of the cluster.
    pub family: Option<String>,
}

/// A Fedgate that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub namespace: String,
    pub cluster: String,
    pub trust_domain: String,
}

impl Survey {
    pub fn provider(&self) -> Provider {
        self.nodes.as_ref().map_or(Provider::Other, |nodes| nodes.provider)
    }

    pub fn serves(&self, group: &str) -> Option<&Group> {
        self.groups.iter().find(|known| known.name == group)
    }

    /// What makes addresses for Services of type LoadBalancer, if that shows.
    pub fn load_balancer(&self) -> Option<String> {
        let cloud = matches!(
            self.provider(),
            Provider::Eks | Provider::Gke | Provider::Aks | Provider::K3s
        );
        if cloud {
            return Some(format!("{} has load balancers", self.provider()));
        }
        if self.serves("metallb.io").is_some() {
            return Some("MetalLB is installed".into());
        }
        let ready = self.load_balancers.as_ref().map_or(0, |found| found.ready);
        (ready > 0).then(|| match ready {
            1 => "a Service of type LoadBalancer has an address".into(),
            several => format!("{several} Services of type LoadBalancer have addresses"),
        })
    }

    /// One line of what was found.
    pub fn summary(&self) -> String {
        let version = self.version.as_ref().map_or("of unknown version", |version| &version.text);
        let nodes = self.nodes.as_ref().map(|nodes| match nodes.count {
            1 => "1 node".to_owned(),
            several => format!("{several} nodes"),
        });
        let nodes = nodes.unwrap_or_else(|| "nodes not to be seen".into());
        let gateway_api = self.gateway_api.as_ref().map_or_else(
            || "no Gateway API".into(),
            |found| format!("Gateway API {} ({})", found.version, found.channel),
        );
        let mcs = self.serves("multicluster.x-k8s.io").map_or_else(
            || "no MCS API".into(),
            |group| format!("MCS API {}", group.versions.join(", ")),
        );
        format!("Kubernetes {version} {}, {nodes}; {gateway_api}; {mcs}", self.provider())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_tell_who_runs_the_cluster() {
        for (id, label, want) in [
            ("kind://docker/east/east-control-plane", "", Provider::Kind),
            ("aws:///eu-west-1a/i-1", "eks.amazonaws.com/nodegroup", Provider::Eks),
            ("aws:///eu-west-1a/i-1", "", Provider::Other),
            ("gce://p/z/n", "cloud.google.com/gke-nodepool", Provider::Gke),
            ("gce://p/z/n", "", Provider::Other),
            ("azure:///subscriptions/x", "kubernetes.azure.com/cluster", Provider::Aks),
            ("k3s://a", "", Provider::K3s),
            ("", "", Provider::Other),
        ] {
            assert_eq!(provider_of(id, &|name| name == label), want, "{id} {label}");
        }
    }

    #[test]
    fn versions_of_clouds_are_read() {
        let version = Version::of("1", "33+", "v1.33.4-gke.1").unwrap();
        assert_eq!((version.major, version.minor), (1, 33));
        assert_eq!(Version::of("1", "x", ""), None);
    }
}
