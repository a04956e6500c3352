//! The calls to the API server that write.

use std::fmt;
use std::time::Duration;

use api::kubernetes::{FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL};
use kube::Client;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use model::code::{
    API_SERVER_FORBIDDEN, API_SERVER_REFUSED, API_SERVER_UNREACHABLE, Code, OBJECT_FOREIGN,
};
use serde_json::Value;

use super::WRITER_LABEL;
use super::apply::{Observed, Step, Target};
use super::writer::Owned;
use crate::limits::{KUBERNETES_CALL_TIMEOUT, KUBERNETES_LIST_PAGE};

/// Why a call had no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.problem)
    }
}

impl Failure {
    pub(super) fn silence(waited: Duration) -> Self {
        let problem = format!("no answer within {} ms", waited.as_millis());
        Self { code: API_SERVER_UNREACHABLE, problem }
    }

    pub(super) fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self {
                code: match status.code {
                    401 | 403 => API_SERVER_FORBIDDEN,
                    429 | 500.. => API_SERVER_UNREACHABLE,
                    _ => API_SERVER_REFUSED,
                },
                problem: status.message.clone(),
            },
            other => Self { code: API_SERVER_UNREACHABLE, problem: other.to_string() },
        }
    }
}

/// Bounds a call: the client alone would wait for long on a connection that went silent.
pub(super) async fn in_time<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, Failure> {
    let answered = tokio::time::timeout(KUBERNETES_CALL_TIMEOUT, call).await;
    answered.map_err(|_| Failure::silence(KUBERNETES_CALL_TIMEOUT))
}

/// A writer's own objects. A kind that the API server does not serve has none.
pub(super) async fn list_own(
    client: &Client,
    owned: &[Owned],
    writer: &str,
) -> Result<Observed, Failure> {
    let labels = format!("{MANAGED_BY_LABEL}={MANAGED_BY},{WRITER_LABEL}={writer}");
    let mut own = Observed::default();
    for Owned { kind, namespace } in owned {
        let api = kind.api(client, namespace.as_deref());
        let mut page = ListParams::default().labels(&labels).limit(KUBERNETES_LIST_PAGE);
        loop {
            let list = match in_time(api.list(&page)).await? {
                Ok(list) => list,
                Err(kube::Error::Api(status)) if status.code == 404 => break,
                Err(error) => return Err(Failure::of(&error)),
            };
            for object in list.items {
                let (namespace, name) =
                    (object.metadata.namespace.clone(), object.metadata.name.clone());
                let target =
                    Target { kind, namespace, name: name.unwrap_or_default(), status: false };
                own.objects.insert(target, value(&object)?);
            }
            match list.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => page.continue_token = Some(next),
                None => break,
            }
        }
    }
    Ok(own)
}

/// The object after the call. `Ok(None)`: there is nothing to be done any more.
pub(super) async fn carry_out(client: &Client, step: &Step) -> Result<Option<Value>, Failure> {
    match step {
        Step::Apply { target, document, whole, known } => {
            let api = target.kind.api(client, target.namespace.as_deref());
            let mut params = PatchParams::apply(FIELD_MANAGER);
            params.force = true;
            if *whole && !known {
                params.force = is_ours(client, target).await?;
            }
            let patch = Patch::Apply(document);
            let applied = match target.status {
                true => in_time(api.patch_status(&target.name, &params, &patch)).await?,
                false => in_time(api.patch(&target.name, &params, &patch)).await?,
            };
            match applied {
                Ok(object) => value(&object).map(Some),
                // A user's object that is gone has no status, and needs none.
                Err(kube::Error::Api(status)) if status.code == 404 && !whole => Ok(None),
                Err(error) => Err(Failure::of(&error)),
            }
        }
        Step::Delete { target, uid } => {
            let api = target.kind.api(client, target.namespace.as_deref());
            let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let params = DeleteParams::background().preconditions(preconditions);
            match in_time(api.delete(&target.name, &params)).await? {
                Ok(_) => Ok(None),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(Failure::of(&error)),
            }
        }
    }
}

/// Whether an object that this node has not seen among its own is there and is its own all the same.
/// Without it the call is not forced, so that one made in between is not taken over.
async fn is_ours(client: &Client, target: &Target) -> Result<bool, Failure> {
    let api = target.kind.api(client, target.namespace.as_deref());
    let there = in_time(api.get_metadata_opt(&target.name)).await?;
    let Some(there) = there.map_err(|error| Failure::of(&error))? else { return Ok(false) };
    let labels = there.metadata.labels.unwrap_or_default();
    if labels.get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY) {
        return Ok(true);
    }
    let problem = format!(
        "{target} is there already and was not made by Fedgate, which leaves it alone; rename or \
         remove it"
    );
    Err(Failure { code: OBJECT_FOREIGN, problem })
}

fn value(object: &kube::core::DynamicObject) -> Result<Value, Failure> {
    serde_json::to_value(object).map_err(|error| Failure {
        code: API_SERVER_REFUSED,
        problem: format!("the answer cannot be read: {error}"),
    })
}
