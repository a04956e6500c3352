//! What listens: the sockets and ports for gateways and operators, and the streams of other clusters'
//! nodes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use identity::{ClientCertificate, OwnPeer};
use model::spiffe::Part;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tunnel::ClusterServer;
use wire::grpc::ALPN as ALPN_GRPC;
use wire::operator::proto::federation_service_server::FederationServiceServer;
use wire::operator::proto::operator_service_server::OperatorServiceServer;
use wire::resource::limits::{ENROL_MESSAGE_BYTES_MAX, GATEWAY_MESSAGE_BYTES_MAX};
use wire::resource::proto::enrolment_service_server::EnrolmentServiceServer;
use wire::resource::proto::resource_service_server::ResourceServiceServer;
use wire::store::join_proto::join_service_server::JoinServiceServer;
use wire::store::limits::MESSAGE_BYTES_MAX;
use wire::store::proto::raft_service_server::RaftServiceServer;
use wire::store::proto::store_service_server::StoreServiceServer;

use super::base::Base;
use super::coded;
use crate::alarms::Watch;
use crate::bundles;
use crate::config::Listen;
use crate::enrol::Enrolment;
use crate::health::{HealthPort, Loop};
use crate::kubernetes::TokenReviewer;
use crate::limits::{
    CALLS_PER_CONNECTION_MAX, JOIN_MESSAGE_BYTES_MAX, PORT_PING_INTERVAL, PORT_PING_TIMEOUT,
};
use crate::membership::{JoinServer, Membership, StoreServer};
use crate::operator::{Federation, Gate, Operator};
use crate::peer::AllowedUsers;
use crate::port::{self, Port};
use crate::socket::{self, Socket, SocketFile};
use crate::stream::ResourceStreams;
use crate::transport::{self, Incoming};

/// Only the owner may connect ...
const PRIVATE_SOCKET_MODE: u32 = 0o600;
/// ... or anyone may, and each call is judged by its peer credentials.
const SHARED_SOCKET_MODE: u32 = 0o666;

/// What is to be kept and watched while the node serves.
pub(super) struct Served {
    /// Of the sockets; they go with this.
    pub(super) files: Vec<SocketFile>,
    /// For what is known at the end only.
    pub(super) health: Option<HealthPort>,
    pub(super) loops: Vec<Loop>,
    /// Where the bundle is served.
    pub(super) bundle_endpoint: Option<SocketAddr>,
}

/// The node's own sockets and ports, bound before anything is started, served when everything is
/// there.
pub(super) struct Sockets {
    resource: Socket,
    operator: Socket,
    gateways: Option<Port>,
    operators: Option<Port>,
    bundles: Option<bundles::Endpoint>,
    health: Option<HealthPort>,
}

impl Sockets {
    pub(super) fn bind(base: &Base) -> anyhow::Result<Self> {
        let mode = |private| if private { PRIVATE_SOCKET_MODE } else { SHARED_SOCKET_MODE };
        let config = &base.config;
        let of_resource = mode(base.users.is_only(base.uid));
        let resource = socket::bind("sockets.resource", &config.resource_socket, of_resource);
        let of_operator = mode(base.operators.foreign().is_none());
        let operator = socket::bind("sockets.operator", &config.operator_socket, of_operator);
        let port = |field, address: Option<SocketAddr>, client| {
            let address = address.map(|address| port::bind(field, address, server(base, client)));
            address.transpose()
        };
        let endpoint = config.bundle_endpoint.as_ref();
        let endpoint =
            endpoint.map(|endpoint| bundles::Endpoint::bind(endpoint, base.svid.identity()));
        // Enrolment comes before the SVID that all else needs.
        let a_gateway = ClientCertificate::Optional(OwnPeer::Any(Part::Gateway));
        let unasked = ClientCertificate::Unasked;
        Ok(Self {
            gateways: port("listen.gateways", config.listen.gateways, a_gateway)?,
            operators: port("listen.operators", config.listen.operators, unasked)?,
            bundles: endpoint.transpose()?,
            health: config.health_listen.map(HealthPort::bind).transpose()?,
            resource: resource.map_err(|e| coded(e.code(), e))?,
            operator: operator.map_err(|e| coded(e.code(), e))?,
        })
    }

    /// Where the ports are.
    pub(super) fn listening(&self) -> io::Result<Listen> {
        let address = |port: &Option<Port>| port.as_ref().map(Port::local_addr).transpose();
        let (gateways, operators) = (address(&self.gateways)?, address(&self.operators)?);
        Ok(Listen { gateways, operators, relay: None })
    }

    /// Where health is told.
    pub(super) fn health(&self) -> io::Result<Option<SocketAddr>> {
        self.health.as_ref().map(HealthPort::local_addr).transpose()
    }

    /// Serves until the node stops.
    pub(super) fn serve(
        self,
        base: &Base,
        (streams, enrolment): (ResourceStreams, Enrolment),
        (operator, federation): (Operator, Federation),
        reviewer: Option<&Arc<TokenReviewer>>,
    ) -> io::Result<Served> {
        let (stop, tasks) = (&base.stop, &base.tasks);
        let mut resource = RoutesBuilder::default();
        resource.add_service(
            ResourceServiceServer::new(streams)
                .max_decoding_message_size(GATEWAY_MESSAGE_BYTES_MAX),
        );
        resource.add_service(
            EnrolmentServiceServer::new(enrolment)
                .max_decoding_message_size(ENROL_MESSAGE_BYTES_MAX),
        );
        let watch = Watch {
            ca: operator.ca.clone(),
            svid: operator.svid.clone(),
            intake: operator.intake.clone(),
            gateways: operator.gateways.clone(),
        };
        let operator = OperatorServiceServer::new(operator)
            .max_decoding_message_size(wire::operator::REQUEST_BYTES_MAX);
        let federation = FederationServiceServer::new(federation)
            .max_decoding_message_size(wire::operator::REQUEST_BYTES_MAX);
        let mut operators = RoutesBuilder::default();
        let (users, audit) = (&base.operators, &base.audit);
        let reviewer = reviewer.cloned();
        let gate = Gate::new(operator, users.clone(), audit.clone(), reviewer.clone());
        operators.add_service(gate);
        operators.add_service(Gate::new(federation, users.clone(), audit.clone(), reviewer));
        let (resource, operators) = (resource.routes(), operators.routes());
        let mut loops = Vec::new();
        for (name, port, routes) in [
            ("the port for gateways", self.gateways, &resource),
            ("the port for operators", self.operators, &operators),
        ] {
            if let Some(port) = port {
                loops.push(serve_port(name, port, routes.clone(), (stop, tasks))?);
            }
        }
        let watching = watch.keep_told(stop.clone());
        loops.push(Loop::spawn("the watch over certificates", watching, tasks));
        let files = vec![
            serve(self.resource, &base.users, resource, stop, tasks),
            serve(self.operator, &base.callers(), operators, stop, tasks),
        ];
        let bundle_endpoint = start_bundles(base, self.bundles, &mut loops)?;
        Ok(Served { files, health: self.health, loops, bundle_endpoint })
    }
}

/// This cluster's bundle for others, and theirs for this one.
fn start_bundles(
    base: &Base,
    endpoint: Option<bundles::Endpoint>,
    loops: &mut Vec<Loop>,
) -> io::Result<Option<SocketAddr>> {
    let (stop, tasks) = (&base.stop, &base.tasks);
    let address = endpoint.as_ref().map(bundles::Endpoint::local_addr).transpose()?;
    if let Some(endpoint) = endpoint {
        let serving = endpoint.serve(base.ca.clone(), stop.clone(), tasks.clone());
        loops.push(Loop::spawn("the bundle endpoint", serving, tasks));
    }
    for source in &base.config.bundle_sources {
        let polling = bundles::poll(source.clone(), base.bundles.clone(), stop.clone());
        loops.push(Loop::spawn("the polling of a bundle", polling, tasks));
    }
    Ok(address)
}

/// What a port of gRPC shows and asks for.
fn server(base: &Base, client: ClientCertificate) -> ClusterServer {
    let (identity, trust) = (base.svid.identity(), base.trust.clone());
    ClusterServer { identity, trust, client, alpn: ALPN_GRPC }
}

fn serve_port(
    name: &'static str,
    port: Port,
    routes: Routes,
    (stop, tasks): (&CancellationToken, &TaskTracker),
) -> io::Result<Loop> {
    let incoming = port.into_incoming(stop, tasks)?;
    let stop = stop.clone();
    let serving = async move {
        let served = Server::builder()
            .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
            .http2_keepalive_interval(Some(PORT_PING_INTERVAL))
            .http2_keepalive_timeout(Some(PORT_PING_TIMEOUT))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await;
        if let Err(problem) = served {
            tracing::error!(%problem, "serving a port ended");
        }
    };
    Ok(Loop::spawn(name, serving, tasks))
}

fn serve(
    socket: Socket,
    users: &AllowedUsers,
    routes: Routes,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> SocketFile {
    let (file, incoming) = socket.into_incoming(users.clone());
    let stop = stop.clone();
    tasks.spawn(async move {
        let served = Server::builder()
            .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await;
        if let Err(problem) = served {
            tracing::error!(%problem, "serving a socket ended");
        }
    });
    file
}

/// Serves other members' nodes, and joiners, until the node stops.
pub(super) fn serve_peers(
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
    let join = transport::join_server()
        .add_service(join)
        .serve_with_incoming_shutdown(incoming.join, until(stop));
    tasks.spawn(async move {
        let (store, join) = tokio::join!(store, join);
        for problem in [store.err(), join.err()].into_iter().flatten() {
            tracing::error!(%problem, "serving other nodes ended");
        }
    });
}
