//! `fedgate.dev/v1alpha1 ClusterPeer`: another cluster, where its gateways are and whom they trust.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::{ClusterName, Hostname, PeerAddress, Resource, Transport, TrustBundle, TrustDomain};
use schemars::JsonSchema;
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

/// Where the other cluster's gateways are, and whom they may speak for. `fedctl peer` on the other
/// cluster prints it. Members of a federation know each other without it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    /// Where the peer's gateways can be reached; tried in order. Empty where the peer can only be
    /// reached once it has dialled this cluster.
    #[schemars(
        length(max = limits::PEER_ADDRESSES_MAX),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    #[serde(default)]
    pub(crate) addresses: Vec<Address>,
    /// The trust domains that the peer owns, each once.
    #[schemars(length(min = 1, max = limits::TRUST_DOMAINS_MAX), extend(
        "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]
    ))]
    pub(crate) trust_domains: Vec<Domain>,
}

/// One address of the peer's gateways.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Address {
    /// What is spoken there: "quic".
    #[schemars(extend("enum" = ["quic"]))]
    pub(crate) transport: String,
    /// An IP address or a DNS name, without brackets and port, such as "gw.west.example" or
    /// "2001:db8::7". A name is resolved again at each attempt.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [{
        "rule": "isIP(self) || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "message": "write an IP address or a DNS name in lower case, without brackets and port"
    }]))]
    pub(crate) host: String,
    /// The UDP port of the peer's gateways.
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) port: i64,
}

/// A trust domain and the keys that speak for it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Domain {
    /// The trust domain, such as "west.example". It has one owner: if two ClusterPeers name it, neither
    /// has it.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9._-]+$"))]
    pub(crate) name: String,
    /// Its SPIFFE bundle document (a JWKS), as text. A bundle without keys trusts nobody.
    #[schemars(length(min = 1, max = wire::bundle::BUNDLE_BYTES_MAX))]
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
    Some(Resource::ClusterPeer(model::ClusterPeer {
        name: name?,
        addresses,
        trust_bundles,
        cordoned: false,
        revoked_svids: Vec::new(),
    }))
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
