//! The bootstrap configuration of a gateway: strict YAML, every error with its place.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use model::spiffe::Part;
use model::{ClusterName, ObjectName, SpiffeId, TrustDomain};
use serde::Deserialize;
use serde_saphyr::{Error, Spanned};

use crate::access_log::STDOUT;
use crate::limits::{CONFIG_BYTES_MAX, WORKERS_MAX};

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
    /// The federation node's resource socket.
    pub federation_socket: PathBuf,
    /// Where the node takes the streams of other clusters' nodes.
    pub relay_socket: PathBuf,
    pub admin_listen: SocketAddr,
    pub workers: usize,
    pub access_log: PathBuf,
}

impl GatewayConfig {
    /// `path` is for messages, and for paths in the file, which are relative to its folder.
    pub fn from_yaml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let source = Source { text, path };
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
        let federation_socket = source.path("federation.socket", &raw.federation.socket)?;
        let relay_socket = match &raw.federation.relay {
            Some(path) => source.path("federation.relay", path)?,
            None => federation_socket.with_file_name("relay.sock"),
        };
        Ok(Self {
            name: source.parse("name", &raw.name, ObjectName::parse)?,
            cluster: source.parse("cluster", &raw.cluster, ClusterName::parse)?,
            trust_domain: source.parse("trustDomain", &raw.trust_domain, TrustDomain::parse)?,
            data_dir: source.path("dataDir", &raw.data_dir)?,
            tunnel_listen: source.socket(
                "listen.tunnel",
                raw.listen.tunnel.as_ref(),
                TUNNEL_DEFAULT,
            )?,
            routes_listen: source.address("listen.routes", raw.listen.routes.as_ref())?,
            federation_socket,
            relay_socket,
            admin_listen: source.socket(
                "admin.listen",
                raw.admin.listen.as_ref(),
                ADMIN_DEFAULT,
            )?,
            workers: source.workers(raw.workers.as_ref())?,
            access_log,
        })
    }

    /// `spiffe://<trust domain>/fedgate/gateway/<name>`.
    pub fn spiffe_id(&self) -> SpiffeId {
        SpiffeId::of_part(&self.trust_domain, Part::Gateway, &self.name)
    }
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

/// `:7` or nothing.
struct Line(Option<u64>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    api_version: Text,
    kind: Text,
    name: Text,
    cluster: Text,
    trust_domain: Text,
    data_dir: Text,
    #[serde(default)]
    listen: RawListen,
    federation: RawFederation,
    #[serde(default)]
    admin: RawAdmin,
    workers: Option<Spanned<i64>>,
    #[serde(default)]
    access_log: RawAccessLog,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawListen {
    tunnel: Option<Text>,
    routes: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFederation {
    socket: Text,
    relay: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    listen: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawAccessLog {
    path: Option<Text>,
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

    /// The parser does not always name the field, but it knows the line, which is quoted.
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
        let quoted = index.and_then(|index| self.text.lines().nth(index)).map_or("", str::trim);
        let quoted = if quoted.is_empty() { String::new() } else { format!("`{quoted}`: ") };
        let fix = "docs/reference/config.md lists the fields";
        self.error(line, format!("{quoted}{problem}; {fix}"))
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
        Ok(self.path.parent().unwrap_or_else(|| Path::new("")).join(&value.value))
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
apiVersion: fedgate.dev/v1alpha1
kind: GatewayConfig
name: gw-0
cluster: east
trustDomain: east.example
dataDir: data
federation: {socket: /run/fedgate/resource.sock}
";

    fn parse(text: &str) -> Result<GatewayConfig, String> {
        GatewayConfig::from_yaml(text, Path::new("/etc/fedgate/gateway.yaml"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_fill_what_the_file_leaves_out() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.tunnel_listen.to_string(), "[::]:8443");
        assert_eq!(config.routes_listen.to_string(), "0.0.0.0");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9901");
        assert_eq!(config.access_log, Path::new(STDOUT));
        assert_eq!(config.data_dir, Path::new("/etc/fedgate/data"), "relative to the file");
        assert_eq!(config.relay_socket, Path::new("/run/fedgate/relay.sock"), "beside the other");
        assert!((1..=WORKERS_MAX).contains(&config.workers));
        assert_eq!(config.spiffe_id().as_str(), "spiffe://east.example/fedgate/gateway/gw-0");
    }

    #[test]
    fn every_field_is_read() {
        let text = format!(
            "{}listen: {{tunnel: \"127.0.0.1:1\", routes: \"::1\"}}\nworkers: 3\n\
             admin: {{listen: \"127.0.0.1:0\"}}\naccessLog: {{path: /tmp/x}}\n",
            GOOD.replace("resource.sock}", "resource.sock, relay: /run/node/r.sock}")
        );
        let config = parse(&text).unwrap();
        assert_eq!(config.tunnel_listen.to_string(), "127.0.0.1:1");
        assert_eq!(config.routes_listen.to_string(), "::1");
        assert_eq!(config.relay_socket, Path::new("/run/node/r.sock"));
        assert_eq!(config.workers, 3);
        assert_eq!(config.access_log, Path::new("/tmp/x"));
    }

    #[test]
    fn each_mistake_is_named_with_place_value_and_fix() {
        let swap = |from: &str, to: &str| GOOD.replace(from, to);
        for (text, parts) in [
            (swap("v1alpha1", "v9"), vec![":1: apiVersion = \"fedgate.dev/v9\"", "write fedgate"]),
            (swap("GatewayConfig", "X"), vec![":2: kind = \"X\"", "write GatewayConfig"]),
            (swap("gw-0", "GW_0"), vec![":3: name = \"GW_0\"", "lower-case"]),
            (swap("east\n", "ea.st\n"), vec![":4: cluster = \"ea.st\"", "lower-case"]),
            (swap("east.example", "spiffe://x"), vec![":5: trustDomain = \"spiffe://x\"", "a-z"]),
            (swap("dataDir: data", "dataDir: \"\""), vec![":6: dataDir = \"\"", "give a path"]),
            (swap("socket:", "sock:"), vec![":7", "sock", "docs/reference/config.md"]),
            (format!("{GOOD}extra: 1\n"), vec![":8", "extra"]),
            (
                format!("{GOOD}name: gw-1\n"),
                vec![":8: `name: gw-1`: the field is there twice; remove one; docs"],
            ),
            (
                swap("name: gw-0", "name: ~"),
                vec![":3: `name: ~`: the value is missing; write one; docs"],
            ),
            (format!("{GOOD}---\n{GOOD}"), vec![": a second document begins here; keep one"]),
            (format!("{GOOD}workers: 0\n"), vec![":8: workers = 0", "use 1 to 32"]),
            (format!("{GOOD}workers: 33\n"), vec![":8: workers = 33", "use 1 to 32"]),
            (format!("{GOOD}workers: two\n"), vec![":8", "workers: two"]),
            (format!("{GOOD}listen: {{tunnel: \"8443\"}}\n"), vec![":8: listen.tunnel", "port"]),
            (
                format!("{GOOD}listen: {{routes: \"a:1\"}}\n"),
                vec![":8: listen.routes", "IP address"],
            ),
            (
                format!("{GOOD}admin: {{listen: x}}\n"),
                vec![":8: admin.listen = \"x\"", "127.0.0.1"],
            ),
            (swap("name: gw-0\n", ""), vec!["name"]),
            ("a: [".into(), vec!["gateway.yaml"]),
            (String::new(), vec!["gateway.yaml"]),
            ("#".repeat(CONFIG_BYTES_MAX as usize + 1), vec!["the limit is 262144"]),
        ] {
            let error = parse(&text).expect_err(&text);
            for part in parts {
                assert!(error.contains(part), "{error:?} has not {part:?}");
            }
        }
    }
}
