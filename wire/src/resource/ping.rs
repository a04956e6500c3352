//! A ping: the node asks, the gateway measures its links to a cluster, and answers on the same stream.

use std::time::Duration;

use model::ClusterName;

use super::convert::{list, parse, text};
use super::diagnostic::cut;
use super::report::{self, Link};
use super::{limits, proto, report_encode};
use crate::error::{At, WireError};

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingRequest {
    /// The answer repeats it.
    pub id: u64,
    pub cluster: ClusterName,
    /// On each link.
    pub probes: u32,
}

/// What a gateway has measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingAnswer {
    pub id: u64,
    /// Or why nothing was measured.
    pub links: Result<Vec<PingedLink>, String>,
}

/// A link and what was measured on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingedLink {
    /// After the last probe.
    pub link: Link,
    /// 0 on a link that was not live.
    pub sent: u32,
    pub answered: u32,
    /// Of the probes that were answered; `None` when none was.
    pub round_trips: Option<RoundTrips>,
    /// What the connection has sent meanwhile; 0 over TCP.
    pub packets_sent: u64,
    pub packets_lost: u64,
    /// `None` over TCP, and on a link that was not live.
    pub mtu: Option<PathMtu>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrips {
    pub min_us: u64,
    pub avg_us: u64,
    pub max_us: u64,
}

/// What path MTU discovery (RFC 8899) has found, as bytes of UDP payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtu {
    pub current_bytes: u32,
    /// As far as it searches.
    pub max_bytes: u32,
    pub probes_sent: u64,
    pub probes_lost: u64,
    /// How often the path stopped to take what it had taken.
    pub black_holes: u64,
}

impl PingRequest {
    pub fn decode(message: proto::PingRequest) -> Result<Self, WireError> {
        let at = At::message("PingRequest");
        Ok(Self {
            id: message.id,
            cluster: parse(at.field("cluster"), &message.cluster, ClusterName::parse)?,
            probes: probes(at.field("probes"), message.probes)?,
        })
    }

    pub fn encode(&self) -> proto::PingRequest {
        let Self { id, cluster, probes } = self;
        proto::PingRequest { id: *id, cluster: cluster.to_string(), probes: *probes }
    }

    /// How long a gateway takes for it at most.
    pub fn longest(probes: u32) -> Duration {
        let ms = probes.saturating_mul(limits::PING_INTERVAL_MS);
        Duration::from_millis(ms.saturating_add(limits::PING_TIMEOUT_MS).into())
    }
}

fn probes(at: At<'_>, probes: u32) -> Result<u32, WireError> {
    match probes {
        1..=limits::PING_PROBES_MAX => Ok(probes),
        _ => Err(at.refuse(probes, format!("send 1 to {} probes", limits::PING_PROBES_MAX))),
    }
}

impl PingAnswer {
    /// A link with a word of a later version is left out alone, as in a report.
    pub fn decode(mut message: proto::PingAnswer) -> Result<Self, WireError> {
        let at = At::message("PingAnswer");
        message.links.retain(|pinged| pinged.link.as_ref().is_none_or(report::is_known));
        let links = list(&at, "links", message.links, limits::LINKS_MAX, pinged)?;
        let refusal = text(at.field("refusal"), message.refusal)?;
        let links = if refusal.is_empty() { Ok(links) } else { Err(refusal) };
        Ok(Self { id: message.id, links })
    }

    /// Links beyond their limit are left out, as in a report.
    pub fn encode(&self) -> proto::PingAnswer {
        let mut message = proto::PingAnswer { id: self.id, ..proto::PingAnswer::default() };
        match &self.links {
            Ok(links) => {
                let links = links.iter().take(limits::LINKS_MAX);
                message.links = links.map(PingedLink::encode).collect();
            }
            Err(refusal) => message.refusal = cut(refusal),
        }
        message
    }
}

fn pinged(at: At<'_>, pinged: proto::PingedLink) -> Result<PingedLink, WireError> {
    let missing = || at.field("link").missing("what was measured is measured on a link");
    let link = report::link(at.field("link"), pinged.link.ok_or_else(missing)?)?;
    if pinged.answered > pinged.sent {
        let problem = "more probes were answered than sent";
        return Err(at.field("answered").refuse(pinged.answered, problem));
    }
    let round_trips = match (pinged.min_us, pinged.avg_us, pinged.max_us) {
        (None, None, None) => None,
        (Some(min_us), Some(avg_us), Some(max_us)) if min_us <= avg_us && avg_us <= max_us => {
            Some(RoundTrips { min_us, avg_us, max_us })
        }
        (min_us, ..) => {
            let problem = "min_us, avg_us and max_us come together, in ascending order";
            return Err(at.field("min_us").refuse(min_us, problem));
        }
    };
    let mtu = pinged.mtu.map(|mtu| PathMtu {
        current_bytes: mtu.current_bytes,
        max_bytes: mtu.max_bytes,
        probes_sent: mtu.probes_sent,
        probes_lost: mtu.probes_lost,
        black_holes: mtu.black_holes,
    });
    Ok(PingedLink {
        link,
        sent: pinged.sent,
        answered: pinged.answered,
        round_trips,
        packets_sent: pinged.packets_sent,
        packets_lost: pinged.packets_lost,
        mtu,
    })
}

impl PingedLink {
    fn encode(&self) -> proto::PingedLink {
        let trips = self.round_trips;
        proto::PingedLink {
            link: Some(report_encode::link(&self.link)),
            sent: self.sent,
            answered: self.answered,
            min_us: trips.map(|trips| trips.min_us),
            avg_us: trips.map(|trips| trips.avg_us),
            max_us: trips.map(|trips| trips.max_us),
            packets_sent: self.packets_sent,
            packets_lost: self.packets_lost,
            mtu: self.mtu.map(|mtu| proto::PathMtu {
                current_bytes: mtu.current_bytes,
                max_bytes: mtu.max_bytes,
                probes_sent: mtu.probes_sent,
                probes_lost: mtu.probes_lost,
                black_holes: mtu.black_holes,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::tests::link;

    fn answer() -> PingAnswer {
        let pinged = PingedLink {
            link: link(),
            sent: 5,
            answered: 4,
            round_trips: Some(RoundTrips { min_us: 1, avg_us: 2, max_us: 3 }),
            packets_sent: 9,
            packets_lost: 1,
            mtu: Some(PathMtu {
                current_bytes: 1200,
                max_bytes: 1452,
                probes_sent: 3,
                probes_lost: 3,
                black_holes: 1,
            }),
        };
        PingAnswer { id: 7, links: Ok(vec![pinged]) }
    }

    #[test]
    fn a_ping_survives_the_wire() {
        let cluster = ClusterName::parse("west").unwrap();
        let request = PingRequest { id: 7, cluster, probes: 100 };
        assert_eq!(PingRequest::decode(request.encode()), Ok(request));
        assert_eq!(PingAnswer::decode(answer().encode()), Ok(answer()));
        let mut later = answer().encode();
        later.links.push(later.links[0].clone());
        later.links[0].link.as_mut().unwrap().state = 4711;
        assert_eq!(PingAnswer::decode(later), Ok(answer()), "a newer gateway's word");
        let refused = PingAnswer { id: 8, links: Err("busy".into()) };
        assert_eq!(PingAnswer::decode(refused.encode()), Ok(refused));
        assert_eq!(PingRequest::longest(5), Duration::from_secs(4));
    }

    #[test]
    fn what_breaks_the_format_is_named() {
        for probes in [0, 101] {
            let message = proto::PingRequest { id: 1, cluster: "west".into(), probes };
            let error = PingRequest::decode(message).unwrap_err().to_string();
            assert_eq!(error, format!("PingRequest.probes = {probes}: send 1 to 100 probes"));
        }
        type Spoil = fn(&mut proto::PingedLink);
        let table: [(Spoil, &str); 4] = [
            (|row| row.link = None, "PingAnswer.links[0].link = (absent)"),
            (|row| row.answered = 6, "PingAnswer.links[0].answered = 6: more"),
            (|row| row.avg_us = None, "PingAnswer.links[0].min_us = Some(1): min_us, avg_us"),
            (|row| row.max_us = Some(1), "PingAnswer.links[0].min_us = Some(1): min_us, avg_us"),
        ];
        for (spoil, text) in table {
            let mut message = answer().encode();
            spoil(&mut message.links[0]);
            let error = PingAnswer::decode(message).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error:?} does not begin with {text:?}");
        }
    }
}
