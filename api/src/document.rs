//! A manifest file: its documents, `kind: List`, and which kind reads which document.

use model::{Diagnostic, Resource};
use serde::Deserialize;

use crate::kinds::{self, Kind, Reading};
use crate::metadata::{self, TypeMeta};
use crate::report::{FieldRules, Report, Treatment, quoted};
use crate::tree::{self, Node, SyntaxError, Value};

/// What one manifest file says.
#[derive(Debug, Default)]
pub struct Manifest {
    /// In the order of the file; the same key may be there twice.
    pub objects: Vec<Object>,
    pub diagnostics: Vec<Diagnostic>,
}

/// An object that is in service, and the line where it begins.
#[derive(Debug)]
pub struct Object {
    pub resource: Resource,
    pub line: u64,
}

/// Reads one file's text. `file` is the name that diagnostics show.
pub fn parse_manifest(file: &str, text: &str) -> Result<Manifest, SyntaxError> {
    let documents = tree::parse_documents(text)?;
    let mut manifest = Manifest::default();
    for document in &documents {
        let mut report = Report::new(file, document);
        match read_kind(&mut report) {
            Some(Dispatch::List) => {
                read_list(file, document, report, &mut manifest);
            }
            Some(Dispatch::Kind(kind)) => read_object(document, kind, report, &mut manifest),
            None => manifest.diagnostics.extend(report.into_diagnostics()),
        }
    }
    Ok(manifest)
}

enum Dispatch {
    List,
    Kind(&'static Kind),
}

fn read_kind(report: &mut Report<'_>) -> Option<Dispatch> {
    const ALL: FieldRules = &[("*", Treatment::Silent)];
    let TypeMeta { api_version, kind } = report.read(ALL)?;
    let served = "the manifest of a Kubernetes object begins with apiVersion and kind";
    let (Some(api_version), Some(kind)) = (&api_version, &kind) else {
        let field = if api_version.is_none() { "apiVersion" } else { "kind" };
        report.invalid(field, "the field is missing", served);
        return None;
    };
    if api_version == "v1" && kind == "List" {
        return Some(Dispatch::List);
    }
    let Some(found) = kinds::ALL.iter().find(|known| known.kind == kind) else {
        let message = format!("kind {} of {} is not served", quoted(kind), quoted(api_version));
        let fix =
            "nothing, if it is meant for others; docs/reference/kinds.md lists what is served";
        report.kind_not_served("kind", message, fix);
        return None;
    };
    if !found.api_versions.contains(&api_version.as_str()) {
        let message = format!("{kind} is not served as {}", quoted(api_version));
        let fix = format!("write apiVersion: {}", found.api_versions.join(" or "));
        report.kind_not_served("apiVersion", message, &fix);
        return None;
    }
    Some(Dispatch::Kind(found))
}

fn read_object(document: &Node, kind: &'static Kind, report: Report<'_>, manifest: &mut Manifest) {
    let mut report = report;
    let identity = metadata::read(&mut report, kind.kind, kind.namespaced, kind.parts);
    let reading = match identity {
        Some(identity) => (kind.read)(&identity, &mut report),
        None => Reading::Invalid,
    };
    match reading {
        Reading::NotOurs => return,
        Reading::Served(resource) if !report.failed() => {
            manifest.objects.push(Object { resource: *resource, line: document.line });
        }
        Reading::Served(_) | Reading::Invalid => {}
    }
    manifest.diagnostics.extend(report.into_diagnostics());
}

#[derive(Debug, Deserialize)]
struct List {
    #[expect(
        dead_code,
        reason = "its presence and type are checked; the nodes are read one by one"
    )]
    items: Vec<Item>,
}

/// Any map.
#[derive(Debug, Deserialize)]
struct Item {}

fn read_list(file: &str, document: &Node, report: Report<'_>, manifest: &mut Manifest) {
    const RULES: FieldRules = &[("items[].*", Treatment::Silent)];
    let mut report = report;
    let list = report.read::<List>(RULES);
    manifest.diagnostics.extend(report.into_diagnostics());
    let (Some(_), Value::List(items)) = (list, &document.nearest("items").value) else { return };
    for item in items {
        let mut report = Report::new(file, item);
        match read_kind(&mut report) {
            Some(Dispatch::Kind(kind)) => read_object(item, kind, report, manifest),
            Some(Dispatch::List) => {
                let fix = "put its items into the outer one";
                report.invalid("kind", "a List within a List is not served", fix);
                manifest.diagnostics.extend(report.into_diagnostics());
            }
            None => manifest.diagnostics.extend(report.into_diagnostics()),
        }
    }
}
