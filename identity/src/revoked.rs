//! Certificates that the cluster which had issued them denies, one name at a time: what is left when a
//! single key is stolen, since an SVID cannot be taken back.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use model::{RevokedSvid, SpiffeId};

use crate::svid::Svid;
use crate::verify::{VerifiedPeer, VerifyError};

/// From when on certificates of a name are good again; nothing for a name that was never revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedSvids(BTreeMap<SpiffeId, SystemTime>);

impl RevokedSvids {
    /// Refuses a certificate of a revoked name that begins too early.
    pub fn check(&self, peer: &VerifiedPeer) -> Result<(), VerifyError> {
        match self.denies(&peer.id, peer.not_before) {
            Some(before) => Err(VerifyError::SvidRevoked { id: peer.id.clone(), before }),
            None => Ok(()),
        }
    }

    pub(crate) fn denies_svid(&self, svid: &Svid) -> bool {
        self.denies(svid.id(), svid.not_before()).is_some()
    }

    fn denies(&self, id: &SpiffeId, not_before: SystemTime) -> Option<SystemTime> {
        self.0.get(id).filter(|good_from| not_before < **good_from).copied()
    }
}

/// Of a name that stands twice the later moment counts.
impl FromIterator<RevokedSvid> for RevokedSvids {
    fn from_iter<I: IntoIterator<Item = RevokedSvid>>(entries: I) -> Self {
        let mut all = BTreeMap::new();
        for RevokedSvid { id, not_before_unix_s } in entries {
            // Beyond what a clock can say there is nothing that is good again.
            let good_from = SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(not_before_unix_s))
                .unwrap_or(SystemTime::UNIX_EPOCH + FOREVER);
            let known = all.entry(id).or_insert(good_from);
            *known = good_from.max(*known);
        }
        Self(all)
    }
}

/// Longer than any certificate lives.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: &str, not_before: u64) -> VerifiedPeer {
        let id = SpiffeId::parse(id).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(not_before);
        let trust_domain = id.trust_domain().clone();
        VerifiedPeer { id, trust_domain, not_before: at, not_after: at }
    }

    #[test]
    fn a_name_is_denied_up_to_a_moment_and_no_other_name_is() {
        const ONE: &str = "spiffe://west.fed/fedgate/gateway/gw-0";
        let entry = |not_before_unix_s| RevokedSvid {
            id: SpiffeId::parse(ONE).unwrap(),
            not_before_unix_s,
        };
        let revoked: RevokedSvids = [entry(100), entry(90)].into_iter().collect();
        let text = revoked.check(&peer(ONE, 99)).unwrap_err().to_string();
        assert!(text.contains("from before 1970-01-01T00:01:40Z"), "{text}");
        assert_eq!(revoked.check(&peer(ONE, 100)), Ok(()), "the next one");
        assert_eq!(revoked.check(&peer("spiffe://west.fed/fedgate/gateway/gw-1", 1)), Ok(()));
        assert_eq!(revoked.check(&peer("spiffe://east.fed/fedgate/gateway/gw-0", 1)), Ok(()));
        let for_ever: RevokedSvids = [entry(u64::MAX)].into_iter().collect();
        assert!(for_ever.check(&peer(ONE, 4_000_000_000)).is_err());
        assert_eq!(RevokedSvids::default().check(&peer(ONE, 0)), Ok(()));
    }
}
