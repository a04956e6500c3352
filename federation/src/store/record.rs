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
