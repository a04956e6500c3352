//! Endpoints and pollers over real sockets: what is taken, what is refused, and what stays in force.

mod hostile;
mod rotation;

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{BundleChange, Ca, Identity, IdentityCell, Svid, SvidKeyPair};
use model::code::{self, Code};
use model::{ClusterName, ClusterPeer, Resource, ResourceSet, SpiffeId, TrustBundle, TrustDomain};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wire::bundle::format_bundle;

use super::keep::{Kept, Polled};
use super::poll::poll_once;
use super::serve::Endpoint;
use crate::config::{BundleEndpoint, BundleSource, ServedProfile, SourceProfile};
use crate::limits::BUNDLE_CONNECTIONS_PER_ADDRESS_MAX;

const NODE: &str = "spiffe://west.example/fedgate/federation/node-0";
const LIFETIME: Duration = Duration::from_secs(3600);

fn west() -> TrustDomain {
    TrustDomain::parse("west.example").unwrap()
}

/// A cluster whose bundle is served, and a folder of one that polls it.
struct World {
    folder: TempDir,
    ca: Arc<Ca>,
    cell: Arc<IdentityCell>,
    stop: CancellationToken,
    _stopped: DropGuard,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::load_or_create(&folder.path().join("ca"), &west(), SystemTime::now()).unwrap();
        let stop = CancellationToken::new();
        let world = Self {
            cell: Arc::new(IdentityCell::new(Identity::default())),
            ca: Arc::new(ca),
            folder,
            _stopped: stop.clone().drop_guard(),
            stop,
        };
        world.cell.replace_svid(world.svid(NODE));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn svid(&self, id: &str) -> Svid {
        let (id, key) = (SpiffeId::parse(id).unwrap(), SvidKeyPair::generate().unwrap());
        let csr = key.csr_der(&id).unwrap();
        let chain = self.ca.issue(&csr, &id, LIFETIME, SystemTime::now()).unwrap();
        key.into_svid(chain).unwrap()
    }

    async fn serve(&self, profile: ServedProfile) -> SocketAddr {
        let config = BundleEndpoint { listen: ([127, 0, 0, 1], 0).into(), profile };
        let endpoint = Endpoint::bind(&config, self.cell.clone()).unwrap();
        let address = endpoint.local_addr().unwrap();
        tokio::spawn(endpoint.serve(self.ca.clone(), self.stop.clone(), TaskTracker::new()));
        address
    }

    fn web(&self) -> ServedProfile {
        // A checkout does not keep modes.
        let key = self.path("web.key");
        fs::write(&key, testdata("web.key")).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        ServedProfile::Web { certificate: testdata_path("web.pem"), key }
    }

    /// Knows the endpoint by `id`, and begins with the bundle that is in force now.
    fn by_spiffe(&self, address: SocketAddr, id: &str) -> BundleSource {
        let file = self.path("first.json");
        fs::write(&file, format_bundle(&self.ca.bundle()).unwrap()).unwrap();
        let endpoint = SpiffeId::parse(id).unwrap();
        source(address, SourceProfile::Spiffe { endpoint, bundle_file: Some(file) })
    }

    fn keep(&self, source: &BundleSource) -> Kept {
        Kept::open(self.path("bundles"), std::slice::from_ref(source)).unwrap()
    }
}

fn testdata_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/bundles").join(name)
}

fn testdata(name: &str) -> Vec<u8> {
    fs::read(testdata_path(name)).unwrap()
}

fn by_web(address: SocketAddr) -> BundleSource {
    source(address, SourceProfile::Web { ca_file: Some(testdata_path("authority.pem")) })
}

fn source(address: SocketAddr, profile: SourceProfile) -> BundleSource {
    BundleSource {
        trust_domain: west(),
        url: format!("https://{address}/").parse().unwrap(),
        profile,
    }
}

fn in_force(kept: &Kept) -> Option<TrustBundle> {
    kept.in_force().get(&west()).cloned()
}

fn told(kept: &Kept) -> Vec<Code> {
    kept.watch().borrow().findings().iter().map(|finding| finding.code).collect()
}

#[tokio::test]
async fn both_profiles_are_served_and_polled() {
    let world = World::new();
    let address = world.serve(world.web()).await;
    let source = by_web(address);
    let kept = world.keep(&source);
    assert_eq!(in_force(&kept), None);
    assert_eq!(poll_once(&source, &kept).await.unwrap(), BundleChange::Added);
    assert_eq!(in_force(&kept), Some(world.ca.bundle()));
    assert_eq!(poll_once(&source, &kept).await.unwrap(), BundleChange::Unchanged);
    // It is there again after a restart, whoever answers.
    assert_eq!(in_force(&world.keep(&source)), Some(world.ca.bundle()));

    let address = world.serve(ServedProfile::Spiffe).await;
    let source = world.by_spiffe(address, NODE);
    let kept = world.keep(&source);
    assert_eq!(in_force(&kept), Some(world.ca.bundle()), "the configured one");
    assert_eq!(poll_once(&source, &kept).await.unwrap(), BundleChange::Unchanged);
    world.ca.prepare(SystemTime::now()).unwrap();
    assert_eq!(poll_once(&source, &kept).await.unwrap(), BundleChange::Replaced);
    assert_eq!(in_force(&kept).unwrap().x509_authorities.len(), 2);
    assert_eq!(
        in_force(&world.keep(&source)),
        Some(world.ca.bundle()),
        "newer than the configured"
    );
}

#[tokio::test]
async fn who_is_not_the_endpoint_is_refused_and_the_last_good_bundle_stays() {
    let world = World::new();
    let address = world.serve(ServedProfile::Spiffe).await;
    let before = world.ca.bundle();
    let source = world.by_spiffe(address, "spiffe://west.example/fedgate/federation/node-1");
    let kept = world.keep(&source);
    world.ca.prepare(SystemTime::now()).unwrap();
    let error = poll_once(&source, &kept).await.unwrap_err();
    assert_eq!(error.code(), code::PEER_IDENTITY_REFUSED);
    let text = error.to_string();
    assert!(text.contains("node-0 answered") && text.contains("node-1 was meant"), "{text}");
    assert_eq!((in_force(&kept), told(&kept)), (Some(before), vec![error.code()]));

    // The right name by another CA.
    let impostor = World::new();
    let address = impostor.serve(ServedProfile::Spiffe).await;
    let error = poll_once(&world.by_spiffe(address, NODE), &kept).await.unwrap_err();
    assert_eq!(error.code(), code::PEER_IDENTITY_REFUSED, "{error}");

    // On the web: another authority; and nobody there.
    let address = world.serve(world.web()).await;
    let unknown = source_of_system(address);
    let error = poll_once(&unknown, &kept).await.unwrap_err();
    assert_eq!(error.code(), code::BUNDLE_ENDPOINT_FAILED, "{error}");
    let elsewhere = by_web(address);
    let url = format!("https://127.0.0.2:{}/", address.port()).parse().unwrap();
    let error = poll_once(&BundleSource { url, ..elsewhere }, &kept).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    poll_once(&by_web(address), &kept).await.unwrap();
    assert_eq!((in_force(&kept), told(&kept)), (Some(world.ca.bundle()), vec![]));
}

/// No public authority has signed the tests' certificate.
fn source_of_system(address: SocketAddr) -> BundleSource {
    source(address, SourceProfile::Web { ca_file: None })
}

/// All bytes of the answer to one request.
async fn ask(address: SocketAddr, request: &str) -> String {
    let config = identity::web_poller_config(Some(&testdata_path("authority.pem"))).unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Whether the end is announced in TLS is nothing to these tests.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_endpoint_answers_one_get_and_nothing_else() {
    let world = World::new();
    let address = world.serve(world.web()).await;
    let answer = ask(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(body, format_bundle(&world.ca.bundle()).unwrap());
    for (request, status) in [("GET /x", "404"), ("POST /", "405"), ("DELETE /", "405")] {
        let answer = ask(address, &format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn callers_who_say_nothing_do_not_take_all_places() {
    let world = World::new();
    let address = world.serve(world.web()).await;
    let mut silent = Vec::new();
    for _ in 0..BUNDLE_CONNECTIONS_PER_ADDRESS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // Accepted in their order: this one is the first beyond the limit.
    let mut beyond = TcpStream::connect(address).await.unwrap();
    assert_eq!(beyond.read(&mut [0; 1]).await.unwrap_or(0), 0, "it is closed");
    let elsewhere = tokio::net::TcpSocket::new_v4().unwrap();
    elsewhere.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut other = elsewhere.connect(address).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(200), other.read(&mut [0; 1])).await;
    assert!(waited.is_err(), "another address has a place: {waited:?}");
    drop(silent);
    let source = by_web(address);
    let kept = world.keep(&source);
    while poll_once(&source, &kept).await.is_err() {
        tokio::task::yield_now().await;
    }
}

fn peer(bundle: TrustBundle) -> Resource {
    Resource::ClusterPeer(ClusterPeer {
        name: ClusterName::parse("west").unwrap(),
        addresses: Vec::new(),
        trust_bundles: vec![bundle],
        cordoned: false,
        revoked_svids: Vec::new(),
    })
}

#[tokio::test]
async fn a_declared_peer_gets_the_polled_bundle_unless_its_own_is_newer() {
    let world = World::new();
    let address = world.serve(world.web()).await;
    let source = by_web(address);
    let kept = world.keep(&source);
    poll_once(&source, &kept).await.unwrap();
    let polled: Arc<Polled> = kept.watch().borrow().clone();
    let bundle = world.ca.bundle();
    let empty = |sequence| TrustBundle { sequence, x509_authorities: vec![], ..bundle.clone() };
    let sequence = bundle.sequence;
    for (declared, wanted) in [
        (empty(0), bundle.clone()),
        (empty(sequence), bundle.clone()),
        (empty(sequence + 1), empty(sequence + 1)),
    ] {
        let own: ResourceSet = [peer(declared)].into_iter().collect();
        let mut resources = own.clone();
        polled.renew(&own, &mut resources);
        assert_eq!(resources, [peer(wanted)].into_iter().collect());
        // The same by the federation's store, which its owner signs.
        let mut resources = own.clone();
        polled.renew(&ResourceSet::default(), &mut resources);
        assert_eq!(resources, own);
    }
}

#[test]
fn a_damaged_file_ends_the_start_and_says_which() {
    let world = World::new();
    let source = world.by_spiffe(([127, 0, 0, 1], 1).into(), NODE);
    drop(world.keep(&source));
    let open = || Kept::open(world.path("bundles"), std::slice::from_ref(&source)).unwrap_err();
    let file = world.path("bundles/west.example.json");
    fs::write(&file, "{\"keys\": [").unwrap();
    let error = open();
    assert_eq!(error.code(), code::FILE_UNREADABLE);
    let text = error.to_string();
    assert!(
        text.contains("west.example.json: ") && text.contains("put a good copy back"),
        "{text}"
    );
    fs::remove_file(&file).unwrap();
    fs::write(world.path("first.json"), "{}").unwrap();
    let text = open().to_string();
    assert!(text.starts_with("bundleSources: ") && text.contains("first.json"), "{text}");
    fs::remove_file(world.path("first.json")).unwrap();
    assert!(open().to_string().contains("it does not exist"));
}
