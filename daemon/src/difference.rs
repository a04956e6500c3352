//! Which fields of a configuration file have changed.

use std::collections::BTreeSet;

use serde_json::Value;

/// Paths as the documentation writes them, `listen.tunnel` and `advertise`, in order. A list is one
/// field. Both texts are of a file that its parser takes; one that is no YAML has no fields.
pub(crate) fn changed_fields(before: &str, after: &str) -> Vec<String> {
    let [before, after] =
        [before, after].map(|text| serde_saphyr::from_str(text).unwrap_or_default());
    let mut changed = Vec::new();
    compare("", &before, &after, &mut changed);
    changed
}

fn compare(path: &str, before: &Value, after: &Value, changed: &mut Vec<String>) {
    if before == after {
        return;
    }
    let nothing = Value::Null;
    // A section that is left out is one without fields.
    let section = |value: &Value| value.is_object() || value.is_null();
    if !(section(before) && section(after)) {
        return changed.push(path.to_owned());
    }
    let maps = [before, after].into_iter().filter_map(Value::as_object);
    let names: BTreeSet<&String> = maps.flat_map(|map| map.keys()).collect();
    for name in names {
        let field = |value: &Value| value.get(name).unwrap_or(&nothing).clone();
        let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        compare(&inner, &field(before), &field(after), changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_by_their_paths() {
        let before = "name: a\nlisten: {tunnel: '1'}\nadvertise: [{port: 1}]\nworkers: 2\n";
        let after = "name: a # still\nlisten: {tunnel: '2', routes: r}\nadvertise: [{port: 2}]\n";
        let expected = ["advertise", "listen.routes", "listen.tunnel", "workers"];
        assert_eq!(changed_fields(before, after), expected);
        assert!(changed_fields(before, before).is_empty());
        assert_eq!(changed_fields("a: 1", "a: 1\nlog: {level: debug}"), ["log.level"]);
    }
}
