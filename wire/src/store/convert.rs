//! Conversions of single values that the store's messages share.

use bytes::Bytes;
use model::{ClusterId, FederationId, KeyId, Role, RoleSet};
use prost::Message;

use super::proto;
use crate::error::{At, WireError};

/// Decodes a whole message, within its limit.
pub(super) fn message<M: Message + Default>(
    at: &At<'_>,
    bytes: &[u8],
    max: usize,
) -> Result<M, WireError> {
    at.check_bytes(bytes.len(), max)?;
    M::decode(bytes).map_err(|error| {
        let problem = format!("it is not the protobuf message of the schema ({error})");
        at.refuse(format_args!("{} bytes", bytes.len()), problem)
    })
}

pub(super) fn fixed<const N: usize>(at: At<'_>, value: &[u8]) -> Result<[u8; N], WireError> {
    value.try_into().map_err(|_| {
        at.refuse(format_args!("{} bytes", value.len()), format!("send exactly {N} bytes"))
    })
}

/// As [`fixed`], where nothing means absence.
pub(super) fn optional_fixed<const N: usize>(
    at: At<'_>,
    value: &[u8],
) -> Result<Option<[u8; N]>, WireError> {
    if value.is_empty() { Ok(None) } else { fixed(at, value).map(Some) }
}

pub(super) fn federation(at: At<'_>, value: &[u8]) -> Result<FederationId, WireError> {
    fixed(at, value).map(FederationId::from_bytes)
}

pub(super) fn cluster(at: At<'_>, value: &[u8]) -> Result<ClusterId, WireError> {
    fixed(at, value).map(ClusterId::from_bytes)
}

pub(super) fn key_id(at: At<'_>, value: &[u8]) -> Result<KeyId, WireError> {
    fixed(at, value).map(KeyId::from_bytes)
}

/// Times, generations and epochs begin with 1: a zero is a field that was forgotten.
pub(super) fn positive(at: At<'_>, value: u64) -> Result<u64, WireError> {
    if value == 0 { Err(at.refuse(value, "send a number above 0")) } else { Ok(value) }
}

/// Each role once. A newer role is refused: nodes must agree on what an admission means.
pub(super) fn roles(at: &At<'_>, values: &[i32]) -> Result<RoleSet, WireError> {
    let mut roles = RoleSet::NONE;
    for (index, value) in values.iter().enumerate() {
        let at = at.entry("roles", index);
        let role = match proto::Role::try_from(*value) {
            Ok(proto::Role::Admit) => Role::Admit,
            Ok(proto::Role::Admin) => Role::Admin,
            Ok(proto::Role::Export) => Role::Export,
            _ => return Err(at.refuse(value, "use ADMIT (1), ADMIN (2) or EXPORT (3)")),
        };
        if roles.contains(role) {
            return Err(at.refuse(role.as_str(), "name each role once"));
        }
        roles = roles.with(role);
    }
    Ok(roles)
}

pub(super) fn encode_roles(roles: RoleSet) -> Vec<i32> {
    let encode = |role| match role {
        Role::Admit => proto::Role::Admit,
        Role::Admin => proto::Role::Admin,
        Role::Export => proto::Role::Export,
    };
    roles.iter().map(|role| encode(role).into()).collect()
}

/// A field that must be there.
pub(super) fn required<T>(at: At<'_>, value: Option<T>, fix: &str) -> Result<T, WireError> {
    value.ok_or_else(|| at.missing(fix))
}

pub(super) fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
