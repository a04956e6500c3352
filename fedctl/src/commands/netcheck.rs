//! `fedctl netcheck`: which addresses of other clusters answer this machine.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use wire::operator::proto::{ClusterState, ClusterStatus};

use super::Outcome;
use crate::cli::{Global, Netcheck};
use crate::connect;
use crate::error::CommandError;
use crate::netcheck::{Answer, ahead_ms, ask};
use crate::operator::Operator;
use crate::printer::{Printer, milliseconds, table};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    api_version: &'static str,
    kind: &'static str,
    /// This machine's own addresses on the way to those that were asked.
    own_addresses: Vec<IpAddr>,
    /// Of this cluster, as others are told; none when no node was asked.
    advertised: Vec<String>,
    /// Whether what is advertised is not what this machine has; `None` when there is nothing to compare.
    translated: Option<bool>,
    /// The node's clock against this machine's; positive: the node's is ahead.
    clock_ahead_ms: Option<i64>,
    items: Vec<Item>,
}

/// An address of a cluster's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    /// Empty for an address that was named on the command line.
    cluster: String,
    address: String,
    /// Where it leads, if it is a name.
    ip: Option<SocketAddr>,
    quic_us: Option<u64>,
    tcp_us: Option<u64>,
    /// Why there is no answer: by UDP, by TCP, or at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    cluster: String,
    host: String,
    port: u16,
}

pub(super) async fn run(
    args: &Netcheck,
    global: &Global,
    printer: &Printer,
) -> Result<Outcome, CommandError> {
    let mut places =
        args.addresses.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let (mut advertised, mut clock) = (Vec::new(), None);
    if places.is_empty() {
        let node = connect::node(global, printer).await?;
        let clusters = node.clusters().await?.clusters;
        clock = Some(clock_ahead_ms(&node).await?);
        advertised = places_of(clusters.iter().filter(|one| one.state() == ClusterState::Own));
        places = places_of(clusters.iter().filter(|one| one.state() != ClusterState::Own));
    }
    let asked = places
        .iter()
        .map(|place| async move { (place, ask(&place.host, place.port, random_ids()).await) });
    let answers = futures_util::future::join_all(asked).await;
    let own_addresses = own_addresses(&answers);
    let advertised_ips = resolve(&advertised).await;
    let report = Report {
        api_version: "fedgate.dev/v1alpha1",
        kind: "NetworkReport",
        translated: translated(&own_addresses, &advertised_ips),
        own_addresses,
        advertised: advertised.iter().map(Place::shown).collect(),
        clock_ahead_ms: clock,
        items: answers.into_iter().flat_map(|(place, answer)| items(place, answer)).collect(),
    };
    printer.result(&report, screen)?;
    Ok(if all_reached(&report.items) { Outcome::Done } else { Outcome::Unwell })
}

fn parse(text: &str) -> Result<Place, CommandError> {
    let wrong = || {
        CommandError::usage(format!("address {text:?} is no HOST:PORT"))
            .hint("write gw.example:8443, 192.0.2.1:8443 or [2001:db8::1]:8443")
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(Place { cluster: String::new(), host: host.into(), port })
}

fn places_of<'a>(clusters: impl Iterator<Item = &'a ClusterStatus>) -> Vec<Place> {
    let mut places = Vec::new();
    for cluster in clusters {
        for address in &cluster.addresses {
            let place = Place {
                cluster: cluster.name.clone(),
                host: address.host.clone(),
                port: u16::try_from(address.port).unwrap_or_default(),
            };
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

impl Place {
    fn shown(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

async fn clock_ahead_ms(node: &Operator) -> Result<i64, CommandError> {
    let before = Timestamp::now();
    let status = node.status().await?;
    Ok(ahead_ms(&status, before, Timestamp::now()))
}

fn random_ids() -> [u8; 16] {
    // std's hashers are keyed by the system's randomness: enough to tell our packets from others.
    let half = || RandomState::new().build_hasher().finish().to_be_bytes();
    let (first, second) = (half(), half());
    let mut ids = [0; 16];
    ids[..8].copy_from_slice(&first);
    ids[8..].copy_from_slice(&second);
    ids
}

fn own_addresses(answers: &[(&Place, Result<Vec<Answer>, String>)]) -> Vec<IpAddr> {
    let all = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).flatten();
    let mut own: Vec<IpAddr> = all.filter_map(|answer| answer.from).map(|from| from.ip()).collect();
    own.sort_unstable();
    own.dedup();
    own
}

async fn resolve(places: &[Place]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for place in places {
        if let Ok(addresses) = tokio::net::lookup_host((&*place.host, place.port)).await {
            found.extend(addresses.map(|address| address.ip()));
        }
    }
    found
}

fn translated(own: &[IpAddr], advertised: &[IpAddr]) -> Option<bool> {
    let telling = !own.is_empty() && !advertised.is_empty();
    telling.then(|| !advertised.iter().any(|address| own.contains(address)))
}

fn items(place: &Place, answer: Result<Vec<Answer>, String>) -> Vec<Item> {
    let us = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let item = |ip, quic_us, tcp_us, problems| Item {
        cluster: place.cluster.clone(),
        address: place.shown(),
        ip,
        quic_us,
        tcp_us,
        problems,
    };
    match answer {
        Err(why) => vec![item(None, None, None, vec![why])],
        Ok(answers) => answers
            .into_iter()
            .map(|answer| {
                let udp = answer.quic.as_ref().err().map(|why| format!("UDP: {why}"));
                let tcp = answer.tcp.as_ref().err().map(|why| format!("TCP: {why}"));
                let problems = udp.into_iter().chain(tcp).collect();
                let (quic, tcp) =
                    (answer.quic.as_ref().ok().map(us), answer.tcp.as_ref().ok().map(us));
                item(Some(answer.to), quic, tcp, problems)
            })
            .collect(),
    }
}

/// Every cluster, or every address that was named, answers somewhere.
fn all_reached(items: &[Item]) -> bool {
    items.iter().all(|item| {
        let same = |other: &&Item| match item.cluster.is_empty() {
            true => other.address == item.address,
            false => other.cluster == item.cluster,
        };
        items.iter().filter(same).any(|other| other.quic_us.or(other.tcp_us).is_some())
    })
}

fn screen(report: &Report) -> String {
    let mut text = table(
        &["CLUSTER", "ADDRESS", "IP", "UDP/QUIC", "TCP"],
        report.items.iter().map(|item| {
            let shown = |us: Option<u64>| us.map_or_else(|| "-".into(), milliseconds);
            let dash = |text: &str| if text.is_empty() { "-".into() } else { text.to_owned() };
            vec![
                dash(&item.cluster),
                item.address.clone(),
                item.ip.map_or_else(|| "-".into(), |ip| ip.ip().to_string()),
                shown(item.quic_us),
                shown(item.tcp_us),
            ]
        }),
    );
    for item in &report.items {
        for problem in &item.problems {
            text += &format!("\n{}: {problem}", item.address);
        }
    }
    let own: Vec<String> = report.own_addresses.iter().map(ToString::to_string).collect();
    if !own.is_empty() {
        text += &format!("\nThis machine's address on the way: {}.", own.join(", "));
    }
    text += &match report.translated {
        Some(true) => format!(
            "\nOthers are told {}, which is not this machine's: there is NAT or a load balancer \
             between, or the gateway is elsewhere.",
            report.advertised.join(", ")
        ),
        Some(false) => "\nOthers are told an address of this machine: no NAT is seen.".into(),
        None => String::new(),
    };
    text += &match report.clock_ahead_ms {
        Some(0) => "\nThe node's clock agrees with this machine's.".into(),
        Some(ahead) => {
            let side = if ahead < 0 { "behind" } else { "ahead of" };
            format!("\nThe node's clock is {} ms {side} this machine's.", ahead.unsigned_abs())
        }
        None => String::new(),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    fn item(cluster: &str, address: &str, quic: Option<u64>, tcp: Option<u64>) -> Item {
        let problems =
            [("UDP: no answer by UDP", quic), ("TCP: Connection refused (os error 111)", tcp)];
        let problems = problems.iter().filter(|(_, time)| time.is_none());
        Item {
            cluster: cluster.into(),
            address: address.into(),
            ip: "192.0.2.7:8443".parse().ok(),
            quic_us: quic,
            tcp_us: tcp,
            problems: problems.map(|(why, _)| (*why).to_owned()).collect(),
        }
    }

    #[test]
    fn the_report_is_as_golden() {
        let report = Report {
            api_version: "fedgate.dev/v1alpha1",
            kind: "NetworkReport",
            own_addresses: vec!["10.0.0.5".parse().unwrap()],
            advertised: vec!["gw.east.example:8443".into()],
            translated: Some(true),
            clock_ahead_ms: Some(-1200),
            items: vec![
                item("west", "gw.west.example:8443", Some(18_000), Some(18_500)),
                item("south", "192.0.2.7:8443", None, Some(61_000)),
                item("north", "192.0.2.8:8443", None, None),
            ],
        };
        golden::check("netcheck.txt", &screen(&report));
        golden::check("netcheck.json", &serde_json::to_string_pretty(&report).unwrap());
        assert!(!all_reached(&report.items), "north does not answer");
        assert!(all_reached(&report.items[..2]));
    }

    #[test]
    fn addresses_are_hosts_and_ports() {
        for (text, host, port) in [("gw.example:1", "gw.example", 1), ("[::1]:8443", "::1", 8443)] {
            assert_eq!(
                parse(text).unwrap(),
                Place { cluster: String::new(), host: host.into(), port }
            );
        }
        for wrong in ["gw.example", ":1", "gw.example:0", "gw.example:x", "gw.example:99999"] {
            assert!(parse(wrong).unwrap_err().to_string().contains("is no HOST:PORT"), "{wrong}");
        }
    }
}
