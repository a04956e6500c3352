//! What is asked of a TLS stream once its handshake is over, whatever it runs in.

use std::io;

use rustls::CommonState;
use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsStream;

/// What the peer showed; empty if it showed nothing.
pub(crate) fn peer_chain<S>(stream: &TlsStream<S>) -> Vec<CertificateDer<'static>> {
    let state: &CommonState = stream.get_ref().1;
    state.peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
}

/// A peer that names no ALPN at all passes rustls; what is said on one kind of stream is not to be
/// taken for another's.
pub(crate) fn require_alpn<S>(stream: &TlsStream<S>) -> io::Result<Vec<u8>> {
    match stream.get_ref().1.alpn_protocol() {
        Some(alpn) => Ok(alpn.to_vec()),
        None => Err(io::Error::other("the peer named no ALPN")),
    }
}
