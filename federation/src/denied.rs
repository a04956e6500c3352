//! SVIDs of this cluster that it denies because their keys are in other hands: a small file, so that a
//! restart changes nothing. Other clusters read them in this one's ClusterPeer
//! (docs/design/0011-denying-one-svid.md).

mod revoke;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::limits::{CLOCK_SKEW, SVID_LIFETIME_MAX};
use identity::{ClusterTrust, RevokedSvids};
use model::code::{Code, DATA_FOLDER_UNUSABLE};
use model::{RevokedSvid, SpiffeId, TrustDomain};
use tokio::sync::watch;
use wire::resource::limits::{REVOKED_SVID_ID_BYTES_MAX, REVOKED_SVIDS_MAX};

use crate::folder::{FolderError, io_error, replace_file};
use crate::limits::DENIAL_REASON_CHARS_MAX;

pub(crate) use revoke::{Denying, SvidRevoked};

const FILE: &str = "revoked-svids";
const HEAD: &str = "fedgate-revoked-svids/1";

/// After this long every certificate that an entry denies has run out, by whatever clock.
const DENIAL_LIFE: Duration =
    Duration::from_secs(SVID_LIFETIME_MAX.as_secs() + 2 * CLOCK_SKEW.as_secs());

/// What is denied.
pub(crate) type DenialSet = BTreeMap<SpiffeId, Denial>;

/// What is denied, now and whenever that changes.
pub(crate) type DenialWatch = watch::Receiver<Arc<DenialSet>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    /// Certificates that begin earlier are refused.
    pub(crate) not_before_unix_s: u64,
    /// One line; may be empty. It is this cluster's alone.
    pub(crate) reason: String,
}

/// The denials of one cluster.
#[derive(Debug)]
pub(crate) struct Denials {
    path: PathBuf,
    own: TrustDomain,
    /// Held through a change, the disk included.
    changing: Mutex<()>,
    set: watch::Sender<Arc<DenialSet>>,
}

/// Why an SVID could not be denied, or those on disk not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DenialError {
    #[error("line {line} of {} denies no SVID: {problem}; mend the line, or remove the file", path.display())]
    Damaged { path: PathBuf, line: usize, problem: &'static str },
    #[error(
        "spiffe_id: {id} is of another trust domain than this cluster's, {own}: only the cluster that \
         issues an SVID revokes it; `fedctl revoke CLUSTER` shuts another cluster out"
    )]
    Foreign { id: SpiffeId, own: TrustDomain },
    #[error(
        "spiffe_id: {0} names the trust domain, not an SVID; `fedctl trust rotate` makes a new root"
    )]
    NoPath(SpiffeId),
    #[error("spiffe_id: {0} bytes are more than {REVOKED_SVID_ID_BYTES_MAX}")]
    TooLong(usize),
    #[error("reason: {0} characters are more than {DENIAL_REASON_CHARS_MAX}; say it shorter")]
    Reason(usize),
    #[error(
        "{REVOKED_SVIDS_MAX} SVIDs are revoked, and no more can be; when so many keys are in other hands, \
         make a new root: `fedctl trust rotate`"
    )]
    Full,
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl DenialError {
    /// The registered code of this failure, if it has one.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Damaged { .. } | Self::Folder(_) => Some(DATA_FOLDER_UNUSABLE),
            _ => None,
        }
    }
}

impl Denials {
    /// Reads what an earlier process left.
    pub(crate) fn open(folder: &Path, own: TrustDomain) -> Result<Self, DenialError> {
        let path = folder.join(FILE);
        let set = match fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text)?,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => DenialSet::new(),
            Err(problem) => return Err(io_error("read", &path)(problem).into()),
        };
        Ok(Self { path, own, changing: Mutex::default(), set: watch::Sender::new(Arc::new(set)) })
    }

    pub(crate) fn watch(&self) -> DenialWatch {
        self.set.subscribe()
    }

    pub(crate) fn current(&self) -> Arc<DenialSet> {
        self.set.borrow().clone()
    }

    /// What others are told: no certificate that an entry left out of it denies lives any more.
    pub(crate) fn in_force(&self, now: SystemTime) -> Vec<RevokedSvid> {
        let entry = |(id, denial): (&SpiffeId, &Denial)| RevokedSvid {
            id: id.clone(),
            not_before_unix_s: denial.not_before_unix_s,
        };
        self.current().iter().filter(|(_, denial)| counts(denial, now)).map(entry).collect()
    }

    /// Denies every SVID of this name that was issued up to now; on disk first. One that is issued in
    /// the next second is good.
    pub(crate) fn deny(
        &self,
        id: SpiffeId,
        reason: &str,
        now: SystemTime,
    ) -> Result<RevokedSvid, DenialError> {
        if *id.trust_domain() != self.own {
            return Err(DenialError::Foreign { id, own: self.own.clone() });
        }
        if id.path().is_empty() {
            return Err(DenialError::NoPath(id));
        }
        if id.as_str().len() > REVOKED_SVID_ID_BYTES_MAX {
            return Err(DenialError::TooLong(id.as_str().len()));
        }
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        let length = reason.chars().count();
        if length > DENIAL_REASON_CHARS_MAX {
            return Err(DenialError::Reason(length));
        }
        let not_before_unix_s = good_from(now);
        self.change(now, |set| {
            if set.len() >= REVOKED_SVIDS_MAX && !set.contains_key(&id) {
                return Err(DenialError::Full);
            }
            set.insert(id.clone(), Denial { not_before_unix_s, reason });
            Ok(())
        })?;
        Ok(RevokedSvid { id, not_before_unix_s })
    }

    /// Takes up what this cluster has published: a folder that was lost or put back takes nothing back
    /// that others were told.
    pub(crate) fn adopt(
        &self,
        published: &[RevokedSvid],
        now: SystemTime,
    ) -> Result<(), DenialError> {
        let current = self.current();
        let is_news = |it: &&RevokedSvid| {
            let denial = Denial { not_before_unix_s: it.not_before_unix_s, reason: String::new() };
            let known = current.get(&it.id).map_or(0, |denial| denial.not_before_unix_s);
            counts(&denial, now) && known < it.not_before_unix_s
        };
        let news: Vec<&RevokedSvid> = published.iter().filter(is_news).collect();
        if news.is_empty() {
            return Ok(());
        }
        self.change(now, |set| {
            for RevokedSvid { id, not_before_unix_s } in news {
                let reason = set.get(id).map_or_else(String::new, |denial| denial.reason.clone());
                if set.len() < REVOKED_SVIDS_MAX || set.contains_key(id) {
                    let not_before_unix_s = *not_before_unix_s;
                    set.insert(id.clone(), Denial { not_before_unix_s, reason });
                }
            }
            Ok(())
        })
    }

    fn change(
        &self,
        now: SystemTime,
        change: impl FnOnce(&mut DenialSet) -> Result<(), DenialError>,
    ) -> Result<(), DenialError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = DenialSet::clone(&self.current());
        next.retain(|_, denial| counts(denial, now));
        change(&mut next)?;
        replace_file(&self.path, format(&next).as_bytes())?;
        self.set.send_replace(Arc::new(next));
        Ok(())
    }
}

/// What the ports for this cluster's own processes refuse, from now on and whenever that changes.
pub(crate) fn keep_out(
    trust: Arc<ClusterTrust>,
    mut denials: DenialWatch,
) -> impl Future<Output = ()> + Send {
    trust.replace_revoked(revoked(&denials.borrow_and_update()));
    async move {
        while denials.changed().await.is_ok() {
            trust.replace_revoked(revoked(&denials.borrow_and_update()));
        }
    }
}

/// As it is judged by. What is too old denies nobody.
fn revoked(set: &DenialSet) -> RevokedSvids {
    let entry = |(id, denial): (&SpiffeId, &Denial)| RevokedSvid {
        id: id.clone(),
        not_before_unix_s: denial.not_before_unix_s,
    };
    set.iter().map(entry).collect()
}

/// The CA dates an SVID back by the skew of clocks, and X.509 counts whole seconds.
fn good_from(now: SystemTime) -> u64 {
    unix_s(now - CLOCK_SKEW) + 1
}

fn counts(denial: &Denial, now: SystemTime) -> bool {
    unix_s(now) <= denial.not_before_unix_s.saturating_add(DENIAL_LIFE.as_secs())
}

fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// One line for each SVID: from when on certificates are good, in seconds since 1970, name, reason.
fn format(set: &DenialSet) -> String {
    let mut text = format!("{HEAD}\n");
    for (id, Denial { not_before_unix_s, reason }) in set {
        let _ = writeln!(text, "{not_before_unix_s} {id} {reason}");
    }
    text
}

fn parse(path: &Path, text: &str) -> Result<DenialSet, DenialError> {
    let damaged = |line: usize, problem: &'static str| {
        let (path, line) = (path.to_path_buf(), line + 1);
        move || DenialError::Damaged { path, line, problem }
    };
    let mut lines = text.lines().enumerate();
    if lines.next().is_none_or(|(_, head)| head != HEAD) {
        let problem = "the file begins with another line than fedgate-revoked-svids/1";
        return Err(damaged(0, problem)());
    }
    let mut set = DenialSet::new();
    for (number, line) in lines {
        let mut words = line.splitn(3, ' ');
        let not_before_unix_s =
            words.next().and_then(|since| since.parse().ok()).filter(|s| *s > 0);
        let not_before_unix_s =
            not_before_unix_s.ok_or_else(damaged(number, "it begins with no time"))?;
        let id = words.next().and_then(|id| SpiffeId::parse(id).ok());
        let id = id.ok_or_else(damaged(number, "there is no SPIFFE ID after the time"))?;
        let reason = words.next().unwrap_or_default().to_owned();
        set.insert(id, Denial { not_before_unix_s, reason });
    }
    Ok(set)
}

#[cfg(test)]
mod tests;
