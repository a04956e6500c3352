//! Whom this node speaks with, beside the store: a node whose store is lost finds the others by it.
//!
//! A file holds the federation's id, and one for each of the eldest members its ClusterPeer, as a record.
//! Nothing of it is believed: what those members say is verified from the federation's id up, as after a
//! join.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{ClusterId, ClusterName, ClusterPeer, FederationId, Resource, ResourceKind, Revision};
use wire::store::{Record, StoreKey};

use super::departed::Peer;
use super::node::Node;
use crate::fleet::Fleet;
use crate::folder::{FolderError, create_private_folder, io_error, replace_file};
use crate::limits::{CONTACTS_MAX, FOLLOW_INTERVAL};
use crate::transport::TransportPeer;

const FEDERATION: &str = "federation";

#[derive(Debug)]
pub(crate) struct Contacts {
    folder: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    known: Option<Known>,
    /// The federation was left: a task of the old node that is still at it changes nothing any more.
    is_over: bool,
}

/// What is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) federation: FederationId,
    pub(super) peers: BTreeMap<ClusterId, ClusterPeer>,
}

impl Contacts {
    /// What cannot be read counts as not there.
    pub(crate) fn open(folder: &Path) -> Self {
        let kept = Kept { known: read(folder), is_over: false };
        Self { folder: folder.into(), kept: Mutex::new(kept) }
    }

    /// What is known of others; `None` also if there are none.
    fn known(&self) -> Option<Known> {
        self.lock().known.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().known.is_none()
    }

    /// Keeps these, if they are others than before.
    fn keep(&self, federation: FederationId, peers: Vec<Peer>) -> Result<(), FolderError> {
        // Whether one is cordoned at the moment is nothing to remember.
        let bare = |(id, peer): Peer| (id, ClusterPeer { cordoned: false, ..peer });
        let peers: BTreeMap<ClusterId, ClusterPeer> = peers.into_iter().map(bare).collect();
        let wanted = (!peers.is_empty()).then_some(Known { federation, peers });
        let mut kept = self.lock();
        if kept.known == wanted || kept.is_over {
            return Ok(());
        }
        self.write(kept.known.as_ref(), wanted.as_ref())?;
        kept.known = wanted;
        Ok(())
    }

    fn write(&self, known: Option<&Known>, wanted: Option<&Known>) -> Result<(), FolderError> {
        let Some(wanted) = wanted else { return remove(&self.folder) };
        if known.is_none_or(|known| known.federation != wanted.federation) {
            remove(&self.folder)?;
            create_private_folder(&self.folder)?;
            let id = wanted.federation.to_string();
            replace_file(&self.folder.join(FEDERATION), id.as_bytes())?;
        }
        let known = known.filter(|known| known.federation == wanted.federation);
        let before = |id: &ClusterId| known.and_then(|known| known.peers.get(id));
        for (id, peer) in wanted.peers.iter().filter(|(id, peer)| before(id) != Some(*peer)) {
            let record = Record::encode([0; 16], &Resource::ClusterPeer(peer.clone()));
            replace_file(&self.folder.join(file_name(id, &peer.name)), &record)?;
        }
        let old = known.into_iter().flat_map(|known| &known.peers);
        let stays = |id: &ClusterId, peer: &ClusterPeer| {
            wanted.peers.get(id).is_some_and(|now| now.name == peer.name)
        };
        for (id, peer) in old.filter(|(id, peer)| !stays(id, peer)) {
            let path = self.folder.join(file_name(id, &peer.name));
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    /// Forgets all after leaving, for good.
    pub(crate) fn clear(&self) -> Result<(), FolderError> {
        let mut kept = self.lock();
        remove(&self.folder)?;
        *kept = Kept { known: None, is_over: true };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Keeps the eldest members, while there is a state that names them.
    pub(super) async fn keep_contacts(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(FOLLOW_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut kept: Option<Revision> = None;
        while self.stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let Some((revision, fleet)) = self.state() else { continue };
            let Some(federation) = fleet.federation().filter(|_| kept != Some(revision)) else {
                continue;
            };
            kept = Some(revision);
            let (contacts, peers) = (self.contacts.clone(), self.eldest_peers(&fleet));
            let keep = move || contacts.keep(federation, peers).map_err(|e| e.to_string());
            let done = tokio::task::spawn_blocking(keep).await;
            if let Err(problem) = done.unwrap_or_else(|ended| Err(ended.to_string())) {
                tracing::warn!(problem, "the others' addresses are not kept beside the store");
            }
        }
    }

    fn eldest_peers(&self, fleet: &Fleet) -> Vec<Peer> {
        let (shut_out, _) = self.shut_out_early(fleet);
        let others = self.elders().filter(|id| *id != self.own.id && !shut_out.contains(id));
        let peer = |id: ClusterId| {
            let member = fleet.member(&id)?;
            let mut records = fleet.records(&id);
            let record = records.find(|it| it.kind() == Some(ResourceKind::ClusterPeer))?;
            let Resource::ClusterPeer(peer) = record.resource()? else { return None };
            let mut peer = ClusterPeer { name: member.name.clone(), ..peer.clone() };
            peer.trust_bundles.retain(|it| member.trust_domains.contains(&it.trust_domain));
            Some((id, peer))
        };
        others.filter_map(peer).take(CONTACTS_MAX).collect()
    }

    /// A node that has lost what the store said begins with those it knew, as one that has joined.
    pub(super) fn look_for_others(&self) {
        let Some(known) = self.contacts.known().filter(|_| self.has_lost_its_state()) else {
            return;
        };
        tracing::warn!(others = known.peers.len(), "asking those who were known for the state");
        self.replica.begin(known.federation);
        self.replica.introduce(known.peers.into_keys().collect());
    }

    /// Those to begin with. They cannot know where this node is, so connections to them are kept.
    pub(super) fn contacted(&self) -> Vec<TransportPeer> {
        let known = self.contacts.known().filter(|_| self.has_lost_its_state());
        let peers = known.into_iter().flat_map(|known| known.peers);
        let peer = |(id, peer): Peer| TransportPeer {
            name: peer.name,
            id,
            addresses: peer.addresses,
            bundles: peer.trust_bundles,
            revoked_svids: peer.revoked_svids,
            hold: true,
        };
        peers.map(peer).collect()
    }
}

fn remove(folder: &Path) -> Result<(), FolderError> {
    match fs::remove_dir_all(folder) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", folder)(problem))
        }
        _ => Ok(()),
    }
}

fn file_name(id: &ClusterId, name: &ClusterName) -> String {
    format!("{id}.{name}")
}

fn read(folder: &Path) -> Option<Known> {
    let federation = fs::read_to_string(folder.join(FEDERATION)).ok()?;
    let federation = FederationId::from_bytes(parse_id(&federation)?);
    let names = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (id, name) = name.split_once('.')?;
        Some((ClusterId::from_bytes(parse_id(id)?), ClusterName::parse(name).ok()?))
    });
    let peer = |(id, name): (ClusterId, ClusterName)| {
        let bytes = fs::read(folder.join(file_name(&id, &name))).ok()?;
        let named = ClusterPeer {
            name,
            addresses: Vec::new(),
            trust_bundles: Vec::new(),
            cordoned: false,
            revoked_svids: Vec::new(),
        };
        let key = StoreKey::of(id, &Resource::ClusterPeer(named).key());
        match Record::decode(&key, &bytes).ok()?.resource? {
            Resource::ClusterPeer(peer) => Some((id, peer)),
            _ => None,
        }
    };
    let peers: BTreeMap<_, _> = names.take(CONTACTS_MAX).filter_map(peer).collect();
    (!peers.is_empty()).then_some(Known { federation, peers })
}

fn parse_id(hex: &str) -> Option<[u8; 16]> {
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use model::{PeerAddress, Transport};

    use super::*;

    fn peer(id: u8, name: &str, port: u16) -> Peer {
        let address = PeerAddress { transport: Transport::Quic, host: "192.0.2.1".into(), port };
        let peer = ClusterPeer {
            name: name.parse().unwrap(),
            addresses: vec![address],
            trust_bundles: Vec::new(),
            cordoned: true,
            revoked_svids: Vec::new(),
        };
        (ClusterId::from_bytes([id; 16]), peer)
    }

    #[test]
    fn who_was_kept_last_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contacts");
        let contacts = Contacts::open(&path);
        assert!(contacts.is_empty());
        let [federation, other] = [1, 2].map(|byte| FederationId::from_bytes([byte; 16]));
        let (east, west, moved) = (peer(1, "east", 1), peer(2, "west", 2), peer(1, "east", 3));
        contacts.keep(federation, vec![east.clone(), west.clone()]).unwrap();
        contacts.keep(federation, vec![moved.clone(), west.clone()]).unwrap();
        let known = Contacts::open(&path).known().unwrap();
        assert_eq!(known, contacts.known().unwrap());
        assert_eq!(known.federation, federation);
        assert_eq!(known.peers[&east.0].addresses, moved.1.addresses);
        assert!(known.peers.len() == 2 && !known.peers[&east.0].cordoned);

        fs::write(path.join(file_name(&west.0, &west.1.name)), b"x").unwrap();
        assert_eq!(Contacts::open(&path).known().unwrap().peers.len(), 1, "what cannot be read");
        contacts.keep(federation, vec![moved.clone()]).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
        contacts.keep(other, vec![west.clone()]).unwrap();
        assert_eq!(Contacts::open(&path).known().unwrap().federation, other);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2, "nothing of another federation stays");
        contacts.clear().unwrap();
        contacts.clear().unwrap();
        contacts.keep(other, vec![west]).unwrap();
        assert!(Contacts::open(&path).is_empty() && !path.exists(), "the old node's last word");
    }
}
