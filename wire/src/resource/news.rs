//! What federation nodes tell each other through their gateways: Heads and revocations.

use std::collections::BTreeSet;

use bytes::Bytes;
use model::{ClusterId, ClusterName, GatewayId, RevokedSvid, TrustDomain};

use super::convert::{cluster_id, list, parse};
use super::object::revoked_svids;
use super::object_encode::revoked_svid;
use super::{limits, proto};
use crate::error::{At, WireError};
use crate::tunnel::limits::{SIGNED_HEAD_BYTES_MAX, SIGNED_REVOCATION_BYTES_MAX};

/// What the node wants its gateways to know and to pass on, whole each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreNews {
    /// The cluster's own.
    pub cluster_id: ClusterId,
    /// In their signed envelopes, the cluster's own first.
    pub heads: Vec<Bytes>,
    /// In their signed envelopes.
    pub revocations: Vec<Bytes>,
    /// Whose connections are neither taken nor kept.
    pub revoked_domains: BTreeSet<TrustDomain>,
    /// The cluster's own.
    pub revoked_svids: Vec<RevokedSvid>,
}

impl StoreNews {
    pub fn decode(message: proto::StoreNews) -> Result<Self, WireError> {
        let at = At::message("StoreNews");
        let (name, max) = ("revoked_trust_domains", limits::REVOKED_TRUST_DOMAINS_MAX);
        let domain = |at: At<'_>, domain: String| parse(at, &domain, TrustDomain::parse);
        let domains = list(&at, name, message.revoked_trust_domains, max, domain)?;
        Ok(Self {
            cluster_id: cluster_id(at.field("cluster_id"), &message.cluster_id)?,
            heads: heads(&at, message.heads)?,
            revocations: revocations(&at, message.revocations)?,
            revoked_domains: domains.into_iter().collect(),
            revoked_svids: revoked_svids(&at, message.revoked_svids)?,
        })
    }

    pub fn encode(&self) -> proto::StoreNews {
        let domains = self.revoked_domains.iter().take(limits::REVOKED_TRUST_DOMAINS_MAX);
        proto::StoreNews {
            cluster_id: self.cluster_id.as_bytes().to_vec(),
            heads: to_vecs(&self.heads, limits::HEADS_MAX),
            revocations: to_vecs(&self.revocations, limits::REVOCATIONS_MAX),
            revoked_trust_domains: domains.map(ToString::to_string).collect(),
            serving_gateways: Vec::new(),
            renew_svids_before_unix_s: 0,
            revoked_svids: self.revoked_svids.iter().map(revoked_svid).collect(),
        }
    }
}

/// Which gateways of the cluster serve now, for peers to know; it rides in StoreNews.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServingGateways(pub BTreeSet<GatewayId>);

impl ServingGateways {
    pub fn decode(message: &proto::StoreNews) -> Result<Self, WireError> {
        let at = At::message("StoreNews");
        let (name, max) = ("serving_gateways", limits::SERVING_GATEWAYS_MAX);
        let id = |at: At<'_>, bytes: Vec<u8>| {
            let id = <[u8; 16]>::try_from(&bytes[..]);
            id.map(GatewayId::from_bytes).map_err(|_| at.refuse(&bytes, "a gateway id is 16 bytes"))
        };
        let ids = list(&at, name, message.serving_gateways.clone(), max, id)?;
        Ok(Self(ids.into_iter().collect()))
    }

    /// Adds them to a message.
    pub fn put(&self, message: &mut proto::StoreNews) {
        let ids = self.0.iter().take(limits::SERVING_GATEWAYS_MAX);
        message.serving_gateways = ids.map(|id| id.as_bytes().to_vec()).collect();
    }
}

/// SVIDs that were issued before this moment are to be renewed now; it rides in StoreNews.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RenewSvids {
    /// Seconds since the Unix epoch; 0: none are.
    pub before_unix_s: u64,
}

impl RenewSvids {
    pub fn decode(message: &proto::StoreNews) -> Self {
        Self { before_unix_s: message.renew_svids_before_unix_s }
    }

    /// Adds it to a message.
    pub fn put(self, message: &mut proto::StoreNews) {
        message.renew_svids_before_unix_s = self.before_unix_s;
    }
}

/// What gateways of another cluster said. Nobody has judged it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardFromPeer {
    /// Whose gateway said it; the Heads may be of other owners.
    pub cluster: ClusterName,
    pub heads: Vec<Bytes>,
    pub revocations: Vec<Bytes>,
}

impl HeardFromPeer {
    pub fn decode(message: proto::HeardFromPeer) -> Result<Self, WireError> {
        let at = At::message("HeardFromPeer");
        Ok(Self {
            cluster: parse(at.field("cluster"), &message.cluster, ClusterName::parse)?,
            heads: heads(&at, message.heads)?,
            revocations: revocations(&at, message.revocations)?,
        })
    }

    pub fn encode(&self) -> proto::HeardFromPeer {
        proto::HeardFromPeer {
            cluster: self.cluster.to_string(),
            heads: to_vecs(&self.heads, limits::HEADS_MAX),
            revocations: to_vecs(&self.revocations, limits::REVOCATIONS_MAX),
        }
    }
}

fn heads(at: &At<'_>, sent: Vec<Vec<u8>>) -> Result<Vec<Bytes>, WireError> {
    list(at, "heads", sent, limits::HEADS_MAX, |at: At<'_>, bytes: Vec<u8>| {
        at.check_bytes(bytes.len(), SIGNED_HEAD_BYTES_MAX)?;
        not_empty(at, bytes)
    })
}

fn revocations(at: &At<'_>, sent: Vec<Vec<u8>>) -> Result<Vec<Bytes>, WireError> {
    list(at, "revocations", sent, limits::REVOCATIONS_MAX, |at: At<'_>, bytes: Vec<u8>| {
        at.check_bytes(bytes.len(), SIGNED_REVOCATION_BYTES_MAX)?;
        not_empty(at, bytes)
    })
}

fn not_empty(at: At<'_>, bytes: Vec<u8>) -> Result<Bytes, WireError> {
    if bytes.is_empty() {
        return Err(at.missing("send a signed envelope, or leave the entry out"));
    }
    Ok(bytes.into())
}

fn to_vecs(signed: &[Bytes], max: usize) -> Vec<Vec<u8>> {
    signed.iter().take(max).map(|bytes| bytes.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use model::SpiffeId;

    use super::*;

    fn news() -> StoreNews {
        StoreNews {
            cluster_id: ClusterId::from_bytes([7; 16]),
            heads: vec![Bytes::from_static(b"head")],
            revocations: vec![Bytes::from_static(b"revocation")],
            revoked_domains: BTreeSet::from([TrustDomain::parse("north.fed").unwrap()]),
            revoked_svids: vec![RevokedSvid {
                id: SpiffeId::parse("spiffe://east.fed/fedgate/gateway/gw-0").unwrap(),
                not_before_unix_s: 7,
            }],
        }
    }

    #[test]
    fn news_and_what_was_heard_survive_the_wire() {
        assert_eq!(StoreNews::decode(news().encode()), Ok(news()));
        let heard = HeardFromPeer {
            cluster: ClusterName::parse("west").unwrap(),
            heads: news().heads,
            revocations: news().revocations,
        };
        assert_eq!(HeardFromPeer::decode(heard.encode()), Ok(heard));
    }

    #[test]
    fn the_gateways_that_serve_ride_along() {
        let serving = ServingGateways([[2; 16], [1; 16]].map(GatewayId::from_bytes).into());
        let mut message = news().encode();
        assert_eq!(ServingGateways::decode(&message), Ok(ServingGateways::default()));
        serving.put(&mut message);
        assert_eq!(ServingGateways::decode(&message), Ok(serving));
        assert_eq!(StoreNews::decode(message.clone()), Ok(news()), "whoever does not know them");
        message.serving_gateways[0].truncate(2);
        let error = ServingGateways::decode(&message).unwrap_err().to_string();
        assert!(error.starts_with("StoreNews.serving_gateways[0] = [1, 1]"), "{error}");
        message.serving_gateways = vec![vec![1; 16]; 1025];
        let error = ServingGateways::decode(&message).unwrap_err().to_string();
        assert!(error.starts_with("StoreNews.serving_gateways = 1025 entries"), "{error}");
    }

    #[test]
    fn a_call_for_renewal_rides_along() {
        let mut message = news().encode();
        assert_eq!(RenewSvids::decode(&message), RenewSvids::default());
        let renew = RenewSvids { before_unix_s: 7 };
        renew.put(&mut message);
        assert_eq!(RenewSvids::decode(&message), renew);
        assert_eq!(StoreNews::decode(message), Ok(news()), "whoever does not know it");
    }

    #[test]
    fn what_breaks_the_format_is_named() {
        type Spoil = fn(&mut proto::StoreNews);
        let table: [(Spoil, &str); 11] = [
            (|n| n.cluster_id.truncate(3), "StoreNews.cluster_id = [7, 7, 7]: a cluster id is 16"),
            (|n| n.heads[0].clear(), "StoreNews.heads[0] = (absent): send a signed envelope"),
            (|n| n.heads[0].resize(1025, 0), "StoreNews.heads[0] = 1025 bytes: at most 1024 bytes"),
            (|n| n.heads.resize(4097, vec![1]), "StoreNews.heads = 4097 entries: at most 4096"),
            (
                |n| n.revocations[0].resize(16_385, 0),
                "StoreNews.revocations[0] = 16385 bytes: at most 16384 bytes",
            ),
            (|n| n.revocations.resize(129, vec![1]), "StoreNews.revocations = 129 entries"),
            (
                |n| n.revoked_trust_domains[0] = "No".into(),
                "StoreNews.revoked_trust_domains[0] = \"No\"",
            ),
            (
                |n| n.revoked_svids[0].spiffe_id = "west".into(),
                "StoreNews.revoked_svids[0].spiffe_id = \"west\"",
            ),
            (
                |n| n.revoked_svids[0].spiffe_id = "x".repeat(538),
                "StoreNews.revoked_svids[0].spiffe_id = 538 bytes: at most 537 bytes",
            ),
            (
                |n| n.revoked_svids[0].not_before_unix_s = 0,
                "StoreNews.revoked_svids[0].not_before_unix_s = (absent): say from when on",
            ),
            (
                |n| n.revoked_svids = vec![n.revoked_svids[0].clone(); 65],
                "StoreNews.revoked_svids = 65 entries: at most 64",
            ),
        ];
        for (spoil, text) in table {
            let mut message = news().encode();
            spoil(&mut message);
            let error = StoreNews::decode(message).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error:?} does not begin with {text:?}");
        }
    }
}
