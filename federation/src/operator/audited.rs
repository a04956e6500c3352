//! A change on behalf of a caller: written into the audit record before and after.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use tonic::{Request, Response, Status as GrpcStatus};

use super::Caller;
use crate::audit::{Audit, Parameters};
use crate::refusal::refuse;

/// Whom the gate let in.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, GrpcStatus> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| GrpcStatus::internal("the call did not come through the gate"))
}

/// Makes a change. It goes on when the caller hangs up meanwhile: a change is made whole, and its
/// outcome written. Nothing secret may be among the parameters, nor in the change's error.
pub(super) async fn audited<T: Send + 'static>(
    audit: &Arc<Audit>,
    caller: Caller,
    verb: &'static str,
    parameters: Parameters,
    change: impl Future<Output = Result<T, GrpcStatus>> + Send + 'static,
) -> Result<Response<T>, GrpcStatus> {
    let audit = Arc::clone(audit);
    let task = tokio::spawn(async move {
        let record = audit.clone();
        let begin = move || record.begin(caller.actor(), verb, parameters, SystemTime::now());
        let begun = blocking(begin).await?.map_err(|problem| {
            let text =
                format!("the audit record cannot be written, so nothing was done: {problem}");
            refuse(tonic::Code::Aborted, problem.code(), text)
        })?;
        let done = change.await;
        let outcome = done.as_ref().map(|_| ()).map_err(|status| status.message().to_string());
        blocking(move || audit.end(begun, outcome, SystemTime::now())).await?;
        done
    });
    let done = task.await.map_err(|problem| GrpcStatus::internal(problem.to_string()))?;
    done.map(Response::new)
}

/// Runs what waits for a disk where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, GrpcStatus> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|problem| GrpcStatus::internal(problem.to_string()))
}
