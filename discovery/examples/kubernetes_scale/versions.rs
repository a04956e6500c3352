//! A kind whose definition loses the version that is watched, goes, and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use discovery::kubernetes::{KubernetesProvider, Phase, ProviderState, WatchedKind};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{NAMESPACE, millis, say, start};

const KIND: WatchedKind = WatchedKind::ServiceExport;
const DEFINITION: &str = "serviceexports.multicluster.x-k8s.io";
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) async fn run(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = definitions.get(DEFINITION).await?;
    let [preferred, other] = KIND.versions() else { anyhow::bail!("the kind has two versions") };
    create(client, preferred, "first").await?;
    let provider = start().await?;
    reach(&provider, Some(preferred), 1, "at the start").await?;

    // Objects must be stored in a version that is still there.
    let index = definition.spec.versions.iter().position(|version| version.name == *preferred);
    let path = format!("/spec/versions/{}/served", index.context("no such version")?);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(
        json!([{"op": "replace", "path": path, "value": false}]),
    )?);
    definitions.patch(DEFINITION, &PatchParams::default(), &patch).await?;
    reach(&provider, Some(other), 1, "after its version was served no more").await?;
    create(client, other, "second").await?;
    reach(&provider, Some(other), 2, "and goes on").await?;

    definitions.delete(DEFINITION, &DeleteParams::default()).await?;
    reach(&provider, None, 0, "after its definition was deleted").await?;
    let mut fresh = CustomResourceDefinition { spec: definition.spec, ..Default::default() };
    fresh.metadata.name = Some(DEFINITION.into());
    fresh.metadata.annotations = Some(definition.metadata.annotations.unwrap_or_default());
    let begun = Instant::now();
    while definitions.create(&PostParams::default(), &fresh).await.is_err() {
        anyhow::ensure!(begun.elapsed() < LIMIT, "the definition cannot be made again");
        sleep(PAUSE).await;
    }
    let begun = Instant::now();
    while create(client, preferred, "third").await.is_err() {
        anyhow::ensure!(begun.elapsed() < LIMIT, "the definition is not served again");
        sleep(PAUSE).await;
    }
    reach(&provider, Some(preferred), 1, "after the definition came back").await
}

async fn create(client: &Client, version: &str, name: &str) -> Result<()> {
    let resource = KIND.api_resource(version);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let object = DynamicObject::new(name, &resource).data(json!({}));
    let created = api.create(&PostParams::default(), &object).await?;
    anyhow::ensure!(created.name_any() == name, "another object came back");
    Ok(())
}

async fn reach(
    provider: &KubernetesProvider,
    version: Option<&'static str>,
    objects: usize,
    when: &str,
) -> Result<()> {
    let phase = if version.is_some() { Phase::Synced } else { Phase::Absent };
    let is_there = |state: &Arc<ProviderState>| {
        state.kind(KIND).is_some_and(|kind| {
            (kind.phase, kind.version, kind.objects) == (phase, version, objects)
        })
    };
    let begun = Instant::now();
    let mut state = provider.state();
    let reached = timeout(LIMIT, state.wait_for(is_there)).await.is_ok();
    let now = provider.state().borrow().kind(KIND).cloned();
    anyhow::ensure!(reached, "{when}: {now:?}");
    say(format!(
        "{when}: {} in {} after {:.0} ms, {objects} objects",
        phase.as_str(),
        version.unwrap_or("no version"),
        millis(begun.elapsed())
    ));
    Ok(())
}
