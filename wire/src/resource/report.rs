//! A gateway's report of itself. Ages are durations as of sending; the node adds the time since.

use std::net::SocketAddr;

use model::code::Code;
use model::{
    AppProtocol, ClusterName, GatewayId, ListenerProtocol, Namespace, ObjectName, Revision,
    ServiceName, SpiffeId, Transport,
};

use super::convert::{self, list, parse, parse_optional, text};
use super::diagnostic::decode_code;
use super::{limits, proto};
use crate::error::{At, WireError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusReport {
    pub gateway: ObjectName,
    /// `None` until enrolled.
    pub spiffe_id: Option<SpiffeId>,
    pub svid_not_after_unix_s: Option<u64>,
    pub tunnel_address: Option<SocketAddr>,
    pub admin_address: Option<SocketAddr>,
    pub revision: Option<Revision>,
    pub ready: bool,
    pub draining: bool,
    pub uptime_ms: u64,
    pub version: String,
    pub links: Vec<Link>,
    pub listeners: Vec<Listener>,
    pub services: Vec<ServiceHealth>,
    pub counters: Vec<Counter>,
    /// Clusters whose federation nodes have a store connection open here.
    pub store_connections: Vec<ClusterName>,
    /// Clusters with which exchanges are in progress.
    pub exchanges: Vec<ClusterExchanges>,
}

/// Exchanges in progress with one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterExchanges {
    pub cluster: ClusterName,
    /// That the gateway has sent there.
    pub sent: u32,
    /// That it has taken from there.
    pub received: u32,
}

/// One connection to a peer's gateway, or the attempt to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub cluster: ClusterName,
    pub gateway_id: Option<GatewayId>,
    /// As dialled (`host:port`) or as seen.
    pub address: String,
    pub transport: Transport,
    pub class: LinkClass,
    pub worker: u32,
    pub state: LinkState,
    pub rtt_us: Option<u64>,
    pub packets_sent: u64,
    pub packets_lost: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Time in this state.
    pub since_age_ms: u64,
    pub last_error: Option<LinkError>,
    /// Another one has taken its place: it goes when its exchanges have ended.
    pub retiring: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkClass {
    Fast,
    Bulk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkState {
    Dialling,
    Live,
    Draining,
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkError {
    /// `None` when it has none, or one that is newer than this build.
    pub code: Option<Code>,
    pub text: String,
    pub age_ms: u64,
}

/// A port towards applications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `Gateway/namespace/name/listener`.
    pub name: String,
    pub address: SocketAddr,
    pub protocol: ListenerProtocol,
    /// Why it is not bound.
    pub error: Option<String>,
}

/// A service's port as the gateway sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHealth {
    pub service: ServiceName,
    pub port: u16,
    pub protocol: AppProtocol,
    pub clusters: Vec<ClusterHealth>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterHealth {
    pub cluster: ClusterName,
    pub usable: bool,
    /// Ready and all endpoints; known for the gateway's own cluster only.
    pub endpoints: Option<(u32, u32)>,
    pub rtt_us: Option<u64>,
}

/// A number under its name in `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    pub name: String,
    pub value: u64,
}

impl StatusReport {
    /// A row with a word of a later version is left out alone: the rows are for people, and what is not
    /// there is not taken for usable.
    pub fn decode(mut message: proto::StatusReport) -> Result<Self, WireError> {
        let at = At::message("StatusReport");
        message.links.retain(is_known);
        message.listeners.retain(|row| knows::<proto::ListenerProtocol>(row.protocol));
        message.services.retain(|row| knows::<proto::AppProtocol>(row.protocol));
        let not_after = message.svid_not_after_unix_s;
        Ok(Self {
            gateway: parse(at.field("gateway"), &message.gateway, ObjectName::parse)?,
            spiffe_id: parse_optional(at.field("spiffe_id"), &message.spiffe_id, SpiffeId::parse)?,
            svid_not_after_unix_s: (not_after > 0).then_some(not_after),
            tunnel_address: socket(at.field("tunnel_address"), &message.tunnel_address)?,
            admin_address: socket(at.field("admin_address"), &message.admin_address)?,
            revision: convert::optional_revision(at.field("revision"), message.revision)?,
            ready: message.ready,
            draining: message.draining,
            uptime_ms: message.uptime_ms,
            version: text(at.field("version"), message.version)?,
            links: list(&at, "links", message.links, limits::LINKS_MAX, link)?,
            listeners: list(&at, "listeners", message.listeners, limits::LISTENERS_MAX, listener)?,
            services: list(&at, "services", message.services, limits::SERVICES_MAX, service)?,
            counters: list(&at, "counters", message.counters, limits::COUNTERS_MAX, counter)?,
            store_connections: list(
                &at,
                "store_connections",
                message.store_connections,
                limits::STORE_CONNECTIONS_MAX,
                |at, name| parse(at, &name, ClusterName::parse),
            )?,
            exchanges: list(
                &at,
                "exchanges",
                message.exchanges,
                limits::EXCHANGES_CLUSTERS_MAX,
                exchanges,
            )?,
        })
    }
}

fn exchanges(
    at: At<'_>,
    exchanges: proto::ClusterExchanges,
) -> Result<ClusterExchanges, WireError> {
    Ok(ClusterExchanges {
        cluster: parse(at.field("cluster"), &exchanges.cluster, ClusterName::parse)?,
        sent: exchanges.sent,
        received: exchanges.received,
    })
}

fn socket(at: At<'_>, value: &str) -> Result<Option<SocketAddr>, WireError> {
    let rule = |value: &str| {
        value.parse().map_err(|_| "write it as address:port, an IPv6 address in brackets")
    };
    parse_optional(at, value, rule)
}

/// Whether this version has a name for the value. It has one for 0, which nobody sends.
fn knows<E: TryFrom<i32>>(value: i32) -> bool {
    E::try_from(value).is_ok()
}

pub(super) fn is_known(link: &proto::Link) -> bool {
    knows::<proto::Transport>(link.transport)
        && knows::<proto::LinkClass>(link.class)
        && knows::<proto::LinkState>(link.state)
}

pub(super) fn link(at: At<'_>, link: proto::Link) -> Result<Link, WireError> {
    let class = match proto::LinkClass::try_from(link.class) {
        Ok(proto::LinkClass::Fast) => LinkClass::Fast,
        Ok(proto::LinkClass::Bulk) => LinkClass::Bulk,
        _ => return Err(at.field("class").refuse(link.class, "use FAST (1) or BULK (2)")),
    };
    let error = link.last_error.map(|error| link_error(at.field("last_error"), error));
    Ok(Link {
        cluster: parse(at.field("cluster"), &link.cluster, ClusterName::parse)?,
        gateway_id: gateway_id(at.field("gateway_id"), &link.gateway_id)?,
        address: text(at.field("address"), link.address)?,
        transport: convert::transport(at.field("transport"), link.transport)?,
        class,
        worker: link.worker,
        state: link_state(at.field("state"), link.state)?,
        rtt_us: link.rtt_us,
        packets_sent: link.packets_sent,
        packets_lost: link.packets_lost,
        bytes_sent: link.bytes_sent,
        bytes_received: link.bytes_received,
        since_age_ms: link.since_age_ms,
        last_error: error.transpose()?,
        retiring: link.retiring,
    })
}

fn gateway_id(at: At<'_>, value: &[u8]) -> Result<Option<GatewayId>, WireError> {
    match <[u8; 16]>::try_from(value) {
        Ok(bytes) => Ok(Some(GatewayId::from_bytes(bytes))),
        Err(_) if value.is_empty() => Ok(None),
        Err(_) => Err(at.refuse(value, "a gateway id is 16 bytes")),
    }
}

fn link_state(at: At<'_>, value: i32) -> Result<LinkState, WireError> {
    match proto::LinkState::try_from(value) {
        Ok(proto::LinkState::Dialling) => Ok(LinkState::Dialling),
        Ok(proto::LinkState::Live) => Ok(LinkState::Live),
        Ok(proto::LinkState::Draining) => Ok(LinkState::Draining),
        Ok(proto::LinkState::Down) => Ok(LinkState::Down),
        _ => Err(at.refuse(value, "use DIALLING (1), LIVE (2), DRAINING (3) or DOWN (4)")),
    }
}

fn link_error(at: At<'_>, error: proto::LinkError) -> Result<LinkError, WireError> {
    let code = match error.code {
        0 => None,
        number => decode_code(at.field("code"), number)?,
    };
    Ok(LinkError { code, text: text(at.field("text"), error.text)?, age_ms: error.age_ms })
}

fn listener(at: At<'_>, listener: proto::Listener) -> Result<Listener, WireError> {
    let missing = || at.field("address").missing("a listener has an address");
    let error = text(at.field("error"), listener.error)?;
    Ok(Listener {
        name: text(at.field("name"), listener.name)?,
        address: socket(at.field("address"), &listener.address)?.ok_or_else(missing)?,
        protocol: convert::listener_protocol(at.field("protocol"), listener.protocol)?,
        error: (!error.is_empty()).then_some(error),
    })
}

fn service(at: At<'_>, health: proto::ServiceHealth) -> Result<ServiceHealth, WireError> {
    let namespace = parse(at.field("namespace"), &health.namespace, Namespace::parse)?;
    let name = parse(at.field("name"), &health.name, ObjectName::parse)?;
    let max = limits::LIST_ENTRIES_MAX;
    Ok(ServiceHealth {
        service: ServiceName::new(namespace, name),
        port: convert::port(at.field("port"), health.port)?,
        protocol: convert::app_protocol(at.field("protocol"), health.protocol)?,
        clusters: list(&at, "clusters", health.clusters, max, cluster_health)?,
    })
}

fn cluster_health(at: At<'_>, health: proto::ClusterHealth) -> Result<ClusterHealth, WireError> {
    let endpoints = match (health.endpoints_ready, health.endpoints_total) {
        (None, None) => None,
        (Some(ready), Some(total)) if ready <= total => Some((ready, total)),
        (Some(ready), Some(_)) => {
            let problem = "more endpoints are ready than there are";
            return Err(at.field("endpoints_ready").refuse(ready, problem));
        }
        (ready, _) => {
            let problem = "endpoints_ready and endpoints_total come together";
            return Err(at.field("endpoints_ready").refuse(ready, problem));
        }
    };
    let cluster = parse(at.field("cluster"), &health.cluster, ClusterName::parse)?;
    Ok(ClusterHealth { cluster, usable: health.usable, endpoints, rtt_us: health.rtt_us })
}

fn counter(at: At<'_>, counter: proto::Counter) -> Result<Counter, WireError> {
    let name = at.field("name");
    name.check_bytes(counter.name.len(), limits::COUNTER_NAME_BYTES_MAX)?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if counter.name.is_empty() || !counter.name.bytes().all(allowed) {
        return Err(name.refuse(counter.name, "use a metric's name: a-z, 0-9 and '_'"));
    }
    Ok(Counter { name: counter.name, value: counter.value })
}
