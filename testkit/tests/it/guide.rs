//! `docs/guide/two-sites.md`, run as it stands: its files are written, its commands executed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{Process, programs, wait};

const GUIDE: &str = include_str!("../../../docs/guide/two-sites.md");
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn every_command_of_the_guide_works() {
    let folder = tempfile::Builder::new().prefix("fg-guide-").tempdir().unwrap();
    let binaries = programs::path("fedctl").parent().unwrap().to_path_buf();
    let mut script = String::from("set -eu\ntrap 'kill $(jobs -p)' EXIT\n");
    script += &format!("export PATH={}:$PATH\n", binaries.display());
    for block in blocks(GUIDE) {
        match block {
            Block::File { name, text } => write(&folder.path().join(name), &text),
            // The programs are built already, and not in this folder.
            Block::Commands(text) if text.starts_with("make build") => {}
            Block::Commands(text) => script += &text,
        }
    }
    script += "echo the guide ends here\n";
    write(&folder.path().join("guide.sh"), &script);
    std::env::set_current_dir(folder.path()).unwrap();
    let mut guide =
        Process::start("the guide", "bash", &["guide.sh"], None, &folder.path().join("guide.log"))
            .unwrap();
    wait::until("the guide's last command", LIMIT, || (!guide.is_running()).then_some(()));
    let told = guide.output();
    assert!(told.contains("the guide ends here"), "{told}");
    // The page that the web server in west serves, the link and the service that fedctl shows.
    for sign in ["founded.", "Joined", "web.yaml", "quic fast", "shop/web"] {
        assert!(told.contains(sign), "{sign} is missing:\n{told}");
    }
}

enum Block {
    File { name: String, text: String },
    Commands(String),
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let text: String = lines
            .by_ref()
            .take_while(|line| *line != "```")
            .map(|line| format!("{line}\n"))
            .collect();
        match info.strip_prefix("yaml file=") {
            Some(name) => blocks.push(Block::File { name: name.into(), text }),
            None if info == "sh" => blocks.push(Block::Commands(text)),
            None => panic!("a block that is neither a file nor commands: {info}"),
        }
    }
    blocks
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn the_guide_needs_only_programs_that_setup_installs() {
    for program in ["bash", "curl", "python3"] {
        let found = Command::new(program).arg("--version").output();
        assert!(found.is_ok_and(|output| output.status.success()), "{program} is missing");
    }
}
