//! How this cluster gets into a federation without an operator: the object Federation says that it
//! founds one, or there is a join token in a file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use discovery::kubernetes::WatchedKind;
use model::code::{CONFIG_INVALID, FEDERATION_NONE, JOIN_RATE_LIMITED};
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, watch};
use wire::store::TokenId;

use super::audited::{Failed, audited};
use super::federation;
use crate::kubernetes::calls::Failure;
use crate::kubernetes::{Cluster, changed};
use crate::limits::{
    JOIN_TOKEN_FILE_BYTES_MAX, JOIN_TOKEN_LOOK_INTERVAL, KUBERNETES_RETRY_MAX, KUBERNETES_RETRY_MIN,
};
use crate::membership::{JoinProgress, MembershipError, TokenText};

/// What keeps the cluster outside; the status of the Federation tells it.
pub(super) type Trouble = watch::Sender<Option<Failure>>;

const JOIN_STEPS_MAX: usize = 32;
const NOTE: &str = "federation";
const TOKEN_FIELD: &str = "kubernetes.joinTokenFile";

/// A token is known again by this, without keeping it.
type TokenHash = [u8; 32];

/// What is known when it is decided.
#[derive(Debug, Clone, Copy, Default)]
struct Situation {
    /// In no federation, and sure of it.
    is_alone: bool,
    /// This node is the one that acts for the cluster.
    leads: bool,
    /// `spec.found` of a Federation that is accepted.
    found: bool,
    /// The Federation says that the cluster was in one since.
    was_inside: bool,
    token: Option<TokenHash>,
    /// A token that was used already, or refused for good.
    spent: Option<TokenHash>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Nothing,
    Found,
    Join,
    /// Both are asked for, and which one is meant cannot be told.
    Contradiction,
    /// A token that failed is still there.
    Wait,
}

impl Situation {
    fn deed(&self) -> Deed {
        let is_new = self.token.is_some() && self.token != self.spent;
        let founds = self.found && !self.was_inside;
        match (self.is_alone, self.token.is_some()) {
            (false, _) => Deed::Nothing,
            (true, true) if founds => Deed::Contradiction,
            (true, true) if is_new => Deed::Join,
            (true, true) => Deed::Wait,
            (true, false) if founds && self.leads => Deed::Found,
            (true, false) => Deed::Nothing,
        }
    }
}

/// Looks now and then, and whenever the Federation changes, until the node stops.
pub(super) async fn run(cluster: Cluster, trouble: Arc<Trouble>) {
    let stop = cluster.around.stop.clone();
    let entering = Entering { cluster, trouble, spent: None, pause: KUBERNETES_RETRY_MIN };
    stop.run_until_cancelled(entering.go_on()).await;
}

struct Entering {
    cluster: Cluster,
    trouble: Arc<Trouble>,
    spent: Option<TokenHash>,
    pause: Duration,
}

impl Entering {
    async fn go_on(mut self) {
        let (mut changes, mut leader) = (self.cluster.cache.changes(), self.cluster.leader.clone());
        loop {
            changes.mark_unchanged();
            leader.mark_unchanged();
            let patience = self.step().await;
            let version = self.cluster.cache.changes_of(WatchedKind::Federation);
            let news = async {
                loop {
                    tokio::select! {
                        () = changed(&mut leader) => return,
                        () = changed(&mut changes) => {
                            let now = self.cluster.cache.changes_of(WatchedKind::Federation);
                            if now != version { return }
                        }
                    }
                }
            };
            // Not sooner: what failed now fails again in a moment.
            let is_patient = patience < JOIN_TOKEN_LOOK_INTERVAL;
            match is_patient {
                true => tokio::time::sleep(patience).await,
                false => drop(tokio::time::timeout(patience, news).await),
            }
        }
    }

    /// One look, and what follows from it. Returns when to look again.
    async fn step(&mut self) -> Duration {
        if !self.cluster.cache.is_known(WatchedKind::Federation) {
            return JOIN_TOKEN_LOOK_INTERVAL;
        }
        let token = match self.token().await {
            Ok(token) => token,
            Err(failure) => {
                self.tell(Some(failure));
                return JOIN_TOKEN_LOOK_INTERVAL;
            }
        };
        let hash = token.as_ref().map(|token| Sha256::digest(token.expose()).into());
        match (self.situation(hash).deed(), token, hash) {
            (Deed::Found, ..) => self.found().await,
            (Deed::Join, Some(token), Some(hash)) => self.join(token, hash).await,
            (Deed::Contradiction, ..) => {
                let problem = "Federation/default says spec.found: true, and kubernetes.joinTokenFile \
                               has a token: this cluster either founds a federation or joins one; \
                               remove one of the two";
                self.tell(Some(Failure { code: CONFIG_INVALID, problem: problem.into() }));
                JOIN_TOKEN_LOOK_INTERVAL
            }
            (Deed::Wait, ..) => JOIN_TOKEN_LOOK_INTERVAL,
            _ => {
                self.tell(None);
                JOIN_TOKEN_LOOK_INTERVAL
            }
        }
    }

    fn situation(&self, token: Option<TokenHash>) -> Situation {
        let around = &self.cluster.around;
        let objects = self.cluster.cache.list::<serde_json::Value>(WatchedKind::Federation);
        let object = federation::the_one(&objects);
        let spec = object.and_then(|object| federation::read(object).0);
        let alone = matches!(around.membership.store_status(), Err(MembershipError::Alone));
        Situation {
            is_alone: alone && !around.shared.borrow().awaited,
            leads: *self.cluster.leader.borrow(),
            found: spec.is_some_and(|spec| spec.found),
            was_inside: federation::was_inside(object.and_then(|object| object.get("status"))),
            token,
            spent: self.spent,
        }
    }

    async fn token(&self) -> Result<Option<TokenText>, Failure> {
        let Some(path) = self.cluster.config.join_token_file.clone() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || read_token(&path)).await;
        read.unwrap_or_else(|problem| Err(problem.to_string())).map_err(|problem| Failure {
            code: CONFIG_INVALID,
            problem: format!("{TOKEN_FIELD}: {problem}"),
        })
    }

    async fn found(&mut self) -> Duration {
        let membership = self.cluster.around.membership.clone();
        let parameters = vec![("object", "Federation/default".to_string())];
        let audit = &self.cluster.around.audit;
        let founded =
            audited(audit, "Found", parameters, async move { membership.init().await }).await;
        match founded {
            Ok(_) | Err(Failed::Change(MembershipError::AlreadyMember { .. })) => self.done(),
            Err(failed) => self.failed(failed.into()),
        }
    }

    async fn join(&mut self, token: TokenText, hash: TokenHash) -> Duration {
        let membership = self.cluster.around.membership.clone();
        let facts = match membership.read_token(&token) {
            Ok(facts) => facts,
            Err(error) => return self.refused(error, hash),
        };
        let parameters = vec![
            ("object", TOKEN_FIELD.to_string()),
            ("token", facts.id.to_string()),
            ("federation", facts.federation.to_string()),
            ("inviter", facts.inviter.clone()),
            ("name", facts.name.to_string()),
            ("roles", facts.roles.to_string()),
        ];
        let (progress, steps) = mpsc::channel(JOIN_STEPS_MAX);
        let telling = tokio::spawn(follow(steps, self.trouble.clone(), facts.id));
        let audit = &self.cluster.around.audit;
        let joining = async move { membership.join(&token, progress).await };
        let joined = audited(audit, "Join", parameters, joining).await;
        // It ends with the sender.
        let _ = telling.await;
        match joined {
            Ok(_) => {
                // After leaving the federation the same file does not lead back into it.
                self.spent = Some(hash);
                self.done()
            }
            Err(Failed::Change(MembershipError::AlreadyMember { .. })) => self.done(),
            Err(Failed::Change(error)) if is_final(&error) => self.refused(error, hash),
            Err(failed) => self.failed(failed.into()),
        }
    }

    fn done(&mut self) -> Duration {
        self.pause = KUBERNETES_RETRY_MIN;
        self.tell(None);
        JOIN_TOKEN_LOOK_INTERVAL
    }

    fn failed(&mut self, failure: Failure) -> Duration {
        self.tell(Some(failure));
        let pause = self.pause;
        self.pause = (pause * 2).min(KUBERNETES_RETRY_MAX);
        pause.mul_f64(rand::rng().random_range(0.8..1.2))
    }

    /// Another token may do better.
    fn refused(&mut self, error: MembershipError, hash: TokenHash) -> Duration {
        self.spent = Some(hash);
        let problem =
            format!("{TOKEN_FIELD}: {error}; the file is looked at again when it changes");
        self.tell(Some(Failure { code: error.code(), problem }));
        JOIN_TOKEN_LOOK_INTERVAL
    }

    fn tell(&self, failure: Option<Failure>) {
        self.cluster.health.note(NOTE, "Federation/default", failure.clone());
        self.trouble.send_if_modified(|known| {
            let is_new = *known != failure;
            *known = failure;
            is_new
        });
    }
}

/// Says what is waited for.
async fn follow(mut steps: mpsc::Receiver<JoinProgress>, trouble: Arc<Trouble>, token: TokenId) {
    while let Some(step) = steps.recv().await {
        if step == JoinProgress::WaitingForApproval {
            tracing::info!(%token, "the join waits for approval at the inviter");
            let problem = "the join waits until a person at the inviter approves it with `fedctl \
                           join --approve`";
            let failure = Failure { code: FEDERATION_NONE, problem: problem.into() };
            trouble.send_replace(Some(failure));
        }
    }
}

/// `None`: there is no file, or nothing in it. A Secret that is optional may be missing.
fn read_token(path: &Path) -> Result<Option<TokenText>, String> {
    let told = |problem: std::io::Error| format!("{} cannot be read: {problem}", path.display());
    let bytes = match std::fs::metadata(path) {
        Ok(file) => file.len(),
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(told(problem)),
    };
    if bytes > JOIN_TOKEN_FILE_BYTES_MAX {
        let max = JOIN_TOKEN_FILE_BYTES_MAX;
        return Err(format!("{} has {bytes} bytes, and a token at most {max}", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(told)?;
    let text = text.trim();
    Ok((!text.is_empty()).then(|| TokenText::new(text)))
}

/// Whether the same token never leads in.
fn is_final(error: &MembershipError) -> bool {
    use MembershipError as E;
    match error {
        E::JoinRefused { code, .. } => *code != JOIN_RATE_LIMITED,
        E::TokenMalformed { .. } | E::TokenExpired { .. } | E::JoinUntrusted { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_founds_or_joins_once_and_never_both() {
        let alone = Situation { is_alone: true, leads: true, ..Situation::default() };
        let (one, other) = (Some([1; 32]), Some([2; 32]));
        for (situation, want) in [
            (alone, Deed::Nothing),
            (Situation { found: true, ..alone }, Deed::Found),
            (Situation { found: true, leads: false, ..alone }, Deed::Nothing),
            (Situation { found: true, is_alone: false, ..alone }, Deed::Nothing),
            (Situation { found: true, was_inside: true, ..alone }, Deed::Nothing),
            (Situation { token: one, ..alone }, Deed::Join),
            (Situation { token: one, leads: false, ..alone }, Deed::Join),
            (Situation { token: one, is_alone: false, ..alone }, Deed::Nothing),
            (Situation { token: one, spent: one, ..alone }, Deed::Wait),
            (Situation { token: one, spent: other, ..alone }, Deed::Join),
            (Situation { token: one, found: true, ..alone }, Deed::Contradiction),
            (Situation { token: one, found: true, was_inside: true, ..alone }, Deed::Join),
        ] {
            assert_eq!(situation.deed(), want, "{situation:?}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert_eq!(read_token(&path), Ok(None));
        std::fs::write(&path, " \n").unwrap();
        assert_eq!(read_token(&path), Ok(None));
        std::fs::write(&path, "fedgate1.abc\n").unwrap();
        assert_eq!(read_token(&path), Ok(Some(TokenText::new("fedgate1.abc"))));
        std::fs::write(&path, "x".repeat(20_000)).unwrap();
        assert!(read_token(&path).unwrap_err().contains("has 20000 bytes"));
        assert!(read_token(folder.path()).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn only_what_another_token_would_mend_is_final() {
        let refused = |code| MembershipError::JoinRefused { code, text: String::new() };
        assert!(is_final(&refused(model::code::TOKEN_USED)));
        assert!(is_final(&MembershipError::TokenExpired { ago_s: 1 }));
        assert!(!is_final(&refused(JOIN_RATE_LIMITED)));
        assert!(!is_final(&MembershipError::JoinInterrupted { problem: String::new() }));
        assert!(!is_final(&MembershipError::Busy));
    }
}
