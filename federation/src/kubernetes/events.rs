//! Events (`events.k8s.io/v1`) about findings that begin or end on an object, for `kubectl describe`.
//!
//! They are told at most once and never kept: what lasts is in the object's status.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api::kubernetes::FIELD_MANAGER;
use discovery::kubernetes::{Cache, ObjectRef, WatchedKind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use model::{Diagnostic, Revision};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::calls::{Failure, in_time};
use super::{Cluster, changed, without_place};
use crate::intake::Findings;
use crate::limits::{EVENT_NOTE_BYTES_MAX, EVENTS_AT_ONCE_MAX, EVENTS_INTERVAL, KUBERNETES_SETTLE};

const CONTROLLER: &str = "fedgate.dev/federation";
/// Where Events about cluster-wide objects are looked for.
const CLUSTER_WIDE: &str = "default";
/// Hexadecimal digits in an Event's name.
const HASH_BYTES: usize = 8;

/// Tells Events while this node is the one that writes, until it stops.
pub(super) async fn run(cluster: Cluster) {
    let (mut findings, mut leader) = (cluster.around.findings.clone(), cluster.leader.clone());
    let stop = cluster.around.stop.clone();
    let mut journal = Journal::default();
    let mut allowance = Allowance::new(Instant::now());
    let telling = async {
        loop {
            let (newest, leads) =
                (findings.borrow_and_update().clone(), *leader.borrow_and_update());
            let is_first = journal.is_new();
            // Before anything was compiled there are findings of nothing.
            let is_compiled = newest.snapshot.revision != Revision::default();
            let news = match leads {
                true if is_compiled => journal.take(&newest),
                true => Vec::new(),
                false => journal.forget(),
            };
            tell(&cluster, news, is_first, &mut allowance).await;
            tokio::select! {
                () = changed(&mut findings) => {}
                () = changed(&mut leader) => {}
            }
            // Changes come in swarms, and what comes and goes within one is no news.
            tokio::time::sleep(KUBERNETES_SETTLE).await;
        }
    };
    stop.run_until_cancelled(telling).await;
}

async fn tell(cluster: &Cluster, news: Vec<News>, is_first: bool, allowance: &mut Allowance) {
    let (mut failure, mut left_out) = (None, 0);
    for news in news {
        let Some(object) = regarded(&cluster.cache, &news.finding.object) else { continue };
        // Most of these are no business of Fedgate's; an export or route that needs one says so.
        if matches!(object.kind, WatchedKind::Service | WatchedKind::EndpointSlice) {
            continue;
        }
        if !allowance.take(Instant::now()) {
            left_out += 1;
            continue;
        }
        let event = event(&news, &object, is_first, &cluster.identity, Timestamp::now());
        let namespace = object.namespace().unwrap_or(CLUSTER_WIDE);
        let api: Api<Event> = Api::namespaced(cluster.client.clone(), namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        match in_time(api.create(&params, &event)).await {
            Ok(Ok(_)) => {}
            // Told before this node began, or its namespace is being deleted.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {}
            Ok(Err(error)) => failure = Some(Failure::of(&error)),
            Err(silence) => {
                failure = Some(silence);
                break;
            }
        }
    }
    if left_out > 0 {
        tracing::info!(left_out, "more findings began or ended than Events are made for");
    }
    cluster.health.note("events", "Event", failure);
}

/// The object that a finding is about, if the API server has it.
fn regarded(cache: &Cache, key: &str) -> Option<Arc<ObjectRef>> {
    let (kind, rest) = key.split_once('/')?;
    let kind = WatchedKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    let (namespace, name) = match rest.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, rest),
    };
    cache.object(kind, namespace, name)
}

/// A finding that begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct News {
    begins: bool,
    finding: Diagnostic,
}

/// What is known to be wrong.
#[derive(Debug, Default)]
struct Journal {
    /// By object, code and field. `None` before anything was looked at.
    known: Option<BTreeMap<(String, u16, String), Diagnostic>>,
}

impl Journal {
    fn is_new(&self) -> bool {
        self.known.is_none()
    }

    /// Another node tells from now on.
    fn forget(&mut self) -> Vec<News> {
        self.known = None;
        Vec::new()
    }

    /// What began and what ended since the last time. Another message of the same finding is none.
    fn take(&mut self, findings: &Findings) -> Vec<News> {
        let Findings { discovery, federation, revisions, compile, .. } = findings;
        let all = [discovery, federation, revisions, compile].into_iter().flatten();
        let key = |d: &Diagnostic| (d.object.clone(), d.code.number(), d.field.clone());
        let now: BTreeMap<_, _> = all.map(|finding| (key(finding), finding.clone())).collect();
        let before = self.known.replace(now.clone()).unwrap_or_default();
        let ended = before.iter().filter(|(key, _)| !now.contains_key(*key));
        let ended = ended.map(|(_, finding)| News { begins: false, finding: finding.clone() });
        let begun = now.iter().filter(|(key, _)| !before.contains_key(*key));
        let begun = begun.map(|(_, finding)| News { begins: true, finding: finding.clone() });
        ended.chain(begun).collect()
    }
}

/// `is_first`: the finding was there when this node began to tell, and may have been told by another
/// one. Then the name follows from the finding alone, so that the API server refuses a second one.
fn event(news: &News, object: &ObjectRef, is_first: bool, instance: &str, now: Timestamp) -> Event {
    let Diagnostic { code, field, message, fix, .. } = &news.finding;
    let moment = if is_first { String::new() } else { now.to_string() };
    let told = format!("{}\n{code}\n{field}\n{}\n{moment}", object.uid, news.begins);
    let mut name = format!("{}.", object.name());
    for byte in &Sha256::digest(told.as_bytes())[..HASH_BYTES] {
        write!(name, "{byte:02x}").expect("writing to a String does not fail");
    }
    let message = without_place(message);
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    let note = match news.begins {
        true => format!("{code} {field}{message}; {fix}"),
        false => format!("{code} no longer: {field}{message}"),
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(object.namespace().unwrap_or(CLUSTER_WIDE).into()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(instance.into()),
        action: Some(if news.begins { "Found" } else { "Mended" }.into()),
        reason: Some(code.entry().name.into()),
        type_: Some(if news.begins { "Warning" } else { "Normal" }.into()),
        note: Some(cut(note, EVENT_NOTE_BYTES_MAX)),
        regarding: Some(ObjectReference {
            api_version: Some(object.api_version.to_string()),
            kind: Some(object.kind.as_str().into()),
            namespace: object.namespace().map(str::to_string),
            name: Some(object.name().into()),
            uid: Some(object.uid.clone()),
            resource_version: Some(object.resource_version.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
    text
}

/// How many Events may be made: some at once, and one more in each interval.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: EVENTS_AT_ONCE_MAX, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let intervals = (now - self.since).as_nanos() / EVENTS_INTERVAL.as_nanos();
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        self.since += EVENTS_INTERVAL.saturating_mul(intervals).min(Duration::MAX);
        self.left = self.left.saturating_add(intervals).min(EVENTS_AT_ONCE_MAX);
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use discovery::kubernetes::ObjectKey;
    use model::Severity;
    use model::code::{PORT_NOT_FOUND, SERVICE_NOT_FOUND};

    use super::*;

    fn finding(object: &str, code: model::code::Code, message: &str) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code,
            object: object.into(),
            field: "metadata.name".into(),
            message: message.into(),
            fix: "mend it".into(),
        }
    }

    fn findings(compile: &[Diagnostic]) -> Findings {
        Findings { compile: compile.to_vec(), ..Findings::default() }
    }

    #[test]
    fn what_begins_and_what_ends_is_news_once() {
        let a = finding("ServiceExport/shop/a", SERVICE_NOT_FOUND, "there is no Service");
        let b = finding("HTTPRoute/shop/b", PORT_NOT_FOUND, "no port 80");
        let mut journal = Journal::default();
        let news = journal.take(&findings(&[a.clone(), b.clone()]));
        assert_eq!(news.iter().map(|n| n.begins).collect::<Vec<_>>(), [true, true]);
        assert_eq!(journal.take(&findings(&[a.clone(), b.clone()])), []);
        let worded = Diagnostic { message: "no port 81".into(), ..b.clone() };
        assert_eq!(journal.take(&findings(&[a.clone(), worded.clone()])), []);
        let ended = News { begins: false, finding: worded };
        assert_eq!(journal.take(&findings(std::slice::from_ref(&a))), [ended]);
        assert_eq!(journal.forget(), []);
        assert!(journal.is_new(), "the next holder of the Lease tells what there is");
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_bounded_in_their_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let taken =
            |allowance: &mut Allowance, now| (0..1000).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance, start), EVENTS_AT_ONCE_MAX as usize);
        assert_eq!(taken(&mut allowance, start + EVENTS_INTERVAL * 3), 3);
        let later = start + EVENTS_INTERVAL * 100_000;
        assert_eq!(taken(&mut allowance, later), EVENTS_AT_ONCE_MAX as usize);
    }

    #[test]
    fn an_event_says_what_and_where_and_has_a_name_of_its_own() {
        let object = ObjectRef {
            kind: WatchedKind::ServiceExport,
            api_version: "multicluster.x-k8s.io/v1beta1".into(),
            key: ObjectKey::new(Some("shop"), "a"),
            uid: "u-1".into(),
            generation: None,
            resource_version: "7".into(),
            status_observed: None,
            deleting: false,
            managed: false,
        };
        let finding = finding("ServiceExport/shop/a", SERVICE_NOT_FOUND, "there is no Service");
        let news = News { begins: true, finding };
        let at = |second| Timestamp::from_second(second).unwrap();
        let told = event(&news, &object, false, "node-0", at(1));
        assert_eq!(told.reason.as_deref(), Some("ServiceNotFound"));
        assert_eq!(
            told.note.as_deref(),
            Some("FED4005 metadata.name: there is no Service; mend it")
        );
        assert_eq!(told.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(told.regarding.unwrap().uid.as_deref(), Some("u-1"));
        let name =
            |is_first, second| event(&news, &object, is_first, "n", at(second)).metadata.name;
        assert_ne!(name(false, 1), name(false, 2), "it may begin twice");
        assert_eq!(name(true, 1), name(true, 2), "after a restart it is the same one");
    }
}
