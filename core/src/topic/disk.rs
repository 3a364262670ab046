//! What a topic wants done on its disk, and what it is told about it.
//!
//! Jobs are effects: a driver does the operations of each in order, off the topic's lock, until one fails, and hands
//! the outcome back as [`Input::Disk`](super::io::Input::Disk). Different jobs may be done in any order and at the same
//! time: the topic sees to it that there is at most one that writes in each lane. Checksums are made and looked at in
//! here, by whoever does the job: no byte goes to disk without [`Data::seal`].

use crate::storage::names::FileName;
use crate::storage::record::{self, inspect};
use crate::storage::{Crc, journal};
use crate::time::Duration;
use alloc::string::String;
use alloc::vec::Vec;

/// Where a topic may keep what does not stay in memory.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Tells this topic's files from those of others that had its name.
    pub incarnation: u64,
    /// Whether everything is on the medium before it is acknowledged or delivered.
    pub durable: bool,
    /// The checksum.
    pub crc: Crc,
}

/// Operations on the files of a topic's directory, to be done in order until one fails.
#[derive(Clone, Debug)]
pub struct Job {
    /// To be named in the answer.
    pub id: u64,
    /// Beside which others it may be done.
    pub lane: Lane,
    /// How much time is to pass first: what comes meanwhile shares the next commit. A driver whose disk has others to
    /// serve may go on at once.
    pub rest: Duration,
    /// What is to be done.
    pub ops: Vec<Op>,
}

/// What a job is for: so that a driver can keep reads from waiting for fsyncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Messages are written. At most one such job at a time has operations; one without is the rest before the next.
    Commit,
    /// What was written is fsynced, and the journal is written. At most one at a time.
    Sync,
    /// Messages are read, which were written before. There may be many at a time.
    Read,
}

/// One operation.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the variants' documentation names their fields")]
pub enum Op {
    /// Make the file, empty; what was there of that name is of no use.
    Create { file: FileName },
    /// Write there, all of it; what lies between the file's end and the offset is zero.
    Write { file: FileName, offset: u64, data: Data },
    /// Make the file's content, and its length, stay.
    Sync { file: FileName },
    /// Make the directory's entries stay.
    SyncDirectory,
    /// Let the file have another name.
    Rename { from: FileName, to: FileName },
    /// Remove the file. That it is not there is no failure.
    Remove { file: FileName },
    /// Read so many bytes of records, of which the first has that number, or bytes as they are; fewer if the file ends
    /// before.
    Read { file: FileName, offset: u64, length: usize, first_seq: Option<u64> },
}

/// Bytes to write, whose checksums are not made yet.
#[derive(Clone, Debug)]
pub struct Data {
    bytes: Vec<u8>,
    unsealed: Unsealed,
}

#[derive(Clone, Copy, Debug)]
enum Unsealed {
    Nothing,
    /// From there on there are records.
    Records(usize),
    /// From there on there is one batch of a journal.
    Batch(usize),
}

impl Data {
    /// Bytes to be written as they are.
    pub(super) const fn whole(bytes: Vec<u8>) -> Self {
        Self { bytes, unsealed: Unsealed::Nothing }
    }

    /// Records behind whatever there is already.
    pub(super) fn records(mut before: Vec<u8>, records: &[u8]) -> Self {
        let unsealed = Unsealed::Records(before.len());
        before.extend_from_slice(records);
        Self { bytes: before, unsealed }
    }

    /// A batch of a journal behind whatever there is already.
    pub(super) fn batch(mut before: Vec<u8>, batch: journal::Batch) -> Self {
        let unsealed = Unsealed::Batch(before.len());
        if before.is_empty() {
            before = batch.unsealed();
        } else {
            before.extend_from_slice(&batch.unsealed());
        }
        Self { bytes: before, unsealed }
    }

    /// How many bytes there are.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes with their checksums.
    pub fn seal(mut self, crc: Crc) -> Vec<u8> {
        match self.unsealed {
            Unsealed::Nothing => {}
            Unsealed::Records(from) => record::seal(&mut self.bytes[from..], crc),
            Unsealed::Batch(from) => journal::seal(&mut self.bytes[from..], crc),
        }
        self.bytes
    }
}

/// Records that were read, and looked at.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub(super) bytes: Vec<u8>,
    pub(super) damage: Vec<(u32, u32)>,
}

impl Loaded {
    /// Looks at what was read for [`Op::Read`] with this `first_seq`.
    pub fn new(mut bytes: Vec<u8>, first_seq: Option<u64>, crc: Crc) -> Self {
        let Some(first_seq) = first_seq else { return Self { bytes, damage: Vec::new() } };
        let found = inspect(&mut bytes, first_seq, crc);
        bytes.truncate(found.used);
        let damage = found.damage.into_iter().map(|(from, to)| (from as u32, to as u32)).collect();
        Self { bytes, damage }
    }
}

/// An operation of a job failed; those before it were done, those after it not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its place among the job's.
    pub op: usize,
    /// For the log and `/ping`.
    pub reason: String,
    /// Whether the medium may be at fault. If it is not, what cannot be read now is not lost, however long that lasts.
    pub is_of_medium: bool,
}
