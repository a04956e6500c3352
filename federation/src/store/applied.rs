//! The state machine on the disk and in memory, and what watchers are told of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use model::Revision;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, RaftSnapshotBuilder, StorageIOError};
use tokio::sync::watch;

use super::log::{Media, purge_steps, put_meta};
use super::record::{self, APPLIED_KEY, Applied};
use super::seam::{Disk, DiskError, Family, KvWrite, Machine, Pair, Step};
use super::types::{
    Entry, Image, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, Types,
};
use crate::limits::{STORE_CHANGES_BYTES_MAX, STORE_CHANGES_MAX};

/// A command that has been applied, for watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedCommand {
    pub revision: Revision,
    pub command: Arc<[u8]>,
    pub reply: Arc<[u8]>,
}

/// The machine: as it stands, how it came there, and its last snapshot.
pub(super) struct Replica<M> {
    media: Media,
    epoch: watch::Receiver<u64>,
    now: RwLock<Now<M>>,
    revision: watch::Sender<Revision>,
    changes: Mutex<Changes>,
    snapshot: Mutex<Option<(SnapshotMeta, Image)>>,
}

struct Now<M> {
    machine: Arc<M>,
    applied: Applied,
}

impl<M: Machine> Replica<M> {
    pub(super) fn new(
        media: Media,
        epoch: watch::Receiver<u64>,
        machine: M,
        applied: Applied,
    ) -> Self {
        let revision = revision_of(*epoch.borrow(), applied.log_id.as_ref());
        Self {
            media,
            epoch,
            now: RwLock::new(Now { machine: Arc::new(machine), applied }),
            revision: watch::Sender::new(revision),
            changes: Mutex::new(Changes { floor: revision, ..Changes::default() }),
            snapshot: Mutex::default(),
        }
    }

    /// The state, and the revision by which it is what it is.
    pub(super) fn state(&self) -> (Revision, Arc<M>) {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        let revision = revision_of(*self.epoch.borrow(), now.applied.log_id.as_ref());
        (revision, Arc::clone(&now.machine))
    }

    pub(super) fn position(&self) -> (Applied, Arc<M>) {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        (now.applied.clone(), Arc::clone(&now.machine))
    }

    pub(super) fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    pub(super) fn changes_since(&self, since: Revision) -> Option<Vec<AppliedCommand>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).since(since)
    }

    fn publish(&self, machine: Arc<M>, applied: Applied, commands: Option<Vec<AppliedCommand>>) {
        let revision = revision_of(*self.epoch.borrow(), applied.log_id.as_ref());
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Now { machine, applied };
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match commands {
            Some(commands) => commands.into_iter().for_each(|command| changes.push(command)),
            // What lies between is in no log here: watchers begin anew.
            None => *changes = Changes { floor: revision, ..Changes::default() },
        }
        drop(changes);
        self.revision.send_replace(revision);
    }

    fn freeze(&self) -> Snapshot {
        let (applied, machine) = self.position();
        let epoch = *self.epoch.borrow();
        let meta = SnapshotMeta {
            last_log_id: applied.log_id,
            last_membership: applied.membership,
            snapshot_id: match applied.log_id {
                Some(id) => format!("{epoch}-{id}"),
                None => format!("{epoch}-empty"),
            },
        };
        self.keep(meta, Image::of(machine))
    }

    fn keep(&self, meta: SnapshotMeta, image: Image) -> Snapshot {
        let mut kept = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((meta.clone(), image.clone()));
        Snapshot { meta, snapshot: Box::new(image) }
    }
}

impl<M> fmt::Debug for Replica<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("revision", &self.revision).finish_non_exhaustive()
    }
}

fn revision_of(epoch: u64, log_id: Option<&LogId>) -> Revision {
    Revision { epoch, index: log_id.map_or(0, |id| id.index) }
}

/// The newest applied commands, bounded in number and bytes.
#[derive(Debug, Default)]
struct Changes {
    /// All commands after it are here.
    floor: Revision,
    commands: VecDeque<AppliedCommand>,
    bytes: usize,
}

impl Changes {
    fn push(&mut self, command: AppliedCommand) {
        self.bytes += command.command.len() + command.reply.len();
        self.commands.push_back(command);
        while self.commands.len() > STORE_CHANGES_MAX || self.bytes > STORE_CHANGES_BYTES_MAX {
            let Some(oldest) = self.commands.pop_front() else { break };
            self.bytes -= oldest.command.len() + oldest.reply.len();
            self.floor = oldest.revision;
        }
    }

    fn since(&self, since: Revision) -> Option<Vec<AppliedCommand>> {
        if since < self.floor {
            return None;
        }
        let begin = self.commands.partition_point(|command| command.revision <= since);
        Some(self.commands.range(begin..).cloned().collect())
    }
}

/// The machine as openraft sees it.
#[derive(Debug)]
pub(super) struct Applier<M>(pub(super) Arc<Replica<M>>);

struct Work<M> {
    machine: M,
    applied: Applied,
    epoch: u64,
    batch: Vec<Step>,
    replies: Vec<Vec<u8>>,
    commands: Vec<AppliedCommand>,
}

impl<M: Machine> Work<M> {
    fn take(&mut self, entry: Entry) {
        let revision = Revision { epoch: self.epoch, index: entry.log_id.index };
        let mut reply = Vec::new();
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(command) => {
                let outcome = self.machine.apply(revision, &command);
                self.batch.extend(outcome.writes.into_iter().map(machine_step));
                self.commands.push(AppliedCommand {
                    revision,
                    command: command.into(),
                    reply: outcome.reply.as_slice().into(),
                });
                reply = outcome.reply;
            }
        }
        self.applied.log_id = Some(entry.log_id);
        self.replies.push(reply);
    }

    /// The machine's writes and its position in one batch. The log has the commands synced, so that
    /// this need not be.
    fn write(mut self, disk: &dyn Disk) -> Result<Self, DiskError> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.push(put_meta(APPLIED_KEY, record::encode_applied(&self.applied)));
        disk.write(batch, false)?;
        Ok(self)
    }
}

fn machine_step(write: KvWrite) -> Step {
    let KvWrite { key, value } = write;
    match value {
        Some(value) => {
            let value = record::encode_value(&key, &value);
            Step::Put { family: Family::Machine, key, value }
        }
        None => Step::Delete { family: Family::Machine, key },
    }
}

/// A batch that puts a machine in the place of whatever there was.
pub(super) fn replace_machine(pairs: Vec<Pair>, applied: &Applied) -> Vec<Step> {
    let clear = Step::DeleteRange { family: Family::Machine, from: Vec::new(), to: None };
    let puts =
        pairs.into_iter().map(|(key, value)| machine_step(KvWrite { key, value: Some(value) }));
    let mut batch: Vec<Step> = std::iter::once(clear).chain(puts).collect();
    batch.push(put_meta(APPLIED_KEY, record::encode_applied(applied)));
    batch
}

/// All pairs of the machine on the disk, with their checksums checked.
pub(super) fn read_pairs(disk: &dyn Disk) -> Result<Vec<Pair>, DiskError> {
    let pairs = disk.scan(Family::Machine, &[], None, usize::MAX)?;
    let open = |(key, bytes): Pair| {
        let value = record::decode_value(&key, &bytes)?;
        Ok((key, value))
    };
    pairs.into_iter().map(open).collect()
}

impl<M: Machine> RaftStateMachine<Types> for Applier<M> {
    type SnapshotBuilder = Builder<M>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let (applied, _) = self.0.position();
        Ok((applied.log_id, applied.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<u8>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (applied, machine) = self.0.position();
        let epoch = *self.0.epoch.borrow();
        let work = self.0.media.run(move |disk| {
            let machine = M::clone(&machine);
            let mut work = Work {
                machine,
                applied,
                epoch,
                batch: Vec::new(),
                replies: Vec::new(),
                commands: Vec::new(),
            };
            entries.into_iter().for_each(|entry| work.take(entry));
            work.write(disk)
        });
        let work = work.await.map_err(|error| machine_error(&error))?;
        self.0.publish(Arc::new(work.machine), work.applied, Some(work.commands));
        Ok(work.replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder<M> {
        Builder(Arc::clone(&self.0))
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Image>, StorageError> {
        let (_, machine) = self.0.position();
        Ok(Box::new(Image::of(machine)))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Image>,
    ) -> Result<(), StorageError> {
        let Some(machine) = snapshot.machine::<M>() else {
            return Err(machine_error(&DiskError::Damaged("a snapshot of another machine".into())));
        };
        let applied =
            Applied { log_id: meta.last_log_id, membership: meta.last_membership.clone() };
        let written = applied.clone();
        let image = Image::clone(&snapshot);
        let done = self.0.media.run(move |disk| {
            let mut batch = replace_machine(image.to_kv(), &written);
            // In the same batch, so that the machine is never beyond the log's end.
            batch.extend(written.log_id.iter().flat_map(purge_steps));
            disk.write(batch, true)
        });
        done.await.map_err(|error| machine_error(&error))?;
        self.0.publish(machine, applied, None);
        self.0.keep(meta.clone(), *snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let kept = self.0.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = |(meta, image): &(SnapshotMeta, Image)| Snapshot {
            meta: meta.clone(),
            snapshot: Box::new(image.clone()),
        };
        Ok(kept.as_ref().map(whole))
    }
}

/// Takes a snapshot: a clone of the state, with no byte copied and no append kept waiting. It is not
/// stored, because the machine itself is on the disk: after a restart it is simply taken again.
#[derive(Debug)]
pub(super) struct Builder<M>(Arc<Replica<M>>);

impl<M: Machine> RaftSnapshotBuilder<Types> for Builder<M> {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        Ok(self.0.freeze())
    }
}

fn machine_error(error: &DiskError) -> StorageError {
    StorageIOError::write_state_machine(AnyError::new(error)).into()
}
