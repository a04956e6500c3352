//! One run of a suite: its clusters, its numbered steps, its waiting, and what has to be undone.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::limits::POLL_INTERVAL;
use crate::machine::{CLUSTERS, Images, Machine};
use crate::report;

/// Passed to a suite. Steps are made one after another.
pub struct Run {
    pub machine: Machine,
    pub images: Images,
    clusters: [Cluster; 3],
    steps: Cell<usize>,
    undo: RefCell<Vec<Undo>>,
}

struct Undo {
    what: String,
    how: LocalBoxFuture<'static, Result<()>>,
}

impl Run {
    pub(crate) fn new(machine: Machine, images: Images) -> Self {
        let clusters = CLUSTERS.map(|name| Cluster::new(name, machine.clone()));
        Self { machine, images, clusters, steps: Cell::new(0), undo: RefCell::default() }
    }

    /// All three.
    pub const fn clusters(&self) -> &[Cluster; 3] {
        &self.clusters
    }

    /// The cluster that the examples begin in.
    pub const fn east(&self) -> &Cluster {
        &self.clusters[0]
    }

    /// The second.
    pub const fn west(&self) -> &Cluster {
        &self.clusters[1]
    }

    /// The third.
    pub const fn south(&self) -> &Cluster {
        &self.clusters[2]
    }

    /// Does a part of the suite's work, and shows with its number and time whether it went well.
    pub async fn step<T>(
        &self,
        title: impl Display,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let number = self.steps.get() + 1;
        self.steps.set(number);
        let started = Instant::now();
        let done = work.await;
        report::step(number, &title, done.is_ok(), started.elapsed());
        done.with_context(|| format!("step {number}, {title}"))
    }

    /// Shows a fact beside the steps, such as a measured time.
    pub fn note(&self, text: impl Display) {
        report::note(&text);
    }

    /// Has something undone when the suite is over, however it ends: last registered, first undone.
    /// Objects in namespaces of suites, Helm releases and our kinds need none of this.
    pub fn afterwards(
        &self,
        what: impl Into<String>,
        how: impl Future<Output = Result<()>> + 'static,
    ) {
        self.undo.borrow_mut().push(Undo { what: what.into(), how: Box::pin(how) });
    }

    /// Undoes everything, whatever of it fails, and returns what did.
    pub(crate) async fn undo(&self) -> Vec<String> {
        let mut failures = Vec::new();
        loop {
            // Not borrowed while something runs.
            let Some(next) = self.undo.borrow_mut().pop() else { return failures };
            if let Err(error) = next.how.await {
                failures.push(format!("{}: {error:#}", next.what));
            }
        }
    }

    pub(crate) const fn step_count(&self) -> usize {
        self.steps.get()
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("machine", &self.machine)
            .field("images", &self.images)
            .finish_non_exhaustive()
    }
}

/// Asks again and again until the answer is no error, for at most that long; then the last error says
/// what was missing.
pub async fn until<T>(
    what: impl Display,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// Fails if something does not hold for all of that time, asking again and again.
pub async fn throughout(
    what: impl Display,
    span: Duration,
    mut ask: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        ask().await.with_context(|| format!("{what}: not for {} s", span.as_secs()))?;
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_answer_or_with_the_last_reason() {
        let mut asked = 0;
        let answer = until("three", Duration::from_secs(10), async || {
            asked += 1;
            if asked < 3 { bail!("only {asked}") } else { Ok(asked) }
        });
        assert_eq!(answer.await.unwrap(), 3);

        let never: Result<()> = until("peace", Duration::from_secs(5), async || bail!("war")).await;
        assert_eq!(format!("{:#}", never.unwrap_err()), "peace: not within 5 s: war");
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_breaks_off_is_reported() {
        let mut left = 3;
        let held = throughout("calm", Duration::from_secs(5), async || {
            left -= 1;
            if left == 0 { bail!("storm") } else { Ok(()) }
        });
        assert_eq!(format!("{:#}", held.await.unwrap_err()), "calm: not for 5 s: storm");
    }
}
