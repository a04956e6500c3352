//! The node's data folder: usable, private, and used by one node only.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use model::code::{self, Code};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const LOCK_NAME: &str = "lock";

/// A data folder that this process holds. Dropping it lets another node use the folder.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// The lock ends with the file, so it also ends with a process that was killed.
    lock: File,
}

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    #[error("cannot {action} {}: {source}; `dataDir` must be a folder of this user's", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("dataDir {} is not a folder; name a folder, or remove the file", path.display())]
    NotAFolder { path: PathBuf },
    #[error(
        "dataDir {} has mode {mode:04o}, so others than its owner can enter it: run `chmod 700 {}`",
        path.display(), path.display()
    )]
    Mode { path: PathBuf, mode: u32 },
    #[error(
        "dataDir {} is in use by another fedgate-federation; stop that one, or give this one a \
         folder of its own",
        path.display()
    )]
    InUse { path: PathBuf },
}

impl FolderError {
    /// The registered code of this failure.
    pub(crate) fn code(&self) -> Code {
        code::DATA_FOLDER_UNUSABLE
    }
}

impl DataFolder {
    /// Makes the folder if it is missing, checks it, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        create_private_folder(path)?;
        let metadata = fs::metadata(path).map_err(io_error("look at", path))?;
        if !metadata.is_dir() {
            return Err(FolderError::NotAFolder { path: path.into() });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(FolderError::Mode { path: path.into(), mode });
        }
        let lock_path = path.join(LOCK_NAME);
        // Opening for writing is also the proof that the folder can be written to.
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(io_error("write to", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.into(), lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &lock_path)(source)),
        }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for DataFolder {
    /// Closing the file is not enough when this process is just starting another one: between fork
    /// and exec that one has the file open too.
    fn drop(&mut self) {
        if let Err(problem) = self.lock.unlock() {
            tracing::warn!(path = %self.path.display(), %problem, "the data folder stays locked");
        }
    }
}

/// Makes `path` and its missing parents with mode 0700; one that exists is left as it is.
pub(crate) fn create_private_folder(path: &Path) -> Result<(), FolderError> {
    match DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path) {
        Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => {
            Err(FolderError::NotAFolder { path: path.into() })
        }
        created => created.map_err(io_error("create", path)),
    }
}

/// Replaces a small file as a whole; after the return it outlasts a power failure.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<(), FolderError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = path.with_file_name(format!(".{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&staged)
        .map_err(io_error("write", &staged))?;
    file.write_all(content).map_err(io_error("write", &staged))?;
    file.sync_all().map_err(io_error("sync", &staged))?;
    fs::rename(&staged, path).map_err(io_error("rename a new file to", path))?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let handle = File::open(folder).map_err(io_error("open", folder))?;
    handle.sync_all().map_err(io_error("sync", folder))
}

pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> FolderError + use<> {
    let path = path.to_path_buf();
    move |source| FolderError::Io { action, path, source }
}
