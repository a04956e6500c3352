//! Kubernetes manifests, read strictly: YAML text in, [`model::Resource`]s and diagnostics out.
//!
//! # What happens to a field that is not served
//!
//! The kinds here are wide and this version serves a narrow part of each. Nothing that a user wrote
//! is passed over in silence, with one exception: what every object of Kubernetes carries and what
//! cannot matter to Fedgate (labels, `uid`, `clusterIP`, `status`, ...; each kind's table names
//! them). For everything else one rule decides:
//!
//! - **Harmless to ignore** (the object still does what its author wrote, only less of it): a
//!   [`Warning`](model::Severity::Warning) FED4002, and the object is in service.
//! - **Ignoring it would widen or change what the object does** (a filter, a header match, a TLS
//!   listener, an unknown field in a policy): an [`Error`](model::Severity::Error) FED4002, and the
//!   smallest part that holds the field (the rule, the listener, the port; else the object) is left
//!   out of service.
//! - **A value that is wrong in itself** (type, range, name, unknown enum value, missing): an Error
//!   FED4001, and the whole object is left out.
//!
//! Parsing never fails but for text that is not YAML at all ([`SyntaxError`]), where the caller keeps
//! what it had. Every diagnostic names the field, the value, the fix, the file and the line.

pub mod crd;
mod document;
mod document_text;
pub mod emit;
pub mod kinds;
pub mod kubernetes;
pub mod limits;
mod manifest_of;
mod metadata;
mod read;
mod report;
mod tree;

pub use document::{Manifest, Object, parse_manifest, parse_object, parse_object_of};
pub use document_text::{Document, Stamp};
pub use kinds::gateway_class::GatewayClasses;
pub use manifest_of::manifest_of;
pub use tree::SyntaxError;

/// The class of the Gateways that are ours where no GatewayClass says so, as in files.
pub const GATEWAY_CLASS: &str = "fedgate";
