//! `fedctl diagnostics`: what was found wrong with the objects, and how to mend it.

use model::code::Code;
use serde::Serialize;
use wire::resource::proto::Severity;

use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::Printer;
use crate::view::List;

#[derive(Serialize)]
struct DiagnosticView {
    source: String,
    severity: &'static str,
    code: String,
    object: String,
    field: String,
    message: String,
    fix: String,
}

pub(super) async fn run(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let answer = node.diagnostics().await?;
    let views = answer.diagnostics.into_iter().filter_map(|row| {
        let diagnostic = row.diagnostic?;
        let severity = match diagnostic.severity() {
            Severity::Error => "error",
            Severity::Warning | Severity::Unspecified => "warning",
        };
        let code = Code::parse(&diagnostic.code.to_string());
        Some(DiagnosticView {
            source: row.source,
            severity,
            code: code.map_or_else(|| diagnostic.code.to_string(), |code| code.to_string()),
            object: diagnostic.object,
            field: diagnostic.field,
            message: diagnostic.message,
            fix: diagnostic.fix,
        })
    });
    let list = List::new("DiagnosticList", answer.note, views.collect());
    printer.result(&list, |list| {
        if list.items.is_empty() && list.note.is_empty() {
            return "Nothing was found wrong.".into();
        }
        let mut text: Vec<String> = list.items.iter().map(line).collect();
        text.push(list.note.clone());
        text.join("\n")
    })
}

fn line(row: &DiagnosticView) -> String {
    let DiagnosticView { source, severity, code, object, field, message, fix } = row;
    let field = if field.is_empty() { String::new() } else { format!(" {field}") };
    format!("{severity} {code} {object}{field}: {message}\n    fix: {fix}   [{source}]")
}
