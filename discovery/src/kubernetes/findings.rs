//! What is said of whole kinds: those that cannot be seen, that are held, that are too many; and
//! which findings about objects are worth telling.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use model::code::{self, Code};
use model::{Diagnostic, Resource, ResourceSet, ServiceName, Severity};

use super::keeper::KindKeeper;
use super::state::Phase;
use crate::limits;

/// In a stable order, and with nothing in it that changes with time alone.
pub(super) fn of_kinds(
    kinds: &[KindKeeper],
    away: Option<&str>,
    confirm_window: Duration,
    now: Instant,
) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    findings.extend(away.map(of_away));
    for kept in kinds {
        let seen = match kept.phase {
            Phase::Refused => Some(of_refused(kept)),
            Phase::Stale if away.is_none() && told_at(kept).is_none_or(|at| now >= at) => {
                kept.last_error.as_deref().map(|error| of_stale(kept, error))
            }
            _ => None,
        };
        findings.extend(seen);
        findings.extend(kept.holding.then(|| of_hold(kept, confirm_window)));
        findings.extend((!kept.left_out.is_empty()).then(|| of_left_out(kept)));
    }
    findings
}

/// When it is said that a kind cannot be seen: a connection that is taken up anew is no news.
pub(super) fn told_at(kept: &KindKeeper) -> Option<Instant> {
    let at = kept.since + Duration::from_millis(limits::STALE_TOLD_MS);
    kept.last_error.is_some().then_some(at)
}

/// So many more objects have findings.
pub(super) fn more(count: usize) -> Diagnostic {
    let message = format!("{count} more findings are not listed");
    warning(code::OBJECTS_LEFT_OUT, "kubernetes".into(), message, "mend those that are listed")
}

fn of_away(reason: &str) -> Diagnostic {
    let message = format!(
        "the Kubernetes API server does not answer: {reason}; what it said last is in service"
    );
    let fix = "see why it is away; what changed is taken up when it is back";
    warning(code::API_SERVER_UNREACHABLE, "kubernetes".into(), message, fix)
}

fn of_stale(kept: &KindKeeper, error: &str) -> Diagnostic {
    let message = format!("they cannot be watched: {error}; what was seen last is in service");
    let fix = "see what the API server says of this kind; it is tried again all the time";
    warning(code::API_SERVER_UNREACHABLE, name(kept), message, fix)
}

fn of_refused(kept: &KindKeeper) -> Diagnostic {
    let error = kept.last_error.as_deref().unwrap_or("forbidden");
    let message = format!("the API server does not show them: {error}");
    let fix = "allow get, list and watch to the federation node's ServiceAccount";
    let mut found = warning(code::API_SERVER_FORBIDDEN, name(kept), message, fix);
    found.severity = Severity::Error;
    found
}

fn of_hold(kept: &KindKeeper, window: Duration) -> Diagnostic {
    let message = format!(
        "{} of {} objects vanished at once; they stay in service for {} s",
        kept.vanished.len(),
        kept.in_service.len(),
        window.as_secs_f64()
    );
    let fix = "bring the objects back; if the removal is meant, wait";
    warning(code::MASS_DELETE_HELD, name(kept), message, fix)
}

fn of_left_out(kept: &KindKeeper) -> Diagnostic {
    let message = format!(
        "{} objects or more are left out, the first is {}; a kind has at most {} objects, an object \
         at most {} bytes, and all together {}",
        kept.left_out.len(),
        kept.left_out.first().map(ToString::to_string).unwrap_or_default(),
        limits::OBJECTS_PER_KIND_MAX,
        limits::OBJECT_BYTES_MAX,
        limits::OBJECTS_BYTES_MAX,
    );
    let fix = "remove what is not needed; the others come in within some minutes";
    let mut found = warning(code::OBJECTS_LEFT_OUT, name(kept), message, fix);
    found.severity = Severity::Error;
    found
}

fn name(kept: &KindKeeper) -> String {
    format!("kubernetes/{}", kept.kind.as_str())
}

fn warning(code: Code, object: String, message: String, fix: &str) -> Diagnostic {
    let field = String::new();
    Diagnostic { severity: Severity::Warning, code, object, field, message, fix: fix.into() }
}

/// Of others' Services only those matter that are exported or that a route leads to: a cluster is full
/// of UDP ports and ExternalNames that are none of ours. Findings of values that are wrong stay.
pub(super) struct Told {
    /// `Service/namespace/name`; `None` while there is nothing to choose from.
    services: Option<BTreeSet<String>>,
}

pub(super) fn told(resources: &ResourceSet, kinds: &[KindKeeper]) -> Told {
    let mut findings = kinds.iter().flat_map(|kept| kept.findings.values().flatten());
    if !findings.any(is_of_service) {
        return Told { services: None };
    }
    let mut services = BTreeSet::new();
    let mut add = |name: &ServiceName| services.insert(format!("{SERVICE}{name}"));
    for resource in resources.values() {
        match resource {
            Resource::ServiceExport(export) => _ = add(&export.name),
            Resource::HttpRoute(route) => {
                route.rules.iter().for_each(|rule| _ = add(&rule.backend.service));
            }
            Resource::TcpRoute(route) => _ = add(&route.backend.service),
            _ => {}
        }
    }
    Told { services: Some(services) }
}

impl Told {
    pub(super) fn has(&self, found: &Diagnostic) -> bool {
        !is_of_service(found)
            || self.services.as_ref().is_none_or(|services| services.contains(&found.object))
    }
}

const SERVICE: &str = "Service/";

fn is_of_service(found: &Diagnostic) -> bool {
    found.code == code::FIELD_NOT_SERVED && found.object.starts_with(SERVICE)
}
