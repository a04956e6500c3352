//! TLS of SPIFFE bundle endpoints (SPIFFE Federation §5.2): servers that ask their callers for nothing,
//! and clients that know a server by the web's PKI (`https_web`) or by its SPIFFE ID (`https_spiffe`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use model::SpiffeId;
use model::code::{self, Code};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::bundle::BundleSet;
use crate::cell::IdentityCell;
use crate::cluster::HandshakeRefusal;
use crate::file::{self, FileError};
use crate::pem;
use crate::tls::{self, Judge};
use crate::verify::{VerifyError, verify_leaf};

/// All that is spoken at an endpoint.
const ALPN: &[u8] = b"http/1.1";

/// With TLS 1.2 beside 1.3, as Mozilla's "intermediate" wants it (SPIFFE Federation §5): the other
/// side of `https_web` is anybody's software.
fn web_provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    &PROVIDER
}

/// The certificate of an `https_web` server: two PEM files, which whoever renews it replaces.
pub struct WebCertificate {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

/// Why certificates of the web's PKI cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebCertificateError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {problem}", .path.display())]
    Unusable { path: PathBuf, problem: String },
    #[error(
        "the system has no certificates of authorities: {problem}; install them, or name a file"
    )]
    NoRoots { problem: String },
}

impl WebCertificateError {
    /// The registered code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::File(problem) => problem.code(),
            Self::Unusable { .. } | Self::NoRoots { .. } => code::FILE_UNREADABLE,
        }
    }
}

impl WebCertificate {
    /// `certificate` has the chain, leaf first; nobody beyond the owner and its group may read `key`.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, WebCertificateError> {
        let current = ArcSwap::from_pointee(read_certified(&certificate, &key)?);
        Ok(Self { certificate, key, current })
    }

    /// Reads the files again; whether there is another certificate. With an error the old one stays,
    /// as it does between the replacements of the two files.
    pub fn reload(&self) -> Result<bool, WebCertificateError> {
        let next = read_certified(&self.certificate, &self.key)?;
        let is_other = next.cert != self.current.load().cert;
        if is_other {
            self.current.store(Arc::new(next));
        }
        Ok(is_other)
    }
}

impl fmt::Debug for WebCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebCertificate").field("path", &self.certificate).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for WebCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read_certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, WebCertificateError> {
    let unusable = |path: &Path, problem: String| {
        let path = path.to_path_buf();
        WebCertificateError::Unusable { path, problem }
    };
    let chain = read_pem_certificates(certificate)?;
    let missing = || unusable(key, "it does not exist; give the certificate's key".into());
    let text = file::read_shared_key(key)?.ok_or_else(missing)?;
    let der = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|problem| unusable(key, format!("it has no readable private key: {problem}")))?;
    CertifiedKey::from_der(chain, der, web_provider())
        .map_err(|problem| unusable(key, format!("it does not fit the certificate: {problem}")))
}

/// At least one.
fn read_pem_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, WebCertificateError> {
    let unusable = |problem: String| {
        let path = path.to_path_buf();
        WebCertificateError::Unusable { path, problem }
    };
    let text = file::read_public(path)?
        .ok_or_else(|| unusable("it does not exist; give a file of PEM certificates".into()))?;
    let certificates = pem::read_certificates(&text).map_err(&unusable)?;
    if certificates.is_empty() {
        return Err(unusable(
            "it has no CERTIFICATE section; give a file of PEM certificates".into(),
        ));
    }
    Ok(certificates)
}

/// For serving a bundle by `https_web`.
pub fn web_endpoint_config(certificate: Arc<WebCertificate>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(web_provider().clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// For serving a bundle by `https_spiffe`: the SVID in force is shown.
pub fn spiffe_endpoint_config(cell: Arc<IdentityCell>) -> ServerConfig {
    tls::unasking_server(cell, ALPN)
}

/// For polling an `https_web` endpoint. Without `roots`, a PEM file, the system's authorities count.
pub fn web_poller_config(roots: Option<&Path>) -> Result<ClientConfig, WebCertificateError> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            for certificate in read_pem_certificates(path)? {
                store.add(certificate).map_err(|problem| WebCertificateError::Unusable {
                    path: path.to_path_buf(),
                    problem: format!("a certificate cannot be an authority: {problem}"),
                })?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            // Systems have some that nobody can read; the others count.
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let problem = found.errors.first().map(ToString::to_string).unwrap_or_default();
                return Err(WebCertificateError::NoRoots { problem });
            }
        }
    }
    let mut config = ClientConfig::builder_with_provider(web_provider().clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of TLS 1.2 and 1.3")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// For one poll of an `https_spiffe` endpoint: an SVID of `endpoint`, by the bundle of its own trust
/// domain among `bundles`. The host's name proves nothing there, and is sent for whoever sorts
/// connections by it.
pub fn spiffe_poller_config(
    bundles: BundleSet,
    endpoint: SpiffeId,
) -> (ClientConfig, HandshakeRefusal) {
    let refusal = HandshakeRefusal::default();
    let judge = Judge::Endpoint { bundles, endpoint, refusal: refusal.clone() };
    let mut config = tls::client_with(judge, None, ALPN);
    config.enable_sni = true;
    (config, refusal)
}

/// Whether this is the endpoint that is meant.
pub(crate) fn verify_endpoint(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    (bundles, endpoint): (&BundleSet, &SpiffeId),
    now: SystemTime,
) -> Result<(), VerifyError> {
    let peer = verify_leaf(leaf, intermediates, bundles, now)?;
    if peer.id != *endpoint {
        return Err(VerifyError::NotExpected { id: peer.id, expected: endpoint.clone() });
    }
    Ok(())
}
