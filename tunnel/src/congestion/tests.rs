//! The controller alone, and on paths in virtual time.

use std::time::{Duration, Instant};

use super::network::{Bottleneck, Controllers, Network, Outcome, Path, Work};
use super::*;

const STEADY: CongestionControl = CongestionControl::Steady;
const CUBIC: CongestionControl = CongestionControl::Cubic;

fn build(control: CongestionControl) -> Steady {
    let built = Arc::new(SteadyConfig(control)).build(Instant::now(), 1200);
    *built.into_any().downcast::<Steady>().unwrap()
}

/// Window after so many packets of which each `every`th is lost, at this standing queue.
fn window_after(control: CongestionControl, every: u64, queue: Duration) -> (u64, u64) {
    let (start, steady) = steady_after(control, every, queue);
    (start, steady.window())
}

fn steady_after(control: CongestionControl, every: u64, queue: Duration) -> (u64, Steady) {
    let mut steady = build(control);
    let base = Duration::from_millis(40);
    let (start, mut now) = (steady.window(), Instant::now());
    steady.round_trips.follow(now, base, base);
    for _ in 0..2 {
        now += base * 2;
        steady.round_trips.follow(now, base + queue, base + queue);
    }
    for packet in 1..=2000_u64 {
        now += Duration::from_millis(1);
        if packet % every == 0 {
            steady.on_congestion_event(now, now - base, false, 1200);
        } else if let Some(filter) = &mut steady.filter {
            filter.acknowledged(1200, start);
        }
    }
    (start, steady)
}

#[test]
fn isolated_loss_is_the_paths_own_and_anything_else_is_congestion() {
    let (start, after) = window_after(STEADY, 100, Duration::ZERO);
    assert_eq!(start, after, "1 % loss without a queue");
    let (start, after) = window_after(STEADY, 100, Duration::from_millis(30));
    assert!(after < start, "1 % loss with a standing queue");
    let (start, after) = steady_after(STEADY, 10, Duration::ZERO);
    assert!(after.inner.window() < start, "10 % loss");
    assert_eq!(after.window(), start, "10 % loss without a queue, and a new connection's window");
    let (start, after) = window_after(STEADY, 10, Duration::from_millis(30));
    assert!(after < start, "10 % loss with a standing queue");
    let (start, after) = window_after(CUBIC, 100, Duration::ZERO);
    assert!(after < start, "CUBIC takes each loss for congestion");
}

#[test]
fn a_lossy_path_has_the_windows_of_many_connections_but_twice_what_came_through_at_most() {
    let (_, mut steady) = steady_after(STEADY, 10, Duration::ZERO);
    let now = Instant::now();
    steady.delivered.acknowledged(now, 20_000);
    assert_eq!(steady.window(), 40_000);
    steady.delivered.acknowledged(now, 1_000_000);
    let packets = steady.window() / 1200;
    assert!((50..=75).contains(&packets), "{packets} packets at 10 %");
    steady.on_congestion_event(now, now, true, 1200);
    assert_eq!(steady.window(), 2 * 1200, "nothing came through for long");
    steady.told_off_until = None;
    assert_eq!(steady.window(), steady.initial_window(), "and it begins anew");
}

#[test]
fn marks_and_persistent_congestion_always_count() {
    for (is_persistent, lost_bytes) in [(true, 1200), (false, 0)] {
        let mut steady = build(STEADY);
        let (start, now) = (steady.window(), Instant::now());
        steady.round_trips.follow(now, Duration::from_millis(40), Duration::from_millis(40));
        steady.on_congestion_event(now, now, is_persistent, lost_bytes);
        assert!(steady.window() < start, "{is_persistent} {lost_bytes}");
    }
}

#[test]
fn spread_follows_the_samples() {
    let mut steady = build(CUBIC);
    let ms = Duration::from_millis;
    for _ in 0..20 {
        steady.round_trips.follow(Instant::now(), ms(50), ms(58));
    }
    let var = Steady::rtt_var(steady.clone_box());
    assert!((ms(7)..=ms(8)).contains(&var), "{var:?}");
}

/// So many connections under this control.
fn each(control: CongestionControl, connections: usize) -> Controllers {
    let one = || Arc::new(SteadyConfig(control)) as Arc<dyn ControllerFactory + Send + Sync>;
    (0..connections).map(|_| one()).collect()
}

fn far(loss: f64) -> Path {
    Path { one_way: Duration::from_millis(50), loss, bottleneck: None }
}

const fn narrow(bits_per_s: u64, queue_packets: usize) -> Path {
    let bottleneck = Bottleneck { bits_per_s, queue_packets, marks_above: usize::MAX };
    Path { one_way: Duration::from_millis(20), loss: 0.0, bottleneck: Some(bottleneck) }
}

fn small(per_s: u32, connections: usize) -> Work {
    Work { small_per_s: per_s, small_on: connections, downloads: 0 }
}

/// Small requests after they have run for a while, over this many connections.
fn asks(control: CongestionControl, connections: usize, path: Path, per_s: u32) -> Outcome {
    let mut network = Network::new(path, each(control, connections), 1);
    let work = small(per_s, connections);
    network.run(work, Duration::from_secs(3));
    network.run(work, Duration::from_secs(20))
}

#[test]
fn one_connection_serves_small_requests_as_well_as_sixteen() {
    for (loss, per_s) in [(0.01, 50), (0.05, 50), (0.1, 50), (0.05, 100), (0.1, 100)] {
        let ours = asks(STEADY, 1, far(loss), per_s);
        let theirs = asks(CUBIC, 16, far(loss), per_s);
        let told = format!("{per_s}/s at {loss}: {ours:?}, sixteen of CUBIC {theirs:?}");
        println!("{told}");
        assert!(ours.answered >= theirs.answered * 9 / 10, "{told}");
        assert!(ours.p50_ms <= theirs.p50_ms * 1.1, "{told}");
        assert!(ours.p99_ms <= theirs.p99_ms * 1.1, "{told}");
    }
}

#[test]
fn a_path_that_got_longer_is_not_taken_for_a_queue_for_ever() {
    let near = Path { one_way: Duration::from_micros(100), ..far(0.0) };
    let mut network = Network::new(near, each(STEADY, 1), 1);
    network.run(small(50, 1), Duration::from_secs(2));
    network.path = far(0.1);
    network.run(small(50, 1), Duration::from_secs(20));
    let outcome = network.run(small(50, 1), Duration::from_secs(20));
    println!("got longer, 50/s at 0.1: {outcome:?}");
    assert!(outcome.p50_ms < 110.0 && outcome.p99_ms < 600.0, "{outcome:?}");
}

#[test]
fn a_connection_that_lives_through_an_outage_serves_as_before() {
    let mut network = Network::new(far(0.1), each(STEADY, 1), 1);
    network.run(small(50, 1), Duration::from_secs(10));
    let before = network.controller(0).window();
    assert!(before > 12_000, "{before}");
    network.path = far(1.0);
    network.run(small(50, 1), Duration::from_secs(3));
    network.path = far(0.1);
    network.run(small(50, 1), Duration::from_secs(10));
    let outcome = network.run(small(50, 1), Duration::from_secs(10));
    assert!(outcome.p50_ms < 110.0, "{outcome:?}");
}

/// Nothing that this controller adds may cost the others of a queue: 1.2, 0.5 and 0.15 round trips long.
#[test]
fn a_queue_is_shared_with_cubic_for_long() {
    for (bits_per_s, queue, least) in
        [(10_000_000, 40, 0.5), (20_000_000, 35, 0.5), (10_000_000, 5, 0.1)]
    {
        let controls = [each(STEADY, 1), each(CUBIC, 1)].concat();
        let mut network = Network::new(narrow(bits_per_s, queue), controls, 1);
        let work = Work { downloads: 2, ..Work::default() };
        let outcome = network.run(work, Duration::from_secs(20));
        let [ours, theirs] = outcome.mbit_per_s[..] else { panic!("{outcome:?}") };
        println!("{bits_per_s} bit/s, {queue} packets: {outcome:?}");
        assert!(theirs > ours * least, "{outcome:?}");
        assert!((ours + theirs) * 1e6 > bits_per_s as f64 * 0.8, "{outcome:?}");
        assert!(outcome.lost_percent < 4.0, "{outcome:?}");
    }
}

/// Of a path that loses a packet in a hundred by itself, and has a short queue.
#[test]
fn a_little_loss_does_not_make_us_overrun_a_short_queue() {
    let path = Path { loss: 0.01, ..narrow(20_000_000, 35) };
    let mut network = Network::new(path, each(STEADY, 1), 1);
    let outcome = network.run(Work { downloads: 1, ..Work::default() }, Duration::from_secs(8));
    assert!(outcome.mbit_per_s[0] > 13.0 && outcome.lost_percent < 4.0, "{outcome:?}");
}

/// A deep queue, of which a router marks packets long before it is full (RFC 3168).
#[test]
fn a_router_that_marks_packets_keeps_the_queue_short() {
    let work = Work { small_per_s: 20, small_on: 1, downloads: 1 };
    let p50_ms = |marks_above: usize| {
        let mut path = narrow(10_000_000, 400);
        path.bottleneck = path.bottleneck.map(|it| Bottleneck { marks_above, ..it });
        let mut network = Network::new(path, each(STEADY, 1), 1);
        network.run(work, Duration::from_secs(10));
        let outcome = network.run(work, Duration::from_secs(20));
        assert!(outcome.mbit_per_s[0] > 7.0, "{outcome:?}");
        outcome.p50_ms
    };
    let (marked, unmarked) = (p50_ms(20), p50_ms(usize::MAX));
    assert!(marked < 100.0 && unmarked > 150.0, "{marked} ms, without marks {unmarked} ms");
}

#[test]
fn a_deep_queue_of_our_own_is_not_taken_for_a_longer_path() {
    let mut network = Network::new(narrow(10_000_000, 400), each(STEADY, 1), 1);
    let work = Work { downloads: 1, ..Work::default() };
    network.run(work, Duration::from_secs(60));
    let steady = network.controller(0).into_any().downcast::<Steady>().unwrap();
    assert!(steady.round_trips.has_queue(), "{:?}", steady.round_trips);
    let outcome = network.run(work, Duration::from_secs(10));
    assert!(outcome.lost_percent < 1.0 && outcome.mbit_per_s[0] > 8.0, "{outcome:?}");
}
