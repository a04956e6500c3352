//! `fedctl explain`: a failure code's meaning, cause and fix, offline.

use model::code::{CODES, Code, CodeEntry};
use serde::Serialize;

use crate::error::CommandError;
use crate::printer::{Printer, table};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CodeList {
    api_version: &'static str,
    kind: &'static str,
    codes: Vec<CodeView>,
}

#[derive(Serialize)]
struct CodeView {
    code: String,
    name: &'static str,
    summary: &'static str,
    cause: &'static str,
    fix: &'static str,
}

pub(super) fn run(code: Option<&str>, printer: &Printer) -> Result<(), CommandError> {
    let entries: Vec<&CodeEntry> = match code {
        None => CODES.iter().collect(),
        Some(text) => vec![find(text)?.entry()],
    };
    let list = CodeList {
        api_version: "fedgate.dev/v1alpha1",
        kind: "CodeList",
        codes: entries.into_iter().map(view).collect(),
    };
    printer.result(&list, |list| match (code, &list.codes[..]) {
        (Some(_), [one]) => page(one),
        (_, all) => table(
            &["CODE", "NAME", "MEANING"],
            all.iter()
                .map(|entry| vec![entry.code.clone(), entry.name.into(), entry.summary.into()]),
        ),
    })
}

fn find(text: &str) -> Result<Code, CommandError> {
    Code::parse(text).ok_or_else(|| {
        CommandError::usage(format!("there is no code {text:?}"))
            .hint("`fedctl explain` without a code lists them all")
    })
}

fn view(entry: &CodeEntry) -> CodeView {
    let CodeEntry { code, name, summary, cause, fix } = *entry;
    CodeView { code: code.to_string(), name, summary, cause, fix }
}

fn page(entry: &CodeView) -> String {
    let CodeView { code, name, summary, cause, fix } = entry;
    format!("{code} {name}\n\n{summary}\n\nWhy:  {cause}\nFix:  {fix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_is_a_usage_error_with_a_hint() {
        let error = find("FED0000").unwrap_err().to_string();
        assert!(error.contains("FED0000") && error.contains("fedctl explain"), "{error}");
    }

    #[test]
    fn a_page_has_meaning_cause_and_fix() {
        let text = page(&view(model::code::TUNNEL_DOWN.entry()));
        assert!(text.starts_with("FED2001 TunnelDown\n") && text.contains("\nFix:  "), "{text}");
    }
}
