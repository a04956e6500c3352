//! All objects that are kept, by kind and key: what the cache reads and the keeper writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kinds::WatchedKind;
use super::object::{ObjectKey, ObjectRef};

#[derive(Debug, Default)]
pub(super) struct Store {
    kinds: [KindStore; WatchedKind::ALL.len()],
    bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct KindStore {
    pub(super) objects: BTreeMap<ObjectKey, Stored>,
    /// The version that the API server serves; `None` as long as that is unknown, or it has none.
    pub(super) version: Option<&'static str>,
    /// A complete list was seen once, or that the API server has no such kind.
    pub(super) known: bool,
    /// Since the last list, a limit kept objects out.
    pub(super) incomplete: bool,
    /// Grows with each change of its objects.
    pub(super) changes: u64,
    /// Counts complete lists, to tell what the last one lacked.
    round: u64,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) object: Arc<ObjectRef>,
    pub(super) body: Option<Box<str>>,
    pub(super) bytes: usize,
    round: u64,
}

impl Store {
    pub(super) fn kind(&self, kind: WatchedKind) -> &KindStore {
        &self.kinds[kind.index()]
    }

    pub(super) fn kind_mut(&mut self, kind: WatchedKind) -> &mut KindStore {
        &mut self.kinds[kind.index()]
    }

    /// JSON text of all objects, kept or not.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows with each change of any object.
    pub(super) fn changes(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.changes).sum()
    }

    pub(super) fn insert(&mut self, object: Arc<ObjectRef>, body: Option<Box<str>>, bytes: usize) {
        let kind = &mut self.kinds[object.kind.index()];
        kind.changes += 1;
        let (key, round) = (object.key.clone(), kind.round);
        let replaced = kind.objects.insert(key, Stored { object, body, bytes, round });
        self.bytes = self.bytes + bytes - replaced.map_or(0, |stored| stored.bytes);
    }

    pub(super) fn remove(&mut self, kind: WatchedKind, key: &ObjectKey) -> bool {
        let kind = &mut self.kinds[kind.index()];
        let removed = kind.objects.remove(key);
        kind.changes += u64::from(removed.is_some());
        self.bytes -= removed.as_ref().map_or(0, |stored| stored.bytes);
        removed.is_some()
    }

    /// A complete list begins: whatever is not in it is gone when it ends.
    pub(super) fn begin_list(&mut self, kind: WatchedKind) {
        self.kind_mut(kind).round += 1;
    }

    /// The list has this object, and it has not changed.
    pub(super) fn seen(&mut self, kind: WatchedKind, key: &ObjectKey) {
        let kind = self.kind_mut(kind);
        if let Some(stored) = kind.objects.get_mut(key) {
            stored.round = kind.round;
        }
    }

    /// The list is complete: removes what it lacked, and tells what that was.
    pub(super) fn end_list(&mut self, kind: WatchedKind) -> Vec<ObjectKey> {
        let stored = self.kind(kind);
        let lacking = stored.objects.iter().filter(|(_, object)| object.round != stored.round);
        let lacking: Vec<ObjectKey> = lacking.map(|(key, _)| key.clone()).collect();
        for key in &lacking {
            self.remove(kind, key);
        }
        lacking
    }
}
