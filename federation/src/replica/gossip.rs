//! Members tell each other the Heads that they hold. It shows who withholds, who tells two stories,
//! and it keeps owners fresh over whatever paths there are. Runs in voters and Replicas alike.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use model::ClusterId;
use rand::RngCore as _;
use rand::seq::SliceRandom as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wire::store::proto::store_service_client::StoreServiceClient;
use wire::store::{Heads, Signed, limits::MESSAGE_BYTES_MAX};

use super::client::Links;
use super::limits::{
    AGE_SAVE_INTERVAL, HEADS_INTERVAL, HEADS_PEERS_MAX, HEADS_TIMEOUT, VERIFY_PARALLEL_MAX,
    WATCH_TICK_INTERVAL,
};
use super::observer::{Now, Observer, Told};

/// What one member answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) member: ClusterId,
    pub(super) outcome: Result<(Duration, Told), String>,
}

/// Asks some peers every few seconds, until `stop`. Revocations that they tell go to `revocations`,
/// whose reader judges them.
pub(super) async fn compare(
    observer: Observer,
    links: Arc<dyn Links>,
    revocations: mpsc::Sender<Vec<Signed>>,
    stop: CancellationToken,
) {
    let rounds = async {
        loop {
            tokio::time::sleep(jittered(HEADS_INTERVAL)).await;
            ask(&observer, &*links, some_of(observer.others()), Some(&revocations)).await;
            observer.tick(Now::read());
        }
    };
    let ages = async {
        let (mut saved, mut ticks) = (Instant::now(), tokio::time::interval(WATCH_TICK_INTERVAL));
        loop {
            ticks.tick().await;
            observer.tick(Now::read());
            if saved.elapsed() >= AGE_SAVE_INTERVAL {
                saved = Instant::now();
                save_ages(&observer).await;
            }
        }
    };
    tokio::select! {
        () = rounds => {}
        () = ages => {}
        () = stop.cancelled() => {}
    }
    save_ages(&observer).await;
}

/// Asks members for their Heads, a few at a time, and tells them ours.
pub(super) async fn ask(
    observer: &Observer,
    links: &dyn Links,
    members: Vec<ClusterId>,
    revocations: Option<&mpsc::Sender<Vec<Signed>>>,
) -> Vec<Answer> {
    let one = |member: ClusterId| async move {
        let begun = Instant::now();
        let asked = timeout(HEADS_TIMEOUT, ask_one(observer, links, member)).await;
        let answer = match asked {
            Ok(Ok(heads)) => Ok(heads),
            Ok(Err(status)) => Err(status.message().to_string()),
            Err(_) => Err(format!("no answer within {} s", HEADS_TIMEOUT.as_secs())),
        };
        let outcome = answer.map(|heads| {
            if let Some(revocations) = revocations
                && !heads.revocations.is_empty()
            {
                // A full queue loses nothing: they are told again in the next round.
                let _ = revocations.try_send(heads.revocations);
            }
            (begun.elapsed(), observer.tell(member, &heads.heads, Now::read()))
        });
        Answer { member, outcome }
    };
    stream::iter(members).map(one).buffer_unordered(VERIFY_PARALLEL_MAX).collect().await
}

async fn ask_one(
    observer: &Observer,
    links: &dyn Links,
    member: ClusterId,
) -> Result<Heads, Status> {
    let no_way = || Status::unavailable("no way to it is known");
    let channel = links.channel(&member).ok_or_else(no_way)?;
    let mut client = StoreServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let reply = client.heads(observer.word().encode_request()).await?.into_inner();
    Heads::decode_reply(reply).map_err(|error| Status::internal(error.to_string()))
}

async fn save_ages(observer: &Observer) {
    let observer = observer.clone();
    let saved = tokio::task::spawn_blocking(move || observer.save_ages(Now::read())).await;
    match saved {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => tracing::error!(%problem, "owners' ages could not be written down"),
        Err(problem) => tracing::error!(%problem, "writing owners' ages ended badly"),
    }
}

fn some_of(mut members: Vec<ClusterId>) -> Vec<ClusterId> {
    members.shuffle(&mut rand::rng());
    members.truncate(HEADS_PEERS_MAX);
    members
}

/// Between a half and one and a half of it, so that nodes do not ask in step.
fn jittered(interval: Duration) -> Duration {
    let bound = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    interval / 2 + Duration::from_millis(rand::rng().next_u64() % bound)
}
