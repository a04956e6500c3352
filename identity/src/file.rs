//! Files that survive a crash whole or not at all, and private ones that nobody else may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::code::{self, Code};
use zeroize::Zeroizing;

use crate::limits::IDENTITY_FILE_BYTES_MAX;

/// Why a file of an identity could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(
        "{} has mode {mode:04o}, so others than its owner can reach a private key: run `chmod 600 {}`",
        .path.display(), .path.display()
    )]
    Permissions { path: PathBuf, mode: u32 },
    #[error("{} is not a regular file: put the file itself there", .path.display())]
    NotAFile { path: PathBuf },
    #[error(
        "{} is larger than {IDENTITY_FILE_BYTES_MAX} bytes: it is not a file that Fedgate wrote, \
         move it away",
        .path.display()
    )]
    TooLarge { path: PathBuf },
    #[error("cannot {action} {}: {source}: see that it belongs to this user", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl FileError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Permissions { .. } => code::KEY_PERMISSIONS,
            _ => code::DATA_FOLDER_UNUSABLE,
        }
    }
}

/// Mode of a file that holds a key.
pub(crate) const PRIVATE_FILE_MODE: u32 = 0o600;
/// Mode of a file that everyone may read.
pub(crate) const PUBLIC_FILE_MODE: u32 = 0o644;
const PRIVATE_FOLDER_MODE: u32 = 0o700;

/// Makes `folder` and its missing parents, readable by this user only.
pub(crate) fn create_private_folder(folder: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_FOLDER_MODE)
        .create(folder)
        .map_err(io_error("create the folder", folder))
}

/// Replaces `path` as a whole: a crash at any moment leaves the old content or the new one.
pub(crate) fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let staged = stage(path, content, mode)?;
    fs::rename(&staged, path).map_err(io_error("rename a new file to", path))?;
    sync_folder_of(path)
}

/// Puts one file in the place of another; survives a crash as the old one or the new one.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(io_error("rename another file to", to))?;
    sync_folder_of(to)
}

/// The first half of a write: the new content, on disk, under the temporary name.
fn stage(path: &Path, content: &[u8], mode: u32) -> Result<PathBuf, FileError> {
    let staged = staging_path(path);
    // A leftover of a crash may have any mode; `create_new` makes sure that ours has the right one.
    match fs::remove_file(&staged) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &staged)(problem));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&staged)
        .map_err(io_error("create", &staged))?;
    file.write_all(content).map_err(io_error("write", &staged))?;
    file.sync_all().map_err(io_error("sync", &staged))?;
    Ok(staged)
}

fn staging_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Without this the rename itself may be lost with the power.
fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let handle = File::open(folder).map_err(io_error("open the folder", folder))?;
    handle.sync_all().map_err(io_error("sync the folder", folder))
}

/// Reads a file that holds a key; refuses it when anyone but its owner may read or write it.
pub(crate) fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    read(path, 0o077)
}

/// A key that another program renews and that its group may read, as Kubernetes mounts Secrets.
pub(crate) fn read_shared_key(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    read(path, 0o007)
}

pub(crate) fn read_public(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    Ok(read(path, 0)?.map(|mut content| std::mem::take(&mut *content)))
}

/// `None` when there is no such file. One whose mode has a `forbidden` bit is refused.
fn read(path: &Path, forbidden: u32) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(io_error("open", path)(problem)),
    };
    // The open file is asked, not its path: a path may name another file a moment later.
    let metadata = file.metadata().map_err(io_error("read the mode of", path))?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: path.into() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(FileError::Permissions { path: path.into(), mode });
    }
    let capacity = metadata.len().min(IDENTITY_FILE_BYTES_MAX) as usize + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(IDENTITY_FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(io_error("read", path))?;
    if content.len() as u64 > IDENTITY_FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.into() });
    }
    Ok(Some(content))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_crash_at_any_moment_leaves_the_old_content_or_the_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("svid.pem");
        write_atomic(&path, b"old", PRIVATE_FILE_MODE).unwrap();
        for leftover in [&b""[..], b"ne", b"new"] {
            // What a crash during `stage` leaves behind, with a mode that it must not keep.
            fs::write(staging_path(&path), leftover).unwrap();
            fs::set_permissions(staging_path(&path), fs::Permissions::from_mode(0o666)).unwrap();
            assert_eq!(**read_private(&path).unwrap().unwrap(), *b"old");
        }
        // The crash between the two halves: everything is staged, nothing is switched.
        stage(&path, b"new", PRIVATE_FILE_MODE).unwrap();
        assert_eq!(**read_private(&path).unwrap().unwrap(), *b"old");
        write_atomic(&path, b"new", PRIVATE_FILE_MODE).unwrap();
        assert_eq!(**read_private(&path).unwrap().unwrap(), *b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!staging_path(&path).exists());
    }

    #[test]
    fn private_files_are_refused_when_others_may_reach_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        fs::write(&path, b"key").unwrap();
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
            (0o644, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match read_private(&path) {
                Ok(content) => assert!(fine && content.is_some(), "{mode:o}"),
                Err(error) => {
                    assert!(!fine, "{mode:o}: {error}");
                    let path = path.display();
                    let text = format!(
                        "{path} has mode {mode:04o}, so others than its owner can reach a private \
                         key: run `chmod 600 {path}`"
                    );
                    assert_eq!(error.to_string(), text);
                    assert_eq!(error.code(), code::KEY_PERMISSIONS);
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_small_regular_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(read_public(&path).unwrap().is_none());
        fs::create_dir(&path).unwrap();
        let error = read_public(&path).unwrap_err().to_string();
        assert!(error.ends_with("is not a regular file: put the file itself there"), "{error}");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, vec![0; IDENTITY_FILE_BYTES_MAX as usize]).unwrap();
        assert!(read_public(&path).unwrap().is_some());
        fs::write(&path, vec![0; IDENTITY_FILE_BYTES_MAX as usize + 1]).unwrap();
        let error = read_public(&path).unwrap_err().to_string();
        assert!(error.contains("is larger than 262144 bytes"), "{error}");
    }

    #[test]
    fn errors_of_the_system_name_the_action_and_the_path() {
        let error = write_atomic(Path::new("/nonexistent/x"), b"", 0o600).unwrap_err();
        assert!(error.to_string().starts_with("cannot create /nonexistent/.x.new: "), "{error}");
        assert_eq!(error.code(), code::DATA_FOLDER_UNUSABLE);
    }
}
