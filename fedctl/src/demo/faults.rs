//! What the demo does to its clusters once they run: it cuts one off, kills the leader's federation
//! node, and lets one leave. An outside client sends requests all the while.

use std::time::{Duration, Instant};

use wire::operator::proto::{
    GetStoreRequest, IssueTokenRequest, LeaveRequest, ListMembersRequest, RevokeTokenRequest,
};

use super::manifests::PUBLIC_HOST;
use super::probe::{self, Probe};
use super::story::{CHAIN, Demo, micros, wait_for};
use crate::operator::Operator;
use crate::printer::{self, Printer};

const BEFORE_THE_FAULT: Duration = Duration::from_millis(300);
/// So many answers the outside client gets before west comes back.
const ANSWERS_WITHOUT_WEST: usize = 100;
const CHAIN_WITHOUT_WEST: &str = "web@east → api@south → db@south";
const CHAIN_WITHOUT_SOUTH: &str = "web@east → api@west → db@north";
/// How long south's exports are withdrawn before it leaves.
const DRAIN: Duration = Duration::from_millis(500);
/// A write that is not acknowledged by then is sent again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

impl Demo {
    /// The fault: the relay drops west's packets, and nothing of ours is told.
    pub async fn lose_west(&self, printer: &Printer) -> anyhow::Result<()> {
        printer.talk("Now the fault: the relay drops every packet from and to west.");
        let outside_client = self.outside_client().await?;
        let cut = Instant::now();
        self.fleet.relay().cut("west")?;
        answered_with(&outside_client, cut, CHAIN_WITHOUT_WEST).await?;
        wait_for("steady answers without west", async || {
            Ok((outside_client.since(cut).len() >= ANSWERS_WITHOUT_WEST).then_some(()))
        })
        .await?;
        let failover = probe::outage(cut, &outside_client.since(cut));
        printer.talk(&format!(" ✓ {:<15} {CHAIN_WITHOUT_WEST}", "api fails over"));
        printer.talk(&format!(
            " ✓ {:<15} longest wait for an answer {:.2} s; {} of {} requests failed",
            "outside client",
            failover.gap.as_secs_f64(),
            failover.failed,
            failover.requests,
        ));
        anyhow::ensure!(
            failover.gap < Duration::from_secs(1),
            "the gap was {:.2} s; it must be below 1 s",
            failover.gap.as_secs_f64()
        );
        let healed = Instant::now();
        self.fleet.relay().heal("west")?;
        let back = answered_with(&outside_client, healed, CHAIN).await? - healed;
        let after = printer::milliseconds(micros(back));
        printer.talk(&format!(" ✓ {:<15} {CHAIN}   after {after}", "west is back"));
        Ok(())
    }

    /// The node that leads the store dies while requests are on their way.
    pub async fn lose_leader(&mut self, printer: &Printer) -> anyhow::Result<()> {
        let east = Operator::connect(&self.fleet.cluster("east").operator_socket()).await?;
        let store = east.get_store(GetStoreRequest {}).await?;
        let leader = store.leader;
        let writer = store.voters.into_iter().find(|voter| *voter != leader);
        let writer = writer.unwrap_or_default();
        printer.talk(&format!("Now {leader}'s federation node is killed; it leads the store."));
        let outside_client = self.outside_client().await?;
        let killed = Instant::now();
        self.fleet.cluster_mut(&leader).kill_federation();
        let operator = Operator::connect(&self.fleet.cluster(&writer).operator_socket()).await?;
        let token =
            wait_for("a write without the leader", async || Ok(write(&operator).await)).await?;
        let took = printer::milliseconds(micros(killed.elapsed()));
        let leads = operator.get_store(GetStoreRequest {}).await?.leader;
        printer
            .talk(&format!(" ✓ {:<15} {writer} writes again after {took}; {leads} leads", "store"));
        operator.revoke_token(RevokeTokenRequest { id: token }).await?;
        no_request_failed(&outside_client, killed, printer)?;
        wait_for("the killed node's folder to be free", async || {
            Ok(self.fleet.cluster_mut(&leader).start_federation().await.ok())
        })
        .await?;
        let back = Operator::connect(&self.fleet.cluster(&leader).operator_socket()).await?;
        wait_for("the killed node to follow", async || {
            let there = back.get_store(GetStoreRequest {}).await?;
            let here = operator.get_store(GetStoreRequest {}).await?;
            Ok((there.applied == here.applied && there.leader == here.leader).then_some(()))
        })
        .await?;
        printer.talk(&format!(" ✓ {:<15} started again, and has what it missed", leader));
        Ok(())
    }

    /// South leaves in order: its exports go first.
    pub async fn south_leaves(&self, printer: &Printer) -> anyhow::Result<()> {
        printer.talk("Now south leaves the federation.");
        let outside_client = self.outside_client().await?;
        let south = Operator::connect(&self.fleet.cluster("south").operator_socket()).await?;
        let east = Operator::connect(&self.fleet.cluster("east").operator_socket()).await?;
        let begun = Instant::now();
        let drain_ms = u64::try_from(DRAIN.as_millis()).ok();
        south.leave(LeaveRequest { drain_ms, force: false }).await?;
        answered_with(&outside_client, begun, CHAIN_WITHOUT_SOUTH).await?;
        printer.talk(&format!(" ✓ {:<15} {CHAIN_WITHOUT_SOUTH}", "db is taken over"));
        let store = wait_for("the others to know", async || {
            let request = ListMembersRequest::default();
            let members = east.list_members(request).await?.members;
            let gone = members.iter().any(|m| m.name == "south" && m.state == "left");
            let store = east.get_store(GetStoreRequest {}).await?;
            Ok((gone && !store.voters.iter().any(|voter| voter == "south")).then_some(store))
        })
        .await?;
        let voters = store.voters.join(", ");
        printer.talk(&format!(" ✓ {:<15} has left; voters are {voters}", "south"));
        no_request_failed(&outside_client, begun, printer)
    }

    /// One that has had answers already.
    async fn outside_client(&self) -> anyhow::Result<Probe> {
        let client = Probe::start(self.public_http(), PUBLIC_HOST)?;
        wait_for("the outside client's first answers", async || {
            let since = Instant::now() - BEFORE_THE_FAULT;
            Ok((client.since(since).len() > 10).then_some(()))
        })
        .await?;
        Ok(client)
    }
}

/// A write that a quorum has to agree to; `None` while it does not.
async fn write(operator: &Operator) -> Option<String> {
    let request = IssueTokenRequest {
        name: "spare".into(),
        roles: "none".into(),
        force: true,
        ..IssueTokenRequest::default()
    };
    let written = tokio::time::timeout(WRITE_TIMEOUT, operator.issue_token(request)).await;
    Some(written.ok()?.ok()?.id)
}

fn no_request_failed(client: &Probe, from: Instant, printer: &Printer) -> anyhow::Result<()> {
    let seen = probe::outage(from, &client.since(from));
    printer.talk(&format!(
        " ✓ {:<15} {} of {} requests failed",
        "outside client", seen.failed, seen.requests
    ));
    anyhow::ensure!(seen.failed == 0, "{} of {} requests failed", seen.failed, seen.requests);
    Ok(())
}

/// Waits until the outside client got `chain` as an answer after `from`, and tells when.
async fn answered_with(client: &Probe, from: Instant, chain: &str) -> anyhow::Result<Instant> {
    wait_for(&format!("the answer {chain:?}"), async || {
        let samples = client.since(from);
        let good = samples.into_iter().find(|sample| sample.outcome.as_deref() == Ok(chain));
        Ok(good.map(|sample| sample.done))
    })
    .await
}
