//! Heads, verified against the members that this node knows.

use wire::store::{Domain, Head, Signed};

use crate::fleet::{self, Fleet};

use super::compare::SeenHead;
use super::freshness::Issue;

/// Verifies what somebody told. `None`: its owner is no active member as far as is known here.
pub(super) fn verify(fleet: &Fleet, signed: &Signed) -> Result<Option<SeenHead>, String> {
    let head = Head::of(signed).map_err(|error| error.to_string())?;
    if fleet.federation() != Some(head.federation) {
        return Err(format!("Head.federation = {}: it is another federation", head.federation));
    }
    let Some(entry) = fleet.entry(&head.cluster).filter(|entry| entry.is_active()) else {
        return Ok(None);
    };
    let named = |refusal: fleet::Refusal| format!("{}: {refusal}", entry.member().name);
    let key = entry.key_at(&head.key_id, head.mark).map_err(named)?;
    fleet::verify(signed, Domain::Head, &key.spki).map_err(named)?;
    Ok(Some(seen(&head, signed)))
}

/// A Head of the node's own state, which was verified when it came in.
pub(super) fn seen(head: &Head, signed: &Signed) -> SeenHead {
    SeenHead {
        owner: head.cluster,
        issue: Issue { mark: head.mark, issued_at_unix_ms: head.issued_at_unix_ms },
        digest: head.digest,
        signed: signed.clone(),
    }
}
