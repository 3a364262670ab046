//! A disk that now and then says no, and an nsqd on it whose topics are durable.

use super::{Nsqd, wall};
use nsq_core::topic::disk::Lane;
use nsq_net::client::plain::{Producer, Published};
use nsq_net::disk::{Directory, Disk, Op, Running, Task};
use nsq_net::env::Env;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

type Mood = Box<dyn FnMut(&Op) -> Option<io::ErrorKind> + Send>;

/// A directory of which some operations fail.
pub(crate) struct Moody {
    directory: Directory,
    fails: Mutex<Mood>,
}

impl Moody {
    pub(crate) fn new(dir: &TempDir, fails: impl FnMut(&Op) -> Option<io::ErrorKind> + Send + 'static) -> Arc<Self> {
        Arc::new(Self { directory: Directory::new(dir.path()), fails: Mutex::new(Box::new(fails)) })
    }
}

impl Disk for Moody {
    fn run(&self, op: Op) -> Running {
        match (self.fails.lock().unwrap())(&op) {
            None => self.directory.run(op),
            Some(kind) => Box::pin(async move { Err(io::Error::from(kind)) }),
        }
    }

    fn rest(&self, moment: Duration) -> Task {
        self.directory.rest(moment)
    }

    fn host(&self, lane: Lane, task: Task) {
        self.directory.host(lane, task);
    }
}

/// What fails as long as the switch is on.
pub(crate) fn while_on(
    switch: &Arc<AtomicBool>,
    kind: io::ErrorKind,
    concerns: impl Fn(&Op) -> bool + Send + 'static,
) -> impl FnMut(&Op) -> Option<io::ErrorKind> + Send + 'static {
    let switch = Arc::clone(switch);
    move |op| (switch.load(Ordering::SeqCst) && concerns(op)).then_some(kind)
}

pub(crate) async fn durable(dir: TempDir, fails: impl FnMut(&Op) -> Option<io::ErrorKind> + Send + 'static) -> Nsqd {
    let disk = Moody::new(&dir, fails);
    Nsqd::start_durable(Env { wall: Arc::new(wall), seed: 1, disk }, dir).await
}

pub(crate) async fn publish(nsqd: &Nsqd, topic: &str, body: &[u8]) -> Published {
    let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
    producer.publish(topic, body, Duration::ZERO).await.unwrap()
}

pub(crate) fn depth(nsqd: &Nsqd, topic: &str) -> Option<u64> {
    nsqd.server.broker().topic_stats(Some(topic), None, false).first().map(|stats| stats.depth)
}
