//! Rotation of the cluster's root, stage by stage (docs/design/0010-rotating-roots.md): prepared, so
//! that everybody knows it; activated, so that it signs; and the old one revoked. Each stage is asked
//! for by a person, and refused while it would harm somebody, unless that is wanted.

mod trial;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Ca, ClusterTrust, REFRESH_HINT, RootFacts, RootState, RotationError};
use model::code::{self, Code};
use model::{ClusterName, ClusterPeer, Resource};
use tokio::sync::{Mutex, watch};
use wire::resource::RenewSvids;

use crate::limits::{ROOT_OVERLAP, ROOT_SPREAD_IN_KUBERNETES};
use crate::membership::Membership;
use crate::revisions::Revisions;
use crate::svid::OwnSvid;

use trial::Answer;

/// Peers that a message names.
const NAMED_MAX: usize = 5;

/// What is asked for, in SPIRE's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Prepare,
    Activate,
    Revoke,
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Revoke => "revoke",
        }
    }
}

/// The one hand that changes the cluster's roots, and tells everybody.
pub(crate) struct Rotation {
    pub(crate) cluster: ClusterName,
    pub(crate) ca: Arc<Ca>,
    pub(crate) svid: Arc<OwnSvid>,
    /// Of the ports for this cluster's own processes.
    pub(crate) trust: Arc<ClusterTrust>,
    pub(crate) membership: Membership,
    pub(crate) revisions: Arc<Revisions>,
    /// Of the SVIDs that are issued.
    pub(crate) lifetime: Duration,
    /// Gateways and `fedctl` read the bundle from a ConfigMap.
    pub(crate) in_kubernetes: bool,
    /// Counts the changes of the bundle.
    pub(crate) rotated: watch::Sender<u64>,
    /// What gateways are told to renew.
    pub(crate) renew: watch::Sender<RenewSvids>,
    pub(crate) turn: Mutex<()>,
}

/// Why a stage was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error(transparent)]
    Ca(#[from] RotationError),
    #[error(
        "the next root was made {} s ago, and pods of this cluster may read it up to {} s late: try \
         again then, or use --force",
        .age.as_secs(), ROOT_SPREAD_IN_KUBERNETES.as_secs()
    )]
    Fresh { age: Duration },
    #[error(
        "{} of {asked} clusters would refuse the next root, or could not be asked: {}; wait until \
         they have read this cluster's bundle, which without a federation is in `fedctl peer`, or \
         use --force",
        .strangers.len(), name_some(.strangers)
    )]
    Strangers { asked: usize, strangers: Vec<(ClusterName, String)> },
    #[error("the node's own SVID: {0:#}")]
    Svid(anyhow::Error),
}

impl StageError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Ca(problem) => problem.code(),
            Self::Fresh { .. } | Self::Strangers { .. } => code::ROTATION_TOO_EARLY,
            Self::Svid(_) => code::SVID_MISSING,
        }
    }
}

fn name_some(strangers: &[(ClusterName, String)]) -> String {
    let some: Vec<_> =
        strangers.iter().take(NAMED_MAX).map(|(name, why)| format!("{name} ({why})")).collect();
    let more = strangers.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    some.join(", ") + &more
}

impl Rotation {
    pub(crate) async fn stage(
        &self,
        stage: Stage,
        force: bool,
        now: SystemTime,
    ) -> Result<Vec<RootFacts>, StageError> {
        let _turn = self.turn.lock().await;
        if stage == Stage::Activate && !force {
            self.check_known(now).await?;
        }
        // Disk writes of milliseconds, by hand and rarely.
        match stage {
            Stage::Prepare => self.ca.prepare(now)?,
            Stage::Activate => self.ca.activate(self.lifetime, now)?,
            Stage::Revoke => self.ca.revoke(force, now)?,
        }
        tracing::warn!(target: "fedgate::audit", stage = stage.as_str(), force, "roots changed");
        self.tell();
        if stage == Stage::Activate {
            self.renew_all(now)?;
        }
        Ok(self.ca.roots())
    }

    /// New SVIDs for this node and its gateways, whatever has expired; a root that signs nothing any more is
    /// replaced. `true`: it was, and other clusters need this one's bundle anew.
    pub(crate) async fn renew(&self, now: SystemTime) -> Result<bool, StageError> {
        let _turn = self.turn.lock().await;
        let is_new = self.ca.replace_expired(now)?;
        if is_new {
            tracing::warn!(target: "fedgate::audit", "the root had expired and was replaced");
            self.tell();
        }
        self.renew_all(now)?;
        Ok(is_new)
    }

    /// The node's SVID now, those of gateways as soon as they hear of it.
    fn renew_all(&self, now: SystemTime) -> Result<(), StageError> {
        self.svid.renew(now).map_err(StageError::Svid)?;
        self.renew.send_replace(issued_before(now));
        Ok(())
    }

    /// Makes the bundle in force true everywhere that has a copy of it.
    fn tell(&self) {
        let bundle = self.ca.bundle();
        if let Err(problem) = self.trust.replace(&bundle) {
            tracing::error!(%problem, "the ports of this node do not know the new bundle");
        }
        let node = self.membership.node();
        node.transport.set_own_bundle(bundle, self.ca.root());
        node.enforce();
        node.publish_again.notify_one();
        self.rotated.send_modify(|count| *count += 1);
    }

    /// Every peer is shown an SVID of the prepared root: its gateway's word is the proof, however the
    /// bundle has come there.
    async fn check_known(&self, now: SystemTime) -> Result<(), StageError> {
        let roots = self.ca.roots();
        let prepared = roots.iter().find(|root| root.state == RootState::Prepared);
        let Some(prepared) = prepared else { return Ok(()) }; // the CA says what is wrong
        let age = now.duration_since(prepared.since).unwrap_or_default();
        if self.in_kubernetes && age < ROOT_SPREAD_IN_KUBERNETES {
            return Err(StageError::Fresh { age });
        }
        let Some(svid) = self.svid.by_prepared(now).map_err(StageError::Svid)? else {
            return Ok(());
        };
        let peers = self.peers();
        let asked = peers.len();
        let source = self.membership.node().transport.dial_from();
        let answers = trial::show(peers, svid, source).await;
        let strangers = answers.into_iter().filter_map(|(name, answer)| match answer {
            Answer::Known => None,
            Answer::Unasked if age >= ROOT_OVERLAP => None,
            Answer::Unasked => {
                let after = ROOT_OVERLAP.as_secs();
                Some((name, format!("it cannot be dialled; it is given {after} s from preparing")))
            }
            Answer::Refused(why) | Answer::Silent(why) => Some((name, why)),
        });
        let strangers: Vec<_> = strangers.collect();
        match strangers.is_empty() {
            true => Ok(()),
            false => Err(StageError::Strangers { asked, strangers }),
        }
    }

    /// All clusters that this one speaks with, whatever way they were introduced.
    fn peers(&self) -> Vec<ClusterPeer> {
        let (_, resources) = self.revisions.resources();
        let peer = |resource: &Resource| match resource {
            Resource::ClusterPeer(peer) if peer.name != self.cluster => Some(peer.clone()),
            _ => None,
        };
        resources.values().filter_map(peer).collect()
    }
}

/// Rounded up: an SVID says only in which second it was issued.
fn issued_before(now: SystemTime) -> RenewSvids {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    RenewSvids { before_unix_s: since.as_secs() + 1 }
}

/// What gateways are told at the node's start: in the middle of a rotation, what they were told when
/// the old root ceased to sign.
pub(crate) fn to_renew(ca: &Ca, lifetime: Duration) -> RenewSvids {
    let until = ca.roots().into_iter().find_map(|root| root.svids_until);
    until.and_then(|until| until.checked_sub(lifetime)).map(issued_before).unwrap_or_default()
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotation").field("ca", &self.ca).finish_non_exhaustive()
    }
}

const _: () = assert!(ROOT_OVERLAP.as_secs() >= 3 * REFRESH_HINT.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_a_few_and_counts_the_rest() {
        let name = |number: u8| ClusterName::parse(&format!("c{number}")).unwrap();
        let strangers = (0..7).map(|number| (name(number), "TLS alert 48".into())).collect();
        let error = StageError::Strangers { asked: 9, strangers };
        let text = error.to_string();
        assert!(text.starts_with("7 of 9 clusters would refuse the next root"), "{text}");
        assert!(text.contains("c0 (TLS alert 48), c1 ("), "{text}");
        assert!(text.contains("c4 (TLS alert 48), and 2 more; wait until"), "{text}");
        assert_eq!(error.code().to_string(), "FED3011");
    }
}
