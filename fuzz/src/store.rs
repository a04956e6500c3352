//! The federation store's formats: what is signed, what a log entry holds, what is watched, and
//! what people paste.

use bytes::Bytes;
use wire::store::{
    AdminStatement, CheckReply, Command, Head, JoinToken, Leave, Member, MemberChain, OwnerUpdate,
    ProposeReply, ReadReply, ReadRequest, Record, RedeemEvent, RedeemRequest, Revocation, Signed,
    StoreKey, TOKEN_PREFIX, TokenGrant, WatchEvent, digest_of_records,
};

use super::check_message;

/// Messages of the store and of joining; the first byte chooses which.
pub fn store(data: &[u8]) {
    let Some((choice, message)) = data.split_first() else { return };
    macro_rules! check {
        ($kind:ident) => {
            if let Ok(value) = $kind::decode(message) {
                assert_eq!($kind::decode(&value.encode()).as_ref(), Ok(&value));
            }
        };
    }
    match choice % 18 {
        0 => check!(Signed),
        1 => check!(Head),
        2 => check!(Member),
        3 => check!(MemberChain),
        4 => check!(TokenGrant),
        5 => check!(Revocation),
        6 => check!(Leave),
        7 => check!(AdminStatement),
        8 | 9 => check!(Command),
        10 => key(message),
        11 => record(message),
        12 => check_message(message, WatchEvent::decode, WatchEvent::encode),
        13 => check_message(message, ProposeReply::decode, ProposeReply::encode),
        14 => check_message(message, ReadReply::decode, ReadReply::encode),
        15 => check_message(message, ReadRequest::decode, ReadRequest::encode),
        16 => check_message(message, RedeemRequest::decode, RedeemRequest::encode),
        _ => {
            check_message(message, CheckReply::decode, CheckReply::encode);
            check_message(message, RedeemEvent::decode, RedeemEvent::encode);
        }
    }
}

fn key(bytes: &[u8]) {
    if let Ok(key) = StoreKey::decode(bytes) {
        assert_eq!(key.encode(), bytes, "a key has one spelling");
    }
}

/// A key and a record that might fit it: the first byte says where one ends.
fn record(bytes: &[u8]) {
    let Some((&length, rest)) = bytes.split_first() else { return };
    let Some((key, record)) = rest.split_at_checked(length.into()) else { return };
    let Ok(key) = StoreKey::decode(key) else { return };
    if let Ok(found) = Record::decode(&key, record)
        && let Some(resource) = found.resource
    {
        assert_eq!(key.resource_key(), Some(resource.key()));
        let written = Record::encode(found.salt, &resource);
        let again = Record::decode(&key, &written).expect("what we write, we read");
        assert_eq!(again.resource, Some(resource));
        let alone = [(&key, &written[..])];
        assert_ne!(digest_of_records(alone), digest_of_records([(&key, &b"x"[..])]));
    }
}

/// Watch events with their digests: computing one never fails, whatever the order of things in it.
pub fn watch(data: &[u8]) {
    use prost::Message as _;
    let Ok(event) = wire::store::proto::WatchEvent::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    let Ok(event) = WatchEvent::decode(event) else { return };
    assert_eq!(WatchEvent::decode(event.encode()).as_ref(), Ok(&event));
    let (WatchEvent::SnapshotPart { update, .. } | WatchEvent::Delta { update, .. }) = event else {
        return;
    };
    for owner in update.owners {
        let digest = owner.digest();
        let withheld = OwnerUpdate {
            namespaces: owner
                .namespaces
                .iter()
                .filter_map(|namespace| namespace.node())
                .map(wire::store::NamespaceUpdate::Node)
                .collect(),
            ..owner
        };
        assert_eq!(withheld.digest(), digest, "what is withheld changes no digest");
    }
}

/// Texts of tokens, with and without their beginning.
pub fn tokens(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for text in [text.to_owned(), format!("{TOKEN_PREFIX}{text}")] {
        if let Ok(token) = JoinToken::parse(&text) {
            let written = token.to_text().expect("what was read can be written");
            assert_eq!(JoinToken::parse(&written).as_ref(), Ok(&token));
        }
    }
}
