//! Tests of the log and the machine on a real disk: openraft's own suite, reopening after every
//! operation, and killing a process in the middle of its writes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use model::Revision;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader as _, RaftSnapshotBuilder as _};
use tempfile::TempDir;
use tokio::sync::watch;

use super::applied::{Applier, Replica};
use super::health::check;
use super::log::{Log, Media};
use super::rocks::RocksDisk;
use super::seam::{KvWrite, Machine, Outcome, Pair};
use super::types::{Entry, LogId, Membership, StorageError, Types, Vote};

const NODE: u64 = 7;

/// Keeps `key=value` commands; the reply is the old value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Register(BTreeMap<Vec<u8>, Vec<u8>>);

impl Machine for Register {
    fn load(pairs: Vec<Pair>) -> Result<Self, String> {
        Ok(Self(pairs.into_iter().collect()))
    }

    fn to_kv(&self) -> Vec<Pair> {
        self.0.clone().into_iter().collect()
    }

    fn apply(&mut self, _: Revision, command: &[u8]) -> Outcome {
        let text = String::from_utf8_lossy(command);
        let Some((key, value)) = text.split_once('=') else { return Outcome::default() };
        let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        let old = self.0.insert(key.clone(), value.clone());
        Outcome {
            reply: old.unwrap_or_default(),
            writes: vec![KvWrite { key, value: Some(value) }],
        }
    }
}

struct Opened {
    media: Media,
    log: Log,
    applier: Applier<Register>,
}

fn open(folder: &Path) -> Opened {
    let disk = RocksDisk::open(folder).unwrap();
    let loaded = check::<Register>(&disk, NODE).unwrap();
    let media = Media::new(Arc::new(disk));
    let (_, epoch) = watch::channel(1);
    let replica = Replica::new(media.clone(), epoch, loaded.machine, loaded.applied);
    Opened { log: Log::new(media.clone()), applier: Applier(Arc::new(replica)), media }
}

struct Folders;

impl StoreBuilder<Types, Log, Applier<Register>, TempDir> for Folders {
    async fn build(&self) -> Result<(TempDir, Log, Applier<Register>), StorageError> {
        let folder = tempfile::tempdir().unwrap();
        let opened = open(folder.path());
        Ok((folder, opened.log, opened.applier))
    }
}

#[test]
fn openrafts_own_suite_passes() {
    Suite::test_all(Folders).unwrap();
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, NODE), index)
}

fn entry(term: u64, index: u64) -> Entry {
    let command = format!("key{}=value{index}", index % 5).into_bytes();
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(command) }
}

fn members(index: u64) -> Entry {
    let membership = Membership::new(
        vec![[NODE].into()],
        [9].into_iter().collect::<std::collections::BTreeSet<u64>>(),
    );
    Entry { log_id: id(1, index), payload: EntryPayload::Membership(membership) }
}

/// What must be there after each reopening.
#[derive(Default)]
struct Expected {
    vote: Option<Vote>,
    purged: Option<LogId>,
    log: BTreeMap<u64, LogId>,
    machine: Register,
    applied: Option<LogId>,
}

async fn compare(opened: &mut Opened, expected: &Expected, after: &str) {
    assert_eq!(opened.log.read_vote().await.unwrap(), expected.vote, "after {after}");
    let state = opened.log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, expected.purged, "after {after}");
    let last = expected.log.values().last().copied().or(expected.purged);
    assert_eq!(state.last_log_id, last, "after {after}");
    let entries = opened.log.try_get_log_entries(..).await.unwrap();
    let ids: Vec<LogId> = entries.iter().map(|entry| entry.log_id).collect();
    assert_eq!(ids, expected.log.values().copied().collect::<Vec<_>>(), "after {after}");
    let (applied, machine) = opened.applier.0.position();
    assert_eq!(applied.log_id, expected.applied, "after {after}");
    assert_eq!(*machine, expected.machine, "after {after}");
}

#[tokio::test]
async fn every_operation_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Expected::default();
    let steps = [
        "vote", "append", "vote", "append", "truncate", "append", "apply", "purge", "append",
        "apply", "snapshot", "append", "apply", "purge", "vote",
    ];
    for (turn, step) in (1u64..).zip(steps) {
        let mut opened = open(folder.path());
        compare(&mut opened, &expected, &format!("turn {turn}, before {step}")).await;
        take_step(&mut opened, &mut expected, turn, step).await;
        compare(&mut opened, &expected, &format!("turn {turn}, {step}")).await;
    }
    compare(&mut open(folder.path()), &expected, "all").await;
}

async fn take_step(opened: &mut Opened, expected: &mut Expected, turn: u64, step: &str) {
    let next = expected.log.keys().last().map(|index| index + 1);
    let next = next.or_else(|| expected.purged.map(|id| id.index + 1)).unwrap_or(0);
    match step {
        "vote" => {
            let vote = Vote::new(turn, NODE);
            opened.log.save_vote(&vote).await.unwrap();
            expected.vote = Some(vote);
        }
        "append" => {
            let entries: Vec<Entry> = (next..next + 20).map(|index| entry(1, index)).collect();
            expected.log.extend(entries.iter().map(|entry| (entry.log_id.index, entry.log_id)));
            opened.log.blocking_append(entries).await.unwrap();
        }
        "truncate" => {
            opened.log.truncate(id(1, next - 7)).await.unwrap();
            expected.log.retain(|index, _| *index < next - 7);
        }
        "purge" => {
            let upto = expected.applied.unwrap();
            opened.log.purge(upto).await.unwrap();
            expected.log.retain(|index, _| *index > upto.index);
            expected.purged = Some(upto);
        }
        "apply" => {
            let from = expected.applied.map_or(0, |id| id.index + 1);
            let entries = opened.log.try_get_log_entries(from..next - 3).await.unwrap();
            for entry in &entries {
                let EntryPayload::Normal(command) = &entry.payload else { continue };
                expected.machine.apply(Revision::default(), command);
            }
            expected.applied = entries.last().map(|entry| entry.log_id);
            opened.applier.apply(entries).await.unwrap();
        }
        "snapshot" => {
            // Another node's, further on; its members come with it.
            let other = tempfile::tempdir().unwrap();
            let mut source = open(other.path());
            let entries: Vec<Entry> = (0..next).map(|index| entry(1, index)).collect();
            source.applier.apply(entries).await.unwrap();
            source.applier.apply([members(next)]).await.unwrap();
            let taken = source.applier.get_snapshot_builder().await.build_snapshot().await.unwrap();
            expected.machine = Register::clone(&source.applier.0.position().1);
            expected.applied = taken.meta.last_log_id;
            opened.applier.install_snapshot(&taken.meta, taken.snapshot).await.unwrap();
            // As openraft does after it.
            opened.log.purge(id(1, next)).await.unwrap();
            expected.log.clear();
            expected.purged = Some(id(1, next));
        }
        other => panic!("no step {other}"),
    }
}

const CHILD_FOLDER: &str = "FEDGATE_TEST_STORE_CRASH_FOLDER";

/// Run by the test below in a process of its own, which ends by being killed.
#[test]
fn crash_child() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut opened = open(Path::new(&folder));
        let state = opened.log.get_log_state().await.unwrap();
        let mut index = state.last_log_id.map_or(0, |id| id.index + 1);
        opened.log.save_vote(&Vote::new(index + 1, NODE)).await.unwrap();
        loop {
            opened.log.blocking_append([entry(1, index)]).await.unwrap();
            println!("entry {index}");
            opened.log.save_vote(&Vote::new(index + 1, NODE)).await.unwrap();
            println!("vote {}", index + 1);
            index += 1;
        }
    });
}

#[test]
fn a_killed_process_has_kept_every_acknowledged_entry_and_vote() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (round, lines) in [40usize, 1, 133, 20, 77].into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::suite::crash_child", "--exact", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut entry, mut vote) = (None, None);
        let mut seen = 0;
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut take = |line: String| match line.rsplit_once(' ') {
            Some((kind, index)) if kind.ends_with("entry") => entry = index.parse::<u64>().ok(),
            Some(("vote", index)) => vote = index.parse::<u64>().ok(),
            _ => {}
        };
        while seen < lines {
            take(output.next().expect("the child writes until it is killed"));
            seen += 1;
        }
        child.kill().unwrap();
        // Lines that it could still write were acknowledged too.
        output.for_each(&mut take);
        child.wait().unwrap();

        let mut opened = open(folder.path());
        runtime.block_on(async {
            let last = opened.log.get_log_state().await.unwrap().last_log_id.map(|id| id.index);
            assert!(last >= entry, "round {round}: the log ends at {last:?}, {entry:?} was there");
            let kept = opened.log.read_vote().await.unwrap().map(|vote| vote.leader_id.term);
            assert!(kept >= vote, "round {round}: the vote is {kept:?}, {vote:?} was given");
            assert!(opened.media.damage().is_none());
        });
        assert!(round > 0 || entry.is_some(), "the child did nothing");
    }
}
