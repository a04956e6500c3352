//! The store as operators see it: status, leadership, snapshots, restore and recovery.

use std::path::Path;
use std::sync::Arc;

use model::code::{NOT_A_MEMBER, STORE_FAULT, STORE_NO_QUORUM};
use model::{ClusterId, ClusterName, Revision};

use super::change::unknown;
use super::error::MembershipError;
use super::machine::FleetMachine;
use super::node::{Node, node_id};
use super::types::{MemberRow, Mode, SnapshotFacts, StoreRole, StoreView};
use crate::fleet::{Fleet, FleetState, MemberStatus, Owner};
use crate::limits::PROPOSE_TIMEOUT;
use crate::replica::{self, Now, TransportLinks, VerifyReport};
use crate::store::{self, Role, SnapshotInfo, recover, replace_by_snapshot};

impl Node {
    pub(crate) fn members(&self) -> Vec<MemberRow> {
        let Some((_, fleet)) = self.state() else { return Vec::new() };
        let ages = self.observer.owners(Now::read());
        let heard = |cluster: &ClusterId| {
            let age = ages.iter().find(|age| age.owner == *cluster && *cluster != self.own.id)?;
            Some((age.age, age.standing))
        };
        let paths = self.transport.paths();
        let path = |cluster: &ClusterId| {
            let path = paths.iter().find(|path| path.id == *cluster);
            path.map(|path| path.state.to_string()).unwrap_or_default()
        };
        let mut rows: Vec<MemberRow> = fleet
            .entries()
            .map(|entry| {
                let member = entry.member();
                let cluster = member.cluster;
                let mark = fleet.head(&cluster).map(|head| head.mark);
                MemberRow {
                    cluster,
                    name: member.name.clone(),
                    trust_domains: member.trust_domains.clone(),
                    roles: member.roles,
                    delegation_depth: member.delegation_depth,
                    issuer: *entry.anchor(),
                    active: entry.status() == MemberStatus::Active,
                    revoked: entry.status() == MemberStatus::Revoked,
                    own: cluster == self.own.id,
                    head: mark.map(|mark| (mark.epoch, mark.generation)),
                    records: fleet.records(&cluster).count(),
                    store_role: self.store_role(&cluster),
                    heard: heard(&cluster),
                    path: path(&cluster),
                }
            })
            .collect();
        rows.sort_by(|a, b| (&a.name, a.cluster).cmp(&(&b.name, b.cluster)));
        rows
    }

    /// What a cluster is to the store, as far as this node can tell.
    fn store_role(&self, cluster: &ClusterId) -> StoreRole {
        let node = node_id(cluster);
        let status = self.store().status();
        if self.in_group() {
            return match node {
                _ if status.leader == Some(node) => StoreRole::Leader,
                _ if status.voters.contains(&node) => StoreRole::Voter,
                _ if status.standbys.contains(&node) => StoreRole::Standby,
                _ => StoreRole::Replica,
            };
        }
        match self.feed.standpoint().voters {
            told if told.contains(cluster) => StoreRole::Voter,
            told if told.is_empty() => StoreRole::Unknown,
            _ => StoreRole::Replica,
        }
    }

    pub(crate) fn store_status(&self) -> Result<StoreView, MembershipError> {
        let (applied, fleet) = self.state().ok_or(MembershipError::Alone)?;
        let status = self.store().status();
        let mode = self.mode();
        let name = |node: &u64| {
            let cluster = self.cluster_of(*node)?;
            fleet.entry(&cluster).map(|entry| entry.member().name.clone())
        };
        let told: Vec<u64> = self.feed.standpoint().voters.iter().map(node_id).collect();
        let voters = if mode == Mode::Member { &status.voters } else { &told };
        let source = self.replica.source().filter(|_| mode == Mode::Replica);
        Ok(StoreView {
            mode,
            federation: fleet.federation(),
            role: self.store_role(&self.own.id),
            leader: status.leader.as_ref().and_then(name),
            term: (mode == Mode::Member).then_some(status.term),
            last_log: status.last_log,
            applied,
            voters: voters.iter().filter_map(name).collect(),
            standbys: status.standbys.iter().filter_map(name).collect(),
            quorum_age: status.quorum_ack_age.filter(|_| status.role == Role::Leader),
            source: source.as_ref().and_then(|(cluster, _)| name(&node_id(cluster))),
            source_age: source.map(|(_, since)| since.elapsed()),
            leader_age: status.silence.filter(|_| mode == Mode::Member),
            problem: self.store_problem(&status),
        })
    }

    fn store_problem(&self, status: &store::StoreStatus) -> Option<String> {
        let fenced = status.fenced_by.map(|epoch| {
            format!("the store was recovered without this node (epoch {epoch}); it is fenced off")
        });
        let reseeding = (status.role == Role::Reseeding)
            .then(|| "its log was lost; it waits until the members have let it go".to_string());
        self.store_fault().or(fenced).or(reseeding).or_else(|| status.distrusted.clone())
    }

    /// Hands leadership over; only the leader can, so others are told who that is.
    pub(crate) async fn transfer(
        &self,
        to: Option<&ClusterName>,
    ) -> Result<ClusterName, MembershipError> {
        let fleet = self.fleet()?;
        let status = self.store().status();
        if status.leader != Some(self.own.node) {
            let leader = status.leader.and_then(|node| self.cluster_of(node));
            let leader =
                leader.map_or_else(|| "nobody that this node knows".into(), |l| self.name_of(&l));
            return Err(MembershipError::NotAllowed {
                code: STORE_NO_QUORUM,
                problem: format!("this node does not lead the store; {leader} does"),
                fix: "ask the leader's node",
            });
        }
        let target = match to {
            Some(name) => node_id(&fleet.member_named(name).ok_or_else(|| unknown(name))?.cluster),
            None => {
                let voters = status.peers.iter().filter(|peer| peer.voter);
                let best = voters.max_by_key(|peer| (peer.matched, peer.node_id));
                best.ok_or_else(|| MembershipError::NotAllowed {
                    code: STORE_NO_QUORUM,
                    problem: "there is no other voter".into(),
                    fix: "voters come with the third cluster",
                })?
                .node_id
            }
        };
        let transferred = self.store().transfer(target).await;
        transferred.map_err(|error| MembershipError::NotAllowed {
            code: STORE_NO_QUORUM,
            problem: error.to_string(),
            fix: "`fedctl store peers` shows who votes and answers",
        })?;
        let cluster = self.cluster_of(target).ok_or(MembershipError::Alone)?;
        fleet.entry(&cluster).map(|e| e.member().name.clone()).ok_or(MembershipError::Alone)
    }

    pub(crate) async fn save_snapshot(
        &self,
        path: &Path,
    ) -> Result<SnapshotFacts, MembershipError> {
        self.fleet()?;
        if !self.in_group() {
            return Err(MembershipError::NotAllowed {
                code: STORE_FAULT,
                problem: "this node is a Replica and has only what its own cluster may see".into(),
                fix: "save a snapshot at a voter or standby",
            });
        }
        let saved = self.store().save_snapshot(path).await;
        let info = saved.map_err(|error| failed(&error))?;
        Ok(facts(&info))
    }

    pub(crate) async fn verify_snapshot(path: &Path) -> Result<SnapshotFacts, MembershipError> {
        let path = path.to_path_buf();
        let verify = move || store::verify_snapshot::<FleetMachine>(&path);
        let verified = tokio::task::spawn_blocking(verify).await;
        let info = verified.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok(facts(&info))
    }

    /// Begins again from a file, in a new store epoch, with this node as the one voter.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        path: &Path,
    ) -> Result<Revision, MembershipError> {
        let Ok(_one) = self.changing.try_lock() else { return Err(MembershipError::Busy) };
        let (path, own) = (path.to_path_buf(), self.own.id);
        let file = path.clone();
        let load = move || store::load_snapshot::<FleetMachine>(&file);
        let loaded = tokio::task::spawn_blocking(load).await.map_err(|error| failed(&error))?;
        let (_, machine) = loaded.map_err(|error| failed(&error))?;
        if machine.0.fleet().member(&own).is_none() {
            return Err(MembershipError::NotAllowed {
                code: NOT_A_MEMBER,
                problem: "this cluster, by its federation key, is no active member in the snapshot"
                    .into(),
                fix: "restore it at a cluster that was a member when it was saved",
            });
        }
        let node = self.own.node;
        self.begin_store(move |disk| {
            let restored = replace_by_snapshot::<FleetMachine>(&path, disk, node);
            restored.map(|_| ()).map_err(|error| error.to_string())
        })
        .await
    }

    /// Goes on from what this node has, in a new store epoch, with this node as the one voter.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<Revision, MembershipError> {
        let Ok(_one) = self.changing.try_lock() else { return Err(MembershipError::Busy) };
        self.fleet()?;
        if !self.in_group() {
            return Err(MembershipError::NotAllowed {
                code: STORE_FAULT,
                problem: "this node is a Replica, so it has no log to go on from".into(),
                fix: "recover at a voter or standby, or restore a snapshot",
            });
        }
        let node = self.own.node;
        self.begin_store(move |disk| {
            let recovered = recover::<FleetMachine>(disk, node);
            recovered.map(|_| ()).map_err(|error| error.to_string())
        })
        .await
    }

    /// Verifies what is on disk, and lays other members' Heads beside it.
    pub(crate) async fn verify_all(&self, fleet: &Arc<Fleet>) -> VerifyReport {
        let links = TransportLinks::new(self.transport.clone(), self.observer.clone());
        if !self.in_group() {
            return self.replica.verify_all(&links).await;
        }
        let machine = self.store().state();
        let check = move || {
            let state = FleetState::load(machine.0.to_kv()).map_err(|error| error.to_string())?;
            Ok(state.fleet().owners().flat_map(Owner::records).count())
        };
        let checked = tokio::task::spawn_blocking(check).await;
        let local = checked.unwrap_or_else(|error| Err(format!("the check ended badly: {error}")));
        replica::verify_all(&self.observer, &links, fleet, local).await
    }

    /// Changes the closed store, and waits until it leads again.
    async fn begin_store(
        &self,
        change: impl FnOnce(&dyn store::Disk) -> Result<(), String> + Send + 'static,
    ) -> Result<Revision, MembershipError> {
        self.reopen(change).await?;
        let store = self.store();
        let mut leadership = store.leadership();
        let led = leadership.wait_for(|leadership| leadership.own);
        let leads = tokio::time::timeout(PROPOSE_TIMEOUT, led).await.is_ok();
        if !leads {
            let problem = "the store is open again, but this node does not lead it yet".into();
            return Err(MembershipError::Store { code: STORE_FAULT, problem });
        }
        let linear = store.linearizable().await.map_err(|error| failed(&error))?;
        tracing::warn!(target: "fedgate::audit", revision = %linear, "the store began a new epoch");
        Ok(linear)
    }
}

fn facts(info: &SnapshotInfo) -> SnapshotFacts {
    SnapshotFacts {
        revision: info.revision,
        bytes: info.bytes,
        pairs: info.pairs,
        digest: info.digest,
    }
}

fn failed(error: &dyn std::fmt::Display) -> MembershipError {
    MembershipError::Store { code: STORE_FAULT, problem: error.to_string() }
}
