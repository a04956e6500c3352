//! Byte storage in RocksDB: one database, one column family for each [`Family`], one write-ahead log
//! for all of them, so that batches survive in their order.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction, ErrorKind, IteratorMode,
    LogLevel, Options, WriteBatch, WriteOptions,
};

use super::seam::{Disk, DiskError, Family, Pair, Step};
use crate::limits::STORES_KEPT_MAX;

/// Bytes of a family's memory table.
const WRITE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of the write-ahead log, by which the oldest family is written out.
const WAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// RocksDB's own log files.
const INFO_LOG_BYTES_MAX: usize = 1024 * 1024;
const INFO_LOGS_MAX: usize = 2;

/// The store's folder.
pub struct RocksDisk {
    /// `None` once it is closed.
    db: RwLock<Option<DB>>,
    folder: PathBuf,
    /// The first write that was refused.
    fault: OnceLock<String>,
}

impl RocksDisk {
    /// Opens the folder, or makes it. Only one process at a time can have it open.
    ///
    /// A damaged one gives [`DiskError::Damaged`]; [`set_aside`] makes room for a new one.
    pub fn open(folder: &Path) -> Result<Self, DiskError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // Only a torn end is forgiven, which is a write that nobody was told of. With RocksDB's
        // default, everything after a flipped bit in the middle would silently be gone.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_paranoid_checks(true);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_max_background_jobs(2);
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
        options.set_keep_log_file_num(INFO_LOGS_MAX);
        let families = Family::ALL.map(|family| {
            let mut options = Options::default();
            options.set_write_buffer_size(WRITE_BUFFER_BYTES);
            ColumnFamilyDescriptor::new(family.name(), options)
        });
        let db = DB::open_cf_descriptors(&options, folder, families);
        let db = db.map_err(|error| disk_error("open", &error))?;
        Ok(Self { db: RwLock::new(Some(db)), folder: folder.into(), fault: OnceLock::new() })
    }

    /// Keeps what is in the folder beside it, before a damaged store is emptied in place; returns
    /// where. The files are links, so that this costs neither time nor space.
    pub fn keep_beside(&self) -> Result<PathBuf, DiskError> {
        let failed = |problem: String| DiskError::Io { verb: "keep beside itself", problem };
        let target = place_beside(&self.folder).map_err(|error| failed(error.to_string()))?;
        self.with("keep beside itself", |db| {
            let kept = Checkpoint::new(db).and_then(|point| point.create_checkpoint(&target));
            kept.map_err(|error| failed(error.to_string()))
        })?;
        Ok(target)
    }

    fn with<T>(
        &self,
        verb: &'static str,
        job: impl FnOnce(&DB) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let closed = || DiskError::Io { verb, problem: "the store is closed".into() };
        job(db.as_ref().ok_or_else(closed)?)
    }
}

impl fmt::Debug for RocksDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksDisk").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Disk for RocksDisk {
    fn write(&self, batch: Vec<Step>, sync: bool) -> Result<(), DiskError> {
        self.with("write", |db| {
            let writes = batch_of(db, batch)?;
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            db.write_opt(writes, &options).map_err(|error| {
                let error = disk_error("write", &error);
                self.fault.get_or_init(|| error.to_string());
                error
            })
        })
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        self.with("read", |db| {
            db.get_cf(column(db, family), key).map_err(|error| disk_error("read", &error))
        })
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        most_bytes: usize,
    ) -> Result<Vec<Pair>, DiskError> {
        self.with("read", |db| {
            let mut pairs = Vec::new();
            let mut bytes = 0usize;
            let mode = IteratorMode::From(from, Direction::Forward);
            for pair in db.iterator_cf(column(db, family), mode) {
                let (key, value) = pair.map_err(|error| disk_error("read", &error))?;
                if to.is_some_and(|to| &*key >= to) {
                    break;
                }
                bytes = bytes.saturating_add(value.len());
                pairs.push((key.into_vec(), value.into_vec()));
                if bytes >= most_bytes {
                    break;
                }
            }
            Ok(pairs)
        })
    }

    fn fault(&self) -> Option<String> {
        self.fault.get().cloned()
    }

    fn last(&self, family: Family) -> Result<Option<Pair>, DiskError> {
        self.with("read", |db| last(db, family))
    }

    fn close(&self) {
        // Waits for the calls that are under way.
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn column(db: &DB, family: Family) -> &ColumnFamily {
    db.cf_handle(family.name()).expect("open makes a column family for each Family")
}

fn batch_of(db: &DB, batch: Vec<Step>) -> Result<WriteBatch, DiskError> {
    let mut writes = WriteBatch::default();
    for step in batch {
        match step {
            Step::Put { family, key, value } => writes.put_cf(column(db, family), key, value),
            Step::Delete { family, key } => writes.delete_cf(column(db, family), key),
            Step::DeleteRange { family, from, to } => {
                let to = match to {
                    Some(to) => Some(to),
                    None => end(db, family)?,
                };
                if let Some(to) = to.filter(|to| *to > from) {
                    writes.delete_range_cf(column(db, family), from, to);
                }
            }
        }
    }
    Ok(writes)
}

/// The end of a family that has no bound: just above its greatest key.
fn end(db: &DB, family: Family) -> Result<Option<Vec<u8>>, DiskError> {
    let above = |(mut key, _): Pair| {
        key.push(0);
        key
    };
    Ok(last(db, family)?.map(above))
}

fn last(db: &DB, family: Family) -> Result<Option<Pair>, DiskError> {
    let mut backwards = db.iterator_cf(column(db, family), IteratorMode::End);
    let last = backwards.next().transpose().map_err(|error| disk_error("read", &error))?;
    Ok(last.map(|(key, value)| (key.into_vec(), value.into_vec())))
}

/// Moves a damaged store's folder out of the way, so that a new one can be made there; returns where
/// it went. It is kept, because it may be all that is left.
pub fn set_aside(folder: &Path) -> std::io::Result<PathBuf> {
    let target = place_beside(folder)?;
    std::fs::rename(folder, &target)?;
    Ok(target)
}

/// A name for a damaged store. No older one is given up for it: the first may be the one that counts.
fn place_beside(folder: &Path) -> std::io::Result<PathBuf> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut places = (1..=STORES_KEPT_MAX)
        .map(|number| folder.with_file_name(format!("{name}.damaged-{number}")));
    places.find(|path| !path.exists()).ok_or_else(|| {
        std::io::Error::other(format!(
            "{STORES_KEPT_MAX} damaged stores are kept beside {} already, so that this disk is not \
             to be trusted; replace it, or move them ({name}.damaged-1 and so on) elsewhere",
            folder.display()
        ))
    })
}

fn disk_error(verb: &'static str, error: &rocksdb::Error) -> DiskError {
    match error.kind() {
        ErrorKind::Corruption => DiskError::Damaged(error.to_string()),
        _ => DiskError::Io { verb, problem: error.to_string() },
    }
}
