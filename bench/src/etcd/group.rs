//! The processes that are measured: one or three nodes of ours, or of etcd.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::uri::PathAndQuery;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use wire::store::proto::store_service_client::StoreServiceClient;

use super::{ResponseHeader, Target};
use crate::scale::child::Process;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Nodes of one store; they are killed when it is dropped.
#[derive(Debug)]
pub(super) struct Group {
    processes: Vec<Process>,
    /// Where the leader is asked.
    leader: SocketAddr,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Ours,
    Etcd,
}

impl Group {
    pub(super) async fn ours(folder: &Path, nodes: usize) -> anyhow::Result<Self> {
        let addresses = addresses(nodes)?;
        let group: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let mut processes = Vec::new();
        // The first one founds the group, and takes the others in: they are there before it.
        for number in (0..nodes).rev() {
            let folder = folder.join(number.to_string()).display().to_string();
            let arguments = [
                "--folder",
                &folder,
                "--listen",
                &group[number],
                "--cluster",
                &number.to_string(),
                "--machine",
                "register",
                "--group",
                &group.join(","),
            ];
            processes.push(Process::verb("node", &arguments)?);
        }
        let first = processes.last_mut().context("there is a node")?;
        let voters = first.wait_for("leads").await?;
        ensure!(voters == [nodes as u64], "{voters:?} voters instead of {nodes}");
        Ok(Self { processes, leader: addresses[0], kind: Kind::Ours })
    }

    pub(super) async fn etcd(program: &Path, folder: &Path, nodes: usize) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (clients, peers) = (addresses(nodes)?, addresses(nodes)?);
        let url = |address: &SocketAddr| format!("http://{address}");
        let member = |(number, peer)| format!("n{number}={}", url(peer));
        let cluster = peers.iter().enumerate().map(member).collect::<Vec<_>>().join(",");
        let mut processes = Vec::new();
        for number in 0..nodes {
            let data = folder.join(number.to_string()).display().to_string();
            let (client, peer) = (url(&clients[number]), url(&peers[number]));
            let name = format!("n{number}");
            let arguments = [
                "--name",
                &name,
                "--data-dir",
                &data,
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--initial-cluster",
                &cluster,
                "--initial-cluster-state",
                "new",
                "--log-level",
                "error",
            ];
            let log = folder.join(format!("{name}.log"));
            processes.push(Process::program(program, &arguments, &log)?);
        }
        let begun = Instant::now();
        loop {
            for address in &clients {
                if leads(*address).await.unwrap_or(false) {
                    return Ok(Self { processes, leader: *address, kind: Kind::Etcd });
                }
            }
            ensure!(begun.elapsed() < START_TIMEOUT, "etcd has no leader");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// A new connection to the leader.
    pub(super) async fn target(&self) -> anyhow::Result<Target> {
        let channel = connect(self.leader).await?;
        Ok(match self.kind {
            Kind::Ours => Target::Ours(StoreServiceClient::new(channel)),
            Kind::Etcd => Target::Etcd(Grpc::new(channel)),
        })
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        for process in self.processes {
            process.kill().await?;
        }
        Ok(())
    }
}

fn addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    // All at once, so that none is given twice.
    let held = (0..count).map(|_| std::net::TcpListener::bind(("127.0.0.1", 0)));
    let held = held.collect::<Result<Vec<_>, _>>()?;
    Ok(held.iter().map(std::net::TcpListener::local_addr).collect::<Result<_, _>>()?)
}

async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    Ok(endpoint.user_agent("cluster-0")?.connect().await?)
}

/// Whether an etcd member says that it is the leader itself.
async fn leads(address: SocketAddr) -> anyhow::Result<bool> {
    let mut client = Grpc::new(connect(address).await?);
    client.ready().await?;
    let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
    let codec = tonic_prost::ProstCodec::<StatusRequest, StatusResponse>::default();
    let status = client.unary(Request::new(StatusRequest {}), path, codec).await?.into_inner();
    let own = status.header.map_or(0, |header| header.member_id);
    Ok(own != 0 && own == status.leader)
}

/// Of etcd's `rpc.proto`: what is used of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}
