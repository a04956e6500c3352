//! Reading the audit record: the calls it tells of, and whether its chain holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use wire::operator::audit::{AuditEvent, AuditHash, AuditRecord, ChainEnd};

use super::folder::AuditFolder;
use crate::limits::{AUDIT_BREAKS_MAX, AUDIT_FILES_MAX};

/// One call and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    /// Its first entry: who called what, and when.
    pub(crate) record: AuditRecord,
    /// `ok`, `failed`, `denied`, `recovered`, or `unknown` when no entry says.
    pub(crate) outcome: &'static str,
    pub(crate) detail: String,
}

/// What a reading of all files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) entries: u64,
    pub(crate) first: u64,
    pub(crate) end: ChainEnd,
    /// Each place where the chain is broken, by file and line; empty when it holds.
    pub(crate) breaks: Vec<String>,
}

/// The youngest calls. Entries behind a break are shown too: `verify` tells of breaks.
pub(super) fn list(folder: &AuditFolder, last: usize) -> Vec<History> {
    let mut calls: BTreeMap<u64, History> = BTreeMap::new();
    for path in folder.files() {
        let Ok(bytes) = fs::read(&path) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        for record in text.split_terminator('\n').skip(1).filter_map(record_of) {
            take_up(&mut calls, record);
        }
    }
    let skipped = calls.len().saturating_sub(last);
    calls.into_values().skip(skipped).collect()
}

fn take_up(calls: &mut BTreeMap<u64, History>, record: AuditRecord) {
    let (began, outcome, detail) = match record.event.clone() {
        AuditEvent::Began => (None, "unknown", String::new()),
        AuditEvent::Denied { detail } => (None, "denied", detail),
        AuditEvent::Recovered { detail } => (None, "recovered", detail),
        AuditEvent::Done { began } => (Some(began), "ok", String::new()),
        AuditEvent::Failed { began, detail } => (Some(began), "failed", detail),
    };
    match began.and_then(|began| calls.get_mut(&began)) {
        Some(call) => {
            call.outcome = outcome;
            call.detail = detail;
        }
        // Also an end whose beginning was rotated away.
        None => {
            calls.insert(record.sequence, History { record, outcome, detail });
        }
    }
}

fn record_of(line: &str) -> Option<AuditRecord> {
    let (_, json) = line.split_once(' ')?;
    AuditRecord::from_json(json).ok()
}

/// Reads every file; `end` is where the node knows that the chain ends.
pub(super) fn verify(folder: &AuditFolder, end: ChainEnd) -> Verdict {
    let mut reading = Reading { at: None, entries: 0, first: 0, breaks: Vec::new() };
    let files = folder.files();
    for path in &files {
        reading.read_file(path);
    }
    let at = reading.at.unwrap_or(ChainEnd::ORIGIN);
    if reading.first > 1 && files.len() < AUDIT_FILES_MAX {
        let first = reading.first;
        reading.note(format!("the entries before number {first} are missing, with their file"));
    }
    if at != end && reading.breaks.is_empty() {
        let (last, wrote) = (at.next_sequence - 1, end.next_sequence - 1);
        reading.note(format!(
            "audit.log ends with entry {last}, but this node wrote entries up to {wrote}"
        ));
    }
    let Reading { entries, first, breaks, .. } = reading;
    Verdict { entries, first, end: at, breaks }
}

struct Reading {
    /// Where the chain stands; `None` before the first file.
    at: Option<ChainEnd>,
    entries: u64,
    first: u64,
    breaks: Vec<String>,
}

impl Reading {
    fn read_file(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_string();
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).to_string(),
            Err(problem) => return self.note(format!("{name} cannot be read: {problem}")),
        };
        let mut lines = text.split_terminator('\n').zip(1..);
        let begin = lines.next().map_or("", |(line, _)| line);
        let begin = match ChainEnd::of_header(begin) {
            Ok(begin) => begin,
            Err(problem) => {
                self.note(format!("{name} line 1: {problem}"));
                self.at.unwrap_or(ChainEnd::ORIGIN)
            }
        };
        if let Some(at) = self.at
            && at != begin
        {
            let (first, last) = (begin.next_sequence, at.next_sequence - 1);
            self.note(format!(
                "{name} begins with entry {first}, and does not follow entry {last}, with which \
                 the file before it ends"
            ));
        }
        if self.at.is_none() {
            self.first = begin.next_sequence;
            if begin.next_sequence == 1 && begin.hash != AuditHash::ORIGIN {
                self.note(format!("{name} line 1: the first entry of all follows another one"));
            }
        }
        let mut at = begin;
        for (line, number) in lines {
            self.entries += 1;
            if let Err(problem) = at.follow(line) {
                self.note(format!("{name} line {number}: {problem}"));
                at = ChainEnd::behind(line).unwrap_or(at);
            }
        }
        self.at = Some(at);
    }

    fn note(&mut self, text: String) {
        if self.breaks.len() < AUDIT_BREAKS_MAX {
            self.breaks.push(text);
        }
    }
}
