//! The way to the cluster's API server, before and after the rest of the node is there.

use std::sync::Arc;

use anyhow::Context as _;
use discovery::Catalog;
use discovery::kubernetes::{Cache, KubernetesProvider, KubernetesProviderConfig, ProviderState};
use model::PeerAddress;
use model::code::{
    CONFIG_INVALID, DATA_FOLDER_UNUSABLE, GATEWAY_ADDRESS_PENDING, KUBECONFIG_UNUSABLE,
};
use tokio::sync::watch;

use super::addresses::addresses;
use super::calls::Failure;
use super::{Cluster, Derived, Health, Surroundings, candidate, changed};
use crate::app::coded;
use crate::config::{FederationConfig, KubernetesConfig};
use crate::intake::Catalogs;
use crate::limits::KUBERNETES_START_WAIT;
use crate::membership::Advertised;

/// What the node gets from its cluster. Without `kubernetes` in the configuration nothing comes, and
/// nothing is waited for.
pub(crate) struct Connection {
    watched: Option<Watched>,
    /// In the election.
    identity: String,
    /// `advertise` was given, and wins over what the cluster says.
    is_fixed: bool,
    catalogs: watch::Sender<Option<Arc<Catalog>>>,
    advertised: watch::Sender<Arc<Vec<PeerAddress>>>,
    derived: watch::Sender<Arc<Derived>>,
}

struct Watched {
    client: kube::Client,
    config: Arc<KubernetesConfig>,
    health: Arc<Health>,
    provider: KubernetesProvider,
}

impl Connection {
    /// Begins to watch; the data folder is locked by now. The API server may be away: the node starts
    /// all the same, and what was there before stays in service.
    pub(crate) async fn open(config: &FederationConfig) -> anyhow::Result<Self> {
        let watched = match &config.kubernetes {
            Some(kubernetes) => Some(Watched::start(kubernetes).await?),
            None => None,
        };
        let identity =
            candidate::identity(&config.data_dir, config.name.as_str(), &mut rand::rng());
        let identity = identity.map_err(|problem| coded(DATA_FOLDER_UNUSABLE, problem))?;
        let nothing = Some(Arc::new(Catalog::default()));
        let connection = Self {
            catalogs: watch::Sender::new(if watched.is_some() { None } else { nothing }),
            derived: watch::Sender::new(Arc::new(match watched {
                Some(_) => Derived::Awaited,
                None => Derived::Nothing,
            })),
            watched,
            identity,
            is_fixed: !config.advertise.is_empty(),
            advertised: watch::Sender::new(Arc::new(config.advertise.clone())),
        };
        if let Some(watched) = &connection.watched {
            connection.feed(watched).take();
        }
        Ok(connection)
    }

    /// The cluster's objects; `None` until all of them were read.
    pub(crate) fn catalogs(&self) -> Catalogs {
        self.catalogs.subscribe()
    }

    /// `advertise` of the configuration, or where the gateways' Service can be reached.
    pub(crate) fn advertised(&self) -> Advertised {
        self.advertised.subscribe()
    }

    /// For a change of `advertise` in the configuration.
    pub(crate) fn advertise(&self) -> watch::Sender<Arc<Vec<PeerAddress>>> {
        self.advertised.clone()
    }

    pub(crate) fn derived(&self) -> watch::Receiver<Arc<Derived>> {
        self.derived.subscribe()
    }

    pub(crate) fn health(&self) -> Option<Arc<Health>> {
        self.watched.as_ref().map(|watched| watched.health.clone())
    }

    /// Goes on watching, and begins to write.
    pub(crate) fn start(self, around: Surroundings) {
        let Some(watched) = &self.watched else { return };
        let feed = self.feed(watched);
        let (leads, leader) = watch::channel(false);
        let cluster = Cluster {
            identity: self.identity,
            client: watched.client.clone(),
            config: watched.config.clone(),
            around: Arc::new(around),
            derived: self.derived.clone(),
            leader,
            health: watched.health.clone(),
            cache: watched.provider.cache(),
        };
        cluster.start_writers(leads);
        let (tasks, stop) = (cluster.around.tasks.clone(), cluster.around.stop.clone());
        tasks.spawn(async move {
            // The provider ends when it is dropped.
            let _watched = self.watched;
            stop.run_until_cancelled(feed.run()).await;
        });
    }

    fn feed(&self, watched: &Watched) -> Feed {
        Feed {
            catalog: watched.provider.subscribe(),
            state: watched.provider.state(),
            cache: watched.provider.cache(),
            config: watched.config.clone(),
            health: watched.health.clone(),
            catalogs: self.catalogs.clone(),
            advertised: (!self.is_fixed).then(|| self.advertised.clone()),
        }
    }
}

impl Watched {
    async fn start(config: &KubernetesConfig) -> anyhow::Result<Self> {
        let client = client().await.context(KUBECONFIG_UNUSABLE.to_string())?;
        let provider = KubernetesProviderConfig {
            gateway_selector: config.gateway_selector.clone(),
            start_wait: KUBERNETES_START_WAIT,
            ..KubernetesProviderConfig::new(config.namespace.as_str())
        };
        let provider = KubernetesProvider::start(client.clone(), provider);
        let provider = provider.await.map_err(|e| coded(CONFIG_INVALID, e))?;
        Ok(Self { client, config: Arc::new(config.clone()), health: Arc::default(), provider })
    }
}

/// From the provider to the rest of the node.
struct Feed {
    catalog: watch::Receiver<Arc<Catalog>>,
    state: watch::Receiver<Arc<ProviderState>>,
    cache: Arc<Cache>,
    config: Arc<KubernetesConfig>,
    health: Arc<Health>,
    catalogs: watch::Sender<Option<Arc<Catalog>>>,
    /// `None` when the configuration says where gateways are reached.
    advertised: Option<watch::Sender<Arc<Vec<PeerAddress>>>>,
}

impl Feed {
    async fn run(mut self) {
        let mut changes = self.cache.changes();
        loop {
            self.take();
            tokio::select! {
                () = changed(&mut self.catalog) => {}
                () = changed(&mut self.state) => {}
                () = changed(&mut changes) => {}
            }
        }
    }

    /// Addresses first: with the first catalog the cluster publishes itself, and without addresses
    /// it would take back those that it published before.
    fn take(&mut self) {
        let state = self.state.borrow_and_update().clone();
        self.health.provider(&state);
        let catalog = self.catalog.borrow_and_update().clone();
        if !catalog.is_known() {
            return;
        }
        self.take_addresses();
        self.catalogs.send_if_modified(|known| {
            let is_new = known.as_ref().is_none_or(|known| known.sequence != catalog.sequence);
            if is_new {
                *known = Some(catalog);
            }
            is_new
        });
    }

    /// What cannot be told now stays as it was: a load balancer that is made anew has the same
    /// address more often than not.
    fn take_addresses(&self) {
        let Some(advertised) = &self.advertised else { return };
        let (namespace, name) = (self.config.namespace.as_str(), &self.config.gateway_service);
        let service = self.cache.service(namespace, name.as_str());
        let (nodes, pods) = (self.cache.nodes(), self.cache.gateway_pods());
        let found = addresses(service.as_ref(), &nodes, &pods);
        let object = format!("Service/{namespace}/{name}");
        match found {
            Ok(found) => {
                advertised.send_if_modified(|known| {
                    let is_new = **known != found;
                    if is_new {
                        let shown = found.iter().map(|a| format!("{}:{}", a.host, a.port));
                        let shown = shown.collect::<Vec<_>>().join(" ");
                        tracing::info!(addresses = shown, "advertised from now on");
                        *known = Arc::new(found);
                    }
                    is_new
                });
                self.health.note("addresses", &object, None);
            }
            Err(reason) => {
                let failure =
                    Failure { code: GATEWAY_ADDRESS_PENDING, problem: reason.to_string() };
                self.health.note("addresses", &object, Some(failure));
            }
        }
    }
}

async fn client() -> anyhow::Result<kube::Client> {
    let config = kube::Config::infer().await.context(
        "`kubernetes` is in the configuration, but this process runs in no pod with a service \
         account's token, and no kubeconfig was found; set KUBECONFIG",
    )?;
    Ok(kube::Client::try_from(config)?)
}
