//! The epoch of the node's revisions: a counter on disk that grows each time the index begins anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::folder::{self, FolderError, replace_file};

const FILE_NAME: &str = "epoch";

/// Why the counter could not be read or raised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EpochError {
    #[error(
        "{} holds {content:?}, which is no epoch: write there a number larger than any revision's \
         epoch that a gateway of this cluster shows (`/config_dump`)",
        path.display()
    )]
    Malformed { path: PathBuf, content: String },
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Takes the next epoch. It is on disk before it is used, so that none is ever used twice.
pub(crate) fn begin(folder: &Path) -> Result<u64, EpochError> {
    let path = folder.join(FILE_NAME);
    let last = match fs::read(&path) {
        Ok(content) => parse(&path, &content)?,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => 0,
        Err(problem) => return Err(folder::io_error("read", &path)(problem).into()),
    };
    let epoch = last + 1;
    replace_file(&path, format!("{epoch}\n").as_bytes())?;
    Ok(epoch)
}

fn parse(path: &Path, content: &[u8]) -> Result<u64, EpochError> {
    let text = String::from_utf8_lossy(content);
    let number = text.trim_end().parse().ok().filter(|epoch| (1..u64::MAX).contains(epoch));
    number.ok_or_else(|| EpochError::Malformed {
        path: path.into(),
        content: text.chars().take(80).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_an_epoch_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(begin(folder.path()).unwrap(), 1);
        assert_eq!(begin(folder.path()).unwrap(), 2);
        fs::write(folder.path().join(FILE_NAME), "41\n").unwrap();
        assert_eq!(begin(folder.path()).unwrap(), 42);
    }

    #[test]
    fn a_damaged_counter_is_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["", "x", "0", "-1", "18446744073709551615"] {
            fs::write(folder.path().join(FILE_NAME), bad).unwrap();
            let error = begin(folder.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("holds {bad:?}, which is no epoch")), "{error}");
        }
    }
}
