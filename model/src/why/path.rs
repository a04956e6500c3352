//! Hops 6 and 7: a live tunnel, and somebody who serves.

use std::time::Duration;

use super::{Broken, Checked, LinkFacts, LinkState, Path, Seen};
use crate::code::{
    DRAINING, NO_ENDPOINT, PEER_PROTOCOL_ERROR, PEER_VERSION, SERVICE_NOT_FOUND, TUNNEL_DOWN,
};

/// The links between the two clusters: as the source's gateways see them, else as the other's do.
pub(super) fn links<'a>(path: &'a Path<'_>) -> Box<dyn Iterator<Item = &'a LinkFacts> + 'a> {
    match (path.src, path.dst) {
        (Some(src), _) => Box::new(src.links_to(path.to)),
        (None, Some(dst)) => Box::new(dst.links_to(path.from)),
        (None, None) => Box::new(std::iter::empty()),
    }
}

pub(super) fn check_tunnel(path: &Path<'_>) -> Checked {
    let (from, to) = (path.from, path.to);
    if path.is_local() {
        return Ok(Seen::Ok("within a cluster there is no tunnel".into()));
    }
    if path.src.is_none() && path.dst.is_none() {
        return Ok(Seen::Unknown("neither of the two nodes was asked about links".into()));
    }
    // The source is asked before; here only its own gateways can be away.
    if path.src.is_none() && path.dst.is_some_and(|dst| dst.connected().next().is_none()) {
        return Err(down(path, None));
    }
    let in_state = |state| links(path).filter(move |link| link.state == state);
    if let Some(best) = in_state(LinkState::Live).min_by_key(|link| link.rtt) {
        let rtt =
            best.rtt.map_or_else(String::new, |rtt| format!(", {} there and back", shown(rtt)));
        let live = in_state(LinkState::Live).count();
        return Ok(Seen::Ok(format!("{from} to {to}: {live} up by {}{rtt}", best.transport)));
    }
    if in_state(LinkState::Draining).next().is_some() {
        return Err(Broken::new(
            DRAINING,
            format!("the gateways of {from} and {to} that know each other are shutting down"),
            format!("start another gateway in {to}, or wait until this one is back"),
        ));
    }
    let faults = links(path).filter_map(|link| Some((link, link.fault.as_ref()?)));
    Err(down(path, faults.min_by_key(|(_, fault)| fault.age).map(|(link, _)| link)))
}

fn down(path: &Path<'_>, last: Option<&LinkFacts>) -> Broken {
    let (from, to) = (path.from, path.to);
    let fault = last.and_then(|link| link.fault.as_ref());
    let code = fault.and_then(|fault| fault.code);
    let specific = code.filter(|code| [PEER_VERSION, PEER_PROTOCOL_ERROR].contains(code));
    let mut text = format!("no live tunnel between {from} and {to}");
    if let (Some(link), Some(fault)) = (last, fault) {
        // Most faults name the address themselves.
        let address = match fault.text.contains(&link.address) {
            true => String::new(),
            false => format!("{}, ", link.address),
        };
        text += &format!("; {address}{} ago: {}", shown(fault.age), fault.text);
    }
    if let Some(dst) = path.dst.filter(|dst| dst.connected().next().is_none()) {
        text += &format!("; no gateway of {} is connected to its node", dst.cluster);
        let fix = format!("start fedgate-gateway in {}; its log says why it ends", dst.cluster);
        return Broken::new(specific.unwrap_or(TUNNEL_DOWN), text, fix);
    }
    let addresses = path.src.and_then(|src| src.snapshot.peers.get(to)).map(|peer| {
        let each = peer.addresses.iter().map(|it| format!("{}:{}", it.host, it.port));
        each.collect::<Vec<_>>().join(", ")
    });
    let fix = match addresses.as_deref() {
        Some("") => format!(
            "{to} advertises no address and has to dial: open UDP from {to} to {from}, and see \
             that its gateway runs"
        ),
        Some(addresses) => format!(
            "see that the gateway of {to} runs and that UDP passes between {from} and {addresses}; \
             `fedctl links` shows each attempt"
        ),
        None => format!("see that the gateways of {from} and {to} run, and that UDP passes"),
    };
    Broken::new(specific.unwrap_or(TUNNEL_DOWN), text, fix)
}

pub(super) fn check_endpoints(path: &Path<'_>) -> Checked {
    let (to, service) = (path.to, path.service);
    let Some(dst) = path.dst else {
        return Ok(Seen::Unknown(format!(
            "the endpoints in {to} only its node knows: `--also NODE` asks it, `--live` tries them"
        )));
    };
    let rows = dst.endpoints.iter().filter(|((name, port), _)| {
        name == service && path.port.is_none_or(|wanted| wanted == *port)
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        let text = format!("there is no Service {service}{} in {to}", path.port_shown());
        return Err(Broken::new(SERVICE_NOT_FOUND, text, format!("create it in {to}")));
    }
    let all: Vec<_> = rows.iter().flat_map(|(_, row)| row.iter()).collect();
    let ready = all.iter().filter(|endpoint| endpoint.ready).count();
    if ready > 0 {
        let text = format!("{ready} of {} endpoints in {to} are ready", all.len());
        return Ok(Seen::Ok(text));
    }
    let (text, fix) = match all.len() {
        0 => (
            format!("{service}{} has no endpoint in {to}", path.port_shown()),
            format!(
                "start its pods in {to}; the EndpointSlice's port has to bear the Service port's name"
            ),
        ),
        total => (
            format!("none of the {total} endpoints of {service} in {to} is ready"),
            format!("the application's readiness in {to} says why"),
        ),
    };
    Err(Broken::new(NO_ENDPOINT, text, fix))
}

/// A duration with a precision that fits: `0.21 ms`, `4.1 s`, `12m`, `3h`.
pub(super) fn shown(time: Duration) -> String {
    let (ms, s) = (time.as_secs_f64() * 1e3, time.as_secs());
    match s {
        0 if ms < 10.0 => format!("{ms:.2} ms"),
        0 => format!("{ms:.0} ms"),
        1..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}
