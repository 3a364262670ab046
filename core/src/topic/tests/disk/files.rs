//! A disk for one topic that does what real ones do: late, in any order that jobs permit, not at all, or only
//! seemingly.
//!
//! A file is what a process sees of it and what is on the medium; between the two are writes that no fsync has covered.
//! *Kill* keeps all that was written, and perhaps a part of what was being written. *Power off* keeps what was fsynced,
//! and of the rest any part. A failed fsync drops the writes it was for: a later one that succeeds does not bring them
//! back.

use crate::random::Random;
use crate::storage::names::FileName;
use crate::storage::recovered::Recovered;
use crate::storage::recovery::Recovery;
use crate::storage::slow_crc;
use crate::topic::disk::{Failed, Job, Lane, Loaded, Op};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What a disk writes as a whole or not at all; smaller than real ones, as messages are.
const SECTOR: u64 = 64;

pub(super) const INCARNATION: u64 = 7;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// Names as a process sees them, as they are on the medium, and changes since the directory was fsynced.
    names: BTreeMap<FileName, usize>,
    kept_names: BTreeMap<FileName, usize>,
    changes: Vec<Change>,
    files: Vec<File>,
    jobs: Vec<Running>,
    /// So many operations from now on fail, of the kinds that can; `usize::MAX`: until it is repaired.
    pub(super) failing: usize,
    /// So many fsyncs of segments fail, and those of journals, too.
    pub(super) failing_syncs: usize,
    pub(super) failing_journals: bool,
    /// Reads fail too.
    pub(super) failing_reads: bool,
    /// For want of something else than a medium that works.
    pub(super) is_busy: bool,
    /// A place of a file that cannot be read.
    pub(super) bad: Option<(FileName, usize)>,
    /// These cannot be removed.
    pub(super) stuck: BTreeSet<FileName>,
    /// Bytes of records written so far, fsyncs, and bytes read.
    pub(super) written: u64,
    pub(super) syncs: u64,
    pub(super) read: u64,
    /// Operations done so far.
    pub(super) done: u64,
    /// There is room for the journal only, until a segment is removed.
    pub(super) is_full: bool,
    /// An fsync has failed, a write was cut in the middle of a file, some of what was not fsynced was lost and some was
    /// not, or a bit was flipped.
    pub(super) may_be_damaged: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    content: Vec<u8>,
    kept: Vec<u8>,
    /// Since the last fsync.
    writes: Vec<(usize, Vec<u8>)>,
    /// An fsync has failed.
    is_poisoned: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Name(FileName, usize),
    Rename(FileName, FileName),
    Remove(FileName),
}

#[derive(Clone, Debug)]
struct Running {
    job: Job,
    /// The next operation.
    next: usize,
    loaded: Option<Loaded>,
}

/// A job's end, to be told to the topic.
pub(super) type Outcome = (u64, Result<Option<Loaded>, Failed>);

impl Files {
    /// The topic has at most one commit and one sync under way; reads, and the rest before a commit, go beside
    /// anything.
    pub(super) fn add(&mut self, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            let is_other = |other: &Running| other.job.lane != job.lane || other.job.ops.is_empty();
            let is_alone = job.lane == Lane::Read || job.ops.is_empty() || self.jobs.iter().all(is_other);
            assert!(is_alone, "two jobs that write in lane {:?}", job.lane);
            // An error is told once, to whichever of two fsyncs.
            let syncs =
                |job: &Job, name: FileName| job.ops.iter().any(|op| matches!(op, Op::Sync { file } if *file == name));
            let segments = job.ops.iter().filter_map(|op| if let Op::Sync { file } = op { Some(*file) } else { None });
            for file in segments.filter(|file| matches!(file, FileName::Segment(_))) {
                assert!(!self.jobs.iter().any(|other| syncs(&other.job, file)), "two fsyncs of {file:?} at once");
            }
            self.jobs.push(Running { job, next: 0, loaded: None });
        }
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Does one operation of one job; the outcome of that, if it has come to its end.
    pub(super) fn step(&mut self, random: &mut Random) -> Option<Outcome> {
        let chosen = random.below(self.jobs.len().max(1) as u64) as usize;
        let running = self.jobs.get_mut(chosen)?;
        let mut result = Ok(None);
        if let Some(op) = running.job.ops.get(running.next).cloned() {
            let op_number = running.next;
            running.next += 1;
            self.done += 1;
            result = self.perform(op, random).map_err(|reason| Failed {
                op: op_number,
                reason,
                is_of_medium: !self.is_busy,
            });
        }
        let running = self.jobs.get_mut(chosen)?;
        if let Ok(loaded) = &mut result {
            running.loaded = loaded.take().or_else(|| running.loaded.take());
            if running.next < running.job.ops.len() {
                return None;
            }
        }
        let Running { job, loaded, .. } = self.jobs.swap_remove(chosen);
        Some((job.id, result.map(|_| loaded)))
    }

    fn perform(&mut self, op: Op, random: &mut Random) -> Result<Option<Loaded>, String> {
        let fails = self.fails(&op);
        match op {
            Op::Create { file } => {
                if fails {
                    return Err("cannot create".to_string());
                }
                self.files.push(File::default());
                self.names.insert(file, self.files.len() - 1);
                self.changes.push(Change::Name(file, self.files.len() - 1));
            }
            Op::Write { file, offset, data } => {
                let mut bytes = data.seal(slow_crc);
                if fails {
                    bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
                }
                if matches!(file, FileName::Segment(_)) {
                    self.written += bytes.len() as u64;
                }
                self.file(file)?.write(offset as usize, bytes);
                if fails {
                    return Err("no space left on device".to_string());
                }
            }
            Op::Sync { file } => {
                self.syncs += 1;
                self.may_be_damaged |= fails;
                self.file(file)?.sync(fails, random)?;
            }
            Op::SyncDirectory if fails => return Err("input/output error".to_string()),
            Op::SyncDirectory => {
                self.changes.clear();
                self.kept_names = self.names.clone();
            }
            Op::Rename { from, to } => {
                if fails {
                    return Err("cannot rename".to_string());
                }
                let file = self.names.remove(&from).ok_or_else(|| format!("{from:?} does not exist"))?;
                self.names.insert(to, file);
                self.changes.push(Change::Rename(from, to));
            }
            Op::Remove { file } if fails || self.stuck.contains(&file) => return Err("cannot remove".to_string()),
            Op::Remove { file } => {
                if self.names.remove(&file).is_some() {
                    self.is_full &= !matches!(file, FileName::Segment(_));
                    self.changes.push(Change::Remove(file));
                }
            }
            Op::Read { .. } if fails => return Err("input/output error".to_string()),
            Op::Read { file, offset, length, first_seq } => {
                let bytes = self.file(file)?.read(offset as usize, length);
                self.read += bytes.len() as u64;
                return Ok(Some(Loaded::new(bytes, first_seq, slow_crc)));
            }
        }
        Ok(None)
    }

    /// Whether an operation fails, which may be one failure less to come.
    fn fails(&mut self, op: &Op) -> bool {
        let fails = match *op {
            Op::Read { file, offset, length, .. } => return self.cannot_read(file, offset as usize, length),
            _ => self.failing > 0,
        };
        if fails && self.failing != usize::MAX {
            self.failing -= 1;
        }
        let grows = |file| self.is_full && matches!(file, FileName::Segment(_));
        match *op {
            Op::Create { file } | Op::Write { file, .. } => fails || grows(file),
            Op::Sync { file: FileName::Segment(_) } if self.failing_syncs > 0 => {
                self.failing_syncs -= usize::from(self.failing_syncs != usize::MAX);
                true
            }
            Op::Sync { .. } => fails || self.failing_journals,
            _ => fails,
        }
    }

    fn cannot_read(&self, file: FileName, offset: usize, length: usize) -> bool {
        let is_bad = |(bad, at)| bad == file && (offset..offset + length).contains(&at);
        self.failing_reads || self.bad.is_some_and(is_bad)
    }

    fn file(&mut self, name: FileName) -> Result<&mut File, String> {
        let file = *self.names.get(&name).ok_or_else(|| format!("{name:?} does not exist"))?;
        Ok(&mut self.files[file])
    }

    /// The process ends; what it was writing may be written in part.
    pub(super) fn kill(&mut self, random: &mut Random) {
        // Whether a page cache still shows what a failed fsync has dropped, nobody can rely on.
        for file in self.files.iter_mut().filter(|file| file.is_poisoned) {
            file.content = file.kept.clone();
            file.writes.iter().for_each(|(offset, bytes)| put(&mut file.content, *offset, bytes));
        }
        for running in core::mem::take(&mut self.jobs) {
            if let Some(Op::Write { file, offset, data }) = running.job.ops.get(running.next).cloned() {
                let mut bytes = data.seal(slow_crc);
                let end = offset as usize + bytes.len();
                bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
                let is_cut = offset as usize + bytes.len() < end;
                if let Ok(file) = self.file(file) {
                    // A region was placed behind it and written before it: what is cut is not at the end of the file.
                    let is_inside = file.content.len() > offset as usize;
                    file.write(offset as usize, bytes);
                    self.may_be_damaged |= is_cut && is_inside;
                }
            }
        }
    }

    /// The machine loses power. `worst`: nothing survives that need not.
    pub(super) fn power_off(&mut self, worst: bool, random: &mut Random) {
        self.kill(random);
        self.may_be_damaged |= !worst;
        let mut survives = |what: u64| if worst { 0 } else { random.below(what + 1) };
        for file in &mut self.files {
            for (offset, bytes) in core::mem::take(&mut file.writes) {
                // Some are lost, some torn, some whole; a later one may survive an earlier one.
                let whole = bytes.len() as u64;
                let length = match survives(3) {
                    0 => 0,
                    1 => ((offset as u64 + survives(whole)) / SECTOR * SECTOR).saturating_sub(offset as u64),
                    _ => whole,
                };
                put(&mut file.kept, offset, &bytes[..length as usize]);
            }
            file.content = file.kept.clone();
        }
        for change in core::mem::take(&mut self.changes) {
            if survives(1) == 0 {
                continue;
            }
            match change {
                Change::Name(name, file) => {
                    self.kept_names.insert(name, file);
                }
                Change::Rename(from, to) => {
                    if let Some(file) = self.kept_names.remove(&from) {
                        self.kept_names.insert(to, file);
                    }
                }
                Change::Remove(name) => {
                    self.kept_names.remove(&name);
                }
            }
        }
        self.names = self.kept_names.clone();
    }

    /// What a start does before it reads: what a process that was killed has written may not be on the medium yet.
    pub(super) fn sync_all(&mut self) {
        for file in self.names.values() {
            let file = &mut self.files[*file];
            for (offset, bytes) in core::mem::take(&mut file.writes) {
                put(&mut file.kept, offset, &bytes);
            }
        }
        self.changes.clear();
        self.kept_names = self.names.clone();
    }

    /// Gives a file another name, which is none of the topic's.
    pub(super) fn set_aside(&mut self, name: FileName) {
        self.names.remove(&name);
        self.kept_names.remove(&name);
    }

    /// Reads everything as a start does.
    pub(super) fn recover(&self) -> Recovered {
        let sizes = self.names.iter().map(|(name, file)| (*name, self.files[*file].content.len() as u64));
        let mut recovery = Recovery::new(INCARNATION, sizes, slow_crc);
        while let Some(piece) = recovery.wants() {
            let file = &self.files[self.names[&piece.file]];
            recovery.handle(Ok(file.read(piece.offset as usize, piece.length)));
        }
        recovery.finish()
    }

    /// Reads records of a segment at once.
    pub(super) fn load(&self, segment: u32, at: u64, length: usize, first_seq: u64) -> Loaded {
        let file = &self.files[self.names[&FileName::Segment(segment)]];
        Loaded::new(file.read(at as usize, length), Some(first_seq), slow_crc)
    }

    pub(super) fn segments(&self) -> Vec<FileName> {
        self.names.keys().copied().filter(|name| matches!(name, FileName::Segment(_))).collect()
    }

    pub(super) fn names(&self) -> Vec<FileName> {
        self.names.keys().copied().collect()
    }

    /// Changes one bit of a file, on the medium and for the process.
    pub(super) fn flip(&mut self, name: FileName, bit: usize) {
        self.may_be_damaged = true;
        if let Ok(file) = self.file(name) {
            for bytes in [&mut file.content, &mut file.kept] {
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
    }

    pub(super) fn content(&mut self, name: FileName) -> Vec<u8> {
        self.file(name).expect("a file").content.clone()
    }
}

impl File {
    fn write(&mut self, offset: usize, bytes: Vec<u8>) {
        put(&mut self.content, offset, &bytes);
        self.writes.push((offset, bytes));
    }

    /// What a failed fsync dropped is not brought back: only what was written since is kept by the next one.
    fn sync(&mut self, fails: bool, random: &mut Random) -> Result<(), String> {
        if fails {
            self.writes.clear();
            self.is_poisoned = true;
            if random.below(2) == 0 {
                self.content = self.kept.clone();
            }
            return Err("input/output error".to_string());
        }
        for (offset, bytes) in core::mem::take(&mut self.writes) {
            put(&mut self.kept, offset, &bytes);
        }
        Ok(())
    }

    /// As much as there is.
    fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let begin = self.content.len().min(offset);
        let end = self.content.len().min(begin + length);
        self.content[begin..end].to_vec()
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    content.resize(content.len().max(offset + bytes.len()), 0);
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}
