//! Tokens: used once, in time, whole, by whom they are for; and joiners that try again.

use std::path::Path;
use std::time::Duration;

use federation::membership::{
    JoinProgress, MembershipError, Mode, TokenRequest, TokenState, TokenText,
};
use model::RoleSet;
use model::code::{
    JOIN_DENIED, JOIN_UNREACHABLE, NAME_TAKEN, TOKEN_EXPIRED, TOKEN_MISMATCH, TOKEN_REVOKED,
    TOKEN_UNKNOWN, TOKEN_USED, TRUST_DOMAIN_TAKEN,
};
use tokio::sync::mpsc;
use wire::store::{JoinToken, TokenId, TokenSecret};

use super::site::{Cluster, files, request, stop_all};
use crate::fixture::{soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_once_and_its_secret_stays_in_it() {
    let east = Cluster::start("east").await;
    east.membership().init().await.unwrap();
    let token = east.token(&request("west")).await;
    let west = Cluster::start("west").await;
    let check = west.membership().check_token(&token.text).await.unwrap();
    assert_eq!(check.verdict, Ok(()));
    assert!(check.addresses.iter().all(|report| report.outcome.is_ok()));
    assert_eq!(west.membership().mode(), Mode::Alone, "a check changes nothing");
    let joined = west.join(&token.text).await.unwrap();
    assert_eq!((joined.inviter.as_str(), joined.members), ("east", 2));
    // The same joiner may ask again; for others the token is used.
    assert_eq!(west.join(&token.text).await.unwrap().cluster, joined.cluster);
    let other = Cluster::start("west").await;
    let refused = other.join(&token.text).await.unwrap_err();
    assert_eq!(refused.code(), TOKEN_USED, "{refused}");
    let rows = east.membership().tokens().unwrap();
    assert_eq!(rows[0].state, TokenState::Redeemed(joined.cluster));

    let secret = secret_of(&token.text);
    let text = token.text.expose().as_bytes().to_vec();
    assert!(!format!("{token:?} {rows:?}").contains(token.text.expose()));
    for cluster in [&east, &west] {
        for (path, bytes) in files(&cluster.path("")) {
            let found = |needle: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
            assert!(!found(&secret) && !found(&text), "the secret is in {}", path.display());
        }
    }
    stop_all(vec![east, west, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_not_what_was_issued_are_refused() {
    let east = Cluster::start("east").await;
    let member = east.membership();
    member.init().await.unwrap();
    let west = Cluster::start("west").await;
    let token = east.token(&request("west")).await;
    let altered = |change: fn(&mut JoinToken)| {
        let mut token = JoinToken::parse(token.text.expose()).unwrap();
        change(&mut token);
        TokenText::new(token.to_text().unwrap().as_str())
    };
    let cases = [
        (altered(|t| t.secret = TokenSecret::from_bytes([9; 32])), TOKEN_MISMATCH, "secret"),
        (altered(|t| t.delegation_depth += 1), TOKEN_MISMATCH, "Member.delegation_depth"),
        (altered(|t| t.roles = RoleSet::NONE), TOKEN_MISMATCH, "Member.roles"),
        (altered(|t| t.token_id = TokenId::from_bytes([9; 16])), TOKEN_UNKNOWN, "no such token"),
    ];
    for (text, code, words) in cases {
        let refused = west.join(&text).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
    let unreached = west.join(&altered(|t| t.ca_pin = [9; 32])).await.unwrap_err();
    assert_eq!(unreached.code(), JOIN_UNREACHABLE, "{unreached}");
    assert!(unreached.to_string().contains("none is the CA that the token pins"), "{unreached}");
    let cut = TokenText::new(&token.text.expose()[..token.text.expose().len() - 5]);
    let refused = west.join(&cut).await.unwrap_err().to_string();
    assert!(refused.contains("the token is cut off"), "{refused}");
    let other = Cluster::start("south").await;
    let refused = other.join(&token.text).await.unwrap_err();
    assert_eq!(refused.code(), NAME_TAKEN);
    assert!(refused.to_string().contains("is for a cluster named west, and this one is south"));

    member.revoke_token(token.id).await.unwrap();
    let refused = west.join(&token.text).await.unwrap_err();
    assert!([TOKEN_REVOKED, TOKEN_UNKNOWN].contains(&refused.code()), "{refused}");
    assert_eq!(member.tokens().unwrap()[0].state, TokenState::Revoked);
    assert_eq!(west.membership().mode(), Mode::Alone);
    drop(member);
    stop_all(vec![east, west, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_has_its_time() {
    let east = Cluster::start("east").await;
    east.membership().init().await.unwrap();
    let west = Cluster::start("west").await;
    let short = TokenRequest { lifetime: Some(Duration::from_secs(2)), ..request("west") };
    let token = east.token(&short).await;
    let reader = west.membership();
    let is_over = || async { reader.read_token(&token.text).is_err() };
    until("its end", is_over, |over| *over).await;
    drop(reader);
    let refused = west.join(&token.text).await.unwrap_err();
    assert!(matches!(refused, MembershipError::TokenExpired { .. }), "{refused}");
    // A joiner whose clock is behind is told by the inviter.
    let mut late = JoinToken::parse(token.text.expose()).unwrap();
    late.expires_at_unix_ms += 3_600_000;
    let refused = west.join(&TokenText::new(late.to_text().unwrap().as_str())).await.unwrap_err();
    assert_eq!(refused.code(), TOKEN_EXPIRED, "{refused}");
    let endless = TokenRequest { lifetime: Some(Duration::from_secs(1 << 30)), ..request("west") };
    let refused = east.membership().issue_token(endless).await.unwrap_err().to_string();
    assert!(refused.contains("choose at least 1 ms and at most 7 days"), "{refused}");
    stop_all(vec![east, west]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_race_for_a_token_one_wins_and_names_and_domains_are_unique() {
    let east = Cluster::start("east").await;
    east.membership().init().await.unwrap();
    let (one, two) = (Cluster::start("west").await, Cluster::start("west").await);
    let token = east.token(&request("west")).await;
    let (a, b) = tokio::join!(one.join(&token.text), two.join(&token.text));
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    won.unwrap();
    let lost = lost.unwrap_err();
    assert!([TOKEN_USED, NAME_TAKEN].contains(&lost.code()), "{lost}");
    let taken = east.membership().issue_token(request("west")).await.unwrap_err();
    assert_eq!(taken.code(), NAME_TAKEN, "{taken}");
    let mut thief = Cluster::prepare("south");
    thief.trust_domain = "west.example".into();
    thief.start_node().await;
    let token = east.token(&request("south")).await;
    let taken = thief.join(&token.text).await.unwrap_err();
    assert_eq!(taken.code(), TRUST_DOMAIN_TAKEN, "{taken}");
    stop_all(vec![east, one, two, thief]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_approves_or_denies() {
    let east = Cluster::start("east").await;
    let member = east.membership();
    member.init().await.unwrap();
    let west = Cluster::start("west").await;
    let asking = TokenRequest { approval_needed: true, ..request("west") };
    let token = east.token(&asking).await;
    for approve in [false, true] {
        let (progress, mut steps) = mpsc::channel(32);
        let (joiner, text) = (west.membership(), token.text.clone());
        let joining = tokio::spawn(async move { joiner.join(&text, progress).await });
        until("a join that waits", || async { member.pending() }, |rows| rows.len() == 1).await;
        let row = member.pending().remove(0);
        assert_eq!((row.name.as_str(), row.token), ("west", token.id));
        let waits = async { while steps.recv().await != Some(JoinProgress::WaitingForApproval) {} };
        soon("word that a person is waited for", waits).await;
        let decide = if approve { member.approve(row.cluster) } else { member.deny(row.cluster) };
        decide.unwrap();
        match joining.await.unwrap() {
            Ok(joined) => assert!(approve && joined.members == 2),
            Err(refused) => assert!(!approve && refused.code() == JOIN_DENIED, "{refused}"),
        }
    }
    assert!(member.pending().is_empty());
    drop(member);
    stop_all(vec![east, west]).await;
}

/// What a joiner has on disk may be of any moment of its join.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_died_tries_again_with_the_same_token() {
    let east = Cluster::start("east").await;
    let member = east.membership();
    member.init().await.unwrap();
    let mut west = Cluster::start("west").await;
    let asking = TokenRequest { approval_needed: true, ..request("west") };
    let token = east.token(&asking).await;
    // Dies while it waits: nothing was redeemed.
    let (joiner, text) = (west.membership(), token.text.clone());
    let (progress, _) = mpsc::channel(1);
    let joining = tokio::spawn(async move { joiner.join(&text, progress).await });
    until("a join that waits", || async { member.pending() }, |rows| rows.len() == 1).await;
    joining.abort();
    assert!(joining.await.unwrap_err().is_cancelled());
    until("an empty list", || async { member.pending() }, Vec::is_empty).await;
    west.stop_node().await;
    west.start_node().await;
    // Dies after the log has it, before anything is on its own disk: as if it had never asked.
    let spare = tempfile::tempdir().unwrap();
    let store = west.path("data/store");
    west.stop_node().await;
    copy(&store, &spare.path().join("store"));
    west.start_node().await;
    let (joiner, text) = (west.membership(), token.text.clone());
    let (progress, _) = mpsc::channel(1);
    let joining = tokio::spawn(async move { joiner.join(&text, progress).await });
    until("a join that waits", || async { member.pending() }, |rows| rows.len() == 1).await;
    member.approve(member.pending()[0].cluster).unwrap();
    let first = joining.await.unwrap().unwrap();
    west.stop_node().await;
    std::fs::remove_dir_all(&store).unwrap();
    copy(&spare.path().join("store"), &store);
    west.start_node().await;
    assert_eq!(west.membership().mode(), Mode::Alone);
    // Nobody has to approve again.
    let second = west.join(&token.text).await.unwrap();
    assert_eq!(second.cluster, first.cluster);
    assert_eq!(member.members().iter().filter(|row| row.active).count(), 2);
    drop(member);
    stop_all(vec![east, west]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_made_that_nobody_can_redeem() {
    let mut east = Cluster::prepare("east");
    east.start_node().await;
    let member = east.membership();
    member.init().await.unwrap();
    let refused = member.issue_token(request("west")).await.unwrap_err();
    let MembershipError::NoAddressAnswered { reports, .. } = &refused else { panic!("{refused}") };
    assert_eq!(reports.len(), 1);
    assert!(refused.to_string().contains("issue the token with --force"), "{refused}");
    let forced = TokenRequest { force: true, ..request("west") };
    let token = member.issue_token(forced).await.unwrap();
    let mut west = Cluster::prepare("west");
    west.start_node().await;
    let unreached = west.join(&token.text).await.unwrap_err();
    assert_eq!(unreached.code(), JOIN_UNREACHABLE);
    assert!(unreached.to_string().contains("no address of the inviter answered:\n  quic 127."));
    drop(member);
    stop_all(vec![east, west]).await;
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
}

/// The secret is the message's field 11, 32 bytes.
pub(crate) fn secret_of(text: &TokenText) -> [u8; 32] {
    let body = text.expose().strip_prefix("fedgate1.").unwrap();
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'-' => 62,
        _ => 63,
    };
    let bits = body.bytes().flat_map(|c| (0..6).rev().map(move |bit| digit(c) >> bit & 1));
    let bits: Vec<u8> = bits.collect();
    let byte = |bits: &[u8]| bits.iter().fold(0_u8, |byte, bit| byte << 1 | bit);
    let bytes: Vec<u8> = bits.chunks_exact(8).map(byte).collect();
    let at = bytes.windows(2).position(|pair| pair == [11 << 3 | 2, 32]).unwrap() + 2;
    bytes[at..at + 32].try_into().unwrap()
}
