//! The tables of `docs/reference/tunnel.md` are the code's. `UPDATE=1` rewrites them.

use std::fmt::Write;
use std::path::PathBuf;

use wire::tunnel::{
    ALPN_JOIN, ALPN_STORE, ALPN_TUNNEL, Blame, ERROR_CODES, FIELDS, FrameType, NAMES, Retry,
    limits as values,
};

#[test]
fn the_tables_are_those_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/tunnel.md");
    let content = std::fs::read_to_string(&path).unwrap();
    let mut expected = content.clone();
    for (name, table) in [
        ("error-codes", error_codes()),
        ("limits", limits()),
        ("frame-lengths", frame_lengths()),
        ("static-names", static_names()),
        ("static-fields", static_fields()),
    ] {
        expected = replace_table(&expected, name, &table);
    }
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    for (line, (have, want)) in content.lines().zip(expected.lines()).enumerate() {
        assert_eq!(have, want, "tunnel.md line {}: run with UPDATE=1", line + 1);
    }
    assert_eq!(content.len(), expected.len(), "tunnel.md: run with UPDATE=1");
}

#[test]
fn the_alpns_are_in_the_document() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/tunnel.md");
    let content = std::fs::read_to_string(path).unwrap();
    for alpn in [ALPN_TUNNEL, ALPN_STORE, ALPN_JOIN] {
        let alpn = format!("`{}`", std::str::from_utf8(alpn).unwrap());
        assert!(content.contains(&alpn), "{alpn}");
    }
}

fn replace_table(content: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let start = content.find(&begin).unwrap_or_else(|| panic!("no table {name}")) + begin.len();
    let stop = start + content[start..].find(&end).unwrap_or_else(|| panic!("{name} has no end"));
    format!("{}{table}{}", &content[..start], &content[stop..])
}

fn error_codes() -> String {
    let head =
        "| code | name | meaning | retry | fault of | shown as |\n|---|---|---|---|---|---|\n";
    ERROR_CODES.iter().fold(head.to_owned(), |mut table, entry| {
        let retry = match entry.retry {
            Retry::Never => "never",
            Retry::Later => "later",
            Retry::Elsewhere => "elsewhere",
            Retry::IfSafe => "if safe",
        };
        let blame = match entry.blame {
            Blame::Nobody => "nobody",
            Blame::Told => "the side told",
            Blame::Teller => "the side telling",
            Blame::Caller => "the caller",
            Blame::Application => "the application",
            Blame::Operator => "the operators",
            Blame::Network => "the network",
        };
        let fed = entry.fed.map_or_else(|| "-".to_owned(), |code| code.to_string());
        let (number, name, meaning) = (entry.number, entry.name, entry.meaning);
        writeln!(table, "| {number:#04x} | `{name}` | {meaning} | {retry} | {blame} | {fed} |")
            .unwrap();
        table
    })
}

/// Each constant of `limits.rs`, with its value.
macro_rules! values {
    ($($name:ident)*) => { [$((stringify!($name), values::$name as u64)),*] };
}

fn limits() -> String {
    let values = values! {
        HELLO_BYTES_MAX
        BEACON_BYTES_MAX
        DRAIN_BYTES_MAX
        OPEN_BYTES_MAX
        OPENED_BYTES_MAX
        REFUSED_BYTES_MAX
        HEAD_BYTES_MAX
        HEAD_FIELDS_MAX
        TRAILERS_BYTES_MAX
        TRAILERS_FIELDS_MAX
        DATA_BYTES_MAX
        SKIPPED_BYTES_MAX
        INTERIM_HEADS_MAX
        VIA_CLUSTERS_MAX
        FEATURES_MAX
        MESSAGE_BYTES_MAX
        TRACE_STATE_BYTES_MAX
        ATTEMPTS_MAX
        DEADLINE_MS_MAX
        LOAD_PERMILLE_MAX
        WORKERS_MAX
        CONNECTIONS_PER_PAIR_MAX
        SIGNED_HEAD_BYTES_MAX
        SIGNED_REVOCATION_BYTES_MAX
        BEACON_HEADS_MAX
        BEACON_REVOCATIONS_MAX
        SIBLINGS_MAX
        CONTROL_STREAM_WINDOW_BYTES
        CONTROL_CONNECTION_WINDOW_BYTES
        STORE_STREAMS_MAX
        JOIN_STREAMS_MAX
        FAST_STREAM_WINDOW_BYTES
        FAST_CONNECTION_WINDOW_BYTES
        BULK_STREAM_WINDOW_BYTES
        BULK_CONNECTION_WINDOW_BYTES
        STREAM_WINDOW_BYTES_MIN
        WINDOW_BYTES_MAX
        HELD_WINDOW_PERCENT_MAX
        MOVE_AFTER_BYTES
        BULK_LENGTH_BYTES_MIN
        RESUME_TIMEOUT_MS
        RESUMES_PARKED_MAX
        HELLO_TIMEOUT_MS
        OPEN_TIMEOUT_MS
        BEACON_INTERVAL_MS
        DEAD_AFTER_MS_MIN
        TALK_LINGER_MS
        KEEPALIVE_INTERVAL_MS
        IDLE_TIMEOUT_MS
        DIAL_TAKEOVER_MS
        CONTROL_KEEPALIVE_INTERVAL_MS
        CONTROL_IDLE_TIMEOUT_MS
        RELAY_IDLE_TIMEOUT_MS
    };
    let source = include_str!("../../../src/tunnel/limits.rs");
    let constants = source.lines().filter(|line| line.starts_with("pub const ")).count();
    assert_eq!(constants, values.len(), "list every constant of limits.rs here");
    let head = "| limit | value | meaning |\n|---|---|---|\n";
    values.into_iter().fold(head.to_owned(), |mut table, (name, value)| {
        let at = source.find(&format!("pub const {name}:")).unwrap();
        let meaning = source[..at].trim_end().rsplit('\n').next().unwrap();
        let meaning = meaning.strip_prefix("/// ").expect("each constant has a line of meaning");
        writeln!(table, "| `{name}` | {value} | {meaning} |").unwrap();
        table
    })
}

fn frame_lengths() -> String {
    let head = "| type | name | longest payload |\n|---|---|---|\n";
    FrameType::ALL.into_iter().fold(head.to_owned(), |mut table, kind| {
        writeln!(table, "| {:#04x} | {kind} | {} |", kind as u8, kind.bytes_max()).unwrap();
        table
    })
}

fn static_names() -> String {
    let rows = NAMES.iter().enumerate().map(|(index, name)| format!("{} {name}", index + 1));
    block(&rows.collect::<Vec<_>>())
}

fn static_fields() -> String {
    let rows = FIELDS.iter().enumerate();
    let rows = rows.map(|(index, (name, value))| format!("{} {name}: {value}", index + 128));
    block(&rows.collect::<Vec<_>>())
}

/// Entries one after the other, in a code block of lines that are not too long.
fn block(entries: &[String]) -> String {
    let mut text = "```text\n".to_owned();
    let mut width = 0;
    for entry in entries {
        if width > 0 && width + 3 + entry.len() > 110 {
            text.push('\n');
            width = 0;
        }
        if width > 0 {
            text.push_str(" | ");
            width += 3;
        }
        text.push_str(entry);
        width += entry.len();
    }
    text + "\n```\n"
}
