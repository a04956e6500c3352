//! A fleet: several whole clusters in one process, each with its own federation node, gateway, CA,
//! folders and address, built by the same `app::build` as the binaries; between them our relay.
//!
//! The demo and the tests (`testkit`) both start their fleets here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use federation::config::FederationConfig;
use gateway::config::GatewayConfig;
use wan::Impairment;
use wan::relay::{LinkConfig, RelayConfig, UdpRelay};

/// What to start.
#[derive(Debug, Clone)]
pub struct FleetSpec {
    /// Everything is written below this folder.
    pub folder: PathBuf,
    pub clusters: Vec<String>,
    /// One-way delay between two clusters; pairs that are not named have none.
    pub delays: Vec<(String, String, Duration)>,
    pub introduction: Introduction,
    /// Worker threads of each gateway.
    pub workers: usize,
}

/// How the clusters of a fleet get to know each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Introduction {
    /// Each finds a ClusterPeer of every other one in its manifests.
    Manifests,
    /// Not at all: whoever started the fleet founds a federation, and lets the others join.
    None,
}

impl FleetSpec {
    fn delay(&self, from: &str, to: &str) -> Duration {
        let pair = |(a, b, _): &&(String, String, Duration)| {
            (a.as_str(), b.as_str()) == (from, to) || (b.as_str(), a.as_str()) == (from, to)
        };
        self.delays.iter().find(pair).map_or(Duration::ZERO, |(_, _, delay)| *delay)
    }
}

/// Running clusters. [`Fleet::stop`] stops them in order; dropping stops them at once.
#[derive(Debug)]
pub struct Fleet {
    clusters: BTreeMap<String, Cluster>,
    relay: UdpRelay,
    _subnet: Subnet,
}

/// One cluster of a fleet.
#[derive(Debug)]
pub struct Cluster {
    pub name: String,
    /// All of the cluster's ports are on this loopback address.
    pub address: IpAddr,
    /// Where all others reach it: at the relay.
    pub public: SocketAddr,
    pub folder: PathBuf,
    federation: Option<federation::app::App>,
    gateway: Option<gateway::app::App>,
}

/// The first of the relay's ports: each cluster has one, where all others dial it.
const RELAY_PORT: u16 = 8443;
/// UDP port of every cluster's gateway.
pub const TUNNEL_PORT: u16 = 8443;
const ADMIN_PORT: u16 = 9901;

impl Fleet {
    /// Starts nodes and gateways, and introduces every cluster to every other one if that is wanted.
    pub async fn start(spec: FleetSpec) -> anyhow::Result<Self> {
        let subnet = Subnet::reserve()?;
        let relay_host = subnet.host(Subnet::RELAY_HOST);
        let mut clusters = BTreeMap::new();
        for (index, name) in spec.clusters.iter().enumerate() {
            let host = u8::try_from(index + 1).context("too many clusters")?;
            let cluster = Cluster {
                name: name.clone(),
                address: subnet.host(host),
                public: SocketAddr::new(relay_host, RELAY_PORT + u16::from(host)),
                folder: spec.folder.join(name),
                federation: None,
                gateway: None,
            };
            cluster.prepare(spec.workers)?;
            clusters.insert(name.clone(), cluster);
        }
        for cluster in clusters.values_mut() {
            cluster.start_federation().await?;
        }
        let relay = start_relay(&spec, &clusters)?;
        if spec.introduction == Introduction::Manifests {
            introduce(&clusters)?;
        }
        for cluster in clusters.values_mut() {
            cluster.start_gateway().await?;
        }
        Ok(Self { clusters, relay, _subnet: subnet })
    }

    pub fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.clusters.values()
    }

    /// # Panics
    /// When the fleet was started without such a cluster.
    pub fn cluster(&self, name: &str) -> &Cluster {
        self.clusters.get(name).unwrap_or_else(|| panic!("the fleet has no cluster {name:?}"))
    }

    /// # Panics
    /// When the fleet was started without such a cluster.
    pub fn cluster_mut(&mut self, name: &str) -> &mut Cluster {
        self.clusters.get_mut(name).unwrap_or_else(|| panic!("the fleet has no cluster {name:?}"))
    }

    /// The packets between clusters pass it: it can cut, delay and record them.
    pub fn relay(&self) -> &UdpRelay {
        &self.relay
    }

    pub async fn stop(mut self) {
        for cluster in self.clusters.values_mut() {
            cluster.stop_gateway().await;
            cluster.stop_federation().await;
        }
    }
}

/// Of a demo's cluster.
pub(crate) fn trust_domain(cluster: &str) -> String {
    format!("{cluster}.demo.example")
}

impl Cluster {
    /// Makes its folders and writes its configurations.
    fn prepare(&self, workers: usize) -> anyhow::Result<()> {
        let manifests = self.manifests_folder();
        std::fs::create_dir_all(&manifests)
            .with_context(|| format!("create {}", manifests.display()))?;
        write(&self.folder.join("federation.yaml"), &self.federation_yaml())?;
        write(&self.folder.join("gateway.yaml"), &self.gateway_yaml(workers))
    }

    fn federation_yaml(&self) -> String {
        let Self { name, folder, address, public, .. } = self;
        format!(
            "\
apiVersion: fedgate.dev/v1alpha1
kind: FederationConfig
cluster: {name}
trustDomain: {domain}
dataDir: {data}/federation
manifests: {data}/manifests
sockets: {{resource: {data}/resource.sock, operator: {data}/operator.sock, relay: {data}/relay.sock}}
store: {{dialFrom: \"{address}\"}}
advertise:
- {{transport: quic, host: \"{host}\", port: {port}}}
",
            host = public.ip(),
            port = public.port(),
            domain = trust_domain(name),
            data = folder.display()
        )
    }

    fn gateway_yaml(&self, workers: usize) -> String {
        let Self { name, folder, address, .. } = self;
        format!(
            "\
apiVersion: fedgate.dev/v1alpha1
kind: GatewayConfig
name: gw-0
cluster: {name}
trustDomain: {domain}
dataDir: {data}/gateway
listen: {{tunnel: \"{address}:{TUNNEL_PORT}\", routes: \"{address}\"}}
federation: {{socket: {data}/resource.sock}}
admin: {{listen: \"{address}:{ADMIN_PORT}\"}}
workers: {workers}
accessLog: {{path: {data}/access.log}}
",
            domain = trust_domain(name),
            data = folder.display()
        )
    }

    pub async fn start_federation(&mut self) -> anyhow::Result<()> {
        let path = self.folder.join("federation.yaml");
        let config = FederationConfig::from_yaml(&read(&path)?, &path)?;
        let started = federation::app::build(config).await;
        self.federation =
            Some(started.with_context(|| format!("start the federation node of {}", self.name))?);
        Ok(())
    }

    pub async fn stop_federation(&mut self) {
        if let Some(federation) = self.federation.take() {
            federation.stop().await;
        }
    }

    /// Ends the node at once, as its death would: nothing is finished or said to anybody.
    pub fn kill_federation(&mut self) {
        self.federation = None;
    }

    pub async fn start_gateway(&mut self) -> anyhow::Result<()> {
        let path = self.folder.join("gateway.yaml");
        let config = GatewayConfig::from_yaml(&read(&path)?, &path)?;
        let started = gateway::app::build(config);
        self.gateway =
            Some(started.with_context(|| format!("start the gateway of {}", self.name))?);
        Ok(())
    }

    pub async fn stop_gateway(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.drain_and_stop().await;
        }
    }

    pub fn gateway(&self) -> Option<&gateway::app::App> {
        self.gateway.as_ref()
    }

    pub fn federation(&self) -> Option<&federation::app::App> {
        self.federation.as_ref()
    }

    pub fn manifests_folder(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    pub fn operator_socket(&self) -> PathBuf {
        self.folder.join("operator.sock")
    }

    pub fn access_log(&self) -> PathBuf {
        self.folder.join("access.log")
    }

    pub fn tunnel_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, TUNNEL_PORT)
    }

    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, ADMIN_PORT)
    }

    /// Puts a manifest into the cluster's folder, or replaces it, in one step.
    pub fn write_manifest(&self, name: &str, yaml: &str) -> anyhow::Result<()> {
        let folder = self.manifests_folder();
        let fresh = folder.join(format!(".{name}.new"));
        write(&fresh, yaml)?;
        let path = folder.join(format!("{name}.yaml"));
        std::fs::rename(&fresh, &path).with_context(|| format!("write {}", path.display()))
    }

    pub fn remove_manifest(&self, name: &str) -> anyhow::Result<()> {
        let path = self.manifests_folder().join(format!("{name}.yaml"));
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }
}

/// One link for each ordered pair: whose packet it is shows the address that it was sent from. A
/// cluster that dials its own public address, to try it, has a link too.
fn start_relay(spec: &FleetSpec, clusters: &BTreeMap<String, Cluster>) -> anyhow::Result<UdpRelay> {
    let mut links = Vec::new();
    for to in clusters.values() {
        for from in clusters.values() {
            let (site, delay) = match from.name == to.name {
                true => (format!("{}-itself", to.name), Duration::ZERO),
                false => (from.name.clone(), spec.delay(&from.name, &to.name)),
            };
            links.push(
                LinkConfig::new(site, &to.name)
                    .listen(to.public)
                    .client(from.address)
                    .target(to.tunnel_address())
                    .impaired(Impairment::delayed(delay)),
            );
        }
    }
    UdpRelay::spawn_thread(RelayConfig { links, seed: 1 }).context("start the relay")
}

/// Gives every cluster a ClusterPeer for every other one, with the relay's address for it.
fn introduce(clusters: &BTreeMap<String, Cluster>) -> anyhow::Result<()> {
    for cluster in clusters.values() {
        for peer in clusters.values().filter(|peer| peer.name != cluster.name) {
            let node = peer.federation.as_ref().context("a node that was started is gone")?;
            let yaml = api::emit::cluster_peer_manifest(&model::ClusterPeer {
                name: model::ClusterName::parse(&peer.name)?,
                addresses: vec![model::PeerAddress {
                    transport: model::Transport::Quic,
                    host: peer.public.ip().to_string(),
                    port: peer.public.port(),
                }],
                trust_bundles: vec![node.bundle().clone()],
                cordoned: false,
                revoked_svids: Vec::new(),
            })?;
            cluster.write_manifest(&format!("peer-{}", peer.name), &yaml)?;
        }
    }
    Ok(())
}

/// A loopback subnet of our own, `127.71.n.0/24`, so that a fleet's fixed ports meet nobody else's.
#[derive(Debug)]
struct Subnet {
    third_byte: u8,
    /// While it listens, no other fleet takes this subnet; the system frees it when we die.
    _reservation: TcpListener,
}

impl Subnet {
    const RELAY_HOST: u8 = 250;
    const RESERVATION_HOST: u8 = 251;
    const RESERVATION_PORT: u16 = 7199;

    fn reserve() -> anyhow::Result<Self> {
        for third_byte in 1..=254 {
            let address = Ipv4Addr::new(127, 71, third_byte, Self::RESERVATION_HOST);
            if let Ok(reservation) = TcpListener::bind((address, Self::RESERVATION_PORT)) {
                return Ok(Self { third_byte, _reservation: reservation });
            }
        }
        anyhow::bail!("no loopback subnet 127.71.n.0/24 is free: 254 fleets are running")
    }

    fn host(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(127, 71, self.third_byte, host).into()
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
