//! The rules that keep the tree readable and the crates apart. `cargo test -p xtask` runs them all.

mod crates;
mod docs;
mod graph;
mod license;
mod rust;
mod table;
mod text;

pub use docs::{Command, Manifest, commands, manifests};
pub use graph::{Dependency, Graph, Kind, Package};
pub use table::{BANNED, CRATES, CrateRule, DUPLICATES, LICENSES, WRAPPERS, Wrapper};

use crate::finding::Finding;
use crate::repo::Repo;

/// Applies every rule and returns what they found, sorted by place.
pub fn check(repo: &Repo, graph: &Graph) -> Vec<Finding> {
    let mut findings = text::check(repo);
    findings.extend(rust::check(repo));
    findings.extend(docs::check(repo));
    findings.extend(crates::check(repo, graph));
    findings.sort();
    findings
}
