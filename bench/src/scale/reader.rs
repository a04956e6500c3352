//! `bench reader`: the real Replica of one member as a process of its own, fed by one node.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use federation::replica::{FreshnessConfig, Links, Replica, ReplicaConfig};
use federation::store::RocksDisk;
use model::ClusterId;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use wire::store::WatchEvent;
use wire::store::limits::MESSAGE_BYTES_MAX;
use wire::store::proto::WatchRequest;
use wire::store::proto::store_service_client::StoreServiceClient;

use super::clusters;
use super::node::{channel, say};

#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(long)]
    folder: PathBuf,
    /// Which of the simulated clusters this is
    #[arg(long)]
    cluster: u32,
    /// The node that feeds it
    #[arg(long)]
    source: SocketAddr,
}

/// Opens what is in the folder, waits for a line on standard input, then follows the source.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.folder).context("make the replica's folder")?;
    let begun = Instant::now();
    let disk = Arc::new(RocksDisk::open(&options.folder)?);
    let own = clusters::key(options.cluster).cluster_id();
    let freshness = FreshnessConfig::default();
    let replica = Replica::open(ReplicaConfig { own, disk, freshness })?;
    let held = replica.state().revision().index;
    say(format_args!("opened {} {held}", begun.elapsed().as_micros()))?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let root = clusters::key(clusters::ROOT);
    let (source, link) = (root.cluster_id(), channel(options.source, options.cluster)?);
    if held == 0 {
        replica.begin(root.federation_id());
        let begun = Instant::now();
        seed(&replica, source, link.clone()).await?;
        let took = begun.elapsed().as_micros();
        let fleet = replica.state();
        let (members, records) =
            (fleet.members().count(), fleet.owners().flat_map(|it| it.records()));
        say(format_args!("seeded {took} {members} {}", records.count()))?;
    }
    let mut revisions = replica.feed().revision();
    let links = Arc::new(OneLink { source, link });
    let following = replica.follow(links, CancellationToken::new());
    let telling = async {
        loop {
            let revision = *revisions.borrow_and_update();
            let index = revision.map_or(0, |revision| revision.index);
            say(format_args!("at {index}"))?;
            if revisions.changed().await.is_err() {
                return anyhow::Ok(());
            }
        }
    };
    tokio::select! {
        () = following => Ok(()),
        told = telling => told,
    }
}

/// The first snapshot, which in the product comes with the answer to the join.
async fn seed(replica: &Replica, source: ClusterId, link: Channel) -> anyhow::Result<()> {
    let mut client = StoreServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut stream = client.watch(WatchRequest { resume: None }).await?.into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await? {
        let event = WatchEvent::decode(event)?;
        let ends = matches!(event, WatchEvent::SnapshotEnd { .. });
        if !matches!(event, WatchEvent::Alive { .. }) {
            events.push(event);
        }
        if ends {
            break;
        }
    }
    ensure!(!events.is_empty(), "the source sent no snapshot");
    replica.seed(source, events, true).await.map_err(|error| anyhow::anyhow!("{error:?}"))
}

struct OneLink {
    source: ClusterId,
    link: Channel,
}

impl Links for OneLink {
    fn channel(&self, cluster: &ClusterId) -> Option<Channel> {
        (*cluster == self.source).then(|| self.link.clone())
    }

    fn bulk_channel(&self, cluster: &ClusterId) -> Option<Channel> {
        self.channel(cluster)
    }
}
