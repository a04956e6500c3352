//! How a gateway goes: not ready, then no new connections, then no connections at all. Whoever
//! serves something holds a [`DrainGuard`] while it does. One that is cordoned only makes the first
//! step, and can come back.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::files::write_private;
use crate::limits::DRAIN_MAX;
use crate::state::GatewayState;

/// How far the way is gone; each stage includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainStage {
    Serving,
    /// Unready; peers are told; listeners and peers' streams are still accepted, for load balancers
    /// and peers that have not noticed.
    Leaving,
    /// Listeners are closed; connections end after the request that they carry.
    Closing,
    /// Whatever is left ends now.
    Stopped,
}

/// While it is in the data folder, the gateway is cordoned.
const CORDON_FILE: &str = "cordoned";

/// The gateway's stage, whether it is cordoned, and how much is in progress.
#[derive(Debug, Clone)]
pub struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stage: watch::Sender<DrainStage>,
    requested: watch::Sender<bool>,
    cordoned: watch::Sender<bool>,
    /// The same, for each exchange to read.
    is_cordoned: AtomicBool,
    /// Held through a change of it, the disk included.
    changing: Mutex<()>,
    in_progress: AtomicUsize,
    idle: Notify,
}

impl Default for Drain {
    fn default() -> Self {
        Self(Arc::new(Shared {
            stage: watch::Sender::new(DrainStage::Serving),
            requested: watch::Sender::new(false),
            cordoned: watch::Sender::new(false),
            is_cordoned: AtomicBool::new(false),
            changing: Mutex::default(),
            in_progress: AtomicUsize::new(0),
            idle: Notify::new(),
        }))
    }
}

impl Drain {
    pub fn stage(&self) -> DrainStage {
        *self.0.stage.borrow()
    }

    /// Moves on to `stage`; there is no way back.
    pub fn advance(&self, stage: DrainStage) {
        self.0.stage.send_if_modified(|current| {
            let later = stage > *current;
            *current = stage.max(*current);
            later
        });
    }

    /// Waits until `stage` is reached.
    pub async fn reached(&self, stage: DrainStage) {
        let mut current = self.0.stage.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = current.wait_for(|current| *current >= stage).await;
    }

    /// Somebody asked through the admin port; the process's owner decides what follows.
    pub fn request(&self) {
        self.0.requested.send_replace(true);
    }

    pub async fn requested(&self) {
        let mut requested = self.0.requested.subscribe();
        let _ = requested.wait_for(|requested| *requested).await;
    }

    /// Begins as the last process ended.
    pub(crate) fn restore_cordon(&self, data_dir: &Path) -> io::Result<()> {
        let is_there = data_dir.join(CORDON_FILE).try_exists()?;
        self.note_cordon(is_there);
        Ok(())
    }

    /// Takes the gateway out of service until further notice, or back into it; on disk first. `false`:
    /// it was so already. It waits for the disk.
    pub fn set_cordoned(&self, is_cordoned: bool, data_dir: &Path) -> io::Result<bool> {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = data_dir.join(CORDON_FILE);
        match is_cordoned {
            true => write_private(&path, b"POST /uncordon at the admin port takes it back\n")?,
            false => match fs::remove_file(&path) {
                Ok(()) => fs::File::open(data_dir)?.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            },
        }
        Ok(self.note_cordon(is_cordoned) != is_cordoned)
    }

    fn note_cordon(&self, is_cordoned: bool) -> bool {
        self.0.is_cordoned.store(is_cordoned, Ordering::Relaxed);
        self.0.cordoned.send_replace(is_cordoned)
    }

    pub fn is_cordoned(&self) -> bool {
        self.0.is_cordoned.load(Ordering::Relaxed)
    }

    pub fn guard(&self) -> DrainGuard {
        self.0.in_progress.fetch_add(1, Ordering::Relaxed);
        DrainGuard(self.clone())
    }

    pub fn in_progress(&self) -> usize {
        self.0.in_progress.load(Ordering::Relaxed)
    }

    /// Waits until no guard is left.
    pub async fn idle(&self) {
        loop {
            let notified = self.0.idle.notified();
            if self.in_progress() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// Something in progress that a drain waits for.
#[derive(Debug)]
pub struct DrainGuard(Drain);

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.0.0.in_progress.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.idle.notify_waiters();
        }
    }
}

/// Has the tunnel tell peers whether the gateway is cordoned, as long as there is something to tell.
pub(crate) async fn tell_cordon(state: &GatewayState) {
    let mut changes = state.changes();
    let mut cordoned = state.drain.0.cordoned.subscribe();
    loop {
        let is_cordoned = *cordoned.borrow_and_update();
        if let Some(tunnel) = state.tunnel.get() {
            tunnel.set_cordoned(is_cordoned);
        }
        tokio::select! {
            // The tunnel's port is bound, among others.
            _ = changes.changed() => {}
            _ = cordoned.changed() => {}
        }
    }
}

/// The whole way, up to where only closing is left. `true` if everything ended by itself.
pub async fn drain(state: &GatewayState) -> bool {
    let drain = &state.drain;
    tracing::info!(in_progress = drain.in_progress(), "draining");
    drain.advance(DrainStage::Leaving);
    if let Some(tunnel) = state.tunnel.get() {
        tunnel.start_drain(DRAIN_MAX);
    }
    let accept_grace = state.config.drain_accept;
    sleep(accept_grace).await;
    if let Some(tunnel) = state.tunnel.get() {
        tunnel.end_accepting();
    }
    drain.advance(DrainStage::Closing);
    let everything = async {
        drain.idle().await;
        if let Some(tunnel) = state.tunnel.get() {
            tunnel.drained().await;
        }
    };
    let clean = timeout(DRAIN_MAX.saturating_sub(accept_grace), everything).await.is_ok();
    if clean {
        tracing::info!("drained");
    } else {
        let left = drain.in_progress();
        let limit_s = Duration::as_secs(&DRAIN_MAX);
        tracing::warn!(left, limit_s, "what is left after the drain's limit is cut off");
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_every_guard() {
        let drain = Drain::default();
        let (first, second) = (drain.guard(), drain.guard());
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.idle().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
        drain.idle().await;
    }

    #[tokio::test]
    async fn a_cordon_outlasts_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let drain = Drain::default();
            drain.restore_cordon(folder.path()).unwrap();
            drain
        };
        let drain = open();
        assert!(!drain.is_cordoned());
        assert!(drain.set_cordoned(true, folder.path()).unwrap());
        assert!(!drain.set_cordoned(true, folder.path()).unwrap(), "it was so already");
        let again = open();
        assert!(again.is_cordoned());
        assert!(again.set_cordoned(false, folder.path()).unwrap());
        assert!(!again.set_cordoned(false, folder.path()).unwrap());
        assert!(!open().is_cordoned());
        assert_eq!(drain.stage(), DrainStage::Serving, "which is another matter");
        let missing = folder.path().join("missing");
        assert!(drain.set_cordoned(true, &missing).is_err());
        assert!(drain.is_cordoned(), "what is not on disk does not count");
    }

    #[tokio::test]
    async fn stages_only_go_forward() {
        let drain = Drain::default();
        drain.advance(DrainStage::Closing);
        drain.advance(DrainStage::Leaving);
        assert_eq!(drain.stage(), DrainStage::Closing);
        drain.reached(DrainStage::Leaving).await;
        drain.request();
        drain.requested().await;
    }
}
