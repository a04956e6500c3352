//! When this process cannot go on: its store has failed for good, and another process could open it.
//!
//! What a write that failed has left is not known, so that a store is never used on. It is opened anew by
//! the next process, from what is on the device. While the disk takes no writes, that process could do
//! less than this one, which serves its gateways all that it has: so this one stays.

use std::path::Path;

use model::code::STORE_FAULT;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::limits::{STORE_FAULT_LOOK_INTERVAL, STORE_FAULT_PAUSE};
use crate::membership::Membership;
use crate::room;

/// Returns when the process is to end, with the reason.
pub(super) async fn until_unable(membership: &Membership, folder: &Path) -> String {
    let mut looks = interval(STORE_FAULT_LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since: Option<Instant> = None;
    let mut waits = false;
    loop {
        looks.tick().await;
        let Some(fault) = membership.store_fault() else {
            (since, waits) = (None, false);
            continue;
        };
        let since = *since.get_or_insert_with(|| {
            tracing::error!(code = %STORE_FAULT, problem = fault, "the store has failed");
            Instant::now()
        });
        let at = folder.to_path_buf();
        let tried = tokio::task::spawn_blocking(move || room::try_write(&at)).await;
        match tried.unwrap_or_else(|problem| Err(problem.to_string())) {
            Ok(room) if since.elapsed() >= STORE_FAULT_PAUSE => {
                return format!(
                    "{STORE_FAULT}: the store in {} has failed ({fault}); the disk takes writes, with \
                     {} bytes free, so the node ends, for its service manager to start it anew",
                    folder.display(),
                    room.free
                );
            }
            Err(problem) if !waits => {
                tracing::error!(problem, "gateways are served on; the disk is waited for");
                waits = true;
            }
            Ok(_) | Err(_) => {}
        }
    }
}
