//! The data folder is used by one gateway at a time: two with one SVID and one snapshot would
//! overwrite each other's.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use model::code::DATA_FOLDER_UNUSABLE;

/// A data folder that this gateway holds. Dropping it lets another one use the folder.
#[derive(Debug)]
pub(crate) struct FolderLock {
    path: PathBuf,
    /// The lock ends with the file, so it also ends with a process that was killed.
    file: File,
}

impl FolderLock {
    pub(crate) fn take(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("lock");
        let shown = folder.display();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("{DATA_FOLDER_UNUSABLE}: failed to write to {shown}"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file }),
            Err(TryLockError::WouldBlock) => bail!(
                "{DATA_FOLDER_UNUSABLE}: dataDir {shown} is in use by another fedgate-gateway; stop \
                 that one, or give this one a folder of its own"
            ),
            Err(TryLockError::Error(error)) => Err(error)
                .with_context(|| format!("{DATA_FOLDER_UNUSABLE}: failed to lock {shown}")),
        }
    }
}

impl Drop for FolderLock {
    /// Closing the file is not enough when this process is just starting another one: between fork
    /// and exec that one has the file open too.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "the data folder stays locked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_gateway_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("FED1003: dataDir ") && error.contains("in use"), "{error}");
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }
}
