//! What is known at one moment, and what should be in the cluster because of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::kubernetes::POOL_PORTS_ANNOTATION;
use discovery::Catalog;
use jiff::Timestamp;
use model::{
    ClusterName, Diagnostic, Namespace, ObjectName, Resource, ResourceKey, ResourceKind,
    ServiceImport, ServiceName, Severity,
};
use serde_json::{Value, json};

use super::McsKinds;
use super::condition::Transitions;
use super::exports::{ExportFacts, ServiceFacts, Standing, conditions};
use super::imports::ImportFacts;
use super::names::{IMPORTS_NAMESPACE, derived};
use super::pool::{Pool, PoolPorts, Resting, allocate, from_text, left};
use crate::fleet::Exporter;
use crate::kubernetes::kinds::{Kind, SERVICE};
use crate::kubernetes::{Observed, Write};
use crate::limits::{IMPORT_PORT_REST, IMPORTS_LOST_HOLD, IMPORTS_LOST_MIN};

/// Everything that the objects of imports and the status of exports follow from.
#[derive(Debug)]
pub(super) struct World {
    /// This cluster.
    pub(super) own: ClusterName,
    pub(super) pool: Pool,
    pub(super) kinds: McsKinds,
    /// Those that are not being deleted.
    pub(super) namespaces: BTreeSet<String>,
    /// Addresses of gateways that are ready, in their order.
    pub(super) gateways: Vec<IpAddr>,
    /// `None`: in no federation.
    pub(super) member: Option<Arc<Member>>,
    /// What the federation exports to this cluster.
    pub(super) imports: Vec<ServiceImport>,
    /// ServiceImports that somebody else made.
    pub(super) foreign_imports: BTreeSet<ServiceName>,
    /// Services of others that bear the name of a derived one.
    pub(super) foreign_services: BTreeSet<ServiceName>,
    /// Our ServiceImports with their status.
    pub(super) import_objects: Arc<BTreeMap<ServiceName, Arc<Value>>>,
    /// Users' ServiceExports.
    pub(super) exports: Arc<BTreeMap<ServiceName, Arc<Value>>>,
    /// Users' Services with the names of exports, served or not.
    pub(super) services: BTreeSet<ServiceName>,
    pub(super) catalog: Arc<Catalog>,
    /// About exports, from behind the provider.
    pub(super) publishing: Vec<Diagnostic>,
}

/// What the federation has of this cluster's exports.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) acknowledged: BTreeSet<ServiceName>,
    /// Of names that this cluster exports.
    pub(super) exporters: BTreeMap<ServiceName, Vec<Exporter>>,
    pub(super) idle: BTreeMap<ServiceName, Diagnostic>,
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    transitions: Transitions,
    resting: Resting,
    /// Ports of the pool by derived Service, as they were given out last. What stands on the Services
    /// counts at the start only: whoever may edit Services could take another import's port.
    given: BTreeMap<ServiceName, PoolPorts>,
    /// Since when most imports are gone.
    lost: Option<Timestamp>,
    /// Something is between cache and catalog.
    pub(super) is_waiting: bool,
    /// When time alone changes something.
    pub(super) wake_in: Option<Duration>,
}

impl World {
    /// All that should be. What of `own` is not in it is to be deleted.
    pub(super) fn desired(
        &self,
        own: &Observed,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Vec<Write> {
        memory.transitions.begin();
        memory.is_waiting = false;
        memory.wake_in = None;
        let mut writes = self.import_writes(own, memory, now);
        writes.extend(self.export_writes(memory, now));
        memory.transitions.end();
        writes
    }

    fn import_writes(&self, own: &Observed, memory: &mut Memory, now: Timestamp) -> Vec<Write> {
        let held = self.held(own, memory, now);
        let wanted = self.imports.iter().filter(|import| self.is_wanted(&import.name));
        let all =
            held.iter().map(|import| (import, true)).chain(wanted.map(|import| (import, false)));
        let imports: BTreeMap<ServiceName, (&ServiceImport, bool)> =
            all.map(|(import, is_held)| (derived(&import.name), (import, is_held))).collect();
        let mut recorded = recorded(own.of(&SERVICE));
        recorded.extend(std::mem::take(&mut memory.given));
        let used = recorded.values().flat_map(|ports| ports.values().copied()).collect();
        let resting = memory.resting.note(used, now, IMPORT_PORT_REST);
        let wanted =
            imports.iter().filter(|(derived, _)| !self.foreign_services.contains(*derived));
        let wanted = wanted.map(|(derived, (import, _))| {
            (derived.clone(), import.ports.iter().map(|port| port.port).collect())
        });
        let allocation = allocate(self.pool, &recorded, &wanted.collect(), &resting);
        if !allocation.short.is_empty() {
            memory.wake(memory.resting.ends_in(now, IMPORT_PORT_REST));
        }
        let no_ports = PoolPorts::new();
        let mut writes = Vec::new();
        for (derived, (import, is_held)) in &imports {
            let namespace = derived.namespace.as_str();
            let facts = ImportFacts {
                kind: self.kinds.import,
                own: &self.own,
                import,
                is_held: *is_held,
                ports: allocation.ports.get(derived).unwrap_or(&no_ports),
                is_short: allocation.short.contains(derived),
                pool: self.pool,
                gateways: &self.gateways,
                service: own.get(&SERVICE, Some(namespace), derived.name.as_str()),
                is_name_taken: self.foreign_services.contains(derived),
            };
            writes.extend(facts.writes());
            writes.extend(self.import_status(&facts, own, memory, now));
        }
        memory.given = allocation.ports;
        writes
    }

    /// Once the object is there. An import that is held back is one that nobody exports just now:
    /// its status stays.
    fn import_status(
        &self,
        facts: &ImportFacts<'_>,
        own: &Observed,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Option<Write> {
        let (kind, name) = (self.kinds.import?, &facts.import.name);
        let made = own.get(kind, Some(name.namespace.as_str()), name.name.as_str())?;
        if facts.is_held {
            return None;
        }
        let seen = self.import_objects.get(name);
        let there = seen.map_or(made, |seen| &**seen);
        let conditions = [facts.condition()];
        let conditions = memory.transitions.conditions(kind, name, &conditions, there, now);
        let status = json!({ "clusters": facts.clusters(), "conditions": conditions });
        Some(status_write(kind, name, status, seen))
    }

    /// Whether the import is to be in this cluster at all.
    fn is_wanted(&self, name: &ServiceName) -> bool {
        name.namespace.as_str() != IMPORTS_NAMESPACE
            && self.namespaces.contains(name.namespace.as_str())
            && !self.foreign_imports.contains(name)
    }

    /// Imports that are still in the cluster and that the federation has no more, while so many are
    /// gone at once that it looks like a fault. Leaving the federation is none.
    fn held(&self, own: &Observed, memory: &mut Memory, now: Timestamp) -> Vec<ServiceImport> {
        let Some(kind) = self.kinds.import else { return Vec::new() };
        let there: Vec<ServiceImport> = own.of(kind).filter_map(read_import).collect();
        let known: BTreeSet<&ServiceName> =
            self.imports.iter().map(|import| &import.name).collect();
        let count = there.len();
        let lost: Vec<ServiceImport> = there
            .into_iter()
            .filter(|import| !known.contains(&import.name) && self.is_wanted(&import.name))
            .collect();
        let is_much = lost.len() >= IMPORTS_LOST_MIN && lost.len() * 2 > count;
        if !is_much || self.member.is_none() {
            memory.lost = None;
            return Vec::new();
        }
        let since = *memory.lost.get_or_insert(now);
        let Some(left) = left(since, now, IMPORTS_LOST_HOLD) else { return Vec::new() };
        tracing::warn!(
            lost = lost.len(),
            of = count,
            "most imports are gone at once; their Services stay for a while"
        );
        memory.wake(Some(left));
        lost
    }

    fn export_writes(&self, memory: &mut Memory, now: Timestamp) -> Vec<Write> {
        let Some(kind) = self.kinds.export else { return Vec::new() };
        let reading = by_object(&self.catalog.diagnostics);
        let publishing = by_object(&self.publishing);
        let mut writes = Vec::new();
        for (name, object) in &*self.exports {
            let of_export = key(ResourceKind::ServiceExport, name);
            let of_service = key(ResourceKind::Service, name);
            let about_export = found(&reading, &of_export);
            let about_service = found(&reading, &of_service);
            let is_read = self.catalog.resources.get(&of_export).is_some();
            let Some(service) = self.service(name, &of_service, &about_service) else {
                memory.is_waiting = true;
                continue;
            };
            if !is_read && !has_error(&about_export) {
                memory.is_waiting = true;
                continue;
            }
            let facts = ExportFacts {
                name,
                service,
                reading: &about_export,
                service_reading: &about_service,
                publishing: &found(&publishing, &of_export),
                standing: self.standing(name),
            };
            let conditions = conditions(&facts);
            let conditions = memory.transitions.conditions(kind, name, &conditions, object, now);
            let status = json!({ "conditions": conditions });
            writes.push(status_write(kind, name, status, Some(object)));
        }
        writes
    }

    /// `None`: the cache has it, and the catalog is about to.
    fn service(
        &self,
        name: &ServiceName,
        key: &ResourceKey,
        findings: &[&Diagnostic],
    ) -> Option<ServiceFacts> {
        if self.catalog.resources.get(key).is_some() {
            return Some(ServiceFacts::Served);
        }
        if has_error(findings) {
            return Some(ServiceFacts::Refused);
        }
        (!self.services.contains(name)).then_some(ServiceFacts::Missing)
    }

    fn standing(&self, name: &ServiceName) -> Option<Standing<'_>> {
        let member = self.member.as_ref()?;
        Some(Standing {
            own: &self.own,
            is_acknowledged: member.acknowledged.contains(name),
            exporters: member.exporters.get(name).map_or(&[], Vec::as_slice),
            idle: member.idle.get(name),
        })
    }
}

impl Memory {
    fn wake(&mut self, after: Option<Duration>) {
        self.wake_in = [self.wake_in, after].into_iter().flatten().min();
    }
}

/// The ports of the pool as they stand on derived Services, by the Service's name.
pub(super) fn recorded<'a>(
    services: impl Iterator<Item = &'a Value>,
) -> BTreeMap<ServiceName, PoolPorts> {
    let read = |service: &'a Value| {
        let text = service["metadata"]["annotations"][POOL_PORTS_ANNOTATION].as_str()?;
        Some((name_of(service)?, from_text(text)))
    };
    services.filter_map(read).collect()
}

/// Namespace and name of an object.
pub(super) fn name_of(object: &Value) -> Option<ServiceName> {
    let metadata = &object["metadata"];
    let namespace = Namespace::parse(metadata["namespace"].as_str()?).ok()?;
    Some(ServiceName::new(namespace, ObjectName::parse(metadata["name"].as_str()?).ok()?))
}

fn read_import(object: &Value) -> Option<ServiceImport> {
    let manifest = api::parse_object("ServiceImport", object);
    manifest.objects.into_iter().find_map(|object| match object.resource {
        Resource::ServiceImport(import) => Some(import),
        _ => None,
    })
}

fn status_write(
    kind: &'static Kind,
    name: &ServiceName,
    status: Value,
    seen: Option<&Arc<Value>>,
) -> Write {
    let (namespace, name) = (name.namespace.as_str(), name.name.as_str());
    let write = Write::status(kind, Some(namespace), name, None, status);
    match seen {
        Some(seen) => write.seen(seen.clone()),
        None => write,
    }
}

pub(super) fn key(kind: ResourceKind, name: &ServiceName) -> ResourceKey {
    ResourceKey { kind, namespace: Some(name.namespace.clone()), name: name.name.clone() }
}

fn by_object(diagnostics: &[Diagnostic]) -> BTreeMap<&str, Vec<&Diagnostic>> {
    let mut index = BTreeMap::<&str, Vec<&Diagnostic>>::new();
    for diagnostic in diagnostics {
        index.entry(&diagnostic.object).or_default().push(diagnostic);
    }
    index
}

fn found<'a>(
    index: &BTreeMap<&str, Vec<&'a Diagnostic>>,
    key: &ResourceKey,
) -> Vec<&'a Diagnostic> {
    index.get(&*key.to_string()).cloned().unwrap_or_default()
}

fn has_error(findings: &[&Diagnostic]) -> bool {
    findings.iter().any(|found| found.severity == Severity::Error)
}
