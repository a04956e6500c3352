//! Who exports a service, as this cluster may see it: for those who ask why a request does not pass.

use model::code::EXPORT_CONFLICT;
use model::{AllowEntry, ClusterName, Diagnostic, Resource, ServiceName, ServicePort, Severity};

use super::node::Node;
use crate::fleet::{Record, Serving, View};

/// A cluster's export of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRow {
    pub cluster: ClusterName,
    pub ports: Vec<ServicePort>,
    /// Why it does not serve.
    pub idle: Option<Diagnostic>,
    /// Whether a policy that is visible here targets it.
    pub targeted: bool,
    pub allow: Vec<AllowEntry>,
}

impl Node {
    /// Answers from what lies ready: no quorum is asked. Voters hold more than their own cluster may
    /// see; they tell no more than others do.
    pub(crate) fn exports(&self, service: &ServiceName) -> Vec<ExportRow> {
        let Some(state) = self.feed.current() else { return Vec::new() };
        let serving = state.serving();
        let view = View::of(&state.fleet, serving, &self.own.id);
        let mut rows = Vec::new();
        for member in view.fleet().members() {
            let mut exported = None;
            let (mut targeted, mut allow) = (false, Vec::new());
            for record in view.fleet().records(&member.cluster) {
                match record.resource() {
                    Some(Resource::ServiceExport(export)) if export.name == *service => {
                        exported = Some((record, export));
                    }
                    Some(Resource::AccessPolicy(policy))
                        if policy.namespace == service.namespace
                            && policy.targets.contains(&service.name) =>
                    {
                        targeted = true;
                        allow.extend(policy.allow.iter().cloned());
                    }
                    _ => {}
                }
            }
            if let Some((record, export)) = exported {
                let serves = serving.serves(&member.cluster, service);
                rows.push(ExportRow {
                    cluster: member.name.clone(),
                    ports: export.ports.clone(),
                    idle: (!serves).then(|| why_idle(serving, &member.cluster, record)),
                    targeted,
                    allow,
                });
            }
        }
        rows
    }
}

fn why_idle(serving: &Serving, cluster: &model::ClusterId, record: &Record) -> Diagnostic {
    let object = record.key().to_string();
    let mut findings = serving.findings().iter();
    let found = findings
        .find(|finding| finding.cluster == *cluster && finding.diagnostic.object == object)
        .map(|finding| finding.diagnostic.clone());
    // Findings are bounded, so that this one may not be among them.
    found.unwrap_or_else(|| Diagnostic {
        severity: Severity::Error,
        code: EXPORT_CONFLICT,
        object,
        field: String::new(),
        message: "does not serve".into(),
        fix: "`fedctl diagnostics` in that cluster says why".into(),
    })
}
