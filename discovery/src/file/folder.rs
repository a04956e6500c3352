//! Reading the folder: bounded, and never blocked by what is not a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::limits;

/// The manifest files by name: the text, or why it could not be read.
pub(super) type Scan = BTreeMap<String, Result<String, String>>;

/// Tells a folder from another one that took its name: device and inode.
pub(super) type FolderId = (u64, u64);

pub(super) fn id(folder: &Path) -> Option<FolderId> {
    let metadata = fs::metadata(folder).ok().filter(fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino()))
}

/// Reads all manifest files. An error means that nothing is known of the folder's content.
pub(super) fn scan(folder: &Path) -> Result<Scan, String> {
    // Kubernetes swaps a volume's content by renaming the link `..data`. Files read before and
    // after the swap would be of two generations.
    let generation = || -> Option<PathBuf> { fs::read_link(folder.join("..data")).ok() };
    let mut attempts = 1;
    loop {
        let before = generation();
        let scan = scan_once(folder)?;
        if before == generation() || attempts == limits::GENERATION_ATTEMPTS_MAX {
            return Ok(scan);
        }
        attempts += 1;
    }
}

fn scan_once(folder: &Path) -> Result<Scan, String> {
    let mut scan = Scan::new();
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_manifest(name)) else { continue };
        let Some(text) = read_file(&entry.path()) else { continue };
        bytes += text.as_ref().map_or(0, |text| text.len() as u64);
        scan.insert(name.to_string(), text);
        if scan.len() > limits::FOLDER_FILES_MAX {
            return Err(format!("more than {} manifest files", limits::FOLDER_FILES_MAX));
        }
        if bytes > limits::FOLDER_BYTES_MAX {
            return Err(format!("more than {} bytes of manifests", limits::FOLDER_BYTES_MAX));
        }
    }
    Ok(scan)
}

fn is_manifest(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// `None` for a folder, and for a file that vanished in between.
fn read_file(path: &Path) -> Option<Result<String, String>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return None,
        Ok(metadata) => metadata,
        Err(error) => return vanished_or(path, error),
    };
    if !metadata.is_file() {
        return Some(Err("it is not a regular file".into())); // opening a pipe would block
    }
    let mut bytes = Vec::new();
    let limit = api::limits::MANIFEST_BYTES_MAX as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    match read {
        Err(error) => vanished_or(path, error),
        Ok(_) if bytes.len() > api::limits::MANIFEST_BYTES_MAX => {
            Some(Err(format!("it has more than {} bytes", api::limits::MANIFEST_BYTES_MAX)))
        }
        Ok(_) => Some(String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_string())),
    }
}

/// A link whose target is missing did not vanish: it is broken.
fn vanished_or(path: &Path, error: std::io::Error) -> Option<Result<String, String>> {
    let gone = error.kind() == std::io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err();
    (!gone).then(|| Err(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_that_are_not_hidden_count() {
        for good in ["a.yaml", "a.yml", "a.json", "a.b.yaml"] {
            assert!(is_manifest(good), "{good}");
        }
        for bad in [".a.yaml", "..data", "a.yaml~", "a.YAML", "yaml", "a", "#a.yaml#", "a.yaml.swp"]
        {
            assert!(!is_manifest(bad), "{bad}");
        }
    }

    #[test]
    fn a_folder_with_too_many_files_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..limits::FOLDER_FILES_MAX {
            File::create(folder.path().join(format!("{number}.yaml"))).unwrap();
        }
        File::create(folder.path().join("notes.txt")).unwrap();
        assert_eq!(scan(folder.path()).unwrap().len(), limits::FOLDER_FILES_MAX);
        File::create(folder.path().join("one-more.yaml")).unwrap();
        assert_eq!(scan(folder.path()).unwrap_err(), "more than 4096 manifest files");
    }

    #[test]
    fn a_folder_with_too_much_text_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let size = api::limits::MANIFEST_BYTES_MAX as u64;
        let files = limits::FOLDER_BYTES_MAX / size;
        let sparse = |number: u64| {
            let file = File::create(folder.path().join(format!("{number}.yaml"))).unwrap();
            file.set_len(size).unwrap();
        };
        (0..files).for_each(sparse);
        assert_eq!(scan(folder.path()).unwrap().len() as u64, files);
        sparse(files);
        assert_eq!(scan(folder.path()).unwrap_err(), "more than 67108864 bytes of manifests");
    }
}
