//! The way between federation nodes: gRPC over TLS between federation SVIDs, inside of streams that
//! the clusters' gateways relay unread.
//!
//! A peer is reached by dialling one of its addresses, and if none answers, by a stream on a
//! connection that the peer's own node has dialled to one of our gateways ([`RelayDoors`]). What
//! peers open comes in at the relay socket or port, and on connections that this node dialled.

mod doors;
mod incoming;
mod join;
mod peer;
mod raft;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use identity::{BundleSet, ClusterTrust, IdentityCell, TrustDomainOwners};
use model::code::{self, Code};
use model::{ClusterId, ClusterName, PeerAddress, RevokedSvid, TrustBundle, TrustDomain};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Server};
use tunnel::NodeEndpoint;

use crate::limits::{
    CALLS_PER_CONNECTION_MAX, JOIN_CALLS_PER_CONNECTION_MAX, STORE_CONNECTION_WINDOW_BYTES,
    STORE_PING_INTERVAL, STORE_PING_TIMEOUT, STORE_STREAM_WINDOW_BYTES, TRANSPORT_PEERS_MAX,
};

pub use doors::RelayDoors;
pub use incoming::{Incoming, PeerStreams};
pub use join::{JoinConnection, JoinDial, JoinTarget, join_dial};
pub use raft::RaftPeers;
pub use stream::{FederationPeer, JoinerPeer, PeerInfo, PeerStream};

use crate::port::Port;
use incoming::Arrivals;
use peer::{Lane, Peer};

/// A node's way to the others. All clones are the same.
#[derive(Clone)]
pub struct Transport(Arc<Shared>);

/// What a transport is told at its start.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    pub cluster: ClusterName,
    /// Where gateways hand over streams: `relay.sock` beside the resource socket.
    pub relay_socket: PathBuf,
    /// Unix users whose gateways may.
    pub uids: BTreeSet<u32>,
    /// Where gateways in other pods hand them over.
    pub relay_listen: Option<SocketAddr>,
    /// Shown to joiners after this node's chain: what a token pins.
    pub ca: CertificateDer<'static>,
    /// Of the own cluster; peers can never own its trust domain.
    pub own_bundle: TrustBundle,
    /// Which of this host's addresses to dial from; `None`: whichever the system chooses.
    pub dial_from: Option<IpAddr>,
}

/// Another cluster, as the federation has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportPeer {
    pub name: ClusterName,
    pub id: ClusterId,
    pub addresses: Vec<PeerAddress>,
    /// One for each of its trust domains.
    pub bundles: Vec<TrustBundle>,
    /// SVIDs of its own that it denies.
    pub revoked_svids: Vec<RevokedSvid>,
    /// Whether a connection is kept though nobody here calls: then the peer can reach this node
    /// without being able to dial it.
    pub hold: bool,
}

/// How a peer is reached, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStatus {
    pub cluster: ClusterName,
    pub id: ClusterId,
    pub state: PathState,
    /// Of the last dial that failed.
    pub last_error: Option<String>,
}

/// Which way streams to a peer go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// By a connection that this node dialled.
    Direct {
        remote: String,
        /// TCP: UDP does not pass.
        transport: model::Transport,
    },
    /// By one that the peer dialled to the gateway of ours that is asked here.
    Reverse {
        door: String,
    },
    Down,
}

impl fmt::Display for PathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { remote, transport } => write!(f, "{} {remote}", transport.as_str()),
            Self::Reverse { door } => write!(f, "held by {door}"),
            Self::Down => Ok(()),
        }
    }
}

/// Why there is no way to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cluster {0:?} is no member that this node knows: `fedctl get members` lists them")]
pub struct UnknownPeer(pub ClusterName);

impl UnknownPeer {
    /// The code that a person is shown.
    pub fn code(&self) -> Code {
        code::TUNNEL_DOWN
    }
}

struct OwnBundle {
    bundle: TrustBundle,
    root: CertificateDer<'static>,
    /// SVIDs that the own cluster denies.
    revoked: Vec<RevokedSvid>,
}

struct Shared {
    config: TransportConfig,
    identity: Arc<IdentityCell>,
    endpoint: NodeEndpoint,
    doors: RelayDoors,
    /// In which processes of the own cluster there is, whatever the federation says.
    trust: Arc<ClusterTrust>,
    relay_addr: Option<SocketAddr>,
    /// The own cluster's, and the certificate of the root that signs.
    own: Mutex<OwnBundle>,
    peers: Mutex<BTreeMap<ClusterName, Arc<Peer>>>,
    bundles: Mutex<BundleSet>,
    arrivals: Arrivals,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Transport {
    /// Which of this host's addresses this node dials from, if one is chosen.
    pub fn dial_from(&self) -> Option<IpAddr> {
        self.0.config.dial_from
    }

    /// Where gateways in other pods hand over streams.
    pub fn relay_addr(&self) -> Option<SocketAddr> {
        self.0.relay_addr
    }

    /// Binds the relay socket, and the port if there is to be one. `identity` holds this node's SVID,
    /// which others renew; the bundles in it are this transport's to write.
    pub fn start(
        config: TransportConfig,
        identity: Arc<IdentityCell>,
        doors: RelayDoors,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<(Self, Incoming)> {
        let (arrivals, incoming) = Arrivals::new();
        let trust = ClusterTrust::new(config.own_bundle.trust_domain.clone());
        trust.replace(&config.own_bundle)?;
        let trust = Arc::new(trust);
        let port = incoming::bind_port(&config, &identity, &trust)?;
        let shared = Arc::new(Shared {
            relay_addr: port.as_ref().map(Port::local_addr).transpose()?,
            trust,
            endpoint: NodeEndpoint::from_source(identity.clone(), config.dial_from),
            own: Mutex::new(OwnBundle {
                bundle: config.own_bundle.clone(),
                root: config.ca.clone(),
                revoked: Vec::new(),
            }),
            config,
            identity,
            doors,
            peers: Mutex::default(),
            bundles: Mutex::default(),
            arrivals,
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        let listener = incoming::listen(&shared)?;
        if let Some(port) = port {
            incoming::serve_port(&shared, port)?;
        }
        let transport = Self(shared);
        transport.set_peers(Vec::new(), BTreeSet::new());
        tasks.spawn(stop.clone().run_until_cancelled_owned(listener));
        let endpoint = transport.0.endpoint.clone();
        tasks.spawn(async move {
            stop.cancelled_owned().await;
            endpoint.close().await;
        });
        Ok((transport, incoming))
    }

    /// After a stage of the root's rotation. Peers are judged by it when they are set the next time.
    pub(crate) fn set_own_bundle(&self, bundle: TrustBundle, root: CertificateDer<'static>) {
        if let Err(problem) = self.0.trust.replace(&bundle) {
            tracing::error!(%problem, "the relay port does not know the new bundle");
        }
        let mut own = self.0.own();
        (own.bundle, own.root) = (bundle, root);
    }

    /// SVIDs of the own cluster that it denies. Peers' handshakes are judged by it when peers are set
    /// the next time.
    pub(crate) fn set_own_revoked(&self, revoked: Vec<RevokedSvid>) {
        self.0.trust.replace_revoked(revoked.iter().cloned().collect());
        self.0.own().revoked = revoked;
    }

    /// Makes these the clusters that are spoken with. Whoever is not among them, or has a trust
    /// domain that was revoked, is cut off at once.
    pub fn set_peers(&self, mut peers: Vec<TransportPeer>, revoked: BTreeSet<TrustDomain>) {
        let shared = &self.0;
        let is_revoked = |bundle: &TrustBundle| revoked.contains(&bundle.trust_domain);
        peers.retain(|peer| {
            peer.name != shared.config.cluster && !peer.bundles.iter().any(is_revoked)
        });
        if peers.len() > TRANSPORT_PEERS_MAX {
            tracing::error!(peers = peers.len(), max = TRANSPORT_PEERS_MAX, "too many peers");
            peers.truncate(TRANSPORT_PEERS_MAX);
        }
        shared.trust(&peers, revoked);
        let mut current = shared.peers();
        current.retain(|name, peer| {
            // Who has lost a key is met anew, on connections that nobody else can have made.
            let is_it = |next: &TransportPeer| {
                next.name == *name && next.id == peer.id && !peer.denies_more(next)
            };
            let stays = peers.iter().any(is_it);
            if !stays {
                peer.cut_off();
            }
            stays
        });
        for next in peers {
            match current.get(&next.name) {
                Some(peer) => peer.update(next),
                None => {
                    let peer = Peer::new(next, &shared.stop);
                    current.insert(peer.name.clone(), Arc::clone(&peer));
                    shared.tasks.spawn(peer::keep(Arc::clone(shared), peer));
                }
            }
        }
    }

    /// The gRPC channel to a cluster's node. It connects with the first call, and again whenever it
    /// has broken; one peer has one channel.
    pub fn channel(&self, cluster: &ClusterName) -> Result<Channel, UnknownPeer> {
        self.0.channel(cluster, Lane::Control)
    }

    /// Another channel, for what is large: it queues before no call of [`Self::channel`].
    pub fn bulk_channel(&self, cluster: &ClusterName) -> Result<Channel, UnknownPeer> {
        self.0.channel(cluster, Lane::Bulk)
    }

    /// The cluster of a Raft node id, which is the first 8 bytes of the cluster's id.
    pub fn cluster_of_node(&self, node: u64) -> Option<ClusterName> {
        let peers = self.0.peers();
        peers.values().find(|peer| node_id(&peer.id) == node).map(|peer| peer.name.clone())
    }

    pub fn paths(&self) -> Vec<PathStatus> {
        self.0.peers().values().map(|peer| peer.status(&self.0.doors)).collect()
    }
}

/// The id of a cluster's node in Raft.
pub fn node_id(cluster: &ClusterId) -> u64 {
    let (first, _) = cluster.as_bytes().split_first_chunk().expect("an id has 16 bytes");
    u64::from_be_bytes(*first)
}

/// What serves [`Incoming`]: a gRPC server that notices a dead peer and bounds a live one.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(STORE_PING_INTERVAL))
        .http2_keepalive_timeout(Some(STORE_PING_TIMEOUT))
        .initial_stream_window_size(STORE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STORE_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
}

/// The same for [`Incoming::join`]: a joiner asks one thing after the other, and nobody knows it.
pub fn join_server() -> Server {
    server().max_concurrent_streams(JOIN_CALLS_PER_CONNECTION_MAX)
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transport").field(&self.0.config.cluster).finish()
    }
}

impl Shared {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> MutexGuard<'_, OwnBundle> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, cluster: &ClusterName) -> Option<Arc<Peer>> {
        self.peers().get(cluster).cloned()
    }

    fn channel(
        self: &Arc<Self>,
        cluster: &ClusterName,
        lane: Lane,
    ) -> Result<Channel, UnknownPeer> {
        let peer = self.peer(cluster).ok_or_else(|| UnknownPeer(cluster.clone()))?;
        Ok(peer::channel(self, &peer, lane))
    }

    /// Whom handshakes believe. The own trust domain is claimed first, so that no peer has it.
    fn trust(&self, peers: &[TransportPeer], revoked: BTreeSet<TrustDomain>) {
        let (own, denied) = {
            let own = self.own();
            ((self.config.cluster.clone(), own.bundle.clone()), own.revoked.clone())
        };
        let revoked_svids = peers.iter().flat_map(|peer| {
            let is_its_own = |it: &&RevokedSvid| {
                let domain = it.id.trust_domain();
                peer.bundles.iter().any(|bundle| bundle.trust_domain == *domain)
            };
            peer.revoked_svids.iter().filter(is_its_own).cloned()
        });
        let revoked_svids = denied.into_iter().chain(revoked_svids).collect();
        let theirs = peers
            .iter()
            .flat_map(|peer| peer.bundles.iter().map(|bundle| (peer.name.clone(), bundle.clone())));
        let mut owners = TrustDomainOwners::default();
        let mut trusted = Vec::new();
        for (cluster, bundle) in [own].into_iter().chain(theirs) {
            match owners.claim(bundle.trust_domain.clone(), cluster.clone()) {
                Ok(()) => trusted.push((cluster, bundle)),
                Err(problem) => tracing::warn!(%problem, "a trust bundle is not used"),
            }
        }
        let mut bundles = self.bundles.lock().unwrap_or_else(PoisonError::into_inner);
        for problem in bundles.replace_all(trusted) {
            tracing::warn!(code = %problem.code(), %problem, "a trust bundle is not used");
        }
        self.identity.replace_revoked_svids(revoked_svids);
        self.identity.replace_trust(bundles.clone(), owners);
        self.identity.replace_revoked(revoked);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
