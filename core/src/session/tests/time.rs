//! Heartbeats, and how long a silent peer is kept (spec: nsqd_protocol §2.9).

use super::{Peer, sized};
use crate::options::Options;
use crate::time::Duration;

/// Milliseconds until the session wants to be called.
fn wait(peer: &Peer) -> Option<u64> {
    peer.session.deadline().map(|due| due.since(peer.now.instant).as_millis() as u64)
}

fn with_interval(millis: i64) -> Peer {
    let mut peer = Peer::new();
    peer.send("IDENTIFY\n").send(sized(alloc::format!("{{\"heartbeat_interval\":{millis}}}")));
    assert_eq!(peer.frames(), ["response OK"]);
    peer
}

#[test]
fn heartbeats_come_whatever_the_traffic() {
    let mut peer = Peer::new();
    assert_eq!(wait(&peer), Some(30_000));
    for _ in 0..5 {
        assert_eq!(wait(&peer), Some(30_000));
        peer.pass(29_999).send("NOP\n");
        assert!(peer.frames().is_empty());
        peer.pass(1);
        assert_eq!(peer.frames(), ["response _heartbeat_"]);
        assert!(peer.frames().is_empty());
    }
}

#[test]
fn two_intervals_of_silence_end_the_connection_without_a_frame() {
    let mut peer = with_interval(1000);
    peer.pass(1000);
    assert_eq!(peer.frames(), ["response _heartbeat_"]);
    peer.pass(999);
    assert!(peer.frames().is_empty() && !peer.session.is_finished());
    peer.pass(1);
    assert!(peer.frames().is_empty() && peer.session.is_finished());
    assert_eq!(wait(&peer), None);
}

#[test]
fn the_magic_has_a_deadline_and_no_heartbeats() {
    let mut peer = Peer::silent(Options::default());
    peer.send("  V").pass(30_000);
    assert!(peer.frames().is_empty());
    assert_eq!(wait(&peer), Some(30_000));
    peer.pass(30_000);
    assert!(peer.frames().is_empty() && peer.session.is_finished());
}

#[test]
fn half_a_line_is_silence_and_a_body_on_its_way_is_not() {
    let mut peer = with_interval(1000);
    peer.pass(1500).send("NO");
    assert_eq!(wait(&peer), Some(0), "the heartbeat");
    peer.frames();
    peer.pass(500).frames();
    assert!(peer.session.is_finished());

    let mut peer = with_interval(1000);
    peer.send("PUB t\n\0\0\0\x09");
    for _ in 0..8 {
        peer.pass(1500).send("x").frames();
        assert!(!peer.session.is_finished());
    }
    // Read again, but nothing new.
    peer.pass(1000).send("").frames();
    peer.pass(1000).send("").frames();
    assert!(peer.session.is_finished());
}

#[test]
fn who_awaits_a_reply_may_be_silent() {
    let mut peer = with_interval(1000);
    peer.send("PUB t\n\0\0\0\x01x").pass(60_500);
    assert_eq!(peer.frames(), ["response _heartbeat_"]);
    peer.answer_all();
    assert_eq!(peer.frames(), ["response OK"]);
    assert_eq!(wait(&peer), Some(500));
    peer.pass(1999).frames();
    assert!(!peer.session.is_finished());
    peer.pass(1).frames();
    assert!(peer.session.is_finished());
}

#[test]
fn switched_off_nothing_is_due() {
    let mut peer = with_interval(-1);
    assert_eq!((wait(&peer), peer.session.heartbeat_interval()), (None, None));
    peer.pass(1_000_000);
    assert!(peer.frames().is_empty() && !peer.session.is_finished());
    // Switched on again, the beat starts anew.
    peer.send("IDENTIFY\n").send(sized(r#"{"heartbeat_interval":5000}"#));
    assert_eq!(wait(&peer), Some(5000));
}

#[test]
fn the_first_identify_restarts_the_heartbeat_and_the_last_sets_it() {
    let mut peer = Peer::new();
    peer.pass(20_000).send("IDENTIFY\n").send(sized("{}"));
    assert_eq!(wait(&peer), Some(30_000));
    peer.pass(2_000).send("IDENTIFY\n").send(sized(r#"{"heartbeat_interval":10000}"#));
    assert_eq!((wait(&peer), peer.session.heartbeat_interval()), (Some(8_000), Some(Duration::from_secs(10))));
    peer.send("IDENTIFY\n").send(sized(r#"{"heartbeat_interval":0}"#));
    assert_eq!(wait(&peer), Some(8_000), "0 keeps it");
}
