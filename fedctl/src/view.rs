//! The JSON documents of the reading commands: `apiVersion`, `kind`, and an absolute time beside
//! every age.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use wire::operator::proto::{ClusterState, ClusterStatus, GatewayLink, ServiceStatus};
use wire::resource::proto::{AppProtocol, Link, LinkClass, LinkState, Transport};

/// A list of things under a kind of its own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    api_version: &'static str,
    kind: &'static str,
    /// What the rows cannot say, for instance that no gateway is connected.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    pub items: Vec<T>,
}

impl<T> List<T> {
    pub fn new(kind: &'static str, note: String, items: Vec<T>) -> Self {
        Self { api_version: "fedgate.dev/v1alpha1", kind, note, items }
    }

    /// The table, with the note under it.
    pub fn table(&self, header: &[&str], row: impl Fn(&T) -> Vec<String>) -> String {
        let mut text = crate::printer::table(header, self.items.iter().map(row));
        if !self.note.is_empty() {
            text = format!("{text}\n{}", self.note);
        }
        text
    }
}

/// An age, and the time that it means.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Since {
    pub age_ms: u64,
    pub time: String,
}

impl Since {
    pub fn age(age_ms: u64, now: Timestamp) -> Self {
        let back = SignedDuration::from_millis(i64::try_from(age_ms).unwrap_or(i64::MAX));
        let time = now.checked_sub(back).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { age_ms, time: format!("{time:.3}") }
    }

    /// From the time; one in the future has no age.
    pub fn time(time: Timestamp, now: Timestamp) -> Self {
        let age = now.duration_since(time).as_millis();
        Self { age_ms: u64::try_from(age).unwrap_or(0), time: time.to_string() }
    }
}

/// When something ends, and how long that is from now.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Until {
    /// Negative when it has ended.
    pub left_ms: i64,
    pub time: String,
}

impl Until {
    /// `None` for 0, which means that the end is not known.
    pub fn unix_ms(end_ms: u64, now: Timestamp) -> Option<Self> {
        let end = i64::try_from(end_ms).ok().filter(|end| *end > 0)?;
        let end = Timestamp::from_millisecond(end).ok()?;
        let left = end.duration_since(now).as_millis();
        Some(Self { left_ms: i64::try_from(left).unwrap_or(i64::MAX), time: end.to_string() })
    }

    /// `12m left`, `expired 3m ago`.
    pub fn shown(&self) -> String {
        let length = crate::printer::age(self.left_ms.unsigned_abs());
        if self.left_ms > 0 { format!("{length} left") } else { format!("expired {length} ago") }
    }
}

/// An address and whether somebody answered there.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressView {
    /// As it is advertised.
    pub address: String,
    /// What it was reached over.
    pub over: Option<&'static str>,
    pub answered_us: Option<u64>,
    pub problem: Option<String>,
}

impl AddressView {
    pub fn of(report: wire::operator::proto::AddressReport) -> Self {
        use wire::operator::proto::address_report::Outcome;
        let over = report.over();
        let address = report.address.as_ref().map_or_else(String::new, address);
        let (answered_us, problem) = match report.outcome {
            Some(Outcome::AnsweredUs(time)) => (Some(time), None),
            Some(Outcome::Problem(problem)) => (None, Some(problem)),
            None => (None, None),
        };
        let over = match over {
            Transport::Unspecified => None,
            Transport::Quic => Some("quic"),
            Transport::Tcp => Some("tcp"),
        };
        Self { address, over, answered_us, problem }
    }

    /// `✓ quic 203.0.113.7:8443  18.0 ms`, or `... over tcp: UDP does not pass  1118 ms`.
    pub fn line(&self) -> String {
        let address = &self.address;
        let over = match self.over {
            Some("tcp") if address.starts_with("quic ") => " over tcp: UDP does not pass",
            _ => "",
        };
        match (self.answered_us, &self.problem) {
            (Some(time), _) => format!("✓ {address}{over}  {}", crate::printer::milliseconds(time)),
            (None, problem) => {
                format!("✗ {address}  {}", problem.as_deref().unwrap_or("not tried"))
            }
        }
    }
}

/// `quic gw.example:8443`.
pub fn address(address: &wire::resource::proto::PeerAddress) -> String {
    let transport = match address.transport() {
        Transport::Quic => "quic ",
        Transport::Tcp => "tcp ",
        Transport::Unspecified => "",
    };
    let host = match address.host.contains(':') {
        true => format!("[{}]", address.host),
        false => address.host.clone(),
    };
    format!("{transport}{host}:{}", address.port)
}

/// `epoch.index`, or nothing.
pub fn revision(revision: Option<wire::resource::proto::Revision>) -> String {
    revision.map_or_else(String::new, |revision| format!("{}.{}", revision.epoch, revision.index))
}

/// Something found wrong with an object.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub severity: &'static str,
    pub code: String,
    pub object: String,
    pub field: String,
    pub message: String,
    pub fix: String,
}

impl Finding {
    pub fn of(diagnostic: &wire::resource::proto::Diagnostic) -> Self {
        let severity = match diagnostic.severity() {
            wire::resource::proto::Severity::Error => "error",
            _ => "warning",
        };
        let code = model::code::Code::parse(&diagnostic.code.to_string());
        Self {
            severity,
            code: code.map_or_else(|| diagnostic.code.to_string(), |code| code.to_string()),
            object: diagnostic.object.clone(),
            field: diagnostic.field.clone(),
            message: diagnostic.message.clone(),
            fix: diagnostic.fix.clone(),
        }
    }

    /// Everything in one line.
    pub fn line(&self) -> String {
        let Self { severity, code, object, field, message, fix } = self;
        let field = if field.is_empty() { String::new() } else { format!(" {field}") };
        format!("{severity} {code} {object}{field}: {message}; {fix}")
    }
}

/// The last thing that went wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Fault {
    pub code: String,
    pub text: String,
    pub since: Since,
}

impl Fault {
    fn of(error: Option<&wire::resource::proto::LinkError>, now: Timestamp) -> Option<Self> {
        let error = error?;
        let code = match model::code::Code::parse(&format!("{:04}", error.code)) {
            Some(code) => code.to_string(),
            None => String::new(),
        };
        Some(Self { code, text: error.text.clone(), since: Since::age(error.age_ms, now) })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    pub name: String,
    pub state: &'static str,
    pub trust_domains: Vec<String>,
    pub addresses: Vec<String>,
    pub links_live: u32,
    pub links_total: u32,
    pub rtt_us: Option<u64>,
    pub services: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordon: Option<CordonState>,
    /// Exchanges in progress that this cluster has sent there, and taken from there.
    pub sent: u32,
    pub received: u32,
    pub last_error: Option<Fault>,
}

/// Why no new exchanges are sent to a cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CordonState {
    /// The cluster asked for it itself.
    pub by_itself: bool,
    /// When an operator of this cluster did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Those who send know of it.
    pub in_force: bool,
}

impl CordonState {
    fn of(cordon: wire::operator::proto::Cordon, now: Timestamp) -> Self {
        let since = i64::try_from(cordon.since_unix_ms).ok().filter(|since| *since > 0);
        let since = since.and_then(|since| Timestamp::from_millisecond(since).ok());
        Self {
            by_itself: cordon.by_itself,
            since: since.map(|since| Since::time(since, now)),
            reason: cordon.reason,
            in_force: cordon.in_force,
        }
    }

    /// `cordoned 5m ago: new disks`.
    pub fn line(&self, cluster: &str) -> String {
        let since = match &self.since {
            Some(since) => format!("cordoned {} ago", crate::printer::age(since.age_ms)),
            None => "cordoned by itself".into(),
        };
        let reason = if self.reason.is_empty() { "" } else { ": " };
        let pending = if self.in_force { "" } else { "; not everybody knows yet" };
        format!("{cluster}: {since}{reason}{}{pending}", self.reason)
    }
}

impl ClusterView {
    /// `Up,Cordoned`, as kubectl says it of nodes.
    pub fn shown_state(&self) -> String {
        match self.cordon {
            Some(_) => format!("{},Cordoned", self.state),
            None => self.state.into(),
        }
    }

    pub fn of(cluster: ClusterStatus, now: Timestamp) -> Self {
        let state = match cluster.state() {
            ClusterState::Unspecified | ClusterState::Unknown => "Unknown",
            ClusterState::Own => "Local",
            ClusterState::Connected => "Up",
            ClusterState::Degraded => "Degraded",
            ClusterState::Down => "Down",
        };
        let addresses = cluster
            .addresses
            .iter()
            .map(|address| format!("quic {}:{}", address.host, address.port))
            .collect();
        Self {
            state,
            addresses,
            last_error: Fault::of(cluster.last_error.as_ref(), now),
            name: cluster.name,
            trust_domains: cluster.trust_domains,
            links_live: cluster.links_live,
            links_total: cluster.links_total,
            rtt_us: cluster.rtt_us,
            services: cluster.services,
            cordon: cluster.cordon.map(|cordon| CordonState::of(cordon, now)),
            sent: cluster.sent,
            received: cluster.received,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkView {
    pub gateway: String,
    pub cluster: String,
    pub peer_gateway: Option<String>,
    pub address: String,
    pub transport: &'static str,
    pub class: &'static str,
    pub worker: u32,
    pub state: &'static str,
    /// Another one has taken its place: it goes when its exchanges have ended.
    pub retiring: bool,
    pub since: Since,
    pub rtt_us: Option<u64>,
    pub packets_sent: u64,
    pub packets_lost: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub last_error: Option<Fault>,
}

impl LinkView {
    /// `None` for a row without its link, which a node does not send.
    pub fn of(row: GatewayLink, now: Timestamp) -> Option<Self> {
        let link: Link = row.link?;
        let state = match link.state() {
            LinkState::Unspecified => "Unknown",
            LinkState::Dialling => "Dialling",
            LinkState::Live => "Up",
            LinkState::Draining => "Draining",
            LinkState::Down => "Down",
        };
        let class = match link.class() {
            LinkClass::Unspecified => "",
            LinkClass::Fast => "fast",
            LinkClass::Bulk => "bulk",
        };
        let transport = match link.transport() {
            Transport::Unspecified => "",
            Transport::Quic => "quic",
            Transport::Tcp => "tcp",
        };
        let id: Option<[u8; 16]> = link.gateway_id.as_slice().try_into().ok();
        Some(Self {
            state,
            class,
            transport,
            peer_gateway: id.map(|id| model::GatewayId::from_bytes(id).to_string()),
            since: Since::age(link.since_age_ms, now),
            retiring: link.retiring,
            last_error: Fault::of(link.last_error.as_ref(), now),
            gateway: row.gateway,
            cluster: link.cluster,
            address: link.address,
            worker: link.worker,
            rtt_us: link.rtt_us,
            packets_sent: link.packets_sent,
            packets_lost: link.packets_lost,
            bytes_sent: link.bytes_sent,
            bytes_received: link.bytes_received,
        })
    }

    /// Lost packets in percent of those sent.
    pub fn loss_percent(&self) -> f64 {
        self.packets_lost as f64 * 100.0 / self.packets_sent.max(1) as f64
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    pub namespace: String,
    pub name: String,
    pub ports: Vec<PortView>,
    pub local: bool,
    pub exported: bool,
    /// Who may come, when exported: the number of entries of its AccessPolicies.
    pub allow_entries: u32,
    pub imported_from: Vec<String>,
    pub routes: Vec<String>,
    pub reachable: Vec<ReachView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortView {
    pub port: u32,
    pub protocol: &'static str,
}

/// Where requests for one of its ports may go.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReachView {
    pub port: u32,
    pub cluster: String,
    pub usable: bool,
    pub endpoints_ready: Option<u32>,
    pub endpoints_total: Option<u32>,
    pub rtt_us: Option<u64>,
}

impl ServiceView {
    pub fn of(service: ServiceStatus) -> Self {
        let ports = service
            .ports
            .iter()
            .map(|port| PortView { port: port.port, protocol: protocol(port.protocol()) })
            .collect();
        let reachable = service
            .health
            .iter()
            .flat_map(|health| {
                health.clusters.iter().map(|cluster| ReachView {
                    port: health.port,
                    cluster: cluster.cluster.clone(),
                    usable: cluster.usable,
                    endpoints_ready: cluster.endpoints_ready,
                    endpoints_total: cluster.endpoints_total,
                    rtt_us: cluster.rtt_us,
                })
            })
            .collect();
        Self {
            ports,
            reachable,
            namespace: service.namespace,
            name: service.name,
            local: service.local,
            exported: service.exported,
            allow_entries: service.allow_entries,
            imported_from: service.clusters,
            routes: service.routes,
        }
    }
}

fn protocol(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Unspecified => "",
        AppProtocol::Http => "http",
        AppProtocol::H2c => "h2c",
        AppProtocol::Tcp => "tcp",
    }
}
