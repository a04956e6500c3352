//! Rules for every text file: no stray blanks, no unfinished work, nothing of one person's machine.

use crate::finding::Finding;
use crate::repo::Repo;

/// A tracked file may not be larger than this.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Marks of unfinished work. Split, so that this file does not break its own rule.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
];

/// Folders of one machine, not of the project.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in &repo.files {
        if file.size_bytes > FILE_MAX_BYTES {
            let message = format!(
                "{} bytes; a tracked file has at most {FILE_MAX_BYTES}: generate it instead",
                file.size_bytes
            );
            findings.push(Finding::new(path, 0, "file-size", message));
        }
        if let Some(text) = &file.text {
            check_text(path, text, &mut findings);
        }
    }
    findings
}

fn check_text(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if !text.is_empty() && !text.ends_with('\n') {
        let last = text.lines().count();
        findings.push(Finding::new(path, last, "final-newline", "end the file with a newline"));
    }
    for (index, line) in text.split('\n').enumerate() {
        let mut say = |rule, message: String| {
            findings.push(Finding::new(path, index + 1, rule, message));
        };
        if line.ends_with([' ', '\t', '\r']) {
            say("trailing-space", "remove the blanks at the end of the line".to_owned());
        }
        for mark in UNFINISHED.iter().filter(|mark| has_word(line, mark)) {
            say("unfinished", format!("`{mark}`: finish it, or leave it out"));
        }
        for machine_path in MACHINE_PATHS.iter().filter(|dir| has_word(line, dir)) {
            say(
                "machine-path",
                format!("`{machine_path}` is a folder of one machine; use a relative path"),
            );
        }
    }
}

/// Whether `line` has `word` with no letter, digit, `.`, `-` or `_` right before or after it.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    let open_end = word.ends_with(['/', '(']);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(inside)
            && (open_end || !after.is_some_and(|c| c.is_alphanumeric() || c == '_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::SourceFile;

    fn rules(text: &str) -> Vec<(usize, &'static str)> {
        let mut findings = Vec::new();
        check_text("a.md", text, &mut findings);
        findings.into_iter().map(|finding| (finding.line, finding.rule)).collect()
    }

    #[test]
    fn each_rule_bites_on_its_line() {
        let [later, wrong, marked, todo, missing] = UNFINISHED;
        let [work, root] = MACHINE_PATHS;
        let blank = "trailing-space";
        for (text, expected) in [
            ("fine\n".to_owned(), vec![]),
            (String::new(), vec![]),
            ("a \nb\t\nc\r\n".to_owned(), vec![(1, blank), (2, blank), (3, blank)]),
            ("a\nb".to_owned(), vec![(2, "final-newline")]),
            (format!("// {later}: sort\n"), vec![(1, "unfinished")]),
            (format!("a {wrong}\n({marked})\n"), vec![(1, "unfinished"), (2, "unfinished")]),
            (format!("{todo})\n {missing}\"x\")\n"), vec![(1, "unfinished"), (2, "unfinished")]),
            (format!("cat {work}main/x\n"), vec![(1, "machine-path")]),
            (format!("`{root}.cargo`\n"), vec![(1, "machine-path")]),
        ] {
            assert_eq!(rules(&text), expected, "{text:?}");
        }
    }

    #[test]
    fn look_alikes_are_left_alone() {
        let [later, _, marked, todo, _] = UNFINISHED;
        let [work, _] = MACHINE_PATHS;
        for text in [
            format!("src{work}mod.rs\n"),
            format!("{marked}X\n"),
            format!("{later}S_MAX\n"),
            format!("au{todo}x)\n"),
            "/workers/\n".to_owned(),
        ] {
            assert_eq!(rules(&text), [], "{text:?}");
        }
    }

    #[test]
    fn a_large_file_is_reported_even_if_it_is_binary() {
        let mut repo = Repo::sample(&[("small", "x\n")]);
        repo.files
            .insert("big".to_owned(), SourceFile { size_bytes: FILE_MAX_BYTES + 1, text: None });
        let findings = check(&repo);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].path.as_str(), findings[0].rule), ("big", "file-size"));
    }
}
