//! The charts, as far as that can be judged without Helm: what they render stands in
//! `helm/tests/golden/`, which `helm/tests/run.sh` compares with what Helm makes of them.

mod configuration;
mod pods;
mod rights;
mod telling;

use std::collections::BTreeMap;

use serde_json::Value;
use xtask::reference;
use xtask::repo::Repo;

const VALUES: &str = "helm/fedgate/values.yaml";
const SCHEMA: &str = "helm/fedgate/values.schema.json";
/// Shapes that have more fields than we list, on purpose: any kind of volume, any object.
const OPEN_SHAPES: [&str; 2] = ["volume", "object"];

#[test]
fn the_reference_of_values_and_their_schema_are_current() {
    let repo = Repo::here().unwrap();
    let text = repo.text(VALUES).unwrap();
    let defaults: Value = serde_saphyr::from_str(text).unwrap();
    for page in reference::values_pages(text, &defaults).unwrap() {
        page.settle(&repo.root).unwrap();
    }
}

#[test]
fn the_schema_knows_every_value_and_no_other() {
    let repo = Repo::here().unwrap();
    let schema: Value = serde_json::from_str(repo.text(SCHEMA).unwrap()).unwrap();
    let mut open = Vec::new();
    open_maps(&schema, "", &mut open);
    let allowed = OPEN_SHAPES.map(|name| format!("/definitions/{name}"));
    assert_eq!(open, {
        let mut sorted = allowed.to_vec();
        sorted.sort();
        sorted
    });

    let defaults: Value = serde_saphyr::from_str(repo.text(VALUES).unwrap()).unwrap();
    assert_eq!(unknown_values(&schema, &defaults), [""; 0]);
    let typo = serde_json::json!({"gateway": {"replicas": 3}, "clutser": {}});
    assert_eq!(unknown_values(&schema, &typo), ["clutser", "gateway.replicas"]);
}

/// Maps with named fields that let others in, too.
fn open_maps(schema: &Value, place: &str, open: &mut Vec<String>) {
    let Some(map) = schema.as_object() else { return };
    let names_fields = map.get("properties").is_some_and(Value::is_object);
    if names_fields
        && map.get("type").is_some()
        && map.get("additionalProperties") != Some(&Value::Bool(false))
    {
        open.push(place.to_owned());
    }
    for (key, inner) in map {
        open_maps(inner, &format!("{place}/{key}"), open);
    }
}

/// Values that the schema does not have, by name; what has a shape of its own is not entered.
fn unknown_values(schema: &Value, values: &Value) -> Vec<String> {
    fn walk(schema: &Value, values: &Value, name: &str, unknown: &mut Vec<String>) {
        let (Some(fields), Some(values)) = (schema["properties"].as_object(), values.as_object())
        else {
            return;
        };
        for (key, value) in values {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            match fields.get(key) {
                Some(field) => walk(field, value, &name, unknown),
                None => unknown.push(name),
            }
        }
    }
    let mut unknown = Vec::new();
    walk(schema, values, "", &mut unknown);
    unknown.sort();
    unknown
}

/// Everything that one set of values renders.
struct Render {
    name: String,
    objects: Vec<Value>,
}

impl Render {
    fn all(repo: &Repo) -> Vec<Self> {
        let files = repo.texts(".yaml").filter(|(path, _)| path.starts_with("helm/tests/golden/"));
        let renders = files.map(|(path, text)| {
            let objects: Vec<Value> = serde_saphyr::from_multiple(text).expect("Helm renders YAML");
            Self {
                name: path.to_owned(),
                objects: objects.into_iter().filter(Value::is_object).collect(),
            }
        });
        let renders: Vec<Self> = renders.collect();
        assert!(renders.len() >= 6, "goldens are missing: UPDATE=1 helm/tests/run.sh");
        renders
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    fn named<'a>(&'a self, kind: &'a str, ending: &str) -> Option<&'a Value> {
        self.of_kind(kind).find(|object| name_of(object).ends_with(ending))
    }

    /// Name and specification of each pod, or of what makes it.
    fn pods(&self) -> BTreeMap<String, &Value> {
        let templates = ["StatefulSet", "Deployment", "DaemonSet"]
            .into_iter()
            .flat_map(|kind| self.of_kind(kind))
            .map(|object| (name_of(object).to_owned(), &object["spec"]["template"]));
        let pods = self.of_kind("Pod").map(|pod| (name_of(pod).to_owned(), pod));
        templates.chain(pods).collect()
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Whether `labels` has everything that `selector` asks for.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("a selector is a map");
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
