//! ClusterPeers: one of ours for each other member of the federation, so that `kubectl get` shows
//! them, and the state of the links in the status of all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::kubernetes::{OwnCondition, OwnReason};
use jiff::Timestamp;
use model::{ClusterName, ClusterPeer, Diagnostic, Resource, Severity};
use serde_json::{Value, json};
use wire::resource::{Link, LinkState};

use super::status::{self, Object, Said, listed};
use super::world::{Gateway, World};

/// The round-trip time that each peer's status tells.
pub(super) type Told = BTreeMap<String, Duration>;

/// The document of a member's ClusterPeer. `None` as long as the member has no bundle, without which
/// there is none.
pub(super) fn fields(peer: &ClusterPeer) -> Option<Value> {
    if peer.trust_bundles.is_empty() {
        return None;
    }
    let text = match api::emit::cluster_peer_manifest(peer) {
        Ok(text) => text,
        Err(problem) => {
            tracing::warn!(%problem, peer = %peer.name, "its ClusterPeer cannot be written down");
            return None;
        }
    };
    let mut document: Value = serde_saphyr::from_str(&text).ok()?;
    Some(json!({ "spec": document.get_mut("spec")?.take() }))
}

/// The status of a ClusterPeer that a user made.
pub(super) fn of_user(
    world: &World,
    told: &mut Told,
    object: &Object,
    there: Option<&Value>,
    now: Timestamp,
) -> Value {
    let said = match &object.resource {
        Some(resource @ Resource::ClusterPeer(peer)) => {
            let key = resource.key();
            let wrong: Vec<&Diagnostic> =
                world.compiled(&key).filter(|found| found.severity == Severity::Error).collect();
            let accepted = match wrong.is_empty() {
                true if object.findings.is_empty() => taken_in("it is taken in".into()),
                true => taken_in(listed(&object.findings)),
                false => accepted(false, OwnReason::Conflicted, listed(wrong)),
            };
            vec![accepted, ready(world, told, &peer.name)]
        }
        _ => {
            let is_held = ClusterName::parse(object.name()).is_ok_and(|name| world.has_peer(&name));
            let problem = object.problem(is_held).unwrap_or_default();
            let message = "it is not connected with, since it is not accepted";
            let kind = OwnCondition::Ready.as_str();
            vec![
                accepted(false, OwnReason::Invalid, problem),
                Said::new(kind, false, OwnReason::Failed.as_str(), message),
            ]
        }
    };
    status::status(&said, &object.object, there, now)
}

/// The status of a member's ClusterPeer, which is ours.
pub(super) fn of_member(
    world: &World,
    told: &mut Told,
    name: &ClusterName,
    object: &Value,
    there: Option<&Value>,
    now: Timestamp,
) -> Value {
    let accepted = taken_in("it is a member of the federation".into());
    status::status(&[accepted, ready(world, told, name)], object, there, now)
}

fn taken_in(message: String) -> Said {
    accepted(true, OwnReason::Accepted, message)
}

fn accepted(holds: bool, reason: OwnReason, message: String) -> Said {
    Said::new(OwnCondition::Accepted.as_str(), holds, reason.as_str(), message)
}

fn ready(world: &World, told: &mut Told, name: &ClusterName) -> Said {
    let kind = OwnCondition::Ready.as_str();
    let reported: Vec<&Gateway> =
        world.gateways.iter().filter(|g| g.connected && g.links.is_some()).collect();
    if reported.is_empty() {
        let message = "no gateway of this cluster has reported yet";
        return Said::unknown(kind, OwnReason::Pending.as_str(), message);
    }
    let links: Vec<&Link> = reported.iter().flat_map(|gateway| gateway.links_to(name)).collect();
    let live: Vec<&Link> =
        links.iter().copied().filter(|link| link.state == LinkState::Live).collect();
    let with = reported.iter().filter(|gateway| gateway.has_live_link_to(name)).count();
    if live.is_empty() {
        let message = format!("no gateway is connected with it{}", last_error(&links));
        return Said::new(kind, false, OwnReason::NotConnected.as_str(), message);
    }
    let transports: BTreeSet<&str> = live.iter().map(|link| link.transport.as_str()).collect();
    let transports = transports.into_iter().collect::<Vec<_>>().join(", ");
    let rtt = live.iter().filter_map(|link| link.rtt_us).min().map(Duration::from_micros);
    let rtt = rtt.map(|rtt| shown(told, name, rtt));
    let rtt = rtt.map_or_else(String::new, |rtt| format!("; RTT about {}", in_words(rtt)));
    let (of, services) = (reported.len(), world.services_of(name));
    let message =
        format!("{with} of {of} gateways connected over {transports}{rtt}; {services} services");
    Said::new(kind, true, OwnReason::Ready.as_str(), message)
}

/// Each new figure would be a write, so a figure stays until it is off by half or more.
fn shown(told: &mut Told, name: &ClusterName, rtt: Duration) -> Duration {
    let shown = told.entry(name.to_string()).or_insert(rtt);
    if rtt < *shown / 2 || rtt > *shown * 3 / 2 {
        *shown = rtt;
    }
    *shown
}

fn in_words(rtt: Duration) -> String {
    match rtt.as_micros() {
        us @ 0..1000 => format!("{us} µs"),
        us => format!("{} ms", us.div_ceil(1000)),
    }
}

/// The youngest one. Its age is left out: it would never be the same twice.
fn last_error(links: &[&Link]) -> String {
    let errors = links.iter().filter_map(|link| link.last_error.as_ref());
    let Some(error) = errors.min_by_key(|error| error.age_ms) else {
        return "; see whether it is up, and whether UDP gets to its addresses".into();
    };
    match error.code {
        Some(code) => {
            format!(": {}; {} ({code})", error.text, code.entry().fix.trim_end_matches('.'))
        }
        None => format!(": {}", error.text),
    }
}
