//! The bootstrap configuration of a federation node: strict YAML, every error with its place.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use model::{ClusterName, Hostname, ObjectName, PeerAddress, Transport, TrustDomain};
use serde::Deserialize;
use serde_saphyr::{Error, Spanned};

use crate::limits::{
    ADVERTISE_MAX, CONFIG_BYTES_MAX, ENROLMENT_UIDS_MAX, OPERATOR_UIDS_MAX, SOCKET_PATH_BYTES_MAX,
};

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
    /// Folder of Kubernetes manifests.
    pub manifests: PathBuf,
    pub resource_socket: PathBuf,
    pub operator_socket: PathBuf,
    /// Where gateways hand over the streams of other clusters' federation nodes.
    pub relay_socket: PathBuf,
    /// Whether the voters of the store are near or far from each other.
    pub store_profile: StoreProfile,
    /// Which of this host's addresses to dial other clusters from.
    pub store_dial_from: Option<IpAddr>,
    /// Where other clusters reach this one's gateways.
    pub advertise: Vec<PeerAddress>,
    /// Unix users whose gateways may subscribe and enrol; empty means the node's own user alone.
    pub enrolment_uids: BTreeSet<u32>,
    /// Unix users that may operate the node, besides its own user and root.
    pub operators: OperatorUids,
}

/// Unix users by role; nobody is in two of the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorUids {
    pub admins: BTreeSet<u32>,
    pub operators: BTreeSet<u32>,
    pub viewers: BTreeSet<u32>,
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

/// Why a configuration was refused; each message has the place, the field, the value and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {problem}", path.display(), Line(*line))]
pub struct ConfigError {
    pub path: PathBuf,
    /// From 1; `None` when the whole file is meant.
    pub line: Option<u64>,
    pub problem: String,
}

impl FederationConfig {
    /// `path` is for messages and for paths in the file, which are relative to its folder.
    pub fn from_yaml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let source = Source { text, path };
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
            trust_domain: source.parse("trustDomain", &raw.trust_domain, TrustDomain::parse)?,
            manifests: source.path("manifests", &raw.manifests)?,
            resource_socket,
            operator_socket: socket(
                "sockets.operator",
                raw.sockets.operator.as_ref(),
                "operator.sock",
            )?,
            store_profile: source.profile(raw.store.profile.as_ref())?,
            store_dial_from: source.dial_from(raw.store.dial_from.as_ref())?,
            advertise: source.advertise(&raw.advertise)?,
            enrolment_uids: source.enrolment_uids(&raw.enrolment)?,
            operators: source.operators(&raw.operators)?,
            data_dir,
        })
    }
}

type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    api_version: Text,
    kind: Text,
    name: Option<Text>,
    cluster: Text,
    trust_domain: Text,
    data_dir: Text,
    manifests: Text,
    #[serde(default)]
    sockets: RawSockets,
    #[serde(default)]
    advertise: Vec<RawAddress>,
    #[serde(default)]
    enrolment: RawEnrolment,
    #[serde(default)]
    store: RawStore,
    #[serde(default)]
    operators: RawOperators,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAddress {
    transport: Text,
    host: Text,
    port: Spanned<i64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawEnrolment {
    uids: Option<Uids>,
}

type Uids = Spanned<Vec<Spanned<i64>>>;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawOperators {
    admins: Option<Uids>,
    operators: Option<Uids>,
    viewers: Option<Uids>,
}

/// The file, for messages that point into it.
struct Source<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Source<'_> {
    fn error(&self, line: Option<u64>, problem: String) -> ConfigError {
        ConfigError { path: self.path.into(), line, problem }
    }

    fn refuse<T: fmt::Debug>(
        &self,
        field: &str,
        value: &Spanned<T>,
        problem: impl fmt::Display,
    ) -> ConfigError {
        let line = value.referenced.line();
        self.error(Some(line), format!("{field} = {:?}: {problem}", value.value))
    }

    /// The parser does not always name the field, but it knows the line: that is quoted.
    fn syntax_error(&self, error: &Error) -> ConfigError {
        let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
        let full = error.without_snippet().to_string();
        // The parser speaks to programmers in these cases.
        let problem = match error.without_snippet() {
            Error::DuplicateMappingKey { .. } => "the field is there twice; remove one",
            Error::NullIntoString { .. } => "the value is missing; write one",
            Error::MultipleDocuments { .. } => {
                "a second document begins here; keep one, and give each process a file of its own"
            }
            _ => full.split(" at line ").next().unwrap_or_default().trim_end_matches(','),
        };
        let index = line.and_then(|line| usize::try_from(line - 1).ok());
        let quoted = index.and_then(|index| self.text.lines().nth(index)).map(str::trim);
        let fix = "docs/reference/config.md lists the fields";
        match quoted.filter(|quoted| !quoted.is_empty()) {
            Some(quoted) => self.error(line, format!("`{quoted}`: {problem}; {fix}")),
            None => self.error(line, format!("{problem}; {fix}")),
        }
    }

    fn expect(&self, field: &str, value: &Text, wanted: &str) -> Result<(), ConfigError> {
        if value.value == wanted {
            return Ok(());
        }
        Err(self.refuse(field, value, format_args!("write {wanted}")))
    }

    fn parse<T, E: fmt::Display>(
        &self,
        field: &str,
        value: &Text,
        rule: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        rule(&value.value).map_err(|error| self.refuse(field, value, error))
    }

    fn path(&self, field: &str, value: &Text) -> Result<PathBuf, ConfigError> {
        if value.value.is_empty() {
            return Err(self.refuse(field, value, "it is empty; give a path"));
        }
        let folder = self.path.parent().unwrap_or_else(|| Path::new(""));
        Ok(folder.join(&value.value))
    }

    fn socket(&self, field: &str, value: &Text) -> Result<PathBuf, ConfigError> {
        let path = self.path(field, value)?;
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(self.refuse(field, value, too_long(&path, field)));
        }
        Ok(path)
    }

    fn default_socket(
        &self,
        field: &str,
        data_dir: &Text,
        folder: &Path,
        name: &str,
    ) -> Result<PathBuf, ConfigError> {
        let path = folder.join("run").join(name);
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(self.refuse("dataDir", data_dir, too_long(&path, field)));
        }
        Ok(path)
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

    fn enrolment_uids(&self, enrolment: &RawEnrolment) -> Result<BTreeSet<u32>, ConfigError> {
        let Some(uids) = &enrolment.uids else { return Ok(BTreeSet::new()) };
        let meaning = "or leave the field out for the node's own user";
        let mut taken = BTreeSet::new();
        self.uids("enrolment.uids", uids, ENROLMENT_UIDS_MAX, meaning, &mut taken)
    }

    fn operators(&self, raw: &RawOperators) -> Result<OperatorUids, ConfigError> {
        let meaning = "or leave the field out; the node's own user and root are admins anyway";
        let mut taken = BTreeSet::new();
        let mut read = |field: &str, uids: &Option<Uids>| match uids {
            Some(uids) => self.uids(field, uids, OPERATOR_UIDS_MAX, meaning, &mut taken),
            None => Ok(BTreeSet::new()),
        };
        Ok(OperatorUids {
            admins: read("operators.admins", &raw.admins)?,
            operators: read("operators.operators", &raw.operators)?,
            viewers: read("operators.viewers", &raw.viewers)?,
        })
    }

    /// `taken`: users of earlier lists, to which these are added.
    fn uids(
        &self,
        field: &str,
        uids: &Uids,
        most: usize,
        meaning: &str,
        taken: &mut BTreeSet<u32>,
    ) -> Result<BTreeSet<u32>, ConfigError> {
        if uids.value.is_empty() || uids.value.len() > most {
            let line = uids.referenced.line();
            let count = uids.value.len();
            let problem =
                format!("{field} = {count} entries: list 1 to {most} Unix users, {meaning}");
            return Err(self.error(Some(line), problem));
        }
        let mut converted = BTreeSet::new();
        for (index, uid) in uids.value.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let Ok(number) = u32::try_from(uid.value) else {
                let problem = "a Unix user's number is 0 to 4294967295; `id -u NAME` prints it";
                return Err(self.refuse(&field, uid, problem));
            };
            if !taken.insert(number) {
                return Err(self.refuse(&field, uid, "it is listed twice; remove one"));
            }
            converted.insert(number);
        }
        Ok(converted)
    }
}

fn too_long(path: &Path, field: &str) -> String {
    format!(
        "the socket's path {} has {} bytes, and Unix allows {SOCKET_PATH_BYTES_MAX}; set {field} \
         to a shorter one",
        path.display(),
        path.as_os_str().len()
    )
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

/// `:7` or nothing.
struct Line(Option<u64>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}
