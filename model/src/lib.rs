//! The nouns of Fedgate and their rules: pure data and pure functions, no I/O, no clock, no async.
//!
//! `ResourceSet` (what a proxy was sent) goes through [`compile()`] and becomes a [`Snapshot`] (what a
//! request reads) plus diagnostics. Nothing here is serialised: `wire` and `api` do that.

pub mod catalog;
pub mod code;
pub mod compile;
pub mod diagnostic;
pub mod endpoint;
pub mod id;
pub mod name;
pub mod policy;
pub mod reference;
pub mod role;
pub mod route;
pub mod snapshot;
pub mod spiffe;
pub mod why;

pub use catalog::{
    AccessPolicy, AllowEntry, AllowedNamespaces, AppProtocol, BackendKind, BackendTarget,
    ClusterPeer, EndpointSlice, GatewaySpec, HttpPathPrefix, HttpRoute, HttpRule, ListenerProtocol,
    ListenerSpec, NamespaceGrant, NamespaceMatch, ParentTarget, PeerAddress, Resource, ResourceKey,
    ResourceKind, ResourceSet, RevokedSvid, Service, ServiceExport, ServiceImport, ServicePort,
    SliceEndpoint, SlicePort, TcpRoute, Transport, TrustBundle,
};
pub use compile::compile;
pub use diagnostic::{Diagnostic, Severity};
pub use endpoint::{Endpoint, EndpointTable, endpoint_table};
pub use id::{ClusterId, FederationId, GatewayId, KeyId, RequestId, Revision};
pub use name::{
    ClusterName, Hostname, NameError, Namespace, NamespacePrefix, ObjectName, ServiceName,
};
pub use policy::{Caller, Decision};
pub use reference::{ReferenceGrant, ReferenceSource, ReferenceTarget, RouteKind};
pub use role::{Role, RoleError, RoleSet};
pub use snapshot::Snapshot;
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
