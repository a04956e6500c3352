//! What is written, and what is left as it is.

use super::*;
use crate::kubernetes::kinds::SERVICE;

fn wanted(port: u16) -> Write {
    Write::whole(&SERVICE, Some("shop"), "a", json!({ "spec": { "ports": [{ "port": port }] } }))
}

/// As an API server has it, with what it adds.
fn there(port: u16) -> Value {
    json!({
        "metadata": {
            "name": "a", "namespace": "shop", "uid": "u",
            "labels": { MANAGED_BY_LABEL: MANAGED_BY, WRITER_LABEL: "w", "other": "x" },
        },
        "spec": { "clusterIP": "10.0.0.1", "ports": [{ "port": port, "protocol": "TCP" }] },
    })
}

fn own(objects: &[Value]) -> Observed {
    let target = |object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap().to_string();
        Target { kind: &SERVICE, namespace: Some("shop".into()), name, status: false }
    };
    Observed { objects: objects.iter().map(|o| (target(o), o.clone())).collect() }
}

fn steps(desired: Vec<Write>, own: &Observed) -> Vec<Step> {
    plan("w", desired, own, &BTreeMap::new()).steps
}

#[test]
fn what_is_missing_is_made_what_differs_is_mended_and_what_is_too_much_is_deleted() {
    let made = steps(vec![wanted(80)], &own(&[]));
    let [Step::Apply { document, known: false, whole: true, .. }] = &made[..] else {
        panic!("{made:?}")
    };
    assert_eq!(document["metadata"]["labels"][WRITER_LABEL], "w");
    assert_eq!(document["kind"], "Service");
    assert_eq!(steps(vec![wanted(80)], &own(&[there(80)])), []);
    let mended = steps(vec![wanted(81)], &own(&[there(80)]));
    assert!(matches!(&mended[..], [Step::Apply { known: true, .. }]), "{mended:?}");
    let deleted = steps(vec![], &own(&[there(80)]));
    assert!(matches!(&deleted[..], [Step::Delete { uid, .. }] if uid == "u"), "{deleted:?}");
    let mut going = there(80);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(steps(vec![], &own(&[going])), []);
}

#[test]
fn a_field_that_is_no_longer_wanted_is_taken_back() {
    let mut object = there(80);
    object["metadata"]["annotations"] = json!({ "old": "x" });
    let fields = json!({ "f:metadata": { "f:annotations": { "f:old": {} } } });
    let entry =
        |manager: &str| json!([{ "manager": manager, "operation": "Apply", "fieldsV1": fields }]);
    object["metadata"]["managedFields"] = entry("somebody");
    assert_eq!(steps(vec![wanted(80)], &own(&[object.clone()])), []);
    object["metadata"]["managedFields"] = entry(FIELD_MANAGER);
    assert_eq!(steps(vec![wanted(80)], &own(&[object])).len(), 1);
}

#[test]
fn what_was_applied_lately_is_not_applied_again_while_the_cache_is_behind() {
    let status = |version: &str, text: &str| {
        let status = json!({ "parents": [{ "controllerName": text }] });
        let seen = json!({ "metadata": { "name": "a", "resourceVersion": version } });
        let write = Write::status(&SERVICE, Some("shop"), "a", Some(version), status);
        write.seen(Arc::new(seen))
    };
    let first = plan("w", vec![status("1", "x")], &own(&[]), &BTreeMap::new());
    let [Step::Apply { target, document, .. }] = &first.steps[..] else { panic!("{first:?}") };
    let applied = BTreeMap::from([(target, document)]);
    let again = |write: Write| plan("w", vec![write], &own(&[]), &applied).steps.len();
    assert_eq!(again(status("1", "x")), 0, "the cache has not heard of it yet");
    assert_eq!(again(status("2", "x")), 1, "somebody else's change took it away");
    assert_eq!(again(status("1", "y")), 1, "something else is wanted");
}

#[test]
fn lists_are_compared_whole_but_for_conditions_and_selectors_are_atomic() {
    let cases = [
        (json!({ "ports": [1, 2] }), json!({ "ports": [1] }), false),
        (json!({ "a": { "b": 1, "c": 2 } }), json!({ "a": { "b": 1 } }), true),
        (json!({}), json!({ "addresses": [] }), true),
        (json!({ "selector": { "a": "1", "b": "2" } }), json!({ "selector": { "a": "1" } }), false),
        (
            json!({ "conditions": [{ "type": "X", "status": "True" }, { "type": "Theirs" }] }),
            json!({ "conditions": [{ "type": "X", "status": "True" }] }),
            true,
        ),
    ];
    for (there, wanted, expected) in cases {
        assert_eq!(covers(&there, &wanted), expected, "{there} {wanted}");
    }
}

#[test]
fn an_object_of_ours_gets_its_owner_and_a_users_does_not() {
    let owner = OwnerReference { name: "r".into(), uid: "1".into(), ..Default::default() };
    let owned = |mut write: Write| {
        write.owned_by(&owner);
        write
    };
    let adopted = steps(vec![owned(wanted(80))], &own(&[there(80)]));
    let [Step::Apply { document, .. }] = &adopted[..] else { panic!("{adopted:?}") };
    assert_eq!(document["metadata"]["ownerReferences"][0]["uid"], "1");
    assert!(document["metadata"]["ownerReferences"][0].get("blockOwnerDeletion").is_none());
    let mut object = there(80);
    object["metadata"]["ownerReferences"] = json!([{ "uid": "theirs" }, owner]);
    assert_eq!(steps(vec![owned(wanted(80))], &own(&[object])), []);
    let status = Write::status(&SERVICE, Some("shop"), "a", None, json!({}));
    assert_eq!(owned(status.clone()), status);
}
