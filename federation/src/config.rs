//! The bootstrap configuration of a federation node: strict YAML, every error with its place.

mod bundles;
mod callers;
mod kubernetes;
mod source;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::Text;
use model::{ClusterName, Hostname, ObjectName, PeerAddress, Transport, TrustDomain};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::limits::{ADVERTISE_MAX, CONFIG_BYTES_MAX, SVID_LIFETIME, SVID_LIFETIME_S_MIN};

pub use daemon::ConfigError;

pub use bundles::{BundleEndpoint, BundleSource, ServedProfile, SourceProfile};
pub use callers::{EnrolmentCallers, OperatorAccounts, OperatorUids, ServiceAccount};
pub use kubernetes::{GatewayServiceType, KubernetesConfig, PortPool};

use bundles::{RawBundleEndpoint, RawBundleSource};
use callers::{RawEnrolment, RawOperators};
use kubernetes::RawKubernetes;
use source::Source;

pub const API_VERSION: &str = "fedgate.dev/v1alpha1";
pub const KIND: &str = "FederationConfig";
/// The node's name in its SPIFFE ID when the file has none.
const NAME_DEFAULT: &str = "node-0";
/// The relay socket's when the file has none: beside the resource socket, where gateways look.
const RELAY_NAME: &str = "relay.sock";

/// What a node needs to know before it can read any resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederationConfig {
    /// The last part of the node's own SPIFFE ID.
    pub name: ObjectName,
    pub cluster: ClusterName,
    pub trust_domain: TrustDomain,
    pub data_dir: PathBuf,
    /// Folder of Kubernetes manifests; may be `None` if `kubernetes` is there.
    pub manifests: Option<PathBuf>,
    /// The cluster whose API is watched.
    pub kubernetes: Option<KubernetesConfig>,
    /// Where gateways and operators in other pods connect.
    pub listen: Listen,
    pub resource_socket: PathBuf,
    pub operator_socket: PathBuf,
    /// Where gateways hand over the streams of other clusters' federation nodes.
    pub relay_socket: PathBuf,
    /// Whether the voters of the store are near or far from each other.
    pub store_profile: StoreProfile,
    /// Which of this host's addresses to dial other clusters from.
    pub store_dial_from: Option<IpAddr>,
    /// Of each SVID that the node issues, to gateways and to itself.
    pub svid_lifetime: Duration,
    /// Where health and metrics are told, by HTTP.
    pub health_listen: Option<SocketAddr>,
    /// Where other clusters reach this one's gateways.
    pub advertise: Vec<PeerAddress>,
    /// Whose gateways may enrol.
    pub enrolment: EnrolmentCallers,
    /// Unix users that may operate the node, besides its own user and root.
    pub operators: OperatorUids,
    /// ServiceAccounts that may operate the node at `listen.operators`.
    pub operator_accounts: OperatorAccounts,
    /// Where this cluster's bundle is served.
    pub bundle_endpoint: Option<BundleEndpoint>,
    /// Where other trust domains' bundles are polled.
    pub bundle_sources: Vec<BundleSource>,
    /// Which log lines there are, if neither an option nor the environment says.
    pub log_level: Option<String>,
}

/// TCP ports with TLS, beside the Unix sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listen {
    /// Enrolment and the resource stream.
    pub gateways: Option<SocketAddr>,
    /// Where gateways hand over the streams of other clusters' federation nodes.
    pub relay: Option<SocketAddr>,
    /// `fedctl`.
    pub operators: Option<SocketAddr>,
}

impl Listen {
    /// Whether tokens of the cluster's ServiceAccounts are to be reviewed.
    pub fn reviews_tokens(&self) -> bool {
        self.gateways.is_some() || self.operators.is_some()
    }
}

/// What the store's timeouts are made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreProfile {
    /// Voters within a few milliseconds of each other.
    #[default]
    Lan,
    /// Voters up to 300 ms from each other.
    Wan,
}

impl FederationConfig {
    /// `path` is for messages and for paths in the file, which are relative to its folder.
    pub fn from_yaml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let source = Source::new(text, path);
        if text.len() > CONFIG_BYTES_MAX {
            let problem =
                format!("the file has {} bytes; the limit is {CONFIG_BYTES_MAX}", text.len());
            return Err(source.error(None, problem));
        }
        let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
        let raw: Raw = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| source.syntax_error(&error))?;
        source.expect("apiVersion", &raw.api_version, API_VERSION)?;
        source.expect("kind", &raw.kind, KIND)?;
        let data_dir = source.path("dataDir", &raw.data_dir)?;
        let socket = |field, given: Option<&Text>, default| match given {
            Some(text) => source.socket(field, text),
            None => source.default_socket(field, &raw.data_dir, &data_dir, default),
        };
        let resource = raw.sockets.resource.as_ref();
        let resource_socket = socket("sockets.resource", resource, "resource.sock")?;
        let kubernetes = raw.kubernetes.as_ref().map(|raw| source.kubernetes(raw)).transpose()?;
        let (operators, operator_accounts) = source.operators(&raw.operators)?;
        let enrolment = source.enrolment(&raw.enrolment)?;
        let listen = source.listen(&raw.listen, &enrolment, &operator_accounts)?;
        let trust_domain = source.parse("trustDomain", &raw.trust_domain, TrustDomain::parse)?;
        let endpoint = raw.bundle_endpoint.as_ref();
        Ok(Self {
            relay_socket: match raw.sockets.relay.as_ref() {
                Some(text) => source.socket("sockets.relay", text)?,
                None => resource_socket.with_file_name(RELAY_NAME),
            },
            name: match &raw.name {
                Some(name) => source.parse("name", name, ObjectName::parse)?,
                None => ObjectName::parse(NAME_DEFAULT).expect("the default is a valid name"),
            },
            cluster: source.parse("cluster", &raw.cluster, ClusterName::parse)?,
            bundle_endpoint: endpoint.map(|raw| source.bundle_endpoint(raw)).transpose()?,
            bundle_sources: source.bundle_sources(&raw.bundle_sources, &trust_domain)?,
            trust_domain,
            manifests: source.manifests(raw.manifests.as_ref(), kubernetes.is_some())?,
            kubernetes,
            listen,
            resource_socket,
            operator_socket: socket(
                "sockets.operator",
                raw.sockets.operator.as_ref(),
                "operator.sock",
            )?,
            store_profile: source.profile(raw.store.profile.as_ref())?,
            store_dial_from: source.dial_from(raw.store.dial_from.as_ref())?,
            svid_lifetime: source.svid_lifetime(raw.svid_lifetime_seconds.as_ref())?,
            health_listen: match &raw.health.listen {
                Some(address) => Some(source.parse("health.listen", address, listened)?),
                None => None,
            },
            advertise: source.advertise(&raw.advertise)?,
            enrolment,
            operators,
            operator_accounts,
            log_level: source.log_level(raw.log.level.as_ref())?,
            data_dir,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    api_version: Text,
    kind: Text,
    name: Option<Text>,
    cluster: Text,
    trust_domain: Text,
    data_dir: Text,
    manifests: Option<Text>,
    kubernetes: Option<RawKubernetes>,
    #[serde(default)]
    sockets: RawSockets,
    #[serde(default)]
    listen: RawListen,
    svid_lifetime_seconds: Option<Spanned<i64>>,
    #[serde(default)]
    health: RawHealth,
    #[serde(default)]
    advertise: Vec<RawAddress>,
    #[serde(default)]
    enrolment: RawEnrolment,
    #[serde(default)]
    store: RawStore,
    #[serde(default)]
    operators: RawOperators,
    bundle_endpoint: Option<RawBundleEndpoint>,
    #[serde(default)]
    bundle_sources: Vec<RawBundleSource>,
    #[serde(default)]
    log: RawLog,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawSockets {
    resource: Option<Text>,
    operator: Option<Text>,
    relay: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawStore {
    profile: Option<Text>,
    dial_from: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLog {
    level: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAddress {
    transport: Text,
    host: Text,
    port: Spanned<i64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawListen {
    gateways: Option<Text>,
    relay: Option<Text>,
    operators: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawHealth {
    listen: Option<Text>,
}

impl Source<'_> {
    fn manifests(
        &self,
        value: Option<&Text>,
        has_kubernetes: bool,
    ) -> Result<Option<PathBuf>, ConfigError> {
        match value {
            Some(value) => self.path("manifests", value).map(Some),
            None if has_kubernetes => Ok(None),
            None => {
                let problem = "manifests: it is missing; give the folder of the cluster's \
                               manifests, or `kubernetes` to watch the cluster's API";
                Err(self.error(None, problem.into()))
            }
        }
    }

    /// A port that admits nobody, and a list for a port that is not there, are mistakes.
    fn listen(
        &self,
        raw: &RawListen,
        enrolment: &EnrolmentCallers,
        operators: &OperatorAccounts,
    ) -> Result<Listen, ConfigError> {
        let address = |field, value: Option<&Text>| {
            value.map(|value| self.parse(field, value, listened)).transpose()
        };
        let gateways = address("listen.gateways", raw.gateways.as_ref())?;
        let relay = address("listen.relay", raw.relay.as_ref())?;
        let listen = Listen {
            gateways,
            relay,
            operators: address("listen.operators", raw.operators.as_ref())?,
        };
        for (port, listed, fields) in [
            (gateways, !enrolment.accounts.is_empty(), ("gateways", "enrolment.serviceAccounts")),
            (listen.operators, !operators.is_empty(), ("operators", "operators.serviceAccounts")),
        ] {
            let (port_field, list_field) = fields;
            let problem = match (port, listed) {
                (Some(_), false) => format!(
                    "listen.{port_field}: nobody could call there; list ServiceAccounts in \
                     {list_field}"
                ),
                (None, true) => format!(
                    "{list_field}: ServiceAccounts call by TCP; set listen.{port_field}, such as \
                     0.0.0.0:7443"
                ),
                _ => continue,
            };
            return Err(self.error(None, problem));
        }
        Ok(listen)
    }

    fn profile(&self, value: Option<&Text>) -> Result<StoreProfile, ConfigError> {
        let Some(value) = value else { return Ok(StoreProfile::default()) };
        match value.value.as_str() {
            "lan" => Ok(StoreProfile::Lan),
            "wan" => Ok(StoreProfile::Wan),
            _ => {
                let problem = "write lan (voters a few milliseconds apart) or wan (up to 300 ms)";
                Err(self.refuse("store.profile", value, problem))
            }
        }
    }

    fn dial_from(&self, value: Option<&Text>) -> Result<Option<IpAddr>, ConfigError> {
        let Some(value) = value else { return Ok(None) };
        let address: Option<IpAddr> = value.value.parse().ok();
        let address =
            address.filter(|address| !address.is_unspecified() && !address.is_multicast());
        let problem = "write an IP address of this host, or leave the field out";
        address.map(Some).ok_or_else(|| self.refuse("store.dialFrom", value, problem))
    }

    fn svid_lifetime(&self, value: Option<&Spanned<i64>>) -> Result<Duration, ConfigError> {
        let Some(value) = value else { return Ok(SVID_LIFETIME) };
        let range = SVID_LIFETIME_S_MIN..=SVID_LIFETIME.as_secs();
        let seconds = u64::try_from(value.value).ok().filter(|seconds| range.contains(seconds));
        seconds.map(Duration::from_secs).ok_or_else(|| {
            let problem = format!("write {} to {} seconds", range.start(), range.end());
            self.refuse("svidLifetimeSeconds", value, problem)
        })
    }

    fn advertise(&self, addresses: &[RawAddress]) -> Result<Vec<PeerAddress>, ConfigError> {
        if addresses.len() > ADVERTISE_MAX {
            let line = addresses[ADVERTISE_MAX].host.referenced.line();
            let problem = format!(
                "advertise = {} entries: at most {ADVERTISE_MAX} are allowed; remove the others",
                addresses.len()
            );
            return Err(self.error(Some(line), problem));
        }
        let converted = addresses.iter().enumerate().map(|(i, address)| self.address(i, address));
        converted.collect()
    }

    fn address(&self, index: usize, address: &RawAddress) -> Result<PeerAddress, ConfigError> {
        let field = |name: &str| format!("advertise[{index}].{name}");
        if address.transport.value != Transport::Quic.as_str() {
            let problem = "the one transport is quic";
            return Err(self.refuse(&field("transport"), &address.transport, problem));
        }
        let port = u16::try_from(address.port.value).ok().filter(|port| *port > 0);
        let port =
            port.ok_or_else(|| self.refuse(&field("port"), &address.port, "a port is 1 to 65535"))?;
        let host = self.parse(&field("host"), &address.host, dialled_host)?;
        Ok(PeerAddress { transport: Transport::Quic, host, port })
    }
}

fn listened(text: &str) -> Result<SocketAddr, &'static str> {
    let problem = "write an IP address and a port, such as 0.0.0.0:7443 or [::]:7443";
    text.parse().map_err(|_| problem)
}

fn dialled_host(host: &str) -> Result<String, String> {
    if host.parse::<IpAddr>().is_ok_and(|address| !address.is_unspecified()) {
        return Ok(host.to_string());
    }
    match Hostname::parse(host) {
        Ok(Hostname::Exact(name)) => Ok(name.to_string()),
        _ => Err("others dial it: give an IP address or a DNS name in lower case".to_string()),
    }
}
