//! `fedctl export`, `fedctl unexport` and `fedctl namespace grant`: manifests that fedctl writes.

use api::manifest_of;
use model::{
    AccessPolicy, AllowEntry, ClusterName, Namespace, NamespaceGrant, NamespaceMatch,
    NamespacePrefix, ObjectName, Resource, ResourceKind, ServiceExport, ServiceName, SpiffeId,
    TrustDomain,
};
use wire::operator::proto::{
    ApplyObjectsRequest, DeleteObjectsRequest, ListServicesRequest, ManifestFile,
};

use super::{apply, get, kinds};
use crate::cli;
use crate::error::CommandError;
use crate::operator::Operator;
use crate::printer::{OutputFormat, Printer};

pub(super) async fn export(
    args: &cli::Export,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let (service, files) = written_export(args)?;
    warn_of_missing(node, &service, printer).await?;
    apply::send(ApplyObjectsRequest { files }, false, node, printer).await?;
    if printer.format == OutputFormat::Table {
        if args.to_nobody {
            printer.talk(&format!(
                "Nobody may reach it yet: fedctl export {service} --to cluster=NAME"
            ));
        }
        printer.talk(&format!("Next: fedctl services · fedctl describe export {service}"));
        printer.talk(&format!("Undo: fedctl unexport {service}"));
    }
    Ok(())
}

pub(super) async fn unexport(
    args: &cli::Unexport,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let service = service_name(&args.service, args.namespace.as_deref())?;
    let name = |kind: ResourceKind, name: &str| {
        kinds::object_name(kind, name, Some(service.namespace.as_str()))
    };
    let export = name(ResourceKind::ServiceExport, service.name.as_str())?;
    let deleted = DeleteObjectsRequest { names: vec![export], ignore_missing: false };
    let mut changes = node.delete_objects(deleted).await?;
    // The export may have been applied without its policy, by hand.
    let policy = name(ResourceKind::AccessPolicy, policy_name(&service).as_str())?;
    let deleted = DeleteObjectsRequest { names: vec![policy], ignore_missing: true };
    changes.changes.extend(node.delete_objects(deleted).await?.changes);
    apply::show(&changes, false, printer)
}

pub(super) async fn grant(
    args: &cli::NamespaceGrant,
    node: &Operator,
    printer: &Printer,
) -> Result<(), CommandError> {
    let files = files(&[grant_object(args)?])?;
    apply::send(ApplyObjectsRequest { files }, false, node, printer).await
}

/// `fedctl export --dry-run`, which needs no node.
pub(super) fn print_export(args: &cli::Export, printer: &Printer) -> Result<(), CommandError> {
    print(&written_export(args)?.1, printer)
}

/// `fedctl namespace grant --dry-run`, which needs no node.
pub(super) fn print_grant(
    args: &cli::NamespaceGrant,
    printer: &Printer,
) -> Result<(), CommandError> {
    print(&files(&[grant_object(args)?])?, printer)
}

fn written_export(args: &cli::Export) -> Result<(ServiceName, Vec<ManifestFile>), CommandError> {
    let service = service_name(&args.service, args.namespace.as_deref())?;
    let allow = args.to.iter().map(|text| consumer(text)).collect::<Result<Vec<_>, _>>()?;
    let files = files(&export_objects(&service, allow))?;
    Ok((service, files))
}

fn print(files: &[ManifestFile], printer: &Printer) -> Result<(), CommandError> {
    if printer.format == OutputFormat::Json {
        return Err(CommandError::usage("--dry-run prints manifests, which are YAML")
            .hint("use -o yaml, or leave -o out"));
    }
    printer.data(&get::manifests(files.iter().map(|file| &*file.text)))
}

fn files(objects: &[Resource]) -> Result<Vec<ManifestFile>, CommandError> {
    let file = |resource: &Resource| {
        let document = manifest_of(resource);
        let document = document.map_err(|error| CommandError::failed(error.to_string()))?;
        Ok(ManifestFile { name: resource.key().to_string(), text: document.to_yaml() })
    };
    objects.iter().map(file).collect()
}

fn export_objects(service: &ServiceName, allow: Vec<AllowEntry>) -> [Resource; 2] {
    [
        Resource::ServiceExport(ServiceExport { name: service.clone(), ports: Vec::new() }),
        Resource::AccessPolicy(AccessPolicy {
            namespace: service.namespace.clone(),
            name: policy_name(service),
            targets: vec![service.name.clone()],
            allow,
        }),
    ]
}

/// A name of its own, so that a policy that a user wrote for the service stays.
fn policy_name(service: &ServiceName) -> ObjectName {
    let name = format!("export-{}", service.name);
    // One name in a million is too long for the prefix.
    ObjectName::parse(&name).unwrap_or_else(|_| service.name.clone())
}

async fn warn_of_missing(
    node: &Operator,
    service: &ServiceName,
    printer: &Printer,
) -> Result<(), CommandError> {
    let services = node.list_services(ListServicesRequest {}).await?.services;
    let (namespace, name) = (service.namespace.as_str(), service.name.as_str());
    let is_it = |row: &&wire::operator::proto::ServiceStatus| {
        row.local && row.namespace == namespace && row.name == name
    };
    if !services.iter().any(|row| is_it(&row)) {
        printer.talk(&format!("warning: there is no Service {service} in this cluster yet"));
    }
    Ok(())
}

fn service_name(name: &str, namespace: Option<&str>) -> Result<ServiceName, CommandError> {
    let name = name.strip_prefix("svc/").unwrap_or(name);
    let found = kinds::object_name(ResourceKind::Service, name, namespace)?;
    let namespace = Namespace::parse(&found.namespace);
    let namespace = namespace.map_err(|error| CommandError::usage(error.to_string()))?;
    let name = ObjectName::parse(&found.name);
    let name = name.map_err(|error| CommandError::usage(error.to_string()))?;
    Ok(ServiceName::new(namespace, name))
}

/// `cluster=west,spiffe-id=spiffe://...`: all of an entry must match.
fn consumer(text: &str) -> Result<AllowEntry, CommandError> {
    let wrong = |problem: String| {
        CommandError::usage(format!("--to {text:?}: {problem}"))
            .hint("write cluster=NAME, trust-domain=NAME or spiffe-id=ID, several by commas")
    };
    let mut entry = AllowEntry::default();
    for part in text.split(',') {
        let Some((key, value)) = part.split_once('=') else {
            return Err(wrong(format!("{part:?} has no =")));
        };
        let repeated = match key {
            "cluster" => {
                let name = ClusterName::parse(value).map_err(|error| wrong(error.to_string()))?;
                entry.cluster.replace(name).is_some()
            }
            "trust-domain" => {
                let name = TrustDomain::parse(value).map_err(|error| wrong(error.to_string()))?;
                entry.trust_domain.replace(name).is_some()
            }
            "spiffe-id" => {
                let id = SpiffeId::parse(value).map_err(|error| wrong(error.to_string()))?;
                entry.spiffe_id.replace(id).is_some()
            }
            _ => return Err(wrong(format!("{key:?} is nothing to choose by"))),
        };
        if repeated {
            return Err(wrong(format!("{key} is there twice; repeat --to for another consumer")));
        }
    }
    Ok(entry)
}

fn grant_object(args: &cli::NamespaceGrant) -> Result<Resource, CommandError> {
    let usage = |error: String| CommandError::usage(error);
    let namespace = |text: &String| match text.strip_suffix('*') {
        Some(prefix) => NamespacePrefix::parse(prefix)
            .map(NamespaceMatch::Prefix)
            .map_err(|error| usage(error.to_string())),
        None => Namespace::parse(text)
            .map(NamespaceMatch::Name)
            .map_err(|error| usage(error.to_string())),
    };
    let cluster =
        |text: &String| ClusterName::parse(text).map_err(|error| usage(error.to_string()));
    let first = args.namespaces.first().map_or("", String::as_str);
    let name = args.name.as_deref().unwrap_or_else(|| first.trim_end_matches(['*', '-']));
    Ok(Resource::NamespaceGrant(NamespaceGrant {
        name: ObjectName::parse(name).map_err(|error| usage(error.to_string()))?,
        namespaces: args.namespaces.iter().map(namespace).collect::<Result<_, _>>()?,
        clusters: args.clusters.iter().map(cluster).collect::<Result<_, _>>()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    fn yaml(objects: &[Resource]) -> String {
        get::manifests(files(objects).unwrap().iter().map(|file| &*file.text))
    }

    #[test]
    fn an_export_is_two_objects() {
        let service = service_name("svc/api", Some("shop")).unwrap();
        let allow = [
            "cluster=west",
            "trust-domain=south.example,spiffe-id=spiffe://south.example/ns/a/sa/b",
        ];
        let allow = allow.map(|text| consumer(text).unwrap()).to_vec();
        let text = yaml(&export_objects(&service, allow));
        golden::check("export.yaml", &text);
        let manifest = api::parse_manifest("export.yaml", &text).unwrap();
        assert_eq!((manifest.objects.len(), manifest.diagnostics.len()), (2, 0));
    }

    #[test]
    fn a_grant_is_one_object() {
        let args = cli::NamespaceGrant {
            namespaces: vec!["shop".into(), "team-a-*".into()],
            clusters: vec!["west".into(), "south".into()],
            name: None,
            dry_run: true,
        };
        let text = yaml(&[grant_object(&args).unwrap()]);
        golden::check("grant.yaml", &text);
        assert_eq!(api::parse_manifest("grant.yaml", &text).unwrap().diagnostics, []);
    }

    #[test]
    fn consumers_that_are_none_are_refused() {
        for (text, wanted) in [
            ("west", "\"west\" has no ="),
            ("", "has no ="),
            ("cluster=West", "--to \"cluster=West\""),
            ("name=west", "\"name\" is nothing to choose by"),
            ("cluster=a,cluster=b", "cluster is there twice"),
            ("spiffe-id=west", "--to \"spiffe-id=west\""),
        ] {
            let error = consumer(text).unwrap_err().to_string();
            assert!(
                error.contains(wanted) && error.contains("hint: write cluster=NAME"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_service_says_its_namespace() {
        let error = service_name("api", None).unwrap_err().to_string();
        assert!(error.contains("in which namespace?"), "{error}");
        assert_eq!(service_name("shop/api", None).unwrap().to_string(), "shop/api");
    }
}
