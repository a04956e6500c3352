//! The tokens that this node has issued, as it signed them: a file each, without the secret.
//!
//! A Replica does not see the tokens in the store, yet must recognise its own when one is redeemed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wire::store::limits::OPEN_TOKENS_MAX;
use wire::store::{Signed, TokenGrant, TokenId};

use crate::folder::{FolderError, create_private_folder, io_error, replace_file};
use crate::limits::GRANT_KEPT;

/// The folder of issued tokens.
#[derive(Debug)]
pub(crate) struct Grants(PathBuf);

impl Grants {
    pub(crate) fn open(folder: &Path) -> Result<Self, FolderError> {
        create_private_folder(folder)?;
        Ok(Self(folder.into()))
    }

    /// Keeps a grant; those that expired long ago go.
    pub(crate) fn keep(
        &self,
        id: &TokenId,
        signed: &Signed,
        now_ms: u64,
    ) -> Result<(), FolderError> {
        let kept_ms = u64::try_from(GRANT_KEPT.as_millis()).unwrap_or(u64::MAX);
        for grant in self.all() {
            if grant.expires_at_unix_ms.saturating_add(kept_ms) < now_ms {
                self.forget(&grant.token_id);
            }
        }
        replace_file(&self.path(id), &signed.encode())
    }

    pub(crate) fn get(&self, id: &TokenId) -> Option<TokenGrant> {
        let bytes = fs::read(self.path(id)).ok()?;
        let signed = Signed::decode(&bytes).ok()?;
        TokenGrant::decode(&signed.payload).ok().filter(|grant| grant.token_id == *id)
    }

    pub(crate) fn all(&self) -> Vec<TokenGrant> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let ids = entries.flatten().filter_map(|entry| TokenId::parse(entry.file_name().to_str()?));
        let mut grants: Vec<TokenGrant> =
            ids.take(2 * OPEN_TOKENS_MAX).filter_map(|id| self.get(&id)).collect();
        grants.sort_by_key(|grant| (grant.issued_at_unix_ms, grant.token_id));
        grants
    }

    pub(crate) fn forget(&self, id: &TokenId) {
        let path = self.path(id);
        if let Err(problem) = fs::remove_file(&path)
            && problem.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %problem, "an old token stays behind");
        }
    }

    /// Forgets all, as after leaving.
    pub(crate) fn clear(&self) -> Result<(), FolderError> {
        fs::remove_dir_all(&self.0).map_err(io_error("remove", &self.0))?;
        create_private_folder(&self.0)
    }

    fn path(&self, id: &TokenId) -> PathBuf {
        self.0.join(id.to_string())
    }
}

#[cfg(test)]
mod tests {
    use model::{ClusterId, ClusterName, FederationId, KeyId, RoleSet};

    use super::*;

    fn grant(id: u8, expires: u64) -> (TokenId, Signed) {
        let token_id = TokenId::from_bytes([id; 16]);
        let grant = TokenGrant {
            federation: FederationId::from_bytes([1; 16]),
            token_id,
            name: ClusterName::parse("west").unwrap(),
            roles: RoleSet::NONE,
            delegation_depth: 0,
            issued_at_unix_ms: expires - 1,
            expires_at_unix_ms: expires,
            secret_hmac: [7; 32],
            approval_needed: false,
            issuer: ClusterId::from_bytes([2; 16]),
        };
        let key_id = KeyId::from_bytes([3; 16]);
        (token_id, Signed { payload: grant.encode().into(), key_id, signature: [4; 64] })
    }

    #[test]
    fn grants_outlast_a_restart_but_not_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grants");
        let grants = Grants::open(&path).unwrap();
        let day = 24 * 3600 * 1000;
        let (old, signed) = grant(1, day);
        grants.keep(&old, &signed, 1).unwrap();
        let grants = Grants::open(&path).unwrap();
        assert_eq!(grants.get(&old).unwrap().name.as_str(), "west");
        let (new, signed) = grant(2, 20 * day);
        grants.keep(&new, &signed, 19 * day).unwrap();
        assert_eq!(grants.get(&old), None, "it expired long ago");
        assert_eq!(grants.all().len(), 1);
        grants.clear().unwrap();
        assert_eq!(grants.all(), []);
    }
}
