//! `fedctl store`: the federation's store as this node sees it, and its files.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use wire::operator::proto::{
    GetStoreRequest, RecoverStoreRequest, SetStandbysRequest, SnapshotPath, Store as StoreStatus,
    TransferLeadershipRequest,
};

use super::leave::confirm;
use super::{members, verify};
use crate::cli::{Snapshot, Store};
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{Printer, age};
use crate::view::{Since, revision};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreView {
    api_version: &'static str,
    kind: &'static str,
    mode: String,
    federation: String,
    role: String,
    leader: String,
    term: Option<u64>,
    last_log: Option<u64>,
    applied: String,
    voters: Vec<String>,
    standbys: Vec<String>,
    quorum: Option<Since>,
    source: String,
    source_heard: Option<Since>,
    problem: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotView {
    api_version: &'static str,
    kind: &'static str,
    file: String,
    revision: String,
    bytes: u64,
    pairs: u64,
    sha256: String,
}

pub(super) async fn run(
    verb: Store,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    match verb {
        Store::Status => {
            let status = node.get_store(GetStoreRequest {}).await?;
            printer.result(&view(status, Timestamp::now()), screen)
        }
        Store::Peers => members::list(node, printer).await,
        Store::Verify { all: _ } => verify::run(node, printer).await,
        Store::Transfer { to } => {
            let request = TransferLeadershipRequest { to: to.unwrap_or_default() };
            let transferred = node.transfer_leadership(request).await?;
            printer.talk(&format!("{} leads the store now.", transferred.to));
            Ok(())
        }
        Store::Standbys { clusters } => {
            let names = clusters.join(", ");
            let changed = node.set_standbys(SetStandbysRequest { names: clusters }).await?;
            let at = revision(changed.revision);
            let names = if names.is_empty() { "nobody".into() } else { names };
            printer.talk(&format!("Standbys: {names} (revision {at})."));
            Ok(())
        }
        Store::Snapshot(verb) => snapshot(verb, node, printer).await,
        Store::Recover { yes } => {
            printer.talk("What only the lost voters had is gone, and they may not come back.");
            confirm(yes, "Go on from this node's own state, as the one voter?")?;
            let changed = node.recover_store(RecoverStoreRequest {}).await?;
            let at = revision(changed.revision);
            printer.talk(&format!("This node goes on alone, from revision {at}."));
            Ok(())
        }
    }
}

async fn snapshot(verb: Snapshot, node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let elsewhere = node.elsewhere();
    let path = |file: &Path| path(file, elsewhere);
    if let Some(place) = elsewhere {
        printer.talk(&format!("The file is in {place}, not on this machine."));
    }
    match verb {
        Snapshot::Save { file } => {
            let facts = node.save_snapshot(path(&file)?).await?;
            printer.result(&facts_view(facts, &file), |view| {
                format!("Saved and verified {}", line(view))
            })
        }
        Snapshot::Inspect { file } => {
            let facts = node.check_snapshot(path(&file)?).await?;
            printer.result(&facts_view(facts, &file), page)
        }
        Snapshot::Verify { file } => {
            let facts = node.check_snapshot(path(&file)?).await?;
            printer.result(&facts_view(facts, &file), |view| format!("Verified {}", line(view)))
        }
        Snapshot::Restore { file, yes } => {
            let facts = facts_view(node.check_snapshot(path(&file)?).await?, &file);
            printer.talk(&format!("The file is whole: {}", line(&facts)));
            confirm(yes, "Replace the store by it? What is newer is gone.")?;
            let changed = node.restore_snapshot(path(&file)?).await?;
            let at = revision(changed.revision);
            printer.talk(&format!("Restored; this node is the one voter, at revision {at}."));
            Ok(())
        }
    }
}

/// The node has another working folder, and perhaps another machine, of which nothing is known here.
fn path(file: &Path, elsewhere: Option<&str>) -> Result<SnapshotPath, CommandError> {
    if let Some(place) = elsewhere.filter(|_| !file.is_absolute()) {
        let message = format!("{}: the file is in {place}", file.display());
        return Err(CommandError::usage(message)
            .hint("name it by its whole path there, such as /var/lib/fedgate/backup.fed"));
    }
    let absolute = std::path::absolute(file);
    let absolute =
        absolute.map_err(|error| CommandError::usage(format!("{}: {error}", file.display())))?;
    let Some(path) = absolute.to_str() else {
        return Err(CommandError::usage(format!("{} is not UTF-8", file.display()))
            .hint("name another file"));
    };
    Ok(SnapshotPath { path: path.into() })
}

fn view(status: StoreStatus, now: Timestamp) -> StoreView {
    StoreView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "StoreStatus",
        applied: revision(status.applied),
        quorum: status.quorum_age_ms.map(|age| Since::age(age, now)),
        source_heard: status.source_age_ms.map(|age| Since::age(age, now)),
        mode: status.mode,
        federation: status.federation,
        role: status.role,
        leader: status.leader,
        term: status.term,
        last_log: status.last_log,
        voters: status.voters,
        standbys: status.standbys,
        source: status.source,
        problem: status.problem,
    }
}

fn screen(view: &StoreView) -> String {
    let or_none = |names: &[String]| match names {
        [] => "none".to_string(),
        names => names.join(", "),
    };
    let or_dash = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
    let number = |number: Option<u64>| number.map_or_else(|| "-".into(), |n: u64| n.to_string());
    let mut rows = vec![
        ("Federation:", or_dash(&view.federation)),
        ("This node:", view.role.clone()),
        ("Leader:", if view.leader.is_empty() { "not known".into() } else { view.leader.clone() }),
        ("Applied:", or_dash(&view.applied)),
    ];
    if !view.voters.is_empty() {
        rows.push(("Voters:", or_none(&view.voters)));
        rows.push(("Standbys:", or_none(&view.standbys)));
    }
    if view.term.is_some() || view.last_log.is_some() {
        rows.push((
            "Raft:",
            format!("term {}, last log {}", number(view.term), number(view.last_log)),
        ));
    }
    if let Some(quorum) = &view.quorum {
        rows.push(("Quorum:", format!("confirmed {} ago", age(quorum.age_ms))));
    }
    if !view.source.is_empty() {
        let heard =
            view.source_heard.as_ref().map(|heard| format!(", heard {} ago", age(heard.age_ms)));
        rows.push(("Fed by:", format!("{}{}", view.source, heard.unwrap_or_default())));
    }
    if !view.problem.is_empty() {
        rows.push(("Problem:", view.problem.clone()));
    }
    rows.iter().map(|(label, value)| format!("{label:<12}{value}\n")).collect()
}

fn facts_view(facts: wire::operator::proto::Snapshot, file: &Path) -> SnapshotView {
    SnapshotView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "StoreSnapshot",
        file: file.display().to_string(),
        revision: revision(facts.revision),
        bytes: facts.bytes,
        pairs: facts.pairs,
        sha256: facts.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn line(view: &SnapshotView) -> String {
    let SnapshotView { file, revision, bytes, pairs, .. } = view;
    format!("{file}: revision {revision}, {pairs} keys, {bytes} bytes")
}

fn page(view: &SnapshotView) -> String {
    let rows = [
        ("File:", view.file.clone()),
        ("Revision:", view.revision.clone()),
        ("Keys:", view.pairs.to_string()),
        ("Size:", format!("{} bytes", view.bytes)),
        ("SHA-256:", view.sha256.clone()),
    ];
    rows.iter().map(|(label, value)| format!("{label:<12}{value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_on_another_machine_has_its_whole_path() {
        assert_eq!(path(Path::new("/a/b"), Some("x/y")).unwrap().path, "/a/b");
        assert!(path(Path::new("b"), None).unwrap().path.starts_with('/'));
        let error = path(Path::new("b"), Some("x/y")).unwrap_err().to_string();
        assert!(error.starts_with("error: b: the file is in x/y\nhint: "), "{error}");
    }
    use crate::golden;
    use wire::resource::proto::Revision;

    fn now() -> Timestamp {
        "2026-01-01T03:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_status_of_leader_and_replica_is_as_golden() {
        let leader = StoreStatus {
            mode: "member".into(),
            federation: "f0".repeat(16),
            role: "leader".into(),
            leader: "east".into(),
            term: Some(7),
            last_log: Some(8420),
            applied: Some(Revision { epoch: 1, index: 8420 }),
            voters: vec!["east".into(), "west".into(), "south".into()],
            quorum_age_ms: Some(43),
            ..StoreStatus::default()
        };
        let replica = StoreStatus {
            mode: "replica".into(),
            role: "replica".into(),
            federation: "f0".repeat(16),
            applied: Some(Revision { epoch: 1, index: 8419 }),
            source: "west".into(),
            source_age_ms: Some(95_000),
            problem: "the last event was refused: FED6124".into(),
            ..StoreStatus::default()
        };
        let (leader, replica) = (view(leader, now()), view(replica, now()));
        golden::check("store-status.txt", &screen(&leader));
        golden::check("store-status.json", &serde_json::to_string_pretty(&leader).unwrap());
        golden::check("store-status-replica.txt", &screen(&replica));
    }

    #[test]
    fn snapshots_are_as_golden() {
        let facts = wire::operator::proto::Snapshot {
            revision: Some(Revision { epoch: 1, index: 8420 }),
            bytes: 219_136,
            pairs: 75,
            digest: vec![0xa5; 32],
        };
        let view = facts_view(facts, Path::new("backup.fed"));
        golden::check("snapshot-inspect.txt", &page(&view));
        golden::check("snapshot-save.txt", &format!("Saved and verified {}", line(&view)));
    }
}
