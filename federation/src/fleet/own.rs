//! A cluster's own objects as the records that it publishes.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::code::{OBJECT_INVALID, QUOTA_EXCEEDED, SERVICE_NOT_FOUND};
use model::{
    ClusterId, ClusterPeer, Diagnostic, Namespace, Resource, ResourceKey, ResourceKind,
    ResourceSet, Revision, ServiceExport, ServiceName, Severity,
};
use wire::store::limits::{
    COMMAND_BYTES_MAX, RECORD_BYTES_MAX, RECORD_BYTES_PER_CLUSTER_MAX, RECORDS_PER_CLUSTER_MAX,
};
use wire::store::{self, Hash, RecordPut, StoreKey, digest_of_records};

use super::Owner;
use super::limits::{DIAGNOSTICS_MAX, NAMESPACES_PER_CLUSTER_MAX};

/// Bytes of puts and removes in one step: the rest of a command is for its Head and framing.
const STEP_BYTES_MAX: usize = COMMAND_BYTES_MAX - 16 * 1024;
/// What a record costs in a command beside its key and bytes.
const FRAMING_BYTES: usize = 16;

/// One step of a cluster's towards the records that it wants to have: what a command can hold, and
/// what the Head is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnStep {
    pub puts: Vec<RecordPut>,
    pub removes: Vec<StoreKey>,
    /// Over all records after the step.
    pub digest: Hash,
    pub records: u32,
}

/// Translates a cluster's objects to records: its ClusterPeer, its ServiceExports with the ports of
/// their Services, its AccessPolicies and NamespaceGrants. Returns the steps from `previous` to
/// them: none when nothing changed, several when one command cannot hold it. An object that did not
/// change keeps its bytes, and so its salt; `salt` gives 16 random bytes for each other one.
///
/// An object that cannot be published is left out with a diagnostic. Of more objects than the quota has
/// room for, those stay that were published first: what serves is not put out by what is new.
pub fn own_records(
    own: &ClusterId,
    peer: &ClusterPeer,
    catalog: &ResourceSet,
    previous: Option<&Owner>,
    salt: &mut dyn FnMut() -> [u8; 16],
) -> (Vec<OwnStep>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let resources = published(peer, catalog, &mut diagnostics);
    let old: BTreeMap<StoreKey, Bytes> = previous
        .into_iter()
        .flat_map(Owner::records)
        .map(|record| (record.key().clone(), record.bytes().clone()))
        .collect();
    let mut new = BTreeMap::new();
    let mut quota = Quota::default();
    for (store_key, resource) in in_turn(own, resources, previous) {
        let kept = old.get(&store_key).filter(|bytes| says(&store_key, bytes, &resource));
        let bytes = match kept {
            Some(bytes) => bytes.clone(),
            None => Bytes::from(store::Record::encode(salt(), &resource)),
        };
        match quota.take(&store_key, &bytes, &resource) {
            Ok(()) => {
                new.insert(store_key, bytes);
            }
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    diagnostics.truncate(DIAGNOSTICS_MAX);
    (steps(old, new), diagnostics)
}

/// What belongs in the store, the ClusterPeer first.
fn published(
    peer: &ClusterPeer,
    catalog: &ResourceSet,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Resource> {
    let mut resources = vec![Resource::ClusterPeer(peer.clone())];
    for resource in catalog.values() {
        let resource = match resource {
            Resource::ServiceExport(export) => match exported(export, catalog) {
                Ok(export) => Resource::ServiceExport(export),
                Err(diagnostic) => {
                    diagnostics.push(diagnostic);
                    continue;
                }
            },
            Resource::AccessPolicy(_) | Resource::NamespaceGrant(_) => resource.clone(),
            _ => continue,
        };
        resources.push(resource);
    }
    resources
}

/// The order in which the quota is spent: the ClusterPeer, without which nobody reaches the cluster,
/// then what stands, the oldest first, then what is new, by its name.
fn in_turn(
    own: &ClusterId,
    resources: Vec<Resource>,
    previous: Option<&Owner>,
) -> Vec<(StoreKey, Resource)> {
    let stands = previous.into_iter().flat_map(Owner::records);
    let stands: BTreeMap<&StoreKey, Revision> =
        stands.map(|record| (record.key(), record.since())).collect();
    let keyed = resources.into_iter().map(|it| (StoreKey::of(*own, &it.key()), it));
    let mut keyed: Vec<(StoreKey, Resource)> = keyed.collect();
    keyed.sort_by_key(|(key, resource)| {
        let since = stands.get(key);
        (!matches!(resource, Resource::ClusterPeer(_)), since.is_none(), since.copied())
    });
    keyed
}

/// The export with its Service's ports.
fn exported(export: &ServiceExport, catalog: &ResourceSet) -> Result<ServiceExport, Diagnostic> {
    let ServiceName { namespace, name } = export.name.clone();
    let key = ResourceKey { kind: ResourceKind::Service, namespace: Some(namespace), name };
    match catalog.get(&key).map(|resource| &**resource) {
        Some(Resource::Service(service)) => {
            Ok(ServiceExport { name: export.name.clone(), ports: service.ports.clone() })
        }
        _ => Err(Diagnostic {
            severity: Severity::Error,
            code: SERVICE_NOT_FOUND,
            object: Resource::ServiceExport(export.clone()).key().to_string(),
            field: "metadata.name".into(),
            message: format!("there is no Service {}, so it is not published", export.name),
            fix: "create the Service, or remove the ServiceExport".into(),
        }),
    }
}

fn says(key: &StoreKey, bytes: &Bytes, resource: &Resource) -> bool {
    let read = store::Record::decode(key, bytes).ok().and_then(|record| record.resource);
    read.as_ref() == Some(resource)
}

/// What is left of the cluster's quota.
#[derive(Debug, Default)]
struct Quota {
    records: usize,
    bytes: usize,
    namespaces: std::collections::BTreeSet<Option<Namespace>>,
}

impl Quota {
    fn take(&mut self, key: &StoreKey, bytes: &Bytes, what: &Resource) -> Result<(), Diagnostic> {
        let error = |code, message: String, fix: &str| Diagnostic {
            severity: Severity::Error,
            code,
            object: what.key().to_string(),
            field: String::new(),
            message: format!("it is not published: {message}"),
            fix: fix.into(),
        };
        if bytes.len() > RECORD_BYTES_MAX {
            let message = format!("{} bytes are more than {RECORD_BYTES_MAX}", bytes.len());
            return Err(error(OBJECT_INVALID, message, "make the object smaller"));
        }
        // What others could not read would help nobody.
        if !says(key, bytes, what) {
            let message = match store::Record::decode(key, bytes) {
                Err(problem) => problem.to_string(),
                Ok(_) => "it does not survive being sent".into(),
            };
            return Err(error(OBJECT_INVALID, message, "mend the value that is named"));
        }
        let (size, namespace) = (key.encode().len() + bytes.len(), &key.namespace);
        let namespaces = self.namespaces.len() + usize::from(!self.namespaces.contains(namespace));
        if self.records + 1 > RECORDS_PER_CLUSTER_MAX
            || self.bytes + size > RECORD_BYTES_PER_CLUSTER_MAX
            || namespaces > NAMESPACES_PER_CLUSTER_MAX
        {
            let message = format!(
                "a cluster has at most {RECORDS_PER_CLUSTER_MAX} records of \
                 {RECORD_BYTES_PER_CLUSTER_MAX} bytes together in {NAMESPACES_PER_CLUSTER_MAX} \
                 namespaces, and older ones have the room"
            );
            return Err(error(QUOTA_EXCEEDED, message, "export less"));
        }
        self.records += 1;
        self.bytes += size;
        self.namespaces.insert(namespace.clone());
        Ok(())
    }
}

/// Removes first: then no step is beyond the quota if the end is not.
fn steps(mut now: BTreeMap<StoreKey, Bytes>, wanted: BTreeMap<StoreKey, Bytes>) -> Vec<OwnStep> {
    enum Change {
        Remove(StoreKey),
        Put(StoreKey, Bytes),
    }
    let gone = now.keys().filter(|key| !wanted.contains_key(*key)).cloned().map(Change::Remove);
    let new = wanted.iter().filter(|(key, bytes)| now.get(*key) != Some(*bytes));
    let changes: Vec<Change> =
        gone.chain(new.map(|(key, bytes)| Change::Put(key.clone(), bytes.clone()))).collect();
    let mut steps = Vec::new();
    let mut step: Vec<Change> = Vec::new();
    let mut bytes = 0;
    let mut finish = |step: Vec<Change>| {
        let (mut puts, mut removes) = (Vec::new(), Vec::new());
        for change in step {
            match change {
                Change::Remove(key) => {
                    now.remove(&key);
                    removes.push(key);
                }
                Change::Put(key, record) => {
                    now.insert(key.clone(), record.clone());
                    puts.push(RecordPut { key, record });
                }
            }
        }
        let digest = digest_of_records(now.iter().map(|(key, bytes)| (key, &bytes[..])));
        let records = u32::try_from(now.len()).expect("the quota is far below");
        steps.push(OwnStep { puts, removes, digest, records });
    };
    for change in changes {
        let size = match &change {
            Change::Remove(key) => key.encode().len(),
            Change::Put(key, record) => key.encode().len() + record.len(),
        };
        if bytes + size + FRAMING_BYTES > STEP_BYTES_MAX {
            finish(std::mem::take(&mut step));
            bytes = 0;
        }
        bytes += size + FRAMING_BYTES;
        step.push(change);
    }
    if !step.is_empty() {
        finish(step);
    }
    steps
}
