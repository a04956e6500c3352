//! Why a request from one cluster reaches a service, or why it does not: hop by hop, from what nodes
//! say of themselves and of others.
//!
//! Pure: facts in, verdict out. Whoever collects the facts (`fedctl why`) asks nodes for what lies
//! ready, so that an answer needs no quorum; what nobody was asked about is [`Finding::Unknown`].

mod access;
mod ask;
mod catalog;
mod facts;
mod identity;
mod name;
mod path;
mod probe;

use std::fmt;

use crate::code::{Code, NOT_EXPORTED};
use crate::name::{ClusterName, ServiceName};
use crate::spiffe::SpiffeId;

pub use ask::{AskError, Question, Source, Target};
pub use facts::{
    Authority, Feed, GatewayFacts, LinkFacts, LinkFault, LinkState, ListenerFacts, MemberFacts,
    MemberState, NodeFacts, OfferFacts, Standing, StoreFacts, SvidFacts, TrustFacts,
};
pub use name::service_of;
pub use probe::Probe;

/// What every node that answered says, by its cluster.
pub type Facts = std::collections::BTreeMap<ClusterName, NodeFacts>;

/// What a request needs, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hop {
    /// The name that the client calls leads to a service.
    Name,
    /// The service is exported there and imported here.
    Catalog,
    /// The destination's AccessPolicies let the caller in.
    Consumers,
    /// Gateways have SVIDs.
    Identity,
    /// Each side has the other's trust bundle.
    Trust,
    /// There is a live connection between gateways.
    Tunnel,
    /// Somebody serves.
    Endpoint,
}

impl Hop {
    pub const ALL: [Self; 7] = [
        Self::Name,
        Self::Catalog,
        Self::Consumers,
        Self::Identity,
        Self::Trust,
        Self::Tunnel,
        Self::Endpoint,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Catalog => "catalog",
            Self::Consumers => "consumers",
            Self::Identity => "identity",
            Self::Trust => "trust",
            Self::Tunnel => "tunnel",
            Self::Endpoint => "endpoint",
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How it stands with one hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Ok,
    Broken {
        code: Code,
        fix: String,
    },
    /// Nobody who was asked can tell.
    Unknown,
}

/// One hop, and what is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub hop: Hop,
    pub finding: Finding,
    pub text: String,
}

/// The verdict. The steps end with the first that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub from: ClusterName,
    /// The cluster whose way was looked at; `None` when nobody serves, or the name leads nowhere.
    pub to: Option<ClusterName>,
    pub service: Option<ServiceName>,
    pub port: Option<u16>,
    /// Where a client's request enters; `None` if that is not known.
    pub entry: Option<Entry>,
    pub steps: Vec<Step>,
    /// The other clusters that could serve, and where the way to each is broken.
    pub others: Vec<(ClusterName, Option<Hop>)>,
}

/// A listener of the source's, and how to call the service there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub port: u16,
    /// What an HTTP request names; `None` on a TCP port.
    pub http: Option<(String, String)>,
}

/// All in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Reaches,
    Blocked,
    /// Nothing is known to be broken, but not every hop is known.
    Undecided,
}

impl Answer {
    pub fn broken(&self) -> Option<&Step> {
        self.steps.iter().find(|step| matches!(step.finding, Finding::Broken { .. }))
    }

    pub fn verdict(&self) -> Verdict {
        let unknown = self.steps.iter().any(|step| step.finding == Finding::Unknown);
        match self.broken() {
            Some(_) => Verdict::Blocked,
            None if unknown => Verdict::Undecided,
            None => Verdict::Reaches,
        }
    }
}

/// Judges every hop up to the first broken one. Where several clusters serve, the way that gets
/// furthest counts: a request needs one of them only.
pub fn explain(question: &Question, facts: &Facts) -> Result<Answer, AskError> {
    let from = question.source.cluster(facts)?;
    let mut answer = Answer {
        from,
        to: None,
        service: None,
        port: None,
        entry: None,
        steps: vec![],
        others: vec![],
    };
    let named = match name::check(question, &answer.from, facts) {
        Ok(named) => named,
        Err(broken) => {
            answer.steps.push(Step::of(Hop::Name, Err(broken)));
            return Ok(answer);
        }
    };
    answer.steps.push(Step::of(Hop::Name, Ok(named.seen)));
    answer.entry = named.entry;
    let Some(service) = named.service else {
        let rest = Hop::ALL.into_iter().filter(|hop| *hop > Hop::Name);
        let unknown = "it is not known which service the name leads to";
        answer.steps.extend(rest.map(|hop| Step::of(hop, Ok(Seen::Unknown(unknown.into())))));
        return Ok(answer);
    };
    let port = named.port.or_else(|| catalog::usual_port(&answer.from, &service, facts));
    let mut ways = catalog::candidates(question, &answer.from, &service, facts)
        .into_iter()
        .map(|to| {
            let steps = Path::new(question, facts, &answer.from, &to, &service, port).walk();
            (to, steps)
        })
        .collect::<Vec<_>>();
    (answer.service, answer.port) = (Some(service), port);
    // Of equals the one counts whose node was asked: it says why.
    let worth = |(to, steps): &(ClusterName, Vec<Step>)| (reach(steps), facts.contains_key(to));
    let best = (0..ways.len()).rev().max_by_key(|index| worth(&ways[*index]));
    match best.map(|index| ways.remove(index)) {
        None => answer.steps.push(Step::of(Hop::Catalog, Err(nobody(&answer)))),
        Some((to, steps)) => {
            answer.steps.extend(steps);
            answer.to = Some(to);
        }
    }
    let first_broken = |steps: &[Step]| match steps.last() {
        Some(Step { hop, finding: Finding::Broken { .. }, .. }) => Some(*hop),
        _ => None,
    };
    answer.others = ways.iter().map(|(to, steps)| (to.clone(), first_broken(steps))).collect();
    Ok(answer)
}

/// How far a way gets: the index of its broken hop, or beyond all.
fn reach(steps: &[Step]) -> usize {
    match steps.last() {
        Some(Step { hop, finding: Finding::Broken { .. }, .. }) => *hop as usize,
        _ => Hop::ALL.len(),
    }
}

fn nobody(answer: &Answer) -> Broken {
    let (from, service) = (&answer.from, answer.service.as_ref());
    let service = service.map_or_else(String::new, ToString::to_string);
    Broken::new(
        NOT_EXPORTED,
        format!("no cluster exports {service} to {from}, and {from} has no such Service"),
        format!(
            "in the cluster that runs it: `fedctl export {service} --to {from}`; whoever knows \
             that cluster asks its node too: `--also NODE`"
        ),
    )
}

/// What a hop is found to be, unless it is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Ok(String),
    Unknown(String),
}

/// Why a request does not get past a hop.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broken {
    code: Code,
    text: String,
    fix: String,
}

impl Broken {
    fn new(code: Code, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, text: text.into(), fix: fix.into() }
    }
}

type Checked = Result<Seen, Broken>;

impl Step {
    fn of(hop: Hop, checked: Checked) -> Self {
        let (finding, text) = match checked {
            Ok(Seen::Ok(text)) => (Finding::Ok, text),
            Ok(Seen::Unknown(text)) => (Finding::Unknown, text),
            Err(Broken { code, text, fix }) => (Finding::Broken { code, fix }, text),
        };
        Self { hop, finding, text }
    }
}

/// One way that the request could take.
struct Path<'a> {
    facts: &'a Facts,
    from: &'a ClusterName,
    to: &'a ClusterName,
    service: &'a ServiceName,
    port: Option<u16>,
    /// The workload that asks, if the question names one.
    workload: Option<SpiffeId>,
    /// What the nodes of both clusters say, if they were asked.
    src: Option<&'a NodeFacts>,
    dst: Option<&'a NodeFacts>,
}

impl<'a> Path<'a> {
    fn new(
        question: &Question,
        facts: &'a Facts,
        from: &'a ClusterName,
        to: &'a ClusterName,
        service: &'a ServiceName,
        port: Option<u16>,
    ) -> Self {
        let workload = question.source.workload(from, facts);
        let (src, dst) = (facts.get(from), facts.get(to));
        Self { facts, from, to, service, port, workload, src, dst }
    }

    fn walk(&self) -> Vec<Step> {
        type Check<'a> = fn(&Path<'a>) -> Checked;
        let checks: [(Hop, Check<'_>); 6] = [
            (Hop::Catalog, catalog::check),
            (Hop::Consumers, access::check),
            (Hop::Identity, identity::check_svids),
            (Hop::Trust, identity::check_trust),
            (Hop::Tunnel, path::check_tunnel),
            (Hop::Endpoint, path::check_endpoints),
        ];
        let mut steps = Vec::new();
        for (hop, check) in checks {
            let checked = check(self);
            let broken = checked.is_err();
            steps.push(Step::of(hop, checked));
            if broken {
                break;
            }
        }
        steps
    }

    /// The request stays in its own cluster.
    fn is_local(&self) -> bool {
        self.from == self.to
    }

    fn port_shown(&self) -> String {
        self.port.map_or_else(String::new, |port| format!(":{port}"))
    }
}
