//! A bit that flips on the medium: what it may cost, and what it may not.
//!
//! In a segment, records that it hits may be lost, and so may those of a region whose head it hits; but only if that is
//! reported, and nothing else.

use super::world::{End, World};
use crate::message::PAYLOAD_HEADER;
use crate::storage::names::FileName;
use crate::storage::record::{DEFERRED_EXTRA, HEADER};
use crate::storage::segment::{HEAD, REGION_HEAD};
use alloc::collections::BTreeSet;
use alloc::format;
use proptest::prelude::*;

impl World {
    /// A bit of a file flips while nobody looks: what it hits is lost, and may be, if it is reported; the rest is not.
    /// In room that no record uses it looks like a record that was lost, and numbers that a power cut has left out like
    /// more.
    pub(super) fn rot(&mut self, file: FileName, bit: prop::sample::Index) {
        let content = self.files.content(file);
        let bit = bit.index(content.len() * 8);
        self.flipped = self.hit(&content, bit / 8);
        self.room_hit = self.flipped.is_empty() && bit / 8 >= HEAD && content[bit / 8] == 0;
        self.files.flip(file, bit);
        self.crash(End::Kill);
    }

    /// A bit of the journal flips: everything may come once more, at any time, but nothing is lost.
    pub(super) fn rot_journal(&mut self, bit: impl FnOnce(usize) -> usize) {
        let is_journal = |file: &FileName| matches!(file, FileName::Journal(_));
        let Some(journal) = self.files.names().into_iter().rfind(is_journal) else { return };
        let bits = self.files.content(journal).len() * 8;
        self.files.flip(journal, bit(bits));
        (self.gap, self.torn, self.stepped, self.largest_chunk) = (true, true, true, 0);
        self.settled.clear();
        self.crash(End::Kill);
    }

    /// The messages whose records, or the heads of whose regions, have that byte.
    fn hit(&self, content: &[u8], at: usize) -> BTreeSet<usize> {
        const BEFORE: usize = HEADER + DEFERRED_EXTRA + PAYLOAD_HEADER;
        let heads = |bytes: &[u8]| bytes.windows(4).position(|window| window == b"CHNK");
        let in_head = heads(&content[at.saturating_sub(REGION_HEAD + 3)..content.len().min(at + 4)]).is_some();
        let region = in_head
            .then(|| at..heads(&content[(at + 4).min(content.len())..]).map_or(content.len(), |next| at + 4 + next));
        let mut hit = BTreeSet::new();
        for number in 0..self.messages.len() {
            let text = format!("{number:08}").into_bytes();
            let places = content.windows(8).enumerate().filter(|(_, window)| *window == text).map(|(place, _)| place);
            let is_hit = |place: usize| {
                let record = place.saturating_sub(BEFORE)..place + self.messages[number].size;
                record.contains(&at) || region.as_ref().is_some_and(|region| region.contains(&place))
            };
            hit.extend(places.into_iter().any(is_hit).then_some(number));
        }
        hit
    }
}
