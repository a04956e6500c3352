//! The Lease `fedgate-writer`: of several federation nodes in a cluster one writes. The algorithm is
//! that of client-go's leader election: nobody's clock but one's own is compared, and a holder that
//! cannot renew in time stops writing before others may begin.

use std::time::Duration;

use api::kubernetes::{FIELD_MANAGER, WRITER_LEASE};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Cluster;
use super::calls::{Failure, in_time};
use super::kinds::CLUSTER_ROLE;
use super::owner::Owner;
use crate::limits::{LEASE_DURATION, LEASE_RELEASE_TIMEOUT, LEASE_RENEW_DEADLINE, LEASE_RETRY};

/// Takes part in the election until the node stops, and then gives the Lease back.
pub(super) async fn run(cluster: Cluster, leads: watch::Sender<bool>) {
    let namespace = cluster.config.namespace.as_str();
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), namespace);
    let (me, owner) = (cluster.identity.clone(), cluster.owner());
    let mut candidate = Candidate { api, me, owner, seen: None, renewed: None };
    let mut ticks = tokio::time::interval(LEASE_RETRY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cluster.around.stop.cancelled() => break,
        }
        let step = candidate.step_in_time();
        let Some(outcome) = cluster.around.stop.run_until_cancelled(step).await else { break };
        let is_leader = candidate.leads(Instant::now());
        let changed =
            leads.send_if_modified(|leads| std::mem::replace(leads, is_leader) != is_leader);
        if changed && is_leader {
            tracing::info!(lease = WRITER_LEASE, "this node writes to the cluster");
        } else if changed {
            tracing::warn!(lease = WRITER_LEASE, "this node no longer writes to the cluster");
        }
        cluster.health.leads(is_leader, candidate.holder());
        cluster.health.lease(outcome.err());
    }
    leads.send_replace(false);
    let released = tokio::time::timeout(LEASE_RELEASE_TIMEOUT, candidate.release()).await;
    if !matches!(released, Ok(Ok(()))) {
        tracing::info!("the Lease was not given back; it expires by itself");
    }
}

/// One node in the election.
struct Candidate {
    api: Api<Lease>,
    me: String,
    owner: Owner,
    /// The Lease as it was seen to be since when; who holds it has renewed it by then at the latest.
    seen: Option<(Lease, Instant)>,
    /// When this node had last begun to take or renew it with success.
    renewed: Option<Instant>,
}

/// What is to be done about a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Create,
    /// It is this node's, nobody's, or was not renewed in time.
    Take,
    Wait,
}

impl Candidate {
    fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now - at < LEASE_RENEW_DEADLINE)
    }

    fn holder(&self) -> Option<String> {
        let spec = self.seen.as_ref().and_then(|(lease, _)| lease.spec.as_ref());
        spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty())
    }

    /// A holder is deposed when its time is over, however long a call takes.
    async fn step_in_time(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let end = match self.renewed {
            Some(at) if self.leads(now) => at + LEASE_RENEW_DEADLINE,
            _ => now + LEASE_RENEW_DEADLINE,
        };
        let step = tokio::time::timeout_at(end, self.step()).await;
        step.unwrap_or_else(|_| Err(Failure::silence(end - now)))
    }

    async fn step(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        // A holder knows what it wrote; all others have to look.
        if !self.leads(begun) {
            self.look().await?;
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let seen = self.seen.as_ref().map(|(lease, _)| lease);
        let turn = turn(self.seen.as_ref(), &self.me, begun);
        // Who renews the Lease has seen to this when taking it.
        let owner = match turn {
            Turn::Create | Turn::Take if !self.leads(begun) => self.owner.reference().await?,
            _ => None,
        };
        let written = match turn {
            Turn::Wait => return Ok(()),
            Turn::Create => {
                let lease = owned(held(None, &self.me, Timestamp::now()), owner);
                in_time(self.api.create(&params, &lease)).await?
            }
            Turn::Take => {
                let lease = owned(held(seen, &self.me, Timestamp::now()), owner);
                in_time(self.api.replace(WRITER_LEASE, &params, &lease)).await?
            }
        };
        match written {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                self.renewed = Some(begun);
                Ok(())
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => self.look().await,
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// Reads the Lease. Only a change of it is news of its holder.
    async fn look(&mut self) -> Result<(), Failure> {
        let there = in_time(self.api.get_opt(WRITER_LEASE)).await?;
        let there = there.map_err(|error| Failure::of(&error))?;
        let Some(there) = there else {
            self.seen = None;
            return Ok(());
        };
        let known = self.seen.as_ref().map(|(lease, _)| &lease.metadata.resource_version);
        if known != Some(&there.metadata.resource_version) {
            self.seen = Some((there, Instant::now()));
        }
        if self.holder().as_ref() != Some(&self.me) {
            self.renewed = None;
        }
        Ok(())
    }

    /// Lets the next one take it at once.
    async fn release(&mut self) -> Result<(), Failure> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        loop {
            if self.renewed.is_none() || self.holder().as_ref() != Some(&self.me) {
                return Ok(());
            }
            let Some((lease, _)) = &self.seen else { return Ok(()) };
            let mut lease = lease.clone();
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
            }
            match self.api.replace(WRITER_LEASE, &params, &lease).await {
                Ok(_) => return Ok(()),
                // The stop may have cut off a renewal whose answer was under way.
                Err(kube::Error::Api(status)) if status.code == 409 => self.look().await?,
                Err(error) => return Err(Failure::of(&error)),
            }
        }
    }
}

fn turn(seen: Option<&(Lease, Instant)>, me: &str, now: Instant) -> Turn {
    let Some((lease, since)) = seen else { return Turn::Create };
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let duration = seconds.map_or(LEASE_DURATION, Duration::from_secs);
    if holder.is_empty() || holder == me || now - *since >= duration {
        Turn::Take
    } else {
        Turn::Wait
    }
}

/// The Lease as this node wants it; `seen` is what it replaces.
fn held(seen: Option<&Lease>, me: &str, now: Timestamp) -> Lease {
    let mut lease = seen.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(WRITER_LEASE.into()), ..ObjectMeta::default() },
        spec: None,
    });
    let old = lease.spec.take().unwrap_or_default();
    let mine = old.holder_identity.as_deref() == Some(me);
    let transitions = old.lease_transitions.unwrap_or(0);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(me.into()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: old.acquire_time.filter(|_| mine).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if mine || seen.is_none() { transitions } else { transitions + 1 }),
        ..old
    });
    lease
}

/// With this owner, in place of one of an earlier release.
fn owned(mut lease: Lease, owner: Option<OwnerReference>) -> Lease {
    if let Some(owner) = owner {
        let owners = lease.metadata.owner_references.get_or_insert_default();
        owners.retain(|other| other.kind != CLUSTER_ROLE.kind);
        owners.push(owner);
    }
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, now: Timestamp) -> Lease {
        held(None, holder, now)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_when_it_is_free_own_or_was_not_renewed_in_time() {
        let (since, now) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let theirs = (lease("them", now), since);
        assert_eq!(turn(None, "me", since), Turn::Create);
        assert_eq!(turn(Some(&theirs), "them", since), Turn::Take);
        assert_eq!(turn(Some(&theirs), "me", since), Turn::Wait);
        let almost = since + LEASE_DURATION - Duration::from_millis(1);
        assert_eq!(turn(Some(&theirs), "me", almost), Turn::Wait);
        assert_eq!(turn(Some(&theirs), "me", since + LEASE_DURATION), Turn::Take);
        assert_eq!(turn(Some(&(lease("", now), since)), "me", since), Turn::Take);
    }

    #[test]
    fn a_holder_stops_writing_before_others_may_begin() {
        assert!(LEASE_RENEW_DEADLINE + LEASE_RETRY < LEASE_DURATION);
        assert!(LEASE_RETRY * 2 < LEASE_RENEW_DEADLINE);
    }

    #[test]
    fn a_lease_has_the_owner_of_now_beside_others() {
        let owner = |kind: &str, uid: &str| OwnerReference {
            kind: kind.into(),
            uid: uid.into(),
            ..OwnerReference::default()
        };
        let role = |uid| owner(CLUSTER_ROLE.kind, uid);
        let mut old = owned(lease("me", Timestamp::UNIX_EPOCH), Some(role("old")));
        old.metadata.owner_references.as_mut().unwrap().push(owner("Node", "n"));
        let new = owned(held(Some(&old), "me", Timestamp::UNIX_EPOCH), Some(role("new")));
        assert_eq!(
            new.metadata.owner_references.as_deref(),
            Some(&[owner("Node", "n"), role("new")][..])
        );
        let renewed = owned(held(Some(&new), "me", Timestamp::UNIX_EPOCH), None);
        assert_eq!(renewed.metadata.owner_references, new.metadata.owner_references);
    }

    #[test]
    fn taking_over_counts_as_a_transition_and_renewing_does_not() {
        let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let mine = lease("me", first);
        let renewed = held(Some(&mine), "me", later).spec.unwrap();
        assert_eq!(renewed.lease_transitions, Some(0));
        assert_eq!(renewed.acquire_time, Some(MicroTime(first)));
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
        let taken = held(Some(&mine), "you", later).spec.unwrap();
        assert_eq!(taken.lease_transitions, Some(1));
        assert_eq!(taken.acquire_time, Some(MicroTime(later)));
    }
}
