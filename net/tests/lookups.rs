//! An nsqd among nsqlookupds: good ones hear of everything, and the others cost nothing but a line in the log.
//!
//! Hostile ones, on both of their ports, stand beside a good one: the nsqd serves all the time, the good one gets to
//! know everything, no task has panicked, and the end is prompt.

#[allow(dead_code, reason = "each test uses a part of it")]
mod common;

use common::{LONG, Nsqd, soon, until};
use nsq_core::lookupd::{Identity, Wanted};
use nsq_core::message::Bodies;
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::time::Timestamp;
use nsq_core::topic::io::Admin;
use nsq_net::listen::Listeners;
use nsq_net::lookupd;
use nsq_net::lookups::Standing;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How long a topic waits for its channels at most, and some more.
const START: Duration = Duration::from_secs(8);

/// A good one.
struct Lookupd {
    server: lookupd::Server,
    tcp: String,
}

impl Lookupd {
    async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    async fn start_on(tcp: &str) -> Self {
        let listeners = Listeners::bind(tcp, "127.0.0.1:0").await.unwrap();
        let (tcp, http) = (listeners.tcp_address(), listeners.http_address().unwrap());
        let identity = Identity {
            broadcast_address: "127.0.0.1".into(),
            http_port: http.port(),
            tcp_port: tcp.port(),
            ..Identity::default()
        };
        let config = lookupd::Config { identity, ..lookupd::Config::default() };
        let server = lookupd::Server::start(listeners, config, Arc::new(|| Timestamp::from_nanos(1_000)));
        Self { server, tcp: tcp.to_string() }
    }

    /// The channels of the topic, if an nsqd has it.
    fn knows(&self, topic: &str) -> Option<BTreeSet<String>> {
        self.server.inspect(|now, registry| {
            let found = registry.lookup(now, &Wanted::new(topic.as_bytes()))?;
            let channels = found.channels.iter().map(|name| name.as_str().to_string());
            (!found.producers.is_empty()).then(|| channels.collect())
        })
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

impl Nsqd {
    async fn among(lookupds: &[&str]) -> Self {
        Self::start_among(lookupds.iter().map(ToString::to_string).collect()).await
    }

    async fn create(&self, name: &str, channels: &[&str]) {
        let broker = self.server.broker();
        broker.create_topic(&topic(name)).await.unwrap();
        for name_of_channel in channels {
            let action = Admin::CreateChannel(channel(name_of_channel));
            assert_eq!(broker.administer(&topic(name), action).await, Some(Ok(())));
        }
    }

    async fn publish(&self, name: &str) {
        let bodies = Bodies::one("x".into());
        self.server.broker().publish(&topic(name), bodies, Duration::ZERO).await.unwrap();
    }

    /// Each channel of the topic, with how many messages it has.
    fn channels(&self, name: &str) -> Vec<(String, u64)> {
        let topics = self.server.broker().topic_stats(Some(name), None, false);
        let channels = topics.into_iter().flat_map(|topic| topic.channels);
        channels.map(|channel| (channel.name.to_string(), channel.depth)).collect()
    }

    fn standing(&self, lookupd: &str) -> Standing {
        self.server.broker().lookupds()[lookupd].clone()
    }

    async fn registered(&self, lookupd: &str) {
        until("everything to be registered", || self.standing(lookupd).is_registered).await;
    }

    /// Sends a request and returns the answer's body.
    async fn request(&self, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.http).await.unwrap();
        let head = format!("{request} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_registered_and_again_after_a_restart() {
    let lookupd = Lookupd::start().await;
    let nsqd = Nsqd::among(&[&lookupd.tcp]).await;
    for n in 0..300 {
        nsqd.create(&format!("topic-{n}"), &["a", "b#ephemeral"]).await;
    }
    nsqd.create("alone#ephemeral", &[]).await;
    nsqd.registered(&lookupd.tcp).await;
    let wrong = |lookupd: &Lookupd| {
        let topics = (0..300).map(|n| (format!("topic-{n}"), names(&["a", "b#ephemeral"])));
        let topics = topics.chain([("alone#ephemeral".to_string(), names(&[]))]);
        let found = topics.map(|(name, channels)| (lookupd.knows(&name), Some(channels), name));
        found.filter(|(found, wanted, _)| found != wanted).collect::<Vec<_>>()
    };
    assert_eq!(wrong(&lookupd), []);
    assert_eq!(nsqd.server.broker().administer(&topic("topic-7"), Admin::DeleteTopic).await, Some(Ok(())));
    nsqd.create("topic-7", &["a", "b#ephemeral"]).await;
    let address = lookupd.tcp.clone();
    lookupd.server.stop().await;
    until("the loss to be noticed", || !nsqd.standing(&address).is_connected).await;
    let lookupd = Lookupd::start_on(&address).await;
    let start = Instant::now();
    nsqd.registered(&address).await;
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    assert_eq!(wrong(&lookupd), []);
    nsqd.stop().await;
    until("the registrations to go", || lookupd.knows("topic-0").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_topic_has_its_channels_before_its_first_message() {
    let (one, two) = (Lookupd::start().await, Lookupd::start().await);
    let first = Nsqd::among(&[&one.tcp]).await;
    first.create("t", &["a", "gone#ephemeral"]).await;
    let second = Nsqd::among(&[&two.tcp]).await;
    second.create("t", &["b"]).await;
    first.registered(&one.tcp).await;
    second.registered(&two.tcp).await;
    // Right after its start it has reached nobody yet; it waits for that.
    let third = Nsqd::among(&[&one.tcp, &two.tcp]).await;
    third.publish("t").await;
    let both = [("a".to_string(), 1), ("b".to_string(), 1)];
    assert_eq!(third.channels("t"), both);
    third.registered(&one.tcp).await;
    third.registered(&two.tcp).await;
    assert_eq!(one.knows("t"), Some(names(&["a", "b", "gone#ephemeral"])));
    // One that is away, and was known, does not keep the other from telling.
    one.server.stop().await;
    until("the loss to be noticed", || !third.standing(&one.tcp).is_connected).await;
    second.create("u", &["c"]).await;
    second.registered(&two.tcp).await;
    third.publish("u").await;
    assert_eq!(third.channels("u"), [("c".to_string(), 1)]);
    for nsqd in [first, second, third] {
        nsqd.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_changes_while_it_runs() {
    let (one, two) = (Lookupd::start().await, Lookupd::start().await);
    let nsqd = Nsqd::among(&[&one.tcp]).await;
    nsqd.create("t", &["c"]).await;
    nsqd.registered(&one.tcp).await;
    let put = async |list: String| nsqd.request("PUT /config/nsqlookupd_tcp_addresses", &list).await;
    let both = format!(r#"["{}","{}"]"#, one.tcp, two.tcp);
    assert_eq!(put(both.clone()).await, both);
    assert_eq!(nsqd.request("GET /config/nsqlookupd_tcp_addresses", "").await, both);
    assert!(nsqd.standing(&one.tcp).is_connected, "who stays on the list stays connected");
    nsqd.registered(&two.tcp).await;
    put(format!(r#"["{}"]"#, two.tcp)).await;
    until("the end of the other", || one.knows("t").is_none()).await;
    assert!(nsqd.standing(&two.tcp).is_registered);
    assert!(put("nope".into()).await.contains("INVALID_VALUE"));
    put("null".into()).await;
    until("the end of both", || two.knows("t").is_none()).await;
    assert!(nsqd.server.broker().lookupds().is_empty());
    nsqd.publish("without").await;
    nsqd.stop().await;
}

/// An nsqlookupd that answers IDENTIFY with `who`, everything else with `rest`, and its HTTP side with `http`, over and
/// over; an empty answer is none.
struct Hostile {
    tcp: String,
    connections: Arc<AtomicUsize>,
    tasks: [JoinHandle<()>; 2],
}

impl Hostile {
    async fn start(who: impl FnOnce(u16) -> Vec<u8>, rest: Vec<u8>, http: Vec<u8>) -> Self {
        let (tcp, web) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = tcp.local_addr().unwrap().to_string();
        let who = who(web.local_addr().unwrap().port());
        let (connections, asked) = (Arc::<AtomicUsize>::default(), Arc::default());
        let tasks = [serve(tcp, who, rest, &connections), serve(web, http, Vec::new(), &asked)];
        Self { tcp: address, connections, tasks }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Answers what comes first with `first` and goes on with `rest` for as long as anybody takes it. Where neither is
/// anything, it keeps the connection and says nothing.
fn serve(listener: TcpListener, first: Vec<u8>, rest: Vec<u8>, count: &Arc<AtomicUsize>) -> JoinHandle<()> {
    let count = Arc::clone(count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (first, rest) = (first.clone(), rest.clone());
            tokio::spawn(async move {
                let mut input = [0; 4096];
                while stream.read(&mut input).await.is_ok_and(|count| count > 0) {
                    if first.is_empty() {
                        continue;
                    }
                    if stream.write_all(&first).await.is_err() {
                        return;
                    }
                    while !rest.is_empty() && stream.write_all(&rest).await.is_ok() {}
                }
            });
        }
    })
}

fn sized(data: &[u8]) -> Vec<u8> {
    [&(data.len() as i32).to_be_bytes()[..], data].concat()
}

fn identity(http_port: u16) -> Vec<u8> {
    sized(format!(r#"{{"broadcast_address":"127.0.0.1","http_port":{http_port}}}"#).as_bytes())
}

/// Beside that one, nsqd serves and a good nsqlookupd hears of everything.
async fn costs_nothing(what: &str, hostile: Hostile) {
    let good = Lookupd::start().await;
    let nsqd = Nsqd::among(&[&hostile.tcp, &good.tcp]).await;
    let start = Instant::now();
    nsqd.publish("t").await;
    assert!(start.elapsed() < START, "{what}: a new topic took {:?}", start.elapsed());
    nsqd.create("t", &["c"]).await;
    nsqd.registered(&good.tcp).await;
    assert_eq!(good.knows("t"), Some(names(&["c"])), "{what}");
    assert_eq!(nsqd.channels("t"), [("c".to_string(), 1)], "{what}");
    until("the hostile one to be called", || hostile.connections.load(Ordering::SeqCst) > 0).await;
    assert!(!nsqd.standing(&hostile.tcp).is_registered, "{what}");
    let start = Instant::now();
    nsqd.publish("t").await;
    assert!(start.elapsed() < Duration::from_secs(1), "{what}: only who creates a topic waits");
    assert_eq!(nsqd.request("GET /ping", "").await, "OK", "{what}");
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_are_none_cost_nothing() {
    let json = |json: &'static str| sized(json.as_bytes());
    for (what, who, rest) in [
        ("a negative length", (-1i32).to_be_bytes().to_vec(), Vec::new()),
        ("the most negative length", i32::MIN.to_be_bytes().to_vec(), Vec::new()),
        ("a length of 2 GiB", [&i32::MAX.to_be_bytes()[..], b"xxxx"].concat(), b"x".repeat(10_000)),
        ("garbage", json("garbage"), Vec::new()),
        ("JSON that goes on and on", [&60_000i32.to_be_bytes()[..], &b"[".repeat(60_000)].concat(), Vec::new()),
        ("silence", Vec::new(), Vec::new()),
        ("a flood", json("{}"), sized(b"OK").repeat(1000)),
        ("errors", json("{}"), sized(b"E_INVALID")),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Vec::new()),
    ] {
        costs_nothing(what, Hostile::start(|_| who, rest, Vec::new()).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_up_after_each_byte_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = listener.local_addr().unwrap().to_string();
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    let byte = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"\0").await;
        }
    });
    let hostile = Hostile { tcp, connections: Arc::clone(&connections), tasks: [byte, tokio::spawn(async {})] };
    costs_nothing("one that hangs up", hostile).await;
    let count = connections.load(Ordering::SeqCst);
    assert!(count < 30, "it was called {count} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_about_channels_that_are_none_cost_nothing() {
    let http = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let many: Vec<String> = (0..100_000).map(|n| format!("\"../{n}\"")).collect();
    for (what, answer) in [
        ("an error", b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a length of 2 GiB", b"HTTP/1.1 200 OK\r\nContent-Length: 2147483647\r\n\r\nxxx".to_vec()),
        ("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_vec()),
        ("a huge body", http(&b" ".repeat(5 << 20))),
        ("invalid names", http(br#"{"channels":["","../x","a b","\u0000"]}"#)),
        ("many invalid names", http(format!("{{\"channels\":[{}]}}", many.join(",")).as_bytes())),
        ("no JSON", http(b"garbage")),
        ("deep JSON", http(&b"[".repeat(1_000_000))),
        ("no HTTP", b"\xff".repeat(100_000)),
        ("silence", Vec::new()),
    ] {
        // Its HTTP side is asked as long as its other side has said where that is.
        costs_nothing(what, Hostile::start(identity, Vec::new(), answer).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_channels_are_not_taken() {
    let many: Vec<String> = (0..50_000).map(|n| format!("\"c{n}\"")).collect();
    let body = format!("{{\"channels\":[{}]}}", many.join(","));
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let hostile = Hostile::start(identity, Vec::new(), answer.into()).await;
    let nsqd = Nsqd::among(&[&hostile.tcp]).await;
    nsqd.publish("t").await;
    assert_eq!(nsqd.channels("t").len(), 1000);
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_topic_is_let_go_at_the_end() {
    let hostile = Hostile::start(identity, Vec::new(), Vec::new()).await;
    let nsqd = Nsqd::among(&[&hostile.tcp]).await;
    let broker = Arc::clone(nsqd.server.broker());
    let waiting = tokio::spawn(async move { broker.create_topic(&topic("t")).await });
    until("the topic", || nsqd.server.broker().has_topic(&topic("t"))).await;
    nsqd.stop().await;
    assert!(tokio::time::timeout(LONG, waiting).await.unwrap().unwrap().is_err());
}
