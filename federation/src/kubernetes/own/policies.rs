//! Status of AccessPolicies (GEP-713): per target whether it took the policy, and whether gateways
//! obey it.

use std::collections::BTreeMap;

use api::kubernetes::{CONTROLLER_NAME, PolicyCondition, PolicyReason};
use jiff::Timestamp;
use model::{
    AccessPolicy, Diagnostic, Namespace, ObjectName, Resource, ResourceKey, ResourceKind, Revision,
    ServiceName,
};
use serde_json::{Value, json};

use super::status::{Object, Said, conditions, listed, text};
use super::world::World;

const EXPORT_GROUP: &str = "multicluster.x-k8s.io";
const EXPORT_KIND: &str = "ServiceExport";

/// Since which revision a snapshot has what a policy's generation says of a target: by namespace,
/// policy and target.
pub(super) type Seen = BTreeMap<(String, String, String), (i64, Revision)>;

/// `there`: the status as it was said last. `None`: others' entries are all there is to say.
pub(super) fn status(
    world: &World,
    seen: &mut Seen,
    object: &Object,
    there: Option<&Value>,
    now: Timestamp,
) -> Value {
    let policy = match &object.resource {
        Some(Resource::AccessPolicy(policy)) => Some(policy),
        _ => None,
    };
    let before = there.and_then(|there| there.get("ancestors")).and_then(Value::as_array);
    let before = before.map(Vec::as_slice).unwrap_or_default();
    let mut ancestors: Vec<Value> = others(before).cloned().collect();
    for target in targets(object) {
        let said = match policy {
            Some(policy) => judge(world, seen, object, policy, target, before),
            None => refuse(world, object),
        };
        let ancestor = json!({
            "group": EXPORT_GROUP,
            "kind": EXPORT_KIND,
            "namespace": object.namespace(),
            "name": target,
        });
        let known = own_entry(before, target).and_then(|entry| entry.get("conditions"));
        ancestors.push(json!({
            "ancestorRef": ancestor,
            "controllerName": CONTROLLER_NAME,
            "conditions": conditions(&said, &object.object, known, now),
        }));
    }
    ancestors.truncate(api::limits::TARGET_REFS_MAX);
    json!({ "ancestors": ancestors })
}

/// Entries that other controllers keep.
pub(super) fn others(ancestors: &[Value]) -> impl Iterator<Item = &Value> {
    ancestors.iter().filter(|entry| entry["controllerName"] != CONTROLLER_NAME)
}

/// Targets as they are written, each once: a policy that is wrong has some all the same.
fn targets(object: &Object) -> Vec<&str> {
    let written = object.object.pointer("/spec/targetRefs").and_then(Value::as_array);
    let mut names = Vec::new();
    for name in written.into_iter().flatten().filter_map(|target| target["name"].as_str()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn own_entry<'a>(before: &'a [Value], target: &str) -> Option<&'a Value> {
    before.iter().find(|entry| {
        entry["controllerName"] == CONTROLLER_NAME && entry["ancestorRef"]["name"] == target
    })
}

fn accepted(holds: bool, reason: PolicyReason, message: impl Into<String>) -> Said {
    Said::new(PolicyCondition::Accepted.as_str(), holds, reason.as_str(), message)
}

fn programmed(holds: bool, reason: PolicyReason, message: impl Into<String>) -> Said {
    Said::new(PolicyCondition::Programmed.as_str(), holds, reason.as_str(), message)
}

fn refuse(world: &World, object: &Object) -> Vec<Said> {
    let is_held = key(object).is_some_and(|key| world.resource(&key).is_some());
    let problem = object.problem(is_held).unwrap_or_default();
    let message = "gateways do not obey it, since it is not accepted";
    vec![
        accepted(false, PolicyReason::Invalid, problem),
        programmed(false, PolicyReason::Invalid, message),
    ]
}

fn key(object: &Object) -> Option<ResourceKey> {
    let namespace = Some(Namespace::parse(object.namespace()?).ok()?);
    let name = ObjectName::parse(object.name()).ok()?;
    Some(ResourceKey { kind: ResourceKind::AccessPolicy, namespace, name })
}

fn judge(
    world: &World,
    seen: &mut Seen,
    object: &Object,
    policy: &AccessPolicy,
    target: &str,
    before: &[Value],
) -> Vec<Said> {
    let pending = |message: &str| programmed(false, PolicyReason::Pending, message);
    let export = ObjectName::parse(target).ok();
    let export = export.map(|name| ServiceName::new(policy.namespace.clone(), name));
    let Some(export) = export.filter(|export| world.has_export(export)) else {
        let name = format!("{}/{target}", policy.namespace);
        let message =
            format!("there is no ServiceExport {name}; export the Service, or mend the name");
        return vec![
            accepted(false, PolicyReason::TargetNotFound, message),
            pending("there is nothing yet that gateways could guard"),
        ];
    };
    let key = Resource::AccessPolicy(policy.clone()).key();
    // Of the targets each is told its own; what is said of callers is said at each.
    let about_callers = |found: &&Diagnostic| !found.field.starts_with("spec.targetRefs");
    let warnings: Vec<_> =
        object.findings.iter().chain(world.compiled(&key).filter(about_callers)).collect();
    let message = match warnings.is_empty() {
        true => "the ServiceExport is there".to_string(),
        false => listed(warnings),
    };
    let accepted = accepted(true, PolicyReason::Accepted, message);
    let generation = super::status::generation(&object.object);
    let place = (policy.namespace.to_string(), policy.name.to_string(), target.to_string());
    let Some(served) = world.exports.get(&export) else {
        let message = "the ServiceExport is not in service; its own status says why";
        return vec![accepted, pending(message)];
    };
    let has_all = policy.allow.iter().all(|entry| served.allow.contains(entry));
    if !served.targeted || !has_all {
        return vec![accepted, pending("it is being taken up")];
    }
    let since = match seen.get(&place) {
        Some((of, since)) if *of == generation => *since,
        _ => world.revision,
    };
    seen.insert(place, (generation, since));
    vec![accepted, obeyed(world, since, was_obeyed(before, target, generation))]
}

/// Gateways that come later begin with a newer revision, so what was obeyed once stays so.
fn was_obeyed(before: &[Value], target: &str, generation: i64) -> bool {
    let entry = own_entry(before, target).and_then(|entry| entry["conditions"].as_array());
    entry.into_iter().flatten().any(|condition| {
        condition["type"] == PolicyCondition::Programmed.as_str()
            && condition["status"] == "True"
            && condition["observedGeneration"].as_i64() == Some(generation)
    })
}

fn obeyed(world: &World, since: Revision, before: bool) -> Said {
    let connected: Vec<_> = world.gateways.iter().filter(|gateway| gateway.connected).collect();
    let behind: Vec<&str> = connected
        .iter()
        .filter(|gateway| gateway.acknowledged.is_none_or(|revision| revision < since))
        .map(|gateway| gateway.name.as_str())
        .collect();
    if before || (!connected.is_empty() && behind.is_empty()) {
        return programmed(true, PolicyReason::Programmed, "gateways obey it");
    }
    let message = match connected.is_empty() {
        true => "no gateway is connected; it is obeyed as soon as one is".to_string(),
        false => format!("these gateways do not have it yet: {}", behind.join(" ")),
    };
    programmed(false, PolicyReason::Pending, message)
}

/// Whether entries of others' are in the list, which is one for all controllers.
pub(super) fn has_others(status: &Value) -> bool {
    let ancestors = status.get("ancestors").and_then(Value::as_array);
    ancestors.is_some_and(|ancestors| others(ancestors).next().is_some())
}

pub(super) fn version(object: &Value) -> Option<&str> {
    text(object, "/metadata/resourceVersion")
}
