//! `fedctl analyze`: without a node, and the same judgement as a node's.

use std::collections::BTreeSet;

use crate::fixture::{Node, SERVICE};

const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: fedgate
  listeners:
  - {name: a, port: 8080, protocol: HTTP}
  - {name: b, port: 8080, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: api, port: 81}]}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: db, namespace: shop}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: db, namespace: shop}
---
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: api, namespace: shop}
spec:
  targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceExport, name: api}]
  allow: [{clutser: west}]
";

#[test]
fn it_needs_no_node_and_its_exit_says_how_bad_it_is() {
    let mut node = Node::start();
    node.stop();
    node.write("good.yaml", SERVICE);
    let good = node.ok(&["analyze", "good.yaml"]);
    assert_eq!(good, "✓ 1 object in 1 file: nothing was found wrong.\n");
    node.write("bad.yaml", ROUTES);
    let said = node.fedctl(&["analyze", "good.yaml", "bad.yaml"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("HTTPRoute/shop/web spec.rules[0].backendRefs[0].port"), "{said:?}");
    assert!(said.out.contains("(bad.yaml:10)\n    fix: use one of [80]"), "{said:?}");
    // An export that nobody may reach is a warning.
    let export = ROUTES.split("---\n").nth(2).unwrap().replace("db", "api");
    let said = node.fedctl_with(&["analyze", "good.yaml", "-"], &export);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("warning FED"), "{said:?}");
    let said = node.fedctl_with(&["analyze", "good.yaml", "-", "--strict"], &export);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(node.fails(2, &["analyze", "none.yaml"]).starts_with("error: none.yaml: No such file"));
    assert!(node.fails(2, &["analyze", "good.yaml", "--cluster", "A"]).contains("--cluster \"A\""));
}

#[test]
fn it_judges_as_a_node_does() {
    let node = Node::start();
    node.write("manifests/routes.yaml", ROUTES);
    node.until(&["diagnostics"], |said| said.out.contains("HTTPRoute/shop/web"));
    let said = node.fedctl(&["diagnostics", "-o", "json"]);
    let of_node = findings(&said.out);
    let said = node.fedctl(&[
        "analyze",
        "manifests",
        "--cluster",
        "east",
        "--trust-domain",
        "east.example",
        "-o",
        "json",
    ]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(findings(&said.out.replace("manifests/", "")), of_node);
    assert!(of_node.len() >= 5, "{of_node:?}");
}

fn findings(json: &str) -> BTreeSet<[String; 5]> {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let items = json["items"].as_array().unwrap().iter();
    let text = |item: &serde_json::Value, name: &str| {
        item.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let names = ["severity", "code", "object", "field", "message"];
    items.map(|item| names.map(|name| text(item, name))).collect()
}
