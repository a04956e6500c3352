//! `fedctl join`: this cluster enters a federation, or lets another one in.

use std::io::Read;

use jiff::Timestamp;
use serde::Serialize;
use wire::operator::proto::{
    DecideJoinRequest, JoinEvent, Joined, ListPendingJoinsRequest, PendingJoin, TokenFacts,
    TokenText, TokenVerdict, join_event,
};

use super::peer;
use crate::cli::Join;
use crate::error::{CommandError, Exit};
use crate::operator::{Operator, refused};
use crate::printer::{OutputFormat, Printer, age};
use crate::view::{AddressView, List, Since, Until, revision};

const HEADER: [&str; 6] = ["CLUSTER", "ID", "TRUST DOMAINS", "FROM", "TOKEN", "WAITING"];
/// Longest token that is read from standard input.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JoinedView {
    api_version: &'static str,
    kind: &'static str,
    federation: String,
    cluster: String,
    inviter: String,
    members: u32,
    revision: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerdictView {
    api_version: &'static str,
    kind: &'static str,
    name: String,
    roles: String,
    federation: String,
    inviter: String,
    expires: Option<Until>,
    addresses: Vec<AddressView>,
    admitted: bool,
    code: Option<String>,
    text: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PendingView {
    cluster: String,
    id: String,
    trust_domains: Vec<String>,
    remote: String,
    token: String,
    waiting: Since,
}

pub(super) async fn run(
    args: Join,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    if args.list {
        return list(node, printer).await;
    }
    if let Some(cluster) = args.approve {
        return decide(cluster, true, node, printer).await;
    }
    if let Some(cluster) = args.deny {
        return decide(cluster, false, node, printer).await;
    }
    let token = token(args.token.as_deref().unwrap_or("-"))?;
    if args.pre || args.dry_run {
        return attempt(token, args.dry_run, node, printer).await;
    }
    let limit = args.wait;
    let joining = join(token, limit, node, printer);
    tokio::time::timeout(limit, joining).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        let message = format!("not joined within {seconds} s; the node goes on by itself");
        Err(CommandError::new(Exit::TimedOut, message).hint(
            "`fedctl store status` shows whether it is done; the same command may be run again",
        ))
    })
}

fn token(text: &str) -> Result<String, CommandError> {
    let mut token = text.to_string();
    if text == "-" {
        token.clear();
        let read = std::io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut token);
        read.map_err(|error| CommandError::usage(format!("read the token: {error}")))?;
    }
    let token = token.trim();
    if token.is_empty() {
        return Err(CommandError::usage("there is no token")
            .hint("`fedctl token issue NAME` on a member makes one"));
    }
    Ok(token.into())
}

/// Shows each step as it is made.
async fn join(
    token: String,
    limit: std::time::Duration,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let begun = std::time::Instant::now();
    let mut events = node.join(token, limit).await?;
    while let Some(event) = events.message().await.map_err(|status| refused(&status))? {
        let JoinEvent { event: Some(event) } = event else { continue };
        let join_event::Event::Joined(joined) = event else {
            if let Some(line) = step(event, Timestamp::now()) {
                printer.talk(&line);
            }
            continue;
        };
        let view = view(joined);
        let time =
            crate::printer::milliseconds(begun.elapsed().as_micros().try_into().unwrap_or(0));
        printer.result(&view, |view| summary(view, &time))?;
        if printer.format == OutputFormat::Table {
            printer.talk("Next: fedctl services · fedctl export NAMESPACE/NAME --to cluster=NAME");
            printer.talk("Undo: fedctl leave");
        }
        return Ok(());
    }
    Err(CommandError::failed("the node ended the answer early")
        .hint("run the same command again; its log says more"))
}

fn step(event: join_event::Event, now: Timestamp) -> Option<String> {
    use join_event::Event;
    Some(match event {
        Event::TokenRead(facts) => format!(" ✓ token read  {}", facts_line(&facts, now)),
        Event::AddressTried(report) => format!(" {}", AddressView::of(report).line()),
        Event::Waiting(_) => " … waiting for approval: on the inviter, fedctl join --list".into(),
        Event::Redeemed(changed) => {
            format!(" ✓ token redeemed  revision {}", revision(changed.revision))
        }
        Event::Stored(stored) => {
            let at = revision(stored.revision);
            format!(" ✓ store received and verified  {} members, revision {at}", stored.members)
        }
        Event::Published(changed) => {
            format!(" ✓ own records published  revision {}", revision(changed.revision))
        }
        Event::Joined(_) => return None,
    })
}

fn facts_line(facts: &TokenFacts, now: Timestamp) -> String {
    let left = Until::unix_ms(facts.expires_unix_ms, now);
    let left = left.map_or_else(|| "-".into(), |left| left.shown());
    format!("for {}, roles {}, from {}, {left}", facts.name, facts.roles, facts.inviter)
}

fn view(joined: Joined) -> JoinedView {
    JoinedView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "Joined",
        federation: joined.federation,
        cluster: joined.cluster,
        inviter: joined.inviter,
        members: joined.members,
        revision: revision(joined.revision),
    }
}

fn summary(view: &JoinedView, time: &str) -> String {
    let JoinedView { federation, inviter, members, .. } = view;
    format!("Joined {federation} through {inviter}. {members} members.  {time}")
}

/// `--pre` and `--dry-run`: the inviter's verdict, and for the latter what others would learn.
async fn attempt(
    token: String,
    dry_run: bool,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let verdict = verdict(node.try_token(TokenText { text: token }).await?, Timestamp::now());
    if dry_run {
        printer.talk(&check(&verdict));
        printer.data(&peer::manifest(node, printer).await?)?;
    } else {
        printer.result(&verdict, check)?;
    }
    if verdict.admitted {
        return Ok(());
    }
    let text = verdict.text.unwrap_or_default();
    let mut error = CommandError::failed(format!("the inviter would refuse: {text}"));
    error.code = verdict.code.as_deref().and_then(model::code::Code::parse);
    Err(error)
}

fn verdict(verdict: TokenVerdict, now: Timestamp) -> VerdictView {
    let facts = verdict.facts.unwrap_or_default();
    let code = model::code::Code::parse(&verdict.code.to_string()).map(|code| code.to_string());
    VerdictView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "TokenVerdict",
        name: facts.name,
        roles: facts.roles,
        federation: facts.federation,
        inviter: facts.inviter,
        expires: Until::unix_ms(facts.expires_unix_ms, now),
        addresses: verdict.addresses.into_iter().map(AddressView::of).collect(),
        admitted: verdict.admitted,
        code: code.filter(|_| !verdict.admitted),
        text: (!verdict.admitted).then_some(verdict.text),
    }
}

fn check(verdict: &VerdictView) -> String {
    let VerdictView { name, roles, inviter, federation, .. } = verdict;
    let left = verdict.expires.as_ref().map_or_else(|| "-".into(), Until::shown);
    let mut text = format!(
        "federation {federation}\n ✓ token read  for {name}, roles {roles}, from {inviter}, {left}\n"
    );
    for address in &verdict.addresses {
        text.push_str(&format!(" {}\n", address.line()));
    }
    text.push_str(match verdict.admitted {
        true => " ✓ the inviter would admit this cluster\nNothing was changed.",
        false => " ✗ the inviter would refuse this cluster\nNothing was changed.",
    });
    text
}

async fn list(node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let now = Timestamp::now();
    let joins = node.list_pending_joins(ListPendingJoinsRequest {}).await?.joins;
    let list = pending(joins, now);
    printer.result(&list, |list| match list.items.is_empty() {
        true => "No cluster waits for approval here.".into(),
        false => list.table(&HEADER, row),
    })?;
    if !list.items.is_empty() && printer.format == OutputFormat::Table {
        printer.talk("Next: fedctl join --approve CLUSTER · fedctl join --deny CLUSTER");
    }
    Ok(())
}

fn pending(joins: Vec<PendingJoin>, now: Timestamp) -> List<PendingView> {
    let views = joins.into_iter().map(|join| PendingView {
        cluster: join.name,
        id: join.cluster,
        trust_domains: join.trust_domains,
        remote: join.remote,
        token: join.token,
        waiting: Since::age(join.waiting_ms, now),
    });
    List::new("PendingJoinList", String::new(), views.collect())
}

fn row(join: &PendingView) -> Vec<String> {
    vec![
        join.cluster.clone(),
        join.id.clone(),
        join.trust_domains.join(", "),
        join.remote.clone(),
        join.token.clone(),
        age(join.waiting.age_ms),
    ]
}

async fn decide(
    cluster: String,
    approve: bool,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let decided = node.decide_join(DecideJoinRequest { cluster, approve }).await?;
    let verdict = if approve { "may join" } else { "was turned away" };
    printer.talk(&format!("{} {verdict}.", decided.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use wire::operator::proto::{
        AddressReport, Changed, StoredMembers, WaitingForApproval, address_report::Outcome,
    };
    use wire::resource::proto::{PeerAddress, Revision, Transport};

    fn now() -> Timestamp {
        "2026-01-01T03:00:00Z".parse().unwrap()
    }

    fn facts() -> TokenFacts {
        TokenFacts {
            id: "a5".repeat(16),
            federation: "f0".repeat(16),
            name: "west".into(),
            roles: "export".into(),
            inviter: "spiffe://east.example/fedgate/federation/node-0".into(),
            addresses: vec![],
            expires_unix_ms: u64::try_from(now().as_millisecond()).unwrap() + 720_000,
        }
    }

    fn report(over: Transport, outcome: Outcome) -> AddressReport {
        let address =
            PeerAddress { transport: Transport::Quic.into(), host: "fd00::7".into(), port: 8443 };
        AddressReport { address: Some(address), outcome: Some(outcome), over: over.into() }
    }

    #[test]
    fn the_steps_of_a_join_read_as_golden() {
        use join_event::Event;
        let revision = Some(Revision { epoch: 1, index: 9 });
        let events = [
            Event::TokenRead(facts()),
            Event::AddressTried(report(
                Transport::Unspecified,
                Outcome::Problem("connection refused".into()),
            )),
            Event::AddressTried(report(Transport::Quic, Outcome::AnsweredUs(18_000))),
            Event::AddressTried(report(Transport::Tcp, Outcome::AnsweredUs(1_118_000))),
            Event::Waiting(WaitingForApproval {}),
            Event::Redeemed(Changed { revision }),
            Event::Stored(StoredMembers { members: 2, revision }),
            Event::Published(Changed { revision }),
        ];
        let mut text: Vec<_> = events.into_iter().filter_map(|event| step(event, now())).collect();
        let joined = view(Joined {
            federation: "f0".repeat(16),
            cluster: "c0".repeat(16),
            inviter: "east".into(),
            members: 2,
            revision,
        });
        text.push(summary(&joined, "1.4 s"));
        golden::check("join.txt", &text.join("\n"));
        golden::check("join.json", &serde_json::to_string_pretty(&joined).unwrap());
    }

    #[test]
    fn a_check_says_what_would_happen() {
        let answer = TokenVerdict {
            facts: Some(facts()),
            addresses: vec![report(Transport::Tcp, Outcome::AnsweredUs(18_000))],
            admitted: false,
            code: 6116,
            text: "the name west is taken".into(),
        };
        let refused = verdict(answer.clone(), now());
        golden::check("join-pre.txt", &check(&refused));
        golden::check("join-pre.json", &serde_json::to_string_pretty(&refused).unwrap());
        let admitted = verdict(TokenVerdict { admitted: true, ..answer }, now());
        assert_eq!((admitted.code.as_ref(), admitted.text.as_ref()), (None, None));
        assert!(check(&admitted).contains("✓ the inviter would admit this cluster"));
    }

    #[test]
    fn waiting_clusters_are_listed_as_golden() {
        let join = PendingJoin {
            cluster: "c0".repeat(16),
            name: "west".into(),
            token: "a5".repeat(16),
            trust_domains: vec!["west.example".into()],
            remote: "198.51.100.4:40112".into(),
            waiting_ms: 42_000,
        };
        let list = pending(vec![join], now());
        golden::check("join-list.txt", &list.table(&HEADER, row));
    }

    #[test]
    fn no_token_is_a_usage_error() {
        let error = token("  ").unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert_eq!(token(" fedgate1.x\n").unwrap(), "fedgate1.x");
    }
}
