//! `fedgate.dev/v1alpha1 ClusterPeer`: another cluster, where its gateways are and whom they trust.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::{ClusterName, Hostname, PeerAddress, Resource, Transport, TrustBundle, TrustDomain};
use serde::{Deserialize, Serialize};

use super::{Kind, OWN_VERSIONS, Reading};
use crate::limits;
use crate::metadata::Identity;
use crate::report::Treatment::Refuse;
use crate::report::{FieldRules, Report, quoted};

pub(crate) const KIND: Kind = Kind {
    kind: "ClusterPeer",
    api_versions: OWN_VERSIONS,
    namespaced: false,
    parts: &["spec.addresses[]"],
    rules: RULES,
    read,
};

const RULES: FieldRules = &[("*", Refuse("remove it, or mend its spelling"))];

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    /// Empty where the peer can only be reached by its own dialling.
    #[serde(default)]
    pub(crate) addresses: Vec<Address>,
    pub(crate) trust_domains: Vec<Domain>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) transport: String,
    pub(crate) host: String,
    pub(crate) port: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Domain {
    pub(crate) name: String,
    /// A SPIFFE bundle document (JWKS), as text.
    pub(crate) bundle: String,
}

fn read(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Reading {
    Reading::of(translate(kind, identity, report))
}

fn translate(kind: &Kind, identity: &Identity, report: &mut Report<'_>) -> Option<Resource> {
    let Document { spec } = report.read(kind.rules)?;
    let fix = "name it as the cluster calls itself, such as \"west\"";
    let name = identity.name.as_str();
    let name = report.parse("metadata.name", name, ClusterName::parse, fix);
    let addresses = addresses(report, &spec.addresses);
    let trust_bundles = trust_bundles(report, &spec.trust_domains);
    Some(Resource::ClusterPeer(model::ClusterPeer { name: name?, addresses, trust_bundles }))
}

fn addresses(report: &mut Report<'_>, listed: &[Address]) -> Vec<PeerAddress> {
    let field = "spec.addresses";
    if !report.bounded(field, listed.len(), limits::PEER_ADDRESSES_MAX) {
        return Vec::new();
    }
    let mut addresses = Vec::new();
    for (index, address) in listed.iter().enumerate() {
        let at = format!("{field}[{index}]");
        let transport = transport(report, &at, &address.transport);
        let host = host(report, &at, &address.host);
        let port = report.port(&format!("{at}.port"), address.port);
        if let (Some(transport), Some(host), Some(port)) = (transport, host, port)
            && !report.is_left_out(&at)
        {
            addresses.push(PeerAddress { transport, host, port });
        }
    }
    addresses
}

fn transport(report: &mut Report<'_>, at: &str, transport: &str) -> Option<Transport> {
    let field = format!("{at}.transport");
    match transport {
        "quic" => Some(Transport::Quic),
        other => {
            let message = format!("transport {} is not served", quoted(other));
            report.refuse(&field, message, "use quic");
            None
        }
    }
}

fn host(report: &mut Report<'_>, at: &str, host: &str) -> Option<String> {
    let is_name = || matches!(Hostname::parse(host), Ok(Hostname::Exact(_)));
    if host.parse::<IpAddr>().is_err() && !is_name() {
        let message = format!("{} is neither an IP address nor a DNS name", quoted(host));
        let fix = "write a host such as \"gw.west.example\", \"192.0.2.7\" or \"2001:db8::7\", \
                   without brackets and port";
        report.invalid(&format!("{at}.host"), message, fix);
        return None;
    }
    Some(host.to_string())
}

fn trust_bundles(report: &mut Report<'_>, listed: &[Domain]) -> Vec<TrustBundle> {
    let field = "spec.trustDomains";
    if !report.bounded(field, listed.len(), limits::TRUST_DOMAINS_MAX) {
        return Vec::new();
    }
    if listed.is_empty() {
        let fix =
            "add the trust domain, with its bundle; `fedctl peer` on the other cluster prints it";
        report.invalid(field, "the list is empty", fix);
    }
    let (mut bundles, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, entry) in listed.iter().enumerate() {
        let at = format!("{field}[{index}]");
        let fix = "write a trust domain such as \"west.example\"";
        let field = format!("{at}.name");
        let Some(domain) = report.parse(&field, &entry.name, TrustDomain::parse, fix) else {
            continue;
        };
        if !seen.insert(domain.clone()) {
            let message = format!("trust domain {:?} is listed twice", domain.as_str());
            report.invalid(&field, message, "remove one of the two");
        }
        let fix = "copy the bundle as `fedctl peer` on the other cluster prints it";
        let parse = |text: &str| wire::bundle::parse_bundle(text, &domain);
        bundles.extend(report.parse(&format!("{at}.bundle"), &entry.bundle, parse, fix));
    }
    bundles
}
