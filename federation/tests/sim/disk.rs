//! The simulated disk: it keeps what a real one keeps after a kill and after a power failure, and
//! crashes the node at any write.
//!
//! Under the batches lies a log of frames with lengths and checksums, as under RocksDB's: a power
//! failure cuts what was not synced at any byte, and only whole frames before the cut come back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use federation::store::{Disk, DiskError, Family, Pair, Step};

use super::bus::Bus;
use super::dice::Dice;
use super::plant::Plant;
use super::trace::digest;

/// Keys of the meta family that planted bugs are after (docs/reference/store.md).
const VOTE_KEY: &[u8] = b"vote";
const APPLIED_KEY: &[u8] = b"applied";

type Families = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

/// What comes over a node at one of its next writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doom {
    /// Killed before the write is anywhere.
    KillBefore,
    /// Killed after the write, before anybody is told.
    KillAfter,
    /// The power fails during the write; it is torn.
    PowerDuring,
    /// The power fails after the write and, if it was to be, its sync.
    PowerAfter,
    /// The device fails the write, which may be there or not; the node itself goes on.
    Fault,
}

impl Doom {
    pub(crate) const ALL: [Self; 5] =
        [Self::KillBefore, Self::KillAfter, Self::PowerDuring, Self::PowerAfter, Self::Fault];
}

/// One node's disk over all its lives.
#[derive(Debug)]
pub(crate) struct Platter {
    node: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What programs see.
    view: Families,
    /// What is on the device for sure.
    base: Families,
    /// Written after that, in order.
    pending: Vec<Vec<Step>>,
    /// Which life of the node may use it; an older one's calls fail.
    life: u64,
    alive: bool,
    /// What came over this life in a write.
    fallen: Option<End>,
    doom: Option<(u64, Doom)>,
    dice: Dice,
    /// Whether a bit was flipped, so that damage is no surprise.
    flipped: bool,
    vote: Vec<u8>,
    /// The longest that a call takes.
    slow_ms: u64,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// What was written stays, synced or not.
    Kill,
    /// What was not synced is cut at any byte.
    Power,
}

impl Platter {
    pub(crate) fn new(node: u64, seed: u64) -> Arc<Self> {
        let dice = Dice::new(seed ^ node, "disk");
        let state = State {
            view: Families::new(),
            base: Families::new(),
            pending: Vec::new(),
            life: 0,
            alive: false,
            fallen: None,
            doom: None,
            dice,
            flipped: false,
            vote: Vec::new(),
            slow_ms: 0,
        };
        Arc::new(Self { node, state: Mutex::new(state) })
    }

    /// Begins a life.
    pub(crate) fn open(self: &Arc<Self>, bus: &Arc<Bus>, plant: Option<Plant>) -> SimDisk {
        let mut state = self.lock();
        state.life += 1;
        state.alive = true;
        state.fallen = None;
        state.doom = None;
        let life = state.life;
        SimDisk { platter: Arc::clone(self), bus: Arc::clone(bus), life, plant }
    }

    /// Ends it. Nothing that the old life still does has any effect.
    pub(crate) fn end(&self, how: End, plant: Option<Plant>) {
        let mut state = self.lock();
        state.alive = false;
        if how == End::Power {
            let bytes: Vec<u8> = state.pending.iter().flat_map(|batch| frame(batch)).collect();
            let cut = state.dice.below(bytes.len() as u64 + 1) as usize;
            lose_power(&mut state, &bytes[..cut]);
        }
        if plant == Some(Plant::LostVote) && !state.vote.is_empty() {
            let vote = state.vote.clone();
            for families in [Which::View, Which::Base] {
                let key = (Family::Meta, VOTE_KEY.to_vec());
                state.families(families).insert(key, vote.clone());
            }
        }
    }

    /// Whether a write ended this life.
    pub(crate) fn fallen(&self) -> Option<End> {
        self.lock().fallen
    }

    pub(crate) fn lives(&self, life: u64) -> bool {
        let state = self.lock();
        state.alive && state.life == life
    }

    /// Arranges what comes at the write after `writes` further ones.
    pub(crate) fn arm(&self, writes: u64, doom: Doom) {
        self.lock().doom = Some((writes, doom));
    }

    pub(crate) fn slow_down(&self, most_ms: u64) {
        self.lock().slow_ms = most_ms;
    }

    pub(crate) fn disarm(&self) {
        self.lock().doom = None;
    }

    /// Flips one bit of one value of a dead node; `false` if there is none.
    pub(crate) fn flip(&self) -> bool {
        let mut state = self.lock();
        let state = &mut *state;
        let keys: Vec<_> = state
            .view
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        if keys.is_empty() {
            return false;
        }
        let key = keys[state.dice.below(keys.len() as u64) as usize].clone();
        let bit = state.dice.next();
        for families in [&mut state.view, &mut state.base] {
            if let Some(value) = families.get_mut(&key) {
                let place = (bit >> 3) as usize % value.len();
                value[place] ^= 1 << (bit & 7);
            }
        }
        state.flipped = true;
        true
    }

    pub(crate) fn flipped(&self) -> bool {
        self.lock().flipped
    }

    /// From now on damage is a surprise again.
    pub(crate) fn mend(&self) {
        let mut state = self.lock();
        state.vote.clear();
        state.flipped = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
enum Which {
    View,
    Base,
}

impl State {
    fn families(&mut self, which: Which) -> &mut Families {
        match which {
            Which::View => &mut self.view,
            Which::Base => &mut self.base,
        }
    }

    fn fall(&mut self, how: End) {
        self.alive = false;
        self.fallen = Some(how);
    }

    fn sync(&mut self) {
        for batch in std::mem::take(&mut self.pending) {
            apply(&mut self.base, &batch);
        }
    }

    /// What comes over this write, if anything.
    fn fate(&mut self) -> Option<Doom> {
        let (writes, doom) = self.doom?;
        if writes > 0 {
            self.doom = Some((writes - 1, doom));
            return None;
        }
        self.doom = None;
        Some(doom)
    }
}

/// What a device has after whole frames of `bytes` came back.
fn lose_power(state: &mut State, bytes: &[u8]) {
    let mut base = std::mem::take(&mut state.base);
    let mut whole = unframe(bytes);
    for batch in state.pending.drain(..) {
        if whole == 0 {
            break;
        }
        whole -= 1;
        apply(&mut base, &batch);
    }
    state.pending.clear();
    state.view = base.clone();
    state.base = base;
}

fn apply(families: &mut Families, batch: &[Step]) {
    for step in batch {
        match step {
            Step::Put { family, key, value } => {
                families.insert((*family, key.clone()), value.clone());
            }
            Step::Delete { family, key } => {
                families.remove(&(*family, key.clone()));
            }
            Step::DeleteRange { family, from, to } => {
                let begin = (*family, from.clone());
                let gone = |key: &(Family, Vec<u8>)| {
                    key.0 == *family && to.as_ref().is_none_or(|to| key.1 < *to)
                };
                let keys: Vec<_> = families
                    .range(begin..)
                    .map(|(key, _)| key)
                    .take_while(|key| gone(key))
                    .cloned()
                    .collect();
                for key in keys {
                    families.remove(&key);
                }
            }
        }
    }
}

/// A batch as bytes: a length, a checksum, one line for each step.
fn frame(batch: &[Step]) -> Vec<u8> {
    let payload = format!("{batch:?}").into_bytes();
    let mut bytes = Vec::new();
    bytes.extend((payload.len() as u64).to_le_bytes());
    bytes.extend(digest(&payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// How many whole frames there are before the first torn one.
fn unframe(mut bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<8>()
        && let Some((sum, rest)) = rest.split_first_chunk::<8>()
        && let Some((payload, rest)) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)
        && digest(payload.to_vec()) == u64::from_le_bytes(*sum)
    {
        whole += 1;
        bytes = rest;
    }
    whole
}

/// The disk as one life of a node sees it.
pub(crate) struct SimDisk {
    platter: Arc<Platter>,
    bus: Arc<Bus>,
    life: u64,
    plant: Option<Plant>,
}

impl SimDisk {
    fn state(&self) -> Result<MutexGuard<'_, State>, DiskError> {
        let state = self.platter.lock();
        match state.alive && state.life == self.life {
            true => Ok(state),
            false => Err(gone()),
        }
    }

    fn plant(&self, batch: Vec<Step>, sync: &mut bool, state: &mut State) -> Vec<Step> {
        let is_meta = |step: &Step, wanted: &[u8]| match step {
            Step::Put { family: Family::Meta, key, .. } => key == wanted,
            _ => false,
        };
        let mut batch = batch;
        match self.plant {
            Some(Plant::AckBeforeSync) if batch.iter().any(puts_in_log) => *sync = false,
            Some(Plant::LostVote) => {
                if state.vote.is_empty()
                    && let Some(Step::Put { value, .. }) =
                        batch.iter().find(|step| is_meta(step, VOTE_KEY))
                {
                    state.vote = value.clone();
                }
            }
            Some(Plant::AppliedLost) if !*sync => batch.retain(|step| !is_meta(step, APPLIED_KEY)),
            Some(Plant::TruncationLost) => batch.retain(|step| {
                !matches!(step, Step::DeleteRange { family: Family::Log, to: None, .. })
            }),
            _ => {}
        }
        batch
    }
}

fn puts_in_log(step: &Step) -> bool {
    matches!(step, Step::Put { family: Family::Log, .. })
}

fn gone() -> DiskError {
    DiskError::Io { verb: "answer", problem: "this life of the node is over".into() }
}

fn device() -> DiskError {
    DiskError::Io { verb: "write", problem: "an injected fault of the device".into() }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("node", &self.platter.node).finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn write(&self, batch: Vec<Step>, mut sync: bool) -> Result<(), DiskError> {
        let node = self.platter.node;
        let mut state = self.state()?;
        let state = &mut *state;
        self.bus.wrote(node, &batch, sync);
        let batch = self.plant(batch, &mut sync, state);
        let fate = state.fate();
        if let Some(doom) = fate {
            self.bus.note(node, "doom", doom, || format!("{doom:?}"));
        }
        match fate {
            None => {}
            Some(Doom::KillBefore) => {
                state.fall(End::Kill);
                return Err(gone());
            }
            Some(Doom::Fault) if state.dice.chance(500) => return Err(device()),
            Some(Doom::PowerDuring) => {
                state.fall(End::Power);
                state.pending.push(batch);
                // The end cuts it at some byte.
                return Err(gone());
            }
            Some(_) => {}
        }
        apply(&mut state.view, &batch);
        self.bus.stored(node, &batch, |index| {
            state.view.get(&(Family::Log, index.to_be_bytes().to_vec())).cloned()
        });
        state.pending.push(batch);
        if sync {
            state.sync();
        }
        match fate {
            None => Ok(()),
            Some(Doom::Fault) => Err(device()),
            Some(doom) => {
                state.fall(if doom == Doom::PowerAfter { End::Power } else { End::Kill });
                Err(gone())
            }
        }
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.state()?.view.get(&(family, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        most_bytes: usize,
    ) -> Result<Vec<Pair>, DiskError> {
        let state = self.state()?;
        let mut pairs = Vec::new();
        let mut bytes = 0usize;
        for ((held, key), value) in state.view.range((family, from.to_vec())..) {
            if *held != family || to.is_some_and(|to| key.as_slice() >= to) {
                break;
            }
            bytes = bytes.saturating_add(value.len());
            pairs.push((key.clone(), value.clone()));
            if bytes >= most_bytes {
                break;
            }
        }
        Ok(pairs)
    }

    fn last(&self, family: Family) -> Result<Option<Pair>, DiskError> {
        let state = self.state()?;
        let mut of_family = state.view.iter().filter(|((held, _), _)| *held == family);
        Ok(of_family.next_back().map(|((_, key), value)| (key.clone(), value.clone())))
    }

    fn blocks(&self) -> bool {
        false
    }

    fn latency(&self) -> Duration {
        let mut state = self.platter.lock();
        let most_ms = state.slow_ms;
        // Most calls are answered from memory.
        let slow = most_ms > 0 && state.dice.chance(500);
        Duration::from_millis(if slow { state.dice.between(1, most_ms) } else { 0 })
    }
}
