//! What each command does, guard by guard.

mod admission;
mod standing;

use std::sync::Arc;

use model::code::{
    EPOCH_WRONG, GENERATION_STALE, MEMBER_REVOKED, NOT_A_MEMBER, NOT_OWNER, OTHER_FEDERATION,
    ROLE_MISSING, SIGNATURE_REFUSED,
};
use model::{ClusterId, FederationId, Role};
use wire::store::{
    AdminChange, AdminStatement, Domain, Head, Member, MemberChain, Publish, RecordPut, Signed,
    SignedMember, StoreKey,
};

use super::apply::{Change, Draft};
use super::member::{self, MemberEntry, MemberStatus};
use super::owner::{self, Owner, Step};
use super::proof::{malformed, verify};
use super::record::Record;
use super::{Refusal, Standbys, kv};

impl Draft {
    /// The first command of a federation.
    pub(super) fn found(&mut self, link: &SignedMember) -> Result<(), Refusal> {
        if let Some(federation) = self.state.fleet.federation {
            let text = format!("the federation {federation} is founded already");
            return Err(Refusal::new(OTHER_FEDERATION, text));
        }
        let root = Member::decode(&link.member.payload).map_err(malformed)?;
        member::check_root(&root)?;
        verify_by(&link.member, Domain::Member, &root)?;
        let chain = MemberChain { links: vec![link.clone()], leave: None };
        self.state.fleet.federation = Some(root.federation);
        self.state.fleet.root = Some(root.cluster);
        self.put_member(MemberEntry::new(chain, vec![root]));
        Ok(())
    }

    /// An owner's step to a newer Head.
    ///
    /// The generation grows, by one or more: an owner that does not know what became of a proposal
    /// takes the next number for other contents, so that it never signs two contents for one mark.
    pub(super) fn publish(&mut self, publish: &Publish) -> Result<(), Refusal> {
        let head = Head::of(&publish.head).map_err(malformed)?;
        self.check_federation("Head", &head.federation)?;
        let entry = self.active(&head.cluster)?.clone();
        check_newer(&head, &entry)?;
        let key = entry.key_at(&head.key_id, head.mark)?;
        verify(&publish.head, Domain::Head, &key.spki)?;
        self.take_up(publish, head, entry)
    }

    /// The records of a Head whose signature holds.
    pub(super) fn take_up(
        &mut self,
        publish: &Publish,
        head: Head,
        mut entry: MemberEntry,
    ) -> Result<(), Refusal> {
        check_keys(publish, &head)?;
        let before = self.state.fleet.owners.get(&head.cluster).cloned();
        let put = |put: &RecordPut| Record::new(put.key.clone(), put.record.clone(), self.revision);
        let puts = publish.puts.iter().map(put).collect();
        let step = Step { puts, removes: publish.removes.clone() };
        let nodes = owner::after(before.as_deref(), step);
        owner::check_quota(&nodes)?;
        owner::check_digest(&head, &nodes)?;
        let owner = Owner::new(publish.head.clone(), head, nodes);
        owner::check_peer(&owner, entry.member())?;
        self.write_records(publish, &owner);
        entry.mark = Some(head.mark);
        self.write(kv::mark_key(&head.cluster), Some(kv::mark(head.mark)));
        Arc::make_mut(&mut self.state.fleet.members).insert(head.cluster, Arc::new(entry));
        self.put_owner(owner);
        Ok(())
    }

    fn write_records(&mut self, publish: &Publish, owner: &Owner) {
        for key in &publish.removes {
            self.write(kv::record_key(key), None);
        }
        let mut put: Vec<&StoreKey> = publish.puts.iter().map(|put| &put.key).collect();
        put.sort();
        for record in owner.records() {
            if put.binary_search(&record.key()).is_ok() {
                self.write(kv::record_key(record.key()), Some(kv::record(record)));
            }
        }
    }

    pub(super) fn admin(&mut self, signed: &Signed) -> Result<(), Refusal> {
        let statement = AdminStatement::decode(&signed.payload).map_err(malformed)?;
        self.check_federation("AdminStatement", &statement.federation)?;
        let issuer = self.signed_by(signed, Domain::Admin, &statement.issuer)?;
        match statement.change {
            AdminChange::RevokeToken(id) => self.revoke_token(&id, &issuer),
            AdminChange::Standbys { generation, clusters } => {
                check_admin(&issuer)?;
                self.name_standbys(signed, generation, clusters)
            }
        }
    }

    fn name_standbys(
        &mut self,
        signed: &Signed,
        generation: u64,
        clusters: Vec<ClusterId>,
    ) -> Result<(), Refusal> {
        let last = self.state.fleet.standbys_generation();
        if generation <= last {
            let text = format!("Standbys.generation = {generation}: use a number above {last}");
            return Err(Refusal::new(GENERATION_STALE, text));
        }
        for cluster in &clusters {
            self.active(cluster)?;
        }
        self.write(kv::standbys_key(), Some(signed.encode()));
        let standbys = Standbys { signed: signed.clone(), generation, clusters };
        self.state.fleet.standbys = Some(Arc::new(standbys));
        self.changes.push(Change::Standbys);
        Ok(())
    }

    fn check_federation(&self, message: &str, id: &FederationId) -> Result<(), Refusal> {
        match self.state.fleet.federation {
            Some(own) if own == *id => Ok(()),
            Some(own) => {
                let text = format!("{message}.federation = {id}: this one is {own}");
                Err(Refusal::new(OTHER_FEDERATION, text))
            }
            None => Err(Refusal::new(OTHER_FEDERATION, "no federation is founded here yet")),
        }
    }

    fn active(&self, cluster: &ClusterId) -> Result<&MemberEntry, Refusal> {
        match self.state.fleet.entry(cluster) {
            Some(entry) if entry.is_active() => Ok(entry),
            Some(entry) if entry.status() == MemberStatus::Revoked => {
                let text = format!("the cluster {cluster} ({}) was revoked", entry.member().name);
                Err(Refusal::new(MEMBER_REVOKED, text))
            }
            _ => Err(not_a_member(cluster)),
        }
    }

    /// Who has signed this, with the key that is open now.
    fn signer(&self, signed: &Signed) -> Result<&Member, Refusal> {
        self.state.fleet.signer(&signed.key_id).ok_or_else(|| {
            let text = format!("key_id = {}: it is no active member's open key", signed.key_id);
            Refusal::new(SIGNATURE_REFUSED, text)
        })
    }

    /// The active member `issuer`, whose open key has signed this.
    fn signed_by(
        &self,
        signed: &Signed,
        domain: Domain,
        issuer: &ClusterId,
    ) -> Result<Member, Refusal> {
        let issuer = self.active(issuer)?.member();
        verify_by(signed, domain, issuer)?;
        Ok(issuer.clone())
    }
}

fn verify_by(signed: &Signed, domain: Domain, member: &Member) -> Result<(), Refusal> {
    let key = member.open_key();
    if key.id() != signed.key_id {
        let text = format!(
            "key_id = {}: the open key of {} is {}; sign with that one",
            signed.key_id,
            member.name,
            key.id()
        );
        return Err(Refusal::new(SIGNATURE_REFUSED, text));
    }
    verify(signed, domain, &key.spki)
}

/// A Head is of its owner's epoch, and above everything that was there before.
fn check_newer(head: &Head, entry: &MemberEntry) -> Result<(), Refusal> {
    let member = entry.member();
    if head.mark.epoch != member.epoch {
        let text = format!(
            "Head.epoch = {}: the epoch of {} is {}",
            head.mark.epoch, member.name, member.epoch
        );
        return Err(Refusal::new(EPOCH_WRONG, text));
    }
    if let Some(mark) = entry.high_water().filter(|mark| head.mark <= *mark) {
        let text = format!(
            "Head.generation = {}: {mark} is in force; publish above it",
            head.mark.generation
        );
        return Err(Refusal::new(GENERATION_STALE, text));
    }
    Ok(())
}

/// Every key is the owner's, and of a kind that belongs in the store.
fn check_keys(publish: &Publish, head: &Head) -> Result<(), Refusal> {
    let keys = publish.puts.iter().map(|put| &put.key).chain(&publish.removes);
    for key in keys {
        if key.cluster != head.cluster {
            let text =
                format!("key = {key}: {} owns and writes it, not {}", key.cluster, head.cluster);
            return Err(Refusal::new(NOT_OWNER, text));
        }
        if !key.is_storable() {
            let text = format!("key = {key}: objects of this kind stay in their cluster");
            return Err(Refusal::new(NOT_OWNER, text));
        }
    }
    Ok(())
}

fn check_admin(member: &Member) -> Result<(), Refusal> {
    if member.roles.contains(Role::Admin) {
        return Ok(());
    }
    let text = format!("{} has the roles {} and lacks admin", member.name, member.roles);
    Err(Refusal::new(ROLE_MISSING, text))
}

fn not_a_member(cluster: &ClusterId) -> Refusal {
    Refusal::new(NOT_A_MEMBER, format!("the cluster {cluster} is no active member"))
}
