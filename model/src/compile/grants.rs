//! Which routes may lead into another namespace (GEP-709).

use std::collections::HashMap;

use crate::catalog::{BackendTarget, Resource, ResourceSet};
use crate::name::Namespace;
use crate::reference::{ReferenceGrant, RouteKind};

/// The ReferenceGrants by the namespace that they open.
pub(super) struct Grants<'a>(HashMap<&'a Namespace, Vec<&'a ReferenceGrant>>);

impl<'a> Grants<'a> {
    pub(super) fn of(resources: &'a ResourceSet) -> Self {
        let mut grants: HashMap<_, Vec<_>> = HashMap::new();
        for resource in resources.values() {
            if let Resource::ReferenceGrant(grant) = resource {
                grants.entry(&grant.namespace).or_default().push(grant);
            }
        }
        Self(grants)
    }

    /// Whether a route may lead to a backend; in its own namespace it always may.
    pub(super) fn permit(&self, route: &Resource, to: &BackendTarget) -> bool {
        let (kind, from) = match route {
            Resource::HttpRoute(route) => (RouteKind::Http, &route.namespace),
            Resource::TcpRoute(route) => (RouteKind::Tcp, &route.namespace),
            _ => return false,
        };
        let into = &to.service.namespace;
        from == into
            || self
                .0
                .get(into)
                .is_some_and(|grants| grants.iter().any(|grant| grant.permits(kind, from, to)))
    }
}
