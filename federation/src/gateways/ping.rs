//! Pings: every gateway is asked at once to measure its links to a cluster, and each answer finds its
//! question by its number.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use model::code::{Code, GATEWAY_OUTDATED, GATEWAY_UNCONNECTED};
use model::{ClusterName, ObjectName};
use tokio::sync::{mpsc, oneshot};
use wire::resource::limits::PINGS_MAX;
use wire::resource::{PingAnswer, PingRequest, PingedLink};

use super::{Gateways, Lease};

/// Questions to a gateway, on the way to its stream.
pub(super) type Asks = mpsc::Sender<PingRequest>;
/// The stream's end of them.
pub(crate) type Asked = mpsc::Receiver<PingRequest>;

/// What a gateway has measured, or why it has not.
#[derive(Debug, Clone)]
pub(crate) struct GatewayPing {
    pub(crate) gateway: ObjectName,
    /// As it last said; empty before its first report.
    pub(crate) version: String,
    pub(crate) links: Result<Vec<PingedLink>, PingProblem>,
}

/// Why a gateway has measured nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PingProblem {
    #[error("it is not connected to this node")]
    Unconnected,
    #[error("it does not support ping (version {0})")]
    TooOld(String),
    #[error("{PINGS_MAX} pings wait for it already")]
    Busy,
    #[error("it refused: {0}")]
    Refused(String),
    #[error("it did not answer within {0:?}")]
    Silent(Duration),
    #[error("its stream to this node ended meanwhile")]
    Left,
}

impl PingProblem {
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Unconnected | Self::Left | Self::Silent(_) => Some(GATEWAY_UNCONNECTED),
            Self::TooOld(_) => Some(GATEWAY_OUTDATED),
            Self::Busy | Self::Refused(_) => None,
        }
    }

    pub(crate) fn fix(&self) -> &'static str {
        match self {
            Self::TooOld(_) => "upgrade it",
            Self::Unconnected | Self::Left | Self::Silent(_) => "its log says why",
            Self::Busy | Self::Refused(_) => "ask again in a moment",
        }
    }
}

/// The questions that wait for an answer. Each is there only as long as somebody waits.
#[derive(Debug, Default)]
pub(super) struct Pings(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    by_id: HashMap<u64, (ObjectName, oneshot::Sender<PingAnswer>)>,
}

impl Pings {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, gateway: &ObjectName) -> (Question<'_>, oneshot::Receiver<PingAnswer>) {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.last += 1;
        let id = waiting.last;
        waiting.by_id.insert(id, (gateway.clone(), sender));
        (Question { pings: self, id }, receiver)
    }

    /// An answer that nobody waits for any more, or that is another gateway's to give, is dropped.
    fn take(&self, gateway: &ObjectName, answer: PingAnswer) {
        let mut waiting = self.lock();
        if waiting.by_id.get(&answer.id).is_some_and(|(asked, _)| asked == gateway)
            && let Some((_, sender)) = waiting.by_id.remove(&answer.id)
        {
            let _ = sender.send(answer); // who asked has gone this very moment
        }
    }
}

/// Takes its place back when nobody waits any more.
struct Question<'a> {
    pings: &'a Pings,
    id: u64,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.pings.lock().by_id.remove(&self.id);
    }
}

impl Gateways {
    /// Has every gateway that is connected, or was, measure its links to the cluster; each of them
    /// within `patience`.
    pub(crate) async fn ping(
        &self,
        cluster: &ClusterName,
        probes: u32,
        patience: Duration,
    ) -> Vec<GatewayPing> {
        let entries: Vec<_> = {
            let table = self.lock();
            let entry = |(name, entry): (&ObjectName, &super::Entry)| {
                let report = entry.report.as_ref();
                let version = report.map_or_else(String::new, |(report, _)| report.version.clone());
                (name.clone(), version, entry.lease.is_some(), entry.asks.clone())
            };
            table.gateways.iter().map(entry).collect()
        };
        let asked = entries.into_iter().map(|(gateway, version, connected, asks)| async move {
            let links = match (connected, asks) {
                (false, _) => Err(PingProblem::Unconnected),
                (true, None) => Err(PingProblem::TooOld(shown(&version))),
                (true, Some(asks)) => self.ask(&gateway, &asks, cluster, probes, patience).await,
            };
            GatewayPing { gateway, version, links }
        });
        join_all(asked).await
    }

    async fn ask(
        &self,
        gateway: &ObjectName,
        asks: &Asks,
        cluster: &ClusterName,
        probes: u32,
        patience: Duration,
    ) -> Result<Vec<PingedLink>, PingProblem> {
        let (question, answer) = self.0.pings.expect(gateway);
        let request = PingRequest { id: question.id, cluster: cluster.clone(), probes };
        asks.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PingProblem::Busy,
            mpsc::error::TrySendError::Closed(_) => PingProblem::Left,
        })?;
        let answered = async {
            tokio::select! {
                answer = answer => answer.map_err(|_| PingProblem::Left),
                // The stream has the other end of it.
                () = asks.closed() => Err(PingProblem::Left),
            }
        };
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(answer)) => answer.links.map_err(PingProblem::Refused),
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err(PingProblem::Silent(patience)),
        }
    }
}

fn shown(version: &str) -> String {
    if version.is_empty() { "unknown".into() } else { version.into() }
}

impl Lease {
    /// The gateway answers pings: these are the questions that are to be sent to it.
    pub(crate) fn answers_pings(&self) -> Asked {
        let (asks, asked) = mpsc::channel(PINGS_MAX);
        self.with_entry(|entry| entry.asks = Some(asks));
        asked
    }

    /// `false`: a newer stream speaks for the gateway now.
    pub(crate) fn pinged(&self, answer: PingAnswer) -> bool {
        let is_current = self.with_entry(|_| {});
        if is_current {
            self.gateways.0.pings.take(&self.name, answer);
        }
        is_current
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::peer::Caller;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    fn connect(gateways: &Gateways, gateway: &str) -> Lease {
        let caller = Caller::Process { uid: 0, pid: Some(7) };
        gateways.connect(&name(gateway), caller, None, Instant::now()).unwrap()
    }

    async fn ping(gateways: &Gateways) -> Vec<Result<Vec<PingedLink>, PingProblem>> {
        let west = ClusterName::parse("west").unwrap();
        let pings = gateways.ping(&west, 3, PATIENCE).await;
        pings.into_iter().map(|ping| ping.links).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_gateway_answers_or_it_is_said_why_not() {
        let gateways = Gateways::default();
        let leases = ["a", "b", "c", "d"].map(|gateway| connect(&gateways, gateway));
        let [answers, refuses, is_silent, is_old] = &leases;
        drop(connect(&gateways, "e"));
        let _ = is_old;
        let (mut first, mut second) = (answers.answers_pings(), refuses.answers_pings());
        let _never_read = is_silent.answers_pings();
        let answering = async {
            let asked = first.recv().await.unwrap();
            assert_eq!((asked.cluster.as_str(), asked.probes), ("west", 3));
            // Nobody answers for another one.
            refuses.pinged(PingAnswer { id: asked.id, links: Err("not mine".into()) });
            answers.pinged(PingAnswer { id: asked.id, links: Ok(vec![]) });
            let id = second.recv().await.unwrap().id;
            refuses.pinged(PingAnswer { id, links: Err("busy".into()) });
        };
        let (pings, ()) = tokio::join!(ping(&gateways), answering);
        let wanted = [
            Ok(vec![]),
            Err(PingProblem::Refused("busy".into())),
            Err(PingProblem::Silent(PATIENCE)),
            Err(PingProblem::TooOld("unknown".into())),
            Err(PingProblem::Unconnected),
        ];
        assert_eq!(pings, wanted);
        assert!(gateways.0.pings.lock().by_id.is_empty(), "nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_ends_or_takes_nothing_ends_the_wait() {
        let gateways = Gateways::default();
        let lease = connect(&gateways, "a");
        let asked = lease.answers_pings();
        let ending = async {
            tokio::task::yield_now().await;
            drop(asked);
        };
        let (pings, ()) = tokio::join!(ping(&gateways), ending);
        assert_eq!(pings, [Err(PingProblem::Left)]);

        let _never_read = lease.answers_pings();
        let waiting = join_all((0..=PINGS_MAX).map(|_| ping(&gateways))).await;
        let busy = waiting.iter().filter(|pings| pings[0] == Err(PingProblem::Busy)).count();
        assert_eq!(busy, 1);
    }
}
