//! `fedctl demo`: a whole federation in one process, without Kubernetes.

pub mod app;
pub mod control;
pub mod fleet;
pub mod manifests;
pub mod probe;
pub mod story;

pub use fleet::{Cluster, Fleet, FleetSpec};
