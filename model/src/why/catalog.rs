//! Hop 2: the destination exports the service, and the source knows of it.

use std::collections::BTreeSet;

use super::{
    Broken, Checked, Facts, Feed, MemberState, NodeFacts, Path, Question, Seen, Standing,
    StoreFacts, Target, access,
};
use crate::code::{
    CLUSTER_CORDONED, CLUSTER_NOT_FOUND, FEDERATION_NONE, MEMBER_REVOKED, NOT_A_MEMBER,
    NOT_EXPORTED, NOT_YET, OWNER_WITHDRAWN, PORT_NOT_FOUND, SERVICE_NOT_FOUND, STORE_NO_QUORUM,
    WATCH_SOURCE_LOST,
};
use crate::name::{ClusterName, ServiceName};
use crate::policy::Decision;

/// Clusters that could serve: the one that is asked for; else those that the source knows; else
/// those whose own word or records name the service.
pub(super) fn candidates(
    question: &Question,
    from: &ClusterName,
    service: &ServiceName,
    facts: &Facts,
) -> Vec<ClusterName> {
    if let Target::Service { cluster: Some(cluster), .. } = &question.target {
        return vec![cluster.clone()];
    }
    let mut known = BTreeSet::new();
    if let Some(src) = facts.get(from) {
        known.extend(src.import(service).iter().flat_map(|import| import.clusters.clone()));
        // A local Service without an import is what its own name leads to.
        let is_own = src.service(service).is_some();
        if is_own && (known.is_empty() || src.declares_export(service)) {
            known.insert(from.clone());
        }
    }
    if known.is_empty() {
        let has = |node: &&NodeFacts| {
            node.cluster != *from
                && (node.service(service).is_some() || node.declares_export(service))
        };
        known.extend(facts.values().filter(has).map(|node| node.cluster.clone()));
        let offers = facts.values().filter_map(|node| node.store.as_ref());
        known.extend(offers.flat_map(|store| &store.offers).map(|offer| offer.cluster.clone()));
        known.remove(from);
    }
    known.into_iter().collect()
}

/// The port that is meant when none is named: the lowest of those that anybody knows.
pub(super) fn usual_port(from: &ClusterName, service: &ServiceName, facts: &Facts) -> Option<u16> {
    let nodes = facts.get(from).into_iter().chain(facts.values());
    let ports = nodes.filter_map(|node| {
        let import = node.import(service).map(|import| &import.ports);
        let ports = import.or_else(|| node.service(service).map(|service| &service.ports));
        ports?.iter().map(|port| port.port).min()
    });
    let mut ports = ports;
    ports.next()
}

pub(super) fn check(path: &Path<'_>) -> Checked {
    if path.is_local() {
        return own_service(path);
    }
    check_membership(path)?;
    if let Some(dst) = path.dst {
        check_export(path, dst)?;
    }
    check_offer(path)?;
    check_cordon(path)?;
    match path.src {
        Some(src) => check_import(path, src),
        None if path.dst.is_some() => Ok(Seen::Ok(format!(
            "{} exports {}{}; whether {} imports it, its node was not asked",
            path.to,
            path.service,
            path.port_shown(),
            path.from
        ))),
        None => Ok(seen_by_others(path)),
    }
}

fn own_service(path: &Path<'_>) -> Checked {
    let Some(node) = path.src else {
        let text = format!("the node of {} was not asked", path.from);
        return Ok(Seen::Unknown(text));
    };
    let Some(service) = node.service(path.service) else {
        return Err(no_service(path, node));
    };
    check_port(path, service.ports.iter().map(|port| port.port), node)?;
    Ok(Seen::Ok(format!("{} has the Service itself", path.from)))
}

fn no_service(path: &Path<'_>, node: &NodeFacts) -> Broken {
    let Path { service, .. } = path;
    let text = format!("there is no Service {service} in {}", node.cluster);
    Broken::new(SERVICE_NOT_FOUND, text, format!("create the Service in {}", node.cluster))
}

fn check_port(
    path: &Path<'_>,
    ports: impl Iterator<Item = u16>,
    node: &NodeFacts,
) -> Result<(), Broken> {
    let Some(wanted) = path.port else { return Ok(()) };
    let ports: BTreeSet<u16> = ports.collect();
    if ports.contains(&wanted) {
        return Ok(());
    }
    let shown: Vec<String> = ports.iter().map(u16::to_string).collect();
    let shown = if shown.is_empty() { "no port".into() } else { shown.join(", ") };
    Err(Broken::new(
        PORT_NOT_FOUND,
        format!("{} has no port {wanted} as {} has it, but {shown}", path.service, node.cluster),
        format!(
            "use one of these ports in the route and in DST, or add port {wanted} to the Service"
        ),
    ))
}

/// Both clusters belong together: members of one federation, or introduced by a ClusterPeer.
fn check_membership(path: &Path<'_>) -> Result<(), Broken> {
    let Path { from, to, .. } = path;
    let both = [path.src, path.dst];
    let views = both.into_iter().flatten().chain(path.facts.values());
    for store in views.filter_map(|node| node.store.as_ref()) {
        for cluster in [to, from] {
            match store.member(cluster).map(|member| member.state) {
                Some(MemberState::Revoked) => return Err(revoked(cluster)),
                Some(MemberState::Left) => return Err(no_member(path, cluster, "has left", store)),
                Some(MemberState::Active) | None => {}
            }
        }
    }
    match path.src {
        Some(src) => check_peer(path, src),
        None => {
            let knows = |node: &&NodeFacts, cluster: &ClusterName| {
                node.cluster == *cluster || node.snapshot.peers.contains_key(cluster)
            };
            let stores = || path.facts.values().filter_map(|node| node.store.as_ref());
            for cluster in [to, from] {
                let unknown = !path.facts.values().any(|node| knows(&node, cluster));
                if let (true, Some(store)) = (unknown, stores().next())
                    && stores().all(|store| store.member(cluster).is_none())
                {
                    return Err(no_member(path, cluster, "is no member of", store));
                }
            }
            Ok(())
        }
    }
}

fn check_peer(path: &Path<'_>, src: &NodeFacts) -> Result<(), Broken> {
    let Path { from, to, .. } = path;
    // One that is there but not in service has a trust domain that others claim too: hop 5 says so.
    if src.snapshot.peers.contains_key(*to) || src.has_peer(to) {
        return Ok(());
    }
    let introduce = format!(
        "`fedctl token issue` in a member of the federation, then `fedctl join` in {to}; or give \
         each the other's `fedctl peer`"
    );
    match &src.store {
        Some(store) if store.member(to).is_some() => Err(Broken::new(
            CLUSTER_NOT_FOUND,
            format!("{to} is a member of the federation, but {from} has no address of it yet"),
            format!("`fedctl diagnostics` in {to} and in {from} says what stops its ClusterPeer"),
        )),
        Some(store) => Err(no_member(path, to, "is no member of", store)),
        None if src.snapshot.peers.is_empty() => Err(Broken::new(
            FEDERATION_NONE,
            format!("{from} is in no federation and has no ClusterPeer"),
            introduce,
        )),
        None => Err(Broken::new(
            CLUSTER_NOT_FOUND,
            format!("{from} has no ClusterPeer {to} and is in no federation"),
            introduce,
        )),
    }
}

fn revoked(cluster: &ClusterName) -> Broken {
    Broken::new(
        MEMBER_REVOKED,
        format!("{cluster} was revoked"),
        format!(
            "if that was a mistake: reinstall the node of {cluster}, and let it join by a new token"
        ),
    )
}

fn no_member(path: &Path<'_>, cluster: &ClusterName, how: &str, store: &StoreFacts) -> Broken {
    let active = store.members.iter().filter(|member| member.state == MemberState::Active);
    let names: Vec<&str> = active.map(|member| member.name.as_str()).collect();
    let other = if cluster == path.to { path.from } else { path.to };
    Broken::new(
        NOT_A_MEMBER,
        format!("{cluster} {how} the federation of {other}; members are {}", names.join(", ")),
        format!(
            "`fedctl token issue {cluster}` in a member, then `fedctl join TOKEN` in {cluster}"
        ),
    )
}

/// What the destination's own objects say.
fn check_export(path: &Path<'_>, dst: &NodeFacts) -> Result<(), Broken> {
    let Path { from, to, service, .. } = path;
    if !dst.declares_export(service) {
        let (text, fix) = match dst.service(service) {
            Some(_) => (
                format!("{to} has the Service {service}, but does not export it"),
                format!("in {to}: `fedctl export {service} --to {from}`"),
            ),
            None => (
                format!("{to} has neither a Service {service} nor a ServiceExport of it"),
                format!("create the Service in {to}, then `fedctl export {service} --to {from}`"),
            ),
        };
        return Err(Broken::new(NOT_EXPORTED, text, fix));
    }
    let Some(found) = dst.service(service) else {
        return Err(no_service(path, dst));
    };
    check_port(path, found.ports.iter().map(|port| port.port), dst)
}

/// What its records in the store say, as whoever was asked sees them.
fn check_offer(path: &Path<'_>) -> Result<(), Broken> {
    let both = [path.dst, path.src];
    let stores = both.into_iter().flatten().filter_map(|node| node.store.as_ref());
    for store in stores {
        let idle = store.offer(path.to).and_then(|offer| offer.idle.as_ref());
        if let Some(idle) = idle {
            let text = format!("the export of {} in {} {}", path.service, path.to, idle.message);
            return Err(Broken::new(idle.code, text, &*idle.fix));
        }
    }
    Ok(())
}

/// An operator, here or there, wants no new exchanges to be sent to it.
fn check_cordon(path: &Path<'_>) -> Result<(), Broken> {
    let Path { from, to, .. } = path;
    for node in [path.src, path.dst].into_iter().flatten() {
        if let Some(why) = node.cordoned.get(*to) {
            return Err(Broken::new(
                CLUSTER_CORDONED,
                format!("{to} is cordoned, so that {from} sends nothing new to it: {why}"),
                format!("`fedctl uncordon {to}` in the cluster where it was cordoned"),
            ));
        }
    }
    Ok(())
}

/// What the source has of it.
fn check_import(path: &Path<'_>, src: &NodeFacts) -> Checked {
    let Path { from, to, service, .. } = path;
    let heard = src.store.as_ref().and_then(|store| store.member(to)?.heard);
    if let Some((age, Standing::Withdrawn)) = heard {
        return Err(Broken::new(
            OWNER_WITHDRAWN,
            format!("{from} has not heard of {to} for {}", super::path::shown(age)),
            format!(
                "start the node of {to}, or mend the network; its exports return by themselves"
            ),
        ));
    }
    let import = src.import(service);
    if let Some(import) = import.filter(|import| import.clusters.contains(to)) {
        check_port(path, import.ports.iter().map(|port| port.port), src)?;
        let word = heard.map_or_else(String::new, |(age, standing)| {
            let stale = if standing == Standing::Stale { ", stale" } else { "" };
            format!(", heard of {} ago{stale}", super::path::shown(age))
        });
        return Ok(Seen::Ok(format!(
            "{to} exports {service}{}{word}; {from} has it at revision {}",
            path.port_shown(),
            src.snapshot.revision
        )));
    }
    match access::decision(path) {
        Some(Decision::Allow) => Err(on_its_way(path, src)),
        Some(_) => Ok(Seen::Ok(format!("{to} exports {service}, but does not show it to {from}"))),
        None => Err(Broken::new(
            NOT_EXPORTED,
            format!(
                "{from} has no import of {service} from {to}: it is not exported there, or no \
                 AccessPolicy there lets {from} see it"
            ),
            format!(
                "in {to}: `fedctl export {service} --to {from}`; `--also NODE` with the node of \
                 {to} tells which of the two it is"
            ),
        )),
    }
}

/// Exported and allowed, and not here.
fn on_its_way(path: &Path<'_>, src: &NodeFacts) -> Broken {
    let Path { from, to, service, .. } = path;
    let Some(store) = &src.store else {
        return Broken::new(
            SERVICE_NOT_FOUND,
            format!("{from} has no ServiceImport {service} that names {to}"),
            format!("create it in {from}; in a federation that happens by itself"),
        );
    };
    let fed_by = |node: Option<&NodeFacts>| Some(node?.store.as_ref()?.feed.clone());
    let text = format!("{to} exports {service}, but {from} has not heard of that");
    match (&store.feed, fed_by(path.dst)) {
        (Feed::Leaderless, _) | (_, Some(Feed::Leaderless)) => Broken::new(
            STORE_NO_QUORUM,
            format!("{text}: the store has no quorum, so that changes wait"),
            "`fedctl store status` shows which voters are missing; bring one back",
        ),
        (Feed::Cut, _) | (_, Some(Feed::Cut)) => Broken::new(
            WATCH_SOURCE_LOST,
            format!("{text}: no member feeds one of the two nodes"),
            "`fedctl store peers` shows why members are silent",
        ),
        _ => Broken::new(
            NOT_YET,
            format!("{text} at revision {}", store.revision),
            "ask again in a few seconds; if it stays, `fedctl diagnostics` in both clusters",
        ),
    }
}

/// Neither of the two clusters was asked.
fn seen_by_others(path: &Path<'_>) -> Seen {
    let Path { from, to, service, .. } = path;
    let stores = path.facts.values().filter_map(|node| node.store.as_ref());
    let mut offers = stores.filter_map(|store| store.offer(to));
    match offers.next() {
        Some(_) => Seen::Ok(format!("{to} exports {service}, as others see it")),
        None => Seen::Unknown(format!(
            "whether {to} exports {service}, neither its node nor that of {from} was asked"
        )),
    }
}
