//! Where other clusters reach this one's gateways, as the Service that exposes the tunnel and what is
//! behind it say. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use discovery::kubernetes::NodeInfo;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use model::{Hostname, PeerAddress, Transport};

use crate::limits::{ADVERTISE_MAX, NODE_ADDRESSES_MAX};

/// The tunnel's port in the Service, when it has several of UDP.
const TUNNEL_PORT: &str = "tunnel";

/// Why there are no addresses, or not all of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAddress {
    #[error("there is no such Service")]
    NoService,
    #[error("it has no port with protocol UDP")]
    NoPort,
    #[error("its load balancer has no address yet")]
    LoadBalancerPending,
    #[error("port {0} has no nodePort yet")]
    NoNodePort(i32),
    #[error("no ready node has an address")]
    NoNode,
    #[error(
        "it is of type ClusterIP and no gateway pod has a hostPort, so other clusters cannot dial \
         this one (it dials them)"
    )]
    ClusterIpOnly,
    #[error("it is of type {0}, which exposes nothing")]
    OtherType(String),
}

/// In a stable order: what changes in it is to be news.
pub(super) fn addresses(
    service: Option<&Service>,
    nodes: &[NodeInfo],
    pods: &[Pod],
) -> Result<Vec<PeerAddress>, NoAddress> {
    let spec = service.and_then(|service| service.spec.as_ref()).ok_or(NoAddress::NoService)?;
    let port = tunnel_port(spec.ports.as_deref().unwrap_or_default()).ok_or(NoAddress::NoPort)?;
    let number = u16::try_from(port.port).map_err(|_| NoAddress::NoPort)?;
    let external = spec.external_ips.iter().flatten();
    let external: Vec<_> = external.filter_map(|ip| address(ip, number)).collect();
    let by_type = match spec.type_.as_deref().unwrap_or("ClusterIP") {
        "LoadBalancer" => load_balancer(service, number),
        "NodePort" => {
            let local = spec.external_traffic_policy.as_deref() == Some("Local");
            node_port(port, nodes, &hosts_of(pods), local)
        }
        "ClusterIP" => host_ports(pods),
        other => Err(NoAddress::OtherType(other.to_string())),
    };
    let mut all = match by_type {
        Ok(addresses) => [external, addresses].concat(),
        Err(reason) if external.is_empty() => return Err(reason),
        Err(_) => external,
    };
    let mut known = BTreeSet::new();
    all.retain(|address| known.insert(address.clone()));
    all.truncate(ADVERTISE_MAX);
    Ok(all)
}

fn tunnel_port(ports: &[ServicePort]) -> Option<&ServicePort> {
    let udp = || ports.iter().filter(|port| port.protocol.as_deref() == Some("UDP"));
    udp().find(|port| port.name.as_deref() == Some(TUNNEL_PORT)).or_else(|| udp().next())
}

fn load_balancer(service: Option<&Service>, port: u16) -> Result<Vec<PeerAddress>, NoAddress> {
    let status = service.and_then(|service| service.status.as_ref());
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let points = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let hosts = points.iter().filter_map(|point| point.ip.as_ref().or(point.hostname.as_ref()));
    let found: Vec<_> = hosts.filter_map(|host| address(host, port)).collect();
    if found.is_empty() { Err(NoAddress::LoadBalancerPending) } else { Ok(found) }
}

/// Nodes with a gateway first: there a packet takes no further step. With the policy Local the
/// others drop it.
fn node_port(
    port: &ServicePort,
    nodes: &[NodeInfo],
    hosts: &BTreeSet<String>,
    local: bool,
) -> Result<Vec<PeerAddress>, NoAddress> {
    let number = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let number = number.ok_or(NoAddress::NoNodePort(port.port))?;
    let has_gateway = |node: &NodeInfo| hosts.contains(&node.name);
    let mut ready: Vec<&NodeInfo> =
        nodes.iter().filter(|node| node.ready && (!local || has_gateway(node))).collect();
    ready.sort_by_key(|node| (!has_gateway(node), node.name.clone()));
    let ip =
        |node: &&NodeInfo| node.external_ips.first().or_else(|| node.internal_ips.first()).copied();
    let ips = ready.iter().filter_map(ip).take(NODE_ADDRESSES_MAX);
    let found: Vec<_> = ips.filter_map(|ip| address(&ip.to_string(), number)).collect();
    if found.is_empty() { Err(NoAddress::NoNode) } else { Ok(found) }
}

fn hosts_of(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect()
}

/// The nodes' own addresses, where gateway pods have a UDP port of their node.
fn host_ports(pods: &[Pod]) -> Result<Vec<PeerAddress>, NoAddress> {
    let mut found = BTreeSet::new();
    for pod in pods.iter().filter(|pod| is_running(pod)) {
        let Some(host) = pod.status.as_ref().and_then(|status| status.host_ip.as_deref()) else {
            continue;
        };
        let spec = pod.spec.as_ref();
        let on_host = spec.is_some_and(|spec| spec.host_network == Some(true));
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
        let mut udp = ports.filter(|port| port.protocol.as_deref() == Some("UDP"));
        let port =
            udp.find_map(|port| port.host_port.or_else(|| on_host.then_some(port.container_port)));
        let port = port.and_then(|port| u16::try_from(port).ok());
        found.extend(port.and_then(|port| address(host, port)));
    }
    if found.is_empty() {
        return Err(NoAddress::ClusterIpOnly);
    }
    Ok(found.into_iter().take(NODE_ADDRESSES_MAX).collect())
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

/// `None` for what nobody could dial.
fn address(host: &str, port: u16) -> Option<PeerAddress> {
    let host = host.to_ascii_lowercase();
    let is_ip = host.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified() && !ip.is_multicast());
    let is_name = || matches!(Hostname::parse(&host), Ok(Hostname::Exact(_)));
    (port > 0 && (is_ip || is_name())).then_some(PeerAddress {
        transport: Transport::Quic,
        host,
        port,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value, status: Value) -> Service {
        serde_json::from_value(json!({ "spec": spec, "status": status })).unwrap()
    }

    fn node(name: &str, external: &[&str], internal: &[&str], ready: bool) -> NodeInfo {
        let ips = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
        NodeInfo {
            name: name.into(),
            region: None,
            zone: None,
            internal_ips: ips(internal),
            external_ips: ips(external),
            ready,
            unschedulable: false,
        }
    }

    fn pod(node: &str, host_ip: &str, ports: Value) -> Pod {
        serde_json::from_value(json!({
            "spec": {"nodeName": node, "containers": [{"name": "gateway", "ports": ports}]},
            "status": {"phase": "Running", "hostIP": host_ip}
        }))
        .unwrap()
    }

    fn shown(found: Result<Vec<PeerAddress>, NoAddress>) -> Result<Vec<String>, String> {
        let shown = |a: PeerAddress| format!("{}:{}", a.host, a.port);
        found.map(|all| all.into_iter().map(shown).collect()).map_err(|reason| reason.to_string())
    }

    const PORTS: &str = r#"[
        {"name": "web", "port": 80, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "tunnel", "port": 8443, "protocol": "UDP", "nodePort": 30443}]"#;

    fn spec(type_: &str) -> Value {
        let ports: Value = serde_json::from_str(PORTS).unwrap();
        json!({ "type": type_, "ports": ports })
    }

    #[test]
    fn a_load_balancer_gives_its_ips_and_names_or_is_pending() {
        let ingress =
            json!([{"ip": "203.0.113.7"}, {"hostname": "LB.example.com"}, {"ip": "203.0.113.7"}]);
        let ready = service(spec("LoadBalancer"), json!({"loadBalancer": {"ingress": ingress}}));
        let found = shown(addresses(Some(&ready), &[], &[]));
        assert_eq!(found, Ok(vec!["203.0.113.7:8443".into(), "lb.example.com:8443".into()]));
        let pending = service(spec("LoadBalancer"), json!({"loadBalancer": {}}));
        assert_eq!(addresses(Some(&pending), &[], &[]), Err(NoAddress::LoadBalancerPending));
    }

    #[test]
    fn a_node_port_is_dialled_at_ready_nodes_those_with_a_gateway_first() {
        let nodes = [
            node("a", &[], &["10.0.0.1"], true),
            node("b", &["198.51.100.2"], &["10.0.0.2"], true),
            node("c", &[], &["10.0.0.3"], false),
            node("d", &[], &[], true),
        ];
        let pods = [pod("b", "10.0.0.2", json!([]))];
        let anywhere = service(spec("NodePort"), json!({}));
        let found = shown(addresses(Some(&anywhere), &nodes, &pods));
        assert_eq!(found, Ok(vec!["198.51.100.2:30443".into(), "10.0.0.1:30443".into()]));
        let mut local = spec("NodePort");
        local["externalTrafficPolicy"] = json!("Local");
        let local = service(local, json!({}));
        let found = shown(addresses(Some(&local), &nodes, &pods));
        assert_eq!(found, Ok(vec!["198.51.100.2:30443".into()]));
        assert_eq!(addresses(Some(&local), &nodes, &[]), Err(NoAddress::NoNode));
    }

    #[test]
    fn a_cluster_ip_leads_to_the_host_ports_of_gateways() {
        let service = service(spec("ClusterIP"), json!({}));
        assert_eq!(addresses(Some(&service), &[], &[]), Err(NoAddress::ClusterIpOnly));
        let port =
            |host: i32| json!([{"containerPort": 8443, "hostPort": host, "protocol": "UDP"}]);
        let pods = [pod("b", "10.0.0.2", port(9443)), pod("a", "10.0.0.1", port(9443))];
        let found = shown(addresses(Some(&service), &[], &pods));
        assert_eq!(found, Ok(vec!["10.0.0.1:9443".into(), "10.0.0.2:9443".into()]));
    }

    #[test]
    fn external_ips_count_for_every_type_and_a_service_needs_a_udp_port() {
        let mut with = spec("ClusterIP");
        with["externalIPs"] = json!(["192.0.2.9"]);
        let found = shown(addresses(Some(&service(with, json!({}))), &[], &[]));
        assert_eq!(found, Ok(vec!["192.0.2.9:8443".into()]));
        let tcp = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]});
        assert_eq!(addresses(Some(&service(tcp, json!({}))), &[], &[]), Err(NoAddress::NoPort));
        assert_eq!(addresses(None, &[], &[]), Err(NoAddress::NoService));
    }
}
