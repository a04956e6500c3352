//! `fedctl bug-report`: what is in it, what is not, and that it also comes when nobody answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::fixture::{Node, Said};

/// What a careless program has written into its log.
const LOG: &str = "\
gateway gw-0 of east.example at 10.20.30.40:8443 serves shop/api
-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----
joined with fedgate1.QUJDREVGR0g
authorization: Bearer very-secret/token
";
const SECRETS: [&str; 4] = ["MIGHAgEAMBMG", "QUJDREVGR0g", "very-secret", "PRIVATE KEY"];

/// Everything in a report, each file behind its name.
fn unpacked(node: &Node, file: &str) -> String {
    let into = node.path("unpacked");
    let _ = fs::remove_dir_all(&into);
    fs::create_dir(&into).unwrap();
    let mut tar = Command::new("tar");
    assert!(tar.arg("-xzf").arg(node.path(file)).current_dir(&into).status().unwrap().success());
    let mut text = String::new();
    let mut folders = vec![into.clone()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            match path.is_dir() {
                true => folders.push(path),
                false => text += &shown(&into, &path),
            }
        }
    }
    text
}

fn shown(root: &Path, path: &Path) -> String {
    let name =
        path.strip_prefix(root).unwrap().components().skip(1).collect::<std::path::PathBuf>();
    format!("=== {}\n{}\n", name.display(), fs::read_to_string(path).unwrap())
}

fn report(node: &Node, arguments: &[&str]) -> Said {
    let said = node.fedctl(&[&["bug-report"][..], arguments].concat());
    assert_eq!(said.code, 0, "{said:?}");
    said
}

#[test]
fn a_report_has_what_the_node_knows_and_no_secret() {
    let node = Node::start();
    node.ok(&["init"]);
    let token = node.fedctl(&["token", "issue", "west", "--force"]).out;
    node.write("gateway.log", LOG);
    let said = report(&node, &["r.tar.gz", "--file", "gateway.log"]);
    assert_eq!(said.out, "r.tar.gz\n");
    assert_eq!(fs::metadata(node.path("r.tar.gz")).unwrap().permissions().mode() & 0o777, 0o600);
    let text = unpacked(&node, "r.tar.gz");
    for part in [
        "README.txt",
        "versions.txt",
        "status.json",
        "links.json",
        "diagnostics.json",
        "store.json",
        "certificates.json",
        "check.txt",
        "audit.json",
        "files/gateway.log",
    ] {
        assert!(text.contains(&format!("=== {part}\n")), "{part} is missing: {}", said.err);
    }
    assert!(text.contains("east.example") && text.contains("serves shop/api"), "names stay");
    for secret in SECRETS.into_iter().chain([token.trim()]) {
        assert!(!text.contains(secret), "{secret} is in the report");
    }
    // The node's own key is on disk beside all this.
    for file in ["data/ca/ca.key", "data/svid/svid.key"] {
        if let Ok(key) = fs::read_to_string(node.path(file)) {
            assert!(key.lines().filter(|line| line.len() > 40).all(|line| !text.contains(line)));
        }
    }
    let said = node.fedctl(&["bug-report", "r.tar.gz"]);
    assert_eq!(said.code, 2, "it overwrites nothing: {said:?}");
}

#[test]
fn names_and_addresses_are_replaced_by_the_same_word_everywhere() {
    let node = Node::start();
    node.write("gateway.log", LOG);
    report(&node, &["r.tar.gz", "--redact", "--file", "gateway.log"]);
    let text = unpacked(&node, "r.tar.gz");
    for hidden in ["east", "shop", "10.20.30.40"] {
        let place = text.find(hidden).map(|at| &text[at.saturating_sub(80)..at + 20]);
        assert_eq!(place, None, "{hidden}");
    }
    let log = text.split("=== files/").nth(1).unwrap();
    assert!(log.contains("cluster-1.example at ip-"), "{log}");
    assert!(text.contains("\"cluster\": \"cluster-1\""), "the same word in status.json");
}

#[test]
fn a_report_comes_also_when_no_node_answers() {
    let mut node = Node::start();
    node.stop();
    node.write("federation.log", LOG);
    let said = report(&node, &["r.tar.gz", "--file", "federation.log", "-o", "json"]);
    let view: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(view["kind"], "BugReport");
    assert!(view["missing"].to_string().contains("no federation node answers"), "{view}");
    let text = unpacked(&node, "r.tar.gz");
    assert!(text.contains("missing: status.json: error: no federation node answers"), "{text}");
    assert!(text.contains("=== files/federation.log"), "{text}");
}
