//! One file of the lying disk: what processes see of it, what is on the medium, and the writes in between.
//!
//! The page cache goes to the medium sector by sector, whenever it likes and in any order; only an fsync says that it
//! has.

use nsq_core::random::Random;
use std::ops::Range;
use std::{io, mem};

/// What a disk writes as a whole or not at all, bytes.
const SECTOR: usize = 512;
/// What it reads as a whole or not at all.
const PAGE: usize = 4096;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// What processes see.
    content: Vec<u8>,
    /// What is on the medium for sure.
    kept: Vec<u8>,
    /// Since the last fsync, in their order.
    writes: Vec<(usize, Vec<u8>)>,
    /// A failed fsync has dropped writes that processes may still see.
    is_poisoned: bool,
    /// Where a page begins that cannot be read.
    spoiled: Option<usize>,
}

impl File {
    pub(super) const fn len(&self) -> usize {
        self.content.len()
    }

    /// At most so many bytes from there.
    ///
    /// # Errors
    /// If some of them are in a page that cannot be read.
    pub(super) fn read(&self, offset: usize, length: usize) -> io::Result<Vec<u8>> {
        let rest = self.content.get(offset..).unwrap_or_default();
        let bytes = &rest[..rest.len().min(length)];
        match self.spoiled {
            Some(page) if offset < page + PAGE && page < offset + bytes.len() => {
                Err(io::Error::other("injected: a page cannot be read"))
            }
            _ => Ok(bytes.to_vec()),
        }
    }

    /// A page cannot be read from now on. What processes would see of the file, and where the page is in there; `None`
    /// if there is none, or if another one is spoiled already.
    pub(super) fn spoil(&mut self, random: &mut Random) -> Option<(Vec<u8>, Range<usize>)> {
        let pages = self.content.len().div_ceil(PAGE) as u64;
        let page = (pages > 0 && self.spoiled.is_none()).then(|| random.below(pages) as usize * PAGE)?;
        self.spoiled = Some(page);
        Some((self.content.clone(), page..page + PAGE))
    }

    /// Every page can be read again.
    pub(super) fn mend(&mut self) {
        self.spoiled = None;
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.content, offset, bytes);
        self.writes.push((offset, bytes.to_vec()));
    }

    /// What a failed fsync has dropped is not brought back: only what was written since is kept.
    pub(super) fn sync(&mut self) {
        for (offset, bytes) in mem::take(&mut self.writes) {
            put(&mut self.kept, offset, &bytes);
        }
    }

    /// An fsync fails: the medium has some sectors of what was to be kept, and nobody will write the others any more.
    /// Processes see what they wrote, or what is there.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.tear(random);
        self.is_poisoned = true;
        if random.below(2) == 0 {
            self.content.clone_from(&self.kept);
        }
    }

    /// The process has ended: whether the page cache goes on to show what a failed fsync has dropped, nobody knows.
    pub(super) fn forget_dropped(&mut self, random: &mut Random) {
        if self.is_poisoned && random.below(2) == 0 {
            self.content.clone_from(&self.kept);
            self.writes.iter().for_each(|(offset, bytes)| put(&mut self.content, *offset, bytes));
        }
    }

    /// Power is lost. Tells whether that tore the file: some of what was not fsynced is there, and some is not.
    pub(super) fn power_off(&mut self, random: &mut Random) -> bool {
        if self.writes.is_empty() && !self.is_poisoned {
            return false;
        }
        let whole = mem::take(&mut self.content);
        let synced = self.kept.clone();
        self.tear(random);
        self.content.clone_from(&self.kept);
        self.is_poisoned = false;
        self.kept != whole && self.kept != synced
    }

    /// Of the writes that no fsync has covered, nothing reaches the medium, or all, or any sectors as they were at any
    /// time; and the length is an old one, or the new one.
    fn tear(&mut self, random: &mut Random) {
        let writes = mem::take(&mut self.writes);
        let length = writes.iter().map(|(offset, bytes)| offset + bytes.len()).fold(self.kept.len(), usize::max);
        match random.below(4) {
            0 => {}
            1 => writes.iter().for_each(|(offset, bytes)| put(&mut self.kept, *offset, bytes)),
            _ => {
                let old = self.kept.len();
                for sector in (0..length).step_by(SECTOR) {
                    let there = random.below(writes.len() as u64 + 1) as usize;
                    for (offset, bytes) in &writes[..there] {
                        put_within(&mut self.kept, sector..sector + SECTOR, *offset, bytes);
                    }
                }
                let ends = [old, length, old + random.below((length - old) as u64 + 1) as usize];
                self.kept.resize(ends[random.below(3) as usize], 0);
            }
        }
    }

    /// Flips one bit of what is on the medium; `None` if there is none.
    pub(super) fn flip(&mut self, random: &mut Random) -> Option<usize> {
        let length = self.kept.len().min(self.content.len());
        let at = (length > 0).then(|| random.below(length as u64) as usize)?;
        self.flip_at(at, random);
        Some(at)
    }

    /// Flips one bit of the first place where this is on the medium; whether there is one.
    pub(super) fn flip_within(&mut self, wanted: &[u8], random: &mut Random) -> bool {
        let length = self.kept.len().min(self.content.len());
        let place = self.kept[..length].windows(wanted.len().max(1)).position(|window| window == wanted);
        if let Some(place) = place {
            self.flip_at(place + random.below(wanted.len() as u64) as usize, random);
        }
        place.is_some()
    }

    fn flip_at(&mut self, at: usize, random: &mut Random) {
        let bit = 1 << random.below(8);
        self.kept[at] ^= bit;
        self.content[at] ^= bit;
    }
}

/// What lies between the end and the offset becomes zero.
fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    content.resize(content.len().max(offset + bytes.len()), 0);
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Only what lies in one range.
fn put_within(content: &mut Vec<u8>, range: Range<usize>, offset: usize, bytes: &[u8]) {
    let (from, to) = (offset.max(range.start), (offset + bytes.len()).min(range.end));
    if from < to {
        put(content, from, &bytes[from - offset..to - offset]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What many seeds make of a file.
    fn outcomes(what: impl Fn(&mut File, &mut Random)) -> BTreeSet<Vec<u8>> {
        let outcome = |seed| {
            let (mut file, mut random) = (File::default(), Random::new(seed));
            what(&mut file, &mut random);
            file.read(0, usize::MAX).expect("nothing is spoiled")
        };
        (0..500).map(outcome).collect()
    }

    #[test]
    fn what_was_synced_stays() {
        let seen = outcomes(|file, random| {
            file.write(3, b"a");
            file.sync();
            file.power_off(random);
        });
        assert_eq!(seen, BTreeSet::from([b"\0\0\0a".to_vec()]));
    }

    #[test]
    fn what_was_not_is_lost_kept_or_torn() {
        let seen = outcomes(|file, random| {
            file.write(0, &[1; SECTOR]);
            file.sync();
            file.write(0, &[2; 2 * SECTOR]);
            file.write(0, &[3; 2 * SECTOR]);
            file.power_off(random);
        });
        let sectors = |first: u8, second: u8| [[first; SECTOR], [second; SECTOR]].concat();
        for (first, second) in [(3, 3), (2, 3), (1, 3), (3, 0), (1, 0), (2, 0)] {
            assert!(seen.contains(&sectors(first, second)), "{first} {second}");
        }
        assert!([vec![1; SECTOR], vec![2; SECTOR]].iter().all(|short| seen.contains(short)));
        let is_torn_within = |content: &Vec<u8>| content.len() < SECTOR || content[..SECTOR] != [content[0]; SECTOR];
        assert!(!seen.iter().any(is_torn_within), "a sector is old or new");
    }

    #[test]
    fn what_a_failed_fsync_dropped_is_not_brought_back_by_one_that_succeeds() {
        let seen = outcomes(|file, random| {
            file.write(0, b"old");
            file.fail_sync(random);
            file.sync();
            file.power_off(random);
        });
        assert!(seen.contains(b"old".as_slice()) && seen.contains(b"".as_slice()), "{seen:?}");
    }

    #[test]
    fn a_flipped_bit_is_on_the_medium() {
        let seen = outcomes(|file, random| {
            file.write(0, b"aa");
            assert_eq!(file.flip(random), None, "what is not on the medium cannot rot there");
            file.sync();
            file.flip(random).expect("there is something");
            file.power_off(random);
        });
        assert_eq!(seen.len(), 16, "{seen:?}");
    }
}
