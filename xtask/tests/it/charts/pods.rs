//! Pods, and what selects them: Pod Security `restricted`, probes, named ports, policies.

use serde_json::{Value, json};
use xtask::repo::Repo;

use super::{Render, list, name_of, selects};

/// The case with a host port, which `restricted` forbids.
const WITH_HOST_PORT: &str = "helm/tests/golden/daemonset.yaml";

#[test]
fn every_pod_is_restricted_and_cannot_write_to_its_image() {
    for render in Render::all(&Repo::here().unwrap()) {
        for (pod, template) in render.pods() {
            let place = format!("{}: {pod}", render.name);
            let spec = &template["spec"];
            let context = &spec["securityContext"];
            assert_eq!(context["runAsNonRoot"], true, "{place}");
            assert_eq!(
                (&context["runAsUser"], &context["runAsGroup"]),
                (&json!(65532), &json!(65532)),
                "{place}"
            );
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{place}");
            for field in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(spec.get(field).is_none(), "{place}: {field}");
            }
            assert!(spec["automountServiceAccountToken"].is_boolean(), "{place}");
            assert!(spec.get("initContainers").is_none(), "{place}: judge these, too");
            for container in list(&spec["containers"]) {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{place}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{place}");
                assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{place}");
                assert!(context.get("privileged").is_none(), "{place}");
                let host_port = |port: &Value| port.get("hostPort").is_some();
                let has_host_port = list(&container["ports"]).iter().any(host_port);
                let expected = render.name == WITH_HOST_PORT && pod.ends_with("-gateway");
                assert_eq!(has_host_port, expected, "{place}");
            }
            for volume in list(&spec["volumes"]) {
                assert!(volume.get("hostPath").is_none(), "{place}");
            }
        }
    }
}

#[test]
fn long_running_pods_have_probes_a_grace_and_a_checksum() {
    for render in Render::all(&Repo::here().unwrap()) {
        for (pod, template) in render.pods().into_iter().filter(|(pod, _)| !pod.ends_with("-test"))
        {
            let place = format!("{}: {pod}", render.name);
            let container = &template["spec"]["containers"][0];
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                let probe = &container[probe];
                let ways = [&probe["httpGet"], &probe["tcpSocket"]];
                let port = ways.into_iter().find_map(|way| way["port"].as_str());
                let port = port.unwrap_or_else(|| panic!("{place}: {probe}"));
                let ports = list(&container["ports"]);
                assert!(ports.iter().any(|known| known["name"] == port), "{place}: {port}");
            }
            assert!(template["metadata"]["annotations"]["checksum/config"].is_string(), "{place}");
            assert!(
                template["spec"]["terminationGracePeriodSeconds"].as_i64() >= Some(30),
                "{place}"
            );
        }
    }
}

#[test]
fn services_name_their_ports_and_lead_to_pods() {
    for render in Render::all(&Repo::here().unwrap()) {
        let pods = render.pods();
        for service in render.of_kind("Service") {
            let place = format!("{}: {}", render.name, name_of(service));
            let selector = &service["spec"]["selector"];
            let led: Vec<&&Value> =
                pods.values().filter(|pod| selects(selector, &pod["metadata"]["labels"])).collect();
            let [pod] = led[..] else { panic!("{place} leads to {} workloads", led.len()) };
            let known = list(&pod["spec"]["containers"][0]["ports"]);
            assert!(!list(&service["spec"]["ports"]).is_empty(), "{place}");
            for port in list(&service["spec"]["ports"]) {
                assert!(
                    port["name"].is_string() && port["protocol"].is_string(),
                    "{place}: {port}"
                );
                if let Some(target) = port["targetPort"].as_str() {
                    let leads = |known: &Value| {
                        known["name"] == target && known["protocol"] == port["protocol"]
                    };
                    assert!(known.iter().any(leads), "{place}: {target}");
                }
            }
        }
        let selectors = render
            .of_kind("PodDisruptionBudget")
            .map(|budget| (budget, &budget["spec"]["selector"]["matchLabels"]))
            .chain(
                render
                    .of_kind("NetworkPolicy")
                    .map(|p| (p, &p["spec"]["podSelector"]["matchLabels"])),
            );
        for (object, selector) in selectors {
            let led =
                pods.values().filter(|pod| selects(selector, &pod["metadata"]["labels"])).count();
            assert_eq!(led, 1, "{}: {} {}", render.name, object["kind"], name_of(object));
        }
    }
}

#[test]
fn the_admin_and_relay_ports_of_gateways_are_not_for_everybody() {
    let mut judged = 0;
    for render in Render::all(&Repo::here().unwrap()) {
        let Some(policy) = render.named("NetworkPolicy", "-gateway") else { continue };
        let pods = render.pods();
        let (_, pod) = pods.iter().find(|(pod, _)| pod.ends_with("-gateway")).unwrap();
        let ports = list(&pod["spec"]["containers"][0]["ports"]);
        for port in ports {
            let number = port["containerPort"].as_u64().unwrap();
            let is_open = open_to_all(policy, number, port["protocol"].as_str().unwrap());
            assert_eq!(is_open, port["name"] == "tunnel", "{}: {port}", render.name);
        }
        for listener in [1, 80, 443, 8080, 20000, 65535] {
            assert!(open_to_all(policy, listener, "TCP"), "{}: {listener}", render.name);
        }
        judged += 1;
    }
    assert!(judged >= 5);
}

/// Whether a rule without `from` allows the port.
fn open_to_all(policy: &Value, number: u64, protocol: &str) -> bool {
    let rules = list(&policy["spec"]["ingress"]).iter().filter(|rule| rule.get("from").is_none());
    rules.flat_map(|rule| list(&rule["ports"])).any(|port| {
        let covers = match (port["port"].as_u64(), port["endPort"].as_u64()) {
            (Some(first), last) => (first..=last.unwrap_or(first)).contains(&number),
            // By name: the tunnel's.
            (None, _) => port["port"] == "tunnel" && number == 8443,
        };
        covers && port["protocol"] == protocol
    })
}
