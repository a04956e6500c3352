//! What a call would change, worked out before anything is.

use std::collections::BTreeMap;

use api::{Document, Stamp, parse_manifest};
use model::code::{DUPLICATE_OBJECT, FILE_UNREADABLE, KIND_NOT_SERVED, OBJECT_INVALID};
use model::{Diagnostic, Resource, ResourceKey, Severity};

use super::{AppliedError, Object};
use crate::limits::APPLIED_OBJECTS_MAX;

/// The changes of one call, in the order of the request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<ObjectChange>,
    pub(crate) warnings: Vec<Diagnostic>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ObjectChange {
    pub(crate) key: ResourceKey,
    pub(crate) kind: ChangeKind,
    pub(crate) before: Option<Document>,
    /// `None` when the object goes.
    pub(crate) after: Option<(Document, Resource, Vec<Diagnostic>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Created,
    Configured,
    Unchanged,
    Deleted,
}

impl Plan {
    pub(super) fn to_apply(
        objects: &BTreeMap<ResourceKey, Object>,
        files: &[(&str, &str)],
    ) -> Result<Self, AppliedError> {
        let (mut changes, mut errors, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for (name, text) in files {
            match read_file(name, text) {
                Ok(read) => changes.extend(read),
                Err(found) => errors.extend(found),
            }
        }
        let mut first: BTreeMap<ResourceKey, &str> = BTreeMap::new();
        for (change, place) in &mut changes {
            if let Some(first) = first.insert(change.key.clone(), place) {
                errors.push(duplicate(&change.key, place, first));
            }
            change.compare_with(objects.get(&change.key));
            warnings.extend(change.after.iter().flat_map(|(_, _, found)| found.clone()));
        }
        if changes.is_empty() && errors.is_empty() {
            let name = files.first().map_or("the request", |(name, _)| name);
            errors.push(nothing_in(name));
        }
        if !errors.is_empty() {
            return Err(AppliedError::Refused(errors));
        }
        let changes = changes.into_iter().map(|(change, _)| change).collect();
        Ok(Self { changes, warnings })
    }

    pub(super) fn to_delete(
        objects: &BTreeMap<ResourceKey, Object>,
        keys: &[ResourceKey],
        ignore_missing: bool,
        whose: impl Fn(&ResourceKey) -> Option<&'static str>,
    ) -> Result<Self, AppliedError> {
        let mut changes: Vec<ObjectChange> = Vec::new();
        for key in keys {
            if changes.iter().any(|change| change.key == *key) {
                continue;
            }
            let Some(object) = objects.get(key) else {
                let (object, kind) = (key.to_string(), key.kind.as_str());
                match whose(key) {
                    Some(whose) => return Err(AppliedError::NotApplied { object, whose }),
                    None if ignore_missing => continue,
                    None => return Err(AppliedError::Missing { object, kind }),
                }
            };
            let before = Some(object.document.clone());
            let key = key.clone();
            changes.push(ObjectChange { key, kind: ChangeKind::Deleted, before, after: None });
        }
        Ok(Self { changes, warnings: Vec::new() })
    }

    pub(super) fn changes_anything(&self) -> bool {
        self.changes.iter().any(|change| change.kind != ChangeKind::Unchanged)
    }

    /// The objects as they are after the call.
    pub(super) fn result(
        &self,
        objects: &BTreeMap<ResourceKey, Object>,
        now: &str,
    ) -> BTreeMap<ResourceKey, Object> {
        let mut result = objects.clone();
        for change in &self.changes {
            let Some((document, resource, findings)) = &change.after else {
                result.remove(&change.key);
                continue;
            };
            let stamp = match objects.get(&change.key) {
                Some(_) if change.kind == ChangeKind::Unchanged => continue,
                Some(known) => {
                    Stamp { generation: known.stamp.generation + 1, ..known.stamp.clone() }
                }
                None => Stamp { created: now.into(), generation: 1 },
            };
            let (document, findings) = (document.clone(), findings.clone());
            let object = Object { document, stamp, resource: resource.clone(), findings };
            result.insert(change.key.clone(), object);
        }
        result
    }
}

impl ObjectChange {
    fn compare_with(&mut self, known: Option<&Object>) {
        let spelling = |document: &Document| document.to_yaml();
        let after = self.after.as_ref().map(|(document, ..)| spelling(document));
        self.before = known.map(|known| known.document.clone());
        self.kind = match &self.before {
            None => ChangeKind::Created,
            Some(before) if Some(spelling(before)) == after => ChangeKind::Unchanged,
            Some(_) => ChangeKind::Configured,
        };
    }
}

/// The objects of one file with their places, or everything that is wrong with the file.
fn read_file(name: &str, text: &str) -> Result<Vec<(ObjectChange, String)>, Vec<Diagnostic>> {
    let unreadable = |error: api::SyntaxError| {
        let object = error.line.map_or_else(|| name.to_string(), |line| format!("{name}:{line}"));
        let message = format!("the file cannot be read as YAML: {error}");
        vec![finding(FILE_UNREADABLE, object, message, "mend the file")]
    };
    let documents = Document::parse_all(text).map_err(unreadable)?;
    // Read as a whole first, so that findings have the lines of the user's own file.
    let whole = parse_manifest(name, text).map_err(unreadable)?;
    let is_error =
        |found: &Diagnostic| found.severity == Severity::Error || found.code == KIND_NOT_SERVED;
    let mut errors: Vec<_> = whole.diagnostics.into_iter().filter(is_error).collect();
    let mut changes = Vec::new();
    for document in documents {
        let place = format!("{name}:{}", document.line());
        match read_object(&place, document.declared()) {
            Ok((document, resource, findings)) => {
                let (key, after) = (resource.key(), Some((document, resource, findings)));
                let kind = ChangeKind::Created;
                changes.push((ObjectChange { key, kind, before: None, after }, place));
            }
            Err(found) if errors.is_empty() => errors.push(found),
            Err(_) => {} // the whole file's findings say it better
        }
    }
    if errors.is_empty() { Ok(changes) } else { Err(errors) }
}

/// Reads one object, with its warnings.
pub(super) fn read_object(
    place: &str,
    document: Document,
) -> Result<(Document, Resource, Vec<Diagnostic>), Diagnostic> {
    let refused = |message: String| {
        let fix = "write one object of a kind that docs/reference/kinds.md lists";
        finding(OBJECT_INVALID, place.to_string(), message, fix)
    };
    let manifest = parse_manifest(place, &document.to_yaml());
    let mut manifest = manifest.map_err(|error| refused(error.to_string()))?;
    let errors = manifest.diagnostics.iter().find(|found| found.severity == Severity::Error);
    if let Some(error) = errors {
        return Err(error.clone());
    }
    match (manifest.objects.pop(), manifest.objects.is_empty()) {
        (Some(object), true) => Ok((document, object.resource, manifest.diagnostics)),
        _ => Err(refused("the document is no object that this node serves".into())),
    }
}

/// The file is read back at the next start: it has to be within the limits of what is read.
pub(super) fn check_size(text: &str, objects: usize) -> Result<(), AppliedError> {
    let refused = |message| {
        let fix = "delete objects, or keep some in the folder of manifests";
        let found = finding(OBJECT_INVALID, "the request".into(), message, fix);
        Err(AppliedError::Refused(vec![found]))
    };
    if objects > APPLIED_OBJECTS_MAX {
        let message =
            format!("{objects} objects would be applied, at most {APPLIED_OBJECTS_MAX} are");
        return refused(message);
    }
    match Document::parse_all(text) {
        Ok(_) => Ok(()),
        Err(error) => refused(format!("all applied objects together: {error}")),
    }
}

fn duplicate(key: &ResourceKey, place: &str, first: &str) -> Diagnostic {
    let message = format!("the object at {place} is already declared at {first}");
    finding(DUPLICATE_OBJECT, key.to_string(), message, "remove one of the two")
}

fn nothing_in(name: &str) -> Diagnostic {
    let message = "there is no object in it".to_string();
    finding(OBJECT_INVALID, name.to_string(), message, "write a manifest into it")
}

fn finding(code: model::code::Code, object: String, message: String, fix: &str) -> Diagnostic {
    let (severity, field) = (Severity::Error, String::new());
    Diagnostic { severity, code, object, field, message, fix: fix.into() }
}
