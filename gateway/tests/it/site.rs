//! One cluster: a node, a gateway, and a loopback address of its own, so that ports never collide.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use gateway::app::{self, App};
use gateway::config::{FederationLink, GatewayConfig};
use model::{ClusterName, ObjectName, Resource, TrustDomain};
use serde_json::Value;
use tempfile::TempDir;

use crate::node::Node;
use crate::{eventually, objects};

pub(crate) const HTTP_PORT: u16 = 8080;
pub(crate) const TCP_PORT: u16 = 9000;

pub(crate) struct Site {
    pub(crate) node: Node,
    pub(crate) app: Option<App>,
    pub(crate) address: Ipv4Addr,
    pub(crate) config: GatewayConfig,
    _folder: TempDir,
}

/// 127.p.n.1: p from the process, n counted, so that tests side by side have addresses of their own.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = 64 + (std::process::id() % 128) as u8;
    Ipv4Addr::new(127, process, NEXT.fetch_add(1, Ordering::Relaxed), 1)
}

impl Site {
    /// A running node without resources, and a gateway that is configured but not started.
    pub(crate) fn new(cluster: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = own_address();
        let node = Node::new(folder.path(), &format!("{cluster}.test"));
        node.start();
        let config = GatewayConfig {
            name: ObjectName::parse("gw-0").unwrap(),
            cluster: ClusterName::parse(cluster).unwrap(),
            trust_domain: TrustDomain::parse(&format!("{cluster}.test")).unwrap(),
            data_dir: folder.path().join("gateway"),
            tunnel_listen: SocketAddr::new(IpAddr::V4(address), 8443),
            routes_listen: IpAddr::V4(address),
            federation: FederationLink::Sockets {
                resource: node.socket().into(),
                relay: folder.path().join("relay.sock"),
            },
            relay_listen: None,
            pod_ip: None,
            admin_listen: SocketAddr::new(IpAddr::V4(address), 0),
            health_listen: None,
            workers: 2,
            drain_accept: gateway::limits::DRAIN_ACCEPT_GRACE,
            access_log: folder.path().join("access.log"),
            log_level: None,
        };
        Self { node, app: None, address, config, _folder: folder }
    }

    /// The same with resources, started and ready.
    pub(crate) async fn ready(cluster: &str, objects: impl IntoIterator<Item = Resource>) -> Self {
        let mut site = Self::new(cluster);
        site.node.put(objects);
        site.start().await;
        site
    }

    pub(crate) async fn start(&mut self) {
        let app = app::build(self.config.clone()).unwrap();
        tokio::time::timeout(crate::PATIENCE, app.ready()).await.expect("the gateway gets ready");
        self.app = Some(app);
    }

    /// Of another gateway of this cluster, at an address of its own.
    pub(crate) fn another(&self, name: &str) -> GatewayConfig {
        let (address, folder) = (IpAddr::V4(own_address()), self.config.data_dir.clone());
        GatewayConfig {
            name: ObjectName::parse(name).unwrap(),
            data_dir: folder.with_file_name(name),
            tunnel_listen: SocketAddr::new(address, self.config.tunnel_listen.port()),
            routes_listen: address,
            admin_listen: SocketAddr::new(address, 0),
            access_log: folder.with_file_name(format!("{name}.log")),
            ..self.config.clone()
        }
    }

    pub(crate) fn config(&self) -> &GatewayConfig {
        &self.config
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    pub(crate) fn http(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), HTTP_PORT)
    }

    pub(crate) fn tcp(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), TCP_PORT)
    }

    pub(crate) fn tunnel(&self) -> SocketAddr {
        self.config.tunnel_listen
    }

    /// This cluster as others know it.
    pub(crate) fn as_peer(&self) -> Resource {
        objects::peer(self.config.cluster.as_str(), self.tunnel(), self.node.bundle())
    }

    /// Changes resources and waits until the gateway serves them.
    pub(crate) async fn change(&self, change: impl FnOnce(&Node)) {
        let acks = self.node.seen().acks.len();
        change(&self.node);
        eventually("acknowledgement", async || (self.node.seen().acks.len() > acks).then_some(()))
            .await;
    }

    /// Waits until there is a live tunnel to `cluster`.
    pub(crate) async fn sees(&self, cluster: &str) {
        let cluster = objects::cluster(cluster);
        eventually("live tunnel", async || self.app().state().path(&cluster)).await;
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.config.access_log.clone()
    }

    /// The access log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for `count` records and gives them; fails if there are more.
    pub(crate) async fn records(&self, count: usize) -> Vec<Value> {
        let records = eventually("access-log record", async || {
            let records = self.log();
            (records.len() >= count).then_some(records)
        })
        .await;
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    /// A page of the admin port.
    pub(crate) async fn admin(&self, method: &str, path: &str) -> (u16, String) {
        crate::client::plain(self.app().admin_addr(), method, path).await
    }
}
