//! The disk port: one operation, one await.
//!
//! Core says what is to be done, a disk does it: the real one off the async threads, the simulator's with latency,
//! failures and crashes between any two operations. All names are relative to the data directory.

use bytes::Bytes;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The whole content of a file.
    Read(String),
    /// Creates a file of that content, replacing one that is there.
    Write(String, Bytes),
    /// Makes a file's content durable.
    Sync(String),
    /// Gives a file another name, replacing one that has it.
    Rename(String, String),
    /// Makes creations and renames durable.
    SyncDir,
}

/// What an operation returns: bytes from a read, nothing from the others.
pub type Done = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// Something that performs operations.
pub trait Disk: Send + Sync {
    /// Starts an operation.
    fn run(&self, op: Op) -> Done;
}

/// A directory of the machine.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// The directory, which must exist; the empty path is the working directory.
    pub fn new(path: &Path) -> Self {
        Self(if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() })
    }
}

impl Disk for Directory {
    fn run(&self, op: Op) -> Done {
        let root = self.0.clone();
        let job = tokio::task::spawn_blocking(move || perform(&root, op));
        Box::pin(async move { job.await.unwrap_or_else(|error| Err(io::Error::other(error))) })
    }
}

fn perform(root: &Path, op: Op) -> io::Result<Bytes> {
    match op {
        Op::Read(name) => return std::fs::read(root.join(name)).map(Bytes::from),
        Op::Write(name, content) => create(&root.join(name), &content)?,
        Op::Sync(name) => std::fs::File::open(root.join(name))?.sync_all()?,
        Op::Rename(from, to) => std::fs::rename(root.join(from), root.join(to))?,
        Op::SyncDir => std::fs::File::open(root)?.sync_all()?,
    }
    Ok(Bytes::new())
}

fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_and_renamed() {
        let root = std::env::temp_dir().join(format!("nsq-disk-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let run = |op| perform(&root, op);
        run(Op::Write("a".into(), Bytes::from_static(b"content"))).unwrap();
        run(Op::Sync("a".into())).unwrap();
        run(Op::Rename("a".into(), "b".into())).unwrap();
        run(Op::SyncDir).unwrap();
        assert_eq!(run(Op::Read("b".into())).unwrap(), "content");
        assert_eq!(run(Op::Read("a".into())).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(root).unwrap();
    }
}
