//! Random bytes never panic a decoder, and what was read is written as it was.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use wire::store::{
    AdminStatement, Command, Head, JoinToken, Leave, Member, MemberChain, Record, Revocation,
    Signed, StoreKey, TOKEN_PREFIX, TokenGrant, TokenTextError, WatchEvent, proto,
};

use super::samples;
use super::{built, spoilt};

/// Every decoder reads the bytes or refuses them; what it read reads back the same.
fn read_all(bytes: &[u8]) {
    macro_rules! check {
        ($($kind:ident)*) => {$(
            if let Ok(value) = $kind::decode(bytes) {
                assert_eq!($kind::decode(&value.encode()).as_ref(), Ok(&value));
            }
        )*};
    }
    check!(Signed Head Member MemberChain TokenGrant Revocation Leave AdminStatement Command);
    if let Ok(key) = StoreKey::decode(bytes) {
        assert_eq!(key.encode(), bytes);
    }
    let _ = Record::decode(&samples::records()[1].0, bytes);
    if let Ok(event) = proto::WatchEvent::decode(bytes)
        && let Ok(event) = WatchEvent::decode(event)
    {
        assert_eq!(WatchEvent::decode(event.encode()), Ok(event));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    #[test]
    fn spoilt_messages_are_read_or_refused(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let all = built::messages();
        let mut bytes = all.values().nth(which.index(all.len())).unwrap().clone();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        read_all(&bytes);
    }

    #[test]
    fn any_text_is_a_token_or_not(text in "(fedgate1\\.)?[A-Za-z0-9_-]{0,60}|\\PC{0,20}") {
        prop_assert!(JoinToken::parse(&text).is_err());
    }
}

/// Each single wrong character is noticed, and so is each cut and each doubled character.
#[test]
fn no_slip_of_the_hand_goes_unnoticed() {
    let good = samples::token().to_text().unwrap();
    assert_eq!(JoinToken::parse(&good).unwrap(), samples::token());
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for at in TOKEN_PREFIX.len()..good.len() {
        for c in alphabet.chars().filter(|c| !good[at..].starts_with(*c)) {
            let wrong = format!("{}{c}{}", &good[..at], &good[at + 1..]);
            let error = JoinToken::parse(&wrong).unwrap_err();
            assert!(!matches!(error, TokenTextError::Content(_)), "{at} {c}: {error}");
        }
        let cut = JoinToken::parse(&good[..at]).unwrap_err();
        let missing = good.len() - at;
        // Of less than two bytes not even the length is known.
        let known = at >= TOKEN_PREFIX.len() + 3;
        let expected = TokenTextError::Truncated { missing: known.then_some(missing) };
        assert_eq!(cut, expected, "cut at {at}");
        let doubled = format!("{}{}", &good[..=at], &good[at..]);
        assert!(JoinToken::parse(&doubled).is_err(), "doubled at {at}");
    }
}

#[test]
fn no_error_of_a_token_shows_its_secret() {
    let good = samples::token().to_text().unwrap();
    let secret = &good[good.len() / 2..good.len() / 2 + 8];
    for bytes in spoilt::tokens().values() {
        let error = JoinToken::parse(std::str::from_utf8(bytes).unwrap()).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(secret) && !shown.contains("DDDD"), "{shown}");
    }
    assert!(!format!("{:?}", samples::token()).contains("68, 68"), "0x44 is 68");
}

/// Records are bytes: what a newer owner put into one is still there when it is handed on.
#[test]
fn a_record_of_the_future_is_kept_and_not_served() {
    let (key, record) = samples::records().swap_remove(1);
    assert_eq!(
        Record::decode(&key, &record).unwrap().resource.unwrap().key(),
        key.resource_key().unwrap()
    );
    let mut newer = proto::StoreRecord::decode(&record[..]).unwrap();
    newer.resource.as_mut().unwrap().schema = 2;
    let bytes = newer.encode_to_vec();
    assert_eq!(Record::decode(&key, &bytes).unwrap().resource, None);
    let mut newer = proto::StoreRecord::decode(&record[..]).unwrap();
    newer.resource.as_mut().unwrap().key.as_mut().unwrap().kind = 4711;
    let key = StoreKey { kind: 4711, ..key };
    assert_eq!(Record::decode(&key, &newer.encode_to_vec()).unwrap().resource, None);
}

#[test]
fn refused_records_name_field_value_and_rule() {
    let (key, record) = samples::records().swap_remove(1);
    let spoil = |change: fn(&mut proto::StoreRecord)| {
        let mut message = proto::StoreRecord::decode(&record[..]).unwrap();
        change(&mut message);
        Record::decode(&key, &message.encode_to_vec()).unwrap_err().to_string()
    };
    for (found, wanted) in [
        (spoil(|x| x.salt.clear()), "StoreRecord.salt = 0 bytes: send exactly 16 bytes"),
        (spoil(|x| x.resource = None), "StoreRecord.resource = (absent): a record holds an object"),
        (
            spoil(|x| x.resource.as_mut().unwrap().key.as_mut().unwrap().name = "db".into()),
            "StoreRecord.resource.key = ServiceExport/shop/db: the record's key is /v1/",
        ),
        (
            spoil(|x| x.resource.as_mut().unwrap().schema = 0),
            "StoreRecord.resource.schema = 0: schema versions begin with 1",
        ),
        (
            spoil(|x| x.salt = vec![0; 65536].into()),
            "StoreRecord = 65585 bytes: at most 65536 bytes are allowed",
        ),
    ] {
        assert!(found.starts_with(wanted), "{found}\n  is not {wanted}");
    }
}
