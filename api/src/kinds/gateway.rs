//! `gateway.networking.k8s.io/v1 Gateway` of a class that is ours, with HTTP and TCP listeners.

use std::collections::BTreeSet;

use model::{AllowedNamespaces, Hostname, ListenerProtocol, ListenerSpec, ObjectName, Resource};
use serde::Deserialize;

use super::{GATEWAY_GROUP, Kind, Reading};
use crate::limits;
use crate::metadata::Identity;
use crate::report::Treatment::{Refuse, Silent, Warn};
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: Kind = Kind {
    kind: "Gateway",
    api_versions: &["gateway.networking.k8s.io/v1"],
    namespaced: true,
    parts: &["spec.listeners[]"],
    rules: RULES,
    read,
};

const RULES: FieldRules = &[
    ("spec.listeners[].*", Refuse("remove it; the listener cannot be served without its meaning")),
    (
        "spec.addresses",
        Refuse("remove it; `listen.routes` of the gateway's configuration says where it listens"),
    ),
    ("spec.tls", Refuse("remove it")),
    ("spec.backendTLS", Refuse("remove it")),
    ("spec.infrastructure", Warn("Fedgate starts no gateways by itself")),
    ("spec.allowedListeners", Warn("a ListenerSet is not served")),
    ("spec.defaultScope", Warn("a route names its Gateway")),
];

#[derive(Debug, Deserialize)]
struct ClassDocument {
    spec: ClassSpec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClassSpec {
    gateway_class_name: String,
}

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "gatewayClassName")]
    _gateway_class_name: String,
    listeners: Vec<Listener>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listener {
    name: String,
    hostname: Option<String>,
    port: i64,
    protocol: String,
    allowed_routes: Option<AllowedRoutes>,
}

#[derive(Debug, Deserialize)]
struct AllowedRoutes {
    namespaces: Option<Namespaces>,
    #[serde(default)]
    kinds: Vec<RouteKind>,
}

#[derive(Debug, Deserialize)]
struct Namespaces {
    from: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RouteKind {
    group: Option<String>,
    kind: String,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    const CLASS_ONLY: FieldRules = &[("*", Silent)];
    let Some(ClassDocument { spec }) = report.read(CLASS_ONLY) else { return Reading::Invalid };
    if !report.is_our_class(&spec.gateway_class_name) {
        return Reading::NotOurs;
    }
    Reading::of(translate(kind, identity, report))
}

fn translate(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Option<Resource> {
    let Document { spec } = report.read(kind.rules)?;
    let field = "spec.listeners";
    if !report.bounded(field, spec.listeners.len(), limits::LISTENERS_MAX) {
        return None;
    }
    if spec.listeners.is_empty() {
        report.invalid(field, "the list is empty", "add a listener");
    }
    let (mut listeners, mut names) = (Vec::new(), BTreeSet::new());
    for (index, listener) in spec.listeners.iter().enumerate() {
        let at = format!("{field}[{index}]");
        let Some(read) = read_listener(report, &at, listener) else { continue };
        if !names.insert(read.name.clone()) {
            let message = format!("two listeners are named {:?}", read.name.as_str());
            report.invalid(&format!("{at}.name"), message, "give each a name of its own");
        }
        if !report.is_left_out(&at) {
            listeners.push(read);
        }
    }
    (!listeners.is_empty()).then(|| {
        let (namespace, name) = (identity.namespace.clone(), identity.name.clone());
        Resource::Gateway(model::GatewaySpec { namespace, name, listeners })
    })
}

fn read_listener(report: &mut Report<'_>, at: &str, listener: &Listener) -> Option<ListenerSpec> {
    let fix = "write a name such as \"http\"";
    let name = report.parse(&format!("{at}.name"), &listener.name, ObjectName::parse, fix);
    let port = report.port(&format!("{at}.port"), listener.port);
    let protocol = protocol(report, at, &listener.protocol)?;
    let field = format!("{at}.hostname");
    // An empty host name is the same as none (Gateway API).
    let hostname = match listener.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        Some(hostname) => {
            let fix = "write a name such as \"shop.example\" or \"*.shop.example\"";
            Some(report.parse(&field, hostname, Hostname::parse, fix)?)
        }
        None => None,
    };
    if hostname.is_some() && protocol == ListenerProtocol::Tcp {
        report.invalid(&field, "a TCP listener cannot tell host names apart", "remove it");
    }
    let allowed_namespaces = match &listener.allowed_routes {
        Some(allowed) => {
            check_route_kinds(report, at, &allowed.kinds, protocol);
            allowed_namespaces(report, at, allowed.namespaces.as_ref())?
        }
        None => AllowedNamespaces::Same,
    };
    Some(ListenerSpec { name: name?, hostname, port: port?, protocol, allowed_namespaces })
}

fn protocol(report: &mut Report<'_>, at: &str, protocol: &str) -> Option<ListenerProtocol> {
    let field = format!("{at}.protocol");
    match protocol {
        "HTTP" => Some(ListenerProtocol::Http),
        "TCP" => Some(ListenerProtocol::Tcp),
        "HTTPS" | "TLS" | "UDP" => {
            let message = format!("protocol {protocol} is not served");
            report.refuse(&field, message, "use HTTP or TCP");
            None
        }
        other => {
            let message = format!("{} is no protocol", quoted(other));
            report.invalid(&field, message, "use HTTP or TCP");
            None
        }
    }
}

fn allowed_namespaces(
    report: &mut Report<'_>,
    at: &str,
    namespaces: Option<&Namespaces>,
) -> Option<AllowedNamespaces> {
    let field = format!("{at}.allowedRoutes.namespaces.from");
    let from = namespaces.and_then(|namespaces| namespaces.from.as_deref());
    match from.unwrap_or("Same") {
        "Same" => Some(AllowedNamespaces::Same),
        "All" => Some(AllowedNamespaces::All),
        other @ ("Selector" | "None") => {
            let message = format!("{other} is not served");
            report.refuse(&field, message, "use Same or All");
            None
        }
        other => {
            let message = format!("{} names no namespaces", quoted(other));
            report.invalid(&field, message, "use Same or All");
            None
        }
    }
}

/// A listener serves one kind of route, so the list may only say the obvious.
fn check_route_kinds(
    report: &mut Report<'_>,
    at: &str,
    kinds: &[RouteKind],
    protocol: ListenerProtocol,
) {
    let served = match protocol {
        ListenerProtocol::Http => "HTTPRoute",
        ListenerProtocol::Tcp => "TCPRoute",
    };
    let ours = |entry: &RouteKind| {
        entry.kind == served && entry.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP
    };
    if !kinds.is_empty() && !kinds.iter().any(ours) {
        let protocol = protocol.as_str();
        let message = format!("a listener for {protocol} serves no other kind than {served}");
        let fix = format!("list {served}, or remove the list");
        report.refuse(&format!("{at}.allowedRoutes.kinds"), message, &fix);
    }
    for (index, entry) in kinds.iter().enumerate().filter(|(_, entry)| !ours(entry)) {
        let field = format!("{at}.allowedRoutes.kinds[{index}].kind");
        let message = format!("{} is not served here", quoted(&entry.kind));
        report.warn(&field, message, "remove it, or live without it");
    }
}
