//! Every error text: what is sent, and what it is told (the table of spec: nsqd_protocol §1.5).

use super::{Peer, int32, sized};
use crate::options::Options;
use crate::time::Duration;
use crate::topic::io::Refusal;
use alloc::format;
use alloc::vec::Vec;

fn options() -> Options {
    Options {
        max_msg_size: 100,
        max_body_size: 1000,
        max_rdy_count: 50,
        max_req_timeout: Duration::from_secs(10),
        ..Options::default()
    }
}

#[track_caller]
fn refused(bytes: impl AsRef<[u8]>, error: &str) {
    let mut peer = Peer::with(options());
    peer.send(bytes).assert_ended(error);
}

#[track_caller]
fn refused_subscribed(bytes: impl AsRef<[u8]>, error: &str) {
    let mut peer = Peer::subscribed(options());
    peer.send(bytes).assert_ended(error);
}

/// The peer sends this, and no more.
#[track_caller]
fn unread(bytes: impl AsRef<[u8]>, error: &str) {
    let mut peer = Peer::with(options());
    peer.send(bytes);
    assert!(peer.frames().is_empty() && !peer.session.is_finished());
    peer.eof().assert_ended(error);
}

fn with_size(line: &str, size: i32) -> Vec<u8> {
    [line.as_bytes(), &int32(size)].concat()
}

#[test]
fn magic() {
    for bytes in ["  V1", "GET /ping HTTP/1.1\r\n", "\0\0\0\0"] {
        let mut peer = Peer::silent(options());
        peer.send(bytes).assert_ended("E_BAD_PROTOCOL");
    }
    let mut peer = Peer::silent(options());
    peer.send("  ").eof();
    assert!(peer.frames().is_empty() && peer.session.is_finished());
}

#[test]
fn unknown_commands() {
    for (line, name) in [
        ("ASDF one", "ASDF"),
        ("nop", "nop"),
        ("", ""),
        ("\r", ""),
        (" NOP", ""),
        ("NOP\tx", "NOP\tx"),
        ("NOP\r\r", "NOP\r"),
    ] {
        refused(format!("{line}\n"), &format!("E_INVALID invalid command {name}"));
    }
    let mut peer = Peer::new();
    peer.send(b"\xff\0Z\n").frames();
    peer.send(b"\xff\0Z\n");
    assert!(peer.session.is_finished());
}

#[test]
fn bytes_that_are_not_text_come_back_as_they_were() {
    for (line, text) in [
        (&b"\xff\0Z\n"[..], &b"\0\0\0\x21\0\0\0\x01E_INVALID invalid command \xff\0Z"[..]),
        (b"SUB t c\nRDY \xff\n", b"\0\0\0\x29\0\0\0\x01E_INVALID RDY could not parse count \xff"),
    ] {
        let mut peer = Peer::new();
        peer.send(line).answer_all();
        let mut out = core::mem::take(&mut peer.out);
        peer.session.flush(peer.now, &mut out);
        assert!(out.ends_with(text), "{}", out.escape_ascii());
    }
}

#[test]
fn wrong_state() {
    for command in ["RDY x", "FIN", "REQ", "TOUCH", "CLS"] {
        refused(format!("{command}\n"), &format!("E_INVALID cannot {command} in current state").replace(" x ", " "));
    }
    refused("FIN 0123456789abcdef\n", "E_INVALID cannot FIN in current state");
    for command in ["IDENTIFY", "AUTH", "SUB"] {
        refused_subscribed(format!("{command}\n"), &format!("E_INVALID cannot {command} in current state"));
        let mut peer = Peer::subscribed(options());
        peer.send("CLS\n").answer_all();
        assert_eq!(peer.frames(), ["response CLOSE_WAIT"]);
        peer.send(format!("{command}\n")).assert_ended(&format!("E_INVALID cannot {command} in current state"));
    }
    let mut peer = Peer::subscribed(options());
    peer.send("CLS\n").answer_all().frames();
    peer.send("CLS\n").assert_ended("E_INVALID cannot CLS in current state");
}

#[test]
fn bodies_of_identify_and_auth() {
    for op in ["IDENTIFY", "AUTH"] {
        let line = format!("{op}\n");
        unread(&line, &format!("E_BAD_BODY {op} failed to read body size"));
        unread(format!("{line}\0\0\0"), &format!("E_BAD_BODY {op} failed to read body size"));
        unread(with_size(&line, 10), &format!("E_BAD_BODY {op} failed to read body"));
        for size in [1001, i32::MAX] {
            refused(with_size(&line, size), &format!("E_BAD_BODY {op} body too big {size} > 1000"));
        }
        for size in [0, -1, i32::MIN] {
            refused(with_size(&line, size), &format!("E_BAD_BODY {op} invalid body size {size}"));
        }
    }
    refused("AUTH now\n", "E_INVALID AUTH invalid number of parameters");
    refused("AUTH \n", "E_INVALID AUTH invalid number of parameters");
    refused([b"AUTH\n", &sized("secret")[..]].concat(), "E_AUTH_DISABLED AUTH disabled");
}

#[test]
fn sub() {
    refused("SUB\n", "E_INVALID SUB insufficient number of parameters");
    refused("SUB t\n", "E_INVALID SUB insufficient number of parameters");
    refused("SUB  t c\n", "E_BAD_TOPIC SUB topic name \"\" is not valid");
    refused("SUB a/b c/d\n", "E_BAD_TOPIC SUB topic name \"a/b\" is not valid");
    refused("SUB t \"\\\n", r#"E_BAD_CHANNEL SUB channel name "\"\\" is not valid"#);
    refused("SUB t  c\n", "E_BAD_CHANNEL SUB channel name \"\" is not valid");
    for line in ["SUB t c\n", "SUB\n"] {
        let mut peer = Peer::with(options());
        peer.send("IDENTIFY\n").send(sized(r#"{"heartbeat_interval":-1}"#));
        assert_eq!(peer.frames(), ["response OK"]);
        peer.send(line).assert_ended("E_INVALID cannot SUB with heartbeats disabled");
    }
}

#[test]
fn rdy() {
    for word in ["x", "-1", "+1", "1.0", "1x", "0x1"] {
        refused_subscribed(format!("RDY {word}\n"), &format!("E_INVALID RDY could not parse count {word}"));
    }
    for count in ["51", "99999", "4294967296"] {
        refused_subscribed(format!("RDY {count}\n"), &format!("E_INVALID RDY count {count} out of range 0-50"));
    }
    refused_subscribed("RDY 18446744073709551615\n", "E_INVALID RDY count -1 out of range 0-50");
}

#[test]
fn fin_touch_req() {
    for op in ["FIN", "TOUCH", "REQ"] {
        refused_subscribed(format!("{op}\n"), &format!("E_INVALID {op} insufficient number of params"));
        for id in ["", "0123456789abcde", "0123456789abcdef0"] {
            refused_subscribed(format!("{op} {id} 0\n"), "E_INVALID invalid message ID");
        }
    }
    refused_subscribed("REQ short\n", "E_INVALID REQ insufficient number of params");
    for word in ["soon", "-1"] {
        let error = format!("E_INVALID REQ could not parse timeout {word}");
        refused_subscribed(format!("REQ 0123456789abcdef {word}\n"), &error);
    }
}

#[test]
fn pub_and_dpub() {
    refused("PUB\n", "E_INVALID PUB insufficient number of parameters");
    refused("DPUB t\n", "E_INVALID DPUB insufficient number of parameters");
    refused("DPUB a/b x\n", "E_BAD_TOPIC DPUB topic name \"a/b\" is not valid");
    for word in ["soon", "-1", "1.5"] {
        refused(format!("DPUB t {word}\n"), &format!("E_INVALID DPUB could not parse timeout {word}"));
    }
    for delay in ["10001", "18446744073709551615"] {
        refused(format!("DPUB t {delay}\n"), &format!("E_INVALID DPUB timeout {delay} out of range 0-10000"));
    }
    for (op, line) in [("PUB", "PUB t\n"), ("DPUB", "DPUB t 10000\n")] {
        unread(line, &format!("E_BAD_MESSAGE {op} failed to read message body size"));
        unread(format!("{line}\0\0\0"), &format!("E_BAD_MESSAGE {op} failed to read message body size"));
        unread(with_size(line, 9), &format!("E_BAD_MESSAGE {op} failed to read message body"));
        for size in [0, -1, i32::MIN] {
            refused(with_size(line, size), &format!("E_BAD_MESSAGE {op} invalid message body size {size}"));
        }
        for size in [101, i32::MAX] {
            refused(with_size(line, size), &format!("E_BAD_MESSAGE {op} message too big {size} > 100"));
        }
        let mut peer = Peer::with(options());
        peer.send(line).send(sized("x".repeat(100))).answer_all();
        assert_eq!(peer.frames(), ["response OK"]);
        // The same topic again, in one piece: the short way.
        for (size, error) in [
            (0, "invalid message body size 0"),
            (-1, "invalid message body size -1"),
            (101, "message too big 101 > 100"),
        ] {
            let mut peer = Peer::with(options());
            peer.send(line).send(sized("x")).answer_all().frames();
            peer.send([line.as_bytes(), &int32(size), &[b'x'; 200]].concat());
            peer.assert_ended(&format!("E_BAD_MESSAGE {op} {error}"));
        }
    }
}

#[test]
fn names_are_quoted_as_go_does() {
    refused("PUB  t\n", "E_BAD_TOPIC PUB topic name \"\" is not valid");
    refused("PUB a\"b\n", r#"E_BAD_TOPIC PUB topic name "a\"b" is not valid"#);
    refused(b"PUB x\xffy\n", r#"E_BAD_TOPIC PUB topic name "x\xffy" is not valid"#);
    refused("MPUB é\u{a0}\n", "E_BAD_TOPIC E_BAD_TOPIC MPUB topic name \"é\\u00a0\" is not valid");
}

#[test]
fn mpub() {
    let mpub = |parts: &[&[u8]]| [b"MPUB t\n", &parts.concat()[..]].concat();
    refused("MPUB\n", "E_INVALID MPUB insufficient number of parameters");
    unread(mpub(&[b"\0"]), "E_BAD_BODY MPUB failed to read body size");
    for size in [0, -5] {
        refused(mpub(&[&int32(size)]), &format!("E_BAD_BODY MPUB invalid body size {size}"));
    }
    refused(mpub(&[&int32(1001)]), "E_BAD_BODY MPUB body too big 1001 > 1000");
    unread(mpub(&[&int32(20), b"\0\0"]), "E_BAD_BODY MPUB failed to read message count");
    for count in [0, -1, 200] {
        let error = format!("E_BAD_BODY MPUB invalid message count {count}");
        refused(mpub(&[&int32(20), &int32(count)]), &error);
    }
    let one = [&int32(20)[..], &int32(2), &sized("x")].concat();
    unread(mpub(&[&one]), "E_BAD_MESSAGE MPUB failed to read message(1) body size");
    unread(mpub(&[&one, b"\0\0"]), "E_BAD_MESSAGE MPUB failed to read message(1) body size");
    unread(mpub(&[&one, &int32(10), b"short"]), "E_BAD_MESSAGE MPUB failed to read message body");
    for size in [0, -7] {
        let error = format!("E_BAD_MESSAGE MPUB invalid message(1) body size {size}");
        refused(mpub(&[&one, &int32(size)]), &error);
    }
    refused(mpub(&[&one, &int32(101)]), "E_BAD_MESSAGE MPUB message too big 101 > 100");
}

#[test]
fn an_mpub_is_what_its_count_and_sizes_say_within_the_limit() {
    let mut peer = Peer::with(options());
    let three = [&int32(1)[..], &sized("three")].concat();
    peer.send("MPUB t\n").send(int32(7)).send(&three).send("MPUB t\n").send(int32(900)).send(&three);
    // Exactly the largest body: 199 messages.
    let most = [&int32(199)[..], &sized("x").repeat(198), &sized("yy")].concat();
    peer.send("MPUB t\n").send(sized(most)).answer_all();
    assert_eq!(peer.frames(), ["response OK"; 3]);
    let more = [&int32(10)[..], &sized("x".repeat(100)).repeat(9), &int32(61)].concat();
    peer.send("MPUB t\n").send(int32(7)).send(more).assert_ended("E_BAD_BODY MPUB body too big 1005 > 1000");
}

#[test]
fn refusals_of_topics() {
    let full = "queue memory limit reached, see --mem-queue-bytes";
    let publishes = [
        ("PUB", "PUB t\n\0\0\0\x01x"),
        ("DPUB", "DPUB t 1\n\0\0\0\x01x"),
        ("MPUB", "MPUB t\n\0\0\0\x09\0\0\0\x01\0\0\0\x01x"),
    ];
    for (op, bytes) in publishes {
        for (why, text) in [(Refusal::QueueFull, full), (Refusal::Exiting, "exiting")] {
            let mut peer = Peer::with(options());
            let slot = peer.send(bytes).slots()[0];
            peer.reply(slot, Err(why)).assert_ended(&format!("E_{op}_FAILED {op} failed {text}"));
        }
    }
    let (topic, channel) = (crate::name::TopicName::new("t"), crate::name::ChannelName::new("c"));
    let (Some(topic), Some(channel)) = (topic, channel) else { panic!() };
    for (why, text) in [
        (Refusal::TooManyConsumers { topic, channel, limit: 2 }, "consumers for t:c exceeds limit of 2"),
        (Refusal::Exiting, "exiting"),
    ] {
        let mut peer = Peer::with(options());
        let slot = peer.send("SUB t c\n").slots()[0];
        peer.reply(slot, Err(why)).assert_ended(&format!("E_SUB_FAILED SUB failed {text}"));
    }
}
