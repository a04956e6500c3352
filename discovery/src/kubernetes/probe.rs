//! Whether the API server answers at all.
//!
//! A watch that is silent says nothing about that: a connection may have died unnoticed, or the
//! server may stand still. So it is asked. When it is back after it was away, every watch is taken
//! up anew at once instead of after its own pause.

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::limits;

/// What the last questions told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// How often it began to answer or to be ready; 0 until it was ready the first time.
    pub(super) returns: u64,
    /// It answers, ready or not. One that just started serves most of its kinds seconds before all
    /// its hooks have run.
    answers: bool,
    /// Why it counts as away.
    pub(super) away: Option<String>,
}

impl Reach {
    /// Whether it is worth asking for more. Not before it was ready once: until then it may deny what
    /// it has.
    pub(super) fn is_there(&self) -> bool {
        self.returns > 0 && self.answers
    }
}

/// An answer to the question whether it is ready.
#[derive(Debug)]
enum Answer {
    Ready,
    NotReady(String),
    None(String),
}

/// Counts answers, and decides: pure.
#[derive(Debug, Default)]
struct Count {
    failures: u32,
}

impl Count {
    /// What follows from an answer; and how long until the next question.
    fn take(&mut self, answer: Answer, reach: &mut Reach) -> Duration {
        let first = reach.returns == 0;
        let answers = !matches!(answer, Answer::None(_));
        match answer {
            Answer::Ready => {
                self.failures = 0;
                let back = reach.away.take().is_some() || !reach.answers;
                reach.returns += u64::from(first || back);
                reach.answers = true;
                return Duration::from_millis(limits::PROBE_INTERVAL_MS);
            }
            Answer::NotReady(reason) | Answer::None(reason) => {
                self.failures = self.failures.saturating_add(1);
                // A server that was never there needs no second question.
                let away = first || self.failures >= limits::PROBE_FAILURES_MAX;
                if away && reach.away.is_none() {
                    reach.away = Some(reason);
                }
                if away || answers {
                    reach.returns += u64::from(answers && !reach.answers && !first);
                    reach.answers = answers;
                }
            }
        }
        Duration::from_millis(limits::PROBE_RETRY_MS)
    }
}

/// Asks until nobody listens any more.
pub(super) async fn run(client: Client, sender: watch::Sender<Reach>) {
    let mut count = Count::default();
    while !sender.is_closed() {
        let answer = ask(&client).await;
        let mut reach = sender.borrow().clone();
        let pause = count.take(answer, &mut reach);
        sender.send_if_modified(|last| std::mem::replace(last, reach.clone()) != reach);
        sleep(pause).await;
    }
}

async fn ask(client: &Client) -> Answer {
    let request = match http::Request::get("/readyz").body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return Answer::None(error.to_string()),
    };
    let patience = Duration::from_millis(limits::PROBE_TIMEOUT_MS);
    match timeout(patience, client.request_text(request)).await {
        Err(_) => Answer::None(format!("nothing within {} s", patience.as_secs())),
        Ok(Ok(_)) => Answer::Ready,
        // That it does not tell us more is a matter of its rules.
        Ok(Err(kube::Error::Api(status))) if status.code < 500 => Answer::Ready,
        Ok(Err(kube::Error::Api(status))) => {
            Answer::NotReady(format!("it is not ready (HTTP {})", status.code))
        }
        Ok(Err(error)) => Answer::None(super::watch::reason(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(reason: &str) -> Answer {
        Answer::None(reason.into())
    }

    fn shape(reach: &Reach) -> (u64, bool, Option<&str>) {
        (reach.returns, reach.is_there(), reach.away.as_deref())
    }

    #[test]
    fn one_lost_answer_is_no_outage_and_a_return_is_counted_once() {
        let (mut count, mut reach) = (Count::default(), Reach::default());
        assert!(!reach.is_there(), "nothing is known yet");
        count.take(none("refused"), &mut reach);
        assert_eq!(shape(&reach), (0, false, Some("refused")));
        count.take(Answer::NotReady("starting".into()), &mut reach);
        assert_eq!(shape(&reach), (0, false, Some("refused")), "it may deny what it has");
        count.take(Answer::Ready, &mut reach);
        count.take(none("slow"), &mut reach);
        assert_eq!(shape(&reach), (1, true, None));
        count.take(Answer::Ready, &mut reach);
        assert_eq!(reach.returns, 1);
        count.take(none("slow"), &mut reach);
        let pause = count.take(none("slower"), &mut reach);
        assert_eq!(shape(&reach), (1, false, Some("slower")));
        assert!(pause <= Duration::from_secs(1), "so that 5 s are enough for a resync");
        count.take(none("other"), &mut reach);
        assert_eq!(reach.away.as_deref(), Some("slower"), "one outage is one finding");
        count.take(Answer::Ready, &mut reach);
        assert_eq!(shape(&reach), (2, true, None));
    }

    #[test]
    fn one_that_starts_again_is_asked_before_it_is_ready() {
        let (mut count, mut reach) = (Count::default(), Reach::default());
        count.take(Answer::Ready, &mut reach);
        count.take(none("refused"), &mut reach);
        count.take(none("refused"), &mut reach);
        count.take(Answer::NotReady("starting".into()), &mut reach);
        assert_eq!(shape(&reach), (2, true, Some("refused")));
        count.take(Answer::NotReady("starting".into()), &mut reach);
        assert_eq!(reach.returns, 2);
        count.take(Answer::Ready, &mut reach);
        assert_eq!(shape(&reach), (3, true, None));
        // Without its etcd it answers all the time, and is away.
        count.take(Answer::NotReady("etcd".into()), &mut reach);
        count.take(Answer::NotReady("etcd".into()), &mut reach);
        assert_eq!(shape(&reach), (3, true, Some("etcd")));
        count.take(Answer::Ready, &mut reach);
        assert_eq!(shape(&reach), (4, true, None));
    }
}
