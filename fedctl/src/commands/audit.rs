//! `fedctl audit`: who changed what, and whether the record of it is whole.

use jiff::Timestamp;
use serde::Serialize;
use wire::operator::proto::{AuditEntry, AuditVerdict, ListAuditRequest, VerifyAuditRequest};

use crate::cli::Audit;
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{Printer, age};
use crate::view::{List, Since};

const HEADER: [&str; 6] = ["NUMBER", "AGE", "USER", "CHANGE", "OUTCOME", "WHAT"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryView {
    number: u64,
    since: Since,
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    role: String,
    verb: String,
    parameters: Vec<ParameterView>,
    outcome: String,
    detail: String,
}

#[derive(Serialize)]
struct ParameterView {
    name: String,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerdictView {
    api_version: &'static str,
    kind: &'static str,
    entries: u64,
    first: u64,
    last: u64,
    last_hash: String,
    breaks: Vec<String>,
}

pub(super) async fn run(
    verb: Audit,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    match verb {
        Audit::List { last } => {
            let entries = node.list_audit(ListAuditRequest { last }).await?.entries;
            let list = views(entries, Timestamp::now());
            printer.result(&list, |list| match list.items.is_empty() {
                true => "Nothing has been changed by operators yet.".into(),
                false => list.table(&HEADER, row),
            })
        }
        Audit::Verify => {
            let verdict = verdict(node.verify_audit(VerifyAuditRequest {}).await?);
            printer.result(&verdict, screen)?;
            match verdict.breaks.len() {
                0 => Ok(()),
                count => Err(broken(count)),
            }
        }
    }
}

fn broken(count: usize) -> CommandError {
    let places = if count == 1 { "1 place".into() } else { format!("{count} places") };
    CommandError::failed(format!("the audit record is broken in {places}"))
        .code(model::code::AUDIT_BROKEN)
        .hint("compare with a copy kept elsewhere, and find out who could write there")
}

fn views(entries: Vec<AuditEntry>, now: Timestamp) -> List<EntryView> {
    let views = entries.into_iter().map(|entry| {
        let time = i64::try_from(entry.time_unix_ms).unwrap_or_default();
        let time = Timestamp::from_millisecond(time).unwrap_or(Timestamp::UNIX_EPOCH);
        let parameters = entry.parameters.into_iter();
        EntryView {
            number: entry.sequence,
            since: Since::time(time, now),
            uid: entry.uid,
            user: Some(entry.user).filter(|user| !user.is_empty()),
            role: entry.role,
            verb: entry.verb,
            parameters: parameters
                .map(|parameter| ParameterView { name: parameter.name, value: parameter.value })
                .collect(),
            outcome: entry.outcome,
            detail: entry.detail,
        }
    });
    List::new("AuditEntryList", String::new(), views.collect())
}

fn row(entry: &EntryView) -> Vec<String> {
    let parameters = entry.parameters.iter();
    let parameters = parameters.map(|parameter| format!("{}={}", parameter.name, parameter.value));
    let mut what = parameters.collect::<Vec<_>>().join(" ");
    if let Some(first) = entry.detail.lines().next() {
        what = format!("{what}  {first}").trim().to_string();
    }
    vec![
        entry.number.to_string(),
        age(entry.since.age_ms),
        match &entry.user {
            Some(user) => format!("{user} ({})", entry.role),
            None => format!("{} ({})", entry.uid, entry.role),
        },
        entry.verb.clone(),
        entry.outcome.clone(),
        what,
    ]
}

fn verdict(verdict: AuditVerdict) -> VerdictView {
    VerdictView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "AuditVerdict",
        entries: verdict.entries,
        first: verdict.first_sequence,
        last: verdict.last_sequence,
        last_hash: verdict.last_hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        breaks: verdict.breaks,
    }
}

fn screen(verdict: &VerdictView) -> String {
    let VerdictView { entries, first, last, last_hash, breaks, .. } = verdict;
    if *entries == 0 && breaks.is_empty() {
        return "The audit record is empty.".into();
    }
    let mut text: String = breaks.iter().map(|found| format!("✗ {found}\n")).collect();
    if breaks.is_empty() {
        text.push_str(&format!("✓ the chain holds, entries {first} to {last}\n"));
    }
    text.push_str(&format!("Last entry: {last}, hash {last_hash}"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use wire::operator::proto::AuditParameter;

    #[test]
    fn entries_are_listed_as_golden() {
        let now: Timestamp = "2026-01-01T03:00:00Z".parse().unwrap();
        let entry = |sequence, verb: &str, outcome: &str, detail: &str| AuditEntry {
            sequence,
            time_unix_ms: u64::try_from(now.as_millisecond()).unwrap() - 60_000 / sequence,
            uid: 1000,
            user: String::new(),
            role: "admin".into(),
            verb: verb.into(),
            parameters: vec![AuditParameter { name: "name".into(), value: "west".into() }],
            outcome: outcome.into(),
            detail: detail.into(),
        };
        let list = views(
            vec![
                entry(1, "IssueToken", "ok", ""),
                entry(3, "RemoveMember", "failed", "FED4007: no cluster has the name west\nmore"),
                entry(5, "Leave", "denied", "Leave needs the role admin"),
            ],
            now,
        );
        golden::check("audit-list.txt", &list.table(&HEADER, row));
        golden::check("audit-list.json", &serde_json::to_string_pretty(&list).unwrap());
    }

    #[test]
    fn a_verdict_names_each_break() {
        let whole = AuditVerdict {
            entries: 9,
            first_sequence: 1,
            last_sequence: 9,
            last_hash: vec![0xa5; 32],
            breaks: vec![],
        };
        golden::check("audit-verify.txt", &screen(&verdict(whole.clone())));
        let breaks = vec!["audit.log line 3: the hash is not that of this entry".to_string()];
        golden::check(
            "audit-verify-broken.txt",
            &screen(&verdict(AuditVerdict { breaks, ..whole })),
        );
        assert!(broken(1).to_string().contains("in 1 place (FED1006)\nhint: "));
        assert_eq!(screen(&verdict(AuditVerdict::default())), "The audit record is empty.");
    }
}
