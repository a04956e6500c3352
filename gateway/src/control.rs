//! The control task: the one writer of what the workers read. It folds deltas into resources,
//! compiles them, swaps the Snapshot, and keeps listeners, peers, trust and the disk in step.

use std::sync::Arc;
use std::time::Duration;

use identity::{BundleSet, RevokedSvids, TrustDomainOwners};
use model::code::{self, Code};
use model::{
    ClusterName, Diagnostic, ResourceKind, ResourceSet, Revision, RevokedSvid, Severity, Snapshot,
    TrustBundle, compile, endpoint_table,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tunnel::{News, RelayIncoming, Tunnel, TunnelConfig};
use wire::resource::{Ack, Delta, DeltaError, ServingGateways, StoreNews};

use crate::drain::DrainStage;
use crate::enrol::OwnCluster;
use crate::files::ResetKey;
use crate::limits::{LISTEN_RETRY_INTERVAL, RANK_INTERVAL, SNAPSHOT_WRITE_DELAY};
use crate::listeners::Listeners;
use crate::snapshot_file::SnapshotFile;
use crate::state::GatewayState;
use crate::worker::Command;

/// What the control task is told.
#[derive(Debug)]
pub enum Event {
    /// A step of the resource stream, to be acknowledged.
    Delta(Box<Delta>, oneshot::Sender<Result<Ack, DeltaError>>),
    /// A (renewed) SVID is in force; this is what came with it.
    Enrolled(OwnCluster),
    /// What the node wants peers to be told, whom it does not believe any more, and which gateways of
    /// the cluster serve.
    News(Box<StoreNews>, ServingGateways),
}

/// The state behind the Snapshot.
#[derive(Debug)]
pub struct Control {
    state: Arc<GatewayState>,
    workers: Vec<mpsc::Sender<Command>>,
    listeners: Listeners,
    resources: ResourceSet,
    revision: Option<Revision>,
    own_bundle: Option<TrustBundle>,
    bundles: BundleSet,
    /// SVIDs of the own cluster that it denies.
    own_revoked: Vec<RevokedSvid>,
    /// For peers, in HELLO and beacons.
    news: News,
    serving: ServingGateways,
    relay: mpsc::Sender<RelayIncoming>,
    reset_key: ResetKey,
    file: SnapshotFile,
    /// When the changed resources are to be written.
    save_at: Option<Instant>,
}

impl Control {
    pub fn new(
        state: Arc<GatewayState>,
        workers: Vec<mpsc::Sender<Command>>,
        relay: mpsc::Sender<RelayIncoming>,
        reset_key: ResetKey,
    ) -> Self {
        let listeners = Listeners::new(state.clone(), workers.clone());
        let file = SnapshotFile::new(&state.config.data_dir);
        Self {
            state,
            workers,
            listeners,
            resources: ResourceSet::default(),
            revision: None,
            own_bundle: None,
            bundles: BundleSet::default(),
            own_revoked: Vec::new(),
            news: News::default(),
            serving: ServingGateways::default(),
            relay,
            reset_key,
            file,
            save_at: None,
        }
    }

    /// Puts into service what was in service last. A file that cannot be used is as good as none.
    pub fn restore(&mut self) {
        match self.file.load() {
            Ok(None) => tracing::info!("no snapshot on disk"),
            Ok(Some((revision, resources))) => {
                tracing::info!(%revision, objects = resources.len(), "snapshot loaded from disk");
                (self.revision, self.resources) = (Some(revision), resources);
                self.recompile(revision);
            }
            Err(error) => tracing::error!(%error, "the snapshot on disk is not used"),
        }
    }

    /// Takes a new identity into use; the first one binds the tunnel's port.
    pub fn enrolled(&mut self, cluster: OwnCluster) -> Result<(), tunnel::BindError> {
        self.state.cluster_id.store(Some(Arc::new(cluster.id)));
        self.own_bundle = Some(cluster.bundle);
        match self.revision {
            Some(revision) => self.recompile(revision),
            None => log_new(&self.update_trust(), &[]),
        }
        self.bind_tunnel()
    }

    fn bind_tunnel(&mut self) -> Result<(), tunnel::BindError> {
        let ready = self.own_bundle.is_some() && self.state.identity.load().svid.is_some();
        if !ready || self.state.tunnel.get().is_some() {
            return Ok(());
        }
        let config = &self.state.config;
        let incarnation = rand::random::<u64>().max(1);
        let (listen, workers) = (config.tunnel_listen, config.workers);
        let config = TunnelConfig::new(listen, workers, self.reset_key.0, incarnation);
        let (tunnel, workers) = Tunnel::bind(config, self.state.identity.clone())?;
        tracing::info!(address = %tunnel.local_addr(), "tunnel listening");
        for worker in workers {
            let inbox = &self.workers[usize::from(worker.index())];
            if inbox.try_send(Command::Tunnel(Box::new(worker))).is_err() {
                tracing::error!("a worker does not take its part of the tunnel");
            }
        }
        tunnel.set_peers(self.state.snapshot.load().peers.values().cloned().collect());
        tunnel.tell(self.news.clone());
        tunnel.set_siblings(self.serving.0.clone());
        if let Some(relayed) = tunnel.take_relayed()
            && self.relay.try_send(relayed).is_err()
        {
            tracing::error!("the relay's thread does not take peers' connections");
        }
        let _ = self.state.tunnel.set(tunnel); // nobody else sets it
        self.state.set_identity_problem(None);
        Ok(())
    }

    /// Revocations hold for connections that live, too, and at once.
    fn take_news(&mut self, news: StoreNews, serving: ServingGateways) {
        self.state.cluster_id.store(Some(Arc::new(news.cluster_id)));
        self.state.identity.replace_revoked(news.revoked_domains);
        self.own_revoked = news.revoked_svids;
        self.update_revoked_svids();
        self.news = News { heads: news.heads, revocations: news.revocations };
        self.serving = serving;
        if let Some(tunnel) = self.state.tunnel.get() {
            tunnel.tell(self.news.clone());
            tunnel.set_siblings(self.serving.0.clone());
            tunnel.judge_again();
        }
    }

    /// Folds one step; on an error nothing has changed.
    pub fn apply(&mut self, delta: Delta) -> Result<Ack, DeltaError> {
        let to = delta.to;
        let kinds = |kind| kind == ResourceKind::EndpointSlice;
        let endpoints_only = !delta.is_snapshot()
            && delta.upserts.iter().all(|resource| kinds(resource.key().kind))
            && delta.removes.iter().all(|key| kinds(key.kind));
        let skipped = delta.skipped;
        delta.apply(&mut self.revision, &mut self.resources)?;
        if skipped > 0 {
            tracing::warn!(
                skipped,
                "the federation node sends objects that are newer than this build"
            );
        }
        let diagnostics = if endpoints_only {
            self.state.endpoints.update(endpoint_table(&self.resources));
            self.state.diagnostics()
        } else {
            self.recompile(to);
            self.state.diagnostics()
        };
        self.state.set_revision(to);
        self.save_at.get_or_insert_with(|| Instant::now() + SNAPSHOT_WRITE_DELAY);
        Ok(Ack { revision: to, diagnostics: diagnostics.to_vec() })
    }

    fn recompile(&mut self, revision: Revision) {
        let own = &self.state.config.cluster;
        let (snapshot, mut diagnostics) = compile(own, revision, &self.resources);
        let snapshot = Arc::new(snapshot);
        // Endpoints first: a route must not lead to a table that is not there yet.
        self.state.endpoints.update(endpoint_table(&self.resources));
        self.state.snapshot.store(snapshot.clone());
        diagnostics.extend(self.update_trust());
        log_new(&diagnostics, &self.state.diagnostics());
        self.state.set_diagnostics(diagnostics);
        if let Some(tunnel) = self.state.tunnel.get() {
            tunnel.set_peers(snapshot.peers.values().cloned().collect());
        }
        self.reconcile_listeners(&snapshot);
        self.state.set_revision(revision);
    }

    fn reconcile_listeners(&mut self, snapshot: &Snapshot) {
        if self.state.drain.stage() < DrainStage::Closing {
            self.listeners.reconcile(snapshot);
        }
    }

    /// Whom handshakes believe: our own bundle, then the peers' in the Snapshot. The own trust
    /// domain is claimed first, so that no ClusterPeer can have it. What is not used is a finding.
    fn update_trust(&mut self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        let config = &self.state.config;
        let snapshot = self.state.snapshot.load();
        let mut owners = TrustDomainOwners::default();
        let mut trusted: Vec<(ClusterName, TrustBundle)> = Vec::new();
        let own = self.own_bundle.iter().map(|bundle| (&config.cluster, bundle));
        let peers = snapshot.peers.iter().flat_map(|(cluster, peer)| {
            peer.trust_bundles.iter().map(move |bundle| (cluster, bundle))
        });
        let _ = owners.claim(config.trust_domain.clone(), config.cluster.clone()); // the first
        for (cluster, bundle) in own.chain(peers) {
            match owners.claim(bundle.trust_domain.clone(), ClusterName::clone(cluster)) {
                Ok(()) => trusted.push((cluster.clone(), bundle.clone())),
                Err(error) => {
                    findings.push(bundle_finding(
                        Some(cluster),
                        code::TRUST_DOMAIN_CONFLICT,
                        &error,
                    ));
                }
            }
        }
        for error in self.bundles.replace_all(trusted) {
            findings.push(bundle_finding(owners.owner(error.domain()), error.code(), &error));
        }
        self.update_revoked_svids();
        self.state.identity.replace_trust(self.bundles.clone(), owners);
        findings
    }

    /// Which SVIDs their own clusters deny; nobody denies another's. Links of theirs end with the next
    /// look at trust, a second later at most.
    fn update_revoked_svids(&self) {
        let (own, snapshot) = (&self.state.config.trust_domain, self.state.snapshot.load());
        let of_own = self.own_revoked.iter().filter(|it| it.id.trust_domain() == own);
        let of_peers = snapshot.peers.iter().flat_map(|(cluster, peer)| {
            let is_its_own =
                |it: &&RevokedSvid| snapshot.owner_of(it.id.trust_domain()) == Some(cluster);
            peer.revoked_svids.iter().filter(is_its_own)
        });
        let own_ones: RevokedSvids = of_own.clone().cloned().collect();
        self.state.identity.replace_revoked_svids(of_own.chain(of_peers).cloned().collect());
        if let Some(bundle) = &self.state.own_bundle {
            bundle.replace_revoked(own_ones);
        }
    }

    async fn save(&mut self) {
        self.save_at = None;
        let Some(revision) = self.revision else { return };
        let (file, resources) = (self.file.clone(), self.resources.clone());
        let saved = tokio::task::spawn_blocking(move || file.save(revision, &resources)).await;
        if let Ok(Err(error)) = saved {
            tracing::error!(%error, "the snapshot was not kept; a restart will need the federation node");
        }
    }

    fn rank_clusters(&self) {
        let Some(tunnel) = self.state.tunnel.get() else { return };
        let snapshot = self.state.snapshot.load();
        let measured: Vec<(ClusterName, Duration)> = snapshot
            .peers
            .keys()
            .filter_map(|cluster| Some((cluster.clone(), tunnel.path(cluster)?.rtt)))
            .collect();
        self.state.rank.update(&measured);
        self.state.count_links();
        let in_flight = self.state.exchanges.count() * 1_000 / self.state.exchanges.max();
        tunnel.set_load(in_flight as u32);
    }

    fn look_after_failures(&mut self) {
        if self.listeners.is_incomplete() {
            let snapshot = self.state.snapshot.load_full();
            self.reconcile_listeners(&snapshot);
        }
        if let Err(error) = self.bind_tunnel() {
            self.tunnel_failed(&error);
        }
    }

    fn tunnel_failed(&self, error: &tunnel::BindError) {
        tracing::error!(code = %error.code(), %error, "the tunnel's port is not bound; it is tried again");
        self.state.set_identity_problem(Some((error.code(), error.to_string())));
    }
}

/// A trust bundle that is not used; one that was in force before stays so.
fn bundle_finding(
    cluster: Option<&ClusterName>,
    code: Code,
    error: &impl std::error::Error,
) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code,
        object: cluster.map_or_else(String::new, |cluster| format!("ClusterPeer/{cluster}")),
        field: "spec.trustDomains".into(),
        message: error.to_string(),
        fix: code.entry().fix.into(),
    }
}

/// Runs until the gateway stops.
pub async fn run(mut control: Control, mut events: mpsc::Receiver<Event>) {
    let drain = control.state.drain.clone();
    let ticker = |period| {
        let mut ticker = interval(period);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticker
    };
    let (mut retry, mut rank) = (ticker(LISTEN_RETRY_INTERVAL), ticker(RANK_INTERVAL));
    let mut closed = false;
    loop {
        let save_at = control.save_at;
        tokio::select! {
            event = events.recv() => match event {
                None => return,
                Some(Event::Delta(delta, reply)) => {
                    let _ = reply.send(control.apply(*delta)); // the stream may be gone by now
                }
                Some(Event::News(news, serving)) => control.take_news(*news, serving),
                Some(Event::Enrolled(cluster)) => {
                    if let Err(error) = control.enrolled(cluster) {
                        control.tunnel_failed(&error);
                    }
                }
            },
            () = sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => {
                control.save().await;
            }
            _ = retry.tick() => control.look_after_failures(),
            _ = rank.tick() => control.rank_clusters(),
            () = drain.reached(DrainStage::Closing), if !closed => {
                closed = true;
                control.listeners.close_all();
            }
            () = drain.reached(DrainStage::Stopped) => break,
        }
    }
    if control.save_at.is_some() {
        control.save().await;
    }
}

/// What was wrong before is in the log already.
fn log_new(diagnostics: &[Diagnostic], before: &[Diagnostic]) {
    for finding in diagnostics.iter().filter(|finding| !before.contains(finding)) {
        tracing::warn!(%finding, "a resource is not wholly in service");
    }
}
