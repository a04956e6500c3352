//! The watch from both ends: a real server, real readers, gRPC over pipes that can be cut.

mod liar;
mod net;
mod voter;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use federation::replica::limits::{STALE_AFTER_DEFAULT, WATCH_HEARTBEAT_INTERVAL};
use federation::replica::{Now, Replica, Standing};
use model::{ClusterId, ResourceKind, Revision};
use tonic::Streaming;
use wire::store::proto::store_service_client::StoreServiceClient;
use wire::store::proto::{self, WatchRequest};
use wire::store::{Heads, WatchEvent};

use crate::fixture::soon;

use net::Net;
use voter::{Node, Voter};
use world::{Cluster, Records, federation, revision};

/// Waits until a replica is at a revision.
async fn reach(replica: &Replica, index: u64) {
    let mut revisions = replica.feed().revision();
    let there = revisions.wait_for(|at| *at == Some(revision(index)));
    soon(&format!("revision {index}"), there).await.unwrap();
}

fn exports_of(replica: &Replica, owner: ClusterId) -> BTreeSet<String> {
    let fleet = replica.state();
    let records = fleet.records(&owner).map(|record| record.key().clone());
    let exports = records.filter(|key| key.kind == ResourceKind::ServiceExport.number());
    exports.map(|key| key.name.to_string()).collect()
}

/// A raw watcher: what the wire says, unverified.
async fn watch(net: &Net, caller: ClusterId, callee: ClusterId, resume: Option<u64>) -> Raw {
    let mut client = StoreServiceClient::new(net.narrow_channel(caller, callee));
    let resume = resume.map(|index| wire::resource::proto::Revision { epoch: world::EPOCH, index });
    let asked = client.watch(WatchRequest { resume });
    Raw(soon("the watch", asked).await.unwrap().into_inner())
}

struct Raw(Streaming<proto::WatchEvent>);

impl Raw {
    /// The next event that is no mere sign of life.
    async fn next(&mut self) -> WatchEvent {
        loop {
            let event = soon("an event", self.0.message()).await.unwrap().unwrap();
            match WatchEvent::decode(event).unwrap() {
                WatchEvent::Alive { .. } => {}
                event => return event,
            }
        }
    }

    /// Reads up to the end of a snapshot; says where that is.
    async fn snapshot(&mut self) -> Revision {
        assert!(matches!(self.next().await, WatchEvent::SnapshotBegin { .. }));
        loop {
            match self.next().await {
                WatchEvent::SnapshotPart { .. } => {}
                WatchEvent::SnapshotEnd { revision, .. } => return revision,
                other => panic!("{other:?} in a snapshot"),
            }
        }
    }
}

#[tokio::test]
async fn a_watch_resumes_after_a_cut_without_gap_or_duplicate() {
    let (clusters, net) = (federation(&["east", "west", "north"]), Net::default());
    let [east, west, north] = &clusters[..] else { panic!() };
    let mut voter = Voter::new(&clusters);
    net.add(east.id, voter.server());
    voter.publish(west, 1, &west.exports(&["api-1"], "north"));
    let mut raw = watch(&net, north.id, east.id, None).await;
    let mut at = raw.snapshot().await.index;
    assert_eq!(at, voter.index());
    for generation in 2..=20 {
        let names: Vec<String> = (1..=generation).map(|number| format!("api-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        voter.publish(west, generation, &west.exports(&names, "north"));
        if generation % 5 == 0 {
            net.cut(north.id, east.id);
            net.heal(north.id, east.id);
            raw = watch(&net, north.id, east.id, Some(at)).await;
        }
        // Steps may be larger than one revision, but each begins where the last one ended.
        while at < voter.index() {
            let WatchEvent::Delta { from, revision, .. } = raw.next().await else {
                panic!("a snapshot where a delta would do");
            };
            assert_eq!(from.index, at);
            assert!(revision.index > at && revision.index <= voter.index());
            at = revision.index;
        }
    }
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_cut() {
    let (clusters, net) = (federation(&["east", "west", "north"]), Net::default());
    let [east, west, north] = &clusters[..] else { panic!() };
    let mut voter = Voter::new(&clusters);
    net.add(east.id, voter.server());
    let node = Node::new(north);
    node.follow(&net);
    // A reader knows nobody at first: the snapshot comes with the answer to its join.
    seed(&node, &voter, north).await;
    voter.publish(west, 1, &west.exports(&["api"], "north"));
    reach(node.replica(), voter.index()).await;
    assert_eq!(exports_of(node.replica(), west.id), BTreeSet::from(["api".to_string()]));
    let connections = net.connections();
    net.cut(north.id, east.id);
    voter.publish(west, 2, &west.exports(&["api", "web"], "north"));
    net.heal(north.id, east.id);
    reach(node.replica(), voter.index()).await;
    assert_eq!(exports_of(node.replica(), west.id).len(), 2);
    assert!(net.connections() > connections);
    assert!(node.replica().observer().findings().is_empty());
}

/// What the inviter gives a new member with its answer.
async fn seed(node: &Node, voter: &Voter, reader: &Cluster) {
    let net = Net::default();
    net.add(reader.id, voter.server());
    let mut raw = watch(&net, reader.id, reader.id, None).await;
    let mut events = vec![];
    while !matches!(events.last(), Some(WatchEvent::SnapshotEnd { .. })) {
        events.push(raw.next().await);
    }
    node.replica().seed(node.id, events, true).await.unwrap();
}

#[tokio::test]
async fn a_slow_watcher_is_resynced_and_holds_nobody_up() {
    let (clusters, net) = (federation(&["east", "west", "north", "south"]), Net::default());
    let [east, west, north, south] = &clusters[..] else { panic!() };
    let mut voter = Voter::new(&clusters);
    net.add(east.id, voter.server());
    let mut slow = watch(&net, north.id, east.id, None).await;
    let mut fast = watch(&net, south.id, east.id, None).await;
    let begun = slow.snapshot().await.index;
    let mut at = fast.snapshot().await.index;
    // Each step is larger than the slow one's window, and there are more than the history keeps.
    let steps = federation::replica::limits::WATCH_STATES_MAX as u64 + 30;
    for generation in 1..=steps {
        let names: Vec<String> =
            (0..40).map(|number| format!("service-{generation}-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut records = west.exports(&names, "north");
        records.append(&mut west.exports(&["for-south"], "south"));
        voter.publish(west, generation, &records);
        while at < voter.index() {
            let WatchEvent::Delta { revision, .. } = fast.next().await else { panic!() };
            at = revision.index;
        }
    }
    // The slow one reads on: some deltas that were on their way, without a gap, then a snapshot.
    let mut at = begun;
    let (mut deltas, mut snapshots) = (0, 0);
    while at < voter.index() {
        match slow.next().await {
            WatchEvent::Delta { from, revision, .. } => {
                assert_eq!(from.index, at);
                at = revision.index;
                deltas += 1;
            }
            WatchEvent::SnapshotEnd { revision, .. } => {
                at = revision.index;
                snapshots += 1;
            }
            WatchEvent::SnapshotBegin { .. } | WatchEvent::SnapshotPart { .. } => {}
            WatchEvent::Alive { .. } => unreachable!("next() leaves these out"),
        }
    }
    assert_eq!(snapshots, 1);
    assert!(deltas < 30, "{deltas} deltas were queued for one who does not read");
}

#[tokio::test]
async fn a_cluster_never_receives_what_it_may_not_see() {
    let (clusters, net) = (federation(&["east", "west", "north", "south"]), Net::default());
    let [east, west, north, south] = &clusters[..] else { panic!() };
    let mut voter = Voter::new(&clusters);
    net.add(east.id, voter.server());
    let mut raw = watch(&net, north.id, east.id, None).await;
    raw.snapshot().await;
    let mut records = west.exports(&["for-north"], "north");
    records.append(&mut west.exports(&["for-south"], "south"));
    voter.publish(west, 1, &records);
    let seen = format!("{:?}", raw.next().await);
    assert!(seen.contains("for-north") && !seen.contains("for-south"), "{seen}");
    // Whoever asks for it by a revision gets no more, and nobody but a member gets anything.
    let mut again = watch(&net, north.id, east.id, Some(1)).await;
    let seen = format!("{:?}", again.next().await);
    assert!(seen.contains("for-north") && !seen.contains("for-south"), "{seen}");
    let mut other = watch(&net, south.id, east.id, None).await;
    let mut seen = String::new();
    while !seen.contains("SnapshotEnd") {
        seen += &format!("{:?}", other.next().await);
    }
    assert!(!seen.contains("for-north") && seen.contains("for-south"), "{seen}");
    let stranger = ClusterId::from_bytes([9; 16]);
    let mut client = StoreServiceClient::new(net.narrow_channel(stranger, east.id));
    let refused = client.watch(WatchRequest { resume: None }).await.unwrap_err();
    assert!(refused.message().starts_with("FED6108: "), "{refused}");
    let refused = client.heads(Heads::default().encode_request()).await.unwrap_err();
    assert!(refused.message().starts_with("FED6108: "), "{refused}");
    // A reader with the hashes of the rest arrives at the owner's digest.
    let node = Node::new(north);
    seed(&node, &voter, north).await;
    assert_eq!(exports_of(node.replica(), west.id), BTreeSet::from(["for-north".to_string()]));
}

#[tokio::test]
async fn a_replica_serves_its_last_good_state_with_nobody_to_ask() {
    let (clusters, net) = (federation(&["east", "west", "north"]), Net::default());
    let [east, west, north] = &clusters[..] else { panic!() };
    let mut voter = Voter::new(&clusters);
    net.add(east.id, voter.server());
    voter.publish(west, 1, &west.exports(&["api"], "north"));
    let mut node = Node::new(north);
    seed(&node, &voter, north).await;
    node.follow(&net);
    voter.publish(west, 2, &west.exports(&["api", "web"], "north"));
    reach(node.replica(), voter.index()).await;
    net.cut(north.id, east.id);
    node.restart(north).await;
    assert_eq!(exports_of(node.replica(), west.id).len(), 2);
    assert_eq!(*node.replica().feed().revision().borrow(), Some(revision(voter.index())));
    let owners = node.replica().observer().owners(Now::read());
    assert!(owners.iter().any(|owner| owner.owner == west.id));
    let report = node.replica().verify_all(&*net.links(north.id)).await;
    assert_eq!(report.local, Ok(4), "{report:?}");
    assert!(report.members.iter().all(|member| member.outcome.is_err()), "{report:?}");
    // It goes on from there, and not from the beginning.
    net.heal(north.id, east.id);
    node.follow(&net);
    voter.publish(west, 3, &west.exports(&["web"], "north"));
    reach(node.replica(), voter.index()).await;
    assert_eq!(exports_of(node.replica(), west.id), BTreeSet::from(["web".to_string()]));
}

#[tokio::test]
async fn a_replica_is_fed_by_another_replica_and_comes_back_to_the_voter() {
    let (clusters, net) = (federation(&["east", "west", "north", "south"]), Net::default());
    let [east, west, north, south] = &clusters[..] else { panic!() };
    let mut voter = Voter::new(&clusters);
    net.add(east.id, voter.server());
    let relay = Node::new(south);
    seed(&relay, &voter, south).await;
    relay.follow(&net);
    net.add(south.id, relay.server());
    let node = Node::new(north);
    seed(&node, &voter, north).await;
    net.cut(north.id, east.id);
    node.follow(&net);
    let mut shared = west.exports(&["both"], "north");
    shared.append(&mut west.exports(&["south-only"], "south"));
    voter.publish(west, 1, &shared);
    reach(relay.replica(), voter.index()).await;
    // What the relay may not see it cannot hand on; the Head comes all the same.
    reach(node.replica(), voter.index()).await;
    assert_eq!(node.replica().source().map(|(source, _)| source), Some(south.id));
    assert_eq!(exports_of(node.replica(), west.id), BTreeSet::new());
    net.heal(north.id, east.id);
    net.cut(north.id, south.id);
    let back = async {
        while exports_of(node.replica(), west.id).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("what only the voter knows", back).await;
    assert_eq!(exports_of(node.replica(), west.id), BTreeSet::from(["both".to_string()]));
    assert!(node.replica().observer().findings().is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_and_signs_of_life_carry_the_quorum() {
    let (clusters, net) = (federation(&["east", "north"]), Net::default());
    let [east, north] = &clusters[..] else { panic!() };
    let voter = Voter::new(&clusters);
    net.add(east.id, voter.server());
    let mut client = StoreServiceClient::new(net.narrow_channel(north.id, east.id));
    let mut events = client.watch(WatchRequest { resume: None }).await.unwrap().into_inner();
    let mut alive = vec![];
    let begun = tokio::time::Instant::now();
    while alive.len() < 3 {
        if let WatchEvent::Alive { alive: sign, .. } =
            WatchEvent::decode(events.message().await.unwrap().unwrap()).unwrap()
        {
            alive.push(sign);
        }
    }
    assert!(alive.iter().all(|sign| sign.quorum && !sign.relayed && sign.voters == [east.id]));
    assert!(begun.elapsed() >= WATCH_HEARTBEAT_INTERVAL * 2);
}

/// north reads from east; west publishes.
struct Triangle {
    clusters: Vec<Cluster>,
    voter: Voter,
    node: Node,
    records: Records,
}

impl Triangle {
    async fn new() -> Self {
        let (clusters, net) = (federation(&["east", "west", "north"]), Net::default());
        let mut voter = Voter::new(&clusters);
        net.add(clusters[0].id, voter.server());
        let records = clusters[1].exports(&["api"], "north");
        voter.publish(&clusters[1], 1, &records);
        let node = Node::new(&clusters[2]);
        seed(&node, &voter, &clusters[2]).await;
        node.run(&net);
        Self { clusters, voter, node, records }
    }

    /// West's node signs its Head anew, and only east hears of it.
    fn renew(&self, issued: u64) {
        self.voter.renew(&self.clusters[1], 1, issued, &self.records);
    }

    fn standing(&self) -> Standing {
        let owners = self.node.replica().observer().owners(Now::read());
        owners.into_iter().find(|owner| owner.owner == self.clusters[1].id).unwrap().standing
    }

    fn check_served(&self) {
        assert_eq!(exports_of(self.node.replica(), self.clusters[1].id).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_cut_from_me_stays_fresh_over_another_member() {
    let world = Triangle::new().await;
    for round in 1..=6 {
        world.renew(10_000 + round);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(world.standing(), Standing::Fresh);
    }
    world.check_served();
}

#[tokio::test(start_paused = true)]
async fn an_owner_cut_from_the_leader_is_stale_and_still_served() {
    let world = Triangle::new().await;
    world.renew(10_000);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.standing(), Standing::Fresh);
    tokio::time::sleep(STALE_AFTER_DEFAULT).await;
    assert_eq!(world.standing(), Standing::Stale);
    world.check_served();
    let diagnostics = world.node.replica().observer().diagnostics(Now::read());
    assert!(diagnostics.iter().any(|it| it.to_string().contains("FED6404 Cluster/west")));
}

#[tokio::test(start_paused = true)]
async fn an_owner_unheard_of_for_a_day_is_withdrawn_unless_its_tunnel_lives() {
    let (clusters, net) = (federation(&["east", "west", "north"]), Net::default());
    let [east, west, north] = &clusters[..] else { panic!() };
    let mut voter = Voter::new(&clusters);
    net.add(east.id, voter.server());
    voter.publish(west, 1, &west.exports(&["api"], "north"));
    let node = Node::new(north);
    seed(&node, &voter, north).await;
    let observer = node.replica().observer();
    let withdrawn = observer.withdrawn();
    let pass_a_day = async |quorum: bool| {
        for _ in 0..(24 * 3600 / 20) {
            if quorum {
                observer.quorum_heard(Now::read());
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
            observer.tick(Now::read());
        }
    };
    // Without a quorum nobody's silence means anything.
    pass_a_day(false).await;
    assert!(withdrawn.borrow().is_empty());
    observer.set_live_tunnels(BTreeSet::from([west.id]), Now::read());
    pass_a_day(true).await;
    assert!(!withdrawn.borrow().contains(&west.id));
    observer.set_live_tunnels(BTreeSet::new(), Now::read());
    pass_a_day(true).await;
    assert!(withdrawn.borrow().contains(&west.id));
    let head = west.head(1, 99_000, &west.exports(&["api"], "north"));
    observer.tell(west.id, &[head], Now::read());
    observer.tick(Now::read());
    assert!(!withdrawn.borrow().contains(&west.id));
}

#[tokio::test]
async fn members_that_agree_verify_well() {
    let (clusters, net) = (federation(&["east", "west", "north"]), Net::default());
    let [east, west, north] = &clusters[..] else { panic!() };
    let mut voter = Voter::new(&clusters);
    net.add(east.id, voter.server());
    for (generation, owner) in [east, west, north].into_iter().enumerate() {
        voter.publish(owner, generation as u64 + 1, &Records::new());
    }
    let (node, other) = (Node::new(north), Node::new(west));
    seed(&node, &voter, north).await;
    seed(&other, &voter, west).await;
    net.add(west.id, other.server());
    let report = node.replica().verify_all(&*net.links(north.id)).await;
    assert!(report.is_well(), "{report:#?}");
    assert_eq!(report.revision, revision(voter.index()));
    for owner in &report.owners {
        assert_eq!(owner.agree.len(), 2, "{owner:?}");
    }
    // One that is not reached is a row with its reason, not an absence.
    net.cut(north.id, west.id);
    let report = node.replica().verify_all(&*net.links(north.id)).await;
    assert!(!report.is_well());
    let row = report.members.iter().find(|row| row.member == west.id).unwrap();
    assert!(row.outcome.is_err(), "{row:?}");
}
