//! What leaves a report: secrets always, names and addresses on request. A name is replaced by the same
//! word in every file, so that the files still fit together.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

/// Fields whose values are names, and what stands for these.
const FIELDS: &[(&str, &str)] = &[
    ("cluster", "cluster"),
    ("clusters", "cluster"),
    ("destinationCluster", "cluster"),
    ("trustDomain", "domain"),
    ("trustDomains", "domain"),
    ("gateway", "gateway"),
    ("gateways", "gateway"),
    ("namespace", "namespace"),
    ("namespaces", "namespace"),
    ("name", "name"),
    ("object", "name"),
    ("user", "name"),
    ("spiffeId", "name"),
    ("holder", "name"),
    ("host", "host"),
    ("hostname", "host"),
    ("hostnames", "host"),
    ("address", "host"),
    ("addresses", "host"),
    ("tunnelAddress", "host"),
];
/// Words that are no names of anybody's, so that what is replaced can still be read.
const WORDS: &[&str] = &[
    "svc",
    "local",
    "clusterset",
    "cluster",
    "quic",
    "tcp",
    "http",
    "https",
    "h2c",
    "spiffe",
    "ns",
    "sa",
    "fedgate",
    "gateway",
    "gateways",
    "federation",
    "default",
    "example",
    "internal",
    "invalid",
    "test",
    "com",
    "net",
    "org",
    "io",
    "dev",
    "kube-system",
    "fedgate-system",
    "name",
    "names",
    "namespace",
    "kind",
    "spec",
    "metadata",
    "status",
    "port",
    "ports",
    "node",
    "item",
    "items",
    "Service",
    "ServiceExport",
    "ServiceImport",
    "EndpointSlice",
    "Gateway",
    "HTTPRoute",
    "TCPRoute",
    "ClusterPeer",
    "AccessPolicy",
    "NamespaceGrant",
    "ReferenceGrant",
    "GatewayClass",
];
const SECRET: &str = "[a secret was removed here]";

/// Names and addresses, and what stands for each.
#[derive(Debug, Clone, Default)]
pub struct Names {
    words: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
    addresses: BTreeMap<IpAddr, String>,
}

impl Names {
    /// Finds the names in an answer of a node's.
    pub fn learn(&mut self, answer: &Value) {
        match answer {
            Value::Array(items) => items.iter().for_each(|item| self.learn(item)),
            Value::Object(fields) => {
                for (field, value) in fields {
                    if let Some((_, class)) = FIELDS.iter().find(|(name, _)| name == field) {
                        self.learn_words(class, value);
                    }
                    self.learn(value);
                }
            }
            _ => {}
        }
    }

    fn learn_words(&mut self, class: &'static str, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.learn_words(class, item)),
            Value::String(text) => self.learn_name(class, text),
            _ => {}
        }
    }

    /// Each label of a name is a name: `api.shop.svc`, `ServiceExport/shop/api`.
    pub fn learn_name(&mut self, class: &'static str, text: &str) {
        for label in text.split(|c: char| !is_label(c)) {
            let telling = label.len() > 1 && label.chars().any(|c| c.is_ascii_alphabetic());
            if !telling || WORDS.contains(&label) || self.words.contains_key(label) {
                continue;
            }
            let count = self.counts.entry(class).or_default();
            *count += 1;
            self.words.insert(label.to_owned(), format!("{class}-{count}"));
        }
    }

    /// The text without names and addresses.
    pub fn redact(&mut self, text: &str) -> String {
        let text = self.redact_addresses(text);
        let mut redacted = String::with_capacity(text.len());
        for piece in runs(&text, is_label) {
            match piece.chars().next().is_some_and(is_label) {
                true => self.redact_label(piece, &mut redacted),
                false => redacted.push_str(piece),
            }
        }
        redacted
    }

    /// Names stand in longer words too: `gw-east`, `peer-east.yaml`. The longest that is known counts.
    fn redact_label(&self, label: &str, redacted: &mut String) {
        if let Some(word) = self.words.get(label) {
            redacted.push_str(word);
            return;
        }
        let parts: Vec<&str> = label.split('-').collect();
        let mut at = 0;
        while at < parts.len() {
            let known = (at + 1..=parts.len()).rev().find_map(|end| {
                self.words.get(&parts[at..end].join("-")).map(|word| (word.as_str(), end))
            });
            let (word, end) = known.unwrap_or((parts[at], at + 1));
            if at > 0 {
                redacted.push('-');
            }
            redacted.push_str(word);
            at = end;
        }
    }

    fn redact_addresses(&mut self, text: &str) -> String {
        let in_address = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
        let mut redacted = String::with_capacity(text.len());
        let mut before = None;
        for piece in runs(text, in_address) {
            let inside_word = before.is_some_and(|c: char| c.is_alphanumeric() || c == '_');
            before = piece.chars().next_back();
            let found = piece.chars().next().is_some_and(in_address) && !inside_word;
            match found.then(|| address_in(piece)).flatten() {
                Some((address, rest)) => {
                    redacted.push_str(&self.stand_in(address));
                    redacted.push_str(rest);
                }
                None => redacted.push_str(piece),
            }
        }
        redacted
    }

    fn stand_in(&mut self, address: IpAddr) -> String {
        let next = self.addresses.len() + 1;
        self.addresses.entry(address).or_insert_with(|| format!("ip-{next}")).clone()
    }
}

/// The address that a text begins with, and what is behind it. One that says nothing is none.
fn address_in(text: &str) -> Option<(IpAddr, &str)> {
    let whole = text.trim_end_matches(['.', ':']);
    let parse = |text: &str| text.parse::<IpAddr>().ok();
    let found = parse(whole).map(|address| (address, whole.len()));
    let with_port = || {
        let (host, _) = whole.rsplit_once(':')?;
        host.parse::<Ipv4Addr>().ok().map(|address| (IpAddr::V4(address), host.len()))
    };
    let (address, end) = found.or_else(with_port)?;
    let telling = !address.is_loopback() && !address.is_unspecified();
    telling.then(|| (address, &text[end..]))
}

fn is_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// The text cut where `within` changes.
fn runs(text: &str, within: impl Fn(char) -> bool) -> Vec<&str> {
    let mut runs = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let inside = within(first);
        let end = rest.find(|c: char| within(c) != inside).unwrap_or(rest.len());
        let (run, behind) = rest.split_at(end);
        runs.push(run);
        rest = behind;
    }
    runs
}

/// The text without private keys and tokens, whoever wrote them there.
pub fn scrub(text: &str) -> String {
    without_tokens(&without_keys(text))
}

fn without_keys(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        let (before, block) = rest.split_at(begin);
        kept.push_str(before);
        let title = block.lines().next().unwrap_or_default();
        // A block that was cut off is one all the same.
        let end = block.find("-----END ").map_or(block.len(), |end| {
            let behind = block[end..].find('\n').unwrap_or(block.len() - end);
            end + behind
        });
        kept.push_str(if title.contains("PRIVATE KEY") { SECRET } else { &block[..end] });
        rest = &block[end..];
    }
    kept + rest
}

fn without_tokens(text: &str) -> String {
    let in_token = |c: char| is_label(c) || matches!(c, '.' | '=' | '+' | '/' | '~');
    let mut kept = String::with_capacity(text.len());
    let mut after_bearer = false;
    for run in runs(text, in_token) {
        if !run.chars().next().is_some_and(in_token) {
            after_bearer &= run.trim().is_empty();
            kept.push_str(run);
            continue;
        }
        let is_jwt = run.contains("eyJ") && run.matches('.').count() >= 2;
        let is_ours = run.contains("fedgate1.");
        kept.push_str(if is_jwt || is_ours || after_bearer { SECRET } else { run });
        after_bearer = run.eq_ignore_ascii_case("bearer");
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        names.learn(&json!({
            "cluster": "east",
            "trustDomain": "east.corp.example",
            "gateways": [{"name": "gw-east-0", "tunnelAddress": "10.1.2.3:8443"}],
            "items": [{"namespace": "shop", "name": "api", "addresses": ["quic gw.east.corp.example:8443"]}],
        }));
        names
    }

    #[test]
    fn names_are_replaced_by_the_same_word_everywhere() {
        let mut names = names();
        let text = names.redact(
            "spiffe://east.corp.example/ns/shop/sa/api called api.shop.svc.clusterset.local \
             from peer-east.yaml by gw-east-0",
        );
        for hidden in ["east", "corp", "shop", "api"] {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }
        assert!(text.contains(".svc.clusterset.local"), "{text}");
        assert!(text.contains("peer-cluster-1.yaml"), "{text}");
        assert_eq!(names.redact("east"), "cluster-1");
        assert_eq!(names.redact("eastern feast"), "eastern feast", "only whole words");
    }

    #[test]
    fn addresses_are_replaced_and_what_looks_like_one_stays() {
        let mut names = Names::default();
        let text =
            "from 10.1.2.3:8443 and 10.1.2.3. to [fd00::7]:443, not 127.0.0.1:9901 or [::1]:1";
        let want = "from ip-1:8443 and ip-1. to [ip-2]:443, not 127.0.0.1:9901 or [::1]:1";
        assert_eq!(names.redact(text), want);
        for same in
            ["at 12:00:07.123", "version 0.1.0", "a1.2.3.4b", "face:b00c", "2026-11-21T23:59:59Z"]
        {
            assert_eq!(names.redact(same), same);
        }
        assert_eq!(names.redact("10.1.2.3"), "ip-1", "also in the next file");
    }

    #[test]
    fn secrets_leave_whatever_they_stand_in() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----";
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
        let text = format!(
            "a {key}\n{certificate}\nauthorization: Bearer abc/def+1=\ntoken fedgate1.QUJD-_x, \
             eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln and so on\n-----BEGIN EC PRIVATE KEY-----\nMII"
        );
        let scrubbed = scrub(&text);
        for hidden in ["MIGHAgE", "abc/def", "QUJD", "eyJ", "-----\nMII\n", "EC PRIVATE"] {
            assert!(!scrubbed.contains(hidden), "{hidden}: {scrubbed}");
        }
        assert!(scrubbed.contains(certificate) && scrubbed.contains("and so on"), "{scrubbed}");
        assert_eq!(scrub("nothing here"), "nothing here");
    }
}
