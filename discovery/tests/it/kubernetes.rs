//! The Kubernetes provider against an API server in memory: what it asks, and how it goes on after
//! everything that can happen to a watch. The clock is the runtime's, and stands still while
//! somebody works.

mod api_server;

use std::sync::Arc;
use std::time::Duration;

use discovery::Catalog;
use discovery::kubernetes::{
    KubernetesProvider, KubernetesProviderConfig, Phase, ProviderState, WatchedKind,
};
use k8s_openapi::api::core::v1::Service;
use model::{Resource, ResourceKey, ResourceKind, ServiceName};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use api_server::{ApiServer, Mood};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const NODES: &str = "/api/v1/nodes";
const NAMESPACES: &str = "/api/v1/namespaces";
const EXPORTS: &str = "/apis/multicluster.x-k8s.io/v1beta1/serviceexports";
const EXPORTS_ALPHA: &str = "/apis/multicluster.x-k8s.io/v1alpha1/serviceexports";
/// What every API server has.
const CORE: &[&str] = &[SERVICES, SLICES, NODES, NAMESPACES];
/// Within this time a change that was missed is in the catalog.
const RESYNC: Duration = Duration::from_secs(5);

fn service(name: &str, port: u16) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": [{"port": port}], "clusterIP": "10.96.0.1"}
    })
}

fn server_with_services(count: usize) -> ApiServer {
    let server = ApiServer::new(CORE);
    for number in 0..count {
        server.put(SERVICES, service(&format!("x{number}"), 80));
    }
    server
}

async fn start(server: &ApiServer) -> KubernetesProvider {
    let config = KubernetesProviderConfig::new("fedgate-system");
    KubernetesProvider::start(server.client(), config).await.unwrap()
}

/// Waits for a catalog; not for ever.
async fn wait_for(provider: &KubernetesProvider, there: impl Fn(&Catalog) -> bool) -> Arc<Catalog> {
    let mut catalogs = provider.subscribe();
    let found = timeout(Duration::from_secs(60), catalogs.wait_for(|catalog| there(catalog))).await;
    found.expect("such a catalog comes within a minute").unwrap().clone()
}

async fn wait_for_state(provider: &KubernetesProvider, there: impl Fn(&ProviderState) -> bool) {
    let mut states = provider.state();
    let found =
        timeout(Duration::from_secs(60), states.wait_for(|state| there(state))).await.is_ok();
    let now = provider.state().borrow().clone();
    assert!(found, "such a state comes within a minute: {now:#?}");
}

fn phase_of(state: &ProviderState, kind: WatchedKind) -> Phase {
    state.kind(kind).unwrap().phase
}

fn has(catalog: &Catalog, name: &str) -> bool {
    catalog.resources.get(&key(ResourceKind::Service, name)).is_some()
}

fn key(kind: ResourceKind, name: &str) -> ResourceKey {
    let service = ServiceName::parse(&format!("shop/{name}")).unwrap();
    ResourceKey { kind, namespace: Some(service.namespace), name: service.name }
}

#[tokio::test(start_paused = true)]
async fn the_first_catalog_has_all_pages_of_all_kinds() {
    let server = server_with_services(600);
    let provider = start(&server).await;
    let catalog = provider.subscribe().borrow().clone();
    assert_eq!((catalog.resources.len(), catalog.sequence), (600, 1));
    assert_eq!(catalog.diagnostics, []);
    let state = provider.state().borrow().clone();
    assert_eq!(phase_of(&state, WatchedKind::Service), Phase::Synced);
    assert_eq!(phase_of(&state, WatchedKind::HttpRoute), Phase::Absent);
    assert_eq!(state.kind(WatchedKind::GatewayPod), None, "there is no selector for them");
    assert_eq!(server.lists(SERVICES), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_reaches_the_catalog_and_the_cache() {
    let server = server_with_services(20);
    let provider = start(&server).await;
    let begun = Instant::now();
    server.put(SERVICES, service("new", 80));
    let catalog = wait_for(&provider, |catalog| has(catalog, "new")).await;
    assert!(begun.elapsed() <= Duration::from_millis(50), "{:?}", begun.elapsed());
    assert_eq!(catalog.resources.len(), 21);
    let object = provider.objects().get(&key(ResourceKind::Service, "new")).unwrap();
    assert_eq!((object.uid.as_str(), object.resource_version.as_str()), ("uid-new", "22"));
    let service = provider.cache().service("shop", "new").unwrap();
    assert_eq!(service.spec.unwrap().cluster_ip.as_deref(), Some("10.96.0.1"));
    server.delete(SERVICES, "new");
    wait_for(&provider, |catalog| !has(catalog, "new")).await;
    assert_eq!(provider.cache().service("shop", "new"), None);
    assert_eq!(server.lists(SERVICES), 1, "all that came by the watch");
}

#[tokio::test(start_paused = true)]
async fn what_fedgate_made_itself_is_in_the_cache_alone() {
    let server = server_with_services(1);
    let provider = start(&server).await;
    let mut changes = provider.cache().changes();
    changes.mark_unchanged();
    let mut ours = service("imported-api", 80);
    ours["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "fedgate"});
    server.put(SERVICES, ours);
    timeout(RESYNC, changes.changed()).await.unwrap().unwrap();
    let managed: Vec<Service> = provider.cache().list_managed(WatchedKind::Service);
    assert_eq!(managed[0].metadata.name.as_deref(), Some("imported-api"));
    assert_eq!(provider.subscribe().borrow().sequence, 1, "the catalog did not change");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_installed_later_is_watched_from_then_on() {
    let server = server_with_services(1);
    let provider = start(&server).await;
    assert!(provider.cache().is_known(WatchedKind::ServiceExport));
    assert_eq!(provider.cache().api_resource(WatchedKind::ServiceExport), None);
    server.install(EXPORTS_ALPHA);
    server.put(EXPORTS_ALPHA, json!({"metadata": {"name": "x0", "namespace": "shop"}}));
    let export = key(ResourceKind::ServiceExport, "x0");
    wait_for(&provider, |catalog| catalog.resources.get(&export).is_some()).await;
    let resource = provider.cache().api_resource(WatchedKind::ServiceExport).unwrap();
    assert_eq!(resource.api_version, "multicluster.x-k8s.io/v1alpha1");
}

/// kube warns of every list of a kind that is not there.
#[tokio::test(start_paused = true)]
async fn absent_kinds_are_looked_for_by_discovery_alone_and_not_too_often() {
    let server = server_with_services(1);
    let _provider = start(&server).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(server.asked(EXPORTS), 0);
    let asked = server.asked("/apis/multicluster.x-k8s.io/v1beta1");
    assert!((1000..=2 * 3600 / 5 + 10).contains(&asked), "two kinds every 5 s: {asked}");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_vanishes_is_followed_by_the_next_and_a_definition_may_come_back() {
    let server = ApiServer::new(&[CORE, &[EXPORTS, EXPORTS_ALPHA]].concat());
    for path in [EXPORTS, EXPORTS_ALPHA] {
        server.put(path, json!({"metadata": {"name": "x0", "namespace": "shop"}}));
    }
    let provider = start(&server).await;
    let version = |provider: &KubernetesProvider| {
        provider.cache().api_resource(WatchedKind::ServiceExport).map(|served| served.version)
    };
    let synced_at = async |wanted: Option<&str>| {
        wait_for_state(&provider, |state| {
            let phase = if wanted.is_some() { Phase::Synced } else { Phase::Absent };
            let kind = state.kind(WatchedKind::ServiceExport).unwrap();
            kind.phase == phase && kind.version == wanted
        })
        .await;
    };
    assert_eq!(version(&provider).as_deref(), Some("v1beta1"));
    server.uninstall(EXPORTS);
    synced_at(Some("v1alpha1")).await;
    assert_eq!(version(&provider).as_deref(), Some("v1alpha1"));
    server.put(EXPORTS_ALPHA, json!({"metadata": {"name": "later", "namespace": "shop"}}));
    let later = key(ResourceKind::ServiceExport, "later");
    wait_for(&provider, |catalog| catalog.resources.get(&later).is_some()).await;
    server.uninstall(EXPORTS_ALPHA);
    synced_at(None).await;
    server.install(EXPORTS);
    server.put(EXPORTS, json!({"metadata": {"name": "again", "namespace": "shop"}}));
    synced_at(Some("v1beta1")).await;
    let again = key(ResourceKind::ServiceExport, "again");
    let catalog = wait_for(&provider, |catalog| catalog.resources.get(&again).is_some()).await;
    assert!(catalog.resources.get(&later).is_none(), "it went with its definition");
}

#[tokio::test(start_paused = true)]
async fn of_two_versions_the_newer_is_watched() {
    let server = ApiServer::new(&[CORE, &[EXPORTS, EXPORTS_ALPHA]].concat());
    let provider = start(&server).await;
    let resource = provider.cache().api_resource(WatchedKind::ServiceExport).unwrap();
    assert_eq!(resource.version, "v1beta1");
    assert_eq!(server.open_watches(EXPORTS_ALPHA), 0);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let server = server_with_services(20);
    let provider = start(&server).await;
    server.end_watches();
    server.put(SERVICES, service("missed", 80));
    let begun = Instant::now();
    wait_for(&provider, |catalog| has(catalog, "missed")).await;
    assert!(begun.elapsed() <= RESYNC, "{:?}", begun.elapsed());
    assert_eq!(server.lists(SERVICES), 1, "nothing was listed again");
}

#[tokio::test(start_paused = true)]
async fn after_410_everything_is_listed_and_the_difference_taken() {
    let server = server_with_services(20);
    let provider = start(&server).await;
    server.end_watches();
    server.delete(SERVICES, "x3");
    server.put(SERVICES, service("missed", 80));
    server.compact();
    let begun = Instant::now();
    let catalog = wait_for(&provider, |catalog| has(catalog, "missed")).await;
    assert!(begun.elapsed() <= RESYNC, "{:?}", begun.elapsed());
    let without = |catalog: &Catalog| !has(catalog, "x3");
    assert!(wait_for(&provider, without).await.resources.len() == 20, "{catalog:?}");
    assert_eq!(server.lists(SERVICES), 2);
    server.put(SERVICES, service("later", 80));
    wait_for(&provider, |catalog| has(catalog, "later")).await;
}

/// 10,000 objects anew. The second list costs no second copy of what is known: what is the same is
/// not even read.
#[tokio::test(start_paused = true)]
async fn a_large_list_anew_takes_nothing_away_and_little_memory() {
    let server = server_with_services(10_000);
    let provider = start(&server).await;
    let mut catalogs = provider.subscribe();
    let first = catalogs.borrow_and_update().clone();
    let least = tokio::spawn(async move {
        let mut least = usize::MAX;
        while catalogs.changed().await.is_ok() {
            least = least.min(catalogs.borrow_and_update().resources.len());
        }
        least
    });
    let before = resident_kib();
    server.end_watches();
    server.put(SERVICES, service("missed", 80));
    server.compact();
    let last = wait_for(&provider, |catalog| has(catalog, "missed")).await;
    let after = resident_kib();
    assert_eq!((server.lists(SERVICES), last.resources.len()), (2, 10_001));
    assert!(after * 2 <= before * 3, "resident: {before} KiB, then {after} KiB");
    for (key, resource) in first.resources.iter() {
        let now = last.resources.get(key).unwrap();
        assert!(Arc::ptr_eq(now, resource), "{key} was read again");
    }
    drop((provider, first, last));
    assert_eq!(least.await.unwrap(), 10_001);
}

fn slice(number: u16, port: u16) -> Value {
    json!({
        "metadata": {
            "name": format!("x{number}"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": format!("x{number}")},
        },
        "addressType": "IPv4",
        "ports": [{"port": port}],
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    })
}

fn port_of(catalog: &Catalog, number: u16) -> Option<u16> {
    let found = catalog.resources.get(&key(ResourceKind::EndpointSlice, &format!("x{number}")))?;
    let Resource::EndpointSlice(slice) = &**found else { return None };
    Some(slice.ports[0].port)
}

/// The clock counts only waiting, so that this is about what is put off, not about the machine.
#[tokio::test(start_paused = true)]
async fn of_a_thousand_changes_of_endpoints_a_second_none_is_lost_or_put_off() {
    const COUNT: u16 = 250;
    const CHANGES: u16 = 10_000;
    let server = server_with_services(1);
    for number in 0..COUNT {
        server.put(SLICES, slice(number, 80));
    }
    let provider = start(&server).await;
    let mut catalogs = provider.subscribe();
    let before = catalogs.borrow_and_update().sequence;
    let longest_pause = tokio::spawn(async move {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while catalogs.changed().await.is_ok() {
            let now = Instant::now();
            (last, longest) = (now, longest.max(now - last));
        }
        longest
    });
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for change in 0..CHANGES {
        if change % 10 == 0 {
            ticks.tick().await;
        }
        server.put(SLICES, slice(change % COUNT, 10_000 + change));
    }
    let written = Instant::now();
    let last = |number| Some(10_000 + CHANGES - COUNT + number);
    let is_whole =
        |catalog: &Catalog| (0..COUNT).all(|number| port_of(catalog, number) == last(number));
    let catalog = wait_for(&provider, is_whole).await;
    let published = catalog.sequence - before;
    assert!(written.elapsed() <= Duration::from_millis(300), "{:?}", written.elapsed());
    assert!(published <= u64::from(CHANGES) / 5, "{published} catalogs");
    assert_eq!(server.lists(SLICES), 1, "all came by the watch");
    drop((provider, catalog));
    let pause = longest_pause.await.unwrap();
    assert!(pause <= Duration::from_millis(300), "no catalog for {pause:?}");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_and_what_was_missed_is_there_soon_after_it() {
    for (mood, compacted) in [(Mood::Down, false), (Mood::Down, true), (Mood::Silent, false)] {
        let server = server_with_services(20);
        let provider = start(&server).await;
        server.set_mood(mood);
        wait_for_state(&provider, |state| state.away.is_some()).await;
        let state = provider.state().borrow().clone();
        assert_eq!(phase_of(&state, WatchedKind::Service), Phase::Stale, "{mood:?}");
        let catalog = wait_for(&provider, |catalog| !catalog.diagnostics.is_empty()).await;
        assert_eq!(catalog.resources.len(), 20, "the last good stays");
        assert_eq!(catalog.diagnostics[0].code, model::code::API_SERVER_UNREACHABLE);
        tokio::time::sleep(Duration::from_secs(3600)).await; // the clock moves by itself
        assert_eq!(provider.subscribe().borrow().resources.len(), 20);

        server.put(SERVICES, service("missed", 80));
        if compacted {
            server.compact();
        }
        server.set_mood(Mood::Well);
        let begun = Instant::now();
        wait_for(&provider, |catalog| has(catalog, "missed")).await;
        assert!(begun.elapsed() <= RESYNC, "{mood:?} {:?}", begun.elapsed());
        wait_for_state(&provider, |state| {
            let mut phases = state.kinds.iter().map(|kind| kind.phase);
            phases.all(|phase| matches!(phase, Phase::Synced | Phase::Absent))
        })
        .await;
        wait_for(&provider, |catalog| catalog.diagnostics.is_empty()).await;
        assert!(begun.elapsed() <= RESYNC, "{mood:?} {:?}", begun.elapsed());
        assert_eq!(server.open_watches(SERVICES), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_comes_back_empty_takes_nothing_away_at_once() {
    let server = server_with_services(3);
    let provider = start(&server).await;
    server.set_mood(Mood::Down);
    wait_for_state(&provider, |state| state.away.is_some()).await;
    for number in 0..3 {
        server.delete(SERVICES, &format!("x{number}"));
    }
    server.compact();
    server.set_mood(Mood::Well);
    let held = |catalog: &Catalog| {
        catalog.diagnostics.iter().any(|found| found.code == model::code::MASS_DELETE_HELD)
    };
    let begun = Instant::now();
    assert_eq!(wait_for(&provider, held).await.resources.len(), 3);
    assert_eq!(provider.cache().objects(WatchedKind::Service).len(), 0, "the cache shows it");
    wait_for(&provider, |catalog| catalog.resources.is_empty()).await;
    assert!(begun.elapsed() >= Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_start_goes_on_and_the_catalog_comes_later() {
    for mood in [Mood::Slow, Mood::Down, Mood::Silent] {
        let server = server_with_services(2);
        server.set_mood(mood);
        let provider = start(&server).await;
        assert!(
            !provider.subscribe().borrow().is_known(),
            "nothing is known, which is not nothing"
        );
        let missing = provider.state().borrow().missing();
        assert!(missing.contains(&WatchedKind::Service), "{mood:?} {missing:?}");
        server.set_mood(Mood::Well);
        assert_eq!(wait_for(&provider, Catalog::is_known).await.resources.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_forbidden_stops_no_other() {
    let server = server_with_services(2);
    server.forbid(NODES, true);
    let provider = start(&server).await;
    let catalog = wait_for(&provider, Catalog::is_known).await;
    assert_eq!(catalog.resources.len(), 2);
    let said: Vec<String> = catalog.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "error FED1103 kubernetes/Node: the API server does not show them: forbidden: User cannot \
          list (HTTP 403); allow get, list and watch to the federation node's ServiceAccount"
        ]
    );
    server.forbid(NODES, false);
    wait_for(&provider, |catalog| catalog.diagnostics.is_empty()).await;
    server.put(NODES, json!({
        "metadata": {"name": "a", "labels": {"topology.kubernetes.io/zone": "z1"}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "a"}],
            "conditions": [{"type": "Ready", "status": "True"}]
        }
    }));
    let mut changes = provider.cache().changes();
    timeout(RESYNC, changes.wait_for(|_| !provider.cache().nodes().is_empty()))
        .await
        .unwrap()
        .unwrap();
    let node = provider.cache().nodes().remove(0);
    assert_eq!((node.zone.as_deref(), node.ready), (Some("z1"), true));
    assert_eq!(node.internal_ips, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_dropped_asks_nothing_more() {
    let server = server_with_services(1);
    let provider = start(&server).await;
    assert_eq!(server.open_watches(SERVICES), 1);
    drop(provider);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(server.open_watches(SERVICES), 0);
}
