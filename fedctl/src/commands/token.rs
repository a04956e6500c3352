//! `fedctl token`: what lets one new cluster in.

use jiff::Timestamp;
use serde::Serialize;
use wire::operator::proto::{
    IssueTokenRequest, IssuedToken, ListTokensRequest, RevokeTokenRequest, TokenStatus,
};

use super::members::Names;
use crate::cli::{Token, TokenIssue};
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer};
use crate::view::{AddressView, List, Since, Until};

const HEADER: [&str; 6] = ["ID", "FOR", "ROLES", "STATE", "EXPIRES", "ISSUER"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IssuedView {
    api_version: &'static str,
    kind: &'static str,
    /// The secret itself.
    token: String,
    id: String,
    name: String,
    expires: Option<Until>,
    addresses: Vec<AddressView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenView {
    id: String,
    name: String,
    roles: String,
    state: String,
    approval_needed: bool,
    redeemed_by: Option<String>,
    issuer: String,
    issued: Since,
    expires: Option<Until>,
}

pub(super) async fn run(
    verb: Token,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    match verb {
        Token::Issue(args) => issue(&args, node, printer).await,
        Token::List { linearizable } => list(linearizable, node, printer).await,
        Token::Revoke { id } => {
            node.revoke_token(RevokeTokenRequest { id: id.clone() }).await?;
            printer.talk(&format!("Token {id} is revoked."));
            Ok(())
        }
    }
}

/// The token alone goes to stdout, so that `TOKEN=$(fedctl token issue west)` works.
async fn issue(args: &TokenIssue, node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let request = IssueTokenRequest {
        name: args.name.clone(),
        roles: args.roles.clone(),
        delegation_depth: args.depth,
        lifetime_s: args.expires.as_secs(),
        approval_needed: args.approve,
        force: args.force,
    };
    let issued = issued(node.issue_token(request).await?, Timestamp::now());
    if printer.format == OutputFormat::Table {
        printer.talk(&told(&issued, args.approve));
    }
    printer.result(&issued, |issued| issued.token.clone())
}

fn issued(issued: IssuedToken, now: Timestamp) -> IssuedView {
    let addresses = issued.addresses.into_iter().map(AddressView::of);
    IssuedView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "IssuedToken",
        token: issued.text,
        id: issued.id,
        name: issued.name,
        expires: Until::unix_ms(issued.expires_unix_ms, now),
        addresses: addresses.collect(),
    }
}

fn told(issued: &IssuedView, approve: bool) -> String {
    let left = issued.expires.as_ref().map_or_else(|| "-".into(), Until::shown);
    let name = &issued.name;
    let mut text = String::new();
    for address in &issued.addresses {
        text.push_str(&format!(" {}\n", address.line()));
    }
    text.push_str(&format!("One use, for a cluster named {name}, {left}. It is a secret.\n"));
    text.push_str("Next: on the new cluster, fedctl join TOKEN\n");
    if approve {
        text.push_str(&format!("      then here, fedctl join --approve {name}\n"));
    }
    text.push_str(&format!("Undo: fedctl token revoke {}", issued.id));
    text
}

async fn list(linearizable: bool, node: &Operator, printer: &Printer) -> Result<(), CommandError> {
    let names = Names::of(node).await?;
    let now = Timestamp::now();
    let request = ListTokensRequest { name: String::new(), linearizable };
    let tokens = node.list_tokens(request).await?.tokens;
    let views = tokens.into_iter().map(|token| view(token, &names, now)).collect();
    printer.result(&List::new("TokenList", String::new(), views), |list| list.table(&HEADER, row))
}

fn view(token: TokenStatus, names: &Names, now: Timestamp) -> TokenView {
    let issued = i64::try_from(token.issued_unix_ms).unwrap_or_default();
    let issued = Timestamp::from_millisecond(issued).unwrap_or(Timestamp::UNIX_EPOCH);
    TokenView {
        redeemed_by: (!token.redeemed_by.is_empty()).then(|| names.shown(&token.redeemed_by)),
        issuer: names.shown(&token.issuer),
        issued: Since::time(issued, now),
        expires: Until::unix_ms(token.expires_unix_ms, now),
        id: token.id,
        name: token.name,
        roles: token.roles,
        state: token.state,
        approval_needed: token.approval_needed,
    }
}

fn row(token: &TokenView) -> Vec<String> {
    let state = match (&token.redeemed_by, token.approval_needed, &*token.state) {
        (Some(cluster), _, state) => format!("{state} by {cluster}"),
        (None, true, "open") => "open, needs approval".into(),
        (None, _, state) => state.into(),
    };
    let expires =
        token.expires.as_ref().filter(|_| token.state == "open" || token.state == "expired");
    vec![
        token.id.clone(),
        token.name.clone(),
        token.roles.clone(),
        state,
        expires.map_or_else(|| "-".into(), Until::shown),
        token.issuer.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use wire::operator::proto::{AddressReport, address_report::Outcome};
    use wire::resource::proto::{PeerAddress, Transport};

    fn now() -> Timestamp {
        "2026-01-01T03:00:00Z".parse().unwrap()
    }

    fn in_minutes(minutes: i64) -> u64 {
        u64::try_from(now().as_millisecond() + minutes * 60_000).unwrap()
    }

    #[test]
    fn a_new_token_is_told_of_and_its_text_stands_alone() {
        let report = |host: &str, outcome| AddressReport {
            address: Some(PeerAddress {
                transport: Transport::Quic.into(),
                host: host.into(),
                port: 8443,
            }),
            outcome: Some(outcome),
            over: Transport::Unspecified.into(),
        };
        let view = issued(
            IssuedToken {
                text: "fedgate1.c2VjcmV0".into(),
                id: "a5".repeat(16),
                name: "west".into(),
                expires_unix_ms: in_minutes(15),
                addresses: vec![
                    report("203.0.113.7", Outcome::AnsweredUs(18_000)),
                    report("10.0.0.4", Outcome::Problem("timed out after 2 s".into())),
                ],
            },
            now(),
        );
        golden::check("token-issue.txt", &told(&view, true));
        assert!(!told(&view, false).contains("c2VjcmV0"), "talk never has the secret");
        golden::check("token-issue.json", &serde_json::to_string_pretty(&view).unwrap());
    }

    #[test]
    fn tokens_are_listed_as_golden() {
        let token = |name: &str, state: &str, minutes, by: &str| TokenStatus {
            id: "a5".repeat(16),
            name: name.into(),
            roles: "export".into(),
            issuer: "01".repeat(16),
            issued_unix_ms: in_minutes(-60),
            expires_unix_ms: in_minutes(minutes),
            approval_needed: state == "open",
            state: state.into(),
            redeemed_by: by.into(),
        };
        let tokens = [
            token("west", "redeemed", 10, &"02".repeat(16)),
            token("south", "open", 12, ""),
            token("north", "expired", -3, ""),
            token("dc1", "revoked", 3, ""),
        ];
        let names = Names::from_pairs([("01".repeat(16), "east".into())]);
        let views = tokens.map(|token| view(token, &names, now()));
        let list = List::new("TokenList", String::new(), views.into());
        golden::check("token-list.txt", &list.table(&HEADER, row));
        golden::check("token-list.json", &serde_json::to_string_pretty(&list).unwrap());
    }
}
