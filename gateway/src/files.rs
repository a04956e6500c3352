//! Small files of the gateway's own, for its user only.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use model::code::{DATA_FOLDER_UNUSABLE, KEY_PERMISSIONS};

const RESET_KEY_BYTES: usize = 64;

/// Makes the folder and its missing parents, mode 0700. One that others may enter is refused: who
/// can replace the snapshot decides whom this gateway trusts.
pub(crate) fn create_data_dir(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
        let fix = "create it, owned by this user, with mode 0700";
        format!("{DATA_FOLDER_UNUSABLE}: failed to create {shown}; {fix}")
    })?;
    let mode = fs::metadata(path).map(|metadata| metadata.mode() & 0o7777);
    let mode = mode.with_context(|| format!("failed to read the mode of {shown}"))?;
    if mode & 0o077 != 0 {
        bail!(
            "{DATA_FOLDER_UNUSABLE}: dataDir {shown} has mode {mode:04o}, so others than its owner \
             can enter it: run `chmod 700 {shown}`"
        );
    }
    Ok(())
}

/// The key of QUIC's stateless resets.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetKey(pub(crate) [u8; RESET_KEY_BYTES]);

/// Without the key: whoever has it can end this gateway's connections.
impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResetKey").finish_non_exhaustive()
    }
}

/// The key of QUIC's stateless resets, made at the first start. It is kept so that peers notice a
/// crash and restart within a round trip; whoever has it can end this gateway's connections.
pub(crate) fn load_or_create_reset_key(
    data_dir: &Path,
    random: impl FnOnce() -> [u8; RESET_KEY_BYTES],
) -> anyhow::Result<ResetKey> {
    let path = data_dir.join("reset.key");
    let shown = path.display();
    match fs::read(&path) {
        Ok(bytes) => {
            let mode = fs::metadata(&path).map(|metadata| metadata.mode() & 0o777);
            let mode = mode.with_context(|| format!("failed to read the mode of {shown}"))?;
            if mode & 0o077 != 0 {
                bail!("{KEY_PERMISSIONS}: {shown} has mode {mode:04o}: run `chmod 600 {shown}`");
            }
            match bytes.try_into() {
                Ok(key) => Ok(ResetKey(key)),
                Err(bytes) => {
                    let found = bytes.len();
                    bail!(
                        "{shown} has {found} bytes, not {RESET_KEY_BYTES}; remove it, and a new one is made"
                    )
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = random();
            write_private(&path, &key)
                .with_context(|| format!("{DATA_FOLDER_UNUSABLE}: failed to write {shown}"))?;
            Ok(ResetKey(key))
        }
        Err(error) => Err(error).with_context(|| format!("failed to read {shown}")),
    }
}

/// Replaces a file as a whole, mode 0600: a crash leaves the old one or the new one.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = path.with_file_name(format!(".{name}.new"));
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_data_folder_that_others_may_enter_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        create_data_dir(&path).unwrap();
        create_data_dir(&path).unwrap();
        for mode in [0o777, 0o750, 0o701] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = create_data_dir(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("has mode {mode:04o}")), "{error}");
            assert!(error.contains("run `chmod 700 "), "{error}");
        }
    }

    #[test]
    fn the_reset_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = load_or_create_reset_key(folder.path(), || [7; 64]).unwrap();
        let second = load_or_create_reset_key(folder.path(), || [8; 64]).unwrap();
        assert_eq!((&first.0, &second.0), (&[7; 64], &[7; 64]));
        assert_eq!(format!("{first:?}"), "ResetKey(..)");
        let path = folder.path().join("reset.key");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create_reset_key(folder.path(), || [9; 64]).unwrap_err().to_string();
        assert!(error.contains("FED3004") && error.contains("chmod 600"), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"short").unwrap();
        let error = load_or_create_reset_key(folder.path(), || [9; 64]).unwrap_err().to_string();
        assert!(error.contains("has 5 bytes, not 64; remove it"), "{error}");
    }
}
