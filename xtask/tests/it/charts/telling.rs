//! What the charts tell people: metrics in alerts and dashboards, codes, and values in guides.

use std::collections::BTreeSet;

use federation::health::CATALOG as NODE_CATALOG;
use gateway::metrics::CATALOG;
use serde_json::Value;
use xtask::markdown;
use xtask::repo::Repo;

use super::{SCHEMA, unknown_values};

const ALERTS: &str = "helm/fedgate/files/alerts.yaml";

#[test]
fn alerts_and_dashboards_ask_for_metrics_and_labels_that_there_are() {
    let repo = Repo::here().unwrap();
    let dashboards =
        repo.texts(".json").filter(|(path, _)| path.starts_with("helm/fedgate/dashboards/"));
    let mut pages: Vec<(&str, Vec<String>)> = dashboards
        .map(|(path, text)| {
            let board: Value = serde_json::from_str(text).unwrap();
            (path, queries(&board))
        })
        .collect();
    let alerts: Value = serde_saphyr::from_str(repo.text(ALERTS).unwrap()).unwrap();
    pages.push((ALERTS, queries(&alerts)));
    assert!(pages.len() >= 3);
    let mut asked = BTreeSet::new();
    for (path, queries) in pages {
        assert!(queries.len() > 3, "{path}: {queries:?}");
        for query in &queries {
            for word in words(query).filter(|word| is_ours(word)) {
                let name =
                    known(word).unwrap_or_else(|| panic!("{path}: no metric or label {word}"));
                asked.insert(name);
            }
        }
    }
    let of_nodes = NODE_CATALOG.iter().map(|entry| entry.name);
    let metrics = CATALOG.iter().map(|entry| entry.name).chain(of_nodes);
    let unseen: Vec<&str> =
        metrics.filter(|name| !asked.contains(name) && !name.contains("tcp_connection")).collect();
    assert!(unseen.is_empty(), "no dashboard and no alert shows {unseen:?}");
}

#[test]
fn alerts_name_codes_and_say_what_to_do() {
    let repo = Repo::here().unwrap();
    let codes = repo.text("docs/reference/codes.md").unwrap();
    let alerts: Value = serde_saphyr::from_str(repo.text(ALERTS).unwrap()).unwrap();
    let groups = alerts["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}");
        assert!(rule["for"].is_string() && rule["annotations"]["summary"].is_string(), "{name}");
        let description = rule["annotations"]["description"].as_str().unwrap();
        for code in words(description).filter(|word| word.starts_with("FED") && word.len() == 7) {
            assert!(codes.contains(&format!("### {code} ")), "{name}: {code}");
        }
    }
}

#[test]
fn values_in_guides_exist() {
    let repo = Repo::here().unwrap();
    let schema: Value = serde_json::from_str(repo.text(SCHEMA).unwrap()).unwrap();
    let page = repo.text("docs/guide/gitops.md").unwrap();
    let mut seen = 0;
    for fence in markdown::fences(page).iter().filter(|fence| fence.language == "yml") {
        let object: Value = serde_saphyr::from_str(&fence.text).unwrap();
        let values = match object["kind"].as_str() {
            Some("Application") => &object["spec"]["source"]["helm"]["valuesObject"],
            Some("HelmRelease") => &object["spec"]["values"],
            other => panic!("{other:?} has no values"),
        };
        assert!(values["cluster"]["name"].is_string(), "{values}");
        assert_eq!(unknown_values(&schema, values), [""; 0], "line {}", fence.line);
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn values_that_fedctl_chooses_and_presets_exist() {
    let repo = Repo::here().unwrap();
    let schema: Value = serde_json::from_str(repo.text(SCHEMA).unwrap()).unwrap();
    let mut seen = 0;
    for (path, text) in repo.texts(".yaml") {
        let chosen = path.starts_with("fedctl/testdata/install-");
        if chosen || path.starts_with("helm/fedgate/values-") {
            // The warnings of `fedctl install`, which go to standard error, stand there too: with a code.
            let lines: Vec<&str> = text.lines().filter(|line| !line.contains("(FED")).collect();
            let values: Value = serde_saphyr::from_str(&lines.join("\n")).unwrap();
            assert_eq!(unknown_values(&schema, &values), [""; 0], "{path}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

/// Everything under `expr` and `query`, at any depth.
fn queries(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, inner)| match inner {
                Value::String(text) if key == "expr" || key == "query" => vec![text.clone()],
                inner => queries(inner),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(queries).collect(),
        _ => Vec::new(),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn is_ours(word: &str) -> bool {
    ["fed_", "fedgate_", "http_"].iter().any(|prefix| word.starts_with(prefix))
}

/// The metric or the label that a word of a query is about.
fn known(word: &str) -> Option<&'static str> {
    let base = ["_bucket", "_count", "_sum"].iter().find_map(|ending| word.strip_suffix(ending));
    if let Some(entry) = NODE_CATALOG.iter().find(|entry| entry.name == word) {
        return Some(entry.name);
    }
    CATALOG.iter().find_map(|entry| {
        let is_histogram = entry.kind.as_str() == "histogram";
        let named = entry.name == word || (is_histogram && Some(entry.name) == base);
        let label = entry.labels.iter().find(|label| **label == word);
        named.then_some(entry.name).or_else(|| label.copied())
    })
}
