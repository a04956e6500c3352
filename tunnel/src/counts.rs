//! Counters, one set for each worker: written without contention, summed when read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::status::TunnelCounters;

/// All workers' counters.
#[derive(Debug)]
pub(crate) struct Counts(Box<[WorkerCounts]>);

impl Counts {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| WorkerCounts::default()).collect())
    }

    pub(crate) fn of(&self, worker: u8) -> &WorkerCounts {
        &self.0[usize::from(worker)]
    }

    /// Exchanges open now.
    pub(crate) fn in_flight(&self) -> u32 {
        // What has ended is read first, so that an exchange that ends meanwhile counts as open.
        let ended = self.sum(|counts| &counts.exchanges_ended);
        let begun = self.sum(|counts| &counts.exchanges_begun);
        u32::try_from(begun - ended).unwrap_or(u32::MAX)
    }

    fn sum(&self, field: impl Fn(&WorkerCounts) -> &AtomicU64) -> u64 {
        self.0.iter().map(|counts| field(counts).load(Ordering::SeqCst)).sum()
    }
}

macro_rules! counts {
    (told: $($told:ident),*; kept: $($kept:ident),*) => {
        /// One worker's, on cache lines of its own.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct WorkerCounts { $($told: AtomicU64,)* $($kept: AtomicU64),* }

        impl WorkerCounts {
            $(pub(crate) fn $told(&self) {
                self.$told.fetch_add(1, Ordering::Relaxed);
            })*
            $(pub(crate) fn $kept(&self) {
                self.$kept.fetch_add(1, Ordering::SeqCst);
            })*
        }

        impl Counts {
            pub(crate) fn read(&self) -> TunnelCounters {
                TunnelCounters {
                    $($told: self.sum(|counts| &counts.$told),)*
                    ..TunnelCounters::default()
                }
            }
        }
    };
}

counts! {
    told: handshakes_refused, peers_refused, links_dead, links_replaced, exchanges_opened, exchanges_accepted,
        exchanges_shed, directions_moved, stalled_readers_reset;
    kept: exchanges_begun, exchanges_ended
}
