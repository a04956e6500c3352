//! The resource stream: deltas come, acknowledgements and reports go. Without it the gateway goes
//! on with what it has.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use model::Revision;
use model::code::FEDERATION_UNREACHABLE;
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tunnel::Heard;
use wire::resource::proto::federation_message::Message as FromNode;
use wire::resource::proto::gateway_message::Message as ToNode;
use wire::resource::proto::resource_service_client::ResourceServiceClient;
use wire::resource::proto::{FederationMessage, GatewayMessage};
use wire::resource::{
    Delta, HeardFromPeer, PingRequest, RenewSvids, ServingGateways, StoreNews, Subscribe,
};

use crate::backoff::Backoff;
use crate::config::FederationLink;
use crate::control::Event;
use crate::federation::{self, Shown};
use crate::limits::{
    DELTA_BYTES_MAX, FEDERATION_CALL_TIMEOUT, REPORT_INTERVAL, REPORT_INTERVAL_MIN,
    REPORT_QUEUE_MAX,
};
use crate::ping::Pings;
use crate::report;
use crate::state::GatewayState;

/// Keeps the stream up until the gateway stops.
pub async fn keep_subscribed(state: Arc<GatewayState>, control: mpsc::Sender<Event>) {
    let mut backoff = Backoff::default();
    let mut from_scratch = false;
    loop {
        if matches!(state.config.federation, FederationLink::Tcp(_)) {
            svid_there(&state).await;
        }
        let mut served = false;
        let ended = session(&state, &control, from_scratch, &mut served).await;
        state.set_stream_up(false);
        from_scratch = matches!(ended, Ended::OutOfStep);
        let wait = pause(&ended, served, &mut backoff, &mut rand::rng());
        let retry_in_ms = wait.as_millis() as u64;
        match ended {
            Ended::Stopped => return,
            Ended::OutOfStep => {}
            Ended::Lost(error) => {
                if federation::is_revoked(&error) {
                    renew(&state);
                }
                let (code, error) = (FEDERATION_UNREACHABLE, format!("{error:#}"));
                tracing::warn!(%code, error, retry_in_ms, "no resource stream; traffic goes on");
            }
        }
        sleep(wait).await;
    }
}

/// A gateway that was away has heard nothing of its SVID's revocation, and is refused until it has another.
fn renew(state: &GatewayState) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    state.identity.renew_issued_before(now.as_secs());
}

/// A node that takes the call and then refuses the gateway, or sends what does not fit, is asked less
/// and less often, as one that does not answer.
fn pause(ended: &Ended, served: bool, backoff: &mut Backoff, rng: &mut impl Rng) -> Duration {
    match ended {
        Ended::Lost(_) if served => backoff.after_loss(rng),
        _ => backoff.next(rng),
    }
}

/// A node in another pod asks for an SVID; without one it would only note a refused caller.
async fn svid_there(state: &GatewayState) {
    let mut changes = state.changes();
    while !federation::has_live_svid(&state.identity, SystemTime::now()) {
        if changes.changed().await.is_err() {
            return; // cannot be: the sender lives in the state
        }
    }
}

/// Why a session is over.
enum Ended {
    Lost(anyhow::Error),
    /// A delta did not fit what is here: everything is asked for anew.
    OutOfStep,
    /// The control task is gone.
    Stopped,
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Lost(error)
    }
}

async fn session(
    state: &GatewayState,
    control: &mpsc::Sender<Event>,
    from_scratch: bool,
    served: &mut bool,
) -> Ended {
    let resume = state.revision().filter(|_| !from_scratch);
    let opened = timeout(FEDERATION_CALL_TIMEOUT, open(state, resume)).await;
    let opened = opened.context("no answer within the time limit").and_then(|opened| opened);
    let (to_node, from_node) = match opened {
        Ok(stream) => stream,
        Err(error) => return error.into(),
    };
    state.set_stream_up(true);
    tracing::info!(
        resume = resume.map(|revision| revision.to_string()),
        "resource stream connected"
    );
    exchange(state, control, to_node, from_node, served).await
}

type ToNodeQueue = mpsc::Sender<GatewayMessage>;

async fn open(
    state: &GatewayState,
    resume: Option<Revision>,
) -> anyhow::Result<(ToNodeQueue, Streaming<FederationMessage>)> {
    let channel = federation::connect(state, Shown::Svid).await?;
    let mut client = ResourceServiceClient::new(channel).max_decoding_message_size(DELTA_BYTES_MAX);
    let (to_node, messages) = mpsc::channel(REPORT_QUEUE_MAX);
    let (gateway, cluster) = (state.config.name.clone(), state.config.cluster.clone());
    let relay_socket = state.relay_socket.get().cloned();
    let relay_address = state.relay_address.get().copied();
    let answers_pings = true;
    let subscribe =
        Subscribe { gateway, cluster, resume, relay_socket, relay_address, answers_pings };
    to_node.try_send(message(ToNode::Subscribe(subscribe.encode())))?;
    let response = client.stream(ReceiverStream::new(messages)).await;
    Ok((to_node, response.map_err(federation::explain)?.into_inner()))
}

async fn exchange(
    state: &GatewayState,
    control: &mpsc::Sender<Event>,
    to_node: ToNodeQueue,
    mut from_node: Streaming<FederationMessage>,
    served: &mut bool,
) -> Ended {
    let (mut changes, mut pings) = (state.changes(), Pings::default());
    let mut reported_at = Instant::now();
    let mut report_at = reported_at;
    loop {
        tokio::select! {
            received = from_node.message() => {
                let answer = match received {
                    Ok(Some(received)) => take(state, control, &mut pings, received).await,
                    Ok(None) => Err(anyhow::anyhow!("the federation node ended the stream").into()),
                    Err(status) => Err(federation::explain(status).into()),
                };
                *served |= answer.is_ok();
                match answer {
                    Err(ended) => return ended,
                    Ok(None) => {}
                    Ok(Some(answer)) => if to_node.send(message(answer)).await.is_err() {
                        return anyhow::anyhow!("the stream broke").into();
                    },
                }
            }
            answer = pings.next() => {
                let answer = message(ToNode::Pinged(answer.encode()));
                if to_node.send(answer).await.is_err() {
                    return anyhow::anyhow!("the stream broke").into();
                }
            }
            heard = heard(state) => {
                let heard = message(ToNode::Heard(heard.encode()));
                if to_node.send(heard).await.is_err() {
                    return anyhow::anyhow!("the stream broke").into();
                }
            }
            _ = changes.changed() => report_at = report_at.min(reported_at + REPORT_INTERVAL_MIN),
            () = sleep_until(report_at) => {
                // A full queue means that the node does not read; a later report says more anyway.
                let _ = to_node.try_send(message(ToNode::Report(report::of(state).encode())));
                reported_at = Instant::now();
                report_at = reported_at + REPORT_INTERVAL;
            }
        }
    }
}

/// What peers' gateways have said; nothing while there is no tunnel. The stream looks again with
/// each report.
async fn heard(state: &GatewayState) -> HeardFromPeer {
    let Some(tunnel) = state.tunnel.get() else { return std::future::pending().await };
    let Heard { cluster, heads, revocations } = tunnel.heard().await;
    HeardFromPeer { cluster, heads, revocations }
}

async fn take(
    state: &GatewayState,
    control: &mpsc::Sender<Event>,
    pings: &mut Pings,
    received: FederationMessage,
) -> Result<Option<ToNode>, Ended> {
    let refused = "the federation node sent what is refused";
    match received.message {
        Some(FromNode::Delta(delta)) => apply(control, delta).await.map(ToNode::Ack).map(Some),
        Some(FromNode::Ping(request)) => {
            let request = PingRequest::decode(request).context(refused).map_err(Ended::Lost)?;
            let answer = pings.begin(state.tunnel.get(), request);
            Ok(answer.map(|answer| ToNode::Pinged(answer.encode())))
        }
        Some(FromNode::News(news)) => {
            state.identity.renew_issued_before(RenewSvids::decode(&news).before_unix_s);
            let serving = ServingGateways::decode(&news).context(refused).map_err(Ended::Lost)?;
            let news = StoreNews::decode(news).context(refused).map_err(Ended::Lost)?;
            let event = Event::News(Box::new(news), serving);
            control.send(event).await.map_err(|_| Ended::Stopped)?;
            Ok(None)
        }
        None => {
            let text = "the federation node sent a message of an unknown kind";
            Err(anyhow::anyhow!(text).into())
        }
    }
}

async fn apply(
    control: &mpsc::Sender<Event>,
    delta: wire::resource::proto::Delta,
) -> Result<wire::resource::proto::Ack, Ended> {
    let delta = Delta::decode(delta).context("the federation node sent what is refused");
    let delta = delta.map_err(Ended::Lost)?;
    let (reply, answer) = oneshot::channel();
    let event = Event::Delta(Box::new(delta), reply);
    if control.send(event).await.is_err() {
        return Err(Ended::Stopped);
    }
    match answer.await {
        Ok(Ok(ack)) => Ok(ack.encode()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the resource stream is out of step");
            Err(Ended::OutOfStep)
        }
        Err(_) => Err(Ended::Stopped),
    }
}

fn message(message: ToNode) -> GatewayMessage {
    GatewayMessage { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::limits::{FEDERATION_LOST_PAUSE_MAX, FEDERATION_RETRY_MIN};

    #[test]
    fn who_is_refused_after_connecting_does_not_come_back_ever_so_soon() {
        let (mut backoff, mut rng) = (Backoff::default(), SmallRng::seed_from_u64(1));
        let mut longest_of_ten = |ended: &Ended, served| {
            (0..10).map(|_| pause(ended, served, &mut backoff, &mut rng)).max().unwrap()
        };
        let refused = Ended::Lost(anyhow::anyhow!("no more are served"));
        assert!(longest_of_ten(&refused, false) > 8 * FEDERATION_RETRY_MIN);
        assert!(longest_of_ten(&refused, true) <= FEDERATION_LOST_PAUSE_MAX, "it was served");
        assert!(longest_of_ten(&Ended::OutOfStep, true) > 8 * FEDERATION_RETRY_MIN);
    }
}
