//! Gateways and their listeners: what of them is in service, and their status.

use std::collections::{BTreeMap, BTreeSet};

use api::kubernetes::{GatewayCondition, GatewayReason, ListenerCondition, ListenerReason};
use discovery::kubernetes::WatchedKind;
use jiff::Timestamp;
use model::code::LISTENER_CONFLICT;
use model::{Diagnostic, GatewaySpec, ListenerSpec, ResourceKind, Severity};
use serde_json::{Value, json};

use super::condition::{self, Condition};
use super::{Facts, Found, namespaced_key, text};

pub(super) const GROUP: &str = "gateway.networking.k8s.io";

/// A Gateway of ours.
pub(super) struct Gateway<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) object: &'a Value,
    pub(super) listeners: Vec<Listener<'a>>,
    found: Found<'a>,
    is_read: bool,
    /// Neither read nor found wrong: the catalog that has it is still to come.
    pub(super) is_pending: bool,
}

/// A listener as its author wrote it, and what became of it.
pub(super) struct Listener<'a> {
    pub(super) name: &'a str,
    pub(super) port: i64,
    pub(super) protocol: &'a str,
    /// In service.
    pub(super) spec: Option<&'a ListenerSpec>,
    /// Why it is not in service.
    problem: Option<Problem>,
    /// `allowedRoutes.kinds` lists what is not served here.
    kinds_problem: Option<String>,
    /// Kinds of routes that it takes.
    pub(super) kinds: &'static [WatchedKind],
    pub(super) attached: usize,
}

struct Problem {
    condition: ListenerCondition,
    reason: ListenerReason,
    message: String,
}

/// Where a Gateway can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// IP addresses and names.
    At(Vec<String>),
    /// Not yet, and why.
    Pending(String),
}

/// The Gateways whose class names our controller, in the order of their names.
pub(super) fn ours<'a>(facts: &'a Facts, classes: &api::GatewayClasses) -> Vec<Gateway<'a>> {
    let is_ours = |gateway: &&Value| {
        text(gateway, "/spec/gatewayClassName").is_some_and(|class| classes.contains(class))
    };
    facts.gateways.iter().filter(is_ours).filter_map(|object| read(facts, object)).collect()
}

fn read<'a>(facts: &'a Facts, object: &'a Value) -> Option<Gateway<'a>> {
    let (namespace, name) = (text(object, "/metadata/namespace")?, text(object, "/metadata/name")?);
    let key = namespaced_key(ResourceKind::Gateway, namespace, name)?;
    let parsed = match facts.resource(&key) {
        Some(model::Resource::Gateway(spec)) => Some(spec),
        _ => None,
    };
    let found = facts.found(&key);
    let written = object.pointer("/spec/listeners").and_then(Value::as_array);
    let mut listeners: Vec<_> = written
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, raw)| read_listener(index, raw, parsed, &found))
        .collect();
    blame_neighbours(&mut listeners);
    let is_read = parsed.is_some();
    let is_pending = !is_read && found.reading.is_empty();
    Some(Gateway { namespace, name, object, listeners, found, is_read, is_pending })
}

fn read_listener<'a>(
    index: usize,
    raw: &'a Value,
    parsed: Option<&'a GatewaySpec>,
    found: &Found<'a>,
) -> Listener<'a> {
    let (name, protocol) = (text(raw, "/name").unwrap_or(""), text(raw, "/protocol").unwrap_or(""));
    let at = format!("spec.listeners[{index}]");
    let specs = parsed.map(|gateway| gateway.listeners.as_slice()).unwrap_or_default();
    let position = specs.iter().position(|spec| spec.name.as_str() == name);
    let kinds: &[WatchedKind] = match protocol {
        "HTTP" => &[WatchedKind::HttpRoute],
        "TCP" => &[WatchedKind::TcpRoute],
        _ => &[],
    };
    let wrong: Vec<_> = found.reading.iter().filter(|d| is_within(&d.field, &at)).collect();
    let (of_kinds, others): (Vec<&Diagnostic>, Vec<_>) =
        wrong.into_iter().partition(|d| d.field.starts_with(&format!("{at}.allowedRoutes.kinds")));
    let errors: Vec<_> = others.into_iter().filter(|d| d.severity == Severity::Error).collect();
    let kinds_refused = of_kinds.iter().any(|d| d.severity == Severity::Error);
    let problem = if !errors.is_empty() {
        let reason = match errors.iter().any(|d| d.field == format!("{at}.protocol")) {
            true => ListenerReason::UnsupportedProtocol,
            false => ListenerReason::UnsupportedValue,
        };
        let message = condition::message(errors);
        Some(Problem { condition: ListenerCondition::Accepted, reason, message })
    } else {
        position.and_then(|position| conflict(position, found))
    };
    let in_service = problem.is_none() && !kinds_refused;
    Listener {
        name,
        port: raw["port"].as_i64().unwrap_or_default(),
        protocol,
        spec: position.and_then(|position| specs.get(position)).filter(|_| in_service),
        problem,
        kinds_problem: (!of_kinds.is_empty()).then(|| condition::message(of_kinds)),
        kinds: if kinds_refused { &[] } else { kinds },
        attached: 0,
    }
}

fn conflict(position: usize, found: &Found<'_>) -> Option<Problem> {
    Some(Problem {
        condition: ListenerCondition::Accepted,
        reason: ListenerReason::PortUnavailable,
        message: condition::of_compile([found.conflict(position)?]),
    })
}

impl<'a> Found<'a> {
    /// Why a listener has no port. `position`: among those that were read, not those that were
    /// written.
    fn conflict(&self, position: usize) -> Option<&'a Diagnostic> {
        let field = format!("spec.listeners[{position}].port");
        let conflict = |d: &&Diagnostic| d.code == LISTENER_CONFLICT && d.field == field;
        self.compile.iter().copied().find(conflict)
    }

    /// Ports of a Gateway's listeners that are in service.
    pub(super) fn ports(&self, gateway: &GatewaySpec) -> BTreeSet<u16> {
        let listeners = gateway.listeners.iter().enumerate();
        let served = listeners.filter(|(position, _)| self.conflict(*position).is_none());
        served.map(|(_, listener)| listener.port).collect()
    }
}

/// A port that is taken by another Gateway is unavailable; listeners of one Gateway are in conflict.
fn blame_neighbours(listeners: &mut [Listener<'_>]) {
    for index in 0..listeners.len() {
        let listener = &listeners[index];
        let mut others = listeners[..index].iter().filter(|other| other.port == listener.port);
        let reason = match others.next() {
            None => continue,
            Some(other) if other.protocol != listener.protocol => ListenerReason::ProtocolConflict,
            Some(_) => ListenerReason::HostnameConflict,
        };
        if let Some(problem) = &mut listeners[index].problem
            && problem.reason == ListenerReason::PortUnavailable
        {
            (problem.condition, problem.reason) = (ListenerCondition::Conflicted, reason);
        }
    }
}

fn is_within(field: &str, part: &str) -> bool {
    field.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl Gateway<'_> {
    fn serves_nothing(&self) -> bool {
        self.listeners.iter().all(|listener| listener.spec.is_none())
    }

    pub(super) fn status(&self, there: Option<&Value>, reach: &Reach, now: Timestamp) -> Value {
        let generation = self.object.pointer("/metadata/generation").and_then(Value::as_i64);
        let generation = generation.unwrap_or_default();
        let old = |path: &str| there.and_then(|there| there.pointer(path));
        let old_listeners = old("/listeners").and_then(Value::as_array);
        let old_listeners: BTreeMap<&str, &Value> = old_listeners
            .into_iter()
            .flatten()
            .filter_map(|listener| Some((text(listener, "/name")?, listener)))
            .collect();
        let listeners = self.listeners.iter().map(|listener| {
            let there = old_listeners.get(listener.name).map(|old| &old["conditions"]);
            let conditions = listener.conditions(self.is_read, reach);
            json!({
                "name": listener.name,
                "supportedKinds": listener.supported_kinds(),
                "attachedRoutes": listener.attached,
                "conditions": condition::list(&conditions, there, generation, now),
            })
        });
        let addresses = match reach {
            Reach::At(hosts) => hosts.iter().map(|host| address(host)).collect(),
            Reach::Pending(_) => Vec::new(),
        };
        json!({
            "addresses": addresses,
            "conditions":
                condition::list(&self.conditions(reach), old("/conditions"), generation, now),
            "listeners": listeners.collect::<Vec<_>>(),
        })
    }

    fn conditions(&self, reach: &Reach) -> [Condition; 2] {
        let accepted = self.accepted();
        let programmed = GatewayCondition::Programmed.as_str();
        let programmed = |holds, reason: GatewayReason, message: &str| {
            Condition::new(programmed, holds, reason.as_str(), message)
        };
        let programmed = match reach {
            _ if self.serves_nothing() => {
                programmed(false, GatewayReason::Invalid, "no listener is in service")
            }
            Reach::At(_) => programmed(true, GatewayReason::Programmed, "gateways have it"),
            Reach::Pending(why) => programmed(false, GatewayReason::AddressNotAssigned, why),
        };
        [accepted, programmed]
    }

    fn accepted(&self) -> Condition {
        let accepted = GatewayCondition::Accepted.as_str();
        let condition = |holds, reason: GatewayReason, message: String| {
            Condition::new(accepted, holds, reason.as_str(), message)
        };
        let errors =
            || self.found.reading.iter().filter(|d| d.severity == Severity::Error).copied();
        let ours = || errors().filter(|d| !d.field.starts_with("spec.listeners["));
        if !self.is_read {
            let reason = if errors().any(|d| d.field.starts_with("spec.addresses")) {
                GatewayReason::UnsupportedAddress
            } else if ours().next().is_some() {
                GatewayReason::Invalid
            } else {
                GatewayReason::ListenersNotValid
            };
            return condition(false, reason, condition::message(errors()));
        }
        let bad = self.listeners.iter().filter(|listener| listener.spec.is_none());
        let bad: Vec<_> = bad.map(|listener| listener.name).collect();
        match (bad.len(), self.serves_nothing()) {
            (0, _) => condition(true, GatewayReason::Accepted, "it is in service".into()),
            (_, false) => {
                let message = format!("not in service: listener {}", bad.join(", "));
                condition(true, GatewayReason::ListenersNotValid, message)
            }
            (_, true) => {
                let message = "no listener is in service; their conditions say why".into();
                condition(false, GatewayReason::ListenersNotValid, message)
            }
        }
    }
}

impl Listener<'_> {
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_ref().map(|problem| &*problem.message).or(self.kinds_problem.as_deref())
    }

    fn supported_kinds(&self) -> Vec<Value> {
        let kind = |kind: &WatchedKind| json!({ "group": GROUP, "kind": kind.as_str() });
        self.kinds.iter().map(kind).collect()
    }

    fn conditions(&self, is_read: bool, reach: &Reach) -> [Condition; 4] {
        use ListenerCondition::{Accepted, Conflicted, Programmed, ResolvedRefs};
        let condition = |kind: ListenerCondition, holds, reason: ListenerReason, message: &str| {
            Condition::new(kind.as_str(), holds, reason.as_str(), message)
        };
        let accepted = match &self.problem {
            Some(problem) => condition(Accepted, false, problem.reason, &problem.message),
            None => condition(Accepted, true, ListenerReason::Accepted, ""),
        };
        let conflicted = match &self.problem {
            Some(problem) if problem.condition == Conflicted => {
                condition(Conflicted, true, problem.reason, &problem.message)
            }
            _ => condition(Conflicted, false, ListenerReason::NoConflicts, ""),
        };
        let resolved = match &self.kinds_problem {
            Some(message) => {
                condition(ResolvedRefs, false, ListenerReason::InvalidRouteKinds, message)
            }
            None => condition(ResolvedRefs, true, ListenerReason::ResolvedRefs, ""),
        };
        let programmed = match reach {
            _ if !is_read => {
                let message = "the Gateway is not in service; its condition Accepted says why";
                condition(Programmed, false, ListenerReason::Invalid, message)
            }
            _ if self.spec.is_none() => {
                let message = "it is not in service; its other conditions say why";
                condition(Programmed, false, ListenerReason::Invalid, message)
            }
            Reach::At(_) => condition(Programmed, true, ListenerReason::Programmed, ""),
            Reach::Pending(why) => condition(Programmed, false, ListenerReason::Pending, why),
        };
        [accepted, conflicted, resolved, programmed]
    }
}

fn address(host: &str) -> Value {
    let is_ip = host.parse::<std::net::IpAddr>().is_ok();
    json!({ "type": if is_ip { "IPAddress" } else { "Hostname" }, "value": host })
}
