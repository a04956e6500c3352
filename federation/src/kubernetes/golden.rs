//! Golden files of the writers, in folders of `testdata/`: `NAME.in.yaml` says what is known,
//! `NAME.out.yaml` what is written because of it. `UPDATE=1` rewrites.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// `written` makes the output of an input's name and text.
pub(crate) fn check(name: &str, written: impl Fn(&str, &str) -> String) {
    let folder = folder(name);
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names: BTreeSet<String> = names.map(|name| name.into_string().unwrap()).collect();
    let mut wrong = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".in.yaml")) {
        let found = written(name, &fs::read_to_string(folder.join(name)).unwrap());
        let output = folder.join(name.replace(".in.yaml", ".out.yaml"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&output, &found).unwrap();
        }
        if fs::read_to_string(&output).unwrap_or_default() != found {
            wrong.push(format!("{name}:\n{found}"));
        }
    }
    assert!(names.len() > 1, "{folder:?} holds no golden files");
    assert!(wrong.is_empty(), "UPDATE=1 rewrites if this is right:\n{}", wrong.join("\n"));
}
