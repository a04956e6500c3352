//! openraft's types with ours filled in.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::seam::{Machine, Pair};

openraft::declare_raft_types!(
    pub(super) Types:
        D = Vec<u8>,
        R = Vec<u8>,
        NodeId = u64,
        Node = openraft::EmptyNode,
        SnapshotData = Image
);

pub(super) type Entry = openraft::Entry<Types>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Vote = openraft::Vote<u64>;
pub(super) type Membership = openraft::Membership<u64, openraft::EmptyNode>;
pub(super) type StoredMembership = openraft::StoredMembership<u64, openraft::EmptyNode>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::EmptyNode>;
pub(super) type Snapshot = openraft::Snapshot<Types>;
pub(super) type StorageError = openraft::StorageError<u64>;
pub(super) type ReadError =
    openraft::error::RaftError<u64, openraft::error::CheckIsLeaderError<u64, openraft::EmptyNode>>;
pub(super) type Metrics = openraft::RaftMetrics<u64, openraft::EmptyNode>;

/// A frozen state. It is turned into bytes only when a node needs them.
pub(super) struct Image {
    machine: Arc<dyn Any + Send + Sync>,
    to_kv: fn(&(dyn Any + Send + Sync)) -> Vec<Pair>,
}

impl Image {
    pub(super) fn of<M: Machine>(machine: Arc<M>) -> Self {
        Self {
            machine,
            to_kv: |machine| machine.downcast_ref::<M>().map(M::to_kv).unwrap_or_default(),
        }
    }

    pub(super) fn machine<M: Machine>(&self) -> Option<Arc<M>> {
        Arc::clone(&self.machine).downcast().ok()
    }

    pub(super) fn to_kv(&self) -> Vec<Pair> {
        (self.to_kv)(&*self.machine)
    }
}

impl Clone for Image {
    fn clone(&self) -> Self {
        Self { machine: Arc::clone(&self.machine), to_kv: self.to_kv }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Image")
    }
}
