//! A disk that is full, and one that fails: what needs it is refused and `/ping` says so, the rest goes on, nothing
//! that was accepted is lost, and when it works again everything is well without traffic and without a restart.
//!
//! The full one is a small tmpfs in a mount namespace of its own, which ends with nsqd; where no user may mount, that
//! test says that it was left out. The failing one needs nothing: no file of nsqd's may be written for a while.

use super::{Nsqd, command, number, publish, run, sized};
use crate::program::{PATIENCE, Program, answer, http};
use nsq_core::message::MessageId;
use nsq_core::wire::Message;
use nsq_net::client::plain::{Consumer, Event, Published};
use rustix::process::{Pid, Resource, Signal, getrlimit, prlimit};
use std::collections::BTreeSet;
use std::io::{Write as _, stderr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const TOPIC: &str = "t";
const BODY: usize = 20_000;
const HOUR: Duration = Duration::from_secs(3600);
/// How long messages are published to a disk that has no room for them.
const FILLING: Duration = Duration::from_secs(4);

#[test]
fn a_full_disk_refuses_what_needs_it_and_recovers_by_itself() {
    full(&["--mem-queue-size=10", "--max-bytes-per-file=1000000"], false, HOUR);
}

#[test]
fn a_full_disk_refuses_what_is_to_be_durable_and_recovers_by_itself() {
    full(&["--durable", "--max-bytes-per-file=1000000"], true, HOUR);
}

#[test]
fn a_disk_full_of_a_single_file_recovers_by_itself() {
    full(&["--mem-queue-size=10"], false, HOUR);
    // The only file there is has to be done with.
    full(&["--durable"], true, FILLING);
}

fn full(flags: &[&str], durable: bool, delay: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let Some(command) = on_tmpfs(dir.path(), command(dir.path(), flags)) else {
        // Past libtest, which keeps to itself what tests print that pass.
        let _ = writeln!(stderr(), "LEFT OUT: no tmpfs can be mounted here, so no disk is filled; see the failing one");
        return;
    };
    let nsqd = Nsqd::serving(Program::start(command, dir.path()));
    run(async {
        let held = Held::by(&nsqd, delay).await;
        let (mut accepted, refused) = fill(&nsqd, FILLING).await;
        assert!(accepted.len() > 250, "8 MB are room for more than {} messages", accepted.len());
        refuses(&nsqd, ": disk full: ", durable).await;
        accepted.extend(if delay == HOUR { 0..2 } else { 0..4 });
        assert_eq!(held.drain(&nsqd, &refused).await, accepted, "accepted, delivered");
        nsqd.wait_for("end of the trouble", |nsqd| (nsqd.ping() == (200, "OK".to_owned())).then_some(()));
        recovered(&nsqd, durable).await;
    });
    let log = nsqd.stop();
    let told = log.lines().filter(|line| line.contains(" ERROR: DISK: ")).count();
    assert!((1..6).contains(&told), "it is told, and not over and over:\n{log}");
}

#[test]
fn a_failing_disk_refuses_what_needs_it_and_recovers_by_itself() {
    failing("--mem-queue-size=10", false);
}

#[test]
fn a_failing_disk_refuses_what_is_to_be_durable_and_recovers_by_itself() {
    failing("--durable", true);
}

#[test]
fn an_end_that_cannot_write_what_was_accepted_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut nsqd = Nsqd::start(dir.path(), &["--mem-queue-size=10"]);
    run(async { publish(&mut nsqd.producer().await, TOPIC, 0..3, BODY).await });
    // A file that is in the way; were all files to stay as they are, the log would too.
    std::fs::write(dir.path().join("data/topics"), "").unwrap();
    nsqd.program.signal(Signal::TERM);
    assert_eq!(nsqd.program.status(), 1, "{}", nsqd.log());
    let log = nsqd.log();
    assert!(log.contains(" ERROR: TOPIC(t): lost 3 messages: "), "{log}");
    assert!(log.ends_with(" FATAL: failed to store 3 messages, they are lost\n"), "{log}");
}

fn failing(flag: &str, durable: bool) {
    let dir = tempfile::tempdir().unwrap();
    let nsqd = command(dir.path(), &[flag]);
    let mut ignoring = Command::new("sh");
    // The signal would end it; ignored, the write fails instead.
    ignoring.args(["-c", "trap '' XFSZ && exec \"$@\"", "sh"]).arg(nsqd.get_program()).args(nsqd.get_args());
    let nsqd = Nsqd::serving(Program::start(ignoring, dir.path()));
    run(async {
        let held = Held::by(&nsqd, HOUR).await;
        publish(&mut nsqd.producer().await, TOPIC, 4..FIRST, BODY).await;
        files_may_grow(&nsqd, false);
        let (mut accepted, refused) = fill(&nsqd, Duration::from_secs(3)).await;
        assert!(accepted.is_empty(), "a message is said to be written that cannot be");
        refuses(&nsqd, "too large", durable).await;
        files_may_grow(&nsqd, true);
        nsqd.wait_for("end of the trouble", |nsqd| (nsqd.ping() == (200, "OK".to_owned())).then_some(()));
        accepted.extend((0..2).chain(4..FIRST));
        assert_eq!(held.drain(&nsqd, &refused).await, accepted, "accepted, delivered");
        recovered(&nsqd, durable).await;
    });
    nsqd.stop();
}

/// nsqd's command, on a file system of 8 MB; `None` if that cannot be.
fn on_tmpfs(dir: &Path, nsqd: Command) -> Option<Command> {
    let script = "mount -t tmpfs -o size=8m,mode=755 none data && exec \"$@\"";
    // As root, or as root of a user namespace.
    ["-m", "-rm"].into_iter().find_map(|how| {
        let unshared = |program: &str| {
            let mut command = Command::new("unshare");
            command.current_dir(dir).args([how, "sh", "-c", script, "sh", program]);
            command
        };
        let works = unshared("true").output().is_ok_and(|ran| ran.status.success());
        works.then(|| {
            let mut command = unshared(nsqd.get_program().to_str().unwrap());
            command.args(nsqd.get_args());
            command
        })
    })
}

/// Whether writes to files succeed.
fn files_may_grow(nsqd: &Nsqd, they_may: bool) {
    let mut limit = getrlimit(Resource::Fsize);
    if !they_may {
        limit.current = Some(0);
    }
    prlimit(Pid::from_raw(nsqd.program.id() as i32), Resource::Fsize, limit).unwrap();
}

/// Messages of all kinds that are there before the trouble begins: 0 is in flight, 1 was requeued, 2 is requeued with a
/// delay, 3 is published with one.
struct Held {
    consumer: Consumer,
    in_flight: MessageId,
    /// How many are deferred beyond the end of the test.
    deferred: u64,
}

/// The first message that may be refused.
const FIRST: u64 = 50;
/// Messages that are refused in any case.
const REFUSED: [u64; 3] = [2000, 2001, 0x0101_0101];

impl Held {
    async fn by(nsqd: &Nsqd, delay: Duration) -> Self {
        let mut consumer = nsqd.consumer(TOPIC, "c", 3).await;
        let mut producer = nsqd.producer().await;
        publish(&mut producer, TOPIC, 0..3, BODY).await;
        let published = producer.publish(TOPIC, &sized(3, BODY), delay).await.unwrap();
        assert_eq!(published, Published::Accepted);
        let mut held = Vec::new();
        for expected in 0..3 {
            let message = next(&mut consumer).await.expect("a message");
            assert_eq!(number(&message.body), expected);
            held.push(message.id);
        }
        consumer.ready(0);
        consumer.requeue(held[1], Duration::ZERO);
        consumer.requeue(held[2], delay);
        consumer.flush().await.unwrap();
        while nsqd.counts(TOPIC, "c") != [1, 1, 2] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { consumer, in_flight: held[0], deferred: if delay == HOUR { 2 } else { 0 } }
    }

    /// Finishes everything that is not deferred; the numbers, but for those that nobody knows about, because they were
    /// refused.
    async fn drain(mut self, nsqd: &Nsqd, refused: &BTreeSet<u64>) -> BTreeSet<u64> {
        let mut numbers = BTreeSet::from([0]);
        let begin = Instant::now();
        self.consumer.finish(self.in_flight);
        self.consumer.ready(100);
        while nsqd.counts(TOPIC, "c")[..2] != [0; 2] {
            while let Some(message) = next(&mut self.consumer).await {
                let number = number(&message.body);
                assert_eq!(message.attempts, if (1..3).contains(&number) { 2 } else { 1 }, "{number}");
                assert!(numbers.insert(number), "{number} came twice");
                self.consumer.finish(message.id);
            }
            assert!(begin.elapsed() < PATIENCE, "{:?}\n{}", nsqd.counts(TOPIC, "c"), nsqd.log());
        }
        let deferred = nsqd.counts(TOPIC, "c")[2];
        // The one of `refuses` may be there or not.
        assert!((self.deferred..=self.deferred + 1).contains(&deferred), "{deferred} are deferred");
        numbers.retain(|number| !refused.contains(number) && !REFUSED.contains(number));
        numbers
    }
}

/// Publishes from [`FIRST`] on until nsqd refuses one, and goes on for some time: the numbers that were accepted and
/// those that were not.
async fn fill(nsqd: &Nsqd, goes_on: Duration) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (mut accepted, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let mut producer = nsqd.producer().await;
    let mut until = None;
    for number in FIRST..REFUSED[0] {
        if until.is_some_and(|until| Instant::now() > until) {
            return (accepted, refused);
        }
        match producer.publish(TOPIC, &sized(number, BODY), Duration::ZERO).await.unwrap() {
            Published::Accepted => {
                accepted.insert(number);
            }
            Published::Refused(text) => {
                assert!(text.starts_with("E_PUB_FAILED PUB failed "), "{text}");
                refused.insert(number);
                until.get_or_insert_with(|| Instant::now() + goes_on);
                tokio::time::sleep(goes_on / 100).await;
                producer = nsqd.producer().await;
            }
        }
    }
    panic!("everything was accepted: {:?}", nsqd.ping());
}

/// What needs the disk is refused, and only that.
async fn refuses(nsqd: &Nsqd, why: &str, durable: bool) {
    let (status, text) = nsqd.ping();
    assert!(status == 500 && text.starts_with("NOK - ") && text.contains(why), "{status} {text}");
    let stats = http("GET", &nsqd.web, "/stats?format=json", "").unwrap();
    assert!(stats.contains(r#""health":"NOK - "#), "{stats}");

    let many = [sized(REFUSED[0], BODY), sized(REFUSED[1], BODY)];
    let refusal = nsqd.producer().await.publish_many(TOPIC, &many).await.unwrap();
    assert!(matches!(&refusal, Published::Refused(text) if text.starts_with("E_MPUB_FAILED ")), "{refusal:?}");
    let refusal = nsqd.producer().await.publish(TOPIC, &many[0], HOUR).await.unwrap();
    assert!(matches!(&refusal, Published::Refused(text) if text.starts_with("E_DPUB_FAILED ")), "{refusal:?}");
    let text = String::from_utf8(sized(REFUSED[2], 0)).unwrap();
    let (status, text) = answer("POST", &nsqd.web, &format!("/pub?topic={TOPIC}"), &text).unwrap();
    assert_eq!((status, &*text), (503, r#"{"message":"DISK_FAILED"}"#));

    let in_memory = ["x#ephemeral", if durable { "y#ephemeral" } else { "other" }];
    for topic in in_memory {
        publish(&mut nsqd.producer().await, topic, 0..5, 100).await;
        assert_eq!(nsqd.stats(topic)["depth"], 5, "{topic}");
    }
}

/// There is room for more.
async fn recovered(nsqd: &Nsqd, durable: bool) {
    publish(&mut nsqd.producer().await, TOPIC, 3000..3100, BODY).await;
    publish(&mut nsqd.producer().await, if durable { "x#ephemeral" } else { "other" }, 5..6, 100).await;
}

async fn next(consumer: &mut Consumer) -> Option<Message> {
    match tokio::time::timeout(Duration::from_millis(300), consumer.next()).await.ok()?.unwrap() {
        Event::Message(message) => Some(message),
        other => panic!("{other:?}"),
    }
}
