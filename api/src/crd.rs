//! The custom resource definitions of Fedgate's own kinds (`apiextensions.k8s.io/v1`), made from the types
//! that read them: one source for what is parsed, what an API server validates, and what
//! `kubectl explain` prints.
//!
//! An API server drops fields that a schema does not have. So `kubectl apply` (which asks for strict
//! validation) refuses a misspelt field before, and the reader here sees only what is left.

mod definition;
mod structural;

use serde_json::Value;

use crate::document_text::Document;
use crate::tree::Node;

/// The definitions of Federation, ClusterPeer, JoinGrant, NamespaceGrant and AccessPolicy.
pub fn all() -> Vec<Value> {
    definition::ALL.iter().map(definition::Definition::render).collect()
}

/// A definition as YAML, with Kubernetes' usual order of keys.
pub fn to_yaml(definition: &Value) -> String {
    Document(Node::of_json(definition)).to_yaml()
}

/// The fields below `spec` and `status` of a definition, each with its type and description, in the
/// order of their paths.
pub fn fields(definition: &Value) -> Vec<Field> {
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut fields = Vec::new();
    for part in ["spec", "status"] {
        collect(part.to_string(), &schema[part], &mut fields);
    }
    fields
}

/// One field of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// As findings name it, with `[]` behind a list: `spec.allow[].cluster`.
    pub path: String,
    /// The OpenAPI type; of a list that of its entries.
    pub r#type: String,
    pub description: String,
}

fn collect(path: String, schema: &Value, fields: &mut Vec<Field>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let description = text(&schema["description"]);
    let (path, schema) = match schema.get("items") {
        Some(items) => (path + "[]", items),
        None => (path, schema),
    };
    fields.push(Field { path: path.clone(), r#type: text(&schema["type"]), description });
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        collect(format!("{path}.{name}"), property, fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds, limits};

    /// A name of a kind and its schema.
    fn schemas() -> Vec<(String, Value)> {
        let schema = |crd: &Value| {
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_string();
            (kind, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
        };
        all().iter().map(schema).collect()
    }

    fn walk(path: &str, schema: &Value, see: &mut impl FnMut(&str, &Value)) {
        see(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, see);
        }
        if let Some(items) = schema.get("items") {
            walk(&format!("{path}[]"), items, see);
        }
    }

    #[test]
    fn every_field_has_a_description() {
        for (kind, schema) in schemas() {
            let mut fields = 0;
            walk(&kind, &schema, &mut |path, schema| {
                fields += 1;
                let description = schema["description"].as_str().unwrap_or_default();
                let is_item = path.ends_with("[]") && schema["type"] != "object";
                let is_metadata = path == format!("{kind}.metadata");
                assert!(
                    is_item || is_metadata || description.ends_with('.'),
                    "{path}: {description:?}"
                );
                assert!(!description.contains("{{"), "{path}: Helm would expand it");
            });
            assert!(fields > 10, "{kind} has {fields} fields");
        }
    }

    /// Structural, by the rules of apiextensions v1: a type everywhere, and none of the words that
    /// such schemas may not have.
    #[test]
    fn schemas_are_structural() {
        const WORDS: &[&str] = &[
            "type",
            "description",
            "properties",
            "required",
            "items",
            "enum",
            "pattern",
            "format",
            "default",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minimum",
            "maximum",
            "x-kubernetes-validations",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
        ];
        for (kind, schema) in schemas() {
            walk(&kind, &schema, &mut |path, schema| {
                assert!(schema["type"].is_string(), "{path} has no type: {schema}");
                for word in schema.as_object().unwrap().keys() {
                    assert!(WORDS.contains(&word.as_str()), "{path}: {word}");
                }
                // Without bounds an API server cannot bound what a rule in CEL costs.
                match schema["type"].as_str() {
                    Some("array") => assert!(schema["maxItems"].is_u64(), "{path} is unbounded"),
                    Some("string") => assert!(
                        schema["maxLength"].is_u64()
                            || schema["enum"].is_array()
                            || schema["format"] == "date-time"
                            || path.matches('.').count() == 1,
                        "{path} is unbounded"
                    ),
                    _ => {}
                }
                assert!(
                    !schema.get("default").is_some_and(|default| *default == Value::Array(vec![]))
                );
            });
        }
    }

    #[test]
    fn definitions_are_small_enough_for_kubectl_apply() {
        for crd in all() {
            let bytes = crd.to_string().len();
            assert!(bytes < limits::CRD_BYTES_MAX, "{} has {bytes} bytes", crd["metadata"]["name"]);
        }
    }

    #[test]
    fn names_are_unique_and_those_of_the_parser() {
        let mut names = std::collections::BTreeSet::new();
        for crd in all() {
            let given = &crd["spec"]["names"];
            let kind = given["kind"].as_str().unwrap();
            let namespaced = crd["spec"]["scope"] == "Namespaced";
            match kinds::ALL.iter().find(|known| known.kind == kind) {
                Some(known) => assert_eq!(known.namespaced, namespaced, "{kind}"),
                None => assert!(kinds::controlled::ALL.iter().any(|known| known.kind == kind)),
            }
            assert_eq!(given["listKind"], format!("{kind}List"));
            assert_eq!(given["singular"], kind.to_lowercase());
            assert_eq!(given["categories"], serde_json::json!(["fed"]));
            let short = given["shortNames"].as_array().unwrap().iter();
            for name in short.chain([&given["plural"], &given["singular"]]) {
                assert!(names.insert(name.as_str().unwrap().to_string()), "{name} is there twice");
            }
        }
        assert_eq!(all().len(), 5);
    }

    #[test]
    fn a_definition_reads_back_from_its_yaml() {
        for crd in all() {
            let yaml = to_yaml(&crd);
            assert!(
                yaml.starts_with("apiVersion: apiextensions.k8s.io/v1\nkind: Custom"),
                "{yaml}"
            );
            assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), crd);
        }
    }
}
