//! What one reader may see of the fleet, and the watch events that lead it there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{ClusterId, FederationId, Revision, ServiceName};
use prost::Message as _;
use wire::store::limits::SNAPSHOT_PART_BYTES;
use wire::store::{self, FleetUpdate, Hash, NamespaceUpdate, OwnerUpdate, RecordEntry, WatchEvent};

use super::filter::Visibility;
use super::limits::DELTA_BYTES_MAX;
use super::owner::{NamespaceNode, NamespaceRecords, Owner};
use super::record::{Entry, Record};
use super::{Fleet, Serving};

/// The fleet as one cluster may see it, made by whoever knows more.
///
/// It is a function of the fleet and the reader, so any node that has the fleet at a revision can go
/// on where another one stopped.
#[derive(Debug, Clone)]
pub struct View {
    viewer: ClusterId,
    visibility: Visibility,
    full: Fleet,
    idle: BTreeMap<ClusterId, Arc<BTreeSet<ServiceName>>>,
    shown: Fleet,
}

/// How a reader gets from one view to a later one.
#[derive(Debug, Clone, PartialEq)]
pub enum ViewStep {
    /// Nothing that concerns the reader has changed: it may stay at its revision.
    Nothing,
    Delta(WatchEvent),
    /// A delta would be too long, or could not say what has to go: send [`View::snapshot`].
    Snapshot,
}

impl View {
    /// `serving` is that of the same fleet; it is the same for all viewers.
    pub fn of(fleet: &Fleet, serving: &Serving, viewer: &ClusterId) -> Self {
        Self::build(fleet, serving, viewer, None)
    }

    /// The view of a later fleet; what did not change is taken over.
    pub fn at(&self, fleet: &Fleet, serving: &Serving) -> Self {
        Self::build(fleet, serving, &self.viewer, Some(self))
    }

    fn build(fleet: &Fleet, serving: &Serving, viewer: &ClusterId, old: Option<&Self>) -> Self {
        let visibility = Visibility::of(fleet, viewer);
        let old = old.filter(|old| old.visibility == visibility);
        let (mut owners, mut idle) = (BTreeMap::new(), BTreeMap::new());
        for (cluster, owner) in &*fleet.owners {
            let now_idle = serving.idle(cluster);
            idle.extend(now_idle.map(|set| (*cluster, set.clone())));
            let same = |old: &&Self| {
                old.full.owners.get(cluster).is_some_and(|old| Arc::ptr_eq(old, owner))
                    && old.idle.get(cluster) == now_idle
            };
            let kept = old.filter(same).and_then(|old| old.shown.owners.get(cluster)).cloned();
            let filter = || Arc::new(visibility.filter(owner, now_idle.map(|set| &**set)));
            owners.insert(*cluster, kept.unwrap_or_else(filter));
        }
        let shown = Fleet { owners: Arc::new(owners), ..fleet.clone() };
        Self { viewer: *viewer, visibility, full: fleet.clone(), idle, shown }
    }

    /// What the viewer sees.
    pub fn fleet(&self) -> &Fleet {
        &self.shown
    }

    pub fn viewer(&self) -> &ClusterId {
        &self.viewer
    }

    pub fn revision(&self) -> Revision {
        self.shown.revision
    }

    /// The step from an earlier view of the same viewer. `from` is where the reader is: the revision
    /// of the last event that it was sent, which may be below that of `before` when nothing in
    /// between concerned it.
    pub fn step_from(&self, before: &Self, from: Revision) -> ViewStep {
        let old = &before.shown;
        let mut update = FleetUpdate::default();
        for (cluster, entry) in &*self.shown.members {
            let same = |old: &&Arc<super::MemberEntry>| {
                Arc::ptr_eq(old, entry) || old.chain() == entry.chain()
            };
            if old.members.get(cluster).filter(same).is_none() {
                update.members.push(entry.chain().clone());
            }
        }
        let revocations = self.shown.revocations.iter().skip(old.revocations.len());
        update.revocations = revocations.map(|entry| entry.signed.clone()).collect();
        for (cluster, owner) in &*self.shown.owners {
            let held = old.owners.get(cluster);
            if held.is_some_and(|held| Arc::ptr_eq(held, owner) || same_view(held, owner)) {
                continue;
            }
            if held.is_some_and(|held| self.would_keep(held, owner)) {
                return ViewStep::Snapshot;
            }
            let full = self.full.owner(cluster);
            update.owners.push(owner_update(owner, full, held.map(|held| &**held)));
        }
        if update.is_empty() {
            return ViewStep::Nothing;
        }
        let event = WatchEvent::Delta { from, revision: self.revision(), update };
        if event.encode().encoded_len() > DELTA_BYTES_MAX {
            return ViewStep::Snapshot;
        }
        ViewStep::Delta(event)
    }

    /// Whether the reader would go on to see what it is to forget: a hash stands for a record that it
    /// holds as well as for one that it may not see. It forgets what its own filter hides, but an
    /// export that another one keeps from serving may be such that it cannot know of.
    fn would_keep(&self, held: &Owner, now: &Owner) -> bool {
        let held = Holdings::of(held);
        let nodes = now.nodes().iter().map(|node| held.resolve_node(node)).collect();
        let kept = self.visibility.filter(&now.with_nodes(nodes), None);
        !same_view(&kept, now)
    }

    /// Everything, for a reader that has nothing; in parts of about a mebibyte.
    pub fn snapshot(&self) -> Vec<WatchEvent> {
        let revision = self.revision();
        let federation = self.shown.federation.unwrap_or(FederationId::from_bytes([0; 16]));
        let mut parts = Parts { revision, ..Parts::default() };
        for entry in self.shown.entries() {
            let chain = entry.chain().clone();
            parts.make_room(chain.encode().len());
            parts.part.members.push(chain);
        }
        for entry in self.shown.revocations() {
            parts.make_room(entry.signed.payload.len() + 128);
            parts.part.revocations.push(entry.signed.clone());
        }
        for owner in self.shown.owners() {
            parts.push_owner(owner.to_update());
        }
        parts.finish();
        let Parts { events, .. } = parts;
        let count = u32::try_from(events.len()).expect("parts are bounded by the fleet's size");
        let mut all = vec![WatchEvent::SnapshotBegin { revision, federation }];
        all.extend(events);
        all.push(WatchEvent::SnapshotEnd { revision, parts: count });
        all
    }
}

/// Whether a reader that holds the one has the other: the same Head and the same shown records.
fn same_view(old: &Owner, new: &Owner) -> bool {
    old.signed_head() == new.signed_head() && {
        let (old, new) = (old.nodes(), new.nodes());
        old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same_node(old, new))
    }
}

fn same_node(old: &Arc<NamespaceNode>, new: &Arc<NamespaceNode>) -> bool {
    if Arc::ptr_eq(old, new) {
        return true;
    }
    if old.hash() != new.hash() {
        return false;
    }
    let shown = |node: &NamespaceNode| -> Vec<(Hash, Revision)> {
        let records = node.shown().into_iter().flat_map(NamespaceRecords::records);
        records.map(|record| (*record.leaf(), record.since())).collect()
    };
    shown(old) == shown(new)
}

/// What a reader holds of an owner, by hash.
pub(in crate::fleet) struct Holdings<'a> {
    nodes: BTreeMap<Hash, &'a Arc<NamespaceNode>>,
    records: BTreeMap<Hash, &'a Entry>,
}

impl<'a> Holdings<'a> {
    pub(in crate::fleet) fn of(owner: &'a Owner) -> Self {
        let shown = owner.nodes().iter().filter(|node| node.shown().is_some());
        let entries = owner.namespaces().flat_map(NamespaceRecords::entries);
        let records = entries.filter(|entry| entry.record().is_some());
        Self {
            nodes: shown.map(|node| (*node.hash(), node)).collect(),
            records: records.map(|entry| (*entry.leaf(), entry)).collect(),
        }
    }

    pub(in crate::fleet) fn node(&self, hash: &Hash) -> Option<&'a Arc<NamespaceNode>> {
        self.nodes.get(hash).copied()
    }

    pub(in crate::fleet) fn entry(&self, leaf: &Hash) -> Option<&'a Entry> {
        self.records.get(leaf).copied()
    }

    /// As a reader takes it that gets hashes for what is withheld.
    fn resolve_node(&self, node: &Arc<NamespaceNode>) -> Arc<NamespaceNode> {
        let Some(namespace) = node.shown() else {
            return self.node(node.hash()).unwrap_or(node).clone();
        };
        let resolve = |entry: &Entry| match entry {
            Entry::Withheld(leaf) => self.entry(leaf).unwrap_or(entry).clone(),
            Entry::Record(_) => entry.clone(),
        };
        let entries = namespace.entries().iter().map(resolve).collect();
        Arc::new(NamespaceNode::Shown(namespace.with_entries(entries)))
    }
}

impl Owner {
    /// All that is known of the owner, for a reader that holds nothing of it.
    pub(in crate::fleet) fn to_update(&self) -> OwnerUpdate {
        owner_update(self, None, None)
    }
}

/// `full` is the same owner with nothing withheld that the sender knows, `held` what the reader has.
fn owner_update(owner: &Owner, full: Option<&Owner>, held: Option<&Owner>) -> OwnerUpdate {
    let held = held.map(Holdings::of);
    let namespaces = owner.nodes().iter().map(|node| namespace_update(node, full, held.as_ref()));
    OwnerUpdate {
        cluster: owner.head().cluster,
        head: owner.signed_head().clone(),
        namespaces: namespaces.collect(),
        more: false,
    }
}

fn namespace_update(
    node: &Arc<NamespaceNode>,
    full: Option<&Owner>,
    held: Option<&Holdings<'_>>,
) -> NamespaceUpdate {
    let held_node = held.and_then(|held| held.node(node.hash()));
    let records = match (&**node, held_node) {
        (_, Some(held)) if same_node(held, node) => return NamespaceUpdate::Node(*node.hash()),
        (NamespaceNode::Shown(records), _) => records,
        (NamespaceNode::Withheld(hash), None) => return NamespaceUpdate::Node(*hash),
        // The node's hash would say that the reader keeps what it has, so every leaf is named.
        (NamespaceNode::Withheld(hash), Some(_)) => {
            let known = full.and_then(|full| full.namespaces().find(|it| it.hash() == hash));
            let Some(known) = known else { return NamespaceUpdate::Node(*hash) };
            let leaf = |entry: &Entry| store::Entry::Leaf(*entry.leaf());
            let entries = known.entries().iter().map(leaf).collect();
            return NamespaceUpdate::Records { namespace: known.namespace().cloned(), entries };
        }
    };
    let entry = |entry: &Entry| match entry {
        Entry::Withheld(leaf) => store::Entry::Leaf(*leaf),
        Entry::Record(record) if has(held, record) => store::Entry::Leaf(*record.leaf()),
        Entry::Record(record) => store::Entry::Record(RecordEntry {
            key: record.key().clone(),
            record: record.bytes().clone(),
            since: record.since(),
        }),
    };
    let entries = records.entries().iter().map(entry).collect();
    NamespaceUpdate::Records { namespace: records.namespace().cloned(), entries }
}

fn has(held: Option<&Holdings<'_>>, record: &Record) -> bool {
    let entry = held.and_then(|held| held.entry(record.leaf()));
    entry.and_then(Entry::record).is_some_and(|held| held.since() == record.since())
}

/// Fills snapshot parts up to their size.
#[derive(Default)]
struct Parts {
    revision: Revision,
    part: FleetUpdate,
    bytes: usize,
    events: Vec<WatchEvent>,
}

impl Parts {
    /// Begins another part when this one has no room for as many bytes.
    fn make_room(&mut self, bytes: usize) {
        if self.bytes > 0 && self.bytes + bytes > SNAPSHOT_PART_BYTES {
            self.finish();
        }
        self.bytes += bytes;
    }

    fn finish(&mut self) {
        if !self.part.is_empty() {
            let (update, revision) = (std::mem::take(&mut self.part), self.revision);
            self.events.push(WatchEvent::SnapshotPart { revision, update });
        }
        self.bytes = 0;
    }

    /// One owner, over several parts if it is large. A namespace that is cut goes on under its name
    /// in the next part.
    fn push_owner(&mut self, owner: OwnerUpdate) {
        let OwnerUpdate { cluster, head, namespaces, .. } = owner;
        let empty = |more| OwnerUpdate { cluster, head: head.clone(), namespaces: vec![], more };
        self.make_room(head.payload.len() + 256);
        let mut open = empty(false);
        for namespace in namespaces {
            for piece in pieces(namespace) {
                let bytes = piece_bytes(&piece);
                if self.bytes + bytes > SNAPSHOT_PART_BYTES && !open.namespaces.is_empty() {
                    open.more = true;
                    self.part.owners.push(std::mem::replace(&mut open, empty(false)));
                    self.finish();
                    self.bytes = head.payload.len() + 256;
                }
                self.bytes += bytes;
                push_piece(&mut open.namespaces, piece);
            }
        }
        self.part.owners.push(open);
    }
}

/// A namespace cut into its entries, each under its name.
fn pieces(namespace: NamespaceUpdate) -> Vec<NamespaceUpdate> {
    match namespace {
        NamespaceUpdate::Node(_) => vec![namespace],
        NamespaceUpdate::Records { namespace, entries } => entries
            .into_iter()
            .map(|entry| NamespaceUpdate::Records {
                namespace: namespace.clone(),
                entries: vec![entry],
            })
            .collect(),
    }
}

fn piece_bytes(piece: &NamespaceUpdate) -> usize {
    match piece {
        NamespaceUpdate::Node(_) => 40,
        NamespaceUpdate::Records { entries, .. } => {
            let entry = |entry: &store::Entry| match entry {
                store::Entry::Leaf(_) => 40,
                store::Entry::Record(it) => it.record.len() + it.key.encode().len() + 48,
            };
            64 + entries.iter().map(entry).sum::<usize>()
        }
    }
}

/// Puts a piece to the others of its namespace.
pub(in crate::fleet) fn push_piece(namespaces: &mut Vec<NamespaceUpdate>, piece: NamespaceUpdate) {
    if let (
        Some(NamespaceUpdate::Records { namespace: last, entries }),
        NamespaceUpdate::Records { namespace, entries: more },
    ) = (namespaces.last_mut(), &piece)
        && last == namespace
    {
        entries.extend(more.iter().cloned());
        return;
    }
    namespaces.push(piece);
}
