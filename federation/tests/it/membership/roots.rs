//! Trust that changes in a federation, seen by a stranger who speaks QUIC and TLS and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use federation::membership::{Mode, RevokeRequest, RevokeTarget};
use identity::{BundleSet, Ca, Identity, IdentityCell, Svid, SvidKeyPair, TrustDomainOwners};
use model::{PeerAddress, SpiffeId, TrustBundle, TrustDomain};
use tunnel::{Inner, NodeEndpoint};
use wire::operator::proto::federation_service_client::FederationServiceClient;
use wire::operator::proto::operator_service_client::OperatorServiceClient;
use wire::operator::proto::{
    GetStatusRequest, ListLinksRequest, RotateCertificatesRequest, RotateTrustRequest,
    RotationStage,
};
use wire::resource::proto::LinkState;
use wire::tunnel::ErrorCode;

use super::site::{Cluster, federation, stop_all};
use crate::fixture::{EXPORT, SERVICE, channel, until};

/// Somebody with an SVID of one cluster's CA who dials another cluster's gateway.
struct Stranger {
    cell: Arc<IdentityCell>,
    target: model::ClusterName,
    address: PeerAddress,
}

fn ca_of(cluster: &Cluster) -> Ca {
    let domain = TrustDomain::parse(&cluster.trust_domain).unwrap();
    Ca::load_or_create(&cluster.path("data/ca"), &domain, SystemTime::now()).unwrap()
}

fn svid_of(cluster: &Cluster) -> Svid {
    let id = format!("spiffe://{}/fedgate/federation/stranger", cluster.trust_domain);
    let (id, key) = (SpiffeId::parse(&id).unwrap(), SvidKeyPair::generate().unwrap());
    let csr = key.csr_der(&id).unwrap();
    let hour = Duration::from_secs(3600);
    let chain = ca_of(cluster).issue(&csr, &id, hour, SystemTime::now()).unwrap();
    key.into_svid(chain).unwrap()
}

impl Stranger {
    /// With `from`'s name, at `to`'s door; it reads `to`'s bundle now and never again.
    fn new(from: &Cluster, to: &Cluster, bundle: TrustBundle) -> Self {
        let (mut bundles, mut owners) = (BundleSet::default(), TrustDomainOwners::default());
        owners.claim(bundle.trust_domain.clone(), to.name.clone()).unwrap();
        bundles.insert(bundle).unwrap();
        let svid = Some(Arc::new(svid_of(from)));
        let cell = IdentityCell::new(Identity { svid, bundles, owners, ..Identity::default() });
        let (target, address) = (to.name.clone(), to.gateway_address());
        Self { cell: Arc::new(cell), target, address }
    }

    /// A handshake, and a second one inside of it, which only a gateway that has let the first one
    /// in passes on.
    async fn knock(&self) -> Result<(), String> {
        let endpoint = NodeEndpoint::new(self.cell.clone());
        let dialled = endpoint.dial_store(&self.target, &self.address).await;
        let connection = dialled.map_err(|error| error.to_string())?;
        let stream = connection.open().await.map_err(|error| error.to_string())?;
        let inner = Inner::open_store(stream, &self.cell, &self.target).await;
        let is_live = connection.is_live();
        connection.close(ErrorCode::NoError, "seen enough");
        match inner {
            Ok(_) => Ok(()),
            Err(_) if is_live => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Knocks again and again, and counts.
struct Knocking {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Knocking {
    fn start(stranger: Stranger) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (stop.clone(), done.clone());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Err(problem) = stranger.knock().await {
                    failures.push(problem);
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            failures
        });
        Self { stop, done, task }
    }

    async fn goes_on(&self, more: u64) {
        let wanted = self.done.load(Ordering::Relaxed) + more;
        let count = || async { self.done.load(Ordering::Relaxed) };
        until("handshakes", count, |count| *count >= wanted).await;
    }

    async fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn rotate(
    cluster: &Cluster,
    stage: RotationStage,
    force: bool,
) -> Result<Vec<String>, String> {
    let mut client = FederationServiceClient::new(channel(&cluster.path("run/o.sock")).await);
    let request = RotateTrustRequest { stage: stage.into(), force };
    let rotated = client.rotate_trust(request).await.map_err(|status| status.message().to_string());
    Ok(rotated?.into_inner().roots.into_iter().map(|root| root.state).collect())
}

async fn until_rotated(cluster: &Cluster, stage: RotationStage) -> Vec<String> {
    let ask = || rotate(cluster, stage, false);
    until("everybody to know the next root", ask, Result::is_ok).await.unwrap()
}

/// Nobody carries a bundle anywhere: members read it in the store, and the stage waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_read_the_next_root_by_themselves_and_no_handshake_fails() {
    let clusters = federation(&["east", "west", "south"]).await;
    for cluster in &clusters {
        cluster.until_mode(Mode::Member).await;
    }
    let (east, west) = (&clusters[0], &clusters[1]);
    // One with a name of the cluster that rotates, whom others judge; and one who judges it.
    let begun = west.node().bundle();
    let outgoing = Knocking::start(Stranger::new(west, east, east.node().bundle()));
    outgoing.goes_on(5).await;
    let roots = rotate(west, RotationStage::Prepare, false).await.unwrap();
    assert_eq!(roots, ["active", "prepared"]);
    // It has read the bundle once, after the preparation, and never looks again.
    let incoming = Knocking::start(Stranger::new(south(&clusters), west, west.node().bundle()));
    incoming.goes_on(5).await;
    assert_eq!(until_rotated(west, RotationStage::Activate).await, ["active", "old"]);
    outgoing.goes_on(10).await;
    incoming.goes_on(10).await;
    assert_eq!(outgoing.failures().await, [""; 0], "the old root is still believed");
    assert_eq!(incoming.failures().await, [""; 0], "the new one was known");
    let newcomer = Stranger::new(west, east, east.node().bundle());
    assert_eq!(newcomer.knock().await, Ok(()), "an SVID of the new root");

    // Its gateway is told to renew: what it shows now is of the new root.
    let (first, whole) = (begun.x509_authorities[0].clone(), west.node().bundle());
    let next = whole.x509_authorities.into_iter().filter(|der| *der != first).collect();
    let only_new = TrustBundle { x509_authorities: next, ..begun.clone() };
    let strict = Stranger::new(south(&clusters), west, only_new);
    until("the gateway's SVID of the new root", || strict.knock(), Result::is_ok).await.unwrap();
    let early = rotate(west, RotationStage::Revoke, false).await.unwrap_err();
    assert!(early.contains("FED3011") && early.contains("--force"), "{early}");
    assert_eq!(rotate(west, RotationStage::Revoke, true).await.unwrap(), ["active"]);
    let after = west.node().bundle();
    assert!(!after.x509_authorities.contains(&begun.x509_authorities[0]));
    // The federation goes on: what west says from now on reaches everybody.
    west.write("a.yaml", SERVICE);
    west.write("b.yaml", EXPORT);
    for cluster in &clusters {
        cluster.until_records("west", 2).await;
    }
    stop_all(clusters).await;
}

fn south(clusters: &[Cluster]) -> &Cluster {
    &clusters[2]
}

/// The time limits are the promise; what is measured is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_clusters_handshakes_are_refused_within_two_seconds() {
    let clusters = federation(&["east", "west", "south"]).await;
    for cluster in &clusters {
        cluster.until_mode(Mode::Member).await;
    }
    let links = |cluster: &Cluster| {
        let socket = cluster.path("run/o.sock");
        async move {
            let mut client = OperatorServiceClient::new(channel(&socket).await);
            let links = client.list_links(ListLinksRequest {}).await.unwrap().into_inner().links;
            let links = links.into_iter().filter_map(|link| link.link);
            let to_west = links.filter(|link| link.cluster == "west");
            to_west.filter(|link| link.state() == LinkState::Live).count()
        }
    };
    let others = [&clusters[0], &clusters[2]];
    for other in others {
        until("a tunnel to west", || links(other), |live| *live > 0).await;
    }
    let strangers = others.map(|other| Stranger::new(&clusters[1], other, other.node().bundle()));
    for stranger in &strangers {
        assert_eq!(stranger.knock().await, Ok(()), "before");
    }
    let target = RevokeTarget::Cluster(clusters[1].name.clone());
    let request = RevokeRequest { target, reason: "stolen".into(), reanchor: Vec::new() };
    clusters[0].membership().revoke(request).await.unwrap();
    let returned = Instant::now();
    for stranger in &strangers {
        let refused = until("the refusal", || stranger.knock(), Result::is_err).await;
        let after = returned.elapsed();
        println!("{} refuses after {after:?}: {}", stranger.target, refused.unwrap_err());
        assert!(after < Duration::from_secs(2), "{after:?}");
    }
    for other in others {
        until("the tunnels' end", || links(other), |live| *live == 0).await;
        let after = returned.elapsed();
        println!("no tunnel at {} after {after:?}", other.name);
        assert!(after < Duration::from_secs(60), "{after:?}");
    }
    for stranger in &strangers {
        assert!(stranger.knock().await.is_err(), "and for ever");
    }
    stop_all(clusters).await;
}

/// The root, and with it everything, ran out while the cluster was off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_root_has_expired_is_mended_by_one_command() {
    let mut cluster = Cluster::prepare("east");
    let domain = TrustDomain::parse(&cluster.trust_domain).unwrap();
    let long_ago =
        SystemTime::now() - identity::limits::CA_LIFETIME - Duration::from_secs(24 * 3600);
    let old = Ca::load_or_create(&cluster.path("data/ca"), &domain, long_ago).unwrap();
    let id = format!("spiffe://{}/fedgate/federation/node-0", cluster.trust_domain);
    let (id, key) = (SpiffeId::parse(&id).unwrap(), SvidKeyPair::generate().unwrap());
    let csr = key.csr_der(&id).unwrap();
    let chain = old.issue(&csr, &id, Duration::from_secs(3600), long_ago).unwrap();
    let store = identity::SvidStore::open(&cluster.path("data/svid")).unwrap();
    store.save(&key.into_svid(chain).unwrap()).unwrap();

    cluster.start_node().await;
    cluster.start_gateway().await;
    let socket = cluster.path("run/o.sock");
    let mut client = FederationServiceClient::new(channel(&socket).await);
    let rotated = client.rotate_certificates(RotateCertificatesRequest {}).await.unwrap();
    let rotated = rotated.into_inner();
    assert!(rotated.new_root);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(rotated.certificate.unwrap().not_after_unix_s > now + 3600);
    assert!(cluster.node().bundle().sequence > old.bundle().sequence);
    let again = client.rotate_certificates(RotateCertificatesRequest {}).await.unwrap();
    assert!(!again.into_inner().new_root, "once");
    // The gateway gets its SVID by itself.
    let end = || async {
        let mut client = OperatorServiceClient::new(channel(&socket).await);
        let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
        let report = status.gateways.into_iter().find_map(|gateway| gateway.report);
        report.map_or(0, |report| report.svid_not_after_unix_s)
    };
    until("the gateway's SVID of the new root", end, |end| *end > now + 3600).await;
    cluster.stop().await;
}
