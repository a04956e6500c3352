//! What the `status` of Fedgate's own kinds is made of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kubernetes::ConditionStatus;
use crate::limits;

/// One condition of the object, as in every kind of Kubernetes (`metav1.Condition`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about, such as "Accepted".
    #[schemars(length(min = 1, max = 316))]
    pub r#type: String,
    /// "True", "False" or "Unknown".
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// The `metadata.generation` that the condition was found for. If it is lower than that of the
    /// object, the condition does not know the latest change yet.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status changed last (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, in one word for programs.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    )]
    pub reason: String,
    /// Why, in a sentence for people.
    #[schemars(length(max = limits::CONDITION_MESSAGE_CHARS_MAX))]
    pub message: String,
}

impl Condition {
    /// `type` and `reason` are words of [`crate::kubernetes`]. `now` is RFC 3339. A message that is
    /// too long for Kubernetes is cut.
    pub fn new(
        r#type: &str,
        status: ConditionStatus,
        reason: &str,
        message: &str,
        observed_generation: i64,
        now: &str,
    ) -> Self {
        Self {
            r#type: r#type.to_string(),
            status: status.to_string(),
            observed_generation: Some(observed_generation),
            last_transition_time: now.to_string(),
            reason: reason.to_string(),
            message: message.chars().take(limits::CONDITION_MESSAGE_CHARS_MAX).collect(),
        }
    }

    /// The condition as it is to be written beside what the object has: the time of the last change
    /// stays if the status did.
    #[must_use]
    pub fn keeping_time_of(mut self, before: &[Self]) -> Self {
        let same = |old: &&Self| old.r#type == self.r#type && old.status == self.status;
        if let Some(old) = before.iter().find(same) {
            self.last_transition_time.clone_from(&old.last_transition_time);
        }
        self
    }
}

/// What has become of the object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The `metadata.generation` that this status is about.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted: the object is right in itself. Ready: what it asks for is there.
    #[schemars(length(max = limits::CONDITIONS_MAX), extend(
        "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]
    ))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What has become of the policy at each object that it is for (GEP-713).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyStatus {
    /// One entry for each target.
    #[schemars(
        length(max = limits::TARGET_REFS_MAX),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub ancestors: Vec<AncestorStatus>,
}

/// What has become of the policy at one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    /// The object that the policy is for.
    pub ancestor_ref: AncestorRef,
    /// Who wrote this entry; ours is "fedgate.dev/gateway". Entries of others stay as they are.
    #[schemars(length(min = 1, max = 253))]
    pub controller_name: String,
    /// Accepted: the target took the policy. Programmed: the gateways obey it.
    #[schemars(length(max = limits::CONDITIONS_MAX), extend(
        "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]
    ))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AncestorRef {
    /// Its API group, such as "multicluster.x-k8s.io".
    #[schemars(length(max = 253))]
    pub group: String,
    /// Its kind, such as "ServiceExport".
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{OwnCondition, OwnReason};

    #[test]
    fn the_time_of_a_condition_is_that_of_its_last_change() {
        let at = |status, now| {
            let (kind, reason) = (OwnCondition::Ready.as_str(), OwnReason::Ready.as_str());
            Condition::new(kind, status, reason, &"é".repeat(40_000), 7, now)
        };
        let before = [at(ConditionStatus::True, "2026-11-21T10:00:00Z")];
        assert_eq!(before[0].message.chars().count(), limits::CONDITION_MESSAGE_CHARS_MAX);
        let same = at(ConditionStatus::True, "2026-11-21T11:00:00Z").keeping_time_of(&before);
        assert_eq!(same.last_transition_time, "2026-11-21T10:00:00Z");
        let other = at(ConditionStatus::False, "2026-11-21T11:00:00Z").keeping_time_of(&before);
        assert_eq!(other.last_transition_time, "2026-11-21T11:00:00Z");
    }
}
