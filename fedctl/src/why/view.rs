//! The verdict for people and for programs.

use std::fmt::Write;
use std::time::Duration;

use model::ClusterName;
use model::why::{Answer, Facts, Feed, Finding, Hop, NodeFacts, Probe, Standing, Step, Verdict};
use serde::Serialize;

use crate::error::CommandError;
use crate::printer::age;

/// A node that was to be asked and did not answer.
#[derive(Debug)]
pub struct Silent {
    /// As it was named.
    pub name: String,
    pub error: CommandError,
}

/// The verdict, and how much it is worth.
#[derive(Debug)]
pub struct Explained {
    pub answer: Answer,
    probe: Option<Probe>,
    knowledge: Vec<Knowledge>,
    silent: Vec<Silent>,
}

/// How old what a node says is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Knowledge {
    cluster: String,
    revision: String,
    /// Of the gateway that reported last; absent while none is connected.
    report_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreKnowledge>,
    #[serde(skip_serializing_if = "is_zero")]
    objects_left_out: u32,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreKnowledge {
    revision: String,
    /// Who leads the store or feeds the node; absent when nobody does.
    from: Option<String>,
    quorum: bool,
    /// Since the destination was heard of.
    destination_age_ms: Option<u64>,
    destination_stale: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyView {
    api_version: &'static str,
    kind: &'static str,
    source: String,
    destination: Option<String>,
    service: Option<String>,
    port: Option<u16>,
    verdict: &'static str,
    hops: Vec<HopView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<OtherView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<String>,
    asked: Vec<Knowledge>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HopView {
    hop: &'static str,
    /// `ok`, `broken`, `unknown`, or `skipped` behind a broken one.
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OtherView {
    cluster: String,
    broken_at: Option<&'static str>,
}

impl Explained {
    pub(super) fn new(answer: Answer, facts: &Facts, silent: Vec<Silent>) -> Self {
        let knowledge = facts.values().map(|node| known(node, answer.to.as_ref())).collect();
        Self { answer, probe: None, knowledge, silent }
    }

    /// Takes up what a real request showed.
    pub fn take_probe(&mut self, probe: Probe) {
        self.answer.probed(&probe);
        self.probe = Some(probe);
    }

    pub fn view(&self) -> WhyView {
        let Answer { from, to, service, port, steps, others, .. } = &self.answer;
        let behind = steps.last().map_or(0, |step| step.hop as usize + 1);
        let skipped = Hop::ALL[behind..].iter().map(|hop| HopView {
            hop: hop.as_str(),
            state: "skipped",
            text: String::new(),
            code: None,
            fix: None,
        });
        WhyView {
            api_version: "fedgate.dev/v1alpha1",
            kind: "Why",
            source: from.to_string(),
            destination: to.as_ref().map(ToString::to_string),
            service: service.as_ref().map(ToString::to_string),
            port: *port,
            verdict: match self.answer.verdict() {
                Verdict::Reaches => "Reaches",
                Verdict::Blocked => "Blocked",
                Verdict::Undecided => "Undecided",
            },
            hops: steps.iter().map(hop_view).chain(skipped).collect(),
            others: others
                .iter()
                .map(|(cluster, broken)| OtherView {
                    cluster: cluster.to_string(),
                    broken_at: broken.map(Hop::as_str),
                })
                .collect(),
            probe: self.probe.as_ref().map(probe_shown),
            asked: self.knowledge.clone(),
            silent: self.silent.iter().map(silent_shown).collect(),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let Answer { from, to, service, port, steps, others, .. } = &self.answer;
        let mut text = from.to_string();
        if let Some(service) = service {
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            let _ = write!(text, " → {service}{port}");
        }
        if let Some(to) = to {
            let _ = write!(text, " in {to}");
        }
        text.push('\n');
        for hop in Hop::ALL {
            let step = steps.iter().find(|step| step.hop == hop);
            let (sign, said) = match step {
                None => ('-', String::new()),
                Some(Step { finding: Finding::Ok, text, .. }) => ('✓', text.clone()),
                Some(Step { finding: Finding::Unknown, text, .. }) => ('?', text.clone()),
                Some(Step { finding: Finding::Broken { code, .. }, text, .. }) => {
                    ('✗', format!("{text}  {code}"))
                }
            };
            let number = hop as usize + 1;
            let line = format!(" {number} {sign} {:<10} {said}", hop.as_str());
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = writeln!(text, "{}", self.verdict_line());
        if let Some(Finding::Broken { fix, .. }) = self.answer.broken().map(|it| &it.finding) {
            let _ = writeln!(text, "Fix: {fix}");
        }
        for (cluster, broken) in others {
            let state =
                broken.map_or_else(|| "nothing broken".into(), |hop| format!("broken at {hop}"));
            let _ = writeln!(text, "Also: {cluster}, {state}");
        }
        if let Some(probe) = &self.probe {
            let _ = writeln!(text, "Probe: {}", probe_shown(probe));
        }
        for known in &self.knowledge {
            let _ = writeln!(text, "Asked: {}", known.line(to.as_ref()));
        }
        for silent in &self.silent {
            let _ = writeln!(text, "Silent: {}", silent_shown(silent));
        }
        text
    }

    /// Of the broken hop; empty if none is.
    pub fn code(&self) -> String {
        match self.answer.broken().map(|step| &step.finding) {
            Some(Finding::Broken { code, .. }) => code.to_string(),
            _ => String::new(),
        }
    }

    /// One line for each thing that somebody has to know.
    pub fn short(&self) -> String {
        let fix = match self.answer.broken().map(|step| &step.finding) {
            Some(Finding::Broken { fix, .. }) => format!("\nFix: {fix}"),
            _ => String::new(),
        };
        self.verdict_line() + &fix
    }

    fn verdict_line(&self) -> String {
        match (self.answer.verdict(), self.answer.broken()) {
            (_, Some(Step { hop, finding: Finding::Broken { code, .. }, text })) => {
                format!("Verdict: blocked at {hop}, {code}: {text}")
            }
            (Verdict::Undecided, _) => {
                let unknown = |step: &&Step| step.finding == Finding::Unknown;
                let hops = self.answer.steps.iter().filter(unknown).map(|step| step.hop.as_str());
                let hops: Vec<_> = hops.collect();
                format!("Verdict: nothing is known to be broken; unknown: {}", hops.join(", "))
            }
            _ => "Verdict: it reaches".into(),
        }
    }
}

fn hop_view(step: &Step) -> HopView {
    let (state, code, fix) = match &step.finding {
        Finding::Ok => ("ok", None, None),
        Finding::Unknown => ("unknown", None, None),
        Finding::Broken { code, fix } => ("broken", Some(code.to_string()), Some(fix.clone())),
    };
    HopView { hop: step.hop.as_str(), state, text: step.text.clone(), code, fix }
}

fn probe_shown(probe: &Probe) -> String {
    match probe {
        Probe::Answered(how) => format!("answered: {how}"),
        Probe::Refused { code, text } => format!("refused with {code}: {text}"),
        Probe::Mute(why) => format!("says nothing: {why}"),
    }
}

fn silent_shown(silent: &Silent) -> String {
    let code = silent.error.code.map_or_else(String::new, |code| format!(" ({code})"));
    format!("{}: {}{code}", silent.name, silent.error.message)
}

fn known(node: &NodeFacts, to: Option<&ClusterName>) -> Knowledge {
    let connected = node.gateways.iter().filter(|gateway| gateway.connected);
    let report_age = connected.filter_map(|gateway| gateway.report_age).min();
    let store = node.store.as_ref().map(|store| {
        let heard = to.and_then(|to| store.member(to)?.heard);
        let (from, quorum) = match &store.feed {
            Feed::Store { leader } => (Some(leader.to_string()), true),
            Feed::Leaderless => (None, false),
            // Whether there is a quorum, its source would have to say.
            Feed::Watch { source } => (Some(source.to_string()), true),
            Feed::Cut => (None, false),
        };
        StoreKnowledge {
            revision: store.revision.to_string(),
            from,
            quorum,
            destination_age_ms: heard.map(|(age, _)| ms(age)),
            destination_stale: heard.is_some_and(|(_, standing)| standing != Standing::Fresh),
        }
    });
    Knowledge {
        cluster: node.cluster.to_string(),
        revision: node.snapshot.revision.to_string(),
        report_age_ms: report_age.map(ms),
        store,
        objects_left_out: node.left_out,
    }
}

impl Knowledge {
    fn line(&self, to: Option<&ClusterName>) -> String {
        let mut text = format!("{}, revision {}", self.cluster, self.revision);
        match self.report_age_ms {
            Some(old) => {
                let _ = write!(text, "; gateways' reports {} old", age(old));
            }
            None => text += "; no gateway is connected",
        }
        if let Some(store) = &self.store {
            let _ = write!(text, "; store {}", store.revision);
            text += &match (&store.from, store.quorum) {
                (Some(from), _) => format!(" from {from}"),
                (None, _) => ", which may be old: no quorum or source now".into(),
            };
            if let (Some(old), Some(to)) = (store.destination_age_ms, to) {
                let stale = if store.destination_stale { ", stale" } else { "" };
                let _ = write!(text, "; {to} heard of {} ago{stale}", age(old));
            }
        }
        if self.objects_left_out > 0 {
            let _ = write!(text, "; {} objects did not fit its answer", self.objects_left_out);
        }
        text
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
