//! Who a node is in the election of the one that writes to its cluster.

use std::path::Path;
use std::{fs, io};

use rand::Rng;

use crate::folder::{self, FolderError, replace_file};

const FILE_NAME: &str = "lease-holder";

/// Belongs to the data folder, which one process at a time has locked: so a node that was killed and is
/// back takes the Lease for its own at once, and a second one that calls itself the same does not.
pub(super) fn identity(
    folder: &Path,
    name: &str,
    random: &mut impl Rng,
) -> Result<String, FolderError> {
    let path = folder.join(FILE_NAME);
    match fs::read_to_string(&path) {
        Ok(identity) if is_of(identity.trim_end(), name) => return Ok(identity.trim_end().into()),
        // Somebody else's, or of a node that was renamed.
        Ok(_) => {}
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {}
        Err(problem) if problem.kind() == io::ErrorKind::InvalidData => {}
        Err(problem) => return Err(folder::io_error("read", &path)(problem)),
    }
    let identity = format!("{name}-{:016x}", random.random::<u64>());
    replace_file(&path, format!("{identity}\n").as_bytes())?;
    Ok(identity)
}

fn is_of(identity: &str, name: &str) -> bool {
    let suffix = identity.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
    suffix.is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_with_its_folder_and_name() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of = |folder: &tempfile::TempDir, name: &str| {
            identity(folder.path(), name, &mut rand::rng()).unwrap()
        };
        let first = of(&one, "node-0");
        assert!(first.starts_with("node-0-") && first.len() == "node-0-".len() + 16, "{first}");
        assert_eq!(of(&one, "node-0"), first);
        assert_ne!(of(&two, "node-0"), first);
        assert!(of(&one, "node-1").starts_with("node-1-"));
        fs::write(one.path().join(FILE_NAME), b"\xff").unwrap();
        assert_ne!(of(&one, "node-0"), first, "what is no identity is replaced");
    }
}
