//! May this exchange pass? Identity first, then loops, then the export, then its policy.

use identity::TrustDomainOwners;
use model::policy::{Caller, Decision};
use model::snapshot::Export;
use model::{AppProtocol, ClusterId, ClusterName, Snapshot, SpiffeId};
use tunnel::PeerIdentity;
use wire::tunnel::{Open, RouteSide};

use super::fits;
use crate::error::{Kind, ProxyError};
use crate::state::GatewayState;

/// The protocol of the port that the exchange is for, or the refusal.
pub(super) fn admit(
    gateway: &GatewayState,
    snapshot: &Snapshot,
    peer: &PeerIdentity,
    open: &Open,
) -> Result<AppProtocol, ProxyError> {
    let own = gateway.cluster_id.load().as_deref().copied();
    let identity = gateway.identity.load();
    check_identity(&identity.owners, &peer.cluster, &peer.spiffe_id, open)?;
    check_loop(own, open)?;
    check_revision(gateway, snapshot, &peer.cluster, open)?;
    let (export, protocol) = find_export(snapshot, open)?;
    check_policy(export, &peer.cluster, open)?;
    Ok(protocol)
}

/// A gateway speaks for identities of its own cluster's trust domains only, and for a caller
/// without an SVID under its own name only (DESIGN §8). The owners are those that handshakes go
/// by: our own trust domain is ours there, whatever a ClusterPeer claims.
fn check_identity(
    owners: &TrustDomainOwners,
    cluster: &ClusterName,
    gateway: &SpiffeId,
    open: &Open,
) -> Result<(), ProxyError> {
    let refuse = |detail| Err(ProxyError::unsent(Kind::IdentityRefused, detail));
    let source = &open.source;
    if open.unattested {
        return match source == gateway {
            true => Ok(()),
            false => refuse(format!(
                "an unattested caller travels as its gateway {gateway}, not as {source}"
            )),
        };
    }
    if source.part().is_some() {
        return refuse(format!("{source} is a part of Fedgate, not a workload"));
    }
    match owners.owner(source.trust_domain()) {
        Some(owner) if owner == cluster => Ok(()),
        _ => refuse(format!(
            "trust domain {} is not cluster {cluster}'s, so its gateway cannot speak for {source}",
            source.trust_domain()
        )),
    }
}

/// More hops than allowed do not decode; `via` holds the others (DESIGN §9).
fn check_loop(own: Option<ClusterId>, open: &Open) -> Result<(), ProxyError> {
    let Some(own) = own else {
        let detail = "this gateway does not know its cluster's id yet";
        return Err(ProxyError::unsent(Kind::Draining, detail));
    };
    if open.via.contains(own) {
        let detail = "the exchange has been through this cluster already";
        return Err(ProxyError::unsent(Kind::Loop, detail));
    }
    Ok(())
}

fn check_revision(
    gateway: &GatewayState,
    snapshot: &Snapshot,
    peer: &ClusterName,
    open: &Open,
) -> Result<(), ProxyError> {
    let Some(route) = open.route.filter(|route| route.side == RouteSide::Producer) else {
        return Ok(()); // a consumer route is the source's own affair
    };
    let (demanded, own) = (route.revision, snapshot.revision);
    if gateway.not_yet.applies(peer, demanded, own, gateway.now()) {
        let detail = format!("revision {demanded} of the route is not here yet, {own} is");
        return Err(ProxyError::unsent(Kind::NotYet, detail));
    }
    Ok(())
}

fn find_export<'a>(
    snapshot: &'a Snapshot,
    open: &Open,
) -> Result<(&'a Export, AppProtocol), ProxyError> {
    let refuse = |kind, detail| Err(ProxyError::unsent(kind, detail));
    let Some(export) = snapshot.exports.get(&open.service) else {
        return refuse(Kind::NotExported, format!("{} is not exported here", open.service));
    };
    let Some(protocol) = export.ports.get(&open.port) else {
        let ports: Vec<u16> = export.ports.keys().copied().collect();
        let detail = format!("{} has no port {}; use one of {ports:?}", open.service, open.port);
        return refuse(Kind::NotExported, detail);
    };
    if !fits(open.kind, *protocol) {
        let (kind, protocol) = (open.kind.as_str(), protocol.as_str());
        let detail = format!("{}:{} speaks {protocol}, not {kind}", open.service, open.port);
        return refuse(Kind::MethodNotServed, detail);
    }
    Ok((export, *protocol))
}

fn check_policy(export: &Export, cluster: &ClusterName, open: &Open) -> Result<(), ProxyError> {
    let caller = Caller {
        cluster: cluster.clone(),
        identity: open.source.clone(),
        unattested: open.unattested,
    };
    let who = || {
        let unattested = if open.unattested { " (unattested)" } else { "" };
        format!("{}{unattested} of cluster {cluster}", open.source)
    };
    let detail = match export.decide(&caller) {
        Decision::Allow => return Ok(()),
        Decision::DenyNoPolicy => {
            format!("no AccessPolicy targets {}, so nobody may reach it", open.service)
        }
        Decision::DenyNoMatch => format!("no AccessPolicy for {} allows {}", open.service, who()),
    };
    Err(ProxyError::unsent(Kind::Denied, detail))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use model::{AllowEntry, RequestId, ServiceName, TrustDomain};
    use wire::tunnel::{StreamKind, Via};

    use super::*;

    const GATEWAY: &str = "spiffe://east.fed/fedgate/gateway/gw-0";

    fn open(source: &str, unattested: bool) -> Open {
        Open {
            kind: StreamKind::Http,
            service: ServiceName::parse("shop/api").unwrap(),
            port: 80,
            source: SpiffeId::parse(source).unwrap(),
            unattested,
            trace: None,
            deadline_ms: None,
            request_id: RequestId::from_bytes([1; 16]),
            attempt: 1,
            retries_left: 0,
            via: Via::new(ClusterId::from_bytes([7; 16])),
            route: None,
        }
    }

    fn east() -> ClusterName {
        ClusterName::parse("east").unwrap()
    }

    fn snapshot(allow: Vec<AllowEntry>, targeted: bool) -> Snapshot {
        let ports = BTreeMap::from([(80, AppProtocol::Http), (6379, AppProtocol::Tcp)]);
        let export = Export { ports, targeted, allow };
        Snapshot {
            exports: HashMap::from([(ServiceName::parse("shop/api").unwrap(), export)]),
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_gateway_speaks_for_its_own_cluster_only() {
        let gateway = SpiffeId::parse(GATEWAY).unwrap();
        let mut owners = TrustDomainOwners::default();
        for (domain, cluster) in [("east.fed", "east"), ("south.fed", "south")] {
            let domain = TrustDomain::parse(domain).unwrap();
            owners.claim(domain, ClusterName::parse(cluster).unwrap()).unwrap();
        }
        for (source, unattested, fine) in [
            (GATEWAY, true, true),
            ("spiffe://east.fed/fedgate/gateway/other", true, false),
            ("spiffe://east.fed/ns/shop/sa/web", true, false),
            ("spiffe://east.fed/ns/shop/sa/web", false, true),
            ("spiffe://south.fed/ns/shop/sa/web", false, false),
            ("spiffe://nobody.fed/ns/shop/sa/web", false, false),
            (GATEWAY, false, false),
        ] {
            let checked = check_identity(&owners, &east(), &gateway, &open(source, unattested));
            assert_eq!(checked.is_ok(), fine, "{source} {unattested}");
            if let Err(error) = checked {
                assert_eq!(error.kind, Kind::IdentityRefused);
                assert!(error.detail.contains(source), "{error}");
            }
        }
    }

    #[test]
    fn an_exchange_that_was_here_before_is_refused() {
        let own = ClusterId::from_bytes([9; 16]);
        let mut open = open(GATEWAY, true);
        assert!(check_loop(Some(own), &open).is_ok());
        assert_eq!(check_loop(None, &open).unwrap_err().kind, Kind::Draining);
        open.via = Via::new(own).with(ClusterId::from_bytes([7; 16])).unwrap();
        assert_eq!(check_loop(Some(own), &open).unwrap_err().kind, Kind::Loop);
    }

    #[test]
    fn only_exported_ports_are_found_and_only_by_a_fitting_kind() {
        let snapshot = snapshot(vec![], true);
        let mut open = open(GATEWAY, true);
        assert_eq!(find_export(&snapshot, &open).unwrap().1, AppProtocol::Http);
        open.port = 81;
        let error = find_export(&snapshot, &open).unwrap_err();
        assert!(error.detail.contains("no port 81; use one of [80, 6379]"), "{error}");
        open.port = 6379;
        assert_eq!(find_export(&snapshot, &open).unwrap_err().kind, Kind::MethodNotServed);
        open.kind = StreamKind::Tcp;
        assert!(find_export(&snapshot, &open).is_ok());
        open.kind = StreamKind::Udp;
        assert_eq!(find_export(&snapshot, &open).unwrap_err().kind, Kind::MethodNotServed);
        open.service = ServiceName::parse("shop/db").unwrap();
        assert_eq!(find_export(&snapshot, &open).unwrap_err().kind, Kind::NotExported);
    }

    #[test]
    fn the_default_is_deny_and_the_refusal_says_who_and_why() {
        let by_cluster = AllowEntry { cluster: Some(east()), ..AllowEntry::default() };
        let by_id = AllowEntry {
            spiffe_id: Some(SpiffeId::parse(GATEWAY).unwrap()),
            ..AllowEntry::default()
        };
        for (allow, targeted, expected) in [
            (vec![], false, Err("no AccessPolicy targets shop/api")),
            (vec![], true, Err("(unattested) of cluster east")),
            (vec![by_id], true, Err("no AccessPolicy for shop/api allows spiffe://east.fed/")),
            (vec![by_cluster], true, Ok(())),
        ] {
            let snapshot = snapshot(allow, targeted);
            let open = open(GATEWAY, true);
            let (export, _) = find_export(&snapshot, &open).unwrap();
            match (check_policy(export, &east(), &open), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(part)) => {
                    assert_eq!(error.kind, Kind::Denied);
                    assert!(error.detail.contains(part), "{error}");
                }
                (found, _) => panic!("{found:?}, not {expected:?}"),
            }
        }
    }
}
