//! A manifest file: its documents, `kind: List`, and which kind reads which document.

use model::{Diagnostic, Resource};
use serde::Deserialize;

use crate::kinds::gateway_class::GatewayClasses;
use crate::kinds::{self, Kind, Reading};
use crate::metadata::{self, TypeMeta};
use crate::report::{FieldRules, Place, Report, Treatment, quoted};
use crate::tree::{self, Node, SyntaxError, Value};

/// What one manifest file says.
#[derive(Debug, Default)]
pub struct Manifest {
    /// In the order of the file; the same key may be there twice.
    pub objects: Vec<Object>,
    pub diagnostics: Vec<Diagnostic>,
}

/// An object that is in service, and the line where it begins (0 where it stands in no text).
#[derive(Debug)]
pub struct Object {
    pub resource: Resource,
    pub line: u64,
}

/// Reads one file's text. `file` is the name that diagnostics show.
pub fn parse_manifest(file: &str, text: &str) -> Result<Manifest, SyntaxError> {
    let documents = tree::parse_documents(text)?;
    let mut manifest = Manifest::default();
    let classes = GatewayClasses::default();
    for document in &documents {
        read_document(Place { file, classes: &classes }, document, &mut manifest);
    }
    Ok(manifest)
}

/// Reads one object as an API server returns it, as strictly as a document of a file. `name` is what
/// diagnostics show as its place; there are no lines. The object must have `apiVersion` and `kind`.
pub fn parse_object(name: &str, object: &serde_json::Value) -> Manifest {
    parse_object_of(name, object, &GatewayClasses::default())
}

/// [`parse_object`], where these classes of Gateways are ours.
pub fn parse_object_of(
    name: &str,
    object: &serde_json::Value,
    classes: &GatewayClasses,
) -> Manifest {
    let mut manifest = Manifest::default();
    read_document(Place { file: name, classes }, &Node::of_object(object), &mut manifest);
    manifest
}

fn read_document(place: Place<'_>, document: &Node, manifest: &mut Manifest) {
    let mut report = Report::new(place, document);
    match read_kind(&mut report) {
        Some(Dispatch::List) => read_list(place, document, report, manifest),
        Some(Dispatch::Kind(kind)) => read_object(document, kind, report, manifest),
        None => manifest.diagnostics.extend(report.into_diagnostics()),
    }
}

enum Dispatch {
    List,
    Kind(&'static Kind),
}

fn read_kind(report: &mut Report<'_>) -> Option<Dispatch> {
    const ALL: FieldRules = &[("*", Treatment::Silent)];
    let TypeMeta { api_version, kind } = report.read(ALL)?;
    let served = "the manifest of a Kubernetes object begins with apiVersion and kind";
    let (Some(api_version), Some(kind)) = (&api_version, &kind) else {
        let field = if api_version.is_none() { "apiVersion" } else { "kind" };
        report.invalid(field, "the field is missing", served);
        return None;
    };
    if api_version == "v1" && kind == "List" {
        return Some(Dispatch::List);
    }
    let Some(found) = kinds::ALL.iter().find(|known| known.kind == kind) else {
        if let Some(known) = kinds::controlled::ALL.iter().find(|known| known.kind == kind) {
            let message = format!("a {kind} does nothing outside of Kubernetes");
            report.kind_not_served("kind", message, &format!("remove it; {}", known.instead));
            return None;
        }
        let message = format!("kind {} of {} is not served", quoted(kind), quoted(api_version));
        let fix =
            "nothing, if it is meant for others; docs/reference/kinds.md lists what is served";
        report.kind_not_served("kind", message, fix);
        return None;
    };
    if !found.api_versions.contains(&api_version.as_str()) {
        let message = format!("{kind} is not served as {}", quoted(api_version));
        let fix = format!("write apiVersion: {}", found.api_versions.join(" or "));
        report.kind_not_served("apiVersion", message, &fix);
        return None;
    }
    Some(Dispatch::Kind(found))
}

fn read_object(document: &Node, kind: &'static Kind, report: Report<'_>, manifest: &mut Manifest) {
    let mut report = report;
    let identity = metadata::read(&mut report, kind.kind, kind.namespaced, kind.parts);
    let reading = match identity {
        Some(identity) => (kind.read)(kind, &identity, &mut report),
        None => Reading::Invalid,
    };
    match reading {
        Reading::NotOurs => return,
        Reading::Served(resource) if !report.failed() => {
            if is_sendable(&resource, &mut report) {
                manifest.objects.push(Object { resource: *resource, line: document.line });
            }
        }
        Reading::Served(_) | Reading::Invalid => {}
    }
    manifest.diagnostics.extend(report.into_diagnostics());
}

/// Whether gateways accept the object: one that they refuse would stop the stream for all others.
/// What can be wrong at this point is the size of the whole, since each part is within its limits.
fn is_sendable(resource: &Resource, report: &mut Report<'_>) -> bool {
    let message = wire::resource::encode_resource(resource);
    match wire::resource::decode_resource(message) {
        Ok(_) => true,
        Err(error) => {
            report.invalid("", format!("gateways would refuse the object: {error}"), "split it");
            false
        }
    }
}

#[derive(Debug, Deserialize)]
struct List {
    #[expect(
        dead_code,
        reason = "its presence and type are checked; the nodes are read one by one"
    )]
    items: Vec<Item>,
}

/// Any map.
#[derive(Debug, Deserialize)]
struct Item {}

fn read_list(place: Place<'_>, document: &Node, report: Report<'_>, manifest: &mut Manifest) {
    const RULES: FieldRules = &[("items[].*", Treatment::Silent)];
    let mut report = report;
    let list = report.read::<List>(RULES);
    manifest.diagnostics.extend(report.into_diagnostics());
    let (Some(_), Value::List(items)) = (list, &document.nearest("items").value) else { return };
    for item in items {
        let mut report = Report::new(place, item);
        match read_kind(&mut report) {
            Some(Dispatch::Kind(kind)) => read_object(item, kind, report, manifest),
            Some(Dispatch::List) => {
                let fix = "put its items into the outer one";
                report.invalid("kind", "a List within a List is not served", fix);
                manifest.diagnostics.extend(report.into_diagnostics());
            }
            None => manifest.diagnostics.extend(report.into_diagnostics()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words that lead deep into the kinds.
    const WORDS: &[&str] = &[
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "namespace",
        "labels",
        "spec",
        "ports",
        "port",
        "rules",
        "matches",
        "path",
        "value",
        "backendRefs",
        "parentRefs",
        "listeners",
        "endpoints",
        "addresses",
        "trustDomains",
        "bundle",
        "allow",
        "targetRefs",
        "items",
        "status",
        "clusters",
        "gatewayClassName",
        "addressType",
        "kubernetes.io/service-name",
        "Service",
        "HTTPRoute",
        "Gateway",
        "ClusterPeer",
        "AccessPolicy",
        "EndpointSlice",
        "List",
        "v1",
        "gateway.networking.k8s.io/v1",
        "fedgate.dev/v1alpha1",
        "discovery.k8s.io/v1",
        "fedgate",
        "IPv4",
        "80",
        "-1",
        "null",
    ];
    /// What YAML is made of, and what it should not be.
    const SIGNS: &[&str] = &[
        "~", "''", "\"\"", "[", "]", "{", "}", ",", ": ", "- ", "\n", "\n  ", "\n    ", "\n---\n",
        "&a", "*a", "<<", "!!str ", "|\n", "# ", "\t", "\u{feff}", "é", "\0",
    ];

    /// A value as a tree, written in flow style behind a head that is right.
    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            prop::sample::select(WORDS).prop_map(|word| format!("{word:?}")),
            any::<i64>().prop_map(|number| number.to_string()),
            Just("null".to_string()),
        ];
        let key = prop::sample::select(WORDS);
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(", "))),
                prop::collection::btree_map(key.clone(), inner, 0..6).prop_map(|map| {
                    let entries: Vec<_> =
                        map.into_iter().map(|(key, value)| format!("{key:?}: {value}")).collect();
                    format!("{{{}}}", entries.join(", "))
                }),
            ]
        })
    }

    #[test]
    fn an_object_that_gateways_would_refuse_is_left_out() {
        let addresses: Vec<_> = (0..100).map(|i| format!("\"2001:db8:1234::{i:x}\"")).collect();
        let endpoint = format!("- addresses: [{}]\n", addresses.join(","));
        let text = |endpoints: usize| {
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: x, labels: {{kubernetes.io/service-name: x}}}}\n\
                 addressType: IPv6\nports: [{{port: 1}}]\nendpoints:\n{}",
                endpoint.repeat(endpoints)
            )
        };
        let manifest = parse_manifest("f.yaml", &text(500)).unwrap();
        assert_eq!((manifest.objects.len(), manifest.diagnostics.len()), (1, 0));
        let manifest = parse_manifest("f.yaml", &text(1000)).unwrap();
        assert!(manifest.objects.is_empty());
        let message = manifest.diagnostics[0].to_string();
        assert!(message.contains("gateways would refuse the object"), "{message}");
        assert!(message.contains("at most 1048576"), "{message}");
    }

    /// All golden files of the file provider, once as text and once as an API server has them.
    #[test]
    fn an_object_is_read_as_its_manifest_is() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../discovery/testdata/translate");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let documents = serde_saphyr::from_multiple::<serde_json::Value>(&text);
            let (Ok(manifest), Ok(documents)) = (parse_manifest("f", &text), documents) else {
                continue;
            };
            let mut found = Manifest::default();
            for document in documents.iter().filter(|document| !document.is_null()) {
                let one = parse_object("f", document);
                found.objects.extend(one.objects);
                found.diagnostics.extend(one.diagnostics);
            }
            let resources = |manifest: &Manifest| -> Vec<_> {
                manifest.objects.iter().map(|object| object.resource.clone()).collect()
            };
            assert_eq!(resources(&found), resources(&manifest), "{path:?}");
            assert!(found.objects.iter().all(|object| object.line == 0));
            let without_lines = |text: &str| {
                let parts = text.split("f:").enumerate().map(|(index, part)| match index {
                    0 => part,
                    _ => part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':'),
                });
                parts.collect::<Vec<_>>().join("f")
            };
            let texts = |manifest: &Manifest| {
                let each = manifest.diagnostics.iter().map(|it| without_lines(&it.to_string()));
                let mut all: Vec<_> = each.collect();
                all.sort();
                all
            };
            assert_eq!(texts(&found), texts(&manifest), "{path:?}");
            count += found.objects.len() + found.diagnostics.len();
        }
        assert!(count > 100, "only {count} objects and findings");
    }

    /// What a kube-apiserver 1.36 with Gateway API 1.6.3 and MCS 0.5.2 made of correct objects: nothing
    /// that it adds is a finding.
    #[test]
    fn what_an_api_server_adds_is_not_found_fault_with() {
        let objects = include_str!("../testdata/api-server.json");
        let objects: Vec<serde_json::Value> = serde_json::from_str(objects).unwrap();
        let mut read = std::collections::BTreeSet::new();
        for object in &objects {
            let (served, diagnostics) = match object["kind"].as_str().unwrap() {
                "Federation" => {
                    let (spec, diagnostics) = kinds::federation::read("kubernetes", object);
                    (spec.is_some(), diagnostics)
                }
                "JoinGrant" => {
                    let (grant, diagnostics) = kinds::join_grant::read("kubernetes", object);
                    (grant.is_some(), diagnostics)
                }
                _ => {
                    let manifest = parse_object("kubernetes", object);
                    (manifest.objects.len() == 1, manifest.diagnostics)
                }
            };
            assert!(served && diagnostics.is_empty(), "{object:#}: {diagnostics:#?}");
            read.insert(object["kind"].as_str().unwrap());
        }
        let all = kinds::ALL.iter().map(|kind| kind.kind);
        assert_eq!(read, all.chain(["Federation", "JoinGrant"]).collect());
    }

    #[test]
    fn managed_fields_are_not_even_looked_at() {
        let export = |metadata: serde_json::Value| {
            let (api_version, kind) = ("multicluster.x-k8s.io/v1beta1", "ServiceExport");
            serde_json::json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
        };
        let object = export(serde_json::json!({
            "name": "web", "namespace": "shop", "uid": "0d8e", "generation": 1,
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:metadata": {".": {}}}}],
        }));
        assert!(!format!("{:?}", Node::of_object(&object)).contains("kubectl"));
        let manifest = parse_object("kubernetes", &object);
        assert_eq!((manifest.objects.len(), manifest.diagnostics), (1, vec![]));
        let manifest = parse_object("kubernetes", &export(serde_json::json!(["web"])));
        let message = manifest.diagnostics[0].to_string();
        assert!(
            message.contains("metadata: a list does not belong here (kubernetes)"),
            "{message}"
        );
        assert_eq!(parse_object("kubernetes", &serde_json::json!(7)).diagnostics.len(), 1);
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in ".{0,400}") {
            let _ = parse_manifest("f.yaml", &text);
        }

        #[test]
        fn random_words_never_panic(
            words in prop::collection::vec(prop::sample::select([WORDS, SIGNS].concat()), 0..80)
        ) {
            let _ = parse_manifest("f.yaml", &words.concat());
        }

        /// An object is in service or something is said of it; never neither.
        #[test]
        fn random_objects_are_served_or_explained(kind in 0..kinds::ALL.len(), spec in value()) {
            let kind = &kinds::ALL[kind];
            let namespace = if kind.namespaced { ", namespace: shop" } else { "" };
            let text = format!(
                "{{apiVersion: {}, kind: {}, metadata: {{name: x{namespace}, labels: \
                 {{kubernetes.io/service-name: x}}}}, addressType: IPv4, spec: {spec}}}",
                kind.api_versions[0], kind.kind
            );
            let manifest = parse_manifest("f.yaml", &text).unwrap();
            let others = matches!(kind.kind, "Gateway" | "ReferenceGrant");
            prop_assert!(manifest.objects.len() + manifest.diagnostics.len() > 0 || others);
        }
    }
}
