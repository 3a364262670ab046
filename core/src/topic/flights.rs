//! The messages of a channel that are in flight: found by id, and in order of deadline for each consumer.
//!
//! All flights of a consumer have the same timeout, so a new one belongs at the end of the consumer's list, and so does
//! one that was touched; only a touch that hits `--max-msg-timeout` has to look for its place. No timer per message.

use super::SMALL;
use super::log::Loc;
use crate::message::MessageId;
use crate::time::Instant;
use hashbrown::HashTable;
use slab::Slab;

/// A message that a consumer holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) id: MessageId,
    pub(super) loc: Loc,
    pub(super) attempts: u16,
    pub(super) consumer: u32,
    pub(super) deadline: Instant,
    pub(super) delivered: Instant,
    previous: u32,
    next: u32,
}

/// The flights of one consumer, earliest deadline first; the links are in the flights.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlightList {
    head: u32,
    tail: u32,
}

const NONE: u32 = u32::MAX;

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

    /// Starts a flight at the end of its consumer's list. Its id must not be in flight.
    #[inline]
    pub(super) fn start(&mut self, list: &mut FlightList, flight: NewFlight) {
        let NewFlight { id, loc, attempts, consumer, deadline, delivered } = flight;
        let flight = Flight { id, loc, attempts, consumer, deadline, delivered, previous: NONE, next: NONE };
        let key = self.slots.insert(flight) as u32;
        self.by_id.insert_unique(hash(id), key, |&key| hash(self.slots[key as usize].id));
        self.link(list, key);
    }

    /// Ends a flight.
    #[inline]
    pub(super) fn end(&mut self, list: &mut FlightList, key: u32) -> Flight {
        self.unlink(list, key);
        let flight = self.slots.remove(key as usize);
        if let Ok(entry) = self.by_id.find_entry(hash(flight.id), |&other| other == key) {
            entry.remove();
        }
        flight
    }

    /// Gives memory back if nothing is in flight.
    pub(super) fn shrink(&mut self) {
        if self.slots.is_empty() && self.slots.capacity() > SMALL {
            *self = Self::default();
        }
    }

    /// The consumer that holds a flight.
    pub(super) fn owner(&self, key: u32) -> u32 {
        self.slots[key as usize].consumer
    }

    /// Moves a deadline.
    pub(super) fn touch(&mut self, list: &mut FlightList, key: u32, deadline: Instant) {
        self.unlink(list, key);
        self.slots[key as usize].deadline = deadline;
        self.link(list, key);
    }

    /// The consumer's flight that is due first.
    pub(super) fn first(&self, list: &FlightList) -> Option<(u32, &Flight)> {
        self.slots.get(list.head as usize).map(|flight| (list.head, flight))
    }

    /// Ends all flights of all consumers, whose lists the caller resets.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Flight> + use<> {
        core::mem::take(self).slots.into_iter().map(|(_, flight)| flight)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.slots.iter().map(|(_, flight)| flight)
    }

    /// Where the flights' records are, to be changed when records move.
    pub(super) fn locs(&mut self) -> impl Iterator<Item = &mut Loc> {
        self.slots.iter_mut().map(|(_, flight)| &mut flight.loc)
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

/// Ids are made by the topic, so nobody can choose them to collide.
#[inline]
fn hash(id: MessageId) -> u64 {
    let (high, low) = id.0.split_at(8);
    let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
    let mixed = (word(high).rotate_left(23) ^ word(low)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}
