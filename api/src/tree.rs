//! YAML documents as trees in which every node knows its line.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::limits;

/// Text that is not YAML, or is YAML beyond the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct SyntaxError {
    /// The line, from 1, where the parser knows it.
    pub line: Option<u64>,
    pub problem: String,
}

/// A value and the line where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u64,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Splits a file into its documents; empty ones are left out. Duplicate keys are refused.
pub(crate) fn parse_documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    if text.len() > limits::MANIFEST_BYTES_MAX {
        let problem = format!(
            "the text has {} bytes, at most {} are read",
            text.len(),
            limits::MANIFEST_BYTES_MAX
        );
        return Err(SyntaxError { line: None, problem });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: limits::DEPTH_MAX,
            max_documents: limits::DOCUMENTS_PER_FILE_MAX,
            max_nodes: limits::NODES_PER_FILE_MAX
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: limits::ALIAS_NODES_MAX,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    let parsed = serde_saphyr::from_multiple_with_options::<Node>(text, options);
    let documents = parsed.map_err(|error| {
        let line = error.location().map(|location| location.line());
        // The parser's own text ends with its place, which the caller prints in its own way.
        let text = error.without_snippet().to_string();
        let problem = text.split(" at line ").next().unwrap_or_default();
        // It also names its own options, which are no user's.
        let problem = problem.split(", set ").next().unwrap_or_default();
        SyntaxError { line: line.filter(|line| *line > 0), problem: shorten(problem) }
    })?;
    Ok(documents.into_iter().filter(|node| node.value != Value::Null).collect())
}

impl Node {
    /// An object of an API server. It stands in no text, so its nodes have the line 0.
    pub(crate) fn of_object(object: &serde_json::Value) -> Self {
        let Some(fields) = object.as_object() else { return Self::of_json(object) };
        let entries = fields.iter().map(|(key, value)| {
            let node =
                if key == "metadata" { Self::of_metadata(value) } else { Self::of_json(value) };
            (key.clone(), node)
        });
        Value::Map(entries.collect()).into()
    }

    /// Without `managedFields`, which nobody reads and which are often larger than all the rest.
    fn of_metadata(metadata: &serde_json::Value) -> Self {
        let Some(fields) = metadata.as_object() else { return Self::of_json(metadata) };
        let kept = fields.iter().filter(|(key, _)| *key != "managedFields");
        Value::Map(kept.map(|(key, value)| (key.clone(), Self::of_json(value))).collect()).into()
    }

    pub(crate) fn of_json(value: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i128() {
                Some(integer) => Value::Integer(integer),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::of_json).collect()),
            Json::Object(fields) => {
                let entries = fields.iter().map(|(key, value)| (key.clone(), Self::of_json(value)));
                Value::Map(entries.collect())
            }
        };
        value.into()
    }

    /// The node at a path as [`crate::read`] writes them, or its nearest ancestor that exists.
    pub(crate) fn nearest(&self, path: &str) -> &Self {
        let mut node = self;
        for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
            let part = part.trim_end_matches(']').trim_matches('"');
            let child = match &node.value {
                Value::Map(entries) => entries.iter().find(|(key, _)| key == part).map(|e| &e.1),
                Value::List(items) => part.parse().ok().and_then(|i: usize| items.get(i)),
                _ => None,
            };
            match child {
                Some(child) => node = child,
                None => break,
            }
        }
        node
    }
}

/// A node as an error message describes it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Bool(value) => write!(f, "the boolean {value}"),
            Self::Integer(value) => write!(f, "the number {value}"),
            Self::Float(value) => write!(f, "the number {value}"),
            Self::Text(value) => write!(f, "the text {:?}", shorten(value)),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
        }
    }
}

pub(crate) fn shorten(text: &str) -> String {
    if text.chars().count() <= limits::SHOWN_CHARS_MAX {
        return text.to_string();
    }
    text.chars().take(limits::SHOWN_CHARS_MAX).chain("...".chars()).collect()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_string()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_lines_types_and_order() {
        let documents = parse_documents("# head\n---\na: 1\nb: 'x'\n---\n---\nc:\n- yes\n- 0x10\n");
        let documents = documents.unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].nearest("b").line, 4);
        assert_eq!(documents[0].nearest("a").value, Value::Integer(1));
        assert_eq!(documents[0].nearest("b").value, Value::Text("x".into()));
        assert_eq!(documents[1].nearest("c[0]").value, Value::Text("yes".into()));
        assert_eq!(documents[1].nearest("c[1]").value, Value::Integer(16));
        assert_eq!(documents[1].nearest("c[1]").line, 9);
        assert_eq!(documents[1].nearest("c[7].x").line, documents[1].nearest("c").line);
        assert!(parse_documents("").unwrap().is_empty());
        assert!(parse_documents("# only a comment\n").unwrap().is_empty());
    }

    #[test]
    fn text_that_is_not_yaml_is_refused_with_its_line() {
        let bomb = (1..9).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_string(), |text, i| {
            let before = format!("*a{}", i - 1);
            let items = vec![before; 9].join(", ");
            text + &format!("a{i}: &a{i} [{items}]\n")
        });
        let deep = "[".repeat(100_000);
        let documents = "---\na: 1\n".repeat(limits::DOCUMENTS_PER_FILE_MAX + 1);
        for (text, line, problem) in [
            ("a: 1\na: 2\n", Some(2), "duplicate"),
            ("a: [1, 2\n", Some(1), "unclosed bracket"),
            ("a: 1\n\tb: 2\n", Some(1), "tab"),
            ("a: *nobody\n", Some(1), "anchor"),
            (&bomb, None, "limit"),
            (&deep, None, ""),
            (&documents, None, ""),
        ] {
            let error = parse_documents(text).unwrap_err();
            assert!(error.problem.contains(problem), "{text:.40}: {error:?}");
            assert!(error.problem.chars().count() <= limits::SHOWN_CHARS_MAX + 3);
            assert!(line.is_none() || error.line == line, "{text:.40}: {error:?}");
        }
        let huge = " ".repeat(limits::MANIFEST_BYTES_MAX + 1);
        assert!(parse_documents(&huge).unwrap_err().problem.contains("at most 4194304"));
    }
}
