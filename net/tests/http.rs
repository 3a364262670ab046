//! The HTTP interface of a whole server: real sockets, a real directory, requests byte by byte.
//!
//! The recorded transcripts check the wording of every route; here is what they cannot reach: limits while a client is
//! still sending, a full queue, options that change, what a restart finds, and the end.

use nsq_core::options::Options;
use nsq_core::time::Timestamp;
use nsq_net::client::plain::{Consumer, Event};
use nsq_net::disk::Directory;
use nsq_net::env::Env;
use nsq_net::http::{Identity, Live, Patience, Setting};
use nsq_net::server::{Config, Listeners, Server};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn what_is_published_is_delivered() {
    let nsqd = Nsqd::start().await;
    assert_eq!(nsqd.ask("POST", "/channel/create?topic=t&channel=c", "").await, error(404, "TOPIC_NOT_FOUND"));
    assert_eq!(nsqd.ask("POST", "/topic/create?topic=t", "").await, (200, String::new()));
    assert_eq!(nsqd.ask("POST", "/channel/create?topic=t&channel=c", "").await, (200, String::new()));
    assert_eq!(nsqd.ask("POST", "/pub?topic=t", "one").await, ok());
    assert_eq!(nsqd.ask("POST", "/mpub?topic=t", "two\n\nthree\n").await, ok());
    let binary = "\0\0\0\x01\0\0\0\x04four";
    assert_eq!(nsqd.ask("POST", "/mpub?topic=t&binary=true", binary).await, ok());

    let mut consumer = Consumer::connect(&nsqd.tcp, None, "t", "c").await.unwrap();
    consumer.ready(10);
    for expected in ["one", "two", "three", "four"] {
        let Event::Message(message) = consumer.next().await.unwrap() else { panic!("no message") };
        assert_eq!(message.body, expected);
        consumer.finish(message.id);
    }
    consumer.flush().await.unwrap();
    let expected = r#""in_flight_count":0,"message_count":4,"finish_count":4,"#;
    nsqd.wait_for("/stats?format=json", expected).await;
}

#[tokio::test]
async fn pauses_survive_a_restart_and_deletions_too() {
    let nsqd = Nsqd::start().await;
    for step in ["/topic/create?topic=t", "/channel/create?topic=t&channel=c", "/channel/create?topic=t&channel=gone"] {
        assert_eq!(nsqd.ask("POST", step, "").await.0, 200, "{step}");
    }
    assert_eq!(nsqd.ask("POST", "/channel/pause?topic=t&channel=c", "").await.0, 200);
    // The answer came when this was on disk.
    let metadata = std::fs::read_to_string(nsqd.dir.path().join("nsqd.dat")).unwrap();
    assert!(metadata.contains(r#"{"name":"c","paused":true}"#), "{metadata}");
    assert_eq!(nsqd.ask("POST", "/channel/delete?topic=t&channel=gone", "").await.0, 200);
    assert_eq!(nsqd.ask("POST", "/channel/delete?topic=t&channel=gone", "").await, error(404, "CHANNEL_NOT_FOUND"));

    let dir = nsqd.stop().await;
    let nsqd = Nsqd::start_in(dir, Options::default(), usize::MAX).await;
    let (_, stats) = nsqd.ask("GET", "/stats?include_mem=false", "").await;
    assert!(
        stats.contains("\n   [t              ] ") && stats.contains("\n   *P [c                        ] "),
        "{stats}"
    );
    assert!(!stats.contains("gone"), "{stats}");
}

#[tokio::test]
async fn nothing_larger_than_the_limits_is_read() {
    let options = Options { max_msg_size: 1000, max_body_size: 5000, ..Options::default() };
    let nsqd = Nsqd::start_in(TempDir::new().unwrap(), options, usize::MAX).await;
    for (target, message) in [
        ("/pub?topic=t", "MSG_TOO_BIG"),
        ("/mpub?topic=t", "MSG_TOO_BIG"),
        ("/mpub?topic=t&binary=true", "BODY_TOO_BIG"),
    ] {
        // The answer comes though the client never stops sending, and is not lost when the connection is closed.
        let stream = TcpStream::connect(&nsqd.http).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let endless = tokio::spawn(async move {
            writing.write_all(head.as_bytes()).await.unwrap();
            let piece = format!("100\r\n{}\r\n", "x".repeat(256));
            while writing.write_all(piece.as_bytes()).await.is_ok() {}
        });
        let mut answer = String::new();
        let read = timeout(Duration::from_secs(20), reading.read_to_string(&mut answer)).await.unwrap();
        endless.abort();
        read.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("Connection: close"), "{target}: {answer}");
        assert!(answer.ends_with(&error(413, message).1), "{target}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let nsqd = Nsqd::start().await;
    let mut stream = TcpStream::connect(&nsqd.http).await.unwrap();
    // The second one's body is nobody's business, the third one's is asked for.
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stream.write_all(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
    let third = b"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(third).await.unwrap();
    let mut answers = String::new();
    while !answers.contains("HTTP/1.1 100 Continue\r\n\r\n") {
        let mut piece = [0; 4096];
        let count = timeout(Duration::from_secs(20), stream.read(&mut piece)).await.unwrap().unwrap();
        assert!(count > 0, "{answers}");
        answers.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    stream.write_all(b"abcGET /ping HTTP/1.0\r\n\r\n").await.unwrap();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut answers)).await.unwrap().unwrap();
    let statuses: Vec<_> = answers.match_indices("HTTP/1.").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404", "100", "200", "200"], "{answers}");
    assert!(answers.contains("X-Nsq-Content-Type: nsq; version=1.0\r\n"), "{answers}");
}

#[tokio::test]
async fn only_what_is_accepted_creates_a_topic() {
    let nsqd = Nsqd::start().await;
    assert_eq!(nsqd.ask("POST", "/pub?topic=a&defer=abc", "x").await, error(400, "INVALID_DEFER"));
    assert_eq!(nsqd.ask("POST", "/mpub?topic=b&binary=true", "x").await, error(413, "BAD_BODY"));
    assert_eq!(nsqd.ask("POST", "/mpub?topic=c", "\n").await, ok());
    let (_, stats) = nsqd.ask("GET", "/stats?format=json", "").await;
    assert!(stats.contains(r#""topics":[{"topic_name":"c","#), "{stats}");
    assert_eq!(stats.matches("topic_name").count(), 1, "{stats}");
}

#[tokio::test]
async fn full_memory_refuses_what_no_disk_can_take() {
    let nsqd = Nsqd::start_in(TempDir::new().unwrap(), Options::default(), 100_000).await;
    let body = "x".repeat(20_000);
    let mut accepted = 0;
    let refused = loop {
        match nsqd.ask("POST", "/pub?topic=t%23ephemeral", &body).await {
            (200, _) => accepted += 1,
            refused => break refused,
        }
        assert!(accepted < 100);
    };
    assert!(accepted > 0);
    assert_eq!(refused, error(503, "QUEUE_FULL"));
    for _ in 0..20 {
        assert_eq!(nsqd.ask("POST", "/pub?topic=t", &body).await, ok(), "others go to disk");
    }
    assert_eq!(nsqd.ask("POST", "/topic/empty?topic=t%23ephemeral", "").await.0, 200);
    assert_eq!(nsqd.ask("POST", "/pub?topic=t%23ephemeral", &body).await, ok());
}

#[tokio::test]
async fn options_are_shown_and_some_can_change() {
    let nsqd = Nsqd::start().await;
    assert_eq!(nsqd.ask("GET", "/config/broadcast_address", "").await, (200, "some.host".into()));
    assert_eq!(nsqd.ask("GET", "/config/max_rdy_count", "").await, (200, "2500".into()));
    assert_eq!(nsqd.ask("GET", "/config/level", "").await, (200, "2".into()));
    assert_eq!(nsqd.ask("PUT", "/config/level", "4").await, (200, "4".into()));
    assert_eq!(nsqd.ask("GET", "/config/level", "").await, (200, "4".into()));
    assert_eq!(nsqd.ask("PUT", "/config/level", "loud").await, error(400, "INVALID_VALUE"));
    assert_eq!(nsqd.ask("PUT", "/config/level", "").await, error(413, "INVALID_VALUE"));
    assert_eq!(nsqd.ask("PUT", "/config/max_rdy_count", "1").await, error(400, "INVALID_OPTION"));
    assert_eq!(nsqd.ask("GET", "/config/nothing", "").await, error(400, "INVALID_OPTION"));
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let nsqd = Nsqd::start().await;
    assert_eq!(nsqd.ask("PUT", "/config/level", "panic").await, error(500, "INTERNAL_ERROR"));
    assert_eq!(nsqd.ask("GET", "/config/level", "").await, (200, "2".into()));
}

#[tokio::test]
async fn the_end_closes_connections() {
    let nsqd = Nsqd::start().await;
    let mut idle = TcpStream::connect(&nsqd.http).await.unwrap();
    idle.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut piece = [0; 4096];
    assert!(idle.read(&mut piece).await.unwrap() > 0);
    let mut half_sent = TcpStream::connect(&nsqd.http).await.unwrap();
    let head = b"POST /pub?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc";
    half_sent.write_all(head).await.unwrap();
    // By the time a later request has been answered, both have been read.
    assert_eq!(nsqd.ask("GET", "/ping", "").await, ok());

    let start = Instant::now();
    nsqd.stop().await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), idle.read_to_end(&mut rest)).await.expect("the idle one is closed").unwrap();
    assert!(rest.is_empty());
    let cut = timeout(Duration::from_secs(5), half_sent.read_to_end(&mut rest)).await.expect("so is the other");
    assert!(cut.is_err() || !rest.starts_with(b"HTTP/1.1 200"));
}

/// A server and where to find it.
struct Nsqd {
    server: Server,
    tcp: String,
    http: String,
    dir: TempDir,
}

impl Nsqd {
    async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap(), Options::default(), usize::MAX).await
    }

    async fn start_in(dir: TempDir, options: Options, mem_queue_bytes: usize) -> Self {
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let (tcp, http) = (listeners.tcp_address().to_string(), listeners.http_address().unwrap().to_string());
        let settings = BTreeMap::from([
            ("broadcast_address", Setting::Text("some.host".into())),
            ("max_rdy_count", Setting::Json("2500".into())),
            ("level", Setting::Live(Arc::new(Level(Mutex::new(2))))),
        ]);
        let config = Config {
            options,
            mem_queue_bytes,
            lookupd_tcp_addresses: Vec::new(),
            durable: nsq_net::durable::Durable::default(),
            http_client: Patience::default(),
            identity: Identity::default(),
            settings,
        };
        let server = Server::start(listeners, config, environment(dir.path())).await.unwrap();
        Self { server, tcp, http, dir }
    }

    async fn stop(self) -> TempDir {
        self.server.stop().await;
        self.dir
    }

    /// Status and body of a request on a connection of its own.
    async fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).await.unwrap();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn wait_for(&self, target: &str, expected: &str) {
        let asked = async {
            while !self.ask("GET", target, "").await.1.contains(expected) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), asked).await.unwrap_or_else(|_| panic!("no {expected}"));
    }
}

/// An option that is a number.
#[derive(Debug)]
struct Level(Mutex<u8>);

impl Live for Level {
    fn get(&self) -> String {
        self.0.lock().unwrap().to_string()
    }

    fn set(&self, value: &[u8]) -> bool {
        assert_ne!(value, b"panic", "as the test wants it");
        let level = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        level.map(|level| *self.0.lock().unwrap() = level).is_some()
    }
}

fn environment(dir: &Path) -> Env {
    let wall = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp::from_nanos(since.as_nanos() as i64)
    };
    Env { wall: Arc::new(wall), seed: 1, disk: Arc::new(Directory::new(dir)) }
}

fn ok() -> (u16, String) {
    (200, "OK".into())
}

fn error(status: u16, message: &str) -> (u16, String) {
    (status, format!("{{\"message\":\"{message}\"}}"))
}
