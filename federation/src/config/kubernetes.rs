//! `kubernetes`: which cluster is watched, and what of it is Fedgate's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::{Namespace, ObjectName};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::source::Source;
use super::{ConfigError, Text};
use crate::limits::{IMPORT_PORTS_MAX, SELECTOR_LABELS_MAX};

/// `kubernetes.gatewayService` when the file has none.
const GATEWAY_SERVICE_DEFAULT: &str = "fedgate-gateway";
/// `kubernetes.gatewaySelector` when the file has none: what the chart gives to gateway pods.
const GATEWAY_SELECTOR_DEFAULT: [(&str, &str); 2] =
    [("app.kubernetes.io/component", "gateway"), ("app.kubernetes.io/name", "fedgate")];
/// `kubernetes.importPorts` when the file has none.
const IMPORT_PORTS_DEFAULT: PortPool = PortPool { first: 20_000, count: 1_000 };
/// Ports below need a privilege that gateways do not have.
const IMPORT_PORT_MIN: u16 = 1_024;
/// Kubernetes' bound on a label's name and on its value.
const LABEL_BYTES_MAX: usize = 63;

/// The cluster in which the node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// Where Fedgate itself runs.
    pub namespace: Namespace,
    /// The Service that exposes the tunnel; its addresses are advertised.
    pub gateway_service: ObjectName,
    /// Labels of gateway pods.
    pub gateway_selector: BTreeMap<String, String>,
    /// Type of the Services that are made for Gateway objects.
    pub gateway_service_type: GatewayServiceType,
    /// Gateway ports for derived Services.
    pub import_ports: PortPool,
    /// The ClusterRole that owns what the node makes in the cluster.
    pub owned_by: Option<ObjectName>,
    /// A join token, used once, when the cluster is in no federation.
    pub join_token_file: Option<PathBuf>,
}

/// How a Service that is made for a Gateway object is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayServiceType {
    LoadBalancer,
    NodePort,
    ClusterIp,
}

impl GatewayServiceType {
    /// As Kubernetes writes it in `Service.spec.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        [Self::LoadBalancer, Self::NodePort, Self::ClusterIp]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or("write LoadBalancer, NodePort or ClusterIP")
    }
}

/// `count` ports from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPool {
    pub first: u16,
    pub count: u16,
}

impl PortPool {
    pub fn ports(self) -> impl Iterator<Item = u16> {
        (self.first..=u16::MAX).take(usize::from(self.count))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawKubernetes {
    namespace: Text,
    gateway_service: Option<Text>,
    gateway_selector: Option<Spanned<BTreeMap<String, String>>>,
    gateway_service_type: Option<Text>,
    import_ports: Option<RawPorts>,
    owned_by: Option<Text>,
    join_token_file: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPorts {
    first: Spanned<i64>,
    count: Spanned<i64>,
}

impl Source<'_> {
    pub(super) fn kubernetes(&self, raw: &RawKubernetes) -> Result<KubernetesConfig, ConfigError> {
        let token = raw.join_token_file.as_ref();
        Ok(KubernetesConfig {
            namespace: self.parse("kubernetes.namespace", &raw.namespace, Namespace::parse)?,
            gateway_service: match &raw.gateway_service {
                Some(name) => self.parse("kubernetes.gatewayService", name, ObjectName::parse)?,
                None => ObjectName::parse(GATEWAY_SERVICE_DEFAULT).expect("it is a valid name"),
            },
            gateway_selector: self.selector(raw.gateway_selector.as_ref())?,
            gateway_service_type: match &raw.gateway_service_type {
                Some(text) => {
                    let field = "kubernetes.gatewayServiceType";
                    self.parse(field, text, GatewayServiceType::parse)?
                }
                None => GatewayServiceType::LoadBalancer,
            },
            import_ports: self.import_ports(raw.import_ports.as_ref())?,
            owned_by: match &raw.owned_by {
                Some(name) => Some(self.parse("kubernetes.ownedBy", name, ObjectName::parse)?),
                None => None,
            },
            join_token_file: token
                .map(|text| self.path("kubernetes.joinTokenFile", text))
                .transpose()?,
        })
    }

    fn selector(
        &self,
        raw: Option<&Spanned<BTreeMap<String, String>>>,
    ) -> Result<BTreeMap<String, String>, ConfigError> {
        let Some(raw) = raw else {
            let labels = GATEWAY_SELECTOR_DEFAULT;
            return Ok(labels.map(|(key, value)| (key.to_string(), value.to_string())).into());
        };
        let field = "kubernetes.gatewaySelector";
        if raw.value.is_empty() || raw.value.len() > SELECTOR_LABELS_MAX {
            let problem = format!("give 1 to {SELECTOR_LABELS_MAX} labels of the gateway pods");
            return Err(self.refuse(field, raw, problem));
        }
        let is_label = |(key, value): (&String, &String)| is_key(key) && is_value(value);
        if !raw.value.iter().all(is_label) {
            let problem = "a label is [DNS name/]NAME: VALUE; both have at most 63 letters, \
                           digits, '-', '_' and '.'";
            return Err(self.refuse(field, raw, problem));
        }
        Ok(raw.value.clone())
    }

    fn import_ports(&self, raw: Option<&RawPorts>) -> Result<PortPool, ConfigError> {
        let Some(raw) = raw else { return Ok(IMPORT_PORTS_DEFAULT) };
        let first = u16::try_from(raw.first.value).ok().filter(|port| *port >= IMPORT_PORT_MIN);
        let first = first.ok_or_else(|| {
            let problem = format!("a port of the pool is {IMPORT_PORT_MIN} to 65535");
            self.refuse("kubernetes.importPorts.first", &raw.first, problem)
        })?;
        let most = IMPORT_PORTS_MAX.min(u16::MAX - first + 1);
        let count = u16::try_from(raw.count.value).ok().filter(|count| (1..=most).contains(count));
        let count = count.ok_or_else(|| {
            let problem = format!("from port {first} on, the pool has 1 to {most} ports");
            self.refuse("kubernetes.importPorts.count", &raw.count, problem)
        })?;
        Ok(PortPool { first, count })
    }
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => {
            ObjectName::parse(prefix).is_ok() && !name.is_empty() && is_value(name)
        }
        None => !key.is_empty() && is_value(key),
    }
}

/// The syntax of label values, which label names share: an empty one, or letters and digits at both
/// ends.
fn is_value(value: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= LABEL_BYTES_MAX
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}
