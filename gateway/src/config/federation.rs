//! `federation`: the way to the cluster's node, by Unix sockets on one host, or by TCP with TLS.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use model::Hostname;
use serde::Deserialize;

use super::source::Source;
use super::{ConfigError, Text};

/// How the federation node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FederationLink {
    /// On this host; the kernel says who calls.
    Sockets {
        resource: PathBuf,
        /// Where the node takes the streams of other clusters' nodes.
        relay: PathBuf,
    },
    /// In another pod; both sides show SVIDs.
    Tcp(TcpLink),
}

impl fmt::Display for FederationLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sockets { resource, .. } => resource.display().fmt(f),
            Self::Tcp(link) => link.address.fmt(f),
        }
    }
}

/// A node in another pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpLink {
    /// Enrolment and the resource stream.
    pub address: HostPort,
    /// Where the node takes the streams of other clusters' nodes.
    pub relay: HostPort,
    /// The SPIFFE bundle of the own trust domain, with which the node is verified.
    pub bundle: PathBuf,
    /// The pod's ServiceAccount token, for enrolment.
    pub token: PathBuf,
}

/// A DNS name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// An IPv6 address is without brackets.
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`; an IPv6 address stands in brackets.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let problem = "write host:port, such as fedgate-federation.fedgate-system.svc:7443";
        let (host, port) = text.rsplit_once(':').ok_or(problem)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(problem)?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match in_brackets {
            Some(host) => host.parse::<Ipv6Addr>().map_err(|_| problem)?.to_string(),
            None if host.contains(':') => return Err(problem),
            None if host.parse::<IpAddr>().is_ok() => host.to_string(),
            None => match Hostname::parse(host) {
                Ok(Hostname::Exact(name)) => name.to_string(),
                _ => return Err(problem),
            },
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawFederation {
    socket: Option<Text>,
    relay: Option<Text>,
    address: Option<Text>,
    relay_address: Option<Text>,
    bundle: Option<Text>,
    token: Option<Text>,
}

impl Source<'_> {
    pub(super) fn federation(&self, raw: &RawFederation) -> Result<FederationLink, ConfigError> {
        match (&raw.socket, &raw.address) {
            (Some(socket), None) => self.sockets(raw, socket),
            (None, Some(address)) => self.tcp(raw, address),
            (Some(_), Some(_)) => {
                let problem = "federation.address: either this or federation.socket; remove one";
                Err(self.error(None, problem.into()))
            }
            (None, None) => {
                let problem = "federation.socket: it is missing; give it for a node on this host, \
                               or federation.address for one in another pod";
                Err(self.error(None, problem.into()))
            }
        }
    }

    fn sockets(&self, raw: &RawFederation, socket: &Text) -> Result<FederationLink, ConfigError> {
        let foreign =
            [("relayAddress", &raw.relay_address), ("bundle", &raw.bundle), ("token", &raw.token)];
        if let Some((field, _)) = foreign.iter().find(|(_, value)| value.is_some()) {
            let problem = format!(
                "federation.{field}: it is for a node that is reached by federation.address; \
                 remove it"
            );
            return Err(self.error(None, problem));
        }
        let resource = self.path("federation.socket", socket)?;
        let relay = match &raw.relay {
            Some(path) => self.path("federation.relay", path)?,
            None => resource.with_file_name("relay.sock"),
        };
        Ok(FederationLink::Sockets { resource, relay })
    }

    fn tcp(&self, raw: &RawFederation, address: &Text) -> Result<FederationLink, ConfigError> {
        if raw.relay.is_some() {
            let problem = "federation.relay: it is a socket on this host; give \
                           federation.relayAddress in its place";
            return Err(self.error(None, problem.into()));
        }
        let needed = |field: &str, value: &Option<Text>, what: &str| match value {
            Some(value) => Ok(value.clone()),
            None => {
                let problem = format!(
                    "federation.{field}: it is missing; with federation.address, give {what}"
                );
                Err(self.error(None, problem))
            }
        };
        let relay = needed("relayAddress", &raw.relay_address, "the node's listen.relay")?;
        let bundle = needed("bundle", &raw.bundle, "the file of the cluster's trust bundle")?;
        let token = needed("token", &raw.token, "the file of the pod's ServiceAccount token")?;
        Ok(FederationLink::Tcp(TcpLink {
            address: self.parse("federation.address", address, HostPort::parse)?,
            relay: self.parse("federation.relayAddress", &relay, HostPort::parse)?,
            bundle: self.path("federation.bundle", &bundle)?,
            token: self.path("federation.token", &token)?,
        }))
    }
}
