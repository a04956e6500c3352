//! One direction as a pure machine: [`Pipe::push`] a packet at a time, [`Pipe::pop`] what is due.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::counters::{Counters, DropReason};
use super::dice::{Dice, Question};
use super::settings::{Impairment, Loss, Rate};
use crate::SettingError;
use crate::limits::{PIPE_BYTES_MAX, PIPE_PACKETS_MAX};

/// One direction: a delay line behind an [`Impairment`]. `M` travels with each packet, for example
/// whom it is for.
///
/// Same seed, same settings, same pushes: same outcome. A change of settings holds for packets
/// pushed after it; only a cut also drops those under way.
#[derive(Debug)]
pub struct Pipe<M> {
    settings: Impairment,
    cut_from_outside: bool,
    dice: Dice,
    packet_no: u64,
    in_bad_state: bool,
    bucket: Bucket,
    /// No packet may arrive before this one did, unless it is reordered.
    order_floor: Option<Instant>,
    delay_line: BinaryHeap<Held<M>>,
    counters: Counters,
}

impl<M: Clone> Pipe<M> {
    /// A pipe without impairment.
    pub fn new(seed: u64) -> Self {
        Self {
            settings: Impairment::default(),
            cut_from_outside: false,
            dice: Dice::new(seed),
            packet_no: 0,
            in_bad_state: false,
            bucket: Bucket::default(),
            order_floor: None,
            delay_line: BinaryHeap::new(),
            counters: Counters::default(),
        }
    }

    /// Changes the settings; an invalid one changes nothing.
    pub fn set(&mut self, settings: Impairment) -> Result<(), SettingError> {
        settings.validate()?;
        self.settings = settings;
        self.bucket = Bucket::default();
        self.order_floor = None;
        self.drop_if_cut();
        Ok(())
    }

    /// The settings in force.
    pub const fn settings(&self) -> &Impairment {
        &self.settings
    }

    /// Cuts or heals from outside, independently of [`Impairment::cut`].
    pub fn set_cut(&mut self, cut: bool) {
        self.cut_from_outside = cut;
        self.drop_if_cut();
    }

    /// Takes a packet in at `now`; it may come out never, once or twice.
    pub fn push(&mut self, now: Instant, meta: M, mut packet: Vec<u8>) {
        self.count_received(packet.len());
        let packet_no = self.packet_no;
        self.packet_no += 1;
        let departs_at = match self.depart(now, packet_no, packet.len()) {
            Ok(departs_at) => departs_at,
            Err(reason) => return self.counters.dropped.add(reason),
        };
        if self.dice.happens(self.settings.corrupt, packet_no, Question::Corrupt)
            && flip_bit(&mut packet, self.dice.bits(packet_no, Question::CorruptWhere))
        {
            self.counters.corrupted_packets += 1;
        }
        let due_at = self.arrive(departs_at, packet_no);
        if self.dice.happens(self.settings.duplicate, packet_no, Question::Duplicate) {
            self.counters.duplicated_packets += 1;
            self.hold(due_at, packet_no, meta.clone(), packet.clone());
        }
        self.hold(due_at, packet_no, meta, packet);
    }

    /// Counts a packet that came in and cannot even be pushed, for example since its target is unknown.
    pub const fn refuse(&mut self, packet_bytes: usize, reason: DropReason) {
        self.count_received(packet_bytes);
        self.counters.dropped.add(reason);
    }

    /// The next packet that is due at `now`. The caller reports what became of it, by
    /// [`Self::count_forwarded`] or [`Self::count_dropped`].
    pub fn pop(&mut self, now: Instant) -> Option<(M, Vec<u8>)> {
        if self.delay_line.peek()?.due_at > now {
            return None;
        }
        let held = self.delay_line.pop()?;
        self.counters.queued_packets -= 1;
        self.counters.queued_bytes -= held.packet.len() as u64;
        Some((held.meta, held.packet))
    }

    /// When the next packet is due, if one is under way.
    pub fn next_at(&self) -> Option<Instant> {
        self.delay_line.peek().map(|held| held.due_at)
    }

    /// A popped packet was sent.
    pub const fn count_forwarded(&mut self, packet_bytes: usize) {
        self.counters.forwarded_packets += 1;
        self.counters.forwarded_bytes += packet_bytes as u64;
    }

    /// A popped packet could not be sent.
    pub const fn count_dropped(&mut self, reason: DropReason) {
        self.counters.dropped.add(reason);
    }

    /// The counters now.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    const fn count_received(&mut self, packet_bytes: usize) {
        self.counters.received_packets += 1;
        self.counters.received_bytes += packet_bytes as u64;
    }

    /// When the packet leaves onto the wire, or why it never arrives.
    fn depart(
        &mut self,
        now: Instant,
        packet_no: u64,
        bytes: usize,
    ) -> Result<Instant, DropReason> {
        if self.is_cut() {
            return Err(DropReason::Cut);
        }
        if self.settings.mtu_bytes.is_some_and(|mtu_bytes| bytes > mtu_bytes) {
            return Err(DropReason::Mtu);
        }
        let departs_at = match &self.settings.rate {
            Some(rate) => self.bucket.depart(rate, now, bytes).ok_or(DropReason::QueueFull)?,
            None => now,
        };
        if self.is_lost(packet_no) {
            return Err(DropReason::Loss);
        }
        Ok(departs_at)
    }

    fn is_lost(&mut self, packet_no: u64) -> bool {
        let probability = match self.settings.loss {
            Loss::None => return false,
            Loss::Random(probability) => probability,
            Loss::Burst(model) => {
                let change = if self.in_bad_state { model.leave_bad } else { model.enter_bad };
                self.in_bad_state ^= self.dice.happens(change, packet_no, Question::ChangeState);
                if self.in_bad_state { model.loss_bad } else { model.loss_good }
            }
        };
        self.dice.happens(probability, packet_no, Question::Lose)
    }

    /// When a packet that left at `departs_at` arrives.
    fn arrive(&mut self, departs_at: Instant, packet_no: u64) -> Instant {
        let jitter = self.settings.jitter.mul_f64(self.dice.unit(packet_no, Question::Jitter));
        let due_at = departs_at + self.settings.delay + jitter;
        if self.dice.happens(self.settings.reorder, packet_no, Question::Reorder) {
            self.counters.reordered_packets += 1;
            return due_at + self.settings.reorder_by;
        }
        let due_at = self.order_floor.map_or(due_at, |floor| floor.max(due_at));
        self.order_floor = Some(due_at);
        due_at
    }

    fn hold(&mut self, due_at: Instant, packet_no: u64, meta: M, packet: Vec<u8>) {
        let bytes = packet.len() as u64;
        if self.delay_line.len() >= PIPE_PACKETS_MAX
            || self.counters.queued_bytes + bytes > PIPE_BYTES_MAX as u64
        {
            return self.counters.dropped.add(DropReason::PipeFull);
        }
        self.counters.queued_packets += 1;
        self.counters.queued_bytes += bytes;
        self.delay_line.push(Held { due_at, packet_no, meta, packet });
    }

    const fn is_cut(&self) -> bool {
        self.settings.cut || self.cut_from_outside
    }

    fn drop_if_cut(&mut self) {
        if !self.is_cut() {
            return;
        }
        for _ in self.delay_line.drain() {
            self.counters.dropped.add(DropReason::Cut);
        }
        self.counters.queued_packets = 0;
        self.counters.queued_bytes = 0;
    }
}

/// The token bucket and the queue before it, as virtual time: nothing ticks between packets.
#[derive(Debug, Default)]
struct Bucket {
    /// When the wire would be free if the bucket held no burst (GCRA's theoretical arrival time).
    free_at: Option<Instant>,
    /// When each waiting packet leaves.
    departures: VecDeque<Instant>,
}

impl Bucket {
    fn depart(&mut self, rate: &Rate, now: Instant, bytes: usize) -> Option<Instant> {
        while self.departures.front().is_some_and(|at| *at <= now) {
            self.departures.pop_front();
        }
        let start = self.free_at.map_or(now, |at| at.max(now));
        let free_at = start + time_on_wire(rate, bytes as u64);
        let departs_at =
            free_at.checked_sub(time_on_wire(rate, rate.burst_bytes)).map_or(now, |at| at.max(now));
        if departs_at > now {
            if self.departures.len() >= rate.queue_packets {
                return None;
            }
            self.departures.push_back(departs_at);
        }
        self.free_at = Some(free_at);
        Some(departs_at)
    }
}

fn time_on_wire(rate: &Rate, bytes: u64) -> Duration {
    let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate.bits_per_s);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Flips one bit; an empty packet has none.
fn flip_bit(packet: &mut [u8], random: u64) -> bool {
    if packet.is_empty() {
        return false;
    }
    let bit = random % (packet.len() as u64 * 8);
    packet[(bit / 8) as usize] ^= 1 << (bit % 8);
    true
}

/// A packet under way; the heap's greatest is the one that is due first, and first pushed among equals.
#[derive(Debug)]
struct Held<M> {
    due_at: Instant,
    packet_no: u64,
    meta: M,
    packet: Vec<u8>,
}

impl<M> Ord for Held<M> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due_at, other.packet_no).cmp(&(self.due_at, self.packet_no))
    }
}

impl<M> PartialOrd for Held<M> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<M> PartialEq for Held<M> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<M> Eq for Held<M> {}

#[cfg(test)]
mod tests;
