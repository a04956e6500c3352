//! The audit log on a real folder: its chain, its files, what is torn or altered.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use wire::operator::audit::LINE_BYTES_MAX;

use super::*;
use crate::limits::AUDIT_FILES_MAX;

const ADMIN: Actor = Actor { user: User::Unix(1000), role: "admin" };

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn open(folder: &TempDir) -> Audit {
    Audit::open(folder.path(), now()).unwrap()
}

fn call(audit: &Audit, verb: &'static str, outcome: Result<(), String>) {
    let begun = audit.begin(ADMIN, verb, vec![("name", "west".into())], now()).unwrap();
    audit.end(begun, outcome, now());
}

/// A record of three calls, closed.
fn written() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let audit = open(&folder);
    call(&audit, "Found", Ok(()));
    call(&audit, "IssueToken", Err("FED6110: no role".into()));
    call(&audit, "Leave", Ok(()));
    folder
}

fn breaks(folder: &TempDir) -> Vec<String> {
    open(folder).verify().breaks
}

fn edit(folder: &TempDir, change: impl FnOnce(&mut Vec<String>)) {
    let path = folder.path().join("audit.log");
    let text = fs::read_to_string(&path).unwrap();
    let mut lines = text.lines().map(str::to_string).collect();
    change(&mut lines);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn calls_are_listed_with_their_outcome_also_after_a_restart() {
    let folder = written();
    let audit = open(&folder);
    let begun = audit.begin(ADMIN, "Join", Vec::new(), now()).unwrap();
    audit.denied(Actor { role: "viewer", ..ADMIN }, "Found", "needs admin".into(), now());
    let shown =
        |call: &History| format!("{} {} {}", call.record.sequence, call.record.verb, call.outcome);
    let list: Vec<_> = audit.list(100).iter().map(shown).collect();
    let want =
        ["1 Found ok", "3 IssueToken failed", "5 Leave ok", "7 Join unknown", "8 Found denied"];
    assert_eq!(list, want);
    assert_eq!(audit.list(100)[1].detail, "FED6110: no role");
    assert_eq!(audit.list(100)[0].record.parameters, [("name".into(), "west".into())]);
    audit.end(begun, Ok(()), now());
    assert_eq!(
        audit.list(2).iter().map(shown).collect::<Vec<_>>(),
        ["7 Join ok", "8 Found denied"]
    );
    let verdict = audit.verify();
    assert_eq!((verdict.entries, verdict.first, verdict.breaks), (9, 1, vec![]));
    assert_eq!(verdict.end.next_sequence, 10);
}

#[test]
fn only_the_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = written();
    for name in ["audit.log", "audit.end"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_flipped_byte_is_named_by_its_line() {
    let folder = written();
    edit(&folder, |lines| lines[2] = lines[2].replace("\"done\"", "\"donf\""));
    let found = breaks(&folder);
    assert!(
        found[0].starts_with("audit.log line 3: the hash is not that of this entry"),
        "{found:?}"
    );
    let folder = written();
    edit(&folder, |lines| lines[3] = lines[3].replace("1000", "1001"));
    let found = breaks(&folder);
    assert_eq!(found.len(), 1, "the rest still holds: {found:?}");
    assert!(found[0].starts_with("audit.log line 4: "), "{found:?}");
}

#[test]
fn a_dropped_line_is_named_wherever_it_was() {
    let folder = written();
    edit(&folder, |lines| drop(lines.remove(3)));
    assert!(breaks(&folder)[0].starts_with("audit.log line 4: "));
    // The newest entries are the ones worth dropping.
    let folder = written();
    edit(&folder, |lines| lines.truncate(5));
    let found = breaks(&folder);
    assert_eq!(found, ["audit.log ends with entry 4, but this node wrote entries up to 6"]);
    // And the break stays visible when the record goes on.
    call(&open(&folder), "Found", Ok(()));
    let found = breaks(&folder);
    assert!(found[0].starts_with("audit.log line 6: "), "{found:?}");
    let folder = written();
    edit(&folder, |lines| drop(lines.remove(0)));
    assert!(breaks(&folder)[0].starts_with("audit.log line 1: the file does not begin with"));
}

#[test]
fn a_lost_file_is_noticed() {
    let folder = written();
    fs::remove_file(folder.path().join("audit.log")).unwrap();
    let found = breaks(&folder);
    assert_eq!(found, ["the entries before number 7 are missing, with their file"]);
}

#[test]
fn a_torn_line_is_cut_off_and_told_of() {
    let folder = written();
    let path = folder.path().join("audit.log");
    let mut text = fs::read(&path).unwrap();
    text.extend(b"0123abcd {\"seq");
    fs::write(&path, text).unwrap();
    let audit = open(&folder);
    let last = audit.list(100).pop().unwrap();
    assert_eq!((last.record.verb.as_str(), last.outcome), ("Audit", "recovered"));
    assert_eq!(last.detail, "14 bytes of an unfinished last line were cut off");
    assert_eq!(audit.verify().breaks, Vec::<String>::new());
}

#[test]
fn files_rotate_and_the_chain_goes_through_them() {
    let folder = tempfile::tempdir().unwrap();
    let audit = open(&folder);
    let long: Vec<_> = (0..16).map(|_| ("parameter", "x".repeat(LINE_BYTES_MAX))).collect();
    let file = |number: usize| folder.path().join(format!("audit.log.{number}"));
    let mut calls = 0;
    while !file(AUDIT_FILES_MAX - 1).exists() {
        // As full as a file gets, without writing as much.
        audit.lock().bytes = AUDIT_FILE_BYTES_MAX + 1;
        let begun = audit.begin(ADMIN, "Join", long.clone(), now()).unwrap();
        audit.end(begun, Ok(()), now());
        calls += 1;
    }
    assert_eq!(calls, AUDIT_FILES_MAX - 1);
    assert_eq!(audit.verify().breaks, Vec::<String>::new());
    for _ in 0..2 {
        audit.lock().bytes = AUDIT_FILE_BYTES_MAX + 1;
        call(&audit, "Leave", Ok(()));
    }
    assert!(!file(AUDIT_FILES_MAX).exists(), "the oldest one goes");
    let verdict = audit.verify();
    assert_eq!(verdict.breaks, Vec::<String>::new());
    assert!(verdict.first > 1, "{verdict:?}");
    drop(audit);
    fs::remove_file(file(2)).unwrap();
    let found = breaks(&folder);
    assert!(found.iter().any(|text| text.contains("does not follow entry")), "{found:?}");
}
