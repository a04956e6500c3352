//! What a cluster may see of another's records.
//!
//! Everybody sees members, ClusterPeers, grants and revocations. Of ServiceExports and
//! AccessPolicies a cluster sees its own, the policies that could allow it, and the exports that
//! serve and that such a policy targets; besides, exports of names that it exports itself, since it
//! could not explain a conflict otherwise. This is about discretion: who may *reach* a service is
//! enforced where it runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{
    AllowEntry, ClusterId, ClusterName, ObjectName, Resource, ResourceKind, ServiceName,
    TrustDomain,
};

use super::Fleet;
use super::owner::{NamespaceNode, NamespaceRecords, Owner};
use super::record::{Entry, Record};

/// Who looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visibility {
    viewer: ClusterId,
    name: Option<ClusterName>,
    domains: Vec<TrustDomain>,
    exports: BTreeSet<ServiceName>,
}

impl Visibility {
    /// A viewer that is no active member sees what nobody may be denied, and nothing else.
    pub(crate) fn of(fleet: &Fleet, viewer: &ClusterId) -> Self {
        let member = fleet.member(viewer);
        let export = |record: &Record| match record.resource() {
            Some(Resource::ServiceExport(export)) => Some(export.name.clone()),
            _ => None,
        };
        Self {
            viewer: *viewer,
            name: member.map(|member| member.name.clone()),
            domains: member.map_or_else(Vec::new, |member| member.trust_domains.clone()),
            exports: fleet.records(viewer).filter_map(export).collect(),
        }
    }

    /// The owner's records with everything left out that the viewer may not see. `idle` are the
    /// owner's exports that do not serve.
    pub(crate) fn filter(&self, owner: &Owner, idle: Option<&BTreeSet<ServiceName>>) -> Owner {
        if owner.head().cluster == self.viewer {
            return owner.clone();
        }
        let nodes = owner.nodes().iter().map(|node| self.filter_node(node, idle)).collect();
        owner.with_nodes(nodes)
    }

    fn filter_node(
        &self,
        node: &Arc<NamespaceNode>,
        idle: Option<&BTreeSet<ServiceName>>,
    ) -> Arc<NamespaceNode> {
        let NamespaceNode::Shown(namespace) = &**node else { return node.clone() };
        let targets = self.targets(namespace);
        let shown = |entry: &Entry| match entry {
            Entry::Withheld(_) => false,
            Entry::Record(record) => self.shows(record, &targets, idle),
        };
        let hidden = namespace.entries().iter().filter(|entry| !shown(entry)).count();
        if hidden == 0 {
            return node.clone();
        }
        if hidden == namespace.entries().len() {
            return Arc::new(NamespaceNode::Withheld(*node.hash()));
        }
        let hide = |entry: &Entry| match entry {
            entry if shown(entry) => entry.clone(),
            entry => Entry::Withheld(*entry.leaf()),
        };
        let entries = namespace.entries().iter().map(hide).collect();
        Arc::new(NamespaceNode::Shown(namespace.with_entries(entries)))
    }

    /// Names of exports that policies in the namespace could allow the viewer to reach.
    pub(crate) fn targets<'a>(&self, namespace: &'a NamespaceRecords) -> BTreeSet<&'a ObjectName> {
        let policies = namespace.records().filter_map(|record| match record.resource() {
            Some(Resource::AccessPolicy(policy)) if self.could_match(&policy.allow) => Some(policy),
            _ => None,
        });
        policies.flat_map(|policy| &policy.targets).collect()
    }

    fn shows(
        &self,
        record: &Record,
        targets: &BTreeSet<&ObjectName>,
        idle: Option<&BTreeSet<ServiceName>>,
    ) -> bool {
        match (record.kind(), record.resource()) {
            (Some(ResourceKind::ClusterPeer | ResourceKind::NamespaceGrant), _) => true,
            (_, Some(Resource::AccessPolicy(policy))) => self.could_match(&policy.allow),
            (_, Some(Resource::ServiceExport(export))) => {
                let serves = idle.is_none_or(|idle| !idle.contains(&export.name));
                (serves && targets.contains(&export.name.name))
                    || self.exports.contains(&export.name)
            }
            // What cannot be read cannot be judged.
            _ => false,
        }
    }

    fn could_match(&self, entries: &[AllowEntry]) -> bool {
        entries.iter().any(|entry| self.could_match_entry(entry))
    }

    /// Whether some workload of the viewer's could match (see `model::policy`).
    fn could_match_entry(&self, entry: &AllowEntry) -> bool {
        let AllowEntry { cluster, trust_domain, spiffe_id } = entry;
        if cluster.is_none() && trust_domain.is_none() && spiffe_id.is_none() {
            return false;
        }
        let id_domain = spiffe_id.as_ref().map(model::SpiffeId::trust_domain);
        cluster.as_ref().is_none_or(|cluster| self.name.as_ref() == Some(cluster))
            && trust_domain.as_ref().is_none_or(|domain| self.domains.contains(domain))
            && id_domain.is_none_or(|domain| self.domains.contains(domain))
    }
}
