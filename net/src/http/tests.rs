//! `/stats` of a hand-made state, as JSON and as text: every field, every column, `null` and `[]`.

use super::gather::Gathered;
use super::{go, text};
use crate::broker::ProducerStats;
use nsq_core::identity::ClientInfo;
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::time::{Duration, Timestamp};
use nsq_core::topic::io::ConnId;
use nsq_core::topic::stats::{ChannelStats, ConsumerStats, TopicStats};
use std::sync::Arc;

const STARTED: i64 = 1_795_371_173;

#[test]
fn json() {
    let expected = concat!(
        r#"{"version":"1.3.0","health":"OK","start_time":1795371173,"topics":[{"topic_name":"x1","channels":[{"#,
        r#""channel_name":"tail","depth":1,"backend_depth":2,"in_flight_count":3,"deferred_count":4,"message_count":5,"#,
        r#""requeue_count":6,"timeout_count":7,"client_count":1,"clients":[{"client_id":"vm","hostname":"vm","#,
        r#""version":"V2","remote_address":"127.0.0.1:7","state":3,"ready_count":200,"in_flight_count":11,"#,
        r#""message_count":12,"finish_count":13,"requeue_count":14,"connect_ts":1795371174,"sample_rate":15,"#,
        r#""deflate":false,"snappy":false,"user_agent":"a\u003cb\u003e","topology_zone":"z","topology_region":"r","#,
        r#""pub_counts":[{"topic":"x1","count":2},{"topic":"x2","count":3}],"tls":false,"tls_cipher_suite":"","#,
        r#""tls_version":"","tls_negotiated_protocol":"","tls_negotiated_protocol_is_mutual":false}],"paused":true,"#,
        r#""e2e_processing_latency":{"count":0,"percentiles":null}}],"depth":21,"backend_depth":22,"#,
        r#""message_count":23,"message_bytes":24,"paused":false,"#,
        r#""e2e_processing_latency":{"count":0,"percentiles":null}}],"memory":{"heap_objects":0,"heap_idle_bytes":0,"#,
        r#""heap_in_use_bytes":99,"heap_released_bytes":0,"gc_pause_usec_100":0,"gc_pause_usec_99":0,"#,
        r#""gc_pause_usec_95":0,"next_gc_bytes":0,"gc_total_runs":0},"producers":[{"client_id":"vm","#,
        r#""hostname":"vm","version":"V2","remote_address":"127.0.0.1:7","state":3,"ready_count":200,"#,
        r#""in_flight_count":11,"message_count":12,"finish_count":13,"requeue_count":14,"connect_ts":1795371174,"#,
        r#""sample_rate":15,"deflate":false,"snappy":false,"user_agent":"a\u003cb\u003e","topology_zone":"z","#,
        r#""topology_region":"r","pub_counts":[{"topic":"x1","count":2},{"topic":"x2","count":3}],"tls":false,"#,
        r#""tls_cipher_suite":"","tls_version":"","tls_negotiated_protocol":"","#,
        r#""tls_negotiated_protocol_is_mutual":false}]}"#,
    );
    assert_eq!(as_json(&gathered(), true), expected);
}

#[test]
fn null_is_not_empty() {
    let nothing = Gathered { topics: None, producers: None, memory: None, ..gathered() };
    let start = r#"{"version":"1.3.0","health":"OK","start_time":1795371173,"#;
    assert_eq!(as_json(&nothing, true), format!(r#"{start}"topics":null,"producers":null}}"#));
    let no_topics = Gathered { topics: Some(Vec::new()), ..nothing };
    assert_eq!(as_json(&no_topics, true), format!(r#"{start}"topics":[],"producers":null}}"#));

    let without_clients = as_json(&gathered(), false);
    assert!(without_clients.contains(r#""client_count":1,"clients":null,"#), "{without_clients}");
    let mut idle = gathered();
    idle.topics.as_mut().unwrap()[0].channels[0].clients.clear();
    assert!(as_json(&idle, true).contains(r#""clients":[],"#));
    idle.topics.as_mut().unwrap()[0].channels.clear();
    assert!(as_json(&idle, true).contains(r#""channels":[],"#));
}

#[test]
fn a_producer_shows_what_it_consumes_elsewhere() {
    let mut gathered = gathered();
    gathered.elsewhere = gathered.topics.replace(Vec::new()).unwrap();
    let json = as_json(&gathered, true);
    assert!(json.contains(r#""topics":[],"#) && json.contains(r#""ready_count":200,"#), "{json}");
    gathered.elsewhere.clear();
    let json = as_json(&gathered, true);
    assert!(json.contains(r#""state":4,"ready_count":0,"#), "{json}");
}

#[test]
fn text() {
    let expected = "\
nsqd v1.3.0 (built w/rust1.95.0)
start_time 2026-11-22T18:12:53Z
uptime 1m3.300791515s

Health: OK

Memory:
   heap_objects             \t0
   heap_idle_bytes          \t0
   heap_in_use_bytes        \t99
   heap_released_bytes      \t0
   gc_pause_usec_100        \t0
   gc_pause_usec_99         \t0
   gc_pause_usec_95         \t0
   next_gc_bytes            \t0
   gc_total_runs            \t0

Topics:
   [x1             ] depth: 21    be-depth: 22    msgs: 23       e2e%:\u{20}
   *P [tail                     ] depth: 1     be-depth: 2     inflt: 3    def: 4    re-q: 6     timeout: 7     msgs: 5        e2e%:\u{20}
        [V2 vm:7 a<b>            ] state: 3 inflt: 11   rdy: 200  fin: 13       re-q: 14       msgs: 12       connected: 1m2s

Producers:
   [V2 vm:7 a<b>            ] msgs: 5        topics: x1=2,x2=3 connected: 1m2s
";
    assert_eq!(as_text(&gathered()), expected);
}

#[test]
fn text_of_little() {
    let head =
        "nsqd v1.3.0 (built w/rust1.95.0)\nstart_time 2026-11-22T18:12:53Z\nuptime 1m3.300791515s\n\nHealth: OK\n";
    let nothing = Gathered { topics: None, producers: None, memory: None, ..gathered() };
    assert_eq!(as_text(&nothing), format!("{head}\nTopics: None\n\nProducers: None\n"));

    // Topics after the first are set off; a producer of nothing that is shown looks like a consumer.
    let mut two = Gathered { memory: None, ..gathered() };
    let mut topic = two.topics.take().unwrap().remove(0);
    topic.channels.clear();
    topic.paused = true;
    two.topics = Some(vec![topic.clone(), topic]);
    two.producers.as_mut().unwrap()[0].published.clear();
    let line = "*P [x1             ] depth: 21    be-depth: 22    msgs: 23       e2e%: \n";
    let producer = "   [V2 vm:7 a<b>            ] state: 4 inflt: 0    rdy: 0    fin: 0        re-q: 0        msgs: 0        connected: 1m2s\n";
    assert_eq!(as_text(&two), format!("{head}\nTopics:\n{line}\n{line}\nProducers:\n{producer}"));
}

fn as_json(gathered: &Gathered, clients: bool) -> String {
    String::from_utf8(go::json(&gathered.stats(clients))).unwrap()
}

fn as_text(gathered: &Gathered) -> String {
    let now = Timestamp::from_nanos(STARTED * 1_000_000_000 + 63_300_791_515);
    text::render(&gathered.stats(true), "rust1.95.0", now)
}

/// One connection that publishes to two topics and consumes one of them.
fn gathered() -> Gathered {
    let client = Arc::new(ClientInfo {
        client_id: "vm".into(),
        hostname: "vm".into(),
        user_agent: "a<b>".into(),
        topology_region: "r".into(),
        topology_zone: "z".into(),
        remote_address: "127.0.0.1:7".into(),
        connected: Timestamp::from_nanos((STARTED + 1) * 1_000_000_000),
        sample_rate: 15,
        msg_timeout: Duration::from_secs(60),
    });
    let consumer = ConsumerStats {
        conn: ConnId(7),
        client: Arc::clone(&client),
        closing: false,
        ready_count: 200,
        in_flight_count: 11,
        message_count: 12,
        finish_count: 13,
        requeue_count: 14,
    };
    let channel = ChannelStats {
        name: ChannelName::new("tail").unwrap(),
        depth: 1,
        backend_depth: 2,
        in_flight_count: 3,
        deferred_count: 4,
        message_count: 5,
        requeue_count: 6,
        timeout_count: 7,
        finish_count: 8,
        dropped_count: 9,
        lost: 0,
        client_count: 1,
        clients: vec![consumer],
        paused: true,
    };
    let topic = |name| TopicName::new(name).unwrap();
    let stats = TopicStats {
        name: topic("x1"),
        channels: vec![channel],
        depth: 21,
        backend_depth: 22,
        message_count: 23,
        message_bytes: 24,
        paused: false,
        durable: false,
        lost: 0,
        memory: 25,
    };
    let published = vec![(topic("x1"), 2), (topic("x2"), 3)];
    Gathered {
        version: "1.3.0".into(),
        health: "OK".into(),
        started: Timestamp::from_nanos(STARTED * 1_000_000_000),
        topics: Some(vec![stats]),
        elsewhere: Vec::new(),
        producers: Some(vec![ProducerStats { conn: ConnId(7), client, state: 4, published }]),
        memory: Some(99),
    }
}
