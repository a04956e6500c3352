//! The provider behind `fedctl apply`: objects kept in `dataDir/applied/objects.yaml`, taken strictly,
//! all of a call or none, and served beside the folder of manifests.

mod change;
mod merge;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use api::{Document, Stamp};
use discovery::Catalog;
use model::code::{APPLY_REFUSED, Code, DATA_FOLDER_UNUSABLE, FILE_UNREADABLE};
use model::{Diagnostic, Resource, ResourceKey};
use tokio::sync::watch;

use crate::folder::{FolderError, create_private_folder, replace_file};
pub(crate) use change::{ChangeKind, ObjectChange, Plan};
pub(crate) use merge::{Declared, Origin, merged, shadowed};

/// Findings in one refusal, and characters of each.
const FINDINGS_SHOWN_MAX: usize = 8;
const FINDING_CHARS_MAX: usize = 512;
/// The name of the file in messages.
const FILE: &str = "objects.yaml";
const HEAD: &str =
    "# Written by fedgate-federation; `fedctl apply` and `fedctl delete` change it.\n";

/// The applied objects.
#[derive(Debug)]
pub(crate) struct Applied {
    path: PathBuf,
    objects: Mutex<BTreeMap<ResourceKey, Object>>,
    catalog: watch::Sender<Arc<Catalog>>,
}

/// One applied object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// As declared, without what this node says of it.
    pub(crate) document: Document,
    pub(crate) stamp: Stamp,
    pub(crate) resource: Resource,
    /// Warnings: with an error it would not be here.
    pub(crate) findings: Vec<Diagnostic>,
}

/// Why objects could not be read, taken or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppliedError {
    #[error(
        "{}{}: {problem}; mend it or put back a copy: without it, what was applied would go out of \
         service", path.display(), Line(*line)
    )]
    Damaged { path: PathBuf, line: Option<u64>, problem: String },
    #[error("{}", refusal(.0))]
    Refused(Vec<Diagnostic>),
    #[error("{object} is not there; `fedctl get {kind}` lists what is")]
    Missing { object: String, kind: &'static str },
    #[error("{object} is not an applied object: {whose}")]
    NotApplied { object: String, whose: &'static str },
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl AppliedError {
    /// The registered code of this failure.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Damaged { .. } => FILE_UNREADABLE,
            Self::Refused(_) | Self::Missing { .. } | Self::NotApplied { .. } => APPLY_REFUSED,
            Self::Folder(_) => DATA_FOLDER_UNUSABLE,
        }
    }
}

/// One line, then one for each finding, within what a header of the answer can hold.
fn refusal(findings: &[Diagnostic]) -> String {
    let mut text = "nothing was applied".to_string();
    for found in findings.iter().take(FINDINGS_SHOWN_MAX) {
        let line: String = found.to_string().chars().take(FINDING_CHARS_MAX).collect();
        text.push_str(&format!("\n{line}"));
    }
    if findings.len() > FINDINGS_SHOWN_MAX {
        text.push_str(&format!("\nand {} more", findings.len() - FINDINGS_SHOWN_MAX));
    }
    text
}

/// `:7` or nothing.
struct Line(Option<u64>);

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

impl Applied {
    /// Reads the file in `folder`, which is made if it is missing. A file that cannot be read ends
    /// the start: gateways go on with what they have, where a start without it would withdraw that.
    pub(crate) fn open(folder: &Path) -> Result<Self, AppliedError> {
        create_private_folder(folder)?;
        let path = folder.join(FILE);
        let damaged = |line, problem| AppliedError::Damaged { path: path.clone(), line, problem };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => String::new(),
            Err(problem) => return Err(damaged(None, problem.to_string())),
        };
        let documents =
            Document::parse_all(&text).map_err(|error| damaged(error.line, error.problem))?;
        let mut objects = BTreeMap::new();
        for document in documents {
            let line = document.line();
            let stamp = document.stamp();
            let stamp = stamp.ok_or_else(|| damaged(Some(line), "no stamp".into()))?;
            let read = change::read_object(FILE, document.declared());
            let (document, resource, findings) =
                read.map_err(|problem| damaged(Some(line), problem.to_string()))?;
            objects.insert(resource.key(), Object { document, stamp, resource, findings });
        }
        let catalog = watch::Sender::new(Arc::new(catalog(&objects, 0)));
        Ok(Self { path, objects: Mutex::new(objects), catalog })
    }

    /// The applied objects, now and whenever they change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    pub(crate) fn get(&self, key: &ResourceKey) -> Option<Object> {
        self.lock().get(key).cloned()
    }

    #[cfg(test)]
    fn keys(&self) -> Vec<ResourceKey> {
        self.lock().keys().cloned().collect()
    }

    /// What taking these manifests would change.
    pub(crate) fn compare(&self, files: &[(&str, &str)]) -> Result<Plan, AppliedError> {
        Plan::to_apply(&self.lock(), files)
    }

    /// Takes all manifests, or none. `allowed` may refuse the plan.
    pub(crate) fn apply<E: From<AppliedError>>(
        &self,
        files: &[(&str, &str)],
        now: SystemTime,
        allowed: impl FnOnce(&Plan) -> Result<(), E>,
    ) -> Result<Plan, E> {
        let mut objects = self.lock();
        let plan = Plan::to_apply(&objects, files)?;
        allowed(&plan)?;
        self.carry_out(&mut objects, &plan, now)?;
        Ok(plan)
    }

    /// Takes objects out of service: all, or none. `whose` says of one that was not applied where it
    /// comes from.
    pub(crate) fn delete<E: From<AppliedError>>(
        &self,
        keys: &[ResourceKey],
        ignore_missing: bool,
        whose: impl Fn(&ResourceKey) -> Option<&'static str>,
        now: SystemTime,
        allowed: impl FnOnce(&Plan) -> Result<(), E>,
    ) -> Result<Plan, E> {
        let mut objects = self.lock();
        let plan = Plan::to_delete(&objects, keys, ignore_missing, whose)?;
        allowed(&plan)?;
        self.carry_out(&mut objects, &plan, now)?;
        Ok(plan)
    }

    /// On disk first, then in service.
    fn carry_out(
        &self,
        objects: &mut BTreeMap<ResourceKey, Object>,
        plan: &Plan,
        now: SystemTime,
    ) -> Result<(), AppliedError> {
        if !plan.changes_anything() {
            return Ok(());
        }
        let after = plan.result(objects, &timestamp(now));
        let text = file_text(&after);
        change::check_size(&text, after.len())?;
        replace_file(&self.path, text.as_bytes())?;
        *objects = after;
        let sequence = self.catalog.borrow().sequence + 1;
        self.catalog.send_replace(Arc::new(catalog(objects, sequence)));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ResourceKey, Object>> {
        // The map is replaced as a whole, after the file was.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn catalog(objects: &BTreeMap<ResourceKey, Object>, sequence: u64) -> Catalog {
    let mut diagnostics: Vec<_> =
        objects.values().flat_map(|object| object.findings.clone()).collect();
    diagnostics.sort();
    let resources = objects.values().map(|object| object.resource.clone()).collect();
    Catalog { resources, diagnostics, sequence }
}

fn file_text(objects: &BTreeMap<ResourceKey, Object>) -> String {
    let mut text = HEAD.to_string();
    for object in objects.values() {
        text.push_str("---\n");
        text.push_str(&object.document.clone().stamped(&object.stamp).to_yaml());
    }
    text
}

/// RFC 3339 in whole seconds, as Kubernetes has it.
fn timestamp(now: SystemTime) -> String {
    let now = jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{now:.0}")
}

#[cfg(test)]
mod tests;
