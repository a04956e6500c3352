//! The Raft log and the vote on the disk.
//!
//! Both reach the device before anybody hears of them: what this node has promised or acknowledged
//! is there after a power failure.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, OnceLock};

use model::Revision;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, ErrorSubject, ErrorVerb, LogState, RaftLogReader, StorageIOError};
use tokio::sync::watch;

use super::format::FormatError;
use super::record::{self, PURGED_KEY, VOTE_KEY, entry_key};
use super::seam::{Disk, DiskError, Family, Pair, Step};
use super::types::{Entry, LogId, StorageError, Types, Vote};
use crate::limits::{STORE_APPEND_BYTES_MAX, STORE_CATCH_UP_TIMEOUT};

/// The disk, with its calls kept off the async threads, and the first damage that was seen on it.
#[derive(Clone)]
pub(super) struct Media {
    disk: Arc<dyn Disk>,
    damage: Arc<OnceLock<String>>,
}

impl Media {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, damage: Arc::default() }
    }

    /// Runs `job` where it may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&dyn Disk) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let disk = Arc::clone(&self.disk);
        self.linger().await;
        let done = self.compute(move || job(&*disk)).await;
        self.linger().await;
        if let Err(DiskError::Damaged(text)) = &done {
            self.report(text);
        }
        done
    }

    /// Runs `job`, which takes long but touches no disk, where it keeps nobody waiting.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        if !self.disk.blocks() {
            return job();
        }
        let joined = tokio::task::spawn_blocking(job).await;
        joined.unwrap_or_else(|problem| {
            Err(DiskError::Io { verb: "finish", problem: problem.to_string() })
        })
    }

    async fn linger(&self) {
        let latency = self.disk.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    pub(super) fn report(&self, text: &str) {
        let _ = self.damage.set(text.to_owned());
    }

    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media").field("damage", &self.damage).finish_non_exhaustive()
    }
}

impl From<FormatError> for DiskError {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// The log as openraft sees it.
#[derive(Clone, Debug)]
pub(super) struct Log {
    media: Media,
    applied: Option<watch::Receiver<Revision>>,
}

impl Log {
    /// For openraft's own tests, which purge without applying.
    #[cfg(test)]
    pub(super) fn new(media: Media) -> Self {
        Self { media, applied: None }
    }

    /// A log of which nothing goes before the state on the disk has it.
    pub(super) fn behind(media: Media, applied: watch::Receiver<Revision>) -> Self {
        Self { media, applied: Some(applied) }
    }

    /// openraft purges what a snapshot has while the snapshot is still being written: a crash between
    /// would leave neither.
    async fn await_state(&mut self, index: u64) -> Result<(), DiskError> {
        let Some(applied) = &mut self.applied else { return Ok(()) };
        let reached = applied.wait_for(|revision| revision.index >= index);
        match tokio::time::timeout(STORE_CATCH_UP_TIMEOUT, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => {
                let problem = format!("the state did not reach entry {index}");
                Err(DiskError::Io { verb: "purge", problem })
            }
        }
    }
}

/// The vote on the disk.
pub(super) fn read_vote(disk: &dyn Disk) -> Result<Option<Vote>, DiskError> {
    let bytes = disk.get(Family::Meta, VOTE_KEY)?;
    Ok(bytes.map(|bytes| record::decode_vote(&bytes)).transpose()?)
}

/// What the log begins after and ends with.
pub(super) fn read_ends(disk: &dyn Disk) -> Result<(Option<LogId>, Option<LogId>), DiskError> {
    let purged = disk.get(Family::Meta, PURGED_KEY)?;
    let purged = purged.map(|bytes| record::decode_purged(&bytes)).transpose()?;
    let last = disk.last(Family::Log)?;
    let last = last.map(|(key, value)| record::decode_entry(&key, &value)).transpose()?;
    Ok((purged, last.map(|entry| entry.log_id).or(purged)))
}

/// The entries from `from` on and before `to`; those by which `most_bytes` is reached.
pub(super) fn read_entries(
    disk: &dyn Disk,
    from: u64,
    to: Option<u64>,
    most_bytes: usize,
) -> Result<Vec<Entry>, DiskError> {
    if to.is_some_and(|to| to <= from) {
        return Ok(Vec::new());
    }
    let to = to.map(entry_key);
    let to = to.as_ref().map(<[u8; 8]>::as_slice);
    let pairs = disk.scan(Family::Log, &entry_key(from), to, most_bytes)?;
    let decode = |(key, value): Pair| Ok(record::decode_entry(&key, &value)?);
    pairs.into_iter().map(decode).collect()
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + fmt::Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.checked_add(1),
            Bound::Excluded(index) => Some(*index),
            Bound::Unbounded => None,
        };
        let read = move |disk: &dyn Disk| read_entries(disk, from, to, usize::MAX);
        self.media.run(read).await.map_err(|error| log_error(ErrorVerb::Read, &error))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let read =
            move |disk: &dyn Disk| read_entries(disk, start, Some(end), STORE_APPEND_BYTES_MAX);
        self.media.run(read).await.map_err(|error| log_error(ErrorVerb::Read, &error))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let ends = self.media.run(read_ends).await;
        let (last_purged_log_id, last_log_id) =
            ends.map_err(|error| log_error(ErrorVerb::Read, &error))?;
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let put = put_meta(VOTE_KEY, record::encode_vote(vote));
        let saved = self.media.run(|disk| disk.write(vec![put], true)).await;
        saved.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.media.run(read_vote).await;
        vote.map_err(|error| StorageIOError::read_vote(AnyError::new(&error)).into())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let put = |entry: Entry| Step::Put {
            family: Family::Log,
            key: entry_key(entry.log_id.index).to_vec(),
            value: record::encode_entry(&entry),
        };
        let batch = entries.into_iter().map(put).collect();
        match self.media.run(|disk| disk.write(batch, true)).await {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            // It is never tried again: after a failed sync nobody knows what is on the device.
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.clone())));
                Err(log_error(ErrorVerb::Write, &error))
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let cut = Step::DeleteRange {
            family: Family::Log,
            from: entry_key(log_id.index).to_vec(),
            to: None,
        };
        let done = self.media.run(|disk| disk.write(vec![cut], true)).await;
        done.map_err(|error| log_error(ErrorVerb::Delete, &error))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let there = self.await_state(log_id.index).await;
        there.map_err(|error| log_error(ErrorVerb::Delete, &error))?;
        // Synced, so that the machine's own writes, which came before it, are on the device too.
        let batch = purge_steps(&log_id).into();
        let done = self.media.run(|disk| disk.write(batch, true)).await;
        done.map_err(|error| log_error(ErrorVerb::Delete, &error))
    }
}

/// Lets the log begin after this entry.
pub(super) fn purge_steps(log_id: &LogId) -> [Step; 2] {
    let range = Step::DeleteRange {
        family: Family::Log,
        from: Vec::new(),
        to: log_id.index.checked_add(1).map(|end| entry_key(end).to_vec()),
    };
    [put_meta(PURGED_KEY, record::encode_purged(log_id)), range]
}

pub(super) fn put_meta(key: &[u8], value: Vec<u8>) -> Step {
    Step::Put { family: Family::Meta, key: key.to_vec(), value }
}

fn log_error(verb: ErrorVerb, error: &DiskError) -> StorageError {
    StorageIOError::new(ErrorSubject::Logs, verb, AnyError::new(error)).into()
}
