//! A cluster's API server, and through it, and by no other way, its federation node: the pod is found
//! by its labels, the connection is a port-forward, inside of it is TLS against the cluster's own
//! trust bundle, and the operator is known by a token that the API server issues.

mod cluster;
mod door;
mod node;
mod refusal;
mod role;
mod trust;

pub use cluster::{Cluster, Kubeconfig, NoKubeconfig, default_cluster_name};
pub use door::Door;
pub use node::{Found, NotReady, find, not_ready};
pub use refusal::{Access, refused};
pub use role::{Role, Token, token};
pub use trust::{Trust, read_trust};

/// Where Fedgate runs unless it is told otherwise.
pub const NAMESPACE_DEFAULT: &str = "fedgate-system";
/// What every object of the chart carries.
pub const NAME_LABEL: &str = "app.kubernetes.io/name=fedgate";
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// The port on which a federation node talks with operators.
pub const OPERATOR_PORT: u16 = 7445;
pub use api::kubernetes::TRUST_CONFIG_MAP;
