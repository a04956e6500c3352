//! Virtual time and kept seeds: no test here waits.

use super::*;
use crate::impair::GilbertElliott;

const SEED: u64 = 42;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A pipe with its own clock; each packet carries its number.
struct Bench {
    pipe: Pipe<u32>,
    start: Instant,
}

impl Bench {
    fn new(settings: Impairment) -> Self {
        Self::seeded(SEED, settings)
    }

    fn seeded(seed: u64, settings: Impairment) -> Self {
        let mut pipe = Pipe::new(seed);
        pipe.set(settings).unwrap();
        Self { pipe, start: Instant::now() }
    }

    fn push(&mut self, at: Duration, number: u32, bytes: usize) {
        self.pipe.push(self.start + at, number, vec![0; bytes]);
    }

    /// Everything that arrives until `at`: when, which, and its bytes.
    fn arrivals(&mut self, until: Duration) -> Vec<(Duration, u32, Vec<u8>)> {
        let mut arrived = Vec::new();
        while let Some(at) = self.pipe.next_at().filter(|at| *at <= self.start + until) {
            assert!(self.pipe.pop(at - Duration::from_nanos(1)).is_none(), "not before its time");
            let (number, packet) = self.pipe.pop(at).unwrap();
            self.pipe.count_forwarded(packet.len());
            arrived.push((at - self.start, number, packet));
        }
        self.check_books();
        arrived
    }

    fn numbers(&mut self, until: Duration) -> Vec<u32> {
        self.arrivals(until).into_iter().map(|(_, number, _)| number).collect()
    }

    /// Every packet is somewhere.
    fn check_books(&self) {
        let c = self.pipe.counters();
        let seen = c.forwarded_packets + c.dropped.total() + c.queued_packets;
        assert_eq!(c.received_packets + c.duplicated_packets, seen, "{c:?}");
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.pipe.counters().dropped.get(reason)
    }
}

/// One packet of 100 bytes per millisecond.
fn send_steadily(bench: &mut Bench, packets: u32) -> Vec<u32> {
    let mut arrived = Vec::new();
    for number in 0..packets {
        let now = ms(number.into());
        bench.push(now, number, 100);
        arrived.extend(bench.numbers(now));
    }
    arrived.extend(bench.numbers(ms(u64::from(packets) + 120_000)));
    arrived
}

#[test]
fn nothing_set_means_untouched_and_at_once() {
    let mut bench = Bench::new(Impairment::default());
    bench.push(ms(5), 1, 100);
    assert_eq!(bench.arrivals(ms(5)), [(ms(5), 1, vec![0; 100])]);
    let counters = bench.pipe.counters();
    assert_eq!((counters.received_bytes, counters.forwarded_bytes), (100, 100));
}

#[test]
fn delay_is_exact_and_jitter_stays_within_its_bound_and_keeps_order() {
    let jitter = Impairment { jitter: ms(10), ..Impairment::delayed(ms(20)) };
    let mut bench = Bench::new(jitter);
    for number in 0..1_000 {
        bench.push(ms(number.into()), number, 1);
    }
    let arrived = bench.arrivals(ms(2_000));
    assert_eq!(arrived.len(), 1_000);
    let mut delays = Vec::new();
    for (expected, (at, number, _)) in (0..).zip(&arrived) {
        assert_eq!(*number, expected, "jitter alone never reorders");
        delays.push(*at - ms(u64::from(expected)));
    }
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(*least >= ms(20) && *least < ms(22), "{least:?}");
    assert!(*most <= ms(30) && *most > ms(28), "{most:?}");
}

#[test]
fn random_loss_has_its_rate_and_depends_on_the_seed_only() {
    let settings = || Impairment::default().with_loss(0.01);
    let arrived = send_steadily(&mut Bench::new(settings()), 100_000);
    let lost = 100_000 - arrived.len();
    assert!((900..1_100).contains(&lost), "{lost} of 100,000");
    assert_eq!(arrived, send_steadily(&mut Bench::new(settings()), 100_000));
    assert_ne!(arrived, send_steadily(&mut Bench::seeded(SEED + 1, settings()), 100_000));

    // Another impairment does not change which packets are lost.
    let also = Impairment { jitter: ms(5), corrupt: 0.5, ..settings() };
    assert_eq!(arrived, send_steadily(&mut Bench::new(also), 100_000));
}

#[test]
fn bursts_have_their_mean_rate_and_length() {
    let loss = Loss::bursts(0.02, 8.0).unwrap();
    let arrived =
        send_steadily(&mut Bench::new(Impairment { loss, ..Impairment::default() }), 200_000);
    let mut bursts = Vec::new();
    for pair in arrived.windows(2) {
        if pair[1] - pair[0] > 1 {
            bursts.push(pair[1] - pair[0] - 1);
        }
    }
    let lost: u32 = bursts.iter().sum();
    assert!((3_400..4_600).contains(&lost), "{lost} of 200,000 at 2 %");
    let mean_length = f64::from(lost) / bursts.len() as f64;
    assert!((7.0..9.0).contains(&mean_length), "{mean_length} packets a burst");
}

#[test]
fn both_states_of_the_burst_model_have_their_own_loss() {
    let always_bad =
        GilbertElliott { enter_bad: 1.0, leave_bad: 0.0, loss_good: 0.0, loss_bad: 0.5 };
    let always_good =
        GilbertElliott { enter_bad: 0.0, leave_bad: 1.0, loss_good: 0.5, loss_bad: 0.0 };
    for model in [always_bad, always_good] {
        let settings = Impairment { loss: Loss::Burst(model), ..Impairment::default() };
        let arrived = send_steadily(&mut Bench::new(settings), 10_000).len();
        assert!((4_800..5_200).contains(&arrived), "{model:?}: {arrived} of 10,000");
    }
}

#[test]
fn a_reordered_packet_is_overtaken() {
    let settings = Impairment { reorder: 0.1, reorder_by: ms(3), ..Impairment::delayed(ms(20)) };
    let mut bench = Bench::new(settings);
    let arrived = send_steadily(&mut bench, 1_000);
    let held_back = bench.pipe.counters().reordered_packets;
    assert!((70..130).contains(&held_back), "{held_back}");
    let overtaken = arrived.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(overtaken >= 50, "{overtaken}");
    let mut sorted = arrived;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..1_000), "none is lost or doubled");
}

#[test]
fn a_duplicate_follows_its_original() {
    let mut bench = Bench::new(Impairment { duplicate: 1.0, ..Impairment::default() });
    assert_eq!(send_steadily(&mut bench, 3), [0, 0, 1, 1, 2, 2]);
    assert_eq!(bench.pipe.counters().duplicated_packets, 3);
}

#[test]
fn corruption_flips_exactly_one_bit_anywhere() {
    let mut bench = Bench::new(Impairment { corrupt: 1.0, ..Impairment::default() });
    for number in 0..2_000 {
        bench.push(ms(0), number, 50);
    }
    let mut hit = std::collections::BTreeSet::new();
    for (_, _, packet) in bench.arrivals(ms(0)) {
        assert_eq!(packet.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        hit.insert(packet.iter().position(|byte| *byte != 0).unwrap());
    }
    assert_eq!(hit.len(), 50, "every byte gets its turn");
    bench.push(ms(0), 0, 0);
    assert_eq!(bench.arrivals(ms(0)).len(), 1, "an empty packet has no bit to flip");
    assert_eq!(bench.pipe.counters().corrupted_packets, 2_000);
}

#[test]
fn the_rate_holds_over_time_and_the_queue_drops_at_its_tail() {
    // 1,000 bytes take 1 ms; two may pass at once, five may wait.
    let rate = Rate { bits_per_s: 8_000_000, burst_bytes: 2_000, queue_packets: 5 };
    let mut bench = Bench::new(Impairment::default().with_rate(rate));
    for number in 0..10 {
        bench.push(ms(0), number, 1_000);
    }
    assert_eq!(bench.dropped(DropReason::QueueFull), 3);
    assert_eq!(bench.pipe.counters().queued_packets, 7);
    let arrived: Vec<_> = bench
        .arrivals(ms(100))
        .into_iter()
        .map(|(at, number, _)| (at.as_millis(), number))
        .collect();
    assert_eq!(arrived, [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]);

    // After a pause the burst is there again, and not more than it.
    for number in 10..13 {
        bench.push(ms(100), number, 1_000);
    }
    let arrived: Vec<_> = bench
        .arrivals(ms(200))
        .into_iter()
        .map(|(at, number, _)| (at.as_millis(), number))
        .collect();
    assert_eq!(arrived, [(100, 10), (100, 11), (101, 12)]);
}

#[test]
fn a_rate_in_mbps_passes_that_many_bits() {
    let mut bench = Bench::new(Impairment::default().with_rate(Rate::mbps(100)));
    // 200 Mbit/s are offered for a second.
    for tick in 0..1_000 {
        for _ in 0..20 {
            bench.push(ms(tick), 0, 1_250);
        }
    }
    let bytes: usize = bench.arrivals(ms(1_000)).iter().map(|(_, _, packet)| packet.len()).sum();
    let mbps = bytes as f64 * 8.0 / 1e6;
    assert!((99.0..101.0).contains(&mbps), "{mbps} Mbit/s");
    assert!(bench.dropped(DropReason::QueueFull) > 9_000);
}

#[test]
fn the_mtu_drops_what_is_larger_only() {
    let mut bench = Bench::new(Impairment { mtu_bytes: Some(1_200), ..Impairment::default() });
    bench.push(ms(0), 1, 1_200);
    bench.push(ms(0), 2, 1_201);
    assert_eq!(bench.numbers(ms(0)), [1]);
    assert_eq!(bench.dropped(DropReason::Mtu), 1);
}

#[test]
fn a_cut_drops_new_packets_and_those_under_way_until_both_cuts_are_healed() {
    let delayed = || Impairment::delayed(ms(20));
    let mut bench = Bench::new(delayed());
    bench.push(ms(0), 1, 100);
    bench.pipe.set_cut(true);
    bench.push(ms(1), 2, 100);
    assert_eq!(bench.numbers(ms(1_000)), [0; 0]);
    assert_eq!(bench.dropped(DropReason::Cut), 2);
    assert_eq!(bench.pipe.counters().queued_bytes, 0);

    bench.pipe.set(Impairment { cut: true, ..delayed() }).unwrap();
    bench.pipe.set_cut(false);
    bench.push(ms(2), 3, 100);
    assert_eq!(bench.dropped(DropReason::Cut), 3);
    bench.pipe.set(delayed()).unwrap();
    bench.push(ms(3), 4, 100);
    assert_eq!(bench.numbers(ms(1_000)), [4]);
}

#[test]
fn new_settings_hold_for_new_packets_and_invalid_ones_change_nothing() {
    let mut bench = Bench::new(Impairment::delayed(ms(500)));
    bench.push(ms(0), 1, 100);
    bench.pipe.set(Impairment::delayed(ms(10))).unwrap();
    bench.push(ms(1), 2, 100);
    let error = bench.pipe.set(Impairment::default().with_loss(7.0)).unwrap_err();
    assert_eq!(error.field, "loss");
    assert_eq!(*bench.pipe.settings(), Impairment::delayed(ms(10)));
    assert_eq!(bench.numbers(ms(1_000)), [2, 1]);
}

#[test]
fn what_is_under_way_is_bounded_in_packets_and_bytes() {
    let mut bench = Bench::new(Impairment::delayed(ms(20)));
    for number in 0..PIPE_PACKETS_MAX as u32 + 10 {
        bench.push(ms(0), number, 1);
    }
    assert_eq!(bench.dropped(DropReason::PipeFull), 10);

    let mut bench = Bench::new(Impairment::delayed(ms(20)));
    let packet_bytes = 64 * 1024;
    for number in 0..(PIPE_BYTES_MAX / packet_bytes) as u32 + 3 {
        bench.push(ms(0), number, packet_bytes);
    }
    assert_eq!(bench.dropped(DropReason::PipeFull), 3);
    bench.check_books();
}

#[test]
fn all_at_once_the_books_still_balance() {
    for seed in 0..20 {
        let settings = Impairment {
            delay: ms(20),
            jitter: ms(5),
            loss: Loss::bursts(0.05, 3.0).unwrap(),
            reorder: 0.05,
            reorder_by: ms(2),
            duplicate: 0.05,
            corrupt: 0.05,
            rate: Some(Rate { bits_per_s: 500_000, burst_bytes: 300, queue_packets: 20 }),
            mtu_bytes: Some(140),
            cut: false,
        };
        let run = || {
            let mut bench = Bench::seeded(seed, settings.clone());
            for number in 0..2_000_u32 {
                bench.push(ms(number.into()), number, 80 + number as usize % 70);
            }
            let arrived = bench.arrivals(ms(60_000));
            for reason in [DropReason::Mtu, DropReason::QueueFull, DropReason::Loss] {
                assert!(bench.dropped(reason) > 0, "seed {seed}: {reason:?}");
            }
            (arrived, *bench.pipe.counters())
        };
        let (first, second) = (run(), run());
        assert!(first == second, "seed {seed} has two outcomes");
    }
}
