//! What is made for one import: a ServiceImport (KEP-1645), a Service without selector through which
//! every pod reaches it, and the Service's EndpointSlices, which lead to the gateways.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::kubernetes::{
    ConditionStatus, DERIVED_SERVICE_ANNOTATION, ImportCondition, ImportReason, MANAGED_BY,
    MCS_SERVICE_NAME_LABEL, MCS_SOURCE_CLUSTER_LABEL, POOL_PORTS_ANNOTATION, SERVICE_NAME_LABEL,
    SLICE_MANAGED_BY_LABEL,
};
use model::{AppProtocol, ClusterName, ServiceImport, ServicePort};
use serde_json::{Value, json};

use super::condition::Condition;
use super::names::{derived_service, label};
use super::pool::{Pool, PoolPorts, to_text};
use crate::kubernetes::Write;
use crate::kubernetes::kinds::{ENDPOINT_SLICE, Kind, SERVICE};

/// An IP family as Services and EndpointSlices name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// What is known of one import.
#[derive(Debug)]
pub(super) struct ImportFacts<'a> {
    /// The ServiceImport in the version that the API server has, if it has one.
    pub(super) kind: Option<&'static Kind>,
    /// This cluster.
    pub(super) own: &'a ClusterName,
    pub(super) import: &'a ServiceImport,
    /// The federation has it no more, and that may be a fault.
    pub(super) is_held: bool,
    pub(super) ports: &'a PoolPorts,
    /// Not every port found a place in the pool.
    pub(super) is_short: bool,
    pub(super) pool: Pool,
    /// Addresses of gateways that are ready.
    pub(super) gateways: &'a [IpAddr],
    /// The derived Service, once it is there.
    pub(super) service: Option<&'a Value>,
    /// Somebody else's Service has the name of the derived one.
    pub(super) is_name_taken: bool,
}

impl ImportFacts<'_> {
    /// The objects; the status of the ServiceImport is a write of its own.
    pub(super) fn writes(&self) -> Vec<Write> {
        let mut writes: Vec<Write> =
            self.kind.map(|kind| self.service_import(kind)).into_iter().collect();
        if self.is_name_taken || self.ports.is_empty() {
            return writes;
        }
        writes.push(self.derived_service());
        let slices = self.families().into_iter().map(|family| self.slice(family));
        writes.extend(slices);
        writes
    }

    /// Without its conditions' times.
    pub(super) fn condition(&self) -> Condition {
        let (status, reason, message) = self.ready();
        let kind = ImportCondition::Ready.as_str();
        Condition { kind, status, reason: reason.as_str(), message }
    }

    /// `status.clusters`, in the order of names.
    pub(super) fn clusters(&self) -> Vec<Value> {
        let clusters: BTreeSet<&str> =
            self.import.clusters.iter().map(ClusterName::as_str).collect();
        clusters.into_iter().map(|cluster| json!({ "cluster": cluster })).collect()
    }

    fn service_import(&self, kind: &'static Kind) -> Write {
        let ports = self.import.ports.iter().map(|port| {
            let mut fields = json!({ "port": port.port, "protocol": "TCP" });
            if let Some(name) = &port.name {
                fields["name"] = name.as_str().into();
            }
            with_protocol(fields, port)
        });
        let mut spec = json!({
            "type": "ClusterSetIP",
            "ports": ports.collect::<Vec<_>>(),
            "sessionAffinity": "None",
        });
        let mut metadata = json!({});
        if !self.is_name_taken && !self.ports.is_empty() {
            metadata["annotations"] = json!({ DERIVED_SERVICE_ANNOTATION: self.derived_name() });
        }
        let ips = self.cluster_ips();
        if !ips.is_empty() {
            let families: Vec<&str> = ips.iter().map(|ip| family_of(ip).as_str()).collect();
            spec["ipFamilies"] = json!(families);
            spec["ips"] = ips.iter().map(IpAddr::to_string).collect();
        }
        self.write(
            kind,
            self.import.name.name.as_str(),
            json!({ "metadata": metadata, "spec": spec }),
        )
    }

    /// No selector: the slices below are its endpoints. No IP family: the cluster's first one is
    /// that of every gateway pod too.
    fn derived_service(&self) -> Write {
        let ports = self.placed().map(|(port, pool_port)| {
            let fields = json!({
                "name": self.port_name(port),
                "port": port.port,
                "protocol": "TCP",
                "targetPort": pool_port,
            });
            with_protocol(fields, port)
        });
        let fields = json!({
            "metadata": {
                "labels": { MCS_SERVICE_NAME_LABEL: label(&self.import.name.name) },
                "annotations": { POOL_PORTS_ANNOTATION: to_text(self.ports) },
            },
            "spec": { "type": "ClusterIP", "ports": ports.collect::<Vec<_>>() },
        });
        self.write(&SERVICE, &self.derived_name(), fields)
    }

    /// KEP-1645, "Using EndpointSlice objects to track endpoints"; the endpoints are this cluster's
    /// gateways, so it is the source cluster. Who exports is decided behind them.
    fn slice(&self, family: Family) -> Write {
        let service = self.derived_name();
        let ports = self.placed().map(|(port, pool_port)| {
            let fields = json!({
                "name": self.port_name(port),
                "port": pool_port,
                "protocol": "TCP",
            });
            with_protocol(fields, port)
        });
        let addresses = self.gateways.iter().filter(|address| family.has(address));
        let endpoints = addresses.map(|address| {
            let conditions = json!({ "ready": true, "serving": true, "terminating": false });
            json!({ "addresses": [address.to_string()], "conditions": conditions })
        });
        let fields = json!({
            "metadata": { "labels": {
                SERVICE_NAME_LABEL: service.as_str(),
                SLICE_MANAGED_BY_LABEL: MANAGED_BY,
                MCS_SERVICE_NAME_LABEL: label(&self.import.name.name),
                MCS_SOURCE_CLUSTER_LABEL: self.own.as_str(),
            } },
            "addressType": family.as_str(),
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": ports.collect::<Vec<_>>(),
        });
        let name = format!("{service}-{}", family.as_str().to_ascii_lowercase());
        self.write(&ENDPOINT_SLICE, &name, fields)
    }

    fn ready(&self) -> (ConditionStatus, ImportReason, String) {
        let no = |reason, message| (ConditionStatus::False, reason, message);
        let service = self.derived_name();
        if self.is_name_taken {
            let message = format!(
                "the Service {}/{service} was not made by Fedgate and stays as it is, so pods cannot \
                 reach the import through it; rename or remove that Service",
                self.import.name.namespace
            );
            return no(ImportReason::ServiceNameTaken, message);
        }
        if self.is_short {
            let message = format!(
                "the gateways' ports for imports, {}, are used up; raise importPorts.count, or \
                 export fewer services to this cluster",
                self.pool
            );
            return no(ImportReason::PortsExhausted, message);
        }
        if self.ports.is_empty() {
            return no(ImportReason::Pending, "the exported service has no ports".into());
        }
        let families = self.families();
        if families.is_empty() {
            let message = format!("the Service {service} has no cluster IP yet");
            return no(ImportReason::Pending, message);
        }
        if self.gateways.is_empty() {
            let message = "no gateway is ready in this cluster; `kubectl get pods` in Fedgate's \
                           namespace shows why";
            return no(ImportReason::Pending, message.into());
        }
        let reached = |family: &Family| self.gateways.iter().any(|address| family.has(address));
        if let Some(missing) = families.iter().find(|family| !reached(family)) {
            let message = format!(
                "the Service {service} has an {family} address and no gateway has one; give the \
                 gateway pods {family} addresses",
                family = missing.as_str()
            );
            return no(ImportReason::IPFamilyNotSupported, message);
        }
        let message = format!("pods reach it through the Service {service}");
        (ConditionStatus::True, ImportReason::Ready, message)
    }

    /// The families of the derived Service, which Kubernetes chose.
    fn families(&self) -> Vec<Family> {
        let ips = self.cluster_ips();
        Family::ALL.into_iter().filter(|family| ips.iter().any(|ip| family.has(ip))).collect()
    }

    /// Of the derived Service, in its order.
    fn cluster_ips(&self) -> Vec<IpAddr> {
        let ips = self.service.and_then(|service| service["spec"]["clusterIPs"].as_array());
        let ip = |ip: &Value| ip.as_str().and_then(|text| text.parse().ok());
        ips.into_iter().flatten().filter_map(ip).collect()
    }

    /// The ports that have a place in the pool.
    fn placed(&self) -> impl Iterator<Item = (&ServicePort, u16)> {
        self.import.ports.iter().filter_map(|port| Some((port, *self.ports.get(&port.port)?)))
    }

    /// A Service with several ports needs a name for each. One that exporters have is kept; exports
    /// without names may still come together.
    fn port_name(&self, port: &ServicePort) -> String {
        match &port.name {
            Some(name) => name.clone(),
            None if self.import.ports.len() == 1 => String::new(),
            None => format!("port-{}", port.port),
        }
    }

    fn derived_name(&self) -> String {
        derived_service(&self.import.name.name)
    }

    fn write(&self, kind: &'static Kind, name: &str, fields: Value) -> Write {
        Write::whole(kind, Some(self.import.name.namespace.as_str()), name, fields)
    }
}

fn family_of(address: &IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Opaque TCP is what a port is without the field.
fn with_protocol(mut fields: Value, port: &ServicePort) -> Value {
    match port.protocol {
        AppProtocol::Http => fields["appProtocol"] = "http".into(),
        AppProtocol::H2c => fields["appProtocol"] = "kubernetes.io/h2c".into(),
        AppProtocol::Tcp => {}
    }
    if fields["name"] == "" {
        fields.as_object_mut().map(|fields| fields.remove("name"));
    }
    fields
}
