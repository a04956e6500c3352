//! Names that Fedgate and Kubernetes share: labels, annotations, and the words of status conditions.
//!
//! The words of the standard kinds are those of Gateway API 1.6 (`apis/v1`), of the Multi-Cluster
//! Services API v1beta1 (KEP-1645) and of GEP-713 for policies; a status writer has no others.

mod words;

pub use words::{
    ConditionStatus, ExportCondition, ExportReason, GatewayClassCondition, GatewayClassReason,
    GatewayCondition, GatewayReason, ImportCondition, ImportReason, ListenerCondition,
    ListenerReason, OwnCondition, OwnReason, PolicyCondition, PolicyReason, RouteCondition,
    RouteReason,
};

/// Stands on everything that Fedgate's controllers create, with the value [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The provider ignores objects whose [`MANAGED_BY_LABEL`] has this value: no feedback.
pub const MANAGED_BY: &str = "fedgate";
/// A label selector for everything that Fedgate's controllers created.
pub const MANAGED_BY_SELECTOR: &str = "app.kubernetes.io/managed-by=fedgate";
/// A label selector for everything else, objects without the label too.
pub const NOT_MANAGED_SELECTOR: &str = "app.kubernetes.io/managed-by!=fedgate";
/// The field manager of server-side apply.
pub const FIELD_MANAGER: &str = "fedgate";

/// `GatewayClass.spec.controllerName` of classes that are ours, and `controllerName` in the status
/// of routes and policies.
pub const CONTROLLER_NAME: &str = "fedgate.dev/gateway";

/// The API group of Fedgate's own kinds.
pub const OWN_GROUP: &str = "fedgate.dev";
/// The version of Fedgate's own kinds.
pub const OWN_VERSION: &str = "v1alpha1";
/// The only name that a Federation may have.
pub const FEDERATION_NAME: &str = "default";

/// On an EndpointSlice: the Service that it belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// On an EndpointSlice: who keeps it. Kubernetes' own controllers leave slices of others alone.
pub const SLICE_MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// On a derived Service and its slices: the ServiceImport (KEP-1645).
pub const MCS_SERVICE_NAME_LABEL: &str = "multicluster.kubernetes.io/service-name";
/// On a slice of an import: the cluster that exports (KEP-1645).
pub const MCS_SOURCE_CLUSTER_LABEL: &str = "multicluster.kubernetes.io/source-cluster";
/// On a ServiceImport: the name of the Service made for it.
pub const DERIVED_SERVICE_ANNOTATION: &str = "multicluster.kubernetes.io/derived-service";

/// On a derived Service: the pool port of each port that it has, as `port=pool port,...`.
pub const POOL_PORTS_ANNOTATION: &str = "fedgate.dev/pool-ports";
/// On a Service that was made for a Gateway: `namespace/name` of the Gateway.
pub const GATEWAY_ANNOTATION: &str = "fedgate.dev/gateway";
/// On a Secret that was made for a JoinGrant: the id of the token in it.
pub const TOKEN_ID_ANNOTATION: &str = "fedgate.dev/token-id";

/// The key in the Secret of a JoinGrant under which the token stands.
pub const TOKEN_SECRET_KEY: &str = "token";
/// The ConfigMap with the cluster's own trust bundle.
pub const TRUST_CONFIG_MAP: &str = "fedgate-trust";
/// The key in [`TRUST_CONFIG_MAP`]; its value is a SPIFFE bundle document.
pub const TRUST_BUNDLE_KEY: &str = "bundle.json";
/// The Lease that elects the one writer of a cluster.
pub const WRITER_LEASE: &str = "fedgate-writer";
