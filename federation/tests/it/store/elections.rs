//! Who leads, and who cannot make it change: check-quorum, pre-vote, transfer.

use std::time::Duration;

use federation::store::{Profile, ProposeError, Role, TransferError};
use tokio::time::Instant;

use super::fixture::{Fleet, applied, until};

/// The longest of some pauses in writing that the leader's death made.
async fn worst_pause(mut fleet: Fleet) -> Duration {
    fleet.found(&[1, 2, 3]).await;
    let mut worst = Duration::ZERO;
    for round in 0..20 {
        fleet.write(&format!("key={round}")).await;
        let leader = fleet.leader().await.node_id();
        let killed = Instant::now();
        fleet.kill(leader).await;
        fleet.write(&format!("after={round}")).await;
        worst = worst.max(killed.elapsed());
        fleet.start(leader).await;
    }
    worst
}

#[tokio::test(start_paused = true)]
async fn writes_are_back_within_a_second_and_a_half_of_the_leaders_death() {
    let worst = worst_pause(Fleet::default()).await;
    assert!(worst < Duration::from_millis(1500), "writes came back after {worst:?}");
    // And not before the lease is over, which would mean that somebody did not keep to it.
    assert!(worst > Profile::Lan.election_max(), "writes came back after {worst:?}");
}

#[tokio::test(start_paused = true)]
async fn across_150_ms_writes_are_back_within_5_seconds() {
    let fleet = Fleet { wan: true, ..Fleet::default() };
    fleet.mesh.set_delay(Duration::from_millis(74));
    let worst = worst_pause(fleet).await;
    assert!(worst < Duration::from_secs(5), "writes came back after {worst:?}");
    assert!(worst > Profile::Wan.election_max(), "writes came back after {worst:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_a_quorum_stops_serving_and_steps_down() {
    let fleet = Fleet::founded(&[1, 2, 3]).await;
    let old = fleet.leader().await;
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != old.node_id()).collect();
    let term = old.status().term;
    fleet.mesh.isolate(old.node_id(), others.clone());
    // Such a write may be anywhere; what matters is that it is not acknowledged.
    let lost = tokio::spawn({
        let old = old.clone();
        async move { old.propose(b"lost=yes".to_vec()).await }
    });
    let stepped = Instant::now();
    until("the old leader to step down", || (old.status().role != Role::Leader).then_some(()))
        .await;
    assert!(stepped.elapsed() < Duration::from_secs(1), "{:?}", stepped.elapsed());
    let error = old.linearizable().await.unwrap_err();
    assert_eq!(error, ProposeError::NotLeader { leader: None });
    assert!(lost.await.unwrap().is_err());
    let kept = fleet.write("kept=yes").await;
    // Alone, it asks again and again and raises no term by it.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(old.status().term, term + 1);

    fleet.mesh.heal();
    applied(&old, kept).await;
    assert_eq!(old.state().get("kept").as_deref(), Some("yes"));
    assert_eq!(old.state().get("lost"), None);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_lost_its_quorum_reads_nothing_even_before_it_steps_down() {
    let fleet = Fleet::founded(&[1, 2, 3]).await;
    let old = fleet.leader().await;
    // Its calls arrive, but no answer comes back.
    for other in [1, 2, 3].into_iter().filter(|id| *id != old.node_id()) {
        fleet.mesh.cut(other, old.node_id());
    }
    let error = old.linearizable().await.unwrap_err();
    assert_eq!(error, ProposeError::NoQuorum);
}

#[tokio::test(start_paused = true)]
async fn a_returning_node_does_not_depose_a_healthy_leader() {
    let fleet = Fleet::founded(&[1, 2, 3]).await;
    let leader = fleet.leader().await;
    let term = leader.status().term;
    let away = *fleet.stores.keys().find(|id| **id != leader.node_id()).unwrap();
    for round in 0..5 {
        fleet.mesh.isolate(away, [1, 2, 3].into_iter().filter(|id| *id != away));
        tokio::time::sleep(Duration::from_secs(10)).await;
        fleet.write(&format!("key={round}")).await;
        fleet.mesh.heal();
        let end = fleet.write(&format!("back={round}")).await;
        applied(&fleet.stores[&away], end).await;
        let status = leader.status();
        assert_eq!((status.role, status.term), (Role::Leader, term), "round {round}");
    }
    // One that hears nobody but is heard is not voted for either.
    fleet.mesh.cut(leader.node_id(), away);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let status = leader.status();
    assert_eq!((status.role, status.term), (Role::Leader, term));
    assert_eq!(fleet.stores[&away].status().term, term);
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_to_whom_it_is_meant_for() {
    let fleet = Fleet::founded(&[1, 2, 3]).await;
    for to in [2, 3, 1, 3, 2, 1] {
        let old = fleet.leader().await;
        let begun = Instant::now();
        // Writes wait meanwhile and are told where to go then.
        let waiting = tokio::spawn({
            let old = old.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                old.propose(b"during=yes".to_vec()).await
            }
        });
        old.transfer(to).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(fleet.leader().await.node_id(), to);
        let told = waiting.await.unwrap();
        match old.node_id() == to {
            true => assert!(told.is_ok(), "{told:?}"),
            false => assert_eq!(told, Err(ProposeError::NotLeader { leader: Some(to) })),
        }
        fleet.write(&format!("leader={to}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_fails_leaves_the_leader_leading() {
    let mut fleet = Fleet::founded(&[1, 2, 3]).await;
    let leader = fleet.leader().await;
    let term = leader.status().term;
    let error = leader.transfer(8).await.unwrap_err();
    assert_eq!(error, TransferError::NotVoter(8));
    let dead = *fleet.stores.keys().find(|id| **id != leader.node_id()).unwrap();
    fleet.kill(dead).await;
    fleet.write("behind=yes").await;
    let error = leader.transfer(dead).await.unwrap_err();
    assert_eq!(error, TransferError::NotTaken(dead));
    leader.propose(b"goes=on".to_vec()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((leader.status().role, leader.status().term), (Role::Leader, term));

    let other = *fleet.stores.keys().find(|id| **id != leader.node_id()).unwrap();
    let error = fleet.stores[&other].transfer(leader.node_id()).await.unwrap_err();
    let hint = ProposeError::NotLeader { leader: Some(leader.node_id()) };
    assert_eq!(error, TransferError::Propose(hint));
}

#[tokio::test(start_paused = true)]
async fn no_node_speaks_for_another_and_nonsense_gets_an_answer() {
    let fleet = Fleet::founded(&[1, 2, 3]).await;
    let leader = fleet.leader().await;
    for body in [&b""[..], b"nonsense", &[7, 1, 0, 0, 0, 0, 9]] {
        let answer = leader.handle(2, bytes::Bytes::copy_from_slice(body)).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.contains("request: "), "{text}");
    }
    fleet.write("fine=yes").await;
}
