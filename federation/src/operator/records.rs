//! The audit record, as operators ask for it.

use std::sync::Arc;

use tonic::Status as GrpcStatus;
use wire::operator::proto::{AuditEntries, AuditEntry, AuditParameter, AuditVerdict};

use super::Operator;
use super::audited::blocking;
use crate::audit::{History, Verdict};
use crate::limits::AUDIT_CALLS_LISTED_MAX;

pub(super) async fn list(node: &Operator, last: u32) -> Result<AuditEntries, GrpcStatus> {
    let last = match usize::try_from(last) {
        Ok(0) | Err(_) => AUDIT_CALLS_LISTED_MAX,
        Ok(last) => last.min(AUDIT_CALLS_LISTED_MAX),
    };
    let audit = Arc::clone(&node.audit);
    let calls = blocking(move || audit.list(last)).await?;
    Ok(AuditEntries { entries: calls.into_iter().map(entry).collect() })
}

fn entry(call: History) -> AuditEntry {
    let History { record, outcome, detail } = call;
    let parameters = record.parameters.into_iter();
    AuditEntry {
        sequence: record.sequence,
        time_unix_ms: record.time_unix_ms,
        uid: record.uid,
        user: record.user.unwrap_or_default(),
        role: record.role,
        verb: record.verb,
        parameters: parameters.map(|(name, value)| AuditParameter { name, value }).collect(),
        outcome: outcome.into(),
        detail,
    }
}

pub(super) async fn verify(node: &Operator) -> Result<AuditVerdict, GrpcStatus> {
    let audit = Arc::clone(&node.audit);
    let Verdict { entries, first, end, breaks } = blocking(move || audit.verify()).await?;
    Ok(AuditVerdict {
        entries,
        first_sequence: first,
        last_sequence: end.next_sequence.saturating_sub(1),
        last_hash: end.hash.0.to_vec(),
        breaks,
    })
}
