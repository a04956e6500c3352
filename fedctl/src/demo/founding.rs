//! How the demo's clusters come to know each other: east founds a federation, the others enter it by
//! one token each.

use std::time::{Duration, Instant};

use anyhow::Context;
use wire::operator::proto::join_event::Event;
use wire::operator::proto::{FoundRequest, GetStoreRequest, IssueTokenRequest, Joined};

use super::fleet::{Cluster, Fleet};
use super::story::{CLUSTERS, micros, wait_for};
use crate::operator::Operator;
use crate::printer::{Printer, milliseconds};

const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Members that vote; the fourth cluster is a Replica.
const VOTERS: usize = 3;

/// Founds, lets join, and waits until the store is as it shall be.
pub(super) async fn tell(fleet: &Fleet, printer: &Printer) -> anyhow::Result<()> {
    let [root, others @ ..] = CLUSTERS;
    let inviter = Operator::connect(&fleet.cluster(root).operator_socket()).await?;
    let founded = inviter.found(FoundRequest {}).await?;
    let federation = founded.federation;
    printer.talk(&format!(" ✓ {root:<15} init      federation {federation}"));
    for name in others {
        if name == "north" {
            wait_for_voters(&inviter, printer).await?;
        }
        let begun = Instant::now();
        let token = inviter.issue_token(request(name)).await?.text;
        let joined = join(fleet.cluster(name), token).await?;
        anyhow::ensure!(joined.federation == federation, "{name} joined another federation");
        let took = milliseconds(micros(begun.elapsed()));
        printer
            .talk(&format!(" ✓ {name:<15} join      by a token of {}, in {took}", joined.inviter));
    }
    let north = Operator::connect(&fleet.cluster("north").operator_socket()).await?;
    let source = wait_for("north to be fed by the watch", async || {
        let store = north.get_store(GetStoreRequest {}).await?;
        Ok((store.mode == "replica" && !store.source.is_empty()).then_some(store.source))
    })
    .await?;
    printer
        .talk(&format!(" ✓ {:<15} replica   not in Raft; its watch comes from {source}", "north"));
    Ok(())
}

fn request(name: &str) -> IssueTokenRequest {
    IssueTokenRequest {
        name: name.into(),
        // Whoever may admit can take over when the founder is away.
        roles: "admit,export".into(),
        delegation_depth: 1,
        lifetime_s: 0,
        approval_needed: false,
        force: false,
    }
}

async fn join(cluster: &Cluster, token: String) -> anyhow::Result<Joined> {
    let operator = Operator::connect(&cluster.operator_socket()).await?;
    let mut events = operator.join(token, JOIN_TIMEOUT).await?;
    while let Some(event) = events.message().await.context("join")? {
        if let Some(Event::Joined(joined)) = event.event {
            return Ok(joined);
        }
    }
    anyhow::bail!("{} did not say that it has joined", cluster.name)
}

async fn wait_for_voters(operator: &Operator, printer: &Printer) -> anyhow::Result<()> {
    let store = wait_for("three voters", async || {
        let store = operator.get_store(GetStoreRequest {}).await?;
        Ok((store.voters.len() == VOTERS && !store.leader.is_empty()).then_some(store))
    })
    .await?;
    let (voters, leader) = (store.voters.join(", "), store.leader);
    printer.talk(&format!(" ✓ {:<15} Raft      voters {voters}; {leader} leads", "store"));
    Ok(())
}
