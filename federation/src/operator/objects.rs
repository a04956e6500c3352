//! Objects in service, and changes to the applied ones.

use std::sync::Arc;
use std::time::SystemTime;

use api::manifest_of;
use model::{Namespace, ObjectName, Resource, ResourceKey, ResourceKind};
use tonic::{Response, Status as GrpcStatus};
use wire::operator::proto::{self, ObjectChanges, ObjectSource, ObjectStatus, Objects};
use wire::resource::encode_diagnostic;

use super::audited::{audited, blocking};
use super::gate::{denied, too_low};
use super::node::own_findings;
use super::roles::role_for_kind;
use super::{Caller, Operator, View};
use crate::applied::{Applied, AppliedError, ChangeKind, ObjectChange, Origin, Plan};
use crate::limits::OBJECTS_ANSWER_BYTES_MAX;
use crate::refusal::refuse;

const IN_THE_FOLDER: &str = "it is in the folder of manifests; remove it from its file";
const IN_THE_CLUSTER: &str = "it is in the cluster's API server; remove it by `kubectl delete`";
const OF_THE_FEDERATION: &str =
    "it comes from the federation; the cluster that exports it may withdraw it";
/// Objects that an entry of the audit record names; it also has their number.
const NAMED_MAX: usize = 12;

/// What is in service and was asked for.
pub(super) fn list(
    node: &Operator,
    view: &View,
    request: &proto::ListObjectsRequest,
) -> Result<Objects, GrpcStatus> {
    let kind = match &*request.kind {
        "" => None,
        name => Some(kind_named(name)?),
    };
    let wanted = |key: &ResourceKey| {
        let namespace = key.namespace.as_ref().map_or("", Namespace::as_str);
        kind.is_none_or(|kind| key.kind == kind)
            && (request.namespace.is_empty() || namespace == request.namespace)
            && (request.name.is_empty() || key.name.as_str() == request.name)
    };
    let (mut answer, mut bytes) = (Objects::default(), 0);
    for (key, resource) in view.resources.iter().filter(|(key, _)| wanted(key)) {
        let object = object(node, view, key, resource)?;
        bytes += object.manifest.len();
        if bytes > OBJECTS_ANSWER_BYTES_MAX {
            answer.left_out += 1;
        } else {
            answer.objects.push(object);
        }
    }
    Ok(answer)
}

fn object(
    node: &Operator,
    view: &View,
    key: &ResourceKey,
    resource: &Resource,
) -> Result<ObjectStatus, GrpcStatus> {
    let written = || {
        let document = manifest_of(resource);
        document.map_err(|error| GrpcStatus::internal(format!("{key}: {error}")))
    };
    let (source, document) = match (node.declared.origin(key), node.applied.get(key)) {
        (Some(Origin::Kubernetes), _) => (ObjectSource::Kubernetes, written()?),
        (Some(Origin::File), _) => (ObjectSource::File, written()?),
        (None, Some(object)) => (ObjectSource::Applied, object.document.stamped(&object.stamp)),
        (None, None) => (ObjectSource::Federation, written()?),
    };
    let name = key.to_string();
    let findings = own_findings(view).filter(|(_, found)| found.object == name);
    Ok(ObjectStatus {
        kind: key.kind.as_str().into(),
        namespace: key.namespace.as_ref().map_or_else(String::new, ToString::to_string),
        name: key.name.to_string(),
        source: source.into(),
        manifest: document.to_yaml(),
        findings: findings.map(|(_, found)| encode_diagnostic(found)).collect(),
    })
}

pub(super) fn compare(
    node: &Operator,
    request: &proto::ApplyObjectsRequest,
) -> Result<ObjectChanges, GrpcStatus> {
    let mut plan = node.applied.compare(&files(request))?;
    warn_of_shadows(node, &mut plan);
    Ok(encode(&plan))
}

pub(super) async fn apply(
    node: &Operator,
    caller: Caller,
    request: proto::ApplyObjectsRequest,
) -> Result<Response<ObjectChanges>, GrpcStatus> {
    let parameters = match node.applied.compare(&files(&request)) {
        Ok(plan) => named(plan.changes.iter().map(|change| &change.key)),
        // It will be refused again, and then its outcome is in the record.
        Err(_) => {
            let files = request.files.iter().take(NAMED_MAX);
            files.map(|file| ("file", file.name.clone())).collect()
        }
    };
    let applied = Arc::clone(&node.applied);
    let role = caller.clone();
    let change = blocking(move || {
        let allowed = |plan: &Plan| allowed(&role, plan);
        applied.apply(&files(&request), SystemTime::now(), allowed)
    });
    let change = async { change.await? };
    let done = audited(&node.audit, caller, "ApplyObjects", parameters, change).await?;
    let mut plan = done.into_inner();
    warn_of_shadows(node, &mut plan);
    Ok(Response::new(encode(&plan)))
}

pub(super) async fn delete(
    node: &Operator,
    caller: Caller,
    request: proto::DeleteObjectsRequest,
) -> Result<Response<ObjectChanges>, GrpcStatus> {
    let keys: Vec<_> = request.names.iter().map(key).collect::<Result<_, _>>()?;
    let parameters = named(keys.iter());
    let applied: Arc<Applied> = Arc::clone(&node.applied);
    let (declared, (_, served)) = (node.declared.clone(), node.revisions.resources());
    let role = caller.clone();
    let change = blocking(move || {
        let whose = |key: &ResourceKey| match declared.origin(key) {
            Some(Origin::Kubernetes) => Some(IN_THE_CLUSTER),
            Some(Origin::File) => Some(IN_THE_FOLDER),
            None => served.get(key).map(|_| OF_THE_FEDERATION),
        };
        let allowed = |plan: &Plan| allowed(&role, plan);
        applied.delete(&keys, request.ignore_missing, whose, SystemTime::now(), allowed)
    });
    let change = async { change.await? };
    let done = audited(&node.audit, caller, "DeleteObjects", parameters, change).await?;
    Ok(Response::new(encode(&done.into_inner())))
}

fn files(request: &proto::ApplyObjectsRequest) -> Vec<(&str, &str)> {
    request.files.iter().map(|file| (&*file.name, &*file.text)).collect()
}

/// Some kinds need more than the procedure.
fn allowed(caller: &Caller, plan: &Plan) -> Result<(), GrpcStatus> {
    let changed = plan.changes.iter().filter(|change| change.kind != ChangeKind::Unchanged);
    for key in changed.map(|change| &change.key) {
        let needed = role_for_kind(key.kind);
        if caller.role < needed {
            let what = format!("changing a {}", key.kind.as_str());
            return Err(denied(too_low(caller, &what, needed)));
        }
    }
    Ok(())
}

fn named<'a>(keys: impl ExactSizeIterator<Item = &'a ResourceKey>) -> crate::audit::Parameters {
    let mut parameters = vec![("objects", keys.len().to_string())];
    parameters.extend(keys.take(NAMED_MAX).map(|key| ("object", key.to_string())));
    parameters
}

/// What is applied but also in the folder is not in service: whoever applies it should know.
fn warn_of_shadows(node: &Operator, plan: &mut Plan) {
    let warning = |change: &ObjectChange| {
        let origin = node.declared.origin(&change.key)?;
        Some(crate::applied::shadowed(&change.key, origin))
    };
    let warnings: Vec<_> = plan.changes.iter().filter_map(warning).collect();
    plan.warnings.extend(warnings);
}

fn encode(plan: &Plan) -> ObjectChanges {
    let change = |change: &ObjectChange| {
        let kind = match change.kind {
            ChangeKind::Created => proto::ChangeKind::Created,
            ChangeKind::Configured => proto::ChangeKind::Configured,
            ChangeKind::Unchanged => proto::ChangeKind::Unchanged,
            ChangeKind::Deleted => proto::ChangeKind::Deleted,
        };
        let key = &change.key;
        let before = change.before.as_ref().map_or_else(String::new, api::Document::to_yaml);
        let after = change.after.as_ref().map_or_else(String::new, |(after, ..)| after.to_yaml());
        let name = proto::ObjectName {
            kind: key.kind.as_str().into(),
            namespace: key.namespace.as_ref().map_or_else(String::new, ToString::to_string),
            name: key.name.to_string(),
        };
        proto::ObjectChange { name: Some(name), change: kind.into(), before, after }
    };
    ObjectChanges {
        changes: plan.changes.iter().map(change).collect(),
        warnings: plan.warnings.iter().map(encode_diagnostic).collect(),
    }
}

fn key(name: &proto::ObjectName) -> Result<ResourceKey, GrpcStatus> {
    let kind = kind_named(&name.kind)?;
    let invalid = |problem: String| GrpcStatus::invalid_argument(problem);
    let namespace = match (&*name.namespace, kind.is_namespaced()) {
        ("", false) => None,
        (namespace, true) => {
            Some(Namespace::parse(namespace).map_err(|error| invalid(error.to_string()))?)
        }
        (_, false) => return Err(invalid(format!("a {} is in no namespace", kind.as_str()))),
    };
    let name = ObjectName::parse(&name.name).map_err(|error| invalid(error.to_string()))?;
    Ok(ResourceKey { kind, namespace, name })
}

fn kind_named(name: &str) -> Result<ResourceKind, GrpcStatus> {
    let found = ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    found.ok_or_else(|| GrpcStatus::invalid_argument(format!("kind {name:?} is not served")))
}

impl From<AppliedError> for GrpcStatus {
    fn from(error: AppliedError) -> Self {
        let grpc = match &error {
            AppliedError::Refused(_) => tonic::Code::InvalidArgument,
            AppliedError::Missing { .. } => tonic::Code::NotFound,
            AppliedError::NotApplied { .. } => tonic::Code::FailedPrecondition,
            AppliedError::Damaged { .. } | AppliedError::Folder(_) => tonic::Code::Aborted,
        };
        refuse(grpc, error.code(), &error)
    }
}
