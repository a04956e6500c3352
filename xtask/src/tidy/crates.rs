//! Rules for the crates: direction of dependencies, homes of packages, bans, licences, manifests.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Graph, Kind};
use super::license;
use super::table::{BANNED, CRATES, DUPLICATES, WRAPPERS};
use crate::finding::Finding;
use crate::repo::Repo;

const LOCK: &str = "Cargo.lock";

pub(super) fn check(repo: &Repo, graph: &Graph) -> Vec<Finding> {
    let mut findings = check_direction(graph);
    findings.extend(check_wrappers(graph));
    findings.extend(check_packages(graph));
    findings.extend(check_versions(graph));
    findings.extend(check_manifests(repo));
    findings
}

/// Each crate uses only the crates that the table grants it.
fn check_direction(graph: &Graph) -> Vec<Finding> {
    let own: BTreeSet<&str> = graph.own().collect();
    let mut findings = Vec::new();
    for name in &own {
        let manifest = format!("{name}/Cargo.toml");
        let Some(rule) = CRATES.iter().find(|rule| rule.name == *name) else {
            let message = format!("give `{name}` a row in xtask/src/tidy/table.rs");
            findings.push(Finding::new(&manifest, 0, "crate-table", message));
            continue;
        };
        for edge in graph.dependencies.iter().filter(|edge| edge.from == *name) {
            let to = edge.to.as_str();
            let granted = rule.uses.contains(&to)
                || (edge.kind == Kind::Dev && (rule.tests_use.contains(&to) || to == *name));
            if own.contains(to) && !granted {
                let section = if edge.kind == Kind::Dev { "its tests" } else { "it" };
                let message =
                    format!("`{name}` uses `{to}`, which the table does not grant {section}");
                findings.push(Finding::new(&manifest, 0, "crate-direction", message));
            }
        }
    }
    findings
}

/// A package with a home is used from there only.
fn check_wrappers(graph: &Graph) -> Vec<Finding> {
    let own: BTreeSet<&str> = graph.own().collect();
    let mut findings = Vec::new();
    for edge in &graph.dependencies {
        let Some(rule) = WRAPPERS.iter().find(|rule| rule.package == edge.to) else { continue };
        let from = edge.from.as_str();
        if rule.ours.contains(&from) || rule.others.contains(&from) {
            continue;
        }
        let path = if own.contains(from) { format!("{from}/Cargo.toml") } else { LOCK.to_owned() };
        let message = format!(
            "`{from}` depends on `{}`, whose home is {}: {}",
            rule.package,
            rule.ours.join(", "),
            rule.reason
        );
        findings.push(Finding::new(&path, 0, "package-home", message));
    }
    findings
}

/// Bans, licences and sources.
fn check_packages(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &graph.packages {
        let name = &package.name;
        let mut say = |rule, message| findings.push(Finding::new(LOCK, 0, rule, message));
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| banned == name) {
            say("banned-package", format!("`{name}` is pulled in; {reason}"));
        }
        match &package.license {
            Some(license) if license::accepted(license) => {}
            Some(license) => {
                let message = format!("`{name}` comes under `{license}`, which is not accepted");
                say("license", message);
            }
            None => say("license", format!("`{name}` names no licence")),
        }
        if let Some(source) = &package.source
            && !source.starts_with("registry+")
        {
            say("source", format!("`{name}` comes from `{source}`; use a registry release"));
        }
    }
    findings
}

/// One version of each package, but for the known exceptions.
fn check_versions(graph: &Graph) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in &graph.packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let several = versions.into_iter().filter(|(name, versions)| {
        versions.len() > 1 && !DUPLICATES.iter().any(|(known, _)| known == name)
    });
    several
        .map(|(name, versions)| {
            let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!("`{name}` comes in versions {versions}; bring them together");
            Finding::new(LOCK, 0, "one-version", message)
        })
        .collect()
}

/// Its tests are a program of their own: `make sim` runs them alone, with as many seeds as one asks
/// for, and its modules stand in for the whole outside world, which those of tests/it/ use.
const SIMULATION: &str = "sim/main.rs";

/// Manifests take lints and versions from the workspace; a crate has one integration-test binary,
/// and beside it at most the simulation.
fn check_manifests(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in repo.crates() {
        let path = format!("{name}/Cargo.toml");
        let Some(text) = repo.text(&path) else { continue };
        if text.contains("[workspace]") {
            continue; // A workspace of its own, outside ours: fuzz/.
        }
        if !text.contains("[lints]\nworkspace = true") {
            let message = "take the lints from the workspace: `[lints] workspace = true`";
            findings.push(Finding::new(&path, 0, "workspace-lints", message));
        }
        findings.extend(check_versions_named_once(&path, text));
        let in_tests = format!("{name}/tests/");
        let binaries = repo.files.keys().filter_map(|file| file.strip_prefix(&in_tests));
        let binaries = binaries.filter(|file| {
            let is_binary = !file.contains('/') || file.ends_with("/main.rs");
            file.ends_with(".rs") && is_binary && *file != SIMULATION
        });
        if binaries.count() > 1 {
            let message = "one integration-test binary per crate: move the others into tests/it/";
            findings.push(Finding::new(&path, 0, "one-test-binary", message));
        }
    }
    findings
}

fn check_versions_named_once(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_dependencies = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            in_dependencies = line.trim_end().ends_with("dependencies]");
        } else if in_dependencies
            && line.contains('=')
            && !line.trim_start().starts_with('#')
            && !line.contains("workspace = true")
        {
            let message =
                "name the version once, in the workspace's Cargo.toml, and use it from there";
            findings.push(Finding::new(path, index + 1, "workspace-version", message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::graph::{Dependency, Package};
    use super::super::table::LICENSES;
    use super::*;

    fn package(name: &str, version: &str, source: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some("MIT".to_owned()),
            source: source.map(str::to_owned),
        }
    }

    fn graph(own: &[&str], edges: &[(&str, &str, Kind)]) -> Graph {
        let edges = edges.iter().map(|(from, to, kind)| Dependency {
            from: (*from).to_owned(),
            to: (*to).to_owned(),
            kind: *kind,
        });
        Graph {
            packages: own.iter().map(|name| package(name, "0.1.0", None)).collect(),
            dependencies: edges.collect(),
        }
    }

    fn messages(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn the_table_is_ordered_from_the_bottom_up() {
        for (index, rule) in CRATES.iter().enumerate() {
            let above: Vec<_> = CRATES[..index].iter().map(|rule| rule.name).collect();
            for used in rule.uses {
                assert!(above.contains(used), "{} uses {used}, which stands below it", rule.name);
            }
        }
    }

    #[test]
    fn a_dependency_against_the_direction_is_found() {
        let own = ["model", "gateway", "api", "testkit"];
        let granted = graph(
            &own,
            &[
                ("gateway", "model", Kind::Normal),
                ("gateway", "testkit", Kind::Dev),
                ("gateway", "tokio", Kind::Normal),
            ],
        );
        assert_eq!(check_direction(&granted), []);
        let refused = graph(
            &own,
            &[
                ("gateway", "api", Kind::Normal),
                ("model", "gateway", Kind::Dev),
                ("gateway", "testkit", Kind::Normal),
            ],
        );
        let line = |from, to, to_whom| {
            let words = format!("`{from}` uses `{to}`, which the table does not grant {to_whom}");
            format!("{from}/Cargo.toml:0: [crate-direction] {words}")
        };
        assert_eq!(
            messages(&check_direction(&refused)),
            [
                line("gateway", "api", "it"),
                line("gateway", "testkit", "it"),
                line("model", "gateway", "its tests"),
            ]
        );
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        let findings = check_direction(&graph(&["novelty"], &[]));
        assert_eq!(
            messages(&findings),
            ["novelty/Cargo.toml:0: [crate-table] give `novelty` a row in xtask/src/tidy/table.rs"]
        );
    }

    #[test]
    fn a_package_away_from_home_is_found() {
        let graph = graph(
            &["tunnel", "gateway"],
            &[
                ("tunnel", "quinn", Kind::Normal),
                ("gateway", "quinn", Kind::Dev),
                ("someone", "kube", Kind::Normal),
            ],
        );
        let findings = check_wrappers(&graph);
        let places: Vec<_> = findings.iter().map(|f| (f.path.as_str(), f.rule)).collect();
        assert_eq!(
            places,
            [("gateway/Cargo.toml", "package-home"), ("Cargo.lock", "package-home")]
        );
    }

    #[test]
    fn bans_licences_and_sources_bite() {
        let registry = Some("registry+index");
        let mut graph = graph(&["model"], &[]);
        graph.packages.push(package("ring", "0.17.0", registry));
        graph.packages.push(package("odd", "1.0.0", Some("git+somewhere")));
        graph.packages.push(Package { license: None, ..package("bare", "1.0.0", registry) });
        let copyleft = Some("GPL-3.0-only".to_owned());
        graph.packages.push(Package { license: copyleft, ..package("left", "1.0.0", registry) });
        let rules: Vec<_> = check_packages(&graph).into_iter().map(|f| f.rule).collect();
        assert_eq!(rules, ["banned-package", "source", "license", "license"]);
    }

    #[test]
    fn a_second_version_is_found_unless_it_is_known() {
        let mut graph = graph(&[], &[]);
        for (name, version) in
            [("rustls", "0.22.0"), ("rustls", "0.23.0"), ("syn", "2.0.0"), ("syn", "3.0.0")]
        {
            graph.packages.push(package(name, version, Some("registry+index")));
        }
        assert_eq!(
            messages(&check_versions(&graph)),
            [
                "Cargo.lock:0: [one-version] `rustls` comes in versions 0.22.0, 0.23.0; bring them together"
            ]
        );
    }

    #[test]
    fn manifests_lean_on_the_workspace() {
        let good = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n[dependencies]\nbytes.workspace = true\n";
        let bad = "[package]\nname = \"a\"\n[dev-dependencies]\n# why = x\nbytes = \"1\"\n";
        let repo = Repo::sample(&[
            ("a/Cargo.toml", good),
            ("a/tests/it/main.rs", ""),
            ("a/tests/it/more.rs", ""),
            ("a/tests/sim/main.rs", ""),
            ("b/Cargo.toml", bad),
            ("b/tests/it/main.rs", ""),
            ("b/tests/other.rs", ""),
            ("fuzz/Cargo.toml", "[package]\n[workspace]\n"),
        ]);
        let findings = check_manifests(&repo);
        let found: Vec<_> = findings.iter().map(|f| (f.path.as_str(), f.line, f.rule)).collect();
        assert_eq!(
            found,
            [
                ("b/Cargo.toml", 0, "workspace-lints"),
                ("b/Cargo.toml", 5, "workspace-version"),
                ("b/Cargo.toml", 0, "one-test-binary"),
            ]
        );
    }

    #[test]
    fn deny_toml_says_the_same() {
        let repo = Repo::here().unwrap();
        let deny = repo.text("deny.toml").expect("deny.toml is tracked");
        let lines: Vec<&str> = deny.lines().map(str::trim).collect();
        let mut rules = 0;
        let mut expect = |line: String| {
            rules += 1;
            assert!(lines.contains(&line.as_str()), "deny.toml lacks the line\n    {line}");
        };
        for wrapper in WRAPPERS {
            expect(wrapper.deny_line());
        }
        for (package, reason) in BANNED {
            expect(format!("{{ crate = \"{package}\", reason = \"{reason}\" }},"));
        }
        for (package, reason) in DUPLICATES {
            expect(format!("{{ crate = \"{package}\", reason = \"{reason}\" }},"));
        }
        for license in LICENSES {
            expect(format!("\"{license}\","));
        }
        let entries = lines.iter().filter(|line| line.starts_with(['{', '"'])).count();
        assert_eq!(entries, rules, "deny.toml has an entry that xtask/src/tidy/table.rs lacks");
    }
}
