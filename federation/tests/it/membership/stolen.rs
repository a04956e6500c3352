//! The key of one SVID is in other hands: whoever has it is shut out everywhere, and nobody else is.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use federation::membership::Mode;
use identity::{BundleSet, Ca, Identity, IdentityCell, Svid, SvidKeyPair, SvidStore};
use identity::{TrustDomainOwners, limits::CLOCK_SKEW};
use model::spiffe::Part;
use model::{ClusterName, ClusterPeer, GatewayId, ObjectName, SpiffeId, TrustDomain};
use tunnel::{NodeEndpoint, Tunnel, TunnelConfig};
use wire::operator::proto::federation_service_client::FederationServiceClient;
use wire::operator::proto::operator_service_client::OperatorServiceClient;
use wire::operator::proto::revoke_svid_request::Target;
use wire::operator::proto::{
    ListLinksRequest, ListTrustRequest, RevokeSvidRequest, RevokedSvidStatus,
};
use wire::resource::proto::LinkState;

use super::site::{Cluster, federation, stop_all};
use crate::fixture::{channel, until};

fn gateway_id(cluster: &Cluster, name: &str) -> SpiffeId {
    let domain = TrustDomain::parse(&cluster.trust_domain).unwrap();
    SpiffeId::of_part(&domain, Part::Gateway, &ObjectName::parse(name).unwrap())
}

/// By the cluster's own CA, as it is now.
fn issue(cluster: &Cluster, id: &SpiffeId) -> Svid {
    let domain = TrustDomain::parse(&cluster.trust_domain).unwrap();
    let ca = Ca::load_or_create(&cluster.path("data/ca"), &domain, SystemTime::now()).unwrap();
    let key = SvidKeyPair::generate().unwrap();
    let csr = key.csr_der(id).unwrap();
    let chain = ca.issue(&csr, id, Duration::from_secs(3600), SystemTime::now()).unwrap();
    key.into_svid(chain).unwrap()
}

fn cell(svid: &Arc<Svid>, to: &Cluster) -> Arc<IdentityCell> {
    let (mut bundles, mut owners) = (BundleSet::default(), TrustDomainOwners::default());
    let bundle = to.node().bundle();
    owners.claim(bundle.trust_domain.clone(), to.name.clone()).unwrap();
    bundles.insert(bundle).unwrap();
    let svid = Some(svid.clone());
    Arc::new(IdentityCell::new(Identity { svid, bundles, owners, ..Identity::default() }))
}

/// Somebody who speaks the tunnel with an SVID, and nobody's gateway.
struct Intruder {
    tunnel: Tunnel,
    target: ClusterName,
    _incoming: tunnel::Incoming,
}

impl Intruder {
    fn new(svid: &Arc<Svid>, to: &Cluster) -> Self {
        let config = TunnelConfig::new("127.0.0.1:0".parse().unwrap(), 1, [1; 64], 7);
        let (tunnel, mut workers) = Tunnel::bind(config, cell(svid, to)).unwrap();
        let (_, incoming) = workers.remove(0).start().unwrap();
        let peer = ClusterPeer {
            name: to.name.clone(),
            addresses: vec![to.gateway_address()],
            trust_bundles: vec![to.node().bundle()],
            cordoned: false,
            revoked_svids: Vec::new(),
        };
        tunnel.set_peers(vec![Arc::new(peer)]);
        Self { tunnel, target: to.name.clone(), _incoming: incoming }
    }

    async fn until_in(&self) {
        let path = || async { self.tunnel.path(&self.target) };
        until("a tunnel", path, Option::is_some).await;
    }

    async fn until_out(&self) {
        let path = || async { self.tunnel.path(&self.target) };
        until("the tunnel's end", path, Option::is_none).await;
    }

    /// Why no dial of it succeeds.
    async fn refusal(&self) -> String {
        let error = || async {
            assert_eq!(self.tunnel.path(&self.target), None, "it came in");
            self.tunnel.links().into_iter().find_map(|row| row.last_error).map(|error| error.text)
        };
        until("the refusal", error, Option::is_some).await.unwrap().to_string()
    }
}

/// What becomes of one handshake at a gateway's door, which lets no gateway into the store.
async fn knock(svid: &Arc<Svid>, to: &Cluster) -> String {
    let endpoint = NodeEndpoint::new(cell(svid, to));
    match endpoint.dial_store(&to.name, &to.gateway_address()).await {
        Ok(connection) => connection.closed().await,
        Err(error) => error.to_string(),
    }
}

async fn revoke(cluster: &Cluster, target: Target) -> Result<RevokedSvidStatus, String> {
    let mut client = FederationServiceClient::new(channel(&cluster.path("run/o.sock")).await);
    let request = RevokeSvidRequest { target: Some(target), reason: "a stolen disk".into() };
    let status = client.revoke_svid(request).await.map_err(|status| status.message().to_string());
    Ok(status?.into_inner())
}

async fn live_links(cluster: &Cluster, to: &str) -> usize {
    let mut client = OperatorServiceClient::new(channel(&cluster.path("run/o.sock")).await);
    let links = client.list_links(ListLinksRequest {}).await.unwrap().into_inner().links;
    let links = links.into_iter().filter_map(|link| link.link);
    links.filter(|link| link.cluster == to && link.state() == LinkState::Live).count()
}

/// One whose id is smaller than another gateway's: then it is the one that dials.
fn dialling_name(cluster: &Cluster, other: &Cluster) -> SpiffeId {
    let other = GatewayId::of(&gateway_id(other, "gw-0"));
    let ids = (1..).map(|number| gateway_id(cluster, &format!("gw-{number}")));
    ids.into_iter().find(|id| GatewayId::of(id) < other).unwrap()
}

const NOT_REVOKED: &str = "is not a federation";
const REVOKED: &str = "TLS alert 44"; // certificate_revoked

/// The time limits are the promise; what is measured is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_svid_is_refused_within_two_seconds_and_the_next_one_is_good() {
    let mut clusters = federation(&["east", "west", "south"]).await;
    for cluster in &clusters {
        cluster.until_mode(Mode::Member).await;
    }
    let id = dialling_name(&clusters[1], &clusters[0]);
    let stolen = Arc::new(issue(&clusters[1], &id));
    let inside = Intruder::new(&stolen, &clusters[0]);
    inside.until_in().await;
    for other in [&clusters[0], &clusters[2]] {
        assert!(knock(&stolen, other).await.contains(NOT_REVOKED), "the handshake is good");
    }

    let status = revoke(&clusters[1], Target::SpiffeId(id.to_string())).await.unwrap();
    let returned = Instant::now();
    assert!(status.revision.is_some() && !status.alone && status.unseen, "{status:?}");
    for other in [&clusters[0], &clusters[2]] {
        let knock = || knock(&stolen, other);
        let text = until("the refusal", knock, |text| !text.contains(NOT_REVOKED)).await;
        let after = returned.elapsed();
        println!("{} refuses after {after:?}: {text}", other.name);
        assert!(after < Duration::from_secs(2), "{after:?}");
    }
    inside.until_out().await;
    let after = returned.elapsed();
    println!("no tunnel after {after:?}");
    assert!(after < Duration::from_secs(60), "{after:?}");
    let refusal = Intruder::new(&stolen, &clusters[0]).refusal().await;
    assert!(refusal.contains(REVOKED), "{refusal}");

    let good_from = SystemTime::UNIX_EPOCH
        + Duration::from_secs(status.revoked.unwrap().not_before_unix_s)
        + CLOCK_SKEW;
    until("the next second", || async { SystemTime::now() }, |now| *now >= good_from).await;
    let next = Arc::new(issue(&clusters[1], &id));
    Intruder::new(&next, &clusters[0]).until_in().await;
    let others = gateway_id(&clusters[1], "gw-other");
    let bystander = Arc::new(issue(&clusters[1], &others));
    assert!(knock(&bystander, &clusters[2]).await.contains(NOT_REVOKED), "another name");

    // A gateway that starts while its node is away has it from its disk.
    clusters[0].stop_gateway().await;
    let refused_by = cell(&stolen, &clusters[0]);
    clusters[0].stop_node().await;
    clusters[0].start_gateway().await;
    let (name, address) = (clusters[0].name.clone(), clusters[0].gateway_address());
    let again = || async {
        let endpoint = NodeEndpoint::new(refused_by.clone());
        match endpoint.dial_store(&name, &address).await {
            Ok(connection) => connection.closed().await,
            Err(error) => error.to_string(),
        }
    };
    let answered = |text: &String| text.contains(REVOKED) || text.contains(NOT_REVOKED);
    let text = until("an answer", again, answered).await;
    assert!(text.contains(REVOKED), "{text}");
    stop_all(clusters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_key_was_stolen_is_back_with_another_one() {
    let clusters = federation(&["east", "west"]).await;
    let (east, west) = (&clusters[0], &clusters[1]);
    until("a tunnel", || live_links(east, "west"), |live| *live > 0).await;
    let kept = || SvidStore::open(&west.path("gateway/svid")).unwrap().load().unwrap().unwrap();
    let stolen = Arc::new(kept());
    assert!(knock(&stolen, east).await.contains(NOT_REVOKED), "the handshake is good");
    let status = revoke(west, Target::Gateway("gw-0".into())).await.unwrap();
    assert!(!status.unseen && status.revision.is_some(), "{status:?}");
    let text = until("the refusal", || knock(&stolen, east), |text| text.contains(REVOKED));
    text.await;
    let good_from = status.revoked.unwrap().not_before_unix_s;
    let begins = || async {
        let begins = kept().not_before().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        begins.as_secs()
    };
    until("the gateway's next SVID", begins, |begins| *begins >= good_from).await;
    let fresh = Arc::new(kept());
    assert!(knock(&fresh, east).await.contains(NOT_REVOKED), "the handshake is good");
    until("a tunnel again", || live_links(east, "west"), |live| *live > 0).await;
    assert!(knock(&stolen, east).await.contains(REVOKED));

    // Both sides show it; the reason is west's alone.
    for (cluster, reason) in [(east, ""), (west, "a stolen disk")] {
        let mut client = OperatorServiceClient::new(channel(&cluster.path("run/o.sock")).await);
        let trust = client.list_trust(ListTrustRequest {}).await.unwrap().into_inner().trust;
        let row = trust.into_iter().find(|row| row.cluster == "west").unwrap();
        let [revoked] = &row.revoked_svids[..] else { panic!("{row:?}") };
        assert_eq!(revoked.spiffe_id, "spiffe://west.example/fedgate/gateway/gw-0");
        assert_eq!((revoked.not_before_unix_s, &*revoked.reason), (good_from, reason));
    }
    stop_all(clusters).await;
}

/// The node's own: it shows the next one before anybody refuses the last one for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_deny_its_own_svid_and_nobody_elses() {
    let clusters = federation(&["east", "west"]).await;
    let (east, west) = (&clusters[0], &clusters[1]);
    let kept = || SvidStore::open(&west.path("data/svid")).unwrap().load().unwrap().unwrap();
    let stolen = kept();
    let id = stolen.id().to_string();
    let status = revoke(west, Target::SpiffeId(id)).await.unwrap();
    assert!(status.revision.is_some(), "{status:?}");
    assert!(kept().not_before() > stolen.not_before());
    west.write("a.yaml", crate::fixture::SERVICE);
    west.write("b.yaml", crate::fixture::EXPORT);
    east.until_records("west", 2).await;

    let foreign = Target::SpiffeId("spiffe://east.example/fedgate/gateway/gw-0".into());
    let error = revoke(west, foreign).await.unwrap_err();
    assert!(
        error.contains("is of another trust domain than this cluster's, west.example"),
        "{error}"
    );
    let error = revoke(west, Target::SpiffeId("gw-0".into())).await.unwrap_err();
    assert!(error.starts_with("spiffe_id: SPIFFE ID \"gw-0\" is not valid"), "{error}");
    let error = revoke(west, Target::Gateway("GW".into())).await.unwrap_err();
    assert!(error.starts_with("gateway: "), "{error}");
    stop_all(clusters).await;
}
