//! The rows of `ListServices`: Services of this cluster and ServiceImports, by name.

use std::collections::{BTreeMap, BTreeSet};

use model::snapshot::{Destination, ListenerRouting};
use model::{AppProtocol, Resource, ServiceName, ServicePort, Snapshot};
use wire::operator::proto::ServiceStatus;
use wire::resource::{ClusterHealth, ServiceHealth};

use super::View;

pub(super) fn list(view: &View) -> Vec<ServiceStatus> {
    let mut rows: BTreeMap<ServiceName, ServiceStatus> = BTreeMap::new();
    for resource in view.resources.values() {
        match resource {
            Resource::Service(service) => {
                let row = row(&mut rows, &service.name);
                row.local = true;
                add_ports(row, &service.ports);
            }
            Resource::ServiceExport(export) => row(&mut rows, &export.name).exported = true,
            Resource::ServiceImport(import) => {
                let row = row(&mut rows, &import.name);
                row.imported = true;
                row.clusters = import.clusters.iter().map(ToString::to_string).collect();
                add_ports(row, &import.ports);
            }
            _ => {}
        }
    }
    add_policies(&mut rows, &view.findings.snapshot);
    add_routes(&mut rows, &view.findings.snapshot);
    add_health(&mut rows, view);
    rows.into_values().collect()
}

fn row<'a>(
    rows: &'a mut BTreeMap<ServiceName, ServiceStatus>,
    name: &ServiceName,
) -> &'a mut ServiceStatus {
    rows.entry(name.clone()).or_insert_with(|| ServiceStatus {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        ..ServiceStatus::default()
    })
}

/// An import repeats the ports of the Service of that name, where there is one.
fn add_ports(row: &mut ServiceStatus, ports: &[ServicePort]) {
    for port in ports {
        let encoded = wire::resource::encode_service_port(port);
        if !row.ports.iter().any(|known| known.port == encoded.port) {
            row.ports.push(encoded);
        }
    }
}

fn add_policies(rows: &mut BTreeMap<ServiceName, ServiceStatus>, snapshot: &Snapshot) {
    for (name, export) in &snapshot.exports {
        if let Some(row) = rows.get_mut(name) {
            row.targeted = export.targeted;
            row.allow_entries = u32::try_from(export.allow.len()).unwrap_or(u32::MAX);
        }
    }
}

fn add_routes(rows: &mut BTreeMap<ServiceName, ServiceStatus>, snapshot: &Snapshot) {
    let mut routes: BTreeSet<(ServiceName, String)> = BTreeSet::new();
    let mut add = |destination: &Destination, route: String| {
        if let Some(backend) = destination.backend() {
            routes.insert((backend.service.clone(), route));
        }
    };
    for (port, listener) in &snapshot.listeners {
        match &listener.routing {
            ListenerRouting::Http(table) => {
                for (host, entries) in table.entries() {
                    for entry in entries {
                        add(&entry.destination, format!("http://{host}:{port}{}", entry.prefix));
                    }
                }
            }
            ListenerRouting::Tcp(Some(target)) => {
                add(&target.destination, format!("tcp://*:{port}"));
            }
            ListenerRouting::Tcp(None) => {}
        }
    }
    for (service, route) in routes {
        if let Some(row) = rows.get_mut(&service) {
            row.routes.push(route);
        }
    }
}

/// Each cluster as the gateway sees it that sees it best.
fn add_health(rows: &mut BTreeMap<ServiceName, ServiceStatus>, view: &View) {
    type Merged = BTreeMap<(ServiceName, u16), (AppProtocol, BTreeMap<String, ClusterHealth>)>;
    let mut merged = Merged::new();
    let connected = view.gateways.iter().filter(|gateway| gateway.connected);
    let reports = connected.filter_map(|gateway| gateway.report.as_ref());
    for health in reports.flat_map(|(report, _)| &report.services) {
        let key = (health.service.clone(), health.port);
        let (_, clusters) = merged.entry(key).or_insert((health.protocol, BTreeMap::new()));
        for cluster in &health.clusters {
            let best = clusters.entry(cluster.cluster.to_string());
            let best = best.or_insert_with(|| cluster.clone());
            best.usable |= cluster.usable;
            best.endpoints = best.endpoints.max(cluster.endpoints);
            best.rtt_us = [best.rtt_us, cluster.rtt_us].into_iter().flatten().min();
        }
    }
    for ((service, port), (protocol, clusters)) in merged {
        if let Some(row) = rows.get_mut(&service) {
            let clusters = clusters.into_values().collect();
            row.health.push(ServiceHealth { service, port, protocol, clusters }.encode());
        }
    }
}
