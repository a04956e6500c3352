//! The bootstrap configuration of a gateway: strict YAML, every error with its place.

mod federation;
mod source;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::Text;
use model::spiffe::Part;
use model::{ClusterName, ObjectName, SpiffeId, TrustDomain};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::access_log::STDOUT;
use crate::limits::{CONFIG_BYTES_MAX, DRAIN_ACCEPT_GRACE, DRAIN_MAX, WORKERS_MAX};

pub use daemon::ConfigError;

pub use federation::{FederationLink, HostPort, TcpLink};

use federation::RawFederation;
use source::Source;

pub const API_VERSION: &str = "fedgate.dev/v1alpha1";
pub const KIND: &str = "GatewayConfig";
/// `listen.tunnel` when the file has none.
const TUNNEL_DEFAULT: &str = "[::]:8443";
/// `listen.routes` when the file has none.
const ROUTES_DEFAULT: &str = "0.0.0.0";
/// `admin.listen` when the file has none.
const ADMIN_DEFAULT: &str = "127.0.0.1:9901";

/// What a gateway needs to know before it has resources; everything else is a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The last part of the gateway's SPIFFE ID.
    pub name: ObjectName,
    pub cluster: ClusterName,
    pub trust_domain: TrustDomain,
    pub data_dir: PathBuf,
    /// UDP address of the tunnel; `[::]` serves IPv4 too.
    pub tunnel_listen: SocketAddr,
    /// Address of the ports that Gateway objects name.
    pub routes_listen: IpAddr,
    /// How the federation node is reached.
    pub federation: FederationLink,
    /// Where the node may ask for streams by TCP.
    pub relay_listen: Option<SocketAddr>,
    /// What the node is told in place of an unspecified address in `relay_listen`.
    pub pod_ip: Option<IpAddr>,
    pub admin_listen: SocketAddr,
    /// Where health and metrics, and nothing else, are told too.
    pub health_listen: Option<SocketAddr>,
    pub workers: usize,
    /// How long a gateway that drains goes on accepting.
    pub drain_accept: Duration,
    pub access_log: PathBuf,
    /// Which log lines there are, if neither an option nor the environment says.
    pub log_level: Option<String>,
}

/// What differs between the pods of one Deployment, which share one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--name` or `FEDGATE_NAME`: in place of `name`.
    pub name: Option<String>,
    /// `FEDGATE_POD_IP`.
    pub pod_ip: Option<String>,
}

impl GatewayConfig {
    /// `path` is for messages, and for paths in the file, which are relative to its folder.
    pub fn from_yaml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::from_yaml_with(text, path, &Overrides::default())
    }

    /// The same for a process that is told more than the file says.
    pub fn from_yaml_with(
        text: &str,
        path: &Path,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let source = Source::new(text, path);
        if text.len() as u64 > CONFIG_BYTES_MAX {
            let problem =
                format!("the file has {} bytes; the limit is {CONFIG_BYTES_MAX}", text.len());
            return Err(source.error(None, problem));
        }
        let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
        let raw: Raw = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| source.syntax_error(&error))?;
        source.expect("apiVersion", &raw.api_version, API_VERSION)?;
        source.expect("kind", &raw.kind, KIND)?;
        let access_log = match &raw.access_log.path {
            Some(path) => source.path("accessLog.path", path)?,
            None => PathBuf::from(STDOUT),
        };
        let federation = source.federation(&raw.federation)?;
        let pod_ip = source.pod_ip(overrides.pod_ip.as_deref())?;
        Ok(Self {
            name: source.name(raw.name.as_ref(), overrides.name.as_deref())?,
            cluster: source.parse("cluster", &raw.cluster, ClusterName::parse)?,
            trust_domain: source.parse("trustDomain", &raw.trust_domain, TrustDomain::parse)?,
            data_dir: source.path("dataDir", &raw.data_dir)?,
            tunnel_listen: source.socket(
                "listen.tunnel",
                raw.listen.tunnel.as_ref(),
                TUNNEL_DEFAULT,
            )?,
            routes_listen: source.address("listen.routes", raw.listen.routes.as_ref())?,
            relay_listen: source.relay_listen(raw.listen.relay.as_ref(), &federation, pod_ip)?,
            pod_ip,
            federation,
            admin_listen: source.socket(
                "admin.listen",
                raw.admin.listen.as_ref(),
                ADMIN_DEFAULT,
            )?,
            health_listen: match &raw.health.listen {
                Some(listen) => Some(source.socket("health.listen", Some(listen), "")?),
                None => None,
            },
            workers: source.workers(raw.workers.as_ref())?,
            drain_accept: source.drain_accept(raw.drain.accept_seconds.as_ref())?,
            access_log,
            log_level: source.log_level(raw.log.level.as_ref())?,
        })
    }

    /// `spiffe://<trust domain>/fedgate/gateway/<name>`.
    pub fn spiffe_id(&self) -> SpiffeId {
        SpiffeId::of_part(&self.trust_domain, Part::Gateway, &self.name)
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
    #[serde(default)]
    listen: RawListen,
    federation: RawFederation,
    #[serde(default)]
    admin: RawAdmin,
    #[serde(default)]
    health: RawHealth,
    workers: Option<Spanned<i64>>,
    #[serde(default)]
    drain: RawDrain,
    #[serde(default)]
    access_log: RawAccessLog,
    #[serde(default)]
    log: RawLog,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawListen {
    tunnel: Option<Text>,
    routes: Option<Text>,
    relay: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawHealth {
    listen: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawDrain {
    accept_seconds: Option<Spanned<f64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLog {
    level: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawAccessLog {
    path: Option<Text>,
}

impl Source<'_> {
    fn name(&self, text: Option<&Text>, instead: Option<&str>) -> Result<ObjectName, ConfigError> {
        match (instead, text) {
            (Some(name), _) => ObjectName::parse(name).map_err(|error| {
                self.error(None, format!("--name or FEDGATE_NAME = {name:?}: {error}"))
            }),
            (None, Some(text)) => self.parse("name", text, ObjectName::parse),
            (None, None) => {
                let problem = "name: it is missing; give it here, by --name or by FEDGATE_NAME";
                Err(self.error(None, problem.into()))
            }
        }
    }

    fn pod_ip(&self, text: Option<&str>) -> Result<Option<IpAddr>, ConfigError> {
        let Some(text) = text else { return Ok(None) };
        let address: Option<IpAddr> = text.parse().ok();
        let address = address.filter(|address| !address.is_unspecified());
        let problem = || format!("FEDGATE_POD_IP = {text:?}: write the pod's own IP address");
        address.map(Some).ok_or_else(|| self.error(None, problem()))
    }

    fn relay_listen(
        &self,
        value: Option<&Text>,
        federation: &FederationLink,
        pod_ip: Option<IpAddr>,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(value) = value else { return Ok(None) };
        if matches!(federation, FederationLink::Sockets { .. }) {
            let problem = "a node on this host asks at a Unix socket; remove it, or reach the \
                           node by `federation.address`";
            return Err(self.refuse("listen.relay", value, problem));
        }
        let address = self.socket("listen.relay", Some(value), "")?;
        if address.ip().is_unspecified() && pod_ip.is_none() {
            let problem = "the node could not dial that; set FEDGATE_POD_IP to the pod's address";
            return Err(self.refuse("listen.relay", value, problem));
        }
        Ok(Some(address))
    }

    fn socket(
        &self,
        field: &str,
        value: Option<&Text>,
        default: &str,
    ) -> Result<SocketAddr, ConfigError> {
        let rule = |text: &str| {
            text.parse::<SocketAddr>()
                .map_err(|_| "write an IP address and a port, such as 127.0.0.1:9901 or [::]:8443")
        };
        match value {
            Some(value) => self.parse(field, value, rule),
            None => Ok(rule(default).expect("the default is an address and a port")),
        }
    }

    fn address(&self, field: &str, value: Option<&Text>) -> Result<IpAddr, ConfigError> {
        let rule = |text: &str| {
            text.parse::<IpAddr>()
                .map_err(|_| "write an IP address without a port: ports come from Gateway objects")
        };
        match value {
            Some(value) => self.parse(field, value, rule),
            None => Ok(rule(ROUTES_DEFAULT).expect("the default is an address")),
        }
    }

    fn drain_accept(&self, value: Option<&Spanned<f64>>) -> Result<Duration, ConfigError> {
        let Some(value) = value else { return Ok(DRAIN_ACCEPT_GRACE) };
        let max = DRAIN_MAX.as_secs();
        Duration::try_from_secs_f64(value.value).ok().filter(|grace| *grace < DRAIN_MAX).ok_or_else(
            || {
                let problem = format!(
                    "use 0 or more and less than {max}, which is the whole drain's limit; 5 is \
                     enough for most load balancers"
                );
                self.refuse("drain.acceptSeconds", value, problem)
            },
        )
    }

    fn workers(&self, value: Option<&Spanned<i64>>) -> Result<usize, ConfigError> {
        let Some(value) = value else {
            return Ok(std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(WORKERS_MAX));
        };
        usize::try_from(value.value)
            .ok()
            .filter(|workers| (1..=WORKERS_MAX).contains(workers))
            .ok_or_else(|| {
                let problem = format!("use 1 to {WORKERS_MAX}, or leave it out for one per core");
                self.refuse("workers", value, problem)
            })
    }
}
