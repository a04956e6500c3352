//! The test vectors of `docs/reference/store-vectors/`.

use model::code::Code;
use prost::Message;
use wire::WireError;
use wire::store::{
    AdminStatement, CheckReply, Command, FleetUpdate, Head, JoinToken, Leave, Member, MemberChain,
    ProposeReply, ReadReply, RedeemEvent, RedeemRequest, Revocation, Signed, StoreKey, TokenGrant,
    WatchEvent, join_proto, leaf_hash, proto,
};

use super::{built, show, spoilt};
use crate::vectors::{Vector, check, hex, text};

#[test]
fn keys() {
    let good = |_: &Vector, bytes: &[u8]| {
        let key = StoreKey::decode(bytes).map_err(text)?;
        assert_eq!(key.encode(), bytes);
        Ok(show::key(&key))
    };
    check("store-vectors/keys.txt", &built::keys(), good);
    check("store-vectors/bad-keys.txt", &spoilt::keys(), good);
}

#[test]
fn digests() {
    check("store-vectors/digests.txt", &built::digests(), |vector, bytes| {
        if vector.of == "leaf" {
            return Ok(vec![format!("leaf = {}", hex(&leaf_hash(bytes, b"")))]);
        }
        let event = proto::WatchEvent::decode(bytes).map_err(text)?;
        let event = WatchEvent::decode(event).map_err(text)?;
        let WatchEvent::SnapshotPart { update: FleetUpdate { owners, .. }, .. } = event else {
            panic!("{} is another event", vector.of);
        };
        let head = Head::of(&owners[0].head).map_err(text)?;
        assert_eq!(head.digest, owners[0].digest(), "the Head says what was computed");
        Ok(show::owner(&owners[0]))
    });
}

#[test]
fn messages() {
    check("store-vectors/messages.txt", &built::messages(), |vector, bytes| {
        read_message(&vector.of, bytes)
    });
}

#[test]
fn bad_messages() {
    check("store-vectors/bad-messages.txt", &spoilt::messages(), |vector, bytes| {
        read_message(&vector.of, bytes)
    });
}

#[test]
fn what_is_too_long_is_refused_by_its_length() {
    for (of, bytes, expected) in spoilt::oversized() {
        let found = read_message(of, &bytes).unwrap_err();
        assert_eq!(found, expected);
    }
}

#[test]
fn tokens() {
    let read = |_: &Vector, bytes: &[u8]| {
        let token = JoinToken::parse(std::str::from_utf8(bytes).unwrap()).map_err(text)?;
        Ok(show::token(&token))
    };
    check("store-vectors/tokens.txt", &built::tokens(), read);
    check("store-vectors/bad-tokens.txt", &spoilt::tokens(), read);
}

fn read_message(of: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
    match of {
        "Signed" => Signed::decode(bytes).map(|x| vec![show::signed(&x)]),
        "Signed Head" => Signed::decode(bytes).and_then(|x| Head::of(&x)).map(|x| show::head(&x)),
        "Head" => Head::decode(bytes).map(|x| show::head(&x)),
        "Member" => Member::decode(bytes).map(|x| show::member(&x)),
        "MemberChain" => MemberChain::decode(bytes).map(|x| show::chain(&x)),
        "TokenGrant" => TokenGrant::decode(bytes).map(|x| show::grant(&x)),
        "Revocation" => Revocation::decode(bytes).map(|x| show::revocation(&x)),
        "Leave" => Leave::decode(bytes).map(|x| show::leave(&x)),
        "AdminStatement" => AdminStatement::decode(bytes).map(|x| show::admin(&x)),
        "Command" => Command::decode(bytes).map(|x| show::command(&x)),
        "WatchEvent" => through(bytes, WatchEvent::decode).map(|x| show::event(&x)),
        "ProposeReply" => through(bytes, ProposeReply::decode).map(|x| show::propose(&x)),
        "ReadReply" => through(bytes, ReadReply::decode).map(|x| show::read(&x)),
        "CheckReply" => through(bytes, CheckReply::decode).map(|x| show::check(&x)),
        "RedeemRequest" => through(bytes, RedeemRequest::decode).map(|x| show::redeem(&x)),
        "RedeemEvent" => through(bytes, RedeemEvent::decode).map(|x| show::redeem_event(&x)),
        other => panic!("{other:?} is no message of the store"),
    }
    .map_err(text)
}

fn through<P: Message + Default, T>(
    bytes: &[u8],
    decode: impl FnOnce(P) -> Result<T, WireError>,
) -> Result<T, WireError> {
    decode(P::decode(bytes).expect("these vectors are protobuf"))
}

/// A newer node's code is no reason to drop its words.
#[test]
fn a_refusal_with_a_code_from_the_future_keeps_its_text() {
    let refused = proto::Refusal { code: 6999, text: "not on a Sunday".into() };
    let outcome = Some(proto::propose_reply::Outcome::Refused(refused));
    let reply = ProposeReply::decode(proto::ProposeReply { outcome }).unwrap();
    assert_eq!(show::propose(&reply), ["refused, unknown code: not on a Sunday"]);
    assert_eq!(Code::parse("6999"), None);
    let event = join_proto::redeem_event::Event::Progress(join_proto::Progress {
        stage: 99,
        text: "asking the moon".into(),
    });
    let event = RedeemEvent::decode(join_proto::RedeemEvent { event: Some(event) }).unwrap();
    assert_eq!(show::redeem_event(&event), ["a newer stage: asking the moon"]);
}
