//! The reader's side of the watch: a view that trusts nobody but the owners' signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::code::{
    EPOCH_WRONG, EVENT_OUT_OF_ORDER, EVENT_REFUSED, NOT_A_MEMBER, OTHER_FEDERATION, ROLLED_BACK,
};
use model::{ClusterId, FederationId, Revision};
use prost::Message as _;
use wire::store::{
    self, Domain, FleetUpdate, Head, MemberChain, NamespaceUpdate, OwnerUpdate, Revocation, Signed,
    WatchEvent,
};

use super::apply::{Change, KvWrite};
use super::filter::Visibility;
use super::limits::SNAPSHOT_PARTS_MAX;
use super::member::MemberEntry;
use super::owner::{self, NamespaceNode, NamespaceRecords, Owner};
use super::proof::{Prover, malformed, verify};
use super::record::{Entry, Record};
use super::revoked::{self, Members, RevocationEntry};
use super::view::{Holdings, push_piece};
use super::{Fleet, FleetError, ViewError, kv};

/// What a Replica has verified. It goes from one revision to the next whole, or stays where it is.
///
/// A source can hold changes back. It cannot change, add, leave out or mix what owners signed, nor
/// go back behind what was seen before, nor drop a member or a revocation. (It can misstate since
/// when an export is there, within what was seen before: that decides only between exporters of one
/// name in a namespace that no grant covers.)
#[derive(Debug, Clone)]
pub struct VerifiedView {
    own: ClusterId,
    anchor: FederationId,
    fleet: Fleet,
    snapshot: Option<Snapshot>,
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewChange {
    pub revision: Revision,
    pub changes: Vec<Change>,
    /// What is to be written to disk, in order of keys.
    pub writes: Vec<KvWrite>,
}

/// A snapshot on its way.
#[derive(Debug, Clone)]
struct Snapshot {
    revision: Revision,
    parts: u32,
    update: FleetUpdate,
}

impl VerifiedView {
    /// A view of nothing, for the reader `own` of the federation `anchor`, which it knows from its
    /// join token: only what goes back to that federation's root is believed.
    pub fn new(own: ClusterId, anchor: FederationId) -> Self {
        Self { own, anchor, fleet: Fleet::default(), snapshot: None }
    }

    /// The federation that is believed.
    pub fn anchor(&self) -> FederationId {
        self.anchor
    }

    /// What was verified.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Takes an event up. `None` while a snapshot is on its way, and for a sign of life.
    ///
    /// # Errors
    /// Refuses the event, with a registered code; the view stays, and a snapshot that was on its way
    /// is thrown away. The watch is to begin anew, elsewhere unless [`ViewError::is_gap`].
    pub fn apply(&mut self, event: &WatchEvent) -> Result<Option<ViewChange>, ViewError> {
        let snapshot = self.snapshot.take();
        match event {
            WatchEvent::Alive { .. } => {
                self.snapshot = snapshot;
                Ok(None)
            }
            WatchEvent::SnapshotBegin { revision, federation } => {
                if self.anchor != *federation {
                    let text = format!("federation = {federation}: this one is {}", self.anchor);
                    return Err(ViewError::new(OTHER_FEDERATION, text));
                }
                let (revision, update) = (*revision, FleetUpdate::default());
                self.snapshot = Some(Snapshot { revision, parts: 0, update });
                Ok(None)
            }
            WatchEvent::SnapshotPart { revision, update } => {
                let mut snapshot = expected(snapshot, *revision)?;
                snapshot.take(update)?;
                self.snapshot = Some(snapshot);
                Ok(None)
            }
            WatchEvent::SnapshotEnd { revision, parts } => {
                let update = expected(snapshot, *revision)?.finish(*parts)?;
                self.take_up(*revision, &update, Extent::Whole).map(Some)
            }
            WatchEvent::Delta { from, revision, update } => {
                if snapshot.is_some() || *from != self.fleet.revision || revision <= from {
                    let text = format!(
                        "the delta leads from revision {from} to {revision}, but {} is here",
                        self.fleet.revision
                    );
                    return Err(ViewError::new(EVENT_OUT_OF_ORDER, text));
                }
                self.take_up(*revision, update, Extent::Part).map(Some)
            }
        }
    }

    /// Takes a revocation up that came by another path than the watch.
    ///
    /// # Errors
    /// Refuses one that no admin of the federation has signed.
    pub fn revoke(&mut self, revocation: &Signed) -> Result<ViewChange, ViewError> {
        let update = FleetUpdate { revocations: vec![revocation.clone()], ..Default::default() };
        self.take_up(self.fleet.revision, &update, Extent::Part)
    }

    fn take_up(
        &mut self,
        revision: Revision,
        update: &FleetUpdate,
        extent: Extent,
    ) -> Result<ViewChange, ViewError> {
        let mut next = Next::new(self, revision, extent);
        next.statements(&update.members, &update.revocations)?;
        next.owners(&update.owners)?;
        next.check_whole(update)?;
        let (fleet, change) = next.finish();
        self.fleet = fleet;
        Ok(change)
    }

    /// Everything, in order of keys; the tables of `kv` but for owners, whose records may be
    /// withheld: `o <cluster>` holds a watch event with all that is known of one.
    pub fn to_kv(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let fleet = &self.fleet;
        let mut kv = BTreeMap::from([(kv::place_key(), kv::place(fleet))]);
        for entry in fleet.entries() {
            let cluster = &entry.member().cluster;
            kv.insert(kv::member_key(cluster), kv::member(entry.chain()));
            kv.extend(entry.high_water().map(|at| (kv::mark_key(cluster), kv::mark(at))));
        }
        kv.extend(fleet.owners().map(|it| (owner_key(&it.head().cluster), owner_value(it))));
        let revocations = fleet.revocations().enumerate();
        kv.extend(revocations.map(|(n, it)| (kv::revocation_key(n), it.signed.encode())));
        kv.into_iter().collect()
    }

    /// Reads back what [`Self::to_kv`] gave, in any order, and verifies all of it again.
    ///
    /// # Errors
    /// Names what does not verify; the reader is then to begin with nothing.
    pub fn load(
        own: ClusterId,
        anchor: FederationId,
        stored: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, FleetError> {
        let (mut update, mut marks) = (FleetUpdate::default(), BTreeMap::new());
        let mut revocations = BTreeMap::new();
        let mut place = Fleet::default();
        for (key, value) in stored {
            let damaged = |problem: &dyn std::fmt::Display| kv::damaged(&key, problem);
            match key.split_first() {
                Some((b'a', [])) => place = kv::read_place(&value)?,
                Some((b'm', _)) => {
                    update.members.push(kv::read_member(&key, &value)?);
                }
                Some((b'w', id)) => {
                    marks.insert(kv::cluster_of(&key, id)?, kv::mark_of(&key, &value)?);
                }
                Some((b'v', number)) => {
                    let signed = Signed::decode(&value).map_err(|error| damaged(&error))?;
                    revocations.insert(number.to_vec(), signed);
                }
                Some((b'o', _)) => {
                    let owner = read_owner(&value).map_err(|problem| damaged(&problem))?;
                    update.owners.push(owner);
                }
                _ => return Err(damaged(&"no table of this build has such a key")),
            }
        }
        update.revocations = revocations.into_values().collect();
        let mut view = Self::new(own, anchor);
        if update.is_empty() {
            return Ok(view);
        }
        let refused = |error: ViewError| FleetError::damaged(error.text);
        view.take_up(place.revision, &update, Extent::Whole).map_err(refused)?;
        view.restore_marks(marks)?;
        Ok(view)
    }

    /// Marks of those whose Heads are not here any more.
    fn restore_marks(&mut self, marks: BTreeMap<ClusterId, store::Mark>) -> Result<(), FleetError> {
        let members = Arc::make_mut(&mut self.fleet.members);
        for (cluster, mark) in marks {
            let Some(entry) = members.get_mut(&cluster) else {
                return Err(kv::damaged(&kv::mark_key(&cluster), "no such member"));
            };
            match entry.mark {
                Some(held) if held < mark => {
                    let problem =
                        format!("the Head is at {held}, below the high-water mark {mark}");
                    return Err(kv::damaged(&kv::mark_key(&cluster), problem));
                }
                Some(_) => {}
                None if entry.is_active() => {
                    let problem = "the Head at the high-water mark is missing";
                    return Err(kv::damaged(&kv::mark_key(&cluster), problem));
                }
                None => Arc::make_mut(entry).mark = Some(mark),
            }
        }
        Ok(())
    }
}

/// How much an update says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Part,
    /// What is not in it is not there.
    Whole,
}

fn expected(snapshot: Option<Snapshot>, revision: Revision) -> Result<Snapshot, ViewError> {
    snapshot.filter(|snapshot| snapshot.revision == revision).ok_or_else(|| {
        let text = format!("a part of a snapshot of revision {revision} that has not begun");
        ViewError::new(EVENT_OUT_OF_ORDER, text)
    })
}

impl Snapshot {
    fn take(&mut self, part: &FleetUpdate) -> Result<(), ViewError> {
        self.parts += 1;
        if self.parts as usize > SNAPSHOT_PARTS_MAX {
            let text = format!("a snapshot of more than {SNAPSHOT_PARTS_MAX} parts");
            return Err(ViewError::new(EVENT_REFUSED, text));
        }
        self.update.members.extend(part.members.iter().cloned());
        self.update.revocations.extend(part.revocations.iter().cloned());
        for owner in &part.owners {
            match self.update.owners.last_mut().filter(|last| last.more) {
                None => self.update.owners.push(owner.clone()),
                Some(last) if last.cluster == owner.cluster && last.head == owner.head => {
                    last.more = owner.more;
                    let pieces = owner.namespaces.iter().cloned();
                    pieces.for_each(|piece| push_piece(&mut last.namespaces, piece));
                }
                Some(last) => {
                    let text = format!("the part does not go on with the owner {}", last.cluster);
                    return Err(ViewError::new(EVENT_OUT_OF_ORDER, text));
                }
            }
        }
        Ok(())
    }

    fn finish(self, parts: u32) -> Result<FleetUpdate, ViewError> {
        let cut = self.update.owners.last().is_some_and(|last| last.more);
        if parts != self.parts || cut {
            let text = format!("the snapshot has {parts} parts, but {} came whole", self.parts);
            return Err(ViewError::new(EVENT_OUT_OF_ORDER, text));
        }
        Ok(self.update)
    }
}

/// The view as an update would leave it. Thrown away when any of it is refused.
struct Next<'a> {
    own: &'a ClusterId,
    federation: FederationId,
    revision: Revision,
    extent: Extent,
    before: &'a Fleet,
    members: Members,
    /// Whose chain, or whose standing by revocations, is another one.
    changed_members: BTreeSet<ClusterId>,
    revocations: Vec<Arc<RevocationEntry>>,
    owners: BTreeMap<ClusterId, Arc<Owner>>,
    changed_owners: BTreeSet<ClusterId>,
}

impl<'a> Next<'a> {
    fn new(view: &'a VerifiedView, revision: Revision, extent: Extent) -> Self {
        let before = &view.fleet;
        Self {
            own: &view.own,
            federation: view.anchor,
            revision,
            extent,
            before,
            members: (*before.members).clone(),
            changed_members: BTreeSet::new(),
            revocations: (*before.revocations).clone(),
            owners: (*before.owners).clone(),
            changed_owners: BTreeSet::new(),
        }
    }

    /// Who is a member, and who is not any more.
    fn statements(
        &mut self,
        chains: &[MemberChain],
        revocations: &[Signed],
    ) -> Result<(), ViewError> {
        if chains.is_empty() && revocations.is_empty() {
            return Ok(());
        }
        let mut prover = Prover::of(self.federation, self.before);
        self.members(&mut prover, chains)?;
        self.revocations(&prover, revocations)?;
        self.derive_standing();
        Ok(())
    }

    /// Chains only ever grow.
    fn members(&mut self, prover: &mut Prover, chains: &[MemberChain]) -> Result<(), ViewError> {
        let mut to_prove = Vec::new();
        for chain in chains {
            let first = &chain.links[0].member.payload;
            let cluster = store::Member::decode(first).map_err(malformed)?.cluster;
            if !self.changed_members.insert(cluster) {
                let text = format!("the member {cluster} comes twice");
                return Err(ViewError::new(EVENT_REFUSED, text));
            }
            let known = self.members.get(&cluster);
            if let Some(known) = known {
                let (old, leave) = (&known.chain().links, &known.chain().leave);
                if !chain.links.starts_with(old) || (leave.is_some() && chain.leave != *leave) {
                    let text = format!(
                        "the chain of {} does not go on from the {} links that are known",
                        known.member().name,
                        old.len()
                    );
                    return Err(ViewError::new(ROLLED_BACK, text));
                }
            }
            let links = known.map_or_else(Vec::new, |known| known.links().to_vec());
            to_prove.push((chain.clone(), links));
        }
        for mut entry in prover.prove(to_prove)? {
            let cluster = entry.member().cluster;
            entry.mark = self.members.get(&cluster).and_then(|known| known.mark);
            self.members.insert(cluster, Arc::new(entry));
        }
        Ok(())
    }

    fn revocations(&mut self, prover: &Prover, revocations: &[Signed]) -> Result<(), ViewError> {
        for signed in revocations {
            if self.revocations.iter().any(|known| known.signed.payload == signed.payload) {
                continue;
            }
            let revocation = Revocation::decode(&signed.payload).map_err(malformed)?;
            if self.federation != revocation.federation {
                let text = "Revocation.federation: it is another federation";
                return Err(ViewError::new(OTHER_FEDERATION, text));
            }
            let issuer = &revocation.issuer;
            prover.check_admin_statement(signed, Domain::Revocation, issuer)?;
            let signed = signed.clone();
            self.revocations.push(Arc::new(RevocationEntry { signed, revocation }));
        }
        Ok(())
    }

    /// Who is active and who answers for whom, anew from all chains and revocations.
    fn derive_standing(&mut self) {
        let mut fresh: Members = Members::new();
        for (cluster, entry) in &self.members {
            let (chain, links) = (entry.chain().clone(), entry.links().to_vec());
            let mut plain = MemberEntry::new(chain, links);
            plain.mark = entry.mark;
            fresh.insert(*cluster, Arc::new(plain));
        }
        for entry in &self.revocations {
            revoked::revoke(&mut fresh, &entry.revocation);
        }
        for (cluster, entry) in &fresh {
            let old = &self.members[cluster];
            if old.status != entry.status || old.anchor != entry.anchor {
                self.changed_members.insert(*cluster);
            }
        }
        self.members = fresh;
        for (cluster, entry) in &self.members {
            if !entry.is_active() && self.owners.remove(cluster).is_some() {
                self.changed_owners.insert(*cluster);
            }
        }
    }

    fn owners(&mut self, updates: &[OwnerUpdate]) -> Result<(), ViewError> {
        for update in updates {
            if !self.changed_owners.insert(update.cluster) {
                let text = format!("the owner {} comes twice", update.cluster);
                return Err(ViewError::new(EVENT_REFUSED, text));
            }
            let (owner, entry) = self.owner(update)?;
            self.members.insert(update.cluster, Arc::new(entry));
            self.owners.insert(update.cluster, Arc::new(owner));
        }
        Ok(())
    }

    fn owner(&self, update: &OwnerUpdate) -> Result<(Owner, MemberEntry), ViewError> {
        let cluster = &update.cluster;
        let entry = self.members.get(cluster).filter(|entry| entry.is_active());
        let Some(entry) = entry else {
            let text = format!("the cluster {cluster} is no active member");
            return Err(ViewError::new(NOT_A_MEMBER, text));
        };
        let head = Head::of(&update.head).map_err(malformed)?;
        if head.cluster != *cluster || head.federation != self.federation {
            let text = format!("the Head of {} stands for {cluster}", head.cluster);
            return Err(ViewError::new(EVENT_REFUSED, text));
        }
        let held = self.before.owners.get(cluster);
        check_head(&update.head, &head, entry, held.map(|held| &**held))?;
        // In a snapshot a hash is of something withheld: the reader is to have nothing else.
        let held = held.filter(|_| self.extent == Extent::Part);
        let nodes = self.nodes(update, held.map(|held| &**held))?;
        owner::check_digest(&head, &nodes)?;
        let owner = Owner::new(update.head.clone(), head, nodes);
        owner::check_peer(&owner, entry.member())?;
        let mut entry = (**entry).clone();
        entry.mark = Some(head.mark);
        Ok((owner, entry))
    }

    fn nodes(
        &self,
        update: &OwnerUpdate,
        held: Option<&Owner>,
    ) -> Result<Vec<Arc<NamespaceNode>>, ViewError> {
        let holdings = held.map(Holdings::of);
        let mut nodes = Vec::new();
        for namespace in &update.namespaces {
            nodes.push(match namespace {
                NamespaceUpdate::Node(hash) => {
                    let known = holdings.as_ref().and_then(|held| held.node(hash)).cloned();
                    known.unwrap_or_else(|| Arc::new(NamespaceNode::Withheld(*hash)))
                }
                NamespaceUpdate::Records { namespace, entries } => {
                    let entry = |entry| self.entry(&update.cluster, entry, holdings.as_ref());
                    let entries = entries.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
                    let records = NamespaceRecords::new(namespace.clone(), entries);
                    Arc::new(NamespaceNode::Shown(records))
                }
            });
        }
        Ok(nodes)
    }

    fn entry(
        &self,
        cluster: &ClusterId,
        entry: &store::Entry,
        held: Option<&Holdings<'_>>,
    ) -> Result<Entry, ViewError> {
        let sent = match entry {
            store::Entry::Leaf(leaf) => {
                let known = held.and_then(|held| held.entry(leaf)).cloned();
                return Ok(known.unwrap_or(Entry::Withheld(*leaf)));
            }
            store::Entry::Record(sent) => sent,
        };
        let before = self.before.record(&sent.key).map(Record::since);
        let before = before.filter(|_| self.extent == Extent::Part);
        if sent.key.cluster != *cluster
            || sent.since > self.revision
            || before.is_some_and(|before| sent.since < before)
        {
            let text = format!("{}: its owner or its age ({}) is not right", sent.key, sent.since);
            return Err(ViewError::new(EVENT_REFUSED, text));
        }
        let record = Record::new(sent.key.clone(), sent.record.clone(), sent.since);
        Ok(Entry::Record(Arc::new(record)))
    }

    /// A snapshot leaves nobody out that was there before.
    fn check_whole(&mut self, update: &FleetUpdate) -> Result<(), ViewError> {
        if self.extent == Extent::Part {
            return Ok(());
        }
        let owners: BTreeSet<&ClusterId> = update.owners.iter().map(|it| &it.cluster).collect();
        for (cluster, entry) in &*self.before.members {
            if !self.changed_members.contains(cluster) {
                let text = format!("the snapshot leaves out the member {}", entry.member().name);
                return Err(ViewError::new(ROLLED_BACK, text));
            }
        }
        for (cluster, entry) in &self.members {
            if entry.is_active() && entry.mark.is_some() && !owners.contains(cluster) {
                let name = &entry.member().name;
                let text = format!("the snapshot leaves out the Head of {name}");
                return Err(ViewError::new(ROLLED_BACK, text));
            }
        }
        Ok(())
    }

    /// Forgets what the reader may not see, so that what it sees does not depend on what it saw.
    fn finish(self) -> (Fleet, ViewChange) {
        let root = self.members.values().find(|it| it.member().is_root());
        let mut fleet = Fleet {
            revision: self.revision,
            federation: Some(self.federation),
            root: root.map(|root| root.member().cluster),
            members: Arc::new(self.members),
            owners: Arc::new(self.owners),
            revocations: Arc::new(self.revocations),
            standbys: None,
        };
        let visibility = Visibility::of(&fleet, self.own);
        let all = visibility != Visibility::of(self.before, self.own);
        let mut filtered = (*fleet.owners).clone();
        for owner in filtered.values_mut() {
            if all || self.changed_owners.contains(&owner.head().cluster) {
                *owner = Arc::new(visibility.filter(owner, None));
            }
        }
        fleet.owners = Arc::new(filtered);
        let change = change(self.before, &fleet, &self.changed_members, &self.changed_owners);
        (fleet, change)
    }
}

/// A Head is signed by its owner, and not below what was seen of it before.
fn check_head(
    signed: &Signed,
    head: &Head,
    entry: &MemberEntry,
    held: Option<&Owner>,
) -> Result<(), ViewError> {
    let name = &entry.member().name;
    if let Some(mark) = entry.high_water().filter(|mark| head.mark < *mark) {
        let text = format!("the Head of {name} is {}, below {mark}, which was here", head.mark);
        return Err(ViewError::new(ROLLED_BACK, text));
    }
    if head.mark.epoch > entry.member().epoch {
        let text = format!("the Head of {name} is {}, above its epoch", head.mark);
        return Err(ViewError::new(EPOCH_WRONG, text));
    }
    if held.is_some_and(|held| held.signed_head() == signed) {
        return Ok(());
    }
    let key = entry.key_at(&head.key_id, head.mark)?;
    verify(signed, Domain::Head, &key.spki)?;
    let other = held.map(Owner::head).filter(|held| held.mark == head.mark);
    if other.is_some_and(|held| held.digest != head.digest) {
        let text = format!("{name} signed two contents for {}", head.mark);
        return Err(ViewError::new(EVENT_REFUSED, text));
    }
    Ok(())
}

fn change(
    before: &Fleet,
    now: &Fleet,
    members: &BTreeSet<ClusterId>,
    owners: &BTreeSet<ClusterId>,
) -> ViewChange {
    let mut changes = Vec::new();
    let mut writes = BTreeMap::from([(kv::place_key(), Some(kv::place(now)))]);
    for (cluster, entry) in &*now.members {
        if members.contains(cluster) {
            changes.push(Change::Member(*cluster));
            writes.insert(kv::member_key(cluster), Some(kv::member(entry.chain())));
        }
        let mark = entry.high_water().filter(|mark| before.high_water(cluster) != Some(*mark));
        writes.extend(mark.map(|mark| (kv::mark_key(cluster), Some(kv::mark(mark)))));
    }
    for cluster in now.owners.keys().chain(before.owners.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (before.owners.get(cluster), now.owners.get(cluster));
        let same = matches!((old, new), (Some(old), Some(new)) if Arc::ptr_eq(old, new));
        if !same {
            writes.insert(owner_key(cluster), new.map(|owner| owner_value(owner)));
        }
        if owners.contains(cluster) {
            changes.push(Change::Owner(*cluster));
        }
    }
    for (number, entry) in now.revocations.iter().enumerate().skip(before.revocations.len()) {
        writes.insert(kv::revocation_key(number), Some(entry.signed.encode()));
        changes.push(Change::Revocation);
    }
    let writes = writes.into_iter().map(|(key, value)| KvWrite { key, value }).collect();
    ViewChange { revision: now.revision, changes, writes }
}

fn owner_key(cluster: &ClusterId) -> Vec<u8> {
    [b"o", &cluster.as_bytes()[..]].concat()
}

fn owner_value(owner: &Owner) -> Vec<u8> {
    let update = FleetUpdate { owners: vec![owner.to_update()], ..FleetUpdate::default() };
    let revision = Revision { epoch: 1, index: 1 };
    WatchEvent::SnapshotPart { revision, update }.encode().encode_to_vec()
}

fn read_owner(value: &[u8]) -> Result<OwnerUpdate, String> {
    let event = store::proto::WatchEvent::decode(value).map_err(|error| error.to_string())?;
    match WatchEvent::decode(event).map_err(|error| error.to_string())? {
        WatchEvent::SnapshotPart { mut update, .. } if update.owners.len() == 1 => {
            Ok(update.owners.remove(0))
        }
        _ => Err("it is no part of a snapshot with one owner".into()),
    }
}
