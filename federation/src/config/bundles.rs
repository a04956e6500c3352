//! SPIFFE bundle endpoints: the one that the node serves, and those of other trust domains that it
//! polls (SPIFFE Federation §5.1: URL, profile and trust domain are said, never guessed).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::Uri;
use model::{SpiffeId, TrustDomain};
use serde::Deserialize;

use super::source::Source;
use super::{ConfigError, Text, listened};
use crate::limits::{BUNDLE_DOMAIN_BYTES_MAX, BUNDLE_SOURCES_MAX};

const WEB: &str = "https_web";
const SPIFFE: &str = "https_spiffe";
const PROFILES: &str = "write https_web (a certificate of the web's PKI) or https_spiffe (an SVID)";

/// Where this cluster's bundle is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleEndpoint {
    pub listen: SocketAddr,
    pub profile: ServedProfile,
}

/// What the endpoint shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServedProfile {
    /// PEM files, followed while the node runs.
    Web { certificate: PathBuf, key: PathBuf },
    /// The node's own SVID.
    Spiffe,
}

/// Where another trust domain's bundle is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleSource {
    pub trust_domain: TrustDomain,
    pub url: Uri,
    pub profile: SourceProfile,
}

/// How that endpoint is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceProfile {
    /// By the URL's host, and the authorities of a PEM file or of the system.
    Web { ca_file: Option<PathBuf> },
    /// By its SPIFFE ID; the file has the first bundle of its trust domain, where that is the polled one.
    Spiffe { endpoint: SpiffeId, bundle_file: Option<PathBuf> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawBundleEndpoint {
    listen: Text,
    profile: Text,
    certificate_file: Option<Text>,
    key_file: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawBundleSource {
    trust_domain: Text,
    url: Text,
    profile: Text,
    endpoint_spiffe_id: Option<Text>,
    bundle_file: Option<Text>,
    ca_file: Option<Text>,
}

impl Source<'_> {
    pub(super) fn bundle_endpoint(
        &self,
        raw: &RawBundleEndpoint,
    ) -> Result<BundleEndpoint, ConfigError> {
        let files = [
            ("bundleEndpoint.certificateFile", raw.certificate_file.as_ref()),
            ("bundleEndpoint.keyFile", raw.key_file.as_ref()),
        ];
        let field = "bundleEndpoint.profile";
        let profile = match raw.profile.value.as_str() {
            WEB => {
                let [certificate, key] = files;
                let path = |(name, value)| self.needed(name, value, (field, &raw.profile));
                let path = |file| path(file).and_then(|(name, text)| self.path(name, text));
                ServedProfile::Web { certificate: path(certificate)?, key: path(key)? }
            }
            SPIFFE => {
                for (name, value) in files {
                    self.unused(name, value, "https_spiffe shows the node's SVID; remove it")?;
                }
                ServedProfile::Spiffe
            }
            _ => return Err(self.refuse(field, &raw.profile, PROFILES)),
        };
        let listen = self.parse("bundleEndpoint.listen", &raw.listen, listened)?;
        Ok(BundleEndpoint { listen, profile })
    }

    pub(super) fn bundle_sources(
        &self,
        raw: &[RawBundleSource],
        own: &TrustDomain,
    ) -> Result<Vec<BundleSource>, ConfigError> {
        if let Some(beyond) = raw.get(BUNDLE_SOURCES_MAX) {
            let (line, found) = (beyond.url.referenced.line(), raw.len());
            let problem = format!(
                "bundleSources = {found} entries: at most {BUNDLE_SOURCES_MAX} are allowed; remove \
                 the others"
            );
            return Err(self.error(Some(line), problem));
        }
        let mut sources = Vec::with_capacity(raw.len());
        let mut seen = BTreeSet::from([own.clone()]);
        for (index, raw) in raw.iter().enumerate() {
            let source = self.bundle_source(index, raw)?;
            if !seen.insert(source.trust_domain.clone()) {
                let field = format!("bundleSources[{index}].trustDomain");
                let problem = "it is this cluster's own, or listed twice; remove the entry";
                return Err(self.refuse(&field, &raw.trust_domain, problem));
            }
            sources.push(source);
        }
        for (index, (source, raw)) in sources.iter().zip(raw).enumerate() {
            self.check_endpoint(index, source, raw, &sources)?;
        }
        Ok(sources)
    }

    fn bundle_source(
        &self,
        index: usize,
        raw: &RawBundleSource,
    ) -> Result<BundleSource, ConfigError> {
        let at = |name: &str| format!("bundleSources[{index}].{name}");
        let domain = |text: &str| match TrustDomain::parse(text) {
            Ok(domain) if text.len() <= BUNDLE_DOMAIN_BYTES_MAX => Ok(domain),
            Ok(_) => {
                Err(format!("a file is named after it: at most {BUNDLE_DOMAIN_BYTES_MAX} bytes"))
            }
            Err(problem) => Err(problem.to_string()),
        };
        let id_field = at("endpointSpiffeId");
        let (id, bundle) = (raw.endpoint_spiffe_id.as_ref(), raw.bundle_file.as_ref());
        let path = |name, file: Option<&Text>| file.map(|file| self.path(name, file)).transpose();
        let profile = match raw.profile.value.as_str() {
            WEB => {
                let fix = "https_web knows the endpoint by its host's name; remove it";
                self.unused(&id_field, id, fix)?;
                self.unused(&at("bundleFile"), bundle, fix)?;
                SourceProfile::Web { ca_file: path(&at("caFile"), raw.ca_file.as_ref())? }
            }
            SPIFFE => {
                let fix = "https_spiffe knows the endpoint by its SPIFFE ID; remove it";
                self.unused(&at("caFile"), raw.ca_file.as_ref(), fix)?;
                let (_, id) = self.needed(&id_field, id, (&at("profile"), &raw.profile))?;
                SourceProfile::Spiffe {
                    endpoint: self.parse(&id_field, id, SpiffeId::parse)?,
                    bundle_file: path(&at("bundleFile"), bundle)?,
                }
            }
            _ => return Err(self.refuse(&at("profile"), &raw.profile, PROFILES)),
        };
        Ok(BundleSource {
            trust_domain: self.parse(&at("trustDomain"), &raw.trust_domain, domain)?,
            url: self.parse(&at("url"), &raw.url, endpoint_url)?,
            profile,
        })
    }

    /// A way to know the endpoint before anything was polled (SPIFFE Federation §5.2.2.2).
    fn check_endpoint(
        &self,
        index: usize,
        source: &BundleSource,
        raw: &RawBundleSource,
        all: &[BundleSource],
    ) -> Result<(), ConfigError> {
        let SourceProfile::Spiffe { endpoint, bundle_file } = &source.profile else {
            return Ok(());
        };
        let of_endpoint = endpoint.trust_domain();
        let (field, problem) = match (*of_endpoint == source.trust_domain, bundle_file) {
            (true, None) => (
                "bundleFile",
                "it is missing: the first bundle, by which the endpoint is known; get it from the \
                 domain's owner, as `fedctl peer` prints it",
            ),
            (false, Some(_)) => (
                "bundleFile",
                "the endpoint is of another trust domain; give that one a source, and remove this",
            ),
            (false, None) if all.iter().all(|other| other.trust_domain != *of_endpoint) => (
                "endpointSpiffeId",
                "its trust domain has no bundle here; give it a source of its own",
            ),
            _ => return Ok(()),
        };
        let field = format!("bundleSources[{index}].{field}");
        let line = raw.profile.referenced.line();
        Err(self.error(Some(line), format!("{field}: {problem}")))
    }

    fn needed<'n, 't>(
        &self,
        name: &'n str,
        value: Option<&'t Text>,
        (field, profile): (&str, &Text),
    ) -> Result<(&'n str, &'t Text), ConfigError> {
        let problem = || self.refuse(field, profile, format!("{name} belongs to it; write one"));
        value.map(|value| (name, value)).ok_or_else(problem)
    }

    fn unused(&self, name: &str, value: Option<&Text>, fix: &str) -> Result<(), ConfigError> {
        value.map_or(Ok(()), |value| Err(self.refuse(name, value, fix)))
    }
}

/// SPIFFE Federation §5.2.1.1 and §5.2.2.1.
fn endpoint_url(text: &str) -> Result<Uri, &'static str> {
    let problem =
        "write a URL such as https://bundles.west.example:8444/, without user and password";
    let uri: Uri = text.parse().map_err(|_| problem)?;
    let authority = uri.authority().ok_or(problem)?;
    let has_user = authority.as_str().contains('@');
    if uri.scheme_str() != Some("https") || authority.host().is_empty() || has_user {
        return Err(problem);
    }
    Ok(uri)
}
