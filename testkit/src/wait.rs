//! Waiting on a condition, never for a time.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Looks until there is a value.
///
/// # Panics
/// When there is none in time; says what was waited for.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::park_timeout(POLL);
    }
}

/// Tries until it works.
///
/// # Panics
/// When it does not work in time; says what was tried, and what the last problem was.
pub fn until_ok<T, E: std::fmt::Display>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(problem) if begun.elapsed() >= limit => {
                panic!("waited {limit:?} for {what}: {problem:#}")
            }
            Err(_) => std::thread::park_timeout(POLL),
        }
    }
}

/// The same as [`until`] where looking takes an await.
///
/// # Panics
/// When there is none in time; says what was waited for.
pub async fn until_async<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let mut pace = tokio::time::interval(POLL);
    let looking = async {
        loop {
            pace.tick().await;
            if let Some(value) = look().await {
                return value;
            }
        }
    };
    let found = tokio::time::timeout(limit, looking).await;
    found.unwrap_or_else(|_| panic!("waited {limit:?} for {what}"))
}
