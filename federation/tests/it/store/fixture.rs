//! A register as the machine, a disk that can lose power, and a network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use federation::store::{
    CallError, Disk, DiskError, Family, KvWrite, Machine, Outcome, Pair, Peers, Profile,
    ProposeError, Role, RpcKind, Step, Store, StoreConfig,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use model::Revision;

/// Longer than anything that is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Keeps `key=value` commands; the reply is the old value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Register(pub(crate) BTreeMap<Vec<u8>, Vec<u8>>);

impl Register {
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.0.get(key.as_bytes()).map(|value| String::from_utf8(value.clone()).unwrap())
    }
}

impl Machine for Register {
    fn load(pairs: Vec<Pair>) -> Result<Self, String> {
        match pairs.iter().find(|(key, _)| key == b"poison") {
            Some(_) => Err("poison is no key".to_owned()),
            None => Ok(Self(pairs.into_iter().collect())),
        }
    }

    fn to_kv(&self) -> Vec<Pair> {
        self.0.clone().into_iter().collect()
    }

    fn apply(&mut self, _: Revision, command: &[u8]) -> Outcome {
        let text = String::from_utf8_lossy(command);
        let Some((key, value)) = text.split_once('=') else {
            return Outcome { reply: b"refused".to_vec(), writes: Vec::new() };
        };
        let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        let old = self.0.insert(key.clone(), value.clone());
        Outcome {
            reply: old.unwrap_or_default(),
            writes: vec![KvWrite { key, value: Some(value) }],
        }
    }
}

type Cells = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

/// A disk in memory that knows what has reached the device.
#[derive(Debug, Default)]
pub(crate) struct PowerDisk(Mutex<Power>);

#[derive(Clone, Debug, Default)]
struct Power {
    seen: Cells,
    durable: Cells,
    unsynced: Vec<Vec<Step>>,
    syncs: u64,
}

impl PowerDisk {
    /// What a power failure leaves.
    pub(crate) fn after_power_failure(&self) -> Self {
        let durable = self.0.lock().unwrap().durable.clone();
        Self(Mutex::new(Power { seen: durable.clone(), durable, ..Power::default() }))
    }

    /// What the end of the process leaves: everything that was written.
    pub(crate) fn after_kill(&self) -> Self {
        let seen = self.0.lock().unwrap().seen.clone();
        Self(Mutex::new(Power { durable: seen.clone(), seen, ..Power::default() }))
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    /// Flips one bit in a stored value; returns false if there is no such key.
    pub(crate) fn flip(&self, family: Family, key: &[u8], byte: usize) -> bool {
        let mut power = self.0.lock().unwrap();
        let Some(value) = power.seen.get_mut(&(family, key.to_vec())) else { return false };
        value[byte] ^= 4;
        true
    }

    pub(crate) fn keys(&self, family: Family) -> Vec<Vec<u8>> {
        let power = self.0.lock().unwrap();
        let of_family = power.seen.keys().filter(|(own, _)| *own == family);
        of_family.map(|(_, key)| key.clone()).collect()
    }

    pub(crate) fn remove(&self, family: Family, key: &[u8]) {
        self.0.lock().unwrap().seen.remove(&(family, key.to_vec()));
    }
}

fn act(cells: &mut Cells, batch: &[Step]) {
    for step in batch {
        match step.clone() {
            Step::Put { family, key, value } => {
                cells.insert((family, key), value);
            }
            Step::Delete { family, key } => {
                cells.remove(&(family, key));
            }
            Step::DeleteRange { family, from, to } => {
                cells.retain(|(own, key), _| {
                    *own != family || *key < from || to.as_ref().is_some_and(|to| key >= to)
                });
            }
        }
    }
}

impl Disk for PowerDisk {
    fn write(&self, batch: Vec<Step>, sync: bool) -> Result<(), DiskError> {
        let power = &mut *self.0.lock().unwrap();
        act(&mut power.seen, &batch);
        power.unsynced.push(batch);
        if sync {
            power.syncs += 1;
            for batch in power.unsynced.drain(..) {
                act(&mut power.durable, &batch);
            }
        }
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.0.lock().unwrap().seen.get(&(family, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        most_bytes: usize,
    ) -> Result<Vec<Pair>, DiskError> {
        let power = self.0.lock().unwrap();
        let mut pairs = Vec::new();
        let mut bytes = 0usize;
        for ((own, key), value) in power.seen.range((family, from.to_vec())..) {
            if *own != family || to.is_some_and(|to| key.as_slice() >= to) {
                break;
            }
            bytes += value.len();
            pairs.push((key.clone(), value.clone()));
            if bytes >= most_bytes {
                break;
            }
        }
        Ok(pairs)
    }

    fn last(&self, family: Family) -> Result<Option<Pair>, DiskError> {
        let power = self.0.lock().unwrap();
        let last = power.seen.iter().rfind(|((own, _), _)| *own == family);
        Ok(last.map(|((_, key), value)| (key.clone(), value.clone())))
    }

    fn blocks(&self) -> bool {
        false
    }
}

/// All nodes that run, and which ways between them are cut.
#[derive(Clone, Default)]
pub(crate) struct Mesh(Arc<MeshState>);

#[derive(Default)]
struct MeshState {
    nodes: Mutex<BTreeMap<u64, Store<Register>>>,
    cuts: Mutex<BTreeSet<(u64, u64)>>,
    snapshot_parts: Mutex<u64>,
    /// One way, beyond the least that there is.
    delay: Mutex<Duration>,
}

impl Mesh {
    /// One direction.
    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.0.cuts.lock().unwrap().insert((from, to));
    }

    /// Both directions between `node` and all others.
    pub(crate) fn isolate(&self, node: u64, others: impl IntoIterator<Item = u64>) {
        for other in others {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub(crate) fn heal(&self) {
        self.0.cuts.lock().unwrap().clear();
    }

    pub(crate) fn set_delay(&self, one_way: Duration) {
        *self.0.delay.lock().unwrap() = one_way;
    }

    async fn travel(&self) {
        // A network is never faster than that, and a paused clock moves only by sleeping.
        let delay = Duration::from_millis(1) + *self.0.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
    }

    pub(crate) fn snapshot_parts(&self) -> u64 {
        *self.0.snapshot_parts.lock().unwrap()
    }

    pub(crate) fn add(&self, store: Store<Register>) {
        self.0.nodes.lock().unwrap().insert(store.node_id(), store);
    }

    pub(crate) fn way_of(&self, own: u64) -> Arc<dyn Peers> {
        Arc::new(Way { own, mesh: self.clone() })
    }

    fn open(&self, from: u64, to: u64) -> bool {
        !self.0.cuts.lock().unwrap().contains(&(from, to))
    }
}

struct Way {
    own: u64,
    mesh: Mesh,
}

impl Peers for Way {
    fn call(
        &self,
        target: u64,
        kind: RpcKind,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let (own, mesh) = (self.own, self.mesh.clone());
        async move {
            mesh.travel().await;
            let node = mesh.0.nodes.lock().unwrap().get(&target).cloned();
            let Some(node) = node.filter(|_| mesh.open(own, target)) else {
                return Err(CallError::Unreachable("cut".into()));
            };
            if kind == RpcKind::Snapshot {
                *mesh.0.snapshot_parts.lock().unwrap() += 1;
            }
            let answer = node.handle(own, body).await;
            mesh.travel().await;
            if !mesh.open(target, own) {
                tokio::time::sleep(timeout).await;
                return Err(CallError::Timeout(timeout));
            }
            Ok(answer)
        }
        .boxed()
    }
}

/// Nodes with disks in memory.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) mesh: Mesh,
    pub(crate) stores: BTreeMap<u64, Store<Register>>,
    pub(crate) disks: BTreeMap<u64, Arc<PowerDisk>>,
    pub(crate) log_entries: Option<u64>,
    pub(crate) wan: bool,
}

pub(crate) fn config(node_id: u64) -> StoreConfig {
    StoreConfig::new(node_id, 5, Profile::Lan, 42)
}

impl Fleet {
    pub(crate) async fn start(&mut self, node: u64) -> Store<Register> {
        let disk = Arc::clone(self.disks.entry(node).or_default());
        let mut config = config(node);
        if self.wan {
            config.profile = Profile::Wan;
        }
        if let Some(entries) = self.log_entries {
            (config.log_entries, config.log_entries_kept) = (entries, 0);
        }
        let store = Store::open(config, disk, self.mesh.way_of(node)).await.unwrap();
        self.mesh.add(store.clone());
        self.stores.insert(node, store.clone());
        store
    }

    /// A store of these nodes, all voters, led by the first.
    pub(crate) async fn founded(nodes: &[u64]) -> Self {
        let mut fleet = Self::default();
        fleet.found(nodes).await;
        fleet
    }

    pub(crate) async fn found(&mut self, nodes: &[u64]) {
        for node in nodes {
            self.start(*node).await;
        }
        let first = self.stores[&nodes[0]].clone();
        first.found(b"founded=yes".to_vec()).await.unwrap();
        if nodes.len() > 1 {
            first.set_members(nodes.iter().copied().collect(), BTreeSet::new()).await.unwrap();
        }
    }

    /// The node's process ends without a word.
    pub(crate) async fn kill(&mut self, node: u64) {
        let store = self.stores.remove(&node).unwrap();
        self.mesh.0.nodes.lock().unwrap().remove(&node);
        store.shutdown().await;
        let left = Arc::new(self.disks[&node].after_kill());
        self.disks.insert(node, left);
    }

    /// All of them lose power at once.
    pub(crate) async fn power_failure(&mut self) {
        // What is on the devices now counts, not what a shutdown would still write.
        let left: Vec<_> = self
            .disks
            .iter()
            .map(|(node, disk)| (*node, Arc::new(disk.after_power_failure())))
            .collect();
        for store in std::mem::take(&mut self.stores).into_values() {
            self.mesh.0.nodes.lock().unwrap().remove(&store.node_id());
            store.shutdown().await;
        }
        self.disks.extend(left);
    }

    /// The node that leads among those that run, once there is one that all but cut ones follow.
    pub(crate) async fn leader(&self) -> Store<Register> {
        until("a leader", || {
            let leads = |store: &&Store<Register>| {
                let status = store.status();
                let fresh = store.leadership().borrow().own;
                status.role == Role::Leader && fresh
            };
            self.stores.values().find(leads).cloned()
        })
        .await
    }

    /// Proposes at whoever leads until it is acknowledged.
    pub(crate) async fn write(&self, command: &str) -> Revision {
        let writing = async {
            loop {
                match self.leader().await.propose(command.into()).await {
                    Ok(done) => return done.revision,
                    Err(ProposeError::TooLarge { .. } | ProposeError::AlreadyMember) => panic!(),
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, writing).await.expect("the store takes a write again")
    }
}

/// Looks until there is a value.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(value) = look() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(LIMIT, looking).await;
    found.unwrap_or_else(|_| panic!("waited {LIMIT:?} for {what}"))
}

/// Waits until the store has applied this.
pub(crate) async fn applied(store: &Store<Register>, revision: Revision) {
    let mut changes = store.changes();
    let reached = changes.wait_for(|now| *now >= revision);
    let reached = tokio::time::timeout(LIMIT, reached).await;
    reached.unwrap_or_else(|_| panic!("{store:?} never reached {revision}")).unwrap();
}
