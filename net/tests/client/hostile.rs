//! Peers that lie, hang or talk nonsense: they cost their own connection, and nothing else.

use crate::world::{Lookupd, Nsqd, Told, consumer, next, producer, text};
use nsq_net::client::Event;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that says the same to everybody, whatever it hears, and then waits.
async fn liar(says: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let says = says.clone();
            tokio::spawn(async move {
                let mut heard = [0; 4096];
                let _ = stream.read(&mut heard).await;
                let _ = stream.write_all(&says).await;
                while stream.read(&mut heard).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}

fn frame(kind: u32, data: &[u8]) -> Vec<u8> {
    [&(4 + data.len() as u32).to_be_bytes()[..], &kind.to_be_bytes(), data].concat()
}

#[tokio::test]
async fn a_lying_nsqd_costs_nothing_but_its_connection() {
    let open = [frame(0, b"{}"), frame(0, b"OK")].concat();
    let after = |rest: &[u8]| [&open[..], rest].concat();
    let mut header = 0x7fff_ffffu32.to_be_bytes().to_vec();
    header.extend([0, 0, 0, 2]);
    let lies = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        frame(0, b"{\"max_rdy_count\":-1}"),
        frame(1, b"E_INVALID no"),
        frame(2, b"a message before anything else, of a good length"),
        header.clone(),
        after(&header),
        after(&frame(9, b"?")),
        after(&frame(0, b"OK")),
        after(&frame(2, b"short")),
        after(&u32::MAX.to_be_bytes().repeat(2)),
    ];
    for lie in lies {
        let (address, nsqd, told) = (liar(lie.clone()).await, Nsqd::start().await, Told::default());
        let mut consumer = consumer("t").nsqd(&address).nsqd(&nsqd.address).on_event(told.listener()).build().unwrap();
        let lost = |event: &Event| match event {
            Event::ConnectFailed { nsqd, .. } | Event::Disconnected { nsqd, .. } => *nsqd == address,
            _ => false,
        };
        // Again and again, but not without a pause.
        let start = Instant::now();
        told.until(3, lost).await;
        assert!(start.elapsed() > Duration::from_millis(60), "{}", lie.escape_ascii());
        producer().nsqd(&nsqd.address).build().unwrap().publish("t", "good").await.unwrap();
        let message = next(&mut consumer).await;
        assert_eq!(text(&message), "good");
        message.finish();
    }
}

/// What an nsqd says to a consumer that sends so many messages, whatever its RDY.
fn messages(count: usize) -> Vec<u8> {
    let mut says = [frame(0, b"{}"), frame(0, b"OK")].concat();
    for number in 0..count {
        let payload = [&[0; 8][..], &[0, 1], format!("{number:016}").as_bytes(), b"x"].concat();
        says.extend(frame(2, &payload));
    }
    says
}

#[tokio::test]
async fn a_flood_of_messages_ends_its_connection() {
    let address = liar(messages(10_000)).await;
    let told = Told::default();
    let _consumer = consumer("t").nsqd(&address).max_in_flight(2).on_event(told.listener()).build().unwrap();
    let flooded = |event: &Event| matches!(event, Event::Disconnected { reason, .. } if reason.contains("RDY"));
    told.until(2, flooded).await;
}

#[tokio::test]
async fn more_messages_than_were_asked_for_are_held_back() {
    let address = liar(messages(6)).await;
    let mut consumer = consumer("t").nsqd(&address).max_in_flight(2).build().unwrap();
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    let third = tokio::time::timeout(Duration::from_millis(300), consumer.next()).await;
    assert!(third.is_err() && consumer.in_flight() == 2, "{third:?}");
    first.finish();
    let third = next(&mut consumer).await;
    assert_eq!(third.id().to_string(), format!("{:016}", 2));
    second.finish();
    third.finish();
}

#[tokio::test]
async fn a_silent_nsqd_is_noticed() {
    let address = liar([frame(0, b"{}"), frame(0, b"OK")].concat()).await;
    let told = Told::default();
    let _consumer = consumer("t")
        .nsqd(&address)
        .heartbeat_interval(Duration::from_secs(1))
        .on_event(told.listener())
        .build()
        .unwrap();
    told.connected(1).await;
    let start = Instant::now();
    told.until(1, |event| matches!(event, Event::Disconnected { reason, .. } if reason.contains("heartbeat"))).await;
    let took = start.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(10)).contains(&took), "{took:?}");
    // One that does not even shake hands has less time.
    let address = liar(Vec::new()).await;
    let told = Told::default();
    let limit = Duration::from_millis(200);
    let _consumer = consumer("t").nsqd(&address).connect_timeout(limit).on_event(told.listener()).build().unwrap();
    told.until(1, |event| matches!(event, Event::ConnectFailed { .. })).await;
}

#[tokio::test]
async fn a_lying_nsqlookupd_costs_nothing_but_an_event() {
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let lies = [
        b"garbage".to_vec(),
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
        answer(""),
        answer("[]"),
        answer(r#"{"producers":17}"#),
        answer(&"[".repeat(100_000)),
        answer(&format!(r#"{{"channels":[],"producers":"{}"}}"#, "x".repeat(5 << 20))),
    ];
    for lie in lies {
        let (address, lookupd, nsqd) = (liar(lie.clone()).await, Lookupd::start().await, Nsqd::start().await);
        let _listed = lookupd.register(&nsqd, "t").await;
        let told = Told::default();
        let mut consumer =
            consumer("t").lookupd(&address).lookupd(&lookupd.http).on_event(told.listener()).build().unwrap();
        let failed = |event: &Event| matches!(event, Event::LookupFailed { nsqlookupd, .. } if *nsqlookupd == address);
        told.until(1, failed).await;
        producer().nsqd(&nsqd.address).build().unwrap().publish("t", "good").await.unwrap();
        next(&mut consumer).await.finish();
    }
}

#[tokio::test]
async fn bad_entries_of_a_list_are_passed_over() {
    let nsqd = Nsqd::start().await;
    let port = nsqd.address.rsplit_once(':').unwrap().1;
    let body = format!(
        r#"{{"producers":[1,null,{{"broadcast_address":5,"tcp_port":"x"}},{{"broadcast_address":"127.0.0.1","tcp_port":{port}}}]}}"#
    );
    let says = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let address = liar(says.into_bytes()).await;
    let told = Told::default();
    let _consumer = consumer("t").lookupd(&address).on_event(told.listener()).build().unwrap();
    told.connected(1).await;
    assert_eq!(told.count(|event| !matches!(event, Event::Connected { .. })), 0);
}
