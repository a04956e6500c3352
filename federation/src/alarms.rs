//! Certificates of which little life is left: told long before anybody is refused. An SVID is late
//! then, since it is renewed early in its life; a root is not renewed by itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use identity::{Ca, certificate_validity};
use model::code::{self, Code};
use model::{Diagnostic, Severity, Snapshot, TrustBundle};
use tokio_util::sync::CancellationToken;

use crate::gateways::{GatewayView, Gateways};
use crate::intake::Intake;
use crate::limits::{LIFE_LEFT_PERCENT, RENEWAL_CHECK_INTERVAL};
use crate::svid::OwnSvid;

/// How much of a certificate's life is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Left {
    permille: u64,
    pub(crate) until: SystemTime,
}

impl Left {
    pub(crate) fn of(from: SystemTime, until: SystemTime, now: SystemTime) -> Self {
        let life = until.duration_since(from).unwrap_or_default().as_millis().max(1);
        let left = until.duration_since(now).unwrap_or_default().as_millis().min(life);
        Self { permille: u64::try_from(left * 1000 / life).unwrap_or(1000), until }
    }

    /// 0 to 1.
    pub(crate) fn ratio(self) -> f64 {
        self.permille as f64 / 1000.0
    }

    /// The lowest of the levels that it has fallen below.
    fn level(self, levels: &[u64]) -> Option<u64> {
        levels.iter().copied().filter(|percent| self.permille < percent * 10).min()
    }

    fn is_over(self, now: SystemTime) -> bool {
        self.until <= now
    }
}

/// Whose certificates are looked at.
pub(crate) struct Looked<'a> {
    pub(crate) ca: &'a Ca,
    pub(crate) svid: &'a OwnSvid,
    /// Its peers' bundles.
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) gateways: &'a [GatewayView],
}

impl Looked<'_> {
    /// Of each trust domain the authority that lives longest: the others are on their way out.
    pub(crate) fn roots(&self, now: SystemTime) -> Vec<(String, Left)> {
        let peers = self.snapshot.peers.values().flat_map(|peer| peer.trust_bundles.iter());
        let own = self.ca.bundle();
        let bundles = [&own].into_iter().chain(peers);
        bundles
            .filter_map(|bundle| Some((bundle.trust_domain.to_string(), best(bundle, now)?)))
            .collect()
    }

    pub(crate) fn own_svid(&self, now: SystemTime) -> Left {
        let end = self.svid.current().not_after();
        Left::of(end - self.svid.lifetime(), end, now)
    }

    /// What there is to say, the worst about each certificate.
    pub(crate) fn diagnostics(&self, now: SystemTime) -> Vec<Diagnostic> {
        let roots = self.roots(now).into_iter().filter_map(|(domain, left)| {
            let what = format!("the root of trust domain {domain}");
            let codes = (code::ROOT_ENDS_SOON, code::AUTHORITY_EXPIRED);
            told(format!("TrustDomain/{domain}"), &what, left, &LIFE_LEFT_PERCENT, codes, now)
        });
        // Those that are renewed at half of their life are not late then.
        let lifetime = self.svid.lifetime();
        let levels = match lifetime > 2 * identity::limits::SVID_RENEWAL_AGE {
            true => &LIFE_LEFT_PERCENT[..],
            false => &LIFE_LEFT_PERCENT[1..],
        };
        let codes = (code::SVID_RENEWAL_LATE, code::SVID_EXPIRED);
        let own = (self.svid.current().id().to_string(), self.own_svid(now));
        let of_gateway = |gateway: &GatewayView| {
            let (report, _) = gateway.report.as_ref().filter(|_| gateway.connected)?;
            let end = Duration::from_secs(report.svid_not_after_unix_s?);
            let end = SystemTime::UNIX_EPOCH.checked_add(end)?;
            let left = Left::of(end.checked_sub(lifetime)?, end, now);
            Some((report.spiffe_id.as_ref()?.to_string(), left))
        };
        let svids = [own].into_iter().chain(self.gateways.iter().filter_map(of_gateway));
        let svids = svids.filter_map(|(id, left)| {
            told(id.clone(), &format!("the SVID of {id}"), left, levels, codes, now)
        });
        roots.chain(svids).collect()
    }
}

/// Writes into the log what operators are told who ask: not everybody asks.
pub(crate) struct Watch {
    pub(crate) ca: Arc<Ca>,
    pub(crate) svid: Arc<OwnSvid>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) gateways: Gateways,
}

impl Watch {
    pub(crate) async fn keep_told(self, stop: CancellationToken) {
        let mut told = Told::default();
        let mut ticks =
            tokio::time::interval(RENEWAL_CHECK_INTERVAL.min(self.svid.lifetime() / 10));
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            for alarm in told.news(self.alarms(SystemTime::now())) {
                log(&alarm);
            }
        }
    }

    fn alarms(&self, now: SystemTime) -> Vec<Diagnostic> {
        let (findings, gateways) = (self.intake.findings(), self.gateways.view(Instant::now()));
        let looked = Looked {
            ca: &self.ca,
            svid: &self.svid,
            snapshot: &findings.snapshot,
            gateways: &gateways,
        };
        looked.diagnostics(now)
    }
}

fn log(alarm: &Diagnostic) {
    let Diagnostic { code, object, message, fix, .. } = alarm;
    match alarm.severity {
        Severity::Error => tracing::error!(%code, object, fix, "{message}"),
        Severity::Warning => tracing::warn!(%code, object, fix, "{message}"),
    }
}

/// Alarms that the log has: each once, and again if it was over meanwhile.
#[derive(Debug, Default)]
struct Told(BTreeSet<(String, String)>);

impl Told {
    fn news(&mut self, alarms: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let key = |alarm: &Diagnostic| (alarm.object.clone(), alarm.message.clone());
        let before = std::mem::replace(&mut self.0, alarms.iter().map(key).collect());
        alarms.into_iter().filter(|alarm| !before.contains(&key(alarm))).collect()
    }
}

fn best(bundle: &TrustBundle, now: SystemTime) -> Option<Left> {
    let lives = bundle.x509_authorities.iter().filter_map(|der| certificate_validity(der));
    lives.map(|(from, until)| Left::of(from, until, now)).max()
}

fn told(
    object: String,
    what: &str,
    left: Left,
    levels: &[u64],
    (soon, over): (Code, Code),
    now: SystemTime,
) -> Option<Diagnostic> {
    let level = left.level(levels)?;
    let until =
        jiff::Timestamp::try_from(left.until).map_or_else(|_| "?".into(), |t| t.to_string());
    let (code, message) = match left.is_over(now) {
        true => (over, format!("{what} has run out at {until}")),
        false => (soon, format!("{what} has less than {level} % of its life left, until {until}")),
    };
    let is_last = level == *levels.last()?;
    let severity = if is_last { Severity::Error } else { Severity::Warning };
    let fix = code.entry().fix.into();
    Some(Diagnostic { severity, code, object, field: String::new(), message, fix })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000 + DAY * day
    }

    fn alarm(day: u32, levels: &[u64]) -> Option<(Severity, String)> {
        let left = Left::of(at(0), at(100), at(day));
        let codes = (code::ROOT_ENDS_SOON, code::AUTHORITY_EXPIRED);
        let told = told("x".into(), "it", left, levels, codes, at(day))?;
        Some((told.severity, format!("{} {}", told.code, told.message)))
    }

    #[test]
    fn it_is_told_at_a_half_a_fifth_and_a_twentieth() {
        let all = &LIFE_LEFT_PERCENT[..];
        assert_eq!(alarm(50, all), None);
        for (day, severity, percent) in [
            (51, Severity::Warning, 50),
            (80, Severity::Warning, 50),
            (81, Severity::Warning, 20),
            (95, Severity::Warning, 20),
            (96, Severity::Error, 5),
        ] {
            let text = format!(
                "FED3013 it has less than {percent} % of its life left, until 2025-01-08T00:00:00Z"
            );
            let (found, told) = alarm(day, all).unwrap();
            assert_eq!(
                (found, told.split(", until").next()),
                (severity, text.split(", until").next())
            );
        }
        let over = alarm(100, all).unwrap();
        assert!(
            over.0 == Severity::Error && over.1.starts_with("FED3010 it has run out"),
            "{over:?}"
        );
        assert_eq!(alarm(51, &LIFE_LEFT_PERCENT[1..]), None, "it is renewed then");
        assert_eq!(alarm(0, all), None);
    }

    #[test]
    fn the_log_has_each_alarm_once() {
        let (mut told, mut lines) = (Told::default(), Vec::new());
        let codes = (code::SVID_RENEWAL_LATE, code::SVID_EXPIRED);
        for day in (0..=110).chain(0..=60) {
            let left = Left::of(at(0), at(100), at(day));
            let alarm = super::told("x".into(), "it", left, &LIFE_LEFT_PERCENT, codes, at(day));
            lines.extend(told.news(alarm.into_iter().collect()).into_iter().map(|news| {
                let text = news.message.split(" of its life").next().unwrap().to_owned();
                (day, news.code, text.split(" at 2").next().unwrap().to_owned())
            }));
        }
        let late =
            |day, percent| (day, code::SVID_RENEWAL_LATE, format!("it has less than {percent} %"));
        let over = (100, code::SVID_EXPIRED, "it has run out".to_owned());
        assert_eq!(lines, [late(51, 50), late(81, 20), late(96, 5), over, late(51, 50)]);
    }
}
