//! Hop 3: the destination's AccessPolicies let the caller in. Default deny.

use super::{Broken, Checked, Path, Seen};
use crate::catalog::AllowEntry;
use crate::code::{ACCESS_DENIED, EXPORT_WITHOUT_POLICY};
use crate::policy::{self, Caller, Decision};
use crate::spiffe::SpiffeId;

pub(super) fn check(path: &Path<'_>) -> Checked {
    let (from, to, service) = (path.from, path.to, path.service);
    if path.is_local() {
        return Ok(Seen::Ok("within a cluster no AccessPolicy is asked".into()));
    }
    let Some(decision) = decision(path) else {
        return Ok(Seen::Unknown(format!(
            "whom {to} lets in, only its node knows; it was not asked"
        )));
    };
    let who = caller(path).map_or_else(|| from.to_string(), |caller| shown(path, &caller));
    match decision {
        Decision::Allow => Ok(Seen::Ok(format!("{to} lets {who} in"))),
        Decision::DenyNoPolicy => Err(Broken::new(
            EXPORT_WITHOUT_POLICY,
            format!("no AccessPolicy in {to} targets {service}, so nobody may reach it"),
            format!("in {to}: `fedctl export {service} --to {from}`"),
        )),
        Decision::DenyNoMatch => Err(denied(path, &who)),
    }
}

/// What the policies say, if somebody who was asked has all that could match.
pub(super) fn decision(path: &Path<'_>) -> Option<Decision> {
    let caller = caller(path);
    if let Some(dst) = path.dst
        && let Some(export) = dst.snapshot.exports.get(path.service)
    {
        return Some(export.decide(&caller?));
    }
    // A cluster sees every policy that could let it in, and no others.
    let offer = path.src?.store.as_ref()?.offer(path.to)?;
    Some(policy::decide(&offer.allow, offer.targeted, &caller?))
}

/// The caller as a gateway asserts it. No workload has an SVID of its own with a gateway, so that
/// each travels as its gateway, unattested.
fn caller(path: &Path<'_>) -> Option<Caller> {
    let gateway = path.src.and_then(|src| {
        let known = src.gateways.iter().filter_map(|gateway| gateway.spiffe_id.clone());
        let mut known = known;
        known.next()
    });
    let identity = gateway.or_else(|| {
        let domain = super::ask::trust_domain(path.from, path.facts)?;
        SpiffeId::parse(&format!("spiffe://{domain}/fedgate/gateway/any")).ok()
    })?;
    Some(Caller { cluster: path.from.clone(), identity, unattested: true })
}

fn shown(path: &Path<'_>, caller: &Caller) -> String {
    match &path.workload {
        Some(id) => format!("{id}, which travels as cluster {},", caller.cluster),
        None => format!("cluster {}", caller.cluster),
    }
}

fn denied(path: &Path<'_>, who: &str) -> Broken {
    let (from, to, service) = (path.from, path.to, path.service);
    let allow: Vec<&AllowEntry> = match path.dst.and_then(|it| it.snapshot.exports.get(service)) {
        Some(export) => export.allow.iter().collect(),
        None => Vec::new(),
    };
    let by_id = allow.iter().any(|entry| {
        entry.spiffe_id.is_some() && (entry.spiffe_id == path.workload || path.workload.is_none())
    });
    let why = match by_id {
        true => "; entries with a SPIFFE ID match no caller that travels as its gateway",
        false => "",
    };
    Broken::new(
        ACCESS_DENIED,
        format!("no AccessPolicy of {to} for {service} lets {who} in{why}"),
        format!("in {to}, allow the cluster: `fedctl export {service} --to {from}`"),
    )
}
