//! `v1 Service`.

use model::{Resource, ServiceName};
use serde::Deserialize;

use super::ports::{self, Port};
use super::{Kind, Reading};
use crate::metadata::Identity;
use crate::report::Treatment::{Silent, Warn};
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: Kind = Kind {
    kind: "Service",
    api_versions: &["v1"],
    namespaced: true,
    parts: &["spec.ports[]"],
    rules: RULES,
    read,
};

const RULES: FieldRules = &[
    // Endpoints come from EndpointSlices, so what Kubernetes needs to make them is of no concern.
    ("spec.selector", Silent),
    ("spec.ports[].targetPort", Silent),
    ("spec.ports[].nodePort", Silent),
    ("spec.clusterIP", Silent),
    ("spec.clusterIPs", Silent),
    ("spec.ipFamilies", Silent),
    ("spec.ipFamilyPolicy", Silent),
    ("spec.externalTrafficPolicy", Silent),
    ("spec.healthCheckNodePort", Silent),
    ("spec.allocateLoadBalancerNodePorts", Silent),
    ("spec.loadBalancerClass", Silent),
    ("spec.loadBalancerIP", Silent),
    (
        "spec.loadBalancerSourceRanges",
        Warn("it bounds the load balancer only, an AccessPolicy bounds other clusters"),
    ),
    ("spec.externalIPs", Warn("requests go to the endpoints")),
    ("spec.publishNotReadyAddresses", Warn("only ready endpoints get requests")),
    ("spec.trafficDistribution", Warn("every ready endpoint may be chosen")),
    ("spec.sessionAffinityConfig", Warn("requests of one client may reach different endpoints")),
];

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    r#type: Option<String>,
    #[serde(default)]
    ports: Vec<Port>,
    session_affinity: Option<String>,
    internal_traffic_policy: Option<String>,
    external_name: Option<String>,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    Reading::of(translate(kind, identity, report))
}

fn translate(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Option<Resource> {
    let Document { spec } = report.read(kind.rules)?;
    match spec.r#type.as_deref().unwrap_or("ClusterIP") {
        "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        "ExternalName" => {
            // A name that someone else's DNS answers could lead anywhere (reliability T9).
            let message = "an ExternalName Service could lead to any address";
            report.refuse("spec.type", message, "use a Service with EndpointSlices");
            return None;
        }
        other => {
            let message = format!("{} is no type of a Service", quoted(other));
            report.invalid("spec.type", message, "use ClusterIP, NodePort or LoadBalancer");
        }
    }
    if spec.external_name.is_some() {
        let message = "only an ExternalName Service has it, and that is not served";
        report.warn("spec.externalName", message, "remove it");
    }
    check_affinity(report, spec.session_affinity.as_deref());
    match spec.internal_traffic_policy.as_deref().unwrap_or("Cluster") {
        "Cluster" => {}
        "Local" => {
            let message = "Local is not served: endpoints of every node get requests";
            report.warn("spec.internalTrafficPolicy", message, "use Cluster, or live without it");
        }
        other => {
            let message = format!("{} is no traffic policy", quoted(other));
            report.invalid("spec.internalTrafficPolicy", message, "use Cluster");
        }
    }
    let ports = ports::read(report, &spec.ports);
    let name = ServiceName::new(identity.namespace.clone(), identity.name.clone());
    Some(Resource::Service(model::Service { name, ports }))
}

/// Also of a ServiceImport, which has the same field.
pub(crate) fn check_affinity(report: &mut Report<'_>, affinity: Option<&str>) {
    let field = "spec.sessionAffinity";
    match affinity.unwrap_or("None") {
        "None" => {}
        "ClientIP" => {
            let message =
                "ClientIP is not served: requests of one client may reach different endpoints";
            report.warn(field, message, "use None, or live without it");
        }
        other => {
            report.invalid(field, format!("{} is no session affinity", quoted(other)), "use None");
        }
    }
}
