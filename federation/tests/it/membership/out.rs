//! Ways out: taken out by an admin, drained; and standbys, who come and go by an admin's word.

use std::time::{Duration, Instant};

use federation::membership::{LeaveRequest, MembershipError, Mode, TokenRequest};
use model::code::{ROLE_MISSING, SIGNATURE_REFUSED};
use model::{ClusterName, RoleSet};

use super::site::{Cluster, federation, request, stop_all};
use crate::fixture::{EXPORT, SERVICE, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_takes_a_cluster_out() {
    let mut clusters = federation(&["east", "west", "south"]).await;
    for cluster in &clusters {
        cluster.until_mode(Mode::Member).await;
    }
    let plain = TokenRequest { roles: RoleSet::NONE, delegation_depth: 0, ..request("north") };
    let token = clusters[0].token(&plain).await;
    let north = Cluster::start("north").await;
    north.join(&token.text).await.unwrap();
    let refused = north.membership().remove(&clusters[1].name).await.unwrap_err();
    assert!([ROLE_MISSING, SIGNATURE_REFUSED].contains(&refused.code()), "{refused}");
    let east = clusters[0].membership();
    let nobody = ClusterName::parse("nobody").unwrap();
    let unknown = MembershipError::UnknownCluster { name: nobody.clone() };
    assert_eq!(east.remove(&nobody).await.unwrap_err(), unknown);

    east.remove(&clusters[1].name).await.unwrap();
    clusters[0].until_members(3).await;
    north.until_members(3).await;
    let voters = || async { east.store_status().unwrap().voters };
    until("other voters", voters, |voters| !voters.contains(&clusters[1].name)).await;
    // Who was taken out knows it, stays out, and may come back by a new token.
    let west = clusters[1].membership();
    let told = || async { west.issue_token(request("thief")).await };
    let told = until("word of it", told, |told| *told == Err(MembershipError::Excluded)).await;
    assert!(told.unwrap_err().to_string().contains("`fedctl leave --force`"));
    west.leave(LeaveRequest { drain: None, force: true }).await.unwrap();
    assert_eq!(west.mode(), Mode::Alone);
    let token = clusters[0].token(&request("west")).await;
    clusters[1].join(&token.text).await.unwrap();
    clusters[0].until_members(4).await;
    drop((east, west));
    clusters.push(north);
    stop_all(clusters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drains_withdraws_its_exports_before_it_leaves() {
    const DRAIN: Duration = Duration::from_secs(2);
    let clusters = federation(&["east", "west"]).await;
    let (east, west) = (&clusters[0], &clusters[1]);
    west.write("a.yaml", SERVICE);
    west.write("b.yaml", EXPORT);
    east.until_records("west", 2).await;
    let leaver = west.membership();
    let start = Instant::now();
    let leaving = tokio::spawn(async move {
        leaver.leave(LeaveRequest { drain: Some(DRAIN), force: false }).await
    });
    // Its exports are gone while it still is a member.
    east.until_records("west", 1).await;
    let row = east.membership().members().into_iter().find(|row| row.name == west.name).unwrap();
    assert!(row.active && !leaving.is_finished());
    assert!(leaving.await.unwrap().unwrap().is_some());
    assert!(start.elapsed() >= DRAIN);
    east.until_members(1).await;
    assert_eq!(west.membership().mode(), Mode::Alone);
    stop_all(clusters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_are_named_and_let_go() {
    let clusters = federation(&["east", "west", "south", "north"]).await;
    for cluster in &clusters[..3] {
        cluster.until_mode(Mode::Member).await;
    }
    let (east, north) = (clusters[0].membership(), &clusters[3]);
    let nobody = ClusterName::parse("nobody").unwrap();
    let unknown = MembershipError::UnknownCluster { name: nobody.clone() };
    assert_eq!(east.set_standbys(&[nobody]).await, Err(unknown));
    let standbys = || async { east.store_status().unwrap().standbys };
    for names in [vec![north.name.clone()], Vec::new()] {
        east.set_standbys(&names).await.unwrap();
        until("the standbys", standbys, |standbys| *standbys == names).await;
        north.until_mode(if names.is_empty() { Mode::Replica } else { Mode::Member }).await;
        assert_eq!(east.store_status().unwrap().voters.len(), 3);
        // It has what is new, whichever way that comes.
        north.write("a.yaml", SERVICE);
        north.write("b.yaml", EXPORT);
        north.until_records("north", 2).await;
        north.write("b.yaml", "");
        north.until_records("north", 1).await;
    }
    drop(east);
    stop_all(clusters).await;
}
