//! Revocations that must not wait for the log: whoever hears of one, by whatever path, enforces it
//! at once, hands it on, and sees to it that the log has it. Till then each lies in a file of its own,
//! so that a restart does not let back in who was shut out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{ClusterId, Role, TrustDomain};
use sha2::{Digest as _, Sha256};
use wire::store::{Change, Domain, Revocation, RevocationTarget, Signed};

use super::error::MembershipError;
use super::node::Node;
use crate::fleet::{Fleet, verify};
use crate::folder::{FolderError, create_private_folder, io_error, replace_file};
use crate::limits::{EARLY_REVOCATIONS_MAX, PROPOSE_PAUSE_MAX};

/// Verified revocations that the state does not have yet.
#[derive(Debug)]
pub(crate) struct Early {
    folder: PathBuf,
    held: Mutex<BTreeMap<Vec<u8>, (Signed, Revocation)>>,
}

impl Early {
    pub(crate) fn open(folder: &Path) -> Result<Self, FolderError> {
        create_private_folder(folder)?;
        Ok(Self { folder: folder.into(), held: Mutex::default() })
    }

    /// Forgets all, as after leaving.
    pub(crate) fn clear(&self) -> Result<(), FolderError> {
        self.lock().clear();
        fs::remove_dir_all(&self.folder).map_err(io_error("remove", &self.folder))?;
        create_private_folder(&self.folder)
    }

    /// What was heard of before the last start, to be judged again.
    fn kept(&self) -> Vec<Signed> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        let signed = paths.filter_map(|path| {
            let signed = Signed::decode(&fs::read(&path).ok()?).ok()?;
            (self.path(&signed) == path).then_some(signed)
        });
        signed.take(EARLY_REVOCATIONS_MAX).collect()
    }

    /// On disk when it returns, unless the disk refuses: what is in force is in force regardless.
    fn keep(&self, signed: &Signed) {
        let path = self.path(signed);
        if !path.exists()
            && let Err(problem) = replace_file(&path, &signed.encode())
        {
            tracing::error!(%problem, "a restart would forget this revocation; the log lacks it");
        }
    }

    fn forget(&self, signed: &Signed) {
        let path = self.path(signed);
        if let Err(problem) = fs::remove_file(&path)
            && problem.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %problem, "an old revocation stays behind");
        }
    }

    fn path(&self, signed: &Signed) -> PathBuf {
        let digest = Sha256::digest(&signed.payload);
        self.folder.join(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, (Signed, Revocation)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// At the start, before anybody is let in: those that the log still lacks are in force again.
    pub(super) fn take_kept_revocations(self: &Arc<Self>) {
        let Some((_, fleet)) = self.state() else { return };
        let (held, settled): (Vec<Signed>, Vec<Signed>) =
            self.early.kept().into_iter().partition(|signed| judged(&fleet, signed).is_some());
        settled.iter().for_each(|signed| self.early.forget(signed));
        self.take_revocations(&held);
    }

    /// Judges what somebody told; what holds is in force when this returns.
    pub(crate) fn take_revocations(self: &Arc<Self>, told: &[Signed]) {
        let Some((_, fleet)) = self.state() else { return };
        let mut news = false;
        for signed in told.iter().take(EARLY_REVOCATIONS_MAX) {
            let Some(revocation) = judged(&fleet, signed) else { continue };
            let mut early = self.early.lock();
            if early.len() >= EARLY_REVOCATIONS_MAX || early.contains_key(&signed.payload[..]) {
                continue;
            }
            tracing::warn!(
                target: "fedgate::audit",
                revoked = ?revocation.target,
                reason = revocation.reason,
                "a revocation was heard of before the log had it; it is in force"
            );
            early.insert(signed.payload.to_vec(), (signed.clone(), revocation));
            drop(early);
            self.early.keep(signed);
            news = true;
            // Most likely somebody else proposes it too: the log takes it once.
            let node = self.clone();
            let stop = self.stop.clone();
            self.tasks.spawn(stop.run_until_cancelled_owned(node.log_revocation(signed.clone())));
        }
        if news {
            self.enforce();
        }
    }

    /// Until the log has it: what is in force in memory alone would be forgotten with the nodes that
    /// have heard of it.
    async fn log_revocation(self: Arc<Self>, signed: Signed) {
        loop {
            let proposed = self.propose(Change::Revoke(signed.clone())).await;
            let Err(problem) = proposed else { return };
            tracing::warn!(%problem, "the revocation is not logged by this node");
            if !matches!(problem, MembershipError::NoQuorum { .. }) {
                if matches!(problem, MembershipError::Refused { .. }) {
                    self.early.forget(&signed);
                }
                return;
            }
            tokio::time::sleep(PROPOSE_PAUSE_MAX).await;
        }
    }

    /// All revocations in force, those of the log first.
    pub(crate) fn revocations(&self) -> Vec<Signed> {
        let logged = self.state().map(|(_, fleet)| {
            fleet.revocations().map(|entry| entry.signed.clone()).collect::<Vec<_>>()
        });
        let mut all = logged.unwrap_or_default();
        all.extend(self.early.lock().values().map(|(signed, _)| signed.clone()));
        all
    }

    /// Clusters and trust domains that are shut out, besides what the state says already. What the
    /// state has by now is forgotten here.
    pub(crate) fn shut_out_early(
        &self,
        fleet: &Fleet,
    ) -> (BTreeSet<ClusterId>, BTreeSet<TrustDomain>) {
        let mut early = self.early.lock();
        early.retain(|_, (signed, _)| {
            let lacks = !fleet.revocations().any(|entry| entry.signed.payload == signed.payload);
            if !lacks {
                self.early.forget(signed);
            }
            lacks
        });
        let (mut clusters, mut domains) = (BTreeSet::new(), BTreeSet::new());
        for (_, revocation) in early.values() {
            match &revocation.target {
                RevocationTarget::Cluster(cluster) => {
                    clusters.insert(*cluster);
                }
                RevocationTarget::TrustDomain(domain) => {
                    domains.insert(domain.clone());
                    clusters.extend(fleet.owner_of(domain).map(|member| member.cluster));
                }
            }
        }
        (clusters, domains)
    }
}

/// The revocation, if an admin of this federation has signed it and the state does not have it.
fn judged(fleet: &Fleet, signed: &Signed) -> Option<Revocation> {
    let revocation = Revocation::decode(&signed.payload).ok()?;
    let issuer = fleet.member(&revocation.issuer)?;
    let known = fleet.revocations().any(|entry| entry.signed.payload == signed.payload);
    let holds = Some(revocation.federation) == fleet.federation()
        && issuer.roles.contains(Role::Admin)
        && issuer.open_key().id() == signed.key_id
        && verify(signed, Domain::Revocation, &issuer.open_key().spki).is_ok();
    (holds && !known).then_some(revocation)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use model::KeyId;

    use super::*;

    fn signed(payload: &[u8]) -> Signed {
        let key_id = KeyId::from_bytes([3; 16]);
        Signed { payload: payload.to_vec().into(), key_id, signature: [4; 64] }
    }

    #[test]
    fn revocations_outlast_a_restart_until_they_are_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations");
        let early = Early::open(&path).unwrap();
        let (one, two) = (signed(b"one"), signed(b"two"));
        for _ in 0..2 {
            early.keep(&one);
        }
        early.keep(&two);
        for file in fs::read_dir(&path).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let early = Early::open(&path).unwrap();
        assert_eq!(early.kept().len(), 2);
        early.forget(&one);
        early.forget(&one);
        assert_eq!(early.kept(), std::slice::from_ref(&two));
        fs::write(early.path(&one), two.encode()).unwrap();
        fs::write(path.join("other"), b"no revocation").unwrap();
        assert_eq!(early.kept(), [two], "a file is what its name says");
        early.clear().unwrap();
        assert_eq!(early.kept(), []);
    }
}
