//! Tokens on the inviter's side: issued after its own addresses were tried, listed, revoked.

use std::time::{Duration, Instant, SystemTime};

use identity::Inviter;
use model::code::{ROLE_MISSING, TOKEN_REFUSED};
use model::{PeerAddress, Role};
use wire::store::limits::{TOKEN_ADDRESSES_MAX, TOKEN_LIFETIME_MS_MAX};
use wire::store::{
    AdminChange, AdminStatement, Change, Domain, JoinToken, Member, TokenGrant, TokenId,
    TokenSecret,
};

use super::error::MembershipError;
use super::node::{Node, from_unix_ms, unix_ms};
use super::types::{AddressReport, IssuedToken, TokenRequest, TokenRow, TokenState, TokenText};
use crate::fleet::TokenUse;
use crate::limits::TOKEN_LIFETIME;
use crate::transport::{JoinTarget, join_dial};

impl Node {
    /// Makes a token. Addresses that do not answer are left out of it; when none answers, nobody
    /// could redeem it, so it is refused unless forced: a network may well refuse that a cluster
    /// reaches itself by its own public address.
    pub(crate) async fn issue_token(
        &self,
        request: TokenRequest,
    ) -> Result<IssuedToken, MembershipError> {
        let member = self.own_member()?;
        check_may_issue(&member)?;
        let lifetime = check_lifetime(request.lifetime.unwrap_or(TOKEN_LIFETIME))?;
        let reports = self.try_own_addresses().await?;
        let addresses = self.token_addresses(&reports, request.force)?;
        let (id, secret) = (TokenId::from_bytes(self.random()), self.random::<32>());
        let secret = TokenSecret::from_bytes(secret);
        let now = unix_ms(SystemTime::now());
        let grant = TokenGrant {
            federation: member.federation,
            token_id: id,
            name: request.name.clone(),
            roles: request.roles,
            delegation_depth: request.delegation_depth,
            issued_at_unix_ms: now,
            expires_at_unix_ms: now + lifetime,
            secret_hmac: secret.hmac(&id, &member.federation, &request.name),
            approval_needed: request.approval_needed,
            issuer: self.own.id,
        };
        let signed = self.sign(Domain::Token, grant.encode());
        self.grants
            .keep(&id, &signed, now)
            .map_err(|error| MembershipError::Disk { problem: error.to_string() })?;
        let revision = match self.propose(Change::IssueToken(signed)).await {
            Ok(revision) => revision,
            Err(error) => {
                self.grants.forget(&id);
                return Err(error);
            }
        };
        let token = self.token_of(&grant, secret, addresses);
        let malformed = |error: wire::store::TokenTextError| MembershipError::TokenMalformed {
            problem: error.to_string(),
        };
        let text = TokenText::new(token.to_text().map_err(malformed)?.as_str());
        tracing::info!(
            target: "fedgate::audit",
            token = %id,
            cluster = %request.name,
            roles = %request.roles,
            "a token was issued"
        );
        let expires = from_unix_ms(grant.expires_at_unix_ms);
        Ok(IssuedToken { text, id, name: request.name, expires, addresses: reports, revision })
    }

    fn token_of(
        &self,
        grant: &TokenGrant,
        secret: TokenSecret,
        addresses: Vec<PeerAddress>,
    ) -> JoinToken {
        JoinToken {
            token_id: grant.token_id,
            federation: grant.federation,
            issuer: self.own.id,
            issuer_name: self.own.name.clone(),
            ca_pin: self.ca_pin(),
            spiffe_id: self.own.spiffe_id.clone(),
            addresses,
            name: grant.name.clone(),
            roles: grant.roles,
            delegation_depth: grant.delegation_depth,
            secret,
            expires_at_unix_ms: grant.expires_at_unix_ms,
            approval_needed: grant.approval_needed,
        }
    }

    fn ca_pin(&self) -> [u8; 32] {
        let bundle = self.own.ca.bundle();
        let root = bundle.x509_authorities.first().expect("a CA's bundle has its certificate");
        Inviter::pin_of(root)
    }

    /// Dials this cluster's own addresses as a joiner would.
    async fn try_own_addresses(&self) -> Result<Vec<AddressReport>, MembershipError> {
        let certificate = self.own.key.self_signed().map_err(|error| MembershipError::Store {
            code: model::code::STORE_FAULT,
            problem: error.to_string(),
        })?;
        let inviter = Inviter { ca_pin: self.ca_pin(), id: self.own.spiffe_id.clone() };
        let target = JoinTarget { addresses: self.own.advertise.borrow().to_vec(), inviter };
        let start = Instant::now();
        let dialled = join_dial(&target, &certificate, self.transport.dial_from()).await;
        Ok(AddressReport::all(dialled.attempts, start.elapsed()))
    }

    fn token_addresses(
        &self,
        reports: &[AddressReport],
        force: bool,
    ) -> Result<Vec<PeerAddress>, MembershipError> {
        let answered = reports.iter().filter(|report| report.outcome.is_ok());
        let mut addresses: Vec<PeerAddress> = answered.map(|r| r.address.clone()).collect();
        if addresses.is_empty() && force {
            addresses = self.own.advertise.borrow().to_vec();
        }
        addresses.truncate(TOKEN_ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(MembershipError::NoAddressAnswered {
                whose: "cluster itself",
                reports: reports.to_vec(),
                fix: "start its gateway, mend `advertise`, or, if only this cluster cannot reach \
                      itself that way, issue the token with --force",
            });
        }
        Ok(addresses)
    }

    /// Every token that the store remembers; on a Replica, which does not see those, the ones that
    /// this node has issued.
    pub(crate) fn tokens(&self) -> Result<Vec<TokenRow>, MembershipError> {
        let fleet = self.fleet()?;
        let now = unix_ms(SystemTime::now());
        let redeemer = |id: TokenId| {
            let mut members = fleet.entries().map(crate::fleet::MemberEntry::member);
            members.find(|member| member.token_id == Some(id)).map(|member| member.cluster)
        };
        let state = |grant: &TokenGrant, used: Option<TokenUse>| match used {
            Some(TokenUse::Used { by, .. }) => TokenState::Redeemed(by),
            Some(TokenUse::Revoked { .. }) => TokenState::Revoked,
            _ => match redeemer(grant.token_id) {
                Some(by) => TokenState::Redeemed(by),
                None if grant.expires_at_unix_ms <= now => TokenState::Expired,
                None => TokenState::Open,
            },
        };
        if self.in_group() {
            let machine = self.store().state();
            let tokens = machine.0.tokens();
            return Ok(tokens.map(|t| row(&t.grant, state(&t.grant, Some(t.used)))).collect());
        }
        Ok(self.grants.all().iter().map(|grant| row(grant, state(grant, None))).collect())
    }

    pub(crate) async fn revoke_token(
        &self,
        id: TokenId,
    ) -> Result<model::Revision, MembershipError> {
        let member = self.own_member()?;
        let statement = AdminStatement {
            federation: member.federation,
            issuer: self.own.id,
            change: AdminChange::RevokeToken(id),
        };
        let signed = self.sign(Domain::Admin, statement.encode());
        let revision = self.propose(Change::Admin(signed)).await?;
        // From now on this node does not know it any more, whatever it sees of the store.
        self.grants.forget(&id);
        tracing::info!(target: "fedgate::audit", token = %id, "a token was revoked");
        Ok(revision)
    }
}

fn check_may_issue(member: &Member) -> Result<(), MembershipError> {
    if member.roles.contains(Role::Admit) && member.delegation_depth > 0 {
        return Ok(());
    }
    Err(MembershipError::NotAllowed {
        code: ROLE_MISSING,
        problem: format!(
            "{} has the roles {} and delegation depth {}, and so admits nobody",
            member.name, member.roles, member.delegation_depth
        ),
        fix: "issue the token at a cluster with the role admit",
    })
}

fn check_lifetime(lifetime: Duration) -> Result<u64, MembershipError> {
    let ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    if (1..=TOKEN_LIFETIME_MS_MAX).contains(&ms) {
        return Ok(ms);
    }
    Err(MembershipError::NotAllowed {
        code: TOKEN_REFUSED,
        problem: format!("a token cannot live for {} s", lifetime.as_secs()),
        fix: "choose at least 1 ms and at most 7 days",
    })
}

fn row(grant: &TokenGrant, state: TokenState) -> TokenRow {
    TokenRow {
        id: grant.token_id,
        name: grant.name.clone(),
        roles: grant.roles,
        issuer: grant.issuer,
        issued: from_unix_ms(grant.issued_at_unix_ms),
        expires: from_unix_ms(grant.expires_at_unix_ms),
        approval_needed: grant.approval_needed,
        state,
    }
}
