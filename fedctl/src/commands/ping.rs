//! `fedctl ping`: what the gateways measure on their links to a cluster, now.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::code::TUNNEL_DOWN;
use serde::Serialize;
use wire::operator::proto::{GatewayLink, GatewayPing, PingClusterRequest, gateway_ping::Outcome};
use wire::resource::proto::{PathMtu, PingedLink};

use super::Outcome as Ended;
use crate::cli::Ping;
use crate::error::{CommandError, Exit};
use crate::operator::Operator;
use crate::printer::{Printer, age, milliseconds, table};
use crate::view::LinkView;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    api_version: &'static str,
    kind: &'static str,
    cluster: String,
    items: Vec<Item>,
}

/// A gateway of this cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    gateway: String,
    version: String,
    /// Why it has measured nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
    links: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Problem {
    /// Empty when it has none.
    code: String,
    text: String,
    fix: String,
    #[serde(skip)]
    timed_out: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    #[serde(flatten)]
    link: LinkView,
    probes_sent: u32,
    probes_answered: u32,
    min_us: Option<u64>,
    avg_us: Option<u64>,
    max_us: Option<u64>,
    /// Of the connection during the ping; over TCP the kernel repeats what is lost and tells nobody.
    packets_sent_meanwhile: u64,
    packets_lost_meanwhile: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<Mtu>,
}

/// What the path takes, as bytes of UDP payload.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Mtu {
    current_bytes: u32,
    max_bytes: u32,
    probes_sent: u64,
    probes_lost: u64,
    black_holes: u64,
}

pub(super) async fn run(
    args: &Ping,
    node: &Operator,
    printer: &Printer,
) -> Result<Ended, CommandError> {
    let request = PingClusterRequest { cluster: args.cluster.clone(), probes: args.count };
    let gateways = node.ping_cluster(request).await?.gateways;
    let report = report(&args.cluster, gateways, args.mtu, Timestamp::now());
    if let Some(error) = nobody_measured(&report) {
        return Err(error);
    }
    printer.result(&report, |report| screen(report, args.mtu))?;
    Ok(if answered(&report) > 0 { Ended::Done } else { Ended::Unwell })
}

fn report(cluster: &str, gateways: Vec<GatewayPing>, mtu: bool, now: Timestamp) -> Report {
    let item = |ping: GatewayPing| {
        let (links, problem) = match ping.outcome {
            Some(Outcome::Answer(answer)) => (answer.links, None),
            Some(Outcome::Problem(problem)) => {
                let code = model::code::Code::parse(&format!("{:04}", problem.code));
                let (code, timed_out) = (code.map(|code| code.to_string()), problem.timed_out);
                let (code, text, fix) = (code.unwrap_or_default(), problem.text, problem.fix);
                (Vec::new(), Some(Problem { code, text, fix, timed_out }))
            }
            None => (Vec::new(), None),
        };
        let links = links.into_iter().filter_map(|link| measured(&ping.gateway, link, mtu, now));
        let links = links.collect();
        Item { gateway: ping.gateway, version: ping.version, problem, links }
    };
    Report {
        api_version: "fedgate.dev/v1alpha1",
        kind: "PingReport",
        cluster: cluster.into(),
        items: gateways.into_iter().map(item).collect(),
    }
}

fn measured(gateway: &str, pinged: PingedLink, mtu: bool, now: Timestamp) -> Option<Measured> {
    let row = GatewayLink {
        gateway: gateway.into(),
        connected: true,
        report_age_ms: 0,
        link: pinged.link,
    };
    Some(Measured {
        link: LinkView::of(row, now)?,
        probes_sent: pinged.sent,
        probes_answered: pinged.answered,
        min_us: pinged.min_us,
        avg_us: pinged.avg_us,
        max_us: pinged.max_us,
        packets_sent_meanwhile: pinged.packets_sent,
        packets_lost_meanwhile: pinged.packets_lost,
        mtu: pinged.mtu.filter(|_| mtu).map(Mtu::of),
    })
}

impl Mtu {
    fn of(mtu: PathMtu) -> Self {
        Self {
            current_bytes: mtu.current_bytes,
            max_bytes: mtu.max_bytes,
            probes_sent: mtu.probes_sent,
            probes_lost: mtu.probes_lost,
            black_holes: mtu.black_holes,
        }
    }
}

/// There is nothing to show when no gateway has measured.
fn nobody_measured(report: &Report) -> Option<CommandError> {
    let problems: Vec<_> = report
        .items
        .iter()
        .map(|item| Some((item, item.problem.as_ref()?)))
        .collect::<Option<_>>()?;
    // One that is only late may have the most to say.
    let late = problems.iter().find(|(_, problem)| problem.timed_out);
    let known = problems.iter().find(|(_, problem)| !problem.code.is_empty());
    let (item, problem) = late.or(known).or_else(|| problems.first())?;
    let exit = if late.is_some() { Exit::TimedOut } else { Exit::Failed };
    let message = format!("no gateway has measured: {}: {}", item.gateway, problem.text);
    let error = CommandError::new(exit, message).hint(problem.fix.clone());
    Some(match model::code::Code::parse(&problem.code) {
        Some(code) => error.code(code),
        None => error,
    })
}

fn links(report: &Report) -> impl Iterator<Item = &Measured> {
    report.items.iter().flat_map(|item| &item.links)
}

fn answered(report: &Report) -> u32 {
    links(report).map(|link| link.probes_answered).sum()
}

fn screen(report: &Report, mtu: bool) -> String {
    let mut header = vec!["GATEWAY", "LINK", "STATE", "ANSWERED", "MIN", "AVG", "MAX", "LOST"];
    header.extend(mtu.then_some("MTU"));
    header.push("ADDRESS");
    let mut text = table(&header, links(report).map(|link| row(link, mtu)));
    for line in remarks(report, mtu) {
        text += &format!("\n{line}");
    }
    text + "\n" + &summary(report)
}

fn row(measured: &Measured, mtu: bool) -> Vec<String> {
    let Measured { link, probes_sent, probes_answered, .. } = measured;
    let time = |us: Option<u64>| us.map_or_else(|| "-".into(), milliseconds);
    let was_live = *probes_sent > 0;
    let lost =
        || format!("{}/{}", measured.packets_lost_meanwhile, measured.packets_sent_meanwhile);
    let dash = || "-".to_owned();
    let mut row = vec![
        link.gateway.clone(),
        format!("{} {} {}", link.transport, link.class, link.worker),
        link.state.into(),
        if was_live { format!("{probes_answered}/{probes_sent}") } else { dash() },
        time(measured.min_us),
        time(measured.avg_us),
        time(measured.max_us),
        if was_live && link.transport == "quic" { lost() } else { dash() },
    ];
    let path = |found: &Mtu| format!("{}/{}", found.current_bytes, found.max_bytes);
    row.extend(mtu.then(|| measured.mtu.as_ref().map_or_else(dash, path)));
    row.push(link.address.clone());
    row
}

/// What the rows cannot say, each thing once.
fn remarks(report: &Report, mtu: bool) -> Vec<String> {
    let (mut lines, mut said) = (Vec::new(), BTreeSet::new());
    let mut say = |line: String, key: String| {
        if said.insert(key) {
            lines.push(line);
        }
    };
    for Item { gateway, problem, links, .. } in &report.items {
        if let Some(Problem { code, text, fix, .. }) = problem {
            let code = if code.is_empty() { String::new() } else { format!(" ({code})") };
            say(format!("{gateway}: {text}{code}; {fix}"), gateway.clone());
        } else if links.is_empty() {
            let cluster = &report.cluster;
            let line = format!(
                "{gateway}: no link to {cluster} ({TUNNEL_DOWN}), and none is being made: gateways of \
                 {cluster} dial this one, or it has no address of theirs"
            );
            say(line, gateway.clone());
        }
        for measured in links {
            let link = &measured.link;
            let told = link.state != "Up" || link.transport == "tcp";
            if let Some(fault) = link.last_error.as_ref().filter(|_| told) {
                let place = format!("{gateway} {} {}", link.transport, link.address);
                let (code, why, since) = (&fault.code, &fault.text, age(fault.since.age_ms));
                say(
                    format!("{place}: {code} {why} ({since} ago)"),
                    format!("{place} {code} {why}"),
                );
            }
            if let Some(found) = measured.mtu.as_ref().filter(|found| found.black_holes > 0) {
                let often = match found.black_holes {
                    1 => "once".into(),
                    times => format!("{times} times"),
                };
                let line = format!(
                    "{gateway} {} {}: the path stopped {often} to take large packets; {} bytes are \
                     used now",
                    link.class, link.address, found.current_bytes
                );
                say(line.clone(), line);
            }
            if mtu && link.transport == "tcp" && link.state == "Up" {
                let line =
                    "Over TCP the kernel finds the size of segments (MSS), and does not say it.";
                say(line.into(), "tcp".into());
            }
        }
    }
    lines
}

fn summary(report: &Report) -> String {
    let cluster = &report.cluster;
    let (sent, answered): (u32, u32) =
        (links(report).map(|link| link.probes_sent).sum(), answered(report));
    let min = links(report).filter_map(|link| link.min_us).min();
    let max = links(report).filter_map(|link| link.max_us).max();
    let (Some(min), Some(max)) = (min, max) else {
        return match sent {
            0 => format!("{cluster} was not asked: no link to it is up ({TUNNEL_DOWN})."),
            _ => format!("{cluster} does not answer: 0 of {sent} probes."),
        };
    };
    let weigh = |link: &Measured| Some(link.avg_us? * u64::from(link.probes_answered));
    let avg = links(report).filter_map(weigh).sum::<u64>() / u64::from(answered.max(1));
    format!(
        "{cluster} answers: {answered} of {sent} probes, {} / {} / {} (min / avg / max).",
        milliseconds(min),
        milliseconds(avg),
        milliseconds(max)
    )
}

#[cfg(test)]
mod tests {
    use wire::operator::proto::PingProblem;
    use wire::resource::proto::{Link, LinkClass, LinkError, LinkState, PingAnswer, Transport};

    use super::*;
    use crate::golden;

    fn link(class: LinkClass, state: LinkState, transport: Transport) -> Link {
        Link {
            cluster: "west".into(),
            gateway_id: vec![7; 16],
            address: "gw.west.example:8443".into(),
            transport: transport.into(),
            class: class.into(),
            worker: 1,
            state: state.into(),
            rtt_us: Some(18_000),
            packets_sent: 1_000,
            packets_lost: 4,
            bytes_sent: 70_000,
            bytes_received: 90_000,
            since_age_ms: 60_000,
            last_error: None,
            retiring: false,
        }
    }

    fn fault(code: u32, text: &str) -> Option<LinkError> {
        Some(LinkError { code, text: text.into(), age_ms: 3_000 })
    }

    /// Two that answer, the one with a black hole, and one that is down.
    fn quic() -> Vec<PingedLink> {
        let mtu = PathMtu {
            current_bytes: 1200,
            max_bytes: 1452,
            probes_sent: 9,
            probes_lost: 6,
            black_holes: 1,
        };
        let fast = PingedLink {
            link: Some(link(LinkClass::Fast, LinkState::Live, Transport::Quic)),
            sent: 5,
            answered: 5,
            min_us: Some(17_900),
            avg_us: Some(18_100),
            max_us: Some(18_900),
            packets_sent: 62,
            packets_lost: 0,
            mtu: Some(PathMtu { current_bytes: 1452, black_holes: 0, probes_lost: 0, ..mtu }),
        };
        let bulk = PingedLink {
            link: Some(link(LinkClass::Bulk, LinkState::Live, Transport::Quic)),
            answered: 4,
            min_us: Some(18_300),
            avg_us: Some(61_000),
            max_us: Some(240_000),
            packets_lost: 3,
            mtu: Some(mtu),
            ..fast.clone()
        };
        vec![fast, bulk, down("192.0.2.9:8443")]
    }

    fn down(address: &str) -> PingedLink {
        let mut link = link(LinkClass::Fast, LinkState::Down, Transport::Quic);
        link.address = address.into();
        link.last_error = fault(2001, "nothing answered for 3 s");
        PingedLink { link: Some(link), ..PingedLink::default() }
    }

    fn tcp() -> PingedLink {
        let mut link = link(LinkClass::Fast, LinkState::Live, Transport::Tcp);
        link.last_error =
            fault(2009, "it runs over TCP, since UDP does not pass: open UDP port 8443");
        let mtu = None;
        PingedLink { link: Some(link), packets_sent: 0, mtu, ..quic()[0].clone() }
    }

    fn answer(gateway: &str, links: Vec<PingedLink>) -> GatewayPing {
        let answer = PingAnswer { links, ..PingAnswer::default() };
        ping(gateway, Outcome::Answer(answer))
    }

    fn too_old(gateway: &str, timed_out: bool) -> GatewayPing {
        let problem = PingProblem {
            code: 1124,
            text: "it does not support ping (version 0.1.0)".into(),
            fix: "upgrade it".into(),
            timed_out,
        };
        ping(gateway, Outcome::Problem(problem))
    }

    fn ping(gateway: &str, outcome: Outcome) -> GatewayPing {
        GatewayPing { gateway: gateway.into(), version: "0.2.0".into(), outcome: Some(outcome) }
    }

    fn report_of(gateways: Vec<GatewayPing>, mtu: bool) -> Report {
        report("west", gateways, mtu, "2027-01-02T03:04:05Z".parse().unwrap())
    }

    #[test]
    fn the_report_is_as_golden() {
        let gateways = || {
            let all = [answer("gw-0", quic()), answer("gw-1", vec![tcp()]), too_old("gw-2", false)];
            all.into_iter().chain([answer("gw-3", vec![])]).collect()
        };
        let report = report_of(gateways(), true);
        golden::check("ping-mtu.txt", &screen(&report, true));
        golden::check("ping.json", &serde_json::to_string_pretty(&report).unwrap());
        golden::check("ping.txt", &screen(&report_of(gateways(), false), false));
        assert!(nobody_measured(&report).is_none() && answered(&report) == 14);
    }

    #[test]
    fn who_does_not_answer_is_told_with_the_reason() {
        let silent = |mut row: PingedLink| {
            (row.answered, row.min_us, row.avg_us, row.max_us) = (0, None, None, None);
            row
        };
        for (links, wanted) in [
            (vec![down("192.0.2.9:8443")], "west was not asked: no link to it is up (FED2001)."),
            (vec![silent(quic().remove(0))], "west does not answer: 0 of 5 probes."),
        ] {
            let report = report_of(vec![answer("gw-0", links)], false);
            let text = screen(&report, false);
            assert!(text.ends_with(wanted), "{text}");
            assert_eq!((answered(&report), nobody_measured(&report).is_none()), (0, true));
        }
        let text =
            screen(&report_of(vec![answer("gw-0", vec![down("192.0.2.9:8443")])], false), false);
        assert!(text.contains("gw-0 quic 192.0.2.9:8443: FED2001 nothing answered"), "{text}");
    }

    #[test]
    fn no_measurement_at_all_is_an_error() {
        for (gateways, exit, start) in [
            (
                vec![too_old("gw-0", false)],
                Exit::Failed,
                "error: no gateway has measured: gw-0: it does",
            ),
            (
                vec![too_old("gw-0", false), too_old("gw-1", true)],
                Exit::TimedOut,
                "error: no gateway has measured: gw-1: it does",
            ),
        ] {
            let error = nobody_measured(&report_of(gateways, false)).unwrap();
            assert_eq!(error.exit, exit);
            let text = error.to_string();
            assert!(
                text.starts_with(start) && text.ends_with("(FED1124)\nhint: upgrade it"),
                "{text}"
            );
        }
    }
}
