//! What each command does, guard by guard.

use std::sync::Arc;

use model::code::{
    EPOCH_WRONG, GENERATION_STALE, LAST_ADMIN, MEMBER_CHANGE_REFUSED, MEMBER_REVOKED, NAME_TAKEN,
    NOT_A_MEMBER, NOT_OWNER, OTHER_FEDERATION, ROLE_MISSING, SIGNATURE_REFUSED, STORE_TABLE_FULL,
    TOKEN_EXPIRED, TOKEN_MISMATCH, TOKEN_REVOKED, TOKEN_UNKNOWN, TOKEN_USED, TRUST_DOMAIN_TAKEN,
};
use model::{ClusterId, FederationId, Role};
use wire::store::limits::{CHAIN_LINKS_MAX, MEMBERS_MAX, OPEN_TOKENS_MAX, REVOCATIONS_MAX};
use wire::store::{
    AdminChange, AdminStatement, Domain, Head, Leave, Member, MemberChain, Publish, Redeem,
    Revocation, RevocationTarget, Signed, SignedMember, StoreKey, TokenGrant, TokenId,
};

use super::apply::{Change, Draft};
use super::limits::{TOKEN_MEMORY_MS, TOKENS_MAX};
use super::member::{self, MemberEntry, MemberStatus};
use super::owner::{self, Owner, Step};
use super::proof::{self, malformed, verify, verify_key_proof};
use super::record::Record;
use super::revoked::{self, RevocationEntry};
use super::token::{TokenEntry, TokenUse};
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
        let put = |put: &wire::store::RecordPut| {
            Record::new(put.key.clone(), put.record.clone(), self.revision)
        };
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

    pub(super) fn issue_token(&mut self, signed: &Signed) -> Result<(), Refusal> {
        let grant = TokenGrant::decode(&signed.payload).map_err(malformed)?;
        self.check_federation("TokenGrant", &grant.federation)?;
        let issuer = self.signed_by(signed, Domain::Token, &grant.issuer)?;
        member::check_may_admit(&issuer)?;
        member::check_handed_on(&issuer, grant.roles, grant.delegation_depth)?;
        if self.state.tokens.contains_key(&grant.token_id) {
            let text = format!("TokenGrant.token_id = {}: it was issued already", grant.token_id);
            return Err(Refusal::new(TOKEN_USED, text));
        }
        if grant.expires_at_unix_ms <= self.proposed_at_unix_ms {
            let text = "TokenGrant.expires_at_unix_ms: the token has expired; issue another one";
            return Err(Refusal::new(TOKEN_EXPIRED, text));
        }
        self.check_name(&grant.name)?;
        self.forget_tokens();
        self.check_token_count()?;
        self.put_token(TokenEntry { grant, signed: signed.clone(), used: TokenUse::Open });
        Ok(())
    }

    fn forget_tokens(&mut self) {
        let now = self.proposed_at_unix_ms;
        let old = |token: &&TokenEntry| {
            token.grant.expires_at_unix_ms.saturating_add(TOKEN_MEMORY_MS) < now
        };
        let old: Vec<TokenId> =
            self.state.tokens().filter(old).map(|token| token.grant.token_id).collect();
        for id in old {
            self.remove_token(&id);
        }
    }

    fn check_token_count(&self) -> Result<(), Refusal> {
        let now = self.proposed_at_unix_ms;
        let open = self.state.tokens().filter(|token| token.is_open_at(now)).count();
        for (what, have, max) in [
            ("open tokens", open, OPEN_TOKENS_MAX),
            ("remembered tokens", self.state.tokens.len(), TOKENS_MAX),
        ] {
            if have >= max {
                let text =
                    format!("there are {have} {what} of at most {max}; revoke some, or wait");
                return Err(Refusal::new(STORE_TABLE_FULL, text));
            }
        }
        Ok(())
    }

    /// A token becomes a member, once: whoever is first in the log has it.
    pub(super) fn redeem(&mut self, redeem: &Redeem) -> Result<(), Refusal> {
        let token = self.open_token(&redeem.token_id)?.clone();
        let link = &redeem.member;
        let new = Member::decode(&link.member.payload).map_err(malformed)?;
        check_granted(&new, &token.grant)?;
        self.check_federation("Member", &new.federation)?;
        let issuer = self.signed_by(&link.member, Domain::Member, &new.issuer)?;
        member::check_admission(&new, &issuer)?;
        verify_key_proof(link, &new)?;
        self.check_newcomer(&new)?;
        let (cluster, at) = (new.cluster, self.revision);
        let used = TokenUse::Used { by: cluster, at };
        self.put_token(TokenEntry { used, ..token });
        let chain = MemberChain { links: vec![link.clone()], leave: None };
        self.put_member(MemberEntry::new(chain, vec![new]));
        match &redeem.first {
            Some(first) => self.first_publish(first, &cluster),
            None => Ok(()),
        }
    }

    fn first_publish(&mut self, publish: &Publish, cluster: &ClusterId) -> Result<(), Refusal> {
        let head = Head::of(&publish.head).map_err(malformed)?;
        if head.cluster != *cluster {
            let text = format!("Redeem.first.head.cluster = {}: it is not {cluster}", head.cluster);
            return Err(Refusal::new(NOT_OWNER, text));
        }
        self.publish(publish)
    }

    fn open_token(&self, id: &TokenId) -> Result<&TokenEntry, Refusal> {
        let Some(token) = self.state.token(id) else {
            let text = format!("token_id = {id}: no such token was issued here");
            return Err(Refusal::new(TOKEN_UNKNOWN, text));
        };
        match token.used {
            TokenUse::Used { by, at } => {
                let text = format!("token_id = {id}: {by} redeemed it at revision {at}");
                Err(Refusal::new(TOKEN_USED, text))
            }
            TokenUse::Revoked { at } => {
                let text = format!("token_id = {id}: it was revoked at revision {at}");
                Err(Refusal::new(TOKEN_REVOKED, text))
            }
            TokenUse::Open if !token.is_open_at(self.proposed_at_unix_ms) => {
                let text = format!("token_id = {id}: it has expired; issue another one");
                Err(Refusal::new(TOKEN_EXPIRED, text))
            }
            TokenUse::Open => Ok(token),
        }
    }

    /// Everything that must be free for a new member.
    fn check_newcomer(&self, new: &Member) -> Result<(), Refusal> {
        if let Some(entry) = self.state.fleet.entry(&new.cluster) {
            let (code, what) = match entry.status() {
                MemberStatus::Active => (MEMBER_CHANGE_REFUSED, "is a member already"),
                MemberStatus::Left => (MEMBER_CHANGE_REFUSED, "has left; join with a new key"),
                MemberStatus::Revoked => (MEMBER_REVOKED, "was revoked; join with a new key"),
            };
            return Err(Refusal::new(code, format!("Member.cluster = {}: it {what}", new.cluster)));
        }
        if self.state.fleet.members.len() >= MEMBERS_MAX {
            let text = format!("{MEMBERS_MAX} clusters are or were members, which is the most");
            return Err(Refusal::new(STORE_TABLE_FULL, text));
        }
        self.check_name(&new.name)?;
        self.check_new_key(new)?;
        self.check_domains(new)
    }

    fn check_name(&self, name: &model::ClusterName) -> Result<(), Refusal> {
        match self.state.fleet.member_named(name) {
            None => Ok(()),
            Some(other) => {
                let text = format!("name = {name}: the member {} has it", other.cluster);
                Err(Refusal::new(NAME_TAKEN, text))
            }
        }
    }

    /// Trust domains that nobody else owns, and that were not revoked.
    fn check_domains(&self, member: &Member) -> Result<(), Refusal> {
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
    fn check_new_key(&self, member: &Member) -> Result<(), Refusal> {
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

    pub(super) fn update_member(&mut self, link: &SignedMember) -> Result<(), Refusal> {
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

    pub(super) fn leave(&mut self, signed: &Signed) -> Result<(), Refusal> {
        let leave = Leave::decode(&signed.payload).map_err(malformed)?;
        self.check_federation("Leave", &leave.federation)?;
        let entry = self.active(&leave.cluster)?.clone();
        proof::check_leave(&leave, entry.member())?;
        let issuer = self.signed_by(signed, Domain::Leave, &leave.issuer)?;
        if issuer.cluster != leave.cluster {
            check_admin(&issuer)?;
        }
        self.check_admins_left(|member| {
            if member.cluster == leave.cluster { model::RoleSet::NONE } else { member.roles }
        })?;
        self.put_member(entry.left(signed.clone()));
        self.remove_owner(&leave.cluster);
        Ok(())
    }

    /// While others stay, somebody must be an admin.
    fn check_admins_left(&self, roles: impl Fn(&Member) -> model::RoleSet) -> Result<(), Refusal> {
        let admins = |roles: &dyn Fn(&Member) -> model::RoleSet| {
            self.state.fleet.members().any(|member| roles(member).contains(Role::Admin))
        };
        let stay = self.state.fleet.members().count() > 1;
        if stay && admins(&|member| member.roles) && !admins(&roles) {
            let text = "no admin would be left; give another member the role admin first";
            return Err(Refusal::new(LAST_ADMIN, text));
        }
        Ok(())
    }

    pub(super) fn revoke(&mut self, signed: &Signed) -> Result<(), Refusal> {
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
        revoked: &std::collections::BTreeSet<ClusterId>,
    ) -> Result<(), Refusal> {
        let own = RevocationTarget::Cluster(revocation.issuer);
        if revoked.contains(&revocation.issuer) && revocation.target != own {
            let text = "Revocation.issuer: it would be revoked with those whom the target answers \
                        for; name another one to answer for it";
            return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
        }
        let gone = |entry: &&wire::store::Reanchor| {
            revoked.contains(&entry.issuer) || revoked.contains(&entry.child)
        };
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

    fn revoke_token(&mut self, id: &TokenId, issuer: &Member) -> Result<(), Refusal> {
        let Some(token) = self.state.token(id).cloned() else {
            let text = format!("token_id = {id}: no such token was issued here");
            return Err(Refusal::new(TOKEN_UNKNOWN, text));
        };
        if token.grant.issuer != issuer.cluster {
            check_admin(issuer)?;
        }
        if let TokenUse::Used { by, .. } = token.used {
            let text = format!("token_id = {id}: {by} has redeemed it; revoke that member");
            return Err(Refusal::new(TOKEN_USED, text));
        }
        let used = TokenUse::Revoked { at: self.revision };
        self.put_token(TokenEntry { used, ..token });
        Ok(())
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

/// What the newcomer asks for is what its token grants, or less.
fn check_granted(new: &Member, grant: &TokenGrant) -> Result<(), Refusal> {
    let refused = |field: &str, have: String, want: String| {
        let text = format!("Member.{field} = {have}: the token grants {want}");
        Err(Refusal::new(TOKEN_MISMATCH, text))
    };
    if new.token_id != Some(grant.token_id) {
        let have = new.token_id.map_or("(absent)".to_owned(), |id| id.to_string());
        return refused("token_id", have, grant.token_id.to_string());
    }
    if new.name != grant.name {
        return refused("name", new.name.to_string(), grant.name.to_string());
    }
    if new.issuer != grant.issuer {
        return refused("issuer", new.issuer.to_string(), grant.issuer.to_string());
    }
    if !new.roles.is_subset_of(grant.roles) {
        return refused("roles", new.roles.to_string(), grant.roles.to_string());
    }
    if new.delegation_depth > grant.delegation_depth {
        let (have, want) = (new.delegation_depth, grant.delegation_depth);
        return refused("delegation_depth", have.to_string(), format!("at most {want}"));
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
