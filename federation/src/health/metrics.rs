//! What `/metrics` of the node tells: what it knows anyway, read when it is asked.
//!
//! [`CATALOG`] names every metric with its labels and help; the reference page is made from it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use model::Severity;
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::Vitals;
use crate::alarms::Looked;
use crate::membership::Mode;
use crate::room::Room;
use crate::store::Role;

/// One metric of the node's; all are gauges.
#[derive(Debug)]
pub struct MetricEntry {
    pub name: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! catalog {
    ($($constant:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(const $constant: &str = $name;)*

        /// Every metric, besides the process's own (`process_*`, from the prometheus crate).
        pub static CATALOG: &[MetricEntry] = &[$(MetricEntry {
            name: $name, labels: $labels, help: $help,
        }),*];
    };
}

catalog! {
    GATEWAYS "fedgate_gateways_connected" &[],
        "Gateways of the cluster that hold a resource stream.";
    REVISION "fedgate_config_revision" &[],
        "Index of the newest revision of resources.";
    FINDINGS "fedgate_findings" &["severity"],
        "What `fedctl diagnostics` would say of objects, of the federation and of the API server.";
    SVID_EXPIRY "fedgate_certificate_expiry_timestamp_seconds" &[],
        "When the node's SVID runs out, in seconds since the Unix epoch.";
    SVID_LEFT "fedgate_certificate_life_left_ratio" &[],
        "How much of its life the node's SVID has left, from 1 to 0; it is renewed early, or at 0.5.";
    ROOT_LEFT "fedgate_root_life_left_ratio" &["trust_domain"],
        "The same of the roots of this cluster's and its peers' trust domains; of several the longest-lived.";
    MODE "fedgate_store_mode" &["mode"],
        "1 for what the node is to the federation's store: alone, member (it votes or stands by) or replica.";
    MEMBERS "fedgate_federation_members" &[],
        "Active clusters of the federation, this one included; 0 while alone.";
    LEADER "fedgate_store_is_leader" &[],
        "1 while this node leads the store.";
    LEADER_SILENCE "fedgate_store_leader_silence_seconds" &[],
        "On members but the leader: how long ago a leader was heard.";
    TERM "fedgate_store_term" &[],
        "Number of the last election that the node has heard of, on members.";
    STORE_REVISION "fedgate_store_revision" &[],
        "Index of the store's revision that is in service here.";
    FAULT "fedgate_store_fault" &[],
        "1 if the store does not work: its disk failed, or it was found damaged.";
    ROOM "fedgate_data_free_bytes" &[],
        "Bytes free on the disk of the node's data.";
    WRITER "fedgate_kubernetes_writer" &[],
        "1 while this node holds the Lease of the one that writes to the cluster.";
    TROUBLES "fedgate_kubernetes_troubles" &[],
        "Calls to the API server that fail now, counted by object.";
}

/// Everything, as text for Prometheus.
pub(super) fn render(vitals: &Vitals) -> prometheus::Result<String> {
    let mut families = families(vitals);
    families.extend(prometheus::gather()); // the process collector
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn families(vitals: &Vitals) -> Vec<MetricFamily> {
    let mut page = Page::default();
    let now = Instant::now();
    let connected = vitals.gateways.view(now).iter().filter(|gateway| gateway.connected).count();
    page.push(GATEWAYS, None, connected as f64);
    if let Some(revision) = *vitals.revisions.watch().borrow() {
        page.push(REVISION, None, revision.index as f64);
    }
    findings(vitals, &mut page);
    let end = vitals.svid.current().not_after().duration_since(UNIX_EPOCH).unwrap_or_default();
    page.push(SVID_EXPIRY, None, end.as_secs_f64());
    lives(vitals, &mut page);
    store(vitals, &mut page);
    if let Some(kubernetes) = &vitals.kubernetes {
        page.push(WRITER, None, one_if(kubernetes.is_leader()));
        page.push(TROUBLES, None, kubernetes.troubles() as f64);
    }
    page.finish()
}

fn lives(vitals: &Vitals, page: &mut Page) {
    let (findings, now) = (vitals.intake.findings(), SystemTime::now());
    let looked =
        Looked { ca: &vitals.ca, svid: &vitals.svid, snapshot: &findings.snapshot, gateways: &[] };
    page.push(SVID_LEFT, None, looked.own_svid(now).ratio());
    for (domain, left) in looked.roots(now) {
        page.push(ROOT_LEFT, Some(("trust_domain", &domain)), left.ratio());
    }
}

fn findings(vitals: &Vitals, page: &mut Page) {
    let findings = vitals.intake.findings();
    let of_objects =
        [&findings.discovery, &findings.federation, &findings.revisions, &findings.compile];
    let of_kubernetes = vitals.kubernetes.as_ref();
    let of_kubernetes = of_kubernetes.map(|health| health.diagnostics(tokio::time::Instant::now()));
    let all = of_objects.into_iter().flatten().chain(of_kubernetes.iter().flatten());
    let (errors, warnings): (Vec<_>, Vec<_>) =
        all.partition(|finding| finding.severity == Severity::Error);
    for (severity, found) in [(Severity::Error, errors), (Severity::Warning, warnings)] {
        page.push(FINDINGS, Some(("severity", severity.as_str())), found.len() as f64);
    }
}

fn store(vitals: &Vitals, page: &mut Page) {
    let (mode, status) = (vitals.membership.mode(), vitals.membership.node().store().status());
    for known in [Mode::Alone, Mode::Member, Mode::Replica] {
        page.push(MODE, Some(("mode", known.as_str())), one_if(mode == known));
    }
    let state = vitals.membership.state();
    let members = state.as_ref().map_or(0, |(_, fleet)| fleet.members().count());
    page.push(MEMBERS, None, members as f64);
    if let Some((revision, _)) = state {
        page.push(STORE_REVISION, None, revision.index as f64);
    }
    page.push(LEADER, None, one_if(status.role == Role::Leader));
    if mode == Mode::Member {
        page.push(TERM, None, status.term as f64);
        if let Some(silence) = status.silence {
            page.push(LEADER_SILENCE, None, silence.as_secs_f64());
        }
    }
    page.push(FAULT, None, one_if(vitals.membership.store_fault().is_some()));
    if let Ok(room) = Room::of(&vitals.data_dir) {
        page.push(ROOM, None, room.free as f64);
    }
}

fn one_if(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// Values in the making, with at most one label.
#[derive(Debug, Default)]
struct Page(Vec<(&'static str, Metric)>);

impl Page {
    fn push(&mut self, name: &'static str, label: Option<(&str, &str)>, value: f64) {
        let pair = |(name, value): (&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.into());
            pair.set_value(value.into());
            pair
        };
        let mut metric = Metric::from_label(label.map(pair).into_iter().collect());
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        self.0.push((name, metric));
    }

    fn finish(self) -> Vec<MetricFamily> {
        let family = |entry: &MetricEntry| {
            let metrics = self.0.iter().filter(|(name, _)| *name == entry.name);
            let mut family = MetricFamily::default();
            family.set_name(entry.name.into());
            family.set_help(entry.help.into());
            family.set_field_type(MetricType::GAUGE);
            family.set_metric(metrics.map(|(_, metric)| metric.clone()).collect());
            family
        };
        CATALOG.iter().map(family).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_is_unique_and_says_something() {
        for (index, entry) in CATALOG.iter().enumerate() {
            let name = entry.name;
            assert!(CATALOG[..index].iter().all(|other| other.name != name), "{name}");
            assert!(entry.help.ends_with('.') && name.starts_with("fedgate_"), "{name}");
        }
    }
}
