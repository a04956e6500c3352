//! Founding, voters, leaders that die, leaving, revoking, restarting alone.

use federation::membership::{
    LeaveRequest, MembershipError, Mode, RevokeRequest, RevokeTarget, StoreRole, TokenRequest,
};
use federation::store::{Disk as _, Family, RocksDisk, Step};
use model::ResourceKind;

use super::site::{Cluster, federation, request, stop_all};
use crate::fixture::{EXPORT, Gateway, SERVICE, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_alone_founds_a_federation_and_finds_it_again() {
    let mut east = Cluster::start("east").await;
    let membership = east.membership();
    assert_eq!(membership.mode(), Mode::Alone);
    assert_eq!(membership.issue_token(request("west")).await, Err(MembershipError::Alone));
    let founded = membership.init().await.unwrap();
    assert_eq!(membership.mode(), Mode::Member);
    let again = membership.init().await.unwrap_err();
    assert_eq!(again, MembershipError::AlreadyMember { federation: founded.federation });
    east.write("a.yaml", SERVICE);
    east.write("b.yaml", EXPORT);
    east.until_records("east", 2).await;
    let before = membership.store_status().unwrap();
    assert_eq!(before.role, StoreRole::Leader);
    drop(membership);

    east.stop_node().await;
    east.start_node().await;
    let membership = east.membership();
    let after = membership.store_status().unwrap();
    assert_eq!((after.federation, after.applied), (Some(founded.federation), before.applied));
    assert_eq!(membership.own(), founded.cluster);
    east.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_vote_the_fourth_is_a_replica_and_the_leader_may_die() {
    let mut clusters = federation(&["east", "west", "south", "north"]).await;
    for cluster in &clusters[..3] {
        cluster.until_mode(Mode::Member).await;
    }
    let east = clusters[0].membership();
    let voters = || async { east.store_status().unwrap().voters.len() };
    until("three voters", voters, |count| *count == 3).await;
    assert_eq!(clusters[3].membership().mode(), Mode::Replica);
    for cluster in &clusters {
        for owner in ["east", "west", "south", "north"] {
            cluster.until_records(owner, 1).await;
        }
    }
    drop(east);

    // What a Replica writes goes through whoever leads.
    clusters[3].write("a.yaml", SERVICE);
    clusters[3].write("b.yaml", EXPORT);
    clusters[0].until_records("north", 2).await;
    clusters[0].stop_node().await;
    clusters[3].write("b.yaml", &EXPORT.replace("name: api", "name: gone"));
    clusters[1].until_records("north", 1).await;
    clusters[2].until_records("north", 1).await;

    // It comes back behind, and catches up without deposing anybody.
    clusters[0].start_node().await;
    clusters[0].until_records("north", 1).await;
    clusters[0].until_mode(Mode::Member).await;
    stop_all(clusters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_takes_its_vote_along_and_the_leader_hands_over() {
    let mut clusters = federation(&["east", "west"]).await;
    let west = clusters.pop().unwrap();
    let east = clusters.pop().unwrap();
    east.until_records("west", 1).await;
    // East is the one voter: west takes over before east goes.
    let old = east.membership().own();
    let left = east.membership().leave(LeaveRequest::default()).await.unwrap();
    assert!(left.is_some());
    assert_eq!(east.membership().mode(), Mode::Alone);
    assert_ne!(east.membership().own(), old, "a key that has left never comes back");
    west.until_members(1).await;
    let west_member = west.membership();
    let role = || async { west_member.store_status().unwrap().role };
    until("west as the leader", role, |role| *role == StoreRole::Leader).await;

    // The last one ends the federation only if it says so.
    let refused = west_member.leave(LeaveRequest::default()).await.unwrap_err();
    assert!(refused.to_string().contains("the federation's last member"), "{refused}");
    // West cannot hand on more than it was given.
    let token = west.token(&TokenRequest { delegation_depth: 1, ..request("east") }).await;
    east.join(&token.text).await.unwrap();
    east.until_members(2).await;
    drop(west_member);
    east.stop().await;
    west.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_cluster_is_shut_out_at_once() {
    let clusters = federation(&["east", "west", "south"]).await;
    for cluster in &clusters {
        cluster.until_mode(Mode::Member).await;
    }
    let east = clusters[0].membership();
    let target = RevokeTarget::Cluster(clusters[1].name.clone());
    let request = RevokeRequest { target, reason: "stolen".into(), reanchor: Vec::new() };
    let revoked = east.revoke(request.clone()).await.unwrap();
    assert!(revoked.revision.is_some());
    assert_eq!(revoked.told, [clusters[2].name.clone()]);
    clusters[2].until_members(2).await;
    let again = east.revoke(request).await.unwrap_err();
    assert!(matches!(again, MembershipError::UnknownCluster { .. }), "{again}");
    // Two are left, and nobody can take west's place: one votes.
    let voters = || async { east.store_status().unwrap().voters.len() };
    until("one voter", voters, |count| *count == 1).await;
    let west = clusters[1].membership();
    let outcome = west.issue_token(super::site::request("north")).await;
    assert!(outcome.is_err(), "{outcome:?}");
    drop((east, west));
    stop_all(clusters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_forgot_what_it_signed_begins_a_new_epoch() {
    let mut east = Cluster::start("east").await;
    east.membership().init().await.unwrap();
    east.until_records("east", 1).await;
    let head = |east: &Cluster| east.membership().members()[0].head;
    assert_eq!(head(&east), Some((1, 1)));
    east.stop_node().await;
    std::fs::remove_file(east.path("data/signed-head")).unwrap();
    east.start_node().await;
    east.write("a.yaml", SERVICE);
    east.write("b.yaml", EXPORT);
    east.until_records("east", 2).await;
    assert_eq!(head(&east), Some((2, 1)), "no generation has two contents");
    east.stop().await;
}

/// Bits that flip on a disk: the node neither votes nor serves, and comes back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_log_is_damaged_is_let_go_and_taken_in_again() {
    let mut clusters = federation(&["east", "west", "south"]).await;
    for cluster in &clusters {
        cluster.until_mode(Mode::Member).await;
    }
    let west = &mut clusters[1];
    west.stop_node().await;
    {
        let disk = RocksDisk::open(&west.path("data/store")).unwrap();
        let (key, mut value) = disk.last(Family::Log).unwrap().unwrap();
        *value.last_mut().unwrap() ^= 1;
        disk.write(vec![Step::Put { family: Family::Log, key, value }], true).unwrap();
    }
    west.start_node().await;
    clusters[0].write("a.yaml", SERVICE);
    clusters[0].write("b.yaml", EXPORT);
    clusters[0].until_records("east", 2).await;
    clusters[1].until_mode(Mode::Member).await;
    let west = clusters[1].membership();
    let status = || async { west.store_status() };
    until("a voter that follows", status, |status| {
        status.as_ref().is_ok_and(|status| status.role == StoreRole::Voter)
    })
    .await
    .unwrap();
    drop(west);
    stop_all(clusters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_peers_are_gone_starts_and_serves_what_it_had() {
    let mut clusters = federation(&["east", "west"]).await;
    clusters[0].write("a.yaml", SERVICE);
    clusters[0].write("b.yaml", EXPORT);
    clusters[0].until_records("east", 2).await;
    let mut west = clusters.pop().unwrap();
    let east = clusters.pop().unwrap();
    west.until_records("east", 1).await;
    east.stop().await;
    west.stop_node().await;
    let start = std::time::Instant::now();
    west.start_node().await;
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    assert_eq!(west.membership().mode(), Mode::Replica);
    west.stop_gateway().await;
    let mut gateway = Gateway::subscribe_in(west.node(), "west", "gw-1").await;
    gateway.next().await;
    let peers = gateway.resources.iter().filter(|(key, _)| key.kind == ResourceKind::ClusterPeer);
    assert_eq!(peers.count(), 1, "the first snapshot has the peer that nobody can reach");
    west.stop().await;
}
