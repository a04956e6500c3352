//! Room on the disk of the node's data: told before it ends, asked for before the node starts, and
//! waited for where the store has failed.

use std::fs;
use std::io;
use std::path::Path;

use model::code::{STORE_FAULT, STORE_ROOM_LOW};
use model::{Diagnostic, Severity};

use crate::folder::replace_file;
use crate::limits::{ROOM_LOW_BYTES, ROOM_NEEDED_BYTES, ROOM_SHORT_BYTES};

const TRIAL_NAME: &str = "trial";
/// More than a file system keeps in an inode.
const TRIAL_BYTES: usize = 64 * 1024;

/// What a file system has left for this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free: u64,
    total: u64,
}

impl Room {
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let told = rustix::fs::statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
        Ok(Self { free: bytes(told.f_bavail), total: bytes(told.f_blocks) })
    }

    /// What is still free, if that is less than enough: so many bytes, or of a small disk a part.
    fn least(self, bytes: u64, part: u64) -> Option<u64> {
        let least = bytes.min(self.total / part);
        (self.free < least).then_some(least)
    }

    fn alarm(self, folder: &Path) -> Option<Diagnostic> {
        let short = self.least(ROOM_SHORT_BYTES, 8);
        let least = short.or_else(|| self.least(ROOM_LOW_BYTES, 4))?;
        Some(Diagnostic {
            severity: if short.is_some() { Severity::Error } else { Severity::Warning },
            code: STORE_ROOM_LOW,
            object: "FederationConfig".into(),
            field: "dataDir".into(),
            message: format!(
                "the disk of {} has {} bytes free, less than {least}; without room the store takes \
                 no more writes",
                folder.display(),
                self.free
            ),
            fix: STORE_ROOM_LOW.entry().fix.into(),
        })
    }
}

/// What there is to say about the disk of this folder.
pub(crate) fn alarm(folder: &Path) -> Option<Diagnostic> {
    Room::of(folder).ok()?.alarm(folder)
}

/// Refuses a disk that is as good as full, before something on it is written by half.
pub(crate) fn check(folder: &Path) -> Result<Room, String> {
    let room = Room::of(folder);
    let room = room.map_err(|problem| {
        format!("{STORE_FAULT}: cannot ask for the room at {}: {problem}", folder.display())
    })?;
    match room.least(ROOM_NEEDED_BYTES, 16) {
        None => Ok(room),
        Some(needed) => Err(format!(
            "{STORE_FAULT}: the disk of dataDir {} has {} bytes free, and the node needs {needed}; \
             free space there, or make the volume larger",
            folder.display(),
            room.free
        )),
    }
}

/// Whether the disk takes writes: there is room, and a file gets through to the device.
pub(crate) fn try_write(folder: &Path) -> Result<Room, String> {
    let room = check(folder)?;
    let path = folder.join(TRIAL_NAME);
    replace_file(&path, &[0; TRIAL_BYTES])
        .map_err(|problem| format!("{STORE_FAULT}: {problem}"))?;
    let removed = fs::remove_file(&path);
    removed
        .map_err(|problem| format!("{STORE_FAULT}: cannot remove {}: {problem}", path.display()))?;
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const GIB: u64 = 1024 * MIB;

    fn told(free: u64, total: u64) -> Option<Severity> {
        let told = Room { free, total }.alarm(Path::new("/data"))?;
        assert!(told.code == STORE_ROOM_LOW && told.message.contains("/data has"), "{told}");
        Some(told.severity)
    }

    #[test]
    fn room_is_told_by_bytes_and_on_a_small_disk_by_parts() {
        for (free, total, severity) in [
            (512 * MIB, 900 * GIB, None),
            (511 * MIB, 900 * GIB, Some(Severity::Warning)),
            (128 * MIB, 900 * GIB, Some(Severity::Warning)),
            (127 * MIB, 900 * GIB, Some(Severity::Error)),
            (16 * MIB, 64 * MIB, None),
            (15 * MIB, 64 * MIB, Some(Severity::Warning)),
            (7 * MIB, 64 * MIB, Some(Severity::Error)),
            (0, GIB, Some(Severity::Error)),
        ] {
            assert_eq!(told(free, total), severity, "{free} of {total}");
        }
    }

    #[test]
    fn a_disk_that_takes_writes_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        assert!(try_write(folder.path()).unwrap().free > 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let missing = try_write(&folder.path().join("missing")).unwrap_err();
        assert!(missing.starts_with("FED6311: cannot ask"), "{missing}");
    }
}
