//! The CA on disk: the same after a restart, completed after a crash, strict about what it finds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use identity::{Ca, CaError};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::toy::*;

fn open(folder: &Path) -> Result<Ca, CaError> {
    Ca::load_or_create(folder, &domain("east.fed"), now())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_ca_is_made_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("data/ca");
    let ca = open(&folder).unwrap();
    let bundle = ca.bundle();
    assert_eq!(bundle.trust_domain, domain("east.fed"));
    assert_eq!(bundle.sequence, 1_795_262_400, "seconds, so that a new CA outranks a lost one");
    assert_eq!(bundle.x509_authorities.len(), 1);
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("ca.key")), 0o600);
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["ca.key", "ca.pem", "sequence"]);

    let again = Ca::load_or_create(&folder, &domain("east.fed"), now() + HOUR).unwrap();
    assert_eq!(again.bundle(), bundle);
    assert_eq!(root_key(&again), root_key(&ca));
    assert_eq!(again.trust_domain(), ca.trust_domain());
    assert_eq!(again.not_after(), now() + identity::limits::CA_LIFETIME);

    let other = Ca::load_or_create(&folder.join("x"), &domain("east.fed"), now()).unwrap();
    assert_ne!(root_key(&other), root_key(&ca), "the name is not the key");
}

#[test]
fn the_root_has_the_profile_of_a_signing_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let long = domain(&format!("{}.fed", "x".repeat(200)));
    for name in [domain("east.fed"), long] {
        let ca = Ca::load_or_create(&folder.path().join(name.as_str()), &name, now()).unwrap();
        let der = ca.bundle().x509_authorities.remove(0);
        let (_, root) = x509_parser::parse_x509_certificate(&der).unwrap();
        let basic = root.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca);
        assert_eq!(basic.value.path_len_constraint, Some(0));
        let usage = root.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature(), "it must not authenticate");
        let names = &root.subject_alternative_name().unwrap().unwrap().value.general_names;
        let id = format!("spiffe://{name}");
        assert_eq!(*names, [x509_parser::extensions::GeneralName::URI(&id)]);
        root.verify_signature(None).unwrap();
    }
}

#[test]
fn a_crash_during_the_first_start_is_completed_by_the_second() {
    let whole = tempfile::tempdir().unwrap();
    let ca = open(whole.path()).unwrap();
    // The files in the order in which they are written; a crash leaves any beginning of it, and
    // perhaps an unfinished temporary file.
    let order = ["ca.key", "sequence", "ca.pem"];
    for written in 1..=order.len() {
        let folder = tempfile::tempdir().unwrap();
        for name in &order[..written] {
            fs::copy(whole.path().join(name), folder.path().join(name)).unwrap();
        }
        if let Some(next) = order.get(written) {
            fs::write(folder.path().join(format!(".{next}.new")), b"unfini").unwrap();
        }
        let completed = open(folder.path()).unwrap();
        assert_eq!(root_key(&completed), root_key(&ca), "{written} files");
        let again = open(folder.path()).unwrap();
        assert_eq!(again.bundle(), completed.bundle());
        let grown = completed.bundle().sequence - ca.bundle().sequence;
        assert_eq!(grown, u64::from(written == 2), "another root needs a higher sequence");
    }
}

#[test]
fn a_key_that_others_can_read_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).unwrap();
    let key = folder.path().join("ca.key");
    for wrong in [0o644, 0o660, 0o604] {
        fs::set_permissions(&key, fs::Permissions::from_mode(wrong)).unwrap();
        let error = open(folder.path()).unwrap_err();
        let path = key.display();
        assert_eq!(
            error.to_string(),
            format!(
                "{path} has mode {wrong:04o}, so others than its owner can reach a private key: \
                 run `chmod 600 {path}`"
            )
        );
        assert_eq!(error.code().to_string(), "FED3004");
    }
}

#[test]
fn what_does_not_fit_together_stops_the_start() {
    type Damage = fn(&Path);
    let write = |path: &Path, name: &str, text: &str| fs::write(path.join(name), text).unwrap();
    let rows: [(&str, Damage, &str, &str); 8] = [
        (
            "no key",
            |f| fs::remove_file(f.join("ca.key")).unwrap(),
            "ca.pem",
            "the key beside it, ca.key, is missing: put the key back, or move the folder away to \
             begin a new CA (every other cluster then needs its bundle)",
        ),
        (
            "another's key",
            |f| {
                let other = tempfile::tempdir().unwrap();
                open(other.path()).unwrap();
                fs::copy(other.path().join("ca.key"), f.join("ca.key")).unwrap();
            },
            "ca.pem",
            "its key is not the one in ca.key: put the CA's root certificate back",
        ),
        (
            "two certificates",
            |f| {
                let text = fs::read_to_string(f.join("ca.pem")).unwrap();
                fs::write(f.join("ca.pem"), text.repeat(2)).unwrap();
            },
            "ca.pem",
            "it does not have exactly one certificate: put the CA's root certificate back",
        ),
        (
            "empty certificate",
            |f| fs::write(f.join("ca.pem"), "").unwrap(),
            "ca.pem",
            "it does not have exactly one certificate: put the CA's root certificate back",
        ),
        (
            "no sequence",
            |f| fs::remove_file(f.join("sequence")).unwrap(),
            "sequence",
            "it is missing: write a number there that is higher than the last published \
             `spiffe_sequence`",
        ),
        (
            "bad sequence",
            |f| fs::write(f.join("sequence"), "-1\n").unwrap(),
            "sequence",
            "\"-1\\n\" is not a number: write a number there that is higher than the last published \
             `spiffe_sequence`",
        ),
        (
            "a leaf as root",
            |f| {
                use base64::Engine;
                let leaf = ToyCa::root("east.fed").leaf(GATEWAY, |_| {});
                let body = base64::engine::general_purpose::STANDARD.encode(&leaf.chain[0]);
                let text =
                    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
                fs::write(f.join("ca.pem"), text).unwrap();
            },
            "ca.pem",
            "certificate \"spiffe://east.fed/fedgate/gateway/gw-0\" may not sign: its basic \
             constraints do not say cA=true: only a signing certificate may sign, or be in a \
             bundle: put the CA's root certificate back",
        ),
        (
            "junk for a key",
            |f| fs::write(f.join("ca.key"), "junk").unwrap(),
            "ca.key",
            "it has no readable PRIVATE KEY section (PKCS#8): ",
        ),
    ];
    for (name, damage, file, text) in rows {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap();
        damage(folder.path());
        let error = open(folder.path()).unwrap_err().to_string();
        let begin = format!("{}: {text}", folder.path().join(file).display());
        assert!(error.starts_with(&begin), "{name}: {error}");
        assert!(name == "junk for a key" || error == begin, "{name}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "ca.key", "");
    fs::set_permissions(folder.path().join("ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(open(folder.path()).is_err(), "an empty key is not taken for a missing one");
}

#[test]
fn another_trust_domain_or_another_time_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).unwrap();
    let path = folder.path().join("ca.pem");
    let error = Ca::load_or_create(folder.path(), &domain("west.fed"), now()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: it is the root of \"spiffe://east.fed\", not of trust domain \"west.fed\": set the \
             trust domain back, or give the new one a data folder of its own",
            path.display()
        )
    );
    let early = now() - HOUR;
    let error = Ca::load_or_create(folder.path(), &domain("east.fed"), early).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: it is valid from 2026-11-21T11:59:00Z to 2036-11-18T12:00:00Z, and now it is \
             2026-11-21T11:00:00Z: set the clock",
            path.display()
        )
    );
}

#[test]
fn a_ca_shows_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let shown = format!("{:?}", open(folder.path()).unwrap());
    assert_eq!(
        shown,
        "Ca { trust_domain: \"east.fed\", sequence: 1795262400, not_after: \
         \"2036-11-18T12:00:00Z\", .. }"
    );
}

/// The public key of a CA's root, which outlives the certificate over it.
fn root_key(ca: &Ca) -> Vec<u8> {
    let bundle = ca.bundle();
    let (_, root) = X509Certificate::from_der(&bundle.x509_authorities[0]).unwrap();
    root.public_key().raw.to_vec()
}
