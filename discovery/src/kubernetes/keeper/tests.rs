//! Sequences of events as API servers send them, and what is in service after each.

use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::json;

use super::*;

const WINDOW: Duration = Duration::from_secs(30);
const AT_ONCE: Duration = Duration::ZERO;
const A_SECOND: Duration = Duration::from_secs(1);

const SERVICE: WatchedKind = WatchedKind::Service;
const CLASS: WatchedKind = WatchedKind::GatewayClass;
const GATEWAY: WatchedKind = WatchedKind::Gateway;
const EXPORT: WatchedKind = WatchedKind::ServiceExport;
const ROUTE: WatchedKind = WatchedKind::HttpRoute;

/// A keeper, its store and its clock.
struct Bench {
    keeper: Keeper,
    store: Store,
    now: Instant,
}

impl Bench {
    fn new(watched: &[WatchedKind]) -> Self {
        let now = Instant::now();
        Self { keeper: Keeper::new(watched, WINDOW, now), store: Store::default(), now }
    }

    /// One with so many Services, all seen.
    fn with_services(count: usize) -> Self {
        let mut bench = Self::new(&[SERVICE]);
        bench.list(AT_ONCE, SERVICE, services(0..count));
        bench
    }

    fn hear(&mut self, kind: WatchedKind, event: Event) {
        self.keeper.apply(&mut self.store, kind, event, self.now);
    }

    /// Time passes; then `resources codes`, and whether that was published.
    fn settle(&mut self, after: Duration) -> String {
        self.now += after;
        let published = self.keeper.settle(&mut self.store, self.now);
        let mut shape = self.keeper.resources.len().to_string();
        let kinds = self.keeper.kind_findings.iter();
        let objects = self.keeper.kinds.iter().flat_map(|kept| kept.findings.values().flatten());
        for found in kinds.chain(objects) {
            shape += &format!(" {}", found.code);
        }
        match published {
            Some(catalog) => {
                assert_eq!(catalog.resources, self.keeper.resources);
                shape
            }
            None => shape + " (same)",
        }
    }

    fn event(&mut self, after: Duration, kind: WatchedKind, event: Event) -> String {
        self.now += after;
        self.hear(kind, event);
        self.settle(AT_ONCE)
    }

    fn list(&mut self, after: Duration, kind: WatchedKind, objects: Vec<Change>) -> String {
        self.now += after;
        self.hear(kind, Event::Listing(kind.versions()[0]));
        self.hear(kind, Event::Objects(objects));
        self.event(AT_ONCE, kind, Event::Listed)
    }

    fn phase(&self, kind: WatchedKind) -> Phase {
        self.keeper.state(&self.store).kind(kind).unwrap().phase
    }

    fn objects(&self, kind: WatchedKind) -> usize {
        self.store.kind(kind).objects.len()
    }
}

fn parsed(kind: WatchedKind, object: Value) -> Change {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let api_version: Arc<str> = kind.api_resource(kind.versions()[0]).api_version.into();
    let received = object::receive(kind, &api_version, object).unwrap();
    Change::Applied(Box::new(received.parse("fedgate-system")))
}

fn service_with(number: usize, version: u64, port: u64) -> Change {
    let metadata = json!({
        "name": format!("x{number}"), "namespace": "shop", "uid": number.to_string(),
        "resourceVersion": version.to_string()
    });
    parsed(SERVICE, json!({"metadata": metadata, "spec": {"ports": [{"port": port}]}}))
}

fn service(number: usize) -> Change {
    service_with(number, 1, 80)
}

fn services(range: std::ops::Range<usize>) -> Vec<Change> {
    range.map(service).collect()
}

fn deleted(number: usize) -> Change {
    Change::Deleted(ObjectKey::new(Some("shop"), &format!("x{number}")))
}

fn deletes(range: std::ops::Range<usize>) -> Event {
    Event::Objects(range.map(deleted).collect())
}

fn class(name: &str, controller: &str) -> Change {
    let metadata = json!({"name": name, "uid": name, "resourceVersion": "1"});
    parsed(CLASS, json!({"metadata": metadata, "spec": {"controllerName": controller}}))
}

fn gateway(name: &str, class: &str) -> Change {
    let metadata = json!({"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1"});
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    let spec = json!({"gatewayClassName": class, "listeners": listeners});
    parsed(GATEWAY, json!({"metadata": metadata, "spec": spec}))
}

#[test]
fn nothing_is_published_before_every_kind_was_seen() {
    let mut bench = Bench::new(&[SERVICE, CLASS, GATEWAY]);
    assert_eq!(bench.settle(AT_ONCE), "0 (same)");
    assert_eq!(bench.list(AT_ONCE, SERVICE, services(0..3)), "3 (same)");
    assert_eq!(bench.event(AT_ONCE, GATEWAY, Event::Absent), "3 (same)");
    assert_eq!(bench.keeper.state(&bench.store).missing(), [CLASS]);
    assert_eq!(bench.event(AT_ONCE, CLASS, Event::Listing("v1")), "3 (same)");
    assert_eq!(bench.event(AT_ONCE, CLASS, Event::Listed), "3");
    assert_eq!(bench.settle(AT_ONCE), "3 (same)");
    assert_eq!(bench.keeper.sequence, 1);
    assert!(bench.keeper.state(&bench.store).complete);
}

#[test]
fn a_change_is_in_service_at_once_and_a_duplicate_changes_nothing() {
    let mut bench = Bench::with_services(20);
    let mut change = |number, version, port| {
        bench.event(AT_ONCE, SERVICE, Event::Objects(vec![service_with(number, version, port)]))
    };
    assert_eq!(change(3, 2, 81), "20");
    assert_eq!(change(3, 2, 81), "20 (same)", "the same event twice");
    assert_eq!(change(3, 3, 81), "20 (same)", "a new version of the same intent");
    assert_eq!(change(20, 4, 80), "21");
    assert_eq!(bench.event(AT_ONCE, SERVICE, deletes(20..21)), "20");
    assert_eq!(bench.event(AT_ONCE, SERVICE, deletes(20..21)), "20 (same)", "deleted twice");
    assert_eq!(bench.event(AT_ONCE, SERVICE, deletes(70..90)), "20 (same)", "never known");
}

#[test]
fn a_bad_object_is_dropped_alone_and_comes_back() {
    let mut bench = Bench::with_services(3);
    let mut change = |version, port| {
        bench.event(AT_ONCE, SERVICE, Event::Objects(vec![service_with(1, version, port)]))
    };
    assert_eq!(change(2, 99_999), "2 FED4001");
    assert_eq!(change(3, 99_999), "2 FED4001 (same)");
    assert_eq!(change(4, 80), "3");
    assert_eq!(bench.event(AT_ONCE, SERVICE, deletes(1..2)), "2");
}

#[test]
fn one_of_our_own_kinds_keeps_what_it_said_before_it_was_wrong() {
    const POLICY: WatchedKind = WatchedKind::AccessPolicy;
    let policy = |version: u64, caller: &str| {
        let version = version.to_string();
        let metadata =
            json!({"name": "api", "namespace": "shop", "uid": "api", "resourceVersion": version});
        let target =
            json!({"group": "multicluster.x-k8s.io", "kind": "ServiceExport", "name": "api"});
        let spec = json!({"targetRefs": [target], "allow": [{"spiffeId": caller}]});
        parsed(POLICY, json!({"metadata": metadata, "spec": spec}))
    };
    let (good, other) = ("spiffe://east.example/ns/a/sa/b", "spiffe://east.example/ns/a/sa/c");
    let wrong = "spiffe://east.example/ns/..";
    let mut bench = Bench::new(&[POLICY]);
    assert_eq!(bench.list(AT_ONCE, POLICY, vec![policy(1, wrong)]), "0 FED4001");
    let mut hear = |change| bench.event(AT_ONCE, POLICY, Event::Objects(vec![change]));
    assert_eq!(hear(policy(2, good)), "1");
    assert_eq!(hear(policy(3, wrong)), "1 FED4001");
    assert_eq!(hear(policy(4, other)), "1");
    assert_eq!(hear(policy(5, wrong)), "1 FED4001");
    let key = ObjectKey::new(Some("shop"), "api");
    let served = format!("{:?}", bench.keeper.resources.iter().next());
    assert!(served.contains("/sa/c") && !served.contains("/sa/b"), "the last good one: {served}");
    assert_eq!(bench.event(AT_ONCE, POLICY, Event::Objects(vec![Change::Deleted(key)])), "0");
}

#[test]
fn after_410_the_difference_to_the_new_list_is_taken() {
    let mut bench = Bench::with_services(20);
    bench.hear(SERVICE, Event::Listing("v1"));
    assert_eq!(bench.phase(SERVICE), Phase::Stale);
    let mut page: Vec<Change> = (2..15).map(same).collect();
    page.push(service_with(1, 9, 81));
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Objects(page)), "20", "nothing vanishes yet");
    let rest = services(20..22);
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Objects(rest)), "22");
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Listed), "16");
    assert_eq!(bench.phase(SERVICE), Phase::Synced);
    assert_eq!(bench.objects(SERVICE), 16);
}

fn same(number: usize) -> Change {
    Change::Same(ObjectKey::new(Some("shop"), &format!("x{number}")))
}

#[test]
fn a_list_that_broke_off_removes_nothing() {
    let mut bench = Bench::with_services(20);
    bench.hear(SERVICE, Event::Listing("v1"));
    bench.hear(SERVICE, Event::Objects((0..2).map(same).collect()));
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Failed("cut".into())), "20 (same)");
    let all = (0..20).map(same).collect();
    assert_eq!(bench.list(A_SECOND, SERVICE, all), "20 (same)", "the first part counts no more");
}

#[test]
fn a_list_that_lacks_most_is_held_and_the_cache_shows_it_at_once() {
    let mut bench = Bench::with_services(20);
    assert_eq!(bench.list(AT_ONCE, SERVICE, services(0..9)), "20 FED4009");
    assert_eq!(bench.objects(SERVICE), 9);
    assert_eq!(bench.keeper.wake_at(&bench.store), Some(bench.now + WINDOW));
    let more = Event::Objects(services(40..41));
    assert_eq!(bench.event(A_SECOND, SERVICE, more), "21 FED4009");
    assert_eq!(bench.event(A_SECOND, SERVICE, Event::Objects(services(9..11))), "12");
    bench.list(Duration::from_secs(60), SERVICE, services(0..20));
    assert_eq!(bench.list(AT_ONCE, SERVICE, services(0..9)), "20 FED4009");
    assert_eq!(bench.settle(WINDOW - A_SECOND), "20 FED4009 (same)");
    assert_eq!(bench.settle(A_SECOND), "9");
    assert_eq!(bench.keeper.wake_at(&bench.store), None);
}

#[test]
fn an_empty_list_after_an_error_is_held_however_few_objects_there_were() {
    let mut bench = Bench::with_services(2);
    assert_eq!(bench.list(AT_ONCE, SERVICE, vec![]), "0", "without an error they may go");
    bench.list(AT_ONCE, SERVICE, services(0..2));
    bench.event(AT_ONCE, SERVICE, Event::Failed("refused".into()));
    assert_eq!(bench.list(AT_ONCE, SERVICE, vec![]), "2 FED4009");
    assert_eq!(bench.list(A_SECOND, SERVICE, services(0..2)), "2");
    assert_eq!(bench.list(AT_ONCE, SERVICE, vec![]), "0", "the error is long over");
}

#[test]
fn single_deletes_in_a_burst_count_together() {
    let mut bench = Bench::with_services(20);
    for number in 0..10 {
        let left = (19 - number).to_string();
        assert_eq!(bench.event(AT_ONCE, SERVICE, deletes(number..number + 1)), left);
    }
    assert_eq!(bench.event(AT_ONCE, SERVICE, deletes(10..11)), "10 FED4009");
    assert_eq!(bench.event(A_SECOND, SERVICE, deletes(11..20)), "10 FED4009");
    assert_eq!(bench.settle(WINDOW), "0");
    // Slowly, they may all go.
    let mut bench = Bench::with_services(20);
    for number in 0..20 {
        let left = (19 - number).to_string();
        assert_eq!(bench.event(A_SECOND * 2, SERVICE, deletes(number..number + 1)), left);
    }
}

#[test]
fn an_api_server_that_is_away_removes_nothing_ever() {
    let mut bench = Bench::with_services(20);
    bench.event(AT_ONCE, SERVICE, deletes(0..15));
    bench.keeper.reach(Some("refused".into()), bench.now);
    assert_eq!(bench.settle(AT_ONCE), "20 FED1102 FED4009");
    assert_eq!(bench.settle(WINDOW * 10), "20 FED1102 FED4009 (same)", "nobody could see");
    assert_eq!(bench.phase(SERVICE), Phase::Stale);
    bench.keeper.reach(None, bench.now);
    assert_eq!(bench.settle(AT_ONCE), "20 FED1102 FED4009", "of the kind, not yet seen again");
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Resumed), "20 FED4009");
    assert_eq!(bench.settle(WINDOW - A_SECOND), "20 FED4009 (same)", "the window began anew");
    assert_eq!(bench.settle(A_SECOND), "5");
}

#[test]
fn a_watch_that_goes_on_soon_is_no_finding() {
    let mut bench = Bench::with_services(2);
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Failed("cut".into())), "2 (same)");
    assert_eq!(bench.phase(SERVICE), Phase::Stale);
    assert_eq!(bench.event(A_SECOND, SERVICE, Event::Resumed), "2 (same)");
    bench.event(AT_ONCE, SERVICE, Event::Failed("cut".into()));
    let told_at = bench.keeper.wake_at(&bench.store).unwrap();
    assert_eq!(bench.settle(told_at - bench.now), "2 FED1102");
    assert_eq!(bench.keeper.wake_at(&bench.store), None, "nothing to wake up for");
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Resumed), "2");
}

#[test]
fn a_kind_that_vanishes_is_held_and_comes_back_without_a_word() {
    let mut bench = Bench::with_services(3);
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Absent), "3 FED4009");
    assert_eq!(bench.event(A_SECOND * 5, SERVICE, Event::Absent), "3 FED4009 (same)");
    assert_eq!(bench.list(A_SECOND, SERVICE, services(0..3)), "3");
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Absent), "3 FED4009");
    assert_eq!(bench.event(A_SECOND * 29, SERVICE, Event::Absent), "3 FED4009 (same)");
    assert_eq!(bench.event(A_SECOND, SERVICE, Event::Absent), "0", "it is gone for good");
}

#[test]
fn a_kind_that_is_refused_from_the_start_is_waited_for_a_while() {
    let mut bench = Bench::new(&[SERVICE, GATEWAY]);
    bench.list(AT_ONCE, SERVICE, services(0..1));
    let refused = || Event::Refused("forbidden".into());
    assert_eq!(bench.event(AT_ONCE, GATEWAY, refused()), "1 (same)");
    let wake_at = bench.keeper.wake_at(&bench.store).unwrap();
    assert_eq!(bench.event(A_SECOND, GATEWAY, refused()), "1 (same)");
    assert_eq!(bench.settle(wake_at - bench.now), "1 FED1103");
    assert_eq!(bench.keeper.wake_at(&bench.store), None);
    // Later, what was seen stays.
    let mut bench = Bench::with_services(2);
    assert_eq!(bench.event(AT_ONCE, SERVICE, refused()), "2 FED1103");
    assert_eq!(bench.settle(WINDOW * 10), "2 FED1103 (same)");
}

#[test]
fn gateways_are_read_again_when_their_class_changes() {
    let mut bench = Bench::new(&[CLASS, GATEWAY]);
    bench.list(AT_ONCE, GATEWAY, vec![gateway("a", "fedgate"), gateway("b", "edge")]);
    let ours = api::kubernetes::CONTROLLER_NAME;
    assert_eq!(bench.list(AT_ONCE, CLASS, vec![]), "0", "no class is ours");
    let classes = |changes| Event::Objects(changes);
    assert_eq!(bench.event(AT_ONCE, CLASS, classes(vec![class("fedgate", ours)])), "1");
    assert_eq!(bench.event(AT_ONCE, CLASS, classes(vec![class("edge", ours)])), "2");
    assert_eq!(bench.event(AT_ONCE, CLASS, classes(vec![class("edge", "example.com/x")])), "1");
    let gone = Change::Deleted(ObjectKey::new(None, "fedgate"));
    assert_eq!(bench.event(AT_ONCE, CLASS, classes(vec![gone])), "0");
    assert_eq!(bench.objects(GATEWAY), 2, "the cache has them all");
}

#[test]
fn objects_beyond_a_limit_are_left_out_and_it_is_said() {
    let mut bench = Bench::with_services(1);
    let huge = || {
        let metadata = json!({
            "name": "huge", "namespace": "shop", "uid": "u", "resourceVersion": "1",
            "annotations": {"x": "x".repeat(limits::OBJECT_BYTES_MAX)}
        });
        parsed(SERVICE, json!({"metadata": metadata, "spec": {"ports": [{"port": 80}]}}))
    };
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Objects(vec![huge()])), "1 FED4013");
    assert!(bench.store.kind(SERVICE).incomplete);
    assert_eq!(bench.keeper.state(&bench.store).kind(SERVICE).unwrap().left_out, 1);
    let gone = Change::Deleted(ObjectKey::new(Some("shop"), "huge"));
    assert_eq!(bench.event(AT_ONCE, SERVICE, Event::Objects(vec![gone])), "1");
    assert_eq!(bench.list(AT_ONCE, SERVICE, vec![service(0), huge()]), "1 FED4013");
    assert_eq!(bench.list(AT_ONCE, SERVICE, vec![service(0)]), "1");
    assert!(!bench.store.kind(SERVICE).incomplete);
}

#[test]
fn of_too_many_findings_the_number_is_told() {
    let mut bench = Bench::new(&[SERVICE]);
    let count = limits::KUBERNETES_FINDINGS_MAX + 5;
    let bad = (0..count).map(|number| service_with(number, 1, 99_999)).collect();
    bench.hear(SERVICE, Event::Listing("v1"));
    bench.hear(SERVICE, Event::Objects(bad));
    bench.hear(SERVICE, Event::Listed);
    let catalog = bench.keeper.settle(&mut bench.store, bench.now).unwrap();
    assert_eq!(catalog.diagnostics.len(), limits::KUBERNETES_FINDINGS_MAX + 1);
    let more = catalog.diagnostics.iter().find(|found| found.object == "kubernetes").unwrap();
    assert_eq!(more.message, "5 more findings are not listed");
}

/// As CoreDNS has one, and as somebody's database elsewhere is.
#[test]
fn what_is_not_served_of_a_service_matters_once_it_is_exported_or_routed_to() {
    let mut bench = Bench::new(&[SERVICE, EXPORT, ROUTE]);
    let object = |name: &str, spec: Value| {
        let metadata =
            json!({"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1"});
        json!({"metadata": metadata, "spec": spec})
    };
    let ports =
        json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "metrics", "port": 9153}]);
    let dns = json!({ "ports": ports });
    let elsewhere = json!({"type": "ExternalName", "externalName": "db.example"});
    let services = vec![
        parsed(SERVICE, object("dns", dns)),
        parsed(SERVICE, object("db", elsewhere)),
        parsed(SERVICE, object("wrong", json!({"ports": [{"port": 99_999}]}))),
    ];
    let mut published = |kind: WatchedKind, objects: Vec<Change>| {
        bench.hear(kind, Event::Listing(kind.versions()[0]));
        bench.hear(kind, Event::Objects(objects));
        bench.hear(kind, Event::Listed);
        let catalog = bench.keeper.settle(&mut bench.store, bench.now)?;
        let told = catalog.diagnostics.iter();
        let told = told.filter(|found| found.object.starts_with("Service/"));
        let mut told: Vec<_> =
            told.map(|found| format!("{} {}", found.code, found.object)).collect();
        told.sort();
        Some(told)
    };
    assert_eq!(published(SERVICE, services), None);
    assert_eq!(published(EXPORT, vec![]), None);
    let wrong = "FED4001 Service/shop/wrong".to_string();
    assert_eq!(published(ROUTE, vec![]).unwrap(), std::slice::from_ref(&wrong));
    let export = parsed(EXPORT, object("dns", json!({})));
    let of_dns = "FED4002 Service/shop/dns".to_string();
    assert_eq!(published(EXPORT, vec![export]).unwrap(), [wrong.clone(), of_dns.clone()]);
    let rules = json!([{"backendRefs": [{"name": "db", "port": 5432}]}]);
    let route = json!({"parentRefs": [{"name": "edge"}], "rules": rules});
    let found = published(ROUTE, vec![parsed(ROUTE, object("db", route))]).unwrap();
    assert_eq!(found, [wrong, "FED4002 Service/shop/db".to_string(), of_dns]);
}
