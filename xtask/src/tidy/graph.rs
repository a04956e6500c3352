//! The dependency graph as cargo resolves it, reduced to what the rules ask about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The rules are judged on one platform, so that every machine sees the same graph.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Packages that are really built, and who depends on whom.
#[derive(Debug, Default)]
pub struct Graph {
    pub packages: Vec<Package>,
    pub dependencies: Vec<Dependency>,
}

/// One package at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// SPDX expression from the manifest.
    pub license: Option<String>,
    /// Where it comes from; `None` for a crate of this workspace.
    pub source: Option<String>,
}

/// A direct dependency, by package names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    pub from: String,
    pub to: String,
    pub kind: Kind,
}

/// Which section of the manifest a dependency stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Build,
    Dev,
}

impl Graph {
    /// Asks cargo for the graph of the workspace at `root`.
    pub fn load(root: &Path) -> Result<Self> {
        let metadata = cargo(
            root,
            &["metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM],
        )?;
        let metadata = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
        // `metadata` also lists packages that only a disabled feature would pull in; `tree` does not.
        let built = cargo(
            root,
            &[
                "tree",
                "--workspace",
                "--locked",
                "--target",
                PLATFORM,
                "--edges",
                "normal,build,dev",
                "--prefix",
                "none",
                "--format",
                "{p}",
            ],
        )?;
        let built = built.lines().filter_map(|line| {
            let (name, version) = line.split_once(" v")?;
            Some((name.to_owned(), version.split(' ').next()?.to_owned()))
        });
        Self::parse(&metadata, &built.collect())
    }

    fn parse(metadata: &Value, built: &BTreeSet<(String, String)>) -> Result<Self> {
        let mut graph = Self::default();
        let mut names = BTreeMap::new();
        for package in array(metadata, "/packages")? {
            let text = |key: &str| package[key].as_str().map(str::to_owned);
            let name = text("name").context("a package has no name")?;
            let version = text("version").context("a package has no version")?;
            names.insert(text("id").context("a package has no id")?, name.clone());
            if built.contains(&(name.clone(), version.clone())) {
                let (license, source) = (text("license"), text("source"));
                graph.packages.push(Package { name, version, license, source });
            }
        }
        for node in array(metadata, "/resolve/nodes")? {
            let from = node["id"].as_str().and_then(|id| names.get(id)).context("unknown node")?;
            for edge in array(node, "/deps")? {
                let to = edge["pkg"].as_str().and_then(|id| names.get(id));
                let to = to.context("a dependency names an unknown package")?;
                for kind in array(edge, "/dep_kinds")? {
                    let kind = match kind["kind"].as_str() {
                        None => Kind::Normal,
                        Some("build") => Kind::Build,
                        Some("dev") => Kind::Dev,
                        Some(other) => bail!("cargo reports an unknown dependency kind `{other}`"),
                    };
                    graph.dependencies.push(Dependency {
                        from: from.clone(),
                        to: to.clone(),
                        kind,
                    });
                }
            }
        }
        Ok(graph)
    }

    /// Names of the workspace's own crates.
    pub fn own(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().filter(|package| package.source.is_none()).map(|p| p.name.as_str())
    }
}

fn array<'a>(value: &'a Value, pointer: &str) -> Result<&'a Vec<Value>> {
    let found = value.pointer(pointer).and_then(Value::as_array);
    found.with_context(|| format!("cargo's answer has no list at {pointer}"))
}

fn cargo(root: &Path, args: &[&str]) -> Result<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(args).current_dir(root).output();
    let output = output.context("cannot run cargo")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("cargo {} failed: {}", args[0], stderr.trim());
    }
    String::from_utf8(output.stdout).context("cargo's answer is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_built_packages_count_and_each_kind_is_told_apart() {
        let metadata = serde_json::json!({
            "packages": [
                {"name": "gateway", "version": "0.1.0", "id": "g", "license": "Apache-2.0", "source": null},
                {"name": "quinn", "version": "0.11.12", "id": "q", "license": "MIT", "source": "registry"},
                {"name": "ring", "version": "0.17.0", "id": "r", "license": null, "source": "registry"},
            ],
            "resolve": {"nodes": [
                {"id": "g", "deps": [
                    {"pkg": "q", "dep_kinds": [{"kind": null}, {"kind": "dev"}, {"kind": "build"}]},
                ]},
                {"id": "q", "deps": []},
            ]},
        });
        let built = [("gateway", "0.1.0"), ("quinn", "0.11.12")];
        let built = built.map(|(name, version)| (name.to_owned(), version.to_owned())).into();
        let graph = Graph::parse(&metadata, &built).unwrap();
        assert_eq!(graph.own().collect::<Vec<_>>(), ["gateway"]);
        assert_eq!(graph.packages.len(), 2);
        let kinds: Vec<_> = graph.dependencies.iter().map(|edge| edge.kind).collect();
        assert_eq!(kinds, [Kind::Normal, Kind::Dev, Kind::Build]);
    }

    #[test]
    fn an_answer_without_the_expected_list_is_an_error() {
        let error =
            Graph::parse(&serde_json::json!({"packages": []}), &BTreeSet::new()).unwrap_err();
        assert_eq!(error.to_string(), "cargo's answer has no list at /resolve/nodes");
    }
}
