//! A real data directory and a disk that now and then says no: what was accepted is not lost to that, and what cannot
//! be used any more stays for somebody who may know how.

#[allow(dead_code, reason = "each test uses a part of it")]
mod common;

use common::moody::{depth, durable, publish, while_on};
use common::{Nsqd, soon, until, wall};
use nsq_core::name::TopicName;
use nsq_core::options::Options;
use nsq_core::topic::disk::Lane;
use nsq_core::topic::io::Admin;
use nsq_net::client::plain::{Consumer, Event, Producer, Published};
use nsq_net::disk::{Content, Directory, Disk, Op, Running, Task};
use nsq_net::env::Env;
use nsq_net::server::Lost;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whether it is about the directory of the topic `t`.
fn is_of_t(directory: &str) -> bool {
    directory.starts_with("topics/t.")
}

/// One that has `count` messages each in the topics `t` and `u`, and has ended; its directory.
async fn stored(count: usize) -> TempDir {
    let nsqd = durable(TempDir::new().unwrap(), |_| None).await;
    for topic in ["t", "u"] {
        for _ in 0..count {
            assert_eq!(publish(&nsqd, topic, b"m").await, Published::Accepted);
        }
    }
    nsqd.stop_in_order().await.1
}

fn directories(dir: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path().join("topics")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_cannot_be_listed_is_set_aside() {
    let dir = stored(3).await;
    let fails = |op: &Op| matches!(op, Op::List(name) if is_of_t(name)).then_some(io::ErrorKind::Other);
    let nsqd = durable(dir, fails).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(0), Some(3)), "it is no other topic's problem");
    assert_eq!(publish(&nsqd, "t", b"new").await, Published::Accepted);
    let nsqd = durable(nsqd.stop_in_order().await.1, |_| None).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(1), Some(3)));
    let dir = nsqd.stop_in_order().await.1;
    let names = directories(&dir);
    let aside = "t.0000000000000001.unreadable";
    assert_eq!(names, [aside, "t.0000000000000003", "u.0000000000000002"]);
    // Whoever gives it its name back, and nothing else of that name, has the messages.
    std::fs::rename(dir.path().join("topics").join(aside), dir.path().join("topics/t.0000000000000001")).unwrap();
    std::fs::remove_dir_all(dir.path().join("topics").join(&names[1])).unwrap();
    let nsqd = durable(dir, |_| None).await;
    assert_eq!(depth(&nsqd, "t"), Some(3));
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_has_another_name_is_set_aside_whatever_else_fails() {
    let dir = stored(3).await;
    let (root, starting) = (dir.path().to_owned(), Arc::new(AtomicBool::new(true)));
    let fails = {
        let starting = Arc::clone(&starting);
        move |op: &Op| {
            let fails = match op {
                Op::List(name) => is_of_t(name),
                Op::SyncDir(name) => name == "topics",
                Op::Rename(from, to) if is_of_t(from) => std::fs::rename(root.join(from), root.join(to)).is_ok(),
                _ => false,
            };
            (fails && starting.load(Ordering::SeqCst)).then_some(io::ErrorKind::Other)
        }
    };
    let nsqd = durable(dir, fails).await;
    starting.store(false, Ordering::SeqCst);
    assert_eq!(publish(&nsqd, "t", b"new").await, Published::Accepted);
    let dir = nsqd.stop_in_order().await.1;
    assert_eq!(directories(&dir)[0], "t.0000000000000001.unreadable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_may_be_elsewhere_and_a_link_that_leads_nowhere_is_waited_for() {
    let (dir, elsewhere) = (stored(3).await, TempDir::new().unwrap());
    let (topic, moved) = (dir.path().join("topics/t.0000000000000001"), elsewhere.path().join("t"));
    std::fs::rename(&topic, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &topic).unwrap();
    let nsqd = durable(dir, |_| None).await;
    assert_eq!(depth(&nsqd, "t"), Some(3));
    assert_eq!(publish(&nsqd, "t", b"new").await, Published::Accepted);
    let dir = nsqd.stop_in_order().await.1;
    let away = elsewhere.path().join("away");
    std::fs::rename(&moved, &away).unwrap();
    let nsqd = durable(dir, |_| None).await;
    let health = nsqd.server.broker().health().unwrap_err();
    assert!(health.starts_with("TOPIC(t): ") && health.contains("leads nowhere"), "{health}");
    assert!(matches!(publish(&nsqd, "t", b"new").await, Published::Refused(_)));
    assert_eq!(nsqd.server.stop().await, Lost::default(), "what was refused is nobody's loss");
    std::fs::rename(&away, &moved).unwrap();
    let nsqd = durable(nsqd.dir, |_| None).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(4), Some(3)));
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_topic_takes_no_directory_that_is_there() {
    let nsqd = durable(TempDir::new().unwrap(), |_| None).await;
    let theirs = nsqd.dir.path().join("topics/t.0000000000000001");
    std::fs::create_dir_all(&theirs).unwrap();
    std::fs::write(theirs.join("00000001.log"), b"theirs").unwrap();
    assert!(matches!(publish(&nsqd, "t", b"m").await, Published::Refused(_)));
    nsqd.server.stop().await;
    assert_eq!(std::fs::read(theirs.join("00000001.log")).unwrap(), b"theirs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_version_has_written_is_left_to_it() {
    let dir = stored(3).await;
    let topic = dir.path().join("topics/t.0000000000000001");
    let name = std::fs::read_dir(&topic).unwrap().map(|entry| entry.unwrap().path());
    let segment = name.into_iter().find(|path| path.extension().is_some_and(|it| it == "log")).unwrap();
    let ours = std::fs::read(&segment).unwrap();
    let mut theirs = ours.clone();
    theirs[6] = b'2';
    let sum = crc32c::crc32c(&theirs[..60]).to_be_bytes();
    theirs[60..64].copy_from_slice(&sum);
    std::fs::write(&segment, &theirs).unwrap();
    let before = directories(&dir);
    let nsqd = durable(dir, |_| None).await;
    let health = nsqd.server.broker().health().unwrap_err();
    assert!(health.contains("version 2 of the format") && health.starts_with("TOPIC(t): "), "{health}");
    assert!(matches!(publish(&nsqd, "t", b"new").await, Published::Refused(_)), "they would not find it");
    assert_eq!((depth(&nsqd, "u"), publish(&nsqd, "u", b"new").await), (Some(3), Published::Accepted));
    assert_eq!(nsqd.server.stop().await, Lost::default(), "what was refused is nobody's loss");
    assert_eq!(directories(&nsqd.dir), before);
    assert_eq!(std::fs::read(&segment).unwrap(), theirs, "nobody has touched it");
    std::fs::write(&segment, ours).unwrap();
    let nsqd = durable(nsqd.dir, |_| None).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(3), Some(4)));
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_may_read_keeps_its_name_until_somebody_may() {
    let mut dir = stored(3).await;
    let before = directories(&dir);
    for (kept, denied) in [(3, "topics/t.0000000000000001"), (4, "topics/t.0000000000000001/00000001.log")] {
        let fails = move |op: &Op| match op {
            Op::List(name) | Op::Read(name, ..) if name == denied => Some(io::ErrorKind::PermissionDenied),
            _ => None,
        };
        let nsqd = durable(dir, fails).await;
        let health = nsqd.server.broker().health().unwrap_err();
        assert!(health.starts_with("TOPIC(t): ") && health.contains("permission denied"), "{health}");
        assert!(matches!(publish(&nsqd, "t", b"new").await, Published::Refused(_)), "no start would find it");
        let topic = TopicName::new("t").unwrap();
        assert_eq!(nsqd.server.broker().administer(&topic, Admin::DeleteTopic).await, Some(Ok(())));
        assert_eq!(nsqd.server.broker().health().unwrap_err(), health, "the directory is there until a later start");
        assert_eq!((depth(&nsqd, "u"), publish(&nsqd, "u", b"new").await), (Some(kept), Published::Accepted));
        assert_eq!(nsqd.server.stop().await, Lost::default(), "what was refused is nobody's loss");
        assert_eq!(directories(&nsqd.dir), before);
        dir = nsqd.dir;
    }
    let nsqd = durable(dir, |_| None).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(3), Some(5)));
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_read_and_fsynced_is_not_opened_to_be_written() {
    let dir = TempDir::new().unwrap();
    // What runs may not be opened to be written, whoever runs it.
    std::os::unix::fs::symlink(std::env::current_exe().unwrap(), dir.path().join("f")).unwrap();
    let disk = Directory::new(dir.path());
    assert_eq!(disk.run(Op::Read("f".into(), 0, 100)).await.unwrap().content().len(), 100);
    assert!(disk.run(Op::Write("f".into(), 0, Content::Whole(b"".as_slice().into()))).await.is_err());
    disk.run(Op::Sync("f".into())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_can_be_neither_listed_nor_set_aside_is_not_touched() {
    let dir = stored(3).await;
    let fails = |op: &Op| match op {
        Op::List(name) | Op::Rename(name, _) if is_of_t(name) => Some(io::ErrorKind::Other),
        _ => None,
    };
    let nsqd = durable(dir, fails).await;
    assert!(matches!(publish(&nsqd, "t", b"new").await, Published::Refused(_)), "no start would find it");
    let health = nsqd.server.broker().health().unwrap_err();
    assert!(health.starts_with("TOPIC(t): its directory could not be read"), "{health}");
    assert_eq!(publish(&nsqd, "u", b"new").await, Published::Accepted);
    // It is tried once more.
    assert_eq!(nsqd.server.stop().await, Lost::default(), "what was refused is nobody's loss");
    let nsqd = durable(nsqd.dir, |_| None).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(3), Some(4)));
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_is_set_aside_and_not_missed_by_later_starts() {
    let dir = stored(3).await;
    let segment = "topics/t.0000000000000001/00000001.log";
    let fails = move |op: &Op| matches!(op, Op::Read(name, ..) if name == segment).then_some(io::ErrorKind::Other);
    let nsqd = durable(dir, fails).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(0), Some(3)));
    assert_eq!(publish(&nsqd, "t", b"new").await, Published::Accepted);
    let mut dir = nsqd.stop_in_order().await.1;
    for _ in 0..2 {
        let nsqd = durable(dir, |_| None).await;
        assert_eq!(depth(&nsqd, "t"), Some(1));
        dir = nsqd.stop_in_order().await.1;
        assert!(dir.path().join(format!("{segment}.unreadable")).exists() && !dir.path().join(segment).exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_what_is_set_aside_change_once_more_after_an_fsync_that_failed() {
    let dir = stored(3).await;
    let segment = "topics/t.0000000000000001/00000001.log";
    let done = Arc::new(Mutex::new(Vec::new()));
    let fails = {
        let done = Arc::clone(&done);
        move |op: &Op| {
            let mut done = done.lock().unwrap();
            match op {
                Op::Rename(from, _) if from.starts_with(segment) => done.push("rename"),
                Op::SyncDir(name) if is_of_t(name) && !done.is_empty() => done.push("fsync"),
                _ => {}
            }
            let fails = matches!(op, Op::Read(name, ..) if name == segment)
                || matches!(op, Op::SyncDir(_)) && *done == ["rename", "fsync"];
            fails.then_some(io::ErrorKind::Other)
        }
    };
    let nsqd = durable(dir, fails).await;
    assert_eq!(publish(&nsqd, "t", b"new").await, Published::Accepted);
    assert_eq!(done.lock().unwrap()[..5], ["rename", "fsync", "rename", "rename", "fsync"]);
    assert!(nsqd.dir.path().join(format!("{segment}.unreadable")).exists());
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_not_used_while_what_was_set_aside_may_get_its_old_name_back() {
    let dir = stored(3).await;
    let segment = "topics/t.0000000000000001/00000001.log";
    let mut was_renamed = false;
    let fails = move |op: &Op| {
        was_renamed |= matches!(op, Op::Rename(from, _) if from == segment);
        let fails = match op {
            Op::Read(name, ..) => name == segment,
            Op::SyncDir(name) => was_renamed && is_of_t(name),
            _ => false,
        };
        fails.then_some(io::ErrorKind::Other)
    };
    let nsqd = durable(dir, fails).await;
    assert!(nsqd.server.broker().health().unwrap_err().contains("files cannot be set aside"));
    assert!(matches!(publish(&nsqd, "t", b"new").await, Published::Refused(_)), "no journal may forget the file");
    assert_eq!(nsqd.server.stop().await, Lost::default());
    let nsqd = durable(nsqd.dir, |_| None).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(3), Some(3)), "it has its name again");
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_cannot_be_read_costs_what_is_in_it() {
    const PAGE: u64 = 4096;
    const MESSAGES: u64 = 100;
    let nsqd = durable(TempDir::new().unwrap(), |_| None).await;
    let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
    for _ in 0..MESSAGES {
        assert_eq!(producer.publish("t", &[b'x'; 200], Duration::ZERO).await.unwrap(), Published::Accepted);
    }
    drop(producer);
    let mut dir = nsqd.stop_in_order().await.1;
    let segment = "topics/t.0000000000000001/00000001.log";
    let topic = dir.path().join("topics/t.0000000000000001");
    let content = std::fs::read(dir.path().join(segment)).unwrap();
    let names = std::fs::read_dir(&topic).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = names.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    for page in [0, 1, 3, (content.len() as u64 - 1) / PAGE] {
        std::fs::remove_dir_all(&topic).unwrap();
        std::fs::create_dir(&topic).unwrap();
        files.iter().for_each(|(path, content)| std::fs::write(path, content).unwrap());
        let bad = page * PAGE..(page + 1) * PAGE;
        let fails = move |op: &Op| match op {
            Op::Read(name, offset, length) if name == segment => {
                let is_bad = *offset < bad.end && bad.start < offset + *length as u64;
                is_bad.then_some(io::ErrorKind::Other)
            }
            _ => None,
        };
        let nsqd = durable(dir, fails).await;
        let left = depth(&nsqd, "t").unwrap();
        // At most what is in the page is lost, and a chunk whose head is.
        assert!((MESSAGES / 3..=MESSAGES).contains(&left), "{left} are left without page {page}");
        dir = nsqd.stop_in_order().await.1;
        assert!(!dir.path().join(format!("{segment}.unreadable")).exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_start_finds_is_made_safe_before_it_is_read() {
    let dir = stored(3).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let nsqd = durable(dir, move |op| {
        sees.lock().unwrap().push(op.clone());
        None
    })
    .await;
    drop(nsqd.stop_in_order().await);
    let seen = seen.lock().unwrap();
    let first = |is_it: &dyn Fn(&Op) -> bool| seen.iter().position(is_it).expect("it was done");
    let read = first(&|op| matches!(op, Op::Read(file, ..) if is_of_t(file)));
    for directory in ["", "topics", "topics/t.0000000000000001"] {
        let synced = first(&|op| matches!(op, Op::SyncDir(it) if it == directory));
        assert!(synced < read, "{directory:?} is fsynced before: a killed process may just have made it");
    }
    let last = |is_it: &dyn Fn(&Op) -> bool| seen[..read].iter().rposition(is_it).expect("it was done");
    let of_first = |name: &str| name.starts_with("topics/t.0000000000000001");
    let synced = last(&|op| matches!(op, Op::Sync(file) if of_first(file)));
    let listed = last(&|op| matches!(op, Op::List(directory) if of_first(directory)));
    assert!(synced < listed, "an fsync that fails may make a file shorter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_once_while_it_starts_is_tried_again() {
    let dir = stored(3).await;
    let mut failed = BTreeSet::new();
    let fails = move |op: &Op| match op {
        Op::List(_) | Op::Read(..) if failed.insert(format!("{op:?}")) => Some(io::ErrorKind::Other),
        _ => None,
    };
    let nsqd = durable(dir, fails).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(3), Some(3)));
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_directory_was_made_by_halves_does_not_come_back() {
    let failing = Arc::new(AtomicBool::new(true));
    let is_sync = |op: &Op| matches!(op, Op::SyncDir(name) if name == "topics");
    let fails = while_on(&failing, io::ErrorKind::Other, is_sync);
    let nsqd = durable(TempDir::new().unwrap(), fails).await;
    assert!(matches!(publish(&nsqd, "t", b"m").await, Published::Refused(_)));
    failing.store(false, Ordering::SeqCst);
    let deleted = nsqd.server.broker().administer(&TopicName::new("t").unwrap(), Admin::DeleteTopic).await;
    assert_eq!(deleted, Some(Ok(())));
    let nsqd = durable(nsqd.stop_in_order().await.1, |_| None).await;
    assert_eq!(depth(&nsqd, "t"), None, "an answered deletion stays");
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_topic_gives_up_its_memory_when_that_is_short() {
    let nsqd = Nsqd::start(Options::default(), 8 << 20).await;
    let body = vec![b'x'; 100_000];
    for topic in ["idle", "busy"] {
        let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
        while nsqd.server.broker().budget().used() < (if topic == "idle" { 6 << 20 } else { 13 << 19 }) {
            assert_eq!(producer.publish(topic, &body, Duration::ZERO).await.unwrap(), Published::Accepted);
        }
    }
    let broker = Arc::clone(nsqd.server.broker());
    until("memory is there again", || broker.budget().used() < 5 << 20).await;
    assert!(depth(&nsqd, "idle").unwrap() > 40, "and the messages are");
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_fsync_that_failed_for_want_of_room_is_not_repeated() {
    let seen: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let fails = {
        let seen = Arc::clone(&seen);
        move |op: &Op| {
            let (name, syncs) = match op {
                Op::Create(name) => (name, false),
                Op::Sync(name) => (name, true),
                _ => return None,
            };
            let is_first =
                syncs && name.ends_with(".journal.tmp") && seen.lock().unwrap().iter().all(|it| it.0 != "full");
            seen.lock().unwrap().push((if is_first { "full".into() } else { name.clone() }, syncs));
            is_first.then_some(io::ErrorKind::StorageFull)
        }
    };
    let nsqd = durable(TempDir::new().unwrap(), fails).await;
    assert_eq!(publish(&nsqd, "t", b"m").await, Published::Accepted, "there is room in the reserve");
    let broker = Arc::clone(nsqd.server.broker());
    until("the journal is written", || broker.health().is_ok()).await;
    nsqd.stop().await;
    let seen = seen.lock().unwrap();
    let after = seen.iter().skip_while(|it| it.0 != "full").skip(1).find(|it| it.0.contains(".journal"));
    assert!(after.is_some_and(|(_, syncs)| !syncs), "it is written anew: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_is_trouble_until_there_is_room_for_the_reserve() {
    let full = Arc::new(AtomicBool::new(true));
    let fails = {
        let full = Arc::clone(&full);
        move |op: &Op| {
            let fails = matches!(op, Op::Write(name, ..) if name == "nsqd.reserve") && full.load(Ordering::SeqCst);
            fails.then_some(io::ErrorKind::StorageFull)
        }
    };
    let nsqd = durable(TempDir::new().unwrap(), fails).await;
    let broker = Arc::clone(nsqd.server.broker());
    let health = broker.health().unwrap_err();
    assert!(health.starts_with("nsqd.reserve: disk full: "), "{health}");
    full.store(false, Ordering::SeqCst);
    until("there is room again", || broker.health().is_ok()).await;
    nsqd.stop().await;
}

/// A directory whose fsyncs take a while.
struct Slow(Directory);

impl Slow {
    const TIME: Duration = Duration::from_millis(20);
}

impl Disk for Slow {
    fn run(&self, op: Op) -> Running {
        if let Op::Sync(_) = op {
            std::thread::sleep(Self::TIME);
        }
        self.0.run(op)
    }

    fn rest(&self, moment: Duration) -> Task {
        self.0.rest(moment)
    }

    fn host(&self, lane: Lane, task: Task) {
        self.0.host(lane, task);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_take_turns_on_a_slow_disk() {
    // Several to each, so that a commit leads to the next one at once.
    const TOPICS: u32 = 64;
    const PUBLISHERS: u32 = 192;
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(Slow(Directory::new(dir.path())));
    let nsqd = Nsqd::start_durable(Env { wall: Arc::new(wall), seed: 1, disk }, dir).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut publishing = Vec::new();
    for number in 0..PUBLISHERS {
        let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
        let (topic, over) = (format!("t{}", number % TOPICS), Arc::clone(&over));
        publishing.push(tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::SeqCst) {
                let began = Instant::now();
                let published = producer.publish(&topic, b"m", Duration::ZERO).await.unwrap();
                assert_eq!(published, Published::Accepted);
                longest = longest.max(began.elapsed());
            }
            longest
        }));
    }
    let began = Instant::now();
    for number in 0..4 {
        let name = TopicName::new(format!("new{number}")).unwrap();
        soon("nsqd.dat to be written", nsqd.server.broker().create_topic(&name)).await.unwrap();
    }
    let creating = began.elapsed() / 4;
    over.store(true, Ordering::SeqCst);
    let mut longest = Duration::ZERO;
    for publishing in publishing {
        longest = longest.max(soon("publishes to be answered", publishing).await.unwrap());
    }
    // Each has a commit and a journal on 16 threads; a topic that is new has a few fsyncs more.
    assert!(longest < 50 * Slow::TIME && creating < 50 * Slow::TIME, "{longest:?} a publish, {creating:?} a topic");
    nsqd.server.stop().await;
}

/// Removes the journal of the topic `t`: nothing tells that its segment is on the medium.
fn forget_what_is_safe(dir: &TempDir) {
    for entry in std::fs::read_dir(dir.path().join("topics/t.0000000000000001")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "journal") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_topic_that_cannot_be_made_safe_waits_for_a_start_that_can() {
    let dir = stored(3).await;
    forget_what_is_safe(&dir);
    let fails = |op: &Op| matches!(op, Op::Sync(file) if is_of_t(file)).then_some(io::ErrorKind::Other);
    let nsqd = durable(dir, fails).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(0), Some(3)), "it is no other topic's problem");
    assert!(nsqd.server.broker().health().unwrap_err().contains("cannot be made safe"));
    // One fsync fails when the file is found, and some of what is written again.
    let mut left = 3;
    let fails = move |op: &Op| match op {
        Op::Sync(file) if is_of_t(file) && left > 0 => {
            left -= 1;
            Some(io::ErrorKind::Other)
        }
        _ => None,
    };
    let nsqd = durable(nsqd.stop_in_order().await.1, fails).await;
    assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(3), Some(3)));
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_can_be_read_are_made_safe_beside_one_that_cannot() {
    const PAGE: u64 = 4096;
    let nsqd = durable(TempDir::new().unwrap(), |_| None).await;
    for _ in 0..3 {
        assert_eq!(publish(&nsqd, "t", &[b'm'; 6000]).await, Published::Accepted);
    }
    let dir = nsqd.stop_in_order().await.1;
    forget_what_is_safe(&dir);
    let written = Arc::new(Mutex::new(BTreeSet::new()));
    let writes = Arc::clone(&written);
    let fails = move |op: &Op| match op {
        Op::Read(file, at, length) if file.ends_with(".log") => {
            let is_bad = *at < 2 * PAGE && at.saturating_add(*length as u64) > PAGE;
            is_bad.then_some(io::ErrorKind::Other)
        }
        Op::Write(file, at, Content::Whole(content)) if file.ends_with(".log") => {
            let end = at + content.len() as u64;
            writes.lock().unwrap().extend(at / PAGE..end.div_ceil(PAGE));
            None
        }
        _ => None,
    };
    let nsqd = durable(dir, fails).await;
    assert!(depth(&nsqd, "t") > Some(0), "there are others");
    assert_eq!(*written.lock().unwrap(), BTreeSet::from([0, 2, 3, 4]));
    nsqd.stop_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_topic_whose_names_of_files_cannot_be_made_safe_waits_too() {
    let mut dir = stored(3).await;
    for (failing, found) in [(usize::MAX, 0), (3, 3)] {
        let mut left = failing;
        let fails = move |op: &Op| match op {
            Op::SyncDir(name) if is_of_t(name) && left > 0 => {
                left -= 1;
                Some(io::ErrorKind::Other)
            }
            _ => None,
        };
        let nsqd = durable(dir, fails).await;
        assert_eq!((depth(&nsqd, "t"), depth(&nsqd, "u")), (Some(found), Some(3)));
        assert_eq!(nsqd.server.broker().health().is_ok(), found == 3);
        dir = nsqd.stop_in_order().await.1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_read_though_its_names_cannot_be_made_safe() {
    let dir = stored(3).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let works = Arc::clone(&is_over);
    let fails = move |op: &Op| {
        let is_it = matches!(op, Op::SyncDir(name) if name == "topics");
        (is_it && !works.load(Ordering::Relaxed)).then_some(io::ErrorKind::Other)
    };
    let nsqd = durable(dir, fails).await;
    let mut consumer = Consumer::connect(&nsqd.tcp, None, "t", "c").await.unwrap();
    consumer.ready(10);
    for _ in 0..3 {
        let event = tokio::time::timeout(Duration::from_secs(20), consumer.next()).await.expect("a message").unwrap();
        assert!(matches!(event, Event::Message(_)));
    }
    is_over.store(true, Ordering::Relaxed);
    until("the disk works", || nsqd.server.broker().health().is_ok()).await;
    nsqd.stop_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_a_start_could_not_make_safe_are_safe_before_anything_is_acknowledged() {
    let dir = stored(3).await;
    let (failed, is_safe) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (fails, names) = (Arc::clone(&failed), Arc::clone(&is_safe));
    let fails = move |op: &Op| match op {
        Op::SyncDir(name) if name == "topics" => {
            names.store(fails.swap(true, Ordering::Relaxed), Ordering::Relaxed);
            (!names.load(Ordering::Relaxed)).then_some(io::ErrorKind::Other)
        }
        // No message is written before.
        Op::Write(file, ..) if file.ends_with(".log") && !names.load(Ordering::Relaxed) => Some(io::ErrorKind::Other),
        _ => None,
    };
    let nsqd = durable(dir, fails).await;
    assert!(failed.load(Ordering::Relaxed), "the start has tried it");
    assert_eq!(publish(&nsqd, "t", b"m").await, Published::Accepted);
    assert!(is_safe.load(Ordering::Relaxed));
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_deleted_topic_that_could_not_be_removed_are_removed_later() {
    let mut failed = false;
    let fails = move |op: &Op| match op {
        Op::RemoveDir(_) if !std::mem::replace(&mut failed, true) => Some(io::ErrorKind::Other),
        _ => None,
    };
    let nsqd = durable(stored(3).await, fails).await;
    let deleted = nsqd.server.broker().administer(&TopicName::new("t").unwrap(), Admin::DeleteTopic).await;
    assert_eq!(deleted, Some(Ok(())), "nobody waits for that");
    let broker = nsqd.server.broker();
    until("that to be told", || broker.health().is_err_and(|why| why.contains("failed to remove topics/t."))).await;
    until("the files to go", || directories(&nsqd.dir) == ["u.0000000000000002"]).await;
    until("all to be well", || broker.health().is_ok()).await;
    nsqd.stop().await;
}
