//! Manifests. Every HTTP service has port 80 and every TCP service port 9000; all are in `shop`.

use std::net::SocketAddr;

use super::{HTTP, TCP};

fn port(protocol: &str) -> u16 {
    if protocol == "tcp" { TCP } else { 80 }
}

pub(crate) fn service(name: &str, protocol: &str) -> String {
    let port = port(protocol);
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  ports:
  - {{name: main, port: {port}, appProtocol: {protocol}}}
"
    )
}

/// The one endpoint of a service.
pub(crate) fn slice(name: &str, endpoint: SocketAddr) -> String {
    slice_of(name, &[endpoint])
}

/// The endpoints of a service; all have one port.
pub(crate) fn slice_of(name: &str, endpoints: &[SocketAddr]) -> String {
    let port = endpoints.first().map_or(1, SocketAddr::port);
    let entry = |endpoint: &SocketAddr| {
        format!("- {{addresses: [{}], conditions: {{ready: true}}}}\n", endpoint.ip())
    };
    let entries: String = endpoints.iter().map(entry).collect();
    let entries = if entries.is_empty() { "[]\n".into() } else { format!("\n{entries}") };
    format!(
        "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: shop
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports:
- {{name: main, port: {port}}}
endpoints: {entries}"
    )
}

pub(crate) fn export(name: &str) -> String {
    format!(
        "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {{name: {name}, namespace: shop}}
"
    )
}

/// `allow` is the list's YAML: `[{cluster: east}]`.
pub(crate) fn policy(name: &str, allow: &str) -> String {
    format!(
        "\
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {{name: {name}-callers, namespace: shop}}
spec:
  targetRefs:
  - {{group: multicluster.x-k8s.io, kind: ServiceExport, name: {name}}}
  allow: {allow}
"
    )
}

pub(crate) fn import(name: &str, protocol: &str, exporters: &[&str]) -> String {
    let port = port(protocol);
    let clusters: Vec<_> = exporters.iter().map(|name| format!("{{cluster: {name}}}")).collect();
    format!(
        "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {{name: {name}, namespace: shop}}
spec:
  type: ClusterSetIP
  ports:
  - {{name: main, port: {port}, appProtocol: {protocol}}}
status:
  clusters: [{}]
",
        clusters.join(", ")
    )
}

pub(crate) fn gateway(http: &[u16], tcp: &[u16]) -> String {
    let mut text = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: fedgate, namespace: shop}
spec:
  gatewayClassName: fedgate
  listeners:
"
    .to_string();
    for (ports, protocol) in [(http, "HTTP"), (tcp, "TCP")] {
        for port in ports {
            let name = protocol.to_lowercase();
            text += &format!("  - {{name: {name}-{port}, port: {port}, protocol: {protocol}}}\n");
        }
    }
    text
}

fn backend(service: &str, kind: &str, port: u16) -> String {
    match kind {
        "Service" => format!("{{name: {service}, port: {port}}}"),
        kind => {
            format!("{{group: multicluster.x-k8s.io, kind: {kind}, name: {service}, port: {port}}}")
        }
    }
}

/// `kind` is `Service` or `ServiceImport`.
pub(crate) fn http_route(service: &str, host: &str, kind: &str) -> String {
    http_route_at(service, HTTP, host, kind)
}

pub(crate) fn http_route_at(service: &str, listener: u16, host: &str, kind: &str) -> String {
    let backend = backend(service, kind, 80);
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {service}-{listener}, namespace: shop}}
spec:
  parentRefs: [{{name: fedgate, sectionName: http-{listener}}}]
  hostnames: [{host}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /}}}}]
    backendRefs: [{backend}]
"
    )
}

pub(crate) fn tcp_route(service: &str, kind: &str) -> String {
    let backend = backend(service, kind, TCP);
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {{name: {service}, namespace: shop}}
spec:
  parentRefs: [{{name: fedgate, sectionName: tcp-{TCP}}}]
  rules:
  - backendRefs: [{backend}]
"
    )
}
