//! East, west and south in one federation; west runs `api`, and a route of east leads to it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use fedctl::operator::Operator;
use fedctl::why::{Explained, ask, judge, send};
use jiff::Timestamp;
use model::TrustBundle;
use model::code::Code;
use model::why::{Finding, Hop, Question, Source, Target, Verdict};
use tempfile::TempDir;
use testkit::{Fleet, FleetSpec, Introduction, Origin, Speaks, wait};
use wire::operator::proto::join_event::Event;
use wire::operator::proto::{
    FoundRequest, GetStoreRequest, IssueTokenRequest, ListTrustRequest, TrustStatus,
};

pub(super) const LIMIT: Duration = Duration::from_secs(30);
pub(super) const HTTP: u16 = 8080;
/// What clients of east call.
pub(super) const HOST: &str = "api.shop.svc.clusterset.local";

pub(super) const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: fedgate, namespace: front}
spec:
  gatewayClassName: fedgate
  listeners:
  - {name: http, port: 8080, protocol: HTTP}
";
pub(super) const REFERENCE_GRANT: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: front, namespace: shop}
spec:
  from:
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: front}
  to:
  - {group: multicluster.x-k8s.io, kind: ServiceImport}
";
pub(super) const EXPORT: &str = "\
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: api, namespace: shop}
";

pub(super) fn route(gateway: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: api, namespace: front}}
spec:
  parentRefs: [{{name: {gateway}}}]
  hostnames: [{HOST}]
  rules:
  - backendRefs:
    - {{group: multicluster.x-k8s.io, kind: ServiceImport, name: api, namespace: shop, port: 80}}
"
    )
}

pub(super) fn service(port: u16) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: api, namespace: shop}}
spec:
  ports:
  - {{name: main, port: {port}, appProtocol: http}}
"
    )
}

pub(super) fn slice(endpoint: SocketAddr, ready: bool) -> String {
    let (ip, port) = (endpoint.ip(), endpoint.port());
    format!(
        "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: api-1
  namespace: shop
  labels: {{kubernetes.io/service-name: api}}
addressType: IPv4
ports:
- {{name: main, port: {port}}}
endpoints:
- {{addresses: [{ip}], conditions: {{ready: {ready}}}}}
"
    )
}

/// An AccessPolicy with this one entry.
pub(super) fn policy(entry: &str) -> String {
    format!(
        "\
apiVersion: fedgate.dev/v1alpha1
kind: AccessPolicy
metadata: {{name: api-callers, namespace: shop}}
spec:
  targetRefs:
  - {{group: multicluster.x-k8s.io, kind: ServiceExport, name: api}}
  allow:
  - {{{entry}}}
"
    )
}

pub(super) struct World {
    pub(super) fleet: Fleet,
    pub(super) origin: Origin,
    /// Somebody else's, where the gateway of east wants to listen.
    pub(super) port_taken: Option<TcpListener>,
    folder: TempDir,
}

impl World {
    pub(super) async fn start() -> Self {
        // Unix sockets have paths of at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("fg-").tempdir().unwrap();
        let clusters = ["east", "west", "south"].map(str::to_owned).to_vec();
        let spec = FleetSpec {
            folder: folder.path().into(),
            clusters,
            delays: vec![],
            introduction: Introduction::None,
            workers: 1,
        };
        let fleet = Fleet::start(spec).await.unwrap();
        let west = fleet.cluster("west").address;
        let origin = Origin::start("api@west", west, Speaks::Http1).await.unwrap();
        let world = Self { fleet, origin, port_taken: None, folder };
        world.federate().await;
        for (cluster, name, yaml) in [
            ("west", "service", service(80)),
            ("west", "slice", slice(world.origin.address, true)),
            ("west", "export", EXPORT.into()),
            ("west", "policy", policy("cluster: east")),
            ("east", "gateway", GATEWAY.into()),
            ("east", "reference-grant", REFERENCE_GRANT.into()),
            ("east", "route", route("fedgate")),
        ] {
            world.write(cluster, name, &yaml);
        }
        world.until_reached("everything to be in service").await;
        world
    }

    async fn federate(&self) {
        let east = self.operator("east").await;
        east.found(FoundRequest {}).await.unwrap();
        for name in ["west", "south"] {
            let request = IssueTokenRequest {
                name: name.into(),
                roles: "admit,export".into(),
                delegation_depth: 1,
                ..IssueTokenRequest::default()
            };
            let issued = wait::until_async("a token", LIMIT, async || {
                east.issue_token(request.clone()).await.ok()
            });
            let token = issued.await.text;
            let mut events = self.operator(name).await.join(token, LIMIT).await.unwrap();
            let mut joined = false;
            while let Some(event) = events.message().await.unwrap() {
                joined |= matches!(event.event, Some(Event::Joined(_)));
            }
            assert!(joined, "{name} has not joined");
        }
        wait::until_async("three voters", LIMIT, async || {
            let store = east.get_store(GetStoreRequest {}).await.ok()?;
            (store.voters.len() == 3).then_some(())
        })
        .await;
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn write(&self, cluster: &str, name: &str, yaml: &str) {
        self.fleet.cluster(cluster).write_manifest(name, yaml).unwrap();
    }

    pub(super) fn remove(&self, cluster: &str, name: &str) {
        self.fleet.cluster(cluster).remove_manifest(name).unwrap();
    }

    pub(super) async fn operator(&self, cluster: &str) -> Operator {
        Operator::connect(&self.fleet.cluster(cluster).operator_socket()).await.unwrap()
    }

    /// A gateway that is stopped loses what it remembers of bundles, as if it were new.
    pub(super) fn forget(&self, cluster: &str) {
        let folder = &self.fleet.cluster(cluster).folder;
        std::fs::remove_file(folder.join("gateway/snapshot.bin")).unwrap();
    }

    /// A ClusterPeer of one's own instead of the federation's, with this bundle.
    pub(super) fn peer(&self, at: &str, of: &str, bundle: &TrustBundle) -> String {
        let address = self.fleet.relay().addr(at, of).unwrap();
        let jwks = wire::bundle::format_bundle(bundle).unwrap();
        let jwks = serde_json::to_string(&jwks).unwrap(); // a JSON string is a YAML string
        format!(
            "\
apiVersion: fedgate.dev/v1alpha1
kind: ClusterPeer
metadata: {{name: {of}}}
spec:
  addresses: [{{transport: quic, host: {}, port: {}}}]
  trustDomains:
  - {{name: {}, bundle: {jwks}}}
",
            address.ip(),
            address.port(),
            bundle.trust_domain
        )
    }

    /// The bundles that a cluster's node has of another cluster.
    pub(super) async fn trust(&self, at: &str, of: &str) -> Vec<TrustStatus> {
        let trust = self.operator(at).await.list_trust(ListTrustRequest {}).await.unwrap().trust;
        trust.into_iter().filter(|row| row.cluster == of).collect()
    }

    pub(super) async fn until_trust_changes(&self, at: &str, of: &str, before: &[TrustStatus]) {
        let what = format!("{at} to have another bundle of {of}");
        wait::until_async(&what, LIMIT, async || {
            (self.trust(at, of).await != before).then_some(())
        })
        .await;
    }

    /// `fedctl why east TARGET`, asked at these nodes.
    pub(super) async fn ask(&self, nodes: &[&str], target: &str, live: bool) -> Explained {
        let question = Question {
            source: Source::parse("east").unwrap(),
            target: Target::parse(target).unwrap(),
            path: "/".into(),
        };
        let mut connections = Vec::new();
        for node in nodes {
            let socket = self.fleet.cluster(node).operator_socket();
            connections.push(((*node).to_owned(), Operator::connect(&socket).await));
        }
        let (facts, silent) = ask(&question, connections, Timestamp::now()).await.unwrap();
        let mut explained = judge(&question, &facts, silent).unwrap();
        if live && explained.answer.verdict() != Verdict::Blocked {
            let probe = send(&explained.answer, &facts).await;
            explained.take_probe(probe);
        }
        explained
    }

    /// Waits until it is broken there, for this reason if one is given.
    pub(super) async fn until_broken(&self, what: &str, hop: Hop, code: Option<Code>) {
        let wanted = code.map_or_else(|| hop.to_string(), |code| format!("{hop} {code}"));
        // Only the last hop needs a probe; one to a port that somebody else has would hang.
        let live = hop == Hop::Endpoint;
        self.until(&format!("{what} at {wanted}"), live, |seen| {
            seen.answer.broken().is_some_and(|step| match (&step.finding, code) {
                (Finding::Broken { code, .. }, Some(wanted)) => step.hop == hop && *code == wanted,
                _ => step.hop == hop,
            })
        })
        .await;
    }

    pub(super) async fn until_reached(&self, what: &str) {
        self.until(what, true, |seen| seen.answer.verdict() == Verdict::Reaches).await;
    }

    async fn until(&self, what: &str, live: bool, holds: impl Fn(&Explained) -> bool) {
        let (begun, mut last) = (Instant::now(), String::new());
        wait::until_async(what, 2 * LIMIT, async || {
            let seen = self.ask(&super::BOTH, HOST, live).await;
            if seen.code() != last && begun.elapsed() > LIMIT / 10 {
                last = seen.code();
                println!("{what}: {}", seen.table());
            }
            holds(&seen).then_some(())
        })
        .await;
    }

    pub(super) async fn stop(self) {
        self.fleet.stop().await;
    }
}
