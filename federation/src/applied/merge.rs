//! One catalog of two: what the folder of manifests has wins over what was applied.

use std::sync::Arc;

use discovery::Catalog;
use model::code::APPLIED_SHADOWED;
use model::{Diagnostic, ResourceKey, Severity};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Both catalogs as one, now and whenever one of them changes.
pub(crate) fn merged(
    mut files: watch::Receiver<Arc<Catalog>>,
    mut applied: watch::Receiver<Arc<Catalog>>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> watch::Receiver<Arc<Catalog>> {
    let first = merge(&files.borrow_and_update(), &applied.borrow_and_update());
    let (sender, receiver) = watch::channel(Arc::new(first));
    tasks.spawn(async move {
        loop {
            let changed = async {
                tokio::select! {
                    changed = files.changed() => changed,
                    changed = applied.changed() => changed,
                }
            };
            match stop.run_until_cancelled(changed).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return, // whoever reads notices that the channel is closed
            }
            let (files, applied) = (files.borrow_and_update(), applied.borrow_and_update());
            sender.send_replace(Arc::new(merge(&files, &applied)));
        }
    });
    receiver
}

fn merge(files: &Catalog, applied: &Catalog) -> Catalog {
    let mut merged = files.clone();
    merged.diagnostics.extend(applied.diagnostics.iter().cloned());
    for (key, resource) in applied.resources.iter() {
        if files.resources.get(key).is_some() {
            merged.diagnostics.push(shadowed(key));
        } else {
            merged.resources.upsert((**resource).clone());
        }
    }
    merged.diagnostics.sort();
    merged.sequence = files.sequence + applied.sequence;
    merged
}

pub(crate) fn shadowed(key: &ResourceKey) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: APPLIED_SHADOWED,
        object: key.to_string(),
        field: String::new(),
        message: "the folder of manifests has the same object, and that one is in service".into(),
        fix: "remove the file, or `fedctl delete` the applied object".into(),
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
    fn a_file_wins_over_the_same_applied_object_and_says_so() {
        let merged = merge(&catalog(&["shop/a", "shop/b"], 3), &catalog(&["shop/b", "shop/c"], 4));
        let names: Vec<_> = merged.resources.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(names, ["Service/shop/a", "Service/shop/b", "Service/shop/c"]);
        assert_eq!(merged.sequence, 7);
        let [found] = &merged.diagnostics[..] else { panic!("{:?}", merged.diagnostics) };
        assert_eq!((found.code, found.object.as_str()), (APPLIED_SHADOWED, "Service/shop/b"));
    }

    #[tokio::test]
    async fn a_change_on_either_side_is_passed_on_until_the_end() {
        let files = watch::Sender::new(Arc::new(catalog(&["shop/a"], 1)));
        let applied = watch::Sender::new(Arc::new(catalog(&[], 0)));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut both = merged(files.subscribe(), applied.subscribe(), stop.clone(), &tasks);
        assert_eq!(both.borrow_and_update().resources.len(), 1);
        applied.send_replace(Arc::new(catalog(&["shop/b"], 1)));
        both.changed().await.unwrap();
        assert_eq!(both.borrow_and_update().resources.len(), 2);
        files.send_replace(Arc::new(catalog(&[], 2)));
        both.changed().await.unwrap();
        assert_eq!(both.borrow_and_update().resources.len(), 1);
        stop.cancel();
        assert!(both.changed().await.is_err(), "it ends with the node");
    }
}
