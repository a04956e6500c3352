//! The reader's side of the watch: a view that trusts nobody but the owners' signatures.

mod next;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::code::{EVENT_OUT_OF_ORDER, EVENT_REFUSED, OTHER_FEDERATION};
use model::{ClusterId, FederationId, Revision};
use prost::Message as _;
use wire::store::{self, FleetUpdate, OwnerUpdate, Signed, WatchEvent};

use self::next::Next;
use super::apply::{Change, KvWrite};
use super::limits::SNAPSHOT_PARTS_MAX;
use super::owner::Owner;
use super::view::push_piece;
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
