//! The wiring of a federation node, read from top to bottom.

mod base;
mod serving;
mod unable;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use discovery::Catalog;
use discovery::file::{FileProvider, FileProviderConfig};
use identity::Ca;
use model::code::{Code, DATA_FOLDER_UNUSABLE, FILE_UNREADABLE};
use model::{ClusterId, PeerAddress, TrustBundle};
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::resource::{HeardFromPeer, StoreNews};

use crate::applied::{Declared, merged};
use crate::config::{FederationConfig, Listen, StoreProfile};
use crate::denied::{self, Denying};
use crate::enrol::{Enrolment, PodEnrolment};
use crate::epoch;
use crate::folder::DataFolder;
use crate::gateways::Gateways;
use crate::health::{Loop, Vitals};
use crate::intake::{self, Catalogs, Intake};
use crate::kubernetes::{Connection, Health, Surroundings, TokenReviewer};
use crate::limits::{HEARD_MAX, STOP_TIMEOUT};
use crate::membership::{self, Advertised, Ground, Membership};
use crate::operator::{Federation, Operator, Started};
use crate::revisions::Revisions;
use crate::rotation::Rotation;
use crate::socket::SocketFile;
use crate::store::Profile;
use crate::stream::ResourceStreams;
use crate::transport::{Incoming, RelayDoors, Transport, TransportConfig};

use base::Base;
use serving::{Served, Sockets, serve_peers};

/// A running federation node. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct App {
    resource_socket: PathBuf,
    operator_socket: PathBuf,
    listening: Listen,
    bundle_endpoint: Option<SocketAddr>,
    health: Option<SocketAddr>,
    ca: Arc<Ca>,
    advertise: watch::Sender<Arc<Vec<PeerAddress>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    provider: Option<FileProvider>,
    membership: Membership,
    data_dir: PathBuf,
    /// Last: the folder stays locked until all else has ended.
    held: Option<(Vec<SocketFile>, DataFolder)>,
}

/// Starts a node. When this returns, its sockets answer and the first revision is there.
pub async fn build(config: FederationConfig) -> anyhow::Result<App> {
    build_with(config, None).await
}

/// The same with a client of the API server that reviews tokens, in place of the one that the pod or
/// the kubeconfig describes.
pub async fn build_with(
    config: FederationConfig,
    api: Option<kube::Client>,
) -> anyhow::Result<App> {
    let started = Started { at: Instant::now(), wall: SystemTime::now() };
    let base = Base::open(config, started.wall)?;
    // A start that fails half-way leaves nothing running.
    let unfinished = base.stop.clone().drop_guard();
    let connection = Connection::open(&base.config).await?;
    let intent = Intent::start(&base, &connection, started.wall)?;
    let reviewer = TokenReviewer::open(&base.config, api).await?;
    let sockets = Sockets::bind(&base)?;
    let mut listening = sockets.listening()?;
    let health = sockets.health()?;

    let gateways = Gateways::default();
    let (shared, added) = watch::channel(Arc::new(intake::Shared::default()));
    let news = watch::Sender::new(Arc::new(nothing_new()));
    let (transport, incoming) = start_transport(&base, &gateways)?;
    listening.relay = transport.relay_addr();
    let advertised = connection.advertised();
    let ground = ground(&base, transport, &gateways, &intent, (&shared, &news), advertised);
    let membership = start_membership(&base, ground, incoming).await?;
    let (heard_sender, heard) = mpsc::channel(HEARD_MAX);
    let taking = membership::take_heard(membership.current().clone(), heard, base.stop.clone());
    base.tasks.spawn(taking);

    // What the federation had said last is in the first revision, whoever can be reached now.
    let first = intent.catalogs.borrow().clone();
    intent.intake.take_up(first.as_deref(), &shared.borrow(), &connection.derived().borrow());
    let streams = streams(&base, &intent, &gateways, (news.subscribe(), heard_sender));
    let enrolment = enrolment(&base, reviewer.as_ref(), &gateways, &membership);
    let operator = operator(&base, &intent, &connection, (&gateways, &membership), started);
    let federation = federation(&base, &intent, &gateways, &membership);
    let (gateway_side, operator_side) = ((streams, enrolment), (operator, federation));
    let served = sockets.serve(&base, gateway_side, operator_side, reviewer.as_ref())?;
    let Served { files, health: health_port, mut loops, bundle_endpoint } = served;
    let Intent { provider, intake, catalogs, revisions, .. } = intent;
    let (derived, advertise) = (connection.derived(), connection.advertise());
    let taking_up = intake.clone().run(catalogs.clone(), added, derived, base.stop.clone());
    loops.push(Loop::spawn("the intake of objects", taking_up, &base.tasks));
    let kubernetes = connection.health();
    let members = (&membership, &gateways);
    connection.start(surroundings(&base, members, (&intake, catalogs), shared.subscribe()));
    loops.push(Loop::spawn("the renewal of the node's SVID", renewal(&base), &base.tasks));
    if let Some(port) = health_port {
        let members = (membership.clone(), gateways);
        let vitals = vitals(&base, loops, members, (revisions, intake), kubernetes);
        base.tasks.spawn(port.serve(vitals, base.stop.clone()));
    }
    log_start(&base.config);
    unfinished.disarm();
    Ok(App {
        resource_socket: base.config.resource_socket,
        operator_socket: base.config.operator_socket,
        listening,
        bundle_endpoint,
        health,
        ca: base.ca,
        advertise,
        stop: base.stop,
        tasks: base.tasks,
        provider,
        membership,
        data_dir: base.config.data_dir,
        held: Some((files, base.folder)),
    })
}

impl App {
    /// Where gateways subscribe and enrol.
    pub fn resource_socket(&self) -> &Path {
        &self.resource_socket
    }

    /// This cluster in its federation.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns when only another process can go on, with the reason: the store has failed, and its disk
    /// takes writes.
    pub async fn until_unable(&self) -> String {
        unable::until_unable(&self.membership, &self.data_dir).await
    }

    /// Where operators ask.
    pub fn operator_socket(&self) -> &Path {
        &self.operator_socket
    }

    /// Where gateways and operators in other pods connect.
    pub fn listening(&self) -> &Listen {
        &self.listening
    }

    /// Where this cluster's bundle is served.
    pub fn bundle_endpoint(&self) -> Option<SocketAddr> {
        self.bundle_endpoint
    }

    /// Where health and metrics are told.
    pub fn health(&self) -> Option<SocketAddr> {
        self.health
    }

    /// What other clusters verify this one's SVIDs with.
    pub fn bundle(&self) -> TrustBundle {
        self.ca.bundle()
    }

    /// Other addresses at which this cluster's gateways are reached from now on. Not for a node whose
    /// API server says them.
    pub fn advertise(&self, addresses: Vec<PeerAddress>) {
        self.advertise.send_if_modified(|current| {
            let is_other = **current != addresses;
            if is_other {
                *current = Arc::new(addresses);
            }
            is_other
        });
    }

    /// Ends streams with a word to the gateways, waits for open calls a little, removes the
    /// sockets and unlocks the data folder.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some calls were still open at the end");
        }
        self.membership.close().await;
        let provider = self.provider.take();
        // Its drop joins a thread.
        let joined = tokio::task::spawn_blocking(move || drop(provider)).await;
        if let Err(problem) = joined {
            tracing::error!(%problem, "the provider did not end well");
        }
        self.held = None;
        tracing::info!("federation node stopped");
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What this cluster's users want, and what becomes of it.
struct Intent {
    provider: Option<FileProvider>,
    declared: Declared,
    /// With what was applied by operators.
    catalogs: Catalogs,
    revisions: Arc<Revisions>,
    intake: Arc<Intake>,
}

impl Intent {
    fn start(base: &Base, connection: &Connection, now: SystemTime) -> anyhow::Result<Self> {
        let config = &base.config;
        let start = |folder| FileProvider::start(FileProviderConfig::new(folder));
        let provider = config.manifests.as_ref().map(start).transpose();
        let provider = provider.map_err(|e| coded(FILE_UNREADABLE, e))?;
        let epoch =
            epoch::begin(&config.data_dir, now).map_err(|e| coded(DATA_FOLDER_UNUSABLE, e))?;
        let revisions = Arc::new(Revisions::new(epoch));
        let (cluster, domain) = (config.cluster.clone(), config.trust_domain.clone());
        let (cordons, polled) = (base.cordons.watch(), base.bundles.watch());
        let intake = Intake::new(cluster, domain, revisions.clone(), cordons, polled);
        let intake = Arc::new(intake);
        let no_files = || watch::channel(Arc::new(Catalog::default())).1;
        let files = provider.as_ref().map_or_else(no_files, FileProvider::subscribe);
        let declared = Declared { cluster: connection.catalogs(), files };
        let applied = base.applied.subscribe();
        let catalogs = merged(declared.clone(), applied, base.stop.clone(), &base.tasks);
        Ok(Self { provider, declared, catalogs, revisions, intake })
    }
}

fn streams(
    base: &Base,
    intent: &Intent,
    gateways: &Gateways,
    (news, heard): (watch::Receiver<Arc<StoreNews>>, mpsc::Sender<HeardFromPeer>),
) -> ResourceStreams {
    ResourceStreams {
        cluster: base.config.cluster.clone(),
        trust_domain: base.config.trust_domain.clone(),
        users: base.users.clone(),
        revisions: intent.revisions.clone(),
        gateways: gateways.clone(),
        news,
        renew: base.renew.subscribe(),
        heard,
        stop: base.stop.clone(),
        tasks: base.tasks.clone(),
    }
}

fn enrolment(
    base: &Base,
    reviewer: Option<&Arc<TokenReviewer>>,
    gateways: &Gateways,
    membership: &Membership,
) -> Enrolment {
    let pods = reviewer.map(|reviewer| {
        let accounts = base.config.enrolment.accounts.clone();
        Arc::new(PodEnrolment { accounts, reviewer: reviewer.clone() })
    });
    Enrolment {
        ca: base.ca.clone(),
        lifetime: base.config.svid_lifetime,
        users: base.users.clone(),
        pods,
        gateways: gateways.clone(),
        membership: membership.clone(),
    }
}

fn surroundings(
    base: &Base,
    (membership, gateways): (&Membership, &Gateways),
    (intake, catalogs): (&Intake, Catalogs),
    shared: watch::Receiver<Arc<intake::Shared>>,
) -> Surroundings {
    Surroundings {
        name: base.config.cluster.clone(),
        ca: base.ca.clone(),
        rotated: base.rotated.subscribe(),
        membership: membership.clone(),
        gateways: gateways.clone(),
        audit: base.audit.clone(),
        catalogs,
        shared,
        findings: intake.watch(),
        stop: base.stop.clone(),
        tasks: base.tasks.clone(),
    }
}

fn renewal(base: &Base) -> impl Future<Output = ()> + Send + use<> {
    let (svid, stop) = (base.svid.clone(), base.stop.clone());
    async move { svid.keep_renewed(stop).await }
}

fn nothing_new() -> StoreNews {
    StoreNews {
        cluster_id: ClusterId::from_bytes([0; 16]),
        heads: vec![],
        revocations: vec![],
        revoked_domains: BTreeSet::new(),
        revoked_svids: vec![],
    }
}

/// The way to other clusters' nodes; its relay socket is open to whom the resource socket is.
fn start_transport(base: &Base, gateways: &Gateways) -> anyhow::Result<(Transport, Incoming)> {
    let bundle = base.ca.bundle();
    let root = bundle.x509_authorities.first().context("the CA has no certificate")?;
    let transport = TransportConfig {
        cluster: base.config.cluster.clone(),
        relay_socket: base.config.relay_socket.clone(),
        uids: base.users.all(),
        relay_listen: base.config.listen.relay,
        ca: CertificateDer::from(root.clone()),
        own_bundle: bundle,
        dial_from: base.config.store_dial_from,
    };
    let doors = RelayDoors::of(gateways.clone());
    Transport::start(transport, base.svid.identity(), doors, base.stop.clone(), &base.tasks)
}

fn ground(
    base: &Base,
    transport: Transport,
    gateways: &Gateways,
    intent: &Intent,
    (shared, news): (&watch::Sender<Arc<intake::Shared>>, &watch::Sender<Arc<StoreNews>>),
    advertise: Advertised,
) -> Ground {
    let config = &base.config;
    Ground {
        name: config.cluster.clone(),
        trust_domain: config.trust_domain.clone(),
        spiffe_id: base.svid.current().id().clone(),
        advertise,
        ca: base.ca.clone(),
        data_dir: config.data_dir.clone(),
        profile: match config.store_profile {
            StoreProfile::Lan => Profile::Lan,
            StoreProfile::Wan => Profile::Wan,
        },
        transport,
        gateways: gateways.clone(),
        cordons: base.cordons.watch(),
        denials: base.denials.clone(),
        catalogs: intent.catalogs.clone(),
        shared: shared.clone(),
        news: news.clone(),
        stop: base.stop.clone(),
        tasks: base.tasks.clone(),
    }
}

async fn start_membership(
    base: &Base,
    ground: Ground,
    incoming: Incoming,
) -> anyhow::Result<Membership> {
    let membership = Membership::start(ground).await?;
    // Not even a drop of the app ends the store's own tasks, which hold its folder.
    let (closing, stopped) = (membership.clone(), base.stop.clone());
    base.tasks.spawn(async move {
        stopped.cancelled_owned().await;
        closing.end_store().await;
    });
    serve_peers(&membership, incoming, &base.stop, &base.tasks);
    Ok(membership)
}

fn federation(
    base: &Base,
    intent: &Intent,
    gateways: &Gateways,
    membership: &Membership,
) -> Federation {
    // The ports know what is denied before they are served.
    let keeping_out = denied::keep_out(base.trust.clone(), base.denials.watch());
    base.tasks.spawn(base.stop.clone().run_until_cancelled_owned(keeping_out));
    let denying = Denying {
        denials: base.denials.clone(),
        svid: base.svid.clone(),
        gateways: gateways.clone(),
        membership: membership.clone(),
    };
    Federation {
        membership: membership.clone(),
        rotation: rotation(base, intent, membership),
        denying: Arc::new(denying),
        audit: base.audit.clone(),
    }
}

fn rotation(base: &Base, intent: &Intent, membership: &Membership) -> Arc<Rotation> {
    Arc::new(Rotation {
        cluster: base.config.cluster.clone(),
        ca: base.ca.clone(),
        svid: base.svid.clone(),
        trust: base.trust.clone(),
        membership: membership.clone(),
        revisions: intent.revisions.clone(),
        lifetime: base.config.svid_lifetime,
        in_kubernetes: base.config.kubernetes.is_some(),
        rotated: base.rotated.clone(),
        renew: base.renew.clone(),
        turn: tokio::sync::Mutex::default(),
    })
}

fn vitals(
    base: &Base,
    loops: Vec<Loop>,
    (membership, gateways): (Membership, Gateways),
    (revisions, intake): (Arc<Revisions>, Arc<Intake>),
    kubernetes: Option<Arc<Health>>,
) -> Vitals {
    Vitals {
        loops,
        ca: base.ca.clone(),
        svid: base.svid.clone(),
        membership,
        gateways,
        revisions,
        intake,
        kubernetes,
        data_dir: base.config.data_dir.clone(),
    }
}

fn operator(
    base: &Base,
    intent: &Intent,
    connection: &Connection,
    (gateways, membership): (&Gateways, &Membership),
    started: Started,
) -> Operator {
    Operator {
        cluster: base.config.cluster.clone(),
        advertise: connection.advertised(),
        resource_socket: base.config.resource_socket.clone(),
        ca: base.ca.clone(),
        svid: base.svid.clone(),
        revisions: intent.revisions.clone(),
        intake: intent.intake.clone(),
        gateways: gateways.clone(),
        started,
        audit: base.audit.clone(),
        applied: base.applied.clone(),
        cordons: base.cordons.clone(),
        denials: base.denials.clone(),
        membership: membership.clone(),
        declared: intent.declared.clone(),
        kubernetes: connection.health(),
        data_dir: base.config.data_dir.clone(),
    }
}

/// An error as people see it: its registered code first.
pub(crate) fn coded<E>(code: Code, error: E) -> anyhow::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    anyhow::Error::new(error).context(code.to_string())
}

fn log_start(config: &FederationConfig) {
    tracing::info!(
        cluster = %config.cluster,
        trust_domain = %config.trust_domain,
        resource_socket = %config.resource_socket.display(),
        operator_socket = %config.operator_socket.display(),
        "federation node started"
    );
}
