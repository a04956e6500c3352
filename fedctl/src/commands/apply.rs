//! `fedctl apply`, `fedctl delete` and `fedctl diff`: changes to the applied objects.

use std::io::Read;
use std::path::{Path, PathBuf};

use api::Document;
use serde::Serialize;
use wire::operator::REQUEST_BYTES_MAX;
use wire::operator::proto::{
    ApplyObjectsRequest, ChangeKind, DeleteObjectsRequest, ManifestFile, ObjectChange,
    ObjectChanges, ObjectName,
};

use super::{get, kinds, unified};
use crate::cli::{Apply, Delete, Diff};
use crate::error::{CommandError, Exit};
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer};
use crate::view::{Finding, List};

/// One object and what became, or would become, of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeView {
    object: String,
    change: &'static str,
}

pub(super) async fn apply(
    args: &Apply,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let request = ApplyObjectsRequest { files: read(&args.files.files)? };
    send(request, args.dry_run, node, printer).await
}

/// Applies manifests, or shows what that would do.
pub(super) async fn send(
    request: ApplyObjectsRequest,
    dry_run: bool,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let changes = match dry_run {
        true => node.compare_objects(request).await?,
        false => node.apply_objects(request).await?,
    };
    warn(&changes, printer);
    if printer.format == OutputFormat::Yaml {
        return printer.data(&get::manifests(changes.changes.iter().map(|change| &*change.after)));
    }
    show(&changes, dry_run, printer)
}

pub(super) async fn delete(
    args: &Delete,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let names = match (&args.kind, &args.name) {
        (Some(kind), Some(name)) => {
            vec![kinds::object_name(kinds::kind(kind)?, name, args.namespace.as_deref())?]
        }
        _ => names_in(&read(&args.files)?)?,
    };
    let request = DeleteObjectsRequest { names, ignore_missing: args.ignore_missing };
    let changes = node.delete_objects(request).await?;
    if changes.changes.is_empty() && printer.format == OutputFormat::Table {
        printer.talk("Nothing of it was there.");
        return Ok(());
    }
    show(&changes, false, printer)
}

/// Whether anything would change. Its failures exit with more than 1.
pub(super) async fn diff(
    args: &Diff,
    node: &Operator,
    printer: &Printer,
) -> Result<bool, CommandError> {
    let compared = async {
        let request = ApplyObjectsRequest { files: read(&args.files.files)? };
        node.compare_objects(request).await
    };
    let changes = compared.await.map_err(|mut error| {
        if error.exit == Exit::Failed {
            error.exit = Exit::Usage;
        }
        error
    })?;
    warn(&changes, printer);
    let text: String = changes.changes.iter().map(difference).collect();
    if printer.format != OutputFormat::Table {
        show(&changes, true, printer)?;
    } else if !text.is_empty() {
        printer.data(&text)?;
    }
    Ok(!text.is_empty())
}

fn difference(change: &ObjectChange) -> String {
    let name = change.name.as_ref().map_or_else(String::new, kinds::shown);
    unified::diff(
        &format!("in service/{name}"),
        &format!("given/{name}"),
        &change.before,
        &change.after,
    )
}

pub(super) fn show(
    changes: &ObjectChanges,
    dry_run: bool,
    printer: &Printer,
) -> Result<(), CommandError> {
    let views = changes.changes.iter().map(|change| ChangeView {
        object: change.name.as_ref().map_or_else(String::new, kinds::shown),
        change: word(change.change()),
    });
    let list = List::new("ObjectChangeList", String::new(), views.collect());
    printer.result(&list, |list| {
        let suffix = if dry_run { " (dry run)" } else { "" };
        let line = |view: &ChangeView| format!("{} {}{suffix}", view.object, view.change);
        list.items.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}

fn word(change: ChangeKind) -> &'static str {
    match change {
        ChangeKind::Unspecified => "",
        ChangeKind::Created => "created",
        ChangeKind::Configured => "configured",
        ChangeKind::Unchanged => "unchanged",
        ChangeKind::Deleted => "deleted",
    }
}

fn warn(changes: &ObjectChanges, printer: &Printer) {
    for warning in &changes.warnings {
        printer.talk(&Finding::of(warning).line());
    }
}

/// The texts of files, of the manifests in folders, and of standard input.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<ManifestFile>, CommandError> {
    let mut files = Vec::new();
    let mut left = REQUEST_BYTES_MAX;
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(read_one("standard input", std::io::stdin().lock(), &mut left)?);
            continue;
        }
        for path in manifests_at(path)? {
            let file = std::fs::File::open(&path).map_err(|error| unreadable(&path, &error))?;
            files.push(read_one(&path.display().to_string(), file, &mut left)?);
        }
    }
    Ok(files)
}

fn manifests_at(path: &Path) -> Result<Vec<PathBuf>, CommandError> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(path, &error))?.path();
        let extension = entry.extension().and_then(|extension| extension.to_str());
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(entry);
        }
    }
    if found.is_empty() {
        let message = format!("{} has no .yaml, .yml or .json file", path.display());
        return Err(CommandError::usage(message).hint("name a file, or another folder"));
    }
    found.sort();
    Ok(found)
}

fn read_one(name: &str, source: impl Read, left: &mut usize) -> Result<ManifestFile, CommandError> {
    let mut text = String::new();
    let read = source.take(*left as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| unreadable(Path::new(name), &error))?;
    if text.len() > *left {
        let most = REQUEST_BYTES_MAX;
        return Err(CommandError::usage(format!("the manifests have more than {most} bytes"))
            .hint("give them in several parts"));
    }
    *left -= text.len();
    Ok(ManifestFile { name: name.into(), text })
}

fn unreadable(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::usage(format!("{}: {error}", path.display()))
        .hint("name a file that can be read, or - for standard input")
}

/// The objects that manifests declare, by name alone.
fn names_in(files: &[ManifestFile]) -> Result<Vec<ObjectName>, CommandError> {
    let mut names = Vec::new();
    for file in files {
        let wrong = |problem: String| {
            CommandError::usage(format!("{}: {problem}", file.name))
                .hint("each document needs apiVersion, kind and metadata.name")
        };
        let documents = Document::parse_all(&file.text);
        for document in documents.map_err(|error| wrong(error.to_string()))? {
            let value: serde_json::Value = serde_saphyr::from_str(&document.to_yaml())
                .map_err(|error| wrong(error.to_string()))?;
            let text = |path: &str| value.pointer(path).and_then(serde_json::Value::as_str);
            let line = document.line();
            let (Some(kind), Some(name)) = (text("/kind"), text("/metadata/name")) else {
                return Err(wrong(format!("line {line}: kind or metadata.name is missing")));
            };
            let kind = kinds::kind(kind)?;
            let namespace = text("/metadata/namespace");
            let namespace = namespace.or_else(|| kind.is_namespaced().then_some("default"));
            names.push(kinds::object_name(kind, name, namespace)?);
        }
    }
    if names.is_empty() {
        return Err(CommandError::usage("the files declare no object").hint("name other files"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> ManifestFile {
        ManifestFile { name: "f.yaml".into(), text: text.into() }
    }

    #[test]
    fn names_are_read_without_judging_the_rest() {
        let text = "kind: AccessPolicy\nmetadata: {name: a, namespace: shop}\nspec: nonsense\n---\n\
                    kind: ServiceExport\nmetadata: {name: b}\n---\nkind: ClusterPeer\n\
                    metadata: {name: c}\n";
        let names = names_in(&[file(text)]).unwrap();
        let shown: Vec<_> = names.iter().map(kinds::shown).collect();
        assert_eq!(shown, ["AccessPolicy/shop/a", "ServiceExport/default/b", "ClusterPeer/c"]);
        for (text, wanted) in [
            ("a: [", "f.yaml: "),
            ("kind: AccessPolicy\n", "line 1: kind or metadata.name is missing"),
            ("kind: Pod\nmetadata: {name: a}\n", "no kind \"Pod\""),
            ("", "declare no object"),
        ] {
            let error = names_in(&[file(text)]).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn files_folders_and_what_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let error = read(&[folder.path().into()]).unwrap_err().to_string();
        assert!(error.contains("has no .yaml"), "{error}");
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "notes.txt"] {
            std::fs::write(path(name), "kind: X\n").unwrap();
        }
        let files = read(&[folder.path().into(), path("notes.txt")]).unwrap();
        let names: Vec<_> =
            files.iter().map(|file| file.name.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["a.yml", "b.yaml", "notes.txt"]);
        let error = read(&[path("none.yaml")]).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.to_string().contains("none.yaml"), "{error}");
        std::fs::write(path("b.yaml"), " ".repeat(REQUEST_BYTES_MAX)).unwrap();
        let error = read(&[folder.path().into()]).unwrap_err().to_string();
        assert!(error.contains("more than 4194304 bytes"), "{error}");
    }
}
