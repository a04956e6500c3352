//! Conditions of a status (`metav1.Condition`).

use api::kubernetes::ConditionStatus;
use jiff::Timestamp;
use model::Diagnostic;
use serde_json::{Value, json};

use crate::kubernetes::without_place;

/// Findings that one message tells; it says how many more there are.
const FINDINGS_TOLD_MAX: usize = 3;

/// One condition as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    kind: &'static str,
    status: ConditionStatus,
    reason: &'static str,
    message: String,
}

impl Condition {
    pub(super) fn new(
        kind: &'static str,
        holds: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let status = if holds { ConditionStatus::True } else { ConditionStatus::False };
        Self { kind, status, reason, message: message.into() }
    }
}

/// The list as it is to be written. `there`: the list as it was. A condition whose status stays keeps
/// the time at which it came to it (API conventions, "Typical status properties").
pub(super) fn list(
    conditions: &[Condition],
    there: Option<&Value>,
    generation: i64,
    now: Timestamp,
) -> Value {
    let there = there.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let written = conditions.iter().map(|condition| {
        let Condition { kind, status, reason, message } = condition;
        let same = |old: &&Value| old["type"] == *kind && old["status"] == status.as_str();
        let since = there.iter().find(same).and_then(|old| old["lastTransitionTime"].as_str());
        let since = since.map_or_else(|| format!("{now:.0}"), str::to_string);
        json!({
            "type": kind,
            "status": status.as_str(),
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": since,
        })
    });
    written.collect()
}

/// What people read of findings about an object as it was written.
pub(super) fn message<'a>(findings: impl IntoIterator<Item = &'a Diagnostic>) -> String {
    listed(findings.into_iter().map(|finding| {
        let Diagnostic { code, field, message, fix, .. } = finding;
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        let message = without_place(message);
        format!("{field}{message}; {fix} ({code})")
    }))
}

/// What people read of findings of `compile`: its fields count what was read, not what was written.
pub(super) fn of_compile<'a>(findings: impl IntoIterator<Item = &'a Diagnostic>) -> String {
    listed(findings.into_iter().map(|finding| {
        let Diagnostic { code, message, fix, .. } = finding;
        format!("{message}; {fix} ({code})")
    }))
}

fn listed(mut texts: impl Iterator<Item = String>) -> String {
    let told = texts.by_ref().take(FINDINGS_TOLD_MAX).collect::<Vec<_>>().join(". ");
    match texts.count() {
        0 => told,
        1 => format!("{told}. And 1 more finding"),
        more => format!("{told}. And {more} more findings"),
    }
}
