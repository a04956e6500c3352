//! Rows of the metrics that are told apart by route and destination, bounded in number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use model::{ClusterName, ServiceName};

use super::{BUCKETS_SECONDS, Labels};
use crate::access_log::{Record, Role};
use crate::limits::METRIC_SERIES_MAX;

/// Stands for every row beyond the limit, and for methods that clients make up.
const OTHER: &str = "_other";

/// What a row is told apart by. Never a path or a host: clients could make rows without end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SeriesKey {
    role: Role,
    method: &'static str,
    status: u16,
    flag: &'static str,
    route: Option<Arc<str>>,
    service: Option<ServiceName>,
    cluster: Option<ClusterName>,
    overflow: bool,
}

impl SeriesKey {
    fn of(record: &Record) -> Self {
        Self {
            role: record.role,
            method: record.method.as_ref().map_or("", method_label),
            status: record.status.as_ref().map_or(0, StatusCode::as_u16),
            flag: record.answer().map_or("-", |answer| answer.flag),
            route: record.route.clone(),
            service: record.service.as_ref().map(|(name, _)| name.clone()),
            cluster: record.destination_cluster.clone(),
            overflow: false,
        }
    }

    fn overflow(role: Role) -> Self {
        let (method, status, flag) = (OTHER, 0, OTHER);
        let (route, service, cluster) = (None, None, None);
        Self { role, method, status, flag, route, service, cluster, overflow: true }
    }

    pub(super) fn http_labels(&self) -> Labels {
        let mut labels = vec![
            ("role", self.role.as_str().into()),
            ("http_route", self.named(self.route.as_deref().map(str::to_owned))),
            ("http_request_method", self.method.into()),
            ("http_response_status_code", self.status.to_string()),
        ];
        labels.extend(self.destination_labels());
        labels
    }

    pub(super) fn tcp_labels(&self) -> Labels {
        let mut labels = vec![
            ("role", self.role.as_str().into()),
            ("fed_route", self.named(self.route.as_deref().map(str::to_owned))),
        ];
        labels.extend(self.destination_labels());
        labels
    }

    fn destination_labels(&self) -> [(&'static str, String); 3] {
        [
            ("fed_destination_service", self.named(self.service.as_ref().map(ToString::to_string))),
            ("fed_destination_cluster", self.named(self.cluster.as_ref().map(ToString::to_string))),
            ("response_flags", self.flag.into()),
        ]
    }

    fn named(&self, value: Option<String>) -> String {
        if self.overflow { OTHER.into() } else { value.unwrap_or_default() }
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => OTHER,
    }
}

/// A histogram of durations, and bytes both ways.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    pub(super) buckets: [u64; BUCKETS_SECONDS.len()],
    pub(super) count: u64,
    pub(super) sum_seconds: f64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

impl Series {
    pub(super) fn observe(&mut self, seconds: f64, received_bytes: u64, sent_bytes: u64) {
        let bucket = BUCKETS_SECONDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.sum_seconds += seconds;
        self.received_bytes += received_bytes;
        self.sent_bytes += sent_bytes;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += count;
        }
        self.count += other.count;
        self.sum_seconds += other.sum_seconds;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
    }
}

/// One worker's rows. The lock is contended only while a scrape reads this worker's table.
#[derive(Debug, Default)]
pub(super) struct SeriesTable(Mutex<HashMap<SeriesKey, Series>>);

impl SeriesTable {
    pub(super) fn observe(&self, record: &Record) {
        let key = SeriesKey::of(record);
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = rows.len() >= METRIC_SERIES_MAX && !rows.contains_key(&key);
        let key = if full { SeriesKey::overflow(record.role) } else { key };
        let seconds = record.duration.as_secs_f64();
        rows.entry(key).or_default().observe(seconds, record.received_bytes, record.sent_bytes);
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&SeriesKey, &Series)) {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().for_each(|(key, series)| visit(key, series));
    }

    pub(super) fn count(&self) -> u64 {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.values().map(|series| series.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::Protocol;

    #[test]
    fn clients_cannot_make_rows_without_end() {
        let table = SeriesTable::default();
        for index in 0..METRIC_SERIES_MAX + 50 {
            let client = ([192, 0, 2, 1], 9).into();
            let mut record = Record::new(Role::Source, Protocol::Http1, client);
            record.method = Some(Method::from_bytes(format!("M{index}").as_bytes()).unwrap());
            record.path = format!("/{index}");
            table.observe(&record);
        }
        assert_eq!(table.0.lock().unwrap().len(), 1, "methods of clients share a label");
        for index in 0..METRIC_SERIES_MAX + 50 {
            let client = ([192, 0, 2, 1], 9).into();
            let mut record = Record::new(Role::Source, Protocol::Http1, client);
            record.route = Some(format!("HTTPRoute/a/r{index}").into());
            table.observe(&record);
        }
        assert!(table.0.lock().unwrap().len() <= METRIC_SERIES_MAX + 1);
        assert_eq!(table.count(), 2 * (METRIC_SERIES_MAX as u64 + 50));
        let mut overflow = 0;
        table.for_each(|key, series| {
            if key.overflow {
                overflow = series.count;
                assert_eq!(key.http_labels()[1], ("http_route", OTHER.to_string()));
            }
        });
        assert_eq!(overflow, 51);
    }

    #[test]
    fn buckets_are_upper_bounds() {
        let mut series = Series::default();
        for seconds in [0.005, 0.0051, 10.0, 10.1] {
            series.observe(seconds, 1, 2);
        }
        assert_eq!((series.buckets[0], series.buckets[1], series.buckets[13]), (1, 1, 1));
        let mut sum = series.clone();
        sum.add(&series);
        assert_eq!((sum.count, sum.received_bytes, sum.sent_bytes), (8, 8, 16));
    }
}
