//! What a simulated disk is at work on: operations begin, and come to their end, fail, or are cut short.

use super::tree::Tree;
use super::{Faults, IN_A_CHECKPOINT, IN_A_DELETION, IN_A_REMOVAL, IN_A_ROLL};
use nsq_core::random::Random;
use nsq_net_sim::disk::{Content, Op, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// See the module's documentation.
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) faults: Faults,
    pub(super) random: Random,
    /// Operations under way, by number.
    running: BTreeMap<u64, Op>,
    begun: u64,
    /// Operations that have come to their end.
    pub(super) done: u64,
    /// Of these, those that failed.
    pub(super) failed: u64,
    /// Of these, the fsyncs and what only looks, in this life: whoever starts may not know of all there is, or not have
    /// made it safe.
    pub(super) unsure: u64,
    /// A bit has flipped, or a page was spoiled.
    pub(super) is_rotten: bool,
    /// How often in a row a file or directory could not be read.
    unread: BTreeMap<String, u32>,
    /// In which directories something was begun that an fsync of them completes, and what.
    pub(super) unsettled: BTreeSet<(String, &'static str)>,
    /// Power goes with that one.
    pub(super) cut: Option<u64>,
    /// Power goes so many operations after the beginning of one that begins this.
    pub(super) aim: Option<(&'static str, u64)>,
    /// Which of its processes is alive: others do nothing any more.
    life: u64,
}

/// Who is told what the disk does.
type Count = dyn Fn(&'static str, u64) + Send + Sync;

/// What names of segments and journals end with, and those of directories that mean nothing any more.
const SEGMENT: &str = ".log";
const JOURNAL: &str = ".journal";
const DELETED: &str = ".deleted";
/// `EMFILE`.
const TOO_MANY_FILES: i32 = 24;
/// A read fails at most so often in a row, which is less often than a start tries. What fails for longer is a page that
/// cannot be read ([`super::SimDisk::spoil`]), or not the medium's fault.
const READ_FAILURES: u32 = 3;

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            tree: Tree::new(),
            faults: Faults::default(),
            random: Random::new(seed),
            running: BTreeMap::new(),
            begun: 0,
            done: 0,
            failed: 0,
            unsure: 0,
            is_rotten: false,
            unread: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            cut: None,
            aim: None,
            life: 0,
        }
    }

    /// The operation's number, the life that it belongs to, and how long it takes.
    pub(super) fn begin(&mut self, op: &Op, count: &Count) -> (u64, u64, Duration) {
        self.begun += 1;
        self.running.insert(self.begun, op.clone());
        if let Some((directory, stage)) = stage(op) {
            if let Some((_, operations)) = self.aim.take_if(|(aim, _)| *aim == stage) {
                self.cut = Some(self.done + operations);
            }
            self.unsettled.insert((directory, stage));
        }
        let (least, most) = (*self.faults.latency.start(), *self.faults.latency.end());
        let mut latency = least + self.up_to(most.saturating_sub(least));
        if matches!(op, Op::Sync(_)) && self.one_in(self.faults.slow_one_in) {
            latency += self.up_to(self.faults.slow);
            count("slow_fsyncs", 1);
        }
        (self.begun, self.life, latency)
    }

    /// Lets it take effect; `None` if nothing does any more.
    pub(super) fn end(&mut self, number: u64, life: u64, op: Op, count: &Count) -> Option<io::Result<Outcome>> {
        if life != self.life || self.is_dark() {
            return None;
        }
        self.done += 1;
        self.running.remove(&number);
        let what = tracing::enabled!(tracing::Level::TRACE).then(|| describe(&op));
        let done = match &op {
            Op::Create(name) if name.ends_with(SEGMENT) => "segments_made",
            Op::Remove(name) if name.ends_with(SEGMENT) => "segments_removed",
            Op::Read(name, ..) if name.ends_with(SEGMENT) => "segment_reads",
            _ => "other_disk_operations",
        };
        let makes_sure = matches!(op, Op::Sync(_) | Op::SyncDir(_) | Op::Read(..) | Op::List(_));
        let result = self.perform(op, count);
        count(done, u64::from(result.is_ok()));
        if let Some(what) = what {
            tracing::trace!("{what}: {:?}", result.as_ref().map(drop));
        }
        // A file that is not there yet, or a directory that is, is nobody's fault.
        let is_answer = |kind| matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists);
        if result.as_ref().is_err_and(|error| !is_answer(error.kind())) {
            self.failed += 1;
            self.unsure += u64::from(makes_sure);
            count("failed_operations", 1);
        }
        Some(result)
    }

    fn perform(&mut self, op: Op, count: &Count) -> io::Result<Outcome> {
        if self.fails(&op) {
            if self.faults.of_others {
                return Err(io::Error::from_raw_os_error(TOO_MANY_FILES));
            }
            let is_done = self.perform_in_part(op, count);
            count("failed_and_done", u64::from(is_done));
            return Err(io::Error::other("injected: input/output error"));
        }
        match op {
            Op::Write(name, offset, content) => self.write(&name, offset, &content.seal())?,
            Op::Sync(name) => self.tree.file(&name)?.sync(),
            Op::Read(name, offset, length) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                return self.tree.file(&name)?.read(offset, length).map(Outcome::Content);
            }
            Op::SyncDir(name) => {
                self.tree.sync_dir(&name)?;
                self.unsettled.retain(|(directory, _)| *directory != name);
            }
            Op::List(name) => return self.tree.list(&name).map(Outcome::List),
            change => self.change(&change)?,
        }
        Ok(Outcome::Done)
    }

    fn fails(&mut self, op: &Op) -> bool {
        let one_in = match op {
            Op::Read(..) | Op::List(_) => self.faults.fail_reads_one_in,
            Op::Sync(_) if self.faults.fail_syncs_one_in > 0 => self.faults.fail_syncs_one_in,
            _ => self.faults.fail_one_in,
        };
        let fails = self.one_in(one_in) && name(op).starts_with(self.faults.within);
        let (Op::Read(name, ..) | Op::List(name)) = op else { return fails };
        let before = self.unread.remove(name).unwrap_or(0);
        let fails = fails && (self.faults.of_others || before < READ_FAILURES);
        if fails {
            self.unread.insert(name.clone(), before + 1);
        }
        fails
    }

    /// Changes what is in a directory.
    fn change(&mut self, op: &Op) -> io::Result<()> {
        match op {
            Op::Create(name) => self.has_room().and_then(|()| self.tree.create(name)),
            Op::CreateDir(name) => self.has_room().and_then(|()| self.tree.create_dir(name)),
            Op::Rename(from, to) => self.tree.rename(from, to),
            Op::Remove(name) => self.tree.remove(name),
            Op::RemoveDir(name) => self.tree.remove_dir(name, usize::MAX),
            _ => Ok(()),
        }
    }

    /// It fails, or its process ends: of a write, a beginning may be there; an fsync drops what it was for, and one of
    /// a directory may; a change of a directory was made, which is told, or was not, and of one that goes some files
    /// may be left.
    fn perform_in_part(&mut self, op: Op, count: &Count) -> bool {
        match op {
            Op::Write(name, offset, content) => {
                let bytes = content.seal();
                let part = self.random.below(bytes.len() as u64 + 1) as usize;
                let _ = self.write(&name, offset, &bytes[..part]);
            }
            Op::Sync(name) => {
                if let Ok(file) = self.tree.file(&name) {
                    file.fail_sync(&mut self.random);
                    count("dropped_pages", 1);
                }
            }
            Op::RemoveDir(name) => drop(self.tree.remove_dir(&name, self.random.below(8) as usize)),
            Op::SyncDir(name) => {
                if self.random.below(2) == 0 {
                    count("dropped_names", self.tree.fail_sync_dir(&name).unwrap_or(0));
                }
            }
            Op::Read(..) | Op::List(_) => {}
            change => return self.random.below(2) == 0 && self.change(&change).is_ok(),
        }
        false
    }

    /// Writes, or what there is room for.
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let free = self.free();
        let file = self.tree.file(name)?;
        let room = (file.len() as u64).saturating_add(free);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if (offset + bytes.len()) as u64 <= room {
            file.write(offset, bytes);
            return Ok(());
        }
        let fits = (room as usize).saturating_sub(offset);
        let part = self.random.below(fits as u64 + 1) as usize;
        file.write(offset, &bytes[..part]);
        Err(io::ErrorKind::StorageFull.into())
    }

    pub(super) fn is_dark(&self) -> bool {
        self.cut.is_some_and(|cut| self.done >= cut)
    }

    fn has_room(&self) -> io::Result<()> {
        if self.free() > 0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn free(&self) -> u64 {
        match self.faults.capacity {
            u64::MAX => u64::MAX,
            capacity => capacity.saturating_sub(self.tree.used()),
        }
    }

    /// Of what was under way, anything may be done, and of writes, parts. Counts what it was that the crash fell into.
    pub(super) fn end_life(&mut self, count: &Count) {
        (self.life, self.cut, self.aim, self.unsure) = (self.life + 1, None, None, 0);
        let into: BTreeSet<_> = std::mem::take(&mut self.unsettled).into_iter().map(|(_, stage)| stage).collect();
        into.into_iter().for_each(|stage| count(stage, 1));
        for op in std::mem::take(&mut self.running).into_values() {
            tracing::trace!("cut short: {}", describe(&op));
            count("torn_writes", u64::from(matches!(op, Op::Write(..))));
            // An fsync that nobody heard the end of promises nothing.
            if !matches!(op, Op::Sync(_) | Op::SyncDir(_)) {
                self.perform_in_part(op, count);
            }
        }
    }

    fn one_in(&mut self, count: u64) -> bool {
        count > 0 && self.random.below(count) == 0
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.random.below(most.as_nanos() as u64 + 1))
    }
}

/// What an operation begins that others complete, the last of them an fsync of its directory: which directory, and what
/// a crash in between is counted as.
fn stage(op: &Op) -> Option<(String, &'static str)> {
    let (name, stage) = match op {
        Op::Create(name) if name.ends_with(SEGMENT) => (name, IN_A_ROLL),
        Op::Rename(_, name) if name.ends_with(JOURNAL) => (name, IN_A_CHECKPOINT),
        Op::Remove(name) if name.ends_with(SEGMENT) => (name, IN_A_REMOVAL),
        Op::Rename(_, name) if name.ends_with(DELETED) => (name, IN_A_DELETION),
        _ => return None,
    };
    let (directory, _) = name.rsplit_once('/')?;
    Some((directory.to_owned(), stage))
}

/// What it is about.
fn name(op: &Op) -> &str {
    match op {
        Op::Create(name) | Op::Write(name, ..) | Op::Sync(name) | Op::Read(name, ..) | Op::Rename(name, _) => name,
        Op::Remove(name) | Op::CreateDir(name) | Op::RemoveDir(name) | Op::SyncDir(name) | Op::List(name) => name,
    }
}

fn describe(op: &Op) -> String {
    match op {
        Op::Write(name, offset, content) => {
            let length = match content {
                Content::Whole(bytes) => bytes.len(),
                Content::Sealed(data, _) => data.len(),
            };
            format!("Write({name:?}, {offset}, {length} bytes)")
        }
        op => format!("{op:?}"),
    }
}
