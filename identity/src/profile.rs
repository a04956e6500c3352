//! What a single certificate must look like: the X.509-SVID profile of leaves and of signing
//! certificates. Who signed it is [`crate::verify`]'s question.

use std::time::{Duration, SystemTime};

use model::{SpiffeId, TrustDomain};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::limits::{CERTIFICATE_BYTES_MAX, QUOTED_CHARS_MAX};
use crate::verify::VerifyError;

/// A leaf that has the profile of an X.509-SVID; nothing is said yet about its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// A certificate that may sign, with its validity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signing {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// From when and until when a certificate says it is valid; `None` for what is no certificate.
pub fn certificate_validity(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    Some(validity(&parse(0, der).ok()?))
}

/// The trust domain that a signing certificate says it signs for (X509-SVID §4.1); a bundle document
/// does not name its own.
pub fn authority_domain(der: &[u8]) -> Option<TrustDomain> {
    let certificate = parse(0, der).ok()?;
    let id = SpiffeId::parse(first_uri(&certificate)?).ok()?;
    id.path().is_empty().then(|| id.trust_domain().clone())
}

/// X509-SVID §2, §4, §5.2: exactly one URI SAN, a SPIFFE ID with a path; not a CA, signs no
/// certificates and no CRLs; digitalSignature; if there is an EKU, both roles of TLS.
pub(crate) fn check_leaf(der: &[u8]) -> Result<Leaf, VerifyError> {
    let certificate = parse(0, der)?;
    let wrong = |found: String, fix| {
        Err(VerifyError::NotAnSvid { certificate: describe(&certificate), found, fix })
    };
    let id = match &*uri_names(&certificate) {
        [] => {
            return wrong(
                "its subject alternative name has no URI".into(),
                "issue it with exactly one URI, its SPIFFE ID",
            );
        }
        [Some(uri)] => match SpiffeId::parse(uri) {
            Ok(id) if id.as_str() == *uri => id,
            Ok(_) => {
                return wrong(
                    format!("its URI {} has upper-case letters in scheme or domain", quote(uri)),
                    "issue it with the SPIFFE ID in lower case: IDs are compared byte for byte",
                );
            }
            Err(problem) => {
                return wrong(
                    format!("its URI {} is no SPIFFE ID: {}", quote(uri), problem.reason),
                    "issue it with an ID like spiffe://<trust-domain>/<path>",
                );
            }
        },
        [None] => {
            return wrong(
                "the URI in its subject alternative name is not UTF-8".into(),
                "issue it with an ID like spiffe://<trust-domain>/<path>",
            );
        }
        several => {
            return wrong(
                format!("its subject alternative name has {} URIs", several.len()),
                "issue it with exactly one URI, its SPIFFE ID",
            );
        }
    };
    if id.path().is_empty() {
        return wrong(
            "its SPIFFE ID has no path, so it names the trust domain itself".into(),
            "issue leaves with a path; only signing certificates go without",
        );
    }
    if certificate.is_ca() {
        return wrong(
            "its basic constraints say cA=true".into(),
            "a signing certificate must not authenticate: present an SVID that it signed",
        );
    }
    if let Err((found, fix)) = check_leaf_usage(&certificate) {
        return wrong(found, fix);
    }
    let (not_before, not_after) = validity(&certificate);
    Ok(Leaf { id, not_before, not_after })
}

fn check_leaf_usage(certificate: &X509Certificate<'_>) -> Result<(), (String, &'static str)> {
    const KEY_USAGE: &str = "issue it with a critical key usage of digitalSignature, without \
                             keyCertSign and cRLSign";
    let Ok(Some(usage)) = certificate.key_usage() else {
        return Err(("it has no key usage".into(), KEY_USAGE));
    };
    if usage.value.key_cert_sign() {
        return Err(("its key usage has keyCertSign".into(), KEY_USAGE));
    }
    if usage.value.crl_sign() {
        return Err(("its key usage has cRLSign".into(), KEY_USAGE));
    }
    if !usage.value.digital_signature() {
        return Err(("its key usage lacks digitalSignature".into(), KEY_USAGE));
    }
    if !usage.critical {
        return Err(("its key usage is not critical".into(), KEY_USAGE));
    }
    if let Ok(Some(purposes)) = certificate.extended_key_usage() {
        let missing = match (purposes.value.server_auth, purposes.value.client_auth) {
            (true, true) => return Ok(()),
            (false, true) => "serverAuth",
            (true, false) => "clientAuth",
            (false, false) => "serverAuth and clientAuth",
        };
        return Err((
            format!("its extended key usage lacks {missing}"),
            "issue it with serverAuth and clientAuth, or without an extended key usage",
        ));
    }
    Ok(())
}

/// X509-SVID §2, §4.3: cA=true, keyCertSign; a SPIFFE ID, if it has one, without a path. It may be
/// of another trust domain than what it signs.
pub(crate) fn check_signing(index: usize, der: &[u8]) -> Result<Signing, VerifyError> {
    let certificate = parse(index, der)?;
    let wrong = |found: String, fix| {
        Err(VerifyError::NotASigner { certificate: describe(&certificate), found, fix })
    };
    if !certificate.is_ca() {
        return wrong(
            "its basic constraints do not say cA=true".into(),
            "only a signing certificate may sign, or be in a bundle",
        );
    }
    match certificate.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() => {}
        _ => {
            return wrong(
                "its key usage lacks keyCertSign".into(),
                "issue signing certificates with keyCertSign",
            );
        }
    }
    match &*uri_names(&certificate) {
        [] => {}
        [Some(uri)] => match SpiffeId::parse(uri) {
            Ok(id) if id.path().is_empty() => {}
            _ => {
                return wrong(
                    format!("its URI {} is not the ID of a trust domain", quote(uri)),
                    "issue signing certificates with spiffe://<trust-domain> and no path",
                );
            }
        },
        _ => {
            return wrong(
                "its subject alternative name has more than one URI, or one that is not UTF-8"
                    .into(),
                "issue signing certificates with spiffe://<trust-domain> and no path",
            );
        }
    }
    let (not_before, not_after) = validity(&certificate);
    Ok(Signing { not_before, not_after })
}

/// Parses the certificate at `index` of a chain or bundle; nothing may follow it.
pub(crate) fn parse(index: usize, der: &[u8]) -> Result<X509Certificate<'_>, VerifyError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(VerifyError::CertificateTooLarge { index, found: der.len() });
    }
    let malformed = |reason: String| VerifyError::Malformed { index, reason };
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|problem| malformed(problem.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("it has {} trailing byte(s)", rest.len())));
    }
    // RFC 5280 §4.2 forbids an extension twice: two readers could each see another one.
    if certificate.extensions_map().is_err() {
        return Err(malformed("it has an extension twice".into()));
    }
    for extension in certificate.iter_extensions() {
        if let ParsedExtension::ParseError { error } = extension.parsed_extension() {
            return Err(malformed(format!("its extension {}: {error}", extension.oid)));
        }
    }
    Ok(certificate)
}

/// The URIs of the subject alternative name; `None` for one that is not UTF-8.
fn uri_names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<Option<&'a str>> {
    const URI_TAG: u32 = 6; // RFC 5280 §4.2.1.6: uniformResourceIdentifier [6]
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let uri_of = |name: &'a GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some(Some(*uri)),
        GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => Some(None),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri_of).collect()
}

/// The first URI of the subject alternative name.
pub(crate) fn first_uri<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    uri_names(certificate).into_iter().next().flatten()
}

/// How a message names a certificate: by its URI, else by its subject.
pub(crate) fn describe(certificate: &X509Certificate<'_>) -> String {
    match first_uri(certificate) {
        Some(uri) => quote(uri),
        None => format!("with subject {}", quote(&certificate.subject().to_string())),
    }
}

/// A peer's text, escaped and cut: it may hold control characters and be long.
fn quote(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    let mark = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{mark}")
}

fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let validity = certificate.validity();
    (system_time(validity.not_before), system_time(validity.not_after))
}

fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH) // X.509 years have four digits: always representable
}

/// RFC 3339, whole seconds.
pub(crate) fn time_text(time: SystemTime) -> String {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    };
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| format!("{seconds} s after 1970"), |time| time.to_string())
}
