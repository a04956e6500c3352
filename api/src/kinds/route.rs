//! What HTTPRoute and TCPRoute share: `parentRefs` and `backendRefs`.

use model::{BackendKind, BackendTarget, Namespace, ObjectName, ParentTarget, ServiceName};
use serde::Deserialize;

use super::{GATEWAY_GROUP, MCS_GROUP};
use crate::limits;
use crate::report::{Report, quoted};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParentRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    section_name: Option<String>,
    port: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct BackendRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<i64>,
    weight: Option<i64>,
}

/// Reads `spec.parentRefs`. A parent that is no Gateway is left out with an Error.
pub(crate) fn parents(
    report: &mut Report<'_>,
    own: &Namespace,
    parents: &[ParentRef],
) -> Vec<ParentTarget> {
    let field = "spec.parentRefs";
    if !report.bounded(field, parents.len(), limits::PARENT_REFS_MAX) {
        return Vec::new();
    }
    if parents.is_empty() {
        report.invalid(field, "the list is empty", "name the Gateway that serves the route");
    }
    let mut targets = Vec::new();
    for (index, parent) in parents.iter().enumerate() {
        let at = format!("{field}[{index}]");
        let group = parent.group.as_deref().unwrap_or(GATEWAY_GROUP);
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        if group != GATEWAY_GROUP || kind != "Gateway" {
            let message =
                format!("parent kind {} of group {} is not served", quoted(kind), quoted(group));
            report.refuse(&format!("{at}.kind"), message, "name a Gateway");
            continue;
        }
        let target = parent_target(report, own, &at, parent);
        targets.extend(target.filter(|_| !report.is_left_out(&at)));
    }
    targets
}

fn parent_target(
    report: &mut Report<'_>,
    own: &Namespace,
    at: &str,
    parent: &ParentRef,
) -> Option<ParentTarget> {
    let fix = "write the name of a Gateway";
    let namespace = parent.namespace.as_deref().unwrap_or(own.as_str());
    let namespace = report.parse(&format!("{at}.namespace"), namespace, Namespace::parse, fix);
    let name = report.parse(&format!("{at}.name"), &parent.name, ObjectName::parse, fix);
    let fix = "write the name of a listener";
    let field = format!("{at}.sectionName");
    let section_name = match &parent.section_name {
        Some(section) => Some(report.parse(&field, section, ObjectName::parse, fix)?),
        None => None,
    };
    let port = match parent.port {
        Some(port) => Some(report.port(&format!("{at}.port"), port)?),
        None => None,
    };
    Some(ParentTarget { namespace: namespace?, name: name?, section_name, port })
}

/// Reads `backendRefs`, of which exactly one is served.
pub(crate) fn backend(
    report: &mut Report<'_>,
    own: &Namespace,
    rule: &str,
    refs: &[BackendRef],
) -> Option<BackendTarget> {
    let field = format!("{rule}.backendRefs");
    let [backend] = refs else {
        let message = format!("the rule has {} backends, exactly one is served", refs.len());
        report.refuse(&field, message, "write one backendRef");
        return None;
    };
    let at = format!("{field}[0]");
    let kind = backend_kind(report, &at, backend)?;
    // Whether another namespace lets itself be used is for compile to say (ReferenceGrant).
    let namespace = backend.namespace.as_deref().unwrap_or(own.as_str());
    let fix = format!("write the namespace of a {}", kind.as_str());
    let namespace = report.parse(&format!("{at}.namespace"), namespace, Namespace::parse, &fix);
    match backend.weight {
        None | Some(1..) => {}
        Some(weight) => {
            // 0 would mean "no traffic", which a single backend cannot have.
            let message = format!("weight {weight} of the only backend is not served");
            report.refuse(&format!("{at}.weight"), message, "remove the weight, or the rule");
        }
    }
    let fix = format!("write the name of a {}", kind.as_str());
    let name = report.parse(&format!("{at}.name"), &backend.name, ObjectName::parse, &fix);
    let Some(port) = backend.port else {
        report.invalid(&format!("{at}.port"), "the field is missing", "add the service's port");
        return None;
    };
    let port = report.port(&format!("{at}.port"), port)?;
    Some(BackendTarget { kind, service: ServiceName::new(namespace?, name?), port })
}

fn backend_kind(report: &mut Report<'_>, at: &str, backend: &BackendRef) -> Option<BackendKind> {
    let group = backend.group.as_deref().unwrap_or_default();
    let kind = backend.kind.as_deref().unwrap_or("Service");
    match (group, kind) {
        ("", "Service") => Some(BackendKind::Service),
        (MCS_GROUP, "ServiceImport") => Some(BackendKind::ServiceImport),
        _ => {
            let message =
                format!("backend kind {} of group {} is not served", quoted(kind), quoted(group));
            let fix = format!("use a Service, or a ServiceImport with group: {MCS_GROUP}");
            report.refuse(&format!("{at}.kind"), message, &fix);
            None
        }
    }
}
