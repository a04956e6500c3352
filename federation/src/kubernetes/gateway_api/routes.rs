//! Routes: which listeners take them, whether their backends are there, and their status.

use std::collections::BTreeSet;

use api::kubernetes::{CONTROLLER_NAME, RouteCondition, RouteReason};
use discovery::kubernetes::WatchedKind;
use jiff::Timestamp;
use model::code::{PORT_NOT_FOUND, REF_NOT_PERMITTED, ROUTE_CONFLICT, SERVICE_NOT_FOUND};
use model::{AllowedNamespaces, Diagnostic, Hostname, Severity};
use serde_json::{Value, json};

use super::condition::{self, Condition};
use super::gateways::{GROUP, Gateway, Listener};
use super::{Facts, Found, namespaced_key, text};

/// `PartiallyInvalid` begins so (Gateway API, `RouteConditionPartiallyInvalid`).
const DROPPED_RULE: &str = "Dropped Rule";

/// An HTTPRoute or TCPRoute.
pub(super) struct Route<'a> {
    pub(super) kind: WatchedKind,
    pub(super) namespace: &'a str,
    pub(super) object: &'a Value,
    hostnames: Vec<Hostname>,
    found: Found<'a>,
    is_read: bool,
}

/// What a parentRef names.
enum Target {
    NotOurs,
    /// A Gateway of ours of which nothing is known yet.
    Pending,
    Ours(Attachment),
}

/// What became of one parentRef that names a Gateway of ours.
struct Attachment {
    /// Index of the Gateway, and of its listeners that take the route.
    listeners: Vec<(usize, usize)>,
    refusal: Option<(RouteReason, String)>,
}

pub(super) fn read<'a>(
    facts: &'a Facts,
    kind: WatchedKind,
    object: &'a Value,
) -> Option<Route<'a>> {
    let (namespace, name) = (text(object, "/metadata/namespace")?, text(object, "/metadata/name")?);
    let key = namespaced_key(kind.catalog_kind()?, namespace, name)?;
    let found = facts.found(&key);
    let is_read = facts.resource(&key).is_some();
    // Its catalog is still to come.
    if !is_read && found.reading.is_empty() {
        return None;
    }
    let written = object.pointer("/spec/hostnames").and_then(Value::as_array);
    let written = written.into_iter().flatten().filter_map(Value::as_str);
    let hostnames = written.filter_map(|host| Hostname::parse(host).ok()).collect();
    Some(Route { kind, namespace, object, hostnames, found, is_read })
}

impl Route<'_> {
    /// The status with what we have to say of each parentRef that is ours. `None`: we say nothing,
    /// and have said nothing. Counts the route at the listeners that take it.
    pub(super) fn status(
        &self,
        there: Option<&Value>,
        gateways: &mut [Gateway<'_>],
        now: Timestamp,
    ) -> Option<Value> {
        let generation = self.object.pointer("/metadata/generation").and_then(Value::as_i64);
        let generation = generation.unwrap_or_default();
        let old = there.and_then(|there| there.get("parents")).and_then(Value::as_array);
        let old = old.map(Vec::as_slice).unwrap_or_default();
        let is_ours = |entry: &&Value| entry["controllerName"] == CONTROLLER_NAME;
        let (mut ours, mut attached) = (Vec::new(), BTreeSet::new());
        let refs = self.object.pointer("/spec/parentRefs").and_then(Value::as_array);
        for (index, parent) in refs.into_iter().flatten().enumerate() {
            let before = old.iter().filter(is_ours).find(|entry| entry["parentRef"] == *parent);
            let attachment = match self.attach(index, parent, gateways) {
                Target::NotOurs => continue,
                Target::Pending => {
                    ours.extend(before.cloned());
                    continue;
                }
                Target::Ours(attachment) => attachment,
            };
            if attachment.refusal.is_none() {
                attached.extend(attachment.listeners);
            }
            let before = before.map(|entry| &entry["conditions"]);
            let conditions = self.conditions(attachment.refusal);
            ours.push(json!({
                "parentRef": parent,
                "controllerName": CONTROLLER_NAME,
                "conditions": condition::list(&conditions, before, generation, now),
            }));
        }
        for (gateway, listener) in attached {
            gateways[gateway].listeners[listener].attached += 1;
        }
        if ours.is_empty() && !old.iter().any(|entry| is_ours(&entry)) {
            return None;
        }
        Some(json!({ "parents": merged(old, ours) }))
    }

    fn attach(&self, index: usize, parent: &Value, gateways: &[Gateway<'_>]) -> Target {
        let is = |field: &str, default: &str, wanted: &str| {
            text(parent, field).unwrap_or(default) == wanted
        };
        if !is("/group", GROUP, GROUP) || !is("/kind", "Gateway", "Gateway") {
            return Target::NotOurs;
        }
        let namespace = text(parent, "/namespace").unwrap_or(self.namespace);
        let named = |gateway: &Gateway<'_>| {
            gateway.namespace == namespace && parent["name"] == gateway.name
        };
        let Some(position) = gateways.iter().position(named) else { return Target::NotOurs };
        let gateway = &gateways[position];
        if gateway.is_pending {
            return Target::Pending;
        }
        let at = format!("spec.parentRefs[{index}]");
        let wrong: Vec<_> = self.errors().filter(|d| d.field.starts_with(&at)).collect();
        let refused = |reason, message| {
            Target::Ours(Attachment { listeners: Vec::new(), refusal: Some((reason, message)) })
        };
        if !wrong.is_empty() {
            return refused(RouteReason::UnsupportedValue, condition::message(wrong));
        }
        let (section, port) = (text(parent, "/sectionName"), parent["port"].as_i64());
        let named = |listener: &&(usize, &Listener<'_>)| {
            section.is_none_or(|section| section == listener.1.name)
                && port.is_none_or(|port| port == listener.1.port)
        };
        let all: Vec<_> = gateway.listeners.iter().enumerate().collect();
        let named: Vec<_> = all.iter().filter(named).collect();
        match self.taken_by(&named, gateway) {
            Ok(listeners) => {
                let listeners = listeners.into_iter().map(|listener| (position, listener));
                let listeners = listeners.collect();
                Target::Ours(Attachment { listeners, refusal: self.refusal() })
            }
            Err((reason, message)) => refused(reason, message),
        }
    }

    /// The listeners that take the route, each step with the reason of its own that the API has.
    fn taken_by(
        &self,
        named: &[&(usize, &Listener<'_>)],
        gateway: &Gateway<'_>,
    ) -> Result<Vec<usize>, (RouteReason, String)> {
        let shown = format!("Gateway {}/{}", gateway.namespace, gateway.name);
        if named.is_empty() {
            let message = format!("no listener of {shown} has this sectionName and port");
            return Err((RouteReason::NoMatchingParent, message));
        }
        let of_kind: Vec<_> = named.iter().filter(|(_, l)| l.kinds.contains(&self.kind)).collect();
        if of_kind.is_empty() {
            let message =
                format!("no such listener of {shown} takes routes of kind {}", self.kind.as_str());
            return Err((RouteReason::NotAllowedByListeners, message));
        }
        let served: Vec<_> =
            of_kind.iter().filter_map(|(index, l)| Some((*index, l.spec?))).collect();
        if served.is_empty() {
            let why = of_kind.iter().find_map(|(_, listener)| listener.problem());
            let why = why.unwrap_or("its conditions say why");
            let message = format!("the listener of {shown} is not in service: {why}");
            return Err((RouteReason::NoMatchingParent, message));
        }
        let allows = |allowed: AllowedNamespaces| match allowed {
            AllowedNamespaces::Same => gateway.namespace == self.namespace,
            AllowedNamespaces::All => true,
        };
        let allowed: Vec<_> =
            served.iter().filter(|(_, spec)| allows(spec.allowed_namespaces)).collect();
        if allowed.is_empty() {
            let message = format!(
                "{shown} takes routes of its own namespace only; move the route, or set the \
                 listener's allowedRoutes.namespaces.from to All"
            );
            return Err((RouteReason::NotAllowedByListeners, message));
        }
        let fitting: Vec<_> = allowed
            .iter()
            .filter(|(_, spec)| fits(spec.hostname.as_ref(), &self.hostnames))
            .map(|(index, _)| *index)
            .collect();
        if fitting.is_empty() {
            let message = format!("no hostname of the route fits a listener of {shown}");
            return Err((RouteReason::NoMatchingListenerHostname, message));
        }
        Ok(fitting)
    }

    /// Why a route that listeners would take is not in service.
    fn refusal(&self) -> Option<(RouteReason, String)> {
        let taken = |d: &&Diagnostic| d.code == ROUTE_CONFLICT && d.field == "spec.parentRefs";
        if let Some(taken) = self.found.compile.iter().copied().find(|d| taken(d)) {
            return Some((RouteReason::NotAllowedByListeners, condition::of_compile([taken])));
        }
        if self.is_read {
            return None;
        }
        // Of a backend's kind speaks ResolvedRefs.
        let mut errors = self.errors().filter(|d| !is_backend_kind(d)).peekable();
        errors.peek()?;
        Some((RouteReason::UnsupportedValue, condition::message(errors)))
    }

    fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.found.reading.iter().copied().filter(|d| d.severity == Severity::Error)
    }

    fn conditions(&self, refusal: Option<(RouteReason, String)>) -> Vec<Condition> {
        let condition = |kind: RouteCondition, holds, reason: RouteReason, message: String| {
            Condition::new(kind.as_str(), holds, reason.as_str(), message)
        };
        let is_accepted = refusal.is_none();
        let mut conditions = vec![
            match refusal {
                Some((reason, message)) => {
                    condition(RouteCondition::Accepted, false, reason, message)
                }
                None => condition(
                    RouteCondition::Accepted,
                    true,
                    RouteReason::Accepted,
                    "a listener takes it".into(),
                ),
            },
            match self.unresolved() {
                Some((reason, message)) => {
                    condition(RouteCondition::ResolvedRefs, false, reason, message)
                }
                None => condition(
                    RouteCondition::ResolvedRefs,
                    true,
                    RouteReason::ResolvedRefs,
                    "every backend is there".into(),
                ),
            },
        ];
        if is_accepted && let Some(dropped) = self.dropped_rules() {
            let message = format!("{DROPPED_RULE}: {dropped}");
            let (kind, reason) = (RouteCondition::PartiallyInvalid, RouteReason::UnsupportedValue);
            conditions.push(condition(kind, true, reason, message));
        }
        conditions
    }

    fn dropped_rules(&self) -> Option<String> {
        let of_rule = |d: &&Diagnostic| d.field.starts_with("spec.rules[") && !is_backend_kind(d);
        let left_out: Vec<_> = self.errors().filter(of_rule).collect();
        let taken = self.found.compile.iter().copied().filter(|d| d.code == ROUTE_CONFLICT);
        let taken: Vec<_> = taken.filter(of_rule).collect();
        let texts = [condition::message(left_out), condition::of_compile(taken)];
        let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        (!texts.is_empty()).then(|| texts.join(". "))
    }

    fn unresolved(&self) -> Option<(RouteReason, String)> {
        let reason = |d: &Diagnostic| {
            let of_backend = d.field.contains(".backendRefs[");
            match d.code {
                _ if is_backend_kind(d) => Some(RouteReason::InvalidKind),
                REF_NOT_PERMITTED => Some(RouteReason::RefNotPermitted),
                PORT_NOT_FOUND if of_backend && d.message.ends_with("is not HTTP") => {
                    Some(RouteReason::UnsupportedProtocol)
                }
                PORT_NOT_FOUND | SERVICE_NOT_FOUND if of_backend => {
                    Some(RouteReason::BackendNotFound)
                }
                _ => None,
            }
        };
        if let Some(first) = self.errors().find_map(reason) {
            let same = self.errors().filter(|d| reason(d) == Some(first));
            return Some((first, condition::message(same)));
        }
        let compile = || self.found.compile.iter().copied();
        let first = compile().find_map(reason)?;
        let same = compile().filter(|d| reason(d) == Some(first));
        Some((first, condition::of_compile(same)))
    }
}

fn is_backend_kind(diagnostic: &Diagnostic) -> bool {
    let field = &diagnostic.field;
    field.contains(".backendRefs[") && field.ends_with("].kind")
}

/// Whether a listener's hostname and a route's have anything in common.
fn fits(listener: Option<&Hostname>, route: &[Hostname]) -> bool {
    let Some(listener) = listener else { return true };
    let overlap = |host: &Hostname| match (listener, host) {
        (listener, Hostname::Exact(name)) => listener.matches(name),
        (Hostname::Exact(name), host) => host.matches(name),
        (Hostname::Wildcard(a), Hostname::Wildcard(b)) => {
            a == b || listener.matches(b) || host.matches(a)
        }
    };
    route.is_empty() || route.iter().any(overlap)
}

/// Entries of other controllers stay where they are, and so do ours that were there before: a list
/// that each controller puts into an order of its own would never rest.
fn merged(old: &[Value], mut ours: Vec<Value>) -> Vec<Value> {
    let mut entries = Vec::new();
    for entry in old {
        if entry["controllerName"] != CONTROLLER_NAME {
            entries.push(entry.clone());
        } else if let Some(at) = ours.iter().position(|new| new["parentRef"] == entry["parentRef"])
        {
            entries.push(ours.remove(at));
        }
    }
    entries.extend(ours);
    entries
}
