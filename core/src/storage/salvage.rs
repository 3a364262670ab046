//! What a disk does not give out at a start: pages, of files that can be read elsewhere.
//!
//! A piece that cannot be read as a whole is asked for a page at a time. What is not read then is a *hole*: zeros in
//! the bytes of the piece, and known to be no zeros of the file.

use super::names::FileName;
use super::recovery::Piece;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// What a disk reads as a whole or not at all.
const PAGE: u64 = 4096;
/// So many pages of a topic's files are given up. Whoever reads tries each for a while, so that a disk of which much is
/// away would be asked for days: after that a file is worth no more than one.
const PATIENCE: usize = 64;
/// And so many of a file of which nothing has been read.
const NOTHING_READ: usize = 2;

/// A piece that is read a page at a time.
#[derive(Debug)]
pub(super) struct Salvage {
    pub(super) piece: Piece,
    /// What was not read is zero.
    pub(super) bytes: Vec<u8>,
    done: usize,
}

/// The holes of all of a topic's files.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// Numbers of pages.
    pages: BTreeMap<FileName, BTreeSet<u64>>,
    /// Of these files something has been read.
    readable: BTreeSet<FileName>,
}

impl Salvage {
    pub(super) fn new(piece: Piece) -> Self {
        Self { piece, bytes: vec![0; piece.length], done: 0 }
    }

    /// The next page that may be there; `None` if the piece has no more of them.
    pub(super) fn next(&mut self, holes: &Holes) -> Option<Piece> {
        while self.done < self.bytes.len() {
            let offset = self.piece.offset + self.done as u64;
            let length = (PAGE - offset % PAGE).min((self.bytes.len() - self.done) as u64) as usize;
            if !holes.are_in(self.piece.file, offset..offset + 1) {
                return Some(Piece { offset, length, ..self.piece });
            }
            self.done += length;
        }
        None
    }

    /// Takes the page that was read.
    pub(super) fn take(&mut self, page: &[u8]) {
        self.bytes[self.done..][..page.len()].copy_from_slice(page);
        self.done += page.len();
    }
}

impl Holes {
    /// Something of the file has been read.
    pub(super) fn can_read(&mut self, file: FileName) {
        self.readable.insert(file);
    }

    /// The piece cannot be read: whether it lies in one page, which is a hole then, and whether that was not known.
    pub(super) fn add(&mut self, piece: Piece) -> Option<bool> {
        let page = piece.offset / PAGE;
        let is_one = (piece.offset + piece.length as u64) <= (page + 1) * PAGE;
        is_one.then(|| self.pages.entry(piece.file).or_default().insert(page))
    }

    /// Whether the file is not worth any more patience.
    pub(super) fn are_too_many(&self, file: FileName) -> bool {
        let all = self.pages.values().map(BTreeSet::len).sum::<usize>();
        let its = self.pages.get(&file).map_or(0, BTreeSet::len);
        all >= PATIENCE || its >= NOTHING_READ && !self.readable.contains(&file)
    }

    /// The files that have some.
    pub(super) fn files(&self) -> impl Iterator<Item = FileName> {
        self.pages.keys().copied()
    }

    /// Whether something of that cannot be read.
    pub(super) fn are_in(&self, file: FileName, range: Range<u64>) -> bool {
        self.end_within(file, range).is_some()
    }

    /// The end of the last hole in there.
    pub(super) fn end_within(&self, file: FileName, range: Range<u64>) -> Option<u64> {
        let pages = self.pages.get(&file).filter(|_| !range.is_empty())?;
        let last = pages.range(range.start / PAGE..range.end.div_ceil(PAGE)).next_back()?;
        Some(((last + 1) * PAGE).min(range.end))
    }
}
