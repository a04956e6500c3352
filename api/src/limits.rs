//! Limits on manifests. Those on lists are the `maxItems` of the kinds' own schemas, where they have
//! one, so that whatever a Kubernetes API server accepts is accepted here too.

use std::time::Duration;

/// Text of one manifest file. A ConfigMap holds 1 MiB in all.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// YAML documents in one file.
pub const DOCUMENTS_PER_FILE_MAX: usize = 1024;
/// Scalars, lists and maps in one file.
pub const NODES_PER_FILE_MAX: usize = 250_000;
/// Nesting of lists and maps; ours end at 10.
pub const DEPTH_MAX: usize = 32;
/// Nodes that aliases may bring in again, in one file.
pub const ALIAS_NODES_MAX: usize = 10_000;
/// Ports of a Service, ServiceImport or EndpointSlice.
pub const PORTS_MAX: usize = 100;
/// `EndpointSlice.endpoints` (Kubernetes).
pub const SLICE_ENDPOINTS_MAX: usize = 1000;
/// `EndpointSlice.endpoints[].addresses` (Kubernetes).
pub const ENDPOINT_ADDRESSES_MAX: usize = 100;
/// `Gateway.spec.listeners` (Gateway API).
pub const LISTENERS_MAX: usize = 64;
/// `spec.parentRefs` of a route (Gateway API).
pub const PARENT_REFS_MAX: usize = 32;
/// `HTTPRoute.spec.hostnames` (Gateway API).
pub const HOSTNAMES_MAX: usize = 16;
/// `HTTPRoute.spec.rules` (Gateway API).
pub const RULES_MAX: usize = 16;
/// `HTTPRoute.spec.rules[].matches` (Gateway API).
pub const MATCHES_MAX: usize = 64;
/// `HTTPRoute.spec.rules[].matches[].path.value` (Gateway API).
pub const PATH_BYTES_MAX: usize = 1024;
/// `ReferenceGrant.spec.from` and `ReferenceGrant.spec.to` (Gateway API).
pub const REFERENCE_GRANT_ENTRIES_MAX: usize = 16;
/// `ServiceImport.status.clusters`.
pub const IMPORT_CLUSTERS_MAX: usize = 256;
/// `AccessPolicy.spec.targetRefs` (GEP-713).
pub const TARGET_REFS_MAX: usize = 16;
/// `AccessPolicy.spec.allow`.
pub const ALLOW_ENTRIES_MAX: usize = 256;
/// `NamespaceGrant.spec.namespaces` and `NamespaceGrant.spec.clusters`.
pub const GRANT_ENTRIES_MAX: usize = 256;
/// `ClusterPeer.spec.addresses`.
pub const PEER_ADDRESSES_MAX: usize = 16;
/// `ClusterPeer.spec.trustDomains`.
pub const TRUST_DOMAINS_MAX: usize = 16;
/// Characters of `Federation.spec.name`.
pub const FEDERATION_NAME_CHARS_MAX: usize = 63;
/// Voters that `Federation.status.voters` shows; there are five at most.
pub const VOTERS_SHOWN_MAX: usize = 16;
/// `JoinGrant.spec.roles`: each role once.
pub const JOIN_ROLES_MAX: usize = 3;
/// Shortest life of a JoinGrant's token.
pub const JOIN_LIFETIME_MIN: Duration = Duration::from_secs(60);
/// `status.conditions` of Fedgate's own kinds, and of each of their ancestors (Gateway API).
pub const CONDITIONS_MAX: usize = 8;
/// Characters of a condition's message (`metav1.Condition`).
pub const CONDITION_MESSAGE_CHARS_MAX: usize = 32_768;
/// Bytes of a custom resource definition: `kubectl apply` keeps a copy in an annotation, which holds no more.
pub const CRD_BYTES_MAX: usize = 256 * 1024;
/// A value of a user's as a message shows it.
pub const SHOWN_CHARS_MAX: usize = 100;
