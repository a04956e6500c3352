//! `testdata/gateway_api/*.in.yaml`: objects as the API server has them; `*.out.yaml`: what is
//! written about them. `UPDATE=1` rewrites.

use std::fs;
use std::path::Path;

use model::{ClusterName, ResourceSet, Revision};

use super::*;
use crate::config::FederationConfig;
use crate::kubernetes::golden;

const CONFIG: &str = "apiVersion: fedgate.dev/v1alpha1\nkind: FederationConfig\ncluster: east\n\
                      trustDomain: east.example\ndataDir: /data\n\
                      kubernetes: {namespace: fedgate-system, gatewayServiceType: LoadBalancer}\n";

fn config() -> KubernetesConfig {
    let config = FederationConfig::from_yaml(CONFIG, Path::new("/etc/f.yaml")).unwrap();
    config.kubernetes.unwrap()
}

fn now() -> Timestamp {
    "2026-03-01T10:00:00Z".parse().unwrap()
}

/// The objects of a cluster, taken up as the node would.
struct World {
    objects: Vec<Value>,
    facts: Facts,
}

impl World {
    fn read(text: &str) -> Self {
        let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        let of_kind = |kind: &str| -> Vec<Value> {
            objects.iter().filter(|object| object["kind"] == kind).cloned().collect()
        };
        let classes = GatewayClasses::of_objects(&of_kind("GatewayClass"));
        let (mut resources, mut diagnostics) = (ResourceSet::default(), Vec::new());
        let is_ours = |object: &&Value| {
            object.pointer("/metadata/labels/app.kubernetes.io~1managed-by").is_some()
        };
        for object in objects.iter().filter(|object| !is_ours(object)) {
            let manifest = api::parse_object_of("kubernetes", object, &classes);
            manifest.objects.into_iter().for_each(|object| resources.upsert(object.resource));
            diagnostics.extend(manifest.diagnostics);
        }
        let own = ClusterName::parse("east").unwrap();
        let (_, compile) = model::compile(&own, Revision::default(), &resources);
        let catalog = Catalog { resources, diagnostics, sequence: 1 };
        let findings = Findings { compile, ..Findings::default() };
        let routes = [WatchedKind::HttpRoute, WatchedKind::TcpRoute];
        let routes = routes
            .into_iter()
            .flat_map(|kind| of_kind(kind.as_str()).into_iter().map(move |object| (kind, object)));
        let facts = Facts {
            classes: of_kind("GatewayClass"),
            gateways: of_kind("Gateway"),
            routes: routes.collect(),
            ..Facts::new(Arc::new(catalog), &findings)
        };
        Self { objects, facts }
    }

    fn decide(&self) -> Decided<'_> {
        let service = |name: &str| {
            let mut services = self.objects.iter().filter(|object| object["kind"] == "Service");
            let found = services.find(|service| service["metadata"]["name"] == name)?;
            Some(serde_json::from_value(found.clone()).unwrap())
        };
        let there = |_: WatchedKind, object: &Value| object.get("status").cloned();
        decide(&self.facts, &config(), service, there, now())
    }

    fn written(&self) -> String {
        let Decided { statuses, services } = self.decide();
        let mut text = String::new();
        for (kind, object, status) in statuses {
            let name = name(object);
            text += &format!("---\n# status of {} {name}\n", kind.as_str());
            text += &serde_saphyr::to_string(&status).unwrap();
        }
        for service in services {
            text += "---\n";
            text += &serde_saphyr::to_string(&service.document("gateway-api")).unwrap();
        }
        text
    }
}

fn name(object: &Value) -> String {
    text(object, "/metadata/name").unwrap_or_default().to_string()
}

#[test]
fn statuses_and_services_are_written_as_recorded() {
    golden::check("gateway_api", |_, text| World::read(text).written());
}

/// What was written is what is wanted: the writer rests.
#[test]
fn a_status_that_was_written_is_not_written_again() {
    let folder = golden::folder("gateway_api");
    let world = World::read(&fs::read_to_string(folder.join("routes.in.yaml")).unwrap());
    let later = now() + jiff::SignedDuration::from_hours(1);
    let first = world.decide();
    let there = |_: WatchedKind, object: &Value| {
        let written = first.statuses.iter().find(|(_, other, _)| std::ptr::eq(*other, object));
        written.map(|(_, _, status)| status.clone())
    };
    let second = decide(&world.facts, &config(), |_| None, there, later);
    let statuses = |decided: &Decided<'_>| -> Vec<Value> {
        let routes = decided.statuses.iter().filter(|(kind, ..)| *kind != WatchedKind::Gateway);
        routes.map(|(_, _, status)| status.clone()).collect()
    };
    assert_eq!(statuses(&first), statuses(&second));
    assert!(statuses(&first).len() > 5);
}

#[test]
fn a_gateway_that_no_catalog_has_yet_changes_nothing() {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/gateway_api/routes.in.yaml"),
    );
    let mut world = World::read(&text.unwrap());
    let Decided { statuses, .. } = world.decide();
    let written: BTreeMap<_, _> =
        statuses.into_iter().map(|(kind, object, status)| ((kind, name(object)), status)).collect();
    for (kind, object) in &mut world.facts.routes {
        object["status"] = written.get(&(*kind, name(object))).cloned().unwrap_or_default();
    }
    let is_route = |key: &ResourceKey| key.kind != ResourceKind::Gateway;
    let resources = world.facts.catalog.resources.iter();
    let resources = resources.filter(|(key, _)| is_route(key)).map(|(_, r)| (**r).clone());
    world.facts.catalog =
        Arc::new(Catalog { resources: resources.collect(), ..Catalog::default() });
    world.facts.reading.retain(|object, _| !object.starts_with("Gateway/"));
    let Decided { statuses, services } = world.decide();
    assert!(services.is_empty() && statuses.iter().all(|(kind, ..)| *kind != WatchedKind::Gateway));
    for (_, object, status) in statuses.iter().filter(|(kind, ..)| *kind == WatchedKind::HttpRoute)
    {
        assert_eq!(status["parents"], object["status"]["parents"], "{}", name(object));
    }
}
