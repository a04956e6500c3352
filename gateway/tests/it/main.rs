//! The gateway as a whole: alone with local services, and two of them with a tunnel between, each
//! fed by a federation node of a few lines.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod across;
mod client;
mod cordon;
mod drain;
mod listeners;
mod local_http;
mod local_tcp;
mod node;
mod objects;
mod origin;
mod process;
mod refusals;
mod relay;
mod restart;
mod site;
mod upgrade;

use std::time::{Duration, Instant};

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until `found` gives something.
async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "in {PATIENCE:?} there was no {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
