//! The simulated disk: a directory that outlives its process, with a page cache that outlives it too but not a power cut.
//!
//! Survivable, and injected: a process killed between any two operations (what was written stays), power lost between any two
//! operations (of each file and of each creation or rename that was not synced, the old or the new state stays, drawn from
//! the seed), and latency. To be reported, and injected: an operation that fails. The rest of the lying disk (torn and
//! partial writes, flipped bits, a full disk) comes with the log on disk; there is nothing to tear in a file that is
//! replaced by renaming.

use bytes::Bytes;
use madsim::time::sleep;
use nsq_core::random::Random;
use nsq_net_sim::disk::{Disk, Done, Op};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A node's disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What a process sees.
    seen: BTreeMap<String, File>,
    /// The directory as it would be after a power cut.
    durable: BTreeMap<String, File>,
    random: Random,
    /// One in so many operations fails; 0 is none.
    fail_one_in: u64,
    failed: u64,
    operations: u64,
}

/// A file is named by an inode's two contents; renaming moves them, replacing makes a new one.
#[derive(Clone, Debug, Default)]
struct File {
    content: Bytes,
    synced: Option<Bytes>,
}

impl SimDisk {
    /// An empty disk, whose faults follow from the seed.
    pub fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        let (seen, durable) = Default::default();
        Self(Arc::new(Mutex::new(State { seen, durable, random, fail_one_in: 0, failed: 0, operations: 0 })))
    }

    /// From now on about one in so many operations fails; 0 is none.
    pub fn fail_one_in(&self, count: u64) {
        self.state().fail_one_in = count;
    }

    /// How many operations have failed.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// The power goes: what was not synced is there or not.
    pub fn power_off(&self) {
        let state = &mut *self.state();
        let mut left = std::mem::take(&mut state.durable);
        // Of the directory operations since the last sync, either all took effect or none: one journal.
        if state.random.below(2) == 0 {
            left = std::mem::take(&mut state.seen);
        }
        for file in left.values_mut() {
            let lost = state.random.below(2) == 0;
            match &file.synced {
                Some(synced) if lost => file.content = synced.clone(),
                None if lost => file.content = Bytes::new(),
                _ => {}
            }
            file.synced = Some(file.content.clone());
        }
        (state.seen, state.durable) = (left.clone(), left);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn run(&self, op: Op) -> Done {
        let disk = self.clone();
        Box::pin(async move {
            let latency = disk.state().random.below(5);
            sleep(Duration::from_millis(latency)).await;
            disk.state().perform(op)
        })
    }
}

impl State {
    fn perform(&mut self, op: Op) -> io::Result<Bytes> {
        self.operations += 1;
        let reads = matches!(op, Op::Read(_));
        if !reads && self.fail_one_in > 0 && self.random.below(self.fail_one_in) == 0 {
            self.failed += 1;
            return Err(io::Error::other("injected: input/output error"));
        }
        match op {
            Op::Read(name) => {
                return self.seen.get(&name).map(|file| file.content.clone()).ok_or_else(not_found);
            }
            Op::Write(name, content) => {
                self.seen.insert(name, File { content, synced: None });
            }
            Op::Sync(name) => {
                let file = self.seen.get_mut(&name).ok_or_else(not_found)?;
                file.synced = Some(file.content.clone());
            }
            Op::Rename(from, to) => {
                let file = self.seen.remove(&from).ok_or_else(not_found)?;
                self.seen.insert(to, file);
            }
            Op::SyncDir => self.durable.clone_from(&self.seen),
        }
        Ok(Bytes::new())
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &SimDisk, content: &'static [u8]) {
        let ops = [
            Op::Write("tmp".into(), Bytes::from_static(content)),
            Op::Sync("tmp".into()),
            Op::Rename("tmp".into(), "file".into()),
            Op::SyncDir,
        ];
        ops.into_iter().for_each(|op| assert!(disk.state().perform(op).is_ok()));
    }

    fn read(disk: &SimDisk) -> Bytes {
        disk.state().perform(Op::Read("file".into())).unwrap_or_default()
    }

    #[test]
    fn what_was_synced_survives_power_off() {
        for seed in 0..64 {
            let disk = SimDisk::new(seed);
            write(&disk, b"old");
            disk.power_off();
            assert_eq!(read(&disk), "old");
        }
    }

    #[test]
    fn a_rename_without_a_sync_of_the_content_can_lose_both() {
        let contents = (0..64).map(|seed| {
            let disk = SimDisk::new(seed);
            write(&disk, b"old");
            for op in [Op::Write("tmp".into(), Bytes::from_static(b"new")), Op::Rename("tmp".into(), "file".into())] {
                disk.state().perform(op).unwrap();
            }
            disk.power_off();
            read(&disk)
        });
        let contents: std::collections::BTreeSet<_> = contents.collect();
        assert_eq!(contents.into_iter().collect::<Vec<_>>(), ["", "new", "old"]);
    }
}
