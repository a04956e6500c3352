//! Members' watch streams that count what comes and verify nothing: a node's load without its readers'.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use prost::Message as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wire::store::limits::MESSAGE_BYTES_MAX;
use wire::store::proto::store_service_client::StoreServiceClient;
use wire::store::proto::watch_event::Event;
use wire::store::proto::{WatchEvent, WatchRequest};

use super::node::channel;

const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(120);

/// What one stream has brought so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// The revision of the last whole state.
    pub index: u64,
    pub at: Option<Instant>,
    /// Encoded events.
    pub bytes: u64,
    pub deltas: u64,
}

/// Streams of several clusters, each on a connection of its own.
#[derive(Debug)]
pub(super) struct Watchers {
    streams: Vec<watch::Receiver<Seen>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Watchers {
    pub(super) fn start(
        address: SocketAddr,
        clusters: impl IntoIterator<Item = u32>,
    ) -> anyhow::Result<Self> {
        let (mut streams, mut tasks) = (Vec::new(), JoinSet::new());
        for cluster in clusters {
            let link = channel(address, cluster)?;
            let (seen, receiver) = watch::channel(Seen::default());
            let client = StoreServiceClient::new(link).max_decoding_message_size(MESSAGE_BYTES_MAX);
            tasks.spawn(read(client, seen));
            streams.push(receiver);
        }
        Ok(Self { streams, tasks })
    }

    /// Waits until every stream is at a revision, and returns when each came there.
    pub(super) async fn reach(&mut self, index: u64) -> anyhow::Result<Vec<Instant>> {
        let mut times = Vec::with_capacity(self.streams.len());
        for stream in &mut self.streams {
            let reached = stream.wait_for(|seen| seen.index >= index);
            let seen = tokio::time::timeout(ARRIVAL_TIMEOUT, reached).await;
            let seen = *seen.context("a watcher did not get there in time")?.context("it ended")?;
            times.push(seen.at.context("a revision has its time")?);
        }
        Ok(times)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.streams.iter().map(|stream| *stream.borrow()).collect()
    }

    /// How many streams have ended, which none should.
    pub(super) fn ended(&mut self) -> usize {
        std::iter::from_fn(|| self.tasks.try_join_next()).count()
    }
}

async fn read(
    mut client: StoreServiceClient<tonic::transport::Channel>,
    seen: watch::Sender<Seen>,
) -> anyhow::Result<()> {
    let mut stream = client.watch(WatchRequest { resume: None }).await?.into_inner();
    while let Some(event) = stream.message().await? {
        seen.send_modify(|seen| note(seen, &event));
    }
    anyhow::bail!("the node ended the stream")
}

fn note(seen: &mut Seen, event: &WatchEvent) {
    seen.bytes += event.encoded_len() as u64;
    seen.deltas += u64::from(matches!(event.event, Some(Event::Delta(_))));
    if matches!(event.event, Some(Event::Delta(_) | Event::SnapshotEnd(_))) {
        seen.index = event.revision.as_ref().map_or(0, |revision| revision.index);
        seen.at = Some(Instant::now());
    }
}
