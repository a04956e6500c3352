//! Before an installation: rows about the cluster; pure.

use model::code;

use super::{Missing, Rights, Row};
use crate::install::KUBERNETES_MINOR_MIN;
use crate::survey::{Provider, Survey};

/// Of Gateway API, what the routes of Fedgate need: TCPRoute v1 came with it.
const GATEWAY_API_MIN: (u32, u32) = (1, 6);
/// A Date header has whole seconds, and the answer takes a while.
pub(super) const SKEW_WARN_SECONDS: u64 = 5;
/// Tokens live for minutes, and fresh certificates are backdated by about one.
pub(super) const SKEW_FAIL_SECONDS: u64 = 60;

const KUBERNETES: &str = "kubernetes";
const PERMISSIONS: &str = "permissions";
const CRDS: &str = "crds";
const NETWORK: &str = "network";

pub fn pre_rows(survey: &Survey, rights: &Rights) -> Vec<Row> {
    let mut rows = vec![version(survey), clock(survey), nodes(survey), installed(survey)];
    rows.extend(permissions(rights));
    rows.extend([own_crds(survey), gateway_api(survey), mcs(survey)]);
    rows.extend([storage(survey), pod_security(survey)]);
    rows.extend([load_balancer(survey), api_server(survey)]);
    rows
}

fn version(survey: &Survey) -> Row {
    let Some(version) = &survey.version else {
        return Row::warn(KUBERNETES, "the API server tells no version", code::KUBERNETES_TOO_OLD);
    };
    let text = format!("Kubernetes {} answers", version.text);
    match (version.major, version.minor) >= (1, KUBERNETES_MINOR_MIN) {
        true => {
            Row::pass(KUBERNETES, format!("{text} (1.{KUBERNETES_MINOR_MIN} or newer is needed)"))
        }
        false => Row::fail(KUBERNETES, text, code::KUBERNETES_TOO_OLD)
            .fix(format!("upgrade it to 1.{KUBERNETES_MINOR_MIN} or newer")),
    }
}

fn clock(survey: &Survey) -> Row {
    let Some(ahead) = survey.clock_ahead_seconds else {
        return Row::skip(KUBERNETES, "clocks agree", "the API server sent no Date");
    };
    let side = if ahead < 0 { "behind" } else { "ahead" };
    let text = format!("the API server's clock is {} s {side} of this machine's", ahead.abs());
    match ahead.unsigned_abs() {
        0..SKEW_WARN_SECONDS => Row::pass(KUBERNETES, "clocks agree"),
        SKEW_WARN_SECONDS..SKEW_FAIL_SECONDS => Row::warn(KUBERNETES, text, code::CLOCK_SKEW),
        _ => Row::fail(KUBERNETES, text, code::CLOCK_SKEW),
    }
}

fn nodes(survey: &Survey) -> Row {
    match &survey.nodes {
        Some(nodes) if nodes.count == 0 => {
            Row::fail(KUBERNETES, "the cluster has no nodes", code::POD_NOT_READY)
                .fix("add a node: pods cannot be scheduled")
        }
        Some(nodes) => {
            let plural = if nodes.count == 1 { "" } else { "s" };
            Row::pass(KUBERNETES, format!("{} node{plural}, {}", nodes.count, nodes.provider))
        }
        None => Row::skip(KUBERNETES, "nodes", "you may not list nodes; nothing needs you to"),
    }
}

fn installed(survey: &Survey) -> Row {
    match &survey.installed {
        None => {
            Row::skip(KUBERNETES, "whether Fedgate is installed", "you may not list its ConfigMaps")
        }
        Some(Some(found)) => Row::pass(
            KUBERNETES,
            format!(
                "Fedgate is installed in {} already, as cluster {} of {}: an upgrade keeps both names",
                found.namespace, found.cluster, found.trust_domain
            ),
        ),
        Some(None) => Row::pass(KUBERNETES, "no Fedgate is installed yet"),
    }
}

fn permissions(rights: &Rights) -> [Row; 3] {
    let row = |what: &str, found: &Missing| {
        if found.missing.is_empty() {
            return Row::pass(PERMISSIONS, format!("you may {what} ({} rights)", found.asked));
        }
        Row::fail(PERMISSIONS, format!("you may not {what}"), code::API_SERVER_FORBIDDEN)
            .cause(format!("{} of {} rights are missing", found.missing.len(), found.asked))
            .fix(format!("{} with the rule {} would do", found.role_kind(), found.rule()))
    };
    let mut operating = row("operate Fedgate in every role", &rights.operating);
    if operating.code.is_some() {
        // Who installs need not be who operates.
        operating.verdict = super::Verdict::Warn;
    }
    [
        row("create what the chart has in its namespace", &rights.in_namespace),
        row("create what the charts have outside of it", &rights.cluster_wide),
        operating,
    ]
}

fn own_crds(survey: &Survey) -> Row {
    match survey.serves("fedgate.dev") {
        Some(group) => {
            Row::pass(CRDS, format!("fedgate.dev is served: {}", group.versions.join(", ")))
        }
        None => Row::pass(CRDS, "fedgate.dev is not served yet: the chart fedgate-crds brings it"),
    }
}

fn gateway_api(survey: &Survey) -> Row {
    let (major, minor) = GATEWAY_API_MIN;
    let wanted = format!("install the standard channel of Gateway API v{major}.{minor} or newer");
    let Some(found) = &survey.gateway_api else {
        let row = match survey.serves("gateway.networking.k8s.io") {
            Some(_) => "the version of Gateway API's CRDs is not to be seen",
            None => "the CRDs of Gateway API are missing",
        };
        return Row::warn(CRDS, row, code::CRDS_MISSING).fix(wanted);
    };
    let text = format!("Gateway API {}, {} channel", found.version, found.channel);
    match numbers(&found.version) {
        Some(version) if version >= GATEWAY_API_MIN => Row::pass(CRDS, text),
        _ => Row::warn(CRDS, text, code::CRDS_MISSING).fix(wanted),
    }
}

/// `v1.6.3` is (1, 6).
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn mcs(survey: &Survey) -> Row {
    let wanted = "install the CRDs of the MCS API v0.5 (multicluster.x-k8s.io/v1beta1)";
    match survey.serves("multicluster.x-k8s.io") {
        Some(group) if group.versions.iter().any(|version| version == "v1beta1") => {
            Row::pass(CRDS, format!("MCS API {}", group.versions.join(", ")))
        }
        Some(group) => {
            let text = format!("MCS API {} only", group.versions.join(", "));
            Row::warn(CRDS, text, code::CRDS_MISSING).fix(wanted)
        }
        None => {
            Row::warn(CRDS, "the CRDs of the MCS API are missing", code::CRDS_MISSING).fix(wanted)
        }
    }
}

fn storage(survey: &Survey) -> Row {
    const STORAGE: &str = "storage";
    let Some(classes) = &survey.storage else {
        return Row::skip(STORAGE, "a default StorageClass", "you may not list StorageClasses");
    };
    let default = classes.iter().find(|class| class.default);
    if let Some(class) = default {
        return Row::pass(STORAGE, format!("the default StorageClass is {}", class.name));
    }
    let row = |text: String| Row::fail(STORAGE, text, code::STORAGE_UNAVAILABLE);
    match &**classes {
        [] => row("there is no StorageClass".into()).fix("install a provisioner of volumes"),
        [only] => Row::pass(
            STORAGE,
            format!("no StorageClass is the default; `fedctl install` takes {}", only.name),
        ),
        several => {
            let names: Vec<&str> = several.iter().map(|class| class.name.as_str()).collect();
            row(format!("none of the StorageClasses is the default: {}", names.join(", ")))
        }
    }
}

fn pod_security(survey: &Survey) -> Row {
    const POD_SECURITY: &str = "pod-security";
    let Some(level) = &survey.pod_security else {
        return Row::skip(
            POD_SECURITY,
            "what the namespace enforces",
            "you may not get namespaces",
        );
    };
    match level.as_deref() {
        Some(level @ ("restricted" | "baseline")) => Row::pass(
            POD_SECURITY,
            format!("the namespace enforces {level}, which Fedgate's pods keep (without hostPort)"),
        ),
        Some(level) => Row::pass(POD_SECURITY, format!("the namespace enforces {level}")),
        None => Row::pass(
            POD_SECURITY,
            "the namespace enforces no level; Fedgate's pods keep restricted",
        ),
    }
}

fn load_balancer(survey: &Survey) -> Row {
    match (survey.load_balancer(), survey.provider()) {
        (Some(evidence), _) => {
            Row::pass(NETWORK, format!("a UDP port can be exposed by LoadBalancer: {evidence}"))
        }
        (None, Provider::Kind) => Row::pass(
            NETWORK,
            "a UDP port can be exposed by NodePort: kind's nodes are in the host's network",
        ),
        (None, _) => Row::warn(
            NETWORK,
            "nothing shows that a UDP port can be exposed",
            code::UDP_EXPOSURE_UNSURE,
        ),
    }
}

fn api_server(survey: &Survey) -> Row {
    let ports: Vec<String> = survey.api_server.ports.iter().map(ToString::to_string).collect();
    match ports.is_empty() {
        true => Row::skip(
            NETWORK,
            "the NetworkPolicy lets the node reach the API server",
            "no EndpointSlice of Service default/kubernetes is to be seen",
        ),
        false => Row::pass(
            NETWORK,
            format!(
                "the API server answers at TCP {}; `fedctl install` allows that",
                ports.join(", ")
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Report, Verdict};
    use crate::golden;
    use crate::survey::{
        ApiServer, GatewayApi, Group, Installed, LoadBalancers, Nodes, StorageClass, Version,
    };

    fn group(name: &str, versions: &[&str]) -> Group {
        let versions = versions.iter().map(ToString::to_string).collect();
        Group { name: name.into(), versions }
    }

    fn good() -> Survey {
        Survey {
            context: "kind-east".into(),
            version: Version::of("1", "36", "v1.36.3"),
            clock_ahead_seconds: Some(-1),
            nodes: Some(Nodes { count: 1, provider: Provider::Kind }),
            groups: vec![
                group("gateway.networking.k8s.io", &["v1", "v1beta1"]),
                group("multicluster.x-k8s.io", &["v1beta1", "v1alpha1"]),
            ],
            gateway_api: Some(GatewayApi { version: "v1.6.3".into(), channel: "standard".into() }),
            storage: Some(vec![StorageClass { name: "standard".into(), default: true }]),
            load_balancers: Some(LoadBalancers::default()),
            api_server: ApiServer { ports: vec![6443], family: Some("IPv4".into()) },
            pod_security: Some(None),
            installed: Some(None),
            ..Survey::default()
        }
    }

    #[test]
    fn a_good_cluster_and_a_bad_one_are_as_golden() {
        let rights = Rights {
            in_namespace: Missing { asked: 11, ..Missing::default() },
            cluster_wide: Missing { asked: 4, ..Missing::default() },
            operating: Missing { asked: 2, ..Missing::default() },
        };
        let rows = pre_rows(&good(), &rights);
        assert!(rows.iter().all(|row| row.verdict == Verdict::Pass), "{rows:?}");
        golden::check("check-pre.txt", &Report { rows }.table());

        let bad = Survey {
            context: "old".into(),
            version: Version::of("1", "29", "v1.29.2"),
            clock_ahead_seconds: Some(90),
            groups: vec![
                group("multicluster.x-k8s.io", &["v1alpha1"]),
                group("fedgate.dev", &["v1alpha1"]),
            ],
            storage: Some(vec![]),
            pod_security: Some(Some("restricted".into())),
            installed: Some(Some(Installed {
                namespace: "fedgate-system".into(),
                cluster: "east".into(),
                trust_domain: "east.example".into(),
            })),
            ..Survey::default()
        };
        let missing = |namespace: Option<&str>, missing: &[(&'static str, &'static str)]| Missing {
            asked: 4,
            namespace: namespace.map(str::to_owned),
            missing: missing.to_vec(),
        };
        let rights = Rights {
            in_namespace: missing(Some("fedgate-system"), &[]),
            cluster_wide: missing(
                None,
                &[("", "namespaces"), ("rbac.authorization.k8s.io", "clusterroles")],
            ),
            operating: missing(Some("fedgate-system"), &[("", "pods/portforward")]),
        };
        let rows = pre_rows(&bad, &rights);
        golden::check("check-pre-bad.txt", &Report { rows }.table());
    }

    #[test]
    fn skews_grow_from_nothing_to_a_failure() {
        for (ahead, want) in [
            (0, Verdict::Pass),
            (-4, Verdict::Pass),
            (5, Verdict::Warn),
            (-59, Verdict::Warn),
            (60, Verdict::Fail),
        ] {
            let survey = Survey { clock_ahead_seconds: Some(ahead), ..good() };
            assert_eq!(clock(&survey).verdict, want, "{ahead}");
        }
    }

    #[test]
    fn old_gateway_api_is_told() {
        for (version, want) in [
            ("v1.6.0", Verdict::Pass),
            ("v1.10.0", Verdict::Pass),
            ("v1.5.1", Verdict::Warn),
            ("x", Verdict::Warn),
        ] {
            let gateway = GatewayApi { version: version.into(), channel: "standard".into() };
            let survey = Survey { gateway_api: Some(gateway), ..good() };
            assert_eq!(gateway_api(&survey).verdict, want, "{version}");
        }
    }
}
