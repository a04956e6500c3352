//! Gateways are replaced behind a load balancer that is none of ours.

use std::time::{Duration, Instant};

use testkit::haproxy::HaProxy;
use testkit::outside::Failure;
use testkit::scenes::rolling::Scene;

const REQUESTS: u64 = 20_000;
const ALL_LIMIT: Duration = Duration::from_secs(300);

#[test]
fn two_gateways_behind_haproxy_restart_in_turn_and_no_request_fails() {
    if let Some(reason) = HaProxy::unavailable() {
        println!(
            "skipped: faults::rolling::two_gateways_behind_haproxy_restart_in_turn_and_no_request_fails: \
             {reason}"
        );
        return;
    }
    let mut scene = Scene::start().unwrap();
    let seen = scene.run(REQUESTS, Instant::now() + ALL_LIMIT).unwrap();
    println!("{} restarts: {seen}", scene.restarts);
    seen.assert_clean();
    assert!(seen.requests >= REQUESTS && scene.restarts >= 4, "{seen}");

    // One that dies takes with it what it has under way, and nothing else.
    scene.kill(0).unwrap();
    let after = scene.ledger();
    println!("one killed: {after}");
    let unserved = after.count(Failure::Refused) + after.count(Failure::TimedOut);
    assert!(unserved == 0 && after.failed() <= IN_FLIGHT_MAX, "{after}");
}

/// Each client has one request under way, and HAProxy may send one more to each gateway that it has not
/// yet found dead.
const IN_FLIGHT_MAX: u64 = 8;
