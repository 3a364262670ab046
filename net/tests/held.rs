//! A disk whose fsyncs are done when the test says so: who is answered before, and who has to wait for whom.

#[allow(dead_code, reason = "each test uses a part of it")]
mod common;

use common::{Nsqd, soon, until, wall};
use nsq_core::topic::disk::Lane;
use nsq_net::client::plain::{Consumer, Event, Producer, Published};
use nsq_net::disk::{Directory, Disk, Op, Running, Task};
use nsq_net::env::Env;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

/// A directory whose fsyncs of messages wait for a verdict. Whoever drops the other side lets all of them go.
struct Held {
    directory: Arc<Directory>,
    /// A start is not held up.
    has_started: AtomicBool,
    begun: mpsc::UnboundedSender<Fsync>,
}

/// One that waits, with its thread.
struct Fsync {
    file: String,
    verdict: oneshot::Sender<Verdict>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Succeeds,
    Fails,
}

impl Disk for Held {
    fn run(&self, op: Op) -> Running {
        let file = match &op {
            Op::Sync(file) if file.ends_with(".log") && self.has_started.load(Ordering::SeqCst) => file.clone(),
            _ => return self.directory.run(op),
        };
        let (verdict, awaited) = oneshot::channel();
        let _ = self.begun.send(Fsync { file, verdict });
        let directory = Arc::clone(&self.directory);
        Box::pin(async move {
            match awaited.await {
                Ok(Verdict::Fails) => Err(io::Error::from(ErrorKind::Other)),
                Ok(Verdict::Succeeds) | Err(_) => directory.run(op).await,
            }
        })
    }

    fn rest(&self, moment: Duration) -> Task {
        self.directory.rest(moment)
    }

    fn host(&self, lane: Lane, task: Task) {
        self.directory.host(lane, task);
    }
}

/// The fsyncs that have begun.
struct Fsyncs(mpsc::UnboundedReceiver<Fsync>);

impl Fsyncs {
    /// The next one of that topic; others are not held.
    async fn of(&mut self, topic: &str) -> Fsync {
        loop {
            let fsync = soon("an fsync", self.0.recv()).await.unwrap();
            if fsync.file.starts_with(&format!("topics/{topic}.")) {
                return fsync;
            }
        }
    }
}

/// A durable one.
async fn start(dir: TempDir) -> (Nsqd, Fsyncs) {
    let (begun, fsyncs) = mpsc::unbounded_channel();
    let directory = Arc::new(Directory::new(dir.path()));
    let held = Arc::new(Held { directory, has_started: AtomicBool::new(false), begun });
    let disk = Arc::clone(&held) as Arc<dyn Disk>;
    let nsqd = Nsqd::start_durable(Env { wall: Arc::new(wall), seed: 1, disk }, dir).await;
    held.has_started.store(true, Ordering::SeqCst);
    (nsqd, Fsyncs(fsyncs))
}

/// How a message gets to nsqd.
#[derive(Clone, Copy, Debug)]
enum Road {
    Pub,
    Mpub,
    Dpub,
    HttpPub,
    HttpDefer,
    HttpMpub,
    HttpMpubBinary,
}

impl Road {
    const ALL: [Self; 7] =
        [Self::Pub, Self::Mpub, Self::Dpub, Self::HttpPub, Self::HttpDefer, Self::HttpMpub, Self::HttpMpubBinary];

    const fn is_http(self) -> bool {
        !matches!(self, Self::Pub | Self::Mpub | Self::Dpub)
    }

    fn request(self, topic: &str) -> String {
        let (two, three) = ("\0\0\0\x02ab", "\0\0\0\x02\0\0\0\x01a\0\0\0\x01b");
        let http = |target: &str, body: &str| {
            let length = body.len();
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        match self {
            Self::Pub => format!("  V2PUB {topic}\n{two}"),
            Self::Mpub => format!("  V2MPUB {topic}\n\0\0\0\x0e{three}"),
            Self::Dpub => format!("  V2DPUB {topic} 100\n{two}"),
            Self::HttpPub => http(&format!("/pub?topic={topic}"), "a"),
            Self::HttpDefer => http(&format!("/pub?topic={topic}&defer=100"), "a"),
            Self::HttpMpub => http(&format!("/mpub?topic={topic}"), "a\nb\n"),
            Self::HttpMpubBinary => http(&format!("/mpub?topic={topic}&binary=true"), three),
        }
    }

    const fn ok(self) -> &'static str {
        if self.is_http() { "200 OK" } else { "OK" }
    }

    const fn refused(self) -> &'static str {
        match self {
            Self::Pub => "E_PUB_FAILED",
            Self::Mpub => "E_MPUB_FAILED",
            Self::Dpub => "E_DPUB_FAILED",
            _ => "503 DISK_FAILED",
        }
    }
}

/// Somebody who waits for an answer.
struct Asking(TcpStream, Road);

impl Asking {
    async fn new(nsqd: &Nsqd, road: Road, topic: &str) -> Self {
        let address = if road.is_http() { &nsqd.http } else { &nsqd.tcp };
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(road.request(topic).as_bytes()).await.unwrap();
        Self(stream, road)
    }

    /// Nothing has come, and does not come within a moment in which an answer that waits for nothing would.
    async fn waits(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.0.readable()).await.is_err()
    }

    /// The first word of a frame, or the status and what is said in the body.
    async fn answer(mut self) -> String {
        let mut answer = Vec::new();
        if self.1.is_http() {
            soon("an answer", self.0.read_to_end(&mut answer)).await.unwrap();
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let said = body.strip_prefix("{\"message\":\"").and_then(|rest| rest.strip_suffix("\"}")).unwrap_or(body);
            return format!("{} {said}", &head[9..12]);
        }
        let length = soon("an answer", self.0.read_u32()).await.unwrap();
        answer.resize(length as usize, 0);
        soon("an answer", self.0.read_exact(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer[4..]).split(' ').next().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_is_answered_when_its_fsync_is_done_and_refused_when_that_fails_twice() {
    use Verdict::{Fails, Succeeds};
    let (nsqd, mut fsyncs) = start(TempDir::new().unwrap()).await;
    for road in Road::ALL {
        for verdicts in [&[Succeeds][..], &[Fails, Succeeds], &[Fails, Fails]] {
            let topic =
                format!("{road:?}{}", verdicts.iter().map(|verdict| format!("{verdict:?}")).collect::<String>());
            let asking = Asking::new(&nsqd, road, &topic).await;
            let mut files = Vec::new();
            for verdict in verdicts {
                let fsync = fsyncs.of(&topic).await;
                assert!(asking.waits().await, "{topic}: the answer does not wait for the fsync of {}", fsync.file);
                assert!(!files.contains(&fsync.file), "{topic}: an fsync that failed is not repeated");
                files.push(fsync.file);
                fsync.verdict.send(*verdict).unwrap();
            }
            let expected = if verdicts.ends_with(&[Succeeds]) { road.ok() } else { road.refused() };
            assert_eq!(asking.answer().await, expected, "{topic}");
        }
    }
    drop(fsyncs);
    let broker = Arc::clone(nsqd.server.broker());
    until("the disk works again", || broker.health().is_ok()).await;
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_read_from_disk_while_every_thread_that_writes_waits_for_an_fsync() {
    let (nsqd, fsyncs) = start(TempDir::new().unwrap()).await;
    drop(fsyncs);
    let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
    assert_eq!(producer.publish("read", b"m", Duration::ZERO).await.unwrap(), Published::Accepted);
    drop((producer, Consumer::connect(&nsqd.tcp, None, "read", "c").await.unwrap()));
    // What a start finds is on the disk only.
    let (nsqd, mut fsyncs) = start(nsqd.stop_in_order().await.1).await;
    let (mut asking, mut held) = (Vec::new(), Vec::new());
    for number in 0..Directory::WRITES {
        let topic = format!("written{number}");
        asking.push(Asking::new(&nsqd, Road::Pub, &topic).await);
        held.push(fsyncs.of(&topic).await);
    }
    let mut consumer = Consumer::connect(&nsqd.tcp, None, "read", "c").await.unwrap();
    consumer.ready(1);
    let Event::Message(message) = soon("a message", consumer.next()).await.unwrap() else { panic!("no message") };
    assert_eq!(message.body, "m");
    drop((held, fsyncs));
    for asking in asking {
        assert_eq!(asking.answer().await, "OK");
    }
    nsqd.stop().await;
}

/// A pipe with a name: whoever opens it to fsync it waits, with the thread, until somebody opens it to write.
struct Pipe<'a>(&'a Path);

impl<'a> Pipe<'a> {
    fn new(path: &'a Path) -> Self {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Pipe<'_> {
    /// Lets them go, for the runtime ends when they have.
    fn drop(&mut self) {
        // As long as this is open nobody waits; who comes later finds nothing.
        let open = OpenOptions::new().read(true).write(true).open(self.0);
        let _ = std::fs::remove_file(self.0);
        drop(open);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_lists_have_threads_of_their_own_and_a_write_waits_its_turn() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    let path = dir.path().join("pipe");
    let pipe = Pipe::new(&path);
    let disk = Directory::new(dir.path());
    let stuck: Vec<_> = (0..Directory::WRITES).map(|_| disk.run(Op::Sync("pipe".into()))).collect();
    let write = disk.run(Op::Create("written".into()));
    let read = soon("a read", disk.run(Op::Read("file".into(), 0, 100))).await.unwrap();
    assert_eq!(read.content(), b"content");
    let list = soon("a list", disk.run(Op::List(String::new()))).await.unwrap().list();
    let names: Vec<_> = list.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["file", "pipe"], "nothing is written meanwhile");
    drop(pipe);
    soon("a write", write).await.unwrap();
    for stuck in stuck {
        assert!(soon("an fsync", stuck).await.is_err(), "a pipe cannot be fsynced");
    }
    assert!(File::open(dir.path().join("written")).is_ok());
}
