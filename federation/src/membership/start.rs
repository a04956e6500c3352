//! Starts a node, with the key that is on disk; and another one, with a new key, after leaving.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use anyhow::Context as _;
use identity::{Ca, FederationKey};
use model::{ClusterName, SpiffeId, TrustDomain};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::resource::StoreNews;

use super::attempts::Attempts;
use super::contacts::Contacts;
use super::departed::Departed;
use super::grants::Grants;
use super::machine::FleetMachine;
use super::mark::SignedMark;
use super::node::{Advertised, Node, Own, node_id, open_store};
use super::pending::Pending;
use super::revocations::Early;
use crate::app::coded;
use crate::cordon::CordonWatch;
use crate::denied::Denials;
use crate::folder::replace_file;
use crate::gateways::Gateways;
use crate::intake::{self, Catalogs};
use crate::replica::{FreshnessConfig, Replica, ReplicaConfig, WatchServer};
use crate::store::{self, Disk, DiskError, Family, Profile, RocksDisk, Step, Store, StoreError};
use crate::transport::{RaftPeers, Transport};

/// What outlasts a node: everything that does not depend on the federation key.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) name: ClusterName,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) advertise: Advertised,
    pub(crate) ca: Arc<Ca>,
    pub(crate) data_dir: PathBuf,
    pub(crate) profile: Profile,
    pub(crate) transport: Transport,
    pub(crate) gateways: Gateways,
    pub(crate) cordons: CordonWatch,
    pub(crate) denials: Arc<Denials>,
    pub(crate) catalogs: Catalogs,
    pub(crate) shared: watch::Sender<Arc<intake::Shared>>,
    pub(crate) news: watch::Sender<Arc<StoreNews>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Ground {
    fn key_folder(&self) -> PathBuf {
        self.data_dir.join("federation-key")
    }

    /// Those that the log lacks.
    fn revocations(&self) -> PathBuf {
        self.data_dir.join("revocations")
    }

    /// Whom the node spoke with last.
    fn contacts(&self) -> PathBuf {
        self.data_dir.join("contacts")
    }

    fn load_key(&self) -> anyhow::Result<FederationKey> {
        FederationKey::load_or_create(&self.key_folder()).map_err(|e| coded(e.code(), e))
    }

    /// Starts the node with the key and the store that are on disk.
    pub(crate) async fn start(&self) -> anyhow::Result<Arc<Node>> {
        self.finish_leaving()?;
        let key = self.load_key()?;
        let disk = Arc::new(self.open_disk(node_id(&key.cluster_id()))?);
        self.begin(key, disk.clone(), Some(disk)).await
    }

    /// Opens the store's disk. One that is damaged is moved out of the way: the node then takes part
    /// in nothing until the members have let it go, and its gateways keep what they have. So it is with
    /// one that is gone, where there are contacts: an empty log must not vote in place of a lost one.
    fn open_disk(&self, node: u64) -> anyhow::Result<RocksDisk> {
        let folder = self.data_dir.join("store");
        let is_gone = !folder.exists() && !Contacts::open(&self.contacts()).is_empty();
        let failed = |error: DiskError| {
            anyhow::Error::new(error)
                .context(format!("open {}", folder.display()))
                .context(model::code::STORE_FAULT.to_string())
        };
        let disk = match RocksDisk::open(&folder) {
            Ok(disk) if is_gone => {
                tracing::error!(folder = %folder.display(), "the store is gone; re-seeding");
                store::reseed(&disk, node).map_err(failed)?;
                disk
            }
            Ok(disk) => disk,
            Err(error @ DiskError::Damaged(_)) => {
                let kept = store::set_aside(&folder)
                    .context("set the damaged store aside")
                    .context(model::code::STORE_FAULT.to_string())?;
                tracing::error!(%error, kept = %kept.display(), "the store is damaged; re-seeding");
                let disk = RocksDisk::open(&folder).map_err(failed)?;
                store::reseed(&disk, node).map_err(failed)?;
                disk
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(disk)
    }

    /// Starts a node on a disk, which has a folder if anything on it may be of worth. Nobody else is
    /// needed for that: it serves what it has.
    async fn begin(
        &self,
        key: FederationKey,
        disk: Arc<dyn Disk>,
        folder: Option<Arc<RocksDisk>>,
    ) -> anyhow::Result<Arc<Node>> {
        let own = self.own(key);
        let raft_peers = Arc::new(RaftPeers::new(self.transport.clone()));
        let store = self.open(own.node, disk.clone(), raft_peers.clone(), folder).await?;
        let replica = Replica::open(ReplicaConfig {
            own: own.id,
            disk: disk.clone(),
            freshness: FreshnessConfig::default(),
        })
        .context("open the replica's state")?;
        let (feed, observer) = (replica.feed().clone(), replica.observer().clone());
        let stop = self.stop.child_token();
        let watch =
            WatchServer::new(feed.clone(), observer.clone(), stop.clone(), self.tasks.clone());
        let grants = Grants::open(&self.data_dir.join("grants"));
        let early = Early::open(&self.revocations());
        let mark = SignedMark::load(&self.data_dir);
        let node = Arc::new(Node {
            own,
            feed,
            observer,
            replica,
            transport: self.transport.clone(),
            disk,
            raft_peers,
            profile: self.profile,
            store: RwLock::new(store),
            reopened: watch::Sender::new(0),
            state_replaced: AtomicBool::new(false),
            catalogs: self.catalogs.clone(),
            shared: self.shared.clone(),
            head: watch::Sender::new(None),
            mark: Mutex::new(mark.map_err(|e| coded(e.code(), e))?),
            unsettled: tokio::sync::Mutex::default(),
            publish_again: Notify::new(),
            withdrawn: AtomicBool::new(false),
            own_findings: Mutex::default(),
            excluded: Mutex::default(),
            outgoing: Notify::new(),
            leader: Mutex::default(),
            departed: Departed::default(),
            contacts: Arc::new(Contacts::open(&self.contacts())),
            grants: grants.map_err(|e| coded(e.code(), e))?,
            pending: Pending::default(),
            attempts: Attempts::default(),
            changing: tokio::sync::Mutex::default(),
            watch,
            gateways: self.gateways.clone(),
            news: self.news.clone(),
            early: early.map_err(|e| coded(e.code(), e))?,
            stop,
            tasks: self.tasks.clone(),
        });
        // The last good state is in service before anything else happens.
        node.take_own_state();
        node.look_for_others();
        node.take_kept_revocations();
        node.enforce();
        node.run();
        Ok(node)
    }

    fn own(&self, key: FederationKey) -> Own {
        let id = key.cluster_id();
        Own {
            id,
            node: node_id(&id),
            name: self.name.clone(),
            trust_domain: self.trust_domain.clone(),
            spiffe_id: self.spiffe_id.clone(),
            advertise: self.advertise.clone(),
            cordons: self.cordons.clone(),
            denials: self.denials.clone(),
            key,
            ca: self.ca.clone(),
        }
    }

    /// A store whose log does not hold what it should is emptied, and re-seeded from its peers. What
    /// was in it is kept beside it: on a federation's one voter it may be all that is left.
    async fn open(
        &self,
        node: u64,
        disk: Arc<dyn Disk>,
        peers: Arc<RaftPeers>,
        folder: Option<Arc<RocksDisk>>,
    ) -> anyhow::Result<Store<FleetMachine>> {
        let failed = |error: StoreError| {
            anyhow::Error::new(error).context(model::code::STORE_FAULT.to_string())
        };
        match open_store(node, self.profile, disk.clone(), peers.clone()).await {
            Ok(store) => Ok(store),
            Err(StoreError::Disk(error @ DiskError::Damaged(_))) => {
                tracing::error!(%error, "the store is damaged; it is emptied and re-seeded");
                let emptied = disk.clone();
                let reseed = move || {
                    if let Some(folder) = folder {
                        let kept = folder.keep_beside()?;
                        tracing::error!(kept = %kept.display(), "the damaged store is kept there");
                    }
                    store::reseed(&*emptied, node)
                };
                let reseeded = tokio::task::spawn_blocking(reseed).await?;
                reseeded
                    .context("keep the damaged store and empty it")
                    .context(model::code::STORE_FAULT.to_string())?;
                open_store(node, self.profile, disk, peers).await.map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// After leaving: nothing of the old federation stays, and the next one meets a new key, since a
    /// key that has left never comes back.
    pub(crate) async fn begin_anew(&self, old: &Node) -> anyhow::Result<Arc<Node>> {
        replace_file(&self.leaving(), b"").map_err(|e| coded(e.code(), e))?;
        old.stop.cancel();
        old.store().shutdown().await;
        let (ground, disk, contacts) = (self.clone(), old.disk.clone(), old.contacts.clone());
        tokio::task::spawn_blocking(move || ground.forget(&*disk, &contacts)).await??;
        // It was just emptied.
        self.begin(self.load_key()?, old.disk.clone(), None).await
    }

    /// There while the old federation is being forgotten: a start in between goes on with that.
    fn leaving(&self) -> PathBuf {
        self.data_dir.join("leaving")
    }

    /// Goes on with what a crash interrupted.
    fn finish_leaving(&self) -> anyhow::Result<()> {
        if !self.leaving().exists() {
            return Ok(());
        }
        let disk = RocksDisk::open(&self.data_dir.join("store")).context("open the store")?;
        self.forget(&disk, &Contacts::open(&self.contacts()))
    }

    /// `contacts` are those of the node that may still be at it.
    fn forget(&self, disk: &dyn Disk, contacts: &Contacts) -> anyhow::Result<()> {
        let clear =
            Family::ALL.map(|family| Step::DeleteRange { family, from: Vec::new(), to: None });
        disk.write(clear.into(), true).context("empty the store")?;
        let grants = Grants::open(&self.data_dir.join("grants"));
        grants.and_then(|grants| grants.clear()).map_err(|e| coded(e.code(), e))?;
        let early = Early::open(&self.revocations());
        early.and_then(|early| early.clear()).map_err(|e| coded(e.code(), e))?;
        contacts.clear().map_err(|e| coded(e.code(), e))?;
        let mark = SignedMark::load(&self.data_dir);
        mark.and_then(|mut mark| mark.reset()).map_err(|e| coded(e.code(), e))?;
        retire(&self.key_folder())?;
        std::fs::remove_file(self.leaving()).context("end the leaving")
    }
}

/// Keeps the old key beside, under a name that says what it was.
fn retire(folder: &std::path::Path) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let mut number = 1;
    let target = loop {
        let target = folder.with_file_name(format!("federation-key.left-{number}"));
        if !target.exists() {
            break target;
        }
        number += 1;
    };
    std::fs::rename(folder, &target)
        .with_context(|| format!("rename {} to {}", folder.display(), target.display()))
}
