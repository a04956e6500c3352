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
    /// How often it began to answer; 0 until it did the first time.
    pub(super) returns: u64,
    /// Why it counts as away.
    pub(super) away: Option<String>,
}

impl Reach {
    /// Whether it is worth asking for more.
    pub(super) fn is_there(&self) -> bool {
        self.returns > 0 && self.away.is_none()
    }
}

/// Counts answers, and decides: pure.
#[derive(Debug, Default)]
struct Count {
    failures: u32,
}

impl Count {
    /// What follows from an answer; and how long until the next question.
    fn take(&mut self, answer: Result<(), String>, reach: &mut Reach) -> Duration {
        match answer {
            Ok(()) => {
                self.failures = 0;
                if !reach.is_there() {
                    reach.returns += 1;
                    reach.away = None;
                }
                Duration::from_millis(limits::PROBE_INTERVAL_MS)
            }
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                // A server that was never there needs no second question.
                let away = reach.returns == 0 || self.failures >= limits::PROBE_FAILURES_MAX;
                if away && reach.away.is_none() {
                    reach.away = Some(reason);
                }
                Duration::from_millis(limits::PROBE_RETRY_MS)
            }
        }
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

async fn ask(client: &Client) -> Result<(), String> {
    let request = http::Request::get("/readyz").body(Vec::new()).map_err(|x| x.to_string())?;
    let patience = Duration::from_millis(limits::PROBE_TIMEOUT_MS);
    match timeout(patience, client.request_text(request)).await {
        Err(_) => Err(format!("nothing within {} s", patience.as_secs())),
        Ok(Ok(_)) => Ok(()),
        // It answers; that it does not tell us more is a matter of its rules.
        Ok(Err(kube::Error::Api(status))) if status.code < 500 => Ok(()),
        Ok(Err(error)) => Err(super::watch::reason(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_answer_is_no_outage_and_a_return_is_counted_once() {
        let (mut count, mut reach) = (Count::default(), Reach::default());
        assert!(!reach.is_there(), "nothing is known yet");
        count.take(Err("refused".into()), &mut reach);
        assert_eq!(reach, Reach { returns: 0, away: Some("refused".into()) });
        count.take(Ok(()), &mut reach);
        count.take(Err("slow".into()), &mut reach);
        assert_eq!(reach, Reach { returns: 1, away: None });
        count.take(Ok(()), &mut reach);
        assert_eq!(reach.returns, 1);
        count.take(Err("slow".into()), &mut reach);
        let pause = count.take(Err("slower".into()), &mut reach);
        assert_eq!(reach, Reach { returns: 1, away: Some("slower".into()) });
        assert!(pause <= Duration::from_secs(1), "so that 5 s are enough for a resync");
        count.take(Err("other".into()), &mut reach);
        assert_eq!(reach.away.as_deref(), Some("slower"), "one outage is one finding");
        count.take(Ok(()), &mut reach);
        assert_eq!(reach, Reach { returns: 2, away: None });
    }
}
