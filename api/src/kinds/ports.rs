//! Ports of a Service or a ServiceImport, and what is spoken on them.

use std::collections::BTreeSet;

use model::{AppProtocol, ServicePort};
use serde::Deserialize;

use crate::limits;
use crate::report::{Report, quoted};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Port {
    pub(crate) name: Option<String>,
    pub(crate) port: i64,
    pub(crate) protocol: Option<String>,
    pub(crate) app_protocol: Option<String>,
}

/// Reads `spec.ports`. Ports that are not served are left out with a diagnostic; without any left
/// the object is invalid.
pub(crate) fn read(report: &mut Report<'_>, ports: &[Port]) -> Vec<ServicePort> {
    let field = "spec.ports";
    if !report.bounded(field, ports.len(), limits::PORTS_MAX) {
        return Vec::new();
    }
    let mut served: Vec<ServicePort> = Vec::new();
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let at = format!("{field}[{index}]");
        let name = read_name(report, &at, port.name.as_deref(), ports.len() > 1);
        if !name.as_ref().is_none_or(|name| names.insert(name.clone())) {
            let message = format!("two ports are named {}", quoted(name.as_deref().unwrap_or("")));
            report.invalid(&format!("{at}.name"), message, "give each port a name of its own");
        }
        let tcp = is_tcp(report, &at, port.protocol.as_deref());
        let number = report.port(&format!("{at}.port"), port.port);
        let (true, Some(number)) = (tcp, number) else { continue };
        if !numbers.insert(number) {
            let message = format!("two TCP ports have the number {number}");
            report.invalid(&format!("{at}.port"), message, "give each port a number of its own");
        }
        let protocol = app_protocol(report, &at, port.app_protocol.as_deref(), name.as_deref());
        if let Some(protocol) = protocol
            && !report.is_left_out(&at)
        {
            served.push(ServicePort { name, port: number, protocol });
        }
    }
    if served.is_empty() && !report.failed() {
        report.invalid(field, "there is no port that is served", "add a TCP port");
    }
    served
}

/// The name of a port; empty is the same as none (Kubernetes writes both).
pub(crate) fn read_name(
    report: &mut Report<'_>,
    at: &str,
    name: Option<&str>,
    needed: bool,
) -> Option<String> {
    let field = format!("{at}.name");
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        if needed {
            let message = "a port without a name must be the only one";
            report.invalid(&field, message, "name each port");
        }
        return None;
    };
    // A port's name is an RFC 1123 label, as a namespace's is.
    if model::Namespace::parse(name).is_err() {
        let message = format!("port name {} is not valid", quoted(name));
        let fix = "use lower-case letters, digits and '-', 63 at most";
        report.invalid(&field, message, fix);
    }
    Some(name.to_string())
}

/// Whether the transport protocol is served; UDP and SCTP ports are left out with a warning.
pub(crate) fn is_tcp(report: &mut Report<'_>, at: &str, protocol: Option<&str>) -> bool {
    let field = format!("{at}.protocol");
    match protocol.unwrap_or("TCP") {
        "TCP" => true,
        other @ ("UDP" | "SCTP") => {
            let message = format!("protocol {other} is not served: the port is left out");
            report.warn(&field, message, "use TCP, or live without the port");
            false
        }
        other => {
            let message = format!("{} is no protocol", quoted(other));
            report.invalid(&field, message, "use TCP");
            false
        }
    }
}

/// `appProtocol` (KEP-3726), else the port name's prefix as Istio reads it, else opaque TCP.
fn app_protocol(
    report: &mut Report<'_>,
    at: &str,
    app_protocol: Option<&str>,
    name: Option<&str>,
) -> Option<AppProtocol> {
    let field = format!("{at}.appProtocol");
    match app_protocol {
        None => Some(from_name(name.unwrap_or_default())),
        Some("http") => Some(AppProtocol::Http),
        Some("kubernetes.io/h2c" | "grpc" | "http2") => Some(AppProtocol::H2c),
        Some("tcp") => Some(AppProtocol::Tcp),
        Some(tls @ ("https" | "kubernetes.io/ws" | "kubernetes.io/wss" | "tls")) => {
            let message = format!("appProtocol {} is not served", quoted(tls));
            report.refuse(&field, message, "use http, kubernetes.io/h2c, grpc or tcp");
            None
        }
        Some(other) => {
            let message = format!("appProtocol {} is carried as opaque TCP", quoted(other));
            report.warn(&field, message, "nothing, or use http, kubernetes.io/h2c, grpc or tcp");
            Some(AppProtocol::Tcp)
        }
    }
}

fn from_name(name: &str) -> AppProtocol {
    match name.split('-').next().unwrap_or_default() {
        "http" => AppProtocol::Http,
        "http2" | "grpc" => AppProtocol::H2c,
        _ => AppProtocol::Tcp,
    }
}
