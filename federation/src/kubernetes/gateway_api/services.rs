//! A Service for each Gateway object, which opens its listeners' ports to the outside, and where that
//! can be reached.

use std::collections::{BTreeMap, BTreeSet};

use api::kubernetes::GATEWAY_ANNOTATION;
use discovery::kubernetes::NodeInfo;
use k8s_openapi::api::core::v1::Service;
use model::GatewaySpec;
use serde_json::{Value, json};

use super::gateways::Reach;
use crate::config::{GatewayServiceType, KubernetesConfig};
use crate::kubernetes::Write;
use crate::kubernetes::kinds::SERVICE;
use crate::kubernetes::names::label_of;
use crate::limits::{GATEWAY_ADDRESSES_MAX, NODE_ADDRESSES_MAX};

/// The Service's name: that of the Gateway with its namespace, since all of them are in one.
pub(super) fn name(namespace: &str, gateway: &str) -> String {
    label_of(&format!("{namespace}-{gateway}"))
}

/// `None` while no listener is in service. Gateways listen on the ports that listeners have.
pub(super) fn service(
    gateway: &GatewaySpec,
    ports: &BTreeSet<u16>,
    config: &KubernetesConfig,
) -> Option<Write> {
    if ports.is_empty() {
        return None;
    }
    let port = |port: &u16| {
        let name = format!("port-{port}");
        json!({ "name": name, "port": port, "targetPort": port, "protocol": "TCP" })
    };
    let (namespace, gateway) = (gateway.namespace.as_str(), gateway.name.as_str());
    let of = format!("{namespace}/{gateway}");
    let fields = json!({
        "metadata": { "annotations": { GATEWAY_ANNOTATION: of } },
        "spec": {
            "type": config.gateway_service_type.as_str(),
            "selector": selector(&config.gateway_selector),
            "ports": ports.iter().map(port).collect::<Vec<_>>(),
        },
    });
    Some(Write::whole(&SERVICE, Some(config.namespace.as_str()), &name(namespace, gateway), fields))
}

fn selector(labels: &BTreeMap<String, String>) -> Value {
    labels.iter().map(|(label, value)| (label.clone(), Value::from(value.clone()))).collect()
}

/// `there`: the Service as the API server has it.
pub(super) fn reach(
    there: Option<&Service>,
    wanted: GatewayServiceType,
    nodes: &[NodeInfo],
) -> Reach {
    let Some(service) = there else {
        return Reach::Pending("its Service is not there yet".into());
    };
    let spec = service.spec.as_ref();
    let mut hosts: Vec<String> = match wanted {
        GatewayServiceType::LoadBalancer => {
            let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let points = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
            let host = points
                .iter()
                .filter_map(|point| point.ip.clone().or_else(|| point.hostname.clone()));
            host.collect()
        }
        GatewayServiceType::NodePort => {
            let ready = nodes.iter().filter(|node| node.ready);
            let ip = |node: &NodeInfo| {
                node.external_ips
                    .first()
                    .or_else(|| node.internal_ips.first())
                    .map(ToString::to_string)
            };
            ready.filter_map(ip).take(NODE_ADDRESSES_MAX).collect()
        }
        GatewayServiceType::ClusterIp => {
            let ips = spec.and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default();
            ips.into_iter().filter(|ip| ip != "None" && !ip.is_empty()).collect()
        }
    };
    hosts.extend(spec.and_then(|spec| spec.external_ips.clone()).unwrap_or_default());
    hosts.truncate(GATEWAY_ADDRESSES_MAX);
    if !hosts.is_empty() {
        return Reach::At(hosts);
    }
    let name = service.metadata.name.as_deref().unwrap_or_default();
    Reach::Pending(match wanted {
        GatewayServiceType::LoadBalancer => {
            format!("the load balancer of Service {name} has no address yet")
        }
        GatewayServiceType::NodePort => "no ready node has an address".into(),
        GatewayServiceType::ClusterIp => format!("Service {name} has no cluster IP yet"),
    })
}
