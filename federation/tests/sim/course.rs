//! What clients do, what comes of it, and how a simulation ends.

use federation::store::{ProposeError, Proposed, Store};
use futures_util::FutureExt as _;

use super::client::{ATTEMPTS, Doing, Done, PATIENCE_MS, Sight};
use super::disk::End;
use super::net::Weather;
use super::subject::{Clients as _, Subject};
use super::trace::digest;
use super::world::World;

/// How long clients go on after everything works again.
const AFTERMATH_MS: u64 = 1500;
/// How long opening a disk takes at most, which is less than an election.
const REOPEN_MS: u64 = 400;
/// How often the way back of a node that lost its log is tried.
const REPAIR_MS: u64 = 250;

impl<S: Subject> World<S> {
    pub(super) fn chaos(&mut self) {
        let end = self.now_ms + self.scene.chaos_ms;
        let mut next = self.now_ms + self.scene.pause_ms;
        while self.now_ms < end && !self.broken() {
            if self.now_ms >= next {
                self.act();
                let pause = self.scene.pause_ms;
                next = self.now_ms + self.dice.between(pause / 3, pause * 5 / 3);
            }
            self.undo();
            self.repair();
            self.ask(true);
            self.step();
        }
    }

    /// Everything works again: the nodes must come together, and writes go on.
    pub(super) fn heal(&mut self) {
        self.bus.note(0, "heals", 0, String::new);
        self.undos.clear();
        self.net.weather = Weather::CALM;
        self.net.cuts.clear();
        self.calm_disks();
        let now_ms = self.now_ms;
        for node in &mut self.nodes {
            node.platter.disarm();
            node.set_rate(now_ms, 1000);
            if let Some(sleep) = &mut node.asleep {
                sleep.until_ms = now_ms;
            }
        }
        for at in self.starts.values_mut() {
            *at = now_ms + 1;
        }
        let writes = self.tally.writes;
        let end = now_ms + self.scene.heal_ms();
        while !self.broken() {
            self.repair();
            let more = self.now_ms < now_ms + AFTERMATH_MS || self.tally.writes == writes;
            self.ask(more);
            self.step();
            let idle = self.clients.iter().all(|client| matches!(client.doing, Doing::Nothing));
            if !more && idle && self.converged() {
                break;
            }
            if self.now_ms > end {
                let statuses: Vec<_> = self.nodes.iter().map(|node| node.status()).collect();
                self.bus.violate(|| format!("it does not heal: {statuses:#?}"));
            }
        }
        self.bus.note(0, "healed", self.floor, String::new);
    }

    fn converged(&self) -> bool {
        let Some((_, leader)) = self.leader() else { return false };
        let members = || leader.voters.iter().chain(&leader.standbys);
        let same = |id: &u64| {
            let status = self.nodes[*id as usize - 1].status();
            status.is_some_and(|status| {
                status.applied == leader.applied
                    && status.last_log == leader.last_log
                    && status.leader == Some(leader.node_id)
            })
        };
        self.reseeding.is_none()
            && !self.changing
            && leader.applied.index == leader.last_log.unwrap_or(0)
            && members().all(same)
    }

    /// The power fails once more, everywhere; a quorum must have all that was acknowledged.
    pub(super) fn reopen(&mut self) {
        if self.broken() {
            return;
        }
        let Some((_, leader)) = self.leader() else { return };
        for index in 0..self.nodes.len() {
            self.end(index, End::Power);
        }
        self.starts.clear();
        for id in 1..=self.scene.nodes {
            self.start(id);
        }
        // So that they find out what they have.
        let end = self.now_ms + REOPEN_MS;
        while self.now_ms < end && !self.broken() {
            self.step();
        }
        let mut hold = 0;
        for id in &leader.voters {
            let Some(status) = self.nodes[*id as usize - 1].status() else { continue };
            let last = status.last_log.max(Some(status.applied.index)).unwrap_or(0);
            hold += usize::from(last >= self.acknowledged);
        }
        if hold <= leader.voters.len() / 2 && !self.broken() {
            let (voters, entry) = (leader.voters.len(), self.acknowledged);
            self.bus.violate(|| format!("{hold} of {voters} voters kept entry {entry}"));
        }
    }

    /// Clients whose time has come do their next thing.
    fn ask(&mut self, more: bool) {
        for place in 0..self.clients.len() {
            if self.now_ms >= self.clients[place].at_ms {
                self.ask_one(place, more);
            }
        }
    }

    fn ask_one(&mut self, place: usize, more: bool) {
        let client = &mut self.clients[place];
        if client.waiting {
            // The outcome stays unknown.
            client.waiting = false;
            self.tally.unknown += 1;
        }
        let id = client.id;
        let mut doing = std::mem::replace(&mut client.doing, Doing::Nothing);
        doing = match doing {
            Doing::Nothing if !more => return,
            Doing::Nothing if self.dice.chance(600) => {
                let command = self.subject.request(id, self.canon.model(), &mut self.dice);
                Doing::Write { command, tries: 0, floor: self.floor }
            }
            Doing::Nothing => Doing::Read { tries: 0, floor: self.floor },
            Doing::Write { tries, .. } | Doing::Read { tries, .. } if tries >= ATTEMPTS => {
                self.clients[place].at_ms = self.now_ms + self.dice.between(5, 60);
                return;
            }
            Doing::Write { command, tries, floor } => {
                Doing::Write { command: self.subject.retry(&command), tries, floor }
            }
            read => read,
        };
        let chosen = self.clients[place]
            .hint
            .take()
            .unwrap_or_else(|| self.dice.between(1, self.scene.nodes));
        let index = chosen as usize - 1;
        let client = &mut self.clients[place];
        client.attempt += 1;
        client.waiting = true;
        client.at_ms = self.now_ms + PATIENCE_MS;
        let attempt = client.attempt;
        match &mut doing {
            Doing::Write { command, tries, floor } => {
                *tries += 1;
                self.bus.note(chosen, "asked", digest(&*command), || {
                    format!("by c{id} to write {:08x}, after {floor}", digest(&*command) as u32)
                });
                self.canon.propose(command, *floor);
                let command = command.clone();
                self.nodes[index].begin(&self.bus, move |store: Store<S>| {
                    let wrote = async move { (store.propose(command.clone()).await, command) };
                    let done = move |(result, command)| Done::Wrote {
                        client: id,
                        attempt,
                        command,
                        result,
                    };
                    wrote.map(done).boxed()
                });
            }
            Doing::Read { tries, floor } => {
                *tries += 1;
                self.bus.note(chosen, "asked", *floor, || format!("by c{id} to read {floor}"));
                self.read(index, id, attempt);
            }
            Doing::Nothing => {}
        }
        if self.nodes[index].life.is_none() {
            client_soon(&mut self.clients[place], self.now_ms, &mut self.dice);
        }
        self.clients[place].doing = doing;
    }

    /// A node answered.
    pub(super) fn finish(&mut self, node: u64, done: Done) {
        self.bus.note(node, "answers", digest(format!("{done:?}")), || format!("{done:?}"));
        match done {
            Done::Founded(result) => {
                self.founded = true;
                self.bus.check(result.map(|_| ()).map_err(|error| format!("founding: {error}")));
            }
            Done::Wrote { client, attempt, command, result } => {
                self.wrote(client, attempt, &command, result);
            }
            Done::Read { client, attempt, result } => self.saw(client, attempt, result),
            Done::Members(result) => {
                self.settle_change(node);
                self.tally.members += u64::from(result.is_ok());
            }
            Done::Transfer(result) => {
                self.settle_change(node);
                self.tally.transfers += u64::from(result.is_ok());
            }
            Done::Readmit(result) => {
                self.settle_change(node);
                if result.is_ok() {
                    self.reseeding = None;
                }
            }
        }
    }

    fn settle_change(&mut self, node: u64) {
        self.nodes[node as usize - 1].changing = false;
        self.changing = self.nodes.iter().any(|node| node.changing);
    }

    fn wrote(
        &mut self,
        client: u8,
        attempt: u64,
        command: &[u8],
        result: Result<Proposed, ProposeError>,
    ) {
        // An answer that comes too late for the client is a promise all the same.
        match &result {
            Ok(proposed) => {
                let index = proposed.revision.index;
                let judged = self.canon.acknowledge(command, index, &proposed.reply);
                self.bus.check(judged);
                self.acknowledged = self.acknowledged.max(index);
            }
            Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum) => {
                let judged = self.canon.refuse(command);
                self.bus.check(judged);
            }
            Err(_) => {}
        }
        let Some(client) = self.waiting(client, attempt) else { return };
        match result {
            Ok(proposed) => {
                client.doing = Doing::Nothing;
                self.floor = self.floor.max(proposed.revision.index);
                self.tally.writes += 1;
            }
            Err(ProposeError::NotLeader { leader }) => client.hint = leader,
            Err(_) => {}
        }
    }

    fn saw(&mut self, client: u8, attempt: u64, result: Result<Sight, ProposeError>) {
        let Some(client) = self.waiting(client, attempt) else { return };
        match result {
            Ok(sight) => {
                let Doing::Read { floor, .. } = client.doing else { return };
                client.doing = Doing::Nothing;
                let index = sight.revision.index;
                if index < floor {
                    self.bus.violate(|| format!("a read saw {index} after {floor} was known"));
                }
                if self.canon.print_at(index).is_some_and(|print| print != sight.print) {
                    self.bus.violate(|| format!("a read saw another state at {index}"));
                }
                self.floor = self.floor.max(index);
                self.tally.reads += 1;
            }
            Err(ProposeError::NotLeader { leader }) => client.hint = leader,
            Err(_) => {}
        }
    }

    fn waiting(&mut self, client: u8, attempt: u64) -> Option<&mut super::client::Client> {
        let now_ms = self.now_ms;
        let pause = self.dice.between(1, 40);
        let client = self.clients.get_mut(usize::from(client) - 1)?;
        if !client.waiting || client.attempt != attempt {
            return None;
        }
        client.waiting = false;
        client.at_ms = now_ms + pause;
        Some(client)
    }

    /// Brings a node that lost its log back: the members let it go, and it is empty from then on.
    fn repair(&mut self) {
        let Some(id) = self.reseeding else { return };
        if self.changing || !self.now_ms.is_multiple_of(REPAIR_MS) {
            return;
        }
        let Some((_, leader)) = self.leader() else { return };
        if leader.voters.contains(&id) || leader.standbys.contains(&id) {
            let others = |ids: &[u64]| ids.iter().copied().filter(|other| *other != id).collect();
            self.set_members(others(&leader.voters), others(&leader.standbys));
            return;
        }
        let index = id as usize - 1;
        if self.nodes[index].life.is_none() || self.nodes[index].asleep.is_some() {
            return;
        }
        let peers: Vec<u64> = (1..=self.scene.nodes).filter(|peer| *peer != id).collect();
        self.changing = true;
        self.nodes[index].changing = true;
        self.nodes[index].begin(&self.bus, |store: Store<S>| {
            async move { Done::Readmit(store.readmit(&peers).await) }.boxed()
        });
    }
}

fn client_soon(client: &mut super::client::Client, now_ms: u64, dice: &mut super::dice::Dice) {
    client.at_ms = now_ms + dice.between(5, 50);
}
