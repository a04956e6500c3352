//! Whether somebody else has changed what a writer made: the watches know it long before the next list.

use std::sync::Arc;
use std::time::Duration;

use discovery::kubernetes::{Cache, WatchedKind};

use super::apply::{Observed, Target};
use super::kinds::Kind;

/// What the watches say of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing: its kind is not watched, or was not read yet.
    Nothing,
    Gone,
    /// It has this `resourceVersion`.
    At(String),
}

/// Looks into the watches.
pub(super) type Look = Arc<dyn Fn(&Target) -> Seen + Send + Sync>;

pub(super) fn look_into(cache: Arc<Cache>) -> Look {
    Arc::new(move |target| {
        let Some(kind) = watched(target.kind).filter(|kind| cache.is_known(*kind)) else {
            return Seen::Nothing;
        };
        let there = cache.object(kind, target.namespace.as_deref(), &target.name);
        there.map_or(Seen::Gone, |there| Seen::At(there.resource_version.clone()))
    })
}

fn watched(kind: &Kind) -> Option<WatchedKind> {
    // Under these names no other group has anything that is made here.
    match kind.kind {
        "ClusterPeer" => Some(WatchedKind::ClusterPeer),
        "EndpointSlice" => Some(WatchedKind::EndpointSlice),
        "Service" => Some(WatchedKind::Service),
        "ServiceImport" => Some(WatchedKind::ServiceImport),
        _ => None,
    }
}

/// Returns when an object is otherwise than its writer knows it. What the writer itself wrote a moment
/// ago may look so for a moment: that costs a list, which is why it is looked seldom.
pub(super) async fn noticed(look: &Look, own: &Observed, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if own.objects.iter().any(|(target, object)| has_drifted(&look(target), object)) {
            return;
        }
    }
}

fn has_drifted(seen: &Seen, object: &serde_json::Value) -> bool {
    match seen {
        Seen::Nothing => false,
        Seen::Gone => true,
        Seen::At(version) => object["metadata"]["resourceVersion"] != **version,
    }
}
