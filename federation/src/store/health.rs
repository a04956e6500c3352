//! What lies on a disk, read whole and checked, before a node votes or serves with it.

use super::applied::read_pairs;
use super::log::{read_ends, read_entries, read_vote};
use super::record::{self, APPLIED_KEY, Applied, EPOCH_KEY, NODE_KEY, RESEED_KEY, entry_key};
use super::seam::{Disk, DiskError, Family, Machine};
use super::types::LogId;

/// Bytes of entries read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A disk that has passed the check.
#[derive(Debug)]
pub(super) struct Loaded<M> {
    pub(super) machine: M,
    pub(super) applied: Applied,
    pub(super) epoch: u64,
    /// The node lost its log and may not vote yet.
    pub(super) reseeding: bool,
    /// Nothing was ever written here.
    pub(super) blank: bool,
    /// The term that this node led, if it did, and where its log ends.
    pub(super) resumed: Option<(u64, u64)>,
}

/// Reads everything; the first fault makes it [`DiskError::Damaged`].
pub(super) fn check<M: Machine>(disk: &dyn Disk, node_id: u64) -> Result<Loaded<M>, DiskError> {
    check_owner(disk, node_id)?;
    let vote = read_vote(disk)?;
    let (purged, last) = check_log(disk)?;
    let applied = read_applied(disk)?;
    check_order(purged, applied.log_id, last)?;
    let (promised, written) =
        (vote.map_or(0, |vote| vote.leader_id.term), last.map_or(0, |id| id.leader_id.term));
    if written > promised {
        let text = format!("the log has an entry of term {written}, the vote is of {promised}");
        return Err(DiskError::Damaged(text));
    }
    let machine = M::load(read_pairs(disk)?)
        .map_err(|text| DiskError::Damaged(format!("the state cannot be read: {text}")))?;
    Ok(Loaded {
        machine,
        epoch: read_number(disk, EPOCH_KEY)?.unwrap_or(0),
        reseeding: read_number(disk, RESEED_KEY)?.is_some(),
        blank: vote.is_none() && last.is_none() && applied == Applied::default(),
        resumed: vote
            .filter(|vote| vote.committed && vote.leader_id.node_id == node_id)
            .zip(last)
            .map(|(vote, last)| (vote.leader_id.term, last.index)),
        applied,
    })
}

pub(super) fn read_number(disk: &dyn Disk, key: &[u8]) -> Result<Option<u64>, DiskError> {
    let bytes = disk.get(Family::Meta, key)?;
    Ok(bytes.map(|bytes| record::decode_number(key, &bytes)).transpose()?)
}

pub(super) fn read_applied(disk: &dyn Disk) -> Result<Applied, DiskError> {
    match disk.get(Family::Meta, APPLIED_KEY)? {
        Some(bytes) => Ok(record::decode_applied(&bytes)?),
        None => Ok(Applied::default()),
    }
}

/// The machine is never before the log's beginning, nor beyond its end.
fn check_order(
    purged: Option<LogId>,
    applied: Option<LogId>,
    last: Option<LogId>,
) -> Result<(), DiskError> {
    if purged <= applied && applied <= last {
        return Ok(());
    }
    Err(DiskError::Damaged(format!(
        "the log begins after {} and ends at {}, but the state is that at {}",
        place(purged),
        place(last),
        place(applied)
    )))
}

fn check_owner(disk: &dyn Disk, node: u64) -> Result<(), DiskError> {
    match read_number(disk, NODE_KEY)? {
        Some(owner) if owner != node => Err(DiskError::Foreign { owner, node }),
        _ => Ok(()),
    }
}

/// Every entry is readable, and there are no gaps.
fn check_log(disk: &dyn Disk) -> Result<(Option<LogId>, Option<LogId>), DiskError> {
    let (purged, last) = read_ends(disk)?;
    let mut previous = purged;
    loop {
        let next = previous.map_or(0, |id| id.index + 1);
        let entries = read_entries(disk, next, None, CHUNK_BYTES)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let id = entry.log_id;
            let wanted = previous.map_or(0, |id| id.index + 1);
            if id.index != wanted {
                let text = format!("log entry {wanted} is missing; the next is {}", id.index);
                return Err(DiskError::Damaged(text));
            }
            if previous.is_some_and(|previous| previous.leader_id > id.leader_id) {
                let text =
                    format!("log entry {} is of an older term than the one before", id.index);
                return Err(DiskError::Damaged(text));
            }
            previous = Some(id);
        }
    }
    // What purging left over below its mark would have been deleted with it.
    let purged_end = purged.and_then(|id| id.index.checked_add(1)).map_or([0; 8], entry_key);
    if !disk.scan(Family::Log, &[], Some(&purged_end), 1)?.is_empty() {
        return Err(DiskError::Damaged("entries lie before the log's beginning".into()));
    }
    match previous == last {
        true => Ok((purged, last)),
        false => Err(DiskError::Damaged(format!("the log ends at {}", place(previous)))),
    }
}

fn place(id: Option<LogId>) -> String {
    id.map_or_else(|| "nothing".to_owned(), |id| format!("entry {}", id.index))
}
