//! The demo's manifests: ordinary Kubernetes YAML, written into each cluster's folder, where anyone
//! can look at them and change them while the demo runs.

use std::fmt::Write;
use std::net::SocketAddr;

/// The port that the clusters' gateways serve HTTP on.
pub const HTTP_PORT: u16 = 8080;
/// The port that a service's TCP listener has, in every cluster that routes to it.
pub fn tcp_port(service: &str) -> u16 {
    match service {
        "web" => 7000,
        "api" => 7001,
        _ => 7002,
    }
}

/// What a host name looks like from inside the clusterset (KEP-1645).
pub fn clusterset_host(service: &str) -> String {
    format!("{service}.shop.svc.clusterset.local")
}

/// The name that the outside world knows `web` by.
pub const PUBLIC_HOST: &str = "web.demo.example";

/// A Service with its one endpoint; both protocols of the application behind it.
pub fn service(name: &str, http: SocketAddr, tcp: SocketAddr) -> String {
    let (http_port, tcp_port_target, address) = (http.port(), tcp.port(), http.ip());
    let tcp_port = tcp_port(name);
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  ports:
  - {{name: http, port: 80, appProtocol: http}}
  - {{name: tcp, port: {tcp_port}, appProtocol: tcp}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: shop
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports:
- {{name: http, port: {http_port}}}
- {{name: tcp, port: {tcp_port_target}}}
endpoints:
- addresses: [{address}]
  conditions: {{ready: true}}
"
    )
}

/// A ServiceExport, and the policy that says who may come.
pub fn export(name: &str, allowed: &[&str]) -> String {
    let mut text = format!(
        "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {{name: {name}, namespace: shop}}
---
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {{name: {name}-callers, namespace: shop}}
spec:
  targetRefs:
  - {{group: multicluster.x-k8s.io, kind: ServiceExport, name: {name}}}
  allow:
"
    );
    for cluster in allowed {
        writeln!(text, "  - {{cluster: {cluster}}}").expect("writing to a String cannot fail");
    }
    text
}

/// Which clusters may export in the demo's namespace.
pub fn grant(clusters: &[&str]) -> String {
    let clusters = clusters.join(", ");
    format!(
        "\
apiVersion: fedgate.dev/v1alpha1
kind: NamespaceGrant
metadata: {{name: shop}}
spec:
  namespaces:
  - {{name: shop}}
  clusters: [{clusters}]
"
    )
}

/// A ServiceImport of a service that the named clusters export.
pub fn import(name: &str, exporters: &[&str]) -> String {
    let mut text = format!(
        "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {{name: {name}, namespace: shop}}
spec:
  type: ClusterSetIP
  ports:
  - {{name: http, port: 80, appProtocol: http}}
  - {{name: tcp, port: {}, appProtocol: tcp}}
status:
  clusters:
",
        tcp_port(name)
    );
    for cluster in exporters {
        writeln!(text, "  - {{cluster: {cluster}}}").expect("writing to a String cannot fail");
    }
    text
}

/// The cluster's Gateway: one HTTP listener, and a TCP listener for each service.
pub fn gateway(tcp_services: &[&str]) -> String {
    let mut text = format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: fedgate, namespace: shop}}
spec:
  gatewayClassName: fedgate
  listeners:
  - {{name: http, port: {HTTP_PORT}, protocol: HTTP}}
"
    );
    for service in tcp_services {
        let port = tcp_port(service);
        writeln!(text, "  - {{name: {service}-tcp, port: {port}, protocol: TCP}}")
            .expect("writing to a String cannot fail");
    }
    text
}

/// The routes to a Service or ServiceImport: by host name for HTTP, by listener for TCP.
pub fn routes(name: &str, kind: BackendRefKind, host: &str) -> String {
    let backend = match kind {
        BackendRefKind::Service => format!("{{name: {name}, port: "),
        BackendRefKind::ServiceImport => {
            format!("{{group: multicluster.x-k8s.io, kind: ServiceImport, name: {name}, port: ")
        }
    };
    let tcp_port = tcp_port(name);
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{name: fedgate, sectionName: http}}]
  hostnames: [{host}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /}}}}]
    backendRefs: [{backend}80}}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{name: fedgate, sectionName: {name}-tcp}}]
  rules:
  - backendRefs: [{backend}{tcp_port}}}]
"
    )
}

/// What a route leads to.
#[derive(Debug, Clone, Copy)]
pub enum BackendRefKind {
    Service,
    ServiceImport,
}
