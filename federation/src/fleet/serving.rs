//! Which exports serve: a pure function of the fleet. Grants and conflicts refuse nothing in the
//! log; they decide here, and every reader decides alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::code::{
    EXPORT_CONFLICT, EXPORT_NOT_GRANTED, GRANT_WITHOUT_ROLE, OBJECT_INVALID, ROLE_MISSING,
};
use model::{
    ClusterId, ClusterName, Diagnostic, Namespace, NamespaceGrant, Resource, Revision, Role,
    ServiceExport, ServiceName, ServicePort, Severity,
};

use super::limits::DIAGNOSTICS_MAX;
use super::{Fleet, Record};

/// An export in service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exporter {
    pub cluster: ClusterId,
    pub name: ClusterName,
    /// The revision at which the export first came.
    pub since: Revision,
    pub ports: Vec<ServicePort>,
}

/// What was found about an object of a cluster's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub cluster: ClusterId,
    pub diagnostic: Diagnostic,
}

/// The outcome of [`serving`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    services: BTreeMap<ServiceName, Vec<Exporter>>,
    idle: BTreeMap<ClusterId, Arc<BTreeSet<ServiceName>>>,
    findings: Vec<Finding>,
}

impl Serving {
    /// Who serves, oldest export first. Several only where a grant names them.
    pub fn exporters(&self, service: &ServiceName) -> &[Exporter] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }

    pub fn services(&self) -> impl Iterator<Item = (&ServiceName, &[Exporter])> {
        self.services.iter().map(|(name, exporters)| (name, exporters.as_slice()))
    }

    pub fn serves(&self, cluster: &ClusterId, service: &ServiceName) -> bool {
        self.exporters(service).iter().any(|exporter| exporter.cluster == *cluster)
    }

    /// Exports of a cluster that do not serve.
    pub(crate) fn idle(&self, cluster: &ClusterId) -> Option<&Arc<BTreeSet<ServiceName>>> {
        self.idle.get(cluster)
    }

    /// Conflicts, and grants that do not count; the first [`DIAGNOSTICS_MAX`].
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    fn find(&mut self, candidate: &Candidate<'_>, verdict: &Verdict<'_>) {
        let idle = self.idle.entry(candidate.cluster).or_default();
        Arc::make_mut(idle).insert(candidate.export.name.clone());
        let object = candidate.record.key().to_string();
        let service = &candidate.export.name;
        let (code, message, fix) = match verdict {
            Verdict::NotGranted => (
                EXPORT_NOT_GRANTED,
                format!(
                    "the namespace {} is granted to other clusters than {}",
                    service.namespace, candidate.name
                ),
                "ask an admin of the federation to add the cluster to the NamespaceGrant",
            ),
            Verdict::NotFirst(first) => (
                EXPORT_CONFLICT,
                format!("{} exports {service} since {} and serves it", first.name, first.since),
                "rename the service, or ask an admin to grant the namespace to both clusters",
            ),
            Verdict::NoRole => (
                ROLE_MISSING,
                format!("the cluster {} lacks the role export", candidate.name),
                "ask an admin of the federation for the role",
            ),
        };
        let message = format!("does not serve: {message}");
        self.report(candidate.cluster, object, code, Severity::Error, message, fix);
    }

    fn report(
        &mut self,
        cluster: ClusterId,
        object: String,
        code: model::code::Code,
        severity: Severity,
        message: String,
        fix: &str,
    ) {
        if self.findings.len() < DIAGNOSTICS_MAX {
            let (field, fix) = (String::new(), fix.into());
            let diagnostic = Diagnostic { severity, code, object, field, message, fix };
            self.findings.push(Finding { cluster, diagnostic });
        }
    }
}

/// Decides which export serves each name.
///
/// A namespace that a grant of an admin's covers is served by the clusters that grants name, all of
/// them together. In any other namespace the first exporter of a name serves alone, by the revision
/// at which its export came; equal revisions (one command) cannot be of two clusters.
pub fn serving(fleet: &Fleet) -> Serving {
    let mut outcome = Serving::default();
    let grants = grants(fleet, &mut outcome);
    for (service, mut candidates) in candidates(fleet, &mut outcome) {
        candidates.sort_by_key(|candidate| (candidate.record.since(), candidate.cluster));
        let granted = grants.of(&service.namespace);
        let mut exporters: Vec<Exporter> = Vec::new();
        for candidate in &candidates {
            let verdict = match (&granted, exporters.first()) {
                _ if !candidate.may_export => Some(Verdict::NoRole),
                (Some(names), _) if !names.contains(candidate.name) => Some(Verdict::NotGranted),
                (None, Some(first)) => Some(Verdict::NotFirst(first)),
                _ => None,
            };
            match verdict {
                Some(verdict) => outcome.find(candidate, &verdict),
                None => exporters.push(candidate.exporter()),
            }
        }
        if !exporters.is_empty() {
            outcome.services.insert(service, exporters);
        }
    }
    outcome
}

/// Why an export does not serve.
enum Verdict<'a> {
    NoRole,
    NotGranted,
    NotFirst(&'a Exporter),
}

struct Candidate<'a> {
    cluster: ClusterId,
    name: &'a ClusterName,
    may_export: bool,
    record: &'a Record,
    export: &'a ServiceExport,
}

impl Candidate<'_> {
    fn exporter(&self) -> Exporter {
        let (name, since) = (self.name.clone(), self.record.since());
        Exporter { cluster: self.cluster, name, since, ports: self.export.ports.clone() }
    }
}

/// Every export that can be read, and findings about records that cannot.
fn candidates<'a>(
    fleet: &'a Fleet,
    outcome: &mut Serving,
) -> BTreeMap<ServiceName, Vec<Candidate<'a>>> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for member in fleet.members() {
        let may_export = member.roles.contains(Role::Export);
        for record in fleet.records(&member.cluster) {
            if let Some(problem) = record.problem() {
                let (object, fix) = (record.key().to_string(), "mend the object in its cluster");
                let (code, error) = (OBJECT_INVALID, Severity::Error);
                outcome.report(member.cluster, object, code, error, problem.into(), fix);
            }
            let Some(Resource::ServiceExport(export)) = record.resource() else { continue };
            let (cluster, name) = (member.cluster, &member.name);
            let candidate = Candidate { cluster, name, may_export, record, export };
            found.entry(export.name.clone()).or_default().push(candidate);
        }
    }
    found
}

/// Grants that count.
struct Grants<'a>(Vec<&'a NamespaceGrant>);

fn grants<'a>(fleet: &'a Fleet, outcome: &mut Serving) -> Grants<'a> {
    let mut counting = Vec::new();
    for member in fleet.members() {
        for record in fleet.records(&member.cluster) {
            let Some(Resource::NamespaceGrant(grant)) = record.resource() else { continue };
            if member.roles.contains(Role::Admin) {
                counting.push(grant);
                continue;
            }
            let message = format!("the cluster {} lacks the role admin", member.name);
            let fix = "create the grant in a cluster that has the role";
            let (object, warning) = (record.key().to_string(), Severity::Warning);
            outcome.report(member.cluster, object, GRANT_WITHOUT_ROLE, warning, message, fix);
        }
    }
    Grants(counting)
}

impl<'a> Grants<'a> {
    /// The clusters that may export in the namespace; `None` where no grant speaks of it.
    fn of(&self, namespace: &Namespace) -> Option<BTreeSet<&'a ClusterName>> {
        let mut covering = self.0.iter().filter(|grant| grant.covers(namespace)).peekable();
        covering.peek()?;
        Some(covering.flat_map(|grant| &grant.clusters).collect())
    }
}
