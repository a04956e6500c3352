//! Rules for the pages: links and named files exist, commands can be run, each crate is described.

use crate::finding::Finding;
use crate::markdown;
use crate::repo::Repo;

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// Endings of the file names that a code span may promise.
const FILE_ENDINGS: [&str; 8] = ["rs", "md", "toml", "sh", "yaml", "proto", "txt", "json"];

/// A command that a page tells the reader to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub path: String,
    pub line: usize,
    pub words: Vec<String>,
}

/// A YAML document with an `apiVersion` that a page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub path: String,
    /// Line of the block's first line.
    pub line: usize,
    pub text: String,
}

/// Every manifest in a fenced `yaml` block, for the parser of the kinds to judge.
pub fn manifests(repo: &Repo) -> Vec<Manifest> {
    let blocks = pages(repo).flat_map(|(path, text)| {
        markdown::fences(text).into_iter().map(move |fence| (path.to_owned(), fence))
    });
    let manifests = blocks.filter(|(_, fence)| {
        matches!(fence.language.as_str(), "yaml" | "yml")
            && fence.text.lines().any(|line| line.starts_with("apiVersion:"))
    });
    manifests.map(|(path, fence)| Manifest { path, line: fence.line, text: fence.text }).collect()
}

/// Every command in a fenced `sh` or `console` block and in a code span.
pub fn commands(repo: &Repo) -> Vec<Command> {
    let mut commands = Vec::new();
    for (path, text) in pages(repo) {
        let mut add = |line, text: &str| {
            for words in split_commands(text) {
                commands.push(Command { path: path.to_owned(), line, words });
            }
        };
        for fence in markdown::fences(text) {
            let prompt = match fence.language.as_str() {
                "console" => "$ ",
                "sh" | "bash" | "shell" => "",
                _ => continue,
            };
            for (line, text) in joined_lines(&fence.text) {
                if let Some(text) = text.strip_prefix(prompt) {
                    add(fence.line + line, text);
                }
            }
        }
        for span in markdown::code_spans(text) {
            if span.text.contains(' ') {
                add(span.line, &span.text);
            }
        }
    }
    commands
}

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in repo.texts(".md") {
        check_links(repo, path, text, &mut findings);
    }
    for (path, text) in pages(repo) {
        check_named_files(repo, path, text, &mut findings);
    }
    check_make_targets(repo, &mut findings);
    check_crate_rows(repo, &mut findings);
    findings
}

/// The pages that speak of the present. Design notes and the change log speak of other times.
fn pages(repo: &Repo) -> impl Iterator<Item = (&str, &str)> {
    repo.texts(".md")
        .filter(|(path, _)| !path.starts_with("docs/design/") && *path != "CHANGELOG.md")
}

fn check_links(repo: &Repo, path: &str, text: &str, findings: &mut Vec<Finding>) {
    for link in markdown::links(text) {
        if link.text.contains("://") || link.text.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = link.text.split_once('#').unwrap_or((&link.text, ""));
        let target = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
        if !repo.exists(&target) {
            let message = format!("the link names `{target}`, which does not exist");
            findings.push(Finding::new(path, link.line, "link", message));
        } else if !anchor.is_empty()
            && let Some(page) = repo.text(&target)
            && target.ends_with(".md")
            && !markdown::anchors(page).iter().any(|known| known == anchor)
        {
            let message = format!("`{target}` has no heading `#{anchor}`");
            findings.push(Finding::new(path, link.line, "link", message));
        }
    }
}

/// Code spans such as `gateway/src/http/mod.rs::handle_request` must name what is there.
fn check_named_files(repo: &Repo, path: &str, text: &str, findings: &mut Vec<Finding>) {
    for span in markdown::code_spans(text) {
        let (file, symbol) = span.text.split_once("::").unwrap_or((&span.text, ""));
        if !is_file_name(repo, file) {
            continue;
        }
        let symbol = symbol.rsplit("::").next().unwrap_or("").trim_end_matches("()");
        let problem = if !repo.exists(file) {
            format!("`{file}` does not exist")
        } else if !symbol.is_empty() && !repo.text(file).is_some_and(|text| text.contains(symbol)) {
            format!("`{file}` does not mention `{symbol}`")
        } else {
            continue;
        };
        findings.push(Finding::new(path, span.line, "named-file", problem));
    }
}

/// Whether a code span is a path below one of our top folders.
fn is_file_name(repo: &Repo, span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    let Some((top, rest)) = span.split_once('/') else { return false };
    let ending = rest.rsplit_once('.').map_or("", |(_, ending)| ending);
    span.chars().all(plain)
        && !span.contains("NNNN")
        && repo.exists(&format!("{top}/"))
        && !top.is_empty()
        && (rest.ends_with('/') || FILE_ENDINGS.contains(&ending))
}

fn check_make_targets(repo: &Repo, findings: &mut Vec<Finding>) {
    let makefile = repo.text("Makefile").unwrap_or("");
    let targets: Vec<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', ' ', '.', '#']))
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, rest)| !rest.starts_with('='))
        .flat_map(|(names, _)| names.split_whitespace())
        .collect();
    for command in commands(repo).iter().filter(|command| command.words[0] == "make") {
        let goals = command.words[1..]
            .iter()
            .filter(|word| !word.contains(['=', '-']) || targets.contains(&word.as_str()));
        for goal in goals.filter(|goal| !targets.contains(&goal.as_str())) {
            let message = format!("the Makefile has no target `{goal}`");
            findings.push(Finding::new(&command.path, command.line, "make-target", message));
        }
    }
}

/// ARCHITECTURE.md has a line for each crate that begins with the crate's name.
fn check_crate_rows(repo: &Repo, findings: &mut Vec<Finding>) {
    let Some(page) = repo.text(ARCHITECTURE) else { return };
    let first_words: Vec<&str> = page
        .lines()
        .filter_map(|line| {
            line.trim_start_matches(['|', ' ', '`', '-', '*']).split([' ', '`', '|']).next()
        })
        .map(|word| word.trim_end_matches('/'))
        .collect();
    for name in repo.crates() {
        if !first_words.contains(&name) {
            let message = format!("give the crate `{name}` a row that says what it is for");
            findings.push(Finding::new(ARCHITECTURE, 0, "crate-row", message));
        }
    }
}

/// Resolves a link against the folder of the page that it stands in.
fn resolve(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = match link.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => page.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect(),
    };
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Lines with their number from 0, those that end in a backslash joined with the next.
fn joined_lines(text: &str) -> Vec<(usize, String)> {
    let mut joined: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match joined.last_mut() {
            Some((_, last)) if open => last.push_str(part),
            _ => joined.push((index, part.to_owned())),
        }
        open = goes_on;
    }
    joined
}

/// The commands of one line, without comments, variable assignments and redirections.
fn split_commands(line: &str) -> Vec<Vec<String>> {
    let line = line.split(" #").next().unwrap_or("");
    if line.starts_with('#') {
        return Vec::new();
    }
    let separated = line.replace("&&", ";").replace("||", ";").replace(['|', '&'], ";");
    let commands = separated.split(';').map(|command| {
        let words = command.split_whitespace().take_while(|word| !word.starts_with(['>', '<']));
        let is_assignment = |word: &&str| word.contains('=') && !word.starts_with('-');
        let words = words.skip_while(|word| is_assignment(word) || *word == "sudo");
        words.map(|word| word.trim_matches(['\'', '"']).to_owned()).collect::<Vec<_>>()
    });
    commands.filter(|words| !words.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<(String, usize, &'static str)> {
        let mut findings = check(&Repo::sample(files));
        findings.sort();
        findings.into_iter().map(|f| (f.path, f.line, f.rule)).collect()
    }

    #[test]
    fn links_and_anchors_must_exist() {
        let page = "[ok](b.md) [ok](../README.md#the-top) [ok](#here) [ok](https://example.com/x)\n\
            ## Here\n[gone](c.md)\n[no heading](b.md#gone)\n";
        let findings =
            found(&[("docs/a.md", page), ("docs/b.md", "# B\n"), ("README.md", "# The top\n")]);
        assert_eq!(
            findings,
            [("docs/a.md".to_owned(), 3, "link"), ("docs/a.md".to_owned(), 4, "link"),]
        );
    }

    #[test]
    fn files_named_in_code_spans_must_exist() {
        let page = "`model/src/a.rs` `model/src/a.rs::compile()` `model/src/` `a/b.rs` `docs/design/NNNN-x.md`\n\
            `model/src/b.rs`\n`model/src/a.rs::gone`\n`model/src/*.rs`\n";
        let findings = found(&[("ARCH.md", page), ("model/src/a.rs", "fn compile() {}\n")]);
        assert_eq!(
            findings,
            [("ARCH.md".to_owned(), 2, "named-file"), ("ARCH.md".to_owned(), 3, "named-file"),]
        );
    }

    #[test]
    fn make_targets_must_exist() {
        let makefile = ("Makefile", "A := b\nhelp:\n\t@x: y\nsetup build: help\n.PHONY: gone\n");
        let page = "Run `make setup` or `make gone`.\n\n```sh\nV=1 make build setup J=2\n\
            # make comment\nmake all && cd x\n```\n```console\n$ make help\nmake: no target\n```\n";
        let findings = found(&[makefile, ("README.md", page)]);
        assert_eq!(
            findings,
            [
                ("README.md".to_owned(), 1, "make-target"),
                ("README.md".to_owned(), 6, "make-target"),
            ]
        );
    }

    #[test]
    fn each_crate_has_a_row() {
        let page = "| `model` | nouns |\nwire/   frames\nThe api crate\n";
        let crates =
            ["model/Cargo.toml", "wire/Cargo.toml", "api/Cargo.toml"].map(|path| (path, ""));
        let mut files = vec![("ARCHITECTURE.md", page)];
        files.extend(crates);
        assert_eq!(found(&files), [("ARCHITECTURE.md".to_owned(), 0, "crate-row")]);
    }

    #[test]
    fn commands_come_with_their_lines() {
        let page = "`fedctl status -o json`, `word`\n```sh\nfedctl a \\\n  b | jq .x > f\n\nFED=1 make c # why\n```\n";
        let repo = Repo::sample(&[("README.md", page), ("docs/design/0001-x.md", page)]);
        let commands: Vec<_> =
            commands(&repo).into_iter().map(|c| (c.line, c.words.join(" "))).collect();
        let expected =
            [(3, "fedctl a b"), (3, "jq .x"), (6, "make c"), (1, "fedctl status -o json")];
        assert_eq!(commands, expected.map(|(line, text)| (line, text.to_owned())));
    }

    #[test]
    fn manifests_are_found_by_their_api_version() {
        let page = "```yaml\napiVersion: v1\nkind: Service\n```\n```yaml\nkey: value\n```\n```\napiVersion: v1\n```\n";
        let manifests = manifests(&Repo::sample(&[("docs/guide/a.md", page)]));
        assert_eq!(manifests.len(), 1);
        assert_eq!(
            (manifests[0].line, manifests[0].text.as_str()),
            (2, "apiVersion: v1\nkind: Service\n")
        );
    }
}
