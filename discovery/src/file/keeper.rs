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
use crate::guard::{Guard, Verdict};
use crate::translate;

/// The state between two readings of the folder.
#[derive(Debug)]
pub(super) struct Keeper {
    confirm_window: Duration,
    guard: Guard,
    files: BTreeMap<String, KeptFile>,
    catalog: Catalog,
    published: bool,
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
            // A folder is read as a whole: there are no single removals to be counted together.
            guard: Guard::new(confirm_window, Duration::ZERO),
            files: BTreeMap::new(),
            catalog: Catalog::default(),
            published: false,
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
                self.guard.cannot_see(now);
                Some(folder_diagnostic(&problem))
            }
        };
        let manifests = self.files.iter().map(|(name, file)| (name.as_str(), &file.manifest));
        let (resources, mut diagnostics) = translate::merge(manifests);
        diagnostics.extend(self.files.values().filter_map(|file| file.problem.clone()));
        let wanted: ResourceSet = resources.into_iter().collect();
        let resources = match &folder_problem {
            Some(_) => self.catalog.resources.clone(),
            None => self.hold(wanted, now, &mut diagnostics),
        };
        diagnostics.extend(folder_problem);
        diagnostics.sort();
        self.publish(resources, diagnostics)
    }

    /// When [`Self::apply`] is next worth a call although nothing happened.
    pub(super) fn confirm_at(&self) -> Option<Instant> {
        self.guard.confirm_at()
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
    fn hold(
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
        let verdict = self.guard.judge(vanished.len(), current.len(), wanted.len(), now);
        if verdict == Verdict::Remove {
            return wanted;
        }
        let (count, of) = (vanished.len(), current.len());
        diagnostics.push(hold_diagnostic(count, of, self.confirm_window));
        let mut held = wanted;
        for key in vanished {
            if let Some(resource) = current.get(&key) {
                held.upsert(resource.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn exports(range: std::ops::Range<usize>) -> String {
        range
            .map(|number| {
                format!(
                    "---\napiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\n\
                     metadata: {{name: x{number}}}\n"
                )
            })
            .collect()
    }

    /// A keeper and its clock.
    struct Bench {
        keeper: Keeper,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { keeper: Keeper::new(WINDOW), now: Instant::now() }
        }

        /// Time passes, and the folder is read.
        fn read(&mut self, after: Duration, files: &[(&str, String)]) -> String {
            let scan = files.iter().map(|(name, text)| (name.to_string(), Ok(text.clone())));
            self.apply(after, Ok(scan.collect()))
        }

        /// `objects codes`, and whether that was published.
        fn apply(&mut self, after: Duration, scan: Result<Scan, String>) -> String {
            self.now += after;
            let published = self.keeper.apply(scan, self.now).is_some();
            let catalog = &self.keeper.catalog;
            let mut shape = catalog.resources.len().to_string();
            for found in &catalog.diagnostics {
                shape += &format!(" {}", found.code);
            }
            shape + if published { "" } else { " (same)" }
        }
    }

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn a_reading_is_published_when_it_differs() {
        let mut bench = Bench::new();
        assert_eq!(bench.read(AT_ONCE, &[]), "0", "the first one always");
        assert_eq!(bench.read(AT_ONCE, &[]), "0 (same)");
        assert_eq!(bench.read(AT_ONCE, &[("a", exports(0..3))]), "3");
        assert_eq!(bench.read(AT_ONCE, &[("a", format!("# new\n{}", exports(0..3)))]), "3 (same)");
        assert_eq!(bench.read(AT_ONCE, &[("a", exports(0..2))]), "2", "few go at once");
        assert_eq!(bench.read(AT_ONCE, &[]), "0", "few go at once, even if they are all");
        assert_eq!(bench.keeper.confirm_at(), None);
        assert_eq!(bench.keeper.catalog.sequence, 4);
    }

    #[test]
    fn a_mass_delete_is_held_until_the_window_ends() {
        let mut bench = Bench::new();
        bench.read(AT_ONCE, &[("a", exports(0..19))]);
        assert_eq!(bench.read(AT_ONCE, &[("a", exports(0..10))]), "10", "9 are not ten");
        bench.read(AT_ONCE, &[("a", exports(0..20))]);
        assert_eq!(bench.read(AT_ONCE, &[("a", exports(0..10))]), "10", "half is not over half");
        bench.read(AT_ONCE, &[("a", exports(0..20))]);
        assert_eq!(bench.read(AT_ONCE, &[("a", exports(0..9))]), "20 FED4009");
        assert_eq!(bench.keeper.confirm_at(), Some(bench.now + WINDOW));
        let almost = WINDOW - Duration::from_millis(1);
        assert_eq!(bench.read(almost, &[("a", exports(0..9))]), "20 FED4009 (same)");
        assert_eq!(bench.read(Duration::from_millis(1), &[("a", exports(0..9))]), "9");
        assert_eq!(bench.keeper.confirm_at(), None);
    }

    #[test]
    fn additions_pass_while_a_removal_is_held_and_its_end_forgets_it() {
        let mut bench = Bench::new();
        bench.read(AT_ONCE, &[("a", exports(0..20))]);
        assert_eq!(bench.read(AT_ONCE, &[("b", exports(30..31))]), "21 FED4009");
        assert_eq!(bench.read(WINDOW / 2, &[("a", exports(0..20)), ("b", exports(30..31))]), "21");
        assert_eq!(bench.keeper.confirm_at(), None);
        // A new removal has a window of its own.
        assert_eq!(bench.read(WINDOW / 2, &[("b", exports(30..31))]), "21 FED4009");
        assert_eq!(bench.read(WINDOW / 2, &[("b", exports(30..31))]), "21 FED4009 (same)");
        assert_eq!(bench.read(WINDOW / 2, &[("b", exports(30..31))]), "1");
    }

    #[test]
    fn a_folder_that_cannot_be_read_removes_nothing_ever() {
        let mut bench = Bench::new();
        bench.read(AT_ONCE, &[("a", exports(0..20))]);
        assert_eq!(bench.apply(AT_ONCE, Err("gone".into())), "20 FED4010");
        assert_eq!(bench.apply(WINDOW * 10, Err("gone".into())), "20 FED4010 (same)");
        assert_eq!(bench.keeper.confirm_at(), None, "nothing to wake up for");
        assert_eq!(bench.read(AT_ONCE, &[("a", exports(0..20))]), "20");
        // A hold that an error interrupts begins anew, so that the thread does not spin either.
        bench.read(AT_ONCE, &[]);
        bench.apply(WINDOW * 2, Err("gone".into()));
        assert_eq!(bench.keeper.confirm_at(), Some(bench.now + WINDOW));
        assert_eq!(bench.read(AT_ONCE, &[]), "20 FED4009");
        assert_eq!(bench.read(WINDOW, &[]), "0");
    }

    #[test]
    fn an_empty_folder_after_an_error_is_held_however_few_objects_it_had() {
        let mut bench = Bench::new();
        bench.read(AT_ONCE, &[("a", exports(0..2))]);
        bench.apply(AT_ONCE, Err("gone".into()));
        assert_eq!(bench.read(AT_ONCE, &[]), "2 FED4009");
        assert_eq!(bench.read(WINDOW / 2, &[]), "2 FED4009 (same)");
        assert_eq!(bench.read(WINDOW / 2, &[]), "0");
        // One that returns with something is believed.
        bench.read(AT_ONCE, &[("a", exports(0..2))]);
        bench.apply(AT_ONCE, Err("gone".into()));
        assert_eq!(bench.read(AT_ONCE, &[("a", exports(0..1))]), "1");
        assert_eq!(bench.read(AT_ONCE, &[]), "0", "the error is long over");
    }

    #[test]
    fn a_file_keeps_its_last_good_objects_while_it_cannot_be_read() {
        let mut bench = Bench::new();
        bench.read(AT_ONCE, &[("a", exports(0..2)), ("b", exports(5..6))]);
        assert_eq!(bench.read(AT_ONCE, &[("a", "[".into()), ("b", exports(5..6))]), "3 FED4010");
        let scan = Scan::from([("a".into(), Err("denied".into())), ("b".into(), Ok("".into()))]);
        assert_eq!(bench.apply(AT_ONCE, Ok(scan)), "2 FED4010");
        assert_eq!(bench.read(AT_ONCE, &[("a", exports(0..1))]), "1");
        assert_eq!(bench.read(AT_ONCE, &[("a", "[".into())]), "1 FED4010");
        assert_eq!(bench.read(AT_ONCE, &[]), "0");
    }
}
