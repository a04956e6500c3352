//! A stable text (YAML) of resources, snapshots and diagnostics, for people to review.

use std::fmt::Write;

use model::snapshot::{Destination, ListenerRouting, Snapshot};
use model::{AllowEntry, ClusterPeer, Diagnostic, EndpointTable, Resource, ServicePort};

pub(crate) fn resources(resources: &[Resource]) -> String {
    let mut out = Section::new("resources");
    for resource in resources {
        out.item(1, &resource.key().to_string(), &facts(resource));
    }
    out.text()
}

pub(crate) fn diagnostics(diagnostics: &[Diagnostic]) -> String {
    let mut out = Section::new("diagnostics");
    diagnostics.iter().for_each(|diagnostic| out.entry(1, &diagnostic.to_string()));
    out.text()
}

pub(crate) fn snapshot(snapshot: &Snapshot, endpoints: &EndpointTable) -> String {
    let mut listeners = Section::new("listeners");
    for (port, listener) in &snapshot.listeners {
        let mut lines = vec![format!("{} {}", listener.protocol().as_str(), listener.name)];
        match &listener.routing {
            ListenerRouting::Http(table) => {
                for (host, entries) in table.entries() {
                    lines.extend(entries.iter().map(|entry| {
                        let (route, rule) = (&entry.route, entry.rule);
                        let backend = destination(&entry.destination);
                        format!("{host}{} by {route} rule {rule} to {backend}", entry.prefix)
                    }));
                }
            }
            ListenerRouting::Tcp(None) => lines.push("no route".into()),
            ListenerRouting::Tcp(Some(target)) => {
                lines.push(format!("by {} to {}", target.route, destination(&target.destination)));
            }
        }
        listeners.item(1, &port.to_string(), &lines);
    }
    let mut peers = Section::new("peers");
    for (name, peer) in &snapshot.peers {
        peers.item(1, name.as_str(), &peer_facts(peer));
    }
    let mut owners = Section::new("trustDomainOwners");
    for (domain, cluster) in &snapshot.trust_domain_owners {
        owners.entry(1, &format!("{domain} is {cluster}'s"));
    }
    let mut exports: Vec<_> = snapshot.exports.iter().collect();
    exports.sort_by_key(|(name, _)| (*name).clone());
    let mut exported = Section::new("exports");
    for (name, export) in exports {
        let ports = export.ports.iter().map(|(port, speaks)| format!("{port} {}", speaks.as_str()));
        let mut lines: Vec<String> = ports.collect();
        lines.push(format!("targeted {}", export.targeted));
        lines.extend(export.allow.iter().map(allow));
        exported.item(1, &name.to_string(), &lines);
    }
    let mut targets: Vec<_> = snapshot.backends.iter().collect();
    targets.sort_by_key(|(target, _)| (*target).clone());
    let mut backends = Section::new("backends");
    for (target, found) in targets {
        backends.entry(1, &format!("{} {}", target.kind.as_str(), backend(found)));
    }
    let mut table = Section::new("endpoints");
    for ((service, port), rows) in endpoints {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| format!("{}{}", row.address, if row.ready { "" } else { " not ready" }))
            .collect();
        table.entry(1, &format!("{service} {port}: {}", rows.join(", ")));
    }
    [listeners, peers, owners, exported, backends, table].map(Section::text).concat()
}

fn destination(to: &Destination) -> String {
    let (service, port) = to.service();
    to.backend().map_or_else(|| format!("{service}:{port}, unresolved"), |found| backend(found))
}

fn backend(backend: &model::snapshot::Backend) -> String {
    let clusters: Vec<_> = backend.clusters.iter().map(ToString::to_string).collect();
    let local = if backend.local { " local" } else { "" };
    let clusters = match clusters.is_empty() {
        true => String::new(),
        false => format!(" clusters {}", clusters.join(" ")),
    };
    let (service, port) = (&backend.service, backend.port);
    format!("{service} {port} {}{local}{clusters}", backend.protocol.as_str())
}

fn facts(resource: &Resource) -> Vec<String> {
    match resource {
        Resource::ClusterPeer(peer) => peer_facts(peer),
        Resource::Service(service) => service.ports.iter().map(port).collect(),
        Resource::ServiceExport(export) => export.ports.iter().map(port).collect(),
        Resource::ServiceImport(import) => {
            let clusters = import.clusters.iter().map(|name| format!("cluster {name}"));
            import.ports.iter().map(port).chain(clusters).collect()
        }
        Resource::EndpointSlice(slice) => {
            let mut lines = vec![format!("of Service {}", slice.service)];
            let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "(unnamed)".into());
            lines.extend(slice.ports.iter().map(|p| format!("port {} {}", name(&p.name), p.port)));
            lines.extend(slice.endpoints.iter().map(|endpoint| {
                let (ready, terminating) = (endpoint.ready, endpoint.terminating);
                format!("{:?} ready {ready} terminating {terminating}", endpoint.addresses)
            }));
            lines
        }
        Resource::Gateway(gateway) => {
            let line = |listener: &model::ListenerSpec| {
                let host =
                    listener.hostname.as_ref().map_or_else(|| "*".into(), ToString::to_string);
                let (protocol, from) = (listener.protocol, listener.allowed_namespaces);
                format!(
                    "{} {} {} host {host} routes from {}",
                    listener.name,
                    protocol.as_str(),
                    listener.port,
                    from.as_str()
                )
            };
            gateway.listeners.iter().map(line).collect()
        }
        Resource::HttpRoute(route) => {
            let mut lines: Vec<_> = route.parents.iter().map(parent).collect();
            lines.extend(route.hostnames.iter().map(|host| format!("host {host}")));
            lines.extend(route.rules.iter().map(|rule| {
                let prefixes: Vec<_> = rule.prefixes.iter().map(|p| p.0.as_str()).collect();
                format!("[{}] to {}", prefixes.join(" "), target(&rule.backend))
            }));
            lines
        }
        Resource::TcpRoute(route) => {
            let parents = route.parents.iter().map(parent);
            parents.chain([format!("to {}", target(&route.backend))]).collect()
        }
        Resource::AccessPolicy(policy) => {
            let targets = policy.targets.iter().map(|name| format!("target {name}"));
            targets.chain(policy.allow.iter().map(allow)).collect()
        }
        Resource::ReferenceGrant(grant) => {
            let from = grant
                .from
                .iter()
                .map(|source| format!("from {} in {}", source.kind.as_str(), source.namespace));
            let to = grant.to.iter().map(|target| match &target.name {
                Some(name) => format!("to {} {name}", target.kind.as_str()),
                None => format!("to every {}", target.kind.as_str()),
            });
            from.chain(to).collect()
        }
        Resource::NamespaceGrant(grant) => {
            let namespaces = grant.namespaces.iter().map(|entry| match entry {
                model::NamespaceMatch::Name(name) => format!("namespace {name}"),
                model::NamespaceMatch::Prefix(prefix) => format!("namespaces {prefix}*"),
            });
            let clusters = grant.clusters.iter().map(|name| format!("cluster {name}"));
            namespaces.chain(clusters).collect()
        }
    }
}

fn port(port: &ServicePort) -> String {
    let name = port.name.as_deref().unwrap_or("(unnamed)");
    format!("port {name} {} speaks {}", port.port, port.protocol.as_str())
}

fn parent(parent: &model::ParentTarget) -> String {
    let mut line = format!("parent {}/{}", parent.namespace, parent.name);
    if let Some(section) = &parent.section_name {
        write!(line, " section {section}").unwrap();
    }
    if let Some(port) = parent.port {
        write!(line, " port {port}").unwrap();
    }
    line
}

fn target(target: &model::BackendTarget) -> String {
    format!("{} {} {}", target.kind.as_str(), target.service, target.port)
}

fn allow(entry: &AllowEntry) -> String {
    let AllowEntry { cluster, trust_domain, spiffe_id } = entry;
    let parts = [
        cluster.as_ref().map(|name| format!(" cluster {name}")),
        trust_domain.as_ref().map(|name| format!(" trust domain {name}")),
        spiffe_id.as_ref().map(|id| format!(" {id}")),
    ];
    format!("allow{}", parts.into_iter().flatten().collect::<String>())
}

fn peer_facts(peer: &ClusterPeer) -> Vec<String> {
    let addresses = peer
        .addresses
        .iter()
        .map(|address| format!("{} {} {}", address.transport.as_str(), address.host, address.port));
    let bundles = peer.trust_bundles.iter().map(|bundle| {
        let (count, sequence) = (bundle.x509_authorities.len(), bundle.sequence);
        format!("{}: {count} authorities, sequence {sequence}", bundle.trust_domain)
    });
    addresses.chain(bundles).collect()
}

/// One top-level key of the YAML; `[]` or `{}` where there is nothing.
struct Section {
    head: String,
    body: String,
}

impl Section {
    fn new(name: &str) -> Self {
        Self { head: name.to_string(), body: String::new() }
    }

    fn item(&mut self, indent: usize, key: &str, lines: &[String]) {
        let empty = if lines.is_empty() { " []" } else { "" };
        writeln!(self.body, "{}{key}:{empty}", "  ".repeat(indent)).unwrap();
        lines.iter().for_each(|line| self.entry(indent + 1, line));
    }

    fn entry(&mut self, indent: usize, line: &str) {
        let line = line.replace('\'', "''");
        writeln!(self.body, "{}- '{line}'", "  ".repeat(indent)).unwrap();
    }

    fn text(self) -> String {
        match self.body.is_empty() {
            true => format!("{}: []\n", self.head),
            false => format!("{}:\n{}", self.head, self.body),
        }
    }
}
