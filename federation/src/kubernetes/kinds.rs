//! The kinds that the node writes, in every version that it can speak.

use discovery::kubernetes::{Cache, WatchedKind};
use kube::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

/// A kind in one version, as the API server names it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// Empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind { group, version, kind, plural }
}

const DISCOVERY: &str = "discovery.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";
const MCS: &str = "multicluster.x-k8s.io";
const OWN: &str = api::kubernetes::OWN_GROUP;

pub(crate) static CONFIG_MAP: Kind = kind("", "v1", "ConfigMap", "configmaps");
pub(crate) static SECRET: Kind = kind("", "v1", "Secret", "secrets");
pub(crate) static SERVICE: Kind = kind("", "v1", "Service", "services");
pub(crate) static CLUSTER_ROLE: Kind = kind(RBAC, "v1", "ClusterRole", "clusterroles");
pub(crate) static ENDPOINT_SLICE: Kind = kind(DISCOVERY, "v1", "EndpointSlice", "endpointslices");

/// Those of which users have objects too, in every version that is understood.
static WATCHED: [Kind; 14] = [
    kind(GATEWAY_API, "v1", "GatewayClass", "gatewayclasses"),
    kind(GATEWAY_API, "v1", "Gateway", "gateways"),
    kind(GATEWAY_API, "v1", "HTTPRoute", "httproutes"),
    kind(GATEWAY_API, "v1", "TCPRoute", "tcproutes"),
    kind(GATEWAY_API, "v1alpha2", "TCPRoute", "tcproutes"),
    kind(MCS, "v1beta1", "ServiceExport", "serviceexports"),
    kind(MCS, "v1alpha1", "ServiceExport", "serviceexports"),
    kind(MCS, "v1beta1", "ServiceImport", "serviceimports"),
    kind(MCS, "v1alpha1", "ServiceImport", "serviceimports"),
    kind(OWN, "v1alpha1", "Federation", "federations"),
    kind(OWN, "v1alpha1", "JoinGrant", "joingrants"),
    kind(OWN, "v1alpha1", "ClusterPeer", "clusterpeers"),
    kind(OWN, "v1alpha1", "NamespaceGrant", "namespacegrants"),
    kind(OWN, "v1alpha1", "AccessPolicy", "accesspolicies"),
];

impl Kind {
    /// The kind in the version that the API server serves; `None` while it serves none.
    pub(crate) fn served(cache: &Cache, kind: WatchedKind) -> Option<&'static Self> {
        let resource = cache.api_resource(kind)?;
        let fits = |known: &&Self| {
            known.group == resource.group
                && known.version == resource.version
                && known.kind == resource.kind
        };
        WATCHED.iter().find(fits)
    }

    pub(crate) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }

    fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    /// `None`: cluster-wide, be it a kind without namespaces or a list over all of them.
    pub(crate) fn api(&self, client: &kube::Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource()),
            None => Api::all_with(client.clone(), &self.resource()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_that_is_watched_can_be_written() {
        let written = ["GatewayClass", "Gateway", "HTTPRoute", "TCPRoute", "ServiceExport"];
        let written = [&written[..], &["ServiceImport", "Federation", "JoinGrant"]].concat();
        for kind in WatchedKind::ALL.into_iter().filter(|kind| written.contains(&kind.as_str())) {
            for version in kind.versions() {
                let resource = kind.api_resource(version);
                let known = WATCHED.iter().find(|known| known.resource() == resource);
                assert!(known.is_some(), "{} {version}", kind.as_str());
            }
        }
    }
}
