//! Conditions, and what is read of an object before one can be said.

use std::sync::Arc;

use api::kinds::status::Condition;
use api::kubernetes::ConditionStatus;
use jiff::Timestamp;
use model::{Diagnostic, Resource, Severity};
use serde_json::{Value, json};

use crate::kubernetes::without_place;

/// Findings that one message tells; it says how many more there are.
const FINDINGS_TOLD_MAX: usize = 3;

/// One condition as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) kind: &'static str,
    pub(super) status: ConditionStatus,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Said {
    pub(super) fn new(
        kind: &'static str,
        holds: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        Self { kind, status, reason, message: message.into() }
    }

    /// Neither yes nor no.
    pub(super) fn unknown(
        kind: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let status = ConditionStatus::Unknown;
        Self { kind, status, reason, message: message.into() }
    }
}

/// The list as it is to be written for `object`. `there`: the list as it was said last, of which a
/// condition whose status stays keeps its time.
pub(super) fn conditions(
    said: &[Said],
    object: &Value,
    there: Option<&Value>,
    now: Timestamp,
) -> Value {
    let before: Vec<Condition> =
        there.and_then(|there| serde_json::from_value(there.clone()).ok()).unwrap_or_default();
    let now = format!("{now:.0}");
    let written = said.iter().map(|Said { kind, status, reason, message }| {
        let condition = Condition::new(kind, *status, reason, message, generation(object), &now);
        json!(condition.keeping_time_of(&before))
    });
    written.collect()
}

/// A status of conditions alone.
pub(super) fn status(
    said: &[Said],
    object: &Value,
    there: Option<&Value>,
    now: Timestamp,
) -> Value {
    let there = there.and_then(|there| there.get("conditions"));
    json!({
        "observedGeneration": generation(object),
        "conditions": conditions(said, object, there, now),
    })
}

pub(super) fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(path).and_then(Value::as_str)
}

/// What people read of findings.
pub(super) fn listed<'a>(findings: impl IntoIterator<Item = &'a Diagnostic>) -> String {
    let mut texts = findings.into_iter().map(|finding| {
        let Diagnostic { code, field, message, fix, .. } = finding;
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        format!("{field}{}; {fix} ({code})", without_place(message))
    });
    let told = texts.by_ref().take(FINDINGS_TOLD_MAX).collect::<Vec<_>>().join(". ");
    match texts.count() {
        0 => told,
        1 => format!("{told}. And 1 more finding"),
        more => format!("{told}. And {more} more findings"),
    }
}

/// A user's object, and what it says.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) object: Arc<Value>,
    /// `None`: it is wrong, and the findings say why.
    pub(super) resource: Option<Resource>,
    pub(super) findings: Vec<Diagnostic>,
}

impl Object {
    pub(super) fn read(object: Value) -> Self {
        let manifest = api::parse_object("kubernetes", &object);
        let resource = manifest.objects.into_iter().next().map(|object| object.resource);
        Self { object: Arc::new(object), resource, findings: manifest.diagnostics }
    }

    pub(super) fn name(&self) -> &str {
        text(&self.object, "/metadata/name").unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        text(&self.object, "/metadata/namespace")
    }

    /// Why it is wrong. `is_held`: what it said before is in service nevertheless.
    pub(super) fn problem(&self, is_held: bool) -> Option<String> {
        if self.resource.is_some() {
            return None;
        }
        let errors = self.findings.iter().filter(|found| found.severity == Severity::Error);
        let told = listed(errors);
        Some(match is_held {
            true => format!("{told}. What it said before stays in service for now"),
            false => told,
        })
    }
}
