//! What people decide about the federation: founding it, taking members out, shutting them out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use futures_util::future::join_all;
use model::code::{LEAVE_UNSAFE, STORE_FAULT};
use model::{ClusterName, Revision, RoleSet};
use tokio::time::Instant;
use wire::store::limits::DELEGATION_DEPTH_MAX;
use wire::store::proto::RevocationsRequest;
use wire::store::proto::store_service_client::StoreServiceClient;
use wire::store::{
    AdminChange, AdminStatement, Change, Command, Domain, Leave, Member, MemberKey, ProposeReply,
    Reanchor, Revocation, RevocationTarget, SignedMember,
};

use super::error::MembershipError;
use super::machine::decode_reply;
use super::node::{Node, node_id, unix_ms};
use super::types::{Founded, LeaveRequest, RevokeRequest, RevokeTarget, Revoked};
use super::voters::loses_quorum;
use crate::limits::{DRAIN_MAX, LEAVE_TIMEOUT, TELL_TIMEOUT};

impl Node {
    /// Founds a federation. Interrupted, it can be done again.
    pub(crate) async fn init(self: &Arc<Self>) -> Result<Founded, MembershipError> {
        let Ok(_one) = self.changing.try_lock() else { return Err(MembershipError::Busy) };
        if let Some(federation) = self.federation()? {
            return Err(MembershipError::AlreadyMember { federation });
        }
        let root = Member {
            federation: self.own.key.federation_id(),
            cluster: self.own.id,
            name: self.own.name.clone(),
            trust_domains: vec![self.own.trust_domain.clone()],
            keys: vec![MemberKey { spki: *self.own.key.public().spki(), closed_at: None }],
            epoch: self.signed_mark().epoch.max(1),
            member_generation: 1,
            roles: RoleSet::all(),
            delegation_depth: DELEGATION_DEPTH_MAX,
            issuer: self.own.id,
            token_id: None,
        };
        let member = self.sign(Domain::Member, root.encode());
        let command = Command {
            request_id: self.random(),
            proposed_at_unix_ms: unix_ms(SystemTime::now()),
            change: Change::Found(SignedMember { member, key_proof: None }),
        };
        let proposed = self.store().found(command.encode()).await;
        let proposed = proposed.map_err(|error| MembershipError::Store {
            code: STORE_FAULT,
            problem: error.to_string(),
        })?;
        let revision = match decode_reply(&proposed.reply) {
            Ok(ProposeReply::Accepted(revision)) => revision,
            Ok(ProposeReply::Refused(refusal)) => {
                let code = refusal.code.unwrap_or(STORE_FAULT);
                return Err(MembershipError::Refused { code, text: refusal.text });
            }
            Ok(_) => return Err(MembershipError::NoQuorum { detail: "no answer".into() }),
            Err(problem) => return Err(MembershipError::Store { code: STORE_FAULT, problem }),
        };
        self.applied(revision).await;
        self.publish_again.notify_one();
        tracing::info!(
            target: "fedgate::audit",
            federation = %root.federation,
            "this cluster has founded a federation"
        );
        Ok(Founded { federation: root.federation, cluster: self.own.id, revision })
    }

    /// Tells the federation that this cluster leaves. What is here is for the caller to clear.
    pub(crate) async fn leave_federation(
        &self,
        request: LeaveRequest,
    ) -> Result<Option<Revision>, MembershipError> {
        let told = async {
            let member = self.own_member()?;
            if let Some(drain) = request.drain {
                self.withdraw().await?;
                tokio::time::sleep(drain.min(DRAIN_MAX)).await;
            }
            if self.fleet()?.members().count() == 1 && !request.force {
                return Err(MembershipError::NotAllowed {
                    code: LEAVE_UNSAFE,
                    problem: "this is the federation's last member, so the federation would end"
                        .into(),
                    fix: "say so with --force",
                });
            }
            self.propose_leave(&member).await
        };
        match told.await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if request.force => {
                tracing::warn!(%error, "leaving by force; the others have not been told");
                Ok(None)
            }
            Err(error) => {
                // It stays, with all that it exports.
                self.withdrawn.store(false, Ordering::Relaxed);
                self.publish_again.notify_one();
                Err(error)
            }
        }
    }

    /// Publishes no export any more, and waits until the store has it so.
    async fn withdraw(&self) -> Result<(), MembershipError> {
        self.withdrawn.store(true, Ordering::Relaxed);
        self.publish_again.notify_one();
        let mut revisions = self.feed.revision();
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        loop {
            revisions.mark_unchanged();
            let fleet = self.fleet()?;
            if fleet.records(&self.own.id).count() <= 1 {
                return Ok(());
            }
            let changed = tokio::time::timeout_at(deadline, revisions.changed()).await;
            changed
                .map_err(|_| MembershipError::NoQuorum {
                    detail: "the exports could not be withdrawn in time".into(),
                })?
                .map_err(|_| MembershipError::Alone)?;
        }
    }

    /// Leadership may move on the way: who leads has first to let this cluster go from the group.
    async fn propose_leave(&self, member: &Member) -> Result<Revision, MembershipError> {
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        loop {
            // A newer state may have a newer Member.
            let member = self.own_member().unwrap_or_else(|_| member.clone());
            if self.fleet()?.members().count() > 1 {
                self.exclude(self.own.id).await?;
            }
            let leave = self.signed_leave(&member);
            match self.propose(Change::Leave(leave)).await {
                Err(MembershipError::NoQuorum { detail }) => {
                    if Instant::now() >= deadline {
                        return Err(MembershipError::NoQuorum { detail });
                    }
                }
                // The log has it, though the answer was lost.
                Err(MembershipError::Excluded) => {
                    return Ok(self.state().map_or_else(Revision::default, |(now, _)| now));
                }
                outcome => return outcome,
            }
        }
    }

    fn signed_leave(&self, member: &Member) -> wire::store::Signed {
        let leave = Leave {
            federation: member.federation,
            cluster: member.cluster,
            issuer: self.own.id,
            member_generation: member.member_generation,
        };
        self.sign(Domain::Leave, leave.encode())
    }

    /// Takes another cluster out.
    pub(crate) async fn remove(&self, name: &ClusterName) -> Result<Revision, MembershipError> {
        self.own_member()?;
        let fleet = self.fleet()?;
        let member = fleet.member_named(name).ok_or_else(|| unknown(name))?;
        self.exclude(member.cluster).await?;
        let revision = self.propose(Change::Leave(self.signed_leave(member))).await?;
        tracing::info!(target: "fedgate::audit", cluster = %name, "a cluster was taken out");
        Ok(revision)
    }

    /// In force here at once, then told to every member directly, then logged.
    pub(crate) async fn revoke(
        self: &Arc<Self>,
        request: RevokeRequest,
    ) -> Result<Revoked, MembershipError> {
        let member = self.own_member()?;
        let fleet = self.fleet()?;
        let target = match &request.target {
            RevokeTarget::Cluster(name) => {
                let target = fleet.member_named(name).ok_or_else(|| unknown(name))?;
                RevocationTarget::Cluster(target.cluster)
            }
            RevokeTarget::TrustDomain(domain) => RevocationTarget::TrustDomain(domain.clone()),
        };
        let child = |name: &ClusterName| {
            let child = fleet.member_named(name).ok_or_else(|| unknown(name))?;
            Ok(Reanchor { child: child.cluster, issuer: self.own.id })
        };
        let reanchor: Result<Vec<_>, MembershipError> =
            request.reanchor.iter().map(child).collect();
        let revocation = Revocation {
            federation: member.federation,
            target,
            not_before_unix_ms: 0,
            issuer: self.own.id,
            reason: request.reason,
            reanchor: reanchor?,
        };
        let signed = self.sign(Domain::Revocation, revocation.encode());
        self.check_revocation(&signed)?;
        self.take_revocations(std::slice::from_ref(&signed));
        let (told, untold) = self.tell_all(&signed, &revocation).await;
        let revision = match self.propose(Change::Revoke(signed)).await {
            Ok(revision) => Some(revision),
            // Both this node and those that were told go on trying.
            Err(MembershipError::NoQuorum { .. }) => None,
            // Another member, or this node's own second attempt, was first.
            Err(MembershipError::Refused { code, .. }) if code == model::code::MEMBER_REVOKED => {
                self.state().map(|(revision, _)| revision)
            }
            Err(error) => return Err(error),
        };
        Ok(Revoked { revision, told, untold })
    }

    /// What the log would refuse must not come into force before: the state itself is asked, on a
    /// node that has all of it.
    fn check_revocation(&self, signed: &wire::store::Signed) -> Result<(), MembershipError> {
        if !self.in_group() {
            return Ok(());
        }
        let mut state = self.store().state().0.clone();
        let command = Command {
            request_id: self.random(),
            proposed_at_unix_ms: unix_ms(SystemTime::now()),
            change: Change::Revoke(signed.clone()),
        };
        let mut next = state.revision();
        next.index += 1;
        if let Err(refusal) = state.apply(next, &command.encode()) {
            return Err(MembershipError::Refused { code: refusal.code, text: refusal.text });
        }
        let stays: BTreeSet<u64> =
            state.fleet().members().map(|member| node_id(&member.cluster)).collect();
        if !loses_quorum(&self.store().status().voters, |node| stays.contains(&node)) {
            return Ok(());
        }
        Err(MembershipError::NotAllowed {
            code: LEAVE_UNSAFE,
            problem: "most of the store's voters would be shut out at once, and without them it \
                      could never be changed again"
                .into(),
            fix: "re-anchor the members that the target admitted, or revoke one voter after the \
                  other; `fedctl store peers` lists them",
        })
    }

    async fn tell_all(
        &self,
        signed: &wire::store::Signed,
        revocation: &Revocation,
    ) -> (Vec<ClusterName>, Vec<ClusterName>) {
        let Some((_, fleet)) = self.state() else { return (Vec::new(), Vec::new()) };
        let is_target = |member: &Member| match &revocation.target {
            RevocationTarget::Cluster(cluster) => member.cluster == *cluster,
            RevocationTarget::TrustDomain(domain) => member.trust_domains.contains(domain),
        };
        let others = fleet.members().filter(|m| m.cluster != self.own.id && !is_target(m));
        let asked = others.map(|member| async move {
            let Some(channel) = self.channel(&member.cluster) else {
                return (member.name.clone(), false);
            };
            let request = RevocationsRequest { revocations: vec![signed.to_proto()] };
            let mut client = StoreServiceClient::new(channel);
            let told = tokio::time::timeout(TELL_TIMEOUT, client.revocations(request)).await;
            (member.name.clone(), told.is_ok_and(|reply| reply.is_ok()))
        });
        let (told, untold): (Vec<_>, Vec<_>) =
            join_all(asked).await.into_iter().partition(|(_, told)| *told);
        let names = |pairs: Vec<(ClusterName, bool)>| pairs.into_iter().map(|(n, _)| n).collect();
        (names(told), names(untold))
    }

    /// Names the standbys.
    pub(crate) async fn set_standbys(
        &self,
        names: &[ClusterName],
    ) -> Result<Revision, MembershipError> {
        let member = self.own_member()?;
        let fleet = self.fleet()?;
        let id = |name: &ClusterName| {
            fleet.member_named(name).map(|member| member.cluster).ok_or_else(|| unknown(name))
        };
        let clusters: Result<Vec<_>, _> = names.iter().map(id).collect();
        let generation = fleet.standbys_generation() + 1;
        let statement = AdminStatement {
            federation: member.federation,
            issuer: self.own.id,
            change: AdminChange::Standbys { generation, clusters: clusters? },
        };
        let signed = self.sign(Domain::Admin, statement.encode());
        self.propose(Change::Admin(signed)).await
    }
}

pub(super) fn unknown(name: &ClusterName) -> MembershipError {
    MembershipError::UnknownCluster { name: name.clone() }
}
