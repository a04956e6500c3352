//! From a survey to values; pure.

use model::{ClusterName, TrustDomain, code};
use serde_json::json;

use super::{Choice, Values};
use crate::error::CommandError;
use crate::kubernetes::default_cluster_name;
use crate::survey::{Provider, Survey};

/// The oldest Kubernetes that the charts are for (their `kubeVersion`).
pub const KUBERNETES_MINOR_MIN: u32 = 30;
/// What the chart's NetworkPolicy lets the node reach without being told.
const API_SERVER_PORTS: [u16; 2] = [443, 6443];

/// What the person wants of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    pub cluster: Option<String>,
    pub trust_domain: Option<String>,
}

/// Chooses values, or says why none fit.
pub fn decide(survey: &Survey, wishes: &Wishes) -> Result<Values, CommandError> {
    if let Some(version) = &survey.version
        && (version.major, version.minor) < (1, KUBERNETES_MINOR_MIN)
    {
        let message = format!("cluster {} runs Kubernetes {}", survey.context, version.text);
        return Err(CommandError::failed(message)
            .code(code::KUBERNETES_TOO_OLD)
            .hint(format!("upgrade it to 1.{KUBERNETES_MINOR_MIN} or newer")));
    }
    let mut values = Values::new(survey.summary());
    identity(survey, wishes, &mut values)?;
    exposure(survey, &mut values);
    storage(survey, &mut values);
    network(survey, &mut values);
    Ok(values)
}

fn identity(survey: &Survey, wishes: &Wishes, values: &mut Values) -> Result<(), CommandError> {
    let installed = survey.installed.as_ref().and_then(Option::as_ref);
    let (name, why) = match (&wishes.cluster, installed) {
        (Some(name), _) => (name.clone(), "as you said".to_owned()),
        (None, Some(installed)) => (installed.cluster.clone(), "as it is installed".into()),
        (None, None) => match default_cluster_name(&survey.context) {
            Some(name) => {
                (name.to_string(), format!("from the kubeconfig's context {}", survey.context))
            }
            None => {
                let message = format!("no cluster name can be made of {:?}", survey.context);
                return Err(CommandError::usage(message).hint("add --cluster NAME"));
            }
        },
    };
    let parsed = ClusterName::parse(&name).map_err(|error| {
        CommandError::usage(format!("--cluster {name:?}: {error}"))
            .hint("letters a-z, digits and -, at most 63, as a DNS label")
    })?;
    values.push("cluster.name", json!(parsed.as_str()), why);
    let (domain, why) = match (&wishes.trust_domain, installed) {
        (Some(domain), _) => (domain.clone(), "as you said; never changed later"),
        (None, Some(installed)) => (installed.trust_domain.clone(), "as it is installed"),
        (None, None) => (
            format!("{parsed}.fedgate.internal"),
            "one of its own for each cluster; never changed later",
        ),
    };
    let domain = TrustDomain::parse(&domain).map_err(|error| {
        CommandError::usage(format!("--trust-domain {domain:?}: {error}"))
            .hint("letters a-z, digits, and . - _, as a DNS name")
    })?;
    values.push("cluster.trustDomain", json!(domain.as_str()), why);
    if survey.installed.is_none() {
        let why =
            "whether Fedgate is installed could not be seen; if it is, these names must be its own";
        values.warn(why.into());
    }
    match installed {
        Some(was) if was.cluster != parsed.as_str() || was.trust_domain != domain.as_str() => {
            let message = format!(
                "Fedgate is installed here as cluster {} of trust domain {}",
                was.cluster, was.trust_domain
            );
            Err(CommandError::failed(message)
                .hint("these two never change: leave --cluster and --trust-domain out, or uninstall first"))
        }
        _ => Ok(()),
    }
}

/// How other clusters reach the gateways' UDP port.
fn exposure(survey: &Survey, values: &mut Values) {
    let Some(evidence) = survey.load_balancer() else {
        let why = match survey.provider() {
            Provider::Kind => {
                "kind has no load balancer; its nodes' addresses are reached from the host's network"
            }
            _ => {
                "no load balancer shows here; open the node port, which Kubernetes chooses, for UDP in firewalls"
            }
        };
        values.push("service.type", json!("NodePort"), why);
        return;
    };
    values.push("service.type", json!("LoadBalancer"), evidence);
    for (path, text, why) in of_provider(survey.provider()) {
        let value = text.map_or(json!(false), |text| json!(text));
        values.push(*path, value, *why);
    }
}

/// A path of the chart's, its value as text or `None` for false, and the reason.
type Fixed = (&'static str, Option<&'static str>, &'static str);

/// What a cloud's load balancer needs to be told (docs/guide/expose-udp.md).
fn of_provider(provider: Provider) -> &'static [Fixed] {
    match provider {
        Provider::Eks => &[
            (
                "service.loadBalancerClass",
                Some("service.k8s.aws/nlb"),
                "by the AWS Load Balancer Controller, which has to be installed",
            ),
            (
                "service.annotations.service\\.beta\\.kubernetes\\.io/aws-load-balancer-scheme",
                Some("internet-facing"),
                "other clusters dial from outside; `internal` if all are in one network",
            ),
            (
                "service.annotations.service\\.beta\\.kubernetes\\.io/aws-load-balancer-nlb-target-type",
                Some("instance"),
                "so that health is asked for at a node port, as the next value has it",
            ),
            (
                "service.externalTrafficPolicy",
                Some("Local"),
                "UDP has no health check of its own: with Local, Kubernetes answers one on each node",
            ),
        ],
        Provider::Gke => &[
            (
                "service.annotations.cloud\\.google\\.com/l4-rbs",
                Some("enabled"),
                "a load balancer by backend services, with health checks",
            ),
            (
                "service.single",
                None,
                "TCP ports get a Service of their own, since not every GKE takes both in one",
            ),
            (
                "service.externalTrafficPolicy",
                Some("Local"),
                "nodes without a gateway get nothing, and clients' addresses stay",
            ),
        ],
        Provider::Aks => &[(
            "service.externalTrafficPolicy",
            Some("Local"),
            "the health probe asks Kubernetes on each node, since UDP has none",
        )],
        Provider::Kind | Provider::K3s | Provider::Other => &[],
    }
}

fn storage(survey: &Survey, values: &mut Values) {
    let Some(classes) = &survey.storage else {
        values.warn("StorageClasses may not be read: the cluster's default is taken".into());
        return;
    };
    if classes.iter().any(|class| class.default) {
        return;
    }
    match &**classes {
        [only] => values.push(
            "federation.persistence.storageClass",
            json!(only.name),
            "the only StorageClass, and none is the default",
        ),
        [] => values.warn(format!(
            "there is no StorageClass, so the federation node gets no volume ({}): install one first",
            code::STORAGE_UNAVAILABLE
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|class| class.name.as_str()).collect();
            values.warn(format!(
                "no StorageClass is the default ({}): add --set federation.persistence.storageClass= one of {}",
                code::STORAGE_UNAVAILABLE,
                names.join(", ")
            ));
        }
    }
}

fn network(survey: &Survey, values: &mut Values) {
    if survey.api_server.family.as_deref() == Some("IPv6") {
        values.push("listenAddress", json!("::"), "the cluster's first address family is IPv6");
    }
    let ports = &survey.api_server.ports;
    if ports.iter().any(|port| !API_SERVER_PORTS.contains(port)) {
        let mut all = vec![API_SERVER_PORTS[0]];
        all.extend(ports);
        all.sort_unstable();
        all.dedup();
        values.push(
            "networkPolicy.apiServerPorts",
            json!(all),
            "where the API server answers behind its Service",
        );
    }
    if survey.serves("multicluster.x-k8s.io").is_none() {
        values.warn(format!(
            "the CRDs of the MCS API are missing ({}): without them nothing can be exported by ServiceExport",
            code::CRDS_MISSING
        ));
    }
    if survey.serves("gateway.networking.k8s.io").is_none() {
        values.warn(format!(
            "the CRDs of Gateway API are missing ({}): without them there are no Gateways and routes",
            code::CRDS_MISSING
        ));
    }
}

impl Values {
    fn push(&mut self, path: impl Into<String>, value: serde_json::Value, why: impl Into<String>) {
        self.choices.push(Choice { path: path.into(), value, why: why.into() });
    }

    fn warn(&mut self, line: String) {
        self.warnings.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::survey::{
        ApiServer, GatewayApi, Group, Installed, LoadBalancers, Nodes, StorageClass, Version,
    };

    fn survey(context: &str, provider: Provider) -> Survey {
        let group = |name: &str, versions: &[&str]| Group {
            name: name.into(),
            versions: versions.iter().map(ToString::to_string).collect(),
        };
        Survey {
            context: context.into(),
            version: Version::of("1", "36", "v1.36.3"),
            clock_ahead_seconds: Some(0),
            nodes: Some(Nodes { count: 3, provider }),
            groups: vec![
                group("gateway.networking.k8s.io", &["v1", "v1beta1"]),
                group("multicluster.x-k8s.io", &["v1beta1", "v1alpha1"]),
            ],
            gateway_api: Some(GatewayApi { version: "v1.6.3".into(), channel: "standard".into() }),
            storage: Some(vec![StorageClass { name: "standard".into(), default: true }]),
            load_balancers: Some(LoadBalancers::default()),
            api_server: ApiServer { ports: vec![6443], family: Some("IPv4".into()) },
            installed: Some(None),
            ..Survey::default()
        }
    }

    fn chosen(survey: &Survey) -> String {
        let values = decide(survey, &Wishes::default()).unwrap();
        format!("{}{}", values.yaml(), values.warnings.join("\n"))
    }

    #[test]
    fn each_providers_values_are_as_golden() {
        golden::check("install-kind.yaml", &chosen(&survey("kind-east", Provider::Kind)));
        let mut eks = survey("arn:aws:eks:eu-west-1:1:cluster/west", Provider::Eks);
        eks.storage = Some(vec![StorageClass { name: "gp2".into(), default: false }]);
        eks.api_server.ports = vec![443];
        golden::check("install-eks.yaml", &chosen(&eks));
        let gke = survey("gke_project_europe-west1_south", Provider::Gke);
        golden::check("install-gke.yaml", &chosen(&gke));
        golden::check("install-aks.yaml", &chosen(&survey("north", Provider::Aks)));
        let mut bare = survey("admin@dc1", Provider::Other);
        bare.groups.clear();
        bare.gateway_api = None;
        bare.storage = Some(vec![]);
        bare.api_server = ApiServer { ports: vec![7443], family: Some("IPv6".into()) };
        golden::check("install-other.yaml", &chosen(&bare));
    }

    #[test]
    fn a_load_balancer_that_works_is_used() {
        let mut kind = survey("kind-east", Provider::Kind);
        kind.load_balancers = Some(LoadBalancers { ready: 2, pending: 0 });
        let values = chosen(&kind);
        assert!(values.contains("# 2 Services of type LoadBalancer have addresses"), "{values}");
        assert!(values.contains("type: LoadBalancer"), "{values}");
    }

    #[test]
    fn an_installation_keeps_its_identity() {
        let mut survey = survey("kind-renamed", Provider::Kind);
        survey.installed = Some(Some(Installed {
            namespace: "fedgate-system".into(),
            cluster: "east".into(),
            trust_domain: "east.example".into(),
        }));
        let values = chosen(&survey);
        assert!(values.contains("name: east\n") && values.contains("trustDomain: east.example\n"));
        let wishes = Wishes { cluster: Some("west".into()), ..Wishes::default() };
        let error = decide(&survey, &wishes).unwrap_err().to_string();
        assert!(
            error.contains("is installed here as cluster east of trust domain east.example"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_is_said() {
        let mut old = survey("kind-east", Provider::Kind);
        old.version = Version::of("1", "29", "v1.29.1");
        let error = decide(&old, &Wishes::default()).unwrap_err().to_string();
        assert!(error.contains("v1.29.1 (FED1107)"), "{error}");
        let error = decide(&survey("my cluster", Provider::Other), &Wishes::default()).unwrap_err();
        assert!(error.to_string().contains("add --cluster NAME"), "{error}");
        let wishes = Wishes { cluster: Some("No".into()), trust_domain: None };
        let error = decide(&survey("x", Provider::Other), &wishes).unwrap_err().to_string();
        assert!(error.starts_with("error: --cluster \"No\": "), "{error}");
        let wishes = Wishes { cluster: None, trust_domain: Some("a b".into()) };
        let error = decide(&survey("x", Provider::Other), &wishes).unwrap_err().to_string();
        assert!(error.starts_with("error: --trust-domain \"a b\": "), "{error}");
    }
}
