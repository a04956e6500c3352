//! What happened to the packets of one direction, in numbers.

use std::fmt;

/// Why a packet did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The site, the path or the direction is cut.
    Cut,
    /// Larger than the MTU.
    Mtu,
    /// The queue before the rate limit was full (tail drop).
    QueueFull,
    /// Lost by the loss model.
    Loss,
    /// More packets or bytes under way than the pipe may hold.
    PipeFull,
    /// The link's target is not known yet.
    NoTarget,
    /// The link has no room for one more client, or no socket could be made for it.
    NoClient,
    /// Came to a client's upstream socket from someone who is not the target.
    Stranger,
    /// The kernel refused to send it.
    SendFailed,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::Cut,
        Self::Mtu,
        Self::QueueFull,
        Self::Loss,
        Self::PipeFull,
        Self::NoTarget,
        Self::NoClient,
        Self::Stranger,
        Self::SendFailed,
    ];

    /// The name that counters and logs show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Mtu => "mtu",
            Self::QueueFull => "queue-full",
            Self::Loss => "loss",
            Self::PipeFull => "pipe-full",
            Self::NoTarget => "no-target",
            Self::NoClient => "no-client",
            Self::Stranger => "stranger",
            Self::SendFailed => "send-failed",
        }
    }
}

/// Dropped packets by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    /// Packets dropped for this reason.
    pub const fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Packets dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its count, zeros too.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }

    pub(super) const fn add(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }
}

/// One direction's counters. `received + duplicated = forwarded + dropped + queued` at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came in, whatever became of them.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets handed to the other side.
    pub forwarded_packets: u64,
    /// Their bytes.
    pub forwarded_bytes: u64,
    /// Extra copies made.
    pub duplicated_packets: u64,
    /// Packets with one bit flipped.
    pub corrupted_packets: u64,
    /// Packets held back so that later ones overtake them.
    pub reordered_packets: u64,
    /// Packets that did not arrive, by reason.
    pub dropped: Drops,
    /// Packets under way now.
    pub queued_packets: u64,
    /// Their bytes.
    pub queued_bytes: u64,
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "received {} packets ({} bytes), forwarded {} ({} bytes), queued {}",
            self.received_packets,
            self.received_bytes,
            self.forwarded_packets,
            self.forwarded_bytes,
            self.queued_packets
        )?;
        for (reason, count) in self.dropped.iter().filter(|(_, count)| *count > 0) {
            write!(f, ", dropped {count} ({})", reason.name())?;
        }
        Ok(())
    }
}
