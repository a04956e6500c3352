//! Providers: they watch where users declare intent, translate it (pure), and publish a [`Catalog`].
//!
//! There are two: the folder of manifests ([`file::FileProvider`]) and the cluster's API server
//! ([`kubernetes::KubernetesProvider`]).

mod catalog;
pub mod file;
mod guard;
pub mod kubernetes;
pub mod limits;
mod translate;

pub use catalog::Catalog;
pub use translate::translate;
