//! `gateway.networking.k8s.io ReferenceGrant`: which routes may lead into another namespace (GEP-709).

use crate::catalog::{BackendKind, BackendTarget};
use crate::name::{Namespace, ObjectName};

/// What the routes of some namespaces may use of the grant's own namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    pub namespace: Namespace,
    pub name: ObjectName,
    /// Any of them.
    pub from: Vec<ReferenceSource>,
    /// Any of them.
    pub to: Vec<ReferenceTarget>,
}

/// Routes of one kind in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReferenceSource {
    pub kind: RouteKind,
    pub namespace: Namespace,
}

/// Backends of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReferenceTarget {
    pub kind: BackendKind,
    /// `None` stands for all of the kind.
    pub name: Option<ObjectName>,
}

/// The kinds whose objects refer to backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    Http,
    Tcp,
}

impl RouteKind {
    /// The kind as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Tcp => "TCPRoute",
        }
    }
}

impl ReferenceGrant {
    /// Whether a route in namespace `from` may lead to a backend of the grant's namespace.
    pub fn permits(&self, kind: RouteKind, from: &Namespace, to: &BackendTarget) -> bool {
        self.namespace == to.service.namespace
            && self.from.iter().any(|source| source.kind == kind && source.namespace == *from)
            && self.to.iter().any(|target| {
                target.kind == to.kind
                    && target.name.as_ref().is_none_or(|name| *name == to.service.name)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServiceName;

    #[test]
    fn a_grant_permits_what_it_names_and_nothing_else() {
        let space = |text: &str| Namespace::parse(text).unwrap();
        let name = |text: &str| ObjectName::parse(text).unwrap();
        use BackendKind::{Service, ServiceImport};
        use RouteKind::{Http, Tcp};
        let grant = ReferenceGrant {
            namespace: space("shop"),
            name: name("web"),
            from: vec![ReferenceSource { kind: Http, namespace: space("edge") }],
            to: vec![
                ReferenceTarget { kind: Service, name: Some(name("web")) },
                ReferenceTarget { kind: ServiceImport, name: None },
            ],
        };
        let target = |kind, namespace: &str, backend: &str| BackendTarget {
            kind,
            service: ServiceName::new(space(namespace), name(backend)),
            port: 80,
        };
        for (route, from, to, permitted) in [
            (Http, "edge", target(Service, "shop", "web"), true),
            (Http, "edge", target(ServiceImport, "shop", "api"), true),
            (Http, "edge", target(Service, "shop", "api"), false),
            (Http, "edge", target(Service, "other", "web"), false),
            (Http, "other", target(Service, "shop", "web"), false),
            (Tcp, "edge", target(Service, "shop", "web"), false),
        ] {
            assert_eq!(grant.permits(route, &space(from), &to), permitted, "{from} {to:?}");
        }
    }
}
