//! After an installation: rows about Fedgate's objects in the cluster. Reading, then pure verdicts.

use api::kubernetes::WRITER_LEASE;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use model::code::{self, Code};

use super::Row;
use crate::error::CommandError;
use crate::kubernetes::{
    Access, COMPONENT_LABEL, Cluster, NAME_LABEL, NotReady, TRUST_CONFIG_MAP, not_ready, read_trust,
};

/// A pod that ended so often has a reason to.
const RESTARTS_MANY: i32 = 3;
/// Clocks of the holder and of this machine may differ a little.
const LEASE_TOLERANCE_SECONDS: i64 = 5;

/// What was read, or why not.
#[derive(Debug)]
pub struct InCluster {
    pub pods: Result<Vec<PodState>, CommandError>,
    pub lease: Result<Option<LeaseState>, CommandError>,
    /// The trust domain.
    pub trust: Result<String, CommandError>,
    pub service: Result<Option<ServiceState>, CommandError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodState {
    pub name: String,
    pub component: String,
    /// Why it is not ready.
    pub not_ready: Option<String>,
    pub restarts: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseState {
    pub holder: String,
    pub age_seconds: i64,
    pub duration_seconds: i64,
}

/// The Service in front of the gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceState {
    pub name: String,
    pub kind: String,
    pub addresses: Vec<String>,
    pub udp_port: Option<i32>,
    pub node_port: Option<i32>,
}

pub async fn read_in_cluster(cluster: &Cluster, namespace: &str, now: Timestamp) -> InCluster {
    InCluster {
        pods: pods(cluster, namespace).await,
        lease: lease(cluster, namespace, now).await,
        trust: read_trust(cluster, namespace).await.map(|trust| trust.domain().to_string()),
        service: service(cluster, namespace).await,
    }
}

fn list<'a>(resource: &'static str, namespace: &'a str) -> Access<'a> {
    Access { verb: "list", group: "", resource, namespace: Some(namespace), name: None }
}

async fn pods(cluster: &Cluster, namespace: &str) -> Result<Vec<PodState>, CommandError> {
    let api = Api::<Pod>::namespaced(cluster.client.clone(), namespace);
    let ours = ListParams::default().labels(NAME_LABEL);
    let pods = cluster.ask(list("pods", namespace), api.list(&ours)).await?.items;
    Ok(pods.iter().map(pod_state).collect())
}

fn pod_state(pod: &Pod) -> PodState {
    let labels = pod.metadata.labels.as_ref();
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    PodState {
        name: pod.metadata.name.clone().unwrap_or_default(),
        component: labels.and_then(|all| all.get(COMPONENT_LABEL)).cloned().unwrap_or_default(),
        not_ready: not_ready(pod).map(|NotReady { reason, .. }| reason),
        restarts: containers.into_iter().flatten().map(|each| each.restart_count).sum(),
    }
}

async fn lease(
    cluster: &Cluster,
    namespace: &str,
    now: Timestamp,
) -> Result<Option<LeaseState>, CommandError> {
    let api = Api::<Lease>::namespaced(cluster.client.clone(), namespace);
    let access = Access {
        verb: "get",
        group: "coordination.k8s.io",
        resource: "leases",
        namespace: Some(namespace),
        name: Some(WRITER_LEASE),
    };
    let lease = cluster.ask_optional(access, api.get(WRITER_LEASE)).await?;
    Ok(lease.and_then(|lease| lease.spec).and_then(|spec| {
        Some(LeaseState {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty())?,
            age_seconds: now.duration_since(spec.renew_time?.0).as_secs(),
            duration_seconds: spec.lease_duration_seconds?.into(),
        })
    }))
}

async fn service(cluster: &Cluster, namespace: &str) -> Result<Option<ServiceState>, CommandError> {
    let api = Api::<Service>::namespaced(cluster.client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("{NAME_LABEL},{COMPONENT_LABEL}=gateway"));
    let services = cluster.ask(list("services", namespace), api.list(&ours)).await?.items;
    Ok(services.iter().map(service_state).find(|service| service.udp_port.is_some()))
}

fn service_state(service: &Service) -> ServiceState {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let udp = ports.iter().find(|port| port.protocol.as_deref() == Some("UDP"));
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.clone()).unwrap_or_default();
    ServiceState {
        name: service.metadata.name.clone().unwrap_or_default(),
        kind: spec.type_.unwrap_or_else(|| "ClusterIP".into()),
        addresses: ingress.into_iter().filter_map(|one| one.hostname.or(one.ip)).collect(),
        udp_port: udp.map(|port| port.port),
        node_port: udp.and_then(|port| port.node_port),
    }
}

const PODS: &str = "pods";
const CONTROL: &str = "control";
const EXPOSURE: &str = "exposure";

pub fn installed_rows(found: &InCluster) -> Vec<Row> {
    let mut rows = match &found.pods {
        Ok(pods) => vec![federation(pods), gateways(pods), restarts(pods)],
        Err(error) => vec![unread(PODS, "pods", error)],
    };
    rows.push(match &found.lease {
        Ok(lease) => writer(lease.as_ref()),
        Err(error) => unread(CONTROL, "one node writes to the cluster", error),
    });
    rows.push(match &found.trust {
        Ok(domain) => {
            Row::pass(CONTROL, format!("ConfigMap {TRUST_CONFIG_MAP} has the bundle of {domain}"))
        }
        Err(error) => told(CONTROL, "the cluster's trust bundle cannot be had", error),
    });
    rows.push(match &found.service {
        Ok(service) => exposed(service.as_ref()),
        Err(error) => unread(EXPOSURE, "the gateways' Service", error),
    });
    rows
}

/// A question that the API server refused says nothing of what was asked about.
fn unread(category: &'static str, what: &str, error: &CommandError) -> Row {
    Row { code: error.code, fix: error.hint.clone(), ..Row::skip(category, what, &*error.message) }
}

fn told(category: &'static str, what: &str, error: &CommandError) -> Row {
    let code = error.code.unwrap_or(code::NOT_INSTALLED);
    let row = Row::fail(category, what, code).cause(&*error.message);
    Row { fix: error.hint.clone(), ..row }
}

fn of<'a>(pods: &'a [PodState], component: &str) -> Vec<&'a PodState> {
    pods.iter().filter(|pod| pod.component == component).collect()
}

fn federation(pods: &[PodState]) -> Row {
    match &*of(pods, "federation") {
        [] => Row::fail(PODS, "there is no federation pod", code::NOT_INSTALLED),
        pods => match pods.iter().find(|pod| pod.not_ready.is_none()) {
            Some(pod) => Row::pass(PODS, format!("{} is ready", pod.name)),
            None => unready("the federation node is not ready", pods, code::POD_NOT_READY),
        },
    }
}

fn unready(text: &str, pods: &[&PodState], code: Code) -> Row {
    let reasons: Vec<String> = pods
        .iter()
        .filter_map(|pod| Some(format!("{}: {}", pod.name, pod.not_ready.as_ref()?)))
        .collect();
    Row::fail(PODS, text, code).cause(reasons.join("; "))
}

fn gateways(pods: &[PodState]) -> Row {
    let gateways = of(pods, "gateway");
    let ready = gateways.iter().filter(|pod| pod.not_ready.is_none()).count();
    let text = format!("{ready} of {} gateways are ready", gateways.len());
    match (ready, gateways.len()) {
        (_, 0) => Row::fail(PODS, "there is no gateway pod", code::NOT_INSTALLED),
        (0, _) => unready(&text, &gateways, code::POD_NOT_READY),
        (ready, all) if ready < all => {
            let row = unready(&text, &gateways, code::POD_NOT_READY);
            Row { verdict: super::Verdict::Warn, ..row }
        }
        _ => Row::pass(PODS, text),
    }
}

fn restarts(pods: &[PodState]) -> Row {
    if pods.is_empty() {
        return Row::skip(PODS, "no pod restarts again and again", "there are no pods");
    }
    let many: Vec<String> = pods
        .iter()
        .filter(|pod| pod.restarts >= RESTARTS_MANY)
        .map(|pod| format!("{} restarted {} times", pod.name, pod.restarts))
        .collect();
    match many.is_empty() {
        true => Row::pass(PODS, "no pod restarts again and again"),
        false => Row::warn(PODS, many.join(", "), code::POD_NOT_READY)
            .fix("`kubectl logs --previous` of the pod says why it ended"),
    }
}

fn writer(lease: Option<&LeaseState>) -> Row {
    let Some(lease) = lease else {
        return Row::fail(CONTROL, "nobody holds the writer's Lease", code::WRITER_LEASE_LOST);
    };
    let LeaseState { holder, age_seconds, duration_seconds } = lease;
    let text =
        format!("{holder} writes to the cluster, Lease renewed {} s ago", age_seconds.max(&0));
    match *age_seconds > duration_seconds + LEASE_TOLERANCE_SECONDS {
        true => Row::fail(CONTROL, text, code::WRITER_LEASE_LOST)
            .cause(format!("it holds for {duration_seconds} s")),
        false => Row::pass(CONTROL, text),
    }
}

fn exposed(service: Option<&ServiceState>) -> Row {
    let Some(service) = service else {
        return Row::fail(
            EXPOSURE,
            "the gateways have no Service with a UDP port",
            code::NOT_INSTALLED,
        );
    };
    let ServiceState { name, kind, addresses, udp_port, node_port } = service;
    let udp_port = udp_port.unwrap_or_default();
    match (kind.as_str(), addresses.is_empty(), node_port) {
        ("LoadBalancer", false, _) => Row::pass(
            EXPOSURE,
            format!("other clusters reach {name} at {}, UDP {udp_port}", addresses.join(", ")),
        ),
        ("LoadBalancer", true, _) => Row::fail(
            EXPOSURE,
            format!("{name} waits for an address of its load balancer"),
            code::GATEWAY_ADDRESS_PENDING,
        ),
        ("NodePort", _, Some(port)) => {
            Row::pass(EXPOSURE, format!("other clusters reach {name} at the nodes, UDP {port}"))
        }
        _ => Row::warn(
            EXPOSURE,
            format!("{name} is of type {kind}: other clusters cannot dial this one"),
            code::GATEWAY_ADDRESS_PENDING,
        )
        .fix("fine if this cluster only dials; else set service.type or federation.advertise"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Report;
    use crate::golden;

    fn pod(name: &str, component: &str, not_ready: Option<&str>, restarts: i32) -> PodState {
        let not_ready = not_ready.map(str::to_owned);
        PodState { name: name.into(), component: component.into(), not_ready, restarts }
    }

    fn service(kind: &str, addresses: &[&str], node_port: Option<i32>) -> ServiceState {
        ServiceState {
            name: "fedgate-gateway".into(),
            kind: kind.into(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            udp_port: Some(8443),
            node_port,
        }
    }

    fn lease(age_seconds: i64) -> LeaseState {
        LeaseState { holder: "fedgate-federation-0".into(), age_seconds, duration_seconds: 15 }
    }

    #[test]
    fn what_is_well_and_what_is_not_is_as_golden() {
        let well = InCluster {
            pods: Ok(vec![pod("f-0", "federation", None, 1), pod("g-1", "gateway", None, 0)]),
            lease: Ok(Some(lease(2))),
            trust: Ok("east.example".into()),
            service: Ok(Some(service("NodePort", &[], Some(30_443)))),
        };
        golden::check("check-installed.txt", &Report { rows: installed_rows(&well) }.table());
        let forbidden = || {
            CommandError::failed("cluster east: you may not get leases")
                .code(code::API_SERVER_FORBIDDEN)
                .hint("a Role would allow it")
        };
        let unwell = InCluster {
            pods: Ok(vec![
                pod("f-0", "federation", Some("ErrImagePull: no such image"), 0),
                pod("g-1", "gateway", None, 7),
                pod("g-2", "gateway", Some("it is being deleted"), 0),
            ]),
            lease: Err(forbidden()),
            trust: Err(CommandError::failed("ConfigMap a/fedgate-trust has no bundle.json")
                .code(code::TRUST_UNPUBLISHED)
                .hint("look at the node's log")),
            service: Ok(Some(service("LoadBalancer", &[], None))),
        };
        golden::check("check-installed-bad.txt", &Report { rows: installed_rows(&unwell) }.table());
    }

    #[test]
    fn a_lease_is_lost_when_it_is_not_renewed() {
        use crate::check::Verdict;
        for (state, want) in [
            (Some(lease(0)), Verdict::Pass),
            (Some(lease(-3)), Verdict::Pass),
            (Some(lease(20)), Verdict::Pass),
            (Some(lease(21)), Verdict::Fail),
            (None, Verdict::Fail),
        ] {
            assert_eq!(writer(state.as_ref()).verdict, want, "{state:?}");
        }
    }

    #[test]
    fn a_service_has_an_address_or_a_reason() {
        for (state, wanted) in [
            (service("LoadBalancer", &["lb.example"], None), "at lb.example, UDP 8443"),
            (service("ClusterIP", &[], None), "other clusters cannot dial this one"),
        ] {
            let row = exposed(Some(&state));
            assert!(row.text.contains(wanted), "{row:?}");
        }
        assert!(exposed(None).text.contains("no Service"));
    }
}
