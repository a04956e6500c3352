//! What all parts of membership share: who this cluster is, its store, its peers, its view of the
//! federation.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{Ca, FederationKey};
use model::code::STORE_FAULT;
use model::{
    ClusterId, ClusterName, ClusterPeer, Diagnostic, FederationId, PeerAddress, Resource, Revision,
    SpiffeId, TrustDomain,
};
use rand::Rng as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use wire::resource::StoreNews;
use wire::store::{Domain, Head, Mark, Member, Signed};

use super::attempts::Attempts;
use super::contacts::Contacts;
use super::departed::Departed;
use super::error::MembershipError;
use super::grants::Grants;
use super::machine::FleetMachine;
use super::mark::SignedMark;
use super::pending::Pending;
use super::revocations::Early;
use super::types::Mode;
use crate::cordon::CordonWatch;
use crate::denied::Denials;
use crate::fleet::Fleet;
use crate::gateways::Gateways;
use crate::intake::{self, Catalogs};
use crate::limits::{APPLIED_TIMEOUT, LEADER_SILENCE_MAX};
use crate::replica::{Feed, Observer, Replica, WatchServer};
use crate::store::{Disk, Peers, Profile, Role, Store, StoreConfig};
use crate::transport::Transport;

/// Where other clusters reach this one's gateways, now and whenever that changes.
pub(crate) type Advertised = watch::Receiver<Arc<Vec<PeerAddress>>>;

/// Who this cluster is.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) id: ClusterId,
    /// Its number in the Raft group.
    pub(crate) node: u64,
    pub(crate) name: ClusterName,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) advertise: Advertised,
    pub(crate) cordons: CordonWatch,
    pub(crate) denials: Arc<Denials>,
    pub(crate) key: FederationKey,
    pub(crate) ca: Arc<Ca>,
}

/// The federation as this node is in it.
pub(crate) struct Node {
    pub(crate) own: Own,
    /// The verified state, whichever way it came.
    pub(crate) feed: Feed,
    pub(crate) observer: Observer,
    pub(crate) replica: Replica,
    pub(crate) transport: Transport,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) raft_peers: Arc<dyn Peers>,
    pub(crate) profile: Profile,
    pub(super) store: RwLock<Store<FleetMachine>>,
    /// The store was closed and opened again: who follows it begins anew.
    pub(super) reopened: watch::Sender<u64>,
    /// The state of the store is another one, and perhaps an older one, after a restore.
    pub(super) state_replaced: AtomicBool,
    pub(crate) catalogs: Catalogs,
    pub(crate) shared: watch::Sender<Arc<intake::Shared>>,
    /// This cluster's Head, signed within the last half minute.
    pub(crate) head: watch::Sender<Option<Signed>>,
    pub(crate) mark: Mutex<SignedMark>,
    /// A publication whose outcome is not known.
    pub(crate) unsettled: tokio::sync::Mutex<Option<bytes::Bytes>>,
    pub(crate) publish_again: Notify,
    /// All exports are withdrawn: the cluster is about to leave.
    pub(crate) withdrawn: AtomicBool,
    pub(super) own_findings: Mutex<Vec<Diagnostic>>,
    /// On the leader: clusters on their way out, and until when they are kept out of the group.
    pub(super) excluded: Mutex<BTreeMap<ClusterId, Instant>>,
    /// One more was added to these.
    pub(super) outgoing: Notify,
    pub(super) leader: Mutex<Option<ClusterId>>,
    pub(super) departed: Departed,
    pub(super) contacts: Arc<Contacts>,
    pub(crate) grants: Grants,
    pub(crate) pending: Pending,
    pub(crate) attempts: Attempts,
    /// Held by the one founding, join, leave or restore in progress.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) watch: WatchServer,
    pub(crate) gateways: Gateways,
    pub(crate) news: watch::Sender<Arc<StoreNews>>,
    pub(super) early: Early,
    /// Ends everything that this node does.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Node {
    pub(crate) fn store(&self) -> Store<FleetMachine> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest verified state; `None` while the node is alone.
    pub(crate) fn state(&self) -> Option<(Revision, Arc<Fleet>)> {
        self.feed.current().map(|state| (state.revision, state.fleet))
    }

    /// The state, for what makes sense within a federation only.
    pub(crate) fn fleet(&self) -> Result<Arc<Fleet>, MembershipError> {
        let state = self.state().map(|(_, fleet)| fleet);
        state.ok_or_else(|| match self.has_lost_its_state() {
            true if !self.contacts.is_empty() => MembershipError::Store {
                code: STORE_FAULT,
                problem: "it was damaged, and is fetched from the other members; gateways keep \
                          what they have till then"
                    .into(),
            },
            true => MembershipError::Store {
                code: STORE_FAULT,
                problem: "it was damaged, and nothing of it is left; `fedctl leave --force`, then \
                          join anew; gateways keep what they have till then"
                    .into(),
            },
            false => MembershipError::Alone,
        })
    }

    /// This cluster's own Member in force.
    pub(crate) fn own_member(&self) -> Result<Member, MembershipError> {
        let fleet = self.fleet()?;
        fleet.member(&self.own.id).cloned().ok_or(MembershipError::Excluded)
    }

    /// Its store was damaged and emptied: it neither votes nor serves until it was let go.
    pub(crate) fn has_lost_its_log(&self) -> bool {
        self.store().status().role == Role::Reseeding
    }

    /// It was in a federation, and nothing of that can be read any more. It is not alone: it neither
    /// founds nor joins another one before it has left this one.
    pub(super) fn has_lost_its_state(&self) -> bool {
        self.state().is_none() && (self.has_lost_its_log() || self.replica.is_damaged())
    }

    /// Why the store takes no more writes, if it has refused one. It is never tried again by this
    /// process: nobody knows what is on the device.
    pub(crate) fn store_fault(&self) -> Option<String> {
        self.store().status().fault.or_else(|| self.disk.fault())
    }

    /// The federation that this node is in; none only if it is alone.
    pub(super) fn federation(&self) -> Result<Option<FederationId>, MembershipError> {
        match self.fleet() {
            Ok(fleet) => Ok(fleet.federation()),
            Err(MembershipError::Alone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether this node votes or stands by. The log does not tell a node that it was taken out; who
    /// hears no leader, is fed by others, and does not vote according to them, is out.
    pub(crate) fn in_group(&self) -> bool {
        let status = self.store().status();
        let listed =
            status.voters.contains(&self.own.node) || status.standbys.contains(&self.own.node);
        if status.silence.is_none_or(|silence| silence < LEADER_SILENCE_MAX) {
            return listed;
        }
        let told = self.feed.standpoint();
        listed && (!told.relayed || told.voters.contains(&self.own.id))
    }

    pub(crate) fn mode(&self) -> Mode {
        match self.state() {
            None => Mode::Alone,
            Some(_) if self.in_group() => Mode::Member,
            Some(_) => Mode::Replica,
        }
    }

    /// Waits, but not for ever, until this node has what was just changed; says whether it has.
    pub(crate) async fn applied(&self, revision: Revision) -> bool {
        let mut revisions = self.feed.revision();
        let reached = revisions.wait_for(|now| now.is_some_and(|now| now >= revision));
        let in_time = tokio::time::timeout(APPLIED_TIMEOUT, reached).await.is_ok();
        if !in_time {
            tracing::warn!(%revision, "this node has not heard of its own change yet");
        }
        in_time
    }

    /// Active members but in order of seniority: who was admitted by the root first, then the
    /// others. The same on every node that has the same state.
    pub(crate) fn elders(&self) -> impl Iterator<Item = ClusterId> + use<> {
        let mut elders: Vec<(Revision, ClusterId)> = Vec::new();
        if let Some((_, fleet)) = self.state() {
            for member in fleet.members() {
                // The ClusterPeer's record came with the admission, or soon after it.
                let first = fleet.records(&member.cluster).map(crate::fleet::Record::since).min();
                let last = Revision { epoch: u64::MAX, index: u64::MAX };
                let since = if member.is_root() { None } else { Some(first.unwrap_or(last)) };
                elders.push((since.unwrap_or_default(), member.cluster));
            }
        }
        elders.sort();
        elders.into_iter().map(|(_, cluster)| cluster)
    }

    pub(crate) fn name_of(&self, cluster: &ClusterId) -> String {
        let known = self.state();
        let entry = known.as_ref().and_then(|(_, fleet)| fleet.entry(cluster));
        entry.map_or_else(|| cluster.to_string(), |entry| entry.member().name.to_string())
    }

    /// Which member has this number in the Raft group.
    pub(crate) fn cluster_of(&self, node: u64) -> Option<ClusterId> {
        let (_, fleet) = self.state()?;
        fleet.entries().map(|entry| entry.member().cluster).find(|id| node_id(id) == node)
    }

    pub(crate) fn channel(&self, cluster: &ClusterId) -> Option<Channel> {
        let (_, fleet) = self.state()?;
        let member = fleet.member(cluster)?;
        self.transport.channel(&member.name).ok()
    }

    pub(crate) fn last_leader(&self) -> Option<ClusterId> {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remember_leader(&self, leader: Option<ClusterId>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        rand::rng().fill(&mut bytes[..]);
        bytes
    }

    pub(crate) fn sign(&self, domain: Domain, payload: Vec<u8>) -> Signed {
        let signature = self.own.key.sign(domain.as_str(), &payload);
        Signed { payload: payload.into(), key_id: self.own.key.key_id(), signature }
    }

    pub(crate) fn sign_head(&self, head: Head) -> Signed {
        self.sign(Domain::Head, head.encode())
    }

    pub(crate) fn signed_mark(&self) -> Mark {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner).get()
    }

    pub(crate) fn raise_mark(&self, mark: Mark) -> Result<(), MembershipError> {
        let mut signed = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        signed.raise(mark).map_err(|error| MembershipError::Disk { problem: error.to_string() })
    }

    /// The mark of the next Head, on disk before it is used.
    pub(crate) fn next_mark(
        &self,
        fleet: &Fleet,
        member: &Member,
    ) -> Result<Mark, MembershipError> {
        let mut signed = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let published = fleet.high_water(&self.own.id);
        let known = [published, Some(signed.get())].into_iter().flatten();
        let generations = known.filter(|mark| mark.epoch == member.epoch);
        let generation = generations.map(|mark| mark.generation).max().unwrap_or(0) + 1;
        let mark = Mark { epoch: member.epoch, generation };
        signed.raise(mark).map_err(|error| MembershipError::Disk { problem: error.to_string() })?;
        Ok(mark)
    }

    pub(crate) fn note_own(&self, diagnostics: Vec<Diagnostic>) {
        let mut findings = self.own_findings.lock().unwrap_or_else(PoisonError::into_inner);
        if *findings != diagnostics {
            *findings = diagnostics;
            drop(findings);
            self.publish_shared();
        }
    }

    /// Tells the intake what the federation adds to this cluster's own objects.
    pub(crate) fn publish_shared(&self) {
        let Some((_, fleet)) = self.state() else {
            // With the store everything about the federation is lost: gateways keep what they have.
            let awaited = self.has_lost_its_state();
            let nothing = Arc::new(intake::Shared { awaited, ..intake::Shared::default() });
            self.shared
                .send_if_modified(|known| std::mem::replace(known, nothing.clone()) != nothing);
            return;
        };
        let (mut resources, mut diagnostics) = crate::fleet::resources_for(&fleet, &self.own.id);
        self.take_out_of_service(&fleet, &mut resources);
        let departed = self.departed.list().into_iter();
        let departed = departed.map(|(_, peer)| ClusterPeer { cordoned: true, ..peer });
        resources.extend(departed.map(Resource::ClusterPeer));
        diagnostics
            .extend(self.own_findings.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let shared = Arc::new(intake::Shared { resources, diagnostics, awaited: false });
        self.shared.send_if_modified(|known| {
            let changed = *known != shared;
            *known = shared;
            changed
        });
    }

    /// Exports of owners whose last word is too old, and everything of those who were revoked.
    fn take_out_of_service(&self, fleet: &Fleet, resources: &mut Vec<Resource>) {
        let (shut_out, _) = self.shut_out_early(fleet);
        let mut withdrawn = self.observer.withdrawn().borrow().clone();
        withdrawn.extend(&shut_out);
        let name = |id: &ClusterId| fleet.entry(id).map(|entry| entry.member().name.clone());
        let withdrawn: Vec<ClusterName> = withdrawn.iter().filter_map(name).collect();
        let shut_out: Vec<ClusterName> = shut_out.iter().filter_map(name).collect();
        resources.retain_mut(|resource| match resource {
            Resource::ClusterPeer(peer) => !shut_out.contains(&peer.name),
            Resource::ServiceImport(import) => {
                import.clusters.retain(|cluster| !withdrawn.contains(cluster));
                !import.clusters.is_empty()
            }
            _ => true,
        });
    }

    /// Closes the store, changes its disk, and opens it again.
    pub(crate) async fn reopen(
        &self,
        change: impl FnOnce(&dyn Disk) -> Result<(), String> + Send + 'static,
    ) -> Result<(), MembershipError> {
        let failed = |problem: String| MembershipError::Store { code: STORE_FAULT, problem };
        self.store().shutdown().await;
        let disk = self.disk.clone();
        let changed = tokio::task::spawn_blocking(move || change(&*disk)).await;
        let changed = changed.map_err(|error| error.to_string()).and_then(|changed| changed);
        // It is opened in any case: a node without a store could not even be asked.
        let opened =
            open_store(self.own.node, self.profile, self.disk.clone(), self.raft_peers.clone());
        let store = opened.await.map_err(|error| failed(error.to_string()))?;
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = store;
        self.state_replaced.store(true, Ordering::Relaxed);
        self.reopened.send_modify(|count| *count += 1);
        changed.map_err(failed)
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }
}

/// Opens the store on a disk, whatever is on it.
pub(crate) async fn open_store(
    node: u64,
    profile: Profile,
    disk: Arc<dyn Disk>,
    peers: Arc<dyn Peers>,
) -> Result<Store<FleetMachine>, crate::store::StoreError> {
    let seed = rand::rng().random();
    // A store founded here is newer than one that this disk may have had and lost.
    let epoch = unix_ms(SystemTime::now()) / 1000;
    Store::open(StoreConfig::new(node, epoch, profile, seed), disk, peers).await
}

/// A cluster's number in the Raft group.
pub(crate) fn node_id(cluster: &ClusterId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&cluster.as_bytes()[..8]);
    u64::from_be_bytes(bytes)
}

pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn from_unix_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("own", &self.own).finish_non_exhaustive()
    }
}
