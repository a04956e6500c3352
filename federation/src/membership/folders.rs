//! Where the store lies on disk: one folder per federation that this node was ever in.
//!
//! Leaving begins a new, empty folder and points at it in one step. A crash in between leaves the
//! old federation or none, never half of one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::folder::{FolderError, create_private_folder, io_error, replace_file};

const CURRENT: &str = "current";

/// The folders under `dataDir/store`.
#[derive(Debug)]
pub(crate) struct StoreFolders {
    root: PathBuf,
    number: u64,
}

impl StoreFolders {
    /// Finds the folder in use, makes it if it is missing, and removes what is no longer in use.
    pub(crate) fn open(root: &Path) -> Result<Self, FolderError> {
        create_private_folder(root)?;
        let path = root.join(CURRENT);
        let number = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| {
                let text: String = text.chars().take(80).collect();
                let problem = format!("it holds {text:?} where a folder's number is to be");
                io_error("use", &path)(io::Error::new(io::ErrorKind::InvalidData, problem))
            })?,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
                replace_file(&path, b"1\n")?;
                1
            }
            Err(problem) => return Err(io_error("read", &path)(problem)),
        };
        let folders = Self { root: root.into(), number };
        create_private_folder(&folders.current())?;
        folders.remove_others();
        Ok(folders)
    }

    pub(crate) fn current(&self) -> PathBuf {
        self.root.join(self.number.to_string())
    }

    /// From now on, and after every restart, the store is a new, empty folder.
    pub(crate) fn begin_anew(&mut self) -> Result<PathBuf, FolderError> {
        let number = self.number + 1;
        let folder = self.root.join(number.to_string());
        create_private_folder(&folder)?;
        replace_file(&self.root.join(CURRENT), format!("{number}\n").as_bytes())?;
        self.number = number;
        Ok(folder)
    }

    /// Removes folders that are not in use; what cannot be removed is tried again at the next start.
    pub(crate) fn remove_others(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
            if number.is_some_and(|number| number != self.number)
                && let Err(problem) = fs::remove_dir_all(entry.path())
            {
                let path = entry.path();
                tracing::warn!(path = %path.display(), %problem, "an old store stays behind");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_beginning_outlasts_a_restart_and_the_old_store_goes() {
        let data = tempfile::tempdir().unwrap();
        let root = data.path().join("store");
        let mut folders = StoreFolders::open(&root).unwrap();
        let first = folders.current();
        fs::write(first.join("log"), "x").unwrap();
        drop(StoreFolders::open(&root).unwrap());
        assert!(first.join("log").exists(), "a restart keeps the store");
        let second = folders.begin_anew().unwrap();
        assert_ne!(first, second);
        let reopened = StoreFolders::open(&root).unwrap();
        assert_eq!(reopened.current(), second);
        assert!(!first.exists() && second.exists());
    }

    #[test]
    fn a_damaged_pointer_is_not_guessed_at() {
        let data = tempfile::tempdir().unwrap();
        drop(StoreFolders::open(data.path()).unwrap());
        fs::write(data.path().join(CURRENT), "some\n").unwrap();
        let error = StoreFolders::open(data.path()).unwrap_err().to_string();
        assert!(error.contains("it holds \"some\\n\" where a folder's number"), "{error}");
    }
}
