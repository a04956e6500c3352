//! `compile`: from what a proxy was sent to what a request reads. Pure, and it never fails: a bad
//! object is dropped with a [`Diagnostic`].
//!
//! Three callers use it: proxies, status conditions, and `fedctl analyze`.

mod backends;
mod grants;
mod listeners;
mod peers;

use crate::catalog::{Resource, ResourceKey, ResourceSet};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Severity};
use crate::id::Revision;
use crate::name::ClusterName;
use crate::snapshot::Snapshot;

/// Compiles one revision's resources for a proxy of cluster `own`.
pub fn compile(
    own: &ClusterName,
    revision: Revision,
    resources: &ResourceSet,
) -> (Snapshot, Vec<Diagnostic>) {
    let mut findings = Findings::default();
    let (peers, trust_domain_owners) = peers::compile(own, resources, &mut findings);
    let exports = backends::compile_exports(resources, &peers, &mut findings);
    let backends = backends::compile(own, resources, &peers, &exports, &mut findings);
    let listeners = listeners::compile(resources, &backends, &mut findings);
    let snapshot = Snapshot { revision, listeners, peers, trust_domain_owners, exports, backends };
    (snapshot, findings.diagnostics)
}

/// Collects diagnostics about one object after the other.
#[derive(Debug, Default)]
struct Findings {
    diagnostics: Vec<Diagnostic>,
}

impl Findings {
    fn error(&mut self, object: &Resource, field: &str, code: Code, message: String, fix: &str) {
        self.push(Severity::Error, &object.key(), field, code, message, fix);
    }

    fn warning(&mut self, object: &Resource, field: &str, code: Code, message: String, fix: &str) {
        self.push(Severity::Warning, &object.key(), field, code, message, fix);
    }

    fn push(
        &mut self,
        severity: Severity,
        object: &ResourceKey,
        field: &str,
        code: Code,
        message: String,
        fix: &str,
    ) {
        self.diagnostics.push(Diagnostic {
            severity,
            code,
            object: object.to_string(),
            field: field.into(),
            message,
            fix: fix.into(),
        });
    }
}
