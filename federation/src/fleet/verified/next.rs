//! One step of a reader's: everything about it is verified before any of it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::code::{EPOCH_WRONG, EVENT_REFUSED, NOT_A_MEMBER, OTHER_FEDERATION, ROLLED_BACK};
use model::{ClusterId, FederationId, Revision};
use wire::store::{
    self, Domain, FleetUpdate, Head, MemberChain, NamespaceUpdate, OwnerUpdate, Revocation, Signed,
};

use super::{Extent, VerifiedView, ViewChange, change};
use crate::fleet::filter::Visibility;
use crate::fleet::member::{MemberEntry, MemberStatus};
use crate::fleet::owner::{self, NamespaceNode, NamespaceRecords, Owner};
use crate::fleet::proof::{Prover, malformed, verify};
use crate::fleet::record::{Entry, Record};
use crate::fleet::revoked::{self, Members, RevocationEntry};
use crate::fleet::view::Holdings;
use crate::fleet::{Fleet, ViewError};

/// The view as an update would leave it. Thrown away when any of it is refused.
pub(super) struct Next<'a> {
    own: &'a ClusterId,
    federation: FederationId,
    revision: Revision,
    extent: Extent,
    before: &'a Fleet,
    members: Members,
    /// Whose chain came with the update.
    sent_members: BTreeSet<ClusterId>,
    /// Whose chain, or whose standing by revocations, is another one.
    changed_members: BTreeSet<ClusterId>,
    revocations: Vec<Arc<RevocationEntry>>,
    owners: BTreeMap<ClusterId, Arc<Owner>>,
    changed_owners: BTreeSet<ClusterId>,
}

impl<'a> Next<'a> {
    pub(super) fn new(view: &'a VerifiedView, revision: Revision, extent: Extent) -> Self {
        let before = &view.fleet;
        Self {
            own: &view.own,
            federation: view.anchor,
            revision,
            extent,
            before,
            members: (*before.members).clone(),
            sent_members: BTreeSet::new(),
            changed_members: BTreeSet::new(),
            revocations: (*before.revocations).clone(),
            owners: (*before.owners).clone(),
            changed_owners: BTreeSet::new(),
        }
    }

    /// Who is a member, and who is not any more.
    pub(super) fn statements(
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
            let Some(first) = chain.links.first() else {
                return Err(ViewError::new(EVENT_REFUSED, "a member's chain has no links"));
            };
            let first = store::Member::decode(&first.member.payload).map_err(malformed)?;
            let cluster = first.cluster;
            if !self.sent_members.insert(cluster) {
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
            if known.is_none_or(|known| known.chain() != chain) {
                self.changed_members.insert(cluster);
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

    pub(super) fn owners(&mut self, updates: &[OwnerUpdate]) -> Result<(), ViewError> {
        for update in updates {
            if !self.changed_owners.insert(update.cluster) {
                let text = format!("the owner {} comes twice", update.cluster);
                return Err(ViewError::new(EVENT_REFUSED, text));
            }
            // The source may not know of a revocation that came here by another path.
            let known = self.members.get(&update.cluster);
            if known.is_some_and(|entry| entry.status() == MemberStatus::Revoked) {
                continue;
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
    pub(super) fn check_whole(&mut self, update: &FleetUpdate) -> Result<(), ViewError> {
        if self.extent == Extent::Part {
            return Ok(());
        }
        let owners: BTreeSet<&ClusterId> = update.owners.iter().map(|it| &it.cluster).collect();
        for (cluster, entry) in &*self.before.members {
            if !self.sent_members.contains(cluster) {
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
    pub(super) fn finish(self) -> (Fleet, ViewChange) {
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
