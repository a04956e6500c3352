//! Golden outputs: what a command prints is kept in `testdata/`, and `UPDATE=1` rewrites it.

use std::path::Path;

pub(crate) fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let found = format!("{}\n", found.trim_end());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
        return;
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, want, "{name}: UPDATE=1 cargo test -p fedctl rewrites it");
}
