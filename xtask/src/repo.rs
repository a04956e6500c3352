//! The files that the rules look at: what git tracks, and what it would track after `git add .`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A file larger than this is reported by its size alone and is not read.
const FILE_READ_MAX_BYTES: u64 = 4 << 20;

/// The repository's files, by path from its top. Paths use `/`.
#[derive(Debug, Default)]
pub struct Repo {
    /// Top folder. Empty for a sample that was made in memory.
    pub root: PathBuf,
    /// Every file, sorted by path.
    pub files: BTreeMap<String, SourceFile>,
}

/// One file of the repository.
#[derive(Debug)]
pub struct SourceFile {
    pub size_bytes: u64,
    /// The text, if it is UTF-8 without NUL.
    pub text: Option<String>,
}

impl Repo {
    /// Reads the repository that this crate was built in.
    pub fn here() -> Result<Self> {
        let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = crate_dir.parent().context("the xtask folder has no parent")?;
        Self::load(root)
    }

    /// Reads all files under `root` that git tracks or does not ignore.
    pub fn load(root: &Path) -> Result<Self> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("cannot run git; install git")?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("git ls-files in {} failed: {}", root.display(), stderr.trim());
        }
        let mut repo = Self { root: root.to_owned(), ..Self::default() };
        for name in output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = String::from_utf8_lossy(name).into_owned();
            let path = root.join(&name);
            // A file that was deleted but not yet committed is still listed.
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if metadata.is_file() {
                repo.files.insert(name, SourceFile::read(&path, metadata.len())?);
            }
        }
        Ok(repo)
    }

    /// A repository in memory, for the rules' own tests.
    pub fn sample(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| {
            let size_bytes = text.len() as u64;
            ((*path).to_owned(), SourceFile { size_bytes, text: Some((*text).to_owned()) })
        });
        Self { root: PathBuf::new(), files: files.collect() }
    }

    /// The text of the file at `path`, if it is there and is text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.text.as_deref()
    }

    /// All text files whose path ends with `suffix`.
    pub fn texts<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(suffix))
            .filter_map(|(path, file)| Some((path.as_str(), file.text.as_deref()?)))
    }

    /// Whether `path` names a file, or a folder with a file in it.
    pub fn exists(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        if path.is_empty() || self.files.contains_key(path) {
            return true;
        }
        let folder = format!("{path}/");
        self.files.range(folder.clone()..).next().is_some_and(|(name, _)| name.starts_with(&folder))
    }

    /// Names of the folders at the top that hold a `Cargo.toml`: the crates.
    pub fn crates(&self) -> Vec<&str> {
        self.files
            .keys()
            .filter_map(|path| path.strip_suffix("/Cargo.toml"))
            .filter(|folder| !folder.contains('/'))
            .collect()
    }
}

impl SourceFile {
    fn read(path: &Path, size_bytes: u64) -> Result<Self> {
        if size_bytes > FILE_READ_MAX_BYTES {
            return Ok(Self { size_bytes, text: None });
        }
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        Ok(Self { size_bytes, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_exist_through_their_files() {
        let repo = Repo::sample(&[("docs/guide/a.md", ""), ("docs-old", "")]);
        for (path, exists) in [
            ("docs", true),
            ("docs/", true),
            ("docs/guide/a.md", true),
            ("doc", false),
            ("docs/guide/b.md", false),
        ] {
            assert_eq!(repo.exists(path), exists, "{path}");
        }
    }

    #[test]
    fn load_sees_new_files_and_leaves_out_ignored_and_deleted_ones() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let output = Command::new("git").args(args).current_dir(dir.path()).output().unwrap();
            assert!(output.status.success(), "{args:?}");
        };
        git(&["init", "-q"]);
        for (name, text) in [(".gitignore", "out\n"), ("a.rs", "a"), ("gone.rs", ""), ("out", "")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        git(&["add", "gone.rs"]);
        std::fs::remove_file(dir.path().join("gone.rs")).unwrap();
        let repo = Repo::load(dir.path()).unwrap();
        assert_eq!(repo.files.keys().collect::<Vec<_>>(), [".gitignore", "a.rs"]);
        assert_eq!(repo.text("a.rs"), Some("a"));
    }
}
