//! Where a request goes: first the cluster, then (if it is our own) the endpoint.
//!
//! The source gateway chooses the cluster, the destination gateway the endpoint (DESIGN §10). Both
//! choices are per gateway, not per worker: their state is atomics that all workers share.

mod endpoints;
mod rank;

pub use endpoints::{EndpointCells, EndpointGroup, EndpointLease};
pub use rank::{ClusterPenalties, ClusterRank, rerank};

use std::net::SocketAddr;
use std::time::Duration;

use model::ClusterName;
use model::snapshot::Backend;
use rand::Rng;

use crate::error::{Kind, ProxyError};
use crate::limits::OWN_ATTEMPTS_MAX;

/// Where one attempt goes.
#[derive(Debug)]
pub enum Upstream {
    Local(EndpointLease),
    Peer(ClusterName),
}

/// What one request has tried and need not try again.
#[derive(Debug, Default)]
pub struct Tried {
    pub endpoints: Vec<SocketAddr>,
    pub clusters: Vec<ClusterName>,
}

/// What is known at the moment of choosing.
#[derive(Debug)]
pub struct Choices<'a> {
    pub cells: &'a EndpointCells,
    pub rank: &'a [ClusterName],
    pub penalties: &'a ClusterPenalties,
    /// Since the gateway's start.
    pub now: Duration,
}

/// A way to a peer, as the tunnel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    pub rtt: Duration,
    pub draining: bool,
    /// Every connection is silent for longer than it should be.
    pub suspect: bool,
}

/// Our own cluster first, if it has a ready endpoint that did not just fail; then peers with a live
/// tunnel, nearest first, draining ones last; then whatever endpoint of our own is left.
pub fn pick(
    backend: &Backend,
    tried: &Tried,
    choices: &Choices<'_>,
    path: impl Fn(&ClusterName) -> Option<Path>,
    rng: &mut impl Rng,
) -> Result<Upstream, ProxyError> {
    let group =
        if backend.local { choices.cells.group(&backend.service, backend.port) } else { None };
    let again = tried.endpoints.len() < OWN_ATTEMPTS_MAX || backend.clusters.is_empty();
    if let Some(group) = group.as_ref().filter(|_| again)
        && let Some(lease) = group.pick_sound(&tried.endpoints, choices.now, rng)
    {
        return Ok(Upstream::Local(lease));
    }
    if let Some(cluster) = nearest(backend, tried, choices, &path) {
        return Ok(Upstream::Peer(cluster.clone()));
    }
    if let Some(lease) = group.and_then(|group| group.pick_any(&tried.endpoints, rng)) {
        return Ok(Upstream::Local(lease));
    }
    Err(nothing_left(backend, tried, path))
}

fn nearest<'a>(
    backend: &'a Backend,
    tried: &Tried,
    choices: &Choices<'_>,
    path: &impl Fn(&ClusterName) -> Option<Path>,
) -> Option<&'a ClusterName> {
    let candidates = backend.clusters.iter().filter(|cluster| !tried.clusters.contains(cluster));
    candidates
        .filter_map(|cluster| Some((cluster, path(cluster)?)))
        .min_by_key(|(cluster, path)| {
            let place = choices.rank.iter().position(|ranked| ranked == *cluster);
            let shunned = choices.penalties.holds(backend, cluster, choices.now);
            (path.draining, shunned, place.unwrap_or(usize::MAX), path.rtt)
        })
        .map(|(cluster, _)| cluster)
}

fn nothing_left(
    backend: &Backend,
    tried: &Tried,
    path: impl Fn(&ClusterName) -> Option<Path>,
) -> ProxyError {
    let down: Vec<&str> = backend
        .clusters
        .iter()
        .filter(|cluster| !tried.clusters.contains(cluster) && path(cluster).is_none())
        .map(ClusterName::as_str)
        .collect();
    if down.is_empty() {
        let detail = format!("no ready endpoint for {}:{}", backend.service, backend.port);
        return ProxyError::unsent(Kind::NoEndpoint, detail);
    }
    let detail = format!("no live tunnel to {} for {}", down.join(", "), backend.service);
    ProxyError::unsent(Kind::TunnelDown, detail)
}

/// Shared by the tests of this folder.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use model::{AppProtocol, ServiceName};

    use super::*;

    pub(crate) fn backend(local: bool, clusters: &[&str]) -> Arc<Backend> {
        Arc::new(Backend {
            service: ServiceName::parse("shop/api").unwrap(),
            port: 80,
            protocol: AppProtocol::Http,
            local,
            clusters: clusters.iter().map(|name| ClusterName::parse(name).unwrap()).collect(),
        })
    }

    pub(crate) fn cells(ready: &[(u16, bool)]) -> EndpointCells {
        let endpoint = |&(port, ready): &(u16, bool)| model::Endpoint {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            ready,
        };
        let row = ready.iter().map(endpoint).collect();
        let cells = EndpointCells::default();
        cells.update([((ServiceName::parse("shop/api").unwrap(), 80), row)].into());
        cells
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::testing::{backend, cells};
    use super::*;

    fn name(text: &str) -> ClusterName {
        ClusterName::parse(text).unwrap()
    }

    struct World {
        cells: EndpointCells,
        penalties: ClusterPenalties,
        rank: Vec<ClusterName>,
        paths: Vec<(&'static str, u64, bool)>,
    }

    impl World {
        fn pick(&self, backend: &Backend, tried: &Tried) -> Result<String, Kind> {
            let choices = Choices {
                cells: &self.cells,
                rank: &self.rank,
                penalties: &self.penalties,
                now: Duration::from_secs(10),
            };
            let path = |cluster: &ClusterName| {
                let row = self.paths.iter().find(|row| row.0 == cluster.as_str())?;
                Some(Path { rtt: Duration::from_millis(row.1), draining: row.2, suspect: false })
            };
            let mut rng = SmallRng::seed_from_u64(7);
            match pick(backend, tried, &choices, path, &mut rng) {
                Ok(Upstream::Local(lease)) => Ok(lease.address().port().to_string()),
                Ok(Upstream::Peer(cluster)) => Ok(cluster.to_string()),
                Err(error) => Err(error.kind),
            }
        }
    }

    fn world(endpoints: &[(u16, bool)], paths: &[(&'static str, u64, bool)]) -> World {
        let (cells, penalties) = (cells(endpoints), ClusterPenalties::default());
        World { cells, penalties, rank: vec![], paths: paths.to_vec() }
    }

    #[test]
    fn the_own_cluster_comes_first_while_it_can_serve() {
        let both = backend(true, &["west"]);
        let live = &[("west", 1, false)];
        assert_eq!(world(&[(1, true)], live).pick(&both, &Tried::default()).unwrap(), "1");
        assert_eq!(world(&[(1, false)], live).pick(&both, &Tried::default()).unwrap(), "west");
        assert_eq!(world(&[], live).pick(&both, &Tried::default()).unwrap(), "west");
        let elsewhere = backend(false, &["west"]);
        assert_eq!(world(&[(1, true)], live).pick(&elsewhere, &Tried::default()).unwrap(), "west");
    }

    #[test]
    fn an_endpoint_that_just_failed_is_the_last_resort() {
        let both = backend(true, &["west"]);
        let failed = world(&[(1, true)], &[("west", 1, false)]);
        let group = failed.cells.group(&both.service, 80).unwrap();
        let mut rng = SmallRng::seed_from_u64(1);
        group.pick_any(&[], &mut rng).unwrap().connect_failed(Duration::from_millis(9_500));
        assert_eq!(failed.pick(&both, &Tried::default()).unwrap(), "west");
        let tried = Tried { clusters: vec![name("west")], ..Tried::default() };
        assert_eq!(failed.pick(&both, &tried).unwrap(), "1");
        let tried = Tried { endpoints: vec![([127, 0, 0, 1], 1).into()], ..tried };
        assert_eq!(failed.pick(&both, &tried), Err(Kind::NoEndpoint));
    }

    #[test]
    fn peers_are_taken_by_rank_then_by_round_trip_time() {
        let peers = backend(false, &["north", "south", "west"]);
        let mut world = world(&[], &[("west", 9, false), ("south", 5, false), ("north", 1, true)]);
        assert_eq!(world.pick(&peers, &Tried::default()).unwrap(), "south");
        world.rank = vec![name("west"), name("south")];
        assert_eq!(world.pick(&peers, &Tried::default()).unwrap(), "west");
        let tried = Tried { clusters: vec![name("west"), name("south")], ..Tried::default() };
        assert_eq!(world.pick(&peers, &tried).unwrap(), "north", "draining is better than nothing");
        world.penalties.set(&peers, &name("west"), Duration::from_millis(9_800));
        assert_eq!(world.pick(&peers, &Tried::default()).unwrap(), "south");
    }

    #[test]
    fn the_error_tells_a_dead_tunnel_from_missing_endpoints() {
        let peers = backend(false, &["west"]);
        assert_eq!(world(&[], &[]).pick(&peers, &Tried::default()), Err(Kind::TunnelDown));
        let tried = Tried { clusters: vec![name("west")], ..Tried::default() };
        assert_eq!(world(&[], &[]).pick(&peers, &tried), Err(Kind::NoEndpoint));
        assert_eq!(world(&[], &[]).pick(&backend(true, &[]), &tried), Err(Kind::NoEndpoint));
    }
}
