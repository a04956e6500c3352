//! The attempts of one request or connection: where to go next, and whether to go again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::ClusterName;
use model::snapshot::Backend;
use tokio::time::{Instant, sleep};

use crate::access_log::Record;
use crate::balance::{self, Tried, Upstream};
use crate::error::{Kind, ProxyError, Retry};
use crate::limits::{ATTEMPTS_MAX, NOT_YET_PAUSE};
use crate::worker::WorkerState;

/// Retries belong to the gateway where a request began (DESIGN §10); this is where they are.
#[derive(Debug)]
pub struct Attempts<'a> {
    worker: &'a WorkerState,
    backend: Arc<Backend>,
    tried: Tried,
    number: u32,
    place: Option<Place>,
    /// A cluster that was asked again, since another gateway of it could be.
    asked_again: Option<ClusterName>,
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
        let (backend, tried) = (backend.clone(), Tried::default());
        Self { worker, backend, tried, number: 0, place: None, asked_again: None, failure: None }
    }

    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    pub fn number(&self) -> AttemptNumber {
        AttemptNumber { number: self.number, retries_left: ATTEMPTS_MAX - self.number }
    }

    /// The place for the next attempt.
    pub fn pick(&mut self) -> Result<Upstream, ProxyError> {
        let gateway = &self.worker.gateway;
        let rank = gateway.rank.load();
        let choices = gateway.choices(&rank);
        let path = |cluster: &ClusterName| gateway.path(cluster);
        let picked = balance::pick(&self.backend, &self.tried, &choices, path, &mut rand::rng());
        let upstream = picked.map_err(|error| self.failure.take().unwrap_or(error))?;
        self.number += 1;
        self.place = Some(match &upstream {
            Upstream::Local(lease) => Place::Own(lease.address()),
            Upstream::Peer(cluster) => Place::Peer(cluster.clone()),
        });
        Ok(upstream)
    }

    pub fn describe(&self, record: &mut Record) {
        record.attempts = self.number;
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
                Some(Place::Peer(cluster)) if self.has_another_gateway(&error, &cluster) => {
                    self.asked_again = Some(cluster);
                }
                Some(Place::Peer(cluster)) => self.tried.clusters.push(cluster),
                None => {}
            }
        }
        self.failure = Some(error);
        Ok(())
    }

    /// Whether it was one gateway that went, and others of its cluster seem to be there; they are
    /// asked once.
    fn has_another_gateway(&self, error: &ProxyError, cluster: &ClusterName) -> bool {
        matches!(error.kind, Kind::Draining | Kind::TunnelLost | Kind::TunnelDown)
            && self.asked_again.as_ref() != Some(cluster)
            && self.has_sound_path(cluster)
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
