//! The audit record of the node: `dataDir/audit.log` and a few older files, written before and after
//! each change, checked at the start and on request. The format is [`wire::operator::audit`]'s.

mod folder;
mod history;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use model::code::AUDIT_BROKEN;
use wire::operator::audit::{AuditEvent, AuditRecord, ChainEnd, NO_UID, header};

use crate::folder::{FolderError, io_error, replace_file};
use crate::limits::AUDIT_FILE_BYTES_MAX;
use crate::operator::User;
use folder::{AuditFolder, FILE_MODE};
pub(crate) use history::{History, Verdict};

/// Who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    pub(crate) user: User,
    pub(crate) role: &'static str,
}

/// What is asked for. Nothing secret may be among the parameters.
pub(crate) type Parameters = Vec<(&'static str, String)>;

/// A call that has begun.
#[derive(Debug)]
#[must_use = "a call that begins also ends"]
pub(crate) struct Begun {
    actor: Actor,
    verb: &'static str,
    sequence: u64,
}

/// The record, open for appending.
#[derive(Debug)]
pub(crate) struct Audit {
    folder: AuditFolder,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    bytes: u64,
    /// What the next entry follows.
    end: ChainEnd,
}

impl Audit {
    /// Opens or begins the record in a folder. A chain that is broken is reported and goes on from
    /// where this node knows that it ended, so that the break stays visible.
    pub(crate) fn open(folder: &Path, now: SystemTime) -> Result<Self, FolderError> {
        let folder = AuditFolder::new(folder);
        let kept = folder.kept_end();
        let tail = folder.read_tail()?;
        let end = match (kept, tail.end) {
            // A crash between an entry and the note of it leaves the entry ahead.
            (Some(kept), Some(read)) if read.next_sequence >= kept.next_sequence => read,
            (Some(kept), _) => kept,
            (None, read) => read.unwrap_or(ChainEnd::ORIGIN),
        };
        let path = folder.current();
        let file = append_to(&path)?;
        let bytes = file.metadata().map_err(io_error("look at", &path))?.len();
        let audit = Self { folder, state: Mutex::new(State { file, bytes, end }) };
        if tail.is_new {
            audit.lock().begin_file(&audit.folder)?;
        }
        if tail.torn_bytes > 0 {
            let torn = tail.torn_bytes;
            let detail = format!("{torn} bytes of an unfinished last line were cut off");
            let actor = Actor { user: User::Unix(0), role: "node" };
            audit.append(actor, "Audit", Vec::new(), AuditEvent::Recovered { detail }, now)?;
        }
        for broken in audit.verify().breaks {
            tracing::error!("{AUDIT_BROKEN}: the audit record is broken: {broken}");
        }
        Ok(audit)
    }

    /// Writes that a call begins. When this fails, the call is not to be made.
    pub(crate) fn begin(
        &self,
        actor: Actor,
        verb: &'static str,
        parameters: Parameters,
        now: SystemTime,
    ) -> Result<Begun, FolderError> {
        let sequence = self.append(actor.clone(), verb, parameters, AuditEvent::Began, now)?;
        Ok(Begun { actor, verb, sequence })
    }

    /// Writes how it ended.
    pub(crate) fn end(&self, begun: Begun, outcome: Result<(), String>, now: SystemTime) {
        let Begun { actor, verb, sequence: began } = begun;
        let event = match outcome {
            Ok(()) => AuditEvent::Done { began },
            Err(detail) => AuditEvent::Failed { began, detail },
        };
        if let Err(problem) = self.append(actor, verb, Vec::new(), event, now) {
            tracing::error!(%problem, verb, "the outcome of a call is not in the audit record");
        }
    }

    /// Writes that a known user was refused for want of a role.
    pub(crate) fn denied(&self, actor: Actor, verb: &str, detail: String, now: SystemTime) {
        let event = AuditEvent::Denied { detail };
        if let Err(problem) = self.append(actor, verb, Vec::new(), event, now) {
            tracing::error!(%problem, verb, "a refusal is not in the audit record");
        }
    }

    /// The youngest calls, oldest first.
    pub(crate) fn list(&self, last: usize) -> Vec<History> {
        let _no_rotation = self.lock();
        history::list(&self.folder, last)
    }

    /// Reads every file there is, and names each place where the chain is broken.
    pub(crate) fn verify(&self) -> Verdict {
        let state = self.lock();
        history::verify(&self.folder, state.end)
    }

    fn append(
        &self,
        actor: Actor,
        verb: &str,
        parameters: Parameters,
        event: AuditEvent,
        now: SystemTime,
    ) -> Result<u64, FolderError> {
        let (uid, user) = match actor.user {
            User::Unix(uid) => (uid, None),
            User::Account(account) => (NO_UID, Some(account.to_string())),
        };
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let parameters = parameters.into_iter().map(|(name, value)| (name.to_string(), value));
        let record = AuditRecord {
            sequence: 0,
            time_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            uid,
            user,
            role: actor.role.into(),
            verb: verb.into(),
            parameters: parameters.collect(),
            event,
        };
        self.lock().append(&self.folder, record)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The chain's end moves only after the line is on disk, so a holder that panicked left a
        // state that can be gone on from.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, folder: &AuditFolder, record: AuditRecord) -> Result<u64, FolderError> {
        if self.bytes > AUDIT_FILE_BYTES_MAX {
            folder.rotate()?;
            self.file = append_to(&folder.current())?;
            self.begin_file(folder)?;
        }
        let mut end = self.end;
        let sequence = end.next_sequence;
        let line = end.append(record);
        self.write_line(folder, &line)?;
        self.end = end;
        let kept = header(end.next_sequence, end.hash);
        replace_file(&folder.end_file(), format!("{kept}\n").as_bytes())?;
        Ok(sequence)
    }

    fn begin_file(&mut self, folder: &AuditFolder) -> Result<(), FolderError> {
        self.bytes = 0;
        self.write_line(folder, &header(self.end.next_sequence, self.end.hash))?;
        folder.sync()
    }

    /// A line that was written in part is taken back, so that the next one stands alone.
    fn write_line(&mut self, folder: &AuditFolder, line: &str) -> Result<(), FolderError> {
        let path = folder.current();
        let text = format!("{line}\n");
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(problem) = written {
            if let Err(problem) = self.file.set_len(self.bytes) {
                tracing::error!(%problem, "a part of a line stays in the audit record");
            }
            return Err(io_error("write to", &path)(problem));
        }
        self.bytes += text.len() as u64;
        Ok(())
    }
}

fn append_to(path: &PathBuf) -> Result<File, FolderError> {
    let opened = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path);
    opened.map_err(io_error("write to", path))
}

#[cfg(test)]
mod tests;
