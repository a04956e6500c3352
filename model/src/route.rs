//! Finding the route of an HTTP request: host first, then the longest path prefix (GEP-1911 order).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::name::Hostname;
use crate::snapshot::Destination;

/// The HTTP routes of one port.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    exact: HashMap<Arc<str>, Vec<RouteEntry>>,
    /// By suffix without `*.`; the longest suffix wins.
    wildcard: HashMap<Arc<str>, Vec<RouteEntry>>,
    any: Vec<RouteEntry>,
}

/// One path prefix of one rule.
#[derive(Debug, Clone)]
pub struct RouteEntry {
    pub prefix: String,
    /// `HTTPRoute/namespace/name`, for logs and metrics.
    pub route: Arc<str>,
    pub rule: usize,
    pub destination: Destination,
}

impl RouteTable {
    /// `host` is lower case and has no port; `path` has no query.
    ///
    /// A more specific host does not fall back to a less specific one's routes of the same
    /// listener unless none of its own matches (Gateway API: most specific match over all routes).
    pub fn find(&self, host: &str, path: &str) -> Option<&RouteEntry> {
        if let Some(found) = self.exact.get(host).and_then(|entries| longest(entries, path)) {
            return Some(found);
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(found) = self.wildcard.get(suffix).and_then(|e| longest(e, path)) {
                return Some(found);
            }
            rest = suffix;
        }
        longest(&self.any, path)
    }

    /// Adds an entry; the first of two equal ones stays, and `false` says that this is the second.
    pub(crate) fn insert(&mut self, host: Option<&Hostname>, entry: RouteEntry) -> bool {
        let entries = match host {
            Some(Hostname::Exact(name)) => self.exact.entry(name.clone()).or_default(),
            Some(Hostname::Wildcard(suffix)) => self.wildcard.entry(suffix.clone()).or_default(),
            None => &mut self.any,
        };
        if entries.iter().any(|existing| existing.prefix == entry.prefix) {
            return false;
        }
        let place = entries.partition_point(|existing| existing.prefix.len() >= entry.prefix.len());
        entries.insert(place, entry);
        true
    }

    /// Every entry with its host pattern (`*` for any), for dumps, in a stable order.
    pub fn entries(&self) -> BTreeMap<String, &[RouteEntry]> {
        let exact = self.exact.iter().map(|(host, entries)| (host.to_string(), &**entries));
        let wildcard = self.wildcard.iter().map(|(host, e)| (format!("*.{host}"), &**e));
        let any = (!self.any.is_empty()).then(|| ("*".to_string(), &*self.any));
        exact.chain(wildcard).chain(any).collect()
    }
}

/// Entries are sorted by falling length of their prefix.
fn longest<'a>(entries: &'a [RouteEntry], path: &str) -> Option<&'a RouteEntry> {
    entries.iter().find(|entry| prefix_matches(&entry.prefix, path))
}

/// Whole path elements only: `/a` covers `/a`, `/a/` and `/a/b`, not `/ab`.
fn prefix_matches(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::AppProtocol;
    use crate::name::ServiceName;
    use crate::snapshot::Backend;

    fn entry(prefix: &str, service: &str) -> RouteEntry {
        let backend = Backend {
            service: ServiceName::parse(service).unwrap(),
            port: 80,
            protocol: AppProtocol::Http,
            local: true,
            clusters: vec![],
        };
        let (route, prefix) = ("HTTPRoute/a/b".into(), prefix.to_string());
        let destination = Destination::Backend(Arc::new(backend));
        RouteEntry { prefix, route, rule: 0, destination }
    }

    fn found<'a>(table: &'a RouteTable, host: &str, path: &str) -> Option<&'a str> {
        table.find(host, path).map(|entry| entry.destination.service().0.name.as_str())
    }

    #[test]
    fn the_most_specific_host_then_the_longest_prefix_wins() {
        let mut table = RouteTable::default();
        let host = |text| Hostname::parse(text).unwrap();
        assert!(table.insert(None, entry("/", "s/any")));
        assert!(table.insert(Some(&host("*.com")), entry("/", "s/com")));
        assert!(table.insert(Some(&host("*.a.com")), entry("/", "s/acom")));
        assert!(table.insert(Some(&host("x.a.com")), entry("/api", "s/api")));
        assert!(table.insert(Some(&host("x.a.com")), entry("/api/v2", "s/v2")));
        assert!(!table.insert(Some(&host("x.a.com")), entry("/api", "s/second")));
        for (host, path, want) in [
            ("x.a.com", "/api", Some("api")),
            ("x.a.com", "/api/", Some("api")),
            ("x.a.com", "/api/v2/y", Some("v2")),
            ("x.a.com", "/api/v22", Some("api")),
            ("x.a.com", "/apix", Some("acom")),
            ("y.a.com", "/", Some("acom")),
            ("a.com", "/", Some("com")),
            ("com", "/", Some("any")),
            ("", "/", Some("any")),
        ] {
            assert_eq!(found(&table, host, path), want, "{host}{path}");
        }
        assert_eq!(found(&RouteTable::default(), "a", "/"), None);
    }
}
