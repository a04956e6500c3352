//! The one history that all nodes must tell: which command was applied at which index, with which
//! reply, and what the state was then.
//!
//! The first node that shows an applied command settles it. Every other node, and the same one after
//! a restart, must show the same; acknowledgements and reads are judged by it.

use std::collections::{BTreeMap, BTreeSet};

use federation::store::AppliedCommand;
use model::Revision;

use super::plant;
use super::subject::Subject;
use super::trace::digest;

#[derive(Debug)]
pub(crate) struct Canon<S> {
    model: S,
    settled: BTreeMap<u64, Settled>,
    /// The state's print from this index on, until the next one.
    prints: BTreeMap<u64, u64>,
    /// Everything up to here is settled.
    frontier: u64,
    /// Nothing is known of what lies before.
    floor: u64,
    /// What was seen ahead of the frontier: node, index, print.
    ahead: Vec<(u64, u64, u64)>,
    /// Of a proposed command: all that was acknowledged before it was first proposed lies below.
    floors: BTreeMap<u64, u64>,
    /// Proposals of which a node said that they were not taken.
    never: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settled {
    command: u64,
    reply: u64,
}

impl<S: Subject> Canon<S> {
    pub(crate) fn new() -> Self {
        plant::enter(0);
        let model = S::load(Vec::new()).unwrap();
        Self {
            prints: BTreeMap::from([(0, model.print())]),
            model,
            settled: BTreeMap::new(),
            frontier: 0,
            floor: 0,
            ahead: Vec::new(),
            floors: BTreeMap::new(),
            never: BTreeSet::new(),
        }
    }

    pub(crate) fn model(&self) -> &S {
        &self.model
    }

    /// A client is about to propose this command, knowing of `floor`.
    pub(crate) fn propose(&mut self, command: &[u8], floor: u64) {
        self.floors.entry(digest(command)).or_insert(floor);
    }

    /// A node said that it did not take the command.
    pub(crate) fn refuse(&mut self, command: &[u8]) -> Result<(), String> {
        let wanted = digest(command);
        self.never.insert(wanted);
        match self.settled.iter().find(|(_, settled)| settled.command == wanted) {
            Some((index, _)) => Err(format!("command {index} was applied, but said to be refused")),
            None => Ok(()),
        }
    }

    /// A node acknowledged the command at this index.
    pub(crate) fn acknowledge(
        &self,
        command: &[u8],
        index: u64,
        reply: &[u8],
    ) -> Result<(), String> {
        let wanted = Settled { command: digest(command), reply: digest(reply) };
        match self.settled.get(&index) {
            _ if index <= self.floor => Ok(()),
            Some(settled) if *settled == wanted => Ok(()),
            Some(_) => Err(format!("entry {index} was acknowledged, but is another one")),
            None => Err(format!("entry {index} was acknowledged, but nobody applied it")),
        }
    }

    /// A node applied these commands between two revisions, and shows this state at the second.
    pub(crate) fn observe(
        &mut self,
        node: u64,
        (from, to): (Revision, Revision),
        commands: &[AppliedCommand],
        machine: &S,
    ) -> Result<(), String> {
        let mut last = from;
        for command in commands {
            if command.revision <= last || command.revision > to {
                let text = format!("node {node}: {:?} was told after {last:?}", command.revision);
                return Err(text);
            }
            last = command.revision;
        }
        if from.index > self.frontier {
            self.jump(from.index, machine, to.index);
            return Ok(());
        }
        let known =
            self.settled.range(from.index + 1..).take_while(|(index, _)| **index <= to.index);
        let known = known.filter(|(index, _)| **index > self.floor).count();
        let repeated = commands.iter().filter(|command| command.revision.index <= self.frontier);
        let repeated = repeated.filter(|command| command.revision.index > self.floor).count();
        if known != repeated {
            let range = format!("{} to {}", from.index, to.index);
            return Err(format!("node {node}: {repeated} commands of {known} were told, {range}"));
        }
        for command in commands {
            self.take(node, command)?;
        }
        if to.index > self.frontier {
            self.frontier = to.index;
            self.look_back()?;
        }
        self.compare(node, to.index, machine.print())
    }

    /// A node shows this state, however it came by it.
    pub(crate) fn show(&mut self, node: u64, at: u64, machine: &S) -> Result<(), String> {
        let print = machine.print();
        if at <= self.frontier {
            return self.compare(node, at, print);
        }
        self.ahead.push((node, at, print));
        Ok(())
    }

    /// The state at an index, as far as it is settled.
    pub(crate) fn print_at(&self, index: u64) -> Option<u64> {
        if index > self.frontier || index < self.floor {
            return None;
        }
        self.prints.range(..=index).next_back().map(|(_, print)| *print)
    }

    fn compare(&self, node: u64, at: u64, print: u64) -> Result<(), String> {
        match self.print_at(at) {
            Some(wanted) if wanted != print => {
                Err(format!("node {node} has another state at index {at} than was settled"))
            }
            _ => Ok(()),
        }
    }

    fn look_back(&mut self) -> Result<(), String> {
        for (node, at, print) in std::mem::take(&mut self.ahead) {
            if at <= self.frontier {
                self.compare(node, at, print)?;
            } else {
                self.ahead.push((node, at, print));
            }
        }
        Ok(())
    }

    /// The nodes that applied what lies between died before they could show it.
    fn jump(&mut self, from: u64, machine: &S, to: u64) {
        self.floor = to;
        self.frontier = to;
        debug_assert!(from <= to);
        self.model = machine.clone();
        self.prints.insert(to, machine.print());
    }

    fn take(&mut self, node: u64, applied: &AppliedCommand) -> Result<(), String> {
        let index = applied.revision.index;
        if index <= self.floor {
            return Ok(());
        }
        let told = Settled {
            command: digest(applied.command.to_vec()),
            reply: digest(applied.reply.to_vec()),
        };
        if index <= self.frontier {
            return match self.settled.get(&index) {
                Some(settled) if *settled == told => Ok(()),
                _ => Err(format!("node {node} applied something else at index {index}")),
            };
        }
        if self.never.contains(&told.command) {
            return Err(format!("command {index} is applied, but was said to be refused"));
        }
        if let Some(floor) = self.floors.get(&told.command)
            && index <= *floor
        {
            let text = format!("command {index} came after {floor} was acknowledged");
            return Err(text);
        }
        plant::enter(0);
        let outcome = self.model.apply(applied.revision, &applied.command);
        plant::enter(node);
        if digest(outcome.reply) != told.reply {
            return Err(format!("node {node} gave another reply at index {index}"));
        }
        self.settled.insert(index, told);
        self.prints.insert(index, self.model.print());
        Ok(())
    }
}
