//! `fedctl store verify --all`: this node's state checked again, beside what every member holds.

use jiff::Timestamp;
use serde::Serialize;
use wire::operator::proto::{
    NoticedFinding, OwnerVerdict, StoreVerdict, VerifiedMember, VerifyStoreRequest,
};

use super::members::Names;
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{Printer, age, milliseconds, table};
use crate::view::{Since, revision};

const OWNERS: [&str; 8] =
    ["OWNER", "HEAD", "RECORDS", "HEARD", "STANDING", "AGREE", "BEHIND", "CONFLICT"];
const MEMBERS: [&str; 3] = ["MEMBER", "ANSWER", "HEADS"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerdictView {
    api_version: &'static str,
    kind: &'static str,
    well: bool,
    revision: String,
    records: u64,
    problem: String,
    owners: Vec<OwnerView>,
    members: Vec<MemberView>,
    findings: Vec<FindingView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnerView {
    name: String,
    epoch: Option<u64>,
    generation: Option<u64>,
    records: u32,
    heard: Option<Since>,
    standing: String,
    agree: Vec<String>,
    behind: Vec<String>,
    ahead: Vec<String>,
    differ: Vec<String>,
    silent: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberView {
    name: String,
    answered_us: Option<u64>,
    heads: u32,
    problem: String,
    refused: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingView {
    code: String,
    noticed: Since,
    owner: String,
    text: String,
}

pub(super) async fn run(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let verdict = node.verify_store(VerifyStoreRequest {}).await?;
    let names = Names::of(node).await?;
    let view = view(verdict, &names, Timestamp::now());
    printer.result(&view, screen)?;
    match view.well {
        true => Ok(()),
        false => Err(CommandError::failed("the store is not as it should be everywhere")
            .hint("`fedctl explain CODE` says what a finding means; a member that does not answer may be down")),
    }
}

fn view(verdict: StoreVerdict, names: &Names, now: Timestamp) -> VerdictView {
    VerdictView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "StoreVerdict",
        well: verdict.well,
        revision: revision(verdict.revision),
        records: verdict.records,
        problem: verdict.problem,
        owners: verdict.owners.into_iter().map(|owner| owner_view(owner, names, now)).collect(),
        members: verdict.members.into_iter().map(member_view).collect(),
        findings: verdict.findings.into_iter().map(|found| finding(found, names, now)).collect(),
    }
}

fn owner_view(owner: OwnerVerdict, names: &Names, now: Timestamp) -> OwnerView {
    let shown = |ids: Vec<String>| ids.iter().map(|id| names.shown(id)).collect();
    OwnerView {
        name: owner.name,
        epoch: owner.epoch,
        generation: owner.generation,
        records: owner.records,
        heard: owner.age_ms.map(|age| Since::age(age, now)),
        standing: owner.standing,
        agree: shown(owner.agree),
        behind: shown(owner.behind),
        ahead: shown(owner.ahead),
        differ: shown(owner.differ),
        silent: shown(owner.silent),
    }
}

fn member_view(member: VerifiedMember) -> MemberView {
    MemberView {
        name: member.name,
        answered_us: member.answered_us,
        heads: member.heads,
        problem: member.problem,
        refused: member.refused,
    }
}

fn finding(found: NoticedFinding, names: &Names, now: Timestamp) -> FindingView {
    let code = model::code::Code::parse(&found.code.to_string());
    let noticed = i64::try_from(found.noticed_unix_ms).unwrap_or_default();
    let noticed = Timestamp::from_millisecond(noticed).unwrap_or(Timestamp::UNIX_EPOCH);
    FindingView {
        code: code.map_or_else(|| found.code.to_string(), |code| code.to_string()),
        noticed: Since::time(noticed, now),
        owner: names.shown(&found.owner),
        text: found.text,
    }
}

fn screen(view: &VerdictView) -> String {
    let mut text = match &*view.problem {
        "" => format!(
            "✓ own state verified: {} records, revision {}\n\n",
            view.records, view.revision
        ),
        problem => format!("✗ own state: {problem}\n\n"),
    };
    text += &table(&OWNERS, view.owners.iter().map(owner_row));
    text += "\n\n";
    text += &table(&MEMBERS, view.members.iter().map(member_row));
    for member in &view.members {
        for refused in &member.refused {
            text += &format!("\n✗ {}: {refused}", member.name);
        }
    }
    for found in &view.findings {
        let FindingView { code, noticed, text: what, .. } = found;
        text += &format!("\n✗ {code} {what} (noticed {} ago)", age(noticed.age_ms));
    }
    text
}

fn owner_row(owner: &OwnerView) -> Vec<String> {
    let head = owner.epoch.zip(owner.generation);
    let list = |names: &[String]| match names {
        [] => "-".to_string(),
        names => names.join(", "),
    };
    let conflict: Vec<String> =
        [("other content", &owner.differ), ("newer", &owner.ahead), ("nothing", &owner.silent)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} at {}", names.join(", ")))
            .collect();
    vec![
        owner.name.clone(),
        head.map_or_else(|| "-".into(), |(epoch, generation)| format!("{epoch}.{generation}")),
        owner.records.to_string(),
        owner.heard.as_ref().map_or_else(|| "-".into(), |heard| age(heard.age_ms)),
        owner.standing.clone(),
        list(&owner.agree),
        list(&owner.behind),
        list(&conflict),
    ]
}

fn member_row(member: &MemberView) -> Vec<String> {
    let answer = match member.answered_us {
        Some(time) => format!("✓ {}", milliseconds(time)),
        None => format!("✗ {}", member.problem),
    };
    vec![member.name.clone(), answer, member.heads.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use wire::resource::proto::Revision;

    #[test]
    fn a_verdict_is_as_golden() {
        let now: Timestamp = "2026-01-01T03:00:00Z".parse().unwrap();
        let id = |byte: u8| format!("{byte:02x}").repeat(16);
        let owner = |name: &str, standing: &str| OwnerVerdict {
            name: name.into(),
            epoch: Some(1),
            generation: Some(7),
            records: 3,
            age_ms: Some(4000),
            standing: standing.into(),
            agree: vec![id(2)],
            ..OwnerVerdict::default()
        };
        let mut split = owner("south", "stale");
        split.agree = vec![];
        split.differ = vec![id(2)];
        split.silent = vec![id(9)];
        let verdict = StoreVerdict {
            well: false,
            revision: Some(Revision { epoch: 1, index: 42 }),
            records: 6,
            problem: String::new(),
            owners: vec![owner("east", "fresh"), split],
            members: vec![
                VerifiedMember {
                    name: "west".into(),
                    answered_us: Some(18_000),
                    heads: 2,
                    refused: vec!["the Head of north is not north's".into()],
                    ..VerifiedMember::default()
                },
                VerifiedMember {
                    name: "dc1".into(),
                    problem: "timed out".into(),
                    ..VerifiedMember::default()
                },
            ],
            findings: vec![NoticedFinding {
                code: 6125,
                noticed_unix_ms: u64::try_from(now.as_millisecond()).unwrap() - 30_000,
                owner: id(3),
                text: "south was rolled back".into(),
            }],
        };
        let names = Names::from_pairs([(id(2), "west".into()), (id(3), "south".into())]);
        let view = view(verdict, &names, now);
        golden::check("store-verify.txt", &screen(&view));
        golden::check("store-verify.json", &serde_json::to_string_pretty(&view).unwrap());
    }
}
