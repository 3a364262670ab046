//! The end, with peers that do nothing to help it.

#[allow(dead_code, reason = "each test uses a part of it")]
mod common;

use common::{Nsqd, soon};
use nsq_core::options::Options;
use nsq_net::client::plain::{Producer, Published};
use nsq_net::disk::{Directory, Disk, Op, Running};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_holds_it_up() {
    let nsqd = Nsqd::start(Options::default(), 1 << 30).await;
    let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
    let body = vec![b'x'; 100_000];
    for _ in 0..300 {
        let published = producer.publish("t", &body, Duration::ZERO).await.unwrap();
        assert_eq!(published, Published::Accepted);
    }
    let starts: [&[u8]; 8] = [
        b"",
        b"  V",
        b"  V2",
        b"  V2PUB t\n\0\0\0\x05ab",
        b"  V2MPUB t\n\0\0\0\x20\0\0\0\x02\0\0\0\x01a\0\0",
        // Its socket fills up.
        b"  V2SUB t c\nRDY 2500\n",
        b"  V2SUB t c\nRDY 2500\nCLS\n",
        b"  V2SUB t d\n",
    ];
    let mut peers = Vec::new();
    for start in starts {
        for half_closed in [false, true] {
            let mut stream = TcpStream::connect(&nsqd.tcp).await.unwrap();
            stream.write_all(start).await.unwrap();
            if half_closed {
                stream.shutdown().await.unwrap();
            }
            peers.push(stream);
        }
    }
    let requests: [&[u8]; 4] = [
        b"",
        b"GET /ping HT",
        b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc",
    ];
    for request in requests {
        let mut stream = TcpStream::connect(&nsqd.http).await.unwrap();
        stream.write_all(request).await.unwrap();
        peers.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (lost, dir) = nsqd.stop_in_order().await;
    assert_eq!(lost, 0);
    let disk = Arc::new(Directory::new(dir.path()));
    let nsqd = Nsqd::start_on(disk, dir, Options::default(), 1 << 30).await;
    let stats = nsqd.server.broker().topic_stats(Some("t"), None, false);
    let held: Vec<_> = stats[0].channels.iter().map(|it| it.depth + it.deferred_count as u64).collect();
    assert_eq!(held.iter().max(), Some(&300), "everything is there, also what peers had in flight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_served_after_it() {
    for _ in 0..20 {
        let nsqd = Nsqd::start(Options::default(), 1 << 30).await;
        let peers: Vec<_> = (0..8)
            .map(|_| {
                let address = nsqd.tcp.clone();
                tokio::spawn(async move {
                    let mut streams = Vec::new();
                    while let Ok(mut stream) = TcpStream::connect(&address).await {
                        let _ = stream.write_all(b"  V2").await;
                        streams.push(stream);
                    }
                    streams
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let broker = Arc::clone(nsqd.server.broker());
        nsqd.stop().await;
        for peer in peers {
            for mut stream in soon("the socket to be closed", peer).await.unwrap() {
                let _ = stream.write_all(b"PUB late\n\0\0\0\x01x").await;
                let mut said = Vec::new();
                let _ = soon("the connection to end", stream.read_to_end(&mut said)).await;
                assert!(said.is_empty(), "{}", said.escape_ascii());
            }
        }
        assert!(broker.topic_stats(None, None, false).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_is_written_by_one_at_a_time() {
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(SlowDisk::new(&dir));
    let overlapped = Arc::clone(&disk.overlapped);
    let nsqd = Nsqd::start_on(disk, dir, Options::default(), 1 << 30).await;
    let broker = Arc::clone(nsqd.server.broker());
    for topic in ["first", "second"] {
        broker.create_topic(&nsq_core::name::TopicName::new(topic).unwrap()).await.unwrap();
        // The first one's save has begun by then.
        tokio::time::sleep(SlowDisk::TIME / 2).await;
    }
    let dir = nsqd.stop_in_order().await.1;
    let written = std::fs::read_to_string(dir.path().join("nsqd.dat")).unwrap();
    assert!(written.contains("first") && written.contains("second"), "{written}");
    assert!(!overlapped.load(Ordering::SeqCst), "two operations at once");
}

/// A disk that takes its time, and goes on with what it has begun even if nobody waits for it, as disks do.
struct SlowDisk {
    directory: Arc<Directory>,
    busy: Arc<AtomicBool>,
    overlapped: Arc<AtomicBool>,
}

impl SlowDisk {
    const TIME: Duration = Duration::from_millis(20);

    fn new(dir: &TempDir) -> Self {
        let directory = Arc::new(Directory::new(dir.path()));
        Self { directory, busy: Arc::default(), overlapped: Arc::default() }
    }
}

impl Disk for SlowDisk {
    fn run(&self, op: Op) -> Running {
        let (directory, busy) = (Arc::clone(&self.directory), Arc::clone(&self.busy));
        if self.busy.swap(true, Ordering::SeqCst) {
            self.overlapped.store(true, Ordering::SeqCst);
        }
        let job = tokio::spawn(async move {
            tokio::time::sleep(Self::TIME).await;
            let done = directory.run(op).await;
            busy.store(false, Ordering::SeqCst);
            done
        });
        Box::pin(async move { job.await.unwrap() })
    }
}
