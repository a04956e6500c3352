//! A gateway from its configuration to its end, in one straight line.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context;
use identity::IdentityCell;
use model::code::DATA_FOLDER_UNUSABLE;
use tokio::sync::{mpsc, oneshot};

use crate::access_log::{AccessLog, AccessLogWriter};
use crate::admin::{self, LogLevel};
use crate::config::GatewayConfig;
use crate::control::{self, Control, Event};
use crate::drain::{self, DrainStage};
use crate::enrol::{IdentityFiles, Kept, OwnCluster, keep_enrolled};
use crate::files;
use crate::folder_lock::FolderLock;
use crate::life;
use crate::limits::{REPORT_QUEUE_MAX, STOP_MAX};
use crate::relay;
use crate::state::GatewayState;
use crate::subscribe::keep_subscribed;
use crate::worker::{Command, WorkerThread};

/// A running gateway; it runs on threads of its own, whatever runtime the caller has.
#[derive(Debug)]
pub struct App {
    state: Arc<GatewayState>,
    admin_addr: SocketAddr,
    log_writer: AccessLogWriter,
    /// Held until the last thread has ended.
    folder_lock: Mutex<Option<FolderLock>>,
    threads: Mutex<Vec<Running>>,
}

#[derive(Debug)]
enum Running {
    Worker(WorkerThread),
    Other(JoinHandle<()>),
}

/// Starts a gateway. It returns once everything is bound that can be bound from what is on disk:
/// after a restart that is all of it, before the first enrolment it is the admin port.
pub fn build(config: GatewayConfig) -> anyhow::Result<App> {
    build_with(config, None)
}

/// The same for a process that lets the admin port change its log level.
pub fn build_with(config: GatewayConfig, log_level: Option<LogLevel>) -> anyhow::Result<App> {
    files::create_data_dir(&config.data_dir)?;
    let folder_lock = Mutex::new(Some(FolderLock::take(&config.data_dir)?));
    let reset_key = files::load_or_create_reset_key(&config.data_dir, rand::random)?;
    let identity_files = IdentityFiles::open(&config.data_dir)?;
    let (log, log_writer) = AccessLog::open(&config.access_log).with_context(|| {
        let path = config.access_log.display();
        format!("{DATA_FOLDER_UNUSABLE}: failed to open accessLog.path = {path}")
    })?;
    let state = Arc::new(GatewayState::new(config, Arc::new(IdentityCell::default()), log));
    let kept = identity_files.load(&state)?;
    let admin = admin::start(&state, log_level)?;
    let admin_addr = admin.admin;
    let _ = state.admin_address.set(admin_addr); // nobody else sets it
    let app = App { state, admin_addr, log_writer, folder_lock, threads: Mutex::default() };
    app.keep(Running::Other(admin.thread));
    // From here on a failure has threads to stop, which dropping the app does.
    let commands = app.start_workers()?;
    let relay = relay::start(&app.state).context("failed to start the relay's thread")?;
    app.keep(Running::Other(relay.thread));
    let mut control = Control::new(app.state.clone(), commands, relay.tunnel, reset_key);
    restore_identity(&app.state, &mut control, kept)?;
    control.restore();
    app.start_control(control, identity_files)?;
    Ok(app)
}

/// With SVID and bundle from disk the tunnel's port is bound now, and a port in use is an error
/// now; without, both come with enrolment. An SVID without its bundle is not used.
fn restore_identity(state: &GatewayState, control: &mut Control, kept: Kept) -> anyhow::Result<()> {
    let (Some(svid), Some(cluster)) = (kept.svid, kept.cluster) else {
        tracing::info!("not enrolled yet");
        return Ok(());
    };
    tracing::info!(spiffe_id = %svid.id(), "SVID loaded from disk");
    state.identity.replace_svid(svid);
    control.enrolled(cluster).map_err(|error| anyhow::anyhow!("{}: {error}", error.code()))
}

impl App {
    fn keep(&self, running: Running) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(running);
    }

    fn start_workers(&self) -> anyhow::Result<Vec<mpsc::Sender<Command>>> {
        let mut commands = Vec::new();
        for index in 0..self.state.config.workers {
            let worker = WorkerThread::start(index, &self.state)
                .with_context(|| format!("failed to start worker {index}"))?;
            commands.push(worker.commands());
            self.keep(Running::Worker(worker));
        }
        Ok(commands)
    }

    fn start_control(&self, control: Control, files: IdentityFiles) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let state = self.state.clone();
        let (events, inbox) = mpsc::channel::<Event>(REPORT_QUEUE_MAX);
        let thread = std::thread::Builder::new().name("fg-control".into()).spawn(move || {
            runtime.block_on(async move {
                let enrolled = {
                    let events = events.clone();
                    move |cluster: OwnCluster| {
                        if events.try_send(Event::Enrolled(cluster)).is_err() {
                            tracing::error!("the control task does not take the new identity");
                        }
                    }
                };
                tokio::spawn(keep_enrolled(state.clone(), files, enrolled));
                tokio::spawn(life::keep_told(state.clone()));
                tokio::spawn(keep_subscribed(state, events));
                control::run(control, inbox).await;
            });
            runtime.shutdown_timeout(STOP_MAX);
        })?;
        self.keep(Running::Other(thread));
        Ok(())
    }

    /// The tunnel's UDP address; `None` before the first enrolment.
    pub fn tunnel_addr(&self) -> Option<SocketAddr> {
        self.state.tunnel.get().map(|tunnel| tunnel.local_addr())
    }

    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// What the gateway knows and counts.
    pub fn state(&self) -> &Arc<GatewayState> {
        &self.state
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&self) {
        let mut changes = self.state.changes();
        while !self.state.unready().is_empty() {
            if changes.changed().await.is_err() {
                return; // cannot be: the sender lives in the state
            }
        }
    }

    /// Comes back when every worker's thread has answered: with `false` if one has ended.
    pub async fn pulse(&self) -> bool {
        for worker in self.workers() {
            let (answer, answered) = oneshot::channel();
            if worker.send(Command::Pulse(answer)).await.is_err() || answered.await.is_err() {
                return false;
            }
        }
        true
    }

    fn workers(&self) -> Vec<mpsc::Sender<Command>> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = |running: &Running| match running {
            Running::Worker(worker) => Some(worker.commands()),
            Running::Other(_) => None,
        };
        threads.iter().filter_map(worker).collect()
    }

    /// Waits until somebody asks for a drain through the admin port.
    pub async fn drain_requested(&self) {
        self.state.drain.requested().await;
    }

    /// Lets what is in progress end, up to the drain's limit, and stops.
    pub async fn drain_and_stop(&self) {
        drain::drain(&self.state).await;
        self.stop_threads().await;
    }

    /// Cuts everything off.
    pub async fn stop_now(&self) {
        self.stop_threads().await;
    }

    async fn stop_threads(&self) {
        let threads = self.begin_stop();
        let join = move || threads.into_iter().for_each(Running::join);
        if tokio::task::spawn_blocking(join).await.is_err() {
            tracing::error!("a thread could not be joined");
        }
        self.log_writer.finish(&self.state.log);
        self.folder_lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn begin_stop(&self) -> Vec<Running> {
        self.state.log.cut_off();
        if let Some(tunnel) = self.state.tunnel.get() {
            tunnel.close(); // the workers stay until the peers know
        }
        self.state.drain.advance(DrainStage::Stopped);
        self.state.note_change();
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Running {
    fn join(self) {
        match self {
            Self::Worker(worker) => worker.join(),
            Self::Other(thread) => {
                if thread.join().is_err() {
                    tracing::error!("a thread panicked");
                }
            }
        }
    }
}

/// An app that is dropped without a word stops like one that is told to.
impl Drop for App {
    fn drop(&mut self) {
        let threads = self.begin_stop();
        if !threads.is_empty() {
            threads.into_iter().for_each(Running::join);
            self.log_writer.finish(&self.state.log);
        }
    }
}
