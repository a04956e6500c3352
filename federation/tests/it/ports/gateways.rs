//! Real gateways that reach their node by its ports.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use federation::app::App as Node;
use gateway::app::App;
use gateway::config::{GatewayConfig, Overrides};
use wire::bundle::format_bundle;
use wire::operator::proto::RevokeSvidRequest;
use wire::operator::proto::federation_service_client::FederationServiceClient;
use wire::operator::proto::revoke_svid_request::Target;

use super::{ApiServer, node};
use crate::fixture::{SERVICE, Site, channel, operator, soon, until};

/// The configuration of a pod, as a chart would write it.
fn configured(site: &Site, node: &Node, pod: &str) -> GatewayConfig {
    let listening = node.listening();
    let text = format!(
        "\
apiVersion: fedgate.dev/v1alpha1
kind: GatewayConfig
cluster: east
trustDomain: east.example
dataDir: {pod}-data
listen: {{tunnel: \"127.0.0.1:0\", routes: 127.0.0.1, relay: \"127.0.0.1:0\"}}
federation:
  address: localhost:{}
  relayAddress: {}
  bundle: bundle.json
  token: {pod}.token
admin: {{listen: \"127.0.0.1:0\"}}
workers: 1
accessLog: {{path: {pod}.log}}
",
        listening.gateways.unwrap().port(),
        listening.relay.unwrap(),
    );
    let overrides = Overrides { name: Some(pod.into()), pod_ip: None };
    GatewayConfig::from_yaml_with(&text, &site.path("gateway.yaml"), &overrides).unwrap()
}

fn write(path: PathBuf, text: &str) {
    let staged = path.with_extension("new");
    std::fs::write(&staged, text).unwrap();
    std::fs::rename(staged, path).unwrap();
}

fn write_token(site: &Site, pod: &str) {
    let token = format!("fedgate:fedgate-system:fedgate-gateway:{pod}\n");
    write(site.path(&format!("{pod}.token")), &token);
}

fn write_bundle(site: &Site, node: &Node) {
    write(site.path("bundle.json"), &format_bundle(&node.bundle()).unwrap());
}

async fn unready_with(app: &App, code: &str, text: &str) {
    let state = app.state();
    let wanted = || async { state.unready() };
    let holds = |reasons: &Vec<(model::code::Code, String)>| {
        reasons.iter().any(|(found, why)| found.to_string() == code && why.contains(text))
    };
    until(&format!("{code} {text}"), wanted, holds).await;
}

async fn connected(node: &Node) -> Vec<String> {
    let request = wire::operator::proto::GetStatusRequest {};
    let status = operator(node).await.get_status(request).await.unwrap().into_inner();
    let live = status.gateways.into_iter().filter(|gateway| gateway.connected);
    live.map(|gateway| gateway.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_waits_for_its_bundle_and_its_token_and_then_serves() {
    let (site, api) = (Site::new(), ApiServer::default());
    site.write("service.yaml", SERVICE);
    let node = node(&site, api.start().await).await;
    let config = configured(&site, &node, "gw-0");
    let gateway = gateway::app::build(config).unwrap();
    unready_with(&gateway, "FED3001", "failed to read federation.token").await;
    write(site.path("gw-0.token"), "fedgate:shop:web:gw-0");
    unready_with(&gateway, "FED3007", "bundle.json: No such file").await;
    write_bundle(&site, &node);
    unready_with(&gateway, "FED3001", "ServiceAccount shop/web may not enrol gateways").await;
    write_token(&site, "gw-1");
    std::fs::rename(site.path("gw-1.token"), site.path("gw-0.token")).unwrap();
    unready_with(&gateway, "FED3001", "the caller is the pod \"gw-1\"").await;
    write_token(&site, "gw-0");
    soon("a ready gateway", gateway.ready()).await;
    assert_eq!(connected(&node).await, ["gw-0"]);
    let id = gateway.state().identity.load().svid.as_ref().unwrap().id().clone();
    assert_eq!(id.as_str(), "spiffe://east.example/fedgate/gateway/gw-0");
    gateway.stop_now().await;
    node.stop().await;
}

/// A Deployment: its pods have names of their own, come and go, and one of them begins again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_and_go_by_their_names() {
    let (site, api) = (Site::new(), ApiServer::default());
    site.write("service.yaml", SERVICE);
    let node = node(&site, api.start().await).await;
    write_bundle(&site, &node);
    let start = async |pod: &str| {
        write_token(&site, pod);
        let gateway = gateway::app::build(configured(&site, &node, pod)).unwrap();
        soon("a ready gateway", gateway.ready()).await;
        gateway
    };
    let are = async |wanted: &[&str]| {
        until("the gateways", || connected(&node), |found| found == wanted).await;
    };
    let (one, two) = (start("gw-7d9f-aaaaa").await, start("gw-7d9f-bbbbb").await);
    are(&["gw-7d9f-aaaaa", "gw-7d9f-bbbbb"]).await;
    one.stop_now().await;
    are(&["gw-7d9f-bbbbb"]).await;
    let three = start("gw-7d9f-ccccc").await;
    are(&["gw-7d9f-bbbbb", "gw-7d9f-ccccc"]).await;
    // The container begins again with an empty folder, while the node still has its old stream.
    let mut again = configured(&site, &node, "gw-7d9f-bbbbb");
    again.data_dir = site.path("again");
    let again = gateway::app::build(again).unwrap();
    soon("a ready gateway", again.ready()).await;
    are(&["gw-7d9f-bbbbb", "gw-7d9f-ccccc"]).await;
    for gateway in [two, three, again] {
        gateway.stop_now().await;
    }
    are(&[]).await;
    node.stop().await;
}

/// The token is what entitles it; its SVID may be refused, with it connected or away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_whose_svid_is_revoked_is_back_with_another_one() {
    let (site, api) = (Site::new(), ApiServer::default());
    let node = node(&site, api.start().await).await;
    write_bundle(&site, &node);
    write_token(&site, "gw-0");
    let config = || configured(&site, &node, "gw-0");
    let mut running = Some(gateway::app::build(config()).unwrap());
    soon("a ready gateway", running.as_ref().unwrap().ready()).await;
    for away in [false, true] {
        if away {
            running.take().unwrap().stop_now().await;
        }
        let mut client = FederationServiceClient::new(channel(node.operator_socket()).await);
        let target = Some(Target::Gateway("gw-0".into()));
        let request = RevokeSvidRequest { target, reason: String::new() };
        let status = client.revoke_svid(request).await.unwrap().into_inner();
        assert!(status.alone && status.revision.is_none() && !status.unseen, "{status:?}");
        let gateway = running.get_or_insert_with(|| gateway::app::build(config()).unwrap());
        let good_from = status.revoked.unwrap().not_before_unix_s;
        let begins = || async {
            let svid = gateway.state().identity.load().svid.clone();
            let begins = svid.map(|svid| svid.not_before().duration_since(UNIX_EPOCH).unwrap());
            begins.map_or(0, |begins| begins.as_secs())
        };
        until("the next SVID", begins, |begins| *begins >= good_from).await;
        until("the gateway", || connected(&node), |found| *found == ["gw-0"]).await;
    }
    running.unwrap().stop_now().await;
    node.stop().await;
}
