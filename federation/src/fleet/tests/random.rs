//! Random histories: whatever commands come in whatever order, the same things hold.

use model::{ResourceKind, RoleSet};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use wire::store::{AdminChange, Change, Domain};

use super::fixture::{Cluster, World, allow, export, grant_namespace, key};
use super::reading::{Reader, keys};
use crate::fleet::{FleetState, View, serving};

const SEEDS: u64 = 12;
const STEPS: usize = 60;

#[test]
fn every_history_keeps_the_rules() {
    let mut accepted = 0;
    for seed in 0..SEEDS {
        accepted += History::new(seed).run();
    }
    let all = SEEDS as usize * STEPS;
    assert!(accepted > all / 3 && accepted < all, "{accepted} of {all} were accepted");
}

/// What a cluster has to forget when its command is refused.
type Undo = Box<dyn FnOnce(&mut History)>;

struct History {
    random: StdRng,
    world: World,
    clusters: Vec<Cluster>,
    readers: Vec<Reader>,
    named: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        let (mut world, east) = World::founded();
        let mut clusters = vec![east];
        for name in ["west", "south"] {
            let cluster = world.admit(&clusters[0], name);
            clusters.push(cluster);
        }
        let readers = clusters.iter().map(Reader::new).collect();
        Self { random: StdRng::seed_from_u64(seed), world, clusters, readers, named: 0 }
    }

    fn run(mut self) -> usize {
        let mut accepted = 0;
        for _ in 0..STEPS {
            let (change, undo) = self.change();
            match self.world.apply(change) {
                Ok(_) => accepted += 1,
                Err(_) => undo(&mut self),
            }
            self.check();
        }
        let loaded = FleetState::load(self.world.state.to_kv()).unwrap();
        assert_eq!(loaded.to_kv(), self.world.state.to_kv());
        accepted
    }

    fn pick(&mut self) -> usize {
        self.random.random_range(0..self.clusters.len())
    }

    /// Some command, legitimate or not, and what its cluster has to forget if it is refused.
    fn change(&mut self) -> (Change, Undo) {
        let (one, two) = (self.pick(), self.pick());
        let nothing: Undo = Box::new(|_| ());
        match self.random.random_range(0..12) {
            0..=5 => self.publish(one),
            6 => {
                let change = self.publish(one).0;
                let Change::Publish(mut publish) = change else { unreachable!() };
                publish.head.signature[0] ^= 1;
                (Change::Publish(publish), self.restore(one))
            }
            7 => self.admit(one),
            8 => (self.clusters[one].leave(&self.clusters[two]), nothing),
            9 => {
                let change = self.clusters[one].revoke(&self.clusters[two], &[]);
                (change, nothing)
            }
            10 => {
                let clusters = vec![self.clusters[two].id()];
                let generation = self.random.random_range(1..5);
                let change = AdminChange::Standbys { generation, clusters };
                (self.clusters[one].admin(change), nothing)
            }
            _ => self.rotate(one),
        }
    }

    /// Puts back what the store has of a cluster.
    fn restore(&self, index: usize) -> Undo {
        let id = self.clusters[index].id();
        Box::new(move |history| {
            let fleet = history.world.state.fleet();
            let records = fleet.records(&id);
            let records = records.map(|it| (it.key().clone(), it.bytes().clone())).collect();
            let mark = fleet.high_water(&id);
            let cluster = history.clusters.iter_mut().find(|it| it.id() == id).unwrap();
            cluster.records = records;
            cluster.mark.generation = mark.map_or(0, |mark| mark.generation);
        })
    }

    fn publish(&mut self, index: usize) -> (Change, Undo) {
        let undo = self.restore(index);
        let names = ["shop/api", "shop/web", "pay/card"];
        let name = names[self.random.random_range(0..names.len())];
        let (port, to) = (self.random.random_range(80..83), self.pick());
        let to = self.clusters[to].member.name.to_string();
        let mut puts = vec![export(name, port)];
        if self.random.random_bool(0.7) {
            puts.push(allow(name, &[to.as_str()]));
        }
        if self.random.random_bool(0.1) {
            puts.push(grant_namespace("g", &["shop"], &[to.as_str(), "east"]));
        }
        let removes = match self.random.random_bool(0.3) {
            true => vec![export(names[self.random.random_range(0..names.len())], 80)],
            false => vec![],
        };
        let clash = |it: &model::Resource| puts.iter().any(|put| put.key() == it.key());
        let removes: Vec<_> = removes.into_iter().filter(|it| !clash(it)).collect();
        if self.random.random_bool(0.1) {
            // A record of somebody else's.
            let other = self.pick();
            let put = self.clusters[other].put(&export("shop/stolen", 80));
            return (self.clusters[index].publish_raw(vec![put], vec![]), undo);
        }
        (self.clusters[index].publish(&puts, &removes), undo)
    }

    fn admit(&mut self, by: usize) -> (Change, Undo) {
        self.named += 1;
        let name = format!("c{}", self.named);
        let by = &self.clusters[by];
        let grant = by.grant(&name, RoleSet::all(), by.member.delegation_depth.saturating_sub(1));
        let cluster = Cluster::joining(&name, &grant, by);
        let issued = self.world.apply(Change::IssueToken(by.sign(Domain::Token, &grant.encode())));
        let change = cluster.redeem(by);
        if issued.is_ok() {
            self.readers.push(Reader::new(&cluster));
            self.clusters.push(cluster);
        }
        (change, Box::new(|_| ()))
    }

    fn rotate(&mut self, index: usize) -> (Change, Undo) {
        self.named += 1;
        let cluster = &mut self.clusters[index];
        let (mark, member) = (cluster.mark, cluster.member.clone());
        let seed = format!("k{}", self.named);
        let old = std::mem::replace(&mut cluster.seed, seed.clone());
        let change = cluster.rekey(None, &seed, mark);
        let undo = move |history: &mut Self| {
            let cluster = &mut history.clusters[index];
            (cluster.key, cluster.seed, cluster.member) = (key(&old), old, member);
        };
        (change, Box::new(undo))
    }

    fn check(&mut self) {
        let fleet = self.world.state.fleet();
        for owner in fleet.owners() {
            let cluster = owner.head().cluster;
            assert!(fleet.member(&cluster).is_some(), "only members have records");
            assert!(owner.records().all(|record| record.key().cluster == cluster), "owner rule");
            assert_eq!(fleet.high_water(&cluster), Some(owner.head().mark));
        }
        let decided = serving(fleet);
        for reader in &mut self.readers {
            let view = View::of(fleet, &decided, &reader.id);
            for (key, _) in keys(view.fleet()) {
                let record = fleet.record(&key).expect("a view has nothing of its own");
                let own = key.cluster == reader.id;
                let public = matches!(
                    record.kind(),
                    Some(ResourceKind::ClusterPeer | ResourceKind::NamespaceGrant)
                );
                assert!(own || public || may_see(fleet, reader, &key), "{key} was shown");
            }
            if self.random.random_bool(0.5) {
                reader.read(&self.world);
            }
        }
    }
}

/// Whether the reader's name stands in a policy for the record, said again and simpler.
fn may_see(fleet: &crate::fleet::Fleet, reader: &Reader, key: &wire::store::StoreKey) -> bool {
    let Some(member) = fleet.member(&reader.id) else { return false };
    let names = |policy: &model::AccessPolicy| {
        policy.allow.iter().any(|entry| entry.cluster.as_ref() == Some(&member.name))
    };
    let policies = fleet.records(&key.cluster).filter_map(|record| match record.resource() {
        Some(model::Resource::AccessPolicy(policy)) => Some((record.key(), policy)),
        _ => None,
    });
    let allowed = policies.into_iter().any(|(policy_key, policy)| {
        let same = policy_key.namespace == key.namespace;
        names(policy) && same && (policy.targets.contains(&key.name) || policy_key == key)
    });
    let conflict = fleet.records(&reader.id).any(|record| {
        (record.key().namespace.as_ref(), &record.key().name, record.key().kind)
            == (key.namespace.as_ref(), &key.name, key.kind)
    });
    allowed || conflict
}
