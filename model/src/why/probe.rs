//! What a real request adds: it passes every hop, or says where it stopped.

use super::{Answer, Finding, Hop, Step};
use crate::code::{self, Code};

/// How a request through the source's gateway went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The application answered; the words say how.
    Answered(String),
    /// A gateway refused it.
    Refused { code: Code, text: String },
    /// It told nothing: the gateway could not be reached from here, or the connection just ended.
    Mute(String),
}

impl Answer {
    /// The verdict with what a probe showed. Facts that say that a hop is broken stay: the probe may
    /// have been served by another cluster.
    pub fn probed(&mut self, probe: &Probe) {
        if self.broken().is_some() {
            return;
        }
        match probe {
            Probe::Mute(_) => {}
            Probe::Answered(how) => {
                for step in &mut self.steps {
                    let known = step.finding == Finding::Ok;
                    step.finding = Finding::Ok;
                    match (step.hop, known) {
                        (Hop::Endpoint, true) => step.text += &format!("; the probe: {how}"),
                        (Hop::Endpoint, false) => step.text = format!("the probe: {how}"),
                        (_, true) => {}
                        (_, false) => step.text = "the probe got past it".into(),
                    }
                }
            }
            Probe::Refused { code, text } => {
                let hop = hop_of(*code);
                self.steps.retain(|step| step.hop < hop);
                for step in self.steps.iter_mut().filter(|it| it.finding == Finding::Unknown) {
                    (step.finding, step.text) = (Finding::Ok, "the probe got past it".into());
                }
                let fix = code.entry().fix.trim_end_matches('.').to_owned();
                let text = format!("the probe was refused: {text}");
                self.steps.push(Step { hop, text, finding: Finding::Broken { code: *code, fix } });
            }
        }
    }
}

/// The hop that a refusal is about.
fn hop_of(code: Code) -> Hop {
    match code {
        code::NO_ENDPOINT | code::UPSTREAM_CONNECT | code::UPSTREAM_RESET | code::DEADLINE => {
            Hop::Endpoint
        }
        code::NOT_YET => Hop::Catalog,
        code::SVID_MISSING | code::SVID_EXPIRED => Hop::Identity,
        other => match other.number() / 1000 {
            2 => Hop::Tunnel,
            3 => Hop::Trust,
            4 | 6 => Hop::Catalog,
            5 => Hop::Consumers,
            _ => Hop::Name,
        },
    }
}
