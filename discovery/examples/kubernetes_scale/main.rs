//! Measures the Kubernetes provider against a real API server ($KUBECONFIG):
//!
//! ```text
//! kubernetes_scale fill     5,000 Services, and for each an EndpointSlice with 4 endpoints
//! kubernetes_scale measure  start, memory, and the time from a change to the catalog
//! kubernetes_scale outage   how soon what was missed is there after the API server was away:
//!                           stop and continue, or restart it, while this runs (60 s)
//! kubernetes_scale versions a definition that loses a version, goes and comes back
//! kubernetes_scale way      the real programs: their start, and from a change to the gateway
//! kubernetes_scale churn [RATE [SECONDS]]   the same, then while endpoints change all the time
//! kubernetes_scale clean    removes the namespace's objects
//! ```

mod cluster;
mod origin;
mod programs;
mod versions;
mod way;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use discovery::Catalog;
use discovery::kubernetes::{
    self, KubernetesProvider, KubernetesProviderConfig, Phase, ProviderState,
};
use futures_util::stream::{self, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use model::{Resource, ResourceKey, ResourceKind};
use serde_json::json;
use tokio::sync::watch;
use way::Way;

const NAMESPACE: &str = "scale";
const SERVICES: usize = 5000;
const ENDPOINTS_PER_SERVICE: usize = 4;
const CHANGES: usize = 300;
const WRITERS: usize = 32;

#[tokio::main]
async fn main() -> Result<()> {
    let client = Client::try_default().await.context("set KUBECONFIG")?;
    match std::env::args().nth(1).as_deref() {
        Some("fill") => fill(&client).await,
        Some("measure") => measure(&client).await,
        Some("outage") => outage(&client).await,
        Some("versions") => versions::run(&client).await,
        Some("way") => Way::start(&client).await?.measure().await,
        Some("churn") => {
            let way = Way::start(&client).await?;
            way.measure().await?;
            way.churn(argument(2, 1000)?, argument(3, 30)?).await
        }
        Some("clean") => clean(&client).await,
        _ => bail!("say fill, measure, outage, versions, way, churn or clean"),
    }
}

fn argument<T: std::str::FromStr>(index: usize, default: T) -> Result<T> {
    let Some(text) = std::env::args().nth(index) else { return Ok(default) };
    text.parse().ok().with_context(|| format!("{text:?} is no number"))
}

async fn fill(client: &Client) -> Result<()> {
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let begun = Instant::now();
    stream::iter((0..SERVICES).map(anyhow::Ok))
        .try_for_each_concurrent(WRITERS, |number| create(client, number))
        .await?;
    say(format!("filled in {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

async fn create(client: &Client, number: usize) -> Result<()> {
    let name = format!("svc-{number}");
    let service = json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}
    });
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let endpoint = |index: usize| {
        json!({
            "addresses": [format!("10.{}.{}.{index}", number / 250, number % 250)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-1", "zone": "zone-a",
            "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": format!("{name}-{index}")}
        })
    };
    let slice = json!({
        "metadata": {"name": format!("{name}-a"), "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": (1..=ENDPOINTS_PER_SERVICE).map(endpoint).collect::<Vec<_>>()
    });
    slices(client).create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
    Ok(())
}

async fn measure(client: &Client) -> Result<()> {
    let before = memory_kib(std::process::id())?;
    let begun = Instant::now();
    let provider = start().await?;
    let (took, after) = (begun.elapsed(), memory_kib(std::process::id())?);
    let mut catalogs = provider.subscribe();
    let objects = catalogs.borrow().resources.len();
    say(format!(
        "start: {:.2} s, {objects} objects; memory {} -> {} MiB",
        took.as_secs_f64(),
        before / 1024,
        after / 1024
    ));
    let mut times = Vec::new();
    for number in 0..CHANGES {
        times.push(change_and_wait(client, &mut catalogs, number).await?);
    }
    times.sort();
    say(format!(
        "one change after another, from the request's start to the catalog: p50 {:.1} ms, p99 {:.1} ms, \
         max {:.1} ms",
        millis(times[CHANGES / 2]),
        millis(times[CHANGES * 99 / 100]),
        millis(times[CHANGES - 1])
    ));
    burst(client, &mut catalogs).await?;
    say(format!("memory afterwards {} MiB", memory_kib(std::process::id())? / 1024));
    Ok(())
}

/// Many changes at once: how long the last one takes, and how many catalogs that makes.
async fn burst(client: &Client, catalogs: &mut watch::Receiver<Arc<Catalog>>) -> Result<()> {
    let count = 1000;
    let before = catalogs.borrow_and_update().sequence;
    let begun = Instant::now();
    stream::iter((0..count).map(anyhow::Ok))
        .try_for_each_concurrent(WRITERS, |number| change(client, number, 99))
        .await?;
    let written = begun.elapsed();
    wait_for(catalogs, |catalog| (0..count).all(|number| last_octet(catalog, number) == Some(99)))
        .await?;
    say(format!(
        "{count} changes at once: written in {:.0} ms, all in a catalog {:.0} ms later, {} catalogs",
        millis(written),
        millis(begun.elapsed() - written),
        catalogs.borrow().sequence - before
    ));
    Ok(())
}

async fn outage(client: &Client) -> Result<()> {
    let provider = start().await?;
    let (mut state, mut catalogs) = (provider.state(), provider.subscribe());
    say(format!(
        "ready: {} objects; now take the API server away",
        catalogs.borrow().resources.len()
    ));
    let minute = Duration::from_secs(60);
    tokio::time::timeout(minute, state.wait_for(|state| state.away.is_some())).await??;
    let told = state.borrow().away.clone().unwrap_or_default();
    say(format!("away: {told}; {} objects in service", catalogs.borrow().resources.len()));
    // Whoever comes first after the return changes something.
    let back = loop {
        let attempt = tokio::time::timeout(Duration::from_secs(2), change(client, 7, 77)).await;
        if let Ok(Ok(())) = attempt {
            break Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    wait_for(&mut catalogs, |catalog| last_octet(catalog, 7) == Some(77)).await?;
    say(format!("the change that was made first was there after {:.0} ms", millis(back.elapsed())));
    let synced = |state: &Arc<ProviderState>| {
        state.away.is_none() && state.kinds.iter().all(|kind| kind.phase != Phase::Stale)
    };
    tokio::time::timeout(minute, state.wait_for(synced)).await??;
    say(format!("every kind was synced again after {:.0} ms", millis(back.elapsed())));
    change(client, 7, 1).await
}

async fn clean(client: &Client) -> Result<()> {
    // Without its controller a namespace cannot be deleted, so only what is in it is.
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    for number in 0..SERVICES {
        services.delete(&format!("svc-{number}"), &DeleteParams::default()).await?;
        slices(client).delete(&format!("svc-{number}-a"), &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn start() -> Result<KubernetesProvider> {
    let mut config = KubernetesProviderConfig::new("fedgate-system");
    config.start_wait = Duration::from_secs(120);
    let provider =
        KubernetesProvider::start(kubernetes::client(kube::Config::infer().await?)?, config)
            .await?;
    let state = provider.state().borrow().clone();
    if !state.complete {
        bail!("not complete: {state:#?}");
    }
    Ok(provider)
}

async fn change_and_wait(
    client: &Client,
    catalogs: &mut watch::Receiver<Arc<Catalog>>,
    number: usize,
) -> Result<Duration> {
    let octet = if last_octet(&catalogs.borrow(), number) == Some(50) { 51 } else { 50 };
    let begun = Instant::now();
    change(client, number, octet).await?;
    wait_for(catalogs, |catalog| last_octet(catalog, number) == Some(octet)).await?;
    Ok(begun.elapsed())
}

/// Gives the last endpoint of a slice another address.
async fn change(client: &Client, number: usize, octet: u8) -> Result<()> {
    let address = format!("10.{}.{}.{octet}", number / 250, number % 250);
    let path = format!("/endpoints/{}/addresses/0", ENDPOINTS_PER_SERVICE - 1);
    let patch = json!([{"op": "replace", "path": path, "value": address}]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
    slices(client).patch(&format!("svc-{number}-a"), &PatchParams::default(), &patch).await?;
    Ok(())
}

fn last_octet(catalog: &Catalog, number: usize) -> Option<u8> {
    let key = ResourceKey {
        kind: ResourceKind::EndpointSlice,
        namespace: Some(model::Namespace::parse(NAMESPACE).ok()?),
        name: model::ObjectName::parse(&format!("svc-{number}-a")).ok()?,
    };
    let Resource::EndpointSlice(slice) = &**catalog.resources.get(&key)? else { return None };
    match slice.endpoints.last()?.addresses.first()? {
        std::net::IpAddr::V4(address) => Some(address.octets()[3]),
        std::net::IpAddr::V6(_) => None,
    }
}

async fn wait_for(
    catalogs: &mut watch::Receiver<Arc<Catalog>>,
    there: impl Fn(&Catalog) -> bool,
) -> Result<()> {
    let minute = Duration::from_secs(60);
    tokio::time::timeout(minute, catalogs.wait_for(|catalog| there(catalog))).await??;
    Ok(())
}

fn slices(client: &Client) -> Api<EndpointSlice> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn memory_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::print_stdout, reason = "what was measured is the program's output")]
fn say(line: String) {
    println!("{line}");
}
