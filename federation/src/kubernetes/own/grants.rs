//! Status of NamespaceGrants: whether the federation judges exports by them.

use api::kubernetes::{OwnCondition, OwnReason};
use jiff::Timestamp;
use model::code::GRANT_WITHOUT_ROLE;
use model::{ObjectName, Resource, ResourceKey, ResourceKind};
use serde_json::Value;

use super::status::{self, Object, Said, listed};
use super::world::World;

pub(super) fn status(
    world: &World,
    object: &Object,
    there: Option<&Value>,
    now: Timestamp,
) -> Value {
    status::status(&judge(world, object), &object.object, there, now)
}

fn judge(world: &World, object: &Object) -> Vec<Said> {
    let accepted = |holds, reason: OwnReason, message: String| {
        Said::new(OwnCondition::Accepted.as_str(), holds, reason.as_str(), message)
    };
    let ready = |holds, reason: OwnReason, message: &str| {
        Said::new(OwnCondition::Ready.as_str(), holds, reason.as_str(), message)
    };
    let key = ObjectName::parse(object.name()).ok().map(|name| ResourceKey {
        kind: ResourceKind::NamespaceGrant,
        namespace: None,
        name,
    });
    let is_held = key.is_some_and(|key| world.resource(&key).is_some());
    let Some(Resource::NamespaceGrant(grant)) = &object.resource else {
        let problem = object.problem(is_held).unwrap_or_default();
        return vec![
            accepted(false, OwnReason::Invalid, problem),
            ready(false, OwnReason::Failed, "it is not in force, since it is not accepted"),
        ];
    };
    let message = match object.findings.is_empty() {
        true => "its namespaces and clusters can be read".to_string(),
        false => listed(&object.findings),
    };
    let ready = match &world.member {
        None => {
            let message = "this cluster is in no federation, and a grant counts in one only; found \
                           or join one";
            ready(false, OwnReason::Pending, message)
        }
        Some(member) if !member.is_admin => {
            let message = format!(
                "this cluster lacks the role admin in the federation; create the grant in a \
                 cluster that has it ({GRANT_WITHOUT_ROLE})"
            );
            ready(false, OwnReason::NotPermitted, &message)
        }
        Some(member) if !member.grants.contains(grant) => {
            ready(false, OwnReason::Pending, "the federation's store does not have it yet")
        }
        Some(_) => ready(
            true,
            OwnReason::Ready,
            "exports in its namespaces are judged by it in every cluster",
        ),
    };
    vec![accepted(true, OwnReason::Accepted, message), ready]
}
