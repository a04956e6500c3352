//! Manifests and exports: apply, get, describe, diff, delete, export, unexport; and their record.

use std::fs;

use crate::fixture::Node;

const POLICY: &str = "\
# who may come
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: api, namespace: shop}
spec:
  targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceExport, name: api}]
  allow: [{cluster: west}]
";
const EXPORT: &str = "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: api, namespace: shop}
";

#[test]
fn manifests_come_change_and_go() {
    let mut node = Node::start();
    node.write("both.yaml", &format!("{EXPORT}---\n{POLICY}"));
    let said = node.fedctl(&["diff", "-f", "both.yaml"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("+++ given/ServiceExport/shop/api\n@@ -0,0 +1,5 @@\n"), "{said:?}");
    let dry = node.ok(&["apply", "-f", "both.yaml", "--dry-run"]);
    let want =
        "ServiceExport/shop/api created (dry run)\nAccessPolicy/shop/api created (dry run)\n";
    assert_eq!(dry, want);
    assert_eq!(node.ok(&["get", "accesspolicies"]), "", "a dry run changes nothing");

    let done = node.ok(&["apply", "-f", "both.yaml"]);
    assert_eq!(done, "ServiceExport/shop/api created\nAccessPolicy/shop/api created\n");
    let said = node.fedctl(&["diff", "-f", "both.yaml"]);
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{said:?}");
    let got = node.until(&["get", "policy", "shop/api"], |said| said.code == 0);
    assert!(got.out.starts_with("NAMESPACE  NAME  SOURCE   GENERATION  AGE"), "{got:?}");
    let found = node.until(&["get", "all"], |said| said.out.contains("ServiceExport"));
    assert!(found.out.contains("Service        shop       api   file     -"), "{found:?}");

    let changed = POLICY.replace("west", "south");
    let said = node.fedctl_with(&["diff", "-f", "-"], &changed);
    assert!(said.out.contains("-  - cluster: west\n+  - cluster: south\n"), "{said:?}");
    let said = node.fedctl_with(&["apply", "-f", "-"], &changed);
    assert_eq!((said.code, said.out.as_str()), (0, "AccessPolicy/shop/api configured\n"));
    // What is printed can be applied again, also after a restart.
    node.restart();
    let printed = node.ok(&["get", "policy", "api", "-n", "shop", "-o", "yaml"]);
    assert!(printed.contains("generation: 2\n") && printed.contains("cluster: south"), "{printed}");
    let said = node.fedctl_with(&["apply", "-f", "-"], &printed);
    assert_eq!(said.out, "AccessPolicy/shop/api unchanged\n");
    let page = node.ok(&["describe", "policy", "api"]);
    assert!(page.starts_with("Name:       api\nNamespace:  shop\n"), "{page}");
    assert!(page.contains("Source:     fedctl apply\n"), "{page}");

    assert_eq!(node.ok(&["delete", "policy", "shop/api"]), "AccessPolicy/shop/api deleted\n");
    let gone = node.fails(1, &["delete", "policy", "shop/api"]);
    assert!(
        gone.starts_with("error: AccessPolicy/shop/api is not there (FED4012)\nhint: "),
        "{gone}"
    );
    let rest = node.ok(&["delete", "-f", "both.yaml", "--ignore-missing"]);
    assert_eq!(rest, "ServiceExport/shop/api deleted\n");
}

#[test]
fn bad_manifests_change_nothing_and_each_mistake_is_named() {
    let node = Node::start();
    node.write(
        "bad.yaml",
        &format!("{EXPORT}---\n{}", POLICY.replace("cluster: west", "clutser: west")),
    );
    let said = node.fails(2, &["apply", "-f", "bad.yaml"]);
    assert!(said.starts_with("error: nothing was applied (FED4012)\nerror FED"), "{said}");
    assert!(said.contains("spec.allow[0]") && said.contains("bad.yaml:"), "{said}");
    assert!(node.fails(2, &["diff", "-f", "bad.yaml"]).contains("spec.allow[0]"));
    assert_eq!(node.ok(&["get", "export"]), "");
    let said = node.fails(2, &["apply", "-f", "none.yaml"]);
    assert!(said.starts_with("error: none.yaml: No such file"), "{said}");
    let said = node.fails(2, &["get", "pods"]);
    assert!(said.starts_with("error: there is no kind \"pods\"\nhint: the kinds are "), "{said}");
    let said = node.fails(2, &["delete", "policy", "api"]);
    assert!(said.contains("in which namespace?"), "{said}");
}

#[test]
fn a_file_wins_and_both_sides_say_so() {
    let node = Node::start();
    node.write("export.yaml", EXPORT);
    node.ok(&["apply", "-f", "export.yaml"]);
    node.write("manifests/export.yaml", EXPORT);
    let found = node.until(&["diagnostics"], |said| said.out.contains("FED4011"));
    assert!(found.out.contains("ServiceExport/shop/api"), "{found:?}");
    let said = node.fedctl(&["apply", "-f", "export.yaml"]);
    assert!(said.err.contains("warning FED4011 ServiceExport/shop/api"), "{said:?}");
    assert!(node.ok(&["get", "export"]).contains("file"), "the file's is in service");
    node.ok(&["delete", "export", "shop/api"]);
    let said = node.fails(1, &["delete", "export", "shop/api"]);
    assert!(said.contains("it is in the folder of manifests"), "{said}");
}

#[test]
fn a_service_is_exported_and_withdrawn() {
    let node = Node::start();
    let dry = node.ok(&["export", "shop/api", "--to", "cluster=west", "--dry-run", "-o", "yaml"]);
    assert!(dry.contains("kind: ServiceExport") && dry.contains("name: export-api"), "{dry}");
    let said = node.fedctl(&["export", "shop/api", "--to", "cluster=west"]);
    assert_eq!(said.out, "ServiceExport/shop/api created\nAccessPolicy/shop/export-api created\n");
    assert!(said.err.contains("Undo: fedctl unexport shop/api"), "{said:?}");
    node.until(&["services"], |said| said.out.contains("to 1 rule"));
    let more = ["--to", "cluster=west", "--to", "spiffe-id=spiffe://south.example/ns/a/sa/b"];
    let again = node.ok(&[&["export", "api", "-n", "shop"], &more[..]].concat());
    assert_eq!(
        again,
        "ServiceExport/shop/api unchanged\nAccessPolicy/shop/export-api configured\n"
    );
    let gone = node.ok(&["unexport", "shop/api"]);
    assert_eq!(gone, "ServiceExport/shop/api deleted\nAccessPolicy/shop/export-api deleted\n");
    let said = node.fedctl(&["export", "shop/none", "--to-nobody"]);
    assert!(said.err.contains("warning: there is no Service shop/none"), "{said:?}");
    let said = node.fails(2, &["export", "shop/api", "--to", "west"]);
    assert!(said.starts_with("error: --to \"west\": \"west\" has no =\nhint: "), "{said}");
    let said = node.fails(2, &["export", "shop/api"]);
    assert!(said.contains("--to <WHO>"), "{said}");
}

#[test]
fn every_change_is_on_the_record_and_a_broken_record_is_named() {
    let mut node = Node::start();
    assert_eq!(node.ok(&["audit", "list"]), "Nothing has been changed by operators yet.\n");
    node.ok(&["export", "shop/api", "--to", "cluster=west"]);
    node.fails(1, &["delete", "policy", "shop/none"]);
    let list = node.ok(&["audit", "list"]);
    let rows: Vec<&str> = list.lines().collect();
    assert_eq!(rows.len(), 3, "{list}");
    assert!(rows[1].contains("ApplyObjects") && rows[1].contains(" ok "), "{list}");
    assert!(rows[1].contains("object=AccessPolicy/shop/export-api"), "{list}");
    assert!(rows[2].contains("DeleteObjects") && rows[2].contains("failed"), "{list}");
    assert!(node.ok(&["audit", "verify"]).starts_with("✓ the chain holds, entries 1 to 4\n"));
    let json: serde_json::Value =
        serde_json::from_str(&node.ok(&["audit", "list", "-o", "json"])).unwrap();
    assert_eq!(json["kind"], "AuditEntryList");
    assert_eq!(json["items"][0]["outcome"], "ok");

    node.stop();
    let text = node.read("data/audit.log");
    fs::write(node.path("data/audit.log"), text.replacen("export-api", "export-apj", 1)).unwrap();
    node.restart();
    let said = node.fedctl(&["audit", "verify"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.out.contains("✗ audit.log line 2: the hash is not that of this entry"),
        "{said:?}"
    );
    assert!(
        said.err.contains("error: the audit record is broken in 1 place (FED1006)"),
        "{said:?}"
    );
}

#[test]
fn trust_and_certificates_are_listed() {
    let node = Node::start();
    let trust = node.ok(&["trust", "list"]);
    assert!(trust.starts_with("TRUST DOMAIN"), "{trust}");
    assert!(trust.contains("east.example  east *"), "{trust}");
    let certs = node.ok(&["certs", "list"]);
    assert!(certs.contains("spiffe://east.example/fedgate/federation/node-0"), "{certs}");
    let json: serde_json::Value =
        serde_json::from_str(&node.ok(&["certs", "list", "-o", "json"])).unwrap();
    assert_eq!(json["apiVersion"], "fedgate.dev/v1alpha1");
    let left =
        json["items"].as_array().unwrap().iter().map(|item| item["expires"]["leftMs"].as_i64());
    assert!(left.flatten().all(|left| left > 0), "{json}");
}

#[test]
fn a_node_that_does_not_answer_is_5() {
    let mut node = Node::start();
    node.stop();
    let said = node.fails(5, &["get", "all"]);
    assert!(said.starts_with("error: no federation node answers on unix:"), "{said}");
    assert!(said.contains("(FED1004)\nhint: "), "{said}");
}
