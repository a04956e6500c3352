//! Changes of members: their keys and rights, their leaving, their revocation.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::code::{
    LAST_ADMIN, MEMBER_CHANGE_REFUSED, MEMBER_REVOKED, ROLE_MISSING, STORE_TABLE_FULL,
    TRUST_DOMAIN_TAKEN,
};
use model::{ClusterId, Role, RoleSet};
use wire::store::limits::{CHAIN_LINKS_MAX, REVOCATIONS_MAX};
use wire::store::{
    Domain, Leave, Member, Reanchor, Revocation, RevocationTarget, Signed, SignedMember,
};

use super::{check_admin, not_a_member};
use crate::fleet::apply::{Change, Draft};
use crate::fleet::member::{MemberEntry, MemberStatus};
use crate::fleet::proof::{self, malformed};
use crate::fleet::revoked::{self, RevocationEntry};
use crate::fleet::{Refusal, kv};

impl Draft {
    pub(in crate::fleet) fn update_member(&mut self, link: &SignedMember) -> Result<(), Refusal> {
        let after = Member::decode(&link.member.payload).map_err(malformed)?;
        self.check_federation("Member", &after.federation)?;
        let entry = self.active(&after.cluster)?;
        let before = entry.member();
        if link.member.key_id == before.open_key().id() {
            proof::check_own_link(link, before, &after)?;
        } else {
            let by = self.signer(&link.member)?;
            proof::check_link_by(link, before, &after, by)?;
        }
        self.check_closing(entry, &after)?;
        self.check_domains(&after)?;
        self.check_new_key(&after)?;
        self.check_admins_left(|member| {
            if member.cluster == after.cluster { after.roles } else { member.roles }
        })?;
        if entry.links().len() >= CHAIN_LINKS_MAX {
            let text = format!("{CHAIN_LINKS_MAX} updates are the most; join anew with a new key");
            return Err(Refusal::new(STORE_TABLE_FULL, text));
        }
        let entry = entry.clone().extended(link.clone(), after);
        self.put_member(entry);
        Ok(())
    }

    /// A key is closed no earlier than at the Head in force, which it signed.
    fn check_closing(&self, entry: &MemberEntry, after: &Member) -> Result<(), Refusal> {
        let (before, Some(mark)) = (entry.member(), entry.high_water()) else { return Ok(()) };
        if after.keys.len() == before.keys.len() {
            return Ok(());
        }
        let closed = after.keys[before.keys.len() - 1].closed_at;
        if closed.is_some_and(|closed| closed >= mark) {
            return Ok(());
        }
        let text = format!(
            "Member.keys[{}].closed_at: the key has signed the Head in force, {mark}; close it \
             there or later",
            before.keys.len() - 1
        );
        Err(Refusal::new(MEMBER_CHANGE_REFUSED, text))
    }

    pub(in crate::fleet) fn leave(&mut self, signed: &Signed) -> Result<(), Refusal> {
        let leave = Leave::decode(&signed.payload).map_err(malformed)?;
        self.check_federation("Leave", &leave.federation)?;
        let entry = self.active(&leave.cluster)?.clone();
        proof::check_leave(&leave, entry.member())?;
        let issuer = self.signed_by(signed, Domain::Leave, &leave.issuer)?;
        if issuer.cluster != leave.cluster {
            check_admin(&issuer)?;
        }
        self.check_admins_left(|member| {
            if member.cluster == leave.cluster { RoleSet::NONE } else { member.roles }
        })?;
        self.put_member(entry.left(signed.clone()));
        self.remove_owner(&leave.cluster);
        Ok(())
    }

    /// While others stay, somebody must be an admin.
    fn check_admins_left(&self, roles: impl Fn(&Member) -> RoleSet) -> Result<(), Refusal> {
        let admins = |roles: &dyn Fn(&Member) -> RoleSet| {
            self.state.fleet.members().any(|member| roles(member).contains(Role::Admin))
        };
        let stay = self.state.fleet.members().count() > 1;
        if stay && admins(&|member| member.roles) && !admins(&roles) {
            let text = "no admin would be left; give another member the role admin first";
            return Err(Refusal::new(LAST_ADMIN, text));
        }
        Ok(())
    }

    pub(in crate::fleet) fn revoke(&mut self, signed: &Signed) -> Result<(), Refusal> {
        let revocation = Revocation::decode(&signed.payload).map_err(malformed)?;
        self.check_federation("Revocation", &revocation.federation)?;
        let issuer = self.signed_by(signed, Domain::Revocation, &revocation.issuer)?;
        check_admin(&issuer)?;
        self.check_target(&revocation)?;
        self.check_reanchors(&revocation)?;
        if self.state.fleet.revocations.len() >= REVOCATIONS_MAX {
            let text = format!("{REVOCATIONS_MAX} revocations are the most");
            return Err(Refusal::new(STORE_TABLE_FULL, text));
        }
        let before = self.state.fleet.members.clone();
        let members = Arc::make_mut(&mut self.state.fleet.members);
        let revoked = revoked::revoke(members, &revocation);
        self.check_survivors(&revocation, &revoked)?;
        for cluster in &revoked {
            self.remove_owner(cluster);
        }
        let now = self.state.fleet.members.clone();
        let changed = now.iter().filter(|(id, entry)| !Arc::ptr_eq(entry, &before[*id]));
        self.changes.extend(changed.map(|(id, _)| Change::Member(*id)));
        let sequence = self.state.fleet.revocations.len();
        self.write(kv::revocation_key(sequence), Some(signed.encode()));
        let entry = Arc::new(RevocationEntry { signed: signed.clone(), revocation });
        Arc::make_mut(&mut self.state.fleet.revocations).push(entry);
        self.changes.push(Change::Revocation);
        Ok(())
    }

    fn check_target(&self, revocation: &Revocation) -> Result<(), Refusal> {
        let fleet = &self.state.fleet;
        match &revocation.target {
            RevocationTarget::Cluster(cluster) => match fleet.entry(cluster) {
                None => Err(not_a_member(cluster)),
                Some(entry) if entry.status() == MemberStatus::Revoked => {
                    let text = format!("Revocation.cluster = {cluster}: it is revoked already");
                    Err(Refusal::new(MEMBER_REVOKED, text))
                }
                Some(_) => Ok(()),
            },
            RevocationTarget::TrustDomain(domain) if fleet.is_domain_revoked(domain) => {
                let text = format!("Revocation.trust_domain = {domain}: it is revoked already");
                Err(Refusal::new(MEMBER_REVOKED, text))
            }
            RevocationTarget::TrustDomain(_) => Ok(()),
        }
    }

    /// Children are moved from the revoked one to an active member that may admit.
    fn check_reanchors(&self, revocation: &Revocation) -> Result<(), Refusal> {
        let fleet = &self.state.fleet;
        for entry in &revocation.reanchor {
            self.active(&entry.child)?;
            let issuer = self.active(&entry.issuer)?.member();
            if !issuer.roles.contains(Role::Admit) {
                let text = format!(
                    "Revocation.reanchor: {} lacks the role admit, so it cannot answer for {}",
                    issuer.name, entry.child
                );
                return Err(Refusal::new(ROLE_MISSING, text));
            }
            if fleet.root() == Some(&entry.child) {
                let text = "Revocation.reanchor: nobody answers for the root";
                return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
            }
        }
        Ok(())
    }

    /// Whoever answers for a child must not be revoked by the same statement, nor its signer.
    fn check_survivors(
        &self,
        revocation: &Revocation,
        revoked: &BTreeSet<ClusterId>,
    ) -> Result<(), Refusal> {
        let own = RevocationTarget::Cluster(revocation.issuer);
        if revoked.contains(&revocation.issuer) && revocation.target != own {
            let text = "Revocation.issuer: it would be revoked with those whom the target answers \
                        for; name another one to answer for it";
            return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
        }
        let gone =
            |entry: &&Reanchor| revoked.contains(&entry.issuer) || revoked.contains(&entry.child);
        if let Some(entry) = revocation.reanchor.iter().find(gone) {
            let text = format!(
                "Revocation.reanchor: {} cannot answer for {}, since one of them would be revoked",
                entry.issuer, entry.child
            );
            return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
        }
        let mut left = self.state.fleet.members().peekable();
        if left.peek().is_some() && !left.any(|member| member.roles.contains(Role::Admin)) {
            let text = "no admin would be left; give another member the role admin first";
            return Err(Refusal::new(LAST_ADMIN, text));
        }
        Ok(())
    }

    /// Trust domains that nobody else owns, and that were not revoked.
    pub(super) fn check_domains(&self, member: &Member) -> Result<(), Refusal> {
        for domain in &member.trust_domains {
            if self.state.fleet.is_domain_revoked(domain) {
                let text = format!("Member.trust_domains: {domain} was revoked");
                return Err(Refusal::new(MEMBER_REVOKED, text));
            }
            let owner = self.state.fleet.owner_of(domain);
            if let Some(other) = owner.filter(|other| other.cluster != member.cluster) {
                let text = format!("Member.trust_domains: {domain} belongs to {}", other.name);
                return Err(Refusal::new(TRUST_DOMAIN_TAKEN, text));
            }
        }
        Ok(())
    }

    /// A key that nobody else has or had: a key names its owner.
    pub(super) fn check_new_key(&self, member: &Member) -> Result<(), Refusal> {
        let key = member.open_key().id();
        let mut others = self.state.fleet.entries().map(MemberEntry::member);
        let has = |other: &&Member| other.cluster != member.cluster && other.key(&key).is_some();
        match others.find(has) {
            None => Ok(()),
            Some(other) => {
                let text = format!("Member.keys: the key {key} is one of {}", other.name);
                Err(Refusal::new(MEMBER_CHANGE_REFUSED, text))
            }
        }
    }
}
