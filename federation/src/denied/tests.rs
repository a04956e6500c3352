//! What may be denied, by whom it is told, and until when.

use super::*;

const ID: &str = "spiffe://east.fed/fedgate/gateway/gw-0";

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn open(folder: &Path) -> Denials {
    Denials::open(folder, TrustDomain::parse("east.fed").unwrap()).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

#[test]
fn denials_outlast_the_process_and_end_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let denials = open(folder.path());
    let denied = denials.deny(id(ID), "stolen\nlaptop", at(0)).unwrap();
    // What is issued in this second begins 60 s earlier, and so is denied; the next one is not.
    assert_eq!(denied.not_before_unix_s, 1_800_000_000 - 60 + 1);
    let again = open(folder.path());
    assert_eq!(again.current(), denials.current());
    assert_eq!(again.current()[&id(ID)].reason, "stolen laptop");
    assert_eq!(again.in_force(at(24 * 3600)), [denied]);
    assert_eq!(again.in_force(at(24 * 3600 + 62)), []);
    let other = "spiffe://east.fed/fedgate/federation/n0";
    let later = at(2 * 24 * 3600);
    again.deny(id(other), "", later).unwrap();
    assert_eq!(again.current().keys().cloned().collect::<Vec<_>>(), [id(other)], "nobody asked");
    assert_eq!(again.deny(id(other), "", later + Duration::from_secs(5)).unwrap().id, id(other));
    assert_eq!(again.in_force(later)[0].not_before_unix_s, 1_800_000_000 + 2 * 24 * 3600 - 54);
}

#[test]
fn what_was_published_is_not_taken_back_by_a_lost_folder() {
    let folder = tempfile::tempdir().unwrap();
    let denials = open(folder.path());
    let told = |not_before_unix_s| RevokedSvid { id: id(ID), not_before_unix_s };
    denials.adopt(&[told(1_800_000_000)], at(60)).unwrap();
    assert_eq!(denials.in_force(at(60)), [told(1_800_000_000)]);
    let mut watch = denials.watch();
    watch.mark_unchanged();
    denials.adopt(&[told(1_800_000_000), told(1_799_999_000)], at(61)).unwrap();
    assert!(!watch.has_changed().unwrap(), "nothing new");
    let old = open(tempfile::tempdir().unwrap().path());
    old.adopt(&[told(1_700_000_000)], at(0)).unwrap();
    assert_eq!(old.in_force(at(0)), [], "nothing that it denies lives");
}

#[test]
fn what_is_not_this_clusters_to_deny_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let denials = open(folder.path());
    let long = format!("spiffe://east.fed/{}", "x".repeat(600));
    let reason = "x".repeat(DENIAL_REASON_CHARS_MAX + 1);
    for (name, reason, wanted) in [
        ("spiffe://west.fed/fedgate/gateway/gw-0", "", "is of another trust domain than this"),
        ("spiffe://east.fed", "", "names the trust domain, not an SVID"),
        (&long, "", "spiffe_id: 618 bytes are more than 537"),
        (ID, &reason, "reason: 257 characters are more than 256"),
    ] {
        let error = denials.deny(id(name), reason, at(0)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    assert!(denials.current().is_empty());
    for number in 0..REVOKED_SVIDS_MAX {
        let name = format!("spiffe://east.fed/fedgate/gateway/gw-{number}");
        denials.deny(id(&name), "", at(0)).unwrap();
    }
    let error = denials.deny(id("spiffe://east.fed/more"), "", at(0)).unwrap_err().to_string();
    assert!(error.starts_with("64 SVIDs are revoked, and no more can be"), "{error}");
    denials.deny(id(ID), "", at(1)).unwrap();
    denials.deny(id("spiffe://east.fed/more"), "", at(2 * 24 * 3600)).unwrap();
}

#[test]
fn a_damaged_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (text, wanted) in [
        ("", "line 1 of"),
        ("fedgate-revoked-svids/2\n", "line 1 of"),
        ("fedgate-revoked-svids/1\n5 spiffe://a.b/c why\nx\n", "line 3 of"),
        ("fedgate-revoked-svids/1\n0 spiffe://a.b/c\n", "it begins with no time"),
        ("fedgate-revoked-svids/1\n5 gw-0\n", "there is no SPIFFE ID"),
    ] {
        fs::write(folder.path().join(FILE), text).unwrap();
        let own = TrustDomain::parse("east.fed").unwrap();
        let error = Denials::open(folder.path(), own).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
}
