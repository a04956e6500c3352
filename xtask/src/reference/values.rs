//! The values of the chart `fedgate`: `values.schema.json` and `docs/reference/values.md`, both from
//! the comments and defaults of `values.yaml`.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::{Page, cell};

/// Shapes that several values have, by name.
const DEFINITIONS: &str = include_str!("values-definitions.json");
const SCHEMA_PATH: &str = "helm/fedgate/values.schema.json";
const SCHEMA_MARK: &str = "@schema ";
const INTRODUCTION: &str = "\
Give them with `--set` or in a file with `--values`. A value that is not in these tables is refused by its
name. Presets for clouds stand beside the chart, see [expose UDP](../guide/expose-udp.md).

";

/// One value, or a section of them.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// Keys from the top.
    pub path: Vec<String>,
    pub comment: String,
    pub default: Value,
    /// What the comment says of its shape.
    shape: Map<String, Value>,
    is_section: bool,
}

/// The schema and the page. `defaults`: the same file, parsed.
pub fn pages(text: &str, defaults: &Value) -> Result<[Page; 2]> {
    let entries = entries(text, defaults)?;
    let schema = format!("{:#}\n", schema(&entries)?);
    Ok([Page { path: SCHEMA_PATH, text: schema }, page(&entries)])
}

/// All values in the order of the file, sections before what is in them.
pub fn entries(text: &str, defaults: &Value) -> Result<Vec<Entry>> {
    let mut reader = Reader::default();
    for (index, line) in text.lines().enumerate() {
        reader.line(line, defaults).with_context(|| format!("values.yaml:{}", index + 1))?;
    }
    Ok(reader.entries)
}

/// Goes through the lines; the file keeps to two columns a level and one key a line.
#[derive(Default)]
struct Reader {
    entries: Vec<Entry>,
    comment: Vec<String>,
    shape: Map<String, Value>,
    path: Vec<String>,
    /// Depth of the value whose inside has a shape of its own.
    closed: Option<usize>,
}

impl Reader {
    fn line(&mut self, line: &str, defaults: &Value) -> Result<()> {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if text.is_empty() {
            self.comment.clear();
            return Ok(());
        }
        if let Some(comment) = text.strip_prefix('#') {
            return self.remark(comment.trim());
        }
        let depth = indent / 2;
        let inside = self.closed.is_some_and(|closed| depth > closed) || text.starts_with("- ");
        let comment = std::mem::take(&mut self.comment).join(" ");
        let shape = std::mem::take(&mut self.shape);
        if inside {
            return Ok(());
        }
        let (key, _) = text.split_once(':').context("a line is `key: value`")?;
        self.path.truncate(depth);
        self.path.push(key.to_owned());
        let pointer = format!("/{}", self.path.join("/"));
        let default = defaults.pointer(&pointer).with_context(|| format!("no value {pointer}"))?;
        let is_section = shape.is_empty() && default.as_object().is_some_and(|map| !map.is_empty());
        self.closed = (!is_section).then_some(depth);
        let entry =
            Entry { path: self.path.clone(), comment, default: default.clone(), shape, is_section };
        entry.check()?;
        self.entries.push(entry);
        Ok(())
    }

    fn remark(&mut self, comment: &str) -> Result<()> {
        match comment.strip_prefix(SCHEMA_MARK) {
            Some(shape) => self.shape = serde_json::from_str(shape).context("after @schema")?,
            None => self.comment.push(comment.to_owned()),
        }
        Ok(())
    }
}

impl Entry {
    /// As `--set` takes it.
    pub fn name(&self) -> String {
        self.path.join(".")
    }

    fn check(&self) -> Result<()> {
        let name = self.name();
        let has = |field| self.shape.contains_key(field);
        match &self.default {
            _ if self.comment.is_empty() => bail!("{name} has no comment: say what it is for"),
            Value::Object(_) if !self.is_section && !has("$ref") => {
                bail!("{name} is a map: name its shape, `# @schema {{\"$ref\": ...}}`")
            }
            Value::Array(_) if !has("items") => {
                bail!("{name} is a list: say of what, `# @schema {{\"items\": ...}}`")
            }
            Value::Null => bail!("{name} has no default: write one, such as \"\""),
            _ => Ok(()),
        }
    }

    fn schema(&self) -> Value {
        let mut schema = self.shape.clone();
        if !["$ref", "enum"].iter().any(|field| schema.contains_key(*field)) {
            schema.insert("type".into(), type_of(&self.default).into());
        }
        schema.insert("description".into(), self.comment.clone().into());
        if self.is_section {
            schema.insert("additionalProperties".into(), false.into());
            schema.insert("properties".into(), json!({}));
        }
        Value::Object(schema)
    }

    /// For the table: `string`, `Always`, `IfNotPresent` or `Never`, `list of toleration`.
    fn shown_type(&self) -> String {
        if let Some(Value::Array(words)) = self.shape.get("enum") {
            let words = words.iter().map(|word| word.as_str().filter(|word| !word.is_empty()));
            let words =
                words.map(|word| word.map_or_else(|| "empty".into(), |word| format!("`{word}`")));
            return words.collect::<Vec<_>>().join(", ");
        }
        if let Some(items) = self.shape.get("items") {
            return format!("list of {}", named(items));
        }
        match self.shape.get("$ref") {
            Some(_) => named(&Value::Object(self.shape.clone())),
            None => type_of(&self.default).to_owned(),
        }
    }
}

/// The name of a definition, or of a type.
fn named(schema: &Value) -> String {
    let reference = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next());
    reference.or_else(|| schema["type"].as_str()).unwrap_or("value").to_owned()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) | Value::Null => "object",
    }
}

fn schema(entries: &[Entry]) -> Result<Value> {
    let definitions: Map<String, Value> =
        serde_json::from_str(DEFINITIONS).context("values-definitions.json")?;
    // Helm gives `global` to a chart that is a dependency of another one.
    let global = json!({"type": "object", "description": "Values for several charts; not used."});
    let mut root = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart fedgate",
        "type": "object",
        "additionalProperties": false,
        "properties": {"global": global},
        "definitions": definitions,
    });
    for entry in entries {
        let mut place = &mut root;
        for key in &entry.path {
            place = &mut place["properties"][key];
        }
        *place = entry.schema();
    }
    let text = root.to_string();
    for name in definitions.keys() {
        if !text.contains(&format!("\"#/definitions/{name}\"")) {
            bail!("values-definitions.json: no value has the shape {name}; remove it");
        }
    }
    Ok(root)
}

fn page(entries: &[Entry]) -> Page {
    let source = "`helm/fedgate/values.yaml`";
    let mut page = Page::new("docs/reference/values.md", "Values of the chart", source);
    page.text.push_str(INTRODUCTION);
    let tops = entries.iter().filter(|entry| entry.path.len() == 1);
    let plain: Vec<&Entry> = tops.clone().filter(|entry| !entry.is_section).collect();
    for top in tops.filter(|entry| entry.is_section) {
        let name = &top.path[0];
        page.text.push_str(&format!("## {name}\n\n{}\n\n", prose(&top.comment)));
        let is_inner = |entry: &&Entry| entry.path.len() > 1 && entry.path[0] == *name;
        let inner = entries.iter().filter(is_inner);
        table(&mut page.text, inner);
    }
    page.text.push_str("## Others\n\n");
    table(&mut page.text, plain.into_iter());
    page.text.truncate(page.text.trim_end().len());
    page.text.push('\n');
    page
}

fn table<'a>(page: &mut String, entries: impl Iterator<Item = &'a Entry>) {
    page.push_str("| value | type | default | meaning |\n|---|---|---|---|\n");
    for entry in entries {
        let (name, comment) = (entry.name(), cell(&prose(&entry.comment)));
        if entry.is_section {
            page.push_str(&format!("| `{name}` | section | | {comment} |\n"));
            continue;
        }
        let (shown, default) = (cell(&entry.shown_type()), cell(&entry.default.to_string()));
        page.push_str(&format!("| `{name}` | {shown} | `{default}` | {comment} |\n"));
    }
    page.push('\n');
}

/// `<name>` in a comment stays text in a page.
fn prose(comment: &str) -> String {
    comment.split('`').enumerate().fold(String::new(), |mut text, (index, part)| {
        let quote = if index == 0 { "" } else { "`" };
        let part = if index % 2 == 0 { part.replace('<', "&lt;") } else { part.to_owned() };
        text.push_str(quote);
        text.push_str(&part);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# Not about a value.

# A section.
part:
  # A word.
  # @schema {\"enum\": [\"a\", \"b\"]}
  word: a
  # How it is
  # limited.
  # @schema {\"$ref\": \"#/definitions/resources\"}
  resources:
    # inside
    requests: {cpu: 1}
# Many.
# @schema {\"items\": {\"type\": \"string\"}}
list:
  - x
";

    fn defaults() -> Value {
        json!({
            "part": {"word": "a", "resources": {"requests": {"cpu": 1}}},
            "list": ["x"],
        })
    }

    #[test]
    fn comments_defaults_and_shapes_are_read() {
        let entries = entries(FILE, &defaults()).unwrap();
        let seen: Vec<(String, &str)> =
            entries.iter().map(|entry| (entry.name(), &*entry.comment)).collect();
        let expected = [
            ("part", "A section."),
            ("part.word", "A word."),
            ("part.resources", "How it is limited."),
            ("list", "Many."),
        ];
        assert_eq!(seen, expected.map(|(name, comment)| (name.to_owned(), comment)));
        assert_eq!(entries[1].shown_type(), "`a`, `b`");
        assert_eq!(entries[2].shown_type(), "resources");
        assert_eq!(entries[3].shown_type(), "list of string");
        assert_eq!(entries[0].schema()["additionalProperties"], false);
    }

    #[test]
    fn a_value_without_a_comment_or_a_shape_is_refused() {
        for (text, defaults, part) in [
            ("a: 1\n", json!({"a": 1}), "a has no comment"),
            ("# X.\na: {}\n", json!({"a": {}}), "a is a map"),
            ("# X.\na: []\n", json!({"a": []}), "a is a list"),
            ("# X.\na:\n", json!({"a": null}), "a has no default"),
            ("# X.\n# @schema {\na: 1\n", json!({"a": 1}), "after @schema"),
        ] {
            let error = entries(text, &defaults).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{text:?}: {error:#}");
        }
    }

    #[test]
    fn text_in_angle_brackets_is_no_markup() {
        assert_eq!(prose("<a> `<b>` <c>"), "&lt;a> `<b>` &lt;c>");
    }
}
