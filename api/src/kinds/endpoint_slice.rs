//! `discovery.k8s.io/v1 EndpointSlice`.

use std::net::{IpAddr, Ipv6Addr};

use model::{ObjectName, Resource, SliceEndpoint, SlicePort};
use serde::Deserialize;

use super::{Kind, Reading, ports};
use crate::limits;
use crate::metadata::Identity;
use crate::report::Treatment::{Refuse, Silent};
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: Kind = Kind {
    kind: "EndpointSlice",
    api_versions: &["discovery.k8s.io/v1"],
    namespaced: true,
    parts: &["endpoints[]", "ports[]"],
    rules: RULES,
    read,
};

/// Names the Service that a slice belongs to.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

const RULES: FieldRules = &[
    ("endpoints[].hostname", Silent),
    ("endpoints[].nodeName", Silent),
    ("endpoints[].targetRef", Silent),
    ("endpoints[].zone", Silent),
    ("endpoints[].hints", Silent),
    ("endpoints[].deprecatedTopology", Silent),
    ("endpoints[].conditions.serving", Silent), // matters only while terminating
    ("endpoints[].*", Refuse("remove it")),
    ("ports[].appProtocol", Silent), // the Service's own is used
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    address_type: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Debug, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Port {
    name: Option<String>,
    port: i64,
    protocol: Option<String>,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    Reading::of(translate(kind, identity, report))
}

fn translate(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Option<Resource> {
    let document: Document = report.read(kind.rules)?;
    let Some(service) = identity.labels.get(SERVICE_LABEL) else {
        let message = format!("the label {SERVICE_LABEL} is missing");
        report.invalid("metadata.labels", message, "add it, with the name of the Service");
        return None;
    };
    let fix = "name the Service in the same namespace";
    let field = "metadata.labels";
    let service = report.parse(field, service, ObjectName::parse, fix)?;
    let family = family(report, &document.address_type)?;
    if !report.bounded("endpoints", document.endpoints.len(), limits::SLICE_ENDPOINTS_MAX)
        || !report.bounded("ports", document.ports.len(), limits::PORTS_MAX)
    {
        return None;
    }
    let mut endpoints = Vec::new();
    for (index, endpoint) in document.endpoints.iter().enumerate() {
        let at = format!("endpoints[{index}]");
        let addresses = addresses(report, &at, &endpoint.addresses, family);
        if addresses.is_empty() || report.is_left_out(&at) {
            continue;
        }
        let Conditions { ready, terminating } = endpoint.conditions;
        let (ready, terminating) = (ready.unwrap_or(true), terminating.unwrap_or(false));
        endpoints.push(SliceEndpoint { addresses, ready, terminating });
    }
    let ports = slice_ports(report, &document.ports);
    let (namespace, name) = (identity.namespace.clone(), identity.name.clone());
    Some(Resource::EndpointSlice(model::EndpointSlice {
        namespace,
        name,
        service,
        ports,
        endpoints,
    }))
}

fn slice_ports(report: &mut Report<'_>, ports: &[Port]) -> Vec<SlicePort> {
    let mut served = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let at = format!("ports[{index}]");
        let name = ports::read_name(report, &at, port.name.as_deref(), false);
        let tcp = ports::is_tcp(report, &at, port.protocol.as_deref());
        let number = report.port(&format!("{at}.port"), port.port);
        if let (true, Some(port)) = (tcp, number) {
            served.push(SlicePort { name, port });
        }
    }
    served
}

#[derive(Clone, Copy, PartialEq)]
enum Family {
    V4,
    V6,
}

fn family(report: &mut Report<'_>, address_type: &str) -> Option<Family> {
    match address_type {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        "FQDN" => {
            // A name that someone else's DNS answers could lead anywhere (reliability T9).
            let message = "an FQDN slice could lead to any address";
            report.refuse("addressType", message, "use IPv4 or IPv6, with addresses");
            None
        }
        other => {
            let message = format!("{} is no address type", quoted(other));
            report.invalid("addressType", message, "use IPv4 or IPv6");
            None
        }
    }
}

fn addresses(
    report: &mut Report<'_>,
    at: &str,
    addresses: &[String],
    family: Family,
) -> Vec<IpAddr> {
    let field = format!("{at}.addresses");
    if !report.bounded(&field, addresses.len(), limits::ENDPOINT_ADDRESSES_MAX) {
        return Vec::new();
    }
    if addresses.is_empty() {
        report.invalid(&field, "the list is empty", "add an address, or remove the endpoint");
    }
    let mut served = Vec::new();
    for (index, text) in addresses.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let parsed = text.parse::<IpAddr>().ok();
        let fits = |address: &IpAddr| address.is_ipv4() == (family == Family::V4);
        let Some(address) = parsed.filter(fits) else {
            let (name, example) = match family {
                Family::V4 => ("IPv4", "10.0.0.7"),
                Family::V6 => ("IPv6", "fd00::7"),
            };
            let message = format!("{} is no {name} address", quoted(text));
            report.invalid(&field, message, &format!("write one such as {example:?}"));
            continue;
        };
        match forbidden(address) {
            Some(reason) => {
                let message = format!("{address} is {reason}");
                report.refuse(&field, message, "use an address of the application's own");
            }
            None => served.push(address),
        }
    }
    served
}

/// Addresses that no application of this cluster can have: who may write EndpointSlices must not
/// lead other clusters to the host's own services (reliability T9, CVE-2021-25740's kin). Loopback
/// is allowed: gateway and application may share a host.
fn forbidden(address: IpAddr) -> Option<&'static str> {
    const LINK_LOCAL: &str = "link-local, where cloud metadata services are";
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Some("the unspecified address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some(LINK_LOCAL),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Some("a multicast address"),
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) if v6.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(LINK_LOCAL),
        IpAddr::V6(v6) if v6 == METADATA_V6 => Some("a cloud metadata service's"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("a multicast address"),
        IpAddr::V6(v6) if v6.to_ipv4().is_some() && !v6.is_loopback() => {
            Some("an IPv4 address in IPv6 form")
        }
        IpAddr::V6(_) => None,
    }
}

/// The one metadata address that is outside of the link-local range.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_host_and_of_nobody_are_forbidden() {
        for bad in [
            "0.0.0.0",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:10.0.0.1",
        ] {
            assert!(forbidden(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for good in ["10.0.0.1", "127.0.0.1", "::1", "fd00::1", "2001:db8::1", "169.253.1.1"] {
            assert_eq!(forbidden(good.parse().unwrap()), None, "{good}");
        }
    }
}
