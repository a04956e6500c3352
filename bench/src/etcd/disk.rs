//! What the disk itself takes for the smallest write that survives a power failure.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;

const SYNCS: usize = 500;
const BLOCK_BYTES: usize = 512;

/// Microseconds of an append together with its `fdatasync`.
pub(super) fn sync_latency(folder: &Path) -> anyhow::Result<Histogram<u64>> {
    let mut file = File::create(folder.join("sync"))?;
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[1; BLOCK_BYTES])?;
        file.sync_data()?;
        latency.saturating_record(u64::try_from(begun.elapsed().as_micros())?.max(1));
    }
    Ok(latency)
}
