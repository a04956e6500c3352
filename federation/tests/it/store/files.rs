//! Snapshot files, and the ways back from them or from one node's own data.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use federation::store::{
    ProposeError, RecoverError, Role, Store, inspect_snapshot, recover, restore_snapshot,
    verify_snapshot,
};

use super::fixture::{Fleet, PowerDisk, Register, applied, config, until};

#[tokio::test(start_paused = true)]
async fn a_snapshot_file_is_saved_inspected_verified_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let mut fleet = Fleet::founded(&[1, 2, 3]).await;
    for number in 0..30 {
        fleet.write(&format!("key{number}=value")).await;
    }
    let leader = fleet.leader().await;
    let saved = leader.save_snapshot(&path).await.unwrap();
    assert_eq!(saved.revision, leader.status().applied);
    assert_eq!((saved.pairs, saved.voters.as_slice()), (31, &[1, 2, 3][..]));
    assert_eq!(inspect_snapshot(&path).unwrap(), saved);
    assert_eq!(verify_snapshot::<Register>(&path).unwrap(), saved);

    let used = restore_snapshot::<Register>(&path, &*fleet.disks[&2], 2).unwrap_err();
    assert!(matches!(used, RecoverError::NotEmpty), "{used}");
    let disk = Arc::new(PowerDisk::default());
    let restored = restore_snapshot::<Register>(&path, &*disk, 8).unwrap();
    assert_eq!((restored.epoch, restored.index), (6, saved.revision.index));
    fleet.disks.insert(8, disk);
    let store = fleet.start(8).await;
    until("it to lead", || store.leadership().borrow().own.then_some(())).await;
    assert_eq!(store.state().0, leader.state().0);
    let done = store.propose(b"new=yes".to_vec()).await.unwrap();
    assert!(done.revision > saved.revision);
    assert_eq!((done.revision.epoch, store.status().voters), (6, vec![8]));
    // A new member gets everything from there.
    fleet.start(9).await;
    store.set_members([8].into(), [9].into()).await.unwrap();
    applied(&fleet.stores[&9], done.revision).await;
    assert_eq!(*fleet.stores[&9].state(), *store.state());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_altered_is_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let fleet = Fleet::founded(&[1]).await;
    fleet.write("key=value").await;
    let leader = fleet.leader().await;
    leader.save_snapshot(&path).await.unwrap();
    let good = std::fs::read(&path).unwrap();
    let altered = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases = [
        (Vec::new(), "it does not begin as one"),
        (altered(3), "it does not begin as one"),
        (altered(45), "header: checksum is"),
        (altered(good.len() - 1), "its hash is not the one in its header"),
        (good[..good.len() - 1].to_vec(), "the file was cut or added to"),
        ([good.as_slice(), b"x"].concat(), "the file was cut or added to"),
    ];
    for (bytes, text) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = verify_snapshot::<Register>(&path).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        let restored = restore_snapshot::<Register>(&path, &PowerDisk::default(), 4);
        assert!(restored.unwrap_err().to_string().contains(text));
    }
    // A state that the machine does not accept.
    leader.propose(b"poison=yes".to_vec()).await.unwrap();
    leader.save_snapshot(&path).await.unwrap();
    inspect_snapshot(&path).unwrap();
    let error = verify_snapshot::<Register>(&path).unwrap_err().to_string();
    assert!(error.ends_with("the state was refused: poison is no key"), "{error}");

    let missing = folder.path().join("missing");
    let error = inspect_snapshot(&missing).unwrap_err().to_string();
    assert!(error.starts_with("cannot read "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_node_recovers_alone_and_its_old_members_are_fenced_off() {
    let mut fleet = Fleet::founded(&[1, 2, 3]).await;
    let last = fleet.write("key=value").await;
    for store in fleet.stores.values() {
        applied(store, last).await;
    }
    for node in [1, 2, 3] {
        fleet.kill(node).await;
    }
    let recovered = recover::<Register>(&*fleet.disks[&2], 2).unwrap();
    assert_eq!(recovered.epoch, 6);
    let store = fleet.start(2).await;
    until("it to lead", || store.leadership().borrow().own.then_some(())).await;
    let done = store.propose(b"alone=yes".to_vec()).await.unwrap();
    assert_eq!((done.revision.epoch, store.status().voters), (6, vec![2]));
    assert_eq!(store.state().get("key").as_deref(), Some("value"));

    // The others come back. They are a quorum of the old members, and may well go on as such; but
    // they have no part in the new store, nor it in theirs.
    let old = fleet.start(1).await;
    fleet.start(3).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(store.status().role, Role::Leader);
    assert_eq!(old.state().get("alone"), None);
    assert_ne!(old.status().leader, Some(2));
    let set = store.set_members([2].into(), [1].into()).await;
    set.unwrap();
    until("the old member to learn of it", || old.status().fenced_by).await;
    assert_eq!(old.status().fenced_by, Some(6));
    assert_eq!(old.state().get("alone"), None);

    let empty = recover::<Register>(&PowerDisk::default(), 4).unwrap_err();
    assert!(matches!(empty, RecoverError::NothingThere), "{empty}");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_only_this_node_has_counts_when_it_recovers() {
    let mut fleet = Fleet::founded(&[1, 2, 3]).await;
    let leader = fleet.leader().await;
    let id = leader.node_id();
    let others: BTreeSet<u64> = [1, 2, 3].into_iter().filter(|other| *other != id).collect();
    fleet.mesh.isolate(id, others);
    // It may have been acknowledged, for all that this node can know later.
    let lone = leader.propose(b"lone=yes".to_vec()).await;
    assert!(matches!(lone, Err(ProposeError::Timeout(_) | ProposeError::NoQuorum)), "{lone:?}");
    fleet.kill(id).await;
    recover::<Register>(&*fleet.disks[&id], id).unwrap();
    let store = fleet.start(id).await;
    until("it to lead", || store.leadership().borrow().own.then_some(())).await;
    store.linearizable().await.unwrap();
    assert_eq!(store.state().get("lone").as_deref(), Some("yes"));
}

#[tokio::test]
async fn node_0_is_refused() {
    let opened = Store::<Register>::open(
        config(0),
        Arc::new(PowerDisk::default()),
        super::fixture::Mesh::default().way_of(0),
    );
    let error = opened.await.unwrap_err().to_string();
    assert!(error.starts_with("node_id is 0"), "{error}");
}
