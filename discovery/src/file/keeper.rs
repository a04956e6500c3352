//! What is in service, given what the folder was found to say and when: pure.
//!
//! It keeps the last good objects of a file that cannot be read, keeps everything while the folder
//! cannot be read, and holds the removal of most objects at once (an unmounted volume looks like
//! that) for a confirm window.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::Manifest;
use model::{Diagnostic, ResourceKey, ResourceSet, Severity, code};

use super::folder::Scan;
use crate::catalog::Catalog;
use crate::limits;
use crate::translate;

/// The state between two readings of the folder.
#[derive(Debug)]
pub(super) struct Keeper {
    confirm_window: Duration,
    files: BTreeMap<String, KeptFile>,
    catalog: Catalog,
    published: bool,
    /// Since the folder was last known to hold something, it could not be read.
    after_error: bool,
    /// When a removal that is held now takes effect.
    confirm_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct KeptFile {
    /// What `manifest` or `problem` was made from.
    read: Option<Result<String, String>>,
    /// The last good one.
    manifest: Manifest,
    problem: Option<Diagnostic>,
}

impl Keeper {
    pub(super) fn new(confirm_window: Duration) -> Self {
        Self {
            confirm_window,
            files: BTreeMap::new(),
            catalog: Catalog::default(),
            published: false,
            after_error: false,
            confirm_at: None,
        }
    }

    /// Takes in a reading of the folder; returns the catalog if it changed (and the first time).
    pub(super) fn apply(&mut self, scan: Result<Scan, String>, now: Instant) -> Option<Catalog> {
        let folder_problem = match scan {
            Ok(scan) => {
                self.read_files(scan);
                None
            }
            Err(problem) => {
                self.after_error = true;
                // Nothing is confirmed by the passing of time while nobody can see the folder.
                self.confirm_at = self.confirm_at.map(|_| now + self.confirm_window);
                Some(folder_diagnostic(&problem))
            }
        };
        let manifests = self.files.iter().map(|(name, file)| (name.as_str(), &file.manifest));
        let (resources, mut diagnostics) = translate::merge(manifests);
        diagnostics.extend(self.files.values().filter_map(|file| file.problem.clone()));
        let wanted: ResourceSet = resources.into_iter().collect();
        let resources = match &folder_problem {
            Some(_) => self.catalog.resources.clone(),
            None => self.guard(wanted, now, &mut diagnostics),
        };
        diagnostics.extend(folder_problem);
        diagnostics.sort();
        self.publish(resources, diagnostics)
    }

    /// When [`Self::apply`] is next worth a call although nothing happened.
    pub(super) fn confirm_at(&self) -> Option<Instant> {
        self.confirm_at
    }

    fn read_files(&mut self, scan: Scan) {
        self.files.retain(|name, _| scan.contains_key(name));
        for (name, read) in scan {
            let file = self.files.entry(name.clone()).or_default();
            if file.read.as_ref() == Some(&read) {
                continue;
            }
            file.problem = match &read {
                Ok(text) => match api::parse_manifest(&name, text) {
                    Ok(manifest) => {
                        file.manifest = manifest;
                        None
                    }
                    Err(error) => {
                        let in_service = "what it said last";
                        Some(translate::syntax_diagnostic(&name, &error, in_service))
                    }
                },
                Err(problem) => Some(file_diagnostic(&name, problem)),
            };
            file.read = Some(read);
        }
    }

    /// What is in service: `wanted`, and what has vanished from it as long as that is held.
    fn guard(
        &mut self,
        wanted: ResourceSet,
        now: Instant,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> ResourceSet {
        let current = &self.catalog.resources;
        let vanished: Vec<ResourceKey> = current
            .iter()
            .filter(|(key, _)| wanted.get(key).is_none())
            .map(|(key, _)| key.clone())
            .collect();
        let most = vanished.len() * 2 > current.len();
        let mass = most && vanished.len() >= limits::MASS_DELETE_OBJECTS_MIN;
        let emptied = self.after_error && wanted.is_empty() && !vanished.is_empty();
        let confirm_at = *self.confirm_at.get_or_insert(now + self.confirm_window);
        if !(mass || emptied) || now >= confirm_at {
            self.confirm_at = None;
            self.after_error = false;
            return wanted;
        }
        let (count, of) = (vanished.len(), current.len());
        diagnostics.push(hold_diagnostic(count, of, self.confirm_window));
        let mut held = wanted;
        for key in vanished {
            if let Some(resource) = current.get(&key) {
                held.upsert((**resource).clone());
            }
        }
        held
    }

    fn publish(&mut self, resources: ResourceSet, diagnostics: Vec<Diagnostic>) -> Option<Catalog> {
        let same = self.catalog.resources == resources && self.catalog.diagnostics == diagnostics;
        if same && self.published {
            return None;
        }
        self.published = true;
        let sequence = self.catalog.sequence + 1;
        self.catalog = Catalog { resources, diagnostics, sequence };
        Some(self.catalog.clone())
    }
}

fn file_diagnostic(name: &str, problem: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: code::FILE_UNREADABLE,
        object: name.to_string(),
        field: String::new(),
        message: format!("the file cannot be read: {problem}; what it said last is in service"),
        fix: "mend the file, its link or its permissions".into(),
    }
}

fn folder_diagnostic(problem: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: code::FILE_UNREADABLE,
        object: "manifests".into(),
        field: String::new(),
        message: format!("the folder cannot be read: {problem}; what it said last is in service"),
        fix: "bring the folder back, or mend its permissions".into(),
    }
}

fn hold_diagnostic(vanished: usize, of: usize, window: Duration) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: code::MASS_DELETE_HELD,
        object: "manifests".into(),
        field: String::new(),
        message: format!(
            "{vanished} of {of} objects vanished at once; they stay in service for {} s",
            window.as_secs_f64()
        ),
        fix: "bring the files back; if the removal is meant, wait".into(),
    }
}
