//! What the gateway tells its federation node about itself.

use std::collections::BTreeSet;
use std::time::SystemTime;

use model::ClusterName;
use model::snapshot::Backend;
use tunnel::LinkStatus;
use wire::resource::limits::{
    COUNTERS_MAX, EXCHANGES_CLUSTERS_MAX, LINKS_MAX, LISTENERS_MAX, SERVICES_MAX,
    STORE_CONNECTIONS_MAX,
};
use wire::resource::{
    ClusterExchanges, ClusterHealth, Counter, Link, LinkClass, LinkError, LinkState, Listener,
    ServiceHealth, StatusReport,
};
use wire::tunnel::ConnectionClass;

use crate::drain::DrainStage;
use crate::metrics;
use crate::state::{GatewayState, ListenerStatus};

/// The state of this moment.
pub fn of(state: &GatewayState) -> StatusReport {
    let identity = state.identity.load();
    let expiry = identity.svid.as_ref().and_then(|svid| {
        let since_epoch = svid.not_after().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since_epoch.as_secs())
    });
    let now = SystemTime::now();
    let links = state.tunnel.get().map(|tunnel| tunnel.links()).unwrap_or_default();
    let totals = metrics::totals(state).into_iter().take(COUNTERS_MAX);
    StatusReport {
        gateway: state.config.name.clone(),
        spiffe_id: identity.svid.as_ref().map(|svid| svid.id().clone()),
        svid_not_after_unix_s: expiry,
        tunnel_address: state.tunnel.get().map(|tunnel| tunnel.local_addr()),
        admin_address: state.admin_address.get().copied(),
        revision: state.revision(),
        ready: state.unready().is_empty(),
        draining: state.drain.stage() != DrainStage::Serving || state.drain.is_cordoned(),
        uptime_ms: state.now().as_millis() as u64,
        version: env!("CARGO_PKG_VERSION").into(),
        links: links.iter().take(LINKS_MAX).map(|status| link(status, now)).collect(),
        listeners: state.listeners().into_iter().take(LISTENERS_MAX).map(listener).collect(),
        services: services(state),
        counters: totals.map(|(name, value)| Counter { name: name.into(), value }).collect(),
        exchanges: exchanges(state),
        store_connections: state.held.clusters().into_iter().take(STORE_CONNECTIONS_MAX).collect(),
    }
}

fn exchanges(state: &GatewayState) -> Vec<ClusterExchanges> {
    let (sent, received) = (state.sent.counts(), state.peer_quotas.counts());
    let clusters: BTreeSet<&ClusterName> = sent.keys().chain(received.keys()).collect();
    let row = |cluster: &ClusterName| ClusterExchanges {
        cluster: cluster.clone(),
        sent: sent.get(cluster).copied().unwrap_or_default(),
        received: received.get(cluster).map_or(0, |count| *count as u32),
    };
    clusters.into_iter().take(EXCHANGES_CLUSTERS_MAX).map(row).collect()
}

pub(crate) fn link(status: &LinkStatus, now: SystemTime) -> Link {
    let age_ms =
        |since: SystemTime| now.duration_since(since).unwrap_or_default().as_millis() as u64;
    Link {
        cluster: status.cluster.clone(),
        gateway_id: status.gateway,
        address: status.address.clone(),
        transport: status.transport,
        class: match status.class {
            ConnectionClass::Fast => LinkClass::Fast,
            ConnectionClass::Bulk => LinkClass::Bulk,
        },
        worker: status.worker.into(),
        state: match status.state {
            tunnel::LinkState::Dialling => LinkState::Dialling,
            tunnel::LinkState::Live => LinkState::Live,
            tunnel::LinkState::Draining => LinkState::Draining,
            tunnel::LinkState::Down => LinkState::Down,
        },
        rtt_us: status.rtt.map(|rtt| rtt.as_micros() as u64),
        packets_sent: status.sent_packets,
        packets_lost: status.lost_packets,
        bytes_sent: status.bytes_sent,
        bytes_received: status.bytes_received,
        since_age_ms: age_ms(status.since),
        last_error: status.last_error.as_ref().map(|error| LinkError {
            code: Some(error.code),
            text: error.text.clone(),
            age_ms: age_ms(error.at),
        }),
        retiring: status.retiring,
    }
}

fn listener(status: ListenerStatus) -> Listener {
    let ListenerStatus { name, address, protocol, error } = status;
    Listener { name, address, protocol, error }
}

/// Every port that requests can go to: those of imports, and of own services that no import has.
fn services(state: &GatewayState) -> Vec<ServiceHealth> {
    let snapshot = state.snapshot.load();
    let mut backends: Vec<&Backend> =
        snapshot.backends.values().map(|backend| &**backend).collect();
    backends.sort_by_key(|backend| (&backend.service, backend.port, backend.clusters.is_empty()));
    backends.dedup_by(|a, b| a.service == b.service && a.port == b.port);
    backends.into_iter().take(SERVICES_MAX).map(|backend| service(state, backend)).collect()
}

fn service(state: &GatewayState, backend: &Backend) -> ServiceHealth {
    let own = backend.local.then(|| {
        let group = state.endpoints.group(&backend.service, backend.port);
        let (ready, total) =
            group.map_or((0, 0), |group| (group.ready_count() as u32, group.total_count() as u32));
        ClusterHealth {
            cluster: state.config.cluster.clone(),
            usable: ready > 0,
            endpoints: Some((ready, total)),
            rtt_us: None,
        }
    });
    let peers = backend.clusters.iter().map(|cluster| {
        let path = state.path(cluster);
        ClusterHealth {
            cluster: cluster.clone(),
            usable: path.is_some_and(|path| !path.draining),
            endpoints: None,
            rtt_us: path.map(|path| path.rtt.as_micros() as u64),
        }
    });
    ServiceHealth {
        service: backend.service.clone(),
        port: backend.port,
        protocol: backend.protocol,
        clusters: own.into_iter().chain(peers).collect(),
    }
}
