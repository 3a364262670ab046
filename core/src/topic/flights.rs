//! The messages of a channel that are in flight: found by id, and in order of deadline for each consumer.
//!
//! All flights of a consumer have the same timeout, so a new one belongs at the end of the consumer's list, and so does
//! one that was touched; only a touch that hits `--max-msg-timeout` has to look for its place. No timer per message.

use super::SMALL;
use super::io::Refusal;
use super::log::Loc;
use super::store::ledger::Journalled;
use crate::message::MessageId;
use crate::time::Instant;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use slab::Slab;

/// A message that a consumer holds: one line of the cache, for flights end in any order.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Flight {
    pub(super) id: MessageId,
    pub(super) loc: Loc,
    pub(super) attempts: u16,
    pub(super) journalled: Journalled,
    pub(super) consumer: u32,
    pub(super) deadline: Instant,
    pub(super) delivered: Instant,
    previous: u32,
    next: u32,
}

/// What counts of a flight that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Landed {
    pub(super) loc: Loc,
    pub(super) attempts: u16,
    pub(super) journalled: Journalled,
}

/// The flights of one consumer, earliest deadline first; the links are in the flights.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlightList {
    head: u32,
    tail: u32,
}

const NONE: u32 = u32::MAX;
// So that a slot of the slab, which may be vacant, is one line too.
const _: () = assert!(size_of::<Option<Flight>>() == 64);

impl Default for FlightList {
    fn default() -> Self {
        Self { head: NONE, tail: NONE }
    }
}

/// All flights of a channel.
#[derive(Debug, Default)]
pub(super) struct Flights {
    slots: Slab<Flight>,
    by_id: HashTable<u32>,
}

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The flight of that id, if there is one.
    #[inline]
    pub(super) fn find(&self, id: MessageId) -> Option<(u32, &Flight)> {
        let key = *self.by_id.find(hash(id), |&key| self.slots[key as usize].id == id)?;
        Some((key, &self.slots[key as usize]))
    }

    /// Starts a flight at the end of its consumer's list: its key. If its id is in flight already, tells until when.
    #[inline]
    pub(super) fn start(&mut self, list: &mut FlightList, flight: NewFlight) -> Result<u32, Instant> {
        let NewFlight { id, loc, attempts, consumer, deadline, delivered } = flight;
        let journalled = Journalled::Nothing;
        let flight =
            Flight { id, loc, attempts, journalled, consumer, deadline, delivered, previous: NONE, next: NONE };
        let is_it = |&key: &u32| self.slots[key as usize].id == id;
        match self.by_id.entry(hash(id), is_it, |&key| hash(self.slots[key as usize].id)) {
            Entry::Occupied(twin) => Err(self.slots[*twin.get() as usize].deadline),
            Entry::Vacant(place) => {
                let key = self.slots.insert(flight) as u32;
                place.insert(key);
                self.link(list, key);
                Ok(key)
            }
        }
    }

    /// What the journal has heard of a flight.
    #[inline]
    pub(super) fn journalled(&mut self, key: u32, journalled: Journalled) {
        self.slots[key as usize].journalled = journalled;
    }

    /// Ends the flight of that id, which the consumer must be holding, whose list this is.
    #[inline]
    pub(super) fn land(&mut self, list: &mut FlightList, consumer: u32, id: MessageId) -> Result<Landed, Refusal> {
        let is_it = |&key: &u32| self.slots[key as usize].id == id;
        let entry = self.by_id.find_entry(hash(id), is_it).map_err(|_| Refusal::NotInFlight)?;
        let key = *entry.get();
        if self.slots[key as usize].consumer != consumer {
            return Err(Refusal::NotOwner);
        }
        entry.remove();
        self.unlink(list, key);
        let Flight { loc, attempts, journalled, .. } = self.slots.remove(key as usize);
        Ok(Landed { loc, attempts, journalled })
    }

    /// Gives memory back if nothing is in flight.
    pub(super) fn shrink(&mut self) {
        if self.slots.is_empty() && self.slots.capacity() > SMALL {
            *self = Self::default();
        }
    }

    /// Moves a deadline.
    pub(super) fn touch(&mut self, list: &mut FlightList, key: u32, deadline: Instant) {
        self.unlink(list, key);
        self.slots[key as usize].deadline = deadline;
        self.link(list, key);
    }

    /// The consumer's flight that is due first.
    pub(super) fn first(&self, list: &FlightList) -> Option<&Flight> {
        self.slots.get(list.head as usize)
    }

    /// Ends all flights of all consumers, whose lists the caller resets.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Flight> + use<> {
        core::mem::take(self).slots.into_iter().map(|(_, flight)| flight)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.slots.iter().map(|(_, flight)| flight)
    }

    /// The flights, for their records to be moved, or the journal to be told of them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.slots.iter_mut().map(|(_, flight)| flight)
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity() + self.by_id.capacity()
    }

    /// Checks the index and one consumer's list; returns the list's length.
    pub(super) fn check(&self, list: &FlightList, consumer: u32) -> usize {
        assert_eq!(self.slots.len(), self.by_id.len(), "each flight is indexed");
        let (mut at, mut previous, mut length) = (list.head, NONE, 0);
        while at != NONE {
            let flight = &self.slots[at as usize];
            assert_eq!((flight.previous, flight.consumer), (previous, consumer), "links of the list");
            assert!(self.find(flight.id).is_some_and(|(key, _)| key == at), "a flight is found by its id");
            if previous != NONE {
                assert!(self.slots[previous as usize].deadline <= flight.deadline, "flights in order of deadline");
            }
            (previous, at) = (at, flight.next);
            length += 1;
        }
        assert_eq!(list.tail, previous, "end of the list");
        length
    }

    /// Links a flight behind the last one that is not due after it.
    #[inline]
    fn link(&mut self, list: &mut FlightList, key: u32) {
        let deadline = self.slots[key as usize].deadline;
        let (mut previous, mut next) = (list.tail, NONE);
        while previous != NONE && self.slots[previous as usize].deadline > deadline {
            (next, previous) = (previous, self.slots[previous as usize].previous);
        }
        let flight = &mut self.slots[key as usize];
        (flight.previous, flight.next) = (previous, next);
        *self.next_of(list, previous) = key;
        *self.previous_of(list, next) = key;
    }

    #[inline]
    fn unlink(&mut self, list: &mut FlightList, key: u32) {
        let Flight { previous, next, .. } = self.slots[key as usize];
        *self.next_of(list, previous) = next;
        *self.previous_of(list, next) = previous;
    }

    fn next_of<'a>(&'a mut self, list: &'a mut FlightList, key: u32) -> &'a mut u32 {
        if key == NONE { &mut list.head } else { &mut self.slots[key as usize].next }
    }

    fn previous_of<'a>(&'a mut self, list: &'a mut FlightList, key: u32) -> &'a mut u32 {
        if key == NONE { &mut list.tail } else { &mut self.slots[key as usize].previous }
    }
}

/// What a flight starts with.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewFlight {
    pub(super) id: MessageId,
    pub(super) loc: Loc,
    pub(super) attempts: u16,
    pub(super) consumer: u32,
    pub(super) deadline: Instant,
    pub(super) delivered: Instant,
}

/// Ids are made by the topic, so nobody can choose them to collide. They differ in their last digits, which must reach
/// all bits: multiplication carries them upwards, folding the halves brings them down again.
#[inline]
fn hash(id: MessageId) -> u64 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15;
    let id = u128::from_be_bytes(id.0);
    let product = u128::from(id as u64 ^ ((id >> 64) as u64).rotate_left(32)) * ODD;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::IdMaker;
    use crate::time::Timestamp;

    #[test]
    fn ids_in_a_row_spread_over_a_table() {
        const BITS: u32 = 10;
        for nanos in [1_800_000_000_000_000_000, 1_812_345_678_901_234_567] {
            let mut ids = IdMaker::new(617);
            let mut used = [0u32; 1 << BITS];
            for _ in 0..32 << BITS {
                used[hash(ids.next(Timestamp::from_nanos(nanos))) as usize % used.len()] += 1;
            }
            let (least, most) = (used.iter().min(), used.iter().max());
            assert!(least > Some(&8) && most < Some(&80), "{least:?} to {most:?} where 32 are expected");
        }
    }
}
