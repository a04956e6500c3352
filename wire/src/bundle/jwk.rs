//! The public-key members of a JWK (RFC 7518 §6, RFC 8037 §2), taken from a certificate.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use x509_parser::der_parser::oid::Oid;
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519};
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
        PublicKey::EC(point) => {
            let curve = key_info.algorithm.parameters.as_ref();
            let curve = curve.and_then(|parameters| parameters.as_oid().ok());
            let curve = curve.as_ref().and_then(named_curve);
            curve.and_then(|curve| elliptic(curve, point.data())).ok_or_else(unsupported)
        }
        PublicKey::RSA(key) => Ok(members([
            ("kty", "RSA".into()),
            ("n", base64(without_leading_zeros(key.modulus))),
            ("e", base64(without_leading_zeros(key.exponent))),
        ])),
        _ => Err(unsupported()),
    }
}

/// A curve's name in JWKs and the bytes of one coordinate.
type Curve = (&'static str, usize);

fn named_curve(oid: &Oid<'_>) -> Option<Curve> {
    let curves = [
        (OID_EC_P256, ("P-256", 32)),
        (OID_NIST_EC_P384, ("P-384", 48)),
        (OID_NIST_EC_P521, ("P-521", 66)),
    ];
    curves.into_iter().find(|(known, _)| known == oid).map(|(_, curve)| curve)
}

/// An uncompressed point (SEC 1 §2.3.3).
fn elliptic((crv, bytes): Curve, point: &[u8]) -> Option<Map<String, Value>> {
    let (&[4], coordinates) = point.split_at_checked(1)? else { return None };
    if coordinates.len() != 2 * bytes {
        return None;
    }
    let (x, y) = coordinates.split_at(bytes);
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
