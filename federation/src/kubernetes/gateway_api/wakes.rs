//! What makes the writer look again. Endpoints change all the time in a large cluster, and mean
//! nothing to a status.

use std::sync::Arc;

use discovery::Catalog;
use discovery::kubernetes::{Cache, WatchedKind};
use model::{Resource, ResourceKind};
use tokio::sync::watch;

use crate::intake::{Catalogs, Findings};
use crate::kubernetes::{Cluster, changed};

/// What statuses are made of, as far as the cache has it.
const KINDS: [WatchedKind; 6] = [
    WatchedKind::GatewayClass,
    WatchedKind::Gateway,
    WatchedKind::HttpRoute,
    WatchedKind::TcpRoute,
    WatchedKind::Service,
    WatchedKind::Node,
];

/// What there was when the writer looked last.
#[derive(Debug)]
pub(super) struct Wakes {
    cache: watch::Receiver<u64>,
    catalogs: Catalogs,
    findings: watch::Receiver<Arc<Findings>>,
    changes: Vec<u64>,
    catalog: Option<Arc<Catalog>>,
    found: Arc<Findings>,
}

impl Wakes {
    pub(super) fn new(cluster: &Cluster) -> Self {
        Self {
            cache: cluster.cache.changes(),
            catalogs: cluster.around.catalogs.clone(),
            findings: cluster.around.findings.clone(),
            changes: Vec::new(),
            catalog: None,
            found: Arc::default(),
        }
    }

    /// What comes after this is new.
    pub(super) fn note(&mut self, cache: &Cache) {
        self.cache.mark_unchanged();
        self.catalog.clone_from(&self.catalogs.borrow_and_update());
        self.found = self.findings.borrow_and_update().clone();
        self.changes = cache.changes_of_each(&KINDS);
    }

    pub(super) async fn changed(&mut self, cache: &Cache) {
        loop {
            let is_news = tokio::select! {
                () = changed(&mut self.cache) => cache.changes_of_each(&KINDS) != self.changes,
                () = changed(&mut self.catalogs) => {
                    differ(self.catalog.as_deref(), self.catalogs.borrow().as_deref())
                }
                () = changed(&mut self.findings) => {
                    self.findings.borrow().compile != self.found.compile
                }
            };
            if is_news {
                return;
            }
        }
    }
}

/// Whether a catalog says anything new of Gateways and routes.
fn differ(before: Option<&Catalog>, now: Option<&Catalog>) -> bool {
    let (Some(before), Some(now)) = (before, now) else { return before.is_some() || now.is_some() };
    before.diagnostics != now.diagnostics || !of_gateways(before).eq(of_gateways(now))
}

fn of_gateways(catalog: &Catalog) -> impl Iterator<Item = &Arc<Resource>> {
    let kinds = [ResourceKind::Gateway, ResourceKind::HttpRoute, ResourceKind::TcpRoute];
    let resources = catalog.resources.iter().filter(move |(key, _)| kinds.contains(&key.kind));
    resources.map(|(_, resource)| resource)
}

#[cfg(test)]
mod tests {
    use model::{Namespace, ObjectName, ResourceSet, ServiceName};

    use super::*;

    fn catalog(resources: &[Resource]) -> Catalog {
        let resources: ResourceSet = resources.iter().cloned().collect();
        Catalog { resources, ..Catalog::default() }
    }

    #[test]
    fn endpoints_and_services_are_no_news_and_routes_are() {
        let name = |text| ServiceName::parse(text).unwrap();
        let service = Resource::Service(model::Service { name: name("shop/a"), ports: vec![] });
        let gateway = |name: &str| {
            Resource::Gateway(model::GatewaySpec {
                namespace: Namespace::parse("shop").unwrap(),
                name: ObjectName::parse(name).unwrap(),
                listeners: vec![],
            })
        };
        let one = catalog(&[gateway("x")]);
        assert!(!differ(Some(&one), Some(&catalog(&[gateway("x"), service]))));
        assert!(differ(Some(&one), Some(&catalog(&[gateway("x"), gateway("y")]))));
        assert!(differ(Some(&one), Some(&catalog(&[]))));
        assert!(differ(None, Some(&one)) && !differ(None, None));
    }
}
