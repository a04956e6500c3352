//! Hops 4 and 5: who carries the request has an SVID, and each side can verify the other's.

use super::path::shown;
use super::{
    Broken, Checked, GatewayFacts, LinkState, NodeFacts, Path, Seen, SvidFacts, TrustFacts,
};
use crate::code::{
    AUTHORITY_EXPIRED, DRAINING, GATEWAY_UNCONNECTED, PEER_IDENTITY_REFUSED, SVID_EXPIRED,
    SVID_MISSING, TRUST_DOMAIN_CONFLICT,
};
use crate::name::ClusterName;

pub(super) fn check_svids(path: &Path<'_>) -> Checked {
    let told = match path.src {
        Some(src) => Some(of_source(src)?),
        None => None,
    };
    // A gateway that is away shows as a tunnel that is down, to whoever is asked.
    if let Some(dst) = path.dst.filter(|_| !path.is_local())
        && let Some(why) = none_has_svid(dst)
    {
        return Err(why);
    }
    Ok(told.map_or_else(
        || Seen::Unknown(format!("the node of {} was not asked about its gateways", path.from)),
        Seen::Ok,
    ))
}

/// The gateways that carry requests out of the cluster.
fn of_source(node: &NodeFacts) -> Result<String, Broken> {
    let cluster = &node.cluster;
    if node.connected().next().is_none() {
        let gone = node.gateways.iter().min_by_key(|gateway| gateway.since);
        let last = gone.map_or_else(
            || " and none was since the node started".into(),
            |gateway| format!("; {} went {} ago", gateway.name, shown(gateway.since)),
        );
        let text = format!("no gateway of {cluster} is connected to its node{last}");
        let fix = format!("start fedgate-gateway in {cluster}; its log says why it ends");
        return Err(Broken::new(GATEWAY_UNCONNECTED, text, fix));
    }
    if let Some(why) = none_has_svid(node) {
        return Err(why);
    }
    let sound = |gateway: &&GatewayFacts| matches!(gateway.svid, SvidFacts::Valid { .. });
    let serving = node.connected().filter(sound).find(|it| it.ready && !it.draining);
    let Some(gateway) = serving else {
        return Err(match node.connected().all(|gateway| gateway.draining) {
            true => Broken::new(
                DRAINING,
                format!("every gateway of {cluster} is shutting down"),
                format!("start a gateway in {cluster}"),
            ),
            false => Broken::new(
                GATEWAY_UNCONNECTED,
                format!("no gateway of {cluster} is ready"),
                "`/readyz` of its admin port says what it waits for",
            ),
        });
    };
    let SvidFacts::Valid { left } = gateway.svid else { return Ok(gateway.name.clone()) };
    let id = gateway.spiffe_id.as_ref().map_or_else(|| gateway.name.clone(), ToString::to_string);
    Ok(format!("{id}, valid for {}", shown(left)))
}

/// Why none of the gateways that are connected can show an SVID.
fn none_has_svid(node: &NodeFacts) -> Option<Broken> {
    let cluster = &node.cluster;
    let mut lacking = None;
    for gateway in node.connected().filter(|gateway| gateway.report_age.is_some()) {
        match gateway.svid {
            SvidFacts::Valid { .. } => return None,
            SvidFacts::Expired { ago } => lacking = Some((gateway, Some(ago))),
            SvidFacts::Missing => lacking = lacking.or(Some((gateway, None))),
        }
    }
    let (gateway, ago) = lacking?;
    let name = &gateway.name;
    Some(match ago {
        Some(ago) => Broken::new(
            SVID_EXPIRED,
            format!("the SVID of {name} in {cluster} expired {} ago", shown(ago)),
            format!("the logs of {name} and of the node of {cluster} say why it is not renewed"),
        ),
        None => Broken::new(
            SVID_MISSING,
            format!("{name} in {cluster} has no SVID"),
            format!("the log of {name} says why its node does not enrol it"),
        ),
    })
}

pub(super) fn check_trust(path: &Path<'_>) -> Checked {
    if path.is_local() {
        return Ok(Seen::Ok("within a cluster no other bundle is needed".into()));
    }
    if path.src.is_none() && path.dst.is_none() {
        return Ok(Seen::Unknown("neither of the two nodes was asked about bundles".into()));
    }
    let told = check_bundles(path);
    // Gateways have verified each other, and look at bundles again while a connection stands. One that
    // refused a new bundle goes on with the old one, which its node does not show.
    let stands = super::path::links(path).any(|link| link.state == LinkState::Live);
    match (told, stands) {
        (Ok(told), true) => Ok(Seen::Ok(told)),
        (Ok(told), false) => check_refusals(path).map(|()| Seen::Ok(told)),
        (Err(broken), true) => Ok(Seen::Ok(format!(
            "verified by the tunnel that stands, but new handshakes may fail: {}",
            broken.text
        ))),
        (Err(broken), false) => Err(broken),
    }
}

fn check_bundles(path: &Path<'_>) -> Result<String, Broken> {
    let mut told = Vec::new();
    for (holder, of, issuer) in [(path.src, path.to, path.dst), (path.dst, path.from, path.src)] {
        if let Some(holder) = holder {
            told.push(check_bundle(holder, of, issuer)?);
        }
    }
    Ok(told.join("; "))
}

/// `holder` has a bundle of cluster `of`, by which the SVIDs can be verified that `of` issues.
fn check_bundle(
    holder: &NodeFacts,
    of: &ClusterName,
    issuer: Option<&NodeFacts>,
) -> Result<String, Broken> {
    let here = &holder.cluster;
    let bundles: Vec<&TrustFacts> = holder.trust_of(of).collect();
    if bundles.is_empty() {
        return Err(Broken::new(
            PEER_IDENTITY_REFUSED,
            format!("{here} has no trust bundle of {of}, so it refuses every gateway of {of}"),
            format!(
                "`fedctl get clusterpeer {of}` in {here} shows where it should come from; in a \
                 federation, remove a local ClusterPeer {of}"
            ),
        ));
    }
    for bundle in &bundles {
        let domain = &bundle.trust_domain;
        let owner = holder.snapshot.owner_of(domain);
        if owner != Some(of) {
            return Err(Broken::new(
                TRUST_DOMAIN_CONFLICT,
                format!("in {here}, {domain} is not only {of}'s, so that nobody has it"),
                "`fedctl diagnostics` there names the ClusterPeers that claim it",
            ));
        }
    }
    if bundles.iter().all(|bundle| bundle.authorities.iter().all(|it| it.expired)) {
        return Err(Broken::new(
            AUTHORITY_EXPIRED,
            format!("in {here}, no certificate in the bundle of {of} is valid any more"),
            format!(
                "start the node of {of}, which publishes its bundle; `fedctl trust list` shows it"
            ),
        ));
    }
    if let Some(issuer) = issuer
        && !bundles.iter().any(|bundle| bundle.trust_domain == issuer.trust_domain)
    {
        return Err(Broken::new(
            PEER_IDENTITY_REFUSED,
            format!(
                "{here} has no trust bundle of {}, the trust domain of {of}",
                issuer.trust_domain
            ),
            format!("give {here} the ClusterPeer that `fedctl peer` in {of} prints"),
        ));
    }
    if let Some(issuer) = issuer
        && let Some(bundle) = bundles.iter().find(|bundle| !verifies(bundle, issuer))
    {
        return Err(Broken::new(
            PEER_IDENTITY_REFUSED,
            format!(
                "{here} has a bundle of {} (sequence {}) with none of the CAs that {of} has now",
                bundle.trust_domain, bundle.sequence
            ),
            format!(
                "give {here} the bundle of {of}: `fedctl peer` there prints it; in a federation, \
                 remove a local ClusterPeer {of}"
            ),
        ));
    }
    let named = |bundle: &&TrustFacts| format!("{} ({})", bundle.trust_domain, bundle.sequence);
    let shown: Vec<String> = bundles.iter().map(named).collect();
    Ok(format!("{here} has the bundle of {}", shown.join(", ")))
}

/// The bundle has a CA in common with what its cluster itself says.
fn verifies(bundle: &TrustFacts, issuer: &NodeFacts) -> bool {
    let own = issuer.trust_of(&issuer.cluster);
    let mut own = own.filter(|row| row.trust_domain == bundle.trust_domain).peekable();
    own.peek().is_none()
        || own.flat_map(|row| &row.authorities).any(|authority| {
            bundle.authorities.iter().any(|known| known.fingerprint == authority.fingerprint)
        })
}

/// The last handshake failed for what a certificate says. Older faults say nothing: a tunnel may have
/// stood since.
fn check_refusals(path: &Path<'_>) -> Result<(), Broken> {
    let faults = super::path::links(path).filter_map(|link| link.fault.as_ref());
    let last = faults.min_by_key(|fault| fault.age);
    match last.filter(|fault| fault.code == Some(PEER_IDENTITY_REFUSED)) {
        None => Ok(()),
        Some(fault) => Err(Broken::new(
            PEER_IDENTITY_REFUSED,
            format!("the last handshake failed {} ago: {}", shown(fault.age), fault.text),
            format!(
                "compare `fedctl trust list` in {} and {}; `--also NODE` tells which side lacks what",
                path.from, path.to
            ),
        )),
    }
}
