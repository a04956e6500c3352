//! The public-key members of a JWK (RFC 7518 §6, RFC 8037 §2), taken from a certificate.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;

use crate::error::{At, WireError};

/// `kty` and what belongs to it.
pub(super) fn public_key_members(
    at: At<'_>,
    certificate: &X509Certificate<'_>,
) -> Result<Map<String, Value>, WireError> {
    let key_info = certificate.public_key();
    let unsupported = || {
        let algorithm = key_info.algorithm.algorithm.to_id_string();
        at.refuse(algorithm, "the key must be EC (P-256, P-384, P-521), RSA or Ed25519")
    };
    if key_info.algorithm.algorithm == OID_SIG_ED25519 {
        let x = key_info.subject_public_key.data.as_ref();
        return Ok(members([("kty", "OKP".into()), ("crv", "Ed25519".into()), ("x", base64(x))]));
    }
    match key_info.parsed().map_err(|_| unsupported())? {
        PublicKey::EC(point) => elliptic(point.data()).ok_or_else(unsupported),
        PublicKey::RSA(key) => Ok(members([
            ("kty", "RSA".into()),
            ("n", base64(without_leading_zeros(key.modulus))),
            ("e", base64(without_leading_zeros(key.exponent))),
        ])),
        _ => Err(unsupported()),
    }
}

/// An uncompressed point (SEC 1 §2.3.3); its length tells the NIST curve.
fn elliptic(point: &[u8]) -> Option<Map<String, Value>> {
    let (&[4], coordinates) = point.split_at_checked(1)? else { return None };
    let crv = match coordinates.len() {
        64 => "P-256",
        96 => "P-384",
        132 => "P-521",
        _ => return None,
    };
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    let (x, y) = (base64(x), base64(y));
    Some(members([("kty", "EC".into()), ("crv", crv.into()), ("x", x), ("y", y)]))
}

fn members<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn base64(bytes: &[u8]) -> Value {
    URL_SAFE_NO_PAD.encode(bytes).into()
}

/// DER integers have a zero in front when their first bit is set; JWKs do not (RFC 7518 §2).
fn without_leading_zeros(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    &integer[zeros..]
}
