//! The epoch of the node's revisions: a counter on disk that grows each time the index begins anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

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
///
/// The first one is the time in seconds: a node that has lost its data folder must not count again
/// from 1, since its gateways still have revisions of the old count on their disks.
pub(crate) fn begin(folder: &Path, now: SystemTime) -> Result<u64, EpochError> {
    let path = folder.join(FILE_NAME);
    let epoch = match fs::read(&path) {
        Ok(content) => parse(&path, &content)? + 1,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
            now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().max(1)
        }
        Err(problem) => return Err(folder::io_error("read", &path)(problem).into()),
    };
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
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn each_start_has_an_epoch_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(begin(folder.path(), at(1_700_000_000)).unwrap(), 1_700_000_000);
        assert_eq!(begin(folder.path(), at(1_700_000_000)).unwrap(), 1_700_000_001);
        // Once there is a count, the clock has no say, wherever it stands.
        assert_eq!(begin(folder.path(), at(5)).unwrap(), 1_700_000_002);
        // A lost folder begins above every epoch that it can have had.
        fs::remove_file(folder.path().join(FILE_NAME)).unwrap();
        assert_eq!(begin(folder.path(), at(1_700_000_100)).unwrap(), 1_700_000_100);
    }

    #[test]
    fn a_damaged_counter_is_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["", "x", "0", "-1", "18446744073709551615"] {
            fs::write(folder.path().join(FILE_NAME), bad).unwrap();
            let error = begin(folder.path(), at(9)).unwrap_err().to_string();
            assert!(error.contains(&format!("holds {bad:?}, which is no epoch")), "{error}");
        }
    }
}
