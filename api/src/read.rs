//! Reads a [`Node`] into a serde type, notes every field that the type does not have, and says of
//! what does not fit where it stands and what belongs there.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::tree::{Node, Value};

/// A field that the type does not have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unserved<'n> {
    pub(crate) path: String,
    pub(crate) node: &'n Node,
}

/// Why a node does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadError {
    /// Empty until the error has passed the reader of the node that it is about.
    pub(crate) path: String,
    pub(crate) problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    Mismatch { found: String, expected: &'static str },
    Missing(&'static str),
    Other(String),
}

impl ReadError {
    pub(crate) fn message(&self) -> String {
        match &self.problem {
            Problem::Mismatch { found, .. } => format!("{found} does not belong here"),
            Problem::Missing(_) => "the field is missing".to_string(),
            Problem::Other(text) => text.clone(),
        }
    }

    pub(crate) fn fix(&self) -> String {
        match &self.problem {
            Problem::Mismatch { expected, .. } => format!("write {expected}"),
            Problem::Missing(_) => "add it".to_string(),
            Problem::Other(_) => "mend the field".to_string(),
        }
    }
}

/// Reads a whole document; also returns the fields that `T` does not have.
pub(crate) fn read<'n, T: Deserialize<'n>>(
    node: &'n Node,
) -> Result<(T, Vec<Unserved<'n>>), ReadError> {
    let unserved = RefCell::new(Vec::new());
    let value = T::deserialize(Reader { node, path: &Path::Root, unserved: &unserved })?;
    Ok((value, unserved.into_inner()))
}

/// Where a node stands: `spec.rules[0].matches`, with odd keys in quotes.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Field(&'p Self, &'p str),
    Index(&'p Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(parent, name) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                match (parent, name.chars().all(plain)) {
                    (Self::Root, true) => f.write_str(name),
                    (parent, true) => write!(f, "{parent}.{name}"),
                    (parent, false) => write!(f, "{parent}[{:?}]", crate::tree::shorten(name)),
                }
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

struct Reader<'n, 'p> {
    node: &'n Node,
    path: &'p Path<'p>,
    unserved: &'p RefCell<Vec<Unserved<'n>>>,
}

impl<'n, 'p> Reader<'n, 'p> {
    fn mismatch<T>(&self, expected: &'static str) -> Result<T, ReadError> {
        let problem = Problem::Mismatch { found: self.node.value.to_string(), expected };
        Err(ReadError { path: self.path.to_string(), problem })
    }

    /// Gives an error its path when it comes from the visitor of this very node.
    fn locate<T>(&self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        result.map_err(|mut error| {
            if error.path.is_empty() {
                error.path = match error.problem {
                    Problem::Missing(field) => Path::Field(self.path, field).to_string(),
                    _ => self.path.to_string(),
                };
            }
            error
        })
    }

    fn map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Value::Map(entries) = &self.node.value else { return self.mismatch("a map of fields") };
        // As in Kubernetes, `field: null` is the same as leaving the field out.
        let entries = entries.iter().filter(|(_, node)| node.value != Value::Null);
        let mut entries = Entries { reader: &self, entries, value: None };
        self.locate(visitor.visit_map(&mut entries))
    }
}

impl<'n> Deserializer<'n> for Reader<'n, '_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => self.locate(visitor.visit_unit()),
            Value::Bool(_) => self.deserialize_bool(visitor),
            Value::Integer(_) => self.deserialize_i64(visitor),
            Value::Float(value) => self.locate(visitor.visit_f64(*value)),
            Value::Text(_) => self.deserialize_str(visitor),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Bool(value) => self.locate(visitor.visit_bool(*value)),
            _ => self.mismatch("true or false"),
        }
    }

    fn deserialize_i64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Integer(value) => match i64::try_from(*value) {
                Ok(value) => self.locate(visitor.visit_i64(value)),
                Err(_) => self.mismatch("a smaller number"),
            },
            _ => self.mismatch("a whole number"),
        }
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Text(value) => self.locate(visitor.visit_borrowed_str(value)),
            _ => self.mismatch("a text, in quotes if it looks like something else"),
        }
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::List(items) => {
                let items = items.iter().enumerate();
                self.locate(visitor.visit_seq(Items { reader: &self, items }))
            }
            _ => self.mismatch("a list"),
        }
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.map(visitor)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.map(visitor)
    }

    /// serde's derived code calls this for a field that the type does not have.
    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let unserved = Unserved { path: self.path.to_string(), node: self.node };
        self.unserved.borrow_mut().push(unserved);
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'n>>
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct enum identifier
    }
}

struct Items<'r, 'n, 'p> {
    reader: &'r Reader<'n, 'p>,
    items: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
}

impl<'n> SeqAccess<'n> for Items<'_, 'n, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'n>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let path = Path::Index(self.reader.path, index);
        seed.deserialize(Reader { node, path: &path, unserved: self.reader.unserved }).map(Some)
    }
}

struct Entries<'r, 'n, 'p, I> {
    reader: &'r Reader<'n, 'p>,
    entries: I,
    value: Option<(&'n str, &'n Node)>,
}

impl<'n, I> MapAccess<'n> for &mut Entries<'_, 'n, '_, I>
where
    I: Iterator<Item = &'n (String, Node)>,
{
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'n>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        let Some((key, node)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key, node));
        seed.deserialize(de::value::BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let (key, node) = self.value.take().expect("serde asks for a value after its key");
        let path = Path::Field(self.reader.path, key);
        seed.deserialize(Reader { node, path: &path, unserved: self.reader.unserved })
    }
}

impl std::error::Error for ReadError {}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message())
    }
}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        let problem = Problem::Other(text.to_string());
        Self { path: String::new(), problem }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { path: String::new(), problem: Problem::Missing(field) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::parse_documents;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase")]
    struct Outer {
        first: String,
        #[serde(default)]
        items: Vec<Inner>,
        maybe: Option<i64>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase")]
    struct Inner {
        port_number: i64,
    }

    fn outcome(text: &str) -> String {
        let documents = parse_documents(text).unwrap();
        match read::<Outer>(&documents[0]) {
            Ok((_, unserved)) => {
                let paths: Vec<_> = unserved.into_iter().map(|field| field.path).collect();
                format!("unserved {}", paths.join(" "))
            }
            Err(error) => format!("{}: {}; {}", error.path, error.message(), error.fix()),
        }
    }

    #[test]
    fn problems_name_path_value_and_what_belongs_there() {
        for (text, want) in [
            ("first: a", "unserved "),
            ("first: a\nitems: null\nmaybe:", "unserved "),
            (
                "first: a\nx: {y: 1}\nitems: [{portNumber: 1, 'a.b/c': 2}]",
                "unserved x items[0][\"a.b/c\"]",
            ),
            (
                "first: 1",
                "first: the number 1 does not belong here; write a text, in quotes if it looks like something else",
            ),
            ("maybe: 1", "first: the field is missing; add it"),
            ("first: a\nitems: [{}]", "items[0].portNumber: the field is missing; add it"),
            (
                "first: a\nitems: [{portNumber: '80'}]",
                "items[0].portNumber: the text \"80\" does not belong here; write a whole number",
            ),
            (
                "first: a\nmaybe: 9999999999999999999",
                "maybe: the number 9999999999999999999 does not belong here; write a smaller number",
            ),
            (
                "first: a\nmaybe: 1.5",
                "maybe: the number 1.5 does not belong here; write a whole number",
            ),
            ("first: a\nitems: {}", "items: a map does not belong here; write a list"),
            ("[]", ": a list does not belong here; write a map of fields"),
        ] {
            assert_eq!(outcome(text), want, "{text}");
        }
    }
}
