//! Peers that do not want to be served: what the server says to them, when it gives them up, what they cost.
//!
//! After each, the server still serves others, no task of it has panicked, and its end is prompt: a connection that
//! nobody has noticed the end of would hold that up.

#[allow(dead_code, reason = "each test uses a part of it")]
mod common;

use bytes::{BufMut, BytesMut};
use common::{LONG, Nsqd, soon, until};
use nsq_core::options::Options;
use nsq_core::random::Random;
use nsq_core::topic::stats::TopicStats;
use nsq_core::wire;
use nsq_net::client::plain::{Consumer, Event, Producer, Published};
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const HEARTBEAT: Duration = Duration::from_millis(200);
const NO_DELAY: Duration = Duration::ZERO;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_that_cannot_be_are_named_and_end_the_connection() {
    let nsqd = Nsqd::start(Options::default(), 1 << 30).await;
    let (big, huge) = (5 * 1024 * 1024 + 1, i32::MAX);
    let one = |line: &str, size: i32| [line.as_bytes(), &size.to_be_bytes()].concat();
    let many = |sizes: &[i32]| {
        let mut bytes = b"MPUB t\n".to_vec();
        sizes.iter().for_each(|size| bytes.put_i32(*size));
        bytes
    };
    let mut cases = Vec::new();
    for (line, code) in [
        ("IDENTIFY\n", "E_BAD_BODY IDENTIFY"),
        ("AUTH\n", "E_BAD_BODY AUTH"),
        ("PUB t\n", "E_BAD_MESSAGE PUB"),
        ("DPUB t 0\n", "E_BAD_MESSAGE DPUB"),
        ("MPUB t\n", "E_BAD_BODY MPUB"),
    ] {
        for size in [-1, i32::MIN, 0, big, huge] {
            cases.push((one(line, size), code));
        }
    }
    for count in [-1, i32::MIN, 0, big, huge] {
        cases.push((many(&[100, count]), "E_BAD_BODY MPUB invalid message count"));
    }
    for size in [-1, i32::MIN, 0] {
        cases.push((many(&[100, 2, size]), "E_BAD_MESSAGE MPUB invalid message(0) body size"));
    }
    for size in [big, huge] {
        cases.push((many(&[100, 2, size]), "E_BAD_MESSAGE MPUB message too big"));
    }
    for (bytes, code) in cases {
        let mut stream = connect(&nsqd).await;
        stream.write_all(&bytes).await.unwrap();
        let said = read_to_end(&mut stream).await;
        let text = String::from_utf8_lossy(&said[8..]).into_owned();
        assert!(text.starts_with(code), "{code:?} expected, not {text:?}, for {}", bytes.escape_ascii());
    }
    assert!(nsqd.server.broker().topic_stats(None, None, false).is_empty(), "nothing was accepted");
    serves(&nsqd).await;
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_the_connection() {
    let nsqd = Nsqd::start(Options::default(), 1 << 30).await;
    let mut random = Random::new(7);
    for round in 0..200 {
        let mut stream = TcpStream::connect(&nsqd.tcp).await.unwrap();
        if round % 2 == 0 {
            stream.write_all(wire::MAGIC).await.unwrap();
        }
        let garbage: Vec<u8> = (0..random.below(100_000)).map(|_| random.next() as u8).collect();
        // It may hang up in the middle.
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        read_to_end(&mut stream).await;
    }
    serves(&nsqd).await;
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_input_ends_the_connection() {
    let nsqd = Nsqd::start(Options::default(), 1 << 30).await;
    // A line; many messages of one byte, more than a body may hold; bodies that are never all there.
    let mut tiny = b"MPUB t\n".to_vec();
    tiny.extend([5 * 1024 * 1024, (5 * 1024 * 1024 - 4) / 5].map(i32::to_be_bytes).concat());
    let wrong_count = 1 << 20;
    let mut more_than_said = b"MPUB t\n".to_vec();
    more_than_said.extend([8, wrong_count].map(i32::to_be_bytes).concat());
    for (start, again) in [
        (b"PUB ".to_vec(), &b"x"[..]),
        (tiny, &b"\0\0\0\x02x\n"[..]),
        (more_than_said, &b"\0\0\x10\0xxxxxxxxxxxx"[..]),
        (b"NOP\n".to_vec(), &b"NOP \n "[..]),
    ] {
        let stream = connect(&nsqd).await;
        let (mut reading, mut writing) = stream.into_split();
        let piece = again.repeat(10_000);
        let write = async {
            let _ = writing.write_all(&start).await;
            while writing.write_all(&piece).await.is_ok() {}
        };
        let read = async { while reading.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} };
        let what = format!("the end of {}", start.escape_ascii());
        soon(&what, async { tokio::join!(write, read) }).await;
    }
    serves(&nsqd).await;
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_in_the_middle_is_given_up() {
    let options = Options { heartbeat_interval: HEARTBEAT, ..Options::default() };
    let nsqd = Nsqd::start(options, 1 << 30).await;
    let starts: [&[u8]; 9] = [
        b"",
        b" ",
        b"  V",
        b"  V2",
        b"  V2PUB t",
        b"  V2PUB t\n\0",
        b"  V2PUB t\n\0\0\0\x05ab",
        b"  V2MPUB t\n\0\0\0\x20\0\0\0\x02\0\0\0\x01a\0\0",
        b"  V2SUB t c\nRDY 1\nFIN 0123",
    ];
    let given_up = starts.map(|start| async {
        let mut stream = TcpStream::connect(&nsqd.tcp).await.unwrap();
        stream.write_all(start).await.unwrap();
        let begin = Instant::now();
        let said = read_to_end(&mut stream).await;
        let elapsed = begin.elapsed();
        assert!(elapsed > HEARTBEAT, "{} was given up after {elapsed:?}", start.escape_ascii());
        let has_heartbeat = said.windows(wire::HEARTBEAT.len()).any(|bytes| bytes == wire::HEARTBEAT);
        assert_eq!(has_heartbeat, start.starts_with(wire::MAGIC), "{}", start.escape_ascii());
    });
    let tasks: Vec<_> = given_up.into_iter().map(Box::pin).collect();
    for task in tasks {
        task.await;
    }
    serves(&nsqd).await;
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_no_replies_is_not_read() {
    let nsqd = Nsqd::start(Options::default(), 1 << 30).await;
    let mut stream = connect(&nsqd).await;
    let mut publish = BytesMut::new();
    (0..1000).for_each(|_| wire::publish("t", b"x", &mut publish));
    let mut sent = 0;
    let stalled = loop {
        // A part of the commands may have been taken.
        match timeout(Duration::from_secs(2), stream.write(&publish[sent % publish.len()..])).await {
            Err(_) => break true,
            Ok(bytes) => sent += bytes.unwrap(),
        }
        if sent > 256 << 20 {
            break false;
        }
    };
    assert!(stalled, "{sent} bytes of commands were taken");
    let command = publish.len() / 1000;
    let accepted = stats(&nsqd, "t").message_count;
    assert!(accepted < (sent / command) as u64, "what was not read was not done");
    serves(&nsqd).await;

    // Once it reads, all it has sent is done and answered.
    let (mut reading, mut writing) = stream.into_split();
    let rest = publish.split_off(publish.len() - (command - sent % command) % command);
    let complete = sent + rest.len();
    let write = async { writing.write_all(&rest).await };
    let mut replies = vec![0; complete / command * 10];
    let read = reading.read_exact(&mut replies);
    let (written, read) = soon("the replies", async { tokio::join!(write, read) }).await;
    written.unwrap();
    read.unwrap();
    assert!(replies.chunks(10).all(|reply| reply == b"\0\0\0\x06\0\0\0\0OK"));
    assert_eq!(stats(&nsqd, "t").message_count, (complete / command) as u64);
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_producer_is_given_up() {
    let options = Options { heartbeat_interval: HEARTBEAT, ..Options::default() };
    let nsqd = Nsqd::start(options, 1 << 30).await;
    let mut stream = connect(&nsqd).await;
    let mut publish = BytesMut::new();
    (0..1000).for_each(|_| wire::publish("t", b"x", &mut publish));
    let sends = async { while stream.write_all(&publish).await.is_ok() {} };
    soon("the end of the connection", sends).await;
    serves(&nsqd).await;
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_does_not_read_holds_little_and_is_given_up() {
    const MESSAGES: usize = 600;
    let options =
        Options { heartbeat_interval: HEARTBEAT * 10, msg_timeout: Duration::from_secs(1), ..Options::default() };
    let nsqd = Nsqd::start(options, 1 << 30).await;
    let mut stuck = connect(&nsqd).await;
    stuck.write_all(b"SUB t c\nRDY 2500\n").await.unwrap();
    let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
    let body = vec![b'x'; 100_000];
    for _ in 0..MESSAGES {
        assert_eq!(producer.publish("t", &body, NO_DELAY).await.unwrap(), Published::Accepted);
    }
    let in_flight = stats(&nsqd, "t").channels[0].in_flight_count;
    // A message's worth in the outbox, and what the kernel's buffers take.
    assert!((1..MESSAGES / 2).contains(&in_flight), "{in_flight} messages in flight");

    let mut other = Consumer::connect(&nsqd.tcp, None, "t", "c").await.unwrap();
    other.ready(10);
    for _ in 0..MESSAGES - in_flight {
        finish_one(&mut other).await;
    }
    // What the stuck one held comes when it has timed out and the connection has ended.
    while stats(&nsqd, "t").channels[0].finish_count < MESSAGES as u64 {
        let _ = timeout(Duration::from_millis(100), finish_one(&mut other)).await;
        other.flush().await.unwrap();
    }
    until("the stuck one to be given up", || stats(&nsqd, "t").channels[0].client_count == 1).await;
    assert_eq!(nsqd.server.broker().budget().used(), 0);
    drop(stuck);
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_connections_leave_nothing_behind() {
    let nsqd = Nsqd::start(Options::default(), 1 << 30).await;
    let mut random = Random::new(3);
    let starts: [&[u8]; 6] =
        [b"", b"  V", b"  V2", b"  V2PUB t\n\0\0\0\x05ab", b"  V2SUB t c#ephemeral\nRDY 5\n", b"GET / HTTP/1.1\r\n"];
    for _ in 0..20 {
        let mut wave = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(&nsqd.tcp).await.unwrap();
            stream.write_all(starts[random.below(6) as usize]).await.unwrap();
            wave.push(stream);
        }
        serves(&nsqd).await;
    }
    let left = || stats(&nsqd, "t").channels.iter().map(|channel| channel.client_count).sum::<usize>();
    until("the consumers to be gone", || left() == 0).await;
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_http_requests_hold_up_nobody() {
    let nsqd = Nsqd::start(Options::default(), 1 << 30).await;
    let slow: Vec<_> = (0..200)
        .map(|number| {
            let address = nsqd.http.clone();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                let head = format!("POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nX: {number}");
                for byte in head.as_bytes().iter().chain(&b"x".repeat(100_000)) {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                io::Result::Ok(())
            })
        })
        .collect();
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(ask(&nsqd, "GET /ping").await, "OK");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    serves(&nsqd).await;
    nsqd.stop().await;
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A connection after the magic.
// On one thread, so that the consumer is gone before the server reads what it has sent.
#[tokio::test]
async fn what_a_consumer_has_finished_counts_though_it_dies_with_messages_unread() {
    const HELD: u64 = 5_000;
    let options = Options { max_rdy_count: 2 * HELD, ..Options::default() };
    let nsqd = Nsqd::start(options, 1 << 30).await;
    let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
    for round in 0..10 {
        let topic = format!("t{round}");
        let mut consumer = Consumer::connect(&nsqd.tcp, None, &topic, "c").await.unwrap();
        consumer.ready(HELD as u32);
        for _ in 0..10 {
            let bodies = vec![[b'x'; 200]; HELD as usize / 5];
            assert_eq!(producer.publish_many(&topic, &bodies).await.unwrap(), Published::Accepted);
        }
        let mut held = Vec::new();
        while held.len() < HELD as usize {
            let Event::Message(message) = soon("a message", consumer.next()).await.unwrap() else { panic!() };
            held.push(message.id);
        }
        held.into_iter().for_each(|id| consumer.finish(id));
        consumer.flush().await.unwrap();
        drop(consumer);
        until("it has gone", || stats(&nsqd, &topic).channels[0].client_count == 0).await;
        assert_eq!(stats(&nsqd, &topic).channels[0].finish_count, HELD, "in round {round}");
    }
    nsqd.stop().await;
}

async fn connect(nsqd: &Nsqd) -> TcpStream {
    let mut stream = TcpStream::connect(&nsqd.tcp).await.unwrap();
    stream.write_all(wire::MAGIC).await.unwrap();
    stream
}

/// All that comes until the server hangs up, in whatever manner.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the server hangs up");
    bytes
}

async fn finish_one(consumer: &mut Consumer) {
    match soon("a message", consumer.next()).await.unwrap() {
        Event::Message(message) => consumer.finish(message.id),
        other => panic!("{other:?} instead of a message"),
    }
}

fn stats(nsqd: &Nsqd, topic: &str) -> TopicStats {
    nsqd.server.broker().topic_stats(Some(topic), None, false).pop().expect("the topic")
}

/// The server does for others what it is for.
async fn serves(nsqd: &Nsqd) {
    let mut consumer = soon("SUB", Consumer::connect(&nsqd.tcp, None, "others", "c")).await.unwrap();
    consumer.ready(1);
    let mut producer = soon("connecting", Producer::connect(&nsqd.tcp, None)).await.unwrap();
    let published = soon("an answer to PUB", producer.publish("others", b"x", NO_DELAY)).await.unwrap();
    assert_eq!(published, Published::Accepted);
    finish_one(&mut consumer).await;
    consumer.flush().await.unwrap();
    assert_eq!(ask(nsqd, "GET /ping").await, "OK");
}

/// The body of what is answered to a request without one.
async fn ask(nsqd: &Nsqd, request: &str) -> String {
    let mut stream = TcpStream::connect(&nsqd.http).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    answer.split_once("\r\n\r\n").expect("a whole answer").1.into()
}
