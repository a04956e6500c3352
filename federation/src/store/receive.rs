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

#[cfg(test)]
mod tests {
    use super::super::format::Writer;
    use super::super::types::{StoredMembership, Vote};
    use super::*;

    const WHOLE: &[u8] = b"0123456789";

    fn part(offset: usize, end: usize) -> SnapshotPart {
        SnapshotPart {
            vote: Vote::new_committed(1, 2),
            transfer: 3,
            last_log_id: None,
            membership: StoredMembership::default(),
            offset: offset as u64,
            total: WHOLE.len() as u64,
            digest: Sha256::digest(WHOLE).into(),
            bytes: WHOLE[offset..end].to_vec(),
        }
    }

    #[test]
    fn parts_in_order_make_the_whole() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.take(2, part(0, 4)), Ok(Took::Next(4)));
        // Sent twice, since its answer was lost.
        assert_eq!(receiver.take(2, part(0, 4)), Ok(Took::Next(4)));
        assert_eq!(receiver.take(2, part(4, 8)), Ok(Took::Next(8)));
        assert_eq!(receiver.take(2, part(0, 4)), Ok(Took::Next(4)));
        assert_eq!(receiver.take(2, part(8, 10)), Ok(Took::Whole(WHOLE.to_vec())));
        // The end again, after it was taken: the sender is to begin anew.
        assert_eq!(receiver.take(2, part(8, 10)), Ok(Took::Next(0)));

        let empty = SnapshotPart {
            total: 0,
            bytes: Vec::new(),
            digest: Sha256::digest([]).into(),
            ..part(0, 0)
        };
        assert_eq!(receiver.take(2, empty), Ok(Took::Whole(Vec::new())));
    }

    #[test]
    fn what_is_out_of_order_or_of_another_transfer_begins_anew() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.take(2, part(4, 8)), Ok(Took::Next(0)));
        assert_eq!(receiver.take(2, part(0, 4)), Ok(Took::Next(4)));
        assert_eq!(receiver.take(2, part(8, 10)), Ok(Took::Next(4)));
        let others = [
            (3, part(4, 8)),
            (2, SnapshotPart { transfer: 9, ..part(4, 8) }),
            (2, SnapshotPart { vote: Vote::new_committed(8, 2), ..part(4, 8) }),
        ];
        for (from, other) in others {
            let mut receiver = Receiver::default();
            assert_eq!(receiver.take(2, part(0, 4)), Ok(Took::Next(4)));
            assert_eq!(receiver.take(from, other), Ok(Took::Next(0)));
        }
    }

    #[test]
    fn a_wrong_part_is_refused_with_its_fault() {
        let most = STORE_SNAPSHOT_BYTES_MAX as u64;
        let altered = SnapshotPart { bytes: b"012345678X".to_vec(), ..part(0, 10) };
        let cases = [
            (
                SnapshotPart { total: most + 1, ..part(0, 4) },
                "snapshot: total is 536870913, at most 536870912 bytes are taken",
            ),
            (
                SnapshotPart { offset: 8, ..part(0, 4) },
                "snapshot: its parts end at 12, its total is 10",
            ),
            (
                SnapshotPart { offset: u64::MAX, ..part(0, 4) },
                "snapshot: its parts end at 18446744073709551615, its total is 10",
            ),
            (part(4, 4), "snapshot: a part of no bytes at 4 of 10"),
            (altered, "snapshot: its hash is not the announced one: it was altered on its way"),
        ];
        for (part, text) in cases {
            let error = Receiver::default().take(2, part).unwrap_err().to_string();
            assert_eq!(error, text);
        }
    }

    #[test]
    fn pairs_are_refused_with_their_fault() {
        let of = |pairs: &[(&[u8], &[u8])]| {
            let mut out = Writer::default();
            for (key, value) in pairs {
                out.pair(key, value);
            }
            out.take()
        };
        let good = of(&[(b"a", b"1"), (b"b", b"")]);
        let pairs = vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), Vec::new())];
        assert_eq!(decode_pairs(&good), Ok(pairs));
        let cases: [(Vec<u8>, &str); 4] = [
            (of(&[(b"b", b""), (b"a", b"")]), "snapshot: key is a: keys are in ascending order"),
            (of(&[(b"a", b""), (b"a", b"")]), "snapshot: key is a: keys are in ascending order"),
            (good[..good.len() - 1].to_vec(), "snapshot: value needs 4 bytes, 3 are left"),
            (of(&[(&[0; 5000], b"")]), "snapshot: key is 5000, at most 4096 is allowed"),
        ];
        for (bytes, text) in cases {
            let error = decode_pairs(&bytes).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
