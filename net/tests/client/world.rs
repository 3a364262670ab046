//! Whole servers on real sockets for clients to meet, and what clients have seen.

use nsq_core::options::Options;
use nsq_core::time::Timestamp;
use nsq_net::client::{Consumer, ConsumerBuilder, Event, Message, Producer, ProducerBuilder};
use nsq_net::disk::Directory;
use nsq_net::env::Env;
use nsq_net::http::{Identity, Patience};
use nsq_net::listen::Listeners;
use nsq_net::{lookupd, server};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Far beyond what anything may take, however busy the machine is.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// An nsqd that may be killed and come back at the same address, without its messages.
pub(crate) struct Nsqd {
    server: Option<server::Server>,
    pub(crate) address: String,
    dir: TempDir,
    options: Options,
}

impl Nsqd {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let mut nsqd = Self { server: None, address: "127.0.0.1:0".into(), dir: TempDir::new().unwrap(), options };
        nsqd.restart().await;
        nsqd
    }

    pub(crate) async fn restart(&mut self) {
        let listeners = Listeners::bind(&self.address, "").await.unwrap();
        self.address = listeners.tcp_address().to_string();
        let config = server::Config {
            options: self.options.clone(),
            mem_queue_bytes: usize::MAX,
            lookupd_tcp_addresses: Vec::new(),
            durable: nsq_net::durable::Durable::default(),
            http_client: Patience::default(),
            identity: Identity::default(),
            settings: BTreeMap::new(),
        };
        let env = Env { wall: Arc::new(wall), seed: 1, disk: Arc::new(Directory::new(self.dir.path())) };
        self.server = Some(server::Server::start(listeners, config, env).await.unwrap());
    }

    pub(crate) async fn kill(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    /// Messages that a topic has taken.
    pub(crate) fn published(&self, topic: &str) -> u64 {
        let stats = self.server.as_ref().unwrap().broker().topic_stats(Some(topic), None, false);
        stats.iter().map(|topic| topic.message_count).sum()
    }

    /// What all consumers of all channels of a topic have in flight.
    pub(crate) fn in_flight(&self, topic: &str) -> usize {
        let stats = self.server.as_ref().unwrap().broker().topic_stats(Some(topic), None, false);
        stats.iter().flat_map(|topic| &topic.channels).map(|channel| channel.in_flight_count).sum()
    }
}

/// A nsqlookupd.
pub(crate) struct Lookupd {
    /// It runs for as long as this lives.
    _server: lookupd::Server,
    pub(crate) http: String,
    tcp: String,
}

impl Lookupd {
    pub(crate) async fn start() -> Self {
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let (tcp, http) = (listeners.tcp_address().to_string(), listeners.http_address().unwrap().to_string());
        let server = lookupd::Server::start(listeners, lookupd::Config::default(), Arc::new(wall));
        Self { _server: server, http, tcp }
    }

    /// Lists an nsqd for as long as what this returns lives.
    pub(crate) async fn register(&self, nsqd: &Nsqd, topic: &str) -> TcpStream {
        let (host, port) = nsqd.address.rsplit_once(':').unwrap();
        let json =
            format!(r#"{{"broadcast_address":"{host}","hostname":"h","tcp_port":{port},"http_port":1,"version":"1"}}"#);
        let mut stream = TcpStream::connect(&self.tcp).await.unwrap();
        let mut hello = b"  V1IDENTIFY\n".to_vec();
        hello.extend((json.len() as u32).to_be_bytes());
        hello.extend(json.as_bytes());
        stream.write_all(&hello).await.unwrap();
        reply(&mut stream).await;
        stream.write_all(format!("REGISTER {topic}\n").as_bytes()).await.unwrap();
        assert_eq!(reply(&mut stream).await, b"OK");
        stream
    }
}

async fn reply(stream: &mut TcpStream) -> Vec<u8> {
    let size = stream.read_u32().await.unwrap();
    let mut reply = vec![0; size as usize];
    stream.read_exact(&mut reply).await.unwrap();
    reply
}

/// What a client has told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<Event>>>);

impl Told {
    pub(crate) fn listener(&self) -> impl Fn(&Event) + Send + Sync + 'static {
        let told = self.clone();
        move |event| told.0.lock().unwrap().push(event.clone())
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }

    /// Waits until it has told that so often.
    pub(crate) async fn until(&self, times: usize, wanted: impl Fn(&Event) -> bool) {
        let end = Instant::now() + LONG;
        while self.count(&wanted) < times {
            assert!(Instant::now() < end, "waited in vain; it told {:?}", self.0.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn connected(&self, times: usize) {
        self.until(times, |event| matches!(event, Event::Connected { .. })).await;
    }
}

/// A consumer of channel `c` that polls and reconnects quickly.
pub(crate) fn consumer(topic: &str) -> ConsumerBuilder {
    Consumer::builder(topic, "c")
        .lookup_poll(Duration::from_millis(500), 30)
        .reconnect(Duration::from_millis(50), Duration::from_millis(500))
        .seed(1)
}

/// A producer that reconnects quickly.
pub(crate) fn producer() -> ProducerBuilder {
    Producer::builder().reconnect(Duration::from_millis(50), Duration::from_millis(500)).seed(1)
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let asked = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, asked).await;
}

pub(crate) async fn next(consumer: &mut Consumer) -> Message {
    soon("a message", consumer.next()).await.expect("the consumer goes on")
}

pub(crate) fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_nanos(since.as_nanos() as i64)
}
