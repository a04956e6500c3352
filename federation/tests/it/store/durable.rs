//! What was acknowledged is there: after reopening, after a kill, after a power failure; and what
//! was damaged is noticed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use federation::store::{DiskError, Family, RocksDisk, Role, Store, StoreError, set_aside};

use super::fixture::{Fleet, Mesh, PowerDisk, Register, applied, config, until};

async fn open(folder: &Path) -> Store<Register> {
    let disk = Arc::new(RocksDisk::open(folder).unwrap());
    Store::open(config(1), disk, Mesh::default().way_of(1)).await.unwrap()
}

#[tokio::test]
async fn everything_is_there_after_each_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.found(b"founded=yes".to_vec()).await.unwrap();
    store.shutdown().await;
    drop(store);
    for round in 0..8u32 {
        let store = open(folder.path()).await;
        until("it to lead", || store.leadership().borrow().own.then_some(())).await;
        store.linearizable().await.unwrap();
        if round > 0 {
            let last = store.state().get("round");
            assert_eq!(last, Some((round - 1).to_string()));
        }
        for number in 0..3 {
            store.propose(format!("key{round}-{number}=value").into_bytes()).await.unwrap();
        }
        let done = store.propose(format!("round={round}").into_bytes()).await.unwrap();
        assert_eq!(store.status().applied, done.revision);
        assert_eq!(store.state().0.len() as u32, 2 + 3 * (round + 1));
        store.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_power_failure_of_all_voters_loses_nothing_that_was_acknowledged() {
    let mut fleet = Fleet { log_entries: Some(16), ..Fleet::default() };
    fleet.found(&[1, 2, 3]).await;
    for round in 0..5 {
        for number in 0..20 {
            fleet.write(&format!("key{round}-{number}=value")).await;
        }
        fleet.power_failure().await;
        for node in [1, 2, 3] {
            fleet.start(node).await;
        }
        let end = fleet.write(&format!("round={round}")).await;
        for store in fleet.stores.values() {
            applied(store, end).await;
            for earlier in 0..=round {
                for number in 0..20 {
                    let key = format!("key{earlier}-{number}");
                    assert!(store.state().get(&key).is_some(), "{key} is gone in round {round}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_node_syncs_once_for_each_write() {
    let fleet = Fleet::founded(&[1]).await;
    fleet.write("warm=up").await;
    let before = fleet.disks[&1].syncs();
    for number in 0..10 {
        fleet.write(&format!("key={number}")).await;
    }
    assert_eq!(fleet.disks[&1].syncs() - before, 10);
}

const CHILD_FOLDER: &str = "FEDGATE_TEST_STORE_FOLDER";

/// Run by the test below in a process of its own, which ends by being killed.
#[tokio::test]
async fn writing_child() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = open(Path::new(&folder)).await;
    store.found(b"founded=yes".to_vec()).await.unwrap();
    for number in 0u64.. {
        store.propose(format!("key{number}={number}").into_bytes()).await.unwrap();
        println!("acknowledged {number}");
    }
}

#[tokio::test]
async fn a_killed_node_has_every_write_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut most = 0;
    for lines in [30, 3, 90, 11] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::durable::writing_child", "--exact", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut numbers = output
            .filter_map(|line| {
                line.rsplit_once("acknowledged ").map(|(_, number)| number.to_owned())
            })
            .map(|number| number.parse::<u64>().unwrap());
        for _ in 0..lines {
            most = most.max(numbers.next().expect("the child writes until it is killed"));
        }
        child.kill().unwrap();
        most = numbers.fold(most, u64::max);
        child.wait().unwrap();

        let store = open(folder.path()).await;
        until("it to lead", || store.leadership().borrow().own.then_some(())).await;
        store.linearizable().await.unwrap();
        let state = store.state();
        for number in 0..=most {
            let value = state.get(&format!("key{number}"));
            assert_eq!(value, Some(number.to_string()), "of 0 to {most}");
        }
        store.shutdown().await;
    }
}

async fn reopen(disk: PowerDisk) -> Result<Store<Register>, StoreError> {
    Store::open(config(1), Arc::new(disk), Mesh::default().way_of(1)).await
}

#[tokio::test(start_paused = true)]
async fn any_damage_keeps_a_node_from_voting_and_serving() {
    let mut fleet = Fleet::founded(&[1]).await;
    for number in 0..10 {
        fleet.write(&format!("key{number}=value")).await;
    }
    fleet.kill(1).await;
    let good = &fleet.disks[&1];
    reopen(good.after_kill()).await.unwrap().shutdown().await;

    for family in [Family::Log, Family::Meta, Family::Machine] {
        for key in good.keys(family) {
            let disk = good.after_kill();
            assert!(disk.flip(family, &key, 7));
            let Err(StoreError::Disk(DiskError::Damaged(text))) = reopen(disk).await else {
                panic!("a flipped bit in {family} went unnoticed");
            };
            assert!(text.contains("they were altered"), "{text}");
        }
    }
    let mut keys = good.keys(Family::Log);
    let hole = keys.remove(5);
    let disk = good.after_kill();
    disk.remove(Family::Log, &hole);
    let error = reopen(disk).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the store's files are damaged: log entry 5 is missing; the next is 6; re-seed this node \
         from its peers"
    );
    let disk = good.after_kill();
    for key in good.keys(Family::Log) {
        disk.remove(Family::Log, &key);
    }
    disk.remove(Family::Meta, b"vote");
    // A log that is gone as a whole leaves the machine ahead of it, and no vote.
    let error = reopen(disk).await.unwrap_err().to_string();
    assert!(error.contains("ends at nothing, but the state is that at entry 12"), "{error}");

    let other =
        Store::<Register>::open(config(2), Arc::new(good.after_kill()), Mesh::default().way_of(2));
    let error = other.await.unwrap_err().to_string();
    assert!(error.contains("belongs to node 0000000000000001, this is node"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn damage_that_shows_later_stops_the_node() {
    let mut fleet = Fleet::founded(&[1, 2, 3]).await;
    fleet.write("key=value").await;
    let leader = fleet.leader().await;
    let away = *fleet.stores.keys().find(|id| **id != leader.node_id()).unwrap();
    fleet.kill(away).await;
    fleet.write("missed=yes").await;
    let last = fleet.disks[&leader.node_id()].keys(Family::Log).pop().unwrap();
    assert!(fleet.disks[&leader.node_id()].flip(Family::Log, &last, 9));
    // The leader reads the entry in order to send it.
    fleet.start(away).await;
    until("the leader to notice", || (leader.status().role == Role::Failed).then_some(())).await;
    let fault = leader.status().fault.unwrap();
    assert!(fault.contains("they were altered"), "{fault}");
    let answer = leader.handle(away, bytes::Bytes::new()).await;
    assert!(String::from_utf8_lossy(&answer).contains("this node's store is damaged"));
    assert!(leader.propose(b"key=other".to_vec()).await.is_err());
    // The other two go on, with everything that was acknowledged.
    fleet.stores.remove(&leader.node_id());
    fleet.write("goes=on").await;
    assert_eq!(fleet.leader().await.state().get("missed").as_deref(), Some("yes"));
}

#[test]
fn a_flipped_byte_in_rocksdbs_own_files_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&path).await;
        store.found(b"founded=yes".to_vec()).await.unwrap();
        for number in 0..50 {
            store.propose(format!("key{number}=value").into_bytes()).await.unwrap();
        }
        store.shutdown().await;
    });
    drop(runtime);
    let log = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    let log = log.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let good = std::fs::read(&log).unwrap();
    // The last record too: it was acknowledged, so that it is no torn end.
    for at in [20, good.len() / 2, good.len() - 2] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&log, &bytes).unwrap();
        let error = RocksDisk::open(&path).unwrap_err();
        assert!(matches!(error, DiskError::Damaged(_)), "byte {at}: {error}");
    }
    let error = RocksDisk::open(&path).unwrap_err();
    assert!(matches!(error, DiskError::Damaged(_)), "{error}");
    assert!(error.to_string().ends_with("re-seed this node from its peers"), "{error}");

    // It is kept, and a new one can be made in its place.
    let kept = set_aside(&path).unwrap();
    assert_eq!(kept, folder.path().join("store.damaged-1"));
    assert!(kept.join("CURRENT").exists());
    RocksDisk::open(&path).unwrap();
}
