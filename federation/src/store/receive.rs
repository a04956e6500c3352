//! Takes a snapshot's parts up, in order and bounded, until it is whole and its hash is right.

use sha2::{Digest, Sha256};

use super::format::{FormatError, Reader};
use super::rpc::SnapshotPart;
use super::seam::Pair;
use crate::limits::STORE_SNAPSHOT_BYTES_MAX;

/// Why a part or the whole was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("snapshot: total is {total}, at most {STORE_SNAPSHOT_BYTES_MAX} bytes are taken")]
    TooLarge { total: u64 },
    #[error("snapshot: its parts end at {end}, its total is {total}")]
    Beyond { end: u64, total: u64 },
    #[error("snapshot: a part of no bytes at {offset} of {total}")]
    Empty { offset: u64, total: u64 },
    #[error("snapshot: its hash is not the announced one: it was altered on its way")]
    Hash,
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// What follows a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// The part at this offset is next; another one was out of order.
    Next(u64),
    Whole(Vec<u8>),
}

/// The one transfer in progress.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    current: Option<Receiving>,
}

#[derive(Debug)]
struct Receiving {
    from: u64,
    /// The first part, without its bytes: all others say the same of the whole.
    head: SnapshotPart,
    bytes: Vec<u8>,
}

impl Receiver {
    pub(super) fn take(&mut self, from: u64, part: SnapshotPart) -> Result<Took, ReceiveError> {
        if part.total > STORE_SNAPSHOT_BYTES_MAX as u64 {
            return Err(ReceiveError::TooLarge { total: part.total });
        }
        let end = part.offset.saturating_add(part.bytes.len() as u64);
        if end > part.total {
            return Err(ReceiveError::Beyond { end, total: part.total });
        }
        if part.bytes.is_empty() && part.total > 0 {
            return Err(ReceiveError::Empty { offset: part.offset, total: part.total });
        }
        let bytes = part.bytes;
        let (offset, head) = (part.offset, SnapshotPart { bytes: Vec::new(), offset: 0, ..part });
        let mut receiving = match self.current.take() {
            Some(current) if current.from == from && current.head == head => current,
            // Another transfer, perhaps another leader's; the older one's sender has given up or will
            // be told to begin anew.
            _ => Receiving { from, head, bytes: Vec::new() },
        };
        let have = receiving.bytes.len() as u64;
        if offset == have {
            receiving.bytes.extend(bytes);
        }
        let have = receiving.bytes.len() as u64;
        // A part that was sent twice finds its successor asked for, which is what its sender expects.
        if have < receiving.head.total || offset > have {
            self.current = Some(receiving);
            return Ok(Took::Next(if offset > have { have } else { have.min(end) }));
        }
        match <[u8; 32]>::from(Sha256::digest(&receiving.bytes)) == receiving.head.digest {
            true => Ok(Took::Whole(receiving.bytes)),
            false => Err(ReceiveError::Hash),
        }
    }
}

/// The pairs of a whole snapshot.
pub(super) fn decode_pairs(bytes: &[u8]) -> Result<Vec<Pair>, FormatError> {
    let mut reader = Reader::new("snapshot", bytes);
    let mut pairs: Vec<Pair> = Vec::new();
    while !reader.is_empty() {
        let (key, value) = reader.pair()?;
        if pairs.last().is_some_and(|(last, _)| last.as_slice() >= key) {
            let key = key.escape_ascii();
            return Err(reader.wrong("key", key, "keys are in ascending order, each once"));
        }
        pairs.push((key.to_vec(), value.to_vec()));
    }
    Ok(pairs)
}
