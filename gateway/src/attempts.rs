//! The attempts of one request or connection: where to go next, and whether to go again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::ClusterName;
use model::snapshot::Backend;
use tokio::time::{Instant, sleep, timeout};

use crate::access_log::Record;
use crate::balance::{self, Tried, Upstream};
use crate::error::{Kind, ProxyError, Retry};
use crate::limits::{ATTEMPTS_MAX, NOT_YET_PAUSE, TUNNEL_WAIT_MAX};
use crate::worker::WorkerState;

/// Retries belong to the gateway where a request began (DESIGN §10); this is where they are.
#[derive(Debug)]
pub struct Attempts<'a> {
    worker: &'a WorkerState,
    backend: Arc<Backend>,
    tried: Tried,
    number: u32,
    place: Option<Place>,
    /// The attempt before failed with its tunnel, and nobody but its cluster can serve this.
    needs_tunnel: bool,
    /// How long this may still wait for a tunnel.
    patience: Duration,
    /// Why the attempt before failed; a better answer than "nothing is left to try".
    failure: Option<ProxyError>,
}

/// Where the current attempt goes.
#[derive(Debug, Clone)]
enum Place {
    Own(SocketAddr),
    Peer(ClusterName),
}

/// Counts of an attempt, as `Open` carries them.
#[derive(Debug, Clone, Copy)]
pub struct AttemptNumber {
    /// From 1.
    pub number: u32,
    pub retries_left: u32,
}

impl<'a> Attempts<'a> {
    pub fn begin(worker: &'a WorkerState, backend: &Arc<Backend>) -> Self {
        worker.gateway.budget.deposit();
        Self {
            worker,
            backend: backend.clone(),
            tried: Tried::default(),
            number: 0,
            place: None,
            needs_tunnel: false,
            patience: TUNNEL_WAIT_MAX,
            failure: None,
        }
    }

    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    pub fn number(&self) -> AttemptNumber {
        AttemptNumber { number: self.number, retries_left: ATTEMPTS_MAX - self.number }
    }

    /// The place for the next attempt. Where only a tunnel is missing that was there a moment ago, it
    /// waits for it: a gateway over there has gone or stood still, and is being dialled.
    pub async fn pick(&mut self, deadline: Option<Instant>) -> Result<Upstream, ProxyError> {
        if std::mem::take(&mut self.needs_tunnel) {
            self.await_tunnel(deadline).await;
        }
        let mut picked = self.pick_now();
        if matches!(&picked, Err(error) if error.kind == Kind::TunnelDown) {
            self.await_tunnel(deadline).await;
            picked = self.pick_now();
        }
        let upstream = picked.map_err(|error| self.failure.take().unwrap_or(error))?;
        self.number += 1;
        self.place = Some(match &upstream {
            Upstream::Local(lease) => Place::Own(lease.address()),
            Upstream::Peer(cluster) => Place::Peer(cluster.clone()),
        });
        Ok(upstream)
    }

    fn pick_now(&self) -> Result<Upstream, ProxyError> {
        let gateway = &self.worker.gateway;
        let rank = gateway.rank.load();
        let choices = gateway.choices(&rank);
        let path = |cluster: &ClusterName| gateway.path(cluster);
        balance::pick(&self.backend, &self.tried, &choices, path, &mut rand::rng())
    }

    async fn await_tunnel(&mut self, deadline: Option<Instant>) {
        let Some(tunnel) = self.worker.gateway.tunnel.get() else { return };
        let now = Instant::now();
        let left = deadline.map_or(self.patience, |at| at.saturating_duration_since(now));
        let clusters: Vec<_> = self.untried().cloned().collect();
        let _ = timeout(left.min(self.patience), tunnel.sound_path(&clusters)).await;
        self.patience = self.patience.saturating_sub(now.elapsed());
    }

    fn untried(&self) -> impl Iterator<Item = &ClusterName> {
        let clusters = self.backend.clusters.iter();
        clusters.filter(|cluster| !self.tried.clusters.contains(cluster))
    }

    pub fn describe(&self, record: &mut Record) {
        record.attempts = self.number;
        record.away = match &self.place {
            Some(Place::Peer(cluster)) => Some(self.worker.gateway.sent.begin(cluster)),
            Some(Place::Own(_)) | None => None,
        };
        (record.upstream, record.destination_cluster) = match &self.place {
            Some(Place::Own(address)) => {
                (Some(*address), Some(self.worker.gateway.config.cluster.clone()))
            }
            Some(Place::Peer(cluster)) => (None, Some(cluster.clone())),
            None => (None, None),
        };
    }

    /// Returns when another attempt may begin; the error is the one to answer with. `again`: the
    /// request is one that may be sent again after this error.
    pub async fn retry_or_respond(
        &mut self,
        error: ProxyError,
        again: bool,
        deadline: Option<Instant>,
    ) -> Result<(), ProxyError> {
        self.penalize(&error);
        let in_time = deadline.is_none_or(|deadline| deadline > Instant::now());
        if !again || !in_time || self.number >= ATTEMPTS_MAX {
            return Err(error);
        }
        let gateway = &self.worker.gateway;
        if !gateway.budget.withdraw(gateway.now()) {
            self.worker.shard.retries_denied.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
        self.worker.shard.retries_made.fetch_add(1, Ordering::Relaxed);
        if error.kind.retry() == Retry::Later {
            sleep(NOT_YET_PAUSE).await; // the same cluster may well serve it a moment later
        } else {
            match self.place.clone() {
                Some(Place::Own(address)) => self.tried.endpoints.push(address),
                Some(Place::Peer(cluster)) if self.may_ask_again(&error, &cluster) => {
                    self.needs_tunnel = !self.has_sound_path(&cluster);
                }
                Some(Place::Peer(cluster)) => self.tried.clusters.push(cluster),
                None => {}
            }
        }
        self.failure = Some(error);
        Ok(())
    }

    /// Whether it was a tunnel that failed and not the cluster: if another gateway of it is there, or
    /// nobody else can serve this, so that a new tunnel is worth waiting for.
    fn may_ask_again(&self, error: &ProxyError, cluster: &ClusterName) -> bool {
        let can_reach = |other: &ClusterName| self.worker.gateway.path(other).is_some();
        matches!(error.kind, Kind::Draining | Kind::TunnelLost | Kind::TunnelDown)
            && (self.has_sound_path(cluster)
                || !self.untried().any(|other| other != cluster && can_reach(other)))
    }

    fn has_sound_path(&self, cluster: &ClusterName) -> bool {
        let path = self.worker.gateway.path(cluster);
        path.is_some_and(|path| !path.draining && !path.suspect)
    }

    /// Others need not find out for themselves that a cluster cannot serve this now.
    fn penalize(&self, error: &ProxyError) {
        let refuses = matches!(
            error.kind,
            Kind::NoEndpoint
                | Kind::ConnectFailed
                | Kind::NotExported
                | Kind::Overloaded
                | Kind::Draining
        );
        if let (true, Some(Place::Peer(cluster))) = (refuses, &self.place)
            && !(error.kind == Kind::Draining && self.has_sound_path(cluster))
        {
            let gateway = &self.worker.gateway;
            gateway.penalties.set(&self.backend, cluster, gateway.now());
        }
    }
}
