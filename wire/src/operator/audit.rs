//! The audit record: one line per entry, each line's hash over the one before and its own text.
//!
//! ```text
//! fedgate-audit/1 <sequence of the first entry> <hash before it>
//! <hash> {"sequence":7,...}
//! ```
//!
//! The hash is SHA-256(`fedgate/audit/v1` ‖ 0x00 ‖ hash before ‖ JSON text), in hexadecimal, over the
//! bytes as they stand in the file. A file begins with the hash that the file before it ended with.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Version 1 of the format.
pub const MAGIC: &str = "fedgate-audit/1";
const DOMAIN: &[u8] = b"fedgate/audit/v1\0";
/// One line with its end. What is written stays below it; what is read is not looked at beyond it.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Characters of one parameter or detail that are kept.
pub const TEXT_CHARS_MAX: usize = 256;
/// In place of a Unix user where there is none: POSIX' `(uid_t) -1`, which is nobody's.
pub const NO_UID: u32 = u32::MAX;
/// Parameters of one entry that are kept.
pub const PARAMETERS_MAX: usize = 16;

/// SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuditHash(pub [u8; 32]);

impl AuditHash {
    /// What the very first entry follows.
    pub const ORIGIN: Self = Self([0; 32]);

    /// The hash of the entry that has this text and follows `self`.
    #[must_use]
    pub fn next(&self, json: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(self.0);
        hash.update(json.as_bytes());
        Self(hash.finalize().into())
    }

    /// Reads 64 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let lower = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 64 || !digits.iter().all(lower) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One entry. A call that changes something has two: one before it begins and one with its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditRecord {
    /// Grows by one with each entry, for ever.
    pub sequence: u64,
    pub time_unix_ms: u64,
    /// The caller's Unix user, or [`NO_UID`].
    pub uid: u32,
    /// The caller's ServiceAccount, `namespace/name`, if it has no Unix user here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The caller's role.
    pub role: String,
    /// The procedure.
    pub verb: String,
    /// In the order given. Never a secret.
    pub parameters: Vec<(String, String)>,
    pub event: AuditEvent,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum AuditEvent {
    /// The call begins.
    Began,
    /// The call that began with the entry `began` was done.
    Done { began: u64 },
    /// It failed.
    Failed { began: u64, detail: String },
    /// The caller's role did not allow it; nothing began.
    Denied { detail: String },
    /// The end of the record was damaged, for instance by a power failure, and was cut off.
    Recovered { detail: String },
}

impl AuditRecord {
    /// The text that is hashed and written. Texts that are too long are cut.
    pub fn to_json(&self) -> String {
        let mut record = self.clone();
        record.parameters.truncate(PARAMETERS_MAX);
        for (name, value) in &mut record.parameters {
            *name = cut(name);
            *value = cut(value);
        }
        if let AuditEvent::Failed { detail, .. }
        | AuditEvent::Denied { detail }
        | AuditEvent::Recovered { detail } = &mut record.event
        {
            *detail = cut(detail);
        }
        serde_json::to_string(&record).expect("numbers, texts and lists of them are JSON")
    }

    /// Reads what [`Self::to_json`] writes, without regard to the chain.
    pub fn from_json(json: &str) -> Result<Self, ChainError> {
        if json.len() > LINE_BYTES_MAX {
            return Err(ChainError::Entry(format!("it has more than {LINE_BYTES_MAX} bytes")));
        }
        serde_json::from_str(json).map_err(|error| ChainError::Entry(error.to_string()))
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= TEXT_CHARS_MAX {
        return text.to_string();
    }
    text.chars().take(TEXT_CHARS_MAX).chain("...".chars()).collect()
}

/// The first line of a file.
pub fn header(first_sequence: u64, before: AuditHash) -> String {
    format!("{MAGIC} {first_sequence} {before}")
}

/// Where a chain stands: what the next entry has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainEnd {
    pub next_sequence: u64,
    pub hash: AuditHash,
}

/// Why a line does not belong where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("the file does not begin with {MAGIC:?}, a sequence number and a hash")]
    Header,
    #[error("the line is no hash and entry")]
    Line,
    #[error(
        "the hash is not that of this entry after the one before it: one of the two was changed"
    )]
    Hash,
    #[error("the entry cannot be read: {0}")]
    Entry(String),
    #[error("the entry has number {found} where {wanted} was due: entries are missing or moved")]
    Sequence { wanted: u64, found: u64 },
}

impl ChainEnd {
    /// The beginning of all records.
    pub const ORIGIN: Self = Self { next_sequence: 1, hash: AuditHash::ORIGIN };

    /// Reads a file's first line.
    pub fn of_header(line: &str) -> Result<Self, ChainError> {
        let rest = line.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' '));
        let (sequence, hash) =
            rest.and_then(|rest| rest.split_once(' ')).ok_or(ChainError::Header)?;
        let next_sequence = sequence.parse().map_err(|_| ChainError::Header)?;
        let hash = AuditHash::parse(hash).ok_or(ChainError::Header)?;
        Ok(Self { next_sequence, hash })
    }

    /// Reads the next entry; on an error the chain's end stays where it was.
    pub fn follow(&mut self, line: &str) -> Result<AuditRecord, ChainError> {
        let (hash, json) = split(line).ok_or(ChainError::Line)?;
        if self.hash.next(json) != hash {
            return Err(ChainError::Hash);
        }
        let record = AuditRecord::from_json(json)?;
        if record.sequence != self.next_sequence {
            let (wanted, found) = (self.next_sequence, record.sequence);
            return Err(ChainError::Sequence { wanted, found });
        }
        *self = Self { next_sequence: record.sequence.saturating_add(1), hash };
        Ok(record)
    }

    /// Where the chain goes on behind a line, as the line itself says, so that the rest can be judged
    /// after a break.
    pub fn behind(line: &str) -> Option<Self> {
        let (hash, json) = split(line)?;
        let record = AuditRecord::from_json(json).ok()?;
        Some(Self { next_sequence: record.sequence.saturating_add(1), hash })
    }

    /// The line of the next entry, whose number it sets.
    pub fn append(&mut self, mut record: AuditRecord) -> String {
        record.sequence = self.next_sequence;
        let json = record.to_json();
        let hash = self.hash.next(&json);
        *self = Self { next_sequence: self.next_sequence.saturating_add(1), hash };
        format!("{hash} {json}")
    }
}

fn split(line: &str) -> Option<(AuditHash, &str)> {
    let (hash, json) = line.split_once(' ')?;
    Some((AuditHash::parse(hash)?, json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(verb: &str) -> AuditRecord {
        AuditRecord {
            sequence: 0,
            time_unix_ms: 1_700_000_000_000,
            uid: 1000,
            user: None,
            role: "admin".into(),
            verb: verb.into(),
            parameters: vec![("name".into(), "west".into())],
            event: AuditEvent::Began,
        }
    }

    fn lines() -> Vec<String> {
        let mut end = ChainEnd::ORIGIN;
        let mut lines = vec![header(end.next_sequence, end.hash)];
        lines.extend(["Found", "IssueToken", "Join", "Leave"].map(|verb| end.append(record(verb))));
        lines
    }

    /// The error of the first line that does not follow.
    fn broken(lines: &[String]) -> Option<String> {
        let mut end = match ChainEnd::of_header(&lines[0]) {
            Ok(end) => end,
            Err(error) => return Some(error.to_string()),
        };
        let errors = lines[1..].iter().map(|line| end.follow(line));
        errors.filter_map(Result::err).map(|error| error.to_string()).next()
    }

    #[test]
    fn a_chain_reads_back() {
        let lines = lines();
        assert_eq!(broken(&lines), None);
        let mut end = ChainEnd::of_header(&lines[0]).unwrap();
        let read: Vec<_> = lines[1..].iter().map(|line| end.follow(line).unwrap()).collect();
        assert_eq!(read[3], AuditRecord { sequence: 4, ..record("Leave") });
        assert_eq!(ChainEnd::behind(&lines[4]), Some(end));
    }

    /// The format is fixed: this line was computed once, by hand, with `sha256sum`.
    #[test]
    fn the_first_line_is_the_documented_vector() {
        let json = "{\"sequence\":1,\"timeUnixMs\":1700000000000,\"uid\":1000,\"role\":\"admin\",\
                    \"verb\":\"Found\",\"parameters\":[[\"name\",\"west\"]],\"event\":\"began\"}";
        let mut end = ChainEnd::ORIGIN;
        assert_eq!(end.append(record("Found")), format!("{VECTOR} {json}"));
    }

    const VECTOR: &str = "d8353054fed5afcccf98e74f338acaeaaaa9672af18f45eb229f92a29ea0cbac";

    #[test]
    fn every_flipped_byte_is_noticed() {
        let good = lines();
        for number in 0..good.len() {
            for position in 0..good[number].len() {
                let mut bytes = good[number].clone().into_bytes();
                bytes[position] ^= 1;
                let Ok(line) = String::from_utf8(bytes) else { continue };
                let mut lines = good.clone();
                lines[number] = line;
                assert!(broken(&lines).is_some(), "line {number} byte {position}");
            }
        }
    }

    #[test]
    fn lines_that_are_dropped_swapped_or_forged_are_named() {
        let good = lines();
        let mut dropped = good.clone();
        dropped.remove(2);
        let mut swapped = good.clone();
        swapped.swap(2, 3);
        let mut doubled = good.clone();
        doubled.insert(2, good[2].clone());
        for lines in [dropped, swapped, doubled] {
            assert!(broken(&lines).unwrap().contains("one of the two was changed"));
        }
        // A forger who recomputes the hash but not the number.
        let mut end = ChainEnd { next_sequence: 9, ..ChainEnd::of_header(&good[0]).unwrap() };
        let forged = vec![good[0].clone(), end.append(record("Join"))];
        let error = broken(&forged).unwrap();
        assert!(error.contains("number 9 where 1 was due"), "{error}");
    }

    #[test]
    fn what_is_no_line_is_refused_with_the_reason() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let hashed = |json: &str| format!("{} {json}", AuditHash::ORIGIN.next(json));
        for (line, wanted) in [
            (String::new(), "no hash and entry"),
            ("abc {}".into(), "no hash and entry"),
            (format!("{} {{}}", "A".repeat(64)), "no hash and entry"),
            (hashed("{}"), "missing field `sequence`"),
            (hashed("{\"sequence\":1,\"x\":2}"), "unknown field `x`"),
            (hashed(&long), "more than 65536 bytes"),
        ] {
            let error = { ChainEnd::ORIGIN }.follow(&line).unwrap_err().to_string();
            assert!(error.contains(wanted), "{line:.80}: {error}");
        }
        for bad in ["", "fedgate-audit/1", "fedgate-audit/2 1 00", "fedgate-audit/1 x 00"] {
            assert_eq!(ChainEnd::of_header(bad), Err(ChainError::Header), "{bad}");
        }
    }

    #[test]
    fn long_texts_are_cut_so_that_every_line_can_be_read() {
        // JSON writes a control character with six.
        let text = "é\u{1}".repeat(10_000);
        let parameters = vec![(text.clone(), text.clone()); 1000];
        let event = AuditEvent::Failed { began: 1, detail: text };
        let mut end = ChainEnd::ORIGIN;
        let line = end.append(AuditRecord { parameters, event, ..record("Join") });
        assert!(!line.contains('\n'), "one line");
        assert!(line.len() < LINE_BYTES_MAX, "{}", line.len());
        assert!({ ChainEnd::ORIGIN }.follow(&line).is_ok());
    }
}
