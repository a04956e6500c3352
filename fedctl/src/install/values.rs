//! Chart values with the reason for each, written as YAML that a person can keep in a repository.

use std::fmt::Write;

use serde_json::Value;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// As `helm --set` has it: `.` between names, `\.` for a dot in one.
    pub path: String,
    pub value: Value,
    pub why: String,
}

/// All values that were chosen, and what a person has to know of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// What was found.
    pub summary: String,
    pub choices: Vec<Choice>,
    pub warnings: Vec<String>,
}

impl Values {
    pub fn new(summary: String) -> Self {
        Self { summary, choices: Vec::new(), warnings: Vec::new() }
    }

    /// One document; choices with a common beginning must stand together.
    pub fn yaml(&self) -> String {
        let mut text = format!("# {}.\n", self.summary);
        let mut open: Vec<String> = Vec::new();
        for choice in &self.choices {
            let names = names(&choice.path);
            let Some((last, folders)) = names.split_last() else { continue };
            let same = open.iter().zip(folders).take_while(|(open, wanted)| open == wanted).count();
            open.truncate(same);
            for folder in &folders[same..] {
                let _ = writeln!(text, "{}{}:", indent(open.len()), key(folder));
                open.push(folder.clone());
            }
            let indent = indent(open.len());
            let _ = writeln!(text, "{indent}# {}", choice.why);
            let _ = writeln!(text, "{indent}{}: {}", key(last), scalar(&choice.value));
        }
        text
    }
}

/// The names in a path of `helm --set`.
pub(super) fn names(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' => names.push(String::new()),
            '\\' => names.last_mut().into_iter().for_each(|name| name.extend(characters.next())),
            other => names.last_mut().into_iter().for_each(|name| name.push(other)),
        }
    }
    names
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

fn key(name: &str) -> String {
    scalar(&Value::String(name.into()))
}

/// JSON is YAML; plain words need no quotes.
fn scalar(value: &Value) -> String {
    const WORDS: [&str; 8] = ["true", "false", "null", "yes", "no", "on", "off", "y"];
    match value {
        Value::String(text)
            if text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text
                    .chars()
                    .all(|each| each.is_ascii_alphanumeric() || "-./".contains(each))
                && !WORDS.contains(&text.to_ascii_lowercase().as_str()) =>
        {
            text.clone()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_yaml_with_reasons() {
        let mut values = Values::new("found".into());
        for (path, value, why) in [
            ("a.b", Value::from("x"), "one"),
            ("a.c.example\\.com/d", Value::from("true"), "two"),
            ("e", Value::from(vec![443, 6443]), "three"),
        ] {
            let (path, why) = (path.into(), why.into());
            values.choices.push(Choice { path, value, why });
        }
        let want = "# found.\na:\n  # one\n  b: x\n  c:\n    # two\n    example.com/d: \"true\"\n\
                    # three\ne: [443,6443]\n";
        assert_eq!(values.yaml(), want);
        let read: Value = serde_saphyr::from_str(want).unwrap();
        assert_eq!(read["a"]["c"]["example.com/d"], "true");
        assert_eq!(read["e"][1], 6443);
    }
}
