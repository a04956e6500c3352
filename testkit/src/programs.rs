//! Where our own binaries are. They are built first, so that a test never runs an old one.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Path of one of our binaries, of the profile that the caller itself was built with.
///
/// # Panics
/// When cargo cannot build them.
pub fn path(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build).join(name)
}

fn build() -> PathBuf {
    let here = std::env::current_exe().expect("a running program has a path");
    // Tests are in `<target>/<profile>/deps`, binaries in `<target>/<profile>`.
    let folder = here.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let folder = folder.expect("a program is in a folder").to_path_buf();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The whole workspace, as make does it: then dependencies are built with the same features.
    cargo.args(["build", "--quiet", "--workspace", "--bins", "--locked"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let status = cargo.args(["--manifest-path", manifest]).status().expect("cargo runs");
    assert!(status.success(), "cargo could not build the binaries: {status}");
    folder
}
