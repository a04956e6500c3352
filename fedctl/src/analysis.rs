//! Manifests judged without a node, by the same code as a node judges them with.

use std::collections::BTreeMap;

use model::code::{CLUSTER_NOT_FOUND, REF_NOT_PERMITTED, ROUTE_NOT_ACCEPTED, SERVICE_NOT_FOUND};
use model::{
    ClusterName, Diagnostic, Resource, ResourceKey, ResourceKind, ResourceSet, Severity,
    TrustDomain,
};
use serde::Serialize;

/// What is to be judged, and for whose node.
#[derive(Debug)]
pub struct Question<'a> {
    /// Name and text of each file.
    pub files: Vec<(&'a str, &'a str)>,
    pub cluster: ClusterName,
    pub trust_domain: Option<TrustDomain>,
    /// There are more objects than these, so that one which is missing here may be elsewhere.
    pub partial: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    api_version: &'static str,
    kind: &'static str,
    files: usize,
    /// That would be in service, whole or in part.
    objects: usize,
    pub errors: usize,
    pub warnings: usize,
    items: Vec<Item>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    severity: &'static str,
    code: String,
    /// `Kind/namespace/name`; the place where the object has no name.
    object: String,
    /// `file:line` where the object begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
    message: String,
    fix: String,
}

/// Computes for a while on many objects.
pub fn analyze(question: &Question<'_>) -> Analysis {
    let (resources, mut findings) = discovery::translate(&question.files);
    let resources: ResourceSet = resources.into_iter().collect();
    findings.extend(federation::judge(
        &question.cluster,
        question.trust_domain.as_ref(),
        &resources,
    ));
    if question.partial {
        findings.iter_mut().for_each(|finding| spare_absent(finding, &resources));
    }
    let places = places(&question.files);
    // In the order of the files; what belongs to no object comes first.
    findings.sort_by_cached_key(|finding| {
        (places.get(&finding.object).copied(), finding.object.clone(), finding.field.clone())
    });
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    Analysis {
        api_version: "fedgate.dev/v1alpha1",
        kind: "Analysis",
        files: question.files.len(),
        objects: resources.len(),
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        items: findings.iter().map(|finding| item(finding, question, &places)).collect(),
    }
}

/// Where an object begins: the number of its file, and the line there.
type Places = BTreeMap<String, (usize, u64)>;

/// Of an object that stands in several places the first is in service.
fn places(files: &[(&str, &str)]) -> Places {
    let mut places = Places::new();
    for (number, (name, text)) in files.iter().enumerate() {
        let Ok(manifest) = api::parse_manifest(name, text) else { continue };
        for object in manifest.objects {
            places.entry(object.resource.key().to_string()).or_insert((number, object.line));
        }
    }
    places
}

fn item(finding: &Diagnostic, question: &Question<'_>, places: &Places) -> Item {
    let place = places.get(&finding.object);
    Item {
        severity: finding.severity.as_str(),
        code: finding.code.to_string(),
        object: finding.object.clone(),
        place: place.map(|(file, line)| format!("{}:{line}", question.files[*file].0)),
        field: finding.field.clone(),
        message: finding.message.clone(),
        fix: finding.fix.clone(),
    }
}

/// An error that only says that something is not among these objects becomes a warning.
fn spare_absent(finding: &mut Diagnostic, resources: &ResourceSet) {
    let absent = match finding.code {
        SERVICE_NOT_FOUND | CLUSTER_NOT_FOUND | REF_NOT_PERMITTED => true,
        ROUTE_NOT_ACCEPTED => names_absent_gateway(finding, resources),
        _ => false,
    };
    if absent && finding.severity == Severity::Error {
        finding.severity = Severity::Warning;
        finding.message += ", as far as these files say";
    }
}

fn names_absent_gateway(finding: &Diagnostic, resources: &ResourceSet) -> bool {
    let route = resources.iter().find(|(key, _)| key.to_string() == finding.object);
    let parents = match route.map(|(_, resource)| &**resource) {
        Some(Resource::HttpRoute(route)) => &route.parents,
        Some(Resource::TcpRoute(route)) => &route.parents,
        _ => return false,
    };
    let index =
        finding.field.strip_prefix("spec.parentRefs[").and_then(|rest| rest.split(']').next());
    let parent = index.and_then(|index| parents.get(index.parse::<usize>().ok()?));
    parent.is_some_and(|parent| {
        let key = ResourceKey {
            kind: ResourceKind::Gateway,
            namespace: Some(parent.namespace.clone()),
            name: parent.name.clone(),
        };
        resources.get(&key).is_none()
    })
}

impl Analysis {
    /// For people: each finding with its fix, then the count.
    pub fn table(&self) -> String {
        let mut lines: Vec<String> = self.items.iter().map(Item::lines).collect();
        let (objects, files) = (counted(self.objects, "object"), counted(self.files, "file"));
        lines.push(match (self.errors, self.warnings) {
            (0, 0) => format!("✓ {objects} in {files}: nothing was found wrong."),
            (errors, warnings) => {
                let sign = if errors > 0 { '✗' } else { '!' };
                let (errors, warnings) = (counted(errors, "error"), counted(warnings, "warning"));
                format!("{sign} {objects} in {files}: {errors}, {warnings}.")
            }
        });
        lines.join("\n")
    }
}

impl Item {
    fn lines(&self) -> String {
        let Self { severity, code, object, place, field, message, fix } = self;
        let field = if field.is_empty() { String::new() } else { format!(" {field}") };
        // What was found while reading names the very line.
        let place = place.as_ref().filter(|_| !message.ends_with(')'));
        let place = place.map_or_else(String::new, |place| format!(" ({place})"));
        format!("{severity} {code} {object}{field}: {message}{place}\n    fix: {fix}")
    }
}

fn counted(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    const GOOD: &str = "\
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {ports: [{port: 80, appProtocol: http}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: api, namespace: shop}
---
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: api, namespace: shop}
spec:
  targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceExport, name: api}]
  allow: [{trustDomain: west.example}]
";
    /// A misspelt field, a reference into nothing from three kinds, a second one of a kind.
    const BAD: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: typo, namespace: shop}
spec:
  targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceExport, name: api}]
  allow: [{clutser: west}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: db, namespace: shop}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: api, namespace: shop}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
";

    fn question<'a>(files: &[(&'a str, &'a str)], partial: bool) -> Question<'a> {
        let cluster = ClusterName::parse("east").unwrap();
        Question { files: files.to_vec(), cluster, trust_domain: None, partial }
    }

    #[test]
    fn good_and_bad_files_are_as_golden() {
        let good = analyze(&question(&[("good.yaml", GOOD)], false));
        assert_eq!((good.errors, good.warnings), (0, 0), "{}", good.table());
        let files = [("good.yaml", GOOD), ("bad.yaml", BAD), ("broken.yaml", "a: [")];
        let bad = analyze(&question(&files, false));
        golden::check("analyze.txt", &bad.table());
        golden::check("analyze.json", &serde_json::to_string_pretty(&bad).unwrap());
    }

    #[test]
    fn what_other_files_may_have_is_no_error_of_a_part() {
        let files = [("bad.yaml", BAD)];
        let whole = analyze(&question(&files, false));
        let part = analyze(&question(&files, true));
        assert!(part.errors < whole.errors, "{}\n{}", part.table(), whole.table());
        assert_eq!(part.errors + part.warnings, whole.errors + whole.warnings);
        // Only the misspelt field, and the entry that it leaves empty, are wrong wherever the rest is.
        assert_eq!(part.errors, 2, "{}", part.table());
    }
}
