//! Each planted bug is found. A simulation that finds nothing proves nothing.

use super::plant::Plant;
use super::scene::Scene;
use super::simulate;

/// Within so many seeds.
const SEEDS: u64 = 1000;

/// `first` found it when this was written, and saves time while it still does.
fn hunt(plant: Plant, first: u64) {
    for seed in std::iter::once(first).chain(1..=SEEDS) {
        let report = simulate(Scene { plant: Some(plant), ..Scene::new(seed) });
        if let Some(text) = report.violation {
            println!("{plant:?} is found with seed {seed}: {text}");
            return;
        }
    }
    panic!("{plant:?} is not found within {SEEDS} seeds");
}

macro_rules! planted {
    ($($name:ident: $plant:ident, $first:literal;)*) => {
        $(
            #[test]
            fn $name() {
                hunt(Plant::$plant, $first);
            }
        )*
    };
}

planted! {
    acknowledging_before_the_sync_is_found: AckBeforeSync, 1;
    a_lost_vote_is_found: LostVote, 1;
    a_forgotten_position_is_found: AppliedLost, 1;
    a_lost_truncation_is_found: TruncationLost, 388;
    a_stale_read_is_found: StaleRead, 2;
    a_snapshot_without_the_last_write_is_found: SnapshotMissesLast, 1;
    commands_in_another_order_are_found: ReorderedApply, 1;
    a_retry_that_is_applied_again_is_found: RetryAppliedAgain, 2;
    a_command_that_is_skipped_is_found: ApplySkipped, 1;
    a_skipped_verification_is_found: SkippedVerification, 4;
    a_forgotten_high_water_mark_is_found: ForgottenHighWater, 4;
    a_forgotten_request_is_found: ForgottenRequests, 8;
    a_gap_in_a_watch_is_found: WatchGap, 4;
}
