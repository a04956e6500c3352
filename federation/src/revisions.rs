//! The revision log: what is served now, and which keys changed lately.
//!
//! The log remembers keys, not contents: a gateway that is `n` revisions behind gets one delta from
//! what it has to what is, so however slow it is, nothing queues up for it. One that is further
//! behind than the log reaches gets a snapshot.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::code::OBJECT_INVALID;
use model::{Diagnostic, Resource, ResourceKey, ResourceKind, ResourceSet, Revision, Severity};
use prost::Message as _;
use tokio::sync::watch;
use wire::resource::{decode_resource, encode_key, encode_resource, proto};

use crate::limits::{LOG_KEYS_MAX, LOG_REVISIONS_MAX, RESOURCES_MAX, SNAPSHOT_BYTES_MAX};

/// What is served, by revision.
#[derive(Debug)]
pub(crate) struct Revisions {
    log: Mutex<Log>,
    current: watch::Sender<Option<Revision>>,
}

/// The outcome of [`Revisions::publish`].
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// The new revision, if anything changed.
    pub(crate) revision: Option<Revision>,
    /// Something else than an EndpointSlice changed, so that what was compiled is out of date.
    pub(crate) intent_changed: bool,
    /// Objects that cannot be served.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Revisions {
    pub(crate) fn new(epoch: u64) -> Self {
        let limits = LogLimits { revisions: LOG_REVISIONS_MAX, keys: LOG_KEYS_MAX };
        Self::with_limits(epoch, limits)
    }

    fn with_limits(epoch: u64, limits: LogLimits) -> Self {
        let log = Log {
            revision: Revision { epoch, index: 0 },
            served: BTreeMap::new(),
            resources: ResourceSet::default(),
            bytes: 0,
            changes: VecDeque::new(),
            changed_keys: 0,
            limits,
        };
        Self { log: Mutex::new(log), current: watch::Sender::new(None) }
    }

    /// Makes a revision of a whole catalog. The first one is always made, even of nothing: before
    /// it no gateway is told anything.
    pub(crate) fn publish(&self, catalog: &ResourceSet) -> Published {
        let mut log = self.lock();
        let published = log.publish(catalog);
        drop(log);
        if let Some(revision) = published.revision {
            self.current.send_replace(Some(revision));
        }
        published
    }

    /// Tells of new revisions; `None` until the first catalog has come.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Revision>> {
        self.current.subscribe()
    }

    /// The step from what a gateway has to what is served now; `None` when it has that.
    pub(crate) fn delta_from(&self, have: Option<Revision>) -> Option<proto::Delta> {
        self.lock().delta_from(have)
    }

    /// The served objects and their revision, for the compiler and for operators.
    pub(crate) fn resources(&self) -> (Revision, ResourceSet) {
        let log = self.lock();
        (log.revision, log.resources.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // Every change to the log is made in full before the guard goes, so one whose holder
        // panicked is still whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy)]
struct LogLimits {
    revisions: usize,
    keys: usize,
}

#[derive(Debug)]
struct Log {
    revision: Revision,
    served: BTreeMap<ResourceKey, Served>,
    /// The same objects, as the compiler wants them.
    resources: ResourceSet,
    /// Encoded size of everything in `served`.
    bytes: usize,
    /// Oldest first, without gaps, up to `revision`.
    changes: VecDeque<Change>,
    changed_keys: usize,
    limits: LogLimits,
}

/// A catalog beside what is served.
struct Difference<'a> {
    /// Not served, or not as it is now.
    other: Vec<(&'a ResourceKey, &'a Arc<Resource>)>,
    gone: Vec<ResourceKey>,
}

#[derive(Debug)]
struct Served {
    encoded: Arc<proto::Resource>,
    bytes: usize,
}

#[derive(Debug)]
struct Change {
    index: u64,
    keys: Vec<ResourceKey>,
}

impl Log {
    fn publish(&mut self, catalog: &ResourceSet) -> Published {
        let mut published = Published::default();
        let Difference { other, gone } = self.difference(catalog);
        gone.iter().for_each(|key| self.remove(key));
        let mut changed = gone;
        for (key, resource) in other {
            match self.admit(resource) {
                Ok(()) => changed.push(key.clone()),
                Err(diagnostic) => {
                    published.diagnostics.push(diagnostic);
                    if self.served.contains_key(key) {
                        self.remove(key);
                        changed.push(key.clone());
                    }
                }
            }
        }
        if changed.is_empty() && self.revision.index > 0 {
            return published;
        }
        published.intent_changed = self.revision.index == 0
            || changed.iter().any(|key| key.kind != ResourceKind::EndpointSlice);
        published.revision = Some(self.append(changed));
        published
    }

    /// In one pass, since both are in the order of keys: every change of one endpoint comes here.
    fn difference<'a>(&self, catalog: &'a ResourceSet) -> Difference<'a> {
        let (mut other, mut gone) = (Vec::new(), Vec::new());
        let mut served = self.resources.iter().peekable();
        for (key, resource) in catalog.iter() {
            let mut found = None;
            while let Some((known, there)) = served.peek() {
                match known.cmp(&key) {
                    Ordering::Less => gone.push((*known).clone()),
                    Ordering::Equal => found = Some(*there),
                    Ordering::Greater => break,
                }
                served.next();
                if found.is_some() {
                    break;
                }
            }
            if found != Some(resource) {
                other.push((key, resource));
            }
        }
        gone.extend(served.map(|(key, _)| key.clone()));
        Difference { other, gone }
    }

    /// Takes an object into service. What is sent is first read back as a gateway reads it, so that
    /// a gateway never has to refuse a delta.
    fn admit(&mut self, resource: &Arc<Resource>) -> Result<(), Diagnostic> {
        let key = resource.key();
        let encoded = encode_resource(resource);
        let bytes = encoded.encoded_len();
        match decode_resource(encoded.clone()) {
            Ok(Some(read_back)) if read_back == **resource => {}
            Ok(_) => return Err(unservable(&key, "it does not survive being sent".into())),
            Err(error) => return Err(unservable(&key, error.to_string())),
        }
        let replaced = self.served.get(&key);
        let others = self.served.len() - usize::from(replaced.is_some());
        let replaced = replaced.map_or(0, |served| served.bytes);
        if others >= RESOURCES_MAX {
            return Err(unservable(&key, format!("more than {RESOURCES_MAX} objects are served")));
        }
        if self.bytes - replaced + bytes > SNAPSHOT_BYTES_MAX {
            let message = format!("all objects together have more than {SNAPSHOT_BYTES_MAX} bytes");
            return Err(unservable(&key, message));
        }
        self.remove(&key);
        self.bytes += bytes;
        self.served.insert(key, Served { encoded: Arc::new(encoded), bytes });
        self.resources.upsert(resource.clone());
        Ok(())
    }

    fn remove(&mut self, key: &ResourceKey) {
        if let Some(served) = self.served.remove(key) {
            self.bytes -= served.bytes;
        }
        self.resources.remove(key);
    }

    fn append(&mut self, keys: Vec<ResourceKey>) -> Revision {
        self.revision.index += 1;
        self.changed_keys += keys.len();
        self.changes.push_back(Change { index: self.revision.index, keys });
        while self.changes.len() > self.limits.revisions || self.changed_keys > self.limits.keys {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.changed_keys -= oldest.keys.len();
        }
        self.revision
    }

    fn delta_from(&self, have: Option<Revision>) -> Option<proto::Delta> {
        let to = Some(encode_revision(self.revision));
        let Some(have) = have.filter(|have| self.remembers(*have)) else {
            let upserts = self.served.values().map(|served| (*served.encoded).clone()).collect();
            return Some(proto::Delta { from: None, to, snapshot: true, upserts, removes: vec![] });
        };
        if have == self.revision {
            return None;
        }
        let newer = self.changes.iter().filter(|change| change.index > have.index);
        let touched: BTreeSet<&ResourceKey> = newer.flat_map(|change| &change.keys).collect();
        let from = Some(encode_revision(have));
        let mut delta = proto::Delta { from, to, ..proto::Delta::default() };
        for key in touched {
            match self.served.get(key) {
                Some(served) => delta.upserts.push((*served.encoded).clone()),
                None => delta.removes.push(encode_key(key)),
            }
        }
        Some(delta)
    }

    /// Whether every change after `have` is in the log. A revision of another epoch, or one that
    /// was never made in this one, is not remembered.
    fn remembers(&self, have: Revision) -> bool {
        let oldest = self.changes.front().map_or(self.revision.index + 1, |change| change.index);
        have.epoch == self.revision.epoch
            && have.index <= self.revision.index
            && have.index + 1 >= oldest
            && have.index > 0
    }
}

fn encode_revision(revision: Revision) -> proto::Revision {
    proto::Revision { epoch: revision.epoch, index: revision.index }
}

fn unservable(key: &ResourceKey, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: OBJECT_INVALID,
        object: key.to_string(),
        field: String::new(),
        message,
        fix: "make the object smaller, or mend the value that is named".into(),
    }
}

#[cfg(test)]
mod tests;
