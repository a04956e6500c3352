//! What clients did and saw, and whether it could have happened one at a time, in real time order.
//!
//! The register is everything that the store knows of the tokens for one name: a set that grows,
//! each of whose members may be revoked. A read returns all of it, so that it tells of every change
//! before it. Operations on different names do not depend on each other, and so are checked apart;
//! where nothing is under way on a name, its history is cut, since its state there is known.

use std::collections::{BTreeMap, BTreeSet};

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

/// Most operations of unknown outcome on one name that are looked for among tokens nobody owns to.
const UNKNOWN_MAX: usize = 6;

/// Every token for one name, and whether it is revoked.
pub(super) type Tokens = BTreeMap<String, bool>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The node chooses the token's id.
    Issue,
    Revoke(String),
    List,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Issued(String),
    Revoked,
    Listed(Tokens),
}

/// One operation of one client; times are nanoseconds of one clock.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) name: String,
    pub(super) asked: Asked,
    pub(super) begun: u64,
    /// `None`: it is not known whether it took effect, nor when.
    pub(super) ended: Option<(u64, Answered)>,
}

/// How many operations overlap another one on the same name.
pub(super) fn overlapping(history: &[Operation]) -> usize {
    let mut count = 0;
    for operations in by_name(history).values() {
        let end = |operation: &Operation| operation.ended.as_ref().map_or(u64::MAX, |(at, _)| *at);
        let overlaps = |one: &&&Operation| {
            let with = |other: &&Operation| one.begun < end(other) && other.begun < end(one);
            operations.iter().filter(|other| with(other)).count() > 1
        };
        count += operations.iter().filter(overlaps).count();
    }
    count
}

/// # Errors
/// The part of a history that no order of its operations explains.
pub(super) fn check(history: &[Operation]) -> Result<(), String> {
    for (name, operations) in by_name(history) {
        let mut state = Tokens::new();
        for part in parts(&operations) {
            if !explained(&state, &part) {
                return Err(format!("{name}, after {state:?}:\n{}", told(&part)));
            }
            part.iter().for_each(|operation| operation.add_to(&mut state));
            part.iter().for_each(|operation| operation.revoke_in(&mut state));
        }
    }
    Ok(())
}

impl Operation {
    fn add_to(&self, state: &mut Tokens) {
        if let Some((_, Answered::Issued(id))) = &self.ended {
            state.insert(id.clone(), false);
        }
    }

    fn revoke_in(&self, state: &mut Tokens) {
        if let Asked::Revoke(id) = &self.asked {
            state.insert(id.clone(), true);
        }
    }
}

/// In order of their beginning. A read without an answer says nothing.
fn by_name(history: &[Operation]) -> BTreeMap<&str, Vec<&Operation>> {
    let mut names: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if operation.ended.is_some() || operation.asked != Asked::List {
            names.entry(&operation.name).or_default().push(operation);
        }
    }
    names.values_mut().for_each(|operations| operations.sort_by_key(|o| o.begun));
    names
}

/// Cut where nothing is under way; behind an unknown outcome, that is nowhere.
fn parts<'a>(operations: &[&'a Operation]) -> Vec<Vec<&'a Operation>> {
    let (mut parts, mut open_until) = (Vec::<Vec<_>>::new(), 0);
    for &operation in operations {
        if operation.begun > open_until || parts.is_empty() {
            parts.push(Vec::new());
        }
        parts.last_mut().expect("one was pushed").push(operation);
        let end = operation.ended.as_ref().map_or(u64::MAX, |(at, _)| *at);
        open_until = open_until.max(end);
    }
    parts
}

/// Tokens that appear without an answer that names them are of issues whose outcome is unknown: one
/// of the ways to match them must be explained.
fn explained(state: &Tokens, part: &[&Operation]) -> bool {
    let (mut known, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for operation in part {
        match &operation.ended {
            Some((_, Answered::Issued(id))) => drop(known.insert(id)),
            Some((_, Answered::Listed(tokens))) => seen.extend(tokens.keys()),
            _ => {}
        }
    }
    let of_nobody = |id: &&&String| !known.contains(**id) && !state.contains_key(**id);
    let strange: Vec<&String> = seen.iter().filter(of_nobody).copied().collect();
    let is_open =
        |operation: &&Operation| operation.asked == Asked::Issue && operation.ended.is_none();
    let unknown: Vec<usize> = (0..part.len()).filter(|&at| is_open(&part[at])).collect();
    if unknown.len() > UNKNOWN_MAX || strange.len() > unknown.len() {
        return false;
    }
    let matched = matchings(&strange, &unknown);
    matched.iter().any(|issued| is_linearizable(state, part, issued))
}

/// Every way to give each token one of the issues.
fn matchings(tokens: &[&String], issues: &[usize]) -> Vec<BTreeMap<usize, String>> {
    let Some((token, tokens)) = tokens.split_first() else { return vec![BTreeMap::new()] };
    let mut all = Vec::new();
    for issue in issues {
        let others: Vec<usize> = issues.iter().copied().filter(|other| other != issue).collect();
        for mut matching in matchings(tokens, &others) {
            matching.insert(*issue, (*token).clone());
            all.push(matching);
        }
    }
    all
}

/// `issued`: the tokens of issues whose outcome is unknown. One that is not in it was seen by
/// nobody, as if it had not been made.
fn is_linearizable(state: &Tokens, part: &[&Operation], issued: &BTreeMap<usize, String>) -> bool {
    let mut events = Vec::new();
    for (at, operation) in part.iter().enumerate() {
        let action = match (&operation.asked, &operation.ended) {
            (Asked::List, _) => Action::List,
            (Asked::Revoke(id), _) => Action::Revoke(id.clone()),
            (Asked::Issue, Some((_, Answered::Issued(id)))) => Action::Issue(id.clone()),
            (Asked::Issue, _) => match issued.get(&at) {
                Some(id) => Action::Issue(id.clone()),
                None => continue,
            },
        };
        events.push((operation.begun, 0, at, action, None));
        if let Some((ended, answer)) = &operation.ended {
            let seen = match answer {
                Answered::Listed(tokens) => Some(tokens.clone()),
                _ => None,
            };
            events.push((*ended, 1, at, Action::List, Some(seen)));
        }
    }
    // Of two at the same moment the beginning comes first: then they count as concurrent.
    events.sort_by_key(|(when, kind, at, ..)| (*when, *kind, *at));
    let mut tester = LinearizabilityTester::new(Register(state.clone()));
    for (_, _, at, action, answer) in events {
        let told = match answer {
            None => tester.on_invoke(at, action),
            Some(seen) => tester.on_return(at, seen),
        };
        told.expect("each operation begins once and ends once");
    }
    tester.is_consistent()
}

#[derive(Clone, Debug)]
enum Action {
    Issue(String),
    Revoke(String),
    List,
}

/// The tokens for one name, one operation at a time.
#[derive(Clone, Debug)]
struct Register(Tokens);

impl SequentialSpec for Register {
    type Op = Action;
    type Ret = Option<Tokens>;

    fn invoke(&mut self, action: &Action) -> Option<Tokens> {
        match action {
            Action::Issue(id) => {
                self.0.insert(id.clone(), false);
                None
            }
            // It can be revoked only after it was issued.
            Action::Revoke(id) => {
                self.0.entry(id.clone()).and_modify(|revoked| *revoked = true);
                None
            }
            Action::List => Some(self.0.clone()),
        }
    }
}

fn told(part: &[&Operation]) -> String {
    let lines = part.iter().map(|operation| {
        let Operation { asked, begun, ended, .. } = operation;
        format!("  {begun} {asked:?} -> {ended:?}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(begun: u64, asked: Asked, ended: Option<(u64, Answered)>) -> Operation {
        Operation { name: "n".into(), asked, begun, ended }
    }

    fn issued(begun: u64, ended: u64, id: &str) -> Operation {
        operation(begun, Asked::Issue, Some((ended, Answered::Issued(id.into()))))
    }

    fn revoked(begun: u64, ended: u64, id: &str) -> Operation {
        operation(begun, Asked::Revoke(id.into()), Some((ended, Answered::Revoked)))
    }

    fn listed(begun: u64, ended: u64, tokens: &[(&str, bool)]) -> Operation {
        let tokens = tokens.iter().map(|(id, revoked)| ((*id).into(), *revoked)).collect();
        operation(begun, Asked::List, Some((ended, Answered::Listed(tokens))))
    }

    #[test]
    fn a_history_in_which_every_read_is_fresh_is_explained() {
        let history = [
            issued(0, 10, "a"),
            listed(11, 20, &[("a", false)]),
            // Concurrent with the revocation: before it, then after it.
            revoked(21, 60, "a"),
            listed(22, 30, &[("a", false)]),
            listed(31, 40, &[("a", true)]),
            listed(61, 70, &[("a", true)]),
        ];
        assert_eq!(check(&history), Ok(()));
        assert_eq!(overlapping(&history), 3);
    }

    #[test]
    fn a_stale_read_is_caught() {
        for stale in [
            vec![issued(0, 10, "a"), listed(11, 20, &[])],
            vec![issued(0, 10, "a"), revoked(11, 20, "a"), listed(21, 30, &[("a", false)])],
            // Two reads one after the other during one write: the second has forgotten it.
            vec![
                issued(0, 10, "a"),
                revoked(11, 60, "a"),
                listed(20, 30, &[("a", true)]),
                listed(31, 40, &[("a", false)]),
            ],
            // Two clients see two writes in different orders.
            vec![
                issued(0, 50, "a"),
                issued(0, 50, "b"),
                listed(1, 20, &[("a", false)]),
                listed(1, 20, &[("b", false)]),
            ],
            vec![listed(0, 10, &[("of nobody", false)])],
        ] {
            assert!(check(&stale).is_err(), "{stale:?}");
        }
    }

    #[test]
    fn what_is_not_known_may_have_happened_at_any_time_or_never() {
        let unknown = operation(0, Asked::Issue, None);
        for (reads, good) in [
            (vec![listed(1, 10, &[]), listed(11, 20, &[("x", false)])], true),
            (vec![listed(1, 10, &[]), listed(11, 20, &[])], true),
            (vec![listed(1, 10, &[("x", false)]), listed(11, 20, &[])], false),
            (vec![listed(1, 10, &[("x", false), ("y", false)])], false),
        ] {
            let history: Vec<_> = [unknown.clone()].into_iter().chain(reads).collect();
            assert_eq!(check(&history).is_ok(), good, "{history:?}");
        }
        let revoking = operation(11, Asked::Revoke("a".into()), None);
        let mut history = vec![
            issued(0, 10, "a"),
            revoking,
            listed(12, 20, &[("a", false)]),
            listed(21, 30, &[("a", true)]),
        ];
        assert_eq!(check(&history), Ok(()));
        history.push(listed(31, 40, &[("a", false)]));
        assert!(check(&history).is_err());
    }
}
