//! One spelling for every document: what `fedctl apply` keeps, `get` prints and `diff` compares.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::tree::{self, Node, SyntaxError, Value};

/// Fields of `metadata` that the server sets: they are no part of what a user declares.
const SERVER_FIELDS: &[&str] =
    &["creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];

/// One manifest of one object, without regard to how it was indented, quoted or commented.
#[derive(Debug, Clone, PartialEq)]
pub struct Document(pub(crate) Node);

/// What the server says of an object: when it was first declared, and how often it has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// RFC 3339, as `metadata.creationTimestamp`.
    pub created: String,
    /// From 1, as `metadata.generation`.
    pub generation: u64,
}

impl Document {
    /// The documents of a file in their order; a `v1 List` counts as its items.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, SyntaxError> {
        let mut documents = Vec::new();
        for node in tree::parse_documents(text)? {
            match items_of_list(&node) {
                Some(items) => documents.extend(items.iter().cloned().map(Self)),
                None => documents.push(Self(node)),
            }
        }
        Ok(documents)
    }

    /// The line in the text that it was parsed from.
    pub fn line(&self) -> u64 {
        self.0.line
    }

    /// Without what a server has set.
    #[must_use]
    pub fn declared(mut self) -> Self {
        if let Some(metadata) = self.metadata() {
            metadata.retain(|(key, _)| !SERVER_FIELDS.contains(&key.as_str()));
        }
        self
    }

    /// With what this server says of it.
    #[must_use]
    pub fn stamped(self, stamp: &Stamp) -> Self {
        let mut document = self.declared();
        if let Some(metadata) = document.metadata() {
            let created = Value::Text(stamp.created.clone());
            metadata.push(("creationTimestamp".into(), created.into()));
            let generation = Value::Integer(stamp.generation.into());
            metadata.push(("generation".into(), generation.into()));
        }
        document
    }

    /// What a server said of it; `None` when one of the two is missing or of another type.
    pub fn stamp(&self) -> Option<Stamp> {
        let field = |name: &str| {
            let Value::Map(entries) = &self.0.nearest("metadata").value else { return None };
            entries.iter().find(|(key, _)| key == name).map(|(_, node)| &node.value)
        };
        let Some(Value::Text(created)) = field("creationTimestamp") else { return None };
        let Some(Value::Integer(generation)) = field("generation") else { return None };
        let generation = u64::try_from(*generation).ok()?;
        Some(Stamp { created: created.clone(), generation })
    }

    /// Keys in Kubernetes' usual order, the others by name.
    pub fn to_yaml(&self) -> String {
        let text = serde_saphyr::to_string(&Ordered(&self.0.value));
        text.expect("a tree of maps with string keys is YAML")
    }

    fn metadata(&mut self) -> Option<&mut Vec<(String, Node)>> {
        let Value::Map(entries) = &mut self.0.value else { return None };
        let (_, metadata) = entries.iter_mut().find(|(key, _)| key == "metadata")?;
        match &mut metadata.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }
}

fn items_of_list(node: &Node) -> Option<&[Node]> {
    let Value::Map(entries) = &node.value else { return None };
    let text = |name: &str| {
        let found = entries.iter().find(|(key, _)| key == name);
        found.and_then(|(_, node)| match &node.value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    };
    if (text("apiVersion"), text("kind")) != (Some("v1"), Some("List")) {
        return None;
    }
    let (_, items) = entries.iter().find(|(key, _)| key == "items")?;
    match &items.value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

/// A made value stands in no text.
impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self { line: 0, value }
    }
}

/// The value, with the keys of its maps in order.
struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => serializer.serialize_i64(value),
                (_, Ok(value)) => serializer.serialize_u64(value),
                _ => serializer.serialize_i128(*value),
            },
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::Text(value) => serializer.serialize_str(value),
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Ordered(&item.value))?;
                }
                list.end()
            }
            Value::Map(entries) => {
                let mut sorted: Vec<&(String, Node)> = entries.iter().collect();
                sorted.sort_by_key(|(key, _)| (rank(key), key.clone()));
                let mut map = serializer.serialize_map(Some(sorted.len()))?;
                for (key, node) in sorted {
                    map.serialize_entry(key, &Ordered(&node.value))?;
                }
                map.end()
            }
        }
    }
}

fn rank(key: &str) -> usize {
    const FIRST: &[&str] = &["apiVersion", "kind", "metadata", "name", "namespace", "spec"];
    FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_manifest;

    const WRITTEN: &str = "\
# a comment
kind: AccessPolicy
spec: {allow: [{cluster: west}], targetRefs: [{name: api, kind: ServiceExport, \
group: multicluster.x-k8s.io}]}
apiVersion: 'fedgate.dev/v1alpha1'
metadata:
  namespace: shop
  uid: 1-2-3
  labels: {\"no\": \"yes\", n: '1'}
  name: api
";
    const SPELT: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata:
  name: api
  namespace: shop
  labels:
    n: \"1\"
    \"no\": \"yes\"
spec:
  allow:
    - cluster: west
  targetRefs:
    - name: api
      group: multicluster.x-k8s.io
      kind: ServiceExport
";

    #[test]
    fn a_document_has_one_spelling() {
        let written = Document::parse_all(WRITTEN).unwrap().remove(0).declared();
        let text = written.to_yaml();
        let again = Document::parse_all(&text).unwrap().remove(0);
        assert_eq!(again.to_yaml(), text, "the spelling of a spelling is itself");
        let want = Document::parse_all(SPELT).unwrap().remove(0).to_yaml();
        assert_eq!(text, want);
        assert!(text.starts_with("apiVersion: fedgate.dev/v1alpha1\nkind: AccessPolicy\n"));
        assert!(!text.contains("uid"), "{text}");
    }

    #[test]
    fn every_golden_manifest_means_the_same_in_its_spelling() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../discovery/testdata/translate");
        let mut compared = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.to_string_lossy().ends_with(".in.yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let Ok(documents) = Document::parse_all(&text) else { continue };
            let spelt: Vec<String> = documents.iter().map(Document::to_yaml).collect();
            let resources = |text: &str| {
                let manifest = parse_manifest("f", text).unwrap();
                manifest.objects.into_iter().map(|object| object.resource).collect::<Vec<_>>()
            };
            let apart: Vec<_> = spelt.iter().flat_map(|text| resources(text)).collect();
            assert_eq!(apart, resources(&text), "{}", path.display());
            compared += apart.len();
        }
        assert!(compared > 20, "{compared}");
    }

    #[test]
    fn a_list_counts_as_its_items() {
        let text = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Service}}\n- {{a: 1}}\n\
             ---\n{WRITTEN}"
        );
        assert_eq!(Document::parse_all(&text).unwrap().len(), 3);
        let odd = "apiVersion: v1\nkind: List\nitems: 7\n";
        assert_eq!(Document::parse_all(odd).unwrap().len(), 1);
    }

    #[test]
    fn a_stamp_is_read_back_and_replaces_the_users_own() {
        let document = Document::parse_all(WRITTEN).unwrap().remove(0);
        assert_eq!(document.stamp(), None);
        let stamp = Stamp { created: "2026-01-02T03:04:05Z".into(), generation: 3 };
        let stamped = document.clone().stamped(&stamp);
        let again = Document::parse_all(&stamped.to_yaml()).unwrap().remove(0);
        assert_eq!(again.stamp(), Some(stamp.clone()));
        let later = again.stamped(&Stamp { generation: 4, ..stamp });
        assert_eq!(later.to_yaml().matches("generation").count(), 1);
        assert_eq!(later.declared().to_yaml(), document.declared().to_yaml());
    }
}
