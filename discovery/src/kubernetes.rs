//! The Kubernetes provider: the cluster's API server, watched.
//!
//! ```text
//! API server --watch.rs, one per kind--> events --keeper.rs (pure)--> Catalog
//!            <--probe.rs: is it there?           `--> store.rs <--cache.rs-- writers
//! ```
//!
//! `docs/concepts/kubernetes-provider.md` says what is watched and why. What the API server said
//! last stays in service while it is away, and there is no catalog before every kind was seen.

mod cache;
mod findings;
mod keeper;
mod kinds;
mod object;
mod probe;
mod served;
mod state;
mod store;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use model::{NameError, Namespace};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::{self, sleep_until, timeout};

use crate::catalog::Catalog;
use crate::limits;
pub use cache::{Cache, NodeInfo, Objects};
use keeper::{Event, Keeper};
pub use kinds::WatchedKind;
pub use object::{ObjectKey, ObjectRef};
use probe::Reach;
pub use state::{KindState, Phase, ProviderState};
use watch::KindWatch;

/// What the Kubernetes provider needs to know.
#[derive(Debug, Clone)]
pub struct KubernetesProviderConfig {
    /// Where Fedgate itself runs: gateways' pods are watched there.
    pub namespace: String,
    /// Labels of gateways' pods; without any, no pods are watched.
    pub gateway_selector: BTreeMap<String, String>,
    /// How long the removal of most objects of a kind at once is held.
    pub confirm_window: Duration,
    /// How long the start waits for the first complete catalog.
    pub start_wait: Duration,
}

impl KubernetesProviderConfig {
    /// The limits' defaults, and no pods.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            gateway_selector: BTreeMap::new(),
            confirm_window: Duration::from_millis(limits::CONFIRM_WINDOW_MS),
            start_wait: Duration::from_millis(limits::START_WAIT_MS),
        }
    }
}

/// A client as the provider wants it. kube's own repetition of what was answered 429, 503 or 504 pauses
/// for up to minutes, without a word to whoever asked: a resync would wait for it.
pub fn client(mut config: kube::Config) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_millis(limits::CONNECT_TIMEOUT_MS));
    Client::try_from(config)
}

/// Why the provider could not start. An API server that is away is no reason.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("kubernetes.namespace: {0}")]
    Namespace(#[from] NameError),
}

/// Watches a cluster until it is dropped.
#[derive(Debug)]
pub struct KubernetesProvider {
    catalog: channel::Receiver<Arc<Catalog>>,
    state: channel::Receiver<Arc<ProviderState>>,
    cache: Arc<Cache>,
    _tasks: JoinSet<()>,
}

impl KubernetesProvider {
    /// `client` comes best from [`client`]. Returns when there is a first catalog, or without one when
    /// `start_wait` is over: then [`Self::state`] says what is missing, and the catalog's sequence is
    /// 0 until it is there.
    pub async fn start(
        client: Client,
        config: KubernetesProviderConfig,
    ) -> Result<Self, StartError> {
        Namespace::parse(&config.namespace)?;
        let watched: Vec<WatchedKind> = WatchedKind::ALL
            .into_iter()
            .filter(|kind| *kind != WatchedKind::GatewayPod || !config.gateway_selector.is_empty())
            .collect();
        let cache = Arc::new(Cache::new());
        let keeper = Keeper::new(&watched, config.confirm_window, now());
        let (catalog_sender, catalog) = channel::channel(Arc::new(Catalog::default()));
        let (state_sender, state) = channel::channel(Arc::new(keeper.state(&cache.read())));
        let (reach_sender, reach) = channel::channel(Reach::default());
        let (events_sender, events) = mpsc::channel(limits::BATCHES_QUEUED_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(probe::run(client.clone(), reach_sender));
        for kind in watched {
            let kind_watch = KindWatch {
                kind,
                client: client.clone(),
                selector: (kind == WatchedKind::GatewayPod).then(|| selector(&config)),
                own_namespace: config.namespace.as_str().into(),
                cache: cache.clone(),
                events: events_sender.clone(),
                reach: reach.clone(),
                synced: None,
            };
            tasks.spawn(kind_watch.run());
        }
        let keeping = Keeping {
            keeper,
            cache: cache.clone(),
            events,
            reach,
            catalog: catalog_sender,
            state: state_sender,
        };
        tasks.spawn(keeping.run());
        let provider = Self { catalog, state, cache, _tasks: tasks };
        provider.wait(config.start_wait).await;
        Ok(provider)
    }

    /// The newest catalog, now and whenever it changes. Its sequence is 0 as long as not everything
    /// was seen ([`Catalog::is_known`]).
    pub fn subscribe(&self) -> channel::Receiver<Arc<Catalog>> {
        self.catalog.clone()
    }

    /// How each kind stands, now and whenever that changes.
    pub fn state(&self) -> channel::Receiver<Arc<ProviderState>> {
        self.state.clone()
    }

    /// Everything that is watched, for whoever writes to the cluster.
    pub fn cache(&self) -> Arc<Cache> {
        self.cache.clone()
    }

    /// The cache by the catalog's keys.
    pub fn objects(&self) -> Arc<Objects> {
        Arc::new(Objects::new(self.cache.clone()))
    }

    async fn wait(&self, patience: Duration) {
        let mut state = self.state.clone();
        let complete = state.wait_for(|state| state.complete);
        if timeout(patience, complete).await.is_ok() {
            return;
        }
        let state = self.state.borrow().clone();
        let missing: Vec<&str> = state.missing().into_iter().map(WatchedKind::as_str).collect();
        let away = state.away.as_deref();
        tracing::warn!(?missing, away, "started without a complete list of Kubernetes objects");
    }
}

fn selector(config: &KubernetesProviderConfig) -> String {
    let labels = config.gateway_selector.iter().map(|(label, value)| format!("{label}={value}"));
    labels.collect::<Vec<_>>().join(",")
}

/// The task that takes in what all watches heard.
struct Keeping {
    keeper: Keeper,
    cache: Arc<Cache>,
    events: mpsc::Receiver<(WatchedKind, Event)>,
    reach: channel::Receiver<Reach>,
    catalog: channel::Sender<Arc<Catalog>>,
    state: channel::Sender<Arc<ProviderState>>,
}

impl Keeping {
    async fn run(mut self) {
        let mut pending: Option<Coalescing> = None;
        loop {
            let wake_at = self.keeper.wake_at(&self.cache.read());
            let settle_at = pending.as_ref().map(Coalescing::settle_at);
            let due = settle_at.into_iter().chain(wake_at).min();
            let wake = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.events.recv() => {
                    let Some((kind, event)) = event else { return };
                    self.apply(kind, event);
                }
                changed = self.reach.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let away = self.reach.borrow_and_update().away.clone();
                    self.keeper.reach(away, now());
                }
                () = wake => {
                    pending = None;
                    self.settle();
                    continue;
                }
            }
            pending = Some(Coalescing::after(pending, now()));
        }
    }

    fn apply(&mut self, kind: WatchedKind, event: Event) {
        let mut store = self.cache.write();
        self.keeper.apply(&mut store, kind, event, now());
    }

    fn settle(&mut self) {
        let mut store = self.cache.write();
        let catalog = self.keeper.settle(&mut store, now());
        let state = self.keeper.state(&store);
        drop(store);
        if let Some(catalog) = catalog {
            let (sequence, objects) = (catalog.sequence, catalog.resources.len());
            tracing::debug!(
                sequence,
                objects,
                findings = catalog.diagnostics.len(),
                "Kubernetes objects changed"
            );
            self.catalog.send_replace(Arc::new(catalog));
        }
        self.cache.notify();
        self.state.send_if_modified(|last| {
            tell(last, &state);
            let changed = **last != state;
            if changed {
                *last = Arc::new(state);
            }
            changed
        });
    }
}

/// The runtime's clock, which tests move.
fn now() -> Instant {
    time::Instant::now().into_std()
}

/// A change that waits for others.
struct Coalescing {
    first: Instant,
    last: Instant,
}

impl Coalescing {
    fn after(earlier: Option<Self>, now: Instant) -> Self {
        Self { first: earlier.map_or(now, |earlier| earlier.first), last: now }
    }

    fn settle_at(&self) -> Instant {
        let quiet = self.last + Duration::from_millis(limits::COALESCE_QUIET_MS);
        quiet.min(self.first + Duration::from_millis(limits::COALESCE_MS_MAX))
    }
}

/// Logs what changed in the state.
fn tell(before: &ProviderState, now: &ProviderState) {
    match (&before.away, &now.away) {
        (None, Some(reason)) => tracing::warn!(reason, "the Kubernetes API server is away"),
        (Some(_), None) => tracing::info!("the Kubernetes API server is back"),
        _ => {}
    }
    for (before, now) in before.kinds.iter().zip(&now.kinds) {
        if before.phase == now.phase {
            continue;
        }
        let (kind, phase, objects) = (now.kind.as_str(), now.phase.as_str(), now.objects);
        match now.last_error.as_deref() {
            Some(error) => tracing::warn!(kind, phase, objects, error, "Kubernetes watch"),
            None => tracing::info!(kind, phase, objects, "Kubernetes watch"),
        }
    }
    if now.complete && !before.complete {
        tracing::info!("everything in Kubernetes was seen");
    }
}
