//! The newest epoch and generation that this node has ever signed a Head for, on disk.
//!
//! Two different Heads of one generation are what a liar makes. So the mark is raised before a Head
//! is signed, and each new content gets a generation of its own, also when the outcome of the
//! proposal before it is not known.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wire::store::Mark;

use crate::folder::{FolderError, io_error, replace_file};

const FILE_NAME: &str = "signed-head";

/// The file of the mark.
#[derive(Debug)]
pub(crate) struct SignedMark {
    path: PathBuf,
    mark: Mark,
}

/// Nothing was signed yet.
const NONE: Mark = Mark { epoch: 0, generation: 0 };

impl SignedMark {
    pub(crate) fn load(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(FILE_NAME);
        let mark = match fs::read_to_string(&path) {
            Ok(text) => parse(&text).ok_or_else(|| {
                let text: String = text.chars().take(80).collect();
                let problem = format!(
                    "it holds {text:?} where an epoch and a generation are to be; remove it, and \
                     this cluster begins a new epoch"
                );
                io_error("use", &path)(io::Error::new(io::ErrorKind::InvalidData, problem))
            })?,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => NONE,
            Err(problem) => return Err(io_error("read", &path)(problem)),
        };
        Ok(Self { path, mark })
    }

    pub(crate) fn get(&self) -> Mark {
        self.mark
    }

    /// Puts a higher mark on disk; to be called before a Head of that mark is signed.
    pub(crate) fn raise(&mut self, mark: Mark) -> Result<(), FolderError> {
        if mark > self.mark {
            replace_file(&self.path, format!("{} {}\n", mark.epoch, mark.generation).as_bytes())?;
            self.mark = mark;
        }
        Ok(())
    }

    /// Forgets the mark: this cluster has left the federation that it was for.
    pub(crate) fn reset(&mut self) -> Result<(), FolderError> {
        replace_file(&self.path, b"0 0\n")?;
        self.mark = NONE;
        Ok(())
    }
}

fn parse(text: &str) -> Option<Mark> {
    let (epoch, generation) = text.trim_end().split_once(' ')?;
    Some(Mark { epoch: epoch.parse().ok()?, generation: generation.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_only_grows_and_outlasts_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut mark = SignedMark::load(folder.path()).unwrap();
        assert_eq!(mark.get(), NONE);
        let high = Mark { epoch: 2, generation: 1 };
        mark.raise(high).unwrap();
        mark.raise(Mark { epoch: 1, generation: 9 }).unwrap();
        assert_eq!(SignedMark::load(folder.path()).unwrap().get(), high);
        mark.reset().unwrap();
        assert_eq!(SignedMark::load(folder.path()).unwrap().get(), NONE);
        fs::write(folder.path().join(FILE_NAME), "7\n").unwrap();
        let error = SignedMark::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("it holds \"7\\n\" where an epoch and a generation"), "{error}");
    }
}
