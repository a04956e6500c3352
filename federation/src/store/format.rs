//! How the store's own values become bytes: fixed-width little-endian numbers and counted lists,
//! inside frames with a version and a checksum.
//!
//! A disk record is `kind u8, version u8, CRC-32C u32, payload`; the checksum covers kind, version,
//! key and payload, so that a record under another's key is noticed. A message between nodes is a
//! record whose key is empty. Nothing here knows how openraft lays out its types.

use std::collections::BTreeSet;

use super::types::{LogId, Membership, StoredMembership, Vote};
use crate::limits::{STORE_MEMBERS_MAX, STORE_PAIR_KEY_BYTES_MAX, STORE_PAIR_VALUE_BYTES_MAX};

/// The version of every format in this folder.
pub(super) const VERSION: u8 = 1;
const HEADER_BYTES: usize = 6;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Entry = 1,
    Vote = 2,
    Position = 3,
    Applied = 4,
    Number = 5,
    Pair = 6,
    Request = 7,
    Reply = 8,
    Snapshot = 9,
}

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("{what}: {field} needs {needed} bytes, {left} are left: it was cut short")]
    Short { what: String, field: &'static str, needed: usize, left: usize },
    #[error("{what}: version is {version}, this program reads {VERSION}: upgrade it")]
    Version { what: String, version: u8 },
    #[error("{what}: kind is {kind}, {wanted} was expected: it lies in the wrong place")]
    Kind { what: String, kind: u8, wanted: u8 },
    #[error("{what}: checksum is {written:08x}, its bytes give {found:08x}: they were altered")]
    Checksum { what: String, written: u32, found: u32 },
    #[error("{what}: {field} is {value}, at most {most} is allowed")]
    TooLarge { what: String, field: &'static str, value: u64, most: u64 },
    #[error("{what}: {field} is {value}: {rule}")]
    Wrong { what: String, field: &'static str, value: String, rule: &'static str },
    #[error("{what}: {left} bytes follow its end")]
    Trailing { what: String, left: usize },
}

/// Frames a payload.
pub(super) fn seal(kind: Kind, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend([kind as u8, VERSION]);
    bytes.extend(checksum(kind as u8, VERSION, key, payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// Checks a frame and gives its payload.
pub(super) fn open<'a>(
    what: &str,
    kind: Kind,
    key: &[u8],
    bytes: &'a [u8],
) -> Result<&'a [u8], FormatError> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(FormatError::Short {
            what: what.into(),
            field: "header",
            needed: HEADER_BYTES,
            left: bytes.len(),
        });
    };
    let [found_kind, version, a, b, c, d] = *header;
    if version != VERSION {
        return Err(FormatError::Version { what: what.into(), version });
    }
    let (written, found) =
        (u32::from_le_bytes([a, b, c, d]), checksum(found_kind, version, key, payload));
    if written != found {
        return Err(FormatError::Checksum { what: what.into(), written, found });
    }
    if found_kind != kind as u8 {
        return Err(FormatError::Kind { what: what.into(), kind: found_kind, wanted: kind as u8 });
    }
    Ok(payload)
}

fn checksum(kind: u8, version: u8, key: &[u8], payload: &[u8]) -> u32 {
    // The key's length comes first, so that no byte can move between key and payload.
    let mut sum = crc32c::crc32c(&[kind, version]);
    sum = crc32c::crc32c_append(sum, &(key.len() as u64).to_le_bytes());
    sum = crc32c::crc32c_append(sum, key);
    crc32c::crc32c_append(sum, payload)
}

/// Writes a payload.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend((bytes.len() as u32).to_le_bytes());
        self.raw(bytes)
    }

    pub(super) fn log_id(&mut self, id: &LogId) -> &mut Self {
        self.u64(id.leader_id.term).u64(id.leader_id.node_id).u64(id.index)
    }

    pub(super) fn maybe_log_id(&mut self, id: Option<&LogId>) -> &mut Self {
        match id {
            None => self.u8(0),
            Some(id) => self.u8(1).log_id(id),
        }
    }

    pub(super) fn vote(&mut self, vote: &Vote) -> &mut Self {
        self.u64(vote.leader_id.term).u64(vote.leader_id.node_id).u8(u8::from(vote.committed))
    }

    pub(super) fn membership(&mut self, membership: &Membership) -> &mut Self {
        let configs = membership.get_joint_config();
        self.u8(configs.len() as u8);
        for config in configs {
            self.ids(config.iter().copied());
        }
        self.ids(membership.learner_ids())
    }

    pub(super) fn stored_membership(&mut self, stored: &StoredMembership) -> &mut Self {
        self.maybe_log_id(stored.log_id().as_ref()).membership(stored.membership())
    }

    fn ids(&mut self, ids: impl Iterator<Item = u64>) -> &mut Self {
        let ids: Vec<u64> = ids.collect();
        self.u8(ids.len() as u8);
        for id in ids {
            self.u64(id);
        }
        self
    }

    pub(super) fn pair(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        self.bytes(key).bytes(value)
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn seal(&mut self, kind: Kind, key: &[u8]) -> Vec<u8> {
        seal(kind, key, &self.take())
    }
}

/// Reads a payload; each error names the field.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    what: &'a str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(what: &'a str, bytes: &'a [u8]) -> Self {
        Self { what, bytes }
    }

    pub(super) fn take(
        &mut self,
        field: &'static str,
        count: usize,
    ) -> Result<&'a [u8], FormatError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(FormatError::Short {
                what: self.what.into(),
                field,
                needed: count,
                left: self.bytes.len(),
            });
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        let taken = self.take(field, N)?;
        Ok(taken.try_into().expect("take gives as many bytes as it was asked for"))
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(super) fn digest(&mut self, field: &'static str) -> Result<[u8; 32], FormatError> {
        self.array(field)
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, FormatError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(field, other, "only 0 and 1 have a meaning")),
        }
    }

    pub(super) fn bytes(
        &mut self,
        field: &'static str,
        most: usize,
    ) -> Result<&'a [u8], FormatError> {
        let count = u32::from_le_bytes(self.array(field)?) as usize;
        self.at_most(field, count as u64, most as u64)?;
        self.take(field, count)
    }

    pub(super) fn log_id(&mut self, field: &'static str) -> Result<LogId, FormatError> {
        let (term, node) = (self.u64(field)?, self.u64(field)?);
        Ok(LogId::new(openraft::CommittedLeaderId::new(term, node), self.u64(field)?))
    }

    pub(super) fn maybe_log_id(
        &mut self,
        field: &'static str,
    ) -> Result<Option<LogId>, FormatError> {
        Ok(if self.flag(field)? { Some(self.log_id(field)?) } else { None })
    }

    pub(super) fn vote(&mut self, field: &'static str) -> Result<Vote, FormatError> {
        let (term, node) = (self.u64(field)?, self.u64(field)?);
        let mut vote = Vote::new(term, node);
        vote.committed = self.flag(field)?;
        Ok(vote)
    }

    pub(super) fn membership(&mut self, field: &'static str) -> Result<Membership, FormatError> {
        let count = self.u8(field)?;
        // One set of voters, or two while it changes (joint consensus).
        self.at_most(field, u64::from(count), 2)?;
        let configs =
            (0..count).map(|_| self.ids(field)).collect::<Result<Vec<BTreeSet<u64>>, _>>()?;
        let learners = self.ids(field)?;
        Ok(Membership::new(configs, learners))
    }

    pub(super) fn stored_membership(
        &mut self,
        field: &'static str,
    ) -> Result<StoredMembership, FormatError> {
        let log_id = self.maybe_log_id(field)?;
        Ok(StoredMembership::new(log_id, self.membership(field)?))
    }

    fn ids(&mut self, field: &'static str) -> Result<BTreeSet<u64>, FormatError> {
        let count = self.u8(field)?;
        self.at_most(field, u64::from(count), STORE_MEMBERS_MAX as u64)?;
        let mut ids = BTreeSet::new();
        for _ in 0..count {
            let id = self.u64(field)?;
            // One order only, so that the same members have the same bytes.
            if ids.last().is_some_and(|last| *last >= id) {
                return Err(self.wrong(field, id, "ids are in ascending order"));
            }
            ids.insert(id);
        }
        Ok(ids)
    }

    pub(super) fn pair(&mut self) -> Result<(&'a [u8], &'a [u8]), FormatError> {
        let key = self.bytes("key", STORE_PAIR_KEY_BYTES_MAX)?;
        Ok((key, self.bytes("value", STORE_PAIR_VALUE_BYTES_MAX)?))
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn end(&self) -> Result<(), FormatError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(FormatError::Trailing { what: self.what.into(), left }),
        }
    }

    pub(super) fn at_most(
        &self,
        field: &'static str,
        value: u64,
        most: u64,
    ) -> Result<(), FormatError> {
        if value <= most {
            return Ok(());
        }
        Err(FormatError::TooLarge { what: self.what.into(), field, value, most })
    }

    pub(super) fn wrong(
        &self,
        field: &'static str,
        value: impl ToString,
        rule: &'static str,
    ) -> FormatError {
        FormatError::Wrong { what: self.what.into(), field, value: value.to_string(), rule }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_refused_with_its_fault() {
        let good = seal(Kind::Vote, b"key", b"payload");
        assert_eq!(open("it", Kind::Vote, b"key", &good).unwrap(), b"payload");
        let altered = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let cases: [(&[u8], &[u8], &str); 7] = [
            (b"key", &[], "it: header needs 6 bytes, 0 are left"),
            (b"key", &good[..5], "it: header needs 6 bytes, 5 are left"),
            (b"key", &good[..9], "it: checksum is"),
            (b"key", &altered(1), "it: version is 0, this program reads 1: upgrade it"),
            (b"key", &altered(0), "they were altered"),
            (b"key", &altered(12), "they were altered"),
            (b"kez", &good, "they were altered"),
        ];
        for (key, bytes, text) in cases {
            let error = open("it", Kind::Vote, key, bytes).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let error = open("it", Kind::Entry, b"key", &good).unwrap_err().to_string();
        assert_eq!(error, "it: kind is 2, 1 was expected: it lies in the wrong place");
        // A byte that moves from the payload to the key is not the same record.
        assert_ne!(seal(Kind::Vote, b"keyp", b"ayload")[2..6], good[2..6]);
    }

    #[test]
    fn a_field_is_refused_with_its_name_and_bound() {
        let too_many = [33u8].repeat(300);
        let error = Reader::new("it", &too_many).ids("members").unwrap_err().to_string();
        assert_eq!(error, "it: members is 33, at most 32 is allowed");

        let mut out = Writer::default();
        out.u8(2).u64(5).u64(5);
        let error = Reader::new("it", &out.take()).ids("members").unwrap_err().to_string();
        assert_eq!(error, "it: members is 5: ids are in ascending order");

        let error = Reader::new("it", &[3]).membership("members").unwrap_err().to_string();
        assert_eq!(error, "it: members is 3, at most 2 is allowed");

        let error = Reader::new("it", &[2]).flag("granted").unwrap_err().to_string();
        assert_eq!(error, "it: granted is 2: only 0 and 1 have a meaning");

        let error = Reader::new("it", &[255; 8]).bytes("text", 10).unwrap_err().to_string();
        assert_eq!(error, "it: text is 4294967295, at most 10 is allowed");

        let error = Reader::new("it", &[4, 0, 0, 0, 1]).bytes("text", 10).unwrap_err().to_string();
        assert_eq!(error, "it: text needs 4 bytes, 1 are left: it was cut short");

        let error = Reader::new("it", &[0]).end().unwrap_err().to_string();
        assert_eq!(error, "it: 1 bytes follow its end");
    }
}
