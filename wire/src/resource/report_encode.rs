//! Encoding reports: the mirror of `report.rs`.

use super::convert::{
    encode_app_protocol, encode_listener_protocol, encode_revision, encode_transport,
};
use super::diagnostic::cut;
use super::report::{
    ClusterExchanges, ClusterHealth, Link, LinkClass, LinkError, LinkState, Listener,
    ServiceHealth, StatusReport,
};
use super::{limits, proto};

impl StatusReport {
    /// Lists beyond their limits are cut: a report that says most is better than none.
    pub fn encode(&self) -> proto::StatusReport {
        let counter = |counter: &super::Counter| proto::Counter {
            name: counter.name.clone(),
            value: counter.value,
        };
        proto::StatusReport {
            gateway: self.gateway.to_string(),
            spiffe_id: self.spiffe_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            svid_not_after_unix_s: self.svid_not_after_unix_s.unwrap_or_default(),
            tunnel_address: self.tunnel_address.map(|a| a.to_string()).unwrap_or_default(),
            admin_address: self.admin_address.map(|a| a.to_string()).unwrap_or_default(),
            revision: self.revision.map(encode_revision),
            ready: self.ready,
            draining: self.draining,
            uptime_ms: self.uptime_ms,
            version: cut(&self.version),
            links: self.links.iter().take(limits::LINKS_MAX).map(link).collect(),
            listeners: self.listeners.iter().take(limits::LISTENERS_MAX).map(listener).collect(),
            services: self
                .services
                .iter()
                .take(limits::SERVICES_MAX)
                .map(ServiceHealth::encode)
                .collect(),
            counters: self.counters.iter().take(limits::COUNTERS_MAX).map(counter).collect(),
            store_connections: self
                .store_connections
                .iter()
                .take(limits::STORE_CONNECTIONS_MAX)
                .map(ToString::to_string)
                .collect(),
            exchanges: self
                .exchanges
                .iter()
                .take(limits::EXCHANGES_CLUSTERS_MAX)
                .map(exchanges)
                .collect(),
        }
    }
}

fn exchanges(exchanges: &ClusterExchanges) -> proto::ClusterExchanges {
    proto::ClusterExchanges {
        cluster: exchanges.cluster.to_string(),
        sent: exchanges.sent,
        received: exchanges.received,
    }
}

pub(super) fn link(link: &Link) -> proto::Link {
    let class = match link.class {
        LinkClass::Fast => proto::LinkClass::Fast,
        LinkClass::Bulk => proto::LinkClass::Bulk,
    };
    let state = match link.state {
        LinkState::Dialling => proto::LinkState::Dialling,
        LinkState::Live => proto::LinkState::Live,
        LinkState::Draining => proto::LinkState::Draining,
        LinkState::Down => proto::LinkState::Down,
    };
    proto::Link {
        cluster: link.cluster.to_string(),
        gateway_id: link.gateway_id.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        address: cut(&link.address),
        transport: encode_transport(link.transport).into(),
        class: class.into(),
        worker: link.worker,
        state: state.into(),
        rtt_us: link.rtt_us,
        packets_sent: link.packets_sent,
        packets_lost: link.packets_lost,
        bytes_sent: link.bytes_sent,
        bytes_received: link.bytes_received,
        since_age_ms: link.since_age_ms,
        last_error: link.last_error.as_ref().map(LinkError::encode),
        retiring: link.retiring,
    }
}

impl LinkError {
    pub fn encode(&self) -> proto::LinkError {
        let code = self.code.map_or(0, |code| code.number().into());
        proto::LinkError { code, text: cut(&self.text), age_ms: self.age_ms }
    }
}

fn listener(listener: &Listener) -> proto::Listener {
    proto::Listener {
        name: cut(&listener.name),
        address: listener.address.to_string(),
        protocol: encode_listener_protocol(listener.protocol).into(),
        error: listener.error.as_deref().map(cut).unwrap_or_default(),
    }
}

impl ServiceHealth {
    pub fn encode(&self) -> proto::ServiceHealth {
        proto::ServiceHealth {
            namespace: self.service.namespace.to_string(),
            name: self.service.name.to_string(),
            port: self.port.into(),
            protocol: encode_app_protocol(self.protocol).into(),
            clusters: self.clusters.iter().map(cluster_health).collect(),
        }
    }
}

fn cluster_health(health: &ClusterHealth) -> proto::ClusterHealth {
    proto::ClusterHealth {
        cluster: health.cluster.to_string(),
        usable: health.usable,
        endpoints_ready: health.endpoints.map(|(ready, _)| ready),
        endpoints_total: health.endpoints.map(|(_, total)| total),
        rtt_us: health.rtt_us,
    }
}
