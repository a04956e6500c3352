//! SPIFFE bundle documents (SPIFFE Trust Domain and Bundle §4): JWKS text from and to
//! [`model::TrustBundle`].
//!
//! A document never names its trust domain: who has the document must know whose it is. Only
//! X.509 authorities are kept; a key of another use, or without `kty` or `use`, is ignored as the
//! specification demands.

mod json;
mod jwk;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{TrustBundle, TrustDomain};
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::{At, WireError};
use crate::resource::limits::{CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX};

/// Longest document: what serves them and what reads them agree on it.
pub const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
/// Most keys of any use in a document.
pub const BUNDLE_KEYS_MAX: usize = 1024;

const USE_X509_SVID: &str = "x509-svid";

/// Reads the bundle of `trust_domain`.
pub fn parse_bundle(text: &str, trust_domain: &TrustDomain) -> Result<TrustBundle, WireError> {
    let at = At::message("bundle");
    at.check_bytes(text.len(), BUNDLE_BYTES_MAX)?;
    let document = json::parse(text).map_err(|error| at.refuse(text, error))?;
    let Value::Object(members) = document else {
        return Err(at.refuse(text, "a bundle document is a JSON object with the member \"keys\""));
    };
    let keys_at = at.field("keys");
    let keys = match members.get("keys") {
        Some(Value::Array(keys)) => keys,
        Some(other) => return Err(keys_at.refuse(other, "it must be an array of JWKs")),
        None => {
            return Err(keys_at.missing("a bundle has \"keys\"; an empty array revokes them all"));
        }
    };
    keys_at.check_len(keys.len(), BUNDLE_KEYS_MAX)?;
    let hint = integer(&at, "spiffe_refresh_hint", members.get("spiffe_refresh_hint"))?;
    Ok(TrustBundle {
        trust_domain: trust_domain.clone(),
        sequence: integer(&at, "spiffe_sequence", members.get("spiffe_sequence"))?.unwrap_or(0),
        refresh_hint_seconds: hint,
        x509_authorities: authorities(&at, keys)?,
    })
}

/// Writes the document that [`parse_bundle`] reads: one JWK for each authority, with one `x5c`
/// certificate and no `kid`.
pub fn format_bundle(bundle: &TrustBundle) -> Result<String, WireError> {
    let at = At::message("bundle");
    let mut keys = Vec::with_capacity(bundle.x509_authorities.len());
    for (index, der) in bundle.x509_authorities.iter().enumerate() {
        let at = at.entry("x509_authorities", index);
        let certificate = certificate(at, der)?;
        let mut members = jwk::public_key_members(at, &certificate)?;
        members.insert("use".into(), USE_X509_SVID.into());
        members.insert("x5c".into(), vec![STANDARD.encode(der)].into());
        keys.push(Value::Object(members));
    }
    let mut document = serde_json::Map::new();
    document.insert("keys".into(), keys.into());
    document.insert("spiffe_sequence".into(), bundle.sequence.into());
    if let Some(hint) = bundle.refresh_hint_seconds {
        document.insert("spiffe_refresh_hint".into(), hint.into());
    }
    let text = serde_json::to_string_pretty(&document);
    Ok(text.expect("a map of strings and numbers is JSON"))
}

/// `spiffe_sequence` has at least 64 bits, so a float would lose some of them.
fn integer(
    at: &At<'_>,
    name: &'static str,
    value: Option<&Value>,
) -> Result<Option<u64>, WireError> {
    let Some(value) = value else { return Ok(None) };
    match value.as_u64() {
        Some(integer) => Ok(Some(integer)),
        None => Err(at.field(name).refuse(value, "it must be an integer from 0 to 2^64 - 1")),
    }
}

fn authorities(at: &At<'_>, keys: &[Value]) -> Result<Vec<Vec<u8>>, WireError> {
    let mut authorities = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let at = at.entry("keys", index);
        let Value::Object(members) = key else {
            return Err(at.refuse(key, "a JWK is a JSON object"));
        };
        let kty = members.get("kty").and_then(Value::as_str);
        let used_for = members.get("use").and_then(Value::as_str);
        if kty.is_none() || used_for != Some(USE_X509_SVID) {
            continue;
        }
        authorities.push(x5c(at.field("x5c"), members.get("x5c"))?);
    }
    at.field("keys").check_len(authorities.len(), CERTIFICATES_MAX)?;
    Ok(authorities)
}

/// A publisher writes one certificate; a reader takes the first and looks at no other.
fn x5c(at: At<'_>, value: Option<&Value>) -> Result<Vec<u8>, WireError> {
    let first = match value {
        Some(Value::Array(certificates)) => certificates.first().and_then(Value::as_str),
        Some(other) => return Err(at.refuse(other, "it must be an array with one certificate")),
        None => None,
    };
    let Some(first) = first else {
        return Err(at.missing("an x509-svid key has one certificate, in base64"));
    };
    let der = STANDARD.decode(first).map_err(|error| {
        at.refuse(first, format!("it must be base64 (RFC 7517 §4.7: not base64url): {error}"))
    })?;
    // What is accepted can also be written again: its key has a form in JWKs.
    jwk::public_key_members(at, &certificate(at, &der)?)?;
    Ok(der)
}

fn certificate<'a>(at: At<'_>, der: &'a [u8]) -> Result<X509Certificate<'a>, WireError> {
    at.check_bytes(der.len(), CERTIFICATE_BYTES_MAX)?;
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => {
            let (trailing, problem) = (rest.len(), "bytes follow the certificate; remove them");
            Err(at.refuse(format_args!("{trailing} bytes"), problem))
        }
        Err(error) => {
            let problem = format!("it must be a DER X.509 certificate: {error}");
            Err(at.refuse(format_args!("{} bytes", der.len()), problem))
        }
    }
}

#[cfg(test)]
mod tests;
