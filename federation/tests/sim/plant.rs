//! Bugs that are planted to show that the simulation finds such ones. They sit in the simulated disk,
//! in wrappers around the machine and in the clients: the store itself has no switch for them.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Plant {
    /// The disk reports the log's entries as synced, but does not sync them.
    AckBeforeSync,
    /// The disk forgets the vote over a crash.
    LostVote,
    /// The disk forgets how far the machine was: after a restart, entries are applied twice.
    AppliedLost,
    /// The disk keeps the end of the log that was to be cut off.
    TruncationLost,
    /// A read is answered without asking a quorum who leads.
    StaleRead,
    /// A snapshot lacks the last write.
    SnapshotMissesLast,
    /// One node applies two commands in the other order.
    ReorderedApply,
    /// A retry takes effect again.
    RetryAppliedAgain,
    /// A node acknowledges a command, but does not change anything.
    ApplySkipped,
    /// Heads are taken without their signature being looked at.
    SkippedVerification,
    /// After a restart, an owner's older Head is taken again.
    ForgottenHighWater,
    /// A retried request of the fleet takes effect again.
    ForgottenRequests,
    /// A watcher is not told of some changes.
    WatchGap,
}

thread_local! {
    static PLANT: Cell<Option<Plant>> = const { Cell::new(None) };
    static NODE: Cell<u64> = const { Cell::new(0) };
}

/// For the rest of this thread's simulation.
pub(crate) fn set(plant: Option<Plant>) {
    PLANT.set(plant);
}

/// Which node runs now; 0 is the model against which all are compared, which has no bugs.
pub(crate) fn enter(node: u64) {
    NODE.set(node);
}

/// Whether this bug is in the node that runs now.
pub(crate) fn is(plant: Plant) -> bool {
    NODE.get() != 0 && PLANT.get() == Some(plant)
}

/// Whether this bug is in the program itself, so that the model has it too.
pub(crate) fn is_everywhere(plant: Plant) -> bool {
    PLANT.get() == Some(plant)
}

pub(crate) fn node() -> u64 {
    NODE.get()
}
