//! Rules for Rust files: sizes, names, doc lines, reasons for relaxed lints, and pure crates.

use std::collections::BTreeSet;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, File, Ident, Item, Meta};

use crate::finding::Finding;
use crate::repo::Repo;

/// Longest file, not counting tests.
const FILE_MAX_LINES: usize = 500;
/// Longest function outside tests, from its signature to its closing brace.
const FUNCTION_MAX_LINES: usize = 70;
/// Longest line.
const LINE_MAX_COLUMNS: usize = 120;

/// Words that say nothing about what a type is.
const EMPTY_WORDS: [&str; 6] = ["Manager", "Handler", "Util", "Utils", "Helper", "Helpers"];

/// Crates in which time and randomness are parameters.
const PURE_CRATES: [&str; 2] = ["model", "wire"];
const IMPURE_CALLS: [&str; 4] = ["Instant::now", "SystemTime::now", "rand::rng", "rand::random"];

pub(super) fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut parsed = Vec::new();
    for (path, text) in repo.texts(".rs") {
        match syn::parse_file(text) {
            Ok(ast) => parsed.push((path, text, ast)),
            Err(error) => {
                let line = error.span().start().line;
                findings.push(Finding::new(path, line, "syntax", error.to_string()));
            }
        }
    }
    let mut test_files = BTreeSet::new();
    for (path, _, ast) in &parsed {
        collect_test_modules(path, ast, &mut test_files);
    }
    for (path, text, ast) in &parsed {
        let is_test = is_test_path(path)
            || test_files.iter().any(|module: &String| {
                path.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with(['.', '/']))
            });
        check_file(path, text, ast, is_test, &mut findings);
    }
    findings
}

fn check_file(path: &str, text: &str, ast: &File, is_test: bool, findings: &mut Vec<Finding>) {
    if !text.starts_with("//!") {
        let message = "begin the file with a `//!` sentence that says what it is for";
        findings.push(Finding::new(path, 1, "file-doc", message));
    }
    for (index, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_MAX_COLUMNS {
            let message = format!("{columns} columns; at most {LINE_MAX_COLUMNS}");
            findings.push(Finding::new(path, index + 1, "line-length", message));
        }
    }
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    if EMPTY_WORDS.iter().any(|word| word.eq_ignore_ascii_case(stem)) {
        let message = format!("`{stem}` says nothing; name the file after what is in it");
        findings.push(Finding::new(path, 0, "empty-name", message));
    }
    let pure = PURE_CRATES.iter().any(|name| path.starts_with(&format!("{name}/src/")));
    let mut scan = Scan { path, pure, is_test, test_lines: 0, findings };
    scan.visit_file(ast);
    let lines = text.lines().count() - scan.test_lines;
    if !is_test && lines > FILE_MAX_LINES {
        let message =
            format!("{lines} lines without tests; at most {FILE_MAX_LINES}: split it by noun");
        findings.push(Finding::new(path, 0, "file-length", message));
    }
}

/// Walks one file.
struct Scan<'a> {
    path: &'a str,
    pure: bool,
    is_test: bool,
    /// Lines inside items that are compiled for tests only.
    test_lines: usize,
    findings: &'a mut Vec<Finding>,
}

impl Scan<'_> {
    fn say(&mut self, line: usize, rule: &'static str, message: String) {
        self.findings.push(Finding::new(self.path, line, rule, message));
    }

    fn check_name(&mut self, ident: &Ident) {
        let name = ident.to_string();
        if let Some(word) = camel_words(&name).into_iter().find(|word| EMPTY_WORDS.contains(word)) {
            let message = format!("`{name}`: `{word}` says nothing; name the thing it is");
            self.say(ident.span().start().line, "empty-name", message);
        }
    }

    fn check_length(
        &mut self,
        attrs: &[Attribute],
        signature: &syn::Signature,
        block: &syn::Block,
    ) {
        if self.is_test || attrs.iter().any(is_test_attribute) {
            return;
        }
        let start = signature.span().start().line;
        let lines = block.brace_token.span.close().end().line + 1 - start;
        if lines > FUNCTION_MAX_LINES {
            let name = &signature.ident;
            let message = format!("`{name}` has {lines} lines; at most {FUNCTION_MAX_LINES}");
            self.say(start, "function-length", message);
        }
    }
}

impl<'ast> Visit<'ast> for Scan<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let outer = self.is_test;
        if !outer && item_attributes(item).iter().any(is_test_attribute) {
            self.is_test = true;
            let span = item.span();
            self.test_lines += span.end().line + 1 - span.start().line;
        }
        visit::visit_item(self, item);
        self.is_test = outer;
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.check_length(&item.attrs, &item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check_length(&item.attrs, &item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.check_length(&item.attrs, &item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.check_name(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.check_name(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.check_name(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.check_name(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let Meta::List(list) = &attribute.meta else { return };
        let relaxes = list.path.is_ident("allow") || list.path.is_ident("expect");
        if relaxes && !list.tokens.to_string().contains("reason") {
            let message = "write `#[expect(lint, reason = \"...\")]` and say why".to_owned();
            self.say(attribute.span().start().line, "lint-reason", message);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if self.pure && !self.is_test {
            let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
            let tail = names[names.len().saturating_sub(2)..].join("::");
            if IMPURE_CALLS.contains(&tail.as_str()) {
                let message = format!("`{tail}` in a pure crate: take the value as a parameter");
                self.say(path.span().start().line, "pure", message);
            }
        }
        visit::visit_path(self, path);
    }
}

/// Notes the paths, without `.rs`, of modules that a `#[cfg(test)] mod name;` declares.
fn collect_test_modules(path: &str, ast: &File, modules: &mut BTreeSet<String>) {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let base = match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    };
    for item in &ast.items {
        if let Item::Mod(module) = item
            && module.content.is_none()
            && module.attrs.iter().any(is_test_attribute)
        {
            modules.insert(format!("{base}/{}", module.ident));
        }
    }
}

fn is_test_path(path: &str) -> bool {
    path.split('/').rev().skip(1).any(|folder| matches!(folder, "tests" | "benches" | "fuzz"))
}

/// `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, ...))]`.
fn is_test_attribute(attribute: &Attribute) -> bool {
    let last = attribute.path().segments.last().map(|part| part.ident.to_string());
    match (&attribute.meta, last.as_deref()) {
        (_, Some("test")) => true,
        (Meta::List(list), Some("cfg")) => {
            let condition: String = list.tokens.to_string().split_whitespace().collect();
            condition == "test" || condition.starts_with("all(test")
        }
        _ => false,
    }
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `EndpointManager` -> `Endpoint`, `Manager`.
fn camel_words(name: &str) -> Vec<&str> {
    let starts = name.char_indices().filter(|(_, c)| c.is_uppercase()).map(|(at, _)| at);
    let mut cuts: Vec<usize> = starts.collect();
    cuts.push(name.len());
    cuts.windows(2).map(|pair| &name[pair[0]..pair[1]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: &[(&str, &str)]) -> Vec<(String, usize, &'static str)> {
        check(&Repo::sample(files)).into_iter().map(|f| (f.path, f.line, f.rule)).collect()
    }

    fn rules_of(text: &str) -> Vec<(usize, &'static str)> {
        let found = rules(&[("gateway/src/a.rs", text)]);
        found.into_iter().map(|(_, line, rule)| (line, rule)).collect()
    }

    fn long_function(attribute: &str, lines: usize) -> String {
        format!("{attribute}\nfn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_begins_with_its_sentence() {
        assert_eq!(rules_of("fn f() {}\n"), [(1, "file-doc")]);
        assert_eq!(rules_of("//! What it is.\nfn f() {}\n"), []);
    }

    #[test]
    fn broken_syntax_is_reported_not_skipped() {
        assert_eq!(rules_of("//! A.\nfn f( {}\n")[0].1, "syntax");
    }

    #[test]
    fn a_line_has_at_most_120_columns() {
        let line = |columns: usize| format!("//! A.\n//{}\n", "é".repeat(columns - 2));
        assert_eq!(rules_of(&line(120)), []);
        assert_eq!(rules_of(&line(121)), [(2, "line-length")]);
    }

    #[test]
    fn a_function_has_at_most_70_lines() {
        let text = |lines| format!("//! A.{}", long_function("", lines));
        assert_eq!(rules_of(&text(70)), []);
        assert_eq!(rules_of(&text(71)), [(2, "function-length")]);
        let method = format!("//! A.\nimpl A {{\n{}}}\n", long_function("", 71));
        assert_eq!(rules_of(&method), [(4, "function-length")]);
        let default = format!("//! A.\ntrait A {{\n{}}}\n", long_function("", 71));
        assert_eq!(rules_of(&default), [(4, "function-length")]);
    }

    #[test]
    fn tests_may_be_longer() {
        let test = format!("//! A.{}", long_function("\n#[tokio::test]", 90));
        assert_eq!(rules_of(&test), []);
        let module = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{}}}\n", long_function("", 600));
        assert_eq!(rules_of(&module), []);
        let plain = format!("//! A.{}", long_function("", 90));
        assert_eq!(rules(&[("gateway/tests/it/a.rs", &plain)]), []);
        let parent = ("gateway/src/a.rs", "//! A.\n#[cfg(test)]\nmod cases;\n");
        assert_eq!(rules(&[parent, ("gateway/src/a/cases.rs", &plain)]), []);
        assert_eq!(rules(&[parent, ("gateway/src/a/cases/deep.rs", &plain)]), []);
        assert_eq!(rules(&[parent, ("gateway/src/a/cases_not.rs", &plain)]).len(), 1);
    }

    #[test]
    fn a_file_has_at_most_500_lines_without_tests() {
        let body = |lines: usize| format!("//! A.\n{}", "fn f() {}\n".repeat(lines - 1));
        assert_eq!(rules_of(&body(500)), []);
        assert_eq!(rules_of(&body(501)), [(0, "file-length")]);
        let tests = format!("\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(300));
        assert_eq!(rules_of(&format!("{}{tests}", body(499))), []);
        assert_eq!(rules_of(&format!("{}{tests}", body(500))), [(0, "file-length")]);
    }

    #[test]
    fn relaxed_lints_need_a_reason() {
        assert_eq!(rules_of("//! A.\n#[allow(dead_code)]\nfn f() {}\n"), [(2, "lint-reason")]);
        assert_eq!(rules_of("//! A.\n#![allow(dead_code)]\nfn f() {}\n"), [(2, "lint-reason")]);
        assert_eq!(rules_of("//! A.\nfn f() {\n    #[expect(x)]\n    let a = 1;\n}\n").len(), 1);
        assert_eq!(rules_of("//! A.\n#[expect(x, reason = \"y\")]\nfn f() {}\n"), []);
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        for kind in
            ["struct PeerManager;", "enum Helper {}", "trait RequestHandler {}", "type Utils = u8;"]
        {
            assert_eq!(rules_of(&format!("//! A.\n{kind}\n")), [(2, "empty-name")], "{kind}");
        }
        assert_eq!(rules_of("//! A.\nstruct Handle;\nstruct Management;\nfn helper() {}\n"), []);
        let file = rules(&[("model/src/utils.rs", "//! A.\n")]);
        assert_eq!(file, [("model/src/utils.rs".to_owned(), 0, "empty-name")]);
    }

    #[test]
    fn pure_crates_take_time_as_a_parameter() {
        let text = "//! A.\nfn f() { std::time::Instant::now(); }\n#[cfg(test)]\nmod tests {\n    \
            fn g() { Instant::now(); }\n}\n";
        assert_eq!(rules(&[("model/src/a.rs", text)]).len(), 1);
        assert_eq!(rules_of(text), []);
    }
}
