//! How the node gets on with the API server, for operators: findings beside those about objects.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::kubernetes::WRITER_LEASE;
use discovery::kubernetes::{Phase, ProviderState};
use model::code::{API_SERVER_FORBIDDEN, API_SERVER_UNREACHABLE, WRITER_LEASE_LOST};
use model::{Diagnostic, Severity};
use tokio::time::Instant;

use super::apply::Target;
use super::calls::Failure;
use crate::limits::{DIAGNOSTICS_MAX, LEASE_DURATION};

/// What goes wrong now, and since when.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By what was tried.
    troubles: BTreeMap<(&'static str, String), Trouble>,
    is_leader: bool,
    holder: Option<String>,
    /// Since when nobody holds the Lease.
    vacant: Option<Instant>,
}

#[derive(Debug)]
struct Trouble {
    failure: Failure,
    since: Instant,
}

/// What is tried in order to hold the Lease ...
const ELECTION: &str = "lease";
/// ... and in order to see the cluster.
const PROVIDER: &str = "provider";

impl Health {
    /// All that a writer failed to write in its last round; what is not there any more has ended.
    pub(super) fn failed(&self, writer: &'static str, failures: BTreeMap<Target, Failure>) {
        let failures = failures.into_iter().map(|(target, failure)| (target.to_string(), failure));
        self.replace(writer, failures.collect());
    }

    /// A writer failed to read its own objects.
    pub(super) fn failed_alone(&self, writer: &'static str, failure: Failure) {
        self.replace(writer, BTreeMap::from([("its own objects".to_string(), failure)]));
    }

    /// The outcome of a step of the election.
    pub(super) fn lease(&self, failure: Option<Failure>) {
        let failures = failure.map(|failure| (format!("Lease/{WRITER_LEASE}"), failure));
        self.replace(ELECTION, failures.into_iter().collect());
    }

    /// Something else that this part of the node says of itself; `None` ends it.
    pub(super) fn note(&self, part: &'static str, object: &str, failure: Option<Failure>) {
        let failures = failure.map(|failure| (object.to_string(), failure));
        self.replace(part, failures.into_iter().collect());
    }

    /// How the provider stands: the API server away as a whole, or one kind that cannot be seen.
    pub(super) fn provider(&self, state: &ProviderState) {
        let mut failures = BTreeMap::new();
        if let Some(reason) = &state.away {
            let problem = format!("it is away: {reason}; what it said last stays in service");
            let failure = Failure { code: API_SERVER_UNREACHABLE, problem };
            failures.insert("API server".to_string(), failure);
        }
        for kind in state.kinds.iter().filter(|kind| kind.phase == Phase::Refused) {
            let error = kind.last_error.as_deref().unwrap_or_default();
            let problem = format!("{} cannot be read: {error}", kind.kind.as_str());
            let failure = Failure { code: API_SERVER_FORBIDDEN, problem };
            failures.insert(kind.kind.as_str().to_string(), failure);
        }
        self.replace(PROVIDER, failures);
    }

    pub(super) fn leads(&self, is_leader: bool, holder: Option<String>) {
        let mut state = self.lock();
        state.vacant = match &holder {
            Some(_) => None,
            None => state.vacant.or_else(|| Some(Instant::now())),
        };
        (state.is_leader, state.holder) = (is_leader, holder);
    }

    /// Whether this node is the one that writes.
    pub(crate) fn is_leader(&self) -> bool {
        self.lock().is_leader
    }

    /// How much goes wrong now.
    pub(crate) fn troubles(&self) -> usize {
        self.lock().troubles.len()
    }

    /// Findings with their age.
    pub(crate) fn diagnostics(&self, now: Instant) -> Vec<Diagnostic> {
        let state = self.lock();
        let trouble = |((part, object), trouble): (&(&'static str, String), &Trouble)| Diagnostic {
            severity: Severity::Warning,
            code: trouble.failure.code,
            object: object.clone(),
            field: String::new(),
            message: format!(
                "{part}: {} (for {} s)",
                trouble.failure.problem,
                (now - trouble.since).as_secs()
            ),
            fix: trouble.failure.code.entry().fix.trim_end_matches('.').into(),
        };
        let mut diagnostics: Vec<_> = state.troubles.iter().map(trouble).collect();
        let vacant = state.vacant.map(|since| now - since).filter(|for_| *for_ >= LEASE_DURATION);
        if let Some(vacant) = vacant {
            diagnostics.push(Diagnostic {
                severity: Severity::Warning,
                code: WRITER_LEASE_LOST,
                object: format!("Lease/{WRITER_LEASE}"),
                field: "spec.holderIdentity".into(),
                message: format!("no node holds it (for {} s)", vacant.as_secs()),
                fix: WRITER_LEASE_LOST.entry().fix.trim_end_matches('.').into(),
            });
        }
        diagnostics.truncate(DIAGNOSTICS_MAX);
        diagnostics
    }

    /// Says what begins and what ends, once each.
    fn replace(&self, part: &'static str, failures: BTreeMap<String, Failure>) {
        let mut state = self.lock();
        let ended: Vec<_> = state
            .troubles
            .keys()
            .filter(|(whose, object)| *whose == part && !failures.contains_key(object))
            .cloned()
            .collect();
        for key in ended {
            tracing::info!(part, object = key.1, "this works again");
            state.troubles.remove(&key);
        }
        for (object, failure) in failures.into_iter().take(DIAGNOSTICS_MAX) {
            let key = (part, object);
            match state.troubles.get_mut(&key) {
                Some(known) if known.failure.code == failure.code => known.failure = failure,
                _ => {
                    let (code, problem) = (failure.code, &failure.problem);
                    tracing::warn!(part, object = key.1, %code, problem, "this does not work");
                    state.troubles.insert(key, Trouble { failure, since: Instant::now() });
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
