//! What `/metrics` tells: counters and histograms kept per worker, summed when they are read.
//!
//! [`CATALOG`] names every metric with its labels and help; the reference page is made from it.

mod links;
mod series;

pub use links::LinkTotals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};

use crate::access_log::{Protocol, Record};
use crate::state::GatewayState;
use series::{Series, SeriesKey, SeriesTable};

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric of the gateway's.
#[derive(Debug)]
pub struct MetricEntry {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const HTTP_LABELS: &[&str] = &[
    "role",
    "http_route",
    "http_request_method",
    "http_response_status_code",
    "fed_destination_service",
    "fed_destination_cluster",
    "response_flags",
];
const TCP_LABELS: &[&str] =
    &["role", "fed_route", "fed_destination_service", "fed_destination_cluster", "response_flags"];

macro_rules! catalog {
    ($($constant:ident $name:literal $kind:ident $labels:expr, $help:literal;)*) => {
        $(const $constant: &str = $name;)*

        /// Every metric, besides the process's own (`process_*`, from the prometheus crate).
        pub static CATALOG: &[MetricEntry] = &[$(MetricEntry {
            name: $name, kind: MetricKind::$kind, labels: $labels, help: $help,
        }),*];
    };
}

catalog! {
    HTTP_DURATION "http_server_request_duration_seconds" Histogram HTTP_LABELS,
        "Time from a request's head to the end of its response.";
    HTTP_RECEIVED "http_server_request_body_bytes_total" Counter HTTP_LABELS,
        "Bytes of request bodies.";
    HTTP_SENT "http_server_response_body_bytes_total" Counter HTTP_LABELS,
        "Bytes of response bodies.";
    HTTP_ACTIVE "http_server_active_requests" Gauge &[],
        "HTTP requests in progress, those of peers included.";
    TCP_DURATION "fed_tcp_connection_duration_seconds" Histogram TCP_LABELS,
        "Life of TCP connections.";
    TCP_RECEIVED "fed_tcp_received_bytes_total" Counter TCP_LABELS,
        "Bytes from the side that opened the connection.";
    TCP_SENT "fed_tcp_sent_bytes_total" Counter TCP_LABELS,
        "Bytes to the side that opened the connection.";
    TCP_ACTIVE "fed_tcp_active_connections" Gauge &[],
        "TCP connections in progress, those of peers included.";
    CONNECTIONS "fed_connections_open" Gauge &[],
        "Connections from applications and clients that are open.";
    CONNECTIONS_REFUSED "fed_connections_refused_total" Counter &[],
        "Connections closed at once because CONNECTIONS_MAX were open.";
    EXCHANGES_REFUSED "fed_exchanges_refused_total" Counter &[],
        "Requests and connections refused because EXCHANGES_MAX were in progress.";
    RETRIES "fed_retries_total" Counter &["outcome"],
        "Further attempts: made, or not made because the budget was used up.";
    POLICY_DENIED "fed_policy_denied_total" Counter &[],
        "Exchanges from peers that no AccessPolicy allows.";
    LOG_DROPPED "fed_access_log_dropped_total" Counter &[],
        "Access-log records lost because the writer's queue was full.";
    LISTENER_UP "fed_listener_up" Gauge &["port"],
        "1 if the port is bound, 0 if it could not be.";
    REVISION "fed_config_revision" Gauge &[],
        "Index of the revision of resources in service, endpoints included.";
    STREAM_UP "fed_resource_stream_up" Gauge &[],
        "1 while the federation node's resource stream is connected.";
    SVID_EXPIRY "fed_certificate_expiry_timestamp_seconds" Gauge &[],
        "When the gateway's SVID runs out, in seconds since the Unix epoch.";
    TUNNEL_UP "fed_tunnel_up" Gauge &["fed_peer_cluster"],
        "1 if a tunnel to the cluster is live.";
    TUNNEL_FALLBACK "fed_tunnel_fallback" Gauge &["fed_peer_cluster"],
        "1 if the tunnel to the cluster runs over TCP, since UDP does not pass.";
    TUNNEL_RTT "fed_tunnel_rtt_seconds" Gauge &["fed_peer_cluster"],
        "Smoothed round-trip time of the best tunnel to the cluster.";
    TUNNEL_REPLACED "fed_tunnel_links_replaced_total" Counter &[],
        "Connections that this gateway replaced by younger ones before their certificates ended.";
    TUNNEL_DEAD "fed_tunnel_links_dead_total" Counter &[],
        "Connections taken for dead, since nothing was heard over them for too long.";
    TUNNEL_REFUSED "fed_tunnel_peers_refused_total" Counter &["reason"],
        "Connections of peers that were refused: not admitted, or too many handshakes at a time.";
    TUNNEL_SHED "fed_tunnel_exchanges_shed_total" Counter &[],
        "Exchanges of peers refused because too many waited for the gateway.";
    TUNNEL_STALLED "fed_tunnel_stalled_readers_reset_total" Counter &[],
        "Streams reset because their readers held a connection's window.";
    TUNNEL_PACKETS "fed_tunnel_packets_sent_total" Counter &["fed_peer_cluster"],
        "Packets sent on connections to the cluster, but for the last half second of one that ended.";
    TUNNEL_LOST "fed_tunnel_packets_lost_total" Counter &["fed_peer_cluster"],
        "Packets of those that were declared lost.";
    TUNNEL_BYTES "fed_tunnel_bytes_total" Counter &["fed_peer_cluster", "direction"],
        "Bytes on connections to the cluster, counted like the packets.";
}

/// Upper bounds of histogram buckets in seconds, as OpenTelemetry's HTTP conventions have them.
pub const BUCKETS_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// One worker's counters. Only its worker writes; a scrape reads.
#[derive(Debug, Default)]
pub struct Shard {
    http_active: AtomicI64,
    tcp_active: AtomicI64,
    pub connections_refused: AtomicU64,
    pub exchanges_refused: AtomicU64,
    pub retries_made: AtomicU64,
    pub retries_denied: AtomicU64,
    pub policy_denied: AtomicU64,
    http: SeriesTable,
    tcp: SeriesTable,
}

impl Shard {
    pub(crate) fn exchange_began(&self, protocol: Protocol) {
        self.active(protocol).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn exchange_ended(&self, record: &Record) {
        self.active(record.protocol).fetch_sub(1, Ordering::Relaxed);
        let table = if record.protocol.is_http() { &self.http } else { &self.tcp };
        table.observe(record);
    }

    fn active(&self, protocol: Protocol) -> &AtomicI64 {
        if protocol.is_http() { &self.http_active } else { &self.tcp_active }
    }
}

/// All of the gateway's metrics, as text for Prometheus.
pub fn render(state: &GatewayState) -> prometheus::Result<String> {
    let mut families = families(state);
    families.extend(prometheus::gather()); // the process collector, registered by the app
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Numbers that the gateway reports to its federation node, by the names that `/metrics` has.
pub fn totals(state: &GatewayState) -> Vec<(&'static str, u64)> {
    let shards = &state.shards;
    let sum = |read: fn(&Shard) -> u64| shards.iter().map(|shard| read(shard)).sum();
    vec![
        ("http_server_requests_total", sum(|shard| shard.http.count())),
        ("fed_tcp_connections_total", sum(|shard| shard.tcp.count())),
        ("fed_retries_total", sum(|shard| shard.retries_made.load(Ordering::Relaxed))),
        (POLICY_DENIED, sum(|shard| shard.policy_denied.load(Ordering::Relaxed))),
        (LOG_DROPPED, state.log.dropped()),
    ]
}

fn families(state: &GatewayState) -> Vec<MetricFamily> {
    let mut page = Page::default();
    let http = merge(state.shards.iter().map(|shard| &shard.http));
    let tcp = merge(state.shards.iter().map(|shard| &shard.tcp));
    for (key, series) in &http {
        page.histogram(HTTP_DURATION, key.http_labels(), series);
        page.counter(HTTP_RECEIVED, key.http_labels(), series.received_bytes);
        page.counter(HTTP_SENT, key.http_labels(), series.sent_bytes);
    }
    for (key, series) in &tcp {
        page.histogram(TCP_DURATION, key.tcp_labels(), series);
        page.counter(TCP_RECEIVED, key.tcp_labels(), series.received_bytes);
        page.counter(TCP_SENT, key.tcp_labels(), series.sent_bytes);
    }
    let sum = |read: fn(&Shard) -> u64| state.shards.iter().map(|shard| read(shard)).sum::<u64>();
    let active = |read: fn(&Shard) -> &AtomicI64| {
        state.shards.iter().map(|shard| read(shard).load(Ordering::Relaxed)).sum::<i64>() as f64
    };
    page.gauge(HTTP_ACTIVE, vec![], active(|shard| &shard.http_active));
    page.gauge(TCP_ACTIVE, vec![], active(|shard| &shard.tcp_active));
    page.gauge(CONNECTIONS, vec![], state.connections.count() as f64);
    page.counter(
        CONNECTIONS_REFUSED,
        vec![],
        sum(|s| s.connections_refused.load(Ordering::Relaxed)),
    );
    page.counter(EXCHANGES_REFUSED, vec![], sum(|s| s.exchanges_refused.load(Ordering::Relaxed)));
    let made = sum(|shard| shard.retries_made.load(Ordering::Relaxed));
    let denied = sum(|shard| shard.retries_denied.load(Ordering::Relaxed));
    page.counter(RETRIES, vec![("outcome", "made".into())], made);
    page.counter(RETRIES, vec![("outcome", "budget_exhausted".into())], denied);
    page.counter(POLICY_DENIED, vec![], sum(|shard| shard.policy_denied.load(Ordering::Relaxed)));
    page.counter(LOG_DROPPED, vec![], state.log.dropped());
    for listener in state.listeners() {
        let up = f64::from(u8::from(listener.error.is_none()));
        page.gauge(LISTENER_UP, vec![("port", listener.address.port().to_string())], up);
    }
    if let Some(revision) = state.revision() {
        page.gauge(REVISION, vec![], revision.index as f64);
    }
    page.gauge(STREAM_UP, vec![], f64::from(u8::from(state.is_stream_up())));
    if let Some(svid) = &state.identity.load().svid {
        let end = svid.not_after().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        page.gauge(SVID_EXPIRY, vec![], end.as_secs_f64());
    }
    tunnel_families(state, &mut page);
    page.finish()
}

fn tunnel_families(state: &GatewayState, page: &mut Page) {
    let Some(tunnel) = state.tunnel.get() else { return };
    state.count_links();
    let counts = tunnel.counters();
    page.counter(TUNNEL_REPLACED, vec![], counts.links_replaced);
    page.counter(TUNNEL_DEAD, vec![], counts.links_dead);
    page.counter(TUNNEL_SHED, vec![], counts.exchanges_shed);
    page.counter(TUNNEL_STALLED, vec![], counts.stalled_readers_reset);
    let refused = [("admission", counts.peers_refused), ("overload", counts.handshakes_refused)];
    for (reason, count) in refused {
        page.counter(TUNNEL_REFUSED, vec![("reason", reason.into())], count);
    }
    for peer in state.snapshot.load().peers.keys() {
        let name = peer.to_string();
        let path = tunnel.path(peer);
        let label = || vec![("fed_peer_cluster", name.clone())];
        page.gauge(TUNNEL_UP, label(), f64::from(u8::from(path.is_some())));
        if let Some(path) = path {
            page.gauge(TUNNEL_FALLBACK, label(), f64::from(u8::from(path.fallback)));
            page.gauge(TUNNEL_RTT, label(), path.rtt.as_secs_f64());
        }
        let sums = state.links.of_cluster(peer);
        page.counter(TUNNEL_PACKETS, label(), sums.sent_packets);
        page.counter(TUNNEL_LOST, label(), sums.lost_packets);
        for (direction, bytes) in [("sent", sums.sent_bytes), ("received", sums.received_bytes)] {
            let mut labels = label();
            labels.push(("direction", direction.into()));
            page.counter(TUNNEL_BYTES, labels, bytes);
        }
    }
}

fn merge<'a>(tables: impl Iterator<Item = &'a SeriesTable>) -> BTreeMap<SeriesKey, Series> {
    let mut merged: BTreeMap<SeriesKey, Series> = BTreeMap::new();
    for table in tables {
        table.for_each(|key, series| match merged.get_mut(key) {
            Some(sum) => sum.add(series),
            None => {
                merged.insert(key.clone(), series.clone());
            }
        });
    }
    merged
}

type Labels = Vec<(&'static str, String)>;

/// Families in the making, by name.
#[derive(Debug, Default)]
struct Page(BTreeMap<&'static str, Vec<Metric>>);

impl Page {
    fn counter(&mut self, name: &'static str, labels: Labels, value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::from_label(label_pairs(labels));
        metric.set_counter(counter);
        self.push(name, metric);
    }

    fn gauge(&mut self, name: &'static str, labels: Labels, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(label_pairs(labels));
        metric.set_gauge(gauge);
        self.push(name, metric);
    }

    fn histogram(&mut self, name: &'static str, labels: Labels, series: &Series) {
        let mut cumulative = 0;
        let buckets = BUCKETS_SECONDS.iter().zip(&series.buckets).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(series.count);
        histogram.set_sample_sum(series.sum_seconds);
        let mut metric = Metric::from_label(label_pairs(labels));
        metric.set_histogram(histogram);
        self.push(name, metric);
    }

    fn push(&mut self, name: &'static str, metric: Metric) {
        self.0.entry(name).or_default().push(metric);
    }

    fn finish(mut self) -> Vec<MetricFamily> {
        CATALOG
            .iter()
            .filter_map(|entry| {
                let mut family = MetricFamily::default();
                family.set_name(entry.name.into());
                family.set_help(entry.help.into());
                family.set_field_type(match entry.kind {
                    MetricKind::Counter => MetricType::COUNTER,
                    MetricKind::Gauge => MetricType::GAUGE,
                    MetricKind::Histogram => MetricType::HISTOGRAM,
                });
                family.set_metric(self.0.remove(entry.name)?);
                Some(family)
            })
            .collect()
    }
}

fn label_pairs(labels: Labels) -> Vec<LabelPair> {
    labels
        .into_iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.into());
            pair.set_value(value);
            pair
        })
        .collect()
}

/// A shard per worker.
pub fn shards(workers: usize) -> Vec<Arc<Shard>> {
    (0..workers).map(|_| Arc::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_is_unique_and_says_something() {
        for (index, entry) in CATALOG.iter().enumerate() {
            assert!(
                CATALOG[..index].iter().all(|other| other.name != entry.name),
                "{}",
                entry.name
            );
            assert!(entry.help.ends_with('.'), "{}", entry.name);
            let counter = entry.kind == MetricKind::Counter;
            assert_eq!(counter, entry.name.ends_with("_total"), "{}", entry.name);
        }
    }

    #[test]
    fn the_revision_in_service_counts_endpoints_too() {
        let folder = tempfile::tempdir().unwrap();
        let state = crate::state::tests::state(folder.path());
        let shown = || render(&state).unwrap();
        assert!(!shown().contains("fed_config_revision "), "nothing is in service yet");
        // As after a step that changed endpoints only: the snapshot of routes is an older one.
        state.set_revision(model::Revision { epoch: 1, index: 7 });
        assert_eq!(state.snapshot.load().revision.index, 0);
        assert!(shown().contains("\nfed_config_revision 7\n"), "{}", shown());
    }

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.gauge(TUNNEL_RTT, vec![("fed_peer_cluster", "a\"b\n".into())], 0.25);
        let mut series = Series::default();
        series.observe(0.02, 10, 20);
        series.observe(99.0, 0, 0);
        page.histogram(TCP_DURATION, vec![("role", "source".into())], &series);
        let mut text = Vec::new();
        TextEncoder::new().encode(&page.finish(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("fed_tunnel_rtt_seconds{fed_peer_cluster=\"a\\\"b\\n\"} 0.25"),
            "{text}"
        );
        assert!(text.contains("duration_seconds_bucket{role=\"source\",le=\"0.01\"} 0"), "{text}");
        assert!(text.contains("duration_seconds_bucket{role=\"source\",le=\"0.025\"} 1"), "{text}");
        assert!(text.contains("duration_seconds_bucket{role=\"source\",le=\"+Inf\"} 2"), "{text}");
        assert!(text.contains("# TYPE fed_tcp_connection_duration_seconds histogram"), "{text}");
    }
}
