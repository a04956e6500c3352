//! The watch stream: what a member may see of the federation, in steps that it can verify.

use bytes::Bytes;
use model::{ClusterId, FederationId, Namespace, Revision};

use super::convert::{cluster, copied, federation, fixed, required};
use super::key::StoreKey;
use super::limits;
use super::member::MemberChain;
use super::merkle::{Hash, digest_of_nodes, leaf_hash, namespace_node};
use super::proto::{self, entry, namespace_update, watch_event};
use super::signed::Signed;
use crate::error::{At, WireError};
use crate::resource::convert::{encode_revision, list, parse_optional, revision};

/// One message of the stream. A revision is applied whole: a snapshot's parts count at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    SnapshotBegin {
        revision: Revision,
        federation: FederationId,
    },
    SnapshotPart {
        revision: Revision,
        update: FleetUpdate,
    },
    SnapshotEnd {
        revision: Revision,
        parts: u32,
    },
    Delta {
        from: Revision,
        revision: Revision,
        update: FleetUpdate,
    },
    /// Where the sender is; it changes nothing.
    Alive {
        revision: Revision,
        alive: Alive,
    },
}

/// No change: the sender is there, and this is what it knows of the store. It comes first, and then
/// at least every few seconds, so that silence is noticed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alive {
    /// The store had a quorum a moment ago, as far as the sender knows.
    pub quorum: bool,
    /// The sender is itself fed by a watch: it may withhold what the reader may see.
    pub relayed: bool,
    /// Clusters that vote: a hint whom to be fed from.
    pub voters: Vec<ClusterId>,
}

impl Alive {
    fn from_proto(at: At<'_>, sent: proto::Alive) -> Result<Self, WireError> {
        let voter = |at: At<'_>, id: Bytes| cluster(at, &id);
        let voters = list(&at, "voters", sent.voters, limits::VOTERS_MAX, voter)?;
        Ok(Self { quorum: sent.quorum, relayed: sent.relayed, voters })
    }

    fn to_proto(&self) -> proto::Alive {
        let voters = self.voters.iter().map(|id| copied(id.as_bytes())).collect();
        proto::Alive { quorum: self.quorum, relayed: self.relayed, voters }
    }
}

/// What became otherwise; in a snapshot, a part of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetUpdate {
    pub members: Vec<MemberChain>,
    pub revocations: Vec<Signed>,
    pub owners: Vec<OwnerUpdate>,
}

/// An owner with everything that the reader may see of it. What it may not see, and what it has
/// already, are hashes, so that the reader arrives at the Head's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerUpdate {
    pub cluster: ClusterId,
    pub head: Signed,
    pub namespaces: Vec<NamespaceUpdate>,
    /// In a snapshot: the next part begins with more of this owner. A namespace that both name is
    /// one.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceUpdate {
    /// The namespace's node: withheld, or as the reader has it.
    Node(Hash),
    Records {
        namespace: Option<Namespace>,
        entries: Vec<Entry>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The record's leaf: withheld, or as the reader has it.
    Leaf(Hash),
    Record(RecordEntry),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordEntry {
    pub key: StoreKey,
    pub record: Bytes,
    /// When a record of this key first came, without a gap since. Nobody signs it: it decides only
    /// between exporters of one name without a NamespaceGrant.
    pub since: Revision,
}

impl Entry {
    pub fn leaf(&self) -> Hash {
        match self {
            Self::Leaf(hash) => *hash,
            Self::Record(entry) => leaf_hash(&entry.key.encode(), &entry.record),
        }
    }
}

impl NamespaceUpdate {
    /// `None` for a namespace without entries, which [`OwnerUpdate`] does not have when decoded.
    pub fn node(&self) -> Option<Hash> {
        match self {
            Self::Node(hash) => Some(*hash),
            Self::Records { namespace, entries } => {
                namespace_node(namespace.as_ref(), entries.iter().map(Entry::leaf))
            }
        }
    }
}

impl OwnerUpdate {
    /// The digest that the Head must have, for an update that is not continued.
    pub fn digest(&self) -> Hash {
        digest_of_nodes(self.namespaces.iter().filter_map(NamespaceUpdate::node))
    }
}

impl WatchEvent {
    pub fn revision(&self) -> Revision {
        match self {
            Self::SnapshotBegin { revision, .. }
            | Self::SnapshotPart { revision, .. }
            | Self::SnapshotEnd { revision, .. }
            | Self::Delta { revision, .. }
            | Self::Alive { revision, .. } => *revision,
        }
    }

    pub fn decode(event: proto::WatchEvent) -> Result<Self, WireError> {
        Self::decode_at(At::message("WatchEvent"), event)
    }

    pub(super) fn decode_at(at: At<'_>, sent: proto::WatchEvent) -> Result<Self, WireError> {
        use watch_event::Event;
        let revision = revision(at.field("revision"), sent.revision)?;
        match sent.event {
            Some(Event::SnapshotBegin(x)) => {
                let at = at.field("snapshot_begin");
                let federation = federation(at.field("federation"), &x.federation)?;
                Ok(Self::SnapshotBegin { revision, federation })
            }
            Some(Event::SnapshotPart(x)) => {
                let update = FleetUpdate::from_proto(at.field("snapshot_part"), x, true)?;
                Ok(Self::SnapshotPart { revision, update })
            }
            Some(Event::SnapshotEnd(x)) => Ok(Self::SnapshotEnd { revision, parts: x.parts }),
            Some(Event::Delta(x)) => delta(at.field("delta"), revision, x),
            Some(Event::Alive(x)) => {
                let alive = Alive::from_proto(at.field("alive"), x)?;
                Ok(Self::Alive { revision, alive })
            }
            None => {
                let fix = "it is empty or newer than this build; watch from a node of your version";
                Err(at.field("event").missing(fix))
            }
        }
    }

    pub fn encode(&self) -> proto::WatchEvent {
        use watch_event::Event;
        let event = match self {
            Self::SnapshotBegin { federation, .. } => {
                let federation = copied(federation.as_bytes());
                Event::SnapshotBegin(proto::SnapshotBegin { federation })
            }
            Self::SnapshotPart { update, .. } => Event::SnapshotPart(update.to_proto()),
            Self::SnapshotEnd { parts, .. } => {
                Event::SnapshotEnd(proto::SnapshotEnd { parts: *parts })
            }
            Self::Delta { from, update, .. } => Event::Delta(proto::FleetDelta {
                from: Some(encode_revision(*from)),
                update: Some(update.to_proto()),
            }),
            Self::Alive { alive, .. } => Event::Alive(alive.to_proto()),
        };
        let revision = Some(encode_revision(self.revision()));
        proto::WatchEvent { revision, event: Some(event) }
    }
}

fn delta(at: At<'_>, to: Revision, sent: proto::FleetDelta) -> Result<WatchEvent, WireError> {
    let from = revision(at.field("from"), sent.from)?;
    if from >= to {
        let problem = format!("it must be before the event's revision, {to}");
        return Err(at.field("from").refuse(format_args!("{from}"), problem));
    }
    let update = required(at.field("update"), sent.update, "a delta changes something")?;
    let update = FleetUpdate::from_proto(at.field("update"), update, false)?;
    Ok(WatchEvent::Delta { from, revision: to, update })
}

impl FleetUpdate {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn from_proto(at: At<'_>, sent: proto::FleetUpdate, snapshot: bool) -> Result<Self, WireError> {
        let owner = |at: At<'_>, owner| OwnerUpdate::from_proto(at, owner, snapshot);
        let max = limits::MEMBERS_MAX;
        Ok(Self {
            members: list(&at, "members", sent.members, max, MemberChain::from_proto)?,
            revocations: signed_list(&at, sent.revocations)?,
            owners: list(&at, "owners", sent.owners, max, owner)?,
        })
    }

    fn to_proto(&self) -> proto::FleetUpdate {
        proto::FleetUpdate {
            members: self.members.iter().map(MemberChain::to_proto).collect(),
            revocations: self.revocations.iter().map(Signed::to_proto).collect(),
            owners: self.owners.iter().map(OwnerUpdate::to_proto).collect(),
        }
    }
}

pub(super) fn signed_list(at: &At<'_>, sent: Vec<proto::Signed>) -> Result<Vec<Signed>, WireError> {
    list(at, "revocations", sent, limits::REVOCATIONS_MAX, Signed::from_proto)
}

impl OwnerUpdate {
    fn from_proto(at: At<'_>, sent: proto::OwnerUpdate, snapshot: bool) -> Result<Self, WireError> {
        let cluster = cluster(at.field("cluster"), &sent.cluster)?;
        if sent.more && !snapshot {
            let problem = "only a snapshot is sent in parts; send a delta whole";
            return Err(at.field("more").refuse(true, problem));
        }
        let max = limits::UPDATE_ENTRIES_MAX;
        let namespace = |at: At<'_>, sent| namespace_update(at, &cluster, sent);
        let namespaces = list(&at, "namespaces", sent.namespaces, max, namespace)?;
        check_order(&at, &namespaces)?;
        let head = Signed::required(at.field("head"), sent.head)?;
        Ok(Self { cluster, head, namespaces, more: sent.more })
    }

    fn to_proto(&self) -> proto::OwnerUpdate {
        proto::OwnerUpdate {
            cluster: copied(self.cluster.as_bytes()),
            head: Some(self.head.to_proto()),
            namespaces: self.namespaces.iter().map(NamespaceUpdate::to_proto).collect(),
            more: self.more,
        }
    }
}

/// Namespaces that are named ascend; where a hash stands is for the digest to judge.
fn check_order(at: &At<'_>, namespaces: &[NamespaceUpdate]) -> Result<(), WireError> {
    let mut before: Option<&Option<Namespace>> = None;
    for (index, update) in namespaces.iter().enumerate() {
        let NamespaceUpdate::Records { namespace, .. } = update else { continue };
        if before.is_some_and(|before| before >= namespace) {
            let shown = namespace.as_ref().map_or("", Namespace::as_str);
            let problem = "namespaces come in ascending order, each once";
            return Err(at.entry("namespaces", index).refuse(shown, problem));
        }
        before = Some(namespace);
    }
    Ok(())
}

fn namespace_update(
    at: At<'_>,
    owner: &ClusterId,
    sent: proto::NamespaceUpdate,
) -> Result<NamespaceUpdate, WireError> {
    use namespace_update::Content;
    let records = match sent.content {
        Some(Content::Node(hash)) => {
            return Ok(NamespaceUpdate::Node(fixed(at.field("node"), &hash)?));
        }
        Some(Content::Records(records)) => records,
        None => return Err(at.missing("set node or records")),
    };
    let at = at.field("records");
    let namespace = parse_optional(at.field("namespace"), &records.namespace, Namespace::parse)?;
    let entry = |at: At<'_>, sent: proto::Entry| match sent.content {
        Some(entry::Content::Leaf(hash)) => Ok(Entry::Leaf(fixed(at.field("leaf"), &hash)?)),
        Some(entry::Content::Record(record)) => {
            let at = at.field("record");
            let entry = RecordEntry::from_proto(at, record)?;
            if entry.key.cluster != *owner || entry.key.namespace != namespace {
                let problem = "the record is of another cluster or namespace than its place";
                return Err(at.field("key").refuse(format_args!("{}", entry.key), problem));
            }
            Ok(Entry::Record(entry))
        }
        None => Err(at.missing("set leaf or record")),
    };
    let entries = list(&at, "entries", records.entries, limits::UPDATE_ENTRIES_MAX, entry)?;
    if entries.is_empty() {
        return Err(at.field("entries").missing("a namespace without records is left out"));
    }
    check_keys(&at, &entries)?;
    Ok(NamespaceUpdate::Records { namespace, entries })
}

fn check_keys(at: &At<'_>, entries: &[Entry]) -> Result<(), WireError> {
    let mut before: Option<&StoreKey> = None;
    for (index, entry) in entries.iter().enumerate() {
        let Entry::Record(RecordEntry { key, .. }) = entry else { continue };
        if before.is_some_and(|before| before >= key) {
            let problem = "records come in ascending order of keys, each once";
            return Err(at.entry("entries", index).refuse(format_args!("{key}"), problem));
        }
        before = Some(key);
    }
    Ok(())
}

impl NamespaceUpdate {
    fn to_proto(&self) -> proto::NamespaceUpdate {
        use namespace_update::Content;
        let content = match self {
            Self::Node(hash) => Content::Node(copied(hash)),
            Self::Records { namespace, entries } => Content::Records(proto::NamespaceRecords {
                namespace: namespace.as_ref().map(ToString::to_string).unwrap_or_default(),
                entries: entries.iter().map(Entry::to_proto).collect(),
            }),
        };
        proto::NamespaceUpdate { content: Some(content) }
    }
}

impl Entry {
    fn to_proto(&self) -> proto::Entry {
        let content = match self {
            Self::Leaf(hash) => entry::Content::Leaf(copied(hash)),
            Self::Record(record) => entry::Content::Record(record.to_proto()),
        };
        proto::Entry { content: Some(content) }
    }
}

impl RecordEntry {
    pub(super) fn from_proto(at: At<'_>, sent: proto::RecordEntry) -> Result<Self, WireError> {
        at.field("record").check_bytes(sent.record.len(), limits::RECORD_BYTES_MAX)?;
        if sent.record.is_empty() {
            return Err(at.field("record").missing("send the record's bytes"));
        }
        Ok(Self {
            key: StoreKey::decode_at(at.field("key"), &sent.key)?,
            record: sent.record,
            since: revision(at.field("since"), sent.since)?,
        })
    }

    pub(super) fn to_proto(&self) -> proto::RecordEntry {
        proto::RecordEntry {
            key: self.key.encode().into(),
            record: self.record.clone(),
            since: Some(encode_revision(self.since)),
        }
    }
}
