//! Whom a client connects to, and when.

use crate::client::ConnId;
use crate::client::discovery::{Discovery, Sources, Step};
use crate::client::retry::Retry;
use crate::time::{Duration, Instant};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

struct Client {
    discovery: Discovery,
    now: Instant,
    asked: Vec<usize>,
    connecting: Vec<(ConnId, String)>,
}

impl Client {
    fn new(nsqds: &[&str], lookupds: usize) -> Self {
        let sources = Sources {
            nsqds: nsqds.iter().map(ToString::to_string).collect(),
            lookupds: (0..lookupds).map(|index| alloc::format!("l{index}")).collect(),
            poll_interval: Duration::from_secs(60),
            poll_jitter: 30,
            retry: Retry { first: Duration::from_millis(200), most: Duration::from_secs(30) },
        };
        let now = Instant::from_nanos(1_000_000_000);
        let mut client =
            Self { discovery: Discovery::new(now, sources, 3), now, asked: Vec::new(), connecting: Vec::new() };
        client.pass(Duration::ZERO);
        client
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let mut steps = Vec::new();
            self.discovery.tick(self.now, &mut steps);
            self.discovery.check();
            for step in steps {
                match step {
                    Step::Ask(index) => self.asked.push(index),
                    Step::Connect(conn, address) => self.connecting.push((conn, address)),
                }
            }
            match self.discovery.deadline() {
                Some(due) if due <= end => self.now = self.now.max(due),
                _ => break,
            }
        }
        self.now = end;
    }

    fn list(&mut self, index: usize, nsqds: &[&str]) {
        self.discovery.answered(self.now, index, nsqds.iter().map(ToString::to_string).collect());
        self.pass(Duration::ZERO);
    }

    /// The connections that were begun since the last time; all are opened.
    fn open(&mut self) -> Vec<String> {
        for (conn, _) in &self.connecting {
            self.discovery.opened(self.now, *conn);
        }
        core::mem::take(&mut self.connecting).into_iter().map(|(_, address)| address).collect()
    }

    fn lose(&mut self, address: &str) -> Option<Duration> {
        let conn = self.discovery.conns().find(|conn| self.discovery.address(*conn) == Some(address)).unwrap();
        let retry = self.discovery.lost(self.now, conn);
        self.discovery.check();
        retry
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn configured_and_listed_nsqds_are_connected_once() {
    let mut client = Client::new(&["a", "b", "a"], 2);
    assert_eq!(
        (client.open(), core::mem::take(&mut client.asked)),
        (["a", "b"].map(String::from).to_vec(), [0, 1].to_vec())
    );
    client.list(0, &["b", "c"]);
    client.list(1, &["c", "d"]);
    assert_eq!(client.open(), ["c", "d"]);
    client.pass(SECOND * 59);
    assert_eq!(client.asked, [0; 0]);
    client.pass(SECOND * 20);
    assert_eq!(client.asked, [0, 1], "all of them, after 60 to 78 seconds");
}

#[test]
fn polls_are_spread() {
    let mut client = Client::new(&[], 1);
    let mut intervals = Vec::new();
    for _ in 0..200 {
        let due = client.discovery.deadline().unwrap();
        intervals.push(due.since(client.now).as_millis());
        client.pass(due.since(client.now));
        client.list(0, &[]);
    }
    let (least, most) = (intervals.iter().min().unwrap(), intervals.iter().max().unwrap());
    assert!((60_000..61_000).contains(least) && (77_000..=78_000).contains(most), "{least} {most}");
}

#[test]
fn a_hung_nsqlookupd_holds_up_nobody() {
    let mut client = Client::new(&[], 2);
    client.list(1, &["a"]);
    client.asked.clear();
    client.pass(SECOND * 80);
    assert_eq!(client.asked, [1], "one that has not answered is not asked again");
    client.discovery.unanswered(0);
    client.list(1, &["a"]);
    client.asked.clear();
    client.pass(SECOND * 80);
    assert_eq!(client.asked, [0, 1]);
    assert_eq!(client.open(), ["a"]);
}

#[test]
fn a_connection_that_lives_is_never_given_up() {
    let mut client = Client::new(&[], 1);
    client.list(0, &["a"]);
    client.open();
    for _ in 0..10 {
        client.pass(SECOND * 80);
        client.list(0, &[]);
    }
    assert_eq!(client.discovery.conns().count(), 1);
}

#[test]
fn a_lost_connection_is_made_again_later_and_later() {
    let mut client = Client::new(&["a"], 0);
    let mut delays = Vec::new();
    for _ in 0..12 {
        let delay = client.lose("a").unwrap();
        delays.push(delay.as_millis());
        client.pass(delay);
    }
    for (at, delay) in delays.iter().enumerate() {
        let whole = (200 << at).min(30_000);
        assert!((whole / 2..=whole).contains(delay), "{delays:?}");
    }
    client.open();
    client.pass(SECOND * 10);
    assert!(client.lose("a").unwrap() <= SECOND, "it was a good one");
}

#[test]
fn nsqlookupds_are_asked_at_once_when_a_connection_is_lost() {
    let mut client = Client::new(&["a", "b"], 1);
    client.list(0, &[]);
    client.open();
    client.pass(SECOND * 20);
    client.asked.clear();
    client.lose("a");
    client.lose("b");
    client.pass(Duration::ZERO);
    assert_eq!(client.asked, [0]);
    client.list(0, &[]);
    for _ in 0..50 {
        client.pass(Duration::from_millis(100));
        if client.discovery.conns().next().is_some() {
            client.open();
            let address = client.discovery.address(client.discovery.conns().next().unwrap()).unwrap().to_string();
            client.lose(&address);
        }
        client.list(0, &[]);
    }
    assert!((2..=6).contains(&client.asked.len()), "once a second at most: {}", client.asked.len());
}

#[test]
fn an_attempt_that_failed_is_no_reason_to_ask() {
    let mut client = Client::new(&["a"], 1);
    client.list(0, &[]);
    client.asked.clear();
    while client.now < Instant::from_nanos(25_000_000_000) {
        let delay = client.lose("a").unwrap();
        client.pass(delay);
    }
    assert_eq!(client.asked, [0; 0]);
}

#[test]
fn an_absurd_interval_is_a_long_one() {
    let now = Instant::from_nanos(1_000_000_000);
    let sources =
        Sources { lookupds: Vec::from(["l".to_string()]), poll_interval: Duration::MAX, ..Sources::default() };
    let mut discovery = Discovery::new(now, sources, 3);
    discovery.tick(now, &mut Vec::new());
    assert!(discovery.deadline().unwrap().since(now) > SECOND * 1_000_000_000);
}

#[test]
fn an_nsqd_that_nobody_lists_is_forgotten_after_some_tries() {
    let mut client = Client::new(&[], 1);
    client.list(0, &["a"]);
    client.open();
    client.pass(SECOND * 20);
    client.list(0, &[]);
    let mut tries = 0;
    while let Some(delay) = client.lose("a") {
        tries += 1;
        client.pass(delay);
        client.list(0, &[]);
    }
    assert_eq!(tries, 5);
    client.open();
    client.list(0, &["a"]);
    assert_eq!(client.open(), ["a"], "when it is listed again it is new");
}

#[test]
fn an_nsqd_that_is_listed_is_tried_for_ever() {
    let mut client = Client::new(&["b"], 1);
    client.list(0, &["a"]);
    client.open();
    for _ in 0..50 {
        for address in ["a", "b"] {
            assert!(client.lose(address).is_some());
        }
        // A nsqlookupd that cannot be asked has said what it has said.
        client.discovery.unanswered(0);
        client.pass(SECOND * 30);
        client.open();
    }
}

#[test]
fn a_list_has_its_bounds() {
    let mut client = Client::new(&[], 3);
    for index in 0..3 {
        let many: Vec<_> = (0..4000).map(|port| alloc::format!("{index}:{port}")).collect();
        client.discovery.answered(client.now, index, many);
    }
    client.pass(Duration::ZERO);
    assert_eq!(client.discovery.conns().count(), 4096);
}
