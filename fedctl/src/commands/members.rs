//! The members of the federation: rows of `fedctl store peers`, and names for ids.

use std::collections::BTreeMap;

use serde::Serialize;
use wire::operator::proto::{ListMembersRequest, MemberStatus};

use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::Printer;
use crate::view::List;

const HEADER: [&str; 9] =
    ["CLUSTER", "STORE", "STATE", "ROLES", "ISSUER", "HEAD", "RECORDS", "PATH", "TRUST DOMAINS"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemberView {
    pub(super) name: String,
    id: String,
    own: bool,
    store_role: String,
    state: String,
    roles: String,
    delegation_depth: u32,
    issuer: String,
    epoch: Option<u64>,
    generation: Option<u64>,
    records: u32,
    path: Option<String>,
    trust_domains: Vec<String>,
}

/// `fedctl store peers`.
pub(super) async fn list(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let members = fetch(node, "").await?;
    let list = views(members);
    printer.result(&list, |list| list.table(&HEADER, row))
}

/// All members, or the active ones that a cluster admitted.
pub(super) async fn fetch(
    node: &Operator,
    admitted_by: &str,
) -> Result<Vec<MemberStatus>, CommandError> {
    let request = ListMembersRequest { admitted_by: admitted_by.into() };
    Ok(node.list_members(request).await?.members)
}

fn views(members: Vec<MemberStatus>) -> List<MemberView> {
    let names =
        Names::from_pairs(members.iter().map(|row| (row.cluster.clone(), row.name.clone())));
    let note = match members.is_empty() {
        true => "This cluster is in no federation: fedctl init, or fedctl join TOKEN",
        false => "",
    };
    let views = members.into_iter().map(|row| MemberView {
        issuer: if row.issuer == row.cluster { "root".into() } else { names.shown(&row.issuer) },
        name: row.name,
        id: row.cluster,
        own: row.own,
        store_role: row.store_role,
        state: row.state,
        roles: row.roles,
        delegation_depth: row.delegation_depth,
        epoch: row.epoch,
        generation: row.generation,
        records: row.records,
        path: Some(row.path).filter(|path| !path.is_empty()),
        trust_domains: row.trust_domains,
    });
    List::new("MemberList", note.into(), views.collect())
}

fn row(member: &MemberView) -> Vec<String> {
    let own = if member.own { " *" } else { "" };
    let head = member.epoch.zip(member.generation);
    vec![
        format!("{}{own}", member.name),
        member.store_role.clone(),
        member.state.clone(),
        member.roles.clone(),
        member.issuer.clone(),
        head.map_or_else(|| "-".into(), |(epoch, generation)| format!("{epoch}.{generation}")),
        member.records.to_string(),
        member.path.clone().unwrap_or_else(|| "-".into()),
        member.trust_domains.join(", "),
    ]
}

/// Names of clusters by their ids.
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    pub(super) async fn of(node: &Operator) -> Result<Self, CommandError> {
        let members = fetch(node, "").await?;
        Ok(Self::from_pairs(members.into_iter().map(|row| (row.cluster, row.name))))
    }

    pub(super) fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// The name, or the id of a cluster that is not known.
    pub(super) fn shown(&self, id: &str) -> String {
        self.0.get(id).cloned().unwrap_or_else(|| id.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn members_are_listed_as_golden() {
        let member = |name: &str, id: u8, role: &str, state: &str| MemberStatus {
            cluster: format!("{id:02x}").repeat(16),
            name: name.into(),
            trust_domains: vec![format!("{name}.example")],
            roles: if id == 1 { "admit,admin,export" } else { "export" }.into(),
            delegation_depth: u32::from(id == 1) * 8,
            issuer: "01".repeat(16),
            state: state.into(),
            own: id == 2,
            epoch: (id < 4).then_some(1),
            generation: (id < 4).then_some(u64::from(id) * 7),
            records: u32::from(id),
            store_role: role.into(),
            path: if id == 1 { "tcp 192.0.2.1:8443" } else { "" }.into(),
            ..MemberStatus::default()
        };
        let list = views(vec![
            member("east", 1, "leader", "active"),
            member("west", 2, "voter", "active"),
            member("south", 3, "replica", "revoked"),
            member("north", 4, "unknown", "left"),
        ]);
        golden::check("store-peers.txt", &list.table(&HEADER, row));
        golden::check("store-peers.json", &serde_json::to_string_pretty(&list).unwrap());
        assert!(views(vec![]).table(&HEADER, row).contains("fedctl init"));
    }
}
