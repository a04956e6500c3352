//! Applied objects on a real folder: merging, refusals, restarts, damage.

use std::time::{Duration, UNIX_EPOCH};

use model::ResourceKind;
use tempfile::TempDir;

use super::*;

const POLICY: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: api, namespace: shop, labels: {team: a}}
spec:
  targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceExport, name: api}]
  allow: [{cluster: west}]
";
const EXPORT: &str = "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: api, namespace: shop}
";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn open(folder: &TempDir) -> Applied {
    Applied::open(&folder.path().join("applied")).unwrap()
}

fn apply(applied: &Applied, text: &str) -> Result<Vec<(String, ChangeKind)>, AppliedError> {
    let plan = applied.apply(&[("f.yaml", text)], now(), |_| Ok::<_, AppliedError>(()))?;
    Ok(plan.changes.iter().map(|change| (change.key.to_string(), change.kind)).collect())
}

fn delete(applied: &Applied, keys: &[ResourceKey]) -> Result<usize, AppliedError> {
    let whose = |key: &ResourceKey| {
        (key.name.as_str() == "of-a-file").then_some("it is in the folder of manifests")
    };
    let plan = applied.delete(keys, false, whose, now(), |_| Ok::<_, AppliedError>(()))?;
    Ok(plan.changes.len())
}

fn key(kind: ResourceKind, name: &str) -> ResourceKey {
    let namespace = model::Namespace::parse("shop").unwrap();
    ResourceKey { kind, namespace: Some(namespace), name: model::ObjectName::parse(name).unwrap() }
}

#[test]
fn objects_come_change_go_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let applied = open(&folder);
    let policy = "AccessPolicy/shop/api".to_string();
    let export = "ServiceExport/shop/api".to_string();
    let done = apply(&applied, &format!("{POLICY}---\n{EXPORT}")).unwrap();
    assert_eq!(done, [(policy.clone(), ChangeKind::Created), (export, ChangeKind::Created)]);
    let again = apply(&applied, &POLICY.replace("team: a", "\"team\": 'a'")).unwrap();
    assert_eq!(again, [(policy.clone(), ChangeKind::Unchanged)], "spelling does not count");
    let changed = apply(&applied, &POLICY.replace("team: a", "team: b")).unwrap();
    assert_eq!(changed, [(policy, ChangeKind::Configured)], "labels do");
    assert_eq!(applied.subscribe().borrow().sequence, 2);

    let reopened = open(&folder);
    let kept = reopened.get(&key(ResourceKind::AccessPolicy, "api")).unwrap();
    let before = applied.get(&key(ResourceKind::AccessPolicy, "api")).unwrap();
    assert_eq!((&kept.stamp, &kept.resource), (&before.stamp, &before.resource));
    assert_eq!(kept.document.to_yaml(), before.document.to_yaml());
    assert_eq!(kept.stamp, Stamp { created: "2023-11-14T22:13:20Z".into(), generation: 2 });
    assert!(kept.document.to_yaml().contains("team: b"));
    assert_eq!(reopened.subscribe().borrow().resources.len(), 2);

    let keys = [key(ResourceKind::AccessPolicy, "api"), key(ResourceKind::ServiceExport, "api")];
    assert_eq!(delete(&reopened, &keys).unwrap(), 2);
    assert!(open(&folder).keys().is_empty());
}

#[test]
fn what_get_prints_can_be_applied_again() {
    let folder = tempfile::tempdir().unwrap();
    let applied = open(&folder);
    apply(&applied, POLICY).unwrap();
    let kept = applied.get(&key(ResourceKind::AccessPolicy, "api")).unwrap();
    let printed = kept.document.stamped(&kept.stamp).to_yaml();
    assert!(printed.contains("generation: 1"), "{printed}");
    assert_eq!(apply(&applied, &printed).unwrap()[0].1, ChangeKind::Unchanged);
}

#[test]
fn all_of_a_call_is_taken_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let applied = open(&folder);
    for (bad, wanted) in [
        ("a: [1", "FED4010 f.yaml:1: the file cannot be read as YAML"),
        ("", "FED4001 f.yaml: there is no object in it"),
        (
            &*POLICY.replace("cluster: west", "clutser: west"),
            "FED4002 AccessPolicy/shop/api spec.allow[0]",
        ),
        (
            &*POLICY.replace("cluster: west", "cluster: West"),
            "FED4001 AccessPolicy/shop/api spec.allow[0].cluster",
        ),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", "FED4003 "),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: ExternalName}\n",
            "FED400",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: \
             {gatewayClassName: other, listeners: []}\n",
            "FED4001 f.yaml:1: the document is no object that this node serves",
        ),
        (
            EXPORT,
            "FED4004 ServiceExport/shop/api: the object at f.yaml:5 is already declared at f.yaml:1",
        ),
    ] {
        let text = format!("{EXPORT}---\n{bad}");
        let text = if bad.is_empty() || bad.starts_with("a:") { bad } else { &text };
        let error = apply(&applied, text).unwrap_err();
        assert_eq!(error.code(), APPLY_REFUSED);
        let error = error.to_string();
        assert!(error.starts_with("nothing was applied\n"), "{error}");
        let found =
            error.contains(wanted) || error.contains(&wanted.replace("f.yaml:1", "f.yaml:5"));
        assert!(found, "{error}\n  is without {wanted}");
        assert!(applied.keys().is_empty(), "{error}");
    }
    assert!(!folder.path().join("applied/objects.yaml").exists());
}

#[test]
fn a_refusal_names_a_few_findings_and_counts_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let bad =
        format!("{}---\n", EXPORT.replace("kind: ServiceExport", "kind: Nonsense")).repeat(100);
    let error = apply(&open(&folder), &bad).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1 + FINDINGS_SHOWN_MAX + 1, "{error}");
    assert!(error.ends_with("\nand 92 more"), "{error}");
    let long = EXPORT.replace("shop", &"x".repeat(100_000));
    assert!(apply(&open(&folder), &long).unwrap_err().to_string().len() < 2000);
}

#[test]
fn a_refused_plan_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let applied = open(&folder);
    let no = |plan: &Plan| {
        assert_eq!(plan.changes[0].kind, ChangeKind::Created);
        Err::<(), _>(AppliedError::NotApplied { object: "x".into(), whose: "no" })
    };
    applied.apply(&[("f", EXPORT)], now(), no).unwrap_err();
    assert!(applied.keys().is_empty());
}

#[test]
fn only_applied_objects_are_deleted_and_the_others_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let applied = open(&folder);
    apply(&applied, EXPORT).unwrap();
    let export = key(ResourceKind::ServiceExport, "api");
    let missing = key(ResourceKind::ServiceExport, "none");
    let error = delete(&applied, &[export.clone(), missing]).unwrap_err().to_string();
    assert_eq!(
        error,
        "ServiceExport/shop/none is not there; `fedctl get ServiceExport` lists what is"
    );
    let of_a_file = key(ResourceKind::ServiceExport, "of-a-file");
    let error = delete(&applied, &[export.clone(), of_a_file]).unwrap_err().to_string();
    assert!(error.ends_with("is not an applied object: it is in the folder of manifests"));
    assert_eq!(applied.keys(), std::slice::from_ref(&export), "none is deleted with a bad one");
    assert_eq!(delete(&applied, &[export.clone(), export]).unwrap(), 1, "twice is once");
}

#[test]
fn a_damaged_file_ends_the_start_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    apply(&open(&folder), EXPORT).unwrap();
    let path = folder.path().join("applied/objects.yaml");
    let good = fs::read_to_string(&path).unwrap();
    for (bad, wanted) in [
        (good.replace("kind:", "kind"), "objects.yaml:"),
        (good.replace("generation: 1", "generation: x"), "objects.yaml:3: no stamp"),
        (good.replace("ServiceExport", "ServiceExprot"), "objects.yaml:3: "),
    ] {
        fs::write(&path, &bad).unwrap();
        let error = Applied::open(&folder.path().join("applied")).unwrap_err();
        assert_eq!(error.code(), FILE_UNREADABLE);
        let error = error.to_string();
        assert!(error.contains(wanted) && error.contains("put back a copy"), "{error}");
    }
}

#[test]
fn the_number_of_objects_is_bounded() {
    use crate::limits::APPLIED_OBJECTS_MAX;
    let folder = tempfile::tempdir().unwrap();
    let applied = open(&folder);
    let exports = |count: usize| {
        (0..count)
            .map(|number| EXPORT.replace("name: api", &format!("name: x{number}")) + "---\n")
            .collect::<String>()
    };
    apply(&applied, &exports(APPLIED_OBJECTS_MAX)).unwrap();
    let error = apply(&applied, EXPORT).unwrap_err().to_string();
    assert!(error.contains("1001 objects would be applied, at most 1000 are"), "{error}");
    assert_eq!(open(&folder).keys().len(), APPLIED_OBJECTS_MAX);
}
