//! WebSocket's handshake (RFC 6455 §4) on both sides of the tunnel: it proves hop by hop that the
//! other end speaks WebSocket, so its key does not travel.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::{HeaderMap, HeaderValue};

const PROTOCOL: &str = "websocket";
/// RFC 6455 §1.3.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The source, before the request enters the tunnel.
pub(super) fn remove_key(protocol: Option<&str>, headers: &mut HeaderMap) {
    if protocol == Some(PROTOCOL) {
        headers.remove(SEC_WEBSOCKET_KEY);
    }
}

/// The source, when the destination agreed: answers the key that its client had sent.
pub(super) fn accept_client(protocol: Option<&str>, request: &HeaderMap, response: &mut HeaderMap) {
    if protocol == Some(PROTOCOL)
        && let Some(key) = request.get(SEC_WEBSOCKET_KEY)
    {
        response.insert(SEC_WEBSOCKET_ACCEPT, accept(key));
    }
}

/// The destination, towards the application. Gives the answer that it must send.
pub(crate) fn add_key(
    protocol: &str,
    nonce: [u8; 16],
    headers: &mut HeaderMap,
) -> Option<HeaderValue> {
    if protocol != PROTOCOL {
        return None;
    }
    let key = HeaderValue::try_from(STANDARD.encode(nonce)).expect("base64 is visible ASCII");
    let expected = accept(&key);
    headers.insert(SEC_WEBSOCKET_KEY, key);
    Some(expected)
}

/// The destination, when the application has answered: whether it was a WebSocket server's answer.
pub(crate) fn check_accept(expected: Option<HeaderValue>, headers: &mut HeaderMap) -> bool {
    match expected {
        Some(expected) => headers.remove(SEC_WEBSOCKET_ACCEPT) == Some(expected),
        None => true,
    }
}

fn accept(key: &HeaderValue) -> HeaderValue {
    let input = [key.as_bytes(), MAGIC].concat();
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &input);
    HeaderValue::try_from(STANDARD.encode(hash)).expect("base64 is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_hop_has_a_handshake_of_its_own() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        let client = HeaderMap::from_iter([(SEC_WEBSOCKET_KEY, key)]);
        let mut request = client.clone();
        remove_key(Some("websocket"), &mut request);
        assert!(request.is_empty());
        let expected = add_key("websocket", [9; 16], &mut request);
        assert_ne!(request[SEC_WEBSOCKET_KEY], client[SEC_WEBSOCKET_KEY]);
        let mut answer = HeaderMap::new();
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept(&request[SEC_WEBSOCKET_KEY]));
        assert!(check_accept(expected.clone(), &mut answer));
        assert!(answer.is_empty());
        accept_client(Some("websocket"), &client, &mut answer);
        assert_eq!(answer[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut wrong = HeaderMap::new();
        assert!(!check_accept(expected, &mut wrong), "no answer is no agreement");
        assert!(check_accept(None, &mut wrong), "other protocols have no such handshake");
    }
}
