//! The simulated disk: a directory that outlives its process, with a page cache that outlives it too but not a power
//! cut.
//!
//! It lies as real ones do; everything is drawn from the seed, how much by [`Faults`]. An operation takes effect at its
//! end, in parts if it is cut short, so a crash falls between any two and into any. Survivable, which means that
//! nothing promised may be lost:
//!
//! - operations that take long, fsyncs that take very long, and operations that overtake each other;
//! - a process that is killed ([`SimDisk::kill`]): what was written stays, a write under way is there in part;
//! - power that is lost ([`SimDisk::power_off`], [`SimDisk::cut_after`]): of each file, what no fsync has covered is
//!   gone, there, or there in any sectors, with an old length or the new one; of what was created, renamed and removed
//!   in a directory since its fsync, what came first took effect, up to any point, or any of it did;
//! - an operation that fails, having done nothing, a part or all of it; a full disk, which refuses what would make it
//!   larger after a part of it. What was accepted stays, and who wants more is told that it was not;
//! - failures that are not the medium's fault, for however long: too many open files. Nothing is lost with them, and
//!   what cannot be used for now can be later;
//! - an fsync that fails, after which the writes that it was for are dropped: a later one succeeds and does not bring
//!   them back, and processes may or may not go on to see what they wrote. What is not in memory any more must not
//!   depend on it. That of a directory may drop what has become of the files in it, which everybody sees until the
//!   power goes.
//!
//! One thing is believed of all disks: the names of *directories* stay with a later fsync that succeeds. A file system
//! with a journal, whose journal could not be written, refuses everything from then on.
//!
//! Not survivable, so to be reported, and nothing else may suffer: a bit of the medium that flips ([`SimDisk::flip`]),
//! and a page that cannot be read for a while, or for ever ([`SimDisk::spoil`]).

mod file;
mod state;
mod tree;

use self::file::File;
use self::state::State;
use bytes::Bytes;
use madsim::task::spawn;
use madsim::time::sleep;
use nsq_net_sim::disk::{Disk, Found, Op, Running};
use nsq_sim_rt::sync::Notify;
use std::fmt;
use std::future::pending;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What several operations do in a row, and a crash may fall into; it is counted under this name.
pub const IN_A_ROLL: &str = "crashes_in_a_roll";
/// See [`IN_A_ROLL`].
pub const IN_A_CHECKPOINT: &str = "crashes_in_a_checkpoint";
/// See [`IN_A_ROLL`].
pub const IN_A_REMOVAL: &str = "crashes_in_a_removal";
/// See [`IN_A_ROLL`].
pub const IN_A_DELETION: &str = "crashes_in_a_deletion";

/// A node's disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    dark: Notify,
    count: Box<dyn Fn(&'static str, u64) + Send + Sync>,
}

/// How much a disk lies. The default: a sound disk with small latencies.
#[derive(Clone, Debug)]
pub struct Faults {
    /// How long an operation takes.
    pub latency: RangeInclusive<Duration>,
    /// One in so many fsyncs takes up to `slow`; 0 is none.
    pub slow_one_in: u64,
    /// See `slow_one_in`.
    pub slow: Duration,
    /// One in so many operations that change something fails; 0 is none.
    pub fail_one_in: u64,
    /// One in so many fsyncs of files fails; 0 is none.
    pub fail_syncs_one_in: u64,
    /// One in so many reads and lists fails; 0 is none.
    pub fail_reads_one_in: u64,
    /// What fails is not the medium's fault, and has done nothing.
    pub of_others: bool,
    /// How all names begin that these failures concern.
    pub within: &'static str,
    /// Bytes that all files together have room for.
    pub capacity: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO..=Duration::from_millis(4),
            slow_one_in: 0,
            slow: Duration::ZERO,
            fail_one_in: 0,
            fail_syncs_one_in: 0,
            fail_reads_one_in: 0,
            of_others: false,
            within: "",
            capacity: u64::MAX,
        }
    }
}

impl SimDisk {
    /// An empty disk, whose faults follow from the seed; `count` is told what it does to its users.
    pub fn new(seed: u64, count: impl Fn(&'static str, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(State::new(seed)), dark: Notify::new(), count: Box::new(count) }))
    }

    /// Changes how it lies from now on.
    pub fn configure(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// How many operations have come to their end.
    pub fn done(&self) -> u64 {
        self.state().done
    }

    /// How many operations have failed, unless nothing else was to be expected of them.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// Nothing has ever failed, and nothing takes long.
    pub(crate) fn is_sound(&self) -> bool {
        let state = self.state();
        state.failed == 0 && state.faults.slow_one_in == 0
    }

    /// A bit has flipped, or a page was spoiled.
    pub(crate) fn is_rotten(&self) -> bool {
        self.state().is_rotten
    }

    /// How many fsyncs, reads and lists have failed in this life of its process: while nsqd starts, what it has found
    /// may not be all there is, or not be safe.
    pub(crate) fn unsure(&self) -> u64 {
        self.state().unsure
    }

    /// The bytes of all files.
    pub fn used(&self) -> u64 {
        self.state().tree.used()
    }

    /// All files with their directories, and their lengths.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.state().tree.files()
    }

    /// What processes find in a directory.
    pub fn list(&self, directory: &str) -> Vec<Found> {
        self.state().tree.list(directory).unwrap_or_default()
    }

    /// What processes would read; nothing if there is no such file.
    pub(crate) fn read(&self, file: &str, offset: u64, length: usize) -> Vec<u8> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.state().tree.file(file).and_then(|file| file.read(offset, length)).unwrap_or_default()
    }

    /// Nothing happens any more after so many operations from now on; returns when it is so far. The caller then cuts
    /// the power.
    pub async fn cut_after(&self, operations: u64) {
        {
            let state = &mut *self.state();
            state.cut = Some(state.done + operations);
        }
        self.darkness().await;
    }

    /// Nothing happens any more so many operations after one of these has begun; returns when it is so far. The caller
    /// then cuts the power.
    pub async fn cut_in(&self, stage: &'static str, operations: u64) {
        self.state().aim = Some((stage, operations));
        self.darkness().await;
    }

    async fn darkness(&self) {
        loop {
            self.0.dark.notified().await;
            if self.state().is_dark() {
                return;
            }
        }
    }

    /// The process ends: what it was doing may be done in part.
    pub fn kill(&self) {
        let state = &mut *self.state();
        state.end_life(&self.0.count);
        state.tree.kill(&mut state.random);
    }

    /// The power goes: what was not synced is there, or not, or in part.
    pub fn power_off(&self) {
        let state = &mut *self.state();
        state.end_life(&self.0.count);
        let damage = state.tree.power_off(&mut state.random);
        (self.0.count)("torn_files", damage.torn);
        (self.0.count)("undone_directory_changes", damage.undone);
    }

    /// The process has ended in order, and the power goes after that: no crash has fallen into anything.
    pub(crate) fn end(&self) {
        self.state().unsettled.clear();
        self.power_off();
    }

    /// Flips a bit on the medium, in one of the files whose names end so; tells where.
    pub fn flip(&self, ending: &str) -> Option<(String, usize)> {
        let state = &mut *self.state();
        let mut files = state.tree.files();
        files.retain(|(name, length)| name.ends_with(ending) && *length > 0);
        while !files.is_empty() {
            let (name, _) = files.swap_remove(state.random.below(files.len() as u64) as usize);
            if let Ok(file) = state.tree.file(&name)
                && let Some(at) = file.flip(&mut state.random)
            {
                state.is_rotten = true;
                (self.0.count)("flipped_bits", 1);
                return Some((name, at));
            }
        }
        None
    }

    /// Flips a bit on the medium where one of these is stored, in a file whose name ends so; tells which.
    pub fn flip_within<'a>(&self, ending: &str, any: &'a [Bytes]) -> Option<&'a Bytes> {
        let state = &mut *self.state();
        let first = state.random.below(any.len().max(1) as u64) as usize;
        let mut files = state.tree.files();
        files.retain(|(name, _)| name.ends_with(ending));
        let (before, after) = any.split_at(first);
        let hit = after.iter().chain(before).find(|wanted| {
            files.iter().any(|(name, _)| {
                let State { tree, random, .. } = &mut *state;
                tree.file(name).is_ok_and(|file| file.flip_within(wanted, random))
            })
        });
        (self.0.count)("flipped_bits", u64::from(hit.is_some()));
        state.is_rotten |= hit.is_some();
        hit
    }

    /// A page of one of the files whose names end so cannot be read any more; tells the name, what is in the file, and
    /// where the page is in there. A file has only one such page.
    pub fn spoil(&self, ending: &str) -> Option<(String, Vec<u8>, Range<usize>)> {
        let State { tree, random, is_rotten, .. } = &mut *self.state();
        let mut files = tree.files();
        files.retain(|(name, _)| name.ends_with(ending));
        while !files.is_empty() {
            let (name, _) = files.swap_remove(random.below(files.len() as u64) as usize);
            if let Ok(file) = tree.file(&name)
                && let Some((content, page)) = file.spoil(random)
            {
                *is_rotten = true;
                (self.0.count)("spoiled_pages", 1);
                return Some((name, content, page));
            }
        }
        None
    }

    /// All pages can be read again.
    pub fn mend(&self) {
        let State { tree, .. } = &mut *self.state();
        for (name, _) in tree.files() {
            let _ = tree.file(&name).map(File::mend);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn run(&self, op: Op) -> Running {
        let disk = self.clone();
        let (number, life, latency) = self.state().begin(&op, &self.0.count);
        let job = spawn(async move {
            sleep(latency).await;
            let result = disk.state().end(number, life, op, &disk.0.count);
            match result {
                Some(result) => result,
                None => {
                    disk.0.dark.notify_one();
                    pending().await
                }
            }
        });
        Box::pin(async move { job.await.unwrap_or_else(|error| Err(io::Error::other(error))) })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("files", &self.files()).finish_non_exhaustive()
    }
}
