//! The records that the store keeps on its disk: log entries, the vote, positions, pairs.

use openraft::EntryPayload;

use super::format::{self, FormatError, Kind, Reader, Writer};
use super::types::{Entry, LogId, StoredMembership, Vote};
use crate::limits::{STORE_COMMAND_BYTES_MAX, STORE_PAIR_VALUE_BYTES_MAX};

/// Keys in the meta family.
pub(super) const NODE_KEY: &[u8] = b"node";
pub(super) const EPOCH_KEY: &[u8] = b"epoch";
pub(super) const VOTE_KEY: &[u8] = b"vote";
pub(super) const PURGED_KEY: &[u8] = b"purged";
pub(super) const APPLIED_KEY: &[u8] = b"applied";
/// There while a node that lost its log may not vote.
pub(super) const RESEED_KEY: &[u8] = b"reseed";

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// A log entry's key: its index, so that keys sort as entries do.
pub(super) fn entry_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Writer::default();
    write_entry(&mut out, entry);
    out.seal(Kind::Entry, &entry_key(entry.log_id.index))
}

pub(super) fn decode_entry(key: &[u8], bytes: &[u8]) -> Result<Entry, FormatError> {
    let what = match <[u8; 8]>::try_from(key) {
        Ok(index) => format!("log entry {}", u64::from_be_bytes(index)),
        Err(_) => "log entry".to_owned(),
    };
    let payload = format::open(&what, Kind::Entry, key, bytes)?;
    let mut reader = Reader::new(&what, payload);
    let entry = read_entry(&mut reader)?;
    reader.end()?;
    if entry_key(entry.log_id.index) != key {
        return Err(reader.wrong("index", entry.log_id.index, "it differs from that in its key"));
    }
    Ok(entry)
}

/// An entry without its frame, as it lies on the disk and in an append.
pub(super) fn write_entry(out: &mut Writer, entry: &Entry) {
    out.log_id(&entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.u8(BLANK),
        EntryPayload::Normal(command) => out.u8(COMMAND).bytes(command),
        EntryPayload::Membership(membership) => out.u8(MEMBERSHIP).membership(membership),
    };
}

pub(super) fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, FormatError> {
    let log_id = reader.log_id("log id")?;
    let payload = match reader.u8("payload kind")? {
        BLANK => EntryPayload::Blank,
        COMMAND => EntryPayload::Normal(reader.bytes("command", STORE_COMMAND_BYTES_MAX)?.to_vec()),
        MEMBERSHIP => EntryPayload::Membership(reader.membership("membership")?),
        other => {
            let rule = "0 is blank, 1 a command, 2 a membership; upgrade this node";
            return Err(reader.wrong("payload kind", other, rule));
        }
    };
    Ok(Entry { log_id, payload })
}

pub(super) fn encode_vote(vote: &Vote) -> Vec<u8> {
    Writer::default().vote(vote).seal(Kind::Vote, VOTE_KEY)
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, FormatError> {
    let mut reader = Reader::new("vote", format::open("vote", Kind::Vote, VOTE_KEY, bytes)?);
    let vote = reader.vote("vote")?;
    reader.end()?;
    Ok(vote)
}

/// The last entry that was deleted from the log's beginning.
pub(super) fn encode_purged(id: &LogId) -> Vec<u8> {
    Writer::default().log_id(id).seal(Kind::Position, PURGED_KEY)
}

pub(super) fn decode_purged(bytes: &[u8]) -> Result<LogId, FormatError> {
    let what = "log's beginning";
    let mut reader = Reader::new(what, format::open(what, Kind::Position, PURGED_KEY, bytes)?);
    let id = reader.log_id("log id")?;
    reader.end()?;
    Ok(id)
}

/// How far the machine is, and the members by then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) log_id: Option<LogId>,
    pub(super) membership: StoredMembership,
}

pub(super) fn encode_applied(applied: &Applied) -> Vec<u8> {
    let mut out = Writer::default();
    out.maybe_log_id(applied.log_id.as_ref()).stored_membership(&applied.membership);
    out.seal(Kind::Applied, APPLIED_KEY)
}

pub(super) fn decode_applied(bytes: &[u8]) -> Result<Applied, FormatError> {
    let what = "applied position";
    let mut reader = Reader::new(what, format::open(what, Kind::Applied, APPLIED_KEY, bytes)?);
    let log_id = reader.maybe_log_id("log id")?;
    let membership = reader.stored_membership("membership")?;
    reader.end()?;
    Ok(Applied { log_id, membership })
}

/// A number of the meta family: the epoch, the node's id.
pub(super) fn encode_number(key: &[u8], number: u64) -> Vec<u8> {
    Writer::default().u64(number).seal(Kind::Number, key)
}

pub(super) fn decode_number(key: &[u8], bytes: &[u8]) -> Result<u64, FormatError> {
    let what = String::from_utf8_lossy(key);
    let mut reader = Reader::new(&what, format::open(&what, Kind::Number, key, bytes)?);
    let number = reader.u64("number")?;
    reader.end()?;
    Ok(number)
}

/// A value of the machine.
pub(super) fn encode_value(key: &[u8], value: &[u8]) -> Vec<u8> {
    format::seal(Kind::Pair, key, value)
}

pub(super) fn decode_value(key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    let value = format::open("a value of the machine", Kind::Pair, key, bytes)?;
    let reader = Reader::new("a value of the machine", value);
    reader.at_most("value", value.len() as u64, STORE_PAIR_VALUE_BYTES_MAX as u64)?;
    Ok(value.to_vec())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::CommittedLeaderId;

    use super::super::types::Membership;
    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(3, 0x0123_4567_89ab_cdef), index)
    }

    fn membership() -> Membership {
        let voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([3, u64::MAX])];
        Membership::new(voters, BTreeSet::from([9]))
    }

    #[test]
    fn records_come_back_as_they_went() {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(vec![7; STORE_COMMAND_BYTES_MAX]),
            EntryPayload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = Entry { log_id: id(300), payload };
            let bytes = encode_entry(&entry);
            assert_eq!(decode_entry(&entry_key(300), &bytes).unwrap(), entry);
        }
        let vote = Vote::new_committed(9, u64::MAX);
        assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        assert_eq!(decode_purged(&encode_purged(&id(4))).unwrap(), id(4));
        let stored = StoredMembership::new(Some(id(2)), membership());
        for applied in [Applied::default(), Applied { log_id: Some(id(7)), membership: stored }] {
            assert_eq!(decode_applied(&encode_applied(&applied)).unwrap(), applied);
        }
        assert_eq!(decode_number(EPOCH_KEY, &encode_number(EPOCH_KEY, 5)).unwrap(), 5);
        assert_eq!(decode_value(b"k", &encode_value(b"k", b"v")).unwrap(), b"v");
    }

    /// What is on disks today must be readable for ever: docs/reference/store-log.md has these.
    #[test]
    fn the_first_versions_bytes_stay() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let entry = Entry { log_id: id(300), payload: EntryPayload::Normal(b"set".to_vec()) };
        assert_eq!(
            hex(&encode_entry(&entry)),
            "01018e221c140300000000000000efcdab89674523012c010000000000000103000000736574"
        );
        assert_eq!(
            hex(&encode_vote(&Vote::new_committed(9, 7))),
            "020157d4cd720900000000000000070000000000000001"
        );
    }

    #[test]
    fn a_damaged_record_is_refused_whichever_bit_flips() {
        let entry = Entry { log_id: id(300), payload: EntryPayload::Membership(membership()) };
        let good = encode_entry(&entry);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_entry(&entry_key(300), &bytes).is_err(), "bit {bit}");
        }
        for cut in 0..good.len() {
            assert!(decode_entry(&entry_key(300), &good[..cut]).is_err(), "cut at {cut}");
        }
        let error = decode_entry(&entry_key(301), &good).unwrap_err().to_string();
        assert!(error.starts_with("log entry 301: checksum is "), "{error}");
    }

    #[test]
    fn a_well_sealed_record_is_refused_for_its_content() {
        let sealed = |fill: &dyn Fn(&mut Writer)| {
            let mut out = Writer::default();
            fill(&mut out);
            out.seal(Kind::Entry, &entry_key(5))
        };
        let cases: [(Vec<u8>, &str); 5] = [
            (sealed(&|_| {}), "log entry 5: log id needs 8 bytes, 0 are left"),
            (
                sealed(&|out| {
                    out.log_id(&id(5)).u8(9);
                }),
                "log entry 5: payload kind is 9: 0 is blank, 1 a command, 2 a membership",
            ),
            (
                sealed(&|out| {
                    out.log_id(&id(6)).u8(BLANK);
                }),
                "log entry 5: index is 6: it differs from that in its key",
            ),
            (
                sealed(&|out| {
                    out.log_id(&id(5)).u8(COMMAND).bytes(&[0; STORE_COMMAND_BYTES_MAX + 1]);
                }),
                "log entry 5: command is 262145, at most 262144 is allowed",
            ),
            (
                sealed(&|out| {
                    out.log_id(&id(5)).u8(BLANK).u8(0);
                }),
                "log entry 5: 1 bytes follow its end",
            ),
        ];
        for (bytes, text) in cases {
            let error = decode_entry(&entry_key(5), &bytes).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
