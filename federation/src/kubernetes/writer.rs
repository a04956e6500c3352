//! The loop of every writer: while this node holds the Lease, compare what should be with what is,
//! and apply the difference; again whenever something changes, after a failure, and now and then.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use rand::Rng as _;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Health;
use super::apply::{Observed, Plan, Step, Target, Write, plan};
use super::calls::{self, Failure};
use super::drift::{self, Look};
use super::kinds::Kind;
use super::owner::Owner;
use crate::limits::{
    KUBERNETES_DRIFT_INTERVAL, KUBERNETES_RESYNC_INTERVAL, KUBERNETES_RETRY_MAX,
    KUBERNETES_RETRY_MIN, KUBERNETES_SETTLE, KUBERNETES_WRITES_MAX,
};

/// One controller: what it wants to be in the cluster, as a function of what it knows.
pub(crate) trait Writer: Send + 'static {
    /// In logs, and in the label `fedgate.dev/writer` of the objects that are its own.
    const NAME: &'static str;

    /// Where objects of its own may be: what bears its label there and is not desired is deleted.
    fn owned(&self) -> Vec<Owned> {
        Vec::new()
    }

    /// What should be; `None` while that is not known, which changes nothing. Decides without I/O.
    /// `own`: its own objects as the API server has them. It is called again after every write.
    fn desired(&mut self, own: &Observed, now: Timestamp) -> Option<Vec<Write>>;

    /// Returns when [`Self::desired`] may have another answer. May be dropped at any time.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// A kind of which a writer has objects of its own.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) kind: &'static Kind,
    /// `None`: in any namespace.
    pub(crate) namespace: Option<String>,
}

/// Waits for the next value; for ever when there will be none, which is so when the node stops.
pub(crate) async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// What every writer writes with.
#[derive(Clone)]
pub(super) struct Pen {
    pub(super) client: Client,
    pub(super) owner: Owner,
    pub(super) health: Arc<Health>,
    /// Whether this node is the one that writes.
    pub(super) leader: watch::Receiver<bool>,
    pub(super) stop: CancellationToken,
    /// For what others change of its objects.
    pub(super) look: Look,
}

/// Runs a writer until the node stops.
pub(super) async fn run<W: Writer>(writer: W, pen: Pen) {
    let (mut leader, stop) = (pen.leader.clone(), pen.stop.clone());
    let mut writing = Writing::new(writer, pen);
    loop {
        let elected = async { leader.wait_for(|leads| *leads).await.is_ok() };
        match stop.run_until_cancelled(elected).await {
            Some(true) => {}
            Some(false) | None => return,
        }
        // Another node may have written since this one last did.
        writing.forget();
        let deposed = async { leader.wait_for(|leads| !*leads).await.is_ok() };
        tokio::select! {
            () = writing.go_on() => {}
            still = deposed => if !still { return },
            () = stop.cancelled() => return,
        }
    }
}

/// A writer, and what it did.
struct Writing<W> {
    writer: W,
    pen: Pen,
    own: Observed,
    /// Of what this writer makes.
    owner: Option<OwnerReference>,
    applied: BTreeMap<Target, Applied>,
    listed: Option<Instant>,
    pause: Duration,
}

/// What was applied last.
struct Applied {
    document: Value,
    at: Instant,
    /// To an object of ours.
    whole: bool,
}

/// What one round came to.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// Everything is as it should be.
    Settled,
    /// Something was written: what follows from that is in the next round.
    Wrote,
    Failed,
}

impl<W: Writer> Writing<W> {
    fn new(writer: W, pen: Pen) -> Self {
        let (own, applied) = (Observed::default(), BTreeMap::new());
        Self { writer, pen, own, owner: None, applied, listed: None, pause: KUBERNETES_RETRY_MIN }
    }

    fn forget(&mut self) {
        self.own = Observed::default();
        self.applied.clear();
        self.listed = None;
        self.pause = KUBERNETES_RETRY_MIN;
    }

    async fn go_on(&mut self) {
        loop {
            let patience = match self.round().await {
                Round::Wrote => {
                    self.pause = KUBERNETES_RETRY_MIN;
                    KUBERNETES_SETTLE
                }
                Round::Settled => {
                    self.pause = KUBERNETES_RETRY_MIN;
                    KUBERNETES_RESYNC_INTERVAL
                }
                Round::Failed => {
                    let pause = self.pause;
                    self.pause = (pause * 2).min(KUBERNETES_RETRY_MAX);
                    pause.mul_f64(rand::rng().random_range(0.8..1.2))
                }
            };
            tokio::select! {
                () = self.writer.changed() => {
                    // Changes come in swarms, and one round takes them all.
                    tokio::time::sleep(KUBERNETES_SETTLE).await;
                }
                () = drift::noticed(&self.pen.look, &self.own, KUBERNETES_DRIFT_INTERVAL) => {
                    self.listed = None;
                }
                () = tokio::time::sleep(patience) => {}
            }
        }
    }

    async fn round(&mut self) -> Round {
        let now = Instant::now();
        if self.listed.is_none_or(|at| now - at >= KUBERNETES_RESYNC_INTERVAL) {
            if let Err(failure) = self.look().await {
                self.pen.health.failed_alone(W::NAME, failure);
                return Round::Failed;
            }
            self.listed = Some(now);
        }
        let Some(mut desired) = self.writer.desired(&self.own, Timestamp::now()) else {
            return Round::Settled;
        };
        if let Some(owner) = &self.owner {
            desired.iter_mut().for_each(|write| write.owned_by(owner));
        }
        self.applied.retain(|_, applied| now - applied.at < KUBERNETES_RESYNC_INTERVAL);
        let applied = self.applied.iter();
        let applied = applied.map(|(target, applied)| (target, &applied.document)).collect();
        let Plan { steps, wanted } = plan(W::NAME, desired, &self.own, &applied);
        self.applied.retain(|target, _| wanted.contains(target));
        self.carry_out(steps).await
    }

    /// What this writer made, and who owns it.
    async fn look(&mut self) -> Result<(), Failure> {
        self.owner = self.pen.owner.reference().await?;
        self.own = calls::list_own(&self.pen.client, &self.writer.owned(), W::NAME).await?;
        // What became of these is known now.
        self.applied.retain(|_, applied| !applied.whole);
        Ok(())
    }

    async fn carry_out(&mut self, steps: Vec<Step>) -> Round {
        let mut failures = BTreeMap::new();
        let mut wrote = false;
        let client = &self.pen.client;
        let mut calls = stream::iter(steps)
            .map(|step| async move {
                let outcome = calls::carry_out(client, &step).await;
                (step, outcome)
            })
            .buffer_unordered(KUBERNETES_WRITES_MAX);
        while let Some((step, outcome)) = calls.next().await {
            let target = step.target().clone();
            match outcome {
                Ok(object) => {
                    wrote = true;
                    tracing::debug!(writer = W::NAME, %target, "written");
                    match step {
                        Step::Delete { .. } => {
                            self.own.objects.remove(&target);
                        }
                        Step::Apply { document, whole, .. } => {
                            if let Some(object) = object.filter(|_| whole) {
                                self.own.objects.insert(target.clone(), object);
                            }
                            let applied = Applied { document, at: Instant::now(), whole };
                            self.applied.insert(target, applied);
                        }
                    }
                }
                Err(failure) => {
                    failures.insert(target, failure);
                }
            }
        }
        drop(calls);
        let failed = !failures.is_empty();
        self.pen.health.failed(W::NAME, failures);
        match (failed, wrote) {
            (true, _) => Round::Failed,
            (false, true) => Round::Wrote,
            (false, false) => Round::Settled,
        }
    }
}

#[cfg(test)]
mod tests;
