//! Conditions of an object's status (`metav1.Condition`).

use std::collections::BTreeMap;

use api::kubernetes::ConditionStatus;
use jiff::Timestamp;
use model::ServiceName;
use serde_json::{Value, json};

use crate::kubernetes::kinds::Kind;
use crate::limits::CONDITION_MESSAGE_MAX;

/// One condition as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) status: ConditionStatus,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Since when conditions have the status that they have, as it was said last. What the cache has may
/// be older than what was written, and would make a condition begin anew each time.
#[derive(Debug, Default)]
pub(super) struct Transitions {
    before: BTreeMap<Subject, (ConditionStatus, String)>,
    said: BTreeMap<Subject, (ConditionStatus, String)>,
}

/// Kind, object and type of the condition.
type Subject = (&'static str, ServiceName, &'static str);

impl Transitions {
    /// Between this and [`Self::end`] everything is said; what is not is forgotten.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.said);
    }

    pub(super) fn end(&mut self) {
        self.before.clear();
    }

    /// The conditions as they are to be written. One whose status stays keeps the time at which it
    /// came to it, so that without a change there is nothing to write.
    pub(super) fn conditions(
        &mut self,
        kind: &Kind,
        name: &ServiceName,
        conditions: &[Condition],
        object: &Value,
        now: Timestamp,
    ) -> Vec<Value> {
        let there = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        let mut written = Vec::new();
        for condition in conditions {
            let Condition { kind: of_type, status, reason, message } = condition;
            let subject = (kind.kind, name.clone(), *of_type);
            let last = self.before.remove(&subject).filter(|(last, _)| last == status);
            let in_object = || {
                let same =
                    |old: &&Value| old["type"] == *of_type && old["status"] == status.as_str();
                there.iter().find(same)?["lastTransitionTime"].as_str().map(str::to_string)
            };
            // Kubernetes' times have no fraction.
            let fresh = || now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let since = last.map(|(_, since)| since).or_else(in_object).unwrap_or_else(fresh);
            self.said.insert(subject, (*status, since.clone()));
            written.push(json!({
                "type": of_type,
                "status": status.as_str(),
                "reason": reason,
                "message": bounded(message),
                "observedGeneration": object["metadata"]["generation"],
                "lastTransitionTime": since,
            }));
        }
        written
    }
}

fn bounded(message: &str) -> String {
    if message.len() <= CONDITION_MESSAGE_MAX {
        return message.to_string();
    }
    let end = message.floor_char_boundary(CONDITION_MESSAGE_MAX);
    format!("{} ...", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::kinds::SERVICE;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let (first, later): (Timestamp, Timestamp) =
            ("2026-03-01T10:00:00.5Z".parse().unwrap(), "2026-03-01T11:00:00Z".parse().unwrap());
        let object = json!({
            "metadata": { "generation": 3 },
            "status": { "conditions": [
                { "type": "Other", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" },
                { "type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z" },
            ] },
        });
        let name = ServiceName::parse("shop/api").unwrap();
        let mut transitions = Transitions::default();
        let mut say = |status, now| {
            let (reason, message) = ("Because", String::new());
            let condition = Condition { kind: "Ready", status, reason, message };
            transitions.begin();
            let said = transitions.conditions(&SERVICE, &name, &[condition], &object, now);
            transitions.end();
            assert_eq!(said.len(), 1, "conditions of others are theirs to write");
            assert_eq!(said[0]["observedGeneration"], 3);
            said[0]["lastTransitionTime"].as_str().unwrap().to_string()
        };
        assert_eq!(say(ConditionStatus::True, first), "2025-01-01T00:00:00Z");
        assert_eq!(say(ConditionStatus::False, first), "2026-03-01T10:00:00Z");
        // The object still has the old one: that is only the cache.
        assert_eq!(say(ConditionStatus::False, later), "2026-03-01T10:00:00Z");
    }
}
