//! One cluster's records under its Head: the tree of hashes over them, whole or with parts withheld.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::code::{DIGEST_WRONG, NOT_OWNER, QUOTA_EXCEEDED};
use model::{Namespace, ResourceKind};
use wire::store::limits::{RECORD_BYTES_PER_CLUSTER_MAX, RECORDS_PER_CLUSTER_MAX};
use wire::store::{Hash, Head, Member, Signed, StoreKey, digest_of_nodes, namespace_node};

use super::Refusal;
use super::limits::NAMESPACES_PER_CLUSTER_MAX;
use super::record::{Entry, Record};

/// A cluster's Head and the records under it.
#[derive(Debug, Clone)]
pub struct Owner {
    signed: Signed,
    head: Head,
    /// In order of namespaces, cluster-wide records first.
    nodes: Vec<Arc<NamespaceNode>>,
}

/// A namespace's place in the tree.
#[derive(Debug, Clone)]
pub(crate) enum NamespaceNode {
    /// Nothing of it is known but its hash.
    Withheld(Hash),
    Shown(NamespaceRecords),
}

/// A cluster's records in one namespace; some may be withheld.
#[derive(Debug, Clone)]
pub struct NamespaceRecords {
    /// `None`: the cluster-wide ones.
    namespace: Option<Namespace>,
    /// In order of keys.
    entries: Vec<Entry>,
    hash: Hash,
}

/// A step to another set of records.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) puts: Vec<Record>,
    pub(crate) removes: Vec<StoreKey>,
}

impl Owner {
    pub(crate) fn new(signed: Signed, head: Head, nodes: Vec<Arc<NamespaceNode>>) -> Self {
        Self { signed, head, nodes }
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The Head as its owner signed it.
    pub fn signed_head(&self) -> &Signed {
        &self.signed
    }

    /// The records that are known, in order of namespaces and keys.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.namespaces().flat_map(NamespaceRecords::records)
    }

    pub fn record(&self, key: &StoreKey) -> Option<&Record> {
        self.find(key.namespace.as_ref())?.find(key)
    }

    /// A namespace's records, if any of them is known.
    pub fn namespace(&self, namespace: &Namespace) -> Option<&NamespaceRecords> {
        self.find(Some(namespace))
    }

    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &NamespaceRecords> {
        self.nodes.iter().filter_map(|node| node.shown())
    }

    pub(crate) fn nodes(&self) -> &[Arc<NamespaceNode>] {
        &self.nodes
    }

    pub(crate) fn with_nodes(&self, nodes: Vec<Arc<NamespaceNode>>) -> Self {
        Self { signed: self.signed.clone(), head: self.head, nodes }
    }

    fn find(&self, namespace: Option<&Namespace>) -> Option<&NamespaceRecords> {
        self.namespaces().find(|records| records.namespace() == namespace)
    }
}

impl NamespaceNode {
    pub(crate) fn hash(&self) -> &Hash {
        match self {
            Self::Withheld(hash) => hash,
            Self::Shown(records) => &records.hash,
        }
    }

    pub(crate) fn shown(&self) -> Option<&NamespaceRecords> {
        match self {
            Self::Withheld(_) => None,
            Self::Shown(records) => Some(records),
        }
    }
}

impl NamespaceRecords {
    /// Computes the hash; `entries` are in order of their keys.
    pub(crate) fn new(namespace: Option<Namespace>, entries: Vec<Entry>) -> Self {
        let leaves = entries.iter().map(|entry| *entry.leaf());
        let hash = namespace_node(namespace.as_ref(), leaves).expect("a namespace has records");
        Self { namespace, entries, hash }
    }

    pub fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    pub(crate) fn hash(&self) -> &Hash {
        &self.hash
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.entries.iter().filter_map(Entry::record)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The same leaves, others of them withheld.
    pub(crate) fn with_entries(&self, entries: Vec<Entry>) -> Self {
        Self { namespace: self.namespace.clone(), entries, hash: self.hash }
    }

    fn find(&self, key: &StoreKey) -> Option<&Record> {
        self.records().find(|record| record.key() == key)
    }
}

/// The digest over namespaces in their order.
pub(crate) fn digest_of(nodes: &[Arc<NamespaceNode>]) -> Hash {
    digest_of_nodes(nodes.iter().map(|node| *node.hash()))
}

/// The set of records after a step. A record whose key was there before keeps the revision at which
/// it first came. Nothing is judged here but the step itself.
pub(crate) fn after(before: Option<&Owner>, step: Step) -> Vec<Arc<NamespaceNode>> {
    let mut changed = BTreeMap::<Option<Namespace>, BTreeMap<StoreKey, Option<Record>>>::new();
    for record in step.puts {
        let namespace = changed.entry(record.key().namespace.clone()).or_default();
        namespace.insert(record.key().clone(), Some(record));
    }
    for key in step.removes {
        changed.entry(key.namespace.clone()).or_default().insert(key, None);
    }
    let nodes = before.map_or(&[][..], Owner::nodes);
    let named = |node: &Arc<NamespaceNode>| {
        let namespace = node.shown().expect("the log's state has every record").namespace.clone();
        (namespace, node.clone())
    };
    let mut all: BTreeMap<_, _> = nodes.iter().map(named).collect();
    for (namespace, changes) in changed {
        let old = all.get(&namespace).and_then(|node| node.shown());
        let entries = merged(old, changes);
        if entries.is_empty() {
            all.remove(&namespace);
            continue;
        }
        let records = NamespaceRecords::new(namespace.clone(), entries);
        all.insert(namespace, Arc::new(NamespaceNode::Shown(records)));
    }
    all.into_values().collect()
}

fn merged(
    old: Option<&NamespaceRecords>,
    changes: BTreeMap<StoreKey, Option<Record>>,
) -> Vec<Entry> {
    let old = old.map_or(&[][..], NamespaceRecords::entries).iter();
    let mut entries: BTreeMap<&StoreKey, Entry> = old
        .filter_map(|entry| entry.record().map(|record| (record.key(), entry.clone())))
        .collect();
    let mut puts = Vec::new();
    for (key, change) in &changes {
        let since = entries.remove(key).and_then(|entry| entry.record().map(Record::since));
        if let Some(record) = change {
            let record = since.map_or_else(|| record.clone(), |since| record.clone().kept(since));
            puts.push((key, Entry::Record(Arc::new(record))));
        }
    }
    entries.extend(puts);
    entries.into_values().collect()
}

/// Refuses a set of records that is beyond a cluster's quota.
pub(crate) fn check_quota(nodes: &[Arc<NamespaceNode>]) -> Result<(), Refusal> {
    let shown = || nodes.iter().filter_map(|node| node.shown());
    let records: usize = shown().map(|namespace| namespace.entries.len()).sum();
    let bytes: usize = shown().flat_map(NamespaceRecords::records).map(Record::len).sum();
    let quotas = [
        ("records", records, RECORDS_PER_CLUSTER_MAX),
        ("bytes of records", bytes, RECORD_BYTES_PER_CLUSTER_MAX),
        ("namespaces", nodes.len(), NAMESPACES_PER_CLUSTER_MAX),
    ];
    for (what, have, max) in quotas {
        if have > max {
            let text = format!("{have} {what} are more than a cluster's quota of {max}");
            return Err(Refusal::new(QUOTA_EXCEEDED, text));
        }
    }
    Ok(())
}

/// Refuses records that are not those of the Head.
pub(crate) fn check_digest(head: &Head, nodes: &[Arc<NamespaceNode>]) -> Result<(), Refusal> {
    let shown = nodes.iter().filter_map(|node| node.shown());
    let records: usize = shown.map(|namespace| namespace.entries.len()).sum();
    let whole = nodes.iter().all(|node| node.shown().is_some());
    let digest = digest_of(nodes);
    let count = head.records as usize;
    if records > count || (whole && records != count) {
        let text = format!("Head.records = {count}: there are {records}; publish the whole set");
        return Err(Refusal::new(DIGEST_WRONG, text));
    }
    if digest != head.digest {
        let text = format!(
            "Head.digest = {}: the records give {}; publish the whole set again",
            hex(&head.digest),
            hex(&digest)
        );
        return Err(Refusal::new(DIGEST_WRONG, text));
    }
    Ok(())
}

/// At most one ClusterPeer, which has the member's name.
pub(crate) fn check_peer(owner: &Owner, member: &Member) -> Result<(), Refusal> {
    let peer = Some(ResourceKind::ClusterPeer);
    for record in owner.records().filter(|record| record.kind() == peer) {
        if record.key().name.as_str() != member.name.as_str() {
            let text = format!(
                "key = {}: the ClusterPeer of this member is named {}",
                record.key(),
                member.name
            );
            return Err(Refusal::new(NOT_OWNER, text));
        }
    }
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
