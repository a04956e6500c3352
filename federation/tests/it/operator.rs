//! The operator API, with and without gateways.

use std::fs;

use model::code::TUNNEL_DOWN;
use model::{
    AppProtocol, ClusterName, Diagnostic, ListenerProtocol, ObjectName, ServiceName, Severity,
    SpiffeId, Transport, TrustDomain,
};
use wire::operator::proto::{
    ClusterState, GetPeerRequest, GetStatusRequest, ListClustersRequest, ListDiagnosticsRequest,
    ListLinksRequest, ListServicesRequest,
};
use wire::resource::{
    Ack, ClusterHealth, Link, LinkClass, LinkError, LinkState, Listener, ServiceHealth,
    StatusReport,
};

use crate::fixture::{EXPORT, Gateway, SERVICE, Site, operator, until};

/// A peer `west` with the bundle of a real CA.
fn write_peer(site: &Site) {
    let domain = TrustDomain::parse("west.example").unwrap();
    let folder = site.path("west-ca");
    fs::create_dir(&folder).unwrap();
    let ca = identity::Ca::load_or_create(&folder, &domain, std::time::SystemTime::now()).unwrap();
    let bundle = wire::bundle::format_bundle(&ca.bundle()).unwrap();
    let bundle: String = bundle.lines().map(|line| format!("      {line}\n")).collect();
    site.write(
        "peer.yaml",
        &format!(
            "\
apiVersion: fedgate.dev/v1alpha1
kind: ClusterPeer
metadata: {{name: west}}
spec:
  addresses:
  - {{transport: quic, host: gw.west.example, port: 8443}}
  trustDomains:
  - name: west.example
    bundle: |
{bundle}"
        ),
    );
}

const IMPORT_AND_ROUTE: &str = "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: cart, namespace: shop}
spec:
  type: ClusterSetIP
  ports: [{port: 8000, protocol: TCP, appProtocol: http}]
status:
  clusters: [{cluster: west}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: fedgate
  listeners: [{name: web, protocol: HTTP, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example]
  rules:
  - matches: [{path: {type: PathPrefix, value: /cart}}]
    backendRefs:
    - {group: multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 8000}
";

fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

fn link(state: LinkState, rtt_us: Option<u64>) -> Link {
    Link {
        cluster: cluster("west"),
        gateway_id: None,
        address: "gw.west.example:8443".into(),
        transport: Transport::Quic,
        class: LinkClass::Fast,
        worker: 0,
        state,
        rtt_us,
        packets_sent: 10,
        packets_lost: 1,
        bytes_sent: 100,
        bytes_received: 200,
        since_age_ms: 1_000,
        last_error: None,
        retiring: false,
    }
}

fn report() -> StatusReport {
    let mut down = link(LinkState::Down, None);
    let text = "timed out".into();
    down.last_error = Some(LinkError { code: Some(TUNNEL_DOWN), text, age_ms: 5_000 });
    let health = |name: &str, usable, endpoints| ClusterHealth {
        cluster: cluster(name),
        usable,
        endpoints,
        rtt_us: None,
    };
    StatusReport {
        gateway: ObjectName::parse("gw-0").unwrap(),
        spiffe_id: Some(SpiffeId::parse("spiffe://east.example/fedgate/gateway/gw-0").unwrap()),
        svid_not_after_unix_s: Some(2_000_000_000),
        tunnel_address: Some("127.0.0.1:8443".parse().unwrap()),
        admin_address: Some("127.0.0.1:9901".parse().unwrap()),
        revision: None,
        ready: true,
        draining: false,
        uptime_ms: 77,
        version: "0.1.0".into(),
        links: vec![link(LinkState::Live, Some(40_000)), down],
        listeners: vec![Listener {
            name: "Gateway/shop/edge/web".into(),
            address: "127.0.0.1:8080".parse().unwrap(),
            protocol: ListenerProtocol::Http,
            error: None,
        }],
        services: vec![ServiceHealth {
            service: ServiceName::parse("shop/cart").unwrap(),
            port: 8000,
            protocol: AppProtocol::Http,
            clusters: vec![health("east", false, Some((0, 0))), health("west", true, None)],
        }],
        counters: vec![],
        store_connections: vec![],
        exchanges: vec![],
    }
}

fn site() -> Site {
    let mut site = Site::new();
    site.more = "advertise: [{transport: quic, host: gw.east.example, port: 8443}]\n".into();
    site.write("service.yaml", SERVICE);
    site.write("export.yaml", EXPORT);
    site.write("import.yaml", IMPORT_AND_ROUTE);
    write_peer(&site);
    site
}

#[tokio::test]
async fn without_a_gateway_it_answers_and_says_so() {
    let site = site();
    let node = site.start().await;
    let mut client = operator(&node).await;
    let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.cluster.as_str(), status.trust_domain.as_str()), ("east", "east.example"));
    assert_eq!(status.spiffe_id, "spiffe://east.example/fedgate/federation/node-0");
    let kinds = status.resources.iter().map(|row| (row.kind.as_str(), row.objects));
    assert!(kinds.eq([
        ("ClusterPeer", 1),
        ("Service", 1),
        ("ServiceExport", 1),
        ("ServiceImport", 1),
        ("Gateway", 1),
        ("HTTPRoute", 1),
    ]));
    assert!(status.gateways.is_empty());
    assert!(status.note.starts_with("no gateway has connected since this node started"));
    assert!(status.note.contains("`federation.socket: /"), "{}", status.note);

    let clusters = client.list_clusters(ListClustersRequest {}).await.unwrap().into_inner();
    let states = clusters.clusters.iter().map(|row| (row.name.as_str(), row.state()));
    assert!(states.eq([("east", ClusterState::Own), ("west", ClusterState::Unknown)]));
    let links = client.list_links(ListLinksRequest {}).await.unwrap().into_inner();
    assert!(links.links.is_empty() && !links.note.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn links_and_health_are_what_the_gateway_reported() {
    let site = site();
    let node = site.start().await;
    let mut gateway = Gateway::subscribe(&node, "gw-0", None).await;
    let revision = gateway.next().await.to;
    gateway.report(&report()).await;
    let found = Diagnostic {
        severity: Severity::Error,
        code: model::code::ADDRESS_IN_USE,
        object: "Gateway/shop/edge".into(),
        field: String::new(),
        message: "port 8080 is taken".into(),
        fix: "free it".into(),
    };
    gateway.acknowledge(&Ack { revision, diagnostics: vec![found] }).await;
    let client = operator(&node).await;
    let status = until(
        "the acknowledgement",
        || {
            let mut client = client.clone();
            async move { client.get_status(GetStatusRequest {}).await.unwrap().into_inner() }
        },
        |status| status.gateways.first().is_some_and(|gateway| gateway.acknowledged.is_some()),
    )
    .await;
    assert_eq!(status.note, "");
    let row = &status.gateways[0];
    assert!(row.connected && row.name == "gw-0");
    assert_eq!(row.report.as_ref().unwrap().tunnel_address, "127.0.0.1:8443");
    check_clusters_and_links(client.clone()).await;
    check_services(client.clone()).await;
    check_diagnostics(client.clone()).await;

    drop(gateway);
    let mut client = client;
    let links = until(
        "the gateway's end",
        || {
            let mut client = client.clone();
            async move { client.list_links(ListLinksRequest {}).await.unwrap().into_inner() }
        },
        |links| !links.note.is_empty(),
    )
    .await;
    assert!(links.note.contains("as they were last reported"), "{}", links.note);
    assert!(links.links.iter().all(|row| !row.connected) && links.links.len() == 2);
    let clusters = client.list_clusters(ListClustersRequest {}).await.unwrap().into_inner();
    assert_eq!(clusters.clusters[1].state(), ClusterState::Unknown);
    node.stop().await;
}

type Client = wire::operator::proto::operator_service_client::OperatorServiceClient<
    tonic::transport::Channel,
>;

async fn check_clusters_and_links(mut client: Client) {
    let clusters = client.list_clusters(ListClustersRequest {}).await.unwrap().into_inner();
    let west = &clusters.clusters[1];
    assert_eq!(west.state(), ClusterState::Connected);
    assert_eq!((west.links_live, west.links_total, west.rtt_us), (1, 2, Some(40_000)));
    assert_eq!(
        (west.trust_domains.as_slice(), west.services),
        (&["west.example".to_string()][..], 1)
    );
    let error = west.last_error.as_ref().unwrap();
    assert_eq!((error.code, error.text.as_str()), (2001, "timed out"));

    let links = client.list_links(ListLinksRequest {}).await.unwrap().into_inner().links;
    assert_eq!(links.len(), 2);
    let first = &links[0];
    let link = first.link.as_ref().unwrap();
    assert_eq!((link.rtt_us, link.packets_lost), (Some(40_000), 1));
    // The report was 1000 ms into the state; the report's own age comes on top, exactly.
    assert_eq!(link.since_age_ms, 1_000 + first.report_age_ms);
    let error = links[1].link.as_ref().unwrap().last_error.as_ref().unwrap();
    assert_eq!(error.age_ms, 5_000 + links[1].report_age_ms);
}

async fn check_services(mut client: Client) {
    let services = client.list_services(ListServicesRequest {}).await.unwrap().into_inner();
    let [api, cart] = &services.services[..] else { panic!("{services:?}") };
    assert_eq!(api.name, "api");
    assert!(api.local && api.exported && !api.imported && !api.targeted);
    assert_eq!(cart.name, "cart");
    assert!(!cart.local && !cart.exported && cart.imported);
    assert_eq!((cart.ports.len(), cart.ports[0].port), (1, 8000));
    assert_eq!(cart.clusters, ["west"]);
    assert_eq!(cart.routes, ["http://shop.example:8080/cart"]);
    let seen = cart.health[0].clusters.iter().map(|row| (row.cluster.as_str(), row.usable));
    assert!(seen.eq([("east", false), ("west", true)]));
}

async fn check_diagnostics(mut client: Client) {
    let found = client.list_diagnostics(ListDiagnosticsRequest {}).await.unwrap().into_inner();
    let rows: Vec<(&str, u32)> = found
        .diagnostics
        .iter()
        .map(|row| (row.source.as_str(), row.diagnostic.as_ref().unwrap().code))
        .collect();
    assert!(rows.contains(&("gateway gw-0", 1002)), "{rows:?}");
    assert!(rows.contains(&("compile", 5002)), "the export has no policy: {rows:?}");
    assert_eq!(found.left_out, 0);
}

#[tokio::test]
async fn the_peer_answer_is_what_another_cluster_needs() {
    let site = site();
    let node = site.start().await;
    let peer = operator(&node).await.get_peer(GetPeerRequest {}).await.unwrap().into_inner();
    assert_eq!((peer.name.as_str(), peer.note.as_str()), ("east", ""));
    let address = &peer.addresses[0];
    assert_eq!((address.host.as_str(), address.port), ("gw.east.example", 8443));
    let domain = TrustDomain::parse(&peer.trust_domains[0].name).unwrap();
    let bundle = wire::bundle::parse_bundle(&peer.trust_domains[0].bundle_jwks, &domain).unwrap();
    assert_eq!(bundle, node.bundle());
    node.stop().await;

    let silent = Site::new();
    let node = silent.start().await;
    let peer = operator(&node).await.get_peer(GetPeerRequest {}).await.unwrap().into_inner();
    assert!(peer.note.contains("set `advertise` in the node's configuration"), "{}", peer.note);
    node.stop().await;
}
