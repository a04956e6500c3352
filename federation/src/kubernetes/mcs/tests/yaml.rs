//! A JSON value as YAML.

use serde_json::Value;

pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out
}

fn write(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (field, value) in map {
                *out += &format!("{}{field}:", "  ".repeat(depth));
                write_after_colon(value, depth + 1, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                let mut item = String::new();
                write(value, depth + 1, &mut item);
                let place = depth * 2;
                let item = match value {
                    Value::Object(_) => item.replacen(&" ".repeat(place + 2), "", 1),
                    _ => item,
                };
                *out += &format!("{}- {item}", " ".repeat(place));
            }
        }
        Value::String(text) => *out += &format!("{}\n", scalar(text)),
        other => *out += &format!("{other}\n"),
    }
}

fn write_after_colon(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write(value, depth, out);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            write(value, depth - 1, out);
        }
        Value::Object(_) => *out += " {}\n",
        Value::Array(_) => *out += " []\n",
        _ => {
            out.push(' ');
            write(value, depth, out);
        }
    }
}

/// Quoted unless nobody could take it for something else.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-./ ".contains(c))
        && !["True", "False", "true", "false", "null", "yes", "no"].contains(&text);
    if is_plain { text.to_string() } else { format!("{text:?}") }
}
