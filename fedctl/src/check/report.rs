//! What checks found, in four forms: for people, for people in a hurry, for programs, for CI systems.

use std::fmt::Write;

use model::code::Code;
use serde::Serialize;

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// It works, or will, but somebody should look.
    Warn,
    Fail,
    /// It could not be looked at, because of another row.
    Skip,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub category: &'static str,
    /// What is so, as a statement.
    pub text: String,
    pub verdict: Verdict,
    pub code: Option<Code>,
    pub cause: Option<String>,
    pub fix: Option<String>,
}

impl Row {
    pub fn pass(category: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { category, text, verdict: Verdict::Pass, code: None, cause: None, fix: None }
    }

    pub fn warn(category: &'static str, text: impl Into<String>, code: Code) -> Self {
        Self { verdict: Verdict::Warn, code: Some(code), ..Self::pass(category, text) }
    }

    pub fn fail(category: &'static str, text: impl Into<String>, code: Code) -> Self {
        Self { verdict: Verdict::Fail, code: Some(code), ..Self::pass(category, text) }
    }

    pub fn skip(category: &'static str, text: impl Into<String>, why: impl Into<String>) -> Self {
        let cause = Some(why.into());
        Self { verdict: Verdict::Skip, cause, ..Self::pass(category, text) }
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// What to do: the row's own word, else the registry's.
    fn advice(&self) -> Option<String> {
        let known = self.code.map(|code| code.entry().fix.trim_end_matches('.').to_owned());
        self.fix.clone().or(known)
    }
}

/// All rows, in the order of their categories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportView {
    api_version: &'static str,
    kind: &'static str,
    success: bool,
    passed: usize,
    warnings: usize,
    failed: usize,
    skipped: usize,
    categories: Vec<CategoryView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CategoryView {
    category_name: &'static str,
    checks: Vec<CheckView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckView {
    description: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Report {
    /// Leaves only these categories; `Err` names the known ones.
    pub fn only(mut self, wanted: &[String]) -> Result<Self, String> {
        if wanted.is_empty() {
            return Ok(self);
        }
        let known = self.categories();
        if let Some(unknown) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("there is no category {unknown:?} here: {}", known.join(", ")));
        }
        self.rows.retain(|row| wanted.iter().any(|name| name == row.category));
        Ok(self)
    }

    fn categories(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.category) {
                names.push(row.category);
            }
        }
        names
    }

    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }

    /// For people: every row, under its category.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for category in self.categories() {
            let _ = writeln!(text, "{category}");
            for row in self.rows.iter().filter(|row| row.category == category) {
                row.write(&mut text);
            }
        }
        text + &self.result()
    }

    /// Only what somebody has to look at.
    pub fn short(&self) -> String {
        let mut text = String::new();
        let wrong = |row: &&Row| matches!(row.verdict, Verdict::Warn | Verdict::Fail);
        for row in self.rows.iter().filter(wrong) {
            row.write(&mut text);
        }
        text + &self.result()
    }

    fn result(&self) -> String {
        let count = |verdict, one: &str, several: &str| match self.count(verdict) {
            0 => String::new(),
            1 => format!(", 1 {one}"),
            count => format!(", {count} {several}"),
        };
        format!(
            "Result: {} passed{}{}{}",
            self.count(Verdict::Pass),
            count(Verdict::Warn, "warning", "warnings"),
            count(Verdict::Fail, "failed", "failed"),
            count(Verdict::Skip, "skipped", "skipped"),
        )
    }

    /// The shape that `linkerd check -o json` made common, with code and fix beside.
    pub fn view(&self) -> ReportView {
        let categories = self.categories().into_iter().map(|category_name| CategoryView {
            category_name,
            checks: self
                .rows
                .iter()
                .filter(|row| row.category == category_name)
                .map(|row| CheckView {
                    description: row.text.clone(),
                    result: match row.verdict {
                        Verdict::Pass => "success",
                        Verdict::Warn => "warning",
                        Verdict::Fail => "error",
                        Verdict::Skip => "skipped",
                    },
                    code: row.code.map(|code| code.to_string()),
                    error: row.cause.clone(),
                    fix: row.advice(),
                })
                .collect(),
        });
        ReportView {
            api_version: "fedgate.dev/v1alpha1",
            kind: "CheckReport",
            success: self.count(Verdict::Fail) == 0,
            passed: self.count(Verdict::Pass),
            warnings: self.count(Verdict::Warn),
            failed: self.count(Verdict::Fail),
            skipped: self.count(Verdict::Skip),
            categories: categories.collect(),
        }
    }

    /// A test case for each row; a warning passes, with its words as the case's output.
    pub fn junit(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let (tests, failures) = (self.rows.len(), self.count(Verdict::Fail));
        let _ = writeln!(
            text,
            "<testsuites name=\"fedctl check\" tests=\"{tests}\" failures=\"{failures}\">"
        );
        for category in self.categories() {
            let rows = || self.rows.iter().filter(|row| row.category == category);
            let failed = rows().filter(|row| row.verdict == Verdict::Fail).count();
            let skipped = rows().filter(|row| row.verdict == Verdict::Skip).count();
            let _ = writeln!(
                text,
                "  <testsuite name=\"{category}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\">",
                rows().count()
            );
            for row in rows() {
                row.write_case(&mut text);
            }
            text += "  </testsuite>\n";
        }
        text + "</testsuites>"
    }
}

impl Row {
    fn write(&self, text: &mut String) {
        let sign = match self.verdict {
            Verdict::Pass => '✓',
            Verdict::Warn => '!',
            Verdict::Fail => '✗',
            Verdict::Skip => '-',
        };
        let _ = write!(text, " {sign} {}", self.text);
        if let Some(code) = self.code {
            let _ = write!(text, "  {code}");
        }
        text.push('\n');
        if let Some(cause) = &self.cause {
            let _ = writeln!(text, "     {cause}");
        }
        if let Some(fix) = self.advice() {
            let _ = writeln!(text, "     fix: {fix}");
        }
    }

    fn write_case(&self, text: &mut String) {
        let (name, class) = (escaped(&self.text), self.category);
        let _ = write!(text, "    <testcase classname=\"{class}\" name=\"{name}\"");
        let mut told: Vec<String> = self.cause.iter().cloned().collect();
        told.extend(self.advice().map(|fix| format!("fix: {fix}")));
        let told = escaped(&told.join("\n"));
        let code = self.code.map_or_else(String::new, |code| code.to_string());
        let _ = match self.verdict {
            Verdict::Pass => writeln!(text, "/>"),
            Verdict::Warn => {
                writeln!(text, "><system-out>warning {code}\n{told}</system-out></testcase>")
            }
            Verdict::Fail => {
                writeln!(
                    text,
                    "><failure type=\"{code}\" message=\"{name}\">{told}</failure></testcase>"
                )
            }
            Verdict::Skip => writeln!(text, "><skipped message=\"{told}\"/></testcase>"),
        };
    }
}

/// XML 1.0 has no place for control characters, and five characters mean something.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&apos;",
            '\n' => escaped.push('\n'),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    fn report() -> Report {
        let rows = vec![
            Row::pass("kubernetes", "Kubernetes v1.36.3"),
            Row::warn("kubernetes", "the clock is 7 s ahead", model::code::CLOCK_SKEW)
                .cause("here 12:00:07, there 12:00:00"),
            Row::fail("tunnels", "west & \"south\" <are> down", model::code::TUNNEL_DOWN)
                .cause("timed out")
                .fix("open UDP 8443"),
            Row::skip("certificates", "certificates are valid", "the node does not answer"),
        ];
        Report { rows }
    }

    #[test]
    fn a_report_is_as_golden_in_each_form() {
        let report = report();
        golden::check("check.txt", &report.table());
        golden::check("check-short.txt", &report.short());
        golden::check("check.json", &serde_json::to_string_pretty(&report.view()).unwrap());
        golden::check("check.junit.xml", &report.junit());
    }

    #[test]
    fn a_category_can_be_had_alone() {
        let only = report().only(&["tunnels".into()]).unwrap();
        assert_eq!(only.rows.len(), 1);
        let error = report().only(&["tunnel".into()]).unwrap_err();
        assert_eq!(
            error,
            "there is no category \"tunnel\" here: kubernetes, tunnels, certificates"
        );
    }
}
