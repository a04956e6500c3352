//! Conversions of single values that many messages share.

use std::net::IpAddr;

use model::{AppProtocol, ClusterId, Hostname, ListenerProtocol, ObjectName, Revision, Transport};

use super::{limits, proto};
use crate::error::{At, WireError};

/// Parses a name with its own rules; the error carries the field's path.
pub(crate) fn parse<T, E: std::fmt::Display>(
    at: At<'_>,
    value: &str,
    rule: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, WireError> {
    rule(value).map_err(|error| at.refuse(value, error))
}

/// As [`parse`], where empty text means absence.
pub(crate) fn parse_optional<T, E: std::fmt::Display>(
    at: At<'_>,
    value: &str,
    rule: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, WireError> {
    if value.is_empty() { Ok(None) } else { parse(at, value, rule).map(Some) }
}

pub(crate) fn port(at: At<'_>, value: u32) -> Result<u16, WireError> {
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(at.refuse(value, "a port is 1 to 65535")),
    }
}

pub(super) fn port_name(at: At<'_>, value: &str) -> Result<Option<String>, WireError> {
    let rule = |name: &str| {
        ObjectName::parse(name).map_err(|error| error.to_string())?;
        if name.len() > limits::PORT_NAME_BYTES_MAX || name.contains('.') {
            return Err("a port's name is an RFC 1123 label of at most 63 characters".to_string());
        }
        Ok(name.to_string())
    };
    parse_optional(at, value, rule)
}

/// An IP address or a DNS name, as a dialler takes it.
pub(crate) fn host(at: At<'_>, value: &str) -> Result<String, WireError> {
    let rule = |host: &str| {
        if host.parse::<IpAddr>().is_ok() {
            return Ok(host.to_string());
        }
        match Hostname::parse(host) {
            Ok(Hostname::Exact(name)) => Ok(name.to_string()),
            Ok(Hostname::Wildcard(_)) => Err("a wildcard cannot be dialled".to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    parse(at, value, rule)
}

pub(super) fn ip_address(at: At<'_>, value: &[u8]) -> Result<IpAddr, WireError> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Ok(IpAddr::from(v4));
    }
    match <[u8; 16]>::try_from(value) {
        Ok(v6) => Ok(IpAddr::from(v6)),
        Err(_) => Err(at.refuse(value, "an IP address is 4 or 16 bytes")),
    }
}

pub(super) fn cluster_id(at: At<'_>, value: &[u8]) -> Result<ClusterId, WireError> {
    let bytes = <[u8; 16]>::try_from(value);
    bytes.map(ClusterId::from_bytes).map_err(|_| at.refuse(value, "a cluster id is 16 bytes"))
}

pub(crate) fn text(at: At<'_>, value: String) -> Result<String, WireError> {
    at.check_bytes(value.len(), limits::TEXT_BYTES_MAX)?;
    Ok(value)
}

pub(crate) fn revision(at: At<'_>, value: Option<proto::Revision>) -> Result<Revision, WireError> {
    optional_revision(at, value)?.ok_or_else(|| at.missing("a revision is needed here"))
}

pub(crate) fn optional_revision(
    at: At<'_>,
    value: Option<proto::Revision>,
) -> Result<Option<Revision>, WireError> {
    match value {
        None => Ok(None),
        Some(proto::Revision { epoch: 0, .. }) => {
            Err(at.field("epoch").refuse(0, "epochs begin with 1"))
        }
        Some(proto::Revision { epoch, index }) => Ok(Some(Revision { epoch, index })),
    }
}

pub(crate) fn encode_revision(revision: Revision) -> proto::Revision {
    proto::Revision { epoch: revision.epoch, index: revision.index }
}

pub(super) fn transport(at: At<'_>, value: i32) -> Result<Transport, WireError> {
    match proto::Transport::try_from(value) {
        Ok(proto::Transport::Quic) => Ok(Transport::Quic),
        Ok(proto::Transport::Tcp) => Ok(Transport::Tcp),
        _ => Err(at.refuse(value, "transports are QUIC (1) and TCP (2)")),
    }
}

pub(super) fn encode_transport(transport: Transport) -> proto::Transport {
    match transport {
        Transport::Quic => proto::Transport::Quic,
        Transport::Tcp => proto::Transport::Tcp,
    }
}

pub(super) fn app_protocol(at: At<'_>, value: i32) -> Result<AppProtocol, WireError> {
    match proto::AppProtocol::try_from(value) {
        Ok(proto::AppProtocol::Http) => Ok(AppProtocol::Http),
        Ok(proto::AppProtocol::H2c) => Ok(AppProtocol::H2c),
        Ok(proto::AppProtocol::Tcp) => Ok(AppProtocol::Tcp),
        _ => Err(at.refuse(value, "use HTTP (1), H2C (2) or TCP (3)")),
    }
}

pub(super) fn encode_app_protocol(protocol: AppProtocol) -> proto::AppProtocol {
    match protocol {
        AppProtocol::Http => proto::AppProtocol::Http,
        AppProtocol::H2c => proto::AppProtocol::H2c,
        AppProtocol::Tcp => proto::AppProtocol::Tcp,
    }
}

pub(super) fn listener_protocol(at: At<'_>, value: i32) -> Result<ListenerProtocol, WireError> {
    match proto::ListenerProtocol::try_from(value) {
        Ok(proto::ListenerProtocol::Http) => Ok(ListenerProtocol::Http),
        Ok(proto::ListenerProtocol::Tcp) => Ok(ListenerProtocol::Tcp),
        _ => Err(at.refuse(value, "use HTTP (1) or TCP (2)")),
    }
}

pub(super) fn encode_listener_protocol(protocol: ListenerProtocol) -> proto::ListenerProtocol {
    match protocol {
        ListenerProtocol::Http => proto::ListenerProtocol::Http,
        ListenerProtocol::Tcp => proto::ListenerProtocol::Tcp,
    }
}

/// Converts each entry of a list, within the limit on its length.
pub(crate) fn list<P, T>(
    at: &At<'_>,
    name: &'static str,
    entries: Vec<P>,
    max: usize,
    convert: impl Fn(At<'_>, P) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    at.field(name).check_len(entries.len(), max)?;
    let convert = |(index, entry)| convert(at.entry(name, index), entry);
    entries.into_iter().enumerate().map(convert).collect()
}
