//! What is done to the nodes, and undone after a while.

use std::collections::BTreeSet;

use federation::store::Store;
use futures_util::FutureExt as _;

use super::client::Done;
use super::disk::{Doom, End};
use super::net::Weather;
use super::node::Sleep;
use super::scene::Deed;
use super::subject::Subject;
use super::world::World;

/// What ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Undo {
    Cuts,
    Weather,
    Disks,
}

impl<S: Subject> World<S> {
    /// One of the seed's kinds of deed.
    pub(super) fn act(&mut self) {
        let deeds = self.scene.deeds.clone();
        let Some(deed) = self.dice.pick(&deeds) else { return };
        match deed {
            Deed::Kill => self.crash(End::Kill),
            Deed::PowerFailure => self.crash(End::Power),
            Deed::Blackout => {
                self.bus.note(0, "blackout", 0, String::new);
                for index in 0..self.nodes.len() {
                    if self.nodes[index].life.is_some() {
                        self.end(index, End::Power);
                    }
                }
            }
            Deed::Doom => self.doom(),
            Deed::Flip => self.flip(),
            Deed::Cut => self.cut(),
            Deed::Weather => self.storm(),
            Deed::Sleep => self.sleep(),
            Deed::ClockRate => self.set_clock(),
            Deed::SlowDisk => self.slow_disk(),
            Deed::Members => self.change_members(),
            Deed::Transfer => self.transfer(),
        }
    }

    /// What has lasted long enough ends.
    pub(super) fn undo(&mut self) {
        let now_ms = self.now_ms;
        let (over, rest): (Vec<_>, Vec<_>) =
            self.undos.iter().copied().partition(|(at, _)| *at <= now_ms);
        self.undos = rest;
        for (_, undo) in over {
            self.bus.note(0, "undo", undo, || format!("{undo:?}"));
            match undo {
                Undo::Cuts => self.net.cuts.clear(),
                Undo::Weather => self.net.weather = Weather::CALM,
                Undo::Disks => self.calm_disks(),
            }
        }
    }

    /// A node that lives; the leader as often as all others together.
    fn victim(&mut self) -> Option<usize> {
        if self.dice.chance(400)
            && let Some((leader, _)) = self.leader()
        {
            return Some(leader);
        }
        let living = self.nodes.iter().enumerate().filter(|(_, node)| node.life.is_some());
        let living: Vec<usize> = living.map(|(index, _)| index).collect();
        self.dice.pick(&living)
    }

    fn crash(&mut self, how: End) {
        if let Some(index) = self.victim() {
            self.end(index, how);
        }
    }

    fn doom(&mut self) {
        let Some(index) = self.victim() else { return };
        let writes = self.dice.between(0, 15);
        let doom = self.dice.pick(&Doom::ALL).unwrap_or(Doom::KillAfter);
        self.tally.dooms += 1;
        self.nodes[index].platter.arm(writes, doom);
    }

    /// Damages one disk, while a quorum of the others is undamaged: what is lost on a majority is lost.
    fn flip(&mut self) {
        let quiet = self.reseeding.is_none()
            && !self.changing
            && self.nodes.iter().all(|node| !node.platter.flipped());
        let Some((leader, status)) = self.leader().filter(|_| quiet) else { return };
        let others: Vec<usize> = (0..self.nodes.len())
            .filter(|index| *index != leader && self.nodes[*index].life.is_some())
            .collect();
        let Some(index) = self.dice.pick(&others).filter(|_| status.voters.len() > 2) else {
            return;
        };
        self.end(index, End::Kill);
        let found = self.nodes[index].platter.flip();
        self.bus.note(self.nodes[index].id, "flips", found, String::new);
    }

    fn cut(&mut self) {
        let ids: Vec<u64> = (1..=self.scene.nodes).collect();
        let Some(one) = self.victim().map(|index| index as u64 + 1) else { return };
        let others = || ids.iter().copied().filter(move |id| *id != one);
        let mut cuts = BTreeSet::new();
        match self.dice.below(6) {
            0 => cuts.extend(others().flat_map(|id| [(one, id), (id, one)])),
            // One way only.
            1 => cuts.extend(others().map(|id| (one, id))),
            2 => cuts.extend(others().map(|id| (id, one))),
            // Two sides.
            3 => {
                let side: BTreeSet<u64> =
                    ids.iter().copied().filter(|_| self.dice.chance(500)).collect();
                for from in &ids {
                    let across = ids.iter().filter(|to| side.contains(from) != side.contains(to));
                    cuts.extend(across.map(|to| (*from, *to)));
                }
            }
            // Only one node has everybody.
            4 => {
                for from in others() {
                    cuts.extend(others().filter(|to| *to != from).map(|to| (from, to)));
                }
            }
            // Some ways, at random.
            _ => {
                for from in &ids {
                    let to = ids.iter().filter(|to| *to != from && self.dice.chance(350));
                    let to: Vec<u64> = to.copied().collect();
                    cuts.extend(to.into_iter().map(|to| (*from, to)));
                }
            }
        }
        self.bus.note(0, "cuts", &cuts, || format!("{cuts:?}"));
        self.net.cuts = cuts;
        self.undo_later(Undo::Cuts);
    }

    fn storm(&mut self) {
        let least_ms = self.dice.between(1, 10);
        let weather = Weather {
            loss_permille: self.dice.between(0, 300),
            double_permille: self.dice.between(0, 300),
            least_ms,
            most_ms: least_ms + self.dice.between(0, 120),
        };
        self.bus.note(0, "weather", weather, || format!("{weather:?}"));
        self.net.weather = weather;
        self.undo_later(Undo::Weather);
    }

    fn undo_later(&mut self, undo: Undo) {
        let pause = self.scene.pause_ms;
        let at = self.now_ms + self.dice.between(200, 600 + 4 * pause);
        self.undos.retain(|(_, held)| *held != undo);
        self.undos.push((at, undo));
    }

    fn sleep(&mut self) {
        let Some(index) = self.victim() else { return };
        let sleep = Sleep {
            since_ms: self.now_ms,
            until_ms: self.now_ms + self.dice.between(50, 2500),
            clock_stops: self.dice.chance(300),
        };
        let node = &mut self.nodes[index];
        if node.asleep.is_none() {
            self.bus.note(node.id, "sleeps", sleep, || format!("{sleep:?}"));
            node.asleep = Some(sleep);
            self.tally.pauses += 1;
        }
    }

    fn set_clock(&mut self) {
        let Some(index) = self.victim() else { return };
        let permille = self.dice.between(850, 1150);
        let node = &mut self.nodes[index];
        self.bus.note(node.id, "clock", permille, || format!("at {permille} permille"));
        node.set_rate(self.now_ms, permille);
    }

    fn slow_disk(&mut self) {
        let Some(index) = self.victim() else { return };
        let most_ms = self.dice.pick(&[20, 100, 600]).unwrap_or(20);
        let node = &self.nodes[index];
        self.bus.note(node.id, "slow", most_ms, || format!("disk, up to {most_ms} ms"));
        node.platter.slow_down(most_ms);
        self.undo_later(Undo::Disks);
    }

    pub(super) fn calm_disks(&self) {
        for node in &self.nodes {
            node.platter.slow_down(self.scene.disk_ms);
        }
    }

    fn change_members(&mut self) {
        if self.changing || self.reseeding.is_some() {
            return;
        }
        let Some((_, status)) = self.leader() else { return };
        let mut others: Vec<u64> =
            (1..=self.scene.nodes).filter(|id| *id != status.node_id).collect();
        let count = self.dice.pick(&[1, 3, 3, 5]).unwrap_or(3).min(others.len() + 1);
        let mut voters = BTreeSet::from([status.node_id]);
        while voters.len() < count {
            let place = self.dice.below(others.len() as u64) as usize;
            voters.insert(others.swap_remove(place));
        }
        let standbys = others.into_iter().filter(|_| self.dice.chance(400)).collect();
        self.set_members(voters, standbys);
    }

    fn transfer(&mut self) {
        if self.changing {
            return;
        }
        let Some((index, status)) = self.leader() else { return };
        let Some(to) = self.dice.pick(&status.voters) else { return };
        self.bus.note(status.node_id, "transfer", to, || format!("to n{to}"));
        self.changing = true;
        self.nodes[index].changing = true;
        self.nodes[index].begin(&self.bus, move |store: Store<S>| {
            async move { Done::Transfer(store.transfer(to).await) }.boxed()
        });
    }
}
