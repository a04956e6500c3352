//! The demo through its own front door: the commands that a user types.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use testkit::{programs, wait};

/// `fedctl` with contexts and demo data of this test's own.
struct Terminal {
    folder: tempfile::TempDir,
}

impl Terminal {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("fg-demo-").tempdir().unwrap();
        Self { folder }
    }

    fn fedctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(programs::path("fedctl"));
        command
            .env("FEDCTL_CONTEXTS", self.path().join("contexts.yaml"))
            .env("XDG_STATE_HOME", self.path());
        command.args(arguments).output().unwrap()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.fedctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Whatever the test left running; without a demo this fails, and nothing is lost.
        let _not_running = self.fedctl(&["demo", "down"]);
    }
}

#[test]
fn without_a_terminal_the_demo_tells_its_whole_story_and_ends() {
    let terminal = Terminal::new();
    let output = terminal.fedctl(&["demo", "up"]);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    for step in [
        "✓ east",
        "✓ west",
        "✓ south",
        "✓ north",
        "✓ east            init",
        "✓ west            join",
        "✓ store           Raft      voters",
        "✓ north           replica",
        "✓ east ⇄ west",
        "✓ HTTP",
        "✓ TCP",
        "Ready in",
        "✓ api fails over",
        "✓ outside client",
        "✓ west is back",
        "writes again after",
        "started again, and has what it missed",
        "✓ db is taken over",
        "has left; voters are",
        "Taken down.",
    ] {
        assert!(told.contains(step), "{step} is missing:\n{told}");
    }
    assert!(!told.contains('✗'), "{told}");
}

#[test]
fn a_detached_demo_answers_other_terminals() {
    let terminal = Terminal::new();
    let up = terminal.json(&["demo", "up", "--detach", "-o", "json"]);
    assert_eq!(up["kind"], "DemoStatus");
    let again = terminal.fedctl(&["demo", "up", "--detach"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));
    assert!(text(&again.stderr).contains("already runs"), "{}", text(&again.stderr));

    let status = terminal.json(&["demo", "status", "-o", "json"]);
    let names: Vec<&str> = status["clusters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["east", "north", "south", "west"]);
    for field in ["addresses", "tunnelAddress", "adminAddress", "dataDir"] {
        assert!(!status["clusters"][0][field].is_null(), "{field} is missing: {status}");
    }

    assert_eq!(terminal.json(&["status", "-o", "json"])["cluster"], "east");
    let services = terminal.json(&["--context", "demo-west", "services", "-o", "json"]);
    assert!(services["items"].as_array().unwrap().iter().any(|s| s["name"] == "api"), "{services}");
    let links = terminal.json(&["links", "-o", "json"]);
    let live = |link: &Value| link["state"] == "Up" && link["since"]["ageMs"].is_u64();
    assert!(links["items"].as_array().unwrap().iter().any(live), "{links}");
    let table = terminal.fedctl(&["clusters"]);
    assert!(text(&table.stdout).starts_with("CLUSTER"), "{}", text(&table.stdout));

    assert!(terminal.fedctl(&["demo", "cut", "west"]).status.success());
    cluster_becomes(&terminal, "Down");
    assert!(terminal.fedctl(&["demo", "heal", "west"]).status.success());
    cluster_becomes(&terminal, "Up");
    let nowhere = terminal.fedctl(&["demo", "cut", "nowhere"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("nowhere"), "{}", text(&nowhere.stderr));

    assert!(terminal.fedctl(&["demo", "down"]).status.success());
    let gone = terminal.fedctl(&["demo", "status"]);
    assert_eq!(gone.status.code(), Some(5), "{}", text(&gone.stderr));
    let no_context = terminal.fedctl(&["status"]);
    assert_eq!(no_context.status.code(), Some(2), "{}", text(&no_context.stderr));
}

/// West as east's node sees it. A cut is only noticed on a link that is in use, so east talks.
fn cluster_becomes(terminal: &Terminal, state: &str) {
    let demo = terminal.json(&["demo", "status", "-o", "json"]);
    let east = demo["clusters"].as_array().unwrap().iter().find(|c| c["name"] == "east").unwrap();
    let url = format!("http://{}/", east["addresses"]["http"].as_str().unwrap());
    wait::until(&format!("west to be {state}"), Duration::from_secs(20), || {
        let curl = Command::new("curl")
            .args(["-s", "-m", "2", "-H", "Host: web.demo.example", &url])
            .output()
            .unwrap();
        assert!(curl.status.success() || curl.status.code() == Some(28), "{}", curl.status);
        let clusters = terminal.json(&["clusters", "-o", "json"]);
        let west =
            clusters["items"].as_array().unwrap().iter().find(|c| c["name"] == "west").cloned();
        west.filter(|west| west["state"] == state)
    });
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
