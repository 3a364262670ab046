//! A bug in one topic, played by a clock that panics while the topic is locked: everything else goes on, and is stored.
//! A bug in one of its jobs, played by a disk, is a failure of the disk.

#[allow(dead_code, reason = "each test uses a part of it")]
mod common;

use common::{Nsqd, soon, wall};
use nsq_core::time::Timestamp;
use nsq_core::topic::disk::Lane;
use nsq_net::client::plain::{Producer, Published};
use nsq_net::disk::{Directory, Disk, Op, Running, Task};
use nsq_net::env::Env;
use std::backtrace::Backtrace;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

async fn publish(nsqd: &Nsqd, topic: &str) -> Option<Published> {
    let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
    producer.publish(topic, b"m", Duration::ZERO).await.ok()
}

async fn start(dir: TempDir, panics: &Arc<AtomicBool>) -> Nsqd {
    let panics = Arc::clone(panics);
    let wall = move || -> Timestamp {
        let is_at_work = || Backtrace::force_capture().to_string().contains("topics.rs");
        assert!(!(panics.load(Ordering::SeqCst) && is_at_work() && panics.swap(false, Ordering::SeqCst)), "on purpose");
        wall()
    };
    let disk = Arc::new(Directory::new(dir.path()));
    Nsqd::start_durable(Env { wall: Arc::new(wall), seed: 1, disk }, dir).await
}

fn depths(nsqd: &Nsqd) -> [Option<u64>; 3] {
    let broker = nsqd.server.broker();
    ["a", "b", "c"].map(|topic| broker.topic_stats(Some(topic), None, false).first().map(|stats| stats.depth))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_has_panicked_is_no_other_topic_s_problem() {
    let panics = Arc::new(AtomicBool::new(false));
    let nsqd = start(TempDir::new().unwrap(), &panics).await;
    for topic in ["a", "b", "c"] {
        assert_eq!(publish(&nsqd, topic).await, Some(Published::Accepted));
    }
    // Their journals are written by then, so nobody calls them.
    tokio::time::sleep(Duration::from_secs(1)).await;
    panics.store(true, Ordering::SeqCst);
    assert_eq!(publish(&nsqd, "b").await, None, "the connection is closed");
    assert!(!panics.load(Ordering::SeqCst), "it has panicked");
    assert_eq!(publish(&nsqd, "b").await, None, "it stays locked up");
    assert_eq!(publish(&nsqd, "c").await, Some(Published::Accepted));
    assert_eq!(depths(&nsqd), [Some(1), None, Some(2)]);

    nsqd.server.stop().await;
    let nsqd = start(nsqd.dir, &panics).await;
    assert_eq!(depths(&nsqd), [Some(1), Some(1), Some(2)], "what it had acknowledged was on the medium");
    nsqd.server.stop().await;
}

/// A directory of which the next fsync of a file meets a bug.
struct Buggy(Directory, Arc<AtomicBool>);

impl Disk for Buggy {
    fn run(&self, op: Op) -> Running {
        assert!(!(matches!(op, Op::Sync(_)) && self.1.swap(false, Ordering::SeqCst)), "on purpose");
        self.0.run(op)
    }

    fn host(&self, lane: Lane, task: Task) {
        self.0.host(lane, task);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_panics_has_failed() {
    let (dir, panics) = (TempDir::new().unwrap(), Arc::new(AtomicBool::new(false)));
    let disk = Arc::new(Buggy(Directory::new(dir.path()), Arc::clone(&panics)));
    let nsqd = Nsqd::start_durable(Env { wall: Arc::new(wall), seed: 1, disk }, dir).await;
    assert_eq!(publish(&nsqd, "a").await, Some(Published::Accepted));
    // Its journal is written by then, so the bug is met by the next commit.
    tokio::time::sleep(Duration::from_secs(1)).await;
    panics.store(true, Ordering::SeqCst);
    for number in 2..5 {
        assert_eq!(soon("an answer", publish(&nsqd, "a")).await, Some(Published::Accepted), "it is tried once more");
        assert_eq!(depths(&nsqd)[0], Some(number));
    }
    assert!(!panics.load(Ordering::SeqCst), "it has panicked");
    nsqd.server.stop().await;
    let nsqd = start(nsqd.dir, &panics).await;
    assert_eq!(depths(&nsqd)[0], Some(4));
    nsqd.server.stop().await;
}
