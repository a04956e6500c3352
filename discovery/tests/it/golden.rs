//! Golden files: `name.in.yaml` goes in, `name.out.yaml` is what came out; `UPDATE=1` rewrites.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use model::{ClusterName, Resource, ResourceSet, Revision};

use crate::dump;

#[test]
fn manifests_translate_as_recorded() {
    check_folder("translate", |file, text| {
        let (resources, diagnostics) = discovery::translate(&[(file, text)]);
        dump::resources(&resources) + &dump::diagnostics(&diagnostics)
    });
}

/// Each input is compiled for the cluster `east`, as a federation node of it would.
#[test]
fn manifests_compile_as_recorded() {
    check_folder("compile", |file, text| {
        let (resources, translated): (Vec<Resource>, _) = discovery::translate(&[(file, text)]);
        let resources: ResourceSet = resources.into_iter().collect();
        let own = ClusterName::parse("east").unwrap();
        let (snapshot, compiled) = model::compile(&own, Revision::default(), &resources);
        let diagnostics = [translated, compiled].concat();
        dump::snapshot(&snapshot, &model::endpoint_table(&resources))
            + &dump::diagnostics(&diagnostics)
    });
}

fn check_folder(name: &str, render: impl Fn(&str, &str) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let update = std::env::var_os("UPDATE").is_some();
    let names: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut wrong = Vec::new();
    for input in names.iter().filter(|name| name.ends_with(".in.yaml")) {
        let output = folder.join(input.replace(".in.yaml", ".out.yaml"));
        let text = fs::read_to_string(folder.join(input)).unwrap();
        let found = render(input, &text);
        if update {
            fs::write(&output, &found).unwrap();
        }
        let want = fs::read_to_string(&output).unwrap_or_default();
        if found != want {
            wrong.push(format!("{name}/{input}: {}", first_difference(&want, &found)));
        }
    }
    for output in names.iter().filter(|name| name.ends_with(".out.yaml")) {
        if !names.contains(&output.replace(".out.yaml", ".in.yaml")) {
            wrong.push(format!("{name}/{output} has no input"));
        }
    }
    assert!(!names.is_empty(), "{folder:?} holds no golden files");
    assert!(wrong.is_empty(), "UPDATE=1 rewrites if this is right:\n{}", wrong.join("\n"));
}

fn first_difference(want: &str, found: &str) -> String {
    let (mut want, mut found) = (want.lines(), found.lines());
    for line in 1.. {
        let pair = (want.next(), found.next());
        match pair {
            (None, None) => break,
            (a, b) if a != b => {
                let (a, b) = (a.unwrap_or("<end>"), b.unwrap_or("<end>"));
                return format!("line {line}\n  want  {a}\n  found {b}");
            }
            _ => {}
        }
    }
    "line ends differ".into()
}
