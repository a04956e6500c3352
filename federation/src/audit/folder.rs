//! Where the files of the audit record are: `audit.log`, the older `audit.log.1` and so on, and
//! `audit.end`, which says where the chain ended when the node last wrote to it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use wire::operator::audit::ChainEnd;

use crate::folder::{FolderError, io_error};
use crate::limits::AUDIT_FILES_MAX;

pub(super) const FILE_MODE: u32 = 0o600;

/// The folder, by the names of the files in it.
#[derive(Debug)]
pub(super) struct AuditFolder(PathBuf);

/// What the newest file ends with.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) is_new: bool,
    /// `None` when no line of the file can be read.
    pub(super) end: Option<ChainEnd>,
    /// What was cut off: a last line without its end.
    pub(super) torn_bytes: u64,
}

impl AuditFolder {
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.into())
    }

    pub(super) fn current(&self) -> PathBuf {
        self.0.join("audit.log")
    }

    pub(super) fn end_file(&self) -> PathBuf {
        self.0.join("audit.end")
    }

    fn older(&self, number: usize) -> PathBuf {
        self.0.join(format!("audit.log.{number}"))
    }

    /// Oldest first; the current one is always among them.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let older = (1..AUDIT_FILES_MAX).rev().map(|number| self.older(number));
        older.filter(|path| path.exists()).chain([self.current()]).collect()
    }

    /// Makes room for a new current file; the oldest one goes.
    pub(super) fn rotate(&self) -> Result<(), FolderError> {
        for number in (1..AUDIT_FILES_MAX).rev() {
            let from = if number == 1 { self.current() } else { self.older(number - 1) };
            match fs::rename(&from, self.older(number)) {
                Err(problem) if problem.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed.map_err(io_error("rename", &from))?,
            }
        }
        self.sync()
    }

    pub(super) fn sync(&self) -> Result<(), FolderError> {
        let handle = File::open(&self.0).map_err(io_error("open", &self.0))?;
        handle.sync_all().map_err(io_error("sync", &self.0))
    }

    /// What the node noted of the chain's end when it last wrote.
    pub(super) fn kept_end(&self) -> Option<ChainEnd> {
        let text = fs::read_to_string(self.end_file()).ok()?;
        ChainEnd::of_header(text.trim_end()).ok()
    }

    /// Reads the newest file's end, and cuts off a line that was not finished.
    pub(super) fn read_tail(&self) -> Result<Tail, FolderError> {
        let path = self.current();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
                return Ok(Tail { is_new: true, ..Tail::default() });
            }
            Err(problem) => return Err(io_error("read", &path)(problem)),
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let torn_bytes = (bytes.len() - whole) as u64;
        if torn_bytes > 0 {
            let file = OpenOptions::new().write(true).open(&path);
            let file = file.map_err(io_error("write to", &path))?;
            file.set_len(whole as u64).map_err(io_error("shorten", &path))?;
            file.sync_all().map_err(io_error("sync", &path))?;
        }
        let text = String::from_utf8_lossy(&bytes[..whole]);
        let end = text.split_terminator('\n').rev().find_map(ChainEnd::behind);
        let begin = || text.lines().next().and_then(|line| ChainEnd::of_header(line).ok());
        Ok(Tail { is_new: whole == 0, end: end.or_else(begin), torn_bytes })
    }
}
