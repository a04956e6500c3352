//! `fedctl demo`: a whole federation in one process, without Kubernetes.

pub mod app;
pub mod control;
mod faults;
pub mod fleet;
mod founding;
pub mod manifests;
pub mod probe;
pub mod story;

pub use fleet::{Cluster, Fleet, FleetSpec, Introduction};
