//! This cluster's own records in the store: made from its catalog, signed, proposed, one at a time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use model::code::ROLE_MISSING;
use model::{ClusterPeer, Diagnostic, Resource, ResourceSet, Revision, Role, Severity};
use tokio_util::sync::CancellationToken;
use wire::store::{Change, Command, Domain, Head, Member, Publish, SignedMember};

use super::error::MembershipError;
use super::node::{Node, unix_ms};
use crate::fleet::{Fleet, OwnStep, own_records};
use crate::kubernetes::changed;
use crate::limits::{DENIAL_CHECK_INTERVAL, PUBLISH_PAUSE_MAX, PUBLISH_PAUSE_MIN};

impl Node {
    /// Publishes whenever the catalog, or what the store has of it, is another one. What changes
    /// meanwhile is in the next step; a step whose outcome is not known is proposed again, byte for
    /// byte, until it is.
    pub(crate) async fn keep_published(self: Arc<Self>, stop: CancellationToken) {
        let mut catalogs = self.catalogs.clone();
        let mut revisions = self.feed.revision();
        let mut addresses = self.own.advertise.clone();
        let mut cordons = self.own.cordons.clone();
        let mut denials = self.own.denials.watch();
        let mut pause = PUBLISH_PAUSE_MIN;
        loop {
            catalogs.mark_unchanged();
            revisions.mark_unchanged();
            addresses.mark_unchanged();
            cordons.mark_unchanged();
            denials.mark_unchanged();
            let retry = match stop.run_until_cancelled(self.publish_step()).await {
                None => return,
                Some(Ok(true)) => {
                    pause = PUBLISH_PAUSE_MIN;
                    continue;
                }
                Some(Ok(false)) => None,
                Some(Err(problem)) => {
                    tracing::warn!(code = %problem.code(), %problem, "not published yet");
                    pause = (pause * 2).min(PUBLISH_PAUSE_MAX);
                    Some(pause)
                }
            };
            let patience = retry.unwrap_or(Duration::ZERO);
            tokio::select! {
                () = changed(&mut catalogs), if retry.is_none() => {}
                () = changed(&mut revisions), if retry.is_none() => {}
                () = changed(&mut addresses), if retry.is_none() => {}
                () = changed(&mut cordons), if retry.is_none() => {}
                () = changed(&mut denials), if retry.is_none() => {}
                () = tokio::time::sleep(DENIAL_CHECK_INTERVAL), if retry.is_none() => {}
                () = self.publish_again.notified() => {}
                () = tokio::time::sleep(patience), if retry.is_some() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// `false` when the store has all that there is to publish.
    async fn publish_step(&self) -> Result<bool, MembershipError> {
        let Some((_, fleet)) = self.state() else { return Ok(false) };
        let Some(member) = fleet.member(&self.own.id) else { return Ok(false) };
        if self.must_begin_epoch(&fleet) {
            let revision = self.begin_epoch(member).await?;
            self.applied(revision).await;
            return Ok(true);
        }
        let pending = self.unsettled.lock().await.clone();
        let command = match pending {
            Some(command) => command,
            None => match self.next_command(&fleet, member)? {
                Some(command) => command,
                None => return Ok(false),
            },
        };
        *self.unsettled.lock().await = Some(command.clone());
        let outcome = self.propose_bytes(command).await;
        if !matches!(outcome, Err(MembershipError::NoQuorum { .. })) {
            *self.unsettled.lock().await = None;
        }
        let revision = outcome?;
        tracing::info!(%revision, "published");
        self.applied(revision).await;
        Ok(true)
    }

    /// The command for what differs, as much as fits into one.
    fn next_command(
        &self,
        fleet: &Fleet,
        member: &Member,
    ) -> Result<Option<Bytes>, MembershipError> {
        let Some((catalog, mut diagnostics)) = self.to_publish(member) else { return Ok(None) };
        self.adopt_denials(fleet);
        let mut salt = || self.random();
        let (peer, owner) = (self.own_peer(), fleet.owner(&self.own.id));
        let (steps, found) = own_records(&self.own.id, &peer, &catalog, owner, &mut salt);
        diagnostics.extend(found);
        self.note_own(diagnostics);
        let Some(step) = steps.into_iter().next() else { return Ok(None) };
        let command = Command {
            request_id: self.random(),
            proposed_at_unix_ms: unix_ms(SystemTime::now()),
            change: Change::Publish(self.sign_step(fleet, member, step)?),
        };
        Ok(Some(command.encode().into()))
    }

    /// What this cluster has denied is denied still, though its folder may be another one.
    fn adopt_denials(&self, fleet: &Fleet) {
        for record in fleet.records(&self.own.id) {
            let Some(Resource::ClusterPeer(peer)) = record.resource() else { continue };
            if let Err(problem) = self.own.denials.adopt(&peer.revoked_svids, SystemTime::now()) {
                tracing::error!(%problem, "revoked SVIDs that the store has are not kept here");
            }
        }
    }

    /// What of the catalog this member may publish; `None` while there is no catalog.
    fn to_publish(&self, member: &Member) -> Option<(ResourceSet, Vec<Diagnostic>)> {
        // A cluster that is about to leave exports nothing any more.
        if self.is_withdrawn() {
            return Some((ResourceSet::default(), Vec::new()));
        }
        let catalog = self.catalogs.borrow().as_ref()?.resources.clone();
        let is_export = |resource: &&Resource| matches!(resource, Resource::ServiceExport(_));
        if member.roles.contains(Role::Export) || !catalog.values().any(|r| is_export(&r)) {
            return Some((catalog, Vec::new()));
        }
        let kept = catalog.values().filter(|resource| !is_export(resource)).cloned().collect();
        let refused = catalog.values().filter(is_export).map(|export| Diagnostic {
            severity: Severity::Error,
            code: ROLE_MISSING,
            object: export.key().to_string(),
            field: String::new(),
            message: "this cluster was admitted without the role export, so it is not published"
                .into(),
            fix: "ask an admin for the role, or remove the ServiceExport".into(),
        });
        Some((kept, refused.collect()))
    }

    /// What others need to know of this cluster in order to reach it.
    pub(crate) fn own_peer(&self) -> ClusterPeer {
        ClusterPeer {
            name: self.own.name.clone(),
            addresses: self.own.advertise.borrow().to_vec(),
            trust_bundles: vec![self.own.ca.bundle()],
            cordoned: self.own.cordons.borrow().contains_key(&self.own.name),
            revoked_svids: self.own.denials.in_force(SystemTime::now()),
        }
    }

    /// Raises the mark on disk, then signs the Head over the records after the step.
    pub(crate) fn sign_step(
        &self,
        fleet: &Fleet,
        member: &Member,
        step: OwnStep,
    ) -> Result<Publish, MembershipError> {
        let head = self.sign_head(Head {
            federation: member.federation,
            cluster: self.own.id,
            mark: self.next_mark(fleet, member)?,
            issued_at_unix_ms: unix_ms(SystemTime::now()),
            key_id: self.own.key.key_id(),
            digest: step.digest,
            records: step.records,
        });
        Ok(Publish { head, puts: step.puts, removes: step.removes })
    }

    /// Whether the store has Heads of this cluster that this node does not remember to have signed:
    /// its data folder was lost or put back. What was signed in between is not known, so that the
    /// next Head could be a second one of its generation.
    fn must_begin_epoch(&self, fleet: &Fleet) -> bool {
        fleet.high_water(&self.own.id).is_some_and(|published| published > self.signed_mark())
    }

    async fn begin_epoch(&self, member: &Member) -> Result<Revision, MembershipError> {
        let next = Member {
            epoch: member.epoch + 1,
            member_generation: member.member_generation + 1,
            ..member.clone()
        };
        tracing::warn!(
            epoch = next.epoch,
            "the store has newer Heads of this cluster than this node has signed: new epoch"
        );
        let member = self.sign(Domain::Member, next.encode());
        let link = SignedMember { member, key_proof: None };
        *self.unsettled.lock().await = None;
        let revision = self.propose(Change::UpdateMember(link)).await?;
        let first = wire::store::Mark { epoch: next.epoch, generation: 0 };
        self.raise_mark(first)?;
        Ok(revision)
    }
}
