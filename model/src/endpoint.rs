//! Endpoint tables: which addresses serve a service's port in this cluster right now.
//!
//! They live beside the compiled [`crate::Snapshot`], not inside it: a thousand endpoint changes a
//! second recompile no route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::catalog::{EndpointSlice, Resource, ResourceSet, ServicePort};
use crate::name::ServiceName;

/// One address of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Takes new requests. One that is not ready but listed still finishes what it has.
    pub ready: bool,
}

/// Endpoints by service and service port.
pub type EndpointTable = BTreeMap<(ServiceName, u16), Vec<Endpoint>>;

/// Joins Services with their EndpointSlices. Every port of every Service has a row, perhaps empty.
pub fn endpoint_table(resources: &ResourceSet) -> EndpointTable {
    let mut slices: BTreeMap<ServiceName, Vec<&EndpointSlice>> = BTreeMap::new();
    for resource in resources.values() {
        if let Resource::EndpointSlice(slice) = resource {
            let service = ServiceName::new(slice.namespace.clone(), slice.service.clone());
            slices.entry(service).or_default().push(slice);
        }
    }
    let mut table = EndpointTable::new();
    for resource in resources.values() {
        let Resource::Service(service) = resource else { continue };
        let of_service = slices.get(&service.name).map_or(&[][..], Vec::as_slice);
        for port in &service.ports {
            let row = endpoints_of_port(port, of_service);
            table.insert((service.name.clone(), port.port), row);
        }
    }
    table
}

/// A slice's port belongs to the Service's port of the same name (KEP-752); the address may be in
/// several slices while one is being replaced, so rows are sets.
fn endpoints_of_port(port: &ServicePort, slices: &[&EndpointSlice]) -> Vec<Endpoint> {
    let mut rows: BTreeMap<SocketAddr, bool> = BTreeMap::new();
    for slice in slices {
        let target_ports: BTreeSet<u16> = slice
            .ports
            .iter()
            .filter(|candidate| candidate.name.as_deref() == port.name.as_deref())
            .map(|candidate| candidate.port)
            .collect();
        for target_port in target_ports {
            for endpoint in &slice.endpoints {
                let ready = endpoint.ready && !endpoint.terminating;
                for address in &endpoint.addresses {
                    let row = rows.entry(SocketAddr::new(*address, target_port)).or_default();
                    *row |= ready;
                }
            }
        }
    }
    rows.into_iter().map(|(address, ready)| Endpoint { address, ready }).collect()
}
