//! Status of the Federation `default`, and whether it asks for a federation to be founded.

use api::kinds::federation::{self, Spec};
use api::kubernetes::{FEDERATION_NAME, OwnCondition, OwnReason};
use jiff::Timestamp;
use model::Diagnostic;
use serde_json::{Value, json};

use super::status::{Said, conditions, generation, listed, text};
use crate::kubernetes::calls::Failure;
use crate::membership::{Membership, MembershipError, StoreView};

/// How this cluster fares in its federation, or on its way into one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fared {
    /// `None`: it is in none.
    pub(super) inside: Option<Inside>,
    /// What keeps it from founding or joining one.
    pub(super) trouble: Option<Failure>,
}

/// The federation as this cluster sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) id: String,
    pub(super) clusters: usize,
    pub(super) voters: Vec<String>,
    pub(super) leader: Option<String>,
    /// Whether the federation is heard: by its leader, or by the node that feeds this one.
    pub(super) is_heard: bool,
    pub(super) problem: Option<String>,
    /// Whether this cluster is a member still.
    pub(super) is_member: bool,
}

impl Fared {
    pub(super) fn now(membership: &Membership, trouble: Option<Failure>) -> Self {
        let store = membership.store_status();
        let inside = match store {
            Ok(store) => Some(Inside::of(membership, store)),
            Err(MembershipError::Alone) => None,
            Err(error) => Some(Inside { problem: Some(error.to_string()), ..Inside::default() }),
        };
        Self { inside, trouble }
    }
}

impl Inside {
    fn of(membership: &Membership, store: StoreView) -> Self {
        let members = membership.members();
        Self {
            id: store.federation.map(|id| id.to_string()).unwrap_or_default(),
            clusters: members.iter().filter(|member| member.active).count(),
            voters: store.voters.iter().map(ToString::to_string).collect(),
            is_heard: store.leader.is_some() || store.source.is_some(),
            leader: store.leader.map(|leader| leader.to_string()),
            problem: store.problem,
            is_member: members.iter().any(|member| member.own && member.active),
        }
    }
}

/// What the object says, or what is wrong with it.
pub(super) fn read(object: &Value) -> (Option<Spec>, Vec<Diagnostic>) {
    federation::read("kubernetes", object)
}

/// The one object that counts.
pub(super) fn the_one(objects: &[Value]) -> Option<&Value> {
    objects.iter().find(|object| text(object, "/metadata/name") == Some(FEDERATION_NAME))
}

/// Whether the cluster was in a federation since the object was made, as its status says. It founds
/// no second one then: a node that has lost its disk would otherwise take its clusters apart.
pub(super) fn was_inside(status: Option<&Value>) -> bool {
    let Some(status) = status else { return false };
    let conditions = status.get("conditions").and_then(Value::as_array);
    let has_left = conditions.into_iter().flatten().any(|condition| {
        condition["type"] == OwnCondition::Ready.as_str()
            && condition["reason"] == OwnReason::Conflicted.as_str()
    });
    has_left || text(status, "/id").is_some()
}

pub(super) fn status(
    fared: &Fared,
    object: &Value,
    there: Option<&Value>,
    now: Timestamp,
) -> Value {
    let (spec, findings) = read(object);
    let accepted = match &spec {
        Some(_) if findings.is_empty() => (true, OwnReason::Accepted, "it can be read".into()),
        Some(_) => (true, OwnReason::Accepted, listed(&findings)),
        None => (false, OwnReason::Invalid, listed(&findings)),
    };
    let said = [
        Said::new(OwnCondition::Accepted.as_str(), accepted.0, accepted.1.as_str(), accepted.2),
        ready(fared, spec.as_ref(), there),
    ];
    let old = there.and_then(|there| there.get("conditions"));
    let mut status = json!({
        "observedGeneration": generation(object),
        "conditions": conditions(&said, object, old, now),
    });
    if let Some(inside) = fared.inside.as_ref().filter(|inside| !inside.id.is_empty()) {
        status["id"] = json!(inside.id);
        status["clusters"] = json!(inside.clusters);
        status["voters"] = json!(inside.voters);
        if let Some(leader) = &inside.leader {
            status["leader"] = json!(leader);
        }
    }
    status
}

fn ready(fared: &Fared, spec: Option<&Spec>, there: Option<&Value>) -> Said {
    let ready = |holds, reason: OwnReason, message: String| {
        Said::new(OwnCondition::Ready.as_str(), holds, reason.as_str(), message)
    };
    if let Some(inside) = &fared.inside {
        return match inside {
            Inside { problem: Some(problem), .. } => {
                ready(false, OwnReason::Failed, format!("the store of this node: {problem}"))
            }
            Inside { is_member: false, .. } => {
                let message = "this cluster was taken out of the federation, or revoked; `fedctl \
                               leave --force` forgets the federation, then it may join anew";
                ready(false, OwnReason::Revoked, message.into())
            }
            Inside { is_heard: false, .. } => {
                let message = "nothing is heard of the federation; what it said last stays in \
                               service; `fedctl store status` shows who is missing";
                ready(false, OwnReason::Pending, message.into())
            }
            _ => ready(true, OwnReason::Ready, "this cluster is a member of it".into()),
        };
    }
    let trouble = fared.trouble.as_ref().map(ToString::to_string);
    if was_inside(there) {
        let mut message = "this cluster was in a federation and is in none now; it does not found \
                           another by itself: join one by a token, or delete this object and \
                           create it again"
            .to_string();
        message.extend(trouble.map(|trouble| format!(". {trouble}")));
        return ready(false, OwnReason::Conflicted, message);
    }
    match (trouble, spec) {
        (Some(trouble), _) => ready(false, OwnReason::Failed, trouble),
        (None, Some(spec)) if spec.found => {
            ready(false, OwnReason::Pending, "it is about to be founded".into())
        }
        (None, _) => {
            let message = "this cluster is in no federation; set spec.found to found one, or give \
                           it a token of another cluster's by kubernetes.joinTokenFile";
            ready(false, OwnReason::Pending, message.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-03-01T10:00:00Z";

    fn object(found: bool) -> Value {
        json!({
            "apiVersion": "fedgate.dev/v1alpha1", "kind": "Federation",
            "metadata": {"name": "default", "generation": 2}, "spec": {"found": found},
        })
    }

    fn ready_of(fared: &Fared, object: &Value, there: Option<&Value>) -> (String, Value) {
        let status = status(fared, object, there, NOW.parse().unwrap());
        let ready = &status["conditions"][1];
        (format!("{} {}", ready["status"], ready["reason"]).replace('"', ""), status)
    }

    fn inside() -> Fared {
        let inside = Inside {
            id: "0a".into(),
            clusters: 2,
            voters: vec!["east".into()],
            leader: Some("east".into()),
            is_heard: true,
            problem: None,
            is_member: true,
        };
        Fared { inside: Some(inside), trouble: None }
    }

    #[test]
    fn a_member_is_ready_while_it_hears_the_federation() {
        let (ready, status) = ready_of(&inside(), &object(false), None);
        assert_eq!(ready, "True Ready");
        assert_eq!((&status["id"], &status["clusters"]), (&json!("0a"), &json!(2)));
        assert_eq!((&status["leader"], &status["voters"]), (&json!("east"), &json!(["east"])));
        for (change, want) in [
            (&(|it: &mut Inside| it.is_heard = false) as &dyn Fn(&mut Inside), "False Pending"),
            (&|it| it.is_member = false, "False Revoked"),
            (&|it| it.problem = Some("its log is damaged".into()), "False Failed"),
        ] {
            let mut fared = inside();
            change(fared.inside.as_mut().unwrap());
            assert_eq!(ready_of(&fared, &object(false), None).0, want);
        }
    }

    #[test]
    fn who_was_in_a_federation_says_so_for_ever() {
        let (_, while_in) = ready_of(&inside(), &object(true), None);
        let (ready, after) = ready_of(&Fared::default(), &object(true), Some(&while_in));
        assert_eq!((&*ready, after.get("id")), ("False Conflicted", None));
        assert!(was_inside(Some(&after)));
        assert_eq!(ready_of(&Fared::default(), &object(true), Some(&after)).0, ready);
        assert_eq!(ready_of(&inside(), &object(true), Some(&after)).0, "True Ready");
    }

    #[test]
    fn who_was_in_none_waits_or_founds() {
        let (ready, status) = ready_of(&Fared::default(), &object(false), None);
        assert_eq!(ready, "False Pending");
        assert!(!was_inside(Some(&status)) && !was_inside(None));
        let (ready, status) = ready_of(
            &Fared::default(),
            &json!({
                "apiVersion": "fedgate.dev/v1alpha1", "kind": "Federation",
                "metadata": {"name": "other", "generation": 1}, "spec": {"found": true},
            }),
            None,
        );
        assert_eq!(ready, "False Pending");
        assert_eq!(status["conditions"][0]["reason"], "Invalid");
    }
}
