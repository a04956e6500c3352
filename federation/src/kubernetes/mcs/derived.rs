//! What the gateways are told for imports: a listener on each port of the pool that is in use, and
//! a route from it to the ServiceImport.

use std::collections::{BTreeMap, BTreeSet};

use model::code::{LISTENER_CONFLICT, OBJECT_INVALID};
use model::{
    AllowedNamespaces, BackendKind, BackendTarget, Diagnostic, GatewaySpec, HttpRoute, HttpRule,
    ListenerProtocol, ListenerSpec, Namespace, ParentTarget, ReferenceGrant, ReferenceSource,
    ReferenceTarget, Resource, ResourceKey, ResourceSet, RouteKind, ServiceImport, ServiceName,
    ServicePort, Severity, TcpRoute,
};

use super::names;
use super::pool::{Pool, PoolPorts};

/// Which derived Service has which ports, as this node's gateways were told last.
#[derive(Debug, Default)]
pub(super) struct Listening(BTreeMap<ServiceName, PoolPorts>);

impl Listening {
    /// Takes up what stands on the derived Services. Whoever may edit Services in one namespace could
    /// write a port there that stands for an import in another: who has a port keeps it as long as
    /// it is written on his Service, and nobody has one outside of the pool.
    pub(super) fn settle(
        &mut self,
        recorded: BTreeMap<ServiceName, PoolPorts>,
        pool: Pool,
    ) -> &BTreeMap<ServiceName, PoolPorts> {
        let mut owners = BTreeMap::<u16, ServiceName>::new();
        let claims = |all: &BTreeMap<ServiceName, PoolPorts>| {
            let claims = all.iter().flat_map(|(service, ports)| {
                ports.values().map(move |pool_port| (*pool_port, service.clone()))
            });
            claims.collect::<Vec<_>>()
        };
        let is_recorded = |(pool_port, service): &(u16, ServiceName)| {
            recorded.get(service).is_some_and(|ports| ports.values().any(|it| it == pool_port))
        };
        let before = claims(&self.0).into_iter().filter(is_recorded);
        for (pool_port, service) in before.chain(claims(&recorded)) {
            owners.entry(pool_port).or_insert(service);
        }
        let mut settled = recorded;
        for (service, ports) in &mut settled {
            ports.retain(|_, pool_port| {
                pool.contains(*pool_port) && owners.get(pool_port) == Some(service)
            });
        }
        self.0 = settled;
        &self.0
    }
}

/// The Gateway and the routes of every import that has ports of the pool. `recorded`: by derived
/// Service, as it stands on them, so that every node of the cluster, whichever of them writes, tells
/// its gateways the same.
pub(super) fn resources<'a>(
    imports: impl IntoIterator<Item = &'a ServiceImport>,
    recorded: &BTreeMap<ServiceName, PoolPorts>,
) -> Vec<Resource> {
    let mut resources = Vec::new();
    let mut namespaces = BTreeSet::new();
    for import in imports {
        let Some(pool_ports) = recorded.get(&names::derived(&import.name)) else { continue };
        let placed: Vec<(&ServicePort, u16)> = import
            .ports
            .iter()
            .filter_map(|port| Some((port, *pool_ports.get(&port.port)?)))
            .collect();
        if placed.is_empty() {
            continue;
        }
        resources.push(gateway(import, &placed));
        resources.extend(placed.iter().map(|(port, _)| route(import, port)));
        namespaces.insert(&import.name.namespace);
    }
    resources.extend(namespaces.into_iter().map(grant));
    resources
}

/// Lets the routes into the namespaces of their imports (GEP-709).
fn grant(namespace: &Namespace) -> Resource {
    let from = [RouteKind::Http, RouteKind::Tcp]
        .map(|kind| ReferenceSource { kind, namespace: names::imports_namespace() });
    Resource::ReferenceGrant(ReferenceGrant {
        namespace: namespace.clone(),
        name: names::grant(0),
        from: from.into(),
        to: vec![ReferenceTarget { kind: BackendKind::ServiceImport, name: None }],
    })
}

fn gateway(import: &ServiceImport, placed: &[(&ServicePort, u16)]) -> Resource {
    let listener = |(port, pool_port): &(&ServicePort, u16)| ListenerSpec {
        name: names::listener(port.port),
        hostname: None,
        port: *pool_port,
        protocol: if port.protocol.is_http() {
            ListenerProtocol::Http
        } else {
            ListenerProtocol::Tcp
        },
        allowed_namespaces: AllowedNamespaces::Same,
    };
    Resource::Gateway(GatewaySpec {
        namespace: names::imports_namespace(),
        name: names::gateway(&import.name),
        listeners: placed.iter().map(listener).collect(),
    })
}

/// An HTTP listener takes HTTP/1.1 and HTTP/2 with prior knowledge alike, so that gRPC and h2c need
/// nothing else.
fn route(import: &ServiceImport, port: &ServicePort) -> Resource {
    let namespace = names::imports_namespace();
    let name = names::route(&import.name, port.port);
    let parents = vec![ParentTarget {
        namespace: namespace.clone(),
        name: names::gateway(&import.name),
        section_name: Some(names::listener(port.port)),
        port: None,
    }];
    let backend = BackendTarget {
        kind: BackendKind::ServiceImport,
        service: import.name.clone(),
        port: port.port,
    };
    if !port.protocol.is_http() {
        return Resource::TcpRoute(TcpRoute { namespace, name, parents, backend });
    }
    let rules = vec![HttpRule { prefixes: vec![], backend }];
    Resource::HttpRoute(HttpRoute { namespace, name, parents, hostnames: vec![], rules })
}

/// What the node adds to users' and the federation's objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Derived {
    /// The node is in no Kubernetes cluster.
    #[default]
    Nothing,
    /// Not known yet. Without it gateways would close ports that pods use.
    Awaited,
    Imports {
        pool: Pool,
        resources: Vec<Resource>,
    },
}

impl Derived {
    /// Puts it into service, and says what had to go for it.
    pub(crate) fn add_to(&self, catalog: &mut ResourceSet) -> Vec<Diagnostic> {
        let Self::Imports { pool, resources } = self else { return Vec::new() };
        let refused = reserve(catalog, *pool);
        for resource in resources {
            let mut resource = resource.clone();
            if let Resource::ReferenceGrant(grant) = &mut resource {
                rename_beside(grant, catalog);
            }
            catalog.upsert(resource);
        }
        refused
    }
}

/// Gives a grant another name than a user's of its namespace: grants add up.
fn rename_beside(grant: &mut ReferenceGrant, catalog: &ResourceSet) {
    let is_taken = |grant: &ReferenceGrant| {
        catalog.get(&Resource::ReferenceGrant(grant.clone()).key()).is_some()
    };
    let mut number = 0;
    while is_taken(grant) {
        number += 1;
        grant.name = names::grant(number);
    }
}

/// Takes out of the catalog what would get between an import and its callers:
///
/// - whatever is in the namespace `fedgate-imports`. A Gateway there could have the name of one of
///   ours, and a route there could attach to ours, which takes routes of its own namespace;
/// - a listener on a port of the pool. Of two listeners on one port the first in the order of names
///   has it, and that could be the user's.
///
/// Kubernetes lets whoever may create namespaces have any name, so no name is out of reach: this
/// function is what keeps it.
fn reserve(catalog: &mut ResourceSet, pool: Pool) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let is_inside = |key: &ResourceKey| {
        key.namespace.as_ref().is_some_and(|it| it.as_str() == names::IMPORTS_NAMESPACE)
    };
    let inside = catalog.iter().map(|(key, _)| key).filter(|key| is_inside(key));
    for key in inside.cloned().collect::<Vec<_>>() {
        catalog.remove(&key);
        diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: OBJECT_INVALID,
            object: key.to_string(),
            field: "metadata.namespace".into(),
            message: format!("the namespace {} is kept for imports", names::IMPORTS_NAMESPACE),
            fix: "use another namespace".into(),
        });
    }
    let trespassing = catalog.values().filter_map(|resource| match resource {
        Resource::Gateway(gateway) if uses(gateway, pool) => Some(gateway.clone()),
        _ => None,
    });
    for gateway in trespassing.collect::<Vec<_>>() {
        let (gateway, found) = without_pool_ports(gateway, pool);
        catalog.upsert(Resource::Gateway(gateway));
        diagnostics.extend(found);
    }
    diagnostics
}

fn uses(gateway: &GatewaySpec, pool: Pool) -> bool {
    gateway.listeners.iter().any(|listener| pool.contains(listener.port))
}

fn without_pool_ports(mut gateway: GatewaySpec, pool: Pool) -> (GatewaySpec, Vec<Diagnostic>) {
    let object = Resource::Gateway(gateway.clone()).key().to_string();
    let listeners = gateway.listeners.iter().enumerate();
    let taken = listeners.filter(|(_, listener)| pool.contains(listener.port));
    let diagnostics = taken.map(|(index, listener)| Diagnostic {
        severity: Severity::Error,
        code: LISTENER_CONFLICT,
        object: object.clone(),
        field: format!("spec.listeners[{index}].port"),
        message: format!("port {} is one of {pool}, which are kept for imports", listener.port),
        fix: "choose another port, or move importPorts in the federation node's configuration"
            .into(),
    });
    let diagnostics = diagnostics.collect();
    gateway.listeners.retain(|listener| !pool.contains(listener.port));
    (gateway, diagnostics)
}

#[cfg(test)]
mod tests {
    use model::{ClusterName, ObjectName, Revision, compile};

    use super::*;

    const POOL: Pool = Pool { first: 20_000, count: 10 };

    fn service(text: &str) -> ServiceName {
        ServiceName::parse(text).unwrap()
    }

    fn recorded(rows: &[(&str, &str)]) -> BTreeMap<ServiceName, PoolPorts> {
        let rows = rows.iter();
        rows.map(|(name, text)| (service(name), super::super::pool::from_text(text))).collect()
    }

    /// A catalog of users' making with what is added to it, and what is refused.
    fn catalog(manifest: &str) -> (ResourceSet, Vec<String>) {
        let users = api::parse_manifest("users.yaml", manifest).unwrap();
        assert_eq!(users.diagnostics, []);
        let mut catalog: ResourceSet = users.objects.into_iter().map(|it| it.resource).collect();
        let import = ServiceImport {
            name: service("shop/api"),
            ports: vec![ServicePort { name: None, port: 80, protocol: model::AppProtocol::Http }],
            clusters: vec![],
        };
        catalog.upsert(Resource::ServiceImport(import.clone()));
        let recorded = recorded(&[("shop/imported-api", "80=20000")]);
        let resources = resources([&import], &recorded);
        let refused = Derived::Imports { pool: POOL, resources }.add_to(&mut catalog);
        let refused = refused.iter().map(|found| format!("{} {}", found.object, found.field));
        (catalog, refused.collect())
    }

    /// Who listens on what, and what is refused.
    fn listeners(manifest: &str) -> (Vec<String>, Vec<String>) {
        let (catalog, refused) = catalog(manifest);
        let own = ClusterName::parse("east").unwrap();
        let (snapshot, _) = compile(&own, Revision::default(), &catalog);
        let listeners = snapshot.listeners.values();
        (listeners.map(|it| format!("{} {}", it.port, it.name)).collect(), refused)
    }

    #[test]
    fn requests_get_from_a_port_of_the_pool_to_the_import() {
        // A grant of the same name would be lost if ours did not step aside.
        let of_user = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n\
                       metadata: {name: fedgate-imports, namespace: shop}\n\
                       spec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}]\n  \
                       to: [{group: \"\", kind: Service}]\n";
        for manifest in ["", of_user] {
            let (catalog, refused) = catalog(manifest);
            assert_eq!(refused, Vec::<String>::new());
            let own = ClusterName::parse("east").unwrap();
            let (snapshot, found) = compile(&own, Revision::default(), &catalog);
            let errors = found.iter().filter(|found| found.severity == Severity::Error);
            assert_eq!(errors.collect::<Vec<_>>(), Vec::<&Diagnostic>::new());
            let model::snapshot::ListenerRouting::Http(table) =
                &snapshot.listeners[&20_000].routing
            else {
                panic!("it is HTTP")
            };
            let route = table.find("any.host.example", "/any/path").unwrap();
            assert_eq!(route.destination.service().0, &service("shop/api"));
        }
    }

    #[test]
    fn users_cannot_get_between_an_import_and_its_callers() {
        let gateway = |namespace: &str, name: &str, port: u16| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
                 metadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec:\n  gatewayClassName: fedgate\n  listeners:\n  \
                 - {{name: a, port: 80, protocol: HTTP}}\n  \
                 - {{name: b, port: {port}, protocol: HTTP}}\n"
            )
        };
        let ours = "20000 Gateway/fedgate-imports/shop.api/port-80";
        let (found, refused) = listeners(&gateway("a", "first", 20_000));
        assert_eq!(found, ["80 Gateway/a/first/a", ours]);
        assert_eq!(refused, ["Gateway/a/first spec.listeners[1].port"]);
        let (found, refused) = listeners(&gateway("fedgate-imports", "shop.api", 81));
        assert_eq!(found, [ours]);
        assert_eq!(refused, ["Gateway/fedgate-imports/shop.api metadata.namespace"]);
        let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                     metadata: {name: thief, namespace: fedgate-imports}\n\
                     spec: {parentRefs: [{name: shop.api}], rules: [{backendRefs: [{name: x, port: 1}]}]}\n";
        let (_, refused) = listeners(route);
        assert_eq!(refused, ["HTTPRoute/fedgate-imports/thief metadata.namespace"]);
    }

    #[test]
    fn a_port_stays_with_who_has_it() {
        let mut listening = Listening::default();
        let mine = [("shop/imported-api", "80=20001")];
        let settled = listening.settle(recorded(&mine), POOL).clone();
        assert_eq!(settled, recorded(&mine));
        // Another namespace writes the same port, and its name comes first.
        let both = [("aaa/imported-x", "80=20001"), mine[0]];
        let settled = listening.settle(recorded(&both), POOL).clone();
        assert_eq!(settled, recorded(&[("aaa/imported-x", ""), mine[0]]));
        let settled = listening.settle(recorded(&both[..1]), POOL).clone();
        assert_eq!(settled, recorded(&both[..1]), "it was given up");
        let settled = listening.settle(recorded(&[("aaa/imported-x", "80=443")]), POOL).clone();
        assert_eq!(settled, recorded(&[("aaa/imported-x", "")]), "outside of the pool");
    }

    #[test]
    fn names_of_listeners_are_names_of_objects() {
        assert_eq!(names::listener(80), ObjectName::parse("port-80").unwrap());
    }
}
