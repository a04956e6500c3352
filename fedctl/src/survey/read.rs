//! The survey's I/O: a dozen reads, none of which has to succeed but the first.

use std::future::Future;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass as StorageClassObject;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use kube::client::Body;
use serde::Deserialize;

use super::{
    ApiServer, GatewayApi, Group, Installed, LoadBalancers, Nodes, Provider, StorageClass, Survey,
    Version, provider_of,
};
use crate::error::CommandError;
use crate::kubernetes::{Access, COMPONENT_LABEL, Cluster, NAME_LABEL, NAMESPACE_DEFAULT};

/// Enough to see what a cluster is; one may have thousands of nodes.
const OBJECTS_MAX: u32 = 500;
const GATEWAY_CRD: &str = "gateways.gateway.networking.k8s.io";
const POD_SECURITY_LABEL: &str = "pod-security.kubernetes.io/enforce";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Looks at a cluster; fails only if its API server does not answer at all.
pub async fn read(
    cluster: &Cluster,
    namespace: Option<&str>,
    now: impl Fn() -> Timestamp,
) -> Result<Survey, CommandError> {
    let mut survey = Survey { context: cluster.name.clone(), ..Survey::default() };
    let (version, date) = version(cluster).await?;
    survey.version = version;
    survey.clock_ahead_seconds = date.map(|date| date.duration_since(now()).as_secs());
    survey.groups = served_groups(cluster).await?;
    let mut problems = Vec::new();
    survey.nodes = noted(&mut problems, nodes(cluster)).await;
    survey.storage = noted(&mut problems, storage(cluster)).await;
    survey.load_balancers = noted(&mut problems, load_balancers(cluster)).await;
    survey.gateway_api = match survey.serves("gateway.networking.k8s.io") {
        Some(_) => noted(&mut problems, gateway_api(cluster)).await.flatten(),
        None => None,
    };
    survey.api_server = noted(&mut problems, api_server(cluster)).await.unwrap_or_default();
    let usual = namespace.unwrap_or(NAMESPACE_DEFAULT);
    survey.pod_security = noted(&mut problems, pod_security(cluster, usual)).await;
    survey.installed = noted(&mut problems, installed(cluster, namespace)).await;
    survey.problems = problems;
    Ok(survey)
}

/// A question whose refusal is only noted.
async fn noted<T>(
    problems: &mut Vec<String>,
    question: impl Future<Output = Result<T, CommandError>>,
) -> Option<T> {
    match question.await {
        Ok(answer) => Some(answer),
        Err(error) => {
            problems.push(error.message);
            None
        }
    }
}

fn list<'a>(resource: &'static str, group: &'static str, namespace: Option<&'a str>) -> Access<'a> {
    Access { verb: "list", group, resource, namespace, name: None }
}

/// The version, and the time by the API server's clock.
async fn version(cluster: &Cluster) -> Result<(Option<Version>, Option<Timestamp>), CommandError> {
    let access =
        Access { verb: "get", group: "", resource: "/version", namespace: None, name: None };
    let request = http::Request::get("/version").body(Body::empty());
    let request = request.map_err(|error| CommandError::failed(error.to_string()))?;
    let response = cluster.ask(access, cluster.client.send(request)).await?;
    let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let info = cluster.ask(access, cluster.client.apiserver_version()).await?;
    let version = Version::of(&info.major, &info.minor, &info.git_version);
    Ok((version, date.map(|date| date.timestamp())))
}

/// What the API server serves besides Kubernetes' own.
pub async fn served_groups(cluster: &Cluster) -> Result<Vec<Group>, CommandError> {
    let access = Access { verb: "get", group: "", resource: "/apis", namespace: None, name: None };
    let list = cluster.ask(access, cluster.client.list_api_groups()).await?;
    let groups = list.groups.into_iter().map(|group| Group {
        versions: group.versions.into_iter().map(|version| version.version).collect(),
        name: group.name,
    });
    Ok(groups.collect())
}

async fn nodes(cluster: &Cluster) -> Result<Nodes, CommandError> {
    let api = Api::<Node>::all(cluster.client.clone());
    let some = ListParams::default().limit(OBJECTS_MAX);
    let found = api.list_metadata(&some);
    let count = cluster.ask(list("nodes", "", None), found).await?.items.len();
    // One node is enough to know the provider by, and all of one is not much.
    let first = ListParams::default().limit(1);
    let one = cluster.ask(list("nodes", "", None), api.list(&first)).await?;
    let provider = one.items.first().map_or(Provider::Other, |node| {
        let id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
        let labels = node.metadata.labels.clone().unwrap_or_default();
        provider_of(id.unwrap_or_default(), &|name| labels.contains_key(name))
    });
    Ok(Nodes { count, provider })
}

async fn storage(cluster: &Cluster) -> Result<Vec<StorageClass>, CommandError> {
    let api = Api::<StorageClassObject>::all(cluster.client.clone());
    let some = ListParams::default().limit(OBJECTS_MAX);
    let found = api.list_metadata(&some);
    let found = cluster.ask(list("storageclasses", "storage.k8s.io", None), found).await?;
    let classes = found.items.into_iter().map(|class| StorageClass {
        default: class
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.get(DEFAULT_CLASS).is_some_and(|value| value == "true")),
        name: class.metadata.name.unwrap_or_default(),
    });
    Ok(classes.collect())
}

async fn load_balancers(cluster: &Cluster) -> Result<LoadBalancers, CommandError> {
    let api = Api::<Service>::all(cluster.client.clone());
    let some = ListParams::default().limit(OBJECTS_MAX);
    let found = api.list(&some);
    let services = cluster.ask(list("services", "", None), found).await?.items;
    let mut found = LoadBalancers::default();
    for service in services {
        let kind = service.spec.and_then(|spec| spec.type_);
        if kind.as_deref() == Some("LoadBalancer") {
            let balancer = service.status.and_then(|status| status.load_balancer);
            let addresses = balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
            *(if addresses.is_empty() { &mut found.pending } else { &mut found.ready }) += 1;
        }
    }
    Ok(found)
}

async fn gateway_api(cluster: &Cluster) -> Result<Option<GatewayApi>, CommandError> {
    let api = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let access = Access {
        verb: "get",
        group: "apiextensions.k8s.io",
        resource: "customresourcedefinitions",
        namespace: None,
        name: Some(GATEWAY_CRD),
    };
    let found = cluster.ask_optional(access, api.get_metadata(GATEWAY_CRD)).await?;
    let annotations = found.and_then(|found| found.metadata.annotations).unwrap_or_default();
    let annotation = |name: &str| {
        annotations.get(&format!("gateway.networking.k8s.io/{name}")).cloned().unwrap_or_default()
    };
    let version = annotation("bundle-version");
    Ok((!version.is_empty()).then(|| GatewayApi { version, channel: annotation("channel") }))
}

async fn api_server(cluster: &Cluster) -> Result<ApiServer, CommandError> {
    let slices = Api::<EndpointSlice>::namespaced(cluster.client.clone(), "default");
    let of_it = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let access = list("endpointslices", "discovery.k8s.io", Some("default"));
    let slices = cluster.ask(access, slices.list(&of_it)).await?.items;
    let family = slices.first().map(|slice| slice.address_type.clone());
    let ports = slices.into_iter().flat_map(|slice| slice.ports.unwrap_or_default());
    let mut ports: Vec<u16> = ports.filter_map(|port| u16::try_from(port.port?).ok()).collect();
    ports.sort_unstable();
    ports.dedup();
    Ok(ApiServer { ports, family })
}

async fn pod_security(cluster: &Cluster, namespace: &str) -> Result<Option<String>, CommandError> {
    let api = Api::<Namespace>::all(cluster.client.clone());
    let access = Access {
        verb: "get",
        group: "",
        resource: "namespaces",
        namespace: None,
        name: Some(namespace),
    };
    let found = cluster.ask_optional(access, api.get_metadata(namespace)).await?;
    let mut labels = found.and_then(|found| found.metadata.labels).unwrap_or_default();
    Ok(labels.remove(POD_SECURITY_LABEL))
}

/// Of a node's configuration, what may never change.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    cluster: String,
    trust_domain: String,
}

async fn installed(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Option<Installed>, CommandError> {
    let namespace = namespace.unwrap_or(NAMESPACE_DEFAULT);
    let maps = Api::<ConfigMap>::namespaced(cluster.client.clone(), namespace);
    let labels = format!("{NAME_LABEL},{COMPONENT_LABEL}=federation");
    let access = list("configmaps", "", Some(namespace));
    let found = cluster.ask(access, maps.list(&ListParams::default().labels(&labels))).await?;
    Ok(found.items.into_iter().find_map(|map| {
        let text = map.data?.remove("config.yaml")?;
        let identity: Identity = serde_saphyr::from_str(&text).ok()?;
        let (cluster, trust_domain) = (identity.cluster, identity.trust_domain);
        Some(Installed { namespace: map.metadata.namespace?, cluster, trust_domain })
    }))
}
