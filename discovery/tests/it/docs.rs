//! What the documentation shows as YAML is what the parser takes.

use std::fs;
use std::path::{Path, PathBuf};

use model::{Diagnostic, code};

/// Bootstrap configuration is no resource: the crates that read it test it.
const CONFIG_KINDS: [&str; 2] = ["\"FederationConfig\"", "\"GatewayConfig\""];

#[test]
fn every_manifest_in_the_documentation_is_in_service() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages: Vec<PathBuf> = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    collect_pages(&root.join("docs"), &mut pages);
    let (mut blocks, mut wrong) = (0, Vec::new());
    for page in pages.iter().filter(|page| page.exists()) {
        let shown = page.strip_prefix(root).unwrap().display().to_string();
        for (line, text) in yaml_blocks(&fs::read_to_string(page).unwrap()) {
            blocks += 1;
            let name = format!("{shown} block at {line}, its line");
            let (_, diagnostics) = discovery::translate(&[(&name, &text)]);
            wrong.extend(diagnostics.into_iter().filter(|found| !is_config(found)));
        }
    }
    let wrong: Vec<_> = wrong.iter().map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(blocks > 5, "only {blocks} YAML blocks found: are they fenced with ```yaml?");
}

fn is_config(found: &Diagnostic) -> bool {
    let config = |kind: &&str| found.message.starts_with(&format!("kind {kind}"));
    let for_kubernetes = found.message.contains("does nothing outside of Kubernetes");
    found.code == code::KIND_NOT_SERVED && (for_kubernetes || CONFIG_KINDS.iter().any(config))
}

fn collect_pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect_pages(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

/// Fenced blocks marked `yaml` that have an `apiVersion` at the left edge, with their first line.
fn yaml_blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        // What follows the language, such as the file's name, is no matter here.
        if line.split_whitespace().next() != Some("```yaml") {
            continue;
        }
        let text: String = lines
            .by_ref()
            .take_while(|(_, line)| line.trim() != "```")
            .map(|(_, line)| format!("{}\n", line.get(indent..).unwrap_or_default()))
            .collect();
        if text.lines().any(|line| line.starts_with("apiVersion:")) {
            blocks.push((number + 2, text));
        }
    }
    blocks
}
