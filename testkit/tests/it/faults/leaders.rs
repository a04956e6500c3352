//! The leader's node dies in the middle of writes.

use std::time::{Duration, Instant};

use testkit::scenes::leaders::Scene;

const ROUNDS: usize = 20;
const ALL_LIMIT: Duration = Duration::from_secs(300);
/// A quarter of the rounds may take longer, since the machine runs other tests too.
const BACK_MAX: Duration = Duration::from_millis(1500);

#[test]
fn twenty_leaders_die_and_no_acknowledged_write_is_lost() {
    let scene = Scene::start().unwrap();
    let outcome = scene.run(ROUNDS, Instant::now() + ALL_LIMIT).unwrap();
    let [half, most] = [50, 100].map(|percent| outcome.back_at(percent).unwrap());
    println!(
        "{} leaders died, {} writes acknowledged, {} of unknown outcome; writes back after {half:?}, \
         {most:?} at most; {}",
        outcome.back.len(),
        outcome.acknowledged.writes,
        outcome.acknowledged.unknown,
        outcome.seen
    );
    outcome.check().unwrap();
    outcome.seen.assert_clean();
    assert_eq!(outcome.back.len(), ROUNDS);
    assert!(outcome.back_at(75).unwrap() < BACK_MAX, "{:?}", outcome.back);
}
