//! The catalogue of failures promises nothing without a proof that exists.

use std::collections::BTreeSet;

use xtask::markdown;
use xtask::repo::Repo;

const PAGE: &str = "docs/reference/failure-modes.md";
const SUITES: &str = "kind-e2e/src/suites/mod.rs";

#[test]
fn each_failure_mode_has_a_number_and_tests_that_exist() {
    let repo = Repo::here().unwrap();
    let problems = problems(&repo, repo.text(PAGE).unwrap());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_missing_test_and_a_number_that_is_there_twice_would_be_found() {
    let repo = Repo::here().unwrap();
    let row =
        |number: &str, proof: &str| format!("| {number} | it | FED1001 | all | soon | {proof} |\n");
    let real = "`testkit::herd::gateways_come_back_spread_out_and_soon`, `suite failover`";
    assert_eq!(problems(&repo, &row("1", real)), Vec::<String>::new());
    for wrong in [
        row("1", real) + &row("1", real),
        row("one", real),
        row("1", "a test"),
        row("1", "`testkit::herd::gateways_come_back`"),
        row("1", "`testkit::fleet::gateways_come_back_spread_out_and_soon`"),
        row("1", "`testkit::herd::size`"),
        row("1", "`suite fail`"),
        row("1", real).replace("FED1001", "FED9999"),
        row("1", real).replace("all", " "),
    ] {
        assert_eq!(problems(&repo, &wrong).len(), 1, "{wrong}");
    }
}

/// What is wrong with the page's rows: those that begin with a number, or with what should be one.
fn problems(repo: &Repo, page: &str) -> Vec<String> {
    let mut numbers = BTreeSet::new();
    let mut problems = Vec::new();
    for (line, text) in markdown::prose(page) {
        let Some(row) = text.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else {
            continue;
        };
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        if cells[0] == "#" {
            continue;
        }
        let mut wrong = |problem: String| problems.push(format!("{PAGE}:{line}: {problem}"));
        if cells[0].parse::<u32>().is_err() || !numbers.insert(cells[0].to_owned()) {
            wrong(format!("{:?} is no number, or not its only row", cells[0]));
        }
        if cells.len() != 6 || cells.iter().any(|cell| cell.is_empty()) {
            wrong(format!("it has {} columns, or an empty one, of 6", cells.len()));
        }
        for code in unknown_codes(repo, row) {
            wrong(format!("{code} is in no registry"));
        }
        let proofs: Vec<String> = markdown::code_spans(cells[cells.len() - 1])
            .into_iter()
            .map(|spot| spot.text)
            .collect();
        if proofs.is_empty() {
            wrong("it names no test".into());
        }
        for proof in proofs.iter().filter(|proof| !exists(repo, proof)) {
            wrong(format!("there is no test {proof}"));
        }
    }
    problems
}

fn unknown_codes(repo: &Repo, row: &str) -> Vec<String> {
    let known = repo.text("docs/reference/codes.md").expect("the page is there");
    let words = row.split(|c: char| !c.is_ascii_alphanumeric());
    let codes = words.filter(|word| word.len() == 7 && word.starts_with("FED"));
    codes.filter(|code| !known.contains(&format!("### {code} "))).map(str::to_owned).collect()
}

/// `crate::file::function`, a test of a crate, or `suite NAME`. A unit test's file begins with `src`.
fn exists(repo: &Repo, proof: &str) -> bool {
    if let Some(suite) = proof.strip_prefix("suite ") {
        return repo
            .text(SUITES)
            .expect("the table is there")
            .contains(&format!("name: \"{suite}\""));
    }
    let parts: Vec<&str> = proof.split("::").collect();
    let [crate_name, file @ .., function] = &parts[..] else { return false };
    let file = file.join("/");
    let places = match file.as_str() {
        "sim" => [format!("{crate_name}/tests/sim/main.rs"), String::new()],
        unit if unit.starts_with("src/") => {
            [format!("{crate_name}/{unit}.rs"), format!("{crate_name}/{unit}/tests.rs")]
        }
        _ => [format!("{crate_name}/tests/it/{file}.rs"), String::new()],
    };
    places.iter().filter_map(|place| repo.text(place)).any(|text| is_test(text, function))
}

/// A function of this name below a line with a test's attribute.
fn is_test(text: &str, function: &str) -> bool {
    let begins = |line: &str| {
        let line = line.trim_start().trim_start_matches("async ");
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(function))
            .is_some_and(|rest| rest.starts_with('('))
    };
    let lines: Vec<&str> = text.lines().collect();
    let place = lines.iter().position(|line| begins(line));
    place.is_some_and(|place| {
        let above = lines[..place]
            .iter()
            .rev()
            .take_while(|line| line.trim_start().starts_with(['#', '/']));
        above.into_iter().any(|line| line.contains("test"))
    })
}
