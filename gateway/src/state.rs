//! What all workers, the control tasks and the admin port share. Limits, ejections and budgets are
//! per gateway, so they live here as atomics, not in the workers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use identity::IdentityCell;
use model::code::{self, Code};
use model::{ClusterId, Diagnostic, ListenerProtocol, Revision, Snapshot, SpiffeId};
use tokio::sync::watch;
use tunnel::{HeldConnections, Tunnel};

use crate::access_log::AccessLog;
use crate::balance::{Choices, ClusterPenalties, ClusterRank, EndpointCells, Path};
use crate::budget::RetryBudget;
use crate::config::{FederationLink, GatewayConfig};
use crate::drain::{Drain, DrainStage};
use crate::error::{Kind, ProxyError};
use crate::federation::OwnBundle;
use crate::limits::{CONNECTIONS_MAX, EXCHANGES_MAX, RELAYED_STREAMS_MAX};
use crate::metrics::{self, LinkTotals, Shard};
use crate::peer::{NotYet, PeerQuotas};
use crate::sent::SentExchanges;

/// The gateway as its tasks see it.
#[derive(Debug)]
pub struct GatewayState {
    pub config: GatewayConfig,
    pub own_id: SpiffeId,
    pub started: Instant,
    pub identity: Arc<IdentityCell>,
    /// Known after enrolment; until then no stream is opened or taken.
    pub cluster_id: ArcSwapOption<ClusterId>,
    pub admin_address: OnceLock<SocketAddr>,
    /// Bound after enrolment.
    pub tunnel: OnceLock<Tunnel>,
    /// Where the node may ask for streams to peers; unset if it could not be bound.
    pub relay_socket: OnceLock<PathBuf>,
    /// The same for a node in another pod.
    pub relay_address: OnceLock<SocketAddr>,
    /// What a node in another pod is verified with.
    pub own_bundle: Option<OwnBundle>,
    /// Connections of peers' federation nodes.
    pub held: HeldConnections,
    pub relayed: Places,

    /// Written by the control task, loaded once per request or connection.
    pub snapshot: ArcSwap<Snapshot>,
    pub endpoints: EndpointCells,
    pub rank: ClusterRank,
    pub penalties: ClusterPenalties,
    pub budget: RetryBudget,
    pub not_yet: NotYet,

    pub connections: Places,
    pub exchanges: Places,
    /// Of these, what each peer may have.
    pub peer_quotas: PeerQuotas,
    /// Those that went to other clusters.
    pub sent: SentExchanges,
    pub drain: Drain,
    pub log: AccessLog,
    /// One per worker, in their order.
    pub shards: Vec<Arc<Shard>>,
    pub links: LinkTotals,

    /// Bumped whenever something changed that readiness or reports show.
    changed: watch::Sender<u64>,
    /// What is in service, endpoints included; `None` before the first snapshot.
    revision: Mutex<Option<Revision>>,
    diagnostics: ArcSwap<Vec<Diagnostic>>,
    listeners: Mutex<BTreeMap<u16, ListenerStatus>>,
    stream_up: AtomicBool,
    /// Why enrolment did not succeed yet, or the tunnel's port is not bound.
    identity_problem: Mutex<Option<(Code, String)>>,
}

/// A port towards applications, for reports and readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// `Gateway/namespace/name/listener`.
    pub name: String,
    pub address: SocketAddr,
    pub protocol: ListenerProtocol,
    /// Why it is not bound.
    pub error: Option<String>,
}

impl GatewayState {
    pub fn new(config: GatewayConfig, identity: Arc<IdentityCell>, log: AccessLog) -> Self {
        Self {
            own_id: config.spiffe_id(),
            started: Instant::now(),
            identity,
            cluster_id: ArcSwapOption::empty(),
            admin_address: OnceLock::new(),
            tunnel: OnceLock::new(),
            relay_socket: OnceLock::new(),
            relay_address: OnceLock::new(),
            own_bundle: match &config.federation {
                FederationLink::Sockets { .. } => None,
                FederationLink::Tcp(link) => {
                    Some(OwnBundle::new(&link.bundle, config.trust_domain.clone()))
                }
            },
            held: HeldConnections::default(),
            relayed: Places::new(RELAYED_STREAMS_MAX),
            snapshot: ArcSwap::default(),
            endpoints: EndpointCells::default(),
            rank: ClusterRank::default(),
            penalties: ClusterPenalties::default(),
            budget: RetryBudget::default(),
            not_yet: NotYet::default(),
            connections: Places::new(CONNECTIONS_MAX),
            exchanges: Places::new(EXCHANGES_MAX),
            peer_quotas: PeerQuotas::default(),
            sent: SentExchanges::default(),
            drain: Drain::default(),
            log,
            shards: metrics::shards(config.workers),
            links: LinkTotals::default(),
            changed: watch::Sender::new(0),
            revision: Mutex::default(),
            diagnostics: ArcSwap::default(),
            listeners: Mutex::default(),
            stream_up: AtomicBool::new(false),
            identity_problem: Mutex::default(),
            config,
        }
    }

    /// Time since the gateway's start; the clock of everything that is kept in atomics.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn choices<'a>(&'a self, rank: &'a [model::ClusterName]) -> Choices<'a> {
        let (cells, penalties, now) = (&self.endpoints, &self.penalties, self.now());
        Choices { cells, rank, penalties, now }
    }

    /// The tunnel's way to a cluster; `None` also while there is no tunnel at all.
    pub fn path(&self, cluster: &model::ClusterName) -> Option<Path> {
        let state = self.tunnel.get()?.path(cluster)?;
        Some(Path { rtt: state.rtt, draining: state.draining, suspect: state.suspect })
    }

    /// Adds what the tunnel's connections have carried to its totals.
    pub fn count_links(&self) {
        let Some(tunnel) = self.tunnel.get() else { return };
        let snapshot = self.snapshot.load();
        self.links.observe(&tunnel.links(), |cluster| snapshot.peers.contains_key(cluster));
    }

    pub fn listeners(&self) -> Vec<ListenerStatus> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.values().cloned().collect()
    }

    pub fn set_listeners(&self, listeners: BTreeMap<u16, ListenerStatus>) {
        *self.listeners.lock().unwrap_or_else(PoisonError::into_inner) = listeners;
        self.note_change();
    }

    /// Refuses an endpoint that is our own admin port, which is for this host's operators: an
    /// EndpointSlice must not open it to clients and peers.
    pub fn check_not_admin(&self, endpoint: SocketAddr) -> Result<(), ProxyError> {
        match self.admin_address.get() {
            Some(admin) if leads_to(endpoint, *admin) => {
                let detail = format!("endpoint {endpoint} is this gateway's admin port");
                Err(ProxyError::unsent(Kind::ConnectFailed, detail))
            }
            _ => Ok(()),
        }
    }

    /// Refuses an endpoint that is a TCP listener of our own: a connection has no field that could
    /// count its rounds, so each round would open another connection. And one that is our admin
    /// port.
    pub fn check_endpoint(&self, endpoint: SocketAddr) -> Result<(), ProxyError> {
        self.check_not_admin(endpoint)?;
        let protocol = {
            let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.get(&endpoint.port()).map(|listener| listener.protocol)
        };
        let routes = self.config.routes_listen;
        let ours = || routes == endpoint.ip() || routes.is_unspecified() && is_local(endpoint.ip());
        if protocol == Some(ListenerProtocol::Tcp) && ours() {
            let detail = format!("endpoint {endpoint} is a listener of this gateway");
            return Err(ProxyError::unsent(Kind::Loop, detail));
        }
        Ok(())
    }

    pub fn revision(&self) -> Option<Revision> {
        *self.revision.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_revision(&self, revision: Revision) {
        *self.revision.lock().unwrap_or_else(PoisonError::into_inner) = Some(revision);
        self.note_change();
    }

    /// What the last compilation found wrong.
    pub fn diagnostics(&self) -> Arc<Vec<Diagnostic>> {
        self.diagnostics.load_full()
    }

    pub fn set_diagnostics(&self, diagnostics: Vec<Diagnostic>) {
        self.diagnostics.store(Arc::new(diagnostics));
    }

    /// Whatever a drain waits for: what is served here, for own clients and for peers, and what peers
    /// have open still.
    pub fn in_progress(&self) -> usize {
        let open = self.tunnel.get().map_or(0, |tunnel| tunnel.in_flight() as usize);
        self.drain.in_progress().max(open)
    }

    /// Whoever waits for readiness or sends reports looks again.
    pub fn note_change(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn is_stream_up(&self) -> bool {
        self.stream_up.load(Ordering::Relaxed)
    }

    pub fn set_stream_up(&self, up: bool) {
        self.stream_up.store(up, Ordering::Relaxed);
        self.note_change();
    }

    pub fn set_identity_problem(&self, problem: Option<(Code, String)>) {
        *self.identity_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        self.note_change();
    }

    /// Why the gateway is not ready; empty when it is. A port that could not be bound does not make
    /// it unready: the others serve, and the report says which one is missing.
    pub fn unready(&self) -> Vec<(Code, String)> {
        let mut reasons = Vec::new();
        if self.drain.stage() != DrainStage::Serving {
            reasons.push((code::DRAINING, "the gateway is draining".to_owned()));
        }
        if self.drain.is_cordoned() {
            let text =
                "the gateway is cordoned; `POST /uncordon` at its admin port takes that back";
            reasons.push((code::DRAINING, text.to_owned()));
        }
        if self.identity.load().svid.is_none() || self.tunnel.get().is_none() {
            let problem = self.identity_problem.lock().unwrap_or_else(PoisonError::into_inner);
            let pending = || (code::SVID_MISSING, "enrolment has not finished yet".to_owned());
            reasons.push(problem.clone().unwrap_or_else(pending));
        }
        reasons.extend(self.svid_expired(SystemTime::now()));
        if self.revision().is_none() {
            let node = &self.config.federation;
            let text = format!("no resources yet from {node}, and none on disk");
            reasons.push((code::FEDERATION_UNREACHABLE, text));
        }
        reasons
    }
}

impl GatewayState {
    /// Peers refuse an SVID that has ended, so new connections to them fail.
    fn svid_expired(&self, now: SystemTime) -> Option<(Code, String)> {
        let identity = self.identity.load();
        let svid = identity.svid.as_ref().filter(|svid| svid.is_expired(now))?;
        let problem = self.identity_problem.lock().unwrap_or_else(PoisonError::into_inner);
        let why = problem.as_ref().map_or("renewal has not succeeded", |(_, text)| text);
        Some((code::SVID_EXPIRED, format!("the SVID {} has expired: {why}", svid.id())))
    }
}

/// Whether a connection to `endpoint` arrives at a socket that is bound to `bound`.
fn leads_to(endpoint: SocketAddr, bound: SocketAddr) -> bool {
    let (to, at) = (endpoint.ip().to_canonical(), bound.ip().to_canonical());
    // The kernel takes the unspecified address for loopback.
    let same = to == at || to.is_unspecified() && at.is_loopback();
    endpoint.port() == bound.port() && (same || at.is_unspecified() && is_local(to))
}

/// Only an address of this host can be bound.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// A bounded number of places, taken and given back by guards.
#[derive(Debug, Clone)]
pub struct Places(Arc<PlacesShared>);

#[derive(Debug)]
struct PlacesShared {
    taken: AtomicUsize,
    max: usize,
}

impl Places {
    pub fn new(max: usize) -> Self {
        Self(Arc::new(PlacesShared { taken: AtomicUsize::new(0), max }))
    }

    /// `None` when all are taken.
    pub fn take(&self) -> Option<Place> {
        let before = self.0.taken.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone());
        (before < self.0.max).then_some(place)
    }

    pub fn count(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    pub fn max(&self) -> usize {
        self.0.max
    }
}

/// One of the [`Places`]; free again when it is dropped.
#[derive(Debug)]
pub struct Place(Places);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use identity::{Ca, SvidKeyPair};

    use super::*;

    /// Of a gateway that is configured and has seen nothing yet.
    pub(crate) fn state(folder: &Path) -> GatewayState {
        let text = "apiVersion: fedgate.dev/v1alpha1\nkind: GatewayConfig\nname: gw-0\n\
                    cluster: east\ntrustDomain: east.example\ndataDir: data\n\
                    federation: {socket: resource.sock}\nworkers: 1\n\
                    accessLog: {path: access.log}\n";
        let config = GatewayConfig::from_yaml(text, &folder.join("gateway.yaml")).unwrap();
        let (log, _writer) = AccessLog::open(&config.access_log).unwrap();
        GatewayState::new(config, Arc::default(), log)
    }

    #[test]
    fn an_expired_svid_makes_the_gateway_unready() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let (hour, now) = (Duration::from_secs(3_600), SystemTime::now());
        let ca = Ca::load_or_create(&folder.path().join("ca"), &state.config.trust_domain, now);
        let keys = SvidKeyPair::generate().unwrap();
        let csr = keys.csr_der(&state.own_id).unwrap();
        let chain = ca.unwrap().issue(&csr, &state.own_id, hour, now).unwrap();
        state.identity.replace_svid(keys.into_svid(chain).unwrap());
        assert_eq!(state.svid_expired(now), None);
        state.set_identity_problem(Some((code::SVID_EXPIRED, "the node is away".into())));
        let (code, text) = state.svid_expired(now + 2 * hour).unwrap();
        assert_eq!(code, code::SVID_EXPIRED);
        let id = "spiffe://east.example/fedgate/gateway/gw-0";
        assert_eq!(text, format!("the SVID {id} has expired: the node is away"));
    }

    #[test]
    fn an_endpoint_cannot_be_the_admin_port() {
        let folder = tempfile::tempdir().unwrap();
        let state = state(folder.path());
        let check = |endpoint: &str| state.check_not_admin(endpoint.parse().unwrap());
        assert!(check("127.0.0.1:9901").is_ok(), "the port is not bound yet");
        state.admin_address.set("127.0.0.1:9901".parse().unwrap()).unwrap();
        for endpoint in ["127.0.0.1:9901", "[::ffff:127.0.0.1]:9901", "0.0.0.0:9901"] {
            let error = check(endpoint).unwrap_err();
            assert_eq!(error.kind, Kind::ConnectFailed);
            assert!(error.detail.ends_with("is this gateway's admin port"), "{error}");
            assert!(state.check_endpoint(endpoint.parse().unwrap()).is_err());
        }
        for endpoint in ["127.0.0.1:9902", "127.0.0.2:9901", "192.0.2.1:9901"] {
            assert!(check(endpoint).is_ok(), "{endpoint}");
        }
        let everywhere = "0.0.0.0:9901".parse().unwrap();
        assert!(leads_to("127.0.0.2:9901".parse().unwrap(), everywhere));
        assert!(!leads_to("192.0.2.1:9901".parse().unwrap(), everywhere), "another host");
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let places = Places::new(2);
        let (first, _second) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none());
        assert_eq!(places.count(), 2);
        drop(first);
        assert!(places.take().is_some());
    }
}
