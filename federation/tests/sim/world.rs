//! The course of a simulation: one millisecond after the other, one event at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use federation::store::{ProposeError, Role, Store, StoreStatus, reseed};
use futures_util::FutureExt as _;

use super::bus::{Bus, Letter, Parcel};
use super::canon::Canon;
use super::client::{Client, Done, Sight, Tally};
use super::deeds::Undo;
use super::dice::Dice;
use super::disk::End;
use super::net::{Net, describe};
use super::node::{Birth, Node, damaged};
use super::plant::{self, Plant};
use super::scene::Scene;
use super::subject::{Clients as _, Subject};
use super::trace::{Trace, digest};

/// How often a node runs when nothing comes for it; its timers in between all run then, in order.
const ROUND_MS: u64 = 5;

pub(crate) struct World<S: Subject> {
    pub(super) scene: Scene,
    pub(super) bus: Arc<Bus>,
    pub(super) nodes: Vec<Node<S>>,
    pub(super) net: Net,
    pub(super) canon: Canon<S>,
    pub(super) now_ms: u64,
    pub(super) dice: Dice,
    pub(super) tally: Tally,
    pub(super) clients: Vec<Client>,
    pub(super) subject: S::Clients,
    /// What was acknowledged or read last: everything later must include it.
    pub(super) floor: u64,
    /// Dead nodes, and when they start again.
    pub(super) starts: BTreeMap<u64, u64>,
    /// A node that lost its log and waits to be let go.
    pub(super) reseeding: Option<u64>,
    /// A change of members or leaders is in progress.
    pub(super) changing: bool,
    pub(super) founded: bool,
    /// The greatest acknowledged write.
    pub(super) acknowledged: u64,
    pub(super) undos: Vec<(u64, Undo)>,
    leaders: BTreeMap<u64, u64>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) violation: Option<String>,
    pub(crate) tally: Tally,
    pub(crate) last_lines: Vec<String>,
    pub(crate) lines: Vec<String>,
}

/// Runs one simulation from its beginning to its end.
pub(crate) fn run<S: Subject>(scene: Scene) -> Report {
    plant::set(scene.plant);
    let mut world = World::<S>::new(scene);
    world.found();
    world.chaos();
    world.heal();
    world.reopen();
    for node in &mut world.nodes {
        node.end(End::Kill, world.scene.plant);
    }
    plant::set(None);
    let violation = world.bus.violation();
    world.bus.with_trace(|trace| Report {
        hash: trace.hash(),
        events: trace.events(),
        violation,
        tally: world.tally.clone(),
        last_lines: trace.last_lines().to_vec(),
        lines: trace.lines().to_vec(),
    })
}

impl<S: Subject> World<S> {
    fn new(scene: Scene) -> Self {
        let seed = scene.seed;
        let nodes = (1..=scene.nodes).map(|id| Node::new(id, seed)).collect();
        let clients = (1..=scene.clients).map(|id| Client::new(id, u64::from(id) * 7)).collect();
        Self {
            bus: Arc::new(Bus::new(Trace::new(scene.print, scene.keep))),
            nodes,
            net: Net::new(seed),
            canon: Canon::new(),
            now_ms: 0,
            dice: Dice::new(seed, "world"),
            tally: Tally::default(),
            clients,
            subject: S::Clients::new(seed),
            floor: 0,
            starts: BTreeMap::new(),
            reseeding: None,
            changing: false,
            founded: false,
            acknowledged: 0,
            undos: Vec::new(),
            leaders: BTreeMap::new(),
            scene,
        }
    }

    /// One node founds the store, and takes others in.
    fn found(&mut self) {
        self.calm_disks();
        for id in 1..=self.scene.nodes {
            self.start(id);
        }
        let first = self.subject.first();
        self.nodes[0].begin(&self.bus, |store: Store<S>| {
            async move { Done::Founded(store.found(first).await) }.boxed()
        });
        self.wait(|world| world.founded);
        let voters: BTreeSet<u64> = (1..=self.scene.nodes.min(3)).collect();
        self.set_members(voters, BTreeSet::new());
        self.wait(|world| !world.changing);
    }

    fn wait(&mut self, until: impl Fn(&Self) -> bool) {
        let end = self.now_ms + self.scene.heal_ms();
        while !until(self) && !self.broken() {
            if self.now_ms > end {
                self.bus.violate(|| "nothing was founded".to_owned());
            }
            self.step();
        }
    }

    /// Whether to stop.
    pub(super) fn broken(&self) -> bool {
        self.bus.violation().is_some()
    }

    /// One millisecond.
    pub(super) fn step(&mut self) {
        self.now_ms += 1;
        self.bus.set_now(self.now_ms);
        let due: Vec<u64> =
            self.starts.iter().filter(|(_, at)| **at <= self.now_ms).map(|(id, _)| *id).collect();
        for id in due {
            self.starts.remove(&id);
            self.start(id);
        }
        for index in 0..self.nodes.len() {
            if self.broken() {
                return;
            }
            self.turn(index);
        }
    }

    fn turn(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[index];
        if let Some(sleep) = node.asleep {
            if now_ms < sleep.until_ms {
                return;
            }
            node.wake(now_ms);
            self.settle(index);
            return;
        }
        let id = node.id;
        if node.life.is_none() {
            while let Some(letter) = self.net.take(id, now_ms) {
                self.bounce(letter);
            }
            return;
        }
        if node.ready(now_ms)
            && let Some(letter) = self.net.take(id, now_ms)
        {
            self.deliver(index, letter);
        } else if !(now_ms + id).is_multiple_of(ROUND_MS) {
            return;
        }
        self.nodes[index].run(now_ms);
        self.settle(index);
    }

    /// Nobody is there.
    fn bounce(&mut self, letter: Letter) {
        let Letter { from, to, call, parcel } = letter;
        if matches!(parcel, Parcel::Request { .. }) && self.dice.chance(700) {
            let back = Letter { from: to, to: from, call, parcel: Parcel::Unreachable };
            self.net.post(&self.bus, self.now_ms, back);
        }
    }

    fn deliver(&mut self, index: usize, letter: Letter) {
        let node = &self.nodes[index];
        let detail = match &letter.parcel {
            Parcel::Request { kind, body } => (letter.from, letter.call, digest((kind, body))),
            Parcel::Answer { body } => (letter.from, letter.call, digest(body)),
            Parcel::Unreachable => (letter.from, letter.call, 0),
        };
        self.bus.note(node.id, "takes", detail, || describe(&letter));
        let Letter { from, to, call, parcel } = letter;
        let body = match parcel {
            Parcel::Request { body, .. } => body,
            Parcel::Answer { body } => return self.answer(call, Ok(body)),
            Parcel::Unreachable => {
                let text = format!("nobody answers at node {from}");
                return self.answer(call, Err(federation::store::CallError::Unreachable(text)));
            }
        };
        let Some(life) = &node.life else { return };
        let store = life.store.clone();
        let (bus, platter, lives) = (Arc::clone(&self.bus), Arc::clone(&node.platter), node.lives);
        node.spawn(async move {
            let body = store.handle(from, body).await;
            if platter.lives(lives) {
                bus.send(Letter { from: to, to: from, call, parcel: Parcel::Answer { body } });
            }
        });
    }

    fn answer(&self, call: u64, reply: super::bus::Reply) {
        if let Some(waiting) = self.bus.take_waiting(call) {
            // Who asked may have given up.
            let _ = waiting.send(reply);
        }
    }

    /// After a node ran: what it sent goes out, and everything is checked.
    fn settle(&mut self, index: usize) {
        for letter in self.bus.take_outbox() {
            self.net.post(&self.bus, self.now_ms, letter);
        }
        self.observe(index);
        for (node, done) in self.bus.take_done() {
            self.finish(node, done);
        }
        let node = &self.nodes[index];
        if let Some(how) = node.platter.fallen() {
            self.end(index, how);
        } else if node.status().is_some_and(|status| status.role == Role::Failed) {
            // A device that failed once is not trusted again: the process ends.
            self.end(index, End::Kill);
        }
    }

    fn observe(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let id = node.id;
        let Some(status) = node.status() else { return };
        let Some(life) = &mut node.life else { return };
        if status.role == Role::Leader {
            let held = *self.leaders.entry(status.term).or_insert(id);
            self.tally.leaders = self.leaders.len() as u64;
            if held != id {
                self.bus.violate(|| format!("nodes {held} and {id} lead in term {}", status.term));
            }
        }
        let (revision, machine) = life.store.state_at();
        let seen = life.seen;
        if revision == seen {
            return;
        }
        if revision < seen {
            self.bus.violate(|| format!("node {id} went back from {seen:?} to {revision:?}"));
            return;
        }
        life.seen = revision;
        let told = life.store.applied_since(seen);
        let print = machine.print();
        let commands = told.as_ref().map_or(0, Vec::len);
        self.bus.note(id, "applies", (revision.index, print), || {
            format!("up to {}, {commands} commands", revision.index)
        });
        let judged = match told {
            Some(told) => self.canon.observe(id, (seen, revision), &told, &machine),
            None => {
                self.tally.installs += 1;
                self.canon.show(id, revision.index, &machine)
            }
        };
        self.bus.check(judged);
        self.bus.check(self.subject.judge(&machine));
        let watched = self.subject.watch(id, &machine);
        self.bus.check(watched);
    }

    pub(super) fn birth(&mut self) -> Birth {
        Birth {
            now_ms: self.now_ms,
            seed: self.scene.seed,
            profile: self.scene.profile,
            log_entries: self.scene.log_entries,
            permille: 1000,
            plant: self.scene.plant,
        }
    }

    pub(super) fn start(&mut self, id: u64) {
        let birth = self.birth();
        let index = id as usize - 1;
        let flipped = self.nodes[index].platter.flipped();
        let opened = self.nodes[index].open(&self.bus, birth);
        match opened {
            Ok(()) if flipped => {
                self.bus.violate(|| format!("node {id} did not notice a flipped bit"));
            }
            Ok(()) => self.started(index),
            Err(error) if damaged(&error) && flipped => {
                self.bus.note(id, "damaged", 0, || error.to_string());
                self.nodes[index].platter.mend();
                let disk = self.nodes[index].open_disk(&self.bus);
                let emptied = reseed(&disk, id);
                self.bus.check(emptied.map_err(|error| error.to_string()));
                self.bus.forget_votes(id);
                self.tally.reseeds += 1;
                self.reseeding = Some(id);
                self.nodes[index].platter.end(End::Kill, None);
                self.start(id);
            }
            Err(error) if damaged(&error) => {
                self.bus.violate(|| format!("node {id} cannot read its own disk: {error}"));
            }
            Err(error) => {
                self.bus.note(id, "falls", 0, || error.to_string());
                let how = self.nodes[index].platter.fallen().unwrap_or(End::Kill);
                self.end(index, how);
            }
        }
    }

    fn started(&mut self, index: usize) {
        let id = self.nodes[index].id;
        let Some(life) = &self.nodes[index].life else { return };
        let (revision, machine) = life.store.state_at();
        self.bus.note(id, "starts", revision.index, || format!("at {}", revision.index));
        let judged = self.canon.show(id, revision.index, &machine);
        self.bus.check(judged);
    }

    pub(super) fn end(&mut self, index: usize, how: End) {
        let id = self.nodes[index].id;
        self.bus.note(id, "ends", how, || format!("by {how:?}"));
        self.tally.crashes += 1;
        self.nodes[index].end(how, self.scene.plant);
        let pause = self.dice.between(20, 1500);
        self.starts.insert(id, self.now_ms + pause);
        if self.changing {
            self.changing = self.nodes.iter().any(|node| node.life.is_some() && node.changing);
        }
    }

    /// The node that leads, as far as can be seen from outside.
    pub(super) fn leader(&self) -> Option<(usize, StoreStatus)> {
        let awake = self.nodes.iter().enumerate().filter(|(_, node)| node.asleep.is_none());
        let statuses = awake.filter_map(|(index, node)| Some((index, node.status()?)));
        let leaders = statuses.filter(|(_, status)| status.role == Role::Leader);
        leaders.max_by_key(|(_, status)| status.term)
    }

    pub(super) fn set_members(&mut self, voters: BTreeSet<u64>, standbys: BTreeSet<u64>) {
        let Some((index, _)) = self.leader() else { return };
        let id = self.nodes[index].id;
        self.bus.note(id, "members", (&voters, &standbys), || format!("{voters:?} {standbys:?}"));
        self.changing = true;
        self.nodes[index].changing = true;
        self.nodes[index].begin(&self.bus, |store: Store<S>| {
            async move { Done::Members(store.set_members(voters, standbys).await) }.boxed()
        });
    }

    pub(super) fn read(&self, index: usize, client: u8, attempt: u64) {
        let stale = self.scene.plant == Some(Plant::StaleRead);
        self.nodes[index].begin(&self.bus, move |store: Store<S>| {
            let read = async move {
                if !stale || store.status().role != Role::Leader {
                    store.linearizable().await?;
                }
                let (revision, machine) = store.state_at();
                Ok::<_, ProposeError>(Sight { revision, print: machine.print() })
            };
            read.map(move |result| Done::Read { client, attempt, result }).boxed()
        });
    }
}
