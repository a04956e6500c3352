//! What is in service, given what the API server was heard to say and when: pure.
//!
//! An object that changed goes into service at once; one of our own kinds whose new state is wrong keeps
//! the last good one. One that vanished, by its own event, from a
//! complete list or together with its kind, goes when the guard of its kind lets it: a kind's list
//! comes alone, so each kind is guarded alone. While a kind cannot be seen, nothing of it vanishes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::GatewayClasses;
use model::{Diagnostic, ResourceKey, ResourceSet};
use serde_json::Value;

use super::findings;
use super::kinds::WatchedKind;
use super::object::{self, ObjectKey, Parsed, Reading};
use super::state::{KindState, Phase, ProviderState};
use super::store::Store;
use crate::catalog::Catalog;
use crate::guard::{Guard, Verdict};
use crate::limits;

/// What was heard of one kind.
#[derive(Debug)]
pub(super) enum Event {
    /// A complete list begins, of objects in this version.
    Listing(&'static str),
    /// Changes, or a part of the list.
    Objects(Vec<Change>),
    /// The list is complete.
    Listed,
    /// The watch goes on where it was.
    Resumed,
    /// The API server has no such kind.
    Absent,
    /// The API server does not let us see it.
    Refused(String),
    /// It cannot be seen for another reason.
    Failed(String),
}

/// What was heard of one object.
#[derive(Debug)]
pub(super) enum Change {
    Applied(Box<Parsed>),
    /// The list has it as it is known.
    Same(ObjectKey),
    Deleted(ObjectKey),
}

/// The state between two events. The objects themselves are in the [`Store`].
#[derive(Debug)]
pub(super) struct Keeper {
    confirm_window: Duration,
    kinds: Vec<KindKeeper>,
    classes: GatewayClasses,
    classes_changed: bool,
    resources: ResourceSet,
    /// What is said of kinds, as of the last catalog.
    kind_findings: Vec<Diagnostic>,
    /// Since the last catalog, objects or what is said of them changed.
    changed: bool,
    away: Option<String>,
    sequence: u64,
}

#[derive(Debug)]
pub(super) struct KindKeeper {
    pub(super) kind: WatchedKind,
    pub(super) phase: Phase,
    pub(super) since: Instant,
    pub(super) last_error: Option<String>,
    /// It was settled when it had been in this phase for long enough to be told.
    told: bool,
    /// Objects that have a resource in service, held ones too.
    pub(super) in_service: BTreeMap<ObjectKey, ResourceKey>,
    /// Those of them that are not wanted any more.
    pub(super) vanished: BTreeSet<ObjectKey>,
    pub(super) holding: bool,
    pub(super) findings: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    /// At most as many as are told.
    pub(super) left_out: BTreeSet<ObjectKey>,
    guard: Guard,
}

impl Keeper {
    pub(super) fn new(watched: &[WatchedKind], confirm_window: Duration, now: Instant) -> Self {
        let burst_window = Duration::from_millis(limits::DELETE_BURST_MS);
        let kind = |kind: &WatchedKind| KindKeeper {
            kind: *kind,
            phase: Phase::Listing,
            since: now,
            last_error: None,
            told: false,
            in_service: BTreeMap::new(),
            vanished: BTreeSet::new(),
            holding: false,
            findings: BTreeMap::new(),
            left_out: BTreeSet::new(),
            guard: Guard::new(confirm_window, burst_window),
        };
        Self {
            confirm_window,
            kinds: watched.iter().map(kind).collect(),
            classes: GatewayClasses::default(),
            classes_changed: false,
            resources: ResourceSet::default(),
            kind_findings: Vec::new(),
            changed: false,
            away: None,
            sequence: 0,
        }
    }

    /// Takes in what was heard of a kind. Nothing is published before [`Self::settle`].
    pub(super) fn apply(
        &mut self,
        store: &mut Store,
        kind: WatchedKind,
        event: Event,
        now: Instant,
    ) {
        let Some(index) = self.kinds.iter().position(|kept| kept.kind == kind) else { return };
        self.classes_changed |= kind == WatchedKind::GatewayClass;
        let known = store.kind(kind).known;
        let kept = &mut self.kinds[index];
        match event {
            Event::Listing(version) => {
                store.begin_list(kind);
                let stored = store.kind_mut(kind);
                (stored.version, stored.incomplete) = (Some(version), false);
                kept.left_out.clear();
                kept.enter(if known { Phase::Stale } else { Phase::Listing }, now);
            }
            Event::Objects(changes) => {
                changes.into_iter().for_each(|change| self.change(store, index, change));
            }
            Event::Listed => {
                for key in store.end_list(kind) {
                    self.vanish(index, &key);
                }
                store.kind_mut(kind).known = true;
                self.kinds[index].enter(Phase::Synced, now);
            }
            Event::Resumed => kept.enter(Phase::Synced, now),
            Event::Absent => self.absent(store, index, now),
            Event::Refused(error) => kept.fail(Phase::Refused, error, now),
            Event::Failed(error) => {
                kept.fail(if known { Phase::Stale } else { Phase::Listing }, error, now);
            }
        }
    }

    /// Whether the API server answers at all, and why it does not.
    pub(super) fn reach(&mut self, away: Option<String>, now: Instant) {
        if let Some(reason) = away.as_ref().filter(|_| self.away.is_none()) {
            for kept in &mut self.kinds {
                let phase = match kept.phase {
                    Phase::Synced | Phase::Absent => Phase::Stale,
                    phase => phase,
                };
                kept.fail(phase, reason.clone(), now);
            }
        }
        self.away = away;
    }

    /// Lets vanished objects go or holds them; returns the catalog if it changed. There is none
    /// before every kind was seen: gateways would take what is missing for removed.
    pub(super) fn settle(&mut self, store: &mut Store, now: Instant) -> Option<Catalog> {
        self.read_gateways_again(store);
        for index in 0..self.kinds.len() {
            self.judge(index, now);
            let kept = &mut self.kinds[index];
            kept.told = findings::told_at(kept).is_some_and(|at| now >= at);
            let refused = kept.phase == Phase::Refused && now >= kept.since + refused_grace();
            store.kind_mut(kept.kind).known |= refused;
        }
        if self.kinds.iter().any(|kept| !store.kind(kept.kind).known) {
            return None;
        }
        let kind_findings =
            findings::of_kinds(&self.kinds, self.away.as_deref(), self.confirm_window, now);
        if self.sequence > 0 && !self.changed && kind_findings == self.kind_findings {
            return None;
        }
        self.changed = false;
        self.kind_findings = kind_findings;
        self.sequence += 1;
        Some(Catalog {
            resources: self.resources.clone(),
            diagnostics: self.findings(),
            sequence: self.sequence,
        })
    }

    /// When [`Self::settle`] is next worth a call although nothing happened.
    pub(super) fn wake_at(&self, store: &Store) -> Option<Instant> {
        let of_kind = |kept: &KindKeeper| {
            let known = store.kind(kept.kind).known;
            match kept.phase {
                Phase::Synced | Phase::Absent => kept.guard.confirm_at(),
                Phase::Refused if !known => Some(kept.since + refused_grace()),
                Phase::Stale if self.away.is_none() && !kept.told => findings::told_at(kept),
                _ => None,
            }
        };
        self.kinds.iter().filter_map(of_kind).min()
    }

    pub(super) fn state(&self, store: &Store) -> ProviderState {
        let kind = |kept: &KindKeeper| KindState {
            kind: kept.kind,
            version: store.kind(kept.kind).version,
            phase: kept.phase,
            since: kept.since,
            known: store.kind(kept.kind).known,
            objects: store.kind(kept.kind).objects.len(),
            left_out: kept.left_out.len(),
            last_error: kept.last_error.clone(),
        };
        ProviderState {
            kinds: self.kinds.iter().map(kind).collect(),
            away: self.away.clone(),
            complete: self.sequence > 0,
        }
    }

    fn change(&mut self, store: &mut Store, index: usize, change: Change) {
        let kind = self.kinds[index].kind;
        match change {
            Change::Applied(parsed) => self.take(store, index, *parsed),
            Change::Same(key) => store.seen(kind, &key),
            Change::Deleted(key) => {
                store.remove(kind, &key);
                self.kinds[index].left_out.remove(&key);
                self.vanish(index, &key);
            }
        }
    }

    fn take(&mut self, store: &mut Store, index: usize, parsed: Parsed) {
        let Parsed { object, body, bytes, reading } = parsed;
        let (kind, key) = (object.kind, object.key.clone());
        let kept = &mut self.kinds[index];
        let stored = store.kind(kind).objects.get(&key);
        let full = stored.is_none()
            && (store.kind(kind).objects.len() >= limits::OBJECTS_PER_KIND_MAX
                || store.bytes() + bytes > limits::OBJECTS_BYTES_MAX);
        if full || bytes > limits::OBJECT_BYTES_MAX {
            if kept.left_out.len() < limits::KUBERNETES_FINDINGS_MAX {
                kept.left_out.insert(key.clone());
            }
            store.kind_mut(kind).incomplete = true;
            store.remove(kind, &key);
            return self.vanish(index, &key);
        }
        kept.left_out.remove(&key);
        if kind == WatchedKind::Gateway {
            let value = body.as_deref().and_then(|text| serde_json::from_str(text).ok());
            let value: Value = value.unwrap_or_default();
            let reading = object::read(&object, &value, &self.classes);
            store.insert(object, body, bytes);
            return self.serve(index, key, reading);
        }
        store.insert(object, body, bytes);
        self.serve(index, key, reading);
    }

    /// Takes an object's resource into service at once. One of our own kinds that cannot be read any
    /// more keeps what it said before.
    fn serve(&mut self, index: usize, key: ObjectKey, reading: Reading) {
        let Reading { resource, diagnostics } = reading;
        let kept = &mut self.kinds[index];
        self.changed |= kept.set_findings(&key, diagnostics);
        let Some(resource) = resource else {
            if !kept.kind.is_own() {
                kept.withdraw(&key);
            }
            return;
        };
        kept.vanished.remove(&key);
        let resource_key = resource.key();
        if self.resources.get(&resource_key).is_none_or(|served| **served != resource) {
            self.resources.upsert(resource);
            self.changed = true;
        }
        kept.in_service.insert(key, resource_key);
    }

    /// The object is gone, and with it what was said of it.
    fn vanish(&mut self, index: usize, key: &ObjectKey) {
        let kept = &mut self.kinds[index];
        self.changed |= kept.set_findings(key, Vec::new());
        kept.withdraw(key);
    }

    fn absent(&mut self, store: &mut Store, index: usize, now: Instant) {
        let kind = self.kinds[index].kind;
        if self.kinds[index].phase != Phase::Absent {
            // A CRD may be missing because its API server just started.
            self.kinds[index].guard.cannot_see(now);
        }
        store.begin_list(kind);
        for key in store.end_list(kind) {
            self.vanish(index, &key);
        }
        let stored = store.kind_mut(kind);
        (stored.version, stored.known) = (None, true);
        self.kinds[index].left_out.clear();
        self.kinds[index].enter(Phase::Absent, now);
    }

    fn judge(&mut self, index: usize, now: Instant) {
        let kept = &mut self.kinds[index];
        if self.away.is_some() || !matches!(kept.phase, Phase::Synced | Phase::Absent) {
            return;
        }
        let (vanished, in_service) = (kept.vanished.len(), kept.in_service.len());
        let verdict = kept.guard.judge(vanished, in_service, in_service - vanished, now);
        kept.holding = verdict == Verdict::Hold;
        if kept.holding {
            return;
        }
        for key in std::mem::take(&mut kept.vanished) {
            if let Some(resource) = kept.in_service.remove(&key) {
                self.resources.remove(&resource);
                self.changed = true;
            }
        }
    }

    /// Whose a Gateway is depends on the GatewayClasses.
    fn read_gateways_again(&mut self, store: &Store) {
        if !std::mem::take(&mut self.classes_changed) {
            return;
        }
        let kind = self.kinds.iter().find(|kept| kept.kind == WatchedKind::GatewayClass);
        let seen = kind.is_some_and(|kept| kept.phase != Phase::Refused);
        let bodies = |kind| {
            let objects = store.kind(kind).objects.values();
            objects.filter_map(|stored| {
                let value = serde_json::from_str::<Value>(stored.body.as_deref()?).ok()?;
                Some((stored.object.clone(), value))
            })
        };
        let classes: Vec<Value> = bodies(WatchedKind::GatewayClass).map(|(_, body)| body).collect();
        let classes = match seen {
            true => GatewayClasses::of_objects(&classes),
            false => GatewayClasses::default(),
        };
        if classes == self.classes {
            return;
        }
        self.classes = classes;
        let Some(index) = self.kinds.iter().position(|kept| kept.kind == WatchedKind::Gateway)
        else {
            return;
        };
        for (object, body) in bodies(WatchedKind::Gateway) {
            let reading = object::read(&object, &body, &self.classes);
            self.serve(index, object.key.clone(), reading);
        }
    }

    fn findings(&self) -> Vec<Diagnostic> {
        let told = findings::told(&self.resources, &self.kinds);
        let objects = self.kinds.iter().flat_map(|kept| kept.findings.values().flatten());
        let objects = objects.filter(|found| told.has(found));
        let mut all: Vec<Diagnostic> = self.kind_findings.clone();
        let room = limits::KUBERNETES_FINDINGS_MAX - all.len();
        all.extend(objects.clone().take(room).cloned());
        let more = objects.count().saturating_sub(room);
        all.extend((more > 0).then(|| findings::more(more)));
        all.sort();
        all
    }
}

impl KindKeeper {
    fn enter(&mut self, phase: Phase, now: Instant) {
        if self.phase != phase {
            self.phase = phase;
            self.since = now;
        }
        if matches!(phase, Phase::Synced | Phase::Absent) {
            self.last_error = None;
        }
    }

    fn fail(&mut self, phase: Phase, error: String, now: Instant) {
        self.enter(phase, now);
        self.last_error = Some(error);
        self.guard.cannot_see(now);
    }

    /// Its resource is to go, if it has one in service.
    fn withdraw(&mut self, key: &ObjectKey) {
        if self.in_service.contains_key(key) {
            self.vanished.insert(key.clone());
        }
    }

    fn set_findings(&mut self, key: &ObjectKey, findings: Vec<Diagnostic>) -> bool {
        if findings.is_empty() {
            return self.findings.remove(key).is_some();
        }
        self.findings.insert(key.clone(), findings.clone()).is_none_or(|old| old != findings)
    }
}

fn refused_grace() -> Duration {
    Duration::from_millis(limits::REFUSED_GRACE_MS)
}

#[cfg(test)]
mod tests;
