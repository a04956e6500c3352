//! Voters and standbys come and go.

use std::collections::BTreeSet;

use federation::store::{Family, MembersError, ProposeError, ReadmitError, Role, reseed};

use super::fixture::{Fleet, applied, until};

#[tokio::test(start_paused = true)]
async fn voters_go_from_one_to_three_and_back() {
    let mut fleet = Fleet::founded(&[1]).await;
    fleet.write("alone=yes").await;
    fleet.start(2).await;
    fleet.start(3).await;
    let leader = fleet.leader().await;
    leader.set_members([1, 2, 3].into(), BTreeSet::new()).await.unwrap();
    assert_eq!(leader.status().voters, [1, 2, 3]);
    let end = fleet.write("three=yes").await;
    for store in fleet.stores.values() {
        applied(store, end).await;
        assert_eq!(store.state().get("alone").as_deref(), Some("yes"));
    }
    // The same again changes nothing.
    leader.set_members([1, 2, 3].into(), BTreeSet::new()).await.unwrap();

    leader.set_members([1].into(), [2].into()).await.unwrap();
    assert_eq!((leader.status().voters, leader.status().standbys), (vec![1], vec![2]));
    fleet.kill(2).await;
    fleet.kill(3).await;
    fleet.write("alone=again").await;
    let error = leader.set_members([2].into(), [1].into()).await.unwrap_err();
    assert_eq!(error, MembersError::LeaderLeaves(1));

    // A restart knows its members.
    fleet.kill(1).await;
    fleet.start(1).await;
    fleet.write("alone=still").await;
    assert_eq!(fleet.leader().await.status().standbys, [2]);
}

#[tokio::test(start_paused = true)]
async fn the_leader_hands_over_before_it_leaves() {
    let fleet = Fleet::founded(&[1, 2, 3]).await;
    let old = fleet.leader().await;
    let next = *fleet.stores.keys().find(|id| **id != old.node_id()).unwrap();
    old.transfer(next).await.unwrap();
    let rest: BTreeSet<u64> = [1, 2, 3].into_iter().filter(|id| *id != old.node_id()).collect();
    fleet.leader().await.set_members(rest.clone(), BTreeSet::new()).await.unwrap();
    fleet.write("without=it").await;
    assert_eq!(fleet.leader().await.status().voters, Vec::from_iter(rest));
    assert_eq!(fleet.leader().await.node_id(), next);
}

#[tokio::test(start_paused = true)]
async fn members_that_cannot_be_are_refused() {
    let fleet = Fleet::founded(&[1]).await;
    let leader = fleet.leader().await;
    let many: BTreeSet<u64> = (1..=33).collect();
    let cases = [
        (BTreeSet::new(), BTreeSet::new(), "there must be at least one voter"),
        ([1].into(), [1].into(), "a node is voter and standby: choose one"),
        ([1].into(), [0].into(), "0 is no node"),
        (many, BTreeSet::new(), "there are more than STORE_MEMBERS_MAX"),
    ];
    for (voters, standbys, text) in cases {
        let error = leader.set_members(voters, standbys).await.unwrap_err().to_string();
        assert_eq!(error, format!("the members are wrong: {text}"));
    }
    // One that does not answer does not become a voter, and is gone again.
    let error = leader.set_members([1, 2].into(), BTreeSet::new()).await.unwrap_err();
    assert!(matches!(error, MembersError::Behind { node: 2, .. }), "{error}");
    assert_eq!((leader.status().voters, leader.status().standbys), (vec![1], vec![]));
    leader.propose(b"goes=on".to_vec()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_is_founded_once() {
    let mut fleet = Fleet::founded(&[1, 2]).await;
    let error = fleet.stores[&1].found(b"again=yes".to_vec()).await.unwrap_err();
    assert_eq!(error, ProposeError::AlreadyMember);
    let error = fleet.stores[&2].found(b"again=yes".to_vec()).await.unwrap_err();
    assert_eq!(error, ProposeError::AlreadyMember);
    // A founder that died before its first command may try again.
    let alone = fleet.start(8).await;
    alone.found(b"first=yes".to_vec()).await.unwrap();
    let again = alone.found(b"first=no".to_vec()).await.unwrap();
    assert_eq!(again.reply, b"yes");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_log_takes_part_in_nothing_until_it_is_let_go() {
    let mut fleet = Fleet::founded(&[1, 2, 3]).await;
    let leader = fleet.leader().await;
    if leader.node_id() == 3 {
        leader.transfer(1).await.unwrap();
    }
    let leader = fleet.leader().await;
    let other = if leader.node_id() == 1 { 2 } else { 1 };
    fleet.write("key=value").await;
    fleet.kill(3).await;
    reseed(&*fleet.disks[&3], 3).unwrap();
    assert_eq!(fleet.disks[&3].keys(Family::Log), Vec::<Vec<u8>>::new());
    let store = fleet.start(3).await;
    assert_eq!(store.status().role, Role::Reseeding);

    // The one other voter is needed for everything now.
    fleet.kill(other).await;
    let term = leader.status().term;
    until("the leader to step down", || (leader.status().role != Role::Leader).then_some(())).await;
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert_eq!(leader.status().term, term + 1, "the node without a log voted");
    fleet.start(other).await;
    let leader = fleet.leader().await;

    let peers = [leader.node_id(), other];
    assert_eq!(store.readmit(&peers).await, Err(ReadmitError::StillMember));
    leader.set_members([1, 2].into(), BTreeSet::new()).await.unwrap();
    store.readmit(&peers).await.unwrap();
    assert_eq!(store.status().role, Role::Empty);
    fleet.kill(3).await;
    let store = fleet.start(3).await;
    assert_eq!(store.status().role, Role::Empty);
    leader.set_members([1, 2, 3].into(), BTreeSet::new()).await.unwrap();
    let end = fleet.write("end=yes").await;
    applied(&store, end).await;
    assert_eq!(store.state().get("key").as_deref(), Some("value"));
    assert_eq!(store.status().role, Role::Follower);
}
