//! The resource stream: deltas to a gateway, acknowledgements and reports back.
//!
//! Nothing queues up for a slow gateway. There is room for one delta on its way, and the next one
//! is made only when that room is free, from what the gateway was last sent to what is served then.

use std::sync::Arc;
use std::time::Instant;

use model::code::{CONFIG_INVALID, ENROLMENT_REFUSED, FEDERATION_UNREACHABLE};
use model::{ClusterName, Revision, TrustDomain};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use wire::resource::proto::resource_service_server::ResourceService;
use wire::resource::proto::{
    FederationMessage, GatewayMessage, federation_message, gateway_message,
};
use wire::resource::{
    Ack, HeardFromPeer, PingAnswer, PingRequest, RenewSvids, StatusReport, StoreNews, Subscribe,
    WireError,
};

use crate::gateways::{Asked, Door, Gateways, Lease, NameTaken};
use crate::kubernetes::changed;
use crate::limits::{NAME_WAIT, SERVING_NEWS_PAUSE, SUBSCRIBE_TIMEOUT};
use crate::peer::{AllowedUsers, Caller};
use crate::port::PortInfo;
use crate::refusal::refuse;
use crate::revisions::Revisions;

/// Log lines of this target are the record of who was refused.
const AUDIT: &str = "fedgate::audit";

type Outgoing = mpsc::Sender<Result<FederationMessage, Status>>;

/// The service behind `resource.sock` and `listen.gateways`.
#[derive(Debug, Clone)]
pub(crate) struct ResourceStreams {
    pub(crate) cluster: ClusterName,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) users: Arc<AllowedUsers>,
    pub(crate) revisions: Arc<Revisions>,
    pub(crate) gateways: Gateways,
    /// What gateways are to know, and to pass on to their peers.
    pub(crate) news: watch::Receiver<Arc<StoreNews>>,
    /// SVIDs that they are to renew.
    pub(crate) renew: watch::Receiver<RenewSvids>,
    /// What they heard from their peers.
    pub(crate) heard: mpsc::Sender<HeardFromPeer>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

#[tonic::async_trait]
impl ResourceService for ResourceStreams {
    type StreamStream = ReceiverStream<Result<FederationMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<GatewayMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let caller = match request.extensions().get::<PortInfo>() {
            Some(port) => by_svid(port)?,
            None => self.users.admit(&request)?,
        };
        let (outgoing, receiver) = mpsc::channel(1);
        let streams = self.clone();
        let incoming = request.into_inner();
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                ended = streams.serve(caller, incoming, &outgoing) => ended,
                () = streams.stop.cancelled() => Err(stopping()),
            };
            if let Err(status) = ended {
                // A gateway that reads no more is not waited for when the node stops.
                let _ = tokio::time::timeout(SUBSCRIBE_TIMEOUT, outgoing.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl ResourceStreams {
    async fn serve(
        &self,
        caller: Caller,
        mut incoming: Streaming<GatewayMessage>,
        outgoing: &Outgoing,
    ) -> Result<(), Status> {
        let subscribe = self.subscribe(&mut incoming).await?;
        let name = &subscribe.gateway;
        if !caller.may_be(name) {
            let text = format!("Subscribe.gateway = {name:?}: the SVID is another gateway's");
            let status = refuse(tonic::Code::PermissionDenied, ENROLMENT_REFUSED, text);
            tracing::warn!(target: AUDIT, gateway = %name, ?caller, %status, "stream refused");
            return Err(status);
        }
        let taken = |taken: NameTaken| refuse(tonic::Code::AlreadyExists, ENROLMENT_REFUSED, taken);
        self.gateways.wait_free(name, &caller, NAME_WAIT).await.map_err(taken)?;
        let relay = Door::of(&subscribe, &caller);
        let lease = self.gateways.connect(name, caller, relay, Instant::now()).map_err(taken)?;
        // A gateway that does not know of pings would end the stream.
        let asked = subscribe.answers_pings.then(|| lease.answers_pings());
        tracing::info!(gateway = %name, resume = ?subscribe.resume, "gateway subscribed");
        let ended = tokio::select! {
            ended = self.receive(&mut incoming, &subscribe, &lease) => ended,
            ended = self.send(subscribe.resume, asked, outgoing) => ended,
        };
        match &ended {
            Ok(()) => tracing::info!(gateway = %name, "gateway left"),
            Err(status) => tracing::warn!(gateway = %name, %status, "gateway's stream ended"),
        }
        ended
    }

    /// The first message, checked.
    async fn subscribe(
        &self,
        incoming: &mut Streaming<GatewayMessage>,
    ) -> Result<Subscribe, Status> {
        let first = tokio::time::timeout(SUBSCRIBE_TIMEOUT, incoming.message()).await;
        let first = first.map_err(|_| {
            let seconds = SUBSCRIBE_TIMEOUT.as_secs();
            Status::deadline_exceeded(format!(
                "no Subscribe came within {seconds} s; send it first"
            ))
        })?;
        let message = first?.and_then(|message| message.message);
        let Some(gateway_message::Message::Subscribe(message)) = message else {
            return Err(Status::invalid_argument("the first message of a stream is Subscribe"));
        };
        let subscribe = Subscribe::decode(message).map_err(malformed)?;
        if subscribe.cluster != self.cluster {
            let text = format!(
                "Subscribe.cluster = {:?}: this node serves cluster {:?}; mend `cluster` or \
                 `federation.socket` in the gateway's configuration",
                subscribe.cluster, self.cluster
            );
            return Err(refuse(tonic::Code::FailedPrecondition, CONFIG_INVALID, text));
        }
        Ok(subscribe)
    }

    /// Ends when the gateway closes its side, breaks a rule, or is replaced by a newer stream.
    async fn receive(
        &self,
        incoming: &mut Streaming<GatewayMessage>,
        subscribe: &Subscribe,
        lease: &Lease,
    ) -> Result<(), Status> {
        while let Some(message) = incoming.message().await? {
            let current = match message.message {
                Some(gateway_message::Message::Report(report)) => {
                    let report = StatusReport::decode(report).map_err(malformed)?;
                    self.check_report(&report, subscribe)?;
                    lease.report(report, Instant::now())
                }
                Some(gateway_message::Message::Ack(ack)) => {
                    lease.acknowledge(Ack::decode(ack).map_err(malformed)?)
                }
                Some(gateway_message::Message::Heard(heard)) => {
                    let heard = HeardFromPeer::decode(heard).map_err(malformed)?;
                    // Gateways tell everything again; what does not fit now comes later.
                    let _ = self.heard.try_send(heard);
                    true
                }
                Some(gateway_message::Message::Pinged(answer)) => {
                    lease.pinged(PingAnswer::decode(answer).map_err(malformed)?)
                }
                Some(gateway_message::Message::Subscribe(_)) => {
                    let text = "Subscribe came twice; open a new stream to subscribe again";
                    return Err(Status::invalid_argument(text));
                }
                // A newer gateway's message.
                None => true,
            };
            if !current {
                return Err(Status::aborted(
                    "a newer stream of this gateway has replaced this one",
                ));
            }
        }
        Ok(())
    }

    /// A gateway speaks for itself only.
    fn check_report(&self, report: &StatusReport, subscribe: &Subscribe) -> Result<(), Status> {
        if report.gateway != subscribe.gateway {
            return Err(Status::invalid_argument(format!(
                "StatusReport.gateway = {:?}: this stream is {:?}'s",
                report.gateway, subscribe.gateway
            )));
        }
        match &report.spiffe_id {
            Some(id) if *id.trust_domain() != self.trust_domain => {
                Err(Status::invalid_argument(format!(
                    "StatusReport.spiffe_id = {:?}: this cluster's trust domain is {}",
                    id.as_str(),
                    self.trust_domain
                )))
            }
            _ => Ok(()),
        }
    }

    /// Sends news, pings, and a delta whenever there is a newer revision, as soon as there is room.
    async fn send(
        &self,
        resume: Option<Revision>,
        mut asked: Option<Asked>,
        outgoing: &Outgoing,
    ) -> Result<(), Status> {
        let mut sent = resume;
        let mut current = self.revisions.watch();
        let mut news = self.news.clone();
        news.mark_changed();
        let mut serving = self.gateways.serving();
        let mut renew = self.renew.clone();
        let mut serving_from = tokio::time::Instant::now();
        loop {
            let is_newer = |revision: &Option<Revision>| revision.is_some() && *revision != sent;
            let next = tokio::select! {
                biased;
                changed = news.changed() => changed.map(|()| Next::News),
                () = changed(&mut renew) => Ok(Next::News),
                changed = changed_from(serving_from, &mut serving) => changed.map(|()| Next::News),
                request = ping_asked(&mut asked) => Ok(Next::Ping(request)),
                newer = current.wait_for(is_newer) => newer.map(|_| Next::Delta),
            };
            let next = next.map_err(|_| stopping())?;
            let Ok(room) = outgoing.reserve().await else { return Ok(()) };
            let message = match next {
                Next::News => {
                    let mut news = news.borrow_and_update().encode();
                    serving.borrow_and_update().put(&mut news);
                    renew.borrow_and_update().put(&mut news);
                    serving_from = tokio::time::Instant::now() + SERVING_NEWS_PAUSE;
                    federation_message::Message::News(news)
                }
                Next::Ping(request) => federation_message::Message::Ping(request.encode()),
                Next::Delta => {
                    let Some(delta) = self.revisions.delta_from(sent) else { continue };
                    if delta.snapshot && sent.is_some() {
                        tracing::info!(have = ?sent, "a gateway is resynced by a snapshot");
                    }
                    let to = delta.to.as_ref();
                    sent = to.map(|to| Revision { epoch: to.epoch, index: to.index });
                    federation_message::Message::Delta(delta)
                }
            };
            room.send(Ok(FederationMessage { message: Some(message) }));
        }
    }
}

/// What is said next.
enum Next {
    News,
    Ping(PingRequest),
    Delta,
}

/// The next ping that is asked for; nothing where none is.
async fn ping_asked(asked: &mut Option<Asked>) -> PingRequest {
    let next = match asked {
        Some(asked) => asked.recv().await,
        None => None,
    };
    match next {
        Some(request) => request,
        None => std::future::pending().await,
    }
}

/// The next change, but none before then.
async fn changed_from<T>(
    then: tokio::time::Instant,
    watched: &mut watch::Receiver<T>,
) -> Result<(), watch::error::RecvError> {
    tokio::time::sleep_until(then).await;
    watched.changed().await
}

/// The gateway that the connection's SVID names.
fn by_svid(port: &PortInfo) -> Result<Caller, Status> {
    let remote = port.remote;
    port.gateway().map(|gateway| Caller::Pod { gateway, remote }).ok_or_else(|| {
        let text = "the stream needs the gateway's SVID; enrol first";
        let status = refuse(tonic::Code::Unauthenticated, ENROLMENT_REFUSED, text);
        tracing::warn!(target: AUDIT, %remote, %status, "stream refused");
        status
    })
}

fn malformed(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopping() -> Status {
    let text = "the federation node is stopping; traffic goes on, subscribe again later";
    refuse(tonic::Code::Unavailable, FEDERATION_UNREACHABLE, text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hundreds_of_changes_are_told_a_few_times_and_the_last_one_is() {
        let (changing, mut watched) = watch::channel(0);
        let begun = tokio::time::Instant::now();
        tokio::spawn(async move {
            for number in 1..=500 {
                tokio::time::sleep(Duration::from_millis(2)).await;
                changing.send_replace(number);
            }
            std::future::pending::<()>().await;
        });
        let (mut then, mut told) = (begun, vec![]);
        while told.last() != Some(&500) {
            changed_from(then, &mut watched).await.unwrap();
            told.push(*watched.borrow_and_update());
            then = tokio::time::Instant::now() + SERVING_NEWS_PAUSE;
        }
        assert_eq!(told[0], 1, "the first one at once");
        assert!(told.len() <= 7, "{told:?}");
        assert!(begun.elapsed() <= Duration::from_millis(1300));
    }
}
