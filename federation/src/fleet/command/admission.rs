//! Tokens, and the members that they make.

use model::ClusterId;
use model::code::{
    MEMBER_CHANGE_REFUSED, MEMBER_REVOKED, NAME_TAKEN, NOT_OWNER, STORE_TABLE_FULL, TOKEN_EXPIRED,
    TOKEN_MISMATCH, TOKEN_REVOKED, TOKEN_UNKNOWN, TOKEN_USED,
};
use wire::store::limits::{MEMBERS_MAX, OPEN_TOKENS_MAX};
use wire::store::{
    Domain, Head, Member, MemberChain, Publish, Redeem, Signed, TokenGrant, TokenId,
};

use super::check_admin;
use crate::fleet::Refusal;
use crate::fleet::apply::Draft;
use crate::fleet::limits::{TOKEN_MEMORY_MS, TOKENS_MAX};
use crate::fleet::member::{self, MemberEntry, MemberStatus};
use crate::fleet::proof::{malformed, verify_key_proof};
use crate::fleet::token::{TokenEntry, TokenUse};

impl Draft {
    pub(in crate::fleet) fn issue_token(&mut self, signed: &Signed) -> Result<(), Refusal> {
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
    pub(in crate::fleet) fn redeem(&mut self, redeem: &Redeem) -> Result<(), Refusal> {
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

    pub(super) fn revoke_token(&mut self, id: &TokenId, issuer: &Member) -> Result<(), Refusal> {
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
}

/// What the newcomer asks for is what its token grants, or less.
fn check_granted(new: &Member, grant: &TokenGrant) -> Result<(), Refusal> {
    let refused = |field: &str, have: String, want: String| {
        let text = format!("Member.{field} = {have}: the token grants {want}");
        Err(Refusal::new(TOKEN_MISMATCH, text))
    };
    if new.token_id != Some(grant.token_id) {
        let have = new.token_id.map_or_else(|| "(absent)".to_owned(), |id| id.to_string());
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
