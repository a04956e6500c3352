//! This cluster's own records in the store: made from its catalog, signed, proposed, one at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use model::{ClusterPeer, Diagnostic, Resource, Revision};
use tokio_util::sync::CancellationToken;
use wire::store::{
    Change, Command, Domain, Head, Mark, Member, MemberChain, Publish, SignedMember,
};

use super::error::MembershipError;
use super::node::{Node, unix_ms};
use crate::fleet::{self, Fleet, OwnStep};
use crate::limits::{
    APPLIED_TIMEOUT, HEAD_INTERVAL, PUBLISH_BYTES_MAX, PUBLISH_PAUSE_MAX, PUBLISH_PAUSE_MIN,
};

impl Node {
    /// Publishes whenever the catalog, or what the store has of it, is another one. What changes
    /// meanwhile is in the next step; a step whose outcome is not known is proposed again, byte for
    /// byte, until it is.
    pub(crate) async fn keep_published(self: Arc<Self>, stop: CancellationToken) {
        let mut catalogs = self.catalogs.clone();
        let mut revisions = self.feed.revision();
        let mut pause = PUBLISH_PAUSE_MIN;
        loop {
            catalogs.mark_unchanged();
            revisions.mark_unchanged();
            let step = stop.run_until_cancelled(self.publish_step()).await;
            let retry = match step {
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
            tokio::select! {
                changed = catalogs.changed(), if retry.is_none() => if changed.is_err() { return },
                changed = revisions.changed(), if retry.is_none() => if changed.is_err() { return },
                () = self.publish_again.notified() => {}
                () = tokio::time::sleep(retry.unwrap_or(Duration::MAX)), if retry.is_some() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// `false` when the store has all that there is to publish.
    async fn publish_step(&self) -> Result<bool, MembershipError> {
        let Some((_, fleet)) = self.state() else { return Ok(false) };
        let Some(member) = fleet.member(&self.own.id) else { return Ok(false) };
        if self.must_begin_epoch(&fleet) {
            let revision = self.begin_epoch(&fleet).await?;
            self.applied(revision).await;
            return Ok(true);
        }
        let pending = self.unsettled.lock().await.clone();
        let command = match pending {
            Some(command) => command,
            None => match self.next_step(&fleet, member)? {
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
    fn next_step(
        &self,
        fleet: &Fleet,
        member: &Member,
    ) -> Result<Option<Bytes>, MembershipError> {
        let (step, diagnostics) = self.own_step(fleet, member);
        self.note_own(diagnostics);
        if step.is_empty() {
            return Ok(None);
        }
        let publish = self.sign_step(fleet, member, step)?;
        let command = Command {
            request_id: self.random(),
            proposed_at_unix_ms: unix_ms(SystemTime::now()),
            change: Change::Publish(publish),
        };
        Ok(Some(command.encode().into()))
    }

    fn own_step(&self, fleet: &Fleet, member: &Member) -> (OwnStep, Vec<Diagnostic>) {
        let catalog = self.catalogs.borrow().clone();
        let mut resources: Vec<Resource> = vec![self.own_peer()];
        // A cluster that is about to leave exports nothing any more.
        if !self.withdrawn.load(Ordering::Relaxed) {
            resources.extend(catalog.resources.values().cloned());
        }
        fleet::own_records(&self.own.id, member, &resources, fleet.owner(&self.own.id), || {
            self.random()
        })
    }

    /// What others need to know of this cluster in order to reach it.
    fn own_peer(&self) -> Resource {
        Resource::ClusterPeer(ClusterPeer {
            name: self.own.name.clone(),
            addresses: self.own.advertise.clone(),
            trust_bundles: vec![self.own.ca.bundle()],
        })
    }

    /// Raises the mark on disk, then signs the Head over the records after the step.
    pub(crate) fn sign_step(
        &self,
        fleet: &Fleet,
        member: &Member,
        mut step: OwnStep,
    ) -> Result<Publish, MembershipError> {
        step.cut(PUBLISH_BYTES_MAX);
        let (digest, records) = step.digest(fleet.owner(&self.own.id));
        let mark = self.next_mark(fleet, member)?;
        let head = self.sign_head(Head {
            federation: member.federation,
            cluster: self.own.id,
            mark,
            issued_at_unix_ms: unix_ms(SystemTime::now()),
            key_id: self.own.key.id(),
            digest,
            records,
        });
        Ok(Publish { head, puts: step.puts, removes: step.removes })
    }
}
