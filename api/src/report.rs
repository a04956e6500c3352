//! What is found about one object while it is read, and what that costs the object.

use std::fmt;

use model::{Diagnostic, Severity, code};
use serde::Deserialize;

use crate::kinds::gateway_class::GatewayClasses;
use crate::read::{self, Unserved};
use crate::tree::{Node, Value, shorten};

/// What to do about a field that a kind's serde type does not have (see the crate's documentation).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Treatment {
    /// Every such object carries it, and it does not matter here.
    Silent,
    /// A Warning; the text says what goes on without it.
    Warn(&'static str),
    /// An Error; the smallest part that holds the field is left out. The text is the fix.
    Refuse(&'static str),
}

/// Path without indices (`spec.rules[].filters`), or with a final `*` for all that begins so.
/// The first fit decides; a field that none fits is warned of.
pub(crate) type FieldRules = &'static [(&'static str, Treatment)];

/// What the fields `status` and the like of every kind get.
pub(crate) const COMMON_FIELDS: FieldRules = &[
    ("apiVersion", Treatment::Silent),
    ("kind", Treatment::Silent),
    ("metadata", Treatment::Silent), // read apart, see `metadata`
    ("status", Treatment::Silent),
    ("status.*", Treatment::Silent),
];

/// Where an object comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a str,
    /// Whose Gateways are ours there.
    pub(crate) classes: &'a GatewayClasses,
}

impl Place<'_> {
    /// `file:line`, or the name alone of what stands in no text.
    fn at(self, line: u64) -> String {
        if line == 0 { self.file.to_string() } else { format!("{}:{line}", self.file) }
    }
}

/// Collects diagnostics about one object. Field paths are as [`crate::read`] writes them.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    place: Place<'a>,
    node: &'a Node,
    object: String,
    /// Parts of which one can be left out alone: `spec.rules[]`.
    parts: &'static [&'static str],
    diagnostics: Vec<Diagnostic>,
    failed: bool,
    left_out: Vec<String>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(place: Place<'a>, node: &'a Node) -> Self {
        Self {
            place,
            node,
            object: place.at(node.line),
            parts: &[],
            diagnostics: Vec::new(),
            failed: false,
            left_out: Vec::new(),
        }
    }

    /// From now on diagnostics name the object by its key.
    pub(crate) fn identify(&mut self, object: String, parts: &'static [&'static str]) {
        self.object = object;
        self.parts = parts;
    }

    /// A wrong value: the object is left out of service.
    pub(crate) fn invalid(&mut self, field: &str, message: impl fmt::Display, fix: &str) {
        self.failed = true;
        self.push(Severity::Error, code::OBJECT_INVALID, field, &message.to_string(), fix);
    }

    /// Something that is not served and not harmless: the part that holds it is left out.
    pub(crate) fn refuse(&mut self, field: &str, message: impl fmt::Display, fix: &str) {
        match self.part_of(field) {
            Some(part) => {
                let message = format!("{message}, so {part} is not in service");
                self.push(Severity::Error, code::FIELD_NOT_SERVED, field, &message, fix);
                self.left_out.push(part);
            }
            None => {
                let message = format!("{message}, so the object is not in service");
                self.push(Severity::Error, code::FIELD_NOT_SERVED, field, &message, fix);
                self.failed = true;
            }
        }
    }

    /// Something that is not served and harmless.
    pub(crate) fn warn(&mut self, field: &str, message: impl fmt::Display, fix: &str) {
        let message = message.to_string();
        self.push(Severity::Warning, code::FIELD_NOT_SERVED, field, &message, fix);
    }

    pub(crate) fn kind_not_served(&mut self, field: &str, message: impl fmt::Display, fix: &str) {
        let message = message.to_string();
        self.push(Severity::Warning, code::KIND_NOT_SERVED, field, &message, fix);
    }

    /// Reads the object as a `T`, and judges by `rules` what `T` does not have.
    pub(crate) fn read<T: Deserialize<'a>>(&mut self, rules: FieldRules) -> Option<T> {
        match read::read::<T>(self.node) {
            Ok((value, unserved)) => {
                unserved.iter().for_each(|field| self.judge(field, rules));
                Some(value)
            }
            Err(error) => {
                self.invalid(&error.path, error.message(), &error.fix());
                None
            }
        }
    }

    /// Parses a name or an id with its own type.
    pub(crate) fn parse<T, E: fmt::Display>(
        &mut self,
        field: &str,
        value: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        fix: &str,
    ) -> Option<T> {
        parse(value).map_err(|error| self.invalid(field, error, fix)).ok()
    }

    pub(crate) fn port(&mut self, field: &str, value: i64) -> Option<u16> {
        let port = u16::try_from(value).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.invalid(field, format!("{value} is no port"), "use a number from 1 to 65535");
        }
        port
    }

    /// Whether a list has at most `max` entries; else the object is left out.
    pub(crate) fn bounded(&mut self, field: &str, length: usize, max: usize) -> bool {
        if length > max {
            let message = format!("the list has {length} entries, at most {max} are served");
            self.invalid(field, message, "split the object");
        }
        length <= max
    }

    /// Whether the part (`spec.rules[2]`) was left out by [`Self::refuse`].
    pub(crate) fn is_left_out(&self, part: &str) -> bool {
        self.left_out.iter().any(|other| other == part)
    }

    pub(crate) fn is_our_class(&self, name: &str) -> bool {
        self.place.classes.contains(name)
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }

    fn judge(&mut self, unserved: &Unserved<'_>, rules: FieldRules) {
        if matches!(&unserved.node.value, Value::List(items) if items.is_empty()) {
            return; // an empty list asks for nothing
        }
        let pattern = without_indices(&unserved.path);
        let rule = COMMON_FIELDS.iter().chain(rules).find(|(rule, _)| fits(rule, &pattern));
        match rule.map(|(_, treatment)| *treatment) {
            Some(Treatment::Silent) => {}
            Some(Treatment::Warn(text)) => {
                self.warn(&unserved.path, format!("the field is not served: {text}"), REMOVE);
            }
            Some(Treatment::Refuse(fix)) => {
                self.refuse(&unserved.path, "the field is not served or is misspelt", fix);
            }
            None => self.warn(&unserved.path, "the field is not served or is misspelt", REMOVE),
        }
    }

    fn part_of(&self, field: &str) -> Option<String> {
        let end_of_part = |part: &&str| {
            let prefix = part.strip_suffix("[]")?;
            let rest = field.strip_prefix(prefix)?.strip_prefix('[')?;
            Some(prefix.len() + 1 + rest.find(']')? + 1)
        };
        self.parts.iter().find_map(end_of_part).map(|end| field[..end].to_string())
    }

    fn push(
        &mut self,
        severity: Severity,
        code: code::Code,
        field: &str,
        message: &str,
        fix: &str,
    ) {
        let place = self.place.at(self.node.nearest(field).line);
        self.diagnostics.push(Diagnostic {
            severity,
            code,
            object: self.object.clone(),
            field: field.to_string(),
            message: format!("{message} ({place})"),
            fix: fix.to_string(),
        });
    }
}

const REMOVE: &str = "remove it, or live without it";

/// Names in quotes may hold brackets, but no rule speaks of fields below such a name.
fn without_indices(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    let mut in_index = false;
    for c in path.chars() {
        match c {
            ']' => in_index = false,
            _ if in_index => continue,
            '[' => in_index = true,
            _ => {}
        }
        pattern.push(c);
    }
    pattern
}

fn fits(rule: &str, pattern: &str) -> bool {
    rule.strip_suffix('*').map_or(rule == pattern, |prefix| pattern.starts_with(prefix))
}

/// `value` in quotes, cut to what a message can bear.
pub(crate) fn quoted(value: &str) -> String {
    format!("{:?}", shorten(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_no_indices_and_a_star_covers_what_follows() {
        assert_eq!(
            without_indices("spec.rules[12].matches[0].path"),
            "spec.rules[].matches[].path"
        );
        assert_eq!(without_indices("metadata[\"a.b\"]"), "metadata[]");
        assert!(fits("spec.rules[].*", "spec.rules[].filters"));
        assert!(!fits("spec.rules[]", "spec.rules[].filters"));
        assert!(!fits("status", "statuses"));
    }

    #[test]
    fn a_refused_field_costs_its_part_only() {
        let documents = crate::tree::parse_documents("spec: {rules: [{a: 1},\n {b: 2}]}").unwrap();
        let classes = GatewayClasses::default();
        let mut report = Report::new(Place { file: "f.yaml", classes: &classes }, &documents[0]);
        report.identify("HTTPRoute/x/y".into(), &["spec.rules[]"]);
        report.refuse("spec.rules[1].b", "the field is not served", "remove it");
        assert!(report.is_left_out("spec.rules[1]") && !report.is_left_out("spec.rules[0]"));
        assert!(!report.failed());
        report.refuse("spec.other", "the field is not served", "remove it");
        assert!(report.failed());
        assert_eq!(
            report.into_diagnostics()[0].to_string(),
            "error FED4002 HTTPRoute/x/y spec.rules[1].b: the field is not served, \
             so spec.rules[1] is not in service (f.yaml:2); remove it"
        );
    }
}
