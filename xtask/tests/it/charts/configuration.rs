//! The configuration files in the charts' ConfigMaps are taken by the programs, and fit each other.

use std::path::Path;

use federation::config::FederationConfig;
use gateway::config::{FederationLink, GatewayConfig, Overrides};
use serde_json::Value;
use xtask::repo::Repo;

use super::{Render, list, name_of, selects};

#[test]
fn the_programs_take_what_the_charts_render_for_them() {
    for render in Render::all(&Repo::here().unwrap()) {
        check(&render);
    }
}

fn check(render: &Render) {
    let name = &render.name;
    let (node, gateway) = (node_config(render), gateway_config(render));
    assert_eq!(node.cluster, gateway.cluster, "{name}");
    assert_eq!(node.trust_domain, gateway.trust_domain, "{name}");
    assert_eq!(gateway.name.as_str(), "fedgate-gateway-x7k2p", "{name}: the pod's name");

    // The gateway calls where the node listens, by the name of the node's Service.
    let FederationLink::Tcp(link) = &gateway.federation else { panic!("{name}: no TCP link") };
    let service = render.named("Service", "-federation").expect("the node has a Service");
    let host = format!("{}.{}.svc", name_of(service), namespace_of(service));
    assert_eq!((&link.address.host, &link.relay.host), (&host, &host), "{name}");
    assert_eq!(Some(link.address.port), node.listen.gateways.map(|at| at.port()), "{name}");
    assert_eq!(Some(link.relay.port), node.listen.relay.map(|at| at.port()), "{name}");

    // The node knows gateways by what their pods are.
    let kubernetes = node.kubernetes.expect("the node watches the cluster");
    let pods = render.pods();
    let (_, pod) = pods.iter().find(|(pod, _)| pod.ends_with("-gateway")).expect("gateways");
    let selector = serde_json::to_value(&kubernetes.gateway_selector).expect("labels are text");
    assert!(selects(&selector, &pod["metadata"]["labels"]), "{name}: {selector}");
    let account = pod["spec"]["serviceAccountName"].as_str().expect("it has an account");
    let accounts: Vec<&str> = node.enrolment.accounts.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(accounts, [account], "{name}");
    let exposed =
        render.of_kind("Service").find(|s| name_of(s) == kubernetes.gateway_service.as_str());
    let exposed = exposed.expect("the Service that is advertised is rendered");
    assert!(list(&exposed["spec"]["ports"]).iter().any(|port| port["protocol"] == "UDP"), "{name}");
    assert_eq!(kubernetes.namespace.as_str(), namespace_of(service), "{name}");

    // What the configuration names is mounted.
    let mounts = |paths: &[&Path], pod: &Value| {
        let mounted = list(&pod["spec"]["containers"][0]["volumeMounts"]);
        let covers = |path: &Path| {
            mounted.iter().any(|at| path.starts_with(at["mountPath"].as_str().unwrap_or("?")))
        };
        paths.iter().all(|path| covers(path))
    };
    assert!(mounts(&[&link.bundle, &link.token, &gateway.data_dir], pod), "{name}");
    let (_, pod) = pods.iter().find(|(pod, _)| pod.ends_with("-federation")).expect("the node");
    assert!(mounts(&[&node.data_dir], pod), "{name}");
    if let Some(token) = &kubernetes.join_token_file {
        assert!(mounts(&[token], pod), "{name}");
    }
}

fn node_config(render: &Render) -> FederationConfig {
    FederationConfig::from_yaml(file(render, "-federation"), Path::new("/etc/fedgate/config.yaml"))
        .unwrap_or_else(|error| panic!("{}: {error}", render.name))
}

fn gateway_config(render: &Render) -> GatewayConfig {
    let told =
        Overrides { name: Some("fedgate-gateway-x7k2p".into()), pod_ip: Some("10.0.0.7".into()) };
    let path = Path::new("/etc/fedgate/config.yaml");
    GatewayConfig::from_yaml_with(file(render, "-gateway"), path, &told)
        .unwrap_or_else(|error| panic!("{}: {error}", render.name))
}

fn file<'a>(render: &'a Render, ending: &str) -> &'a str {
    let map = render.named("ConfigMap", ending).expect("a ConfigMap for each program");
    map["data"]["config.yaml"].as_str().expect("it has the file")
}

fn namespace_of(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}
