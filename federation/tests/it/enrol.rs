//! Enrolment: what is issued, and each way of being refused.

use std::time::{Duration, SystemTime};

use federation::app::App;
use identity::{BundleSet, SvidKeyPair, verify_chain};
use model::{SpiffeId, TrustDomain};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tonic::Status;
use wire::resource::proto::resource_service_client::ResourceServiceClient;
use wire::resource::{EnrolResponse, proto};

use crate::fixture::{Gateway, Site, channel, enrolment, soon};

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://east.example{path}")).unwrap()
}

async fn enrol(node: &App, gateway: &str, csr_der: Vec<u8>) -> Result<EnrolResponse, Status> {
    let request = proto::EnrolRequest { gateway: gateway.into(), csr_der };
    let answer = soon("an answer", enrolment(node).await.enrol(request)).await?;
    Ok(EnrolResponse::decode(answer.into_inner()).unwrap())
}

#[tokio::test]
async fn a_gateway_gets_exactly_its_svid_for_a_day() {
    let site = Site::new();
    let node = site.start().await;
    let key = SvidKeyPair::generate().unwrap();
    let own = id("/fedgate/gateway/gw-0");
    let answer = enrol(&node, "gw-0", key.csr_der(&own).unwrap()).await.unwrap();
    assert_eq!(answer.bundle, node.bundle());
    let chain = answer.chain_der.into_iter().map(Into::into).collect();
    let svid = key.into_svid(chain).unwrap();
    assert_eq!(*svid.id(), own);
    let left = svid.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(24 * 3600) && left > Duration::from_secs(23 * 3600));
    let mut bundles = BundleSet::default();
    bundles.insert(answer.bundle).unwrap();
    assert!(verify_chain(svid.chain(), &bundles, SystemTime::now()).is_ok());
    // A gateway that is subscribed renews in the same way.
    let gateway = Gateway::subscribe(&node, "gw-0", None).await;
    let next = SvidKeyPair::generate().unwrap();
    enrol(&node, "gw-0", next.csr_der(&own).unwrap()).await.unwrap();
    drop(gateway);
    node.stop().await;
}

#[tokio::test]
async fn refusals_name_what_is_wrong() {
    let site = Site::new();
    let node = site.start().await;
    let csr = |id: &SpiffeId| SvidKeyPair::generate().unwrap().csr_der(id).unwrap();
    let own = id("/fedgate/gateway/gw-0");
    let mut forged = csr(&own);
    *forged.last_mut().unwrap() ^= 1;
    let west = SpiffeId::parse("spiffe://west.example/fedgate/gateway/gw-0").unwrap();
    let cases = [
        ("", csr(&own), "EnrolRequest.gateway = \"\": name \"\" is not valid: it is empty"),
        ("../ca", csr(&own), "EnrolRequest.gateway = \"../ca\": name \"../ca\" is not valid"),
        ("gw-0", vec![], "EnrolRequest.csr_der = (absent): send a PKCS#10"),
        ("gw-0", vec![0x30; 9000], "EnrolRequest.csr_der = 9000 bytes: at most 8192"),
        ("gw-0", b"not a request".to_vec(), "the CSR is malformed"),
        ("gw-0", forged, "the CSR"),
        ("gw-1", csr(&own), "ask for none, or for spiffe://east.example/fedgate/gateway/gw-1"),
        ("gw-0", csr(&id("/ns/a/sa/b")), "ask for none, or for spiffe://east.example/fedgate"),
        ("gw-0", csr(&west), "ask for none, or for spiffe://east.example/fedgate/gateway/gw-0"),
    ];
    for (name, csr, wanted) in cases {
        let refused = enrol(&node, name, csr).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with("FED3005: "), "{refused}");
        assert!(refused.message().contains(wanted), "{refused}\n  is without {wanted}");
        assert_eq!(refused.metadata().get("x-fed-code").unwrap(), "FED3005");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_unix_user_that_is_not_listed_may_neither_enrol_nor_subscribe() {
    let mut site = Site::new();
    site.more = "enrolment: {uids: [4242]}\n".into();
    let node = site.start().await;
    let key = SvidKeyPair::generate().unwrap();
    let csr = key.csr_der(&id("/fedgate/gateway/gw-0")).unwrap();
    let refused = enrol(&node, "gw-0", csr).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(refused.message().starts_with("FED3005: Unix user "), "{refused}");
    assert!(refused.message().contains("list it under `enrolment.uids`"), "{refused}");
    let mut client = ResourceServiceClient::new(channel(node.resource_socket()).await);
    let nothing = tokio_stream::empty::<proto::GatewayMessage>();
    let refused = soon("an answer", client.stream(nothing)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    node.stop().await;
}

#[tokio::test]
async fn users_that_are_not_listed_cannot_take_all_places_of_the_shared_socket() {
    let mut site = Site::new();
    site.more = "enrolment: {uids: [4242]}\n".into();
    let node = site.start().await;
    let connect = || UnixStream::connect(node.resource_socket());
    let mut held = Vec::new();
    for _ in 0..federation::limits::STRANGERS_MAX {
        held.push(connect().await.unwrap());
    }
    let mut more = connect().await.unwrap();
    let read = soon("the end of one too many", more.read(&mut [0; 64])).await;
    assert_eq!(read.unwrap(), 0, "it is closed without a word");
    let read = soon("the first one's settings", held[0].read(&mut [0; 64])).await;
    assert!(read.unwrap() > 0, "the others are served");
    node.stop().await;
}

#[tokio::test]
async fn the_node_keeps_its_own_svid() {
    let site = Site::new();
    let node = site.start().await;
    node.stop().await;
    let store = identity::SvidStore::open(&site.path("data/svid")).unwrap();
    let kept = store.load().unwrap().unwrap();
    let domain = TrustDomain::parse("east.example").unwrap();
    assert_eq!(kept.id().as_str(), "spiffe://east.example/fedgate/federation/node-0");
    assert_eq!(*kept.id().trust_domain(), domain);
    let node = site.start().await;
    let again = store.load().unwrap().unwrap();
    assert_eq!(again.chain(), kept.chain(), "a fresh one is not renewed at each start");
    node.stop().await;

    // With a new name or a new CA the kept one is of no use.
    std::fs::remove_dir_all(site.path("data/ca")).unwrap();
    let node = site.start().await;
    let mut bundles = BundleSet::default();
    bundles.insert(node.bundle().clone()).unwrap();
    let renewed = store.load().unwrap().unwrap();
    assert!(verify_chain(renewed.chain(), &bundles, SystemTime::now()).is_ok());
    node.stop().await;
}
