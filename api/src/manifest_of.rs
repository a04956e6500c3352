//! From resources back to manifests: what an object that came another way looks like as YAML.

use model::{
    AllowEntry, AllowedNamespaces, BackendTarget, ListenerSpec, NamespaceMatch, ParentTarget,
    Resource, ResourceKey, ServicePort, SliceEndpoint,
};
use wire::WireError;

use crate::document_text::Document;
use crate::kinds::{self, GATEWAY_GROUP, MCS_GROUP};
use crate::tree::{Node, Value};
use crate::{GATEWAY_CLASS, emit};

/// The manifest that [`crate::parse_manifest`] reads this resource from.
pub fn manifest_of(resource: &Resource) -> Result<Document, WireError> {
    if let Resource::ClusterPeer(peer) = resource {
        let text = emit::cluster_peer_manifest(peer)?;
        let mut documents = Document::parse_all(&text).expect("what we write is YAML");
        return Ok(documents.remove(0));
    }
    let labels = match resource {
        Resource::EndpointSlice(x) => vec![("kubernetes.io/service-name", text(&x.service))],
        _ => vec![],
    };
    Ok(document(&resource.key(), labels, fields(resource)))
}

/// What stands beside the metadata.
fn fields(resource: &Resource) -> Vec<(&'static str, Node)> {
    match resource {
        Resource::ClusterPeer(_) | Resource::ServiceExport(_) => vec![],
        Resource::Service(x) => vec![("spec", map([("ports", ports(&x.ports))]))],
        Resource::EndpointSlice(x) => {
            let v6 = x.endpoints.iter().flat_map(|e| &e.addresses).any(|a| a.is_ipv6());
            let port = |port: &model::SlicePort| {
                let mut fields = vec![("port", number(port.port))];
                fields.extend(port.name.as_ref().map(|name| ("name", text(name))));
                map(fields)
            };
            vec![
                ("addressType", text(if v6 { "IPv6" } else { "IPv4" })),
                ("endpoints", list(x.endpoints.iter().map(endpoint))),
                ("ports", list(x.ports.iter().map(port))),
            ]
        }
        Resource::ServiceImport(x) => {
            let spec = [("type", text("ClusterSetIP")), ("ports", ports(&x.ports))];
            let clusters = x.clusters.iter().map(|cluster| map([("cluster", text(cluster))]));
            vec![("spec", map(spec)), ("status", map([("clusters", list(clusters))]))]
        }
        Resource::Gateway(x) => {
            let listeners = list(x.listeners.iter().map(listener));
            let class = text(GATEWAY_CLASS);
            vec![("spec", map([("gatewayClassName", class), ("listeners", listeners)]))]
        }
        Resource::HttpRoute(x) => vec![("spec", http_route(x))],
        Resource::TcpRoute(x) => {
            let rule = map([("backendRefs", list([backend(&x.backend)]))]);
            let parents = list(x.parents.iter().map(parent));
            vec![("spec", map([("parentRefs", parents), ("rules", list([rule]))]))]
        }
        Resource::AccessPolicy(x) => {
            let target = |name: &model::ObjectName| {
                let group = text(MCS_GROUP);
                map([("group", group), ("kind", text("ServiceExport")), ("name", text(name))])
            };
            let allow = list(x.allow.iter().map(allow_entry));
            let targets = list(x.targets.iter().map(target));
            vec![("spec", map([("targetRefs", targets), ("allow", allow)]))]
        }
        Resource::ReferenceGrant(x) => {
            let source = |source: &model::ReferenceSource| {
                let kind = text(source.kind.as_str());
                let namespace = text(&source.namespace);
                map([("group", text(GATEWAY_GROUP)), ("kind", kind), ("namespace", namespace)])
            };
            let target = |target: &model::ReferenceTarget| {
                let group = text(backend_group(target.kind));
                let mut fields = vec![("group", group), ("kind", text(target.kind.as_str()))];
                fields.extend(target.name.as_ref().map(|name| ("name", text(name))));
                map(fields)
            };
            let (from, to) = (list(x.from.iter().map(source)), list(x.to.iter().map(target)));
            vec![("spec", map([("from", from), ("to", to)]))]
        }
        Resource::NamespaceGrant(x) => {
            let entry = |entry: &NamespaceMatch| match entry {
                NamespaceMatch::Name(name) => map([("name", text(name))]),
                NamespaceMatch::Prefix(prefix) => map([("prefix", text(prefix))]),
            };
            let namespaces = list(x.namespaces.iter().map(entry));
            let clusters = list(x.clusters.iter().map(text));
            vec![("spec", map([("namespaces", namespaces), ("clusters", clusters)]))]
        }
    }
}

fn http_route(route: &model::HttpRoute) -> Node {
    let rule = |rule: &model::HttpRule| {
        let prefix = |prefix: &model::HttpPathPrefix| {
            let path = [("type", text("PathPrefix")), ("value", text(&prefix.0))];
            map([("path", map(path))])
        };
        let backends = list([backend(&rule.backend)]);
        let matches = list(rule.prefixes.iter().map(prefix));
        map([("matches", matches), ("backendRefs", backends)])
    };
    let mut spec = vec![("parentRefs", list(route.parents.iter().map(parent)))];
    if !route.hostnames.is_empty() {
        spec.push(("hostnames", list(route.hostnames.iter().map(text))));
    }
    spec.push(("rules", list(route.rules.iter().map(rule))));
    map(spec)
}

fn document(key: &ResourceKey, labels: Vec<(&str, Node)>, fields: Vec<(&str, Node)>) -> Document {
    let kind = kinds::ALL.iter().find(|kind| kind.kind == key.kind.as_str());
    let kind = kind.expect("the model's kinds are those that are read; a test holds the two equal");
    let mut metadata = vec![("name", text(&key.name))];
    metadata.extend(key.namespace.as_ref().map(|namespace| ("namespace", text(namespace))));
    if !labels.is_empty() {
        metadata.push(("labels", map(labels)));
    }
    let mut all = vec![
        ("apiVersion", text(kind.api_versions[0])),
        ("kind", text(kind.kind)),
        ("metadata", map(metadata)),
    ];
    all.extend(fields);
    Document(map(all))
}

fn ports(ports: &[ServicePort]) -> Node {
    list(ports.iter().map(|port| {
        let mut fields = vec![("port", number(port.port)), ("protocol", text("TCP"))];
        fields.extend(port.name.as_ref().map(|name| ("name", text(name))));
        let protocol = match port.protocol {
            model::AppProtocol::Http => "http",
            model::AppProtocol::H2c => "kubernetes.io/h2c",
            model::AppProtocol::Tcp => "tcp",
        };
        fields.push(("appProtocol", text(protocol)));
        map(fields)
    }))
}

fn endpoint(endpoint: &SliceEndpoint) -> Node {
    let conditions = [
        ("ready", Value::Bool(endpoint.ready).into()),
        ("terminating", Value::Bool(endpoint.terminating).into()),
    ];
    let addresses = list(endpoint.addresses.iter().map(text));
    map([("addresses", addresses), ("conditions", map(conditions))])
}

fn listener(listener: &ListenerSpec) -> Node {
    let mut fields = vec![
        ("name", text(&listener.name)),
        ("port", number(listener.port)),
        ("protocol", text(listener.protocol.as_str())),
    ];
    fields.extend(listener.hostname.as_ref().map(|hostname| ("hostname", text(hostname))));
    if listener.allowed_namespaces != AllowedNamespaces::default() {
        let from = map([("from", text(listener.allowed_namespaces.as_str()))]);
        fields.push(("allowedRoutes", map([("namespaces", from)])));
    }
    map(fields)
}

fn parent(parent: &ParentTarget) -> Node {
    let mut fields = vec![
        ("group", text(GATEWAY_GROUP)),
        ("kind", text("Gateway")),
        ("name", text(&parent.name)),
        ("namespace", text(&parent.namespace)),
    ];
    fields.extend(parent.section_name.as_ref().map(|name| ("sectionName", text(name))));
    fields.extend(parent.port.map(|port| ("port", number(port))));
    map(fields)
}

fn backend(backend: &BackendTarget) -> Node {
    map([
        ("group", text(backend_group(backend.kind))),
        ("kind", text(backend.kind.as_str())),
        ("name", text(&backend.service.name)),
        ("namespace", text(&backend.service.namespace)),
        ("port", number(backend.port)),
    ])
}

fn backend_group(kind: model::BackendKind) -> &'static str {
    match kind {
        model::BackendKind::Service => "",
        model::BackendKind::ServiceImport => MCS_GROUP,
    }
}

fn allow_entry(entry: &AllowEntry) -> Node {
    let cluster = entry.cluster.as_ref().map(|cluster| ("cluster", text(cluster)));
    let domain = entry.trust_domain.as_ref().map(|domain| ("trustDomain", text(domain)));
    let id = entry.spiffe_id.as_ref().map(|id| ("spiffeId", text(id)));
    map([cluster, domain, id].into_iter().flatten())
}

fn text(value: impl ToString) -> Node {
    Value::Text(value.to_string()).into()
}

fn number(value: u16) -> Node {
    Value::Integer(value.into()).into()
}

fn list(items: impl IntoIterator<Item = Node>) -> Node {
    Value::List(items.into_iter().collect()).into()
}

fn map<'a>(fields: impl IntoIterator<Item = (&'a str, Node)>) -> Node {
    Value::Map(fields.into_iter().map(|(key, node)| (key.to_string(), node)).collect()).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::parse_manifest;

    /// Every object that any golden test of the file provider serves.
    #[test]
    fn every_resource_reads_back_from_its_manifest() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../discovery/testdata/translate");
        let mut kinds = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.to_string_lossy().ends_with(".in.yaml") {
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let Ok(manifest) = parse_manifest("f", &source) else { continue };
            for object in manifest.objects {
                let text = manifest_of(&object.resource).unwrap().to_yaml();
                let again = parse_manifest("again", &text).unwrap();
                assert_eq!(again.diagnostics, [], "{text}");
                assert_eq!(again.objects[0].resource, object.resource, "{text}");
                kinds.insert(object.resource.key().kind);
            }
        }
        let all: BTreeSet<_> = model::ResourceKind::ALL.into();
        assert_eq!(kinds, all, "a kind has no golden object");
    }
}
