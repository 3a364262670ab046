//! A whole nsqlookupd on real sockets: hostile peers, the end, and how long large answers take.

use super::{Config, Server};
use crate::env::Wall;
use crate::listen::Listeners;
use nsq_core::lookupd::Wanted;
use nsq_core::time::Timestamp;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(10);
/// The reply to IDENTIFY.
const IDENTITY: &str = r#"{"broadcast_address":"","hostname":"","http_port":0,"tcp_port":0,"version":""}"#;

struct Lookupd {
    server: Server,
    tcp: SocketAddr,
    http: SocketAddr,
}

impl Lookupd {
    async fn start() -> Self {
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let (tcp, http) = (listeners.tcp_address(), listeners.http_address().unwrap());
        let wall: Wall = Arc::new(|| Timestamp::from_nanos(1_000));
        Self { server: Server::start(listeners, Config::default(), wall), tcp, http }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.tcp).await.unwrap()
    }

    /// All that is answered to these bytes, until nsqlookupd closes.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        all(&mut stream).await
    }

    async fn get(&self, target: &str) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let answer = all(&mut stream).await;
        answer.split_once("\\r\\n\\r\\n").unwrap().1.to_string()
    }
}

async fn all(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut all)).await.expect("it closes").unwrap();
    all.escape_ascii().to_string()
}

async fn expect(stream: &mut TcpStream, reply: &str) {
    let mut read = vec![0; 4 + reply.len()];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut read)).await.expect("it answers").unwrap();
    assert_eq!(read[4..].escape_ascii().to_string(), reply.escape_default().to_string());
}

fn identify(address: &str) -> Vec<u8> {
    let body = format!(r#"{{"broadcast_address":"{address}","tcp_port":4150,"http_port":4151,"version":"1"}}"#);
    [b"IDENTIFY\n", &(body.len() as i32).to_be_bytes()[..], body.as_bytes()].concat()
}

#[tokio::test]
async fn what_kills_upstream_ends_one_connection() {
    let lookupd = Lookupd::start().await;
    for (size, error) in [
        (-1i32, "invalid body size -1"),
        (i32::MIN, "invalid body size -2147483648"),
        (i32::MAX, "body too big 2147483647 > 1048576"),
    ] {
        let answer = lookupd.say(&[b"  V1IDENTIFY\n", &size.to_be_bytes()[..]].concat()).await;
        assert!(answer.ends_with(error), "{answer}");
    }
    let endless = lookupd.say(&[&b"  V1"[..], &[b'x'; 300_000]].concat()).await;
    assert!(endless.ends_with("command line too long, the most is 16384 bytes"), "{endless}");
    let garbage: Vec<u8> = (0..100_000u32).map(|at| ((at * 7919) >> 3) as u8).collect();
    assert!(lookupd.say(&garbage).await.ends_with("E_BAD_PROTOCOL"));
    assert_eq!(lookupd.get("/ping").await, "OK");
}

#[tokio::test]
async fn registrations_end_with_their_connection() {
    let lookupd = Lookupd::start().await;
    let mut stream = lookupd.connect().await;
    stream
        .write_all(&[&b"  V1"[..], &identify("a"), b"REGISTER t c\nREGISTER u#ephemeral\nPING\n"].concat())
        .await
        .unwrap();
    expect(&mut stream, IDENTITY).await;
    for _ in 0..3 {
        expect(&mut stream, "OK").await;
    }
    let listed = |topic: &'static [u8]| {
        lookupd.server.inspect(|now, registry| {
            registry.check();
            registry.lookup(now, &Wanted::new(topic)).map(|found| found.producers.len())
        })
    };
    assert_eq!((listed(b"t"), listed(b"u#ephemeral")), (Some(1), Some(1)));
    drop(stream);
    let start = Instant::now();
    while listed(b"t") != Some(0) {
        assert!(start.elapsed() < LIMIT, "the registration stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(listed(b"u#ephemeral"), None);
}

#[tokio::test]
async fn a_peer_that_takes_no_replies_is_not_read_for_ever() {
    let lookupd = Lookupd::start().await;
    let mut stream = lookupd.connect().await;
    stream.write_all(b"  V1").await.unwrap();
    let pings = b"PING\n".repeat(10_000);
    let mut sent = 0;
    while sent < 100_000_000 {
        match tokio::time::timeout(Duration::from_millis(300), stream.write(&pings[sent % pings.len()..])).await {
            Ok(bytes) => sent += bytes.unwrap(),
            Err(_) => return,
        }
    }
    panic!("read {sent} bytes of commands whose replies nobody took");
}

#[tokio::test]
async fn the_end_waits_for_nobody() {
    let lookupd = Lookupd::start().await;
    let mut half_magic = lookupd.connect().await;
    half_magic.write_all(b"  V").await.unwrap();
    let mut identified = lookupd.connect().await;
    identified.write_all(&[&b"  V1PING\n"[..], &identify("a")].concat()).await.unwrap();
    expect(&mut identified, "OK").await;
    let mut idle_http = TcpStream::connect(lookupd.http).await.unwrap();
    idle_http.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let start = Instant::now();
    lookupd.server.stop().await;
    assert!(start.elapsed() < Duration::from_millis(1_900), "{:?}", start.elapsed());
    assert_eq!(all(&mut half_magic).await, "");
}

/// Its times: `cargo test --release -p nsq-net --lib -- --nocapture a_large_cluster`
#[tokio::test]
async fn a_large_cluster() {
    let lookupd = Lookupd::start().await;
    let mut streams = Vec::new();
    let start = Instant::now();
    for number in 0..100 {
        let mut stream = lookupd.connect().await;
        let registers: String = (0..1_000).map(|topic| format!("REGISTER some.topic_{topic:04} archive\n")).collect();
        let hello = [&b"  V1"[..], &identify(&format!("nsqd-{number}.example"))].concat();
        stream.write_all(&hello).await.unwrap();
        expect(&mut stream, IDENTITY).await;
        stream.write_all(registers.as_bytes()).await.unwrap();
        stream.read_exact(&mut vec![0; 6 * 1_000]).await.unwrap();
        streams.push(stream);
    }
    println!("100 x 1,000 registrations: {:?}", start.elapsed());
    let targets =
        [("/lookup?topic=some.topic_0500", 50, 100), ("/nodes", 5, 100), ("/topics", 50, 0), ("/ping", 50, 0)];
    for (target, times, producers) in targets {
        let mut took: Vec<_> = Vec::new();
        let mut size = 0;
        for _ in 0..times {
            let start = Instant::now();
            let mut stream = TcpStream::connect(lookupd.http).await.unwrap();
            stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            size = stream.read_to_end(&mut answer).await.unwrap();
            took.push(start.elapsed());
            assert_eq!(String::from_utf8_lossy(&answer).matches("broadcast_address").count(), producers, "{target}");
        }
        took.sort();
        println!("{target}: {size} bytes, median {:?}, worst {:?}", took[times / 2], took[times - 1]);
    }
}
