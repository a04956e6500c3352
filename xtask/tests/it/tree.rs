//! The tree obeys its own rules.

use xtask::repo::Repo;
use xtask::tidy::{self, Graph};

#[test]
fn the_tree_is_tidy() {
    let repo = Repo::here().unwrap();
    let graph = Graph::load(&repo.root).unwrap();
    let findings = tidy::check(&repo, &graph);
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} places to tidy:\n{}", lines.len(), lines.join("\n"));
}
