//! One catalog of three: what the cluster's API server has wins over the folder of manifests, and
//! both win over what was applied.

use std::sync::Arc;

use discovery::Catalog;
use model::code::{APPLIED_SHADOWED, DUPLICATE_OBJECT};
use model::{Diagnostic, ResourceKey, Severity};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::intake::Catalogs;
use crate::kubernetes::changed;

/// What users declared elsewhere than by `fedctl apply`.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// By the cluster's API server. `None` until it was read in full.
    pub(crate) cluster: Catalogs,
    /// By the folder of manifests.
    pub(crate) files: watch::Receiver<Arc<Catalog>>,
}

/// Where an object was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Kubernetes,
    File,
}

impl Declared {
    /// The one of the two that is in service.
    pub(crate) fn origin(&self, key: &ResourceKey) -> Option<Origin> {
        let has = |catalog: &Catalog| catalog.resources.get(key).is_some();
        if self.cluster.borrow().as_ref().is_some_and(|catalog| has(catalog)) {
            Some(Origin::Kubernetes)
        } else {
            has(&self.files.borrow()).then_some(Origin::File)
        }
    }
}

impl Origin {
    fn place(self) -> &'static str {
        match self {
            Self::Kubernetes => "the cluster's API server",
            Self::File => "the folder of manifests",
        }
    }

    fn removal(self) -> &'static str {
        match self {
            Self::Kubernetes => "`kubectl delete` that one",
            Self::File => "remove the file",
        }
    }
}

/// All catalogs as one, now and whenever one of them changes.
pub(crate) fn merged(
    mut declared: Declared,
    mut applied: watch::Receiver<Arc<Catalog>>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Catalogs {
    let newest = move |declared: &mut Declared, applied: &mut watch::Receiver<Arc<Catalog>>| {
        let files = declared.files.borrow_and_update().clone();
        let applied = applied.borrow_and_update().clone();
        let cluster = declared.cluster.borrow_and_update().clone()?;
        Some(Arc::new(merge(&cluster, &files, &applied)))
    };
    let (sender, receiver) = watch::channel(newest(&mut declared, &mut applied));
    tasks.spawn(async move {
        loop {
            let any = async {
                tokio::select! {
                    () = changed(&mut declared.cluster) => {}
                    () = changed(&mut declared.files) => {}
                    () = changed(&mut applied) => {}
                }
            };
            if stop.run_until_cancelled(any).await.is_none() {
                return; // whoever reads notices that the channel is closed
            }
            sender.send_replace(newest(&mut declared, &mut applied));
        }
    });
    receiver
}

fn merge(cluster: &Catalog, files: &Catalog, applied: &Catalog) -> Catalog {
    let mut merged = cluster.clone();
    for catalog in [files, applied] {
        merged.diagnostics.extend(catalog.diagnostics.iter().cloned());
        merged.sequence += catalog.sequence;
    }
    for (key, resource) in files.resources.iter() {
        if cluster.resources.get(key).is_some() {
            merged.diagnostics.push(hidden(key));
        } else {
            merged.resources.upsert(resource.clone());
        }
    }
    for (key, resource) in applied.resources.iter() {
        if cluster.resources.get(key).is_some() {
            merged.diagnostics.push(shadowed(key, Origin::Kubernetes));
        } else if files.resources.get(key).is_some() {
            merged.diagnostics.push(shadowed(key, Origin::File));
        } else {
            merged.resources.upsert(resource.clone());
        }
    }
    merged.diagnostics.sort();
    merged
}

/// A file's object that the API server has too.
fn hidden(key: &ResourceKey) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: DUPLICATE_OBJECT,
        object: key.to_string(),
        field: String::new(),
        message: "the folder of manifests and the cluster's API server have the same object; that \
                  of the API server is in service"
            .into(),
        fix: "remove the file, or `kubectl delete` the other one".into(),
    }
}

pub(crate) fn shadowed(key: &ResourceKey, origin: Origin) -> Diagnostic {
    let (place, removal) = (origin.place(), origin.removal());
    Diagnostic {
        severity: Severity::Warning,
        code: APPLIED_SHADOWED,
        object: key.to_string(),
        field: String::new(),
        message: format!("{place} has the same object, and that one is in service"),
        fix: format!("{removal}, or `fedctl delete` the applied object"),
    }
}

#[cfg(test)]
mod tests {
    use model::{Resource, ServiceName};

    use super::*;

    fn catalog(names: &[&str], sequence: u64) -> Catalog {
        let service = |name: &&str| {
            let name = ServiceName::parse(name).unwrap();
            Resource::Service(model::Service { name, ports: vec![] })
        };
        let resources = names.iter().map(service).collect();
        Catalog { resources, diagnostics: vec![], sequence }
    }

    #[test]
    fn the_cluster_wins_over_a_file_and_a_file_over_an_applied_object() {
        let (cluster, files) = (catalog(&["shop/a"], 1), catalog(&["shop/a", "shop/b"], 3));
        let merged = merge(&cluster, &files, &catalog(&["shop/a", "shop/b", "shop/c"], 4));
        let names: Vec<_> = merged.resources.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(names, ["Service/shop/a", "Service/shop/b", "Service/shop/c"]);
        assert_eq!(merged.sequence, 8);
        let found: Vec<_> = merged.diagnostics.iter().map(|d| (d.code, &*d.object)).collect();
        let of_a = [(DUPLICATE_OBJECT, "Service/shop/a"), (APPLIED_SHADOWED, "Service/shop/a")];
        assert_eq!(found, [of_a[0], of_a[1], (APPLIED_SHADOWED, "Service/shop/b")]);
        let places: Vec<_> = merged.diagnostics.iter().map(|d| &*d.message).collect();
        assert!(places[1].starts_with("the cluster's API server has"), "{places:?}");
        assert!(places[2].starts_with("the folder of manifests has"), "{places:?}");
    }

    #[tokio::test]
    async fn nothing_is_known_until_the_cluster_is_and_then_every_change_is_passed_on() {
        let cluster = watch::Sender::new(None);
        let files = watch::Sender::new(Arc::new(catalog(&["shop/a"], 1)));
        let applied = watch::Sender::new(Arc::new(catalog(&[], 0)));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let declared = Declared { cluster: cluster.subscribe(), files: files.subscribe() };
        let mut all = merged(declared, applied.subscribe(), stop.clone(), &tasks);
        assert!(all.borrow_and_update().is_none());
        applied.send_replace(Arc::new(catalog(&["shop/b"], 1)));
        all.changed().await.unwrap();
        assert!(all.borrow_and_update().is_none(), "the rest would be taken back");
        let count = |all: &mut Catalogs| all.borrow_and_update().as_ref().unwrap().resources.len();
        cluster.send_replace(Some(Arc::new(catalog(&["shop/c"], 1))));
        all.changed().await.unwrap();
        assert_eq!(count(&mut all), 3);
        files.send_replace(Arc::new(catalog(&[], 2)));
        all.changed().await.unwrap();
        assert_eq!(count(&mut all), 2);
        stop.cancel();
        assert!(all.changed().await.is_err(), "it ends with the node");
    }
}
