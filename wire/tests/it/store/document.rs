//! The tables of `docs/reference/store.md` are the code's. `UPDATE=1` rewrites them.

use std::fmt::Write;
use std::path::PathBuf;

use model::code::CODES;
use model::{ResourceKind, Role};
use wire::store::{Domain, limits as values};

#[test]
fn the_tables_are_those_of_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/store.md");
    let content = std::fs::read_to_string(&path).unwrap();
    let mut expected = content.clone();
    for (name, table) in [("limits", limits()), ("codes", codes())] {
        expected = replace_table(&expected, name, &table);
    }
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    for (line, (have, want)) in content.lines().zip(expected.lines()).enumerate() {
        assert_eq!(have, want, "store.md line {}: run with UPDATE=1", line + 1);
    }
    assert_eq!(content.len(), expected.len(), "store.md: run with UPDATE=1");
}

#[test]
fn domains_roles_and_kinds_are_in_the_document() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/store.md");
    let content = std::fs::read_to_string(path).unwrap();
    let domains = Domain::ALL.into_iter().map(|domain| format!("`{}`", domain.as_str()));
    let roles = Role::ALL.into_iter().map(|role| format!("`{role}`"));
    let kinds = ResourceKind::ALL.into_iter();
    let kinds = kinds.map(|kind| format!("| {} | {} |", kind.number(), kind.as_str()));
    for text in domains.chain(roles).chain(kinds) {
        assert!(content.contains(&text), "store.md lacks {text}");
    }
}

fn replace_table(content: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let start = content.find(&begin).unwrap_or_else(|| panic!("no table {name}")) + begin.len();
    let stop = start + content[start..].find(&end).unwrap_or_else(|| panic!("{name} has no end"));
    format!("{}{table}{}", &content[..start], &content[stop..])
}

fn codes() -> String {
    let head = "| code | name | meaning |\n|---|---|---|\n";
    let store = CODES.iter().filter(|entry| entry.code.number() / 1000 == 6);
    store.fold(head.to_owned(), |mut table, entry| {
        writeln!(table, "| {} | {} | {} |", entry.code, entry.name, entry.summary).unwrap();
        table
    })
}

/// Each constant of `limits.rs`, with its value.
macro_rules! values {
    ($($name:ident)*) => { [$((stringify!($name), values::$name as u64)),*] };
}

fn limits() -> String {
    let values = values! {
        RECORD_BYTES_MAX
        COMMAND_BYTES_MAX
        PAYLOAD_BYTES_MAX
        KEY_BYTES_MAX
        RECORDS_PER_CLUSTER_MAX
        RECORD_BYTES_PER_CLUSTER_MAX
        MEMBERS_MAX
        TRUST_DOMAINS_PER_MEMBER_MAX
        KEYS_PER_MEMBER_MAX
        CHAIN_LINKS_MAX
        DELEGATION_DEPTH_MAX
        OPEN_TOKENS_MAX
        TOKEN_LIFETIME_MS_MAX
        REVOCATIONS_MAX
        REASON_BYTES_MAX
        REANCHORS_MAX
        VOTERS_MAX
        STANDBYS_MAX
        TOKEN_ADDRESSES_MAX
        TOKEN_TEXT_BYTES_MAX
        RAFT_BODY_BYTES_MAX
        MESSAGE_BYTES_MAX
        SNAPSHOT_PART_BYTES
        UPDATE_ENTRIES_MAX
        HEADS_MAX
        TEXT_BYTES_MAX
    };
    let source = include_str!("../../../src/store/limits.rs");
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
