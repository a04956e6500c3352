//! Which pod is the federation node.

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::api::{Api, ListParams};
use model::code;

use super::{Access, COMPONENT_LABEL, Cluster, NAME_LABEL, NAMESPACE_DEFAULT};
use crate::error::{CommandError, Exit};

/// A federation node that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub namespace: String,
    pub pod: String,
}

/// A pod that cannot, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    pub pod: String,
    pub reason: String,
}

/// In the namespace that is named; else in the usual one; else wherever it is.
pub async fn find(cluster: &Cluster, namespace: Option<&str>) -> Result<Found, CommandError> {
    let usual = namespace.unwrap_or(NAMESPACE_DEFAULT);
    let access =
        |namespace| Access { verb: "list", group: "", resource: "pods", namespace, name: None };
    let component = format!("{COMPONENT_LABEL}=federation");
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), usual);
    let list = ListParams::default().labels(&component);
    let mut pods = cluster.ask(access(Some(usual)), pods.list(&list)).await?.items;
    if pods.is_empty() && namespace.is_none() {
        // Elsewhere another program may have a component of that name.
        let list = ListParams::default().labels(&format!("{NAME_LABEL},{component}"));
        let all = Api::<Pod>::all(cluster.client.clone());
        let all = cluster.ask(access(None), all.list(&list)).await;
        let elsewhere = "there is none in the usual namespace; if it is in another one, \
                         name its namespace with --fedgate-namespace";
        pods = all.map_err(|error| error.hint(elsewhere))?.items;
    }
    choose(&cluster.name, usual, &pods)
}

fn choose(cluster: &str, looked_in: &str, pods: &[Pod]) -> Result<Found, CommandError> {
    let mut namespaces: Vec<&str> =
        pods.iter().filter_map(|pod| pod.metadata.namespace.as_deref()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let namespace = match &*namespaces {
        [] => {
            let message = format!("cluster {cluster} has no federation pod in {looked_in}");
            return Err(CommandError::new(Exit::Unreachable, message)
                .code(code::NOT_INSTALLED)
                .hint("`fedctl install` installs Fedgate; --fedgate-namespace names another namespace"));
        }
        [namespace] => (*namespace).to_owned(),
        several => {
            let message = format!("cluster {cluster} has several Fedgates: {}", several.join(", "));
            return Err(CommandError::usage(message).hint("name one with --fedgate-namespace"));
        }
    };
    let mut verdicts = pods.iter().map(not_ready);
    let ready = pods.iter().find(|_| matches!(verdicts.next(), Some(None)));
    if let Some(pod) = ready.and_then(|pod| pod.metadata.name.clone()) {
        return Ok(Found { namespace, pod });
    }
    let reasons: Vec<String> = pods
        .iter()
        .filter_map(not_ready)
        .map(|NotReady { pod, reason }| format!("{namespace}/{pod} is not ready: {reason}"))
        .collect();
    let message = format!("cluster {cluster}: {}", reasons.join("; "));
    Err(CommandError::new(Exit::Unreachable, message).code(code::POD_NOT_READY).hint(format!(
        "`kubectl -n {namespace} describe pod` and `kubectl -n {namespace} logs` say more"
    )))
}

/// `None` for a pod that is ready and stays.
pub fn not_ready(pod: &Pod) -> Option<NotReady> {
    let reason = reason(pod)?;
    Some(NotReady { pod: pod.metadata.name.clone().unwrap_or_default(), reason })
}

fn reason(pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("it is being deleted".into());
    }
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    if condition("Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    let containers = status.container_statuses.unwrap_or_default();
    let waiting = containers.iter().find_map(|container| stuck(container.state.as_ref()?));
    let scheduled = condition("PodScheduled").filter(|condition| condition.status != "True");
    let scheduled = scheduled.map(|condition| {
        format!("not scheduled: {}", condition.message.as_deref().unwrap_or("no reason is given"))
    });
    let unready = condition("Ready").and_then(|ready| ready.message.clone());
    let phase = || format!("its phase is {}", status.phase.as_deref().unwrap_or("unknown"));
    Some(waiting.or(scheduled).or(unready).unwrap_or_else(phase))
}

fn stuck(state: &ContainerState) -> Option<String> {
    let (reason, message) = match state {
        ContainerState { waiting: Some(waiting), .. } => {
            (waiting.reason.clone(), waiting.message.clone())
        }
        ContainerState { terminated: Some(ended), .. } => {
            let reason = ended.reason.clone().unwrap_or_else(|| "Terminated".into());
            (Some(format!("{reason} with exit code {}", ended.exit_code)), ended.message.clone())
        }
        _ => return None,
    };
    let told: Vec<String> = [reason, message].into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, status: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "fedgate-federation-0", "namespace": namespace},
            "status": status,
        }))
        .unwrap()
    }

    fn ready() -> serde_json::Value {
        serde_json::json!({"conditions": [{"type": "Ready", "status": "True"}]})
    }

    #[test]
    fn the_ready_pod_is_chosen_and_otherwise_the_reason_is_told() {
        let pull = serde_json::json!({"phase": "Pending", "containerStatuses": [{
            "name": "federation", "ready": false, "restartCount": 0, "image": "x", "imageID": "",
            "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]});
        let found = choose("e", "x", &[pod("a", pull.clone()), pod("a", ready())]).unwrap();
        assert_eq!(found.namespace, "a");
        let unscheduled = serde_json::json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]});
        let unready = serde_json::json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "False", "message": "containers with unready status: [federation]"}]});
        for (status, wanted) in [
            (pull, "a/fedgate-federation-0 is not ready: ErrImagePull: no such image (FED1105)"),
            (unscheduled, "not scheduled: 0/1 nodes are available"),
            (unready, "not ready: containers with unready status: [federation]"),
            (serde_json::json!({"phase": "Unknown"}), "its phase is Unknown"),
        ] {
            let error = choose("e", "x", &[pod("a", status)]).unwrap_err();
            assert_eq!(error.exit, Exit::Unreachable);
            assert!(error.to_string().contains(wanted), "{error}");
        }
        let mut going = pod("a", ready());
        going.metadata.deletion_timestamp =
            serde_json::from_value(serde_json::json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(not_ready(&going).unwrap().reason, "it is being deleted");
    }

    #[test]
    fn none_and_several_are_told_apart() {
        let error = choose("east", "fedgate-system", &[]).unwrap_err().to_string();
        assert!(error.contains("no federation pod in fedgate-system (FED1104)"), "{error}");
        let both = [pod("a", ready()), pod("b", ready())];
        let error = choose("east", "fedgate-system", &both).unwrap_err().to_string();
        assert!(error.contains("several Fedgates: a, b\nhint: name one"), "{error}");
    }
}
