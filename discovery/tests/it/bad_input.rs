//! Bad manifests, and the exact words that answer them: each names the field, the value and the fix.

#[test]
fn bad_input_is_answered_in_these_words() {
    for (text, want) in CASES {
        let (_, diagnostics) = discovery::translate(&[("m.yaml", text)]);
        let found: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(found, *want, "{text}");
    }
}

#[test]
fn lists_have_limits() {
    let text = |count: usize| {
        let hosts: Vec<_> = (0..count).map(|number| format!("h{number}.example")).collect();
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: x}}\n\
             spec:\n  parentRefs: [{{name: e}}]\n  rules: [{{backendRefs: [{{name: api, port: 80}}]}}]\n\
             \u{20} hostnames: [{}]",
            hosts.join(", ")
        )
    };
    let (resources, diagnostics) = discovery::translate(&[("m.yaml", &text(16))]);
    assert_eq!((resources.len(), diagnostics.len()), (1, 0), "{diagnostics:?}");
    let (resources, diagnostics) = discovery::translate(&[("m.yaml", &text(17))]);
    assert_eq!(resources, []);
    assert_eq!(
        diagnostics[0].to_string(),
        "error FED4001 HTTPRoute/default/x spec.hostnames: the list has 17 entries, at most 16 are \
         served (m.yaml:7); split the object"
    );
}

const CASES: &[(&str, &[&str])] = &[
    // Unknown field.
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {portts: [], ports: [{port: 80}], colour: red}",
        &["warning FED4002 Service/shop/api spec.colour: the field is not served or is \
             misspelt (m.yaml:4); remove it, or live without it"],
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x, \
         namespace: shop}\nspec: {parentRefs: [{name: e}], rules: [{backendRefs: [{name: \
         api, port: 80}], fliters: [{}]}]}",
        &["error FED4002 HTTPRoute/shop/x spec.rules[0].fliters: the field is not served \
             or is misspelt, so spec.rules[0] is not in service (m.yaml:4); remove it; the \
             rule cannot be served without its meaning"],
    ),
    (
        "apiVersion: fedgate.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: x, \
         namespace: shop}\nspec: {targetRefs: [{group: multicluster.x-k8s.io, kind: \
         ServiceExport, name: api}], allow: [{cluster: west, port: 80}]}",
        &["error FED4002 AccessPolicy/shop/x spec.allow[0].port: the field is not served \
             or is misspelt, so the object is not in service (m.yaml:4); remove it, or mend \
             its spelling"],
    ),
    (
        "apiVersion: fedgate.dev/v1alpha1\nkind: ClusterPeer\nmetadata: {name: x}\nspec: \
         {insecure: true, trustDomains: [{name: w.example, bundle: '{\"keys\": []}'}]}",
        &["error FED4002 ClusterPeer/x spec.insecure: the field is not served or is \
             misspelt, so the object is not in service (m.yaml:4); remove it, or mend its \
             spelling"],
    ),
    // Wrong type.
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {ports: [{port: \"80\"}]}",
        &["error FED4001 Service/shop/api spec.ports[0].port: the text \"80\" does not \
             belong here (m.yaml:4); write a whole number"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {ports: [{port: 80.5}]}",
        &["error FED4001 Service/shop/api spec.ports[0].port: the number 80.5 does not \
             belong here (m.yaml:4); write a whole number"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {ports: {port: 80}}",
        &["error FED4001 Service/shop/api spec.ports: a map does not belong here \
             (m.yaml:4); write a list"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: []",
        &["error FED4001 Service/shop/api spec: a list does not belong here (m.yaml:4); \
             write a map of fields"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: 7}",
        &["error FED4001 m.yaml:1 metadata.name: the number 7 does not belong here \
             (m.yaml:3); write a text, in quotes if it looks like something else"],
    ),
    // Missing.
    (
        "kind: Service\nmetadata: {name: api}",
        &["error FED4001 m.yaml:1 apiVersion: the field is missing (m.yaml:1); the \
             manifest of a Kubernetes object begins with apiVersion and kind"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api}",
        &["error FED4001 Service/default/api spec: the field is missing (m.yaml:1); add it"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {ports: [{name: http}]}",
        &["error FED4001 Service/shop/api spec.ports[0].port: the field is missing \
             (m.yaml:4); add it"],
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x, \
         namespace: shop}\nspec: {parentRefs: [{name: e}], rules: [{backendRefs: [{name: \
         api}]}]}",
        &["error FED4001 HTTPRoute/shop/x spec.rules[0].backendRefs[0].port: the field is \
             missing (m.yaml:4); add the service's port"],
    ),
    // Duplicates.
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {ports: [{port: 80}], ports: [{port: 81}]}",
        &["error FED4010 m.yaml:4: the file cannot be read as YAML: duplicate mapping key: \
             ports; nothing of it is in service; mend the file"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {ports: [{name: a, port: 80}, {name: b, port: 80}]}",
        &["error FED4001 Service/shop/api spec.ports[1].port: two TCP ports have the \
             number 80 (m.yaml:4); give each port a number of its own"],
    ),
    (
        "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {name: x, \
         namespace: shop}\nspec: {}\n---\napiVersion: multicluster.x-k8s.io/v1beta1\nkind: \
         ServiceExport\nmetadata: {name: x, namespace: shop}\nspec: {}",
        &["error FED4004 ServiceExport/shop/x: the object at m.yaml:6 is already declared \
             at m.yaml:1, which is in service; remove one of the two"],
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: x, \
         namespace: shop}\nspec: {gatewayClassName: fedgate, listeners: [{name: a, port: 80, \
         protocol: HTTP}, {name: a, port: 81, protocol: HTTP}]}",
        &["error FED4001 Gateway/shop/x spec.listeners[1].name: two listeners are named \
             \"a\" (m.yaml:4); give each a name of its own"],
    ),
    // Out of range.
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {ports: [{port: 0}]}",
        &["error FED4001 Service/shop/api spec.ports[0].port: 0 is no port (m.yaml:4); use \
             a number from 1 to 65535"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {ports: [{port: 65536}]}",
        &["error FED4001 Service/shop/api spec.ports[0].port: 65536 is no port (m.yaml:4); \
             use a number from 1 to 65535"],
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: x, \
         namespace: shop}\nspec: {gatewayClassName: fedgate, listeners: [{name: a, port: \
         70000, protocol: HTTP}]}",
        &["error FED4001 Gateway/shop/x spec.listeners[0].port: 70000 is no port \
             (m.yaml:4); use a number from 1 to 65535"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: \
         {ports: [{port: 18446744073709551615}]}",
        &["error FED4001 Service/shop/api spec.ports[0].port: the number \
             18446744073709551615 does not belong here (m.yaml:4); write a smaller number"],
    ),
    // Names, hosts and identities.
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: Api, namespace: shop}",
        &["error FED4001 m.yaml:1 metadata.name: name \"Api\" is not valid: use only \
             lower-case letters, digits and '-' (m.yaml:3); name the object as Kubernetes \
             does, such as \"api\""],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop.a}",
        &["error FED4001 m.yaml:1 metadata.namespace: namespace \"shop.a\" is not valid: \
             use only lower-case letters, digits and '-' (m.yaml:3); name it as Kubernetes \
             does, such as \"shop\""],
    ),
    (
        "apiVersion: fedgate.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: x, \
         namespace: shop}\nspec: {targetRefs: [{group: multicluster.x-k8s.io, kind: \
         ServiceExport, name: api}], allow: [{spiffeId: \
         \"https://east.example/ns/shop/sa/web\"}]}",
        &["error FED4001 AccessPolicy/shop/x spec.allow[0].spiffeId: SPIFFE ID \
             \"https://east.example/ns/shop/sa/web\" is not valid: its scheme is not spiffe \
             (m.yaml:4); write an ID such as \"spiffe://east.example/ns/shop/sa/web\""],
    ),
    (
        "apiVersion: fedgate.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: x, \
         namespace: shop}\nspec: {targetRefs: [{group: multicluster.x-k8s.io, kind: \
         ServiceExport, name: api}], allow: [{spiffeId: \"spiffe://east.example:8443/a\"}]}",
        &["error FED4001 AccessPolicy/shop/x spec.allow[0].spiffeId: SPIFFE ID \
             \"spiffe://east.example:8443/a\" is not valid: a trust domain has only a-z, \
             0-9, '.', '-' and '_' (no port, no user, no %) (m.yaml:4); write an ID such as \
             \"spiffe://east.example/ns/shop/sa/web\""],
    ),
    (
        "apiVersion: fedgate.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: x, \
         namespace: shop}\nspec: {targetRefs: [{group: multicluster.x-k8s.io, kind: \
         ServiceExport, name: api}], allow: [{trustDomain: East.example}]}",
        &["error FED4001 AccessPolicy/shop/x spec.allow[0].trustDomain: trust domain \
             \"East.example\" is not valid: a trust domain has only a-z, 0-9, '.', '-' and \
             '_' (no port, no user, no %) (m.yaml:4); write a trust domain such as \
             \"east.example\""],
    ),
    (
        "apiVersion: fedgate.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: x, \
         namespace: shop}\nspec: {targetRefs: [{group: multicluster.x-k8s.io, kind: \
         ServiceExport, name: api}], allow: [{}]}",
        &["error FED4001 AccessPolicy/shop/x spec.allow[0]: the entry names nobody \
             (m.yaml:4); set cluster, trustDomain or spiffeId; fields of one entry must all \
             match"],
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x, \
         namespace: shop}\nspec: {parentRefs: [{name: e}], hostnames: [\"a.*.example\"], \
         rules: [{backendRefs: [{name: api, port: 80}]}]}",
        &["error FED4001 HTTPRoute/shop/x spec.hostnames[0]: hostname \"a.*.example\" is \
             not valid: use only lower-case letters, digits and '-' (m.yaml:4); write a name \
             such as \"shop.example\" or \"*.shop.example\""],
    ),
    (
        "apiVersion: fedgate.dev/v1alpha1\nkind: ClusterPeer\nmetadata: {name: x}\nspec: \
         {addresses: [{transport: quic, host: \"https://gw\", port: 8443}], trustDomains: \
         [{name: w.example, bundle: '{\"keys\": []}'}]}",
        &["error FED4001 ClusterPeer/x spec.addresses[0].host: \"https://gw\" is neither \
             an IP address nor a DNS name (m.yaml:4); write a host such as \
             \"gw.west.example\", \"192.0.2.7\" or \"2001:db8::7\", without brackets and port"],
    ),
    (
        "apiVersion: fedgate.dev/v1alpha1\nkind: ClusterPeer\nmetadata: {name: x}\nspec: \
         {trustDomains: [{name: w.example, bundle: '{}'}]}",
        &["error FED4001 ClusterPeer/x spec.trustDomains[0].bundle: bundle.keys = \
             (absent): a bundle has \"keys\"; an empty array revokes them all (m.yaml:4); \
             copy the bundle as `fedctl peer` on the other cluster prints it"],
    ),
    // Unknown values.
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: x, \
         namespace: shop}\nspec: {gatewayClassName: fedgate, listeners: [{name: a, port: 80, \
         protocol: http}]}",
        &["error FED4001 Gateway/shop/x spec.listeners[0].protocol: \"http\" is no \
             protocol (m.yaml:4); use HTTP or TCP"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: {type: \
         Cluster, ports: [{port: 80}]}",
        &["error FED4001 Service/shop/api spec.type: \"Cluster\" is no type of a Service \
             (m.yaml:4); use ClusterIP, NodePort or LoadBalancer"],
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x, \
         namespace: shop}\nspec: {parentRefs: [{name: e}], rules: [{matches: [{path: {type: \
         prefix, value: /}}], backendRefs: [{name: api, port: 80}]}]}",
        &["error FED4001 HTTPRoute/shop/x spec.rules[0].matches[0].path.type: \"prefix\" \
             is no path type (m.yaml:4); use PathPrefix"],
    ),
    // Not served, and not harmless.
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec: {type: \
         ExternalName, externalName: metadata.internal}",
        &["error FED4002 Service/shop/api spec.type: an ExternalName Service could lead to \
             any address, so the object is not in service (m.yaml:4); use a Service with \
             EndpointSlices"],
    ),
    (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, \
         namespace: shop, labels: {kubernetes.io/service-name: api}}\naddressType: IPv4\n\
         ports: [{port: 80}]\nendpoints: [{addresses: [169.254.169.254]}]",
        &["error FED4002 EndpointSlice/shop/x endpoints[0].addresses[0]: 169.254.169.254 \
             is link-local, where cloud metadata services are, so endpoints[0] is not in \
             service (m.yaml:6); use an address of the application's own"],
    ),
    (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, \
         namespace: shop, labels: {kubernetes.io/service-name: api}}\naddressType: FQDN\n\
         ports: [{port: 80}]\nendpoints: [{addresses: [example.com]}]",
        &["error FED4002 EndpointSlice/shop/x addressType: an FQDN slice could lead to any \
             address, so the object is not in service (m.yaml:4); use IPv4 or IPv6, with \
             addresses"],
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x, \
         namespace: shop}\nspec: {parentRefs: [{name: e}], rules: [{matches: [{path: {value: \
         /}, headers: [{name: a, value: b}]}], backendRefs: [{name: api, port: 80}]}]}",
        &["error FED4002 HTTPRoute/shop/x spec.rules[0].matches[0].headers: the field is \
             not served or is misspelt, so spec.rules[0] is not in service (m.yaml:4); match \
             by path only"],
    ),
    (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: x, \
         namespace: shop}\nspec: {gatewayClassName: fedgate, listeners: [{name: a, port: \
         443, protocol: TLS}]}",
        &["error FED4002 Gateway/shop/x spec.listeners[0].protocol: protocol TLS is not \
             served, so spec.listeners[0] is not in service (m.yaml:4); use HTTP or TCP"],
    ),
    (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}",
        &["warning FED4003 m.yaml:1 kind: kind \"Deployment\" of \"apps/v1\" is not served \
             (m.yaml:2); nothing, if it is meant for others; docs/reference/kinds.md lists \
             what is served"],
    ),
    // Not YAML.
    (
        "apiVersion: v1\nkind: [Service\n",
        &["error FED4010 m.yaml:2: the file cannot be read as YAML: unclosed bracket '['; \
             nothing of it is in service; mend the file"],
    ),
    (
        "apiVersion: *nobody\n",
        &["error FED4010 m.yaml:1: the file cannot be read as YAML: alias references \
             unknown anchor; nothing of it is in service; mend the file"],
    ),
    (
        "apiVersion: v1\n\tkind: Service\n",
        &["error FED4010 m.yaml:1: the file cannot be read as YAML: while scanning a plain \
             scalar, found a tab; nothing of it is in service; mend the file"],
    ),
];
