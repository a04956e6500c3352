//! The generated pages are current. `make docs` runs these tests with `UPDATE=1`, which writes them.

use federation::health;
use gateway::metrics;
use xtask::reference::{self, Metric};
use xtask::repo::Repo;

#[test]
fn codes_and_limits_are_current() {
    let repo = Repo::here().unwrap();
    for page in reference::pages(&repo).unwrap() {
        page.settle(&repo.root).unwrap();
    }
}

#[test]
fn the_custom_resource_definitions_are_current() {
    let repo = Repo::here().unwrap();
    for page in reference::definition_pages() {
        page.settle(&repo.root).unwrap();
    }
}

#[test]
fn the_command_line_is_current() {
    let page = reference::cli_page(fedctl::cli::command());
    page.settle(&Repo::here().unwrap().root).unwrap();
}

#[test]
fn the_metrics_are_current() {
    let of_gateways = metrics::CATALOG.iter().map(|entry| Metric {
        name: entry.name,
        kind: entry.kind.as_str(),
        labels: entry.labels,
        help: entry.help,
    });
    let of_nodes = health::CATALOG.iter().map(|entry| {
        let (name, labels, help) = (entry.name, entry.labels, entry.help);
        Metric { name, kind: "gauge", labels, help }
    });
    reference::metrics_page(of_gateways, of_nodes).settle(&Repo::here().unwrap().root).unwrap();
}
