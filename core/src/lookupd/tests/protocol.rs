//! The V1 protocol: commands, errors, limits, time. Recorded conversations with NSQ say the rest.

use super::*;
use crate::lookupd::session::BODY_MAX;
use crate::session::line;
use alloc::vec;

#[test]
fn commands_become_what_the_registry_is_told() {
    let mut peer = Peer::new();
    peer.send("PING\n").send(identify(BODY)).send("REGISTER t c\nREGISTER t  x\n UNREGISTER t c \r\nUNREGISTER t\n");
    let expected = Producer {
        remote_address: "1.2.3.4:5".into(),
        hostname: "h1".into(),
        broadcast_address: "10.0.0.1".into(),
        tcp_port: 4150,
        http_port: 4151,
        version: "1.3.0".into(),
        ..Producer::default()
    };
    assert_eq!(
        peer.commands,
        [
            Command::Ping,
            Command::Identify(expected),
            Command::Register(topic("t"), Some(channel("c"))),
            Command::Register(topic("t"), None),
            Command::Unregister(topic("t"), Some(channel("c"))),
            Command::Unregister(topic("t"), None),
        ]
    );
    let identity = r#"{\"broadcast_address\":\"\",\"hostname\":\"\\u003cme\\u003e\",\"http_port\":4161,\"tcp_port\":0,\"version\":\"\"}"#;
    assert_eq!(peer.replies(), ["OK", identity, "OK", "OK", "OK", "OK"]);
}

#[test]
fn an_error_is_the_last_reply_and_nothing_is_read_after_it() {
    let mut peer = Peer::identified();
    peer.send("REGISTER a\nBOGUS x\nREGISTER b\n").send("REGISTER c\n");
    assert_eq!(peer.commands, [Command::Register(topic("a"), None)]);
    assert_eq!(peer.replies(), ["OK", "E_INVALID invalid command BOGUS", "end"]);
    assert!(peer.input.is_empty());
    assert_eq!(peer.session.deadline(), None);
}

#[test]
fn names_are_shown_as_they_came() {
    for (line, error) in [
        (&b"REGISTER a'\xff c\n"[..], "E_BAD_TOPIC REGISTER topic name \\'a\\'\\xff\\' is not valid"),
        (b"UNREGISTER t *\n", "E_BAD_CHANNEL UNREGISTER channel name \\'*\\' is not valid"),
        (b"REGISTER\n", "E_INVALID REGISTER insufficient number of params"),
        (b"IDENTIFY\n", "E_INVALID cannot IDENTIFY again"),
        (b"\xc2\xa0\xe2\x80\x83\n", "E_INVALID invalid command "),
        (b"\xff\x00\n", "E_INVALID invalid command \\xff\\x00"),
    ] {
        assert_eq!(Peer::identified().send(line).replies(), [error, "end"]);
    }
}

#[test]
fn lengths_that_kill_upstream_end_one_connection() {
    for (size, error) in [
        (-1, "E_BAD_BODY IDENTIFY invalid body size -1"),
        (i32::MIN, "E_BAD_BODY IDENTIFY invalid body size -2147483648"),
        (i32::MAX, "E_BAD_BODY IDENTIFY body too big 2147483647 > 1048576"),
        (BODY_MAX as i32 + 1, "E_BAD_BODY IDENTIFY body too big 1048577 > 1048576"),
        (0, "E_BAD_BODY IDENTIFY failed to decode JSON body"),
    ] {
        let mut peer = Peer::new();
        peer.send([b"IDENTIFY\n", &size.to_be_bytes()[..]].concat());
        assert_eq!(peer.replies(), [error, "end"]);
        assert!(peer.commands.is_empty());
    }
}

#[test]
fn a_body_may_be_as_large_as_the_limit() {
    let mut body = BODY.as_bytes().to_vec();
    body.resize(BODY_MAX, b' ');
    let mut peer = Peer::new();
    peer.send(identify(body));
    assert_eq!((peer.replies().len(), peer.commands.len(), peer.session.is_finished()), (1, 1, false));
}

#[test]
fn a_line_may_be_as_long_as_the_limit() {
    let mut line = vec![b' '; line::MAX - 5];
    line.extend_from_slice(b"PING\n");
    assert_eq!(Peer::new().send(&line).replies(), ["OK"]);
    line.insert(0, b' ');
    let error = "E_INVALID command line too long, the most is 16384 bytes";
    assert_eq!(Peer::new().send(&line).replies(), [error, "end"]);
    assert_eq!(Peer::new().send(vec![b'x'; line::MAX]).replies(), [error, "end"]);
}

#[test]
fn what_is_missing_at_the_end_of_the_stream_is_told() {
    for (sent, replies) in [
        (&b""[..], &["end"][..]),
        (b"REGISTER t", &["end"]),
        (b"IDENTIFY\n\0\0", &["E_BAD_BODY IDENTIFY failed to read body size", "end"]),
        (b"IDENTIFY\n\0\0\0\x02{", &["E_BAD_BODY IDENTIFY failed to read body", "end"]),
    ] {
        let mut peer = Peer::new();
        assert_eq!(peer.send(sent).eof().replies(), replies);
        assert_eq!(peer.eof().replies(), ["end"], "it is told once");
    }
}

#[test]
fn a_peer_that_does_not_say_what_it_speaks_is_given_up() {
    let mut peer = Peer::silent();
    peer.now = at(64);
    peer.send("  V");
    assert_eq!(peer.session.deadline(), Some(at(65).instant));
    peer.session.tick(at(64));
    assert!(!peer.session.is_finished());
    peer.session.tick(at(65));
    assert_eq!(peer.replies(), ["end"]);
}

#[test]
fn a_silent_peer_is_given_up_after_ten_minutes() {
    let mut peer = Peer::identified();
    peer.now = at(100);
    peer.send("PING\n");
    peer.now = at(600);
    // A command that does not end is no sign of life.
    peer.send("PIN");
    assert_eq!(peer.session.deadline(), Some(at(700).instant));
    peer.session.tick(at(699));
    assert_eq!(peer.replies(), ["OK"]);
    peer.session.tick(at(700));
    assert_eq!(peer.replies(), ["end"]);
}

#[test]
fn a_long_inactive_producer_timeout_makes_for_patience() {
    let options = Options { inactive_producer_timeout: Duration::from_secs(3600), ..Options::default() };
    let mut session = Session::new(at(0), String::new(), Arc::default(), &options);
    session.read(at(0), &mut BytesMut::from("  V1"), &mut Vec::new(), &mut Vec::new());
    assert_eq!(session.deadline(), Some(at(7200).instant));
}
