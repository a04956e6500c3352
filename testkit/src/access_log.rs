//! Reads a gateway's access log.

use std::path::Path;

use serde_json::Value;

/// Every record so far, in the order of the file.
///
/// # Panics
/// When a line is not a JSON object: each must be one, whatever clients sent.
pub fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A line without its end is still being written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line: &str| -> Value {
        let record = serde_json::from_str(line);
        let record: Value = record.unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
        assert!(record.is_object(), "no object: {line}");
        record
    };
    whole.lines().map(parse).collect()
}

/// Those for paths that begin with `prefix`.
///
/// # Panics
/// As [`records`].
pub fn records_of(path: &Path, prefix: &str) -> Vec<Value> {
    let about = |record: &Value| record["path"].as_str().is_some_and(|p| p.starts_with(prefix));
    records(path).into_iter().filter(about).collect()
}
