//! Clusters that no new exchanges are sent to because an operator says so: a small file, so that a
//! restart changes nothing.
//!
//! A peer is cordoned for this cluster's gateways alone. The own cluster is cordoned for all others:
//! its ClusterPeer in the store says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::code::{CLUSTER_NOT_FOUND, Code, DATA_FOLDER_UNUSABLE};
use model::{ClusterName, ObjectName, Resource, ResourceKey, ResourceKind, ResourceSet};
use tokio::sync::watch;

use crate::folder::{FolderError, io_error, replace_file};
use crate::limits::{CORDON_REASON_CHARS_MAX, CORDONS_MAX};

const FILE: &str = "cordons";
const HEAD: &str = "fedgate-cordons/1";

/// Whom an operator cordoned, and why.
pub(crate) type CordonSet = BTreeMap<ClusterName, Cordon>;

/// Who is cordoned, now and whenever that changes.
pub(crate) type CordonWatch = watch::Receiver<Arc<CordonSet>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cordon {
    /// In whole milliseconds.
    pub(crate) since: SystemTime,
    /// One line; may be empty.
    pub(crate) reason: String,
}

/// The cordons of one node.
#[derive(Debug)]
pub(crate) struct Cordons {
    path: PathBuf,
    /// Held through a change, the disk included.
    changing: Mutex<()>,
    set: watch::Sender<Arc<CordonSet>>,
}

/// Why a cordon could not be set, or those on disk not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CordonError {
    #[error("line {line} of {} is no cordon: {problem}; mend the line, or remove the file", path.display())]
    Damaged { path: PathBuf, line: usize, problem: &'static str },
    #[error("reason: {0} characters are more than {CORDON_REASON_CHARS_MAX}; say it shorter")]
    Reason(usize),
    #[error("{CORDONS_MAX} clusters are cordoned, and no more can be; uncordon one")]
    Full,
    #[error("cluster: {0} is no peer of this cluster; `fedctl clusters` lists them")]
    NoPeer(ClusterName),
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl CordonError {
    /// The registered code of this failure, if it has one.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Damaged { .. } | Self::Folder(_) => Some(DATA_FOLDER_UNUSABLE),
            Self::NoPeer(_) => Some(CLUSTER_NOT_FOUND),
            Self::Reason(_) | Self::Full => None,
        }
    }
}

impl Cordons {
    /// Reads what an earlier process left.
    pub(crate) fn open(folder: &Path) -> Result<Self, CordonError> {
        let path = folder.join(FILE);
        let set = match fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text)?,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => CordonSet::new(),
            Err(problem) => return Err(io_error("read", &path)(problem).into()),
        };
        Ok(Self { path, changing: Mutex::default(), set: watch::Sender::new(Arc::new(set)) })
    }

    pub(crate) fn watch(&self) -> CordonWatch {
        self.set.subscribe()
    }

    pub(crate) fn current(&self) -> Arc<CordonSet> {
        self.set.borrow().clone()
    }

    /// Cordons a cluster; on disk first. `false`: it was so already, for whatever reason.
    pub(crate) fn cordon(
        &self,
        cluster: ClusterName,
        reason: &str,
        now: SystemTime,
    ) -> Result<bool, CordonError> {
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        let length = reason.chars().count();
        if length > CORDON_REASON_CHARS_MAX {
            return Err(CordonError::Reason(length));
        }
        self.change(|set| {
            if set.contains_key(&cluster) {
                return Ok(false);
            }
            if set.len() >= CORDONS_MAX {
                return Err(CordonError::Full);
            }
            set.insert(cluster, Cordon { since: UNIX_EPOCH + millis(now), reason });
            Ok(true)
        })
    }

    /// Lets exchanges flow again. `false`: nobody had cordoned it.
    pub(crate) fn uncordon(&self, cluster: &ClusterName) -> Result<bool, CordonError> {
        self.change(|set| Ok(set.remove(cluster).is_some()))
    }

    fn change(
        &self,
        change: impl FnOnce(&mut CordonSet) -> Result<bool, CordonError>,
    ) -> Result<bool, CordonError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = CordonSet::clone(&self.current());
        let changed = change(&mut next)?;
        if changed {
            replace_file(&self.path, format(&next).as_bytes())?;
            self.set.send_replace(Arc::new(next));
        }
        Ok(changed)
    }
}

/// Marks the ClusterPeers of cordoned clusters, whoever declared them.
pub(crate) fn mark(resources: &mut ResourceSet, cordons: &CordonSet) {
    for cluster in cordons.keys() {
        let Ok(name) = ObjectName::parse(cluster.as_str()) else { continue };
        let key = ResourceKey { kind: ResourceKind::ClusterPeer, namespace: None, name };
        let Some(Resource::ClusterPeer(peer)) = resources.get(&key).map(|peer| &**peer) else {
            continue;
        };
        let mut peer = peer.clone();
        peer.cordoned = true;
        resources.upsert(Resource::ClusterPeer(peer));
    }
}

/// One line for each cluster: name, milliseconds since 1970, reason.
fn format(set: &CordonSet) -> String {
    let mut text = format!("{HEAD}\n");
    for (cluster, Cordon { since, reason }) in set {
        let _ = writeln!(text, "{cluster} {} {reason}", millis(*since).as_millis());
    }
    text
}

fn parse(path: &Path, text: &str) -> Result<CordonSet, CordonError> {
    let damaged = |line: usize, problem: &'static str| {
        let (path, line) = (path.to_path_buf(), line + 1);
        move || CordonError::Damaged { path, line, problem }
    };
    let mut lines = text.lines().enumerate();
    if lines.next().is_none_or(|(_, head)| head != HEAD) {
        return Err(damaged(0, "the file begins with another line than fedgate-cordons/1")());
    }
    let mut set = CordonSet::new();
    for (number, line) in lines {
        let mut words = line.splitn(3, ' ');
        let cluster = words.next().and_then(|name| ClusterName::parse(name).ok());
        let cluster = cluster.ok_or_else(damaged(number, "it begins with no cluster's name"))?;
        let since = words.next().and_then(|since| since.parse().ok());
        let since =
            since.map(Duration::from_millis).and_then(|since| UNIX_EPOCH.checked_add(since));
        let since = since.ok_or_else(damaged(number, "there is no time after the name"))?;
        let reason = words.next().unwrap_or_default().to_owned();
        set.insert(cluster, Cordon { since, reason });
    }
    Ok(set)
}

fn millis(time: SystemTime) -> Duration {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Duration::from_millis(u64::try_from(since).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ClusterName {
        ClusterName::parse(text).unwrap()
    }

    #[test]
    fn cordons_outlast_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let cordons = Cordons::open(folder.path()).unwrap();
        assert!(cordons.cordon(name("west"), "new  disks\nthere", now).unwrap());
        assert!(!cordons.cordon(name("west"), "again", now).unwrap(), "it was so already");
        assert!(cordons.cordon(name("south"), "", now).unwrap());
        let again = Cordons::open(folder.path()).unwrap();
        assert_eq!(again.current(), cordons.current());
        assert_eq!(again.current()[&name("west")].reason, "new disks there");
        assert!(again.uncordon(&name("west")).unwrap());
        assert!(!again.uncordon(&name("west")).unwrap());
        let third = Cordons::open(folder.path()).unwrap();
        assert_eq!(third.current().keys().cloned().collect::<Vec<_>>(), [name("south")]);
    }

    #[test]
    fn a_damaged_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        for (text, wanted) in [
            ("", "line 1 of"),
            ("fedgate-cordons/2\n", "line 1 of"),
            ("fedgate-cordons/1\nwest 5 why\nA/B 5\n", "line 3 of"),
            ("fedgate-cordons/1\nwest\n", "there is no time"),
            ("fedgate-cordons/1\nwest x\n", "there is no time"),
        ] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let error = Cordons::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cordons = Cordons::open(folder.path()).unwrap();
        let long = "x".repeat(CORDON_REASON_CHARS_MAX + 1);
        let error = cordons.cordon(name("west"), &long, SystemTime::now()).unwrap_err();
        assert!(error.to_string().starts_with("reason: 257 characters"), "{error}");
        let cordon = Cordon { since: UNIX_EPOCH, reason: String::new() };
        let full = (0..CORDONS_MAX).map(|number| (name(&format!("c{number}")), cordon.clone()));
        fs::write(folder.path().join(FILE), format(&full.collect())).unwrap();
        let cordons = Cordons::open(folder.path()).unwrap();
        let error = cordons.cordon(name("west"), "", SystemTime::now()).unwrap_err();
        assert!(matches!(error, CordonError::Full), "{error}");
        assert_eq!(cordons.current().len(), CORDONS_MAX);
    }
}
