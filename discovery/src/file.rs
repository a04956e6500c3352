//! The file provider: a folder of Kubernetes manifests, watched.
//!
//! All `.yaml`, `.yml` and `.json` files directly in the folder are read; hidden files and folders
//! within it are not. Links are followed, so a mounted ConfigMap works. What a file said last stays
//! in service while the file cannot be read, and what the folder said last while the folder cannot.

mod folder;
mod keeper;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::limits;
use folder::{FolderId, Scan};
use keeper::Keeper;

/// What the file provider needs to know.
#[derive(Debug, Clone)]
pub struct FileProviderConfig {
    pub folder: PathBuf,
    /// How long the removal of most objects at once is held.
    pub confirm_window: Duration,
    /// How often the folder is read without any event.
    pub rescan_interval: Duration,
}

impl FileProviderConfig {
    /// The limits' defaults for `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            confirm_window: Duration::from_millis(limits::CONFIRM_WINDOW_MS),
            rescan_interval: Duration::from_millis(limits::RESCAN_INTERVAL_MS),
        }
    }
}

/// Why the provider could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "the manifest folder {folder:?} cannot be read: {problem}; create the folder, or mend its \
         path or its permissions"
    )]
    Folder { folder: PathBuf, problem: String },
    #[error("the file provider's thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// Watches a folder until it is dropped. Needs no runtime: it has a thread of its own.
#[derive(Debug)]
pub struct FileProvider {
    catalog: watch::Receiver<Arc<Catalog>>,
    stopped: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

impl FileProvider {
    /// Reads the folder once, so that the first catalog is complete, and then watches it.
    pub fn start(config: FileProviderConfig) -> Result<Self, StartError> {
        let refused = |problem| StartError::Folder { folder: config.folder.clone(), problem };
        // The watch is there before the first reading, so that no change falls between the two.
        let (wake, woken) = sync_channel(1);
        let mut watch_point = WatchPoint::new(config.folder.clone(), wake.clone());
        watch_point.renew();
        let scan = folder::scan(&config.folder).map_err(refused)?;
        let mut keeper = Keeper::new(config.confirm_window);
        let first = keeper.apply(Ok(scan), Instant::now()).unwrap_or_default();
        let (sender, catalog) = watch::channel(Arc::new(first));
        let stopped = Arc::new(AtomicBool::new(false));
        let worker =
            Worker { config, keeper, watch_point, woken, stopped: stopped.clone(), sender };
        let thread = std::thread::Builder::new()
            .name("file-provider".into())
            .spawn(move || worker.run())
            .map_err(StartError::Thread)?;
        Ok(Self { catalog, stopped, wake, thread: Some(thread) })
    }

    /// The newest catalog, now and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.clone()
    }
}

impl Drop for FileProvider {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        let _ = self.wake.try_send(()); // full means that the thread is about to wake anyway
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the file provider's thread had panicked");
        }
    }
}

/// The provider's thread.
struct Worker {
    config: FileProviderConfig,
    keeper: Keeper,
    watch_point: WatchPoint,
    woken: Receiver<()>,
    stopped: Arc<AtomicBool>,
    sender: watch::Sender<Arc<Catalog>>,
}

impl Worker {
    fn run(mut self) {
        while self.wait() {
            self.watch_point.renew();
            let scan = folder::scan(&self.config.folder);
            self.publish(scan);
        }
    }

    /// Waits for the next reason to read the folder; `false` when the provider was dropped.
    fn wait(&self) -> bool {
        let held = self.keeper.confirm_at().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout =
            held.map_or(self.config.rescan_interval, |held| held.min(self.config.rescan_interval));
        if self.woken.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout) {
            self.settle();
        }
        !self.stopped.load(Ordering::Acquire)
    }

    /// Waits until the folder is quiet, but not for long.
    fn settle(&self) {
        let end = Instant::now() + Duration::from_millis(limits::SETTLE_MS_MAX);
        let quiet = Duration::from_millis(limits::SETTLE_QUIET_MS);
        while !self.stopped.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.woken.recv_timeout(quiet.min(left)).is_err() {
                return;
            }
        }
    }

    fn publish(&mut self, scan: Result<Scan, String>) {
        if let Some(catalog) = self.keeper.apply(scan, Instant::now()) {
            let (sequence, objects) = (catalog.sequence, catalog.resources.len());
            tracing::info!(
                sequence,
                objects,
                findings = catalog.diagnostics.len(),
                "manifests read"
            );
            self.sender.send_replace(Arc::new(catalog));
        }
    }
}

/// The operating system's watch on the folder. It is on the folder itself, not on its name, so it is
/// renewed when another folder has taken the name. Without a watch (too few inotify instances) the
/// rescans alone must do.
struct WatchPoint {
    folder: PathBuf,
    wake: SyncSender<()>,
    watched: Option<(FolderId, RecommendedWatcher)>,
    warned: bool,
}

impl WatchPoint {
    fn new(folder: PathBuf, wake: SyncSender<()>) -> Self {
        Self { folder, wake, watched: None, warned: false }
    }

    fn renew(&mut self) {
        let Some(id) = folder::id(&self.folder) else {
            self.watched = None;
            return;
        };
        if self.watched.as_ref().is_some_and(|(watched, _)| *watched == id) {
            return;
        }
        self.watched = None;
        match self.watch() {
            Ok(watcher) => self.watched = Some((id, watcher)),
            Err(error) if !self.warned => {
                self.warned = true;
                let folder = self.folder.display();
                tracing::warn!(%folder, %error, "no file events; the folder is read at intervals");
            }
            Err(_) => {}
        }
    }

    fn watch(&self) -> notify::Result<RecommendedWatcher> {
        let wake = self.wake.clone();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if event.is_ok_and(|event| !is_mere_reading(event.kind)) {
                    let _ = wake.try_send(()); // full means that it is about to wake anyway
                }
            })?;
        watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// Our own reading of the folder makes events, too.
fn is_mere_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}
