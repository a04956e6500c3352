//! Two nodes that know nothing of each other but a bundle endpoint.

use std::fs;
use std::net::SocketAddr;
use std::time::SystemTime;

use federation::app::{self, App};
use federation::config::FederationConfig;
use identity::Ca;
use model::{Resource, ResourceSet, TrustBundle, TrustDomain};
use wire::operator::proto::ListDiagnosticsRequest;

use crate::fixture::{Gateway, Site, operator, until};

const PEER: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: ClusterPeer
metadata: {name: west}
spec:
  trustDomains:
  - {name: west.example, bundle: '{\"keys\": []}'}
";

async fn west(site: &Site) -> App {
    let yaml = site.yaml().replace("east", "west");
    let yaml =
        format!("{yaml}bundleEndpoint: {{listen: \"127.0.0.1:0\", profile: https_spiffe}}\n");
    let config = FederationConfig::from_yaml(&yaml, &site.path("federation.yaml")).unwrap();
    app::build(config).await.unwrap()
}

fn polls(endpoint: SocketAddr) -> String {
    format!(
        "\
bundleSources:
- trustDomain: west.example
  url: https://{endpoint}/
  profile: https_spiffe
  endpointSpiffeId: spiffe://west.example/fedgate/federation/node-0
  bundleFile: west.json
"
    )
}

fn believes(resources: &ResourceSet, bundle: &TrustBundle) -> bool {
    resources.values().any(|resource| match resource {
        Resource::ClusterPeer(peer) => peer.trust_bundles.contains(bundle),
        _ => false,
    })
}

#[tokio::test]
async fn gateways_get_the_polled_bundle_and_keep_it_while_the_endpoint_is_away() {
    let (there, mut here) = (Site::new(), Site::new());
    here.write("west.yaml", PEER);
    let node = west(&there).await;
    let first = node.bundle();
    fs::write(here.path("west.json"), wire::bundle::format_bundle(&first).unwrap()).unwrap();
    here.more = polls(node.bundle_endpoint().unwrap());
    let east = here.start().await;
    assert_eq!(east.bundle_endpoint(), None, "off unless configured");
    let mut gateway = Gateway::subscribe(&east, "gw-0", None).await;
    gateway.until(|resources| believes(resources, &first)).await;
    east.stop().await;
    node.stop().await;

    // The next root is published; the first poll of a node is at its start.
    let domain = TrustDomain::parse("west.example").unwrap();
    let ca = Ca::load_or_create(&there.path("data/ca"), &domain, SystemTime::now()).unwrap();
    ca.prepare(SystemTime::now()).unwrap();
    drop(ca);
    let node = west(&there).await;
    let second = node.bundle();
    assert_eq!((first.x509_authorities.len(), second.x509_authorities.len()), (1, 2));
    let endpoint = node.bundle_endpoint().unwrap();
    here.more = polls(endpoint);
    let east = here.start().await;
    let mut gateway = Gateway::subscribe(&east, "gw-0", None).await;
    gateway.until(|resources| believes(resources, &second)).await;
    east.stop().await;
    node.stop().await;

    let east = here.start().await;
    let mut gateway = Gateway::subscribe(&east, "gw-0", None).await;
    gateway.next().await;
    assert!(believes(&gateway.resources, &second), "in the first revision after the start");
    let ask = || async {
        let answer = operator(&east).await.list_diagnostics(ListDiagnosticsRequest {}).await;
        answer.unwrap().into_inner().diagnostics
    };
    let told = until("an alarm", ask, |found| !found.is_empty()).await;
    let told = told[0].diagnostic.clone().unwrap();
    assert_eq!((told.code, told.object.as_str()), (3014, "TrustDomain/west.example"));
    assert!(told.message.contains(&endpoint.to_string()), "{}", told.message);
    assert!(believes(&gateway.resources, &second));
    east.stop().await;
}
