//! A member: the chain of what was signed about it, and what follows from the chain.

use model::code::{MEMBER_CHANGE_REFUSED, OTHER_FEDERATION, ROLE_MISSING, SIGNATURE_REFUSED};
use model::{ClusterId, KeyId, Role};
use wire::store::{Mark, Member, MemberChain, MemberKey, Signed, SignedMember};

use super::Refusal;

/// Whether a member belongs to the federation now. Who does not is remembered for ever: its key
/// never comes back, and what it admitted is verified by its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberStatus {
    Active,
    Left,
    Revoked,
}

impl MemberStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Left => "left",
            Self::Revoked => "revoked",
        }
    }
}

/// A member as it is, and everything that proves it.
#[derive(Debug, Clone)]
pub struct MemberEntry {
    chain: MemberChain,
    /// What the chain's links say, oldest first; never empty.
    links: Vec<Member>,
    pub(super) status: MemberStatus,
    pub(super) anchor: ClusterId,
    pub(super) mark: Option<Mark>,
}

impl MemberEntry {
    /// `links` are what the chain's links say.
    pub(super) fn new(chain: MemberChain, links: Vec<Member>) -> Self {
        let status = match chain.leave {
            Some(_) => MemberStatus::Left,
            None => MemberStatus::Active,
        };
        let anchor = links.first().expect("a chain begins with an admission").issuer;
        Self { chain, links, status, anchor, mark: None }
    }

    pub(super) fn extended(mut self, link: SignedMember, member: Member) -> Self {
        self.chain.links.push(link);
        self.links.push(member);
        self
    }

    pub(super) fn left(mut self, leave: Signed) -> Self {
        self.chain.leave = Some(leave);
        self.status = MemberStatus::Left;
        self
    }

    /// The Member in force.
    pub fn member(&self) -> &Member {
        self.links.last().expect("a chain begins with an admission")
    }

    /// Every Member that there was, oldest first.
    pub fn links(&self) -> &[Member] {
        &self.links
    }

    pub fn chain(&self) -> &MemberChain {
        &self.chain
    }

    pub fn status(&self) -> MemberStatus {
        self.status
    }

    pub fn is_active(&self) -> bool {
        self.status == MemberStatus::Active
    }

    /// Who answers for the member: who admitted it, or whom a revocation put in that one's place.
    pub fn anchor(&self) -> &ClusterId {
        &self.anchor
    }

    /// Nothing below this position is taken from the member any more; `None` before its first Head.
    pub fn high_water(&self) -> Option<Mark> {
        self.mark
    }

    /// The key that may have signed something at a position in the member's history.
    pub fn key_at(&self, id: &KeyId, at: Mark) -> Result<&MemberKey, Refusal> {
        let member = self.member();
        let Some(key) = member.key(id) else {
            let text = format!("key_id = {id}: it is no key of the member {}", member.name);
            return Err(Refusal::new(SIGNATURE_REFUSED, text));
        };
        match key.closed_at {
            Some(closed) if at > closed => {
                let text = format!(
                    "key_id = {id}: this key of {} was closed at {closed}, before {at}; sign with \
                     its new key",
                    member.name
                );
                Err(Refusal::new(SIGNATURE_REFUSED, text))
            }
            _ => Ok(key),
        }
    }
}

/// Refuses a Member that cannot be the root of a federation. (That it is its own issuer, without a
/// token, and that the federation is the hash of its first key, its decoder has seen to.)
pub(super) fn check_root(member: &Member) -> Result<(), Refusal> {
    check_first(member)?;
    if !member.is_root() {
        let text = format!("Member.issuer = {}: the root is its own issuer", member.issuer);
        return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
    }
    Ok(())
}

/// Refuses the admission of a member that its issuer could not admit.
pub(super) fn check_admission(member: &Member, issuer: &Member) -> Result<(), Refusal> {
    check_first(member)?;
    same("federation", &member.federation, &issuer.federation)?;
    same("issuer", &member.issuer, &issuer.cluster)?;
    check_may_admit(issuer)?;
    check_within(member, issuer)
}

/// Refuses an issuer that may admit nobody.
pub(super) fn check_may_admit(issuer: &Member) -> Result<(), Refusal> {
    if !issuer.roles.contains(Role::Admit) {
        let text = format!("{} has the roles {} and lacks admit", issuer.name, issuer.roles);
        return Err(Refusal::new(ROLE_MISSING, text));
    }
    if issuer.delegation_depth == 0 {
        let text = format!("delegation_depth of {} = 0: it may admit nobody", issuer.name);
        return Err(Refusal::new(ROLE_MISSING, text));
    }
    Ok(())
}

/// Refuses roles and a depth that `by` cannot hand on.
pub(super) fn check_handed_on(
    by: &Member,
    roles: model::RoleSet,
    depth: u32,
) -> Result<(), Refusal> {
    if !roles.is_subset_of(by.roles) {
        let text = format!("roles = {roles}: {} has only {} to hand on", by.name, by.roles);
        return Err(Refusal::new(ROLE_MISSING, text));
    }
    if depth >= by.delegation_depth {
        let text = format!(
            "delegation_depth = {depth}: below {} it is at most {}",
            by.name,
            by.delegation_depth.saturating_sub(1)
        );
        return Err(Refusal::new(ROLE_MISSING, text));
    }
    Ok(())
}

fn check_within(member: &Member, by: &Member) -> Result<(), Refusal> {
    check_handed_on(by, member.roles, member.delegation_depth)
}

/// The shape of a first Member.
fn check_first(member: &Member) -> Result<(), Refusal> {
    if member.keys.len() != 1 {
        let text = format!("Member.keys = {} keys: begin with one", member.keys.len());
        return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
    }
    if member.member_generation != 1 {
        let generation = member.member_generation;
        let text = format!("Member.member_generation = {generation}: begin with 1");
        return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
    }
    Ok(())
}

/// Who signs an update.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signer<'a> {
    /// The member itself, with the key that was open before.
    Own,
    Other(&'a Member),
}

/// Refuses an update that its signer may not make.
///
/// A member itself may rotate its key, bump its epoch, and give up roles or depth. Who could have
/// admitted it as it is (role admit, no less roles, a greater depth) may bind it to a new key, bump
/// its epoch and change its trust domains. An admin may change roles and depth, within its own.
/// Nobody changes cluster, name, issuer or token.
pub(super) fn check_update(
    before: &Member,
    after: &Member,
    signer: Signer<'_>,
) -> Result<(), Refusal> {
    same("federation", &after.federation, &before.federation)?;
    same("cluster", &after.cluster, &before.cluster)?;
    same("name", &after.name, &before.name)?;
    same("issuer", &after.issuer, &before.issuer)?;
    if after.token_id != before.token_id {
        return Err(Refusal::new(MEMBER_CHANGE_REFUSED, "Member.token_id: it never changes"));
    }
    if after.member_generation != before.member_generation.saturating_add(1) {
        let text = format!(
            "Member.member_generation = {}: the one in force is {}; start from that one",
            after.member_generation, before.member_generation
        );
        return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
    }
    if after.epoch < before.epoch {
        let text =
            format!("Member.epoch = {}: it may not fall below {}", after.epoch, before.epoch);
        return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
    }
    check_keys(before, after)?;
    match signer {
        Signer::Own => check_own_update(before, after),
        Signer::Other(by) => check_update_by(before, after, by),
    }
}

/// The keys are the same, or the open one is closed and another one follows it. (The decoder has
/// seen to it that all keys but the last are closed, and that none is there twice.)
fn check_keys(before: &Member, after: &Member) -> Result<(), Refusal> {
    if before.keys == after.keys {
        return Ok(());
    }
    let closed = &before.keys[..before.keys.len() - 1];
    let kept = after.keys.len() == before.keys.len() + 1
        && after.keys.starts_with(closed)
        && after.keys[closed.len()].spki == before.open_key().spki;
    if !kept {
        let text = "Member.keys: keep the keys as they are, or close the last and add one";
        return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
    }
    Ok(())
}

fn check_own_update(before: &Member, after: &Member) -> Result<(), Refusal> {
    if after.trust_domains != before.trust_domains {
        let text = "Member.trust_domains: a member with the role admit signs this change";
        return Err(Refusal::new(MEMBER_CHANGE_REFUSED, text));
    }
    if !after.roles.is_subset_of(before.roles) || after.delegation_depth > before.delegation_depth {
        let text = "Member.roles, Member.delegation_depth: a member may give up, but not take";
        return Err(Refusal::new(ROLE_MISSING, text));
    }
    Ok(())
}

fn check_update_by(before: &Member, after: &Member, by: &Member) -> Result<(), Refusal> {
    same("federation", &after.federation, &by.federation)?;
    let rights = after.roles != before.roles || after.delegation_depth != before.delegation_depth;
    let rest = after.keys != before.keys
        || after.epoch != before.epoch
        || after.trust_domains != before.trust_domains;
    if rights {
        if !by.roles.contains(Role::Admin) {
            let text = format!("{} lacks admin, which changes roles and depth", by.name);
            return Err(Refusal::new(ROLE_MISSING, text));
        }
        check_within(before, by)?;
        check_within(after, by)?;
    }
    if rest {
        check_may_admit(by)?;
        check_within(before, by)?;
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Display>(field: &str, have: &T, want: &T) -> Result<(), Refusal> {
    if have == want {
        return Ok(());
    }
    let code = if field == "federation" { OTHER_FEDERATION } else { MEMBER_CHANGE_REFUSED };
    Err(Refusal::new(code, format!("Member.{field} = {have}: it is {want}")))
}
