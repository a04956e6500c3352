//! Changes that the node makes because an object or the configuration asks for them.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use model::code::DATA_FOLDER_UNUSABLE;

use crate::audit::{Actor, Audit, Parameters};
use crate::kubernetes::calls::Failure;
use crate::membership::MembershipError;
use crate::operator::User;
use crate::peer::own_uid;

/// Makes a change, written into the audit record before and after. Once begun it is made whole, also
/// when nobody waits for it any more. Nothing secret may be among the parameters.
pub(super) async fn audited<T: Send + 'static>(
    audit: &Arc<Audit>,
    verb: &'static str,
    parameters: Parameters,
    change: impl Future<Output = Result<T, MembershipError>> + Send + 'static,
) -> Result<T, Failed> {
    let audit = Arc::clone(audit);
    let task = tokio::spawn(async move {
        let record = audit.clone();
        let begin = move || {
            let user = User::Unix(own_uid().map_err(|problem| problem.to_string())?);
            let actor = Actor { user, role: "node" };
            let begun = record.begin(actor, verb, parameters, SystemTime::now());
            begun.map_err(|problem| problem.to_string())
        };
        let begun = match tokio::task::spawn_blocking(begin).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(problem)) => return Err(Failed::unaudited(&problem)),
            Err(problem) => return Err(Failed::unaudited(&problem.to_string())),
        };
        let done = change.await;
        let outcome = done.as_ref().map(|_| ()).map_err(ToString::to_string);
        let end = move || audit.end(begun, outcome, SystemTime::now());
        if let Err(problem) = tokio::task::spawn_blocking(end).await {
            tracing::error!(%problem, verb, "the outcome of a call is not in the audit record");
        }
        done.map_err(Failed::Change)
    });
    task.await.unwrap_or_else(|problem| Err(Failed::unaudited(&problem.to_string())))
}

/// Why there was no change.
#[derive(Debug)]
pub(super) enum Failed {
    Change(MembershipError),
    Unaudited(String),
}

impl Failed {
    fn unaudited(problem: &str) -> Self {
        Self::Unaudited(format!(
            "the audit record cannot be written, so nothing was done: {problem}"
        ))
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Change(error) => Self { code: error.code(), problem: error.to_string() },
            Failed::Unaudited(problem) => Self { code: DATA_FOLDER_UNUSABLE, problem },
        }
    }
}
