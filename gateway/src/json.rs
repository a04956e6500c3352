//! One flat JSON object on one line, written field by field. Values are escaped so that no client
//! can end a line, add a field, or reach a terminal with control characters.

use std::fmt::{Display, Write};

use crate::limits::ACCESS_LOG_VALUE_CHARS_MAX;

/// A line in the making.
#[derive(Debug, Default)]
pub(crate) struct JsonLine(String);

impl JsonLine {
    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.0.push('"');
        for (count, character) in value.chars().enumerate() {
            if count == ACCESS_LOG_VALUE_CHARS_MAX {
                self.0.push('…');
                break;
            }
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    self.push(format_args!("\\u{:04x}", u32::from(c)));
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    pub(crate) fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        self.push(format_args!("{value}"));
    }

    pub(crate) fn boolean(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.0.push_str(if value { "true" } else { "false" });
    }

    pub(crate) fn optional_number(&mut self, name: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    /// Left out when there is none.
    pub(crate) fn optional(&mut self, name: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.text(name, &value.to_string());
        }
    }

    pub(crate) fn finish(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}\n" } else { "}\n" });
        self.0
    }

    fn name(&mut self, name: &'static str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.push(format_args!("\"{name}\":"));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(text); // a String takes everything
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_make_valid_json() {
        let mut line = JsonLine::default();
        line.text("a", "x\"y\\z\u{0}\u{7f}\u{9b}\u{2028}ä");
        line.number("b", 7);
        line.boolean("c", true);
        line.optional_number("d", None);
        line.optional("e", Some(1.5));
        let text = line.finish();
        assert_eq!(
            text,
            "{\"a\":\"x\\\"y\\\\z\\u0000\\u007f\\u009b\\u2028ä\",\"b\":7,\"c\":true,\"e\":\"1.5\"}\n"
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["a"], "x\"y\\z\u{0}\u{7f}\u{9b}\u{2028}ä");
        assert_eq!(JsonLine::default().finish(), "{}\n");
    }
}
