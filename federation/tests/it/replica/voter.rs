//! An honest voter: the real state machine, its feed, and the real watch server.

use std::sync::Arc;

use federation::fleet::FleetState;
use federation::replica::{
    FreshnessConfig, Now, Observer, Replica, ReplicaConfig, Standpoint, WatchServer,
};
use federation::store::RocksDisk;
use model::ClusterId;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::store::{
    Change, Command, Domain, Member, Publish, RecordPut, Redeem, StoreKey, TokenGrant,
};

use super::net::Net;
use super::world::{Cluster, Records, revision, sign};

/// A folder with a replica in it; the folder outlives the replica.
pub(crate) struct Node {
    pub(crate) id: ClusterId,
    folder: TempDir,
    replica: Option<Replica>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut node = Self { id: cluster.id, folder, replica: None, stop, tasks };
        node.open(cluster);
        node
    }

    fn open(&mut self, cluster: &Cluster) {
        let disk = Arc::new(RocksDisk::open(self.folder.path()).unwrap());
        let freshness = FreshnessConfig::default();
        let replica = Replica::open(ReplicaConfig { own: self.id, disk, freshness }).unwrap();
        replica.begin(cluster.federation);
        self.replica = Some(replica);
    }

    pub(crate) fn replica(&self) -> &Replica {
        self.replica.as_ref().unwrap()
    }

    /// Follows the others' streams, and compares Heads with them.
    pub(crate) fn run(&self, net: &Net) {
        self.follow(net);
        self.compare(net);
    }

    pub(crate) fn compare(&self, net: &Net) {
        let (replica, links) = (self.replica().clone(), net.links(self.id));
        let stop = self.stop.clone();
        let (revocations, _) = tokio::sync::mpsc::channel(1);
        self.tasks.spawn(async move { replica.observer().run(links, revocations, stop).await });
    }

    pub(crate) fn follow(&self, net: &Net) {
        let (replica, links) = (self.replica().clone(), net.links(self.id));
        let stop = self.stop.clone();
        self.tasks.spawn(async move { replica.follow(links, stop).await });
    }

    /// From now on this node says that it has everything.
    pub(crate) fn serve_as_voter(&self) {
        let standpoint = Standpoint { quorum: true, relayed: false, voters: [self.id].into() };
        self.replica().serve(self.replica().state(), self.id, standpoint);
    }

    pub(crate) fn server(&self) -> WatchServer {
        let (feed, observer) = (self.replica().feed().clone(), self.replica().observer().clone());
        WatchServer::new(feed, observer, self.stop.clone(), self.tasks.clone())
    }

    /// Ends all that runs, and opens the same folder again: with nobody to ask.
    pub(crate) async fn restart(&mut self, cluster: &Cluster) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.replica = None;
        (self.stop, self.tasks) = (CancellationToken::new(), TaskTracker::new());
        self.open(cluster);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The only voter of a federation, which all clusters have joined.
pub(crate) struct Voter {
    state: FleetState,
    index: u64,
    node: Node,
}

impl Voter {
    /// It is the first cluster's.
    pub(crate) fn new(clusters: &[Cluster]) -> Self {
        let node = Node::new(&clusters[0]);
        let mut voter = Self { state: FleetState::empty(), index: 0, node };
        voter.apply(Change::Found(clusters[0].chain.links[0].clone()));
        for cluster in &clusters[1..] {
            voter.admit(&clusters[0], cluster);
        }
        voter
    }

    fn admit(&mut self, root: &Cluster, cluster: &Cluster) {
        let link = &cluster.chain.links[0];
        let member = Member::decode(&link.member.payload).unwrap();
        let token_id = member.token_id.unwrap();
        let grant = TokenGrant {
            federation: member.federation,
            token_id,
            name: member.name,
            roles: member.roles,
            delegation_depth: member.delegation_depth,
            issued_at_unix_ms: 1_000,
            expires_at_unix_ms: 61_000,
            secret_hmac: [7; 32],
            approval_needed: false,
            issuer: root.id,
        };
        self.apply(Change::IssueToken(sign(&root.key, Domain::Token, grant.encode())));
        let redeem = Redeem { token_id, member: link.clone(), first: None };
        self.apply(Change::Redeem(redeem));
    }

    pub(crate) fn apply(&mut self, change: Change) {
        self.index += 1;
        let mut request_id = [0; 16];
        request_id[..8].copy_from_slice(&self.index.to_be_bytes());
        let command = Command { request_id, proposed_at_unix_ms: 2_000, change };
        self.state.apply(revision(self.index), &command.encode()).unwrap();
        let standpoint = Standpoint { quorum: true, relayed: false, voters: [self.node.id].into() };
        let fleet = Arc::new(self.state.fleet().clone());
        self.node.replica().serve(fleet, self.node.id, standpoint);
    }

    /// A whole set of records in the place of the one before.
    pub(crate) fn publish(&mut self, cluster: &Cluster, generation: u64, records: &Records) {
        let held: Vec<StoreKey> =
            self.state.fleet().records(&cluster.id).map(|record| record.key().clone()).collect();
        let gone = held.into_iter().filter(|key| !records.contains_key(&key.encode()));
        let put = |(key, record): &(StoreKey, Vec<u8>)| RecordPut {
            key: key.clone(),
            record: record.clone().into(),
        };
        let known = |key: &StoreKey, record: &[u8]| {
            self.state.fleet().record(key).is_some_and(|held| &held.bytes()[..] == record)
        };
        let puts = records.values().filter(|(key, record)| !known(key, record)).map(put).collect();
        let head = cluster.head(generation, 1_000 * generation, records);
        let publish = Publish { head, puts, removes: gone.collect() };
        self.apply(Change::Publish(publish));
    }

    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    pub(crate) fn server(&self) -> WatchServer {
        self.node.server()
    }

    pub(crate) fn observer(&self) -> &Observer {
        self.node.replica().observer()
    }

    /// The owner signs its Head anew, and this node hears of it first.
    pub(crate) fn renew(&self, cluster: &Cluster, generation: u64, issued: u64, records: &Records) {
        let head = cluster.head(generation, issued, records);
        let told = self.observer().tell(cluster.id, &[head], Now::read());
        assert_eq!(told.heads.len(), 1, "{told:?}");
    }
}
