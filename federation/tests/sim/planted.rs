//! Each planted bug is found. A simulation that finds nothing proves nothing.

use super::plant::Plant;
use super::scene::Scene;
use super::simulate;

/// Within so many seeds.
const SEEDS: u64 = 1000;

fn hunt(plant: Plant) {
    for seed in 1..=SEEDS {
        let report = simulate(Scene { plant: Some(plant), ..Scene::new(seed) });
        if let Some(text) = report.violation {
            println!("{plant:?} is found with seed {seed}: {text}");
            return;
        }
    }
    panic!("{plant:?} is not found within {SEEDS} seeds");
}

macro_rules! planted {
    ($($name:ident: $plant:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                hunt(Plant::$plant);
            }
        )*
    };
}

planted! {
    acknowledging_before_the_sync_is_found: AckBeforeSync,
    a_lost_vote_is_found: LostVote,
    a_forgotten_position_is_found: AppliedLost,
    a_lost_truncation_is_found: TruncationLost,
    a_stale_read_is_found: StaleRead,
    a_snapshot_without_the_last_write_is_found: SnapshotMissesLast,
    commands_in_another_order_are_found: ReorderedApply,
    a_retry_that_is_applied_again_is_found: RetryAppliedAgain,
    a_command_that_is_skipped_is_found: ApplySkipped,
}
