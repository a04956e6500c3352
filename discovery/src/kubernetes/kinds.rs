//! The kinds that are watched, and where an API server has them.

use kube::api::ApiResource;
use kube::core::gvk::GroupVersionKind;
use model::ResourceKind;

/// A kind that is watched in the whole cluster (pods: only the gateways').
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchedKind {
    Namespace,
    Node,
    /// Pods of gateways only, by namespace and labels.
    GatewayPod,
    Service,
    EndpointSlice,
    ServiceExport,
    ServiceImport,
    GatewayClass,
    Gateway,
    HttpRoute,
    TcpRoute,
    ReferenceGrant,
    AccessPolicy,
    NamespaceGrant,
    ClusterPeer,
    Federation,
    JoinGrant,
}

/// How a kind is called: `kind`, plural, group, versions (the preferred one first).
struct Names(&'static str, &'static str, &'static str, &'static [&'static str]);

const GATEWAY: &str = "gateway.networking.k8s.io";
const MCS: &str = "multicluster.x-k8s.io";
const OWN: &str = api::kubernetes::OWN_GROUP;
const OWN_VERSIONS: &[&str] = &[api::kubernetes::OWN_VERSION];

impl WatchedKind {
    pub const ALL: [Self; 17] = [
        Self::Namespace,
        Self::Node,
        Self::GatewayPod,
        Self::Service,
        Self::EndpointSlice,
        Self::ServiceExport,
        Self::ServiceImport,
        Self::GatewayClass,
        Self::Gateway,
        Self::HttpRoute,
        Self::TcpRoute,
        Self::ReferenceGrant,
        Self::AccessPolicy,
        Self::NamespaceGrant,
        Self::ClusterPeer,
        Self::Federation,
        Self::JoinGrant,
    ];

    /// Its place in [`Self::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }

    fn names(self) -> Names {
        match self {
            Self::Namespace => Names("Namespace", "namespaces", "", &["v1"]),
            Self::Node => Names("Node", "nodes", "", &["v1"]),
            Self::GatewayPod => Names("Pod", "pods", "", &["v1"]),
            Self::Service => Names("Service", "services", "", &["v1"]),
            Self::EndpointSlice => {
                Names("EndpointSlice", "endpointslices", "discovery.k8s.io", &["v1"])
            }
            Self::ServiceExport => {
                Names("ServiceExport", "serviceexports", MCS, &["v1beta1", "v1alpha1"])
            }
            Self::ServiceImport => {
                Names("ServiceImport", "serviceimports", MCS, &["v1beta1", "v1alpha1"])
            }
            Self::GatewayClass => Names("GatewayClass", "gatewayclasses", GATEWAY, &["v1"]),
            Self::Gateway => Names("Gateway", "gateways", GATEWAY, &["v1"]),
            Self::HttpRoute => Names("HTTPRoute", "httproutes", GATEWAY, &["v1"]),
            Self::TcpRoute => Names("TCPRoute", "tcproutes", GATEWAY, &["v1", "v1alpha2"]),
            Self::ReferenceGrant => {
                Names("ReferenceGrant", "referencegrants", GATEWAY, &["v1", "v1beta1"])
            }
            Self::AccessPolicy => Names("AccessPolicy", "accesspolicies", OWN, OWN_VERSIONS),
            Self::NamespaceGrant => Names("NamespaceGrant", "namespacegrants", OWN, OWN_VERSIONS),
            Self::ClusterPeer => Names("ClusterPeer", "clusterpeers", OWN, OWN_VERSIONS),
            Self::Federation => Names("Federation", "federations", OWN, OWN_VERSIONS),
            Self::JoinGrant => Names("JoinGrant", "joingrants", OWN, OWN_VERSIONS),
        }
    }

    /// The kind as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        self.names().0
    }

    /// The resource in a version that [`Self::versions`] has; for [`kube::Api`]s of it, too.
    pub fn api_resource(self, version: &str) -> ApiResource {
        let Names(kind, plural, group, _) = self.names();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// The versions that are understood, the preferred one first.
    pub fn versions(self) -> &'static [&'static str] {
        self.names().3
    }

    /// Whether it is of our own group. The API server refuses most of what is wrong with such an object;
    /// of the rest only this node knows.
    pub(super) fn is_own(self) -> bool {
        self.names().2 == OWN
    }

    /// Whether every API server has it, so that it needs no looking for.
    pub(super) fn is_built_in(self) -> bool {
        matches!(self.names().2, "" | "discovery.k8s.io")
    }

    /// Whether its objects live in a namespace.
    pub fn is_namespaced(self) -> bool {
        match self {
            Self::Namespace
            | Self::Node
            | Self::GatewayClass
            | Self::NamespaceGrant
            | Self::ClusterPeer
            | Self::Federation
            | Self::JoinGrant => false,
            Self::GatewayPod
            | Self::Service
            | Self::EndpointSlice
            | Self::ServiceExport
            | Self::ServiceImport
            | Self::Gateway
            | Self::HttpRoute
            | Self::TcpRoute
            | Self::ReferenceGrant
            | Self::AccessPolicy => true,
        }
    }

    /// The kind of the catalog that its objects become; `None` if the cache alone has them.
    pub fn catalog_kind(self) -> Option<ResourceKind> {
        ResourceKind::ALL.into_iter().find(|kind| Self::of(*kind) == self)
    }

    /// Where the objects of a kind of the catalog come from.
    pub fn of(kind: ResourceKind) -> Self {
        match kind {
            ResourceKind::ClusterPeer => Self::ClusterPeer,
            ResourceKind::Service => Self::Service,
            ResourceKind::EndpointSlice => Self::EndpointSlice,
            ResourceKind::ServiceExport => Self::ServiceExport,
            ResourceKind::ServiceImport => Self::ServiceImport,
            ResourceKind::Gateway => Self::Gateway,
            ResourceKind::HttpRoute => Self::HttpRoute,
            ResourceKind::TcpRoute => Self::TcpRoute,
            ResourceKind::AccessPolicy => Self::AccessPolicy,
            ResourceKind::NamespaceGrant => Self::NamespaceGrant,
            ResourceKind::ReferenceGrant => Self::ReferenceGrant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_the_catalog_is_watched_as_the_model_calls_it() {
        for (index, kind) in WatchedKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), index);
            let Some(known) = kind.catalog_kind() else { continue };
            assert_eq!(kind.as_str(), known.as_str());
            assert_eq!(kind.is_namespaced(), known.is_namespaced());
        }
        let watched = WatchedKind::ALL.into_iter().filter_map(WatchedKind::catalog_kind);
        assert_eq!(watched.count(), ResourceKind::ALL.len());
    }

    #[test]
    fn paths_are_those_of_the_api_server() {
        let resource = WatchedKind::ServiceExport.api_resource("v1alpha1");
        assert_eq!(resource.api_version, "multicluster.x-k8s.io/v1alpha1");
        assert_eq!(resource.plural, "serviceexports");
        assert_eq!(WatchedKind::Service.api_resource("v1").api_version, "v1");
    }
}
