//! What a simulated disk is at work on: operations begin, and come to their end, fail, or are cut short.

use super::Faults;
use super::tree::Tree;
use nsq_core::random::Random;
use nsq_net_sim::disk::{Content, Op, Outcome};
use std::collections::BTreeMap;
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
    /// Power goes with that one.
    pub(super) cut: Option<u64>,
    /// Which of its processes is alive: others do nothing any more.
    life: u64,
}

/// Who is told what the disk does.
type Count = dyn Fn(&'static str, u64) + Send + Sync;

/// What names of segments end with.
const SEGMENT: &str = ".log";

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
            cut: None,
            life: 0,
        }
    }

    /// The operation's number, the life that it belongs to, and how long it takes.
    pub(super) fn begin(&mut self, op: &Op, count: &Count) -> (u64, u64, Duration) {
        self.begun += 1;
        self.running.insert(self.begun, op.clone());
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
        let result = self.perform(op, count);
        count(done, u64::from(result.is_ok()));
        if let Some(what) = what {
            tracing::trace!("{what}: {:?}", result.as_ref().map(drop));
        }
        // A file that is not there yet is nobody's fault.
        if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            self.failed += 1;
            count("failed_operations", 1);
        }
        Some(result)
    }

    fn perform(&mut self, op: Op, count: &Count) -> io::Result<Outcome> {
        let fails = self.one_in(match &op {
            Op::Read(..) | Op::List(_) => self.faults.fail_reads_one_in,
            Op::Sync(_) if self.faults.fail_syncs_one_in > 0 => self.faults.fail_syncs_one_in,
            _ => self.faults.fail_one_in,
        });
        if fails {
            self.perform_in_part(op, count);
            return Err(io::Error::other("injected: input/output error"));
        }
        match op {
            Op::Create(name) => {
                self.has_room()?;
                self.tree.create(&name)?;
            }
            Op::Write(name, offset, content) => self.write(&name, offset, &content.seal())?,
            Op::Sync(name) => self.tree.file(&name)?.sync(),
            Op::Read(name, offset, length) => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                return self.tree.file(&name)?.read(offset, length).map(Outcome::Content);
            }
            Op::Rename(from, to) => self.tree.rename(&from, &to)?,
            Op::Remove(name) => self.tree.remove(&name)?,
            Op::CreateDir(name) => {
                self.has_room()?;
                self.tree.create_dir(&name)?;
            }
            Op::RemoveDir(name) => self.tree.remove_dir(&name)?,
            Op::SyncDir(name) => self.tree.sync_dir(&name)?,
            Op::List(name) => return self.tree.list(&name).map(Outcome::List),
        }
        Ok(Outcome::Done)
    }

    /// It fails, or its process ends: of a write, a beginning may be there; an fsync drops what it was for.
    fn perform_in_part(&mut self, op: Op, count: &Count) {
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
            _ => {}
        }
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

    /// Of what was under way, anything may be done, and of writes, parts.
    pub(super) fn end_life(&mut self, count: &Count) {
        (self.life, self.cut) = (self.life + 1, None);
        for op in std::mem::take(&mut self.running).into_values() {
            tracing::trace!("cut short: {}", describe(&op));
            match op {
                Op::Write(..) => {
                    count("torn_writes", 1);
                    self.perform_in_part(op, count);
                }
                // An fsync that nobody heard the end of promises nothing.
                Op::Sync(_) | Op::SyncDir(_) | Op::Read(..) | Op::List(_) => {}
                op if self.random.below(2) == 0 => drop(self.perform(op, count)),
                _ => {}
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
