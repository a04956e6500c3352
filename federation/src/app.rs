//! The wiring of a federation node, read from top to bottom.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use discovery::file::{FileProvider, FileProviderConfig};
use identity::{Ca, SvidStore};
use model::code::{
    Code, DATA_FOLDER_UNUSABLE, ENROLMENT_REFUSED, FILE_UNREADABLE, OPERATOR_REFUSED,
};
use model::spiffe::Part;
use model::{ClusterId, SpiffeId, TrustBundle};
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use wire::operator::proto::federation_service_server::FederationServiceServer;
use wire::operator::proto::operator_service_server::OperatorServiceServer;
use wire::resource::StoreNews;
use wire::resource::limits::{ENROL_MESSAGE_BYTES_MAX, GATEWAY_MESSAGE_BYTES_MAX};
use wire::resource::proto::enrolment_service_server::EnrolmentServiceServer;
use wire::resource::proto::resource_service_server::ResourceServiceServer;
use wire::store::join_proto::join_service_server::JoinServiceServer;
use wire::store::limits::MESSAGE_BYTES_MAX;
use wire::store::proto::raft_service_server::RaftServiceServer;
use wire::store::proto::store_service_server::StoreServiceServer;

use crate::applied::{Applied, merged};
use crate::audit::Audit;
use crate::config::{FederationConfig, StoreProfile};
use crate::enrol::Enrolment;
use crate::epoch;
use crate::folder::DataFolder;
use crate::gateways::Gateways;
use crate::intake::{self, Intake};
use crate::limits::{CALLS_PER_CONNECTION_MAX, HEARD_MAX, JOIN_MESSAGE_BYTES_MAX, STOP_TIMEOUT};
use crate::membership::{self, Ground, JoinServer, Membership, StoreServer};
use crate::operator::{Federation, Gate, Operator, OperatorUsers, Started};
use crate::peer::{AllowedUsers, own_uid};
use crate::revisions::Revisions;
use crate::socket::{self, Socket, SocketFile};
use crate::store::Profile;
use crate::stream::ResourceStreams;
use crate::svid::OwnSvid;
use crate::transport::{self, Incoming, RelayDoors, Transport, TransportConfig};

/// Only the owner may connect ...
const PRIVATE_SOCKET_MODE: u32 = 0o600;
/// ... or anyone may, and each call is judged by its peer credentials.
const SHARED_SOCKET_MODE: u32 = 0o666;

/// A running federation node. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct App {
    resource_socket: PathBuf,
    operator_socket: PathBuf,
    bundle: TrustBundle,
    stop: CancellationToken,
    tasks: TaskTracker,
    provider: Option<FileProvider>,
    membership: Membership,
    /// Last: the folder stays locked until all else has ended.
    held: Option<(Vec<SocketFile>, DataFolder)>,
}

/// Starts a node. When this returns, its sockets answer and the first revision is there.
pub async fn build(config: FederationConfig) -> anyhow::Result<App> {
    let started = Started { at: Instant::now(), wall: SystemTime::now() };
    let uid = own_uid().context("ask the kernel for this process's user")?;
    let folder = DataFolder::open(&config.data_dir).map_err(|e| coded(e.code(), e))?;
    let (ca, svid) = open_identity(&config, &folder, started.wall)?;

    let provider = FileProvider::start(FileProviderConfig::new(&config.manifests))
        .map_err(|e| coded(FILE_UNREADABLE, e))?;
    let epoch =
        epoch::begin(&config.data_dir, started.wall).map_err(|e| coded(DATA_FOLDER_UNUSABLE, e))?;
    let revisions = Arc::new(Revisions::new(epoch));
    let (cluster, trust_domain) = (config.cluster.clone(), config.trust_domain.clone());
    let intake = Arc::new(Intake::new(cluster.clone(), trust_domain.clone(), revisions.clone()));
    let applied = Applied::open(&folder.join("applied")).map_err(|e| coded(e.code(), e))?;
    let audit = Audit::open(&config.data_dir, started.wall).map_err(|e| coded(e.code(), e))?;
    let (applied, audit) = (Arc::new(applied), Arc::new(audit));
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    // A start that fails half-way leaves nothing running.
    let unfinished = stop.clone().drop_guard();
    let files = provider.subscribe();
    let mut catalogs = merged(files.clone(), applied.subscribe(), stop.clone(), &tasks);
    let first = catalogs.borrow_and_update().clone();

    let users = Arc::new(enrolment_users(&config, uid)?);
    let operators = Arc::new(operators(&config, uid)?);
    let (resource_socket, operator_socket) =
        bind_sockets(&config, users.is_only(uid), operators.foreign().is_none())?;
    let gateways = Gateways::default();
    let (heard_sender, heard) = mpsc::channel(HEARD_MAX);
    let (shared, added) = watch::channel(Arc::new(intake::Shared::default()));
    let news = watch::Sender::new(Arc::new(StoreNews {
        cluster_id: ClusterId::from_bytes([0; 16]),
        heads: vec![],
        revocations: vec![],
        revoked_domains: BTreeSet::new(),
    }));
    let (transport, incoming) =
        start_transport(&config, &ca, &svid, &users, &gateways, (&stop, &tasks))?;
    let membership = Membership::start(Ground {
        name: config.cluster.clone(),
        trust_domain: config.trust_domain.clone(),
        spiffe_id: svid.current().id().clone(),
        advertise: config.advertise.clone(),
        ca: ca.clone(),
        data_dir: config.data_dir.clone(),
        profile: match config.store_profile {
            StoreProfile::Lan => Profile::Lan,
            StoreProfile::Wan => Profile::Wan,
        },
        transport,
        gateways: gateways.clone(),
        catalogs: catalogs.clone(),
        shared: shared.clone(),
        news: news.clone(),
        stop: stop.clone(),
        tasks: tasks.clone(),
    })
    .await?;
    // Not even a drop of the app ends the store's own tasks, which hold its folder.
    let (closing, stopped) = (membership.clone(), stop.clone());
    tasks.spawn(async move {
        stopped.cancelled_owned().await;
        closing.close().await;
    });
    serve_peers(&membership, incoming, &stop, &tasks);
    tasks.spawn(membership::take_heard(membership.current().clone(), heard, stop.clone()));
    // What the federation had said last is in the first revision, whoever can be reached now.
    intake.take_up(&first, &shared.borrow());
    let streams = ResourceStreams {
        cluster: cluster.clone(),
        trust_domain,
        users: users.clone(),
        revisions: revisions.clone(),
        gateways: gateways.clone(),
        news: news.subscribe(),
        heard: heard_sender,
        stop: stop.clone(),
        tasks: tasks.clone(),
    };
    let enrolment = Enrolment {
        ca: ca.clone(),
        users: users.clone(),
        gateways: gateways.clone(),
        membership: membership.clone(),
    };
    let operator = Operator {
        cluster,
        advertise: config.advertise.clone(),
        resource_socket: config.resource_socket.clone(),
        ca: ca.clone(),
        svid: svid.clone(),
        revisions,
        intake: intake.clone(),
        gateways,
        started,
        audit: audit.clone(),
        applied,
        files,
    };
    let operator = OperatorServiceServer::new(operator)
        .max_decoding_message_size(wire::operator::REQUEST_BYTES_MAX);
    let operator = Gate::new(operator, operators.clone(), audit.clone());
    let federation = Federation { membership: membership.clone(), audit: audit.clone() };
    let federation = FederationServiceServer::new(federation)
        .max_decoding_message_size(wire::operator::REQUEST_BYTES_MAX);
    let federation = Gate::new(federation, operators.clone(), audit);
    let files = vec![
        serve(resource_socket, &users, resource_routes(streams, enrolment), &stop, &tasks),
        serve(
            operator_socket,
            &callers(&operators),
            operator_routes(operator, federation),
            &stop,
            &tasks,
        ),
    ];
    tasks.spawn(intake.run(catalogs, added, stop.clone()));
    let renewal_stop = stop.clone();
    tasks.spawn(async move { svid.keep_renewed(renewal_stop).await });
    log_start(&config);
    unfinished.disarm();
    Ok(App {
        resource_socket: config.resource_socket,
        operator_socket: config.operator_socket,
        bundle: ca.bundle(),
        stop,
        tasks,
        provider: Some(provider),
        membership,
        held: Some((files, folder)),
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

    /// Where operators ask.
    pub fn operator_socket(&self) -> &Path {
        &self.operator_socket
    }

    /// What other clusters verify this one's SVIDs with.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
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

/// The cluster's CA, and this node's own SVID.
fn open_identity(
    config: &FederationConfig,
    folder: &DataFolder,
    now: SystemTime,
) -> anyhow::Result<(Arc<Ca>, Arc<OwnSvid>)> {
    let ca = Ca::load_or_create(&folder.join("ca"), &config.trust_domain, now);
    let ca = Arc::new(ca.map_err(|e| coded(e.code(), e))?);
    let id = SpiffeId::of_part(&config.trust_domain, Part::Federation, &config.name);
    let store = SvidStore::open(&folder.join("svid")).map_err(|e| coded(e.code(), e))?;
    let svid = OwnSvid::load_or_issue(id, ca.clone(), store, now)?;
    Ok((ca, Arc::new(svid)))
}

/// An error as people see it: its registered code first.
pub(crate) fn coded<E>(code: Code, error: E) -> anyhow::Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    anyhow::Error::new(error).context(code.to_string())
}

/// The way to other clusters' nodes; its relay socket is open to whom the resource socket is.
fn start_transport(
    config: &FederationConfig,
    ca: &Ca,
    svid: &OwnSvid,
    users: &AllowedUsers,
    gateways: &Gateways,
    (stop, tasks): (&CancellationToken, &TaskTracker),
) -> anyhow::Result<(Transport, Incoming)> {
    let bundle = ca.bundle();
    let root = bundle.x509_authorities.first().context("the CA has no certificate")?;
    let transport = TransportConfig {
        cluster: config.cluster.clone(),
        relay_socket: config.relay_socket.clone(),
        uids: users.all(),
        ca: CertificateDer::from(root.clone()),
        own_bundle: bundle,
        dial_from: config.store_dial_from,
    };
    let doors = RelayDoors::of(gateways.clone());
    Transport::start(transport, svid.identity(), doors, stop.clone(), tasks)
}

/// Serves other members' nodes, and joiners, until the node stops.
fn serve_peers(
    membership: &Membership,
    incoming: Incoming,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let store = StoreServer(membership.current().clone());
    let raft = RaftServiceServer::new(store.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let store = StoreServiceServer::new(store).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let join = JoinServer { current: membership.current().clone(), tasks: tasks.clone() };
    let join = JoinServiceServer::new(join).max_decoding_message_size(JOIN_MESSAGE_BYTES_MAX);
    let until = |stop: &CancellationToken| stop.clone().cancelled_owned();
    let store = transport::server()
        .add_service(raft)
        .add_service(store)
        .serve_with_incoming_shutdown(incoming.store, until(stop));
    let join = transport::server()
        .add_service(join)
        .serve_with_incoming_shutdown(incoming.join, until(stop));
    tasks.spawn(async move {
        let (store, join) = tokio::join!(store, join);
        for problem in [store.err(), join.err()].into_iter().flatten() {
            tracing::error!(%problem, "serving other nodes ended");
        }
    });
}

fn bind_sockets(
    config: &FederationConfig,
    resource_is_private: bool,
    operator_is_private: bool,
) -> anyhow::Result<(Socket, Socket)> {
    let mode = |private| if private { PRIVATE_SOCKET_MODE } else { SHARED_SOCKET_MODE };
    let mode_of_resource = mode(resource_is_private);
    let resource = socket::bind("sockets.resource", &config.resource_socket, mode_of_resource)
        .map_err(|e| coded(e.code(), e))?;
    let mode_of_operator = mode(operator_is_private);
    let operator = socket::bind("sockets.operator", &config.operator_socket, mode_of_operator)
        .map_err(|e| coded(e.code(), e))?;
    Ok((resource, operator))
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

/// Who may subscribe and enrol.
fn enrolment_users(config: &FederationConfig, own: u32) -> anyhow::Result<AllowedUsers> {
    let fix = "list it under `enrolment.uids` of the federation node's configuration, or run the \
               gateway as a user that is listed";
    if config.enrolment_uids.is_empty() {
        return Ok(AllowedUsers::new(BTreeSet::from([own]), ENROLMENT_REFUSED, fix));
    }
    let foreign = config.enrolment_uids.iter().find(|uid| **uid != own && **uid != 0);
    if let Some(uid) = foreign
        && config.relay_socket.starts_with(&config.data_dir)
        && !config.resource_socket.starts_with(&config.data_dir)
    {
        anyhow::bail!(
            "enrolment.uids lists Unix user {uid}, which cannot reach {} because only this node's \
             user may enter dataDir; set `sockets.relay` to a path outside of it",
            config.relay_socket.display()
        );
    }
    if let Some(uid) = foreign
        && config.resource_socket.starts_with(&config.data_dir)
    {
        anyhow::bail!(
            "enrolment.uids lists Unix user {uid}, which cannot reach {} because only this node's \
             user may enter dataDir; set `sockets.resource` to a path outside of it",
            config.resource_socket.display()
        );
    }
    Ok(AllowedUsers::new(config.enrolment_uids.clone(), ENROLMENT_REFUSED, fix))
}

/// Who may operate the node.
fn operators(config: &FederationConfig, own: u32) -> anyhow::Result<OperatorUsers> {
    let users = OperatorUsers::new(own, config.operators.clone());
    if let Some(uid) = users.foreign()
        && config.operator_socket.starts_with(&config.data_dir)
    {
        anyhow::bail!(
            "operators lists Unix user {uid}, which cannot reach {} because only this node's user \
             may enter dataDir; set `sockets.operator` to a path outside of it",
            config.operator_socket.display()
        );
    }
    Ok(users)
}

/// The users whose connections are not counted as strangers'; [`Gate`] judges each call.
fn callers(operators: &OperatorUsers) -> AllowedUsers {
    let fix = "list it under `operators` of the federation node's configuration";
    AllowedUsers::new(operators.all(), OPERATOR_REFUSED, fix)
}

fn resource_routes(streams: ResourceStreams, enrolment: Enrolment) -> RoutesBuilder {
    let mut routes = RoutesBuilder::default();
    routes.add_service(
        ResourceServiceServer::new(streams).max_decoding_message_size(GATEWAY_MESSAGE_BYTES_MAX),
    );
    routes.add_service(
        EnrolmentServiceServer::new(enrolment).max_decoding_message_size(ENROL_MESSAGE_BYTES_MAX),
    );
    routes
}

fn operator_routes(
    operator: Gate<OperatorServiceServer<Operator>>,
    federation: Gate<FederationServiceServer<Federation>>,
) -> RoutesBuilder {
    let mut routes = RoutesBuilder::default();
    routes.add_service(operator);
    routes.add_service(federation);
    routes
}

/// Serves until the node stops; the socket's file is for the caller to keep till then.
fn serve(
    socket: Socket,
    users: &AllowedUsers,
    routes: RoutesBuilder,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> SocketFile {
    let (file, incoming) = socket.into_incoming(users.clone());
    let stop = stop.clone();
    tasks.spawn(async move {
        let served = Server::builder()
            .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await;
        if let Err(problem) = served {
            tracing::error!(%problem, "serving a socket ended");
        }
    });
    file
}
