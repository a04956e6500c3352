//! From texts to resources: pure, and it never fails. A bad file or object is left out with a
//! diagnostic; the same object twice is served from where it stands first.

use std::collections::BTreeMap;

use api::{Manifest, SyntaxError};
use model::{Diagnostic, Resource, ResourceKey, Severity, code};

/// Reads manifest files, each a name (that diagnostics show) and a text, in their order.
pub fn translate(files: &[(&str, &str)]) -> (Vec<Resource>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut manifests = Vec::new();
    for (name, text) in files {
        match api::parse_manifest(name, text) {
            Ok(manifest) => manifests.push((*name, manifest)),
            Err(error) => diagnostics.push(syntax_diagnostic(name, &error, "nothing of it")),
        }
    }
    let (resources, merged) = merge(manifests.iter().map(|(name, manifest)| (*name, manifest)));
    diagnostics.extend(merged);
    (resources, diagnostics)
}

/// Joins files that were read one by one.
pub(crate) fn merge<'a>(
    manifests: impl Iterator<Item = (&'a str, &'a Manifest)>,
) -> (Vec<Resource>, Vec<Diagnostic>) {
    let mut first: BTreeMap<ResourceKey, (&str, u64)> = BTreeMap::new();
    let (mut resources, mut diagnostics) = (Vec::new(), Vec::new());
    for (file, manifest) in manifests {
        diagnostics.extend(manifest.diagnostics.iter().cloned());
        for object in &manifest.objects {
            let key = object.resource.key();
            if let Some((first_file, first_line)) = first.get(&key) {
                diagnostics.push(Diagnostic {
                    severity: Severity::Error,
                    code: code::DUPLICATE_OBJECT,
                    object: key.to_string(),
                    field: String::new(),
                    message: format!(
                        "the object at {file}:{} is already declared at {first_file}:{first_line}, \
                         which is in service",
                        object.line
                    ),
                    fix: "remove one of the two".into(),
                });
                continue;
            }
            first.insert(key, (file, object.line));
            resources.push(object.resource.clone());
        }
    }
    (resources, diagnostics)
}

/// `in_service` says what of the file still is.
pub(crate) fn syntax_diagnostic(file: &str, error: &SyntaxError, in_service: &str) -> Diagnostic {
    let object = match error.line {
        Some(line) => format!("{file}:{line}"),
        None => file.to_string(),
    };
    Diagnostic {
        severity: Severity::Error,
        code: code::FILE_UNREADABLE,
        object,
        field: String::new(),
        message: format!("the file cannot be read as YAML: {error}; {in_service} is in service"),
        fix: "mend the file".into(),
    }
}
