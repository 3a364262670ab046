//! What the reserve costs, and when it is made again. Not beside its code, which also runs under shuttle's schedules.

use crate::disk::{Content, Directory, Disk, Op, Running, Task};
use crate::durable::Durable;
use crate::reserve::{FILE, PIECE, PIECES};
use crate::storage::{Storage, Stored};
use bytes::Bytes;
use nsq_core::topic::disk::Lane;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;

/// A disk that may have no room for anything but the reserve, and counts the tasks that it is given.
struct Counting {
    directory: Directory,
    is_full: AtomicBool,
    tasks: AtomicUsize,
}

impl Disk for Counting {
    fn run(&self, op: Op) -> Running {
        match op {
            Op::Write(..) if self.is_full.load(Ordering::SeqCst) => {
                Box::pin(async { Err(io::ErrorKind::StorageFull.into()) })
            }
            op => self.directory.run(op),
        }
    }

    fn host(&self, lane: Lane, task: Task) {
        self.tasks.fetch_add(1, Ordering::SeqCst);
        self.directory.host(lane, task);
    }
}

#[tokio::test]
async fn it_costs_no_task_while_it_is_whole_and_is_made_again_when_it_was_spent() {
    let dir = TempDir::new().unwrap();
    let (is_full, tasks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let disk = Arc::new(Counting { directory: Directory::new(dir.path()), is_full, tasks });
    let storage = Storage::new(Arc::<Counting>::clone(&disk), Durable::default(), &Stored::default());
    let tasks = || disk.tasks.swap(0, Ordering::SeqCst);
    let length = || std::fs::metadata(dir.path().join(FILE)).map_or(0, |about| about.len());
    storage.keep_reserve().await;
    assert_eq!((tasks(), length()), (1, (PIECES * PIECE) as u64));
    for _ in 0..3 {
        storage.keep_reserve().await;
    }
    assert_eq!(tasks(), 0, "it is whole, which costs a look");
    disk.is_full.store(true, Ordering::SeqCst);
    let write = Op::Write("journal".into(), 0, Content::Whole(Bytes::from_static(b"batch")));
    assert!(storage.reserve.spend(write).await.is_err());
    assert_eq!(length(), 0, "it was given");
    storage.keep_reserve().await;
    assert!(tasks() == 1 && storage.health().is_err_and(|why| why.starts_with("nsqd.reserve: disk full")));
    disk.is_full.store(false, Ordering::SeqCst);
    storage.keep_reserve().await;
    assert_eq!((tasks(), length(), storage.health()), (1, (PIECES * PIECE) as u64, Ok(())));
}
