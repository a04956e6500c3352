//! A JoinGrant's life, round by round, with the Secrets and tokens that come of it.

use std::time::{Duration, SystemTime};

use model::{ClusterId, ClusterName, Revision, RoleSet};

use super::*;
use crate::kubernetes::apply::{Plan, Step, plan};
use crate::membership::TokenText;

static GRANT: Kind =
    Kind { group: "fedgate.dev", version: "v1alpha1", kind: "JoinGrant", plural: "joingrants" };

fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

fn id(number: u8) -> TokenId {
    TokenId::from_bytes([number; 16])
}

fn grant(name: &str, uid: &str, secret: &str) -> Arc<Value> {
    Arc::new(json!({
        "apiVersion": "fedgate.dev/v1alpha1", "kind": "JoinGrant",
        "metadata": {"name": name, "uid": uid, "generation": 1},
        "spec": {"cluster": "west", "secretRef": {"name": secret}},
    }))
}

fn issued(number: u8) -> IssuedToken {
    IssuedToken {
        text: TokenText::new("fedgate1.c2VjcmV0"),
        id: id(number),
        name: ClusterName::parse("west").unwrap(),
        expires: SystemTime::from(now()) + Duration::from_secs(900),
        addresses: vec![],
        revision: Revision::default(),
    }
}

fn row(number: u8, state: TokenState) -> (TokenId, TokenRow) {
    let row = TokenRow {
        id: id(number),
        name: ClusterName::parse("west").unwrap(),
        roles: RoleSet::NONE,
        issuer: ClusterId::from_bytes([1; 16]),
        issued: now().into(),
        expires: SystemTime::from(now()) + Duration::from_secs(900),
        approval_needed: false,
        state,
    };
    (row.id, row)
}

/// A cluster in a federation, from one round to the next.
#[derive(Default)]
struct World {
    grants: Vec<Arc<Value>>,
    tokens: BTreeMap<TokenId, TokenRow>,
    progress: Progress,
    own: Observed,
    said: BTreeMap<String, Value>,
}

impl World {
    /// What was decided, with what is asked of the API server; it is done as asked.
    fn round(&mut self) -> (Asks, Vec<String>) {
        let facts = Facts {
            kind: Some(&GRANT),
            namespace: "fedgate-system",
            grants: self.grants.clone(),
            tokens: Some(self.tokens.clone()),
            progress: &self.progress,
            said: &self.said,
        };
        let Decided { writes, asks, said, kept } = decide(&facts, &self.own, now());
        self.said = said;
        self.progress.fresh.retain(|uid, _| !kept.contains(uid));
        let Plan { steps, .. } = plan(NAME, writes, &self.own, &BTreeMap::new());
        let mut done = Vec::new();
        for step in steps.iter().filter(|step| step.target().kind == &SECRET) {
            match step {
                Step::Apply { target, document, .. } => {
                    done.push(format!("apply {target}"));
                    self.own.objects.insert(target.clone(), document.clone());
                }
                Step::Delete { target, .. } => {
                    done.push(format!("delete {target}"));
                    self.own.objects.remove(target);
                }
            }
        }
        (asks, done)
    }

    fn state(&self, uid: &str) -> String {
        let said = &self.said[uid];
        let ready = &said["conditions"][1];
        format!("{} {} {}", said["state"], ready["status"], ready["reason"]).replace('"', "")
    }
}

#[test]
fn a_token_is_issued_written_used_and_its_secret_goes_with_the_grant() {
    let mut world = World { grants: vec![grant("west", "u1", "west-token")], ..World::default() };
    let (asks, done) = world.round();
    assert_eq!((asks.issue.len(), &*asks.issue[0].secret), (1, "west-token"));
    assert_eq!((done.len(), &*world.state("u1")), (0, "Pending False Pending"));
    world.progress.fresh.insert("u1".into(), issued(7));
    world.tokens.extend([row(7, TokenState::Open)]);
    let (asks, done) = world.round();
    assert_eq!(
        (asks, done),
        (Asks::default(), vec!["apply Secret/fedgate-system/west-token".into()])
    );
    assert_eq!(world.state("u1"), "Issued True Ready");
    assert_eq!(world.said["u1"]["expiresAt"], "2026-03-01T10:15:00Z");
    let secret = world.own.of(&SECRET).next().unwrap();
    assert_eq!(secret["data"]["token"], "ZmVkZ2F0ZTEuYzJWamNtVjA=");
    assert_eq!(secret["metadata"]["labels"][WRITER_LABEL], NAME);
    // Nobody but the Secret has it now.
    assert_eq!(world.round(), (Asks::default(), vec![]));
    assert!(world.progress.fresh.is_empty());
    assert!(!world.said["u1"].to_string().contains("fedgate1"));
    world.tokens.extend([row(7, TokenState::Redeemed(ClusterId::from_bytes([9; 16])))]);
    assert_eq!(world.round(), (Asks::default(), vec![]));
    assert_eq!(world.state("u1"), "Redeemed False Redeemed");
    world.grants.clear();
    let (asks, done) = world.round();
    assert_eq!(
        (asks, done),
        (Asks::default(), vec!["delete Secret/fedgate-system/west-token".into()])
    );
}

#[test]
fn an_unused_token_is_revoked_before_its_secret_goes() {
    let mut world = World { grants: vec![grant("west", "u1", "west-token")], ..World::default() };
    world.progress.fresh.insert("u1".into(), issued(7));
    world.tokens.extend([row(7, TokenState::Open)]);
    world.round();
    // Made again under the same name: it waits for the end of the first one.
    world.grants = vec![grant("west", "u2", "west-token")];
    let (asks, done) = world.round();
    assert_eq!((asks.revoke, asks.issue, done), (BTreeSet::from([id(7)]), vec![], vec![]));
    world.tokens.extend([row(7, TokenState::Revoked)]);
    let (asks, done) = world.round();
    assert_eq!(
        (asks, done),
        (Asks::default(), vec!["delete Secret/fedgate-system/west-token".into()])
    );
    assert_eq!(world.round().0.issue[0].uid, "u2");
}

#[test]
fn a_token_whose_grant_went_before_its_secret_came_is_revoked() {
    let mut world = World::default();
    world.progress.fresh.insert("u1".into(), issued(7));
    world.tokens.extend([row(7, TokenState::Open)]);
    let (asks, done) = world.round();
    assert_eq!((asks.revoke, done), (BTreeSet::from([id(7)]), vec![]));
    world.tokens.clear();
    assert_eq!(world.round().0, Asks::default());
    assert!(world.progress.fresh.is_empty());
}

#[test]
fn a_secret_that_was_deleted_does_not_come_back() {
    let mut world = World { grants: vec![grant("west", "u1", "west-token")], ..World::default() };
    world.progress.fresh.insert("u1".into(), issued(7));
    world.tokens.extend([row(7, TokenState::Open)]);
    world.round();
    world.round();
    world.own = Observed::default();
    assert_eq!(world.round(), (Asks::default(), vec![]));
    assert_eq!(world.state("u1"), "Issued False Failed");
    world.tokens.extend([row(7, TokenState::Expired)]);
    world.round();
    assert_eq!(world.state("u1"), "Expired False Expired");
    // The store has forgotten it.
    world.tokens.clear();
    world.round();
    assert_eq!(world.state("u1"), "Expired False Expired");
}

#[test]
fn two_grants_do_not_share_a_secret_and_a_wrong_one_gets_no_token() {
    let mut wrong = (*grant("wrong", "u3", "other")).clone();
    wrong["spec"]["expires"] = json!("1s");
    let grants = vec![grant("a", "u1", "token"), grant("b", "u2", "token"), Arc::new(wrong)];
    let mut world = World { grants, ..World::default() };
    let asks = world.round().0;
    assert_eq!(asks.issue.iter().map(|ask| &*ask.name).collect::<Vec<_>>(), ["a"]);
    let accepted = |uid: &str| world.said[uid]["conditions"][0]["reason"].clone();
    assert_eq!(
        (accepted("u1"), accepted("u2"), accepted("u3")),
        ("Accepted".into(), "Conflicted".into(), "Invalid".into())
    );
}

#[test]
fn a_grant_that_comes_later_does_not_take_the_secret_of_another() {
    let mut world = World { grants: vec![grant("west", "u2", "token")], ..World::default() };
    world.progress.fresh.insert("u2".into(), issued(7));
    world.tokens.extend([row(7, TokenState::Open)]);
    world.grants.insert(0, grant("a", "u1", "token"));
    world.round();
    assert_eq!(world.round(), (Asks::default(), vec![]));
    let accepted = |uid: &str| world.said[uid]["conditions"][0]["reason"].clone();
    assert_eq!((accepted("u1"), accepted("u2")), ("Conflicted".into(), "Accepted".into()));
}

#[test]
fn a_secret_of_somebody_elses_is_known_by_its_labels() {
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect::<BTreeMap<_, _>>()
    };
    assert!(is_foreign(&labels(&[])));
    assert!(is_foreign(&labels(&[(MANAGED_BY_LABEL, MANAGED_BY)])));
    assert!(!is_foreign(&labels(&[(MANAGED_BY_LABEL, MANAGED_BY), (WRITER_LABEL, NAME)])));
}
