//! Providers: they watch where users declare intent, translate it (pure), and publish a [`Catalog`].
//!
//! There is one so far, the folder of manifests ([`file::FileProvider`]).

mod catalog;
pub mod file;
pub mod limits;
mod translate;

pub use catalog::Catalog;
pub use translate::translate;
