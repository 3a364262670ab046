//! The disk port: one operation, one await.
//!
//! Core says what is to be done, a disk does it: the real one off the async threads, the simulator's with latency,
//! failures and crashes between any two operations. All names are relative to the data directory, with `/` between a
//! directory and what is in it; the empty name is the data directory itself. What both have to do is
//! `sim/tests/disk_port.rs`, which runs on both.

use bytes::Bytes;
use nsq_core::storage::Crc;
use nsq_core::topic::disk::{Data, Lane};
use std::fmt;
use std::future::{Future, ready};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

mod files;
mod host;

use files::Files;
use host::Threads;

/// Too many open files in the whole system, and in this process; the same numbers on every Unix.
pub(crate) const ENFILE: i32 = 23;
/// See [`ENFILE`].
pub(crate) const EMFILE: i32 = 24;

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// Makes the file, empty; what there was of that name is gone.
    Create(String),
    /// Writes there, all of it, and fails if there is no such file; what lies between its end and the offset is zero.
    Write(String, u64, Content),
    /// Makes the file's content and its length stay.
    Sync(String),
    /// Reads so many bytes from there; fewer if the file ends before.
    Read(String, u64, usize),
    /// Gives a file or a directory another name in the same directory, replacing a file that has it.
    Rename(String, String),
    /// Removes the file; that there is none is no failure.
    Remove(String),
    /// Makes the directory, and fails with [`ErrorKind::AlreadyExists`] if there is anything of that name.
    CreateDir(String),
    /// Removes the directory and the files in it; that there is none is no failure.
    RemoveDir(String),
    /// Makes what was created, renamed and removed in the directory stay.
    SyncDir(String),
    /// Tells what is in the directory; nothing if there is none.
    List(String),
}

/// What is written.
#[derive(Clone, Debug)]
pub enum Content {
    /// Bytes as they are.
    Whole(Bytes),
    /// A topic's, to be sealed with the checksum by whoever writes them.
    Sealed(Data, Crc),
}

/// What an operation gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// What [`Op::Read`] has read.
    Content(Vec<u8>),
    /// What [`Op::List`] has found, in the order of the names.
    List(Vec<Found>),
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its name in there.
    pub name: String,
    /// Its length in bytes; `None` for a directory, and for a link to one.
    pub length: Option<u64>,
}

/// An operation that has been started.
pub type Running = Pin<Box<dyn Future<Output = io::Result<Outcome>> + Send>>;

/// A task that does little but operations of a disk.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Something that performs operations.
pub trait Disk: Send + Sync {
    /// Starts an operation, which goes on if the future is dropped.
    fn run(&self, op: Op) -> Running;

    /// Lets a moment pass, if nobody waits for the disk meanwhile.
    fn rest(&self, moment: Duration) -> Task {
        Box::pin(tokio::time::sleep(moment))
    }

    /// Starts a task, where its operations cost the least.
    fn host(&self, _lane: Lane, task: Task) {
        drop(tokio::spawn(task));
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |name: &str| if name.is_empty() { "the data path".to_owned() } else { name.to_owned() };
        match self {
            Self::Create(name) | Self::CreateDir(name) => write!(f, "create {}", of(name)),
            Self::Write(name, ..) => write!(f, "write {}", of(name)),
            Self::Sync(name) | Self::SyncDir(name) => write!(f, "fsync {}", of(name)),
            Self::Read(name, ..) => write!(f, "read {}", of(name)),
            Self::Rename(from, to) => write!(f, "rename {from} to {to}"),
            Self::Remove(name) | Self::RemoveDir(name) => write!(f, "remove {}", of(name)),
            Self::List(name) => write!(f, "list {}", of(name)),
        }
    }
}

/// The checksum of everything on disk: CRC-32C, continued.
pub fn crc(before: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(before, bytes)
}

/// Whether the medium may be at fault. If it is not, the same operation may succeed as soon as something else has
/// changed, and what cannot be read now is not lost.
pub fn is_of_medium(error: &io::Error) -> bool {
    let is_other = matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::OutOfMemory
            | ErrorKind::Interrupted
            | ErrorKind::WouldBlock
            | ErrorKind::TimedOut
    );
    !is_other && !matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Has a disk host some work, which begins at once and goes on if the future is dropped.
pub fn hosted<T, W>(disk: &dyn Disk, lane: Lane, work: W) -> impl Future<Output = io::Result<T>> + use<T, W>
where
    T: Send + 'static,
    W: Future<Output = io::Result<T>> + Send + 'static,
{
    let (done, outcome) = oneshot::channel();
    let task = async move {
        // Nobody may want to know.
        let _ = done.send(work.await);
    };
    disk.host(lane, Box::pin(task));
    async move { outcome.await.unwrap_or_else(|error| Err(io::Error::other(error))) }
}

impl Content {
    /// The bytes that go to disk.
    pub fn seal(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Sealed(data, crc) => data.seal(crc).into(),
        }
    }
}

impl Outcome {
    /// What was read.
    pub fn content(self) -> Vec<u8> {
        if let Self::Content(content) = self { content } else { Vec::new() }
    }

    /// What was found.
    pub fn list(self) -> Vec<Found> {
        if let Self::List(found) = self { found } else { Vec::new() }
    }
}

/// A directory of the machine.
pub struct Directory {
    files: Arc<Files>,
    writes: Arc<Threads>,
    reads: Arc<Threads>,
}

/// Reads have threads of their own, so that they do not wait behind fsyncs.
const READS: usize = 8;

impl Directory {
    /// So many jobs write and fsync at once.
    pub const WRITES: usize = 16;

    /// The directory, which must exist; the empty path is the working directory.
    pub fn new(path: &Path) -> Self {
        let root = if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
        Self { files: Arc::new(Files::new(root)), writes: Threads::new(Self::WRITES), reads: Threads::new(READS) }
    }
}

impl Disk for Directory {
    fn run(&self, op: Op) -> Running {
        if host::is_here() {
            return Box::pin(ready(self.files.perform(op)));
        }
        let files = Arc::clone(&self.files);
        let lane = if matches!(op, Op::Read(..) | Op::List(_)) { Lane::Read } else { Lane::Commit };
        Box::pin(hosted(self, lane, async move { files.perform(op) }))
    }

    fn rest(&self, moment: Duration) -> Task {
        // The runtime's timers are too coarse for it; a thread that may block is not.
        if host::is_here() && self.writes.are_free() {
            std::thread::sleep(moment);
        }
        Box::pin(ready(()))
    }

    fn host(&self, lane: Lane, task: Task) {
        if lane == Lane::Read { &self.reads } else { &self.writes }.host(task);
    }
}
