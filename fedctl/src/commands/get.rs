//! `fedctl get` and `fedctl describe`: objects in service.

use api::Document;
use jiff::Timestamp;
use model::ResourceKind;
use serde::Serialize;
use wire::operator::proto::{ListObjectsRequest, ObjectSource, ObjectStatus, Objects};

use super::kinds;
use crate::cli::{Get, Named};
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer, age, table};
use crate::view::{Finding, Since};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectList {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<ObjectView>,
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectView {
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Since>,
    findings: Vec<Finding>,
    /// The manifest.
    object: serde_json::Value,
    #[serde(skip)]
    status: ObjectStatus,
    #[serde(skip)]
    generation: Option<u64>,
}

pub(super) async fn get(
    args: &Get,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let kind = match &*args.kind {
        "all" => None,
        name => Some(kinds::kind(name)?),
    };
    let (namespace, name) = match &args.name {
        Some(name) => kinds::split_name(name, args.namespace.as_deref())?,
        None => (args.namespace.as_deref(), ""),
    };
    let request = ListObjectsRequest {
        kind: kind.map_or_else(String::new, |kind| kind.as_str().into()),
        namespace: namespace.unwrap_or_default().into(),
        name: name.into(),
    };
    let objects = node.list_objects(request).await?;
    if objects.objects.is_empty() {
        let what = kind.map_or("object", ResourceKind::as_str);
        if !name.is_empty() {
            return Err(missing(what, name, namespace));
        }
        if printer.format == OutputFormat::Table {
            printer.talk(&format!("There is no {what}."));
            return Ok(());
        }
    }
    let list = list(objects, Timestamp::now())?;
    if list.left_out > 0 {
        let left_out = list.left_out;
        printer.talk(&format!(
            "warning: {left_out} more objects do not fit into one answer; name a kind or -n"
        ));
    }
    if printer.format == OutputFormat::Yaml {
        return printer.data(&manifests(list.items.iter().map(|item| &*item.status.manifest)));
    }
    printer.result(&list, |list| render(list, kind))
}

/// Several documents as one text.
pub(super) fn manifests<'a>(documents: impl Iterator<Item = &'a str>) -> String {
    documents.map(str::trim_end).collect::<Vec<_>>().join("\n---\n")
}

pub(super) async fn describe(
    args: &Named,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let kind = kinds::kind(&args.kind)?;
    let (namespace, name) = kinds::split_name(&args.name, args.namespace.as_deref())?;
    let request = ListObjectsRequest {
        kind: kind.as_str().into(),
        namespace: namespace.unwrap_or_default().into(),
        name: name.into(),
    };
    let mut list = list(node.list_objects(request).await?, Timestamp::now())?;
    if list.items.len() > 1 {
        let namespaces = list.items.iter().map(|item| &*item.status.namespace);
        let namespaces = namespaces.collect::<Vec<_>>().join(", ");
        let message = format!("{} {name} is in several namespaces: {namespaces}", kind.as_str());
        return Err(CommandError::usage(message).hint("add -n NAMESPACE"));
    }
    let item = list.items.pop().ok_or_else(|| missing(kind.as_str(), name, namespace))?;
    if printer.format == OutputFormat::Yaml {
        return printer.data(&item.status.manifest);
    }
    printer.result(&item, page)
}

fn missing(kind: &str, name: &str, namespace: Option<&str>) -> CommandError {
    let place = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
    CommandError::failed(format!("there is no {kind} {name}{place}")).hint(format!(
        "`fedctl get {kind}` lists what there is; `fedctl diagnostics` says what was left out"
    ))
}

fn list(objects: Objects, now: Timestamp) -> Result<ObjectList, CommandError> {
    let items = objects.objects.into_iter().map(|status| view(status, now));
    Ok(ObjectList {
        api_version: "fedgate.dev/v1alpha1",
        kind: "ObjectList",
        items: items.collect::<Result<_, _>>()?,
        left_out: objects.left_out,
    })
}

fn view(status: ObjectStatus, now: Timestamp) -> Result<ObjectView, CommandError> {
    let unusable =
        |error: String| CommandError::failed(format!("the node's answer is unusable: {error}"));
    let object = serde_saphyr::from_str(&status.manifest);
    let object = object.map_err(|error| unusable(error.to_string()))?;
    let documents = Document::parse_all(&status.manifest);
    let documents = documents.map_err(|error| unusable(error.to_string()))?;
    let stamp = documents.first().and_then(Document::stamp);
    let source = match status.source() {
        ObjectSource::Unspecified => "",
        ObjectSource::File => "file",
        ObjectSource::Applied => "applied",
        ObjectSource::Federation => "federation",
        ObjectSource::Kubernetes => "kubernetes",
    };
    let created = stamp.as_ref().and_then(|stamp| stamp.created.parse::<Timestamp>().ok());
    let findings = status.findings.iter().map(Finding::of).collect();
    let created = created.map(|created| Since::time(created, now));
    let generation = stamp.map(|stamp| stamp.generation);
    Ok(ObjectView { source, created, findings, object, status, generation })
}

fn render(list: &ObjectList, kind: Option<ResourceKind>) -> String {
    let namespaced = kind.is_none_or(ResourceKind::is_namespaced);
    let mut header = vec!["NAME", "SOURCE", "GENERATION", "AGE", "FINDINGS"];
    if namespaced {
        header.insert(0, "NAMESPACE");
    }
    if kind.is_none() {
        header.insert(0, "KIND");
    }
    let row = |item: &ObjectView| {
        let mut row = vec![
            item.status.name.clone(),
            item.source.into(),
            item.generation.map_or_else(|| "-".into(), |generation| generation.to_string()),
            item.created.as_ref().map_or_else(|| "-".into(), |since| age(since.age_ms)),
            findings(&item.findings),
        ];
        if namespaced {
            row.insert(0, or_dash(&item.status.namespace));
        }
        if kind.is_none() {
            row.insert(0, item.status.kind.clone());
        }
        row
    };
    table(&header, list.items.iter().map(row))
}

fn findings(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == "error").count();
    let count = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        count => Some(format!("{count} {what}s")),
    };
    let parts = [count(errors, "error"), count(findings.len() - errors, "warning")];
    or_dash(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn page(item: &ObjectView) -> String {
    let ObjectStatus { kind, namespace, name, .. } = &item.status;
    let version = item.object.get("apiVersion").and_then(serde_json::Value::as_str);
    let source = match item.source {
        "file" => "the folder of manifests",
        "applied" => "fedctl apply",
        "federation" => "the federation's store",
        other => other,
    };
    let mut rows = vec![
        ("Name:", name.clone()),
        ("Namespace:", or_dash(namespace)),
        ("Kind:", format!("{kind} ({})", version.unwrap_or("?"))),
        ("Source:", source.to_string()),
    ];
    if let Some(since) = &item.created {
        rows.push(("Created:", format!("{} ago, {}", age(since.age_ms), since.time)));
    }
    rows.extend(item.generation.map(|generation| ("Generation:", generation.to_string())));
    let mut text: String =
        rows.iter().map(|(label, value)| format!("{label:<12}{value}\n")).collect();
    text.push_str(&body(&item.object));
    if item.findings.is_empty() {
        text.push_str("\nNothing was found wrong.");
    } else {
        text.push_str("\nFindings:");
        let lines = item.findings.iter().map(|finding| format!("\n  {}", finding.line()));
        text.extend(lines);
    }
    text
}

/// What is declared besides the name, as YAML.
fn body(object: &serde_json::Value) -> String {
    let Some(fields) = object.as_object() else { return String::new() };
    let mut body = fields.clone();
    for known in ["apiVersion", "kind", "metadata"] {
        body.remove(known);
    }
    for shown in ["labels", "annotations"] {
        let found = fields.get("metadata").and_then(|metadata| metadata.get(shown));
        if let Some(found) = found {
            body.insert(shown.into(), found.clone());
        }
    }
    if body.is_empty() {
        return String::new();
    }
    serde_saphyr::to_string(&body).map_or_else(|_| String::new(), |text| format!("\n{text}"))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use wire::resource::proto::Diagnostic;

    use super::*;
    use crate::golden;

    fn objects() -> Objects {
        let policy = "apiVersion: fedgate.dev/v1alpha1\nkind: AccessPolicy\nmetadata:\n  name: api\n  \
                      namespace: shop\n  labels:\n    team: a\n  creationTimestamp: \
                      2026-01-01T00:00:00Z\n  generation: 2\nspec:\n  targetRefs:\n    - name: api\n  \
                      allow:\n    - cluster: west\n";
        let import = "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\nmetadata:\n  \
                      name: db\n  namespace: shop\n";
        let finding = Diagnostic {
            severity: wire::resource::proto::Severity::Warning.into(),
            code: 5002,
            object: "AccessPolicy/shop/api".into(),
            field: "spec.targetRefs[0]".into(),
            message: "there is no export api".into(),
            fix: "export it".into(),
        };
        let object = |kind: &str, name: &str, source: ObjectSource, manifest: &str| ObjectStatus {
            kind: kind.into(),
            namespace: "shop".into(),
            name: name.into(),
            source: source.into(),
            manifest: manifest.into(),
            findings: vec![],
        };
        let mut policy = object("AccessPolicy", "api", ObjectSource::Applied, policy);
        policy.findings = vec![finding];
        let import = object("ServiceImport", "db", ObjectSource::Federation, import);
        Objects { objects: vec![policy, import], left_out: 0 }
    }

    fn now() -> Timestamp {
        "2026-01-01T03:00:00Z".parse().unwrap()
    }

    #[test]
    fn lists_and_pages_are_as_golden() {
        let list = list(objects(), now()).unwrap();
        golden::check("get.txt", &render(&list, None));
        golden::check("get-kind.txt", &render(&list, Some(ResourceKind::AccessPolicy)));
        golden::check("get.json", &serde_json::to_string_pretty(&list).unwrap());
        golden::check("describe.txt", &page(&list.items[0]));
        golden::check("describe-import.txt", &page(&list.items[1]));
    }
}
