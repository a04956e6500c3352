//! Fedgate's own kinds (`fedgate.dev`): their status, ClusterPeers for the federation's members, and
//! what Federation and JoinGrant ask for.
//!
//! ```text
//! cache, catalog, federation, findings, gateways --world--> World --statuses (pure)--> API server
//! Federation, join token in a file --entry--> a federation founded or joined
//! JoinGrant --join_grants, issue--> a token in a Secret
//! ```

mod audited;
mod entry;
mod federation;
mod grants;
mod issue;
mod join_grants;
mod peers;
mod policies;
mod status;
mod world;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use discovery::kubernetes::WatchedKind;
use jiff::Timestamp;
use model::{ClusterName, ClusterPeer};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::kinds::Kind;
use super::{Cluster, Observed, Owned, Write, Writer, changed};
use crate::intake::{Catalogs, Findings, Shared};
use crate::kubernetes::calls::Failure;
use crate::limits::OWN_KINDS_LOOK_INTERVAL;
use federation::Fared;
use status::{Object, text};
use world::{KINDS, Sources, World};

/// Starts everything about these kinds.
pub(super) fn start(cluster: &Cluster) {
    let trouble = Arc::new(watch::Sender::new(None));
    cluster.start(OwnWriter::new(cluster, trouble.subscribe()));
    cluster.around.tasks.spawn(entry::run(cluster.clone(), trouble));
    let progress = Arc::new(watch::Sender::new(join_grants::Progress::default()));
    let (asks, asked) = watch::channel(join_grants::Asks::default());
    cluster.start(join_grants::JoinGrantWriter::new(cluster, asks, progress.clone()));
    cluster.around.tasks.spawn(issue::run(cluster.clone(), asked, progress));
}

/// Keeps the statuses, and the members' ClusterPeers.
#[derive(Debug)]
struct OwnWriter {
    cluster: Cluster,
    sources: Sources,
    memory: Memory,
    trouble: watch::Receiver<Option<Failure>>,
    cache: watch::Receiver<u64>,
    catalogs: Catalogs,
    shared: watch::Receiver<Arc<Shared>>,
    findings: watch::Receiver<Arc<Findings>>,
    changes: Vec<u64>,
}

impl OwnWriter {
    fn new(cluster: &Cluster, trouble: watch::Receiver<Option<Failure>>) -> Self {
        Self {
            cluster: cluster.clone(),
            sources: Sources::default(),
            memory: Memory::default(),
            trouble,
            cache: cluster.cache.changes(),
            catalogs: cluster.around.catalogs.clone(),
            shared: cluster.around.shared.clone(),
            findings: cluster.around.findings.clone(),
            changes: Vec::new(),
        }
    }
}

impl Writer for OwnWriter {
    const NAME: &'static str = "own-kinds";

    fn owned(&self) -> Vec<Owned> {
        let kind = Kind::served(&self.cluster.cache, WatchedKind::ClusterPeer);
        kind.into_iter().map(|kind| Owned { kind, namespace: None }).collect()
    }

    fn desired(&mut self, own: &Observed, now: Timestamp) -> Option<Vec<Write>> {
        let trouble = self.trouble.borrow_and_update().clone();
        self.cache.mark_unchanged();
        self.catalogs.mark_unchanged();
        self.shared.mark_unchanged();
        self.findings.mark_unchanged();
        self.changes = self.cluster.cache.changes_of_each(&KINDS);
        let fared = Fared::now(&self.cluster.around.membership, trouble);
        let world = self.sources.world(&self.cluster, fared)?;
        let served = |kind| Kind::served(&self.cluster.cache, kind);
        Some(desired(&world, served, own, &mut self.memory, now))
    }

    async fn changed(&mut self) {
        // Gateways' reports and the store's voters come without a word.
        let look = tokio::time::sleep(OWN_KINDS_LOOK_INTERVAL);
        tokio::pin!(look);
        loop {
            tokio::select! {
                () = changed(&mut self.cache) => {
                    if self.cluster.cache.changes_of_each(&KINDS) == self.changes { continue }
                }
                () = changed(&mut self.catalogs) => {}
                () = changed(&mut self.shared) => {}
                () = changed(&mut self.findings) => {}
                () = changed(&mut self.trouble) => {}
                () = &mut look => {}
            }
            return;
        }
    }
}

/// What was said last. What the cache has may be older, and would make conditions begin anew.
#[derive(Debug, Default)]
struct Memory {
    said: BTreeMap<Subject, (String, Value)>,
    seen: policies::Seen,
    told: peers::Told,
}

/// Kind, namespace and name.
type Subject = (WatchedKind, Option<String>, String);

impl Memory {
    /// What is gone is forgotten.
    fn forget(&mut self, world: &World) {
        let policies: BTreeSet<(&str, &str)> = world
            .policies
            .iter()
            .map(|policy| (policy.namespace().unwrap_or_default(), policy.name()))
            .collect();
        self.seen.retain(|(namespace, name, _), _| policies.contains(&(namespace, name)));
        let peers: BTreeSet<&str> = world.peers.iter().map(Object::name).collect();
        let members: BTreeSet<&str> = world.members().map(|peer| peer.name.as_str()).collect();
        self.told.retain(|name, _| peers.contains(&**name) || members.contains(&**name));
    }
}

/// `served`: a kind in the version that the API server has.
fn desired(
    world: &World,
    served: impl Fn(WatchedKind) -> Option<&'static Kind>,
    own: &Observed,
    memory: &mut Memory,
    now: Timestamp,
) -> Vec<Write> {
    memory.forget(world);
    let before = std::mem::take(&mut memory.said);
    let mut statuses = Statuses { served: &served, before, said: BTreeMap::new(), writes: vec![] };
    for object in &*world.policies {
        statuses.say(WatchedKind::AccessPolicy, &object.object, |there| {
            policies::status(world, &mut memory.seen, object, there, now)
        });
    }
    for object in &*world.grants {
        statuses.say(WatchedKind::NamespaceGrant, &object.object, |there| {
            grants::status(world, object, there, now)
        });
    }
    for object in &*world.peers {
        statuses.say(WatchedKind::ClusterPeer, &object.object, |there| {
            peers::of_user(world, &mut memory.told, object, there, now)
        });
    }
    for object in &world.federations {
        statuses.say(WatchedKind::Federation, object, |there| {
            federation::status(&world.fared, object, there, now)
        });
    }
    let objects = served(WatchedKind::ClusterPeer).map(|kind| members(world, kind, own));
    for (name, write) in objects.into_iter().flatten() {
        // A status that comes before its object is lost.
        let is_there = own.get(write.target.kind, None, name.as_str()).is_some();
        if let Some(object) = world.own_peers.get(name.as_str()).filter(|_| is_there) {
            statuses.say(WatchedKind::ClusterPeer, object, |there| {
                peers::of_member(world, &mut memory.told, name, object, there, now)
            });
        }
        statuses.writes.push(write);
    }
    memory.said = statuses.said;
    statuses.writes
}

/// ClusterPeers for the other members. A user's of the same name is in service in its place.
fn members<'a>(
    world: &'a World,
    kind: &'static Kind,
    own: &Observed,
) -> Vec<(&'a ClusterName, Write)> {
    let of_users: BTreeSet<&str> = world.peers.iter().map(Object::name).collect();
    let ours = world.members().filter(|peer| !of_users.contains(peer.name.as_str()));
    let write = |peer: &'a ClusterPeer| {
        let name = peer.name.as_str();
        // One that was there stays while its document cannot be told.
        let kept = || Some(json!({ "spec": own.get(kind, None, name)?.get("spec")?.clone() }));
        let fields = peers::fields(peer).or_else(kept)?;
        Some((&peer.name, Write::whole(kind, None, name, fields)))
    };
    ours.filter_map(write).collect()
}

/// The statuses of one round.
struct Statuses<'a> {
    served: &'a dyn Fn(WatchedKind) -> Option<&'static Kind>,
    before: BTreeMap<Subject, (String, Value)>,
    said: BTreeMap<Subject, (String, Value)>,
    writes: Vec<Write>,
}

impl Statuses<'_> {
    /// `status` is given what was said last.
    fn say(
        &mut self,
        kind: WatchedKind,
        object: &Arc<Value>,
        status: impl FnOnce(Option<&Value>) -> Value,
    ) {
        let Some(of) = (self.served)(kind) else { return };
        let Some(name) = text(object, "/metadata/name") else { return };
        let namespace = text(object, "/metadata/namespace");
        let subject = (kind, namespace.map(str::to_string), name.to_string());
        let uid = text(object, "/metadata/uid").unwrap_or_default();
        let before = self.before.get(&subject).filter(|(of, _)| of == uid);
        let status = status(before.map(|(_, said)| said).or_else(|| object.get("status")));
        // Of ancestors there is one list for all controllers.
        let version = policies::version(object).filter(|_| policies::has_others(&status));
        let write = Write::status(of, namespace, name, version, status.clone());
        self.writes.push(write.seen(object.clone()));
        self.said.insert(subject, (uid.to_string(), status));
    }
}
