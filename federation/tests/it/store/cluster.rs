//! Three nodes: writes, the leader's death, a node far behind, watchers.

use federation::store::{AppliedCommand, ProposeError, Role};
use model::Revision;

use super::fixture::{Fleet, applied, until};

#[tokio::test(start_paused = true)]
async fn a_write_is_on_all_members_and_replies_what_the_machine_said() {
    let fleet = Fleet::founded(&[1, 2, 3]).await;
    let leader = fleet.leader().await;
    let first = leader.propose(b"color=red".to_vec()).await.unwrap();
    let second = leader.propose(b"color=blue".to_vec()).await.unwrap();
    assert_eq!(second.reply, b"red");
    assert!(second.revision > first.revision);
    assert_eq!(second.revision.epoch, 5);
    for store in fleet.stores.values() {
        applied(store, second.revision).await;
        assert_eq!(store.state().get("color").as_deref(), Some("blue"));
        assert_eq!(store.epoch(), 5);
    }
    assert_eq!(leader.linearizable().await.unwrap(), second.revision);

    let follower = &fleet.stores[&2];
    let error = follower.propose(b"color=green".to_vec()).await.unwrap_err();
    assert_eq!(error, ProposeError::NotLeader { leader: Some(leader.node_id()) });
    let error = follower.linearizable().await.unwrap_err();
    assert_eq!(error, ProposeError::NotLeader { leader: Some(leader.node_id()) });
    let error = leader.propose(vec![0; 300_000]).await.unwrap_err().to_string();
    assert_eq!(error, "the command has 300000 bytes, at most 262144 are allowed: split it");
}

#[tokio::test(start_paused = true)]
async fn no_acknowledged_write_is_lost_when_leaders_die() {
    let mut fleet = Fleet::founded(&[1, 2, 3]).await;
    let mut last = Revision::default();
    for round in 0..6 {
        for number in 0..5 {
            let revision = fleet.write(&format!("key{round}-{number}=value")).await;
            assert!(revision > last, "{revision} came after {last}");
            last = revision;
        }
        let leader = fleet.leader().await.node_id();
        fleet.kill(leader).await;
        fleet.write(&format!("after{round}=yes")).await;
        fleet.start(leader).await;
    }
    let end = fleet.write("end=yes").await;
    for store in fleet.stores.values() {
        applied(store, end).await;
        let state = store.state();
        for round in 0..6 {
            assert_eq!(state.get(&format!("after{round}")).as_deref(), Some("yes"));
            for number in 0..5 {
                assert!(state.get(&format!("key{round}-{number}")).is_some());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_far_behind_gets_a_snapshot_in_checked_parts() {
    let mut fleet = Fleet { log_entries: Some(20), ..Fleet::default() };
    fleet.found(&[1, 2, 3]).await;
    fleet.kill(3).await;
    let large = "x".repeat(50_000);
    for number in 0..120 {
        fleet.write(&format!("key{number}={large}")).await;
    }
    let leader = fleet.leader().await;
    until("the log's beginning to go", || leader.status().purged.filter(|index| *index > 50)).await;
    let end = fleet.write("end=yes").await;
    let store = fleet.start(3).await;
    applied(&store, end).await;
    assert_eq!(*store.state(), *leader.state());
    // Megabytes, in parts of at most 256 KiB.
    assert!(fleet.mesh.snapshot_parts() >= 10, "{} parts", fleet.mesh.snapshot_parts());

    // It is on the disk as well, and the node goes on from there.
    fleet.kill(3).await;
    let store = fleet.start(3).await;
    assert!(store.state().get("key119").is_some());
    let more = fleet.write("more=yes").await;
    applied(&store, more).await;
}

#[tokio::test(start_paused = true)]
async fn watchers_get_every_command_in_order_or_are_told_to_begin_anew() {
    let mut fleet = Fleet::founded(&[1]).await;
    let store = fleet.leader().await;
    let begin = *store.changes().borrow();
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(fleet.write(&format!("key={number}")).await);
    }
    let commands = store.applied_since(begin).unwrap();
    let seen: Vec<Revision> = commands.iter().map(|command| command.revision).collect();
    assert_eq!(seen, revisions);
    let AppliedCommand { command, reply, .. } = &commands[9];
    assert_eq!((&command[..], &reply[..]), (&b"key=9"[..], &b"8"[..]));
    assert_eq!(store.applied_since(revisions[7]).unwrap(), commands[8..]);
    assert_eq!(store.applied_since(revisions[9]).unwrap(), []);

    for number in 0..federation::limits::STORE_CHANGES_MAX {
        fleet.write(&format!("key={number}")).await;
    }
    assert_eq!(store.applied_since(revisions[8]), None);
    assert!(store.applied_since(revisions[9]).is_some());

    // A restart forgets what was before it.
    let end = *store.changes().borrow();
    fleet.kill(1).await;
    let store = fleet.start(1).await;
    assert_eq!(store.applied_since(begin), None);
    assert_eq!(store.applied_since(end), Some(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn the_status_says_who_is_who() {
    let mut fleet = Fleet::founded(&[1, 2, 3]).await;
    fleet.start(4).await;
    let leader = fleet.leader().await;
    leader.set_members([1, 2, 3].into(), [4].into()).await.unwrap();
    let end = fleet.write("end=yes").await;
    applied(&fleet.stores[&4], end).await;
    let status = leader.status();
    assert_eq!((status.role, status.epoch, status.applied), (Role::Leader, 5, end));
    assert_eq!((status.voters.clone(), status.standbys.clone()), (vec![1, 2, 3], vec![4]));
    assert!(status.quorum_ack_age.is_some());
    let peers: Vec<(u64, bool)> =
        status.peers.iter().map(|peer| (peer.node_id, peer.voter)).collect();
    assert_eq!(peers, [(2, true), (3, true), (4, false)]);
    until("all to have all", || {
        let all = leader.status().peers.iter().all(|peer| peer.matched == Some(end.index));
        all.then_some(())
    })
    .await;
    assert_eq!(fleet.stores[&2].status().role, Role::Follower);
    assert_eq!(fleet.stores[&4].status().role, Role::Standby);
    assert_eq!(fleet.stores[&4].status().leader, Some(leader.node_id()));
    fleet.start(9).await;
    assert_eq!(fleet.stores[&9].status().role, Role::Empty);

    leader.shutdown().await;
    assert_eq!(leader.status().role, Role::Stopped);
    let error = leader.propose(b"late=yes".to_vec()).await.unwrap_err();
    assert!(matches!(error, ProposeError::Closed(_)), "{error}");
}
