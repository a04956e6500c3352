//! Whole clusters in one process: a federation node and a gateway each, on loopback addresses.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use federation::app::App;
use federation::config::FederationConfig;
use federation::membership::{
    IssuedToken, JoinProgress, Joined, Membership, MembershipError, Mode, TokenRequest, TokenText,
};
use gateway::config::GatewayConfig;
use model::{ClusterName, PeerAddress, RoleSet, Transport};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::fixture::until;

/// A cluster; its folder outlives its processes.
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    folder: TempDir,
    address: String,
    port: u16,
    pub(crate) trust_domain: String,
    federation: Option<App>,
    gateway: Option<gateway::app::App>,
}

static NEXT: AtomicU16 = AtomicU16::new(1);

impl Cluster {
    pub(crate) async fn start(name: &str) -> Self {
        let mut cluster = Self::prepare(name);
        cluster.start_node().await;
        cluster.start_gateway().await;
        cluster
    }

    /// Folders and addresses, no process yet.
    pub(crate) fn prepare(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        // An address of its own, so that the port stays free while the cluster is down.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let address =
            format!("127.{}.{}.{}", 64 + pid % 128, number % 250 + 1, pid / 128 % 250 + 1);
        let port = UdpSocket::bind((address.as_str(), 0)).unwrap().local_addr().unwrap().port();
        Self {
            name: ClusterName::parse(name).unwrap(),
            folder,
            address,
            port,
            trust_domain: format!("{name}.example"),
            federation: None,
            gateway: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn start_node(&mut self) {
        self.try_start_node().await.unwrap();
    }

    pub(crate) async fn try_start_node(&mut self) -> anyhow::Result<()> {
        let Self { name, address, port, trust_domain, .. } = &*self;
        let yaml = format!(
            "\
apiVersion: fedgate.dev/v1alpha1
kind: FederationConfig
cluster: {name}
trustDomain: {trust_domain}
dataDir: data
manifests: manifests
sockets: {{resource: run/r.sock, operator: run/o.sock}}
advertise:
- {{transport: quic, host: \"{address}\", port: {port}}}
"
        );
        let config = FederationConfig::from_yaml(&yaml, &self.path("federation.yaml")).unwrap();
        self.federation = Some(federation::app::build(config).await?);
        Ok(())
    }

    pub(crate) async fn stop_node(&mut self) {
        self.federation.take().unwrap().stop().await;
    }

    pub(crate) async fn start_gateway(&mut self) {
        let Self { name, address, port, trust_domain, .. } = &*self;
        let yaml = format!(
            "\
apiVersion: fedgate.dev/v1alpha1
kind: GatewayConfig
name: gw-0
cluster: {name}
trustDomain: {trust_domain}
dataDir: gateway
listen: {{tunnel: \"{address}:{port}\", routes: \"{address}\"}}
federation: {{socket: run/r.sock}}
admin: {{listen: \"{address}:0\"}}
workers: 1
accessLog: {{path: access.log}}
"
        );
        let config = GatewayConfig::from_yaml(&yaml, &self.path("gateway.yaml")).unwrap();
        self.gateway = Some(gateway::app::build(config).unwrap());
    }

    pub(crate) async fn stop_gateway(&mut self) {
        self.gateway.take().unwrap().drain_and_stop().await;
    }

    pub(crate) async fn stop(mut self) {
        if self.gateway.is_some() {
            self.stop_gateway().await;
        }
        if self.federation.is_some() {
            self.stop_node().await;
        }
    }

    pub(crate) fn membership(&self) -> Membership {
        self.federation.as_ref().unwrap().membership().clone()
    }

    pub(crate) fn node(&self) -> &App {
        self.federation.as_ref().unwrap()
    }

    /// Where its gateway is dialled.
    pub(crate) fn gateway_address(&self) -> PeerAddress {
        PeerAddress { transport: Transport::Quic, host: self.address.clone(), port: self.port }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let staged = self.path("manifests").join(format!(".{name}.new"));
        fs::write(&staged, text).unwrap();
        fs::rename(staged, self.path("manifests").join(name)).unwrap();
    }

    /// Issues a token as soon as the gateway answers.
    pub(crate) async fn token(&self, request: &TokenRequest) -> IssuedToken {
        let membership = self.membership();
        let issued = until(
            "a token",
            || membership.issue_token(request.clone()),
            |issued| !matches!(issued, Err(MembershipError::NoAddressAnswered { .. })),
        );
        issued.await.unwrap()
    }

    pub(crate) async fn join(&self, token: &TokenText) -> Result<Joined, MembershipError> {
        let (progress, _) = mpsc::channel::<JoinProgress>(32);
        self.membership().join(token, progress).await
    }

    pub(crate) async fn until_members(&self, wanted: usize) {
        let membership = self.membership();
        let active = || async { membership.members().iter().filter(|row| row.active).count() };
        until(&format!("{wanted} members at {}", self.name), active, |n| *n == wanted).await;
    }

    /// Waits until it has kept whom it speaks with: the federation's id and one other.
    pub(crate) async fn until_contacts(&self) {
        let folder = self.path("data/contacts");
        let kept = || async { fs::read_dir(&folder).map_or(0, Iterator::count) };
        until(&format!("contacts of {}", self.name), kept, |files| *files >= 2).await;
    }

    pub(crate) async fn until_mode(&self, wanted: Mode) {
        let membership = self.membership();
        let what = format!("{} as a {}", self.name, wanted.as_str());
        until(&what, || async { membership.mode() }, |mode| *mode == wanted).await;
    }

    /// Waits until everybody's records, the own ones included, are here.
    pub(crate) async fn until_records(&self, of: &str, wanted: usize) {
        let membership = self.membership();
        let records = || async {
            let rows = membership.members();
            rows.iter().find(|row| row.name.as_str() == of).map_or(0, |row| row.records)
        };
        until(&format!("{wanted} records of {of} at {}", self.name), records, |n| *n == wanted)
            .await;
    }
}

/// What a token grants when a test does not care.
pub(crate) fn request(name: &str) -> TokenRequest {
    TokenRequest {
        name: ClusterName::parse(name).unwrap(),
        roles: RoleSet::all(),
        delegation_depth: 2,
        lifetime: None,
        approval_needed: false,
        force: false,
    }
}

/// A federation of these clusters, founded by the first one, which admits the others.
pub(crate) async fn federation(names: &[&str]) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    for name in names {
        clusters.push(Cluster::start(name).await);
    }
    clusters[0].membership().init().await.unwrap();
    for index in 1..clusters.len() {
        let token = clusters[0].token(&request(names[index])).await;
        clusters[index].join(&token.text).await.unwrap();
    }
    for cluster in &clusters {
        cluster.until_members(names.len()).await;
    }
    clusters
}

pub(crate) async fn stop_all(clusters: Vec<Cluster>) {
    for cluster in clusters {
        cluster.stop().await;
    }
}

/// Every file under a folder, with its bytes.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found
}
