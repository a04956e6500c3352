//! Places for connections: some in all, fewer for one address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A bounded number of places. All clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

impl Places {
    pub(crate) fn new(most: usize, most_per_address: usize) -> Self {
        Self(Arc::new(Shared { most, most_per_address, taken: Mutex::default() }))
    }

    /// `None` if none is left for this address.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut taken = self.0.lock();
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.0.most || of_address >= self.0.most_per_address {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, of_address + 1);
        Some(Place { places: self.0.clone(), address })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Shared>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What is known of a connection, and the place that it has for it. All clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Standing(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    _place: Place,
    is_known: bool,
    /// Where its place is once it is known.
    known: Places,
}

impl Standing {
    pub(super) fn new(place: Place, is_known: bool, known: Places) -> Self {
        Self(Arc::new(Mutex::new(Held { _place: place, is_known, known })))
    }

    pub(super) fn is_known(&self) -> bool {
        self.lock().is_known
    }

    /// It keeps its old place if no other one is left.
    pub(super) fn admit(&self, address: IpAddr) {
        let mut held = self.lock();
        if !held.is_known {
            held.is_known = true;
            if let Some(place) = held.known.take(address) {
                held._place = place;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let places = Places::new(3, 2);
        let first = places.take(address(1)).unwrap();
        let _second = places.take(address(1)).unwrap();
        assert!(places.take(address(1)).is_none(), "two are enough for one");
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert!(places.take(mapped).is_none(), "the same address");
        let _third = places.take(address(2)).unwrap();
        assert!(places.take(address(3)).is_none(), "three are enough for all");
        drop(first);
        assert!(places.take(address(1)).is_some());
        assert_eq!(places.0.lock().by_address.len(), 2, "{places:?}");
    }

    #[test]
    fn who_becomes_known_gives_the_strangers_place_back() {
        let (strangers, known) = (Places::new(1, 1), Places::new(1, 1));
        let stranger = |address| {
            let place = strangers.take(address).unwrap();
            Standing::new(place, false, known.clone())
        };
        let one = stranger(address(1));
        assert!(!one.is_known());
        one.admit(address(1));
        one.admit(address(1));
        assert!(one.is_known());
        let other = stranger(address(2));
        other.admit(address(2));
        assert!(other.is_known(), "though no other place is left");
        assert!(strangers.take(address(3)).is_none(), "it keeps the one that it has");
        drop((one, other));
        assert_eq!((strangers.0.lock().all, known.0.lock().all), (0, 0));
    }
}
